//! What an operator sees, and what a look at it may cost.

use std::net::TcpStream;

use mayfly::clock::Clock;
use serde_json::Value;

use crate::operating::Trusting;
use crate::support::http::{self, Connection, Request};
use crate::support::process::Process;
use crate::support::server::TestServer;
use crate::support::wait_for;

#[test]
fn a_panic_is_an_internal_error_of_one_request_alone() {
    let server = TestServer::start();
    let mut other = Connection::open(server.address);
    assert_eq!(other.send(&Request::get("/healthz")).status, 200);

    let log = server.log.as_ref().unwrap();
    log.fail_with(|| panic!("what only the source may say"));
    for times in 1..=2 {
        let mut connection = Connection::open(server.address);
        let answer = connection.send(&server.good_request());
        assert_eq!(
            (answer.status, answer.json()["code"].as_u64()),
            (500, Some(13))
        );
        assert_eq!(answer.header("mayfly-reason"), Some("internal"));
        assert_eq!(answer.json()["message"], "internal error");
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(connection.rest().is_empty(), "the connection ends");
        assert_eq!(server.metric("mayfly_panics_total"), times);
        assert_eq!(server.refusals("internal"), times);
    }
    assert_eq!(server.traces().certificates, 0);

    log.mend();
    assert_eq!(other.send(&Request::get("/healthz")).status, 200);
    server.issues("after the panics", &server.good_request());
}

#[test]
fn failures_that_repeat_are_written_ten_times_and_name_their_cause() {
    let trusting = Trusting::in_vain("http://127.0.0.1:9");
    let process = Process::start(&mut trusting.instance.serve());
    for _ in 0..12 {
        let answer = http::send(process.address, &trusting.good_request());
        assert_eq!(answer.status, 503, "{}", answer.text());
    }
    let metrics = http::send(process.metrics_address, &Request::get("/metrics"));
    let counted = r#"mayfly_certificate_requests_refused_total{issuer="people",reason="issuer_unavailable"} 12"#;
    assert!(metrics.text().contains(counted), "{}", metrics.text());
    process.terminate();
    let (_, lines) = process.end();
    let parsed = lines
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok());
    let failed: Vec<Value> = parsed
        .filter(|line: &Value| line["event"] == "request_failed")
        .collect();
    assert_eq!(failed.len(), 10, "{lines:#?}");
    for line in failed {
        assert_eq!(
            (
                &line["severity"],
                &line["reason"],
                &line["issuer"],
                &line["iss_claim"]
            ),
            (
                &"ERROR".into(),
                &"issuer_unavailable".into(),
                &"people".into(),
                &"http://127.0.0.1:9".into()
            )
        );
        let cause = line["error"].as_str().unwrap();
        assert!(cause.contains("cannot be fetched"), "{cause}");
        assert!(line["request_id"].is_string());
    }
}

#[test]
fn a_server_that_can_do_nothing_lives_and_says_what_is_missing() {
    let server = TestServer::start();
    server.issues("before anything breaks", &server.good_request());
    let right = server.clock.now();
    server.clock.set(right - time::Duration::HOUR);
    server.key.fail_after(0);
    let broken = ["ca_key", "clock", "ct:main"];
    wait_for("every check that must fail", || {
        let answer = server.get("/readyz");
        let report = answer.json();
        let checks = report["checks"].as_array().unwrap();
        let has_failed = |name| {
            let mut checks = checks.iter();
            checks.any(|check| check["name"] == name && check["ok"] == false)
        };
        (answer.status == 503 && broken.into_iter().all(has_failed)).then_some(())
    });
    assert_eq!(server.metric("mayfly_ready"), 0);
    for name in broken {
        let series = format!(r#"mayfly_ready_check{{check="{name}"}}"#);
        assert!(
            server.metrics().contains(&format!("{series} 0\n")),
            "{name}"
        );
    }
    for address in [server.address, server.metrics_address] {
        for path in ["/healthz", "/livez"] {
            let answer = http::send(address, &Request::get(path));
            let serving = "{\"status\":\"SERVING\"}\n";
            assert_eq!((answer.status, answer.text()), (200, serving), "{path}");
        }
    }

    server.clock.set(right);
    server.key.fail_after(u64::MAX);
    wait_for("a server that is ready again", || {
        (server.get("/readyz").status == 200).then_some(())
    });
    server.issues("after all is mended", &server.good_request());
}

#[test]
fn scrapers_that_do_not_read_hold_up_neither_requests_nor_other_scrapers() {
    let server = TestServer::start();
    let mut slow = Vec::new();
    for _ in 0..8 {
        let mut connection = Connection::open(server.metrics_address);
        // More than the buffers of a socket hold, and none of it is read.
        for _ in 0..200 {
            connection
                .write(&Request::get("/metrics").octets())
                .unwrap();
        }
        slow.push(connection);
    }
    let mut scraper = Connection::open(server.metrics_address);
    for _ in 0..50 {
        server.issues("beside slow scrapers", &server.good_request());
        let scraped = scraper.send(&Request::get("/metrics"));
        assert_eq!(scraped.status, 200);
        assert!(scraped.text().contains("\nfulcio_new_certs "));
    }
    // Metrics are on no other port than their own.
    assert_eq!(server.get("/metrics").status, 404);
    assert!(TcpStream::connect(server.metrics_address).is_ok());
}
