//! Issuers whose operator is hostile, whose servers are broken, or whose names lead elsewhere.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mayfly::clock::{Clock, FixedClock, SystemClock};
use mayfly::dev::oidc::{TestAlgorithm, TestClaims, TestIssuer, TestKeys};
use mayfly::fetch::ClusterFiles;
use serde_json::{Value, json};

use crate::support::http::{self, Request};
use crate::support::issuer::{
    Addresses, HostileIssuer, Reply, claims_from, request_from, signed_by, with_token,
};
use crate::support::key::TestKey;
use crate::support::process::{Instance, Process};
use crate::support::refusal::Expected;
use crate::support::server::{EMAIL, NOW, TestServer, V2, test_keys};
use crate::support::wait_for;

/// What comes of an issuer that answers wrongly.
const WRONG: Expected<'_> = Expected {
    status: 400,
    code: 3,
    reasons: &["issuer_unavailable"],
};
/// What comes of an issuer that does not answer.
const UNAVAILABLE: Expected<'_> = Expected {
    status: 503,
    code: 14,
    reasons: &["issuer_unavailable"],
};

/// A server that trusts these issuers.
fn trusting(entries: &str) -> TestServer {
    TestServer::start_with(|_| {}, entries)
}

fn changed(mut object: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        object[name] = value.clone();
    }
    object
}

fn rsa_jwk() -> Value {
    test_keys().jwks()["keys"][0].clone()
}

fn ec_jwk() -> Value {
    test_keys().jwks()["keys"][1].clone()
}

fn set_of(keys: Vec<Value>) -> Value {
    json!({ "keys": keys })
}

/// A document in a gzip frame (RFC 1952) of one stored block (RFC 1951, section 3.2.4).
fn gzip(document: &[u8]) -> Vec<u8> {
    let mut remainder = u32::MAX;
    for octet in document {
        remainder ^= u32::from(*octet);
        for _ in 0..8 {
            let is_odd = remainder & 1 == 1;
            remainder = (remainder >> 1) ^ if is_odd { 0xedb8_8320 } else { 0 };
        }
    }
    let length = u16::try_from(document.len()).unwrap();
    [
        &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1],
        &length.to_le_bytes()[..],
        &(!length).to_le_bytes(),
        document,
        &(!remainder).to_le_bytes(),
        &u32::from(length).to_le_bytes(),
    ]
    .concat()
}

/// What an issuer gets wrong: its name here, which document, the answer, what comes of it, and words of the message.
type Wrong = (
    &'static str,
    &'static str,
    Reply,
    Expected<'static>,
    &'static str,
);

/// Every way to answer at once and wrongly.
fn wrong_answers(issuer: &HostileIssuer, canary: &HostileIssuer) -> Vec<Wrong> {
    let with = |name, changes| issuer.discovery(name, changes);
    let elsewhere = canary.url("canary/jwks");
    let port = issuer.address.port();
    let good_set = test_keys().jwks().to_string();
    let discovery =
        |name: &'static str, reply, expected, words| (name, "discovery", reply, expected, words);
    let jwks = |name: &'static str, reply, expected, words| (name, "jwks", reply, expected, words);
    let endless = Reply::Endless(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
        format!("4000\r\n{}\r\n", " ".repeat(0x4000)).into(),
    );
    let large = Reply::Endless(
        b"HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n".into(),
        vec![b' '; 0x4000],
    );
    let zipped = Reply::with_headers("Content-Encoding: gzip\r\n", gzip(good_set.as_bytes()));
    let deep = format!("{{\"keys\":{}", "[".repeat(200_000));
    let private = set_of(vec![rsa_jwk(), changed(ec_jwk(), json!({ "d": "AQAB" }))]);
    let many = set_of(vec![changed(rsa_jwk(), json!({ "kid": "other" })); 20_000]);
    let redirects = |location: &str| Reply::redirect(location);
    let redirected = "redirects to another";
    vec![
        // Who it says it is.
        discovery(
            "another-name",
            with("another-name", json!({ "issuer": "https://other.example" })),
            WRONG,
            "it is that of issuer",
        ),
        discovery(
            "a-slash-more",
            with(
                "a-slash-more",
                json!({ "issuer": issuer.url("a-slash-more/") }),
            ),
            WRONG,
            "it is that of issuer",
        ),
        discovery(
            "no-name",
            with("no-name", json!({ "issuer": null })),
            WRONG,
            "`issuer` is missing",
        ),
        discovery(
            "a-list-of-names",
            with(
                "a-list-of-names",
                json!({ "issuer": [issuer.url("a-list-of-names")] }),
            ),
            WRONG,
            "`issuer` is missing",
        ),
        // Redirects.
        discovery("to-another-port", redirects(&elsewhere), WRONG, redirected),
        discovery(
            "to-another-host",
            redirects(&format!("http://localhost:{port}/x")),
            WRONG,
            redirected,
        ),
        discovery(
            "to-another-scheme",
            redirects(&format!("https://127.0.0.1:{port}/x")),
            WRONG,
            redirected,
        ),
        discovery(
            "to-a-file",
            redirects("file:///etc/passwd"),
            WRONG,
            redirected,
        ),
        discovery(
            "to-gopher",
            redirects("gopher://127.0.0.1/"),
            WRONG,
            redirected,
        ),
        discovery("to-ftp", redirects("ftp://127.0.0.1/"), WRONG, redirected),
        discovery("to-nowhere", Reply::status("302 Found"), WRONG, redirected),
        discovery(
            "to-itself",
            redirects("openid-configuration"),
            WRONG,
            redirected,
        ),
        jwks(
            "keys-to-another-port",
            redirects(&elsewhere),
            WRONG,
            redirected,
        ),
        // Where it says its keys are.
        discovery(
            "keys-in-a-file",
            with(
                "keys-in-a-file",
                json!({ "jwks_uri": "file:///etc/passwd" }),
            ),
            WRONG,
            "not an https URL",
        ),
        discovery(
            "keys-in-metadata",
            with(
                "keys-in-metadata",
                json!({ "jwks_uri": "http://169.254.169.254/latest/meta-data/" }),
            ),
            WRONG,
            "no address that may be connected to",
        ),
        discovery(
            "keys-behind-a-user",
            with(
                "keys-behind-a-user",
                json!({ "jwks_uri": format!("http://u:p@127.0.0.1:{port}/keys-behind-a-user/jwks") }),
            ),
            WRONG,
            "not one that may be fetched",
        ),
        discovery(
            "keys-without-scheme",
            with("keys-without-scheme", json!({ "jwks_uri": "/jwks" })),
            WRONG,
            "not a URL",
        ),
        discovery(
            "keys-nowhere",
            with("keys-nowhere", json!({ "jwks_uri": null })),
            WRONG,
            "`jwks_uri` is missing",
        ),
        discovery(
            "keys-of-another-type",
            with("keys-of-another-type", json!({ "jwks_uri": [1] })),
            WRONG,
            "`jwks_uri` is missing",
        ),
        // What is no document.
        discovery(
            "in-trouble",
            Reply::status("500 Oops"),
            UNAVAILABLE,
            "status 500",
        ),
        discovery(
            "not-there",
            Reply::status("404 Not Found"),
            WRONG,
            "status 404",
        ),
        jwks(
            "keys-not-there",
            Reply::status("404 Not Found"),
            WRONG,
            "key set: the server answered with status 404",
        ),
        jwks(
            "keys-in-trouble",
            Reply::status("503 Later"),
            UNAVAILABLE,
            "key set: the server answered with status 503",
        ),
        discovery("empty", Reply::document(""), WRONG, "EOF"),
        discovery(
            "html",
            Reply::document("<!doctype html>"),
            WRONG,
            "expected value",
        ),
        jwks("a-list", Reply::document("[]"), WRONG, "expected an object"),
        jwks(
            "an-object-of-keys",
            Reply::document(r#"{"keys":{}}"#),
            WRONG,
            "`keys` is missing or not a list",
        ),
        jwks("deep", Reply::document(deep), WRONG, "nested too deep"),
        jwks(
            "not-http",
            Reply::Octets(b"SSH-2.0-OpenSSH_9\r\n\r\n".into()),
            UNAVAILABLE,
            "the connection failed",
        ),
        // What is too much.
        discovery("64-mib", large.clone(), WRONG, "larger than 1 MiB"),
        jwks("keys-of-64-mib", large, WRONG, "larger than 1 MiB"),
        jwks("endless", endless, WRONG, "larger than 1 MiB"),
        jwks(
            "20-thousand-keys",
            Reply::document(many.to_string()),
            WRONG,
            "larger than 1 MiB",
        ),
        jwks("compressed", zipped, WRONG, "is compressed"),
        // What everyone could sign with.
        jwks(
            "private",
            Reply::document(private.to_string()),
            WRONG,
            "publishes a private key",
        ),
    ]
}

#[test]
fn issuers_that_answer_wrongly_are_not_believed_and_not_asked_again_at_once() {
    let (issuer, canary) = (HostileIssuer::start(), HostileIssuer::start());
    let cases = wrong_answers(&issuer, &canary);
    for (name, what, reply, ..) in &cases {
        issuer.serve(name);
        issuer.set(name, what, reply.clone());
    }
    let server = trusting(&issuer.entries(cases.iter().map(|(name, ..)| *name)));
    for (name, _, _, expected, words) in &cases {
        let request = issuer.good_request(name);
        let answer = server.answers_with(name, &request, *expected);
        assert!(answer.text().contains(words), "{name}: {}", answer.text());
        let asked = issuer.requests_of(name);
        server.answers_with(name, &request, *expected);
        assert_eq!(issuer.requests_of(name), asked, "{name}: asked again");
    }
    assert_eq!(canary.connections(), 0);
    // Three bodies without end: what was taken of them is what sockets hold, and little more than the limit.
    assert!(issuer.sent() < 3 * (16 << 20), "{}", issuer.sent());
    let heads = issuer.requests().concat().to_ascii_lowercase();
    assert!(!heads.contains("accept-encoding"), "{heads}");
    server.issues("an issuer among bad ones", &server.good_request());
}

#[test]
fn issuers_that_do_not_answer_in_time_are_a_503_and_hold_up_nobody() {
    let issuer = HostileIssuer::start();
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n";
    let cases = [
        ("silent", "discovery", Reply::Stalled(Vec::new())),
        ("silent-keys", "jwks", Reply::Stalled(Vec::new())),
        ("half-a-head", "jwks", Reply::Stalled(b"HTTP/1.1 2".into())),
        ("half-a-body", "jwks", Reply::Stalled(head.into())),
        (
            "slow",
            "jwks",
            Reply::Dripping([head, &"x".repeat(100_000)].concat().into()),
        ),
        (
            "slow-head",
            "discovery",
            Reply::Dripping("x".repeat(100_000).into()),
        ),
    ];
    for (name, what, reply) in &cases {
        issuer.serve(name);
        issuer.set(name, what, reply.clone());
    }
    let server = trusting(&issuer.entries(cases.iter().map(|(name, ..)| *name)));
    let before = (server.traces(), server.refusals("issuer_unavailable"));
    let issued = std::thread::scope(|scope| {
        let waiting = cases.each_ref().map(|(name, ..)| {
            let (server, request) = (&server, issuer.good_request(name));
            scope.spawn(move || (name, server.send(&request)))
        });
        let mut issued = 0;
        while !waiting.iter().all(|thread| thread.is_finished()) {
            assert_eq!(server.send(&server.good_request()).status, 200);
            issued += 1;
        }
        for thread in waiting {
            let (name, answer) = thread.join().unwrap();
            assert_eq!(answer.status, 503, "{name}: {}", answer.text());
            assert_eq!(answer.header("mayfly-reason"), Some("issuer_unavailable"));
            assert!(answer.header("retry-after").is_some());
        }
        issued
    });
    assert!(issued > 0);
    let (traces, refused) = (server.traces(), server.refusals("issuer_unavailable"));
    assert_eq!(traces.certificates, before.0.certificates + issued);
    assert_eq!(traces.entries, before.0.entries + issued);
    assert_eq!(refused, before.1 + 6);
    // The fetch itself ends too, although the issuer never ends it.
    wait_for("the server to hang up", || {
        (issuer.given_up() >= 6).then_some(())
    });
}

#[test]
fn many_requests_wait_for_one_fetch_and_others_do_not_wait_for_them() {
    let issuer = HostileIssuer::start();
    issuer.serve("held");
    issuer.hold();
    let server = trusting(&issuer.entries(["held"]));
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..40)
            .map(|_| {
                let (server, request) = (&server, issuer.good_request("held"));
                scope.spawn(move || server.send(&request))
            })
            .collect();
        wait_for("the fetch", || {
            (issuer.requests_of("held") > 0).then_some(())
        });
        for _ in 0..10 {
            assert_eq!(server.send(&server.good_request()).status, 200);
        }
        issuer.let_go();
        for thread in waiting {
            let answer = thread.join().unwrap();
            // Those that waited longer than two seconds were told to come back.
            assert!(matches!(answer.status, 200 | 503), "{}", answer.text());
        }
    });
    assert_eq!(issuer.requests_of("held"), 2);
    server.issues("after the fetch", &issuer.good_request("held"));
}

#[test]
fn forged_key_names_cause_few_fetches_and_spoil_no_known_key() {
    let issuer = HostileIssuer::start();
    issuer.serve("forged");
    let server = trusting(&issuer.entries(["forged"]));
    server.issues("a known key", &issuer.good_request("forged"));
    let before = server.traces();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (server, issuer) = (&server, &issuer);
            scope.spawn(move || {
                for index in 0..25 {
                    let header = json!({ "alg": "ES256", "kid": format!("{thread}-{index}") });
                    let request = issuer.request_with("forged", &header, test_keys());
                    let answer = server.send(&request);
                    assert_eq!(answer.header("mayfly-reason"), Some("unknown_key"));
                }
            });
        }
        for _ in 0..10 {
            assert_eq!(server.send(&issuer.good_request("forged")).status, 200);
        }
    });
    assert_eq!(server.refusals("unknown_key"), 200);
    assert_eq!(server.traces().certificates, before.certificates + 10);
    assert_eq!(server.traces().entries, before.entries + 10);
    let asked = issuer.requests_of("forged");
    assert!(asked <= 10, "{asked} requests");
    let header = json!({ "alg": "ES256", "kid": "one-more" });
    let request = issuer.request_with("forged", &header, test_keys());
    server.refuses("with the allowance used up", &request, &["unknown_key"]);
    assert_eq!(issuer.requests_of("forged"), asked);
}

#[test]
fn keys_that_change_under_load_refuse_no_good_token() {
    let issuer = HostileIssuer::start();
    let keys: Vec<TestKeys> = (0..3).map(|_| TestKeys::generate().unwrap()).collect();
    let key_id = |index: usize| format!("key-{index}");
    let publish = |index: usize| {
        let key = keys[index].jwks()["keys"][1].clone();
        let key = changed(key, json!({ "kid": key_id(index) }));
        issuer.serve_keys("rotating", &set_of(vec![key]));
    };
    let request = |index: usize| {
        let header = json!({ "alg": "ES256", "kid": key_id(index) });
        issuer.request_with("rotating", &header, &keys[index])
    };
    publish(0);
    let server = trusting(&issuer.entries(["rotating"]));
    let current = RwLock::new(0);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let load: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut issued = 0;
                    while !is_over.load(Ordering::SeqCst) {
                        // Held over the request, so that the key in use is one that is published.
                        let index = current.read().unwrap();
                        let answer = server.send(&request(*index));
                        assert_eq!(answer.status, 200, "{}: {}", *index, answer.text());
                        issued += 1;
                    }
                    issued
                })
            })
            .collect();
        for next in 1..keys.len() {
            let mut index = current.write().unwrap();
            publish(next);
            *index = next;
            server.issues("the new key, at once", &request(next));
            server.refuses("the old key", &request(next - 1), &["unknown_key"]);
        }
        is_over.store(true, Ordering::SeqCst);
        for thread in load {
            let _: u64 = thread.join().unwrap();
        }
    });
}

#[test]
fn keys_are_used_for_an_hour_and_not_longer_when_their_issuer_is_gone() {
    let issuer = HostileIssuer::start();
    issuer.serve("leaving");
    let request = issuer.good_request("leaving");
    let server = trusting(&issuer.entries(["leaving"]));
    server.issues("while it is there", &request);
    let address = issuer.address;
    drop(issuer);
    // A log whose entries were not published for so long would refuse the next.
    let issues = |what: &str, request: &Request| {
        server.issues(what, request);
        wait_for("the publisher", || {
            let [all, published] = ["tree", "published"]
                .map(|which| server.metric(&format!(r#"mayfly_log_{which}_size{{log="main"}}"#)));
            (all > 0 && all == published).then_some(())
        });
    };
    for minutes in [0, 44, 15] {
        server.clock.advance(Duration::from_secs(minutes * 60));
        issues("from memory", &request);
    }
    server.clock.advance(Duration::from_secs(60));
    server.answers_with("after an hour", &request, UNAVAILABLE);
    issues("another issuer", &server.good_request());
    let issuer = HostileIssuer::start_at(address);
    issuer.serve("leaving");
    server.answers_with("within the pause", &request, UNAVAILABLE);
    assert_eq!(issuer.connections(), 0);
    server.clock.advance(Duration::from_secs(10));
    server.issues("when it is back", &request);
}

#[test]
fn issuers_that_are_not_there_at_the_start_are_found_later() {
    let gone = HostileIssuer::start();
    let (address, entries) = (gone.address, gone.entries(["late"]));
    let request = gone.good_request("late");
    drop(gone);
    let server = trusting(&entries);
    server.answers_with("before it is there", &request, UNAVAILABLE);
    server.issues("another issuer", &server.good_request());
    let issuer = HostileIssuer::start_at(address);
    issuer.serve("late");
    server.clock.advance(Duration::from_secs(10));
    server.issues("when it is there", &request);
}

/// Ed25519 keys that everyone can sign with: of order 1, 2 and 4, and order 1 in a form that is not canonical
/// (RFC 8032, section 5.1.3).
fn weak_ed25519() -> Vec<(&'static str, Vec<u8>)> {
    let with_ends =
        |first: u8, middle: u8, last: u8| [&[first], &[middle; 30][..], &[last]].concat();
    vec![
        ("order 1", with_ends(1, 0, 0)),
        ("order 2", with_ends(0xec, 0xff, 0x7f)),
        ("order 4", with_ends(0, 0, 0)),
        ("order 1, not canonical", with_ends(0xee, 0xff, 0x7f)),
        ("31 octets", vec![9; 31]),
    ]
}

#[test]
fn keys_that_prove_nothing_are_not_used_and_the_others_are() {
    let encode = |octets: &[u8]| URL_SAFE_NO_PAD.encode(octets);
    let rsa = |changes: Value| changed(rsa_jwk(), changes);
    let ec = |changes: Value| changed(ec_jwk(), changes);
    let odd = |octets: usize| {
        let mut number = vec![0xff; octets];
        number[0] = 0x80;
        encode(&number)
    };
    let even = encode(&[&[0xff; 255][..], &[0xfe]].concat());
    let modulus_with_prefix = |prefix: u8| encode(&[&[prefix], &[0xff; 256][..]].concat());
    let mut keys = vec![
        ("RSA of 1024 bits", "RS256", rsa(json!({ "n": odd(128) }))),
        ("RSA of 2040 bits", "RS256", rsa(json!({ "n": odd(255) }))),
        ("RSA of 8208 bits", "RS256", rsa(json!({ "n": odd(1026) }))),
        (
            "RSA with an even modulus",
            "RS256",
            rsa(json!({ "n": even })),
        ),
        ("RSA with e = 0", "RS256", rsa(json!({ "e": "AA" }))),
        ("RSA with e = 1", "RS256", rsa(json!({ "e": "AQ" }))),
        ("RSA with e = 2", "RS256", rsa(json!({ "e": "Ag" }))),
        (
            "RSA with e = 2^32 + 1",
            "RS256",
            rsa(json!({ "e": "AQAAAAE" })),
        ),
        (
            "RSA with e longer than n",
            "RS256",
            rsa(json!({ "e": modulus_with_prefix(1) })),
        ),
        (
            "EC off the curve",
            "ES256",
            ec(json!({ "y": ec_jwk()["x"] })),
        ),
        (
            "EC at zero",
            "ES256",
            ec(json!({ "x": encode(&[0; 32]), "y": encode(&[0; 32]) })),
        ),
        (
            "EC without coordinates",
            "ES256",
            ec(json!({ "x": "", "y": "" })),
        ),
        (
            "EC with a long coordinate",
            "ES256",
            ec(json!({ "x": encode(&[1; 33]) })),
        ),
        (
            "EC on another curve",
            "ES256",
            ec(json!({ "crv": "secp256k1" })),
        ),
        ("a key for encryption", "ES256", ec(json!({ "use": "enc" }))),
        (
            "a key that may only sign",
            "ES256",
            ec(json!({ "key_ops": ["sign"] })),
        ),
        (
            "a key that may do nothing",
            "ES256",
            ec(json!({ "key_ops": [] })),
        ),
        (
            "a key of another algorithm",
            "ES256",
            ec(json!({ "alg": "ES384" })),
        ),
        (
            "a key that agrees on secrets",
            "ES256",
            ec(json!({ "alg": "ECDH-ES" })),
        ),
        (
            "a secret",
            "ES256",
            json!({ "kty": "oct", "k": encode(&[7; 32]) }),
        ),
        ("a key of no type", "ES256", json!({})),
        (
            "a key of an unknown type",
            "ES256",
            ec(json!({ "kty": "XYZ" })),
        ),
    ];
    for (what, point) in weak_ed25519() {
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(&point) });
        keys.push((what, "EdDSA", jwk));
    }
    let names: Vec<String> = (0..keys.len())
        .map(|index| format!("weak-{index}"))
        .collect();
    let issuer = HostileIssuer::start();
    for (name, (_, _, jwk)) in names.iter().zip(&keys) {
        let weak = changed(jwk.clone(), json!({ "kid": "weak" }));
        issuer.serve_keys(name, &set_of(vec![weak, ec_jwk()]));
    }
    let server = trusting(&issuer.entries(names.iter().map(String::as_str)));
    for (name, (what, algorithm, _)) in names.iter().zip(&keys) {
        let header = json!({ "alg": algorithm, "kid": "weak" });
        let good = issuer.request_with(name, &header, test_keys());
        server.refuses(what, &good, &["unknown_key"]);
        let token = forge(&header, &issuer.claims(name));
        server.refuses(what, &with_token(&token), &["unknown_key"]);
        server.issues(what, &issuer.good_request(name));
    }
}

/// A token with the signature that fits a key which proves nothing: RSA with e = 1 (the padded digest itself, RFC 8017,
/// section 9.2), and Ed25519 of low order (the neutral point and zero).
fn forge(header: &Value, payload: &Value) -> String {
    let input = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(payload.to_string())
    );
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, input.as_bytes());
    // DigestInfo of SHA-256.
    let info = [
        0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01,
        0x05, 0x00, 0x04, 0x20,
    ];
    let signature = match header["alg"].as_str() {
        Some("RS256") => [&[0, 1][..], &[0xff; 202], &[0], &info, digest.as_ref()].concat(),
        Some("EdDSA") => [&[1], &[0; 63][..]].concat(),
        _ => vec![0; 64],
    };
    format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn sets_of_keys_are_read_as_issuers_publish_them() {
    let issuer = HostileIssuer::start();
    let strangers = TestKeys::generate().unwrap();
    let stranger = strangers.jwks()["keys"][1].clone();
    let unnamed = |mut key: Value| {
        key.as_object_mut().unwrap().remove("kid");
        key
    };
    issuer.serve_keys("one-name-twice", &set_of(vec![stranger.clone(), ec_jwk()]));
    let fillers = vec![changed(stranger.clone(), json!({ "kid": "filler" })); 150];
    let crowd = [
        &[ec_jwk()],
        &fillers[..],
        &[changed(stranger.clone(), json!({ "kid": "last" }))],
    ];
    issuer.serve_keys("crowded", &set_of(crowd.concat()));
    let several = vec![rsa_jwk(), stranger.clone(), unnamed(ec_jwk())];
    issuer.serve_keys("unnamed", &set_of(several));
    let two_places = issuer.discovery(
        "two-places",
        json!({ "jwks_uri": issuer.url("one-name-twice/jwks") }),
    );
    issuer.set("two-places", "discovery", two_places);
    let elsewhere = HostileIssuer::start();
    elsewhere.serve("keys");
    let away = issuer.discovery("away", json!({ "jwks_uri": elsewhere.url("keys/jwks") }));
    issuer.set("away", "discovery", away);
    issuer.serve_keys("strangers", &set_of(vec![stranger]));
    let names = [
        "one-name-twice",
        "crowded",
        "unnamed",
        "two-places",
        "away",
        "strangers",
    ];
    let server = trusting(&issuer.entries(names));

    let named = json!({ "alg": "ES256", "kid": "test-ec" });
    let unnamed = json!({ "alg": "ES256" });
    let by = |name: &str, header: &Value, keys: &TestKeys| issuer.request_with(name, header, keys);
    server.issues(
        "the first of the name",
        &by("one-name-twice", &named, &strangers),
    );
    server.issues(
        "the second of the name",
        &by("one-name-twice", &named, test_keys()),
    );
    server.issues(
        "among the first hundred",
        &by("crowded", &named, test_keys()),
    );
    let last = json!({ "alg": "ES256", "kid": "last" });
    server.refuses(
        "beyond the first hundred",
        &by("crowded", &last, &strangers),
        &["unknown_key"],
    );
    server.issues(
        "a token that names no key",
        &by("unnamed", &unnamed, test_keys()),
    );
    server.issues("keys at another host", &by("away", &named, test_keys()));
    // Who shares a key set shares its keys; the keys of an issuer verify nobody else's tokens.
    server.issues("another's key set", &by("two-places", &named, &strangers));
    let bad = &["bad_token_signature"];
    server.refuses(
        "its key, our name",
        &by("strangers", &named, test_keys()),
        bad,
    );
    server.refuses(
        "its key, no name",
        &by("strangers", &unnamed, test_keys()),
        bad,
    );
    let claims = issuer.claims("unnamed");
    let by_stranger = signed_by(&strangers, &json!({ "alg": "ES256", "kid": "x" }), &claims);
    server.refuses(
        "a key of nobody",
        &with_token(&by_stranger),
        &["unknown_key"],
    );
}

#[test]
fn a_key_set_that_moves_is_followed() {
    let issuer = HostileIssuer::start();
    issuer.serve("moving");
    let server = trusting(&issuer.entries(["moving"]));
    server.issues("before", &issuer.good_request("moving"));
    let keys = TestKeys::generate().unwrap();
    let key = changed(keys.jwks()["keys"][1].clone(), json!({ "kid": "new" }));
    issuer.set(
        "moving",
        "elsewhere",
        Reply::document(set_of(vec![key]).to_string()),
    );
    let moved = json!({ "jwks_uri": issuer.url("moving/elsewhere") });
    issuer.set("moving", "discovery", issuer.discovery("moving", moved));
    let header = json!({ "alg": "ES256", "kid": "new" });
    server.issues("after", &issuer.request_with("moving", &header, &keys));
}

#[test]
fn issuers_of_a_pattern_are_never_sought_at_addresses_that_are_not_public() {
    let canary = HostileIssuer::start();
    let port = canary.address.port();
    let pattern = format!("https://*.idp.example:{port}/id/*");
    let names = Addresses::new(&[]);
    let entries =
        format!("meta-issuers:\n  {pattern}:\n    client-id: sigstore\n    type: email\n");
    let server = TestServer::start_resolving(names.clone(), |_| {}, &entries);
    let cases = [
        "127.0.0.1",
        "::1",
        "0.0.0.0",
        "::",
        "::ffff:127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "fc00::1",
        "fe80::1",
        "224.0.0.1",
        "ff02::1",
        "::ffff:10.0.0.1",
    ];
    for (index, address) in cases.iter().enumerate() {
        names.set(&[address]);
        let tenant = format!("https://t{index}.idp.example:{port}/id/1");
        let answer = server.answers_with(address, &request_from(&tenant), WRONG);
        let words = "no address that may be connected to";
        assert!(answer.text().contains(words), "{}", answer.text());
    }
    assert_eq!(names.asked().len(), cases.len());
    assert_eq!(canary.connections(), 0);
}

#[test]
fn what_only_looks_like_an_issuer_of_a_pattern_is_not_even_resolved() {
    let names = Addresses::new(&["127.0.0.1"]);
    let entries =
        "meta-issuers:\n  https://*.idp.example/id/*:\n    client-id: sigstore\n    type: email\n";
    let server = TestServer::start_resolving(names.clone(), |_| {}, entries);
    let long = format!("https://a.idp.example/id/{}", "x".repeat(129));
    for iss in [
        "http://a.idp.example/id/1",
        "https://.idp.example/id/1",
        "https://a.b.idp.example/id/1",
        "https://a.idp.example/id/",
        "https://a.idp.example/id/1/",
        "https://a.idp.example/id/1\n",
        "\nhttps://a.idp.example/id/1",
        "https://a.idp.example/id/1?x",
        "https://a.idp.example/id/%31",
        "https://a.idp.example/id/\u{e9}",
        "https://a.idp.example/id/1@evil.example/",
        "https://a.idp.example:1@evil.example/id/x",
        "https://evil.example\\.idp.example/id/1",
        "http://evil.example?https://a.idp.example/id/1",
        &long,
    ] {
        server.refuses(iss, &request_from(iss), &["issuer_unknown"]);
    }
    assert!(names.asked().is_empty(), "{:?}", names.asked());
}

#[test]
fn forged_issuers_of_a_pattern_are_looked_up_twenty_at_a_time() {
    let names = Addresses::new(&["10.0.0.1"]);
    let entries =
        "meta-issuers:\n  https://*.idp.example/id/*:\n    client-id: sigstore\n    type: email\n";
    let server = TestServer::start_resolving(names.clone(), |_| {}, entries);
    let forged = |index: usize| {
        let url = format!("https://t{index}.idp.example/id/1");
        with_token(&signed_by(
            test_keys(),
            &json!({ "alg": "ES256" }),
            &claims_from(&url),
        ))
    };
    let limited = Expected {
        status: 429,
        code: 8,
        reasons: &["rate_limited"],
    };
    for index in 0..20 {
        server.answers_with("a new issuer", &forged(index), WRONG);
    }
    for index in 20..200 {
        server.answers_with("one too many", &forged(index), limited);
    }
    assert_eq!(names.asked().len(), 20);
    server.issues("an issuer beside them", &server.good_request());
    server.clock.advance(Duration::from_secs(3));
    server.answers_with("three seconds later", &forged(200), WRONG);
    server.answers_with("and no more", &forged(201), limited);
}

#[test]
fn a_certificate_in_the_identity_file_is_trusted_for_its_issuer_alone() {
    let (issuer, pem) = HostileIssuer::start_tls("localhost");
    issuer.serve("trusted");
    issuer.serve("other");
    let indented = pem.trim().replace('\n', "\n  ");
    let entries =
        issuer.entry("trusted", &format!("ca-cert: |\n  {indented}")) + &issuer.entry("other", "");
    let server = trusting(&entries);
    server.issues("with its certificate", &issuer.good_request("trusted"));
    let answer = server.answers_with("without", &issuer.good_request("other"), WRONG);
    assert!(answer.text().contains("TLS handshake"), "{}", answer.text());
    server.issues("still", &issuer.good_request("trusted"));
    assert_eq!(issuer.requests_of("other"), 0);
}

#[test]
fn no_proxy_is_asked_no_cookie_kept_and_no_credential_sent() {
    let (issuer, proxy) = (HostileIssuer::start(), HostileIssuer::start());
    issuer.serve("cookies");
    let headers = "Set-Cookie: a=b; Path=/\r\nWWW-Authenticate: Basic\r\n";
    let discovery = issuer.discovery_json("cookies", &json!({}));
    issuer.set(
        "cookies",
        "discovery",
        Reply::with_headers(headers, discovery),
    );
    let instance = Instance::new();
    instance.write_identity(&format!("oidc-issuers:\n{}", issuer.entries(["cookies"])));
    let home = tempfile::tempdir().unwrap();
    std::fs::write(
        home.path().join(".netrc"),
        "default login canary password canary\n",
    )
    .unwrap();
    let proxy_url = format!("http://{}", proxy.address);
    let mut command = instance.serve();
    for name in [
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ] {
        command.env(name, &proxy_url);
    }
    command
        .env("HOME", home.path())
        .env_remove("no_proxy")
        .env_remove("NO_PROXY");
    let process = Process::start(&mut command);
    let tokens = TestIssuer::new(
        issuer.url("cookies"),
        Arc::clone(test_keys()),
        Arc::new(SystemClock) as Arc<dyn Clock>,
    );
    let token = tokens
        .token(&TestClaims::email(EMAIL), TestAlgorithm::Es256)
        .unwrap();
    let answer = http::send(process.address, &with_token(&token));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let ready = http::send(process.address, &Request::get("/healthz"));
    assert_eq!(ready.status, 200);
    assert_eq!(proxy.connections(), 0);
    assert_eq!(issuer.requests_of("cookies"), 2);
    let heads = issuer.requests().concat().to_ascii_lowercase();
    for header in ["\r\ncookie:", "authorization", "canary"] {
        assert!(!heads.contains(header), "{heads}");
    }
    process.terminate();
    assert_eq!(process.end().0, 0);
}

/// A request with a good token for a service account.
fn pod_request(url: &str) -> Request {
    let clock = Arc::new(FixedClock::at(NOW)) as Arc<dyn Clock>;
    let cluster = TestIssuer::new(url.to_owned(), Arc::clone(test_keys()), clock);
    let token = cluster.token(
        &TestClaims::kubernetes("default", "builder"),
        TestAlgorithm::Es256,
    );
    let proof = TestKey::generate().v2("system:serviceaccount:default:builder");
    Request::post(V2, proof.to_string()).bearer(&token.unwrap())
}

/// I08
#[test]
fn the_token_of_a_cluster_goes_to_its_own_api_server_alone() {
    let (api_server, pem) = HostileIssuer::start_tls("localhost");
    let canary = HostileIssuer::start();
    let folder = tempfile::tempdir().unwrap();
    let files = ClusterFiles {
        ca: Some(folder.path().join("ca.crt")),
        token: folder.path().join("token"),
    };
    std::fs::write(files.ca.as_ref().unwrap(), pem).unwrap();
    std::fs::write(&files.token, "our-own-token").unwrap();

    let elsewhere = |url: String| json!({ "jwks_uri": url });
    api_server.serve("cluster");
    api_server.serve("people");
    let away = elsewhere(format!(
        "https://127.0.0.1:{}/cluster/jwks",
        api_server.address.port()
    ));
    api_server.set("away", "discovery", api_server.discovery("away", away));
    let redirected = Reply::redirect(&format!("http://{}/", canary.address));
    api_server.set("redirected", "discovery", redirected);
    let kubernetes = |name: &str| api_server.entry(name, "").replace("email", "kubernetes");
    let entries = ["cluster", "away", "redirected"].map(kubernetes).concat()
        + &api_server.entry("people", "")
        + "  https://kubernetes.default.svc:
    issuer-url: https://kubernetes.default.svc
    client-id: sigstore
    type: kubernetes
meta-issuers:
  https://*.clusters.example/*:
    client-id: sigstore
    type: kubernetes
";
    let addresses = Addresses::new(&["127.0.0.1"]);
    let server = TestServer::start_in_cluster(&files, addresses, &entries);

    server.issues("a pod", &pod_request(&api_server.url("cluster")));
    for name in ["away", "redirected"] {
        server.answers_with(name, &pod_request(&api_server.url(name)), WRONG);
    }
    let tenant = "https://a.clusters.example/x";
    server.answers_with("a pattern's", &pod_request(tenant), WRONG);
    let people = api_server.good_request("people");
    server.answers_with("without the cluster's CA", &people, WRONG);

    assert_eq!(canary.connections(), 0);
    let heads = api_server.requests();
    assert!(heads.len() >= 4, "{heads:?}");
    for head in &heads {
        assert!(
            head.contains("authorization: Bearer our-own-token\r\n"),
            "{head}"
        );
    }
    for text in [
        server.metrics(),
        server.get("/readyz?verbose").text().to_owned(),
    ] {
        assert!(!text.contains("our-own-token"));
    }
}
