//! `mayfly explain` as policy admins run it.
//!
//! `tests/policy/explain` holds claims, and beside each what is printed. With `MAYFLY_UPDATE` set, what is printed is written
//! there instead, to be read and committed.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use mayfly::clock::{Clock as _, FixedClock};
use mayfly::dev::oidc::{TestAlgorithm, TestClaims, TestIssuer, TestKeys};
use serde_json::{Value, json};

use crate::support::server::{NOW, test_keys};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy")
}

/// What a run printed, and its exit code.
struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

fn explain(input: &str, arguments: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mayfly"));
    let command = command
        .current_dir(folder())
        .arg("explain")
        .args(arguments)
        .env_clear();
    let piped = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run {
        code: output.status.code().unwrap(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

fn with_config(input: &str, arguments: &[&str]) -> Run {
    let mut all = vec!["--identity-config", "identity.yaml"];
    all.extend(arguments);
    explain(input, &all)
}

#[test]
fn claims_are_explained_step_by_step() {
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder().join("explain"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    for case in cases {
        let mut arguments = vec!["--claims", case.to_str().unwrap()];
        // Without times in the claims the answer would be about now.
        if case.ends_with("no-times.json") {
            arguments.extend(["--at", NOW]);
        }
        let run = with_config("", &arguments);
        let expected = case.with_extension("txt");
        if std::env::var_os("MAYFLY_UPDATE").is_some() {
            std::fs::write(&expected, &run.stdout).unwrap();
        }
        assert_eq!(
            run.stdout,
            std::fs::read_to_string(&expected).unwrap(),
            "{}",
            case.display()
        );
        let is_issued = run.stdout.starts_with("A certificate");
        assert_eq!(run.code, i32::from(!is_issued), "{}", case.display());
        // Nothing of a token moves a cursor.
        let is_plain = |character: char| {
            character == '\n'
                || !(character.is_control() || ('\u{202a}'..='\u{202e}').contains(&character))
        };
        assert!(run.stdout.chars().all(is_plain), "{}", case.display());
    }
}

#[test]
fn the_answer_as_json_has_one_form() {
    let run = with_config("", &["--claims", "explain/branch.json", "--output", "json"]);
    assert_eq!(run.code, 1);
    assert_eq!(run.stderr, "mayfly: refused: no_allow_rule_matched\n");
    let answer: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(answer["schema"], "explain-v1");
    assert_eq!(
        (&answer["result"], &answer["reason"]),
        (&json!("refused"), &json!("no_allow_rule_matched"))
    );
    assert_eq!(answer["client_visible"]["http_status"], 400);
    assert_eq!(answer["client_visible"]["grpc_code"], 3);
    assert_eq!(answer["steps"][7]["name"], "rules");
    assert_eq!(answer["steps"][7]["result"], "fail");
    assert_eq!(
        answer["rules"][1]["conditions"][1],
        json!({ "condition": "`ref` matches the glob \"refs/tags/v*\"", "holds": false, "found": "\"refs/heads/main\"" })
    );
    assert_eq!(
        (&answer["san"], &answer["extensions"]),
        (&Value::Null, &json!([]))
    );

    let run = with_config("", &["--claims", "explain/issued.json", "--output", "json"]);
    assert_eq!((run.code, run.stderr.as_str()), (0, ""));
    let answer: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(
        (&answer["result"], &answer["client_visible"]),
        (&json!("issued"), &Value::Null)
    );
    assert_eq!(
        answer["issuer"],
        json!({
            "id": "token.actions.githubusercontent.com", "url": "https://token.actions.githubusercontent.com",
            "type": "ci-provider", "matched_by": "exact", "pattern": null,
        })
    );
    let trigger = answer["extensions"]
        .as_array()
        .unwrap()
        .iter()
        .find(|extension| extension["name"] == "build-trigger");
    assert_eq!(
        trigger.unwrap(),
        &json!({ "oid": "1.3.6.1.4.1.57264.1.20", "name": "build-trigger", "value": "push", "source": "claim", "from": "claim event_name" })
    );
}

#[test]
fn a_token_is_verified_with_given_keys_and_never_shown() {
    let clock = Arc::new(FixedClock::at(NOW));
    let now = clock.now().unix_timestamp();
    let issuer = TestIssuer::new(
        "https://token.actions.githubusercontent.com".to_owned(),
        Arc::clone(test_keys()),
        clock,
    );
    let claims = TestClaims::github("acme/app")
        .with("ref", "refs/tags/v1")
        .with("nbf", now);
    let token = issuer.token(&claims, TestAlgorithm::Es256).unwrap();
    let files = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let ours = write("ours.json", &issuer.jwks_json());
    let others = write(
        "others.json",
        &TestKeys::generate().unwrap().jwks().to_string(),
    );
    let token_file = write("token", &format!("{token}\n"));
    for (arguments, code, step) in [
        (
            &["--token-file", "-", "--jwks", &ours, "--at", NOW][..],
            0,
            "ok   signature    verifies",
        ),
        (
            &["--token-file", &token_file, "--jwks", &ours, "--at", NOW],
            0,
            "ok   signature    verifies",
        ),
        (
            &["--token-file", "-", "--offline", "--at", NOW],
            0,
            "-    signature    no keys",
        ),
        (
            &["--token-file", "-", "--jwks", &others, "--at", NOW],
            1,
            "FAIL signature",
        ),
        (
            &["--token-file", "-", "--jwks", &ours],
            1,
            "FAIL times        the ID token expired",
        ),
    ] {
        let run = with_config(&token, arguments);
        assert_eq!(
            run.code, code,
            "{arguments:?}: {}{}",
            run.stdout, run.stderr
        );
        assert!(run.stdout.contains(step), "{arguments:?}: {}", run.stdout);
        for part in token.split('.') {
            assert!(
                !run.stdout.contains(part) && !run.stderr.contains(part),
                "{arguments:?}"
            );
        }
    }
    let run = with_config(&token, &["--token-file", "-", "--offline", "--at", NOW]);
    assert!(
        run.stdout.contains("anybody could have made this token"),
        "{}",
        run.stdout
    );
}

#[test]
fn a_key_is_judged_as_the_server_judges_it() {
    let fixture = |name: &str| format!("{}/tests/it/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    let run = with_config(
        "",
        &[
            "--claims",
            "explain/issued.json",
            "--public-key",
            &fixture("rsa-1024.pub.pem"),
        ],
    );
    assert_eq!(run.code, 1);
    assert!(
        run.stdout.starts_with("Refused") && run.stdout.contains("weak_key"),
        "{}",
        run.stdout
    );
    assert!(run.stdout.contains("FAIL key"), "{}", run.stdout);
}

#[test]
fn what_cannot_be_explained_is_said_with_another_exit_code() {
    let bad = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(bad.path(), "oidc-issuers:\n  a:\n    issuer-urll: x\n").unwrap();
    let bad = bad.path().to_str().unwrap();
    for (arguments, code, message) in [
        (
            &["--identity-config", bad, "--claims", "explain/issued.json"][..],
            3,
            "[MF101] unknown key",
        ),
        (
            &[
                "--identity-config",
                "none.yaml",
                "--claims",
                "explain/issued.json",
            ],
            3,
            "there is no such file",
        ),
        (
            &[
                "--identity-config",
                "identity.yaml",
                "--claims",
                "none.json",
            ],
            4,
            "none.json",
        ),
        (
            &[
                "--identity-config",
                "identity.yaml",
                "--claims",
                "identity.yaml",
            ],
            4,
            "not a JSON object",
        ),
        (
            &[
                "--identity-config",
                "identity.yaml",
                "--claims",
                "explain/issued.json",
                "--jwks",
                "identity.yaml",
            ],
            4,
            "key set",
        ),
        (&["--identity-config", "identity.yaml"], 2, "--token-file"),
        (
            &[
                "--identity-config",
                "identity.yaml",
                "--token-file",
                "a",
                "--claims",
                "b",
            ],
            2,
            "cannot be used with",
        ),
    ] {
        let run = explain("", arguments);
        assert_eq!(run.code, code, "{arguments:?}: {}", run.stderr);
        assert!(
            run.stderr.contains(message),
            "{arguments:?}: {}",
            run.stderr
        );
        assert_eq!(run.stdout, "", "{arguments:?}");
    }
}
