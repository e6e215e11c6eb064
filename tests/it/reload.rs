//! Other versions of the identity configuration, put in force while the server serves.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;
use serde_json::Value;

use crate::operating::Trusting;
use crate::support::http::{self, Request};
use crate::support::process::Process;
use crate::support::server::test_keys;
use crate::support::wait_for;

const OTHERS: [&str; 4] = [
    "https://a.example.com",
    "https://b.example.com",
    "https://c.example.com",
    "https://d.example.com",
];

fn entry(url: &str) -> String {
    format!("  {url}:\n    issuer-url: {url}\n    client-id: sigstore\n    type: email\n")
}

/// A configuration that trusts the test's issuer and others.
fn with_others(trusting: &Trusting, others: &[&str]) -> String {
    let others: String = others.iter().map(|url| entry(url)).collect();
    trusting.identity() + &others
}

/// The issuers that clients are told of.
fn published(process: &Process) -> usize {
    let answer = http::send(process.address, &Request::get("/api/v2/configuration"));
    let document: Value = serde_json::from_str(answer.text()).unwrap();
    document["issuers"].as_array().unwrap().len()
}

fn metric(process: &Process, line: &str) -> bool {
    let metrics = http::send(process.metrics_address, &Request::get("/metrics"));
    metrics.text().lines().any(|found| found == line)
}

fn readiness(process: &Process) -> Value {
    let answer = http::send(process.address, &Request::get("/readyz"));
    serde_json::from_str(answer.text()).unwrap()
}

fn config_check(process: &Process) -> Value {
    let checks = readiness(process)["checks"].clone();
    let mut checks = checks.as_array().unwrap().iter();
    checks
        .find(|check| check["name"] == "config")
        .unwrap()
        .clone()
}

fn issues(trusting: &Trusting, process: &Process) {
    let answer = http::send(process.address, &trusting.good_request());
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn a_hangup_puts_the_configuration_on_the_disk_in_force() {
    let trusting = Trusting::new();
    let process = Process::start(trusting.instance.serve().arg("--no-watch"));
    let before = readiness(&process)["config_digest"].clone();
    assert_eq!(published(&process), 1);
    trusting
        .instance
        .write_identity(&with_others(&trusting, &OTHERS));
    process.signal(Signal::HUP);
    let reloaded = &process.events("config.reloaded", 1)[0];
    assert_eq!(
        (&reloaded["issuers"], &reloaded["is_changed"]),
        (&5.into(), &true.into())
    );
    assert_eq!(published(&process), 5);
    let digest = reloaded["digest"].as_str().unwrap();
    assert_ne!(before, digest);
    assert_eq!(readiness(&process)["config_digest"], digest);
    assert!(metric(
        &process,
        &format!("mayfly_config_info{{digest=\"{digest}\",kind=\"identity\"}} 1")
    ));
    assert!(metric(&process, "mayfly_config_issuers{kind=\"exact\"} 5"));
    assert!(metric(
        &process,
        "mayfly_config_reloads_total{kind=\"identity\",result=\"ok\"} 1"
    ));
    let old = before.as_str().unwrap();
    assert!(!metric(
        &process,
        &format!("mayfly_config_info{{digest=\"{old}\",kind=\"identity\"}} 1")
    ));
    issues(&trusting, &process);
}

#[test]
fn changed_files_are_put_in_force_unasked_and_wrong_ones_are_not() {
    let trusting = Trusting::new();
    let process = Process::start(&mut trusting.instance.serve());
    // As an editor does it: another file takes the name.
    let next = trusting.instance.data_dir().join("identity.yaml.new");
    std::fs::write(&next, with_others(&trusting, &OTHERS)).unwrap();
    std::fs::rename(&next, trusting.instance.identity()).unwrap();
    process.events("config.reloaded", 1);
    assert_eq!(published(&process), 5);

    trusting
        .instance
        .write_identity(&(with_others(&trusting, &OTHERS) + "    tpye: email\n"));
    let rejected = &process.events("config.rejected", 1)[0];
    let finding = rejected["finding"].as_str().unwrap();
    assert!(
        finding.contains("[MF101]") && finding.contains("identity.yaml:"),
        "{finding}"
    );
    assert_eq!(published(&process), 5);
    assert!(metric(
        &process,
        "mayfly_config_last_reload_successful{kind=\"identity\"} 0"
    ));
    assert!(metric(
        &process,
        "mayfly_config_reloads_total{kind=\"identity\",result=\"refused\"} 1"
    ));
    let config = wait_for("the check", || {
        let check = config_check(&process);
        (check["ok"] == false).then_some(check)
    });
    assert_eq!(readiness(&process)["status"], "degraded");
    assert!(
        config["detail"].as_str().unwrap().contains("[MF101]"),
        "{config}"
    );
    issues(&trusting, &process);

    trusting
        .instance
        .write_identity(&with_others(&trusting, &OTHERS[..2]));
    process.events("config.reloaded", 2);
    assert_eq!(published(&process), 3);
    assert!(metric(
        &process,
        "mayfly_config_last_reload_successful{kind=\"identity\"} 1"
    ));
    wait_for("the check", || {
        (config_check(&process)["ok"] == true).then_some(())
    });
    issues(&trusting, &process);
}

#[test]
fn a_key_set_in_a_file_of_its_own_is_taken_over_when_it_changes() {
    let trusting = Trusting::new();
    let keys = trusting.instance.data_dir().join("keys.json");
    let jwks = test_keys().jwks().to_string();
    std::fs::write(&keys, jwks.replace("test-", "old-")).unwrap();
    let identity = trusting.identity() + "    jwks-file: keys.json\n";
    trusting.instance.write_identity(&identity);
    let process = Process::start(&mut trusting.instance.serve());
    let refused = http::send(process.address, &trusting.good_request());
    assert_eq!(refused.status, 400, "{}", refused.text());

    let next = keys.with_extension("new");
    std::fs::write(&next, jwks).unwrap();
    std::fs::rename(&next, &keys).unwrap();
    let reloaded = &process.events("config.reloaded", 1)[0];
    assert_eq!(reloaded["is_changed"], true);
    issues(&trusting, &process);
}

#[test]
fn most_issuers_go_only_when_that_is_seen_twice() {
    let trusting = Trusting::new();
    trusting
        .instance
        .write_identity(&with_others(&trusting, &OTHERS));
    let process = Process::start(trusting.instance.serve().arg("--no-watch"));
    // Seen while it is written: what follows comes before the second look.
    trusting.instance.write_identity(&trusting.identity());
    process.signal(Signal::HUP);
    std::thread::sleep(std::time::Duration::from_millis(300));
    trusting
        .instance
        .write_identity(&with_others(&trusting, &OTHERS));
    process.events("config.reloaded", 1);
    assert_eq!(published(&process), 5);
    // Meant so.
    trusting.instance.write_identity(&trusting.identity());
    process.signal(Signal::HUP);
    process.events("config.reloaded", 2);
    assert_eq!(published(&process), 1);
    issues(&trusting, &process);
}

#[test]
fn reloads_fail_no_request_and_many_become_one() {
    let trusting = Trusting::new();
    let process = Process::start(&mut trusting.instance.serve());
    let (is_over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    issues(&trusting, &process);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for count in 1..=4 {
            trusting
                .instance
                .write_identity(&with_others(&trusting, &OTHERS[..count]));
            for _ in 0..250 {
                process.signal(Signal::HUP);
            }
            wait_for("the reload", || {
                (published(&process) == count + 1).then_some(())
            });
        }
        let enough = served.load(Ordering::Relaxed) + 40;
        wait_for("requests after the last reload", || {
            (served.load(Ordering::Relaxed) >= enough).then_some(())
        });
        is_over.store(true, Ordering::Relaxed);
    });
    let reloads = process.events("config.reloaded", 4).len();
    assert!(reloads < 250, "1,000 signals made {reloads} reloads");
    assert!(metric(&process, "mayfly_config_issuers{kind=\"exact\"} 5"));
    process.terminate();
    assert_eq!(process.end().0, 0);
}
