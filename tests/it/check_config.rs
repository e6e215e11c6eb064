//! `mayfly check-config` as policy admins run it, on files that are wrong in every way that has a code.
//!
//! Each folder of `tests/config` is named after a code and holds what is checked, and what is printed (`expected.txt`). With
//! `MAYFLY_UPDATE` set, what is printed is written there instead, to be read and committed.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mayfly::config::{ServerConfig, Settings};
use mayfly::identity::config::Code;
use mayfly::keys::memory::NewKey;
use mayfly::keys::{InMemoryKey, Signer as _};
use mayfly::server::load_chain;
use serde_json::Value;

use crate::support::issuer::Reply;
use crate::support::log::OtherLog;
use crate::support::process::{Instance, Process, mayfly, run};

fn fixtures() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    let entries = std::fs::read_dir(folder).unwrap();
    let mut fixtures: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    fixtures.sort();
    fixtures
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// What is checked of a fixture, relative to it.
fn input(fixture: &Path) -> &'static str {
    let inputs = ["identity.yaml", "identity.json", "identity"];
    let found = inputs.iter().find(|input| fixture.join(input).exists());
    found.unwrap_or_else(|| panic!("{} has nothing to check", fixture.display()))
}

/// Runs the check in the folder of a fixture. Returns the exit code and what was printed, errors last.
fn check(fixture: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = mayfly(["check-config", "--identity-config", input(fixture)]);
    let outcome = run(command.current_dir(fixture).args(arguments));
    (outcome.code, outcome.stdout + &outcome.stderr)
}

#[test]
fn the_path_may_stand_without_its_flag() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/MF101-unknown-key");
    let mut command = mayfly(["check-config", "identity.yaml"]);
    // What is written on the command line is meant, whatever the environment says.
    command.env("MAYFLY_IDENTITY_CONFIG", "elsewhere.yaml");
    let outcome = run(command.current_dir(&fixture));
    let expected = std::fs::read_to_string(fixture.join("expected.txt")).unwrap();
    assert_eq!(outcome.stdout + &outcome.stderr, expected);
}

#[test]
fn every_code_is_found_where_it_stands() {
    let mut seen = BTreeSet::new();
    for fixture in fixtures() {
        let code = name(&fixture).split('-').next().unwrap();
        let (exit, printed) = check(&fixture, &[]);
        assert!(
            printed.contains(&format!("[{code}]")),
            "{}: {printed}",
            fixture.display()
        );
        let is_refused = printed.contains("error[");
        assert_eq!(
            exit,
            if is_refused { 3 } else { 0 },
            "{}",
            fixture.display()
        );
        assert_eq!(check(&fixture, &["--strict"]).0, 3, "{}", fixture.display());
        let expected = fixture.join("expected.txt");
        if std::env::var_os("MAYFLY_UPDATE").is_some() {
            std::fs::write(&expected, &printed).unwrap();
        }
        let expected = std::fs::read_to_string(expected).unwrap();
        assert_eq!(printed, expected, "{}", fixture.display());
        seen.insert(code.to_owned());
    }
    // What only issuers and instances can tell is tested where there are some.
    let all: BTreeSet<String> = Code::ALL
        .iter()
        .map(|code| code.name().to_owned())
        .filter(|code| !code.starts_with("MF13") && !code.starts_with("MF2"))
        .collect();
    assert_eq!(seen, all);
}

/// Checks an instance with these settings in place of its own. Returns the exit code and the findings.
fn check_instance(instance: &Instance, settings: &str) -> (i32, Vec<Value>) {
    let config = instance.data_dir().join("other.yaml");
    let settings = format!("data-dir: {}\n{settings}", instance.data_dir().display());
    std::fs::write(&config, settings).unwrap();
    let mut command = mayfly(["check-config", "--format", "json", "--config"]);
    let outcome = run(command.arg(config));
    let findings = serde_json::from_str(&outcome.stdout);
    let findings = findings.unwrap_or_else(|error| panic!("{error}: {outcome:?}"));
    (outcome.code, findings)
}

#[test]
fn what_a_server_is_made_of_is_checked_without_starting_it() {
    let instance = Instance::new();
    assert_eq!(check_instance(&instance, ""), (0, Vec::new()));
    let process = Process::start(&mut instance.serve());
    assert_eq!(
        check_instance(&instance, ""),
        (0, Vec::new()),
        "while it runs"
    );
    process.terminate();
    process.end();

    let other = Instance::new();
    let file =
        |instance: &Instance, path: &str| instance.data_dir().join(path).display().to_string();
    let chain = file(&instance, "ca/current/chain.pem");
    let key = file(&instance, "ca/current/key.pem");
    let other_key = file(&other, "ca/current/key.pem");
    let log_key = instance.log().join("key.pem");
    let public_key = |name: &str, der: &[u8]| {
        let path = instance.data_dir().join(name);
        std::fs::write(&path, pem::encode(&pem::Pem::new("PUBLIC KEY", der))).unwrap();
        path.display().to_string()
    };
    let (p256, _) = InMemoryKey::generate(NewKey::P256).unwrap();
    let (p384, _) = InMemoryKey::generate(NewKey::P384).unwrap();
    let log_public_key = public_key("log.pub", p256.public_key_der());
    let weak_key = public_key("p384.pub", p384.public_key_der());
    let readable = instance.data_dir().join("readable.pem");
    std::fs::copy(&key, &readable).unwrap();
    let empty = instance.data_dir().join("empty.pem");
    std::fs::write(&empty, "").unwrap();
    std::fs::set_permissions(&empty, PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::set_permissions(&readable, PermissionsExt::from_mode(0o644)).unwrap();
    for (settings, code, place, message) in [
        ("lissten: x".to_owned(), "MF200", "other.yaml", "lissten"),
        (
            "workers: 0".to_owned(),
            "MF200",
            "settings",
            "workers: 0 threads serve nobody",
        ),
        (
            "listen: 127.0.0.1:99\nmetrics-listen: 0.0.0.0:99".to_owned(),
            "MF200",
            "settings",
            "is taken by listen",
        ),
        (format!("ca-cert: {key}"), "MF201", &key, "certificate"),
        (
            "ca-cert: nowhere.pem".to_owned(),
            "MF201",
            "nowhere.pem",
            "No such file",
        ),
        (
            format!("ca-key: {}", readable.display()),
            "MF202",
            "readable.pem",
            "others can read",
        ),
        (
            "ca-key: empty.pem".to_owned(),
            "MF202",
            "empty.pem",
            "no private key",
        ),
        (
            format!("ca-key: {other_key}"),
            "MF203",
            &other_key,
            "does not belong to",
        ),
        (format!("tls-cert: {chain}\ntls-key: {key}\n"), "", "", ""),
        (
            format!("tls-cert: {chain}\ntls-key: {other_key}\n"),
            "MF206",
            &chain,
            "do not fit",
        ),
        ("no-ct: true".to_owned(), "MF207", "settings", "no-ct"),
        (
            format!("ct-log-url: https://ct.example\nct-log-public-key: {chain}"),
            "MF205",
            "settings",
            "ct log ct.example: public-key-file: ",
        ),
        (
            format!("ct-log-url: https://ct.example\nct-log-public-key: {weak_key}"),
            "MF205",
            "settings",
            "a key of the kind p384 signs no timestamps",
        ),
        (
            format!(
                "ct-log-url: https://ct.example\nct-log-public-key: {log_public_key}\nct-log-tls-ca: {log_public_key}"
            ),
            "MF205",
            "settings",
            "ct log ct.example: tls-ca-file: ",
        ),
        (
            "ct-log-url: https://ct.example".to_owned(),
            "MF200",
            "settings",
            "ct-log-public-key: missing",
        ),
        (
            "allow-insecure-permissions: true".to_owned(),
            "MF207",
            "settings",
            "allow-insecure",
        ),
    ] {
        let (exit, findings) = check_instance(&instance, &settings);
        let [found] = &findings[..] else {
            assert_eq!(
                (exit, findings.len(), code),
                (0, 0, ""),
                "{settings}: {findings:?}"
            );
            continue;
        };
        let text = |member: &str| found[member].as_str().unwrap();
        assert_eq!(text("code"), code, "{settings}: {found}");
        assert_eq!(
            exit,
            if text("severity") == "error" { 3 } else { 0 },
            "{settings}"
        );
        assert!(text("file").ends_with(place), "{settings}: {found}");
        assert!(text("message").contains(message), "{settings}: {found}");
        assert!(
            !text("message").starts_with('/'),
            "the place twice: {found}"
        );
    }

    // A log with the key of another one.
    std::fs::copy(other.log().join("key.pem"), &log_key).unwrap();
    let (exit, findings) = check_instance(&instance, "");
    assert_eq!(
        (exit, &findings[0]["code"]),
        (3, &"MF205".into()),
        "{findings:?}"
    );
    std::fs::remove_file(instance.log().join("log.json")).unwrap();
    let (exit, findings) = check_instance(&instance, "");
    assert_eq!(
        (exit, &findings[0]["code"]),
        (3, &"MF205".into()),
        "{findings:?}"
    );
}

#[test]
fn the_passphrase_is_taken_from_where_the_server_takes_it() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (data_dir, password) = (folder.path().join("data"), folder.path().join("password"));
    std::fs::write(&password, "correct horse\n").unwrap();
    let mut init = mayfly([
        "init",
        "--public-url",
        "http://127.0.0.1:5999",
        "--data-dir",
    ]);
    let made = run(init.arg(&data_dir).arg("--password-file").arg(&password));
    assert_eq!(made.code, 0, "{}", made.stderr);
    // Nobody else can reach a URL of this machine.
    let config = std::fs::read_to_string(data_dir.join("mayfly.yaml")).unwrap();
    assert!(config.contains("\nlisten: 127.0.0.1:5999\n"), "{config}");
    let issuer = "https://issuer.example.com";
    let identity = format!(
        "oidc-issuers:\n  {issuer}:\n    issuer-url: {issuer}\n    client-id: sigstore\n    type: email\n"
    );
    std::fs::write(data_dir.join("identity.yaml"), identity).unwrap();

    let check = || {
        let mut command = mayfly(["check-config", "--data-dir"]);
        command.arg(&data_dir);
        command
    };
    let outcome = run(&mut check());
    assert_eq!(outcome.code, 3);
    assert!(
        outcome.stdout.contains("[MF202]: this key is encrypted"),
        "{outcome:?}"
    );
    assert!(outcome.stderr.contains("the server and "), "{outcome:?}");
    for command in [
        check().arg("--ca-key-password-file").arg(&password),
        check().env("MAYFLY_CA_KEY_PASSWORD_FILE", &password),
    ] {
        let outcome = run(command);
        assert_eq!(outcome.code, 0, "{outcome:?}");
    }
}

#[test]
fn the_end_of_the_ca_s_certificates_is_told_in_time() {
    let instance = Instance::new();
    let settings = || Settings {
        data_dir: Some(instance.data_dir()),
        ..Settings::default()
    };
    let config = ServerConfig::new(settings()).unwrap();
    let end = load_chain(&config).unwrap().not_after();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    for (days, expected) in [(91, None), (89, Some("MF204")), (-1, Some("MF201"))] {
        let now = end - time::Duration::days(days);
        let found = runtime.block_on(mayfly::check::check(settings(), None, now));
        let codes: Vec<&str> = found
            .findings
            .iter()
            .map(|finding| finding.code.name())
            .collect();
        assert_eq!(codes, Vec::from_iter(expected), "{days} days before");
    }
}

#[test]
fn issuers_are_asked_when_the_check_is_online() {
    let folder = tempfile::tempdir().unwrap();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    let answer = |status: &'static str| {
        let socket = socket.try_clone().unwrap();
        std::thread::spawn(move || {
            use std::io::{Read, Write};
            let (mut connection, _) = socket.accept().unwrap();
            let mut request = [0; 1024];
            let length = connection.read(&mut request).unwrap();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            connection.write_all(answer.as_bytes()).unwrap();
            String::from_utf8_lossy(&request[..length]).into_owned()
        })
    };
    let text = format!(
        "oidc-issuers:\n  here:\n    issuer-url: {url}\n    client-id: x\n    type: email\n"
    );
    std::fs::write(folder.path().join("identity.yaml"), text).unwrap();
    assert_eq!(check(folder.path(), &[]).0, 0);

    let asked = answer("404 Not Found");
    let (exit, printed) = check(folder.path(), &["--online"]);
    let request = asked.join().unwrap();
    assert!(
        request.starts_with("GET /.well-known/openid-configuration HTTP/1.1\r\n"),
        "{request}"
    );
    assert_eq!(exit, 3, "{printed}");
    assert!(
        printed.contains("error[MF130]: discovery document: the server answered with status 404")
            && printed.contains("--> identity.yaml:3:17\n"),
        "{printed}"
    );
}

#[test]
fn logs_of_others_are_asked_when_the_check_is_online() {
    let (instance, log) = (Instance::new(), OtherLog::start("offsite"));
    // Issuers of a pattern are not asked: there is none before a token comes.
    let issuers =
        "meta-issuers:\n  https://*.example.com:\n    client-id: sigstore\n    type: kubernetes\n";
    std::fs::write(instance.data_dir().join("identity.yaml"), issuers).unwrap();
    let key_file = log.public_key_file();
    let settings = format!(
        "data-dir: {}\nct-log-url: {}\nct-log-public-key: {}\n",
        instance.data_dir().display(),
        log.url(),
        key_file.display()
    );
    let config = instance.data_dir().join("other.yaml");
    std::fs::write(&config, settings).unwrap();
    let check = |arguments: &[&str]| {
        let mut command = mayfly(["check-config", "--config"]);
        let outcome = run(command.arg(&config).args(arguments));
        (outcome.code, outcome.stdout + &outcome.stderr)
    };
    let chain = std::fs::read(instance.data_dir().join("ca/current/chain.pem")).unwrap();
    let chain = pem::parse_many(chain).unwrap();
    let accepts = |der: &[u8]| {
        let roots = serde_json::json!({ "certificates": [STANDARD.encode(der)] });
        log.has_roots(Reply::document(roots.to_string()));
    };
    accepts(b"another CA");
    assert_eq!(check(&[]).0, 0, "nobody is asked");
    let (exit, printed) = check(&["--online"]);
    assert_eq!(exit, 3, "{printed}");
    let expected = "error[MF205]: ct log 127.0.0.1: it does not accept certificates of our CA";
    assert!(printed.contains(expected), "{printed}");
    accepts(chain.last().unwrap().contents());
    let (exit, printed) = check(&["--online"]);
    assert_eq!(exit, 0, "{printed}");
    assert_eq!(log.submitted().len(), 0);

    // Clients are to trust that log, and not the one in the data folder.
    let trust = instance.data_dir().join("trust");
    let mut command = mayfly(["trust", "export", "--config"]);
    let outcome = run(command.arg(&config).arg(&trust));
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let root = std::fs::read_to_string(trust.join("trusted_root.json")).unwrap();
    let root: Value = serde_json::from_str(&root).unwrap();
    let [trusted] = &root["ctlogs"].as_array().unwrap()[..] else {
        panic!("{root}")
    };
    let key = STANDARD.encode(log.public_key_der());
    assert_eq!(trusted["publicKey"]["rawBytes"], key);
    let exported = std::fs::read(trust.join("ctfe.pub")).unwrap();
    assert_eq!(
        pem::parse(exported).unwrap().contents(),
        log.public_key_der()
    );
}

#[test]
fn every_code_has_a_section_that_says_what_to_do() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/config-errors.md");
    let text = std::fs::read_to_string(path).unwrap();
    let sections: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("## MF"))
        .collect();
    let expected: Vec<String> = Code::ALL
        .iter()
        .map(|code| format!("{}: {}", &code.name()[2..], code.title()))
        .collect();
    assert_eq!(sections, expected);
    for section in text.split("\n## ").skip(1) {
        assert!(section.contains("\nWhat to do: "), "{section}");
    }
}

#[test]
fn other_formats_say_the_same() {
    let fixture = fixtures();
    let fixture = fixture
        .iter()
        .find(|path| name(path) == "MF104-undefined-provider");
    let fixture = fixture.unwrap();
    let json = |format| -> Value {
        let (_, printed) = check(fixture, &["--format", format]);
        // The summary stands behind it, on the standard error stream.
        let document = printed.split("\nmayfly: ").next().unwrap();
        serde_json::from_str(document).unwrap()
    };
    let found = &json("json")[0];
    assert_eq!(found["code"], "MF104");
    assert_eq!(found["severity"], "error");
    assert_eq!((&found["line"], &found["column"]), (&6.into(), &18.into()));
    assert_eq!(found["end_column"], 32);
    assert_eq!(
        found["path"],
        "/oidc-issuers/https:~1~1issuer.example.com/ci-provider"
    );
    let sarif = &json("sarif")["runs"][0]["results"][0];
    assert_eq!(sarif["ruleId"], "MF104");
    let region = &sarif["locations"][0]["physicalLocation"]["region"];
    assert_eq!(
        (&region["startLine"], &region["startColumn"]),
        (&6.into(), &18.into())
    );
    let (_, github) = check(fixture, &["--format", "github"]);
    assert!(
        github.starts_with(
            "::error file=identity.yaml,line=6,col=18,endLine=6,endColumn=32,title=MF104::"
        ),
        "{github}"
    );
}

#[test]
fn warnings_can_be_left_out_or_made_errors() {
    let all = fixtures();
    let fixture = all
        .iter()
        .find(|path| name(path) == "MF122-unverified")
        .unwrap();
    assert_eq!(check(fixture, &[]).0, 0);
    assert_eq!(check(fixture, &["--deny", "MF122"]).0, 3);
    let (exit, printed) = check(fixture, &["--allow", "MF122", "--strict"]);
    assert_eq!(
        (exit, printed.as_str()),
        (0, "identity.yaml: no errors, no warnings, 1 issuer\n")
    );
    // An error cannot be left out.
    let wrong = all
        .iter()
        .find(|path| name(path) == "MF105-no-audience")
        .unwrap();
    assert_eq!(check(wrong, &["--allow", "MF105"]).0, 3);
    assert_eq!(check(fixture, &["--allow", "MF999"]).0, 2);
}

#[test]
fn what_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |path: &Path| {
        let outcome = run(mayfly(["check-config", "--identity-config"]).arg(path));
        assert_eq!(outcome.code, 3);
        outcome.stderr
    };
    assert!(refused(&folder.path().join("none.yaml")).contains("none.yaml: there is no such file"));
    assert!(refused(folder.path()).contains("the folder has no file"));
}
