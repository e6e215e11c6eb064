//! `mayfly import fulcio` as whoever moves from Fulcio runs it.

use std::path::Path;

use crate::support::process::{Outcome, mayfly, run};

const JSON: &str = r#"{"OIDCIssuers": {"https://accounts.example.com": {
    "IssuerURL": "https://accounts.example.com", "ClientID": "sigstore", "Type": "email", "IssuerClaim": "$.federated"}}}"#;

fn import(file: &Path, output: Option<&Path>) -> Outcome {
    let mut command = mayfly(["import", "fulcio"]);
    command.arg(file);
    if let Some(output) = output {
        command.arg("--output").arg(output);
    }
    run(&mut command)
}

#[test]
fn what_is_written_is_a_configuration_that_trusts_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (
        folder.path().join("config.json"),
        folder.path().join("identity.yaml"),
    );
    std::fs::write(&from, JSON).unwrap();
    let outcome = import(&from, Some(&to));
    assert_eq!(
        (outcome.code, outcome.stdout.as_str()),
        (0, ""),
        "{}",
        outcome.stderr
    );
    assert!(
        outcome.stderr.ends_with("mayfly: 1 issuer, no warnings\n"),
        "{}",
        outcome.stderr
    );
    let written = std::fs::read_to_string(&to).unwrap();
    assert!(
        written.contains("    issuer-claim: $.federated\n"),
        "{written}"
    );
    let both = mayfly(["diff-config", "--exit-code"])
        .arg(&from)
        .arg(&to)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&both.stdout), "Nothing changes.\n");

    // Nothing that is there is overwritten.
    let outcome = import(&from, Some(&to));
    assert_eq!(outcome.code, 4, "{}", outcome.stderr);
    assert_eq!(std::fs::read_to_string(&to).unwrap(), written);
}

#[test]
fn the_public_instance_s_own_file_stays_as_it_is() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/identity.public.yaml");
    let outcome = import(&file, None);
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert_eq!(outcome.stdout, std::fs::read_to_string(file).unwrap());
}

#[test]
fn what_fulcio_overlooks_is_listed_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (
        folder.path().join("config.json"),
        folder.path().join("identity.yaml"),
    );
    std::fs::write(&from, JSON.replace("ClientID", "ClientId")).unwrap();
    let outcome = import(&from, Some(&to));
    assert_eq!(outcome.code, 3);
    assert!(
        outcome.stderr.contains("error[MF101]"),
        "{}",
        outcome.stderr
    );
    assert!(
        outcome.stderr.contains("nothing is written"),
        "{}",
        outcome.stderr
    );
    assert!(!to.exists());

    std::fs::write(&from, "kind: ConfigMap\ndata: {other.yaml: x}\n").unwrap();
    let outcome = import(&from, Some(&to));
    assert_eq!(outcome.code, 3);
    assert!(
        outcome
            .stderr
            .contains("one of config.yaml, config.yml, config.json; this one has other.yaml"),
        "{}",
        outcome.stderr
    );
    assert_eq!(import(&folder.path().join("none"), None).code, 4);
}
