//! `/readyz`: what it says when all is well, and when something is not.

use std::time::Duration;

use mayfly::clock::Clock;
use serde_json::Value;

use crate::support::http::{self, Answer, Request};
use crate::support::refusal::Expected;
use crate::support::server::{TestServer, Traces};
use crate::support::wait_for;

const READYZ: &str = "/readyz";

/// Waits for a round of checks that ends in this status.
fn wait_for_status(server: &TestServer, status: &str) -> Answer {
    wait_for(status, || {
        let answer = server.get(READYZ);
        (answer.json()["status"] == status).then_some(answer)
    })
}

/// A check of an answer, by its name.
fn check(answer: &Answer, name: &str) -> Value {
    let report = answer.json();
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["name"] == name);
    found
        .unwrap_or_else(|| panic!("{name} in {report}"))
        .clone()
}

/// Asks for a certificate, which must be refused as ours to mend, and must leave nothing behind.
fn cannot_issue(server: &TestServer, reason: &str, code: u8, status: u16) {
    let expected = Expected {
        status,
        code,
        reasons: &[reason],
    };
    server.answers_with(reason, &server.good_request(), expected);
}

#[test]
fn a_server_that_can_issue_is_ready_on_both_listeners() {
    let server = TestServer::start();
    let answer = wait_for_status(&server, "ready");
    assert_eq!(answer.status, 200);
    let report = answer.json();
    assert_eq!(report["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(report["config_digest"].as_str().unwrap().len(), 12);
    let names = [
        "ca_key",
        "ca_certificate",
        "clock",
        "config",
        "store",
        "ct:main",
    ];
    for name in names {
        assert_eq!(check(&answer, name)["ok"], true, "{name}");
        let series = format!(r#"mayfly_ready_check{{check="{name}"}}"#);
        assert_eq!(server.metric(&series), 1, "{name}");
    }
    assert_eq!(server.metric("mayfly_ready"), 1);
    let issuers = report["checks"].as_array().unwrap().iter();
    let issuers = issuers.filter(|check| check["name"].as_str().unwrap().starts_with("issuer:"));
    assert_eq!(issuers.count(), 10);

    let brief = server.get("/readyz?verbose=0").json();
    assert_eq!(
        (&brief["status"], &brief["checks"]),
        (&"ready".into(), &Value::Null)
    );
    let on_metrics = http::send(server.metrics_address, &Request::get(READYZ));
    assert_eq!(
        (on_metrics.status, &on_metrics.json()["status"]),
        (200, &"ready".into())
    );
}

#[test]
fn a_key_that_does_not_sign_is_not_ready_and_is_ready_again_when_it_does() {
    let server = TestServer::start();
    wait_for_status(&server, "ready");
    server.key.fail_after(0);
    let answer = wait_for_status(&server, "not_ready");
    assert_eq!(answer.status, 503);
    assert_eq!(check(&answer, "ca_key")["ok"], false);
    assert_eq!(server.metric("mayfly_ready"), 0);
    // Liveness is another thing: a restart would mend nothing.
    assert_eq!(server.get("/healthz").status, 200);

    server.key.fail_after(u64::MAX);
    wait_for_status(&server, "ready");
    server.issues("a key that signs again", &server.good_request());
}

#[test]
fn a_clock_that_was_set_stops_issuance_until_it_is_set_back() {
    let server = TestServer::start();
    wait_for_status(&server, "ready");
    for seconds in [3600, -3600] {
        let (right, good) = (server.clock.now(), server.good_request());
        server.clock.set(right + time::Duration::seconds(seconds));
        let before: Traces = server.traces();
        let answer = server.send(&good);
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert_eq!(answer.header("mayfly-reason"), Some("ca_unavailable"));
        assert_eq!(server.traces(), before);
        let answer = wait_for_status(&server, "not_ready");
        let clock = check(&answer, "clock");
        let detail = clock["detail"].as_str().unwrap();
        assert!(
            detail.contains(&format!("set by {seconds:+} s")),
            "{detail}"
        );

        server.clock.set(right);
        wait_for_status(&server, "ready");
        server.issues("a clock that is right again", &server.good_request());
    }
}

#[test]
fn a_ca_that_ends_within_ten_minutes_is_not_ready() {
    let server = TestServer::start();
    wait_for_status(&server, "ready");
    let chain =
        mayfly::x509::chain::CertificateChain::from_pem(server.get("/api/v1/rootCert").text());
    let end = chain.unwrap().not_after();
    server.clock.move_to(end - Duration::from_secs(599));
    let answer = wait_for_status(&server, "not_ready");
    assert_eq!(check(&answer, "ca_certificate")["ok"], false);
    cannot_issue(&server, "ca_unavailable", 14, 503);
}

/// An issuer that no one answers for.
const NOBODY: &str = "
  http://127.0.0.1:1:
    issuer-url: http://127.0.0.1:1
    client-id: sigstore
    type: email
    id: nobody
";

#[test]
fn issuers_without_keys_degrade_and_only_all_of_them_make_it_unready() {
    let server = TestServer::start_with(|_| {}, NOBODY);
    let answer = wait_for_status(&server, "degraded");
    assert_eq!(answer.status, 200);
    assert_eq!(check(&answer, "issuer:nobody")["ok"], false);
    server.issues("another issuer", &server.good_request());
    assert_eq!(
        server.metric(r#"mayfly_oidc_issuer_up{issuer="nobody"}"#),
        0
    );
}

#[test]
fn what_is_fetched_from_issuers_is_counted_and_so_is_every_step_of_a_certificate() {
    let server = TestServer::start_with(|_| {}, NOBODY);
    server.issues("a good request", &server.good_request());
    let metrics = server.metrics();
    let has = |start: &str, value: &str| {
        metrics
            .lines()
            .any(|line| line.starts_with(start) && line.ends_with(&format!(" {value}")))
    };
    wait_for("the fetch that fails", || {
        let series =
            r#"mayfly_oidc_requests_total{issuer="nobody",kind="discovery",result="connect"}"#;
        (server.metric(series) > 0).then_some(())
    });
    assert!(
        metrics.contains(r#"kind="discovery",result="ok"} 1"#),
        "{metrics}"
    );
    assert!(
        metrics.contains(r#"kind="jwks",result="ok"} 1"#),
        "{metrics}"
    );
    assert!(metrics.contains(r#"trigger="startup"} 1"#), "{metrics}");
    for stage in [
        "parse",
        "token",
        "proof",
        "template",
        "sign_precert",
        "ct",
        "sign_final",
        "encode",
    ] {
        let series = format!(r#"mayfly_issuance_stage_duration_seconds_count{{stage="{stage}"}}"#);
        assert!(has(&series, "1"), "{series}");
    }
    assert!(has(
        r#"mayfly_ct_submissions_total{log="main",result="ok"}"#,
        "1"
    ));
    assert!(has(
        r#"mayfly_log_appends_total{log="main",result="ok"}"#,
        "1"
    ));
    assert!(has(
        r#"mayfly_store_operations_total{backend="folder",op="fsync",result="ok"}"#,
        "1"
    ));
}
