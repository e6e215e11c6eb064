//! What an entry of the identity file can ask of the tokens of its issuer.

use std::fmt::Write as _;

use mayfly::clock::Clock;
use serde_json::{Value, json};

use crate::support::http::Request;
use crate::support::issuer::{HostileIssuer, Reply, signed_by, with_token};
use crate::support::server::{TestServer, test_keys};
use crate::support::wait_for;

/// The entry `name` of an issuer, with these further settings, one a line. The audience is among them.
fn entry(name: &str, url: &str, settings: &str) -> String {
    let mut entry = format!("  {name}:\n    issuer-url: {url}\n    type: email\n");
    for line in settings.lines() {
        writeln!(entry, "    {line}").unwrap();
    }
    entry
}

/// A request with a token of these claims, besides those of a good one.
fn request(issuer: &HostileIssuer, name: &str, changes: &Value) -> Request {
    let mut claims = issuer.claims(name);
    for (claim, value) in changes.as_object().unwrap() {
        claims[claim] = value.clone();
    }
    let header = json!({ "alg": "ES256", "kid": "test-ec" });
    with_token(&signed_by(test_keys(), &header, &claims))
}

#[test]
fn entries_for_one_issuer_are_chosen_by_audience() {
    let issuer = HostileIssuer::start();
    issuer.serve("one");
    let url = issuer.url("one");
    let entries = entry("staging", &url, "client-id: staging\nid: staging")
        + &entry(
            "release",
            &url,
            "client-ids: [release, archive]\nid: release",
        )
        + &entry(
            "closed",
            &url,
            "client-id: closed\nid: closed\ndisabled: true",
        );
    let server = TestServer::start_with(|_| {}, &entries);
    let with = |audience: Value| request(&issuer, "one", &json!({ "aud": audience }));
    server.issues("staging", &with(json!("staging")));
    let fetches = issuer.requests_of("one");
    for audience in ["release", "archive"] {
        server.issues(audience, &with(json!(audience)));
    }
    server.issues("two of one entry", &with(json!(["release", "archive"])));
    server.issues("one and another", &with(json!(["x", "staging"])));
    for (audience, reason) in [
        (json!(["staging", "release"]), "ambiguous_identity"),
        (json!(["closed", "archive"]), "ambiguous_identity"),
        (json!("closed"), "issuer_disabled"),
        (json!("sigstore"), "audience_mismatch"),
        (json!([]), "audience_mismatch"),
        (json!(["staging", 5]), "malformed_token"),
    ] {
        server.refuses(&audience.to_string(), &with(audience.clone()), &[reason]);
    }
    // One set of keys for all of them.
    assert_eq!(issuer.requests_of("one"), fetches);
    let refused = |issuer: &str, reason: &str| {
        let name = "mayfly_certificate_requests_refused_total";
        server.metric(&format!(r#"{name}{{issuer="{issuer}",reason="{reason}"}}"#))
    };
    assert_eq!(refused("closed", "issuer_disabled"), 1);

    let configuration = server.get("/api/v2/configuration").json();
    let listed = configuration["issuers"].as_array().unwrap().iter();
    let audiences: Vec<&Value> = listed
        .filter(|listed| listed["issuerUrl"] == json!(url))
        .map(|listed| &listed["audience"])
        .collect();
    assert_eq!(audiences, ["staging", "release", "archive"]);
}

#[test]
fn an_entry_can_limit_algorithms_age_and_skew_and_end() {
    let issuer = HostileIssuer::start();
    let sections = [
        ("algorithms", "algorithms: [RS256, EdDSA]"),
        ("age", "max-token-age: 5m"),
        ("skew", "clock-skew: 10s"),
        ("ended", "expires: 2020-01-01"),
        ("lasting", "expires: 2900-01-01T00:00:00Z"),
        ("disabled", "disabled: true"),
    ];
    let mut entries = String::new();
    for (name, setting) in sections {
        issuer.serve(name);
        let settings = format!("client-id: sigstore\n{setting}");
        entries += &entry(name, &issuer.url(name), &settings);
    }
    let server = TestServer::start_with(|_| {}, &entries);
    let now = server.clock.now().unix_timestamp();
    for (name, changes, reason) in [
        ("algorithms", json!({}), "unsupported_alg"),
        ("age", json!({}), "token_too_old"),
        ("age", json!({ "iat": now - 301 }), "token_too_old"),
        ("age", json!({ "iat": now + 61 }), "token_not_yet_valid"),
        ("skew", json!({ "iat": now + 11 }), "token_not_yet_valid"),
        ("skew", json!({ "nbf": now + 11 }), "token_not_yet_valid"),
        ("ended", json!({}), "issuer_expired"),
        ("disabled", json!({}), "issuer_disabled"),
    ] {
        let what = format!("{name} {changes}");
        server.refuses(&what, &request(&issuer, name, &changes), &[reason]);
    }
    for (name, changes) in [
        ("age", json!({ "iat": now - 300 })),
        ("age", json!({ "iat": now + 60 })),
        ("skew", json!({ "iat": now + 10, "nbf": now + 10 })),
        ("skew", json!({ "iat": now - 86_400 })),
        ("lasting", json!({})),
    ] {
        let what = format!("{name} {changes}");
        server.issues(&what, &request(&issuer, name, &changes));
    }
    // What is refused whatever the token says is refused before anything is fetched.
    for name in ["ended", "disabled"] {
        assert_eq!(issuer.requests_of(name), 0, "{name}");
    }
    // Nor are their keys missed.
    let checks = wait_for("checks of the issuers", || {
        let text = server.get("/readyz?verbose").text().to_owned();
        text.contains("-lasting").then_some(text)
    });
    assert!(
        !checks.contains("-ended") && !checks.contains("-disabled"),
        "{checks}"
    );
}

#[test]
fn keys_can_come_from_a_url_or_a_file_without_discovery() {
    let issuer = HostileIssuer::start();
    let jwks = test_keys().jwks().to_string();
    issuer.set("by-url", "keys", Reply::document(&jwks));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    std::fs::write(&file, &jwks).unwrap();
    let uri = format!(
        "client-id: sigstore\njwks-uri: {}/keys",
        issuer.url("by-url")
    );
    let path = format!("client-id: sigstore\njwks-file: {}", file.display());
    let entries = entry("by-url", &issuer.url("by-url"), &uri)
        + &entry("by-file", &issuer.url("by-file"), &path);
    let server = TestServer::start_with(|_| {}, &entries);
    for name in ["by-url", "by-file"] {
        server.issues(name, &request(&issuer, name, &json!({})));
        let mut forged = issuer.claims(name);
        forged["exp"] = json!(1);
        let header = json!({ "alg": "ES256", "kid": "other" });
        let forged = with_token(&signed_by(test_keys(), &header, &forged));
        server.refuses(name, &forged, &["unknown_key"]);
    }
    let heads = issuer.requests();
    assert!(
        heads
            .iter()
            .all(|head| head.starts_with("GET /by-url/keys "))
    );
}
