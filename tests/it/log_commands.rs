//! `mayfly log` as auditors run it: on the folder of a server, on an export, and over HTTP.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mayfly::ca::hierarchy::{Hierarchy, Names};
use mayfly::clock::{Clock as _, SystemClock};
use mayfly::ctlog::embedded::{EmbeddedLog, EmbeddedLogConfig, EmbeddedLogParts};
use mayfly::ctlog::{CtLog as _, Submission};
use mayfly::keys::memory::NewKey;
use mayfly::keys::{InMemoryKey, Signer};
use mayfly::random::SystemRandomness;
use mayfly::store::folder::{Folder, FolderOptions};
use mayfly::tlog::checkpoint::LogIdentity;
use mayfly::tlog::tree::{Hash, verify_consistency, verify_inclusion};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::issuer::{HostileIssuer, Reply};
use crate::support::process::{Instance, Outcome, Running, mayfly, run};
use crate::support::server::TestServer;

/// A server with certificates, and what its clients trust.
struct Audited {
    server: TestServer,
    folder: TempDir,
}

impl Audited {
    /// A server that has issued so many certificates, all of them in its checkpoint.
    fn with(certificates: usize) -> Self {
        let audited = Self {
            server: TestServer::start(),
            folder: tempfile::tempdir().unwrap(),
        };
        audited.server.trust.export(&audited.path("trust")).unwrap();
        audited.issue(certificates);
        audited
    }

    /// Issues certificates, and returns the last one with its chain, PEM.
    fn issue(&self, certificates: usize) -> String {
        let mut chain = String::new();
        for _ in 0..certificates {
            let answer = self.server.send(&self.server.good_request()).json();
            let pems = answer["signedCertificateEmbeddedSct"]["chain"]["certificates"].clone();
            let pems = pems.as_array().unwrap().iter();
            chain = pems
                .map(|pem| pem.as_str().unwrap().to_owned() + "\n")
                .collect();
        }
        self.server.wait_for_checkpoint();
        chain
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn url(&self) -> String {
        format!("{}/ct/main/", self.server.url)
    }

    fn key(&self) -> String {
        self.path("trust/trusted_root.json").display().to_string()
    }

    /// `mayfly log` with the trusted key, on the server's URL and on its data folder: both say the same.
    fn both(&self, command: &str, arguments: &[&str]) -> Outcome {
        let places = [self.url(), self.server.data_dir().display().to_string()];
        let [over_http, on_disk] = places.map(|place| {
            let key = self.key();
            log(&[&[command], arguments, &[&place, "--key", &key]].concat())
        });
        assert_eq!(over_http.code, on_disk.code, "{over_http:?} {on_disk:?}");
        assert_eq!(over_http.stdout, on_disk.stdout);
        over_http
    }
}

fn log(arguments: &[&str]) -> Outcome {
    run(mayfly(["log"]).args(arguments))
}

fn json(outcome: &Outcome) -> Value {
    assert_eq!(outcome.code, 0, "{outcome:?}");
    serde_json::from_str(&outcome.stdout).unwrap()
}

fn hash(value: &Value) -> Hash {
    STANDARD
        .decode(value.as_str().unwrap())
        .unwrap()
        .try_into()
        .unwrap()
}

fn hashes(list: &Value) -> Vec<Hash> {
    list.as_array().unwrap().iter().map(hash).collect()
}

#[test]
fn a_certificate_is_proved_to_be_in_the_log() {
    let audited = Audited::with(2);
    let chain = audited.issue(1);
    let certificate = audited.path("certificate.pem");
    let (leaf, _) = chain.split_once("-----END CERTIFICATE-----").unwrap();
    // With the issuing CA, and without: the log has it.
    for pem in [chain.clone(), format!("{leaf}-----END CERTIFICATE-----\n")] {
        fs::write(&certificate, pem).unwrap();
        let path = certificate.display().to_string();
        let text = audited.both("verify-inclusion", &[&path]);
        assert_eq!(text.code, 0, "{text:?}");
        assert!(text.stdout.contains("ada@example.com"), "{}", text.stdout);
        assert!(text.stdout.contains("2 of 3 entries"), "{}", text.stdout);
        let machine = json(&audited.both("verify-inclusion", &[&path, "--output", "json"]));
        assert_eq!(machine["index"], 2);

        let proof = audited.both("proof", &["--certificate", &path]);
        let note = audited.server.get("/ct/main/checkpoint").text().to_owned();
        let lines: Vec<&str> = proof.stdout.lines().collect();
        assert_eq!(lines[..2], ["c2sp.org/tlog-proof@v1", "index 2"]);
        assert!(
            proof.stdout.ends_with(&format!("\n\n{note}")),
            "{}",
            proof.stdout
        );
    }

    // Of another CA's certificate nothing is proved, nor of one that was changed.
    let other = Audited::with(0);
    fs::write(&certificate, other.issue(1)).unwrap();
    let path = certificate.display().to_string();
    let outcome = audited.both("verify-inclusion", &[&path]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(
        outcome.stderr.contains("no timestamp of this log"),
        "{outcome:?}"
    );
    let mut der = pem::parse(&chain).unwrap().into_contents();
    let name = der.windows(3).position(|part| part == b"ada").unwrap();
    der[name] = b'e';
    fs::write(
        &certificate,
        pem::encode(&pem::Pem::new("CERTIFICATE", der)),
    )
    .unwrap();
    let outcome = audited.both("verify-inclusion", &[&path]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(
        outcome.stderr.contains("the timestamp: its signature"),
        "{outcome:?}"
    );
}

#[test]
fn proofs_verify_without_the_log() {
    let audited = Audited::with(5);
    let identity = LogIdentity::new(
        "unused",
        audited.server.own_log.as_ref().unwrap().public_key_der(),
    );
    let proof = json(&audited.both("proof", &["--index", "3", "--output", "json"]));
    let (leaf, root) = (hash(&proof["leaf_hash"]), hash(&proof["root"]));
    assert!(verify_inclusion(
        &leaf,
        3,
        5,
        &hashes(&proof["inclusion"]),
        &root
    ));
    let note = proof["checkpoint"].as_str().unwrap();
    let origin = note.lines().next().unwrap();
    let head = LogIdentity::new(origin, identity.public_key_der()).verify(note.as_bytes());
    assert_eq!(head.unwrap().root, root);

    let by_hash = [
        "--leaf-hash",
        proof["leaf_hash"].as_str().unwrap(),
        "--output",
        "json",
    ];
    assert_eq!(json(&audited.both("proof", &by_hash))["index"], 3);

    let proof = json(&audited.both("proof", &["--consistency", "3"]));
    let (first, second) = (hash(&proof["first_root"]), hash(&proof["second_root"]));
    assert!(verify_consistency(
        3,
        &first,
        5,
        &second,
        &hashes(&proof["consistency"])
    ));

    for wrong in [["--index", "5"], ["--consistency", "6"]] {
        let outcome = audited.both("proof", &wrong);
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(outcome.stderr.contains("5 entries"), "{outcome:?}");
    }
}

#[test]
fn a_running_log_is_checked_and_exported_from_both_sides() {
    let audited = Audited::with(3);
    let key = audited.key();
    let data_dir = audited.server.data_dir().display().to_string();
    let over_http = json(&log(&[
        "fsck",
        &audited.url(),
        "--key",
        &key,
        "--output",
        "json",
    ]));
    assert_eq!(
        (&over_http["ok"], &over_http["tree_size"]),
        (&true.into(), &3.into())
    );
    // The folder tells its own key, and has a journal.
    let on_disk = log(&["fsck", &data_dir]);
    assert_eq!(on_disk.code, 0, "{on_disk:?}");
    assert!(
        on_disk.stdout.contains("segments of the journal"),
        "{on_disk:?}"
    );

    let folders = ["one", "two"].map(|name| audited.path(name).display().to_string());
    let [one, two] = &folders;
    assert_eq!(log(&["export", one, &audited.url(), "--key", &key]).code, 0);
    assert_eq!(log(&["export", two, &data_dir]).code, 0);
    for name in ["checkpoint", "tile/0/000.p/3", "tile/data/000.p/3"] {
        let read = |folder: &String| fs::read(Path::new(folder).join(name)).unwrap();
        assert_eq!(read(one), read(two), "{name}");
        assert_eq!(
            read(one),
            audited.server.get(&format!("/ct/main/{name}")).body
        );
    }
    assert_eq!(log(&["fsck", one, "--key", &key]).code, 0);
    let again = log(&["export", one, &data_dir]);
    assert_eq!(again.code, 4);
    assert!(again.stderr.contains("is not empty"), "{again:?}");

    let tile = Path::new(one).join("tile/data/000.p/3");
    let mut bytes = fs::read(&tile).unwrap();
    bytes[7] ^= 1;
    fs::write(&tile, bytes).unwrap();
    let outcome = log(&["fsck", one, "--key", &key]);
    assert_eq!(outcome.code, 1);
    assert!(
        outcome
            .stdout
            .contains("tile/data/000.p/3, entry 0: it is not the one that was logged"),
        "{outcome:?}"
    );
}

#[test]
fn the_status_says_what_is_signed_how_old_it_is_and_by_whom() {
    let fresh = Instance::new();
    let path = fresh.data_dir().display().to_string();
    let outcome = log(&["status", &path]);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    for part in [
        "ca.example.com/ct/main",
        "0 entries",
        "the folder itself",
        " s ago",
    ] {
        assert!(outcome.stdout.contains(part), "{part}: {outcome:?}");
    }
    // The clock of this one stands still, long ago.
    let audited = Audited::with(1);
    let outcome = log(&[
        "status",
        &audited.url(),
        "--key",
        &audited.key(),
        "--output",
        "json",
    ]);
    let status: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((outcome.code, &status["tree_size"]), (1, &1.into()));
    assert!(outcome.stderr.contains("older than a day"), "{outcome:?}");
}

#[test]
fn what_cannot_be_read_or_believed_is_told_apart() {
    let audited = Audited::with(1);
    let other = Audited::with(0);
    let (url, key, other_key) = (audited.url(), audited.key(), other.key());
    let nowhere = format!("{}/ct/other/", audited.server.url);
    let empty = audited.folder.path().display().to_string();
    for (code, what, arguments) in [
        (3, "--key is missing", vec!["status", &url]),
        (
            1,
            "without a good signature",
            vec!["status", &url, "--key", &other_key],
        ),
        (
            1,
            "not of \"x.example/log\"",
            vec!["status", &url, "--key", &key, "--origin", "x.example/log"],
        ),
        (
            3,
            "no public key",
            vec!["status", &url, "--key", "Cargo.toml"],
        ),
        (
            4,
            "there is no checkpoint here",
            vec!["status", &nowhere, "--key", &key],
        ),
        (
            4,
            "Connection refused",
            vec!["fsck", "http://127.0.0.1:1/", "--key", &key],
        ),
        (4, "neither a log", vec!["fsck", &empty]),
        (2, "--index", vec!["proof", &url, "--key", &key]),
    ] {
        let outcome = log(&arguments);
        assert_eq!(outcome.code, code, "{outcome:?}");
        assert!(outcome.stderr.contains(what), "{what}: {outcome:?}");
        assert_eq!(outcome.stdout, "", "{what}");
    }
}

#[test]
fn a_server_that_answers_nonsense_is_read_within_limits() {
    let audited = Audited::with(3);
    let hostile = HostileIssuer::start();
    let checkpoint = audited.server.get("/ct/main/checkpoint").body;
    let tile = audited.server.get("/ct/main/tile/0/000.p/3").body;
    let endless = Reply::Endless(b"HTTP/1.1 200 OK\r\n\r\n".to_vec(), vec![b'x'; 4096]);
    let gzip = "Content-Encoding: gzip\r\n";
    let bomb = packed(&vec![0; 1 << 20]);
    for (code, what, note, hashes) in [
        (1, "not a checkpoint", Reply::document("<html>"), None),
        (4, "longer than 65536 octets", endless.clone(), None),
        (
            4,
            "longer than 65536 octets",
            Reply::with_headers(gzip, bomb),
            None,
        ),
        (
            4,
            "invalid gzip header",
            Reply::with_headers(gzip, "no gzip at all, and long"),
            None,
        ),
        (
            4,
            "unknown way",
            Reply::with_headers("Content-Encoding: br\r\n", "x"),
            None,
        ),
        (4, "HTTP 403", Reply::status("403 Forbidden"), None),
        (4, "HTTP 503", Reply::status("503 Busy"), None),
        (4, "redirect", Reply::redirect("checkpoint"), None),
        (1, "is missing", Reply::document(&checkpoint), None),
        (
            1,
            "do not have the root",
            Reply::document(&checkpoint),
            Some(Reply::document([7; 96])),
        ),
        (
            1,
            "do not have the root",
            Reply::document(&checkpoint),
            Some(Reply::document("x")),
        ),
        (
            4,
            "longer than 8192 octets",
            Reply::document(&checkpoint),
            Some(endless),
        ),
        (
            0,
            "",
            Reply::with_headers(gzip, packed(&checkpoint)),
            Some(Reply::document(&tile)),
        ),
    ] {
        hostile.set("log", "checkpoint", note);
        let absent = || Reply::status("404 Not Found");
        hostile.set("log", "tile/0/000.p/3", hashes.unwrap_or_else(absent));
        let outcome = log(&[
            "proof",
            &hostile.url("log"),
            "--key",
            &audited.key(),
            "--index",
            "0",
        ]);
        assert_eq!(outcome.code, code, "{what}: {outcome:?}");
        assert!(outcome.stderr.contains(what), "{what}: {outcome:?}");
    }
}

fn packed(octets: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(octets).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_follower_prints_entries_as_they_come_and_ends_when_nobody_reads() {
    let audited = Audited::with(1);
    let state = audited.path("state");
    let (url, key) = (audited.url(), audited.key());
    let mut command = mayfly([
        "log",
        "follow",
        &url,
        "--key",
        &key,
        "--interval",
        "1",
        "--state",
    ]);
    let command = command.arg(&state).stdout(Stdio::piped());
    let mut follower = Running(command.spawn().unwrap());
    let mut lines = BufReader::new(follower.0.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("1 entry"));
    audited.issue(1);
    assert!(lines.next().unwrap().unwrap().contains("ada@example.com"));
    assert!(
        lines
            .next()
            .unwrap()
            .unwrap()
            .contains("extends the first 1 entry")
    );
    drop(lines);
    audited.issue(1);
    assert_eq!(follower.code(), 0);
}

#[test]
fn followers_see_every_entry_once_and_what_follows() {
    let audited = Audited::with(2);
    let (url, key) = (audited.url(), audited.key());
    let state = audited.path("state").display().to_string();
    let follow = |more: &[&str]| {
        let arguments = ["follow", &url, "--key", &key, "--state", &state, "--once"];
        log(&[&arguments, more].concat())
    };
    // Without --from-start, what is there is not told.
    let first = follow(&[]);
    assert_eq!(first.code, 0, "{first:?}");
    assert_eq!(first.stdout.lines().count(), 1, "{first:?}");
    assert!(first.stdout.contains("2 entries"), "{first:?}");
    let note = audited.server.get("/ct/main/checkpoint").text().to_owned();
    assert_eq!(fs::read_to_string(&state).unwrap(), note);
    assert_eq!(follow(&[]).stdout, "", "nothing happened");

    audited.issue(3);
    let second = follow(&["--output", "json"]);
    let lines: Vec<Value> = second
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 4, "{second:?}");
    for (line, index) in lines[..3].iter().zip(2..) {
        assert_eq!(
            (&line["event"], &line["index"]),
            (&"entry".into(), &index.into())
        );
        assert_eq!(line["san"], serde_json::json!(["ada@example.com"]));
        assert_eq!(line["issuer"], line["extensions"]["1.3.6.1.4.1.57264.1.8"]);
    }
    assert_eq!(
        (&lines[3]["known"], &lines[3]["tree_size"]),
        (&2.into(), &5.into())
    );

    fs::remove_file(&state).unwrap();
    let all = follow(&["--from-start"]);
    assert_eq!(all.stdout.matches("ada@example.com").count(), 5, "{all:?}");
    fs::write(&state, "x").unwrap();
    assert_eq!(follow(&[]).code, 3, "a state that is none is not replaced");
}

/// A log in a folder, and a clone of it that grew on its own.
#[test]
fn a_clone_of_a_log_is_refused_and_both_its_checkpoints_are_kept() {
    let signer: Arc<dyn Signer> = Arc::new(InMemoryKey::generate(NewKey::P256).unwrap().0);
    let (original, clone) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    grow(original.path(), &signer, 2);
    copy(original.path(), clone.path());
    grow(original.path(), &signer, 3);
    let state = tempfile::tempdir().unwrap();
    let state = state.path().join("state");
    let follow = |folder: &TempDir, output: &str| {
        let folder = folder.path().display().to_string();
        let state = state.display().to_string();
        log(&[
            "follow", &folder, "--state", &state, "--once", "--output", output,
        ])
    };
    assert_eq!(follow(&original, "text").code, 0);
    let believed = fs::read_to_string(&state).unwrap();

    let outcome = follow(&clone, "text");
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(
        outcome.stderr.contains("the log went back: it has shown 5"),
        "{outcome:?}"
    );
    grow(clone.path(), &signer, 3);
    let outcome = follow(&clone, "json");
    assert_eq!(outcome.code, 1, "{outcome:?}");
    let event: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(event["kind"], "split_view");
    let kept = fs::read_to_string(state.with_added_extension("conflict")).unwrap();
    assert_eq!(event["after"]["checkpoint"], kept);
    grow(clone.path(), &signer, 1);
    let outcome = follow(&clone, "text");
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("the log forked"), "{outcome:?}");

    assert_eq!(fs::read_to_string(&state).unwrap(), believed);
    assert_eq!(follow(&original, "text").code, 0);
}

/// Adds entries to the log in a folder, which is made where there is none.
fn grow(folder: &Path, signer: &Arc<dyn Signer>, entries: u8) {
    let random = Arc::new(SystemRandomness);
    let options = FolderOptions {
        allow_volatile: true,
        allow_network: true,
    };
    let parts = EmbeddedLogParts {
        store: Arc::new(Folder::open(folder, options, random.clone()).unwrap()),
        signer: Arc::clone(signer),
        clock: Arc::new(SystemClock),
        random: random.clone(),
        metrics: None,
        on_fatal: Arc::new(|why| panic!("{why}")),
    };
    let url = url::Url::parse("https://ca.example").unwrap();
    let settings = EmbeddedLogConfig::default().check(&url).unwrap();
    if !folder.join("log.json").exists() {
        EmbeddedLog::create(&settings, &parts).unwrap();
    }
    let log = EmbeddedLog::open(settings, &parts).unwrap();
    let names = Names {
        organization: "Test".to_owned(),
        common_name: "Test".to_owned(),
    };
    let chain = Hierarchy::generate(&names, SystemClock.now(), &*random)
        .unwrap()
        .chain;
    let chain = Arc::new(chain);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let runtime = runtime.unwrap();
    for number in 0..entries {
        let submission = Submission {
            precertificate: vec![number],
            tbs: vec![number],
            issuer_key_hash: [number; 32],
            chain: Arc::clone(&chain),
        };
        runtime.block_on(log.submit(Arc::new(submission))).unwrap();
    }
    log.shutdown();
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let (from, to) = {
            let entry = entry.unwrap();
            (entry.path(), to.join(entry.file_name()))
        };
        if from.is_dir() {
            fs::create_dir_all(&to).unwrap();
            copy(&from, &to);
        } else {
            fs::copy(&from, &to).unwrap();
        }
    }
}
