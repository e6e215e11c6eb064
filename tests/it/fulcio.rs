//! Deployments of Fulcio's whose binary is changed: the flags, variables and files that they have start ours.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use mayfly::clock::{Clock, SystemClock};
use mayfly::dev::oidc::{TestAlgorithm, TestClaims, TestIssuer};

use crate::support::http::{self, Request};
use crate::support::key::TestKey;
use crate::support::log::OtherLog;
use crate::support::process::{Process, mayfly, run};
use crate::support::server::{EMAIL, TestServer, V2, test_keys};

/// What a deployment has beside Fulcio: an issuer, a log, a folder of configuration and one of secrets.
struct Deployment {
    issuer: TestServer,
    log: OtherLog,
    folder: tempfile::TempDir,
}

impl Deployment {
    fn new() -> Self {
        let log = OtherLog::start("log");
        log.lies(|promise| promise.time = SystemClock.now_millis());
        let folder = tempfile::tempdir().unwrap();
        let deployment = Self {
            issuer: TestServer::start(),
            log,
            folder,
        };
        let url = deployment.issuer_url();
        let identity = format!(
            "oidc-issuers:\n  {url}:\n    issuer-url: {url}\n    client-id: sigstore\n    type: email\n"
        );
        std::fs::write(deployment.path("config.yaml"), identity).unwrap();
        deployment.write("cert.pem", include_str!("../vectors/openssl-ca.pem"), 0o644);
        let key = include_str!("../vectors/openssl-aes-256.key.pem");
        deployment.write("key.pem", key, 0o600);
        deployment
    }

    fn issuer_url(&self) -> String {
        self.issuer.issuers.email().unwrap().url().to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        std::fs::write(self.path(name), text).unwrap();
        std::fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }

    /// A text of Fulcio's, with what it names.
    fn filled(&self, text: &str) -> String {
        text.replace("{log}", &self.log.url())
            .replace("{log.pub}", self.log.public_key_file().to_str().unwrap())
            .replace("{folder}", self.folder.path().to_str().unwrap())
    }

    /// `serve` with these flags, each in a line of its own; lines of log in JSON.
    fn serve(&self, flags: &str) -> Command {
        let flags = self.filled(flags);
        let mut command = mayfly(["serve"]);
        command.args(flags.split_whitespace());
        command.env("MAYFLY_LOG_FORMAT", "json");
        command
    }

    /// Checks that whoever asks gets a certificate, which is in the log.
    fn issues(&self, server: &Process) {
        let keys = Arc::clone(test_keys());
        let issuer = TestIssuer::new(self.issuer_url(), keys, Arc::new(SystemClock));
        let token = issuer.token(&TestClaims::email(EMAIL), TestAlgorithm::Es256);
        let request = Request::post(V2, TestKey::generate().v2(EMAIL).to_string());
        let answer = http::send(server.address, &request.bearer(&token.unwrap()));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(self.log.submitted().len(), 1);
    }
}

/// What every deployment says that runs more than one server on a machine.
const PORTS: &str =
    "--host=127.0.0.1 --port=0 --grpc-host=127.0.0.1 --grpc-port=0 --metrics-port=0";

/// To try things: a CA in memory and a log beside it.
const COMPOSE: &str = "--ca=ephemeralca --ct-log-url={log} --config-path={folder}/config.yaml";

/// In a cluster: a CA whose key is a mounted secret, with its passphrase.
const KUBERNETES: &str = "--ca=fileca --fileca-key={folder}/key.pem --fileca-cert {folder}/cert.pem --log_type=prod \
    --ct-log-url={log} --config-path={folder}/config.yaml --legacy-unix-domain-socket=@socket --fileca-watch=false";

const WITH_KEY: &str = "--ct-log-public-key-path={log.pub}";

#[test]
fn a_compose_file_s_flags_and_the_log_s_key_start_a_server_that_issues() {
    let deployment = Deployment::new();
    let flags = format!("{PORTS} {COMPOSE} {WITH_KEY}");
    let server = Process::start(&mut deployment.serve(&flags));
    deployment.issues(&server);

    let told = server.events("fulcio_flag", 8);
    let named = |flag: &str| told.iter().find(|line| line["flag"] == flag);
    assert_eq!(named("--port").unwrap()["setting"], "listen");
    assert_eq!(
        named("--config-path").unwrap()["setting"],
        "identity-config"
    );
    assert_eq!(named("--ca").unwrap()["setting"], "ephemeral-ca");
    let warned = server.events("insecure_setting", 1);
    let message = warned[0]["message"].as_str().unwrap();
    assert!(message.starts_with("ephemeral-ca: "), "{message}");
}

#[test]
fn a_cluster_s_flags_and_the_log_s_key_start_a_server_that_issues() {
    let deployment = Deployment::new();
    let flags = format!("{PORTS} {KUBERNETES} {WITH_KEY}");
    let mut command = deployment.serve(&flags);
    command.args(["--fileca-key-passwd", "correct horse"]);
    let server = Process::start(&mut command);
    deployment.issues(&server);
    let lines = server.lines().join("\n");
    assert!(!lines.contains("horse"), "{lines}");
    assert!(lines.contains("can be read by every process"), "{lines}");
}

#[test]
fn variables_say_what_flags_say() {
    let deployment = Deployment::new();
    let mut command = mayfly(["serve"]);
    for (name, value) in [
        ("FULCIO_SERVE_HOST", "127.0.0.1"),
        ("FULCIO_SERVE_PORT", "0"),
        ("FULCIO_SERVE_GRPC-PORT", "0"),
        ("FULCIO_SERVE_METRICS-PORT", "0"),
        ("FULCIO_SERVE_CA", "fileca"),
        ("FULCIO_SERVE_FILECA-CERT", "{folder}/cert.pem"),
        ("FULCIO_SERVE_FILECA_KEY", "{folder}/key.pem"),
        ("FULCIO_SERVE_FILECA-KEY-PASSWD", "correct horse"),
        ("FULCIO_SERVE_CT-LOG-URL", "{log}"),
        ("FULCIO_SERVE_CT-LOG-PUBLIC-KEY-PATH", "{log.pub}"),
        ("FULCIO_SERVE_CONFIG-PATH", "{folder}/config.yaml"),
        ("FULCIO_SERVE_LOG_TYPE", "prod"),
    ] {
        command.env(name, deployment.filled(value));
    }
    deployment.issues(&Process::start(&mut command));
}

#[test]
fn a_settings_file_says_what_flags_say() {
    let deployment = Deployment::new();
    let text = deployment.filled(
        "host: 127.0.0.1\nport: 0\ngrpc-port: 0\nmetrics-port: 0\nlog_type: prod\nca: fileca\n\
         fileca-cert: {folder}/cert.pem\nfileca-key: {folder}/key.pem\nfileca-key-passwd: correct horse\n\
         ct-log-url: {log}\nct-log-public-key-path: {log.pub}\nconfig-path: {folder}/config.yaml\n",
    );
    deployment.write("server.yaml", &text, 0o600);
    let server = Process::start(&mut deployment.serve("-c {folder}/server.yaml"));
    deployment.issues(&server);
}

/// What stops a server is named one at a time, with what is to be given; with that it starts.
#[test]
fn a_refusal_names_what_is_to_be_added() {
    let deployment = Deployment::new();
    let refuses = |flags: &str, words: &str| {
        let mut command = deployment.serve(flags);
        let outcome = run(command.args(["--fileca-key-passwd", "correct horse"]));
        assert_eq!(outcome.code, 3, "{flags}: {}", outcome.stderr);
        let last = outcome.stderr.lines().last().unwrap();
        assert!(last.contains(words), "{flags}: without {words:?}: {last}");
    };
    let flags = format!("{PORTS} {KUBERNETES}");
    refuses(&flags, "ct-log-public-key: missing; ");
    let flags = format!("{flags} {WITH_KEY}");
    let key = deployment.path("key.pem");
    std::fs::set_permissions(&key, Permissions::from_mode(0o644)).unwrap();
    refuses(
        &flags,
        "others can read this private key (mode 0644); run `chmod 600`",
    );
    std::fs::set_permissions(&key, Permissions::from_mode(0o400)).unwrap();

    let without_log = flags.replace("{log}", "");
    refuses(&without_log, "ct-log-url: empty");
    let kms = flags.replace("--ca=fileca", "--ca=kmsca");
    refuses(&kms, "ca: kmsca: ");

    let mut command = deployment.serve(&flags);
    command.args(["--fileca-key-passwd", "correct horse"]);
    drop(Process::start(&mut command));
}

/// Images of Fulcio's have it in places that are links to the binary in ours.
#[test]
fn under_the_name_of_fulcio_the_ports_are_fulcio_s() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("fulcio-server");
    symlink(env!("CARGO_BIN_EXE_mayfly"), &program).unwrap();
    let outcome = run(Command::new(&program).args(["serve", "--no-ct", "--ephemeral-ca"]));
    assert_eq!(outcome.code, 3, "{}", outcome.stderr);
    // The first that is missed is a file that only deployments of Fulcio's have; the address was free, or it says so.
    let names = [
        "/etc/fulcio-config/config.yaml",
        "0.0.0.0:8080",
        "0.0.0.0:2112",
    ];
    let is_named = names.iter().any(|name| outcome.stderr.contains(name));
    assert!(is_named, "{}", outcome.stderr);
}

/// The way out: the same flags, written as a configuration of ours, start the same server.
#[test]
fn config_show_writes_fulcio_s_flags_as_our_configuration() {
    let deployment = Deployment::new();
    let flags = deployment.filled(&format!("{PORTS} {KUBERNETES} {WITH_KEY}"));
    let mut command = mayfly(["config", "show"]);
    let shown = run(command.args(flags.split_whitespace()));
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    deployment.write("mayfly.yaml", &shown.stdout, 0o644);
    deployment.write("passphrase", "correct horse\n", 0o600);

    let server = Process::start(
        &mut deployment
            .serve("--config {folder}/mayfly.yaml --ca-key-password-file {folder}/passphrase"),
    );
    deployment.issues(&server);
    assert!(!server.lines().join("\n").contains("fulcio_flag"));

    let mut command = mayfly(["config", "show", "--origin"]);
    let shown = run(command.args(flags.split_whitespace())).stdout;
    let line = shown.lines().find(|line| line.starts_with("ca-cert: "));
    assert!(
        line.unwrap().ends_with("# Fulcio's --fileca-cert"),
        "{shown}"
    );
}

#[test]
fn help_of_fulcio_s_flags_is_shown_when_asked_for() {
    let outcome = run(&mut mayfly(["serve", "--help-compat"]));
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    assert!(outcome.stdout.contains("--fileca-key-passwd"));
    let help = run(&mut mayfly(["serve", "--help"])).stdout;
    assert!(help.contains("--help-compat") && !help.contains("--fileca-cert"));
}

/// One whose secrets are where the server's own are needs a data folder no more than Fulcio does.
#[test]
fn whoever_has_the_ca_s_files_and_a_log_needs_no_data_folder() {
    let deployment = Deployment::new();
    let plain = include_str!("../vectors/openssl.key.pem");
    deployment.write("plain.pem", plain, 0o600);
    let flags = "--listen 127.0.0.1:0 --metrics-listen 127.0.0.1:0 --data-dir {folder}/none --ct-log-url {log} \
                 --ct-log-public-key {log.pub} --identity-config {folder}/config.yaml";
    let outcome = run(&mut deployment.serve(flags));
    assert_eq!(outcome.code, 3);
    for name in ["public-url", "ca-cert", "ca-key"] {
        let words = format!("mayfly: {name}: missing; ");
        assert!(outcome.stderr.contains(&words), "{}", outcome.stderr);
    }
    assert!(!Path::new(&deployment.path("none")).exists());

    let flags = format!(
        "{flags} --public-url https://ca.example.com --ca-cert {{folder}}/cert.pem --ca-key {{folder}}/plain.pem"
    );
    deployment.issues(&Process::start(&mut deployment.serve(&flags)));
}
