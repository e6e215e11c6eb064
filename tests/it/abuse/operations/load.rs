//! More than a server can take, too little of what it needs, and signals.

use std::collections::BTreeSet;
use std::time::Duration;

use mayfly::config::Settings;
use mayfly::dev::oidc::TestClaims;
use rustix::process::Signal;
use serde_json::json;

use crate::operating::Trusting;
use crate::support::http::{self, Answer, Connection, Request};
use crate::support::issuer::{HostileIssuer, signed_by, with_token};
use crate::support::key::TestKey;
use crate::support::process::{Process, run};
use crate::support::refusal::Expected;
use crate::support::server::{EMAIL, TestServer, V2, test_keys};
use crate::support::wait_for;

/// Sends a request on so many connections at once. The answers are still to be read.
fn send_on_many(
    server: &TestServer,
    count: usize,
    request: &Request,
) -> Vec<Connection<std::net::TcpStream>> {
    let octets = request.octets();
    let open = |_| Connection::open(server.address);
    let mut connections: Vec<_> = (0..count).map(open).collect();
    for connection in &mut connections {
        connection.write(&octets).unwrap();
    }
    connections
}

/// Reads the answers, and parts the certificates from the refusals, which all must be of an overload.
fn answers(connections: Vec<Connection<std::net::TcpStream>>) -> (usize, Vec<Answer>) {
    let mut issued = 0;
    let mut refused = Vec::new();
    for mut connection in connections {
        let answer = connection.answer_to("POST").unwrap();
        if answer.status == 200 {
            issued += 1;
            continue;
        }
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert_eq!(answer.header("mayfly-reason"), Some("overloaded"));
        assert_eq!(answer.json()["code"], 14);
        refused.push(answer);
    }
    (issued, refused)
}

#[test]
fn a_crowd_is_admitted_in_part_and_the_others_are_spread_over_the_next_seconds() {
    let few = |settings: &mut Settings| settings.max_waiting = Some(32);
    let server = TestServer::start_with(few, "");
    let log = server.log.as_ref().unwrap();
    log.hold();
    let crowd = send_on_many(&server, 200, &server.good_request());
    wait_for("the refusals", || {
        (server.refusals("overloaded") == 168).then_some(())
    });
    assert_eq!(server.get("/healthz").status, 200, "health needs no place");
    log.let_go();

    let (issued, refused) = answers(crowd);
    assert_eq!((issued, refused.len()), (32, 168));
    let waits: BTreeSet<_> = refused
        .iter()
        .map(|answer| answer.header("retry-after").unwrap())
        .collect();
    assert_eq!(waits.into_iter().collect::<Vec<_>>(), ["1", "2", "3"]);
    let traces = server.traces();
    assert_eq!(
        (traces.submissions, traces.entries, traces.certificates),
        (32, 32, 32)
    );
    server.issues("after the crowd", &server.good_request());
}

#[test]
fn senders_of_slow_bodies_take_no_place_from_others() {
    let one = |settings: &mut Settings| settings.max_waiting = Some(1);
    let server = TestServer::start_with(one, "");
    let begun = "POST /api/v2/signingCert HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{";
    let mut slow: Vec<_> = (0..100).map(|_| Connection::open(server.address)).collect();
    for connection in &mut slow {
        connection.write(begun.as_bytes()).unwrap();
    }
    server.issues("among slow senders", &server.good_request());
}

#[test]
fn bodies_longer_than_any_client_sends_have_few_places() {
    let large = |settings: &mut Settings| settings.max_body_bytes = Some("8MiB".parse().unwrap());
    let server = TestServer::start_with(large, "");
    let body = vec![b' '; 16 << 10];
    let begun = [
        b"POST /api/v2/signingCert HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n".as_slice(),
        &body,
    ]
    .concat();
    let mut slow: Vec<_> = (0..3).map(|_| Connection::open(server.address)).collect();
    for connection in &mut slow {
        connection.write(&begun).unwrap();
    }
    wait_for("the third to be refused", || {
        (server.refusals("overloaded") == 1).then_some(())
    });
    server.issues("a body of the usual length", &server.good_request());
}

#[test]
fn a_slow_key_serves_what_it_can_and_signs_nothing_for_the_others() {
    let server = TestServer::start_with_key(|key| key.paced(Duration::from_millis(100)), |_| {});
    let before = server.traces();
    let crowd = send_on_many(&server, 50, &server.good_request());
    let (issued, refused) = answers(crowd);
    assert!(
        issued >= 1 && !refused.is_empty(),
        "{issued} issued, {} refused",
        refused.len()
    );
    for answer in refused {
        let message = answer.json()["message"].as_str().unwrap().to_owned();
        assert!(
            message.ends_with(": more is asked of the signing key than it can do"),
            "{message}"
        );
    }
    let traces = server.traces();
    let issued = issued as u64;
    assert_eq!(traces.signatures - before.signatures, 2 * issued);
    assert_eq!((traces.submissions, traces.entries), (issued, issued));
    server.issues("after the crowd", &server.good_request());
}

#[test]
fn each_limit_of_rates_is_counted_for_itself_and_passes() {
    let expected = Expected {
        status: 429,
        code: 8,
        reasons: &["rate_limited"],
    };
    for (scope, waits) in [
        ("ip", "30"),
        ("issuer", "30"),
        ("subject", "30"),
        ("global", "30"),
    ] {
        let limit = format!("{scope}=2/m:2");
        let limited = |settings: &mut Settings| settings.rate_limit = Some(limit.parse().unwrap());
        let server = TestServer::start_with(limited, "");
        let of = |email: &str| {
            let token = server.token(&TestClaims::email(email));
            Request::post(V2, TestKey::generate().v2(email).to_string()).bearer(&token)
        };
        for _ in 0..2 {
            server.issues(scope, &of(EMAIL));
        }
        let answer = server.answers_with(scope, &of(EMAIL), expected);
        assert_eq!(answer.header("retry-after"), Some(waits), "{scope}");
        let counted = format!(r#"mayfly_rate_limited_total{{scope="{scope}"}}"#);
        assert_eq!(server.metric(&counted), 1, "{scope}");
        if scope == "subject" {
            server.issues("another subject", &of("grace@example.com"));
        } else {
            server.answers_with("another subject", &of("grace@example.com"), expected);
        }
        // Other paths are not limited: monitoring and verifiers ask them.
        assert_eq!(server.get("/api/v2/trustBundle").status, 200, "{scope}");

        server.clock.advance(Duration::from_secs(30));
        server.issues("half a minute later", &of(EMAIL));
    }
}

#[test]
fn an_entry_s_own_rate_takes_the_place_of_the_server_s() {
    for (limit, rate, first) in [(None, "1/m:2", 2), (Some("issuer=1/m:1"), "1/m:3", 3)] {
        let issuer = HostileIssuer::start();
        issuer.serve("limited");
        let url = issuer.url("limited");
        let entry = format!(
            "  {url}:\n    issuer-url: {url}\n    client-id: sigstore\n    type: email\n    rate: {rate}\n"
        );
        let limited = |settings: &mut Settings| {
            settings.rate_limit = limit.map(|limit| limit.parse().unwrap());
        };
        let server = TestServer::start_with(limited, &entry);
        let header = json!({ "alg": "ES256", "kid": "test-ec" });
        let token = signed_by(test_keys(), &header, &issuer.claims("limited"));
        for _ in 0..first {
            server.issues(rate, &with_token(&token));
        }
        let expected = Expected {
            status: 429,
            code: 8,
            reasons: &["rate_limited"],
        };
        let answer = server.answers_with(rate, &with_token(&token), expected);
        assert_eq!(answer.header("retry-after"), Some("60"), "{rate}");
        assert_eq!(
            server.metric(r#"mayfly_rate_limited_total{scope="issuer"}"#),
            1
        );
        // Another entry has what it had.
        server.issues("of another issuer", &server.good_request());
    }
}

#[test]
fn a_refused_token_uses_up_nothing_of_its_subject() {
    let limited = |settings: &mut Settings| {
        settings.rate_limit = Some("subject=1/h:1,issuer=1/h:1".parse().unwrap())
    };
    let server = TestServer::start_with(limited, "");
    let good = server.good_request();
    let forged = |request: &Request| {
        let mut request = request.clone();
        for (_, value) in request
            .headers
            .iter_mut()
            .filter(|(name, _)| name == "Authorization")
        {
            let (signed, _) = value.rsplit_once('.').unwrap();
            *value = format!("{signed}.{}", "A".repeat(86));
        }
        request
    };
    for _ in 0..3 {
        server.refuses("a forged token", &forged(&good), &["bad_token_signature"]);
    }
    server.issues("whose token it is", &good);
}

#[test]
fn a_stop_under_load_loses_no_request_that_has_begun() {
    let trusting = Trusting::new();
    let process = Process::start(&mut trusting.instance.serve());
    let octets = trusting.good_request().octets();
    let (begun, rest) = octets.split_at(octets.len() - 20);
    let mut clients: Vec<_> = (0..24).map(|_| Connection::open(process.address)).collect();
    for client in &mut clients {
        client.write(begun).unwrap();
    }
    // Answered on the same thread: those before it have been read by then.
    assert_eq!(
        http::send(process.address, &Request::get("/healthz")).status,
        200
    );

    process.terminate();
    wait_for("health to fail, so that a balancer sends no more", || {
        let answer = http::send(process.metrics_address, &Request::get("/healthz"));
        (answer.status == 503).then_some(())
    });
    for client in &mut clients {
        client.write(rest).unwrap();
    }
    for client in &mut clients {
        let answer = client.answer_to("POST").unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(process.end().0, 0);
}

#[test]
fn signals_that_mean_nothing_do_nothing_and_a_second_stop_ends_at_once() {
    let trusting = Trusting::new();
    let mut process = Process::start(&mut trusting.instance.serve());
    for signal in [Signal::HUP, Signal::USR1, Signal::PIPE, Signal::CHILD] {
        process.signal(signal);
    }
    assert_eq!(process.events("signal_ignored", 1).len(), 1);
    let reloaded = &process.events("config.reloaded", 1)[0];
    assert_eq!(reloaded["is_changed"], false);
    let answer = http::send(process.address, &trusting.good_request());
    assert_eq!(answer.status, 200, "{}", answer.text());

    // A request whose body never ends keeps the server from stopping.
    let mut open = Connection::open(process.address);
    open.write(b"POST /api/v2/signingCert HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{")
        .unwrap();
    assert_eq!(
        http::send(process.address, &Request::get("/healthz")).status,
        200
    );
    process.terminate();
    process.events("stopping", 1);
    // One that follows at once is taken for the same.
    wait_for("the end", || {
        if process.is_running() {
            process.terminate();
        }
        (!process.is_running()).then_some(())
    });
    let (code, lines) = process.end();
    assert_eq!(code, 1, "{lines:#?}");
}

#[test]
fn a_server_that_may_open_too_few_files_says_so_and_does_not_start() {
    let trusting = Trusting::new();
    let outcome = run(&mut trusting.instance.serve_within("ulimit -n 64"));
    assert_ne!(outcome.code, 0);
    assert!(
        outcome
            .stderr
            .contains("the limit of open files is 64; give 144 or more"),
        "{}",
        outcome.stderr
    );
}
