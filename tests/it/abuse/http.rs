//! Hostile HTTP: framing, heads, bodies, paths, headers that lie, and too many connections.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mayfly::config::Settings;
use mayfly::dev::oidc::TestClaims;
use serde_json::json;
use socket2::SockRef;

use crate::operating::Trusting;
use crate::support::http::{self, Connection, Request};
use crate::support::key::TestKey;
use crate::support::process::Process;
use crate::support::refusal::Expected;
use crate::support::server::{EMAIL, TestServer, V1, V2};
use crate::support::wait_for;

/// Sends octets on a connection of their own and returns all that comes back until the server closes it.
fn exchange(address: SocketAddr, octets: &[u8]) -> String {
    let mut connection = Connection::open(address);
    // The server may close before all is written.
    let _ = connection.write(octets);
    connection.finish_sending_if_open();
    String::from_utf8_lossy(&connection.rest()).into_owned()
}

/// Checks that an answer, if there is one, is a single one, and says that the client is wrong.
fn is_refused_once(what: &str, answers: &str) {
    assert!(
        answers.is_empty() || answers.starts_with("HTTP/1.1 4"),
        "{what}: {answers}"
    );
    assert!(
        answers.matches("HTTP/1.1 ").count() <= 1,
        "{what}: {answers}"
    );
}

#[test]
fn nothing_behind_a_framing_error_is_served() {
    let server = TestServer::start();
    let smuggled = "GET /api/v2/trustBundle HTTP/1.1\r\nHost: a\r\n\r\n";
    let post = "POST /api/v2/signingCert HTTP/1.1\r\nHost: a\r\n";
    for (what, octets) in [
        (
            "two transfer codings",
            format!(
                "{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
        ),
        (
            "two transfer codings, the last unknown",
            format!("{post}Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n"),
        ),
        (
            "chunked is not the last coding",
            format!("{post}Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
        ),
        (
            "a length and a coding, the coding first",
            format!("{post}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
        ),
        (
            "a coding in a request of version 1.0",
            "POST /api/v2/signingCert HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"
                .to_owned(),
        ),
        (
            "the same length twice with another between",
            format!("{post}Content-Length: 2\r\nContent-Length: 3\r\nContent-Length: 2\r\n\r\n{{}}"),
        ),
        (
            "a length with a letter",
            format!("{post}Content-Length: 2a\r\n\r\n{{}}"),
        ),
        (
            "a length that no number holds",
            format!("{post}Content-Length: 99999999999999999999\r\n\r\n{{}}"),
        ),
        (
            "a chunk's size that no number holds",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\n{{}}\r\n0\r\n\r\n"),
        ),
        (
            "a chunk longer than its size",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n1\r\n{{}}\r\n0\r\n\r\n"),
        ),
        (
            "a chunk whose line ends with a bare line feed",
            format!("{post}Transfer-Encoding: chunked\r\n\r\n2\n{{}}\r\n0\r\n\r\n"),
        ),
        (
            "a carriage return in a header",
            format!("{post}X: a\rContent-Length: 9\r\n\r\n"),
        ),
        (
            "a header without a name",
            format!("{post}: a\r\n\r\n"),
        ),
        (
            "a header without a colon",
            format!("{post}a\r\n\r\n"),
        ),
    ] {
        let answers = exchange(server.address, format!("{octets}{smuggled}").as_bytes());
        is_refused_once(what, &answers);
    }
    let served = server.metric(
        r#"mayfly_http_requests_total{code="200",endpoint="v2_trust_bundle",method="get"}"#,
    );
    assert_eq!(served, 0);
}

#[test]
fn a_head_beyond_its_limits_is_cut_off() {
    let server = TestServer::start();
    let long = "a".repeat(1 << 20);
    let many: String = (0..10_000).map(|n| format!("x{n}: y\r\n")).collect();
    for (what, octets) in [
        (
            "a request line of 1 MiB",
            format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
        ),
        (
            "a method of 1 MiB",
            format!("{long} / HTTP/1.1\r\nHost: a\r\n\r\n"),
        ),
        (
            "a header of 1 MiB",
            format!("GET /healthz HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"),
        ),
        (
            "a header's name of 1 MiB",
            format!("GET /healthz HTTP/1.1\r\nHost: a\r\n{long}: x\r\n\r\n"),
        ),
        (
            "10,000 headers",
            format!("GET /healthz HTTP/1.1\r\nHost: a\r\n{many}\r\n"),
        ),
    ] {
        is_refused_once(what, &exchange(server.address, octets.as_bytes()));
    }
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn a_request_names_one_host() {
    let server = TestServer::start();
    for (what, head) in [
        ("no host", "GET /api/v2/trustBundle HTTP/1.1\r\n"),
        (
            "two hosts",
            "GET /api/v2/trustBundle HTTP/1.1\r\nHost: a\r\nHost: b\r\n",
        ),
        (
            "one host twice",
            "GET /api/v2/trustBundle HTTP/1.1\r\nHost: a\r\nHost: a\r\n",
        ),
    ] {
        let answers = exchange(server.address, format!("{head}\r\n").as_bytes());
        assert!(answers.starts_with("HTTP/1.1 400 "), "{what}: {answers}");
    }
    for (what, head) in [
        // No host is used for anything; the target's counts where both are there (RFC 9112, section 3.2.2).
        (
            "another in the target",
            "GET http://b/healthz HTTP/1.1\r\nHost: a\r\n",
        ),
        (
            "the same in the target",
            "GET http://a/healthz HTTP/1.1\r\nHost: a\r\n",
        ),
        ("a probe of version 1.0", "GET /healthz HTTP/1.0\r\n"),
    ] {
        let answers = exchange(
            server.address,
            format!("{head}Connection: close\r\n\r\n").as_bytes(),
        );
        assert!(answers.contains(" 200 OK\r\n"), "{what}: {answers}");
    }
}

#[test]
fn connect_opens_no_tunnel() {
    let server = TestServer::start();
    for target in [V2, "127.0.0.1:22", "/"] {
        let octets = format!("CONNECT {target} HTTP/1.1\r\nHost: a\r\n\r\nSSH-2.0-x\r\n");
        let answers = exchange(server.address, octets.as_bytes());
        is_refused_once(target, &answers);
    }
}

#[test]
fn bodies_that_are_not_the_request_are_refused() {
    let server = TestServer::start();
    let token = server.token(&TestClaims::email(EMAIL));
    let good = TestKey::generate().v2(EMAIL).to_string();
    let utf_16: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let with_mark = format!("\u{feff}{good}");
    let (start, _) = good.split_at(good.len() - 1);
    let twice = |name: &str, value: &str| format!(r#"{start},"{name}":{value},"{name}":{value}}}"#);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("null", b"null".to_vec()),
        ("a list", b"[]".to_vec()),
        ("a number", b"1".to_vec()),
        ("a text", br#""{}""#.to_vec()),
        ("an open brace", b"{".to_vec()),
        ("octets behind the object", format!("{good}x").into_bytes()),
        ("two objects", format!("{good}{good}").into_bytes()),
        ("not UTF-8", b"{\"a\":\"\xff\xfe\"}".to_vec()),
        ("UTF-16", utf_16),
        ("a byte order mark", with_mark.into_bytes()),
        (
            "a member of the wrong type",
            br#"{"credentials":1}"#.to_vec(),
        ),
        (
            "a list where text is due",
            br#"{"credentials":{"oidcIdentityToken":["a"]}}"#.to_vec(),
        ),
        (
            "a number out of range",
            br#"{"credentials":1e999999}"#.to_vec(),
        ),
        ("a comment", b"{/* */}".to_vec()),
        (
            "a compressed body",
            vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3],
        ),
        ("a million open brackets", "[".repeat(120_000).into_bytes()),
        ("nested objects", r#"{"a":"#.repeat(26_000).into_bytes()),
        (
            "a field twice",
            twice("publicKeyRequest", "{}").into_bytes(),
        ),
        (
            "a field under both its names",
            format!(r#"{start},"public_key_request":{{}}}}"#).into_bytes(),
        ),
        (
            "the token twice",
            br#"{"credentials":{"oidcIdentityToken":"a.b.c","oidcIdentityToken":"a.b.c"}}"#
                .to_vec(),
        ),
    ];
    for (what, body) in cases {
        let request = Request::post(V2, body).bearer(&token);
        server.refuses(what, &request, &["malformed_request"]);
    }
    let empty = Request::post(V2, "").bearer(&token);
    server.refuses("empty", &empty, &["malformed_public_key"]);
    for (what, body) in [("a list", "[]"), ("cut off", r#"{"publicKey":"#)] {
        let request = Request::post(V1, body).bearer(&token);
        server.refuses(what, &request, &["malformed_request"]);
    }
}

#[test]
fn bodies_in_every_form_that_clients_use_are_taken() {
    let server = TestServer::start();
    let token = server.token(&TestClaims::email(EMAIL));
    let key = TestKey::generate();
    let mut camel = key.v2(EMAIL);
    camel["credentials"] = json!({ "oidcIdentityToken": token });
    let camel = camel.to_string();
    let snake = [
        ("oidcIdentityToken", "oidc_identity_token"),
        ("publicKeyRequest", "public_key_request"),
        ("publicKey", "public_key"),
        ("proofOfPossession", "proof_of_possession"),
    ]
    .iter()
    .fold(camel.clone(), |text, (camel, snake)| {
        text.replace(&format!(r#""{camel}""#), &format!(r#""{snake}""#))
    });
    let (start, _) = camel.split_at(camel.len() - 1);
    let unknown = format!(r#"{start},"unknown":{{"a":[1,2]}},"another":null}}"#);
    for (what, body) in [
        ("lowerCamelCase", camel.clone()),
        ("snake_case", snake),
        ("unknown members", unknown),
    ] {
        server.issues(what, &Request::post(V2, body));
    }
}

#[test]
fn a_compressed_body_is_not_unpacked() {
    let server = TestServer::start();
    let token = server.token(&TestClaims::email(EMAIL));
    // A deflate stream that repeats one octet: 1,000 times its size when unpacked.
    let bomb = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &[0; 50_000]].concat();
    for coding in ["gzip", "br", "deflate", "zstd"] {
        let request = Request::post(V2, bomb.clone())
            .bearer(&token)
            .header("Content-Encoding", coding);
        server.refuses(coding, &request, &["malformed_request"]);
    }
}

#[test]
fn a_hundred_pipelined_requests_are_answered_in_order() {
    let server = TestServer::start();
    let mut connection = Connection::open(server.address);
    let target = |n: usize| ["/healthz", "/nowhere", "/api/v2/configuration"][n % 3];
    let octets: Vec<u8> = (0..100)
        .flat_map(|n| {
            Request::get(target(n))
                .header("X-Request-Id", format!("r{n}"))
                .octets()
        })
        .collect();
    connection.write(&octets).unwrap();
    for n in 0..100 {
        let answer = connection.answer_to("GET").unwrap();
        let id = format!("r{n}");
        assert_eq!(answer.header("x-request-id"), Some(id.as_str()));
        assert_eq!(answer.status, if n % 3 == 1 { 404 } else { 200 }, "{n}");
    }
}

#[test]
fn good_requests_are_served_among_hostile_ones() {
    let server = TestServer::start();
    let good: Vec<_> = (0..64).map(|_| server.good_request()).collect();
    let hostile = [
        Request::post(V2, "[".repeat(100_000)),
        Request::post(V2, "{}").bearer(&"a.".repeat(10_000)),
        Request::post(V1, vec![0xff; 100_000]),
        Request::get("/..%2f..%2fetc/passwd"),
    ];
    std::thread::scope(|scope| {
        for n in 0..64 {
            let (address, hostile) = (server.address, &hostile[n % hostile.len()]);
            scope.spawn(move || {
                assert!(http::send(address, hostile).status >= 400);
            });
        }
        let good = good.iter().map(|request| {
            let address = server.address;
            scope.spawn(move || http::send(address, request).status)
        });
        let good: Vec<_> = good.collect();
        for answer in good {
            assert_eq!(answer.join().unwrap(), 200);
        }
    });
    assert_eq!(server.traces().certificates, 64);
}

#[test]
fn paths_lead_nowhere_but_to_the_routes() {
    let server = TestServer::start();
    for target in [
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/..%2f..%2fetc%2fpasswd",
        "/ct/main/../../../etc/passwd",
        "/ct/main/tile/../../../../etc/passwd",
        "/ct/main/tile/0/..%2f..%2fkey.pem",
        "/ct/main/key.pem",
        "/ct/main/%00",
        "/%00",
        "/api/v2/signingCert%00",
        "/api//v2//signingCert",
        "/debug/pprof/",
        "/.git/config",
        "/metrics",
        "/admin/v1/config",
        "/dev/oidc/../../etc/passwd",
        "/\\..\\..\\etc\\passwd",
        "*",
    ] {
        let answers = exchange(
            server.address,
            format!("GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").as_bytes(),
        );
        assert!(
            answers.starts_with("HTTP/1.1 404 ") || answers.starts_with("HTTP/1.1 400 "),
            "{target}: {answers}"
        );
    }
}

#[test]
fn a_hostile_request_id_is_replaced() {
    let server = TestServer::start();
    for id in [
        "<script>alert(1)</script>",
        "a\tb",
        "\u{202e}",
        &"a".repeat(10_240),
    ] {
        let answer = server.send(&Request::get("/healthz").header("X-Request-Id", id));
        let own = answer.header("x-request-id").unwrap();
        assert!(
            own.len() == 16 && own.bytes().all(|byte| byte.is_ascii_hexdigit()),
            "{id:?} became {own:?}"
        );
    }
    let answers = exchange(
        server.address,
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-Request-Id: a\r\nSet-Cookie: b\r\nConnection: close\r\n\r\n",
    );
    assert!(
        !answers.to_ascii_lowercase().contains("set-cookie"),
        "{answers}"
    );
}

#[test]
fn what_a_client_says_of_hosts_and_proxies_changes_nothing() {
    let limited = |settings: &mut Settings| settings.rate_limit = Some("ip=1/h:2".parse().unwrap());
    let server = TestServer::start_with(limited, "");
    let plain = server.get("/api/v2/configuration");
    let forged = |request: Request, n: usize| {
        request
            .header("X-Forwarded-For", format!("203.0.113.{n}"))
            .header(
                "Forwarded",
                format!("for=203.0.113.{n};host=evil.example;proto=https"),
            )
            .header("X-Forwarded-Host", "evil.example")
            .header("X-Real-IP", format!("203.0.113.{n}"))
    };
    for target in [
        "/api/v2/configuration",
        "/api/v2/trustBundle",
        "/ct/main/log.v3.json",
    ] {
        let (plain, forged) = (
            server.get(target),
            server.send(&forged(Request::get(target), 1)),
        );
        assert_eq!((plain.status, &plain.body), (200, &forged.body), "{target}");
        let shown =
            String::from_utf8_lossy(&forged.body).into_owned() + &format!("{:?}", forged.headers);
        assert!(!shown.contains("evil"), "{target}: {shown}");
    }
    assert_eq!(plain.status, 200);

    // Another address in every request does not make other clients of one.
    for n in 1..=2 {
        server.issues("within the limit", &forged(server.good_request(), n));
    }
    let expected = Expected {
        status: 429,
        code: 8,
        reasons: &["rate_limited"],
    };
    server.answers_with(
        "over the limit",
        &forged(server.good_request(), 3),
        expected,
    );
}

#[test]
fn a_trusted_proxy_says_whose_request_it_is() {
    let limited = |settings: &mut Settings| {
        settings.rate_limit = Some("ip=1/h:1".parse().unwrap());
        settings.trusted_proxies = Some("127.0.0.0/8".parse().unwrap());
    };
    let server = TestServer::start_with(limited, "");
    let from = |address: &str| server.good_request().header("X-Forwarded-For", address);
    let expected = Expected {
        status: 429,
        code: 8,
        reasons: &["rate_limited"],
    };
    server.issues("the first client", &from("203.0.113.1"));
    server.answers_with("the first client again", &from("203.0.113.1"), expected);
    server.issues("the second client", &from("203.0.113.2"));
    // What stands before the last address was written by the client.
    let forged = from("198.51.100.9, 203.0.113.2");
    server.answers_with("the second client, who lies", &forged, expected);
    assert_eq!(server.metric(r#"mayfly_rate_limited_total{scope="ip"}"#), 2);
}

#[test]
fn what_clients_send_makes_no_series_of_metrics() {
    let server = TestServer::start();
    let series = || {
        let metrics = server.metrics();
        let lines = metrics.lines().filter(|line| !line.starts_with('#'));
        let names = lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned()));
        names.collect::<BTreeSet<_>>()
    };
    let issuers = server.get("/api/v2/configuration").json()["issuers"].clone();
    wait_for("the keys of every issuer", || {
        let metrics = server.metrics();
        let of_issuers = metrics
            .lines()
            .filter(|line| line.starts_with("mayfly_oidc_issuer_up{"));
        let up = of_issuers.filter(|line| line.ends_with(" 1")).count();
        (up == issuers.as_array().unwrap().len()).then_some(())
    });
    let mut connection = Connection::open(server.address);
    let methods = [
        "GET", "POST", "PUT", "DELETE", "PATCH", "FOO", "BAR", "options",
    ];
    let mut send = |n: usize| {
        let iss = format!("https://issuer-{n}.example");
        let claims = json!({ "iss": iss, "sub": "s", "aud": "sigstore" }).to_string();
        let parts = [r#"{"alg":"ES256"}"#, &claims, "no signature"];
        let token = parts.map(|part| URL_SAFE_NO_PAD.encode(part)).join(".");
        let target = if n.is_multiple_of(3) {
            V2.to_owned()
        } else {
            format!("/path-{n}/{n}")
        };
        let request = Request::new(methods[n % methods.len()], target)
            .header("User-Agent", format!("agent-{n}"))
            .header("X-Forwarded-Host", format!("host-{n}"))
            .header("X-Forwarded-For", format!("203.0.113.{}", n % 250))
            .bearer(&token);
        assert!(connection.send(&request).status >= 400);
    };
    // Every kind of method with every kind of target.
    (0..24).for_each(&mut send);
    let before = series();
    (24..300).for_each(&mut send);
    let new: Vec<_> = series().difference(&before).cloned().collect();
    assert_eq!(new, Vec::<String>::new());
    assert!(
        !before
            .iter()
            .any(|name| name.contains("path-") || name.contains("issuer-") || name.contains("FOO"))
    );
}

#[test]
fn a_trailer_is_no_header_and_is_not_kept() {
    let server = TestServer::start();
    let token = server.token(&TestClaims::email(EMAIL));
    let trailers = "X: y\r\n".repeat(20_000);
    let octets = format!(
        "POST {V2} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n2\r\n{{}}\r\n0\r\n\
         Authorization: Bearer {token}\r\n{trailers}\r\n"
    );
    let answers = exchange(server.address, octets.as_bytes());
    is_refused_once("trailers", &answers);
    assert!(
        answers.contains("mayfly-reason: missing_token\r\n"),
        "{answers}"
    );
}

#[test]
fn no_certificate_is_signed_for_a_client_that_is_gone() {
    let server = TestServer::start();
    let log = server.log.as_ref().unwrap();
    let before = server.traces();
    log.hold();
    let mut connection = Connection::open(server.address);
    connection.write(&server.good_request().octets()).unwrap();
    wait_for("the submission", || (log.submissions() == 1).then_some(()));
    // Closed with a reset, as a process that dies leaves it.
    SockRef::from(connection.stream())
        .set_linger(Some(std::time::Duration::ZERO))
        .unwrap();
    drop(connection);
    wait_for("the end of the request", || {
        (log.waiting() == 0).then_some(())
    });
    log.let_go();

    server.issues("the next client", &server.good_request());
    // One signature for the precertificate of the first, two for the second client.
    let traces = server.traces();
    assert_eq!(traces.signatures - before.signatures, 1 + 2);
    assert_eq!(traces.certificates, 1);
}

#[test]
fn accepting_pauses_before_descriptors_run_out() {
    let trusting = Trusting::new();
    let process = Process::start(&mut trusting.instance.serve_within("ulimit -n 200"));
    let mut first = Connection::open(process.address);
    assert_eq!(first.send(&Request::get("/healthz")).status, 200);
    // The kernel accepts them all; the server has descriptors for 72.
    let crowd: Vec<_> = (0..400)
        .map(|_| Connection::open(process.address))
        .collect();

    let health = http::send(process.metrics_address, &Request::get("/healthz"));
    assert_eq!(health.status, 200, "on its own listener");
    // Issuing takes descriptors: for the issuer's keys, and now and then for the log.
    let answer = first.send(&trusting.good_request());
    assert_eq!(answer.status, 200, "{}", answer.text());
    drop(crowd);
    let answer = http::send(process.address, &trusting.good_request());
    assert_eq!(answer.status, 200, "{}", answer.text());

    process.terminate();
    let (code, lines) = process.end();
    assert_eq!(code, 0);
    let warned = lines.iter().find(|line| line.contains("descriptor_limit"));
    assert!(
        warned.unwrap().contains(r#""max_connections":72"#),
        "{warned:?}"
    );
    assert!(
        !lines
            .iter()
            .any(|line| line.contains("Too many open files")),
        "{lines:#?}"
    );
}

#[test]
fn nobody_submits_to_the_log_but_the_ca() {
    let server = TestServer::start();
    let before = server.traces();
    for target in [
        "/ct/main/ct/v1/add-chain",
        "/ct/main/ct/v1/add-pre-chain",
        "/ct/v1/add-chain",
        "/ct/main/add-chain",
    ] {
        let chain = json!({ "chain": ["AAAA"] }).to_string();
        let answer = http::send(server.address, &Request::post(target, chain));
        assert!(
            matches!(answer.status, 404 | 405),
            "{target}: {}",
            answer.text()
        );
    }
    assert_eq!(server.traces(), before);
}
