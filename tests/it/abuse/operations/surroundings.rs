//! What surrounds the process: where its log lines go, names that do not resolve, its environment, its end by force.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mayfly::dev::oidc::TestClaims;
use mayfly::excerpt::is_invisible;
use rustix::process::Signal;
use serde_json::Value;

use crate::operating::Trusting;
use crate::support::http::{self, Connection, Request};
use crate::support::key::{self, TestKey};
use crate::support::process::{Instance, Process, Running, mayfly, run};
use crate::support::server::{EMAIL, V2};
use crate::support::wait_for;

/// An address that nobody listens on.
fn free_address() -> SocketAddr {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap()
}

/// Waits until a server answers there.
fn wait_until_healthy(server: &mut Running, address: SocketAddr) {
    wait_for("the server's start", || {
        assert_eq!(server.0.try_wait().unwrap(), None, "it ended");
        std::net::TcpStream::connect(address).ok()
    });
    assert_eq!(http::send(address, &Request::get("/healthz")).status, 200);
}

/// A command that serves on known addresses, as its log lines cannot be read.
fn serve_at(instance: &Instance, api: SocketAddr, metrics: SocketAddr) -> Command {
    let mut command = mayfly(["serve", "--log-level", "debug"]);
    command
        .args(["--workers", "1", "--config"])
        .arg(instance.config());
    command.args(["--listen", &api.to_string()]);
    command.args(["--metrics-listen", &metrics.to_string()]);
    command
}

#[test]
fn a_log_that_nobody_reads_holds_up_no_request() {
    let trusting = Trusting::new();
    let (api, metrics) = (free_address(), free_address());
    let (kept_open, full) = std::io::pipe().unwrap();
    let mut command = serve_at(&trusting.instance, api, metrics);
    let mut server = Running(command.stderr(Stdio::from(full)).spawn().unwrap());
    wait_until_healthy(&mut server, api);

    // Far more lines than a pipe and the buffer before it hold.
    let long = Request::get("/nowhere")
        .header("User-Agent", "a".repeat(200))
        .header("X-Request-Id", "b".repeat(128));
    let octets = long.octets().repeat(100);
    let mut connection = Connection::open(api);
    for _ in 0..40 {
        connection.write(&octets).unwrap();
        for _ in 0..100 {
            assert_eq!(connection.answer_to("GET").unwrap().status, 404);
        }
    }
    let issued = http::send(api, &trusting.good_request());
    assert_eq!(issued.status, 200, "{}", issued.text());
    let scraped = http::send(metrics, &Request::get("/metrics"));
    let dropped = scraped
        .text()
        .lines()
        .find_map(|line| line.strip_prefix("mayfly_log_lines_dropped_total "));
    assert!(dropped.unwrap().parse::<u64>().unwrap() > 0, "{dropped:?}");
    server.terminate();
    assert_eq!(server.code(), 0);
    drop(kept_open);
}

#[test]
fn a_log_that_cannot_be_written_holds_up_no_request() {
    for stderr in ["2>&-", "2> >(true)"] {
        let trusting = Trusting::new();
        let (api, metrics) = (free_address(), free_address());
        let serve = serve_at(&trusting.instance, api, metrics);
        let mut command = Command::new("bash");
        command
            .args(["-c", &format!(r#"exec "$0" "$@" {stderr}"#)])
            .arg(serve.get_program())
            .args(serve.get_args())
            .stdin(Stdio::null());
        let mut server = Running(command.spawn().unwrap());
        wait_until_healthy(&mut server, api);
        let issued = http::send(api, &trusting.good_request());
        assert_eq!(issued.status, 200, "{stderr}: {}", issued.text());
        server.terminate();
        assert_eq!(server.code(), 0, "{stderr}");
    }
}

/// What no line may hold as it is.
const NASTY: &str = "a\r\nb\u{1b}[2Jc\u{9b}d\u{2028}e\u{202e}f\u{2066}g\u{feff}\"\\\0";

/// Sends [`NASTY`] and its like wherever something could be logged, one `request_refused` among it.
fn send_what_lines_must_not_hold(trusting: &Trusting, address: SocketAddr) {
    let iss = format!("https://{NASTY}.example/{}", "x".repeat(20_000));
    let token = trusting.token(&TestClaims::email(EMAIL).with("iss", iss));
    let body = key::v2(&TestKey::generate().pem(), "cHJvb2Y=").to_string();
    let refused = http::send(address, &Request::post(V2, body).bearer(&token));
    assert_eq!(refused.header("mayfly-reason"), Some("issuer_unknown"));
    assert!(
        !refused.text().contains(is_dangerous),
        "{:?}",
        refused.text()
    );

    let send = |header: &str, value: &[u8]| {
        let head = format!("GET /nowhere HTTP/1.1\r\nHost: x\r\n{header}: ");
        let mut connection = Connection::open(address);
        // A server may refuse, and close, before it has read a megabyte.
        let _ = connection.write(&[head.as_bytes(), value, b"\r\n\r\n"].concat());
        connection.answer_to("GET").map(|answer| answer.status)
    };
    for header in ["User-Agent", "X-Request-Id", "Origin"] {
        for value in [
            NASTY.as_bytes(),
            b"\x1b]0;x\x07",
            b"\xff\xfe",
            "\u{202e}".as_bytes(),
        ] {
            // Accepted or refused: the lines are what counts.
            let _ = send(header, value);
        }
        let status = send(header, &vec![b'x'; 1 << 20]);
        assert!(
            status.is_err() || matches!(status, Ok(400 | 431)),
            "{status:?}"
        );
    }
    assert_eq!(send("User-Agent", &[b'y'; 4000]).unwrap(), 404);
}

#[test]
fn nothing_that_is_sent_begins_a_line_or_moves_a_cursor() {
    let trusting = Trusting::new();
    let process = Process::start(trusting.instance.serve().args(["--log-level", "debug"]));
    send_what_lines_must_not_hold(&trusting, process.address);
    process.terminate();
    let (code, lines) = process.end();
    assert_eq!(code, 0);
    let mut refusals = 0;
    for text in &lines {
        assert!(
            text.len() < 4096 && !text.contains(is_dangerous),
            "{text:?}"
        );
        let line: Value =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
        let user_agent = line["user_agent"].as_str().unwrap_or_default();
        assert!(user_agent.len() <= 200, "{line}");
        refusals += u32::from(line["event"] == "request_refused");
    }
    assert_eq!(refusals, 1, "{lines:#?}");
}

#[test]
fn lines_for_people_hold_nothing_that_moves_a_cursor_either() {
    let trusting = Trusting::new();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lines");
    let (api, metrics) = (free_address(), free_address());
    let mut command = serve_at(&trusting.instance, api, metrics);
    command.args(["--log-format", "pretty"]);
    command.stderr(File::create(&file).unwrap());
    let mut server = Running(command.spawn().unwrap());
    wait_until_healthy(&mut server, api);
    send_what_lines_must_not_hold(&trusting, api);
    server.terminate();
    assert_eq!(server.code(), 0);
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains("issuer_unknown"), "{text}");
    for line in text.lines() {
        assert!(
            line.len() < 4096 && !line.contains(is_dangerous),
            "{line:?}"
        );
        // A line that a client began would not begin with the time.
        assert!(line.starts_with("20"), "{line:?}");
    }
}

/// What has no place in a line: controls, line separators, marks of direction.
fn is_dangerous(character: char) -> bool {
    character.is_control() || is_invisible(character)
}

#[test]
fn a_server_starts_without_names_and_says_whose_keys_it_cannot_have() {
    let trusting = Trusting::in_vain("https://issuer.invalid");
    let process = Process::start(&mut trusting.instance.serve());
    assert_eq!(
        http::send(process.address, &Request::get("/healthz")).status,
        200
    );
    let answer = http::send(process.address, &trusting.good_request());
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!(answer.header("mayfly-reason"), Some("issuer_unavailable"));
    assert!(answer.header("retry-after").is_some());
    let ready = wait_for("the check of the issuer", || {
        let ready = http::send(process.address, &Request::get("/readyz")).json();
        let checks = ready["checks"].as_array().unwrap().clone();
        checks
            .into_iter()
            .find(|check| check["name"] == "issuer:people")
    });
    assert_eq!(ready["ok"], false, "{ready}");
    process.terminate();
    assert_eq!(process.end().0, 0);
}

#[test]
fn a_server_serves_where_there_is_only_ipv6() {
    let Ok(free) = TcpListener::bind("[::1]:0") else {
        eprintln!("this machine has no IPv6 address");
        return;
    };
    drop(free);
    let trusting = Trusting::new();
    let mut command = mayfly([
        "serve",
        "--listen",
        "[::1]:0",
        "--metrics-listen",
        "[::1]:0",
    ]);
    command
        .args(["--log-format", "json", "--config"])
        .arg(trusting.instance.config());
    let process = Process::start(&mut command);
    assert!(process.address.is_ipv6());
    let answer = http::send(process.address, &trusting.good_request());
    assert_eq!(answer.status, 200, "{}", answer.text());
    process.terminate();
    assert_eq!(process.end().0, 0);
}

/// Everything in a folder that somebody else than its owner may read or change.
fn open_to_others(folder: &Path, mask: u32) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        let is_link = entry.file_type().unwrap().is_symlink();
        if !is_link && mode & mask != 0 {
            found.push(format!("{} {mode:o}", entry.path().display()));
        }
        if entry.file_type().unwrap().is_dir() {
            found.extend(open_to_others(&entry.path(), mask));
        }
    }
    found
}

#[test]
fn an_odd_environment_changes_nothing() {
    let trusting = Trusting::new();
    let serve = trusting.instance.serve_within("umask 000");
    let mut command = Command::new(serve.get_program());
    command
        .args(serve.get_args())
        .stdin(Stdio::null())
        .current_dir("/")
        .env_clear()
        .env("TZ", "Pacific/Kiritimati")
        .env("LC_ALL", "tr_TR.UTF-8")
        .env("TMPDIR", "/nowhere");
    let process = Process::start(&mut command);
    let answer = http::send(process.address, &trusting.good_request());
    assert_eq!(answer.status, 200, "{}", answer.text());
    process.terminate();
    let (code, lines) = process.end();
    assert_eq!(code, 0, "{lines:#?}");
    for line in &lines {
        let line: Value = serde_json::from_str(line).unwrap();
        let timestamp = line["timestamp"].as_str().unwrap();
        assert!(
            timestamp.ends_with('Z') && timestamp.starts_with("20"),
            "{timestamp}"
        );
    }
    let writable = open_to_others(&trusting.instance.data_dir(), 0o022);
    assert_eq!(writable, Vec::<String>::new(), "what others could change");
}

#[test]
fn whatever_the_umask_no_key_is_made_that_others_can_read() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let data = folder.path().join("data");
    let init = mayfly([
        "init",
        "--public-url",
        "https://ca.example.com",
        "--no-password",
        "--data-dir",
    ]);
    let mut command = Command::new("sh");
    command
        .args(["-c", r#"umask 000; exec "$0" "$@""#])
        .arg(init.get_program())
        .args(init.get_args())
        .arg(&data)
        .env_clear()
        .stdin(Stdio::null());
    let outcome = run(&mut command);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let open = open_to_others(folder.path(), 0o077);
    assert!(
        open.iter().all(|file| !file.contains("key.pem")),
        "{open:#?}"
    );
    let writable = open_to_others(folder.path(), 0o022);
    assert_eq!(writable, Vec::<String>::new(), "what others could change");
}

#[test]
fn a_server_that_is_killed_while_it_issues_keeps_every_certificate_it_answered_with() {
    let trusting = Trusting::new();
    let process = Process::start(&mut trusting.instance.serve());
    let address = process.address;
    let requests: Vec<Vec<u8>> = (0..64).map(|_| trusting.good_request().octets()).collect();
    let clients: Vec<_> = requests
        .chunks(16)
        .map(|requests| {
            let requests = requests.to_vec();
            std::thread::spawn(move || {
                let mut answered = 0;
                let mut connection = Connection::open(address);
                for octets in requests {
                    let sent = connection.write(&octets);
                    match sent.and_then(|()| connection.answer_to("POST")) {
                        Ok(answer) => {
                            assert_eq!(answer.status, 200, "{}", answer.text());
                            answered += 1;
                        }
                        Err(_) => break,
                    }
                }
                answered
            })
        })
        .collect();
    process.events("certificate_issued", 8);
    process.signal(Signal::KILL);
    let answered: u64 = clients
        .into_iter()
        .map(|client| client.join().unwrap())
        .sum();
    drop(process);
    assert!(answered >= 8, "{answered}");

    let process = Process::start(&mut trusting.instance.serve());
    let next = http::send(process.address, &trusting.good_request());
    assert_eq!(next.status, 200, "{}", next.text());
    let line = &process.events("certificate_issued", 1)[0];
    let index = line["leaf_index"].as_u64().unwrap();
    assert!(index >= answered, "{index} after {answered}");
    process.terminate();
    assert_eq!(process.end().0, 0);
    assert!(File::open(trusting.instance.high_water()).is_ok());
}

/// The content of every file in a folder, by its path.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(contents(&path));
        } else {
            files.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    files
}

#[test]
fn what_a_newer_version_wrote_is_refused_and_left_as_it_is() {
    let trusting = Trusting::new();
    let instance = &trusting.instance;
    let issue_one = || {
        let process = Process::start(&mut instance.serve());
        let answer = http::send(process.address, &trusting.good_request());
        assert_eq!(answer.status, 200, "{}", answer.text());
        process.terminate();
        assert_eq!(process.end().0, 0);
    };
    issue_one();
    let first_segments = instance.log().join("journal/0000000000000000.wal");
    for (file, old, new) in [
        (
            instance.data_dir().join("state.json"),
            &b"\"format\": 1"[..],
            &b"\"format\": 2"[..],
        ),
        (
            instance.log().join("log.json"),
            b"\"format\": 1",
            b"\"format\": 2",
        ),
        (first_segments, b"\0\0\0\x01", b"\0\0\0\x02"),
    ] {
        let before = std::fs::read(&file).unwrap();
        let at = before.windows(old.len()).position(|part| part == old);
        let at = at.unwrap_or_else(|| panic!("no format in {}", file.display()));
        let mut newer = before.clone();
        newer[at..at + new.len()].copy_from_slice(new);
        std::fs::write(&file, newer).unwrap();
        let data = contents(&instance.data_dir());

        let outcome = run(&mut instance.serve());
        assert_eq!(outcome.code, 3, "{}: {}", file.display(), outcome.stderr);
        assert!(outcome.stderr.contains("newer"), "{}", outcome.stderr);
        assert_eq!(contents(&instance.data_dir()), data, "{}", file.display());
        std::fs::write(&file, before).unwrap();
    }
    issue_one();
}
