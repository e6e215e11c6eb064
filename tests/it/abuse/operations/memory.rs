//! How much memory a server takes of all that can be sent to it.

use std::path::PathBuf;

use mayfly::dev::oidc::TestClaims;
use serde_json::json;

use crate::operating::Trusting;
use crate::support::http::{self, Connection, Request};
use crate::support::issuer::signed_by;
use crate::support::key::TestKey;
use crate::support::process::Process;
use crate::support::server::{EMAIL, V2, test_keys};

/// The most that a server may take, in kB as the system counts.
const MOST: u64 = 128 << 10;

/// The most memory that a process has had at a time, in kB.
fn peak(process: u32) -> u64 {
    let status = PathBuf::from(format!("/proc/{process}/status"));
    let status = std::fs::read_to_string(status).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.unwrap().trim_end_matches("kB").trim().parse().unwrap()
}

/// A request with a token.
fn with_token(token: &str) -> Request {
    Request::post(V2, TestKey::generate().v2(EMAIL).to_string()).bearer(token)
}

#[test]
fn a_server_on_one_core_stays_small_whatever_is_sent_to_it() {
    let trusting = Trusting::new();
    let wildcard =
        "meta-issuers:\n  http://127.0.0.1:1/*:\n    client-id: sigstore\n    type: email\n";
    let wildcard = wildcard.replace("http://127.0.0.1:1/", "https://tenant.invalid/");
    trusting
        .instance
        .write_identity(&(trusting.identity() + &wildcard));
    // Every limit on, so that every table is there.
    let limits = "ip=100000:100000,issuer=100000:100000,subject=100000:100000,global=100000:100000";
    let mut command = trusting
        .instance
        .serve_within("taskset -pc 0 $$ >/dev/null");
    command.args(["--rate-limit", limits]);
    let process = Process::start(&mut command);
    let address = process.address;
    let started = peak(process.id());

    // Thousands of connections on which nothing is asked, and bodies of the largest size that never end.
    let idle: Vec<_> = (0..3000).map(|_| Connection::open(address)).collect();
    let body = vec![b' '; (128 << 10) - 1];
    let head = format!(
        "POST {V2} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len() + 1
    );
    let slow: Vec<_> = (0..1000)
        .map(|_| {
            let mut connection = Connection::open(address);
            // It may have been turned away by now.
            let _ = connection.write(&[head.as_bytes(), &body].concat());
            connection
        })
        .collect();

    // Tokens of thousands of subjects and tenants, of the largest size, and what is no token at all.
    let header = json!({ "alg": "ES256", "kid": "test-ec" });
    for number in 0..300 {
        let claims = json!({
            "iss": format!("https://tenant.invalid/{number}"), "aud": "sigstore", "sub": "x",
            "exp": 4_000_000_000_u64, "iat": 1, "email": EMAIL, "email_verified": true,
            "padding": "x".repeat(20_000),
        });
        let token = signed_by(test_keys(), &header, &claims);
        assert_ne!(http::send(address, &with_token(&token)).status, 200);
    }
    let garbage = Request::post(V2, vec![b'['; 100_000]).header("Content-Type", "application/json");
    let heads = Request::get("/healthz")
        .header("X-Padding", "x".repeat(30_000))
        .header("Connection", "close");
    for _ in 0..300 {
        // Malformed; or one long body too many.
        assert!(matches!(http::send(address, &garbage).status, 400 | 503));
        let mut connection = Connection::open(address);
        // It may be cut off before its end.
        let _ = connection.write(&heads.octets());
        let _ = connection.rest();
    }
    for number in 0..300 {
        let token = trusting.token(&TestClaims::email(&format!("user-{number}@example.com")));
        let email = format!("user-{number}@example.com");
        let request = Request::post(V2, TestKey::generate().v2(&email).to_string()).bearer(&token);
        let answer = http::send(address, &request);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let most = peak(process.id());
    assert!(
        most <= MOST,
        "{most} kB at most, {started} kB after the start"
    );
    drop((idle, slow));
    process.terminate();
    assert_eq!(process.end().0, 0);
}
