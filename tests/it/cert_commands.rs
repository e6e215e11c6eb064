//! `mayfly cert` as its users run it, on certificates of a running server.

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::process::{Outcome, mayfly, run};
use crate::support::server::{EMAIL, NOW, TestServer};

/// A folder with a certificate of a server, and with what the server's clients trust.
struct Holder {
    server: TestServer,
    folder: TempDir,
}

impl Holder {
    fn new() -> Self {
        let holder = Self {
            server: TestServer::start(),
            folder: tempfile::tempdir().unwrap(),
        };
        holder.server.trust.export(&holder.path("trust")).unwrap();
        let answer = holder.server.send(&holder.server.good_request()).json();
        let chain = answer["signedCertificateEmbeddedSct"]["chain"]["certificates"].clone();
        holder.write("cert.pem", chain[0].as_str().unwrap());
        holder.write("answer.json", answer.to_string());
        holder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    fn issuer(&self) -> String {
        format!("{}/dev/oidc", self.server.url)
    }

    fn der(&self) -> Vec<u8> {
        let pem = fs::read_to_string(self.path("cert.pem")).unwrap();
        pem::parse(pem).unwrap().into_contents()
    }

    /// `mayfly cert`, in the folder.
    fn cert(&self, arguments: &[&str]) -> Outcome {
        run(mayfly(["cert"]).args(arguments).current_dir(&self.folder))
    }

    /// `mayfly cert verify`, as JSON.
    fn verify(&self, arguments: &[&str]) -> (i32, Value) {
        let root: &[&str] = &["--trusted-root", "trust/trusted_root.json"];
        let outcome = self.cert(&[&["verify"], root, &["--output", "json"], arguments].concat());
        let document = serde_json::from_str(&outcome.stdout);
        (
            outcome.code,
            document.unwrap_or_else(|_| panic!("{outcome:?}")),
        )
    }

    /// The trusted root with one change.
    fn trust_changed(&self, change: impl FnOnce(&mut Value)) {
        let path = self.path("trust/trusted_root.json");
        let mut root: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        change(&mut root);
        self.write("other_root.json", root.to_string());
    }
}

/// A change of a trusted root.
type Change<'a> = Box<dyn FnOnce(&mut Value) + 'a>;

/// What a check came to.
fn check<'a>(document: &'a Value, name: &str) -> (&'a str, &'a str) {
    let checks = document["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["name"] == name).unwrap();
    (
        check["result"].as_str().unwrap(),
        check["detail"].as_str().unwrap(),
    )
}

#[test]
fn a_certificate_is_shown_with_every_extension_by_its_name() {
    let holder = Holder::new();

    let text = holder.cert(&["inspect", "cert.pem"]);
    assert_eq!(text.code, 0, "{text:?}");
    let lines: Vec<String> = text
        .stdout
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    let issuer = holder.issuer();
    for expected in [
        format!("name {EMAIL} (e-mail address)"),
        format!("vouched by {issuer}"),
        format!("valid {NOW} to 2026-01-02T03:14:05Z (600 s)"),
        "2.5.29.15 key usage, critical digital signature".to_owned(),
        "2.5.29.37 extended key usage code signing".to_owned(),
        format!("2.5.29.17 subject alternative name, critical {EMAIL}"),
        format!("1.3.6.1.4.1.57264.1.8 issuer {issuer}"),
        "1.3.6.1.4.1.11129.2.4.2 signed certificate timestamps 1 timestamp".to_owned(),
    ] {
        assert!(
            lines.contains(&expected),
            "{expected:?} is not in {lines:#?}"
        );
    }

    let json = holder.cert(&["inspect", "answer.json", "--output", "json"]);
    let document: Value = serde_json::from_str(&json.stdout).unwrap();
    let certificates = document["certificates"].as_array().unwrap();
    assert_eq!(certificates.len(), 3);
    assert_eq!(
        certificates[0]["san"],
        json!([{ "kind": "email", "value": EMAIL }])
    );
    assert_eq!(certificates[0]["timestamps"][0]["leaf_index"], 0);
    assert_eq!(certificates[0]["extensions"][0]["name"], "key usage");
    assert_eq!(certificates[2]["extensions"][2]["value"], "a CA");
}

#[test]
fn every_file_in_which_clients_keep_a_certificate_is_read() {
    let holder = Holder::new();
    let der = holder.der();
    let pem = fs::read_to_string(holder.path("cert.pem")).unwrap();
    let raw = STANDARD.encode(&der);
    holder.write("cert.der", &der);
    holder.write("cert.b64", STANDARD.encode(pem));
    holder.write(
        "bundle.json",
        json!({ "verificationMaterial": { "certificate": { "rawBytes": raw } } }).to_string(),
    );
    for file in [
        "cert.pem",
        "cert.der",
        "cert.b64",
        "bundle.json",
        "answer.json",
    ] {
        let (code, document) = holder.verify(&[file, "--at", NOW]);
        assert_eq!(
            (code, &document["verified"]),
            (0, &json!(true)),
            "{file}: {document:#}"
        );
    }
    let outcome = holder.cert(&["inspect", "trust/ctfe.pub"]);
    assert_eq!(outcome.code, 4, "{outcome:?}");
    assert!(
        outcome.stderr.contains("it holds no certificate"),
        "{outcome:?}"
    );
}

#[test]
fn a_good_certificate_passes_every_check() {
    let holder = Holder::new();
    holder.server.wait_for_checkpoint();
    let log = holder.server.data_dir().display().to_string() + "/ct/main";
    let issuer = holder.issuer();
    for place in [&["--inclusion"][..], &["--log", &log]] {
        let wanted = [
            "cert.pem",
            "--at",
            "logged",
            "--identity",
            EMAIL,
            "--issuer-regexp",
            "http://.*/oidc",
        ];
        let (code, document) = holder.verify(&[&wanted[..], place].concat());
        assert_eq!(code, 0, "{document:#}");
        for (name, detail) in [
            ("chain", "signed by O=Test"),
            ("usage", "code signing"),
            ("timestamp", "2026-01-02T03:04:05Z by http://"),
            ("time", "valid 2026-01-02T03:04:05Z to 2026-01-02T03:14:05Z"),
            ("identity", EMAIL),
            ("issuer", issuer.as_str()),
            ("inclusion", "entry 0 of 1 in "),
        ] {
            let (result, found) = check(&document, name);
            assert!(
                result == "pass" && found.starts_with(detail),
                "{name}: {found}"
            );
        }
        assert_eq!(document["inclusion"]["index"], 0);
    }
}

#[test]
fn what_does_not_hold_fails_by_its_name_and_all_of_it_is_told() {
    let holder = Holder::new();
    let elsewhere = TestServer::start();
    elsewhere.trust.export(&holder.path("elsewhere")).unwrap();
    for (arguments, failing, detail) in [
        (
            &["--at", "2026-01-02T03:14:06Z"][..],
            "time",
            "expired at 2026-01-02T03:14:06Z",
        ),
        (
            &["--at", "2026-01-02T03:04:04Z"],
            "time",
            "not yet valid at 2026-01-02T03:04:04Z",
        ),
        (
            &["--at", NOW, "--identity", "eve@example.com"],
            "identity",
            "it is for \"ada@example.com\"",
        ),
        // Part of a name is not the name.
        (
            &["--at", NOW, "--identity-regexp", "ada"],
            "identity",
            "expected what matches",
        ),
        (
            &["--at", NOW, "--issuer", "https://elsewhere.example"],
            "issuer",
            "expected \"https://elsewhere.example\"",
        ),
        (
            &["--at", NOW, "--public-key", "trust/ctfe.pub"],
            "key",
            "another key",
        ),
    ] {
        let (code, document) = holder.verify(&[&["cert.pem"], arguments].concat());
        assert_eq!(
            (code, &document["verified"]),
            (1, &json!(false)),
            "{arguments:?}"
        );
        let (result, found) = check(&document, failing);
        assert!(
            result == "fail" && found.contains(detail),
            "{failing}: {found}"
        );
        let checks = document["checks"].as_array().unwrap();
        let failed = checks.iter().filter(|check| check["result"] == "fail");
        assert_eq!(failed.count(), 1, "{document:#}");
    }
    // Two reasons, both told; the first one is the exit's.
    let outcome = holder.cert(&[
        "verify",
        "cert.pem",
        "--trusted-root",
        "elsewhere/trusted_root.json",
        "--identity",
        "eve@example.com",
    ]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stdout.contains("FAIL identity"), "{outcome:?}");
    assert!(
        outcome.stderr.contains("chain: it names the CA"),
        "{outcome:?}"
    );
}

#[test]
fn what_the_trusted_root_does_not_hold_is_not_believed() {
    let holder = Holder::new();
    let elsewhere = TestServer::start();
    let other: Value = elsewhere.trust.trusted_root().unwrap();
    let end = json!("2026-01-02T03:04:00Z");
    let changes: [(&str, &str, Change<'_>); 5] = [
        (
            "chain",
            "which is no CA of the trusted root",
            Box::new(|root| root["certificateAuthorities"] = json!([])),
        ),
        (
            "timestamp",
            "of no log of the trusted root",
            Box::new(|root| root["ctlogs"] = other["ctlogs"].clone()),
        ),
        (
            "timestamp",
            "of no log of the trusted root",
            Box::new(|root| root["ctlogs"] = json!([])),
        ),
        (
            "timestamp",
            "and the log is trusted from",
            Box::new(|root| root["ctlogs"][0]["publicKey"]["validFor"]["end"] = end.clone()),
        ),
        (
            "time",
            "the CA is trusted from",
            Box::new(|root| root["certificateAuthorities"][0]["validFor"]["end"] = end.clone()),
        ),
    ];
    for (failing, detail, change) in changes {
        holder.trust_changed(change);
        let outcome = holder.cert(&[
            "verify",
            "cert.pem",
            "--trusted-root",
            "other_root.json",
            "--at",
            NOW,
        ]);
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(
            outcome.stderr.contains(&format!("{failing}: ")),
            "{outcome:?}"
        );
        assert!(outcome.stderr.contains(detail), "{detail}: {outcome:?}");
    }
}

#[test]
fn a_changed_certificate_and_one_of_a_ca_are_refused() {
    let holder = Holder::new();
    let mut der = holder.der();
    let name = der.windows(3).position(|part| part == b"ada").unwrap();
    der[name] = b'e';
    holder.write("changed.der", &der);
    let (code, document) = holder.verify(&["changed.der", "--at", NOW]);
    assert_eq!(
        (code, check(&document, "chain").0),
        (1, "fail"),
        "{document:#}"
    );
    assert_eq!(check(&document, "timestamp").0, "skip");

    let (code, document) = holder.verify(&["trust/intermediates.pem", "--at", NOW]);
    assert_eq!(code, 1);
    assert!(
        check(&document, "usage").1.contains("a CA's certificate"),
        "{document:#}"
    );
}

#[test]
fn a_trusted_root_that_cannot_be_used_is_a_wrong_configuration() {
    let holder = Holder::new();
    for (content, what) in [
        ("{}", "not JSON of that form"),
        ("no", "not JSON"),
        (
            r#"{"mediaType":"application/json"}"#,
            "its mediaType is \"application/json\"",
        ),
        (
            r#"{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1","certificateAuthorities":[{"certChain":{"certificates":[]}}]}"#,
            "certificateAuthorities[0]: no certificate",
        ),
    ] {
        holder.write("root.json", content);
        let outcome = holder.cert(&["verify", "cert.pem", "--trusted-root", "root.json"]);
        assert_eq!(outcome.code, 3, "{outcome:?}");
        assert!(outcome.stderr.contains(what), "{outcome:?}");
    }
    // A key without a start would be trusted for ever, backwards too.
    holder.trust_changed(|root| {
        root["ctlogs"][0]["publicKey"]["validFor"] = json!({});
    });
    let outcome = holder.cert(&["verify", "cert.pem", "--trusted-root", "other_root.json"]);
    assert_eq!(outcome.code, 3, "{outcome:?}");
    assert!(
        outcome
            .stderr
            .contains("ctlogs[0]: validFor.start is missing"),
        "{outcome:?}"
    );
}

#[test]
fn a_log_that_cannot_be_asked_is_no_verdict() {
    let holder = Holder::new();
    let outcome = holder.cert(&[
        "verify",
        "cert.pem",
        "--trusted-root",
        "trust/trusted_root.json",
        "--at",
        NOW,
        "--log",
        "nowhere",
    ]);
    assert_eq!(outcome.code, 4, "{outcome:?}");
}
