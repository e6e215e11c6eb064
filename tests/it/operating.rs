//! The binary as operators meet it: what it refuses to start with, what it writes down, how it stops.

use std::fs::File;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;

use mayfly::clock::SystemClock;
use mayfly::dev::oidc::{TestAlgorithm, TestClaims, TestIssuer};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::http::{self, Connection, Request};
use crate::support::key::{self, TestKey};
use crate::support::process::{Instance, Process, Running, copy_folder, mayfly, run};
use crate::support::server::{EMAIL, TestServer, V2, members, test_keys};
use crate::support::{HANG, wait_for};

/// An instance that trusts an issuer, which is reached while `host` runs.
pub(crate) struct Trusting {
    pub(crate) instance: Instance,
    issuer: String,
    _host: Option<TestServer>,
}

impl Trusting {
    pub(crate) fn new() -> Self {
        let host = TestServer::start();
        let url = host.issuers.email().unwrap().url().to_owned();
        Self::of(url, Some(host))
    }

    /// One that trusts an issuer of which nobody can reach anything.
    pub(crate) fn in_vain(url: &str) -> Self {
        Self::of(url.to_owned(), None)
    }

    fn of(url: String, host: Option<TestServer>) -> Self {
        let trusting = Self {
            instance: Instance::new(),
            issuer: url,
            _host: host,
        };
        trusting.instance.write_identity(&trusting.identity());
        trusting
    }

    /// The configuration that trusts the issuer.
    pub(crate) fn identity(&self) -> String {
        let url = &self.issuer;
        format!(
            "oidc-issuers:\n  {url}:\n    issuer-url: {url}\n    client-id: sigstore\n    type: email\n    id: people\n"
        )
    }

    /// A token of now.
    pub(crate) fn token(&self, claims: &TestClaims) -> String {
        let issuer = TestIssuer::new(
            self.issuer.clone(),
            Arc::clone(test_keys()),
            Arc::new(SystemClock),
        );
        issuer.token(claims, TestAlgorithm::Es256).unwrap()
    }

    pub(crate) fn good_request(&self) -> Request {
        Request::post(V2, TestKey::generate().v2(EMAIL).to_string())
            .bearer(&self.token(&TestClaims::email(EMAIL)))
    }
}

/// Checks that `mayfly serve` ends with this exit code, and says this.
fn refuses(instance: &Instance, arguments: &[&str], code: i32, words: &str) {
    let outcome = run(instance.serve().args(arguments));
    assert_eq!(outcome.code, code, "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains(words),
        "without {words:?}: {}",
        outcome.stderr
    );
    assert_eq!(outcome.stdout, "");
}

#[test]
fn a_mistake_in_the_server_file_is_named_with_its_place() {
    let instance = Instance::new();
    let config = instance.config();
    let text = std::fs::read_to_string(&config).unwrap();
    let lines = text.lines().count();
    for (line, column, mistake, words) in [
        (lines + 1, 1, "lissten: x", "lissten"),
        (lines + 1, 10, "workers: many", "many"),
        (lines + 2, 3, "trust:\n  extern: {}", "extern"),
        (lines + 1, 1, "listen: 127.0.0.1:1", "listen"),
    ] {
        std::fs::write(&config, format!("{text}{mistake}\n")).unwrap();
        refuses(
            &instance,
            &[],
            3,
            &format!("mayfly: {}:{line}:{column}: ", config.display()),
        );
        refuses(&instance, &[], 3, words);
    }
}

#[test]
fn a_mistake_in_the_identity_file_is_named_with_its_place() {
    let instance = Instance::new();
    let identity = instance.identity();
    let entry = "oidc-issuers:\n  https://a.example:\n    issuer-url: https://a.example\n    client-id: sigstore\n";
    for (text, place) in [
        (format!("{entry}    type: emial\n"), ":5:11: "),
        (
            format!("{entry}    type: email\n    clientid: x\n"),
            ":6:5: ",
        ),
        (format!("{entry}  - x\n"), ":5:"),
        ("oidc-issuers: 7\n".to_owned(), ":1:15: "),
    ] {
        instance.write_identity(&text);
        refuses(
            &instance,
            &[],
            3,
            &format!("mayfly: {}{place}", identity.display()),
        );
    }
}

#[test]
fn without_anyone_to_trust_nobody_is_served() {
    let instance = Instance::new();
    instance.write_identity("");
    refuses(&instance, &[], 3, "the configuration has no issuer");
    std::fs::remove_file(instance.identity()).unwrap();
    refuses(&instance, &[], 3, "there is no such file");
}

#[test]
fn another_public_url_than_that_of_the_instance_is_refused() {
    let instance = Instance::new();
    let words = "public-url: is https://other.example, but this instance was made for http://ca.example.com";
    refuses(
        &instance,
        &["--public-url", "https://other.example"],
        3,
        words,
    );
}

#[test]
fn a_key_that_is_not_the_certificates_is_refused() {
    let (instance, other) = (Instance::new(), Instance::new());
    let key = other.data_dir().join("ca/current/key.pem");
    refuses(
        &instance,
        &["--ca-key", key.to_str().unwrap()],
        3,
        "does not belong to the CA certificate",
    );
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let instance = Instance::new();
    for key in [
        instance.data_dir().join("ca/current/key.pem"),
        instance.log().join("key.pem"),
    ] {
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
        refuses(
            &instance,
            &[],
            3,
            "others can read this private key (mode 0644); run `chmod 600` on it",
        );
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    }
}

#[test]
fn without_its_log_an_instance_is_refused() {
    let instance = Instance::new();
    let gone = instance.data_dir().join("gone");
    let keep = |path: &Path| std::fs::rename(path, &gone).unwrap();
    let restore = |path: &Path| std::fs::rename(&gone, path).unwrap();

    let folder = instance.log();
    keep(&folder);
    refuses(&instance, &[], 3, "ct/main");
    restore(&folder);

    for file in ["log.json", "journal"] {
        let path = folder.join(file);
        keep(&path);
        let outcome = run(&mut instance.serve());
        assert_eq!(outcome.code, 3, "without {file}: {}", outcome.stderr);
        assert!(!folder.join(file).exists(), "{file} was made anew");
        restore(&path);
    }
    let key = folder.join("key.pem");
    keep(&key);
    refuses(&instance, &[], 3, "key.pem");
    restore(&key);

    let process = Process::start(&mut instance.serve());
    process.terminate();
    assert_eq!(process.end().0, 0, "as it was, it serves");
}

#[test]
fn a_log_that_went_back_in_time_is_refused() {
    let trusting = Trusting::new();
    let (instance, copy) = (
        &trusting.instance,
        tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(),
    );
    let issue_one = || {
        let process = Process::start(&mut instance.serve());
        assert_eq!(
            http::send(process.address, &trusting.good_request()).status,
            200
        );
        process.terminate();
        assert_eq!(process.end().0, 0);
    };
    issue_one();
    copy_folder(&instance.log(), copy.path());
    issue_one();
    assert!(
        std::fs::read_to_string(instance.high_water())
            .unwrap()
            .contains("\n2\n"),
        "the last checkpoint has both"
    );

    std::fs::remove_dir_all(instance.log()).unwrap();
    copy_folder(copy.path(), &instance.log());
    refuses(instance, &[], 3, "the log went back in time");
}

#[test]
fn a_second_process_on_the_same_data_is_refused() {
    let instance = Instance::new();
    let first = Process::start(&mut instance.serve());
    let outcome = run(&mut instance.serve());
    assert_eq!(outcome.code, 4, "{}", outcome.stderr);
    first.terminate();
    assert_eq!(first.end().0, 0);
}

#[test]
fn settings_that_take_away_protection_are_told_and_refused_by_strict() {
    let trusting = Trusting::new();
    let instance = &trusting.instance;
    instance.write_identity(&(trusting.identity() + "    skip-email-verification: true\n"));
    let flags = ["--no-ct", "--allow-insecure-permissions"];
    let process = Process::start(instance.serve().args(flags));
    for warning in process.events("insecure_setting", 2) {
        assert_eq!(warning["severity"], "WARNING");
    }
    let code = &process.events("config_warning", 1)[0]["code"];
    assert_eq!(code, "MF122");
    let metrics = http::send(process.metrics_address, &Request::get("/metrics"));
    for count in [
        r#"mayfly_insecure_settings{kind="identity"} 1"#,
        r#"mayfly_insecure_settings{kind="server"} 2"#,
    ] {
        assert!(metrics.text().lines().any(|line| line == count), "{count}");
    }
    process.terminate();
    assert_eq!(process.end().0, 0);

    for (flag, named) in [("--no-ct", "no-ct: "), ("--max-waiting=9", "[MF122]")] {
        let outcome = run(instance.serve().args([flag, "--strict"]));
        assert_eq!(outcome.code, 3, "{}", outcome.stderr);
        assert!(outcome.stderr.contains(named), "{}", outcome.stderr);
    }
}

#[test]
fn the_configuration_is_shown_as_a_file_that_means_the_same() {
    let instance = Instance::new();
    let passphrase = instance.data_dir().join("passphrase");
    std::fs::write(&passphrase, "a passphrase canary\n").unwrap();
    let show = |arguments: &[&str], variable: Option<(&str, &str)>| {
        let mut command = mayfly(["config", "show"]);
        let outcome = run(command.args(arguments).envs(variable));
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        assert!(!outcome.stdout.contains("canary"), "{}", outcome.stdout);
        outcome.stdout
    };
    let file = instance.config();
    let file = file.to_str().unwrap();
    let password = format!("--ca-key-password-file={}", passphrase.display());
    let given = [
        "--rate-limit=ip=50:100",
        "--trusted-proxies=::1",
        "--log-level=mayfly=debug,info",
        &password,
    ];
    let shown = show(&[&["--config", file], &given[..]].concat(), None);
    for line in [
        "rate-limit: ip=50:100",
        "trusted-proxies: \"::1/128\"",
        "log-level: mayfly=debug,info",
        "max-body-bytes: 128KiB",
    ] {
        assert!(shown.lines().any(|found| found == line), "{line}: {shown}");
    }
    let copy = instance.data_dir().join("copy.yaml");
    std::fs::write(&copy, &shown).unwrap();
    assert_eq!(show(&["--config", copy.to_str().unwrap()], None), shown);

    // A flag comes before a variable, that before the file, that before the default.
    std::fs::write(&copy, shown.replace("workers: ", "workers: 7 # ")).unwrap();
    let copy = copy.to_str().unwrap();
    let variable = Some(("MAYFLY_WORKERS", "5"));
    let arguments = ["--origin", "--config", copy];
    for (more, variable, value, from) in [
        (None, None, "7", copy),
        (None, variable, "5", "MAYFLY_WORKERS"),
        (Some("--workers=3"), variable, "3", "--workers"),
    ] {
        let arguments: Vec<&str> = arguments.into_iter().chain(more).collect();
        let shown = show(&arguments, variable);
        let mut lines = shown.lines();
        let line = lines.find(|line| line.starts_with("workers:")).unwrap();
        let parts: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(parts, ["workers:", value, "#", from]);
    }
    let shown = show(&["--origin", "--config", file], None);
    assert!(shown.contains("\n# tls-cert: not set\n"), "{shown}");
    let idle = shown
        .lines()
        .find(|line| line.starts_with("idle-timeout: 30s"));
    assert!(idle.unwrap().ends_with("  # default"), "{shown}");
}

#[test]
fn serve_has_nothing_of_the_test_issuer() {
    let instance = Instance::new();
    let process = Process::start(&mut instance.serve());
    for target in [
        "/dev/oidc/token",
        "/dev/oidc/.well-known/openid-configuration",
        "/dev/oidc/jwks",
        "/dev/",
    ] {
        assert_eq!(
            http::send(process.address, &Request::get(target)).status,
            404,
            "{target}"
        );
    }
    process.terminate();
    assert_eq!(process.end().0, 0);
}

#[test]
fn the_self_test_passes() {
    let folder = tempfile::tempdir().unwrap();
    let outcome = run(mayfly(["dev", "--self-test"]).current_dir(folder.path()));
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(outcome.stdout.contains("passed"), "{}", outcome.stdout);
    assert_eq!(outcome.stderr, "");
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "it leaves nothing behind"
    );
}

#[test]
fn what_a_throw_away_server_asks_itself_is_not_told() {
    let folder = tempfile::tempdir().unwrap();
    let local = ["--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0"];
    let process = Process::start(mayfly(["dev"]).args(local).current_dir(&folder));
    let discovery = Request::get("/dev/oidc/.well-known/openid-configuration");
    assert_eq!(http::send(process.address, &discovery).status, 200);
    // Until then it fetches the keys of its own issuers, and a stop would break that off.
    wait_for("the first checks", || {
        let ready = http::send(process.address, &Request::get("/readyz"));
        (ready.status == 200).then_some(())
    });
    process.terminate();
    let (code, lines) = process.end();
    assert_eq!(code, 0);
    let lines: Vec<Value> = lines
        .iter()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let events: Vec<&str> = lines
        .iter()
        .map(|line| line["event"].as_str().unwrap())
        .collect();
    assert_eq!(events, ["started", "stopping", "stopped"]);
}

#[test]
fn a_stop_finishes_the_request_that_has_begun() {
    let trusting = Trusting::new();
    let process = Process::start(&mut trusting.instance.serve());
    let request = trusting.good_request();
    let octets = request.octets();
    let (begun, rest) = octets.split_at(octets.len() - 20);
    let mut connection = Connection::open(process.address);
    connection.write(begun).unwrap();
    // Answered on the same worker thread: the request before it has been read by then.
    assert_eq!(
        http::send(process.address, &Request::get("/healthz")).status,
        200
    );

    process.terminate();
    let health = wait_for("health to fail", || {
        let answer = http::send(process.metrics_address, &Request::get("/healthz"));
        (answer.status == 503).then_some(answer)
    });
    assert_eq!(
        health.text(),
        r#"{"code":14,"message":"the server is stopping","details":[]}"#
    );
    assert_eq!(
        (health.header("mayfly-reason"), health.header("retry-after")),
        (Some("shutting_down"), Some("1"))
    );

    connection.write(rest).unwrap();
    let answer = connection.answer_to("POST").unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    let (code, lines) = process.end();
    assert_eq!(code, 0, "{lines:#?}");
    let last: Value = serde_json::from_str(lines.last().unwrap()).unwrap();
    assert_eq!(last["event"], "stopped");
    let checkpoint = std::fs::read_to_string(trusting.instance.high_water()).unwrap();
    assert!(
        checkpoint.contains("\n1\n"),
        "the last checkpoint covers it: {checkpoint}"
    );
}

#[test]
fn systemd_hears_that_the_server_serves_works_reloads_and_stops() {
    let instance = Instance::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(HANG)).unwrap();
    let hear = || {
        let mut buffer = [0; 64];
        let length = systemd.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let mut command = instance.serve();
    command.env("NOTIFY_SOCKET", &path);
    let process = Process::start(command.env("WATCHDOG_USEC", "200000"));
    assert_eq!(hear(), "READY=1");
    assert_eq!(
        http::send(process.address, &Request::get("/healthz")).status,
        200
    );
    for _ in 0..2 {
        assert_eq!(hear(), "WATCHDOG=1");
    }
    // As `systemctl reload` of a unit of type notify-reload does, and waits.
    process.signal(Signal::HUP);
    let mut told = std::iter::repeat_with(hear).filter(|told| told != "WATCHDOG=1");
    let reloading = told.next().unwrap();
    assert!(
        reloading.starts_with("RELOADING=1\nMONOTONIC_USEC="),
        "{reloading}"
    );
    assert_eq!(told.next().unwrap(), "READY=1");
    process.terminate();
    while hear() != "STOPPING=1" {}
    assert_eq!(process.end().0, 0);
}

#[test]
fn a_server_whose_systemd_is_not_there_serves_all_the_same() {
    let instance = Instance::new();
    let mut command = instance.serve();
    let process = Process::start(command.env("NOTIFY_SOCKET", "/nowhere/notify"));
    assert_eq!(process.events("supervisor_unreachable", 1).len(), 1);
    process.terminate();
    assert_eq!(process.end().0, 0);
}

#[test]
fn every_request_is_one_line_with_the_documented_keys() {
    let trusting = Trusting::new();
    let process = Process::start(trusting.instance.serve().args(["--log-level", "debug"]));
    let send = |request: Request, id: &str| {
        let request = request
            .header("X-Request-Id", id)
            .header("User-Agent", "test/1");
        http::send(process.address, &request).status
    };
    assert_eq!(send(trusting.good_request(), "issued"), 200);
    assert_eq!(send(Request::post(V2, "{}"), "refused"), 400);
    assert_eq!(send(Request::post(V2, "{"), "malformed"), 400);
    let mut unproven = trusting.good_request();
    unproven.body = TestKey::generate()
        .v2("somebody else")
        .to_string()
        .into_bytes();
    assert_eq!(send(unproven, "unproven"), 400);
    assert_eq!(send(Request::get("/nowhere"), "nowhere"), 404);
    assert_eq!(send(Request::get("/healthz"), "health"), 200);
    assert_eq!(send(Request::get("/api/v2/trustBundle"), "bundle"), 200);
    process.terminate();
    let (code, lines) = process.end();
    assert_eq!(code, 0);

    let parsed = lines
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    let parsed: Vec<Value> = parsed.collect();
    let always = ["timestamp", "severity", "message", "target", "event"];
    for line in parsed
        .iter()
        .filter(|line| line["target"].as_str().unwrap().starts_with("mayfly"))
    {
        assert!(always.iter().all(|key| line.get(key).is_some()), "{line}");
    }
    let of_request = [
        "request_id",
        "endpoint",
        "method",
        "status",
        "duration_ms",
        "client_ip",
        "user_agent",
    ];
    for (id, severity, event, more) in [
        (
            "issued",
            "INFO",
            "certificate_issued",
            &["api", "issuer", "serial", "leaf_index"][..],
        ),
        (
            "refused",
            "WARNING",
            "request_refused",
            &["reason", "detail"],
        ),
        (
            "malformed",
            "WARNING",
            "request_refused",
            &["reason", "detail"],
        ),
        (
            "unproven",
            "WARNING",
            "request_refused",
            &["reason", "issuer"],
        ),
        ("nowhere", "INFO", "http_request", &[]),
        ("health", "DEBUG", "http_request", &[]),
        ("bundle", "INFO", "http_request", &[]),
    ] {
        let lines: Vec<&Value> = parsed
            .iter()
            .filter(|line| line["request_id"] == id)
            .collect();
        let [line] = lines[..] else {
            panic!("{id}: {lines:#?}")
        };
        assert_eq!(
            (&line["severity"], &line["event"]),
            (&severity.into(), &event.into()),
            "{line}"
        );
        let keys: Vec<String> = members(line).into_keys().collect();
        let mut expected: Vec<String> = always
            .iter()
            .chain(&of_request)
            .chain(more)
            .map(|key| (*key).to_owned())
            .collect();
        expected.sort();
        assert_eq!(keys, expected, "{line}");
        assert_eq!(
            (&line["client_ip"], &line["user_agent"]),
            (&"127.0.0.1".into(), &"test/1".into())
        );
    }
    let issued = parsed
        .iter()
        .find(|line| line["request_id"] == "issued")
        .unwrap();
    assert_eq!(
        (&issued["issuer"], &issued["leaf_index"], &issued["api"]),
        (&"people".into(), &0.into(), &"v2".into())
    );
    assert!(
        !issued.to_string().contains(EMAIL),
        "who it was for stands in the certificate: {issued}"
    );
}

/// `/dev/full` takes nothing, like a disk without room; so does a pipe whose reader is gone.
#[cfg(target_os = "linux")]
#[test]
fn a_server_whose_log_lines_cannot_be_written_goes_on() {
    let instance = Instance::new();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let arguments = ["serve", "--metrics-listen", "127.0.0.1:0", "--listen"];
    let mut command = mayfly(arguments);
    command
        .arg(address.to_string())
        .arg("--config")
        .arg(instance.config());
    let mut server = Running(command.stderr(full).spawn().unwrap());
    wait_for("the server's start", || {
        assert_eq!(server.0.try_wait().unwrap(), None, "it ended");
        TcpStream::connect(address).ok()
    });
    assert_eq!(http::send(address, &Request::get("/healthz")).status, 200);
    server.terminate();
    assert_eq!(server.code(), 0);
}

#[test]
fn no_secret_of_a_request_is_ever_written_or_answered() {
    let trusting = Trusting::new();
    let process = Process::start(trusting.instance.serve().args(["--log-level", "debug"]));
    let token = trusting.token(&TestClaims::email(EMAIL));
    let parts: Vec<&str> = token.split('.').collect();
    let broken_signature = format!(
        "{}.{}.{}",
        parts[0],
        parts[1],
        parts[2].to_ascii_lowercase()
    );
    let expired = trusting.token(&TestClaims::email(EMAIL).with("exp", 1));
    let elsewhere =
        trusting.token(&TestClaims::email(EMAIL).with("iss", "https://elsewhere.example"));
    let key = TestKey::generate();
    let (proof, other_proof) = (key.proof(EMAIL), key.proof("eve@example.com"));
    let canary = "Q2FuYXJ5VGhhdE11c3ROb3RTaW5n";
    let private_key = format!("-----BEGIN PRIVATE KEY-----\n{canary}\n-----END PRIVATE KEY-----\n");

    let body = |proof: &str| key::v2(&key.pem(), proof).to_string();
    let requests = [
        Request::post(V2, body(&proof)).bearer(&token),
        Request::post(V2, body(&other_proof)).bearer(&token),
        Request::post(V2, body(&proof)).bearer(&broken_signature),
        Request::post(V2, body(&proof)).bearer(&expired),
        Request::post(V2, body(&proof)).bearer(&elsewhere),
        Request::post(V2, body(&proof)).bearer(&format!("{token}.{canary}")),
        Request::post(V2, body(&proof)).bearer(canary),
        Request::post(V2, body(&proof)).header("Authorization", format!("Basic {canary}")),
        Request::post(V2, key::v2(&private_key, &proof).to_string()).bearer(&token),
        Request::post(V2, key::csr(&private_key).to_string()).bearer(&token),
        Request::post(V2, format!(r#"{{"credentials":"{token}"}}"#)),
        Request::post(
            V2,
            format!(r#"{{"credentials":{{"oidcIdentityToken":["{token}"]}}}}"#),
        ),
        Request::post(V2, format!(r#"{{"{canary}":"#)),
        Request::post(
            V2,
            format!(r#"{{"publicKeyRequest":{{"proofOfPossession":"{canary}!"}}}}"#),
        ),
        Request::post(V2, format!("{canary}{token}")),
        Request::get(format!("/{canary}?token={token}")),
        Request::get(format!("/healthz?token={token}")).header("X-Request-Id", token.as_str()),
        Request::get("/healthz")
            .header("Cookie", canary)
            .header("Referer", token.as_str()),
    ];
    let mut written = String::new();
    for request in &requests {
        let answer = http::send(process.address, request);
        written += &format!("{:?} {}\n", answer.headers, answer.text());
    }
    written += http::send(process.metrics_address, &Request::get("/metrics")).text();
    process.terminate();
    let (code, lines) = process.end();
    assert_eq!(code, 0);
    assert!(lines.len() > requests.len(), "{lines:#?}");
    written += &lines.join("\n");

    let mut secrets = vec![canary, proof.as_str(), other_proof.as_str()];
    for token in [&token, &broken_signature, &expired, &elsewhere] {
        secrets.extend(token.split('.'));
    }
    for secret in secrets {
        let place = written.lines().find(|line| line.contains(secret));
        assert_eq!(place, None, "{secret}");
    }
}

#[test]
fn an_error_at_the_start_has_its_code_where_nobody_reads_what_it_says() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let folder = tempfile::tempdir().unwrap();
    let mut command = mayfly(["serve", "--data-dir"]);
    command.arg(folder.path()).stderr(writer);
    assert_eq!(command.status().unwrap().code(), Some(3));
}
