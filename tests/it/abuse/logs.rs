//! Rows S: logs of others that are down, slow, wrong, or lie.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mayfly::client::{self, Expected};
use mayfly::clock::Clock;
use mayfly::config::{Settings, Span};
use mayfly::ctlog::promises::AuditError;
use mayfly::dev::oidc::TestClaims;
use serde_json::{Value, json};

use crate::support::http::{self, Answer};
use crate::support::issuer::{HostileIssuer, Reply};
use crate::support::key::TestKey;
use crate::support::log::{OtherLog, Promise};
use crate::support::server::{EMAIL, TestServer, Traces, V2};
use crate::support::wait_for;

/// A server that submits to these logs, in this order.
fn server_with(logs: &[&OtherLog], change: impl FnOnce(&mut Settings)) -> TestServer {
    let configured = logs.iter().map(|log| log.config()).collect();
    let change = |settings: &mut Settings| {
        settings.ct.logs = configured;
        change(settings);
    };
    TestServer::start_with(change, "")
}

/// One more certificate, which one of the logs was told of before.
fn one_more(before: &Traces) -> Traces {
    Traces {
        submissions: before.submissions + 1,
        signatures: before.signatures + 2,
        certificates: before.certificates + 1,
        ..before.clone()
    }
}

/// Asks for a certificate, which must come, with a timestamp of this log.
fn issues(what: &str, server: &TestServer, log: &OtherLog) {
    let before = server.traces();
    let key = TestKey::generate();
    let token = server.token(&TestClaims::email(EMAIL));
    let request = http::Request::post(V2, key.v2(EMAIL).to_string()).bearer(&token);
    let answer = server.send(&request);
    assert_eq!(answer.status, 200, "{what}: {}", answer.text());
    assert_eq!(server.traces(), one_more(&before), "{what}");
    let certificates = client::certificates_of_answer(&answer.body).unwrap();
    let public_key_der = key.der();
    let expected = Expected {
        public_key_der: &public_key_der,
        name: EMAIL,
        issuer: server.issuers.email().unwrap().url(),
        authority_der: server.trust.chain.issuing().der(),
        log_key_der: &log.public_key_der(),
        now: server.clock.now(),
    };
    client::check_certificate(&certificates[0], &expected).unwrap();
}

/// Asks for a certificate, which must not come: 503, with a reason and a time to come back, and nothing of what the log says.
fn refuses(what: &str, server: &TestServer, reason: &str) -> Answer {
    let before = server.traces();
    let counted = server.refusals(reason);
    let answer = server.send(&server.good_request());
    let shown = answer.text();
    assert_eq!(answer.status, 503, "{what}: {shown}");
    assert_eq!(answer.json()["code"], 14, "{what}: {shown}");
    assert_eq!(
        answer.header("mayfly-reason"),
        Some(reason),
        "{what}: {shown}"
    );
    assert!(answer.header("retry-after").is_some(), "{what}");
    for word in ["BEGIN", "127.0.0.1", "secret"] {
        assert!(!shown.contains(word), "{what}: {shown}");
    }
    // Only the precertificate was signed, which nobody has.
    let expected = Traces {
        submissions: before.submissions + 1,
        signatures: before.signatures + 1,
        ..before
    };
    assert_eq!(server.traces(), expected, "{what}");
    assert_eq!(server.refusals(reason), counted + 1, "{what}");
    answer
}

/// How many submissions to a log came to this.
fn submissions(server: &TestServer, log: &OtherLog, result: &str) -> u64 {
    let name = &log.name;
    server.metric(&format!(
        r#"mayfly_ct_submissions_total{{log="{name}",result="{result}"}}"#
    ))
}

/// Who asked may be told that the time is over a moment before the log's part of the server counts it.
fn wait_for_submissions(server: &TestServer, log: &OtherLog, result: &str, count: u64) {
    wait_for(&format!("{count} submissions with result {result}"), || {
        (submissions(server, log, result) == count).then_some(())
    });
}

type Lie = Box<dyn Fn(&mut Promise) + Send + Sync>;

fn leaf_index(index: u8) -> Vec<u8> {
    vec![0, 0, 5, 0, 0, 0, 0, index]
}

#[test]
fn a_timestamp_that_is_not_the_logs_own_for_this_precertificate_is_never_embedded() {
    const HOUR: u64 = 3_600_000;
    let log = OtherLog::start("offsite");
    let server = server_with(&[&log], |_| {});
    let earlier = Arc::new(Mutex::new(None::<Promise>));
    let kept = Arc::clone(&earlier);
    log.lies(move |promise| *kept.lock().unwrap() = Some(promise.clone()));
    issues("an honest log", &server, &log);
    let earlier = earlier.lock().unwrap().clone().unwrap();

    let lies: Vec<(&str, Lie)> = vec![
        ("the id of another log", Box::new(|lie| lie.log_id[0] ^= 1)),
        ("no id", Box::new(|lie| lie.log_id.clear())),
        ("a promise for another certificate", {
            let tbs = earlier.tbs.clone();
            Box::new(move |lie| lie.tbs.clone_from(&tbs))
        }),
        (
            "one octet of the certificate is another",
            Box::new(|lie| *lie.tbs.last_mut().unwrap() ^= 1),
        ),
        ("another CA's", Box::new(|lie| lie.issuer_key_hash[0] ^= 1)),
        ("six minutes ahead", Box::new(|lie| lie.time += HOUR / 10)),
        ("six minutes ago", Box::new(|lie| lie.time -= HOUR / 10)),
        ("an hour ahead", Box::new(|lie| lie.time += HOUR)),
        ("a day ago", Box::new(|lie| lie.time -= 24 * HOUR)),
        ("of 1970", Box::new(|lie| lie.time = 0)),
        ("of the end of time", Box::new(|lie| lie.time = u64::MAX)),
        ("of another version", Box::new(|lie| lie.version = 1)),
        (
            "of a version that is no octet",
            Box::new(|lie| lie.version = 256),
        ),
        (
            "an octet behind the signature",
            Box::new(|lie| lie.tail.push(0)),
        ),
        (
            "extensions of 64 KiB",
            Box::new(|lie| lie.extensions = vec![0; 65_536]),
        ),
        (
            "well-formed extensions that would fill the certificate",
            Box::new(|lie| {
                lie.extensions = [&[9, 8, 0][..], &[7; 2048]].concat();
            }),
        ),
        (
            "extensions that are cut short",
            Box::new(|lie| lie.extensions = vec![9, 0, 2, 1]),
        ),
        (
            "an index that is too short",
            Box::new(|lie| lie.extensions = vec![0, 0, 4, 0, 0, 0, 0]),
        ),
        (
            "two indexes",
            Box::new(|lie| lie.extensions = [leaf_index(1), leaf_index(1)].concat()),
        ),
    ];
    for (number, (what, lie)) in lies.into_iter().enumerate() {
        log.lies(lie);
        refuses(what, &server, "ct_bad_sct");
        let counted = u64::try_from(number).unwrap() + 1;
        assert_eq!(submissions(&server, &log, "bad_sct"), counted, "{what}");
        assert_eq!(server.metric(r#"mayfly_ct_log_up{log="offsite"}"#), 0);
        log.is_honest();
        issues(what, &server, &log);
        assert_eq!(server.metric(r#"mayfly_ct_log_up{log="offsite"}"#), 1);
    }
}

#[test]
fn what_a_log_may_say_besides_is_embedded_as_it_is() {
    let log = OtherLog::start("offsite");
    let server = server_with(&[&log], |_| {});
    for (what, extensions) in [
        ("an index", leaf_index(7)),
        ("an extension that nobody knows", vec![9, 0, 2, 1, 2]),
        ("both", [vec![9, 0, 0], leaf_index(7)].concat()),
    ] {
        log.lies(move |promise| promise.extensions.clone_from(&extensions));
        issues(what, &server, &log);
    }
    log.lies(|promise| promise.time += 240_000);
    issues("a clock that is four minutes ahead", &server, &log);
}

#[test]
fn what_is_no_timestamp_at_all_is_refused_within_limits() {
    let log = OtherLog::start("offsite");
    let server = server_with(&[&log], |_| {});
    let head = |length: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
    let deep = "[".repeat(30_000) + &"]".repeat(30_000);
    let replies: Vec<(&str, Reply)> = vec![
        ("HTML", Reply::document("<html>secret</html>")),
        ("nothing", Reply::document("")),
        ("a list", Reply::document("[]")),
        ("an object without members", Reply::document("{}")),
        ("a list in a list in a list", Reply::document(deep)),
        (
            "64 MiB",
            Reply::Endless(head(64 << 20).into(), vec![b' '; 65_536]),
        ),
        (
            "no end",
            Reply::Endless(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
                [b"10000\r\n", &[b' '; 65_536][..], b"\r\n"].concat(),
            ),
        ),
        (
            "compressed",
            Reply::with_headers("Content-Encoding: gzip\r\n", "{}"),
        ),
    ];
    for (what, reply) in replies {
        log.replies(reply);
        refuses(what, &server, "ct_bad_sct");
        log.is_honest();
        issues(what, &server, &log);
    }
    log.says(|promise| Reply::document(format!("{} {{}}", promise.json())));
    refuses("two answers in one", &server, "ct_bad_sct");
    log.says(|promise| Reply::document(promise.forged().to_string()));
    refuses("signed by somebody else", &server, "ct_bad_sct");
}

#[test]
fn a_log_that_fails_or_refuses_is_a_503() {
    let log = OtherLog::start("offsite");
    let server = server_with(&[&log], |_| {});
    let text = |status: &str, body: &str| {
        let length = body.len();
        Reply::Octets(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}").into())
    };
    for (what, reply, reason, result) in [
        (
            "500",
            text("500 Oops", "secret"),
            "ct_unavailable",
            "unavailable",
        ),
        (
            "502",
            text("502 Bad Gateway", ""),
            "ct_unavailable",
            "unavailable",
        ),
        (
            "504",
            text("504 Timeout", ""),
            "ct_unavailable",
            "unavailable",
        ),
        (
            "a redirect",
            Reply::redirect("http://127.0.0.1/"),
            "ct_unavailable",
            "unavailable",
        ),
        (
            "busy, and still busy",
            text("503 Busy", ""),
            "ct_unavailable",
            "unavailable",
        ),
        (
            "400 with a text",
            text("400 Bad", "secret: no EKU"),
            "ct_rejected",
            "rejected",
        ),
        ("403", text("403 Forbidden", ""), "ct_rejected", "rejected"),
        ("404", text("404 Not Found", ""), "ct_rejected", "rejected"),
        ("frozen", text("410 Gone", ""), "ct_rejected", "rejected"),
        (
            "no answer",
            Reply::Stalled(Vec::new()),
            "ct_unavailable",
            "timeout",
        ),
        (
            "half an answer",
            Reply::Stalled(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_vec()),
            "ct_unavailable",
            "timeout",
        ),
        (
            "octet by octet",
            Reply::Dripping(vec![b'H'; 4096]),
            "ct_unavailable",
            "timeout",
        ),
        (
            "no HTTP",
            Reply::Octets(b"SSH-2.0-x\r\n".to_vec()),
            "ct_unavailable",
            "unavailable",
        ),
    ] {
        log.replies(reply);
        let before = submissions(&server, &log, result);
        refuses(what, &server, reason);
        wait_for_submissions(&server, &log, result, before + 1);
        log.is_honest();
        issues(what, &server, &log);
    }
}

#[test]
fn nothing_is_sent_where_a_log_redirects_to() {
    let (log, elsewhere) = (OtherLog::start("offsite"), HostileIssuer::start());
    let server = server_with(&[&log], |_| {});
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        let url = elsewhere.url("log");
        log.replies(Reply::status(&format!("{status}\r\nLocation: {url}")));
        refuses(status, &server, "ct_unavailable");
        log.is_honest();
        issues(status, &server, &log);
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[test]
fn a_log_that_is_busy_is_asked_again_with_the_same_precertificate() {
    let log = OtherLog::start("offsite");
    let server = server_with(&[&log], |_| {});
    for status in [
        "503 Busy",
        "429 Too Many",
        "408 Slow",
        "503 Busy\r\nRetry-After: 1",
        "503 Busy\r\nRetry-After: Fri, 02 Jan 2026 03:04:06 GMT",
    ] {
        let before = log.submitted().len();
        let (busy, is_first) = (status.to_owned(), AtomicBool::new(true));
        log.says(move |promise| {
            if is_first.swap(false, Ordering::SeqCst) {
                Reply::status(&busy)
            } else {
                Reply::document(promise.json().to_string())
            }
        });
        issues(status, &server, &log);
        let submitted = log.submitted();
        let [first, second] = &submitted[before..] else {
            panic!("{status}: {} submissions", submitted.len() - before)
        };
        assert_eq!(first, second, "{status}");
    }
    assert_eq!(submissions(&server, &log, "ok"), 5);
}

#[test]
fn a_log_that_asks_to_be_left_alone_is() {
    let log = OtherLog::start("offsite");
    let server = server_with(&[&log], |_| {});
    log.replies(Reply::status("503 Busy\r\nRetry-After: 3600"));
    refuses("the log says when", &server, "ct_unavailable");
    assert_eq!(log.submitted().len(), 1, "it is not asked again at once");
    log.is_honest();
    refuses("before that", &server, "ct_unavailable");
    assert_eq!(log.submitted().len(), 1);
}

#[test]
fn a_log_that_keeps_failing_is_left_alone_and_found_when_it_is_back() {
    let log = OtherLog::start("offsite");
    let server = server_with(&[&log], |_| {});
    log.replies(Reply::status("500 Oops"));
    for number in 0..5 {
        refuses("a failure", &server, "ct_unavailable");
        assert_eq!(log.submitted().len(), number + 1);
    }
    refuses("the log is left alone", &server, "ct_unavailable");
    assert_eq!(log.submitted().len(), 5);
    log.is_honest();
    wait_for("the log to be asked again", || {
        let answer = server.send(&server.good_request());
        (answer.status == 200).then_some(())
    });
    assert_eq!(log.submitted().len(), 6);
    issues("the log is back", &server, &log);
}

/// What a client sends can make a log refuse it. That must not keep others from the log.
#[test]
fn refusals_of_a_log_keep_nobody_from_it() {
    let log = OtherLog::start("offsite");
    let server = server_with(&[&log], |_| {});
    log.replies(Reply::status("400 Bad"));
    for _ in 0..10 {
        refuses("a refusal", &server, "ct_rejected");
    }
    log.is_honest();
    issues("another request", &server, &log);
}

#[test]
fn the_next_log_stands_in_for_one_that_gives_no_timestamp() {
    let (first, second) = (OtherLog::start("first"), OtherLog::start("second"));
    let server = server_with(&[&first, &second], |_| {});
    issues("all is well", &server, &first);
    assert_eq!(second.submitted().len(), 0);

    for (what, reply) in [
        ("fails", Reply::status("500 Oops")),
        ("refuses", Reply::status("400 Bad")),
        ("is frozen", Reply::status("410 Gone")),
        ("lies", Reply::document("{}")),
        ("hangs", Reply::Stalled(Vec::new())),
    ] {
        first.replies(reply);
        issues(what, &server, &second);
        first.is_honest();
        issues(what, &server, &first);
    }
    assert_eq!(second.submitted().len(), 5);
    // Whoever fails is preferred no more than it must be.
    first.replies(Reply::status("500 Oops"));
    second.replies(Reply::status("400 Bad"));
    refuses("both fail", &server, "ct_unavailable");
    assert_eq!(submissions(&server, &second, "rejected"), 1);
    let timeouts = || submissions(&server, &first, "timeout");
    wait_for("the end of the submission that hung", || {
        (timeouts() == 1).then_some(())
    });
}

#[test]
fn a_timestamp_that_comes_too_late_is_counted_and_the_next_precertificate_is_another() {
    let log = OtherLog::start("offsite");
    let server = server_with(&[&log], |settings| {
        settings.ct_submit_timeout = Some(Span(Duration::from_millis(500)));
    });
    let late = || server.metric(r#"mayfly_ct_late_timestamps_total{log="offsite"}"#);
    let (let_go, is_let_go) = channel::<()>();
    let is_let_go = Mutex::new(is_let_go);
    log.says(move |promise| {
        // Fails, and goes on, once the test has let go.
        let _ = is_let_go.lock().unwrap().recv();
        Reply::document(promise.json().to_string())
    });
    refuses("no answer in time", &server, "ct_unavailable");
    wait_for_submissions(&server, &log, "timeout", 1);
    assert_eq!(late(), 0);
    drop(let_go);
    wait_for("the late timestamp", || (late() == 1).then_some(()));
    wait_for("a certificate", || {
        let answer = server.send(&server.good_request());
        (answer.status == 200).then_some(())
    });
    let submitted = log.submitted();
    assert_ne!(submitted.first(), submitted.last());
}

#[test]
fn readiness_tells_how_each_log_is() {
    let (first, second) = (OtherLog::start("first"), OtherLog::start("second"));
    let wait_for_check = |server: &TestServer, name: &str, status: &str, detail: Option<&str>| {
        wait_for(&format!("{name} in {status}"), || {
            let report = server.get("/readyz").json();
            let checks = report["checks"].as_array().unwrap().clone();
            let check = checks.into_iter().find(|check| check["name"] == name)?;
            let is_as_told = match detail {
                None => check["ok"] == true,
                Some(detail) => check["detail"].as_str().unwrap_or("").contains(detail),
            };
            (is_as_told && report["status"] == status).then_some(())
        });
    };
    let roots =
        |certificates: Value| Reply::document(json!({ "certificates": certificates }).to_string());
    first.has_roots(roots(json!(["AAAA"])));
    let server = server_with(&[&first, &second], |_| {});
    let lacks_us = Some("does not accept certificates of our CA");
    wait_for_check(&server, "ct:first", "degraded", lacks_us);
    wait_for_check(&server, "ct:second", "degraded", None);
    drop(server);

    second.has_roots(Reply::status("500 Oops"));
    let server = server_with(&[&first, &second], |_| {});
    wait_for_check(&server, "ct:first", "not_ready", lacks_us);
    wait_for_check(&server, "ct:second", "not_ready", Some("status 500"));
    assert_eq!(server.metric(r#"mayfly_ct_log_up{log="second"}"#), 0);
    // A timestamp says more than a list of roots.
    issues("a certificate", &server, &first);
    wait_for_check(&server, "ct:first", "degraded", None);

    let root = STANDARD.encode(server.trust.chain.root().der());
    second.has_roots(roots(json!(["AAAA", root])));
    wait_for_check(&server, "ct:second", "ready", None);
    assert_eq!(server.metric(r#"mayfly_ct_log_up{log="second"}"#), 1);
}

#[test]
fn the_logs_of_others_are_what_clients_trust() {
    let (first, second) = (OtherLog::start("first"), OtherLog::start_rsa("second"));
    let server = server_with(&[&first, &second], |_| {});
    assert!(server.own_log.is_none());
    assert_eq!(server.get("/ct/main/checkpoint").status, 404);
    let root = server.trust.trusted_root().unwrap();
    let logs = root["ctlogs"].as_array().unwrap();
    let shown = |log: &Value| {
        (
            log["baseUrl"].clone(),
            log["publicKey"]["keyDetails"].clone(),
        )
    };
    let expected = [
        (first.url().into(), "PKIX_ECDSA_P256_SHA_256".into()),
        (second.url().into(), "PKIX_RSA_PKCS1V15_2048_SHA256".into()),
    ];
    assert_eq!(logs.iter().map(shown).collect::<Vec<_>>(), expected);

    // Timestamps by RSA are as good as others.
    first.replies(Reply::status("400 Bad"));
    let answer = server.send(&server.good_request());
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(submissions(&server, &second, "ok"), 1);
}

#[test]
fn a_log_has_a_ca_and_a_host_of_its_own() {
    let log = OtherLog::start_tls("offsite");
    let server = server_with(&[&log], |settings| {
        settings.ct.logs[0].host = Some("ct.example.org".to_owned());
    });
    issues("its own CA", &server, &log);
    let heads = log.requests();
    let is_named = |head: &String| head.to_lowercase().contains("\r\nhost: ct.example.org\r\n");
    assert!(heads.iter().all(is_named), "{heads:?}");

    let stranger = OtherLog::start_tls("other");
    let server = server_with(&[&log], |settings| {
        settings.ct.logs[0].tls_ca_file = stranger.config().tls_ca_file;
    });
    let submitted = log.submitted().len();
    refuses("another CA", &server, "ct_unavailable");
    assert_eq!(log.submitted().len(), submitted);
}

#[test]
fn a_log_with_another_key_than_the_configured_one_is_of_no_use() {
    let (log, other) = (OtherLog::start("offsite"), OtherLog::start("other"));
    let server = server_with(&[&log], |settings| {
        settings.ct.logs[0].public_key_file = other.public_key_file();
    });
    refuses("another key", &server, "ct_bad_sct");
}

/// Asks a log whether it keeps its promises, as the server does every minute.
fn audit(server: &TestServer) -> Result<usize, AuditError> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().unwrap();
    runtime.block_on(server.remote_logs[0].audit())
}

#[test]
fn a_log_is_asked_until_it_holds_what_it_promised() {
    let log = OtherLog::start("offsite");
    let server = server_with(&[&log], |_| {});
    let overdue = || server.metric(r#"mayfly_ct_inclusion_overdue{log="offsite"}"#);
    assert_eq!(audit(&server), Ok(0), "an empty tree");
    log.merges(false);
    let promise = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&promise);
    log.lies(move |promise| *kept.lock().unwrap() = Some(promise.clone()));
    issues("a promise", &server, &log);
    log.merges(true);
    log.is_honest();
    for _ in 0..4 {
        issues("one more", &server, &log);
    }
    assert_eq!(audit(&server), Ok(0), "not there yet");
    server.clock.advance(Duration::from_secs(25 * 3600));
    assert_eq!((audit(&server), overdue()), (Ok(1), 1));

    // The entry comes late, and is not looked for again.
    let promise = promise.lock().unwrap().take().unwrap();
    promise.json();
    let asked = log.asked_for("get-proof-by-hash");
    assert_eq!((audit(&server), overdue()), (Ok(0), 0));
    assert_eq!(log.asked_for("get-proof-by-hash"), asked + 1);
    assert_eq!(audit(&server), Ok(0));
    assert_eq!(log.asked_for("get-proof-by-hash"), asked + 1);
    assert!(log.asked_for("get-sth-consistency") > 0);
}

#[test]
fn a_log_that_signed_two_trees_is_not_used_any_more() {
    let log = OtherLog::start("offsite");
    let server = server_with(&[&log], |_| {});
    issues("an honest log", &server, &log);
    assert_eq!(audit(&server), Ok(0));
    log.has_leaves(|leaves| leaves[0][0] ^= 1);
    let Err(error @ AuditError::Forked(..)) = audit(&server) else {
        panic!("a fork was not found")
    };
    // Whoever reads it can prove it.
    let shown = error.to_string();
    assert_eq!(shown.matches("tree_head_signature").count(), 2, "{shown}");
    let submitted = log.submitted().len();
    refuses("a log that forked", &server, "ct_unavailable");
    assert_eq!(log.submitted().len(), submitted);
    wait_for("readiness to say so", || {
        let report = server.get("/readyz");
        let is_told = report.text().contains("it signed two trees of one size");
        (is_told && report.status == 503).then_some(())
    });
}

/// Whoever stands between could say such things: they are told, and the log is used.
#[test]
fn what_a_log_does_not_prove_is_told_and_not_taken_for_a_fork() {
    let log = OtherLog::start("offsite");
    let server = server_with(&[&log], |_| {});
    issues("an honest log", &server, &log);
    for (call, reply) in [
        ("get-sth", Reply::document("{}")),
        ("get-sth", Reply::document("<html>")),
        ("get-sth", {
            let root = STANDARD.encode([0; 32]);
            let lie = json!({ "tree_size": 9, "timestamp": 1, "sha256_root_hash": root, "tree_head_signature": "BAMAAA==" });
            Reply::document(lie.to_string())
        }),
        (
            "get-proof-by-hash",
            Reply::document(json!({ "leaf_index": 7, "audit_path": [] }).to_string()),
        ),
        (
            "get-proof-by-hash",
            Reply::document(json!({ "leaf_index": 0, "audit_path": ["AAAA"] }).to_string()),
        ),
    ] {
        log.says_of_its_tree(call, Some(reply));
        assert!(
            matches!(audit(&server), Err(AuditError::Unproven(_))),
            "{call}"
        );
        log.says_of_its_tree(call, None);
    }
    assert_eq!(audit(&server), Ok(0));
    issues("a larger tree", &server, &log);
    for reply in [json!([]), json!([STANDARD.encode([0; 32])])] {
        let reply = json!({ "consistency": reply });
        log.says_of_its_tree(
            "get-sth-consistency",
            Some(Reply::document(reply.to_string())),
        );
        assert!(
            matches!(audit(&server), Err(AuditError::Unproven(_))),
            "{reply}"
        );
    }
    log.says_of_its_tree("get-sth-consistency", None);
    assert_eq!(audit(&server), Ok(0));
    for reply in [Reply::status("404 Not Found"), Reply::status("500 Oops")] {
        log.says_of_its_tree("get-sth", Some(reply));
        assert!(matches!(audit(&server), Err(AuditError::Unknown(_))));
    }
    issues("all the same", &server, &log);
}
