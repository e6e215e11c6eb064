//! `mayfly test-config` as policy admins and their CI run it.

use std::path::Path;

use crate::support::process::{Outcome, mayfly, run};

fn test_config(arguments: &[&str]) -> (i32, String, String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy");
    let mut command = mayfly(["test-config", "--identity-config", "identity.yaml"]);
    let Outcome {
        code,
        stdout,
        stderr,
    } = run(command.current_dir(folder).args(arguments));
    (code, stdout, stderr)
}

const FAILING: &str = r#"# a comment
- name: "a <release> & # more"
  preset-claims: github
  claims: { ref: refs/tags/v1 }   # another
  expect:
    san: https://elsewhere.example
    extensions: { build-trigger: pull, run-invocation-uri: null }

- name: a fork
  preset-claims: github
  claims: { repository_owner: eve, ref: refs/tags/v1 }
  expect: { san: x }
"#;

fn failing() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("inner")).unwrap();
    std::fs::write(folder.path().join("inner/a.test.yaml"), FAILING).unwrap();
    std::fs::write(folder.path().join("notes.yaml"), "no tests").unwrap();
    folder
}

#[test]
fn tests_that_pass_are_listed() {
    let (code, stdout, stderr) = test_config(&["golden"]);
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    assert!(stdout.ends_with("4 of 4 tests passed\n"), "{stdout}");
}

#[test]
fn tests_that_fail_say_what_was_expected_and_what_was_found() {
    let folder = failing();
    let path = folder.path().to_str().unwrap();
    let (code, stdout, stderr) = test_config(&[path]);
    assert_eq!(
        (code, stderr.as_str()),
        (1, "mayfly: 2 of 2 tests failed\n"),
        "{stdout}"
    );
    let expected = format!(
        "{path}/inner/a.test.yaml
  FAIL a <release> & # more
       line 2: san: expected \"https://elsewhere.example\", found \"https://github.com/acme/app/.github/workflows/release.yml@refs/tags/v1.0.0\"
       line 2: build-trigger: expected \"pull\", found \"push\"
  FAIL a fork
       line 9: expected a certificate, found the refusal no_allow_rule_matched (There was an error processing the identity token: no rule of `allow` applies; of 2, rule 1 comes closest and expects that `repository_owner` is one of \"acme\", \"acme-labs\")
no tests of 2 tests passed
"
    );
    assert_eq!(stdout, expected.replace("no tests of", "0 of"));
}

#[test]
fn results_are_printed_for_machines() {
    let folder = failing();
    let path = folder.path().to_str().unwrap();
    let (code, tap, _) = test_config(&[path, "golden", "--format", "tap"]);
    assert_eq!(code, 1);
    assert!(
        tap.starts_with("TAP version 14\n1..6\nnot ok 1 - a <release> & \\# more\n  ---\n  at: "),
        "{tap}"
    );
    assert!(
        tap.contains("\nok 3 - release workflow of acme/app\n"),
        "{tap}"
    );
    let (code, junit, _) = test_config(&[path, "golden", "--format", "junit"]);
    assert_eq!(code, 1);
    assert!(junit.contains("tests=\"2\" failures=\"2\""), "{junit}");
    assert!(
        junit.contains("name=\"a &lt;release&gt; &amp; # more\""),
        "{junit}"
    );
    assert!(
        junit.contains("<failure message=\"san: expected &quot;https://elsewhere.example&quot;"),
        "{junit}"
    );
}

#[test]
fn update_changes_expectations_and_nothing_else() {
    let folder = failing();
    let path = folder.path().to_str().unwrap();
    let (code, ..) = test_config(&[path, "--update"]);
    assert_eq!(code, 0);
    let updated = std::fs::read_to_string(folder.path().join("inner/a.test.yaml")).unwrap();
    let expected = r#"# a comment
- name: "a <release> & # more"
  preset-claims: github
  claims: { ref: refs/tags/v1 }   # another
  expect:
    san: "https://github.com/acme/app/.github/workflows/release.yml@refs/tags/v1.0.0"
    extensions:
      "build-trigger": "push"
      "run-invocation-uri": null

- name: a fork
  preset-claims: github
  claims: { repository_owner: eve, ref: refs/tags/v1 }
  expect:
    refused: no_allow_rule_matched
"#;
    assert_eq!(updated, expected);
    assert_eq!(test_config(&[path]).0, 0);
    // What passes is not written anew.
    let before = std::fs::metadata(folder.path().join("inner/a.test.yaml"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(test_config(&[path, "--update"]).0, 0);
    let after = std::fs::metadata(folder.path().join("inner/a.test.yaml"))
        .unwrap()
        .modified()
        .unwrap();
    assert_eq!(before, after);
}

#[test]
fn an_expectation_that_cannot_be_replaced_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.test.yaml");
    let text = "- { name: a, preset-claims: github, expect: { san: x } }\n";
    std::fs::write(&file, text).unwrap();
    let (code, _, stderr) = test_config(&[file.to_str().unwrap(), "--update"]);
    assert_eq!(code, 1);
    assert!(
        stderr.contains("a.test.yaml:1:") && stderr.contains("by hand"),
        "{stderr}"
    );
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}

#[test]
fn files_that_are_no_tests_are_refused_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.test.yaml");
    for (text, message) in [
        (
            "- name: a\n  expect: {}\n  claim: {}\n",
            ":3:3: unknown field `claim`",
        ),
        ("- name: a\n", "missing field `expect`"),
        (
            "- name: a\n  preset-claims: git\n  expect: { san: x }\n",
            ":2:18: unknown preset-claims; expected one of aks",
        ),
        (
            "- name: a\n  at: now\n  expect: { san: x }\n",
            ":2:7: expected a moment",
        ),
        (
            "- name: a\n  expect: { refused: x, san: y }\n",
            ":2:11: a refusal has no name",
        ),
        (
            "- name: a\n  expect:\n    refused: x\n    refused: y\n",
            ":4:",
        ),
        ("name: a\n", ":1:1: "),
        ("\tx: y\n", ":1:"),
    ] {
        std::fs::write(&file, text).unwrap();
        let (code, stdout, stderr) = test_config(&[file.to_str().unwrap()]);
        assert_eq!((code, stdout.as_str()), (3, ""), "{text}");
        assert!(stderr.contains(message), "{text}: {stderr}");
    }
    let (code, _, stderr) = test_config(&["no-such-folder"]);
    assert_eq!(code, 3);
    assert!(stderr.contains("no-such-folder"), "{stderr}");
    let (code, _, stderr) = test_config(&["explain"]);
    assert_eq!(
        (code, stderr.as_str()),
        (
            1,
            "mayfly: there are no tests; their files end in .test.yaml\n"
        )
    );
}

#[test]
fn a_test_that_expects_nothing_fails() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.test.yaml");
    std::fs::write(&file, "- name: a\n  preset-claims: github\n  expect: {}\n").unwrap();
    let (code, stdout, _) = test_config(&[file.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(stdout.contains("nothing is expected"), "{stdout}");
}
