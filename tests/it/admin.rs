//! The administration of a running server, over its socket.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use mayfly::dev::oidc::TestClaims;
use serde_json::{Value, json};

use crate::operating::Trusting;
use crate::support::http::{self, Answer, Connection, Request};
use crate::support::process::{Instance, Outcome, Process, mayfly, run};
use crate::support::server::EMAIL;
use crate::support::{HANG, wait_for};

/// A server with a socket, which is in a folder of its own.
struct Administered {
    trusting: Trusting,
    folder: tempfile::TempDir,
    process: Process,
}

impl Administered {
    fn start() -> Self {
        let trusting = Trusting::new();
        // Not beside the instance: the path of a socket has at most 107 octets.
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("admin.sock");
        let process = Process::start(serve(&trusting.instance, &socket).arg("--no-watch"));
        Self {
            trusting,
            folder,
            process,
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("admin.sock")
    }

    fn send(&self, request: &Request) -> Answer {
        let stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        Connection::over(stream).send(request)
    }

    fn get(&self, path: &str) -> Value {
        let answer = self.send(&Request::get(path));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    }

    /// `mayfly admin`.
    fn admin(&self, arguments: &[&str]) -> Outcome {
        admin(&self.socket(), arguments)
    }

    fn log_filter(&self, filter: &str) -> Answer {
        let body = json!({ "filter": filter }).to_string();
        self.send(&Request {
            method: "PUT",
            ..Request::post("/admin/v1/log-filter", body)
        })
    }
}

fn admin(socket: &Path, arguments: &[&str]) -> Outcome {
    run(mayfly(["admin", "--admin-socket"])
        .arg(socket)
        .args(arguments))
}

fn serve(instance: &Instance, socket: &Path) -> Command {
    let mut command = instance.serve();
    command.arg("--admin-socket").arg(socket);
    command
}

fn event(line: &Value) -> (&Value, &Value) {
    (&line["method"], &line["path"])
}

#[test]
fn the_status_tells_how_the_server_is() {
    let server = Administered::start();
    let is_ready = || {
        let status = server.get("/admin/v1/status");
        (status["readiness"]["status"] == "ready").then_some(status)
    };
    let status = wait_for("the first checks", is_ready);
    let ready = http::send(server.process.address, &Request::get("/readyz")).json();
    assert_eq!(status["version"], ready["version"]);
    assert_eq!(status["config"]["digest"], ready["config_digest"]);
    assert_eq!(status["config"]["refused"], Value::Null);
    assert_eq!(status["roles"], json!(["ca", "ct"]));
    assert_eq!(status["ca"].as_array().unwrap().len(), 2);
    assert!(status["ca"][0]["days_left"].as_i64().unwrap() > 300);
    assert_eq!(status["log"]["entries"], 0);
    assert_eq!(status["log_filter"], "info");

    let request = server.trusting.good_request();
    assert_eq!(http::send(server.process.address, &request).status, 200);
    assert_eq!(server.get("/admin/v1/status")["log"]["entries"], 1);

    let told = server.admin(&["status"]);
    assert_eq!(told.code, 0, "{told:?}");
    for words in [
        "readiness  ready\n",
        "✓ ca_key",
        "main (ca.example.com/ct/main): 1 entries",
        "log lines  info\n",
        status["config"]["digest"].as_str().unwrap(),
    ] {
        assert!(told.stdout.contains(words), "{words:?}: {}", told.stdout);
    }
    let document = server.admin(&["status", "--output", "json"]);
    let document: Value = serde_json::from_str(&document.stdout).unwrap();
    assert_eq!(document["ca"], status["ca"]);
}

#[test]
fn the_configuration_in_force_is_told_entry_by_entry() {
    let server = Administered::start();
    let other = "  https://b.example.com:\n    issuer-url: https://b.example.com\n    client-ids: [sigstore, other]\n    \
                 type: uri\n    subject-domain: https://b.example.com\n    id: builds\n    disabled: true\n";
    let identity = server.trusting.identity() + other;
    server.trusting.instance.write_identity(&identity);
    assert_eq!(server.admin(&["reload"]).code, 0);
    let has_keys = || {
        let config = server.get("/admin/v1/config");
        (config["entries"][0]["keys"]["is_up"] == true).then_some(config)
    };
    let config = wait_for("the issuer's keys", has_keys);
    assert_eq!(config["issuers"], 2);
    let path = server.trusting.instance.identity();
    assert_eq!(config["path"], path.to_str().unwrap());
    let [people, builds] = &config["entries"].as_array().unwrap()[..] else {
        panic!("{config:#}")
    };
    assert_eq!(
        (&people["id"], &people["state"], &people["type"]),
        (&json!("people"), &json!("in_use"), &json!("email"))
    );
    assert!(people["keys"]["count"].as_u64().unwrap() > 0);
    assert_eq!(
        builds,
        &json!({
            "id": "builds",
            "url": "https://b.example.com",
            "type": "uri",
            "audiences": ["sigstore", "other"],
            "state": "disabled",
        })
    );
    let told = server.admin(&["config"]).stdout;
    assert!(told.contains("for sigstore, other\n  disabled\n"), "{told}");
}

#[test]
fn a_reload_answers_with_what_comes_of_it() {
    let server = Administered::start();
    let instance = &server.trusting.instance;
    let good = server.trusting.identity();
    let before = server.get("/admin/v1/config")["digest"].clone();

    let same = server.admin(&["reload"]);
    assert_eq!(
        (same.code, same.stdout.as_str()),
        (
            0,
            &*format!(
                "{} is in force as before: 1 entries\n",
                before.as_str().unwrap()
            )
        )
    );

    let mistaken = good.clone() + "    tpye: email\n";
    instance.write_identity(&mistaken);
    let refused = server.admin(&["reload"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (3, ""));
    let place = format!(
        "mayfly: {}:{}:5: [MF101] ",
        instance.identity().display(),
        mistaken.lines().count()
    );
    assert!(refused.stderr.contains(&place), "{}", refused.stderr);
    let answer = server.send(&Request::post("/admin/v1/reload", ""));
    assert_eq!(answer.status, 422);
    assert_eq!(answer.json()["findings"][0]["code"], "MF101");
    let config = server.get("/admin/v1/config");
    assert_eq!(config["digest"], before);
    assert!(config["refused"].as_str().unwrap().contains("MF101"));

    instance.write_identity(&(good + "    description: people\n"));
    let changed = server.admin(&["reload", "--force", "--output", "json"]);
    let changed: Value = serde_json::from_str(&changed.stdout).unwrap();
    assert_eq!(changed["is_changed"], true);
    assert_ne!(changed["digest"], before);
    let config = server.get("/admin/v1/config");
    assert_eq!(
        (&config["digest"], &config["refused"]),
        (&changed["digest"], &Value::Null)
    );
}

#[test]
fn other_log_lines_are_written_as_soon_as_they_are_asked_for() {
    let server = Administered::start();
    let health = || http::send(server.process.address, &Request::get("/healthz")).status;
    let seen = || {
        let lines = server.process.lines();
        let of_health = |line: &&String| line.contains("\"endpoint\":\"healthz\"");
        lines.iter().filter(of_health).count()
    };
    assert_eq!(health(), 200);
    assert_eq!(server.admin(&["log-filter"]).stdout, "info\n");
    assert_eq!(server.admin(&["log-filter", "debug"]).stdout, "debug\n");
    assert_eq!(seen(), 0);
    assert_eq!(health(), 200);
    wait_for("the line of a health check", || (seen() == 1).then_some(()));

    let wrong = server.admin(&["log-filter", "inof"]);
    assert_eq!(wrong.code, 1);
    assert!(wrong.stderr.contains("\"inof\" is neither"), "{wrong:?}");
    assert_eq!(server.admin(&["log-filter"]).stdout, "debug\n");

    // Who silences the log stands in it.
    assert_eq!(server.log_filter("off").status, 200);
    assert_eq!(health(), 200);
    assert_eq!(server.log_filter("info").status, 200);
    assert_eq!(server.admin(&["reload"]).code, 0);
    let changes = server.process.events("log_filter_changed", 2);
    let changes: Vec<_> = changes
        .iter()
        .map(|line| (line["from"].clone(), line["to"].clone()))
        .collect();
    assert_eq!(
        changes,
        [
            (json!("info"), json!("debug")),
            (json!("debug"), json!("off"))
        ]
    );
    server.process.events("config.reloaded", 1);
    assert_eq!(seen(), 1);
}

#[test]
fn a_token_is_explained_by_the_configuration_in_force_and_the_keys_at_hand() {
    let server = Administered::start();
    let token = server.trusting.token(&TestClaims::email(EMAIL));
    let file = server.folder.path().join("token");
    let explain = |arguments: &[&str]| {
        run(mayfly(["explain", "--admin-socket"])
            .arg(server.socket())
            .arg("--token-file")
            .arg(&file)
            .args(arguments))
    };
    std::fs::write(&file, &token).unwrap();
    let issued = explain(&[]);
    assert_eq!(issued.code, 0, "{issued:?}");
    assert!(issued.stdout.starts_with("A certificate"), "{issued:?}");
    let answer = explain(&["--output", "json"]).stdout;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["san"]["value"], EMAIL);
    let signature = &answer["steps"][4];
    assert_eq!(
        (&signature["name"], &signature["result"]),
        (&json!("signature"), &json!("pass"))
    );

    // Another signature, and claims that nobody signed.
    std::fs::write(&file, token[..token.len() - 4].to_owned() + "AAAA").unwrap();
    let refused = explain(&[]);
    assert_eq!(refused.code, 1);
    assert_eq!(refused.stderr, "mayfly: refused: bad_token_signature\n");
    let url = server.get("/admin/v1/config")["entries"][0]["url"].clone();
    let ask = |body: &Value| server.send(&Request::post("/admin/v1/explain", body.to_string()));
    let claims = json!({ "iss": url, "aud": "sigstore", "sub": "7", "email": EMAIL, "email_verified": true });
    let answer = ask(&json!({ "claims": claims })).json();
    assert_eq!(
        (&answer["result"], &answer["san"]["value"]),
        (&json!("issued"), &json!(EMAIL))
    );

    for body in [
        json!({}),
        json!({ "token": token, "claims": claims }),
        json!({ "claims": [] }),
        json!({ "tokens": token }),
        json!({ "token": token, "at": "now" }),
    ] {
        assert_eq!(ask(&body).status, 400, "{body}");
    }
    // A token is never logged.
    let signature = token.rsplit('.').next().unwrap();
    assert!(
        server
            .process
            .lines()
            .iter()
            .all(|line| !line.contains(signature))
    );
}

#[test]
fn whatever_changes_something_is_logged_with_who_asks() {
    let server = Administered::start();
    server.get("/admin/v1/status");
    assert_eq!(server.admin(&["reload"]).code, 0);
    assert_eq!(server.log_filter("info").status, 200);
    server.send(&Request::post("/elsewhere", ""));
    let calls = server.process.events("admin.call", 3);
    let asked: Vec<_> = calls.iter().map(event).collect();
    assert_eq!(
        asked,
        [
            (&json!("POST"), &json!("/admin/v1/reload")),
            (&json!("PUT"), &json!("/admin/v1/log-filter")),
            (&json!("POST"), &json!("other")),
        ]
    );
    let (user, process) = (rustix::process::geteuid().as_raw(), std::process::id());
    for call in &calls {
        assert_eq!(call["user"], user);
    }
    assert_eq!(calls[1]["process"], process);
    assert_ne!(calls[0]["process"], process);
}

#[test]
fn what_is_not_understood_is_refused() {
    let server = Administered::start();
    let long = "x".repeat(100_000);
    let put = |body: &str| Request {
        method: "PUT",
        ..Request::post("/admin/v1/log-filter", body)
    };
    for (request, status) in [
        (Request::get("/"), 404),
        (Request::get("/admin/v1/reload"), 405),
        (Request::post("/admin/v1/status", ""), 405),
        (put(""), 400),
        (put("{"), 400),
        (put("{\"filter\": 7}"), 400),
        (put("{\"filter\": \"info\", \"for\": 7}"), 400),
        (put(&long), 413),
        (Request::post("/admin/v1/reload", "{\"forced\": true}"), 400),
    ] {
        let answer = server.send(&request);
        assert_eq!(answer.status, status, "{request:?}: {}", answer.text());
    }
    assert_eq!(
        server.get("/admin/v1/log-filter"),
        json!({"filter": "info"})
    );
}

#[test]
fn nobody_else_reaches_the_administration() {
    let mut server = Administered::start();
    let socket = server.socket();
    let mode = std::fs::metadata(&socket).unwrap().mode();
    assert_eq!(mode & 0o777, 0o600);
    for path in ["/admin/v1/status", "/admin/v1/reload"] {
        let answer = http::send(server.process.address, &Request::get(path));
        assert_eq!(answer.status, 404);
        let answer = http::send(server.process.metrics_address, &Request::get(path));
        assert!(answer.text().starts_with("# HELP"), "{}", answer.text());
    }

    // A second server leaves the socket of the first alone.
    let second = Instance::new();
    let outcome = run(&mut serve(&second, &socket));
    assert_eq!(outcome.code, 4, "{outcome:?}");
    assert!(outcome.stderr.contains("another process listens there"));
    assert!(server.process.is_running());
    server.get("/admin/v1/status");

    server.process.terminate();
    assert_eq!(server.process.end().0, 0);
    assert!(!socket.exists());
    let outcome = admin(&socket, &["status"]);
    assert_eq!(outcome.code, 4, "{outcome:?}");
    assert!(outcome.stderr.contains("is the server running"));
}

#[test]
fn a_socket_is_not_made_where_others_could_replace_it() {
    let instance = Instance::new();
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o777)).unwrap();
    let socket = folder.path().join("admin.sock");
    let outcome = run(&mut serve(&instance, &socket));
    assert_eq!(outcome.code, 3, "{outcome:?}");
    assert!(outcome.stderr.contains("others may write in its folder"));
    assert!(!socket.exists());
}

#[test]
fn what_a_killed_server_left_is_no_hindrance() {
    let mut server = Administered::start();
    server.process.signal(rustix::process::Signal::KILL);
    wait_for("its end", || (!server.process.is_running()).then_some(()));
    assert!(server.socket().exists());
    let process = Process::start(&mut serve(&server.trusting.instance, &server.socket()));
    server.get("/admin/v1/status");
    process.terminate();
    assert_eq!(process.end().0, 0);
}
