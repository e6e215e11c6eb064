//! `mayfly diff-config` as reviewers and their CI run it. With `MAYFLY_UPDATE` set, what is printed is written down instead.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::process::{Outcome, mayfly, run};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/policy/diff")
}

fn diff_config(arguments: &[&str]) -> (i32, String, String) {
    let mut command = mayfly(["diff-config"]);
    let Outcome {
        code,
        stdout,
        stderr,
    } = run(command.current_dir(folder()).args(arguments));
    (code, stdout, stderr)
}

#[test]
fn differences_are_printed_for_people_and_for_reviews() {
    for (format, file) in [("text", "expected.txt"), ("markdown", "expected.md")] {
        let (code, stdout, stderr) = diff_config(&[
            "old.yaml",
            "new.yaml",
            "--corpus",
            "corpus.ndjson",
            "--format",
            format,
        ]);
        assert_eq!((code, stderr.as_str()), (0, ""));
        let expected = folder().join(file);
        if std::env::var_os("MAYFLY_UPDATE").is_some() {
            std::fs::write(&expected, &stdout).unwrap();
        }
        assert_eq!(
            stdout,
            std::fs::read_to_string(&expected).unwrap(),
            "{file}"
        );
    }
}

#[test]
fn the_exit_code_stops_what_widens_trust() {
    let code = |old, new| diff_config(&[old, new, "--exit-code"]).0;
    assert_eq!(code("old.yaml", "new.yaml"), 1);
    assert_eq!(code("old.yaml", "old.yaml"), 0);
    assert_eq!(diff_config(&["old.yaml", "new.yaml"]).0, 0);
    let (code, stdout, _) = diff_config(&["old.yaml", "old.yaml"]);
    assert_eq!((code, stdout.as_str()), (0, "Nothing changes.\n"));

    let narrower = tempfile::NamedTempFile::new().unwrap();
    let text = std::fs::read_to_string(folder().join("old.yaml")).unwrap();
    std::fs::write(narrower.path(), text + "    disabled: true\n").unwrap();
    let (code, stdout, _) =
        diff_config(&["old.yaml", narrower.path().to_str().unwrap(), "--exit-code"]);
    assert_eq!(code, 0);
    assert!(stdout.starts_with("Trust is narrower.\n"), "{stdout}");
    let (code, _, stderr) =
        diff_config(&[narrower.path().to_str().unwrap(), "old.yaml", "--exit-code"]);
    assert_eq!((code, stderr.as_str()), (1, "mayfly: trust is wider\n"));
}

#[test]
fn the_difference_as_json_has_one_form() {
    let (code, stdout, _) = diff_config(&[
        "old.yaml",
        "new.yaml",
        "--format",
        "json",
        "--corpus",
        "corpus.ndjson",
    ]);
    assert_eq!(code, 0);
    let difference: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (&difference["schema"], &difference["direction"]),
        (&json!("diff-v1"), &json!("wider"))
    );
    let parts = difference["parts"].as_array().unwrap();
    let age = parts
        .iter()
        .flat_map(|part| part["changes"].as_array().unwrap())
        .find(|change| change["setting"] == "max-token-age");
    assert_eq!(
        age.unwrap(),
        &json!({ "direction": "narrower", "setting": "max-token-age", "old": null, "new": "600 s" })
    );
    assert_eq!(difference["corpus"].as_array().unwrap().len(), 2);
}

#[test]
fn what_cannot_be_compared_is_told() {
    for (arguments, message) in [
        (&["old.yaml", "none.yaml"][..], "there is no such file"),
        (&["corpus.ndjson", "new.yaml"], "corpus.ndjson:2:"),
        (&["old.yaml", "new.yaml", "--corpus", "none"], "none: "),
        (
            &["old.yaml", "new.yaml", "--corpus", "old.yaml"],
            "old.yaml:1:",
        ),
    ] {
        let (code, stdout, stderr) = diff_config(arguments);
        assert_eq!((code, stdout.as_str()), (3, ""), "{arguments:?}");
        assert!(stderr.contains(message), "{arguments:?}: {stderr}");
    }
}
