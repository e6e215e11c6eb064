//! What clients trust, as they get it: served, exported, and signed as a TUF repository.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::http::{self, Request};
use crate::support::process::{Instance, Process, mayfly, run};
use crate::support::server::TestServer;
use crate::support::wait_for;

/// Every file below a folder, by its path.
fn files_below(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            let below = files_below(&path).into_iter();
            files.extend(below.map(|(rest, content)| (format!("{name}/{rest}"), content)));
        } else {
            files.insert(name, fs::read(path).unwrap());
        }
    }
    files
}

fn export(instance: &Instance, folder: &Path) -> i32 {
    let arguments = ["trust", "export", "--config"];
    run(mayfly(arguments).arg(instance.config()).arg(folder)).code
}

#[test]
fn what_is_served_is_what_is_exported() {
    let instance = Instance::new();
    let process = Process::start(&mut instance.serve());
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(export(&instance, folder.path()), 0);
    let files = files_below(folder.path());
    assert!(files.len() >= 14, "{:?}", files.keys());
    for (name, content) in files {
        let path = match name.strip_prefix("tuf/") {
            Some(name) => format!("/tuf/{name}"),
            None => format!("/.well-known/sigstore/{name}"),
        };
        let answer = http::send(process.address, &Request::get(&path));
        assert_eq!((answer.status, &answer.body), (200, &content), "{path}");
    }
}

#[test]
fn the_trust_files_follow_the_configuration_in_force() {
    let instance = Instance::new();
    let process = Process::start(&mut instance.serve());
    let get = |path: &str| http::send(process.address, &Request::get(path)).json();
    let version = |name: &str| get(name)["signed"]["version"].as_u64().unwrap();
    let config = "/.well-known/sigstore/signing_config.json";
    assert_eq!(
        get(config)["oidcUrls"][0]["url"],
        "https://accounts.example.com"
    );
    assert_eq!(version("/tuf/timestamp.json"), 1);

    let url = "https://login.example.com";
    instance.write_identity(&format!(
        "oidc-issuers:\n  {url}:\n    issuer-url: {url}\n    client-id: sigstore\n    type: email\n"
    ));
    process.signal(Signal::HUP);
    wait_for("the other issuer", || {
        (get(config)["oidcUrls"][0]["url"] == url).then_some(())
    });
    assert_eq!(version("/tuf/timestamp.json"), 2);
    let targets = get("/tuf/2.targets.json");
    let hash = targets["signed"]["targets"]["signing_config.v0.2.json"]["hashes"]["sha256"].clone();
    let path = format!(
        "/tuf/targets/{}.signing_config.v0.2.json",
        hash.as_str().unwrap()
    );
    assert_eq!(get(&path), get(config));
    // What others were led to is still there.
    assert_eq!(version("/tuf/1.targets.json"), 1);
    drop(process);

    // A new process goes on where the one before was.
    let process = Process::start(&mut instance.serve());
    let timestamp = http::send(process.address, &Request::get("/tuf/timestamp.json")).json();
    assert_eq!(timestamp["signed"]["version"], 2);
}

#[test]
fn what_is_named_by_version_or_hash_is_kept_and_the_timestamp_never() {
    let server = TestServer::start();
    let kept = |path: &str| {
        let answer = server.get(path);
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.header("etag").is_some(), "{path}");
        answer.header("cache-control").unwrap().to_owned()
    };
    assert_eq!(kept("/tuf/timestamp.json"), "no-store");
    for path in [
        "/tuf/1.root.json",
        "/tuf/1.snapshot.json",
        "/tuf/1.targets.json",
    ] {
        assert!(kept(path).ends_with("immutable"), "{path}");
    }
    assert_eq!(
        kept("/.well-known/sigstore/trusted_root.json"),
        "public, max-age=60"
    );
    // Clients ask for the next root until it is not there.
    for path in [
        "/tuf/2.root.json",
        "/tuf/",
        "/tuf/targets",
        "/tuf/../key.pem",
        "/tuf/key.pem",
        "/.well-known/sigstore/",
    ] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
    let refused = server.send(&Request::post("/tuf/timestamp.json", String::new()));
    assert_eq!(refused.status, 405);
}

#[test]
fn an_instance_without_a_repository_gets_one_and_another_root() {
    let instance = Instance::new();
    let tuf = instance.data_dir().join("tuf");
    fs::remove_dir_all(&tuf).unwrap();
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(export(&instance, folder.path()), 0);
    assert!(!folder.path().join("tuf").exists());
    let trust = |arguments: &[&str]| {
        run(mayfly(["trust"])
            .args(arguments)
            .arg("--config")
            .arg(instance.config()))
    };
    let missing = trust(&["refresh"]);
    assert_eq!(missing.code, 3, "{missing:?}");
    assert!(
        missing.stderr.contains("`mayfly trust init` makes one"),
        "{missing:?}"
    );
    assert_eq!(
        trust(&["init"]).code,
        2,
        "a passphrase, or that there is none"
    );
    let made = trust(&["init", "--no-password"]);
    assert_eq!(made.code, 0, "{made:?}");
    assert_eq!(trust(&["init", "--no-password"]).code, 1, "never twice");

    // The root key has been taken away, and comes back for a moment.
    let away = folder.path().join("away.pem");
    fs::rename(tuf.join("root/key.pem"), &away).unwrap();
    assert_eq!(trust(&["rotate"]).code, 3);
    let away = away.display().to_string();
    let rotated = trust(&[
        "rotate",
        "--root-key",
        &away,
        "--new-online-key",
        "--output",
        "json",
    ]);
    assert_eq!(rotated.code, 0, "{rotated:?}");
    let document: Value = serde_json::from_str(&rotated.stdout).unwrap();
    let versions: Vec<_> = document["roles"]
        .as_array()
        .unwrap()
        .iter()
        .map(|role| role["version"].clone())
        .collect();
    assert_eq!(versions, [2, 2, 2, 2]);
    let again = trust(&["refresh"]);
    assert!(again.stdout.starts_with("Nothing to sign"), "{again:?}");

    // Without the key that signs, the server serves what is there.
    fs::remove_file(tuf.join("key.pem")).unwrap();
    let process = Process::start(&mut instance.serve());
    let root = http::send(process.address, &Request::get("/tuf/2.root.json")).json();
    assert_eq!(root["signed"]["version"], 2);
}

#[test]
fn a_new_key_of_the_repository_is_taken_while_the_server_runs() {
    let instance = Instance::new();
    let process = Process::start(instance.serve().arg("--no-watch"));
    let get = |path: &str| http::send(process.address, &Request::get(path)).json();
    let signer = || get("/tuf/timestamp.json")["signatures"][0]["keyid"].clone();
    let end = |role: &str| {
        let metrics = http::send(process.metrics_address, &Request::get("/metrics"));
        let series = format!("mayfly_tuf_expires_timestamp_seconds{{role=\"{role}\"}} ");
        let text = metrics.text();
        let line = text.lines().find_map(|line| line.strip_prefix(&series));
        line.unwrap().parse::<u64>().unwrap()
    };
    let (first, root_end) = (signer(), end("root"));
    assert!(end("timestamp") < end("targets") && end("targets") < root_end);

    let rotated =
        run(mayfly(["trust", "rotate", "--new-online-key", "--config"]).arg(instance.config()));
    assert_eq!(rotated.code, 0, "{rotated:?}");
    // Another configuration is signed: with the key that the new root names.
    let url = "https://login.example.com";
    instance.write_identity(&format!(
        "oidc-issuers:\n  {url}:\n    issuer-url: {url}\n    client-id: sigstore\n    type: email\n"
    ));
    process.signal(Signal::HUP);
    process.events("trust_key_changed", 1);
    wait_for("the next timestamp", || {
        (get("/tuf/timestamp.json")["signed"]["version"] == 3).then_some(())
    });
    let online = get("/tuf/root.json")["signed"]["roles"]["timestamp"]["keyids"][0].clone();
    assert_eq!(signer(), online);
    assert_ne!(signer(), first);
}
