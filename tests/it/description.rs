//! `openapi.yaml` against the running server, both ways. Beside this, every answer that a test gets is held against it.

use std::collections::BTreeSet;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use crate::support::document::{document, operations};
use crate::support::http::Request;
use crate::support::server::{TestServer, V1, V2};
use crate::support::wait_for;

#[test]
fn every_operation_of_the_description_is_served() {
    let server = TestServer::start();
    assert_eq!(server.send(&server.good_request()).status, 200);
    let published = r#"mayfly_log_published_size{log="main"}"#;
    wait_for("a checkpoint", || {
        (server.metric(published) == 1).then_some(())
    });
    wait_for("the first checks", || {
        (server.get("/readyz").status == 200).then_some(())
    });
    let fingerprint = server.trust.chain.issuing().fingerprint();
    let fingerprint: String = fingerprint
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect();

    let tile = server.get("/ct/main/tile/0/000.p/1").body;
    let leaf: String =
        url::form_urlencoded::byte_serialize(STANDARD.encode(tile).as_bytes()).collect();

    for (method, path) in operations() {
        let mut target = path
            .replace("{log}", "main")
            .replace("{path}", "0/000.p/1")
            .replace("{file}", "trusted_root.json")
            .replace("{name}", "timestamp.json")
            .replace("{fingerprint}", &fingerprint);
        for (number, (name, example)) in query_examples(path).iter().enumerate() {
            let example = example.replace("{leaf}", &leaf);
            target += &format!("{}{name}={example}", if number == 0 { '?' } else { '&' });
        }
        let request = match (method.as_str(), path) {
            ("GET", _) => Request::get(target),
            ("POST", V2) => server.good_request(),
            ("POST", V1) => server.good_request_v1(),
            _ => panic!("no example of {method} {path}"),
        };
        let answer = server.send(&request);
        assert!(
            (200..300).contains(&answer.status),
            "{method} {path}: {}",
            answer.status
        );
    }
}

/// The required parameters of a path's query, with the examples of the description.
fn query_examples(path: &str) -> Vec<(&'static str, String)> {
    let parameters = document()["paths"][path]["parameters"].as_array();
    let of_query = parameters
        .into_iter()
        .flatten()
        .filter(|parameter| parameter["in"] == "query");
    let text = |value: &'static Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    of_query
        .map(|parameter| {
            (
                parameter["name"].as_str().unwrap(),
                text(&parameter["example"]),
            )
        })
        .collect()
}

/// The paths of routes stand in `src/api` as constants, and nowhere else.
#[test]
fn every_route_of_the_server_is_in_the_description() {
    let mut routes = BTreeSet::new();
    for entry in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/api")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let text = std::fs::read_to_string(path).unwrap();
        let paths = text
            .lines()
            .filter_map(|line| line.split_once(": &str = \"/"));
        routes.extend(paths.map(|(_, rest)| format!("/{}", rest.trim_end_matches("\";"))));
    }
    assert!(routes.remove("/metrics"), "it has a listener of its own");
    assert!(routes.len() >= 8, "{routes:?}");
    let described: BTreeSet<String> = operations()
        .iter()
        .map(|(_, path)| (*path).to_owned())
        .collect();
    let missing: Vec<_> = routes.difference(&described).collect();
    assert!(missing.is_empty(), "openapi.yaml lacks {missing:?}");
    let gone: Vec<_> = described
        .difference(&routes)
        .filter(|path| !path.starts_with("/ct/"))
        .collect();
    assert!(
        gone.is_empty(),
        "openapi.yaml has {gone:?}, and no route does"
    );
}

#[test]
fn the_server_gives_out_its_description() {
    let server = TestServer::start();
    let answer = server.get("/openapi.yaml");
    let served: Value = serde_saphyr::from_str(answer.text()).unwrap();
    assert_eq!(&served, document());
    assert_eq!(served["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn every_reference_and_operation_id_of_the_description_is_good() {
    let mut references = Vec::new();
    collect(document(), "$ref", &mut references);
    for reference in references {
        let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
        assert!(
            document().pointer(pointer).is_some(),
            "{reference} leads nowhere"
        );
    }
    let mut ids = Vec::new();
    collect(document(), "operationId", &mut ids);
    let different: BTreeSet<&str> = ids.iter().filter_map(|id| id.as_str()).collect();
    assert_eq!(
        (different.len(), ids.len()),
        (operations().len(), operations().len())
    );
}

/// The values of every member of this name, at any depth.
fn collect<'a>(value: &'a Value, name: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(members) => {
            for (member, value) in members {
                if member == name {
                    found.push(value);
                }
                collect(value, name, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, name, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
