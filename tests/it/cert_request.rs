//! `mayfly cert request` as its users run it: by hand with a token, and in build services.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::issuer::{HostileIssuer, Reply};
use crate::support::process::{Instance, Outcome, Process, mayfly, run};
use crate::support::server::V2;

/// Whose token `mayfly dev` writes.
const DEV: &str = "dev@example.com";

/// Variables of an environment.
type Variables<'a> = &'a [(&'a str, &'a str)];

/// `mayfly dev`, with a folder for what clients write.
struct Ca {
    _process: Process,
    folder: TempDir,
    url: String,
}

impl Ca {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let local = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"];
        let mut command = mayfly(["dev", "--out", "trust"]);
        let process = Process::start(command.args(local).current_dir(&folder));
        Self {
            url: format!("http://{}", process.address),
            _process: process,
            folder,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn token(&self) -> String {
        fs::read_to_string(self.path("trust/token")).unwrap()
    }

    /// `mayfly cert request` in the folder, in an environment without any build service.
    fn command(&self, arguments: &[&str]) -> Command {
        self.command_for(&self.url, arguments)
    }

    fn command_for(&self, url: &str, arguments: &[&str]) -> Command {
        let mut command = mayfly(["cert", "request", "--url", url]);
        for name in [
            "SIGSTORE_ID_TOKEN",
            "ACTIONS_ID_TOKEN_REQUEST_URL",
            "GITHUB_ACTIONS",
            "GITLAB_CI",
            "BUILDKITE",
            "CIRCLECI",
            "GCE_METADATA_HOST",
        ] {
            command.env_remove(name);
        }
        command.args(arguments).current_dir(&self.folder);
        command
    }

    fn request(&self, arguments: &[&str]) -> Outcome {
        let token = ["--token-file", "trust/token"];
        run(&mut self.command(&[&token, arguments].concat()))
    }
}

/// The document that a request printed.
fn json(outcome: &Outcome) -> Value {
    assert_eq!(outcome.code, 0, "{outcome:?}");
    serde_json::from_str(&outcome.stdout).unwrap()
}

#[test]
fn every_kind_of_key_is_certified_by_every_api_with_every_proof() {
    let ca = Ca::start();
    for (key, name) in [
        ("p256", "ECDSA P-256"),
        ("p384", "ECDSA P-384"),
        ("p521", "ECDSA P-521"),
        ("ed25519", "Ed25519"),
        ("rsa-2048", "RSA-2048"),
    ] {
        for api in ["v1", "v2", "grpc"] {
            for proof in [&[][..], &["--csr"]] {
                let how = ["--key-type", key, "--api", api, "--output", "json"];
                let trust = ["--trusted-root", "trust/trusted_root.json"];
                let outcome = ca.request(&[&how[..], &trust, proof].concat());
                let document = json(&outcome);
                assert_eq!(
                    document["certificate"]["public_key"], name,
                    "{api} {proof:?}"
                );
                assert_eq!(document["certificate"]["san"][0]["value"], DEV);
                assert_eq!(document["certificates"].as_array().unwrap().len(), 3);
                let checks = document["checks"].as_array().unwrap();
                assert!(
                    checks.iter().all(|check| check["result"] == "pass"),
                    "{checks:#?}"
                );
                // Nothing of the token is in what is shown.
                let token = ca.token();
                let secret = token.rsplit('.').next().unwrap();
                assert!(!outcome.stderr.contains(secret) && !outcome.stdout.contains(secret));
            }
        }
    }
}

#[test]
fn key_certificate_and_chain_are_written_and_never_overwritten() {
    let ca = Ca::start();
    let arguments = [
        "--trusted-root",
        "trust/trusted_root.json",
        "--out-dir",
        "signer",
    ];
    let outcome = ca.request(&arguments);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(
        outcome.stdout,
        "signer/key.pem\nsigner/cert.pem\nsigner/chain.pem\n"
    );
    let mode = fs::metadata(ca.path("signer/key.pem"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let verified = run(
        mayfly(["cert", "verify", "signer/cert.pem", "--identity", DEV])
            .args(["--trusted-root", "trust/trusted_root.json", "--inclusion"])
            .current_dir(&ca.folder),
    );
    assert_eq!(verified.code, 0, "{verified:?}");
    let chain = fs::read_to_string(ca.path("signer/chain.pem")).unwrap();
    assert_eq!(
        chain,
        fs::read_to_string(ca.path("trust/fulcio.crt.pem")).unwrap()
    );

    let entries = |ca: &Ca| {
        let log = mayfly(["log", "status", &format!("{}/ct/main/", ca.url)])
            .args(["--key", "trust/ctfe.pub", "--output", "json"])
            .current_dir(&ca.folder)
            .output()
            .unwrap();
        let status: Value = serde_json::from_slice(&log.stdout).unwrap();
        status["tree_size"].clone()
    };
    let before = entries(&ca);
    let again = ca.request(&arguments);
    assert_eq!(again.code, 1, "{again:?}");
    assert!(
        again.stderr.contains("signer/key.pem: is there already"),
        "{again:?}"
    );
    // Nothing was asked for that could not have been written.
    assert_eq!(entries(&ca), before);
}

#[test]
fn without_a_trusted_root_it_is_said_what_nobody_has_verified() {
    let ca = Ca::start();
    let outcome = ca.request(&[]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert_eq!(outcome.stdout.matches("BEGIN CERTIFICATE").count(), 3);
    assert!(
        outcome
            .stderr
            .contains("nobody vouches for; give --trusted-root"),
        "{outcome:?}"
    );
    assert!(
        outcome.stderr.contains("timestamp   not verified"),
        "{outcome:?}"
    );
}

#[test]
fn a_certificate_that_does_not_verify_is_not_handed_out() {
    let (ca, other) = (Ca::start(), Ca::start());
    let root = other.path("trust/trusted_root.json").display().to_string();
    let outcome = ca.request(&["--trusted-root", &root, "--out-dir", "signer"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(
        outcome
            .stderr
            .contains("does not verify: chain: it names the CA"),
        "{outcome:?}"
    );
    assert_eq!(outcome.stdout, "");
    assert!(!ca.path("signer").exists());
}

#[test]
fn what_the_ca_says_is_passed_on() {
    let ca = Ca::start();
    fs::write(
        ca.path("trust/token"),
        "e30.eyJpc3MiOiJ4Iiwic3ViIjoieSJ9.e30",
    )
    .unwrap();
    let outcome = ca.request(&[]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("the CA refuses: "), "{outcome:?}");
    assert!(outcome.stderr.contains("(400 Bad Request, "), "{outcome:?}");

    fs::write(ca.path("trust/token"), "no token").unwrap();
    let outcome = ca.request(&[]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(
        outcome.stderr.contains("it is not an ID token"),
        "{outcome:?}"
    );
}

#[test]
fn a_ca_that_is_overloaded_is_asked_again() {
    let ca = Ca::start();
    let busy = HostileIssuer::start();
    let body = r#"{"code":14,"message":"too many requests"}"#;
    let reply = format!(
        "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 0\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    busy.set("api", "v2/signingCert", Reply::Octets(reply.into()));
    let url = format!("http://{}", busy.address);
    let outcome = run(&mut ca.command_for(&url, &["--token-file", "trust/token"]));
    assert_ne!(outcome.code, 0, "{outcome:?}");
    assert_eq!(busy.requests().len(), 3, "{V2} is asked three times");
    assert!(
        outcome.stderr.contains("too many requests (503"),
        "{outcome:?}"
    );
}

#[test]
fn a_token_is_found_in_the_environment_and_in_every_build_service() {
    let ca = Ca::start();
    let services = HostileIssuer::start();
    let token = ca.token();
    let in_member = |name: &str| Reply::document(format!(r#"{{"{name}":"{token}"}}"#));
    services.set(
        "github",
        "token?api-version=2.0&audience=sigstore",
        in_member("value"),
    );
    services.set("v3", "jobs/4711/oidc/tokens", in_member("token"));
    services.set(
        "computeMetadata",
        "v1/instance/service-accounts/default/identity?audience=sigstore&format=full",
        Reply::document(&token),
    );
    // The command that CircleCI has in every job.
    let script = format!(
        "#!/bin/sh\n[ \"$*\" = 'run oidc get --claims {{\"aud\":\"sigstore\"}}' ] && echo '{token}'\n"
    );
    fs::create_dir(ca.path("bin")).unwrap();
    fs::write(ca.path("bin/circleci"), script).unwrap();
    fs::set_permissions(ca.path("bin/circleci"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!(
        "{}:{}",
        ca.path("bin").display(),
        std::env::var("PATH").unwrap()
    );
    let address = services.address.to_string();
    let (github, buildkite) = (
        format!("http://{address}/github/token?api-version=2.0"),
        format!("http://{address}/v3"),
    );
    let cases: [(&str, Variables<'_>, &str); 6] = [
        ("the environment", &[("SIGSTORE_ID_TOKEN", &token)], ""),
        (
            "GitLab CI",
            &[("GITLAB_CI", "true"), ("SIGSTORE_ID_TOKEN", &token)],
            "",
        ),
        (
            "GitHub Actions",
            &[
                ("GITHUB_ACTIONS", "true"),
                ("ACTIONS_ID_TOKEN_REQUEST_URL", &github),
                ("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "secret"),
            ],
            "authorization: Bearer secret",
        ),
        (
            "Buildkite",
            &[
                ("BUILDKITE", "true"),
                ("BUILDKITE_AGENT_ENDPOINT", &buildkite),
                ("BUILDKITE_AGENT_ACCESS_TOKEN", "secret"),
                ("BUILDKITE_JOB_ID", "4711"),
            ],
            "authorization: Token secret",
        ),
        ("CircleCI", &[("CIRCLECI", "true"), ("PATH", &path)], ""),
        (
            "Google Cloud",
            &[("GCE_METADATA_HOST", &address)],
            "metadata-flavor: Google",
        ),
    ];
    for (name, variables, header) in cases {
        let mut command = ca.command(&["--trusted-root", "trust/trusted_root.json"]);
        if name == "GitLab CI" {
            command.args(["--token-source", "gitlab"]);
        }
        let outcome = run(command.envs(variables.iter().copied()));
        assert_eq!(outcome.code, 0, "{name}: {outcome:?}");
        assert!(outcome.stderr.contains(name), "{outcome:?}");
        let heads = services.requests();
        assert!(
            header.is_empty() || heads.last().unwrap().contains(header),
            "{name}: {heads:#?}"
        );
    }
}

#[test]
fn no_token_anywhere_is_told_with_where_it_may_come_from() {
    let ca = Ca::start();
    let outcome = run(&mut ca.command(&[]));
    assert_eq!(outcome.code, 4, "{outcome:?}");
    assert!(
        outcome.stderr.contains("no ID token: give --token-file"),
        "{outcome:?}"
    );
    let outcome = run(ca.command(&[]).env("GITHUB_ACTIONS", "true"));
    assert_eq!(outcome.code, 4, "{outcome:?}");
    assert!(
        outcome.stderr.contains("permissions: { id-token: write }"),
        "{outcome:?}"
    );
}

#[test]
fn a_ca_behind_tls_is_asked_by_the_root_that_is_given() {
    let instance = Instance::new();
    let folder = tempfile::tempdir().unwrap();
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("tls.crt"), own.cert.pem()).unwrap();
    fs::write(path("tls.key"), own.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(path("tls.key"), fs::Permissions::from_mode(0o600)).unwrap();
    let mut serve = instance.serve();
    serve.arg("--tls-cert").arg(path("tls.crt"));
    serve.arg("--tls-key").arg(path("tls.key"));
    let process = Process::start(&mut serve);
    let url = format!("https://localhost:{}", process.address.port());
    fs::write(path("token"), "e30.eyJpc3MiOiJ4Iiwic3ViIjoieSJ9.e30").unwrap();

    for (api, refusal) in [
        ("v1", "400 Bad Request"),
        ("v2", "400 Bad Request"),
        ("grpc", "gRPC InvalidArgument"),
    ] {
        let request = |more: &[&str]| {
            let arguments = [
                "cert",
                "request",
                "--token-file",
                "token",
                "--url",
                &url,
                "--api",
                api,
            ];
            run(mayfly(arguments).args(more).current_dir(&folder))
        };
        let outcome = request(&["--tls-ca", "tls.crt"]);
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(outcome.stderr.contains(refusal), "{outcome:?}");
        // By the system's roots alone, it is nobody's.
        let outcome = request(&[]);
        assert_eq!(outcome.code, 4, "{outcome:?}");
        assert!(
            outcome.stderr.contains("the CA cannot be reached"),
            "{outcome:?}"
        );
    }
}
