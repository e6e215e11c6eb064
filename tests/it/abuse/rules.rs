//! Tokens that verify, and whose bearers may have no certificate.

use serde_json::{Value, json};

use crate::support::http::Request;
use crate::support::issuer::{HostileIssuer, signed_by, with_token};
use crate::support::server::{TestServer, test_keys};

const RULES: &str = r#"allow:
  - repository_owner: { in: [acme, acme-labs] }
    ref: { glob: "refs/tags/v*" }
  - $.team.name: release
deny:
  - runner_environment: { not: hosted }
  - ref: { regex: '.*secret.*' }"#;

#[test]
fn tokens_that_the_rules_of_their_issuer_leave_out_are_refused() {
    let issuer = HostileIssuer::start();
    issuer.serve("ruled");
    let server = TestServer::start_with(|_| {}, &issuer.entry("ruled", RULES));
    let request = |changes: &Value| -> Request {
        let mut claims = issuer.claims("ruled");
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let header = json!({ "alg": "ES256", "kid": "test-ec" });
        with_token(&signed_by(test_keys(), &header, &claims))
    };
    let release = json!({ "repository_owner": "acme", "ref": "refs/tags/v1", "runner_environment": "hosted" });
    let with = |changes: Value| -> Value {
        let mut claims = release.clone();
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    };
    server.issues("a release", &request(&release));
    let team = json!({ "team": { "name": "release" }, "runner_environment": "hosted" });
    server.issues("the release team", &request(&team));

    for (changes, reason) in [
        (json!({}), "denied_by_rule"),
        (
            with(json!({ "runner_environment": null })),
            "denied_by_rule",
        ),
        (
            with(json!({ "runner_environment": ["hosted"] })),
            "denied_by_rule",
        ),
        (
            with(json!({ "runner_environment": "Hosted" })),
            "denied_by_rule",
        ),
        (
            with(json!({ "ref": "refs/tags/v1\nsecret" })),
            "denied_by_rule",
        ),
        (
            with(json!({ "repository_owner": "acme-evil" })),
            "no_allow_rule_matched",
        ),
        (
            with(json!({ "repository_owner": "ACME" })),
            "no_allow_rule_matched",
        ),
        (
            with(json!({ "repository_owner": ["acme"] })),
            "no_allow_rule_matched",
        ),
        (
            with(json!({ "repository_owner": { "in": "acme" } })),
            "no_allow_rule_matched",
        ),
        (
            with(json!({ "ref": "refs/heads/refs/tags/v1" })),
            "no_allow_rule_matched",
        ),
        (
            with(json!({ "ref": "refs/tags/v1/../x" })),
            "no_allow_rule_matched",
        ),
        (
            with(json!({ "ref": "refs/tags/v*" , "repository_owner": "*" })),
            "no_allow_rule_matched",
        ),
        (
            json!({ "$.team.name": "release", "runner_environment": "hosted" }),
            "no_allow_rule_matched",
        ),
        (
            json!({ "team": "release", "runner_environment": "hosted" }),
            "no_allow_rule_matched",
        ),
    ] {
        server.refuses(&changes.to_string(), &request(&changes), &[reason]);
    }
}

#[test]
fn a_refusal_by_a_rule_says_what_was_expected_and_nothing_of_the_token() {
    let issuer = HostileIssuer::start();
    issuer.serve("ruled");
    let server = TestServer::start_with(|_| {}, &issuer.entry("ruled", RULES));
    let mut claims = issuer.claims("ruled");
    claims["repository_owner"] = "acme".into();
    claims["runner_environment"] = "hosted".into();
    claims["ref"] = "refs/heads/hidden".into();
    let header = json!({ "alg": "ES256", "kid": "test-ec" });
    let request = with_token(&signed_by(test_keys(), &header, &claims));
    let answer = server.refuses("a branch", &request, &["no_allow_rule_matched"]);
    assert_eq!(
        answer.json()["message"],
        "There was an error processing the identity token: no rule of `allow` applies; of 2, rule 1 comes closest and \
         expects that `ref` matches the glob \"refs/tags/v*\""
    );
}
