//! Reading the log over HTTP, as RFC 6962 has it, from a running server: what it answers is held against `openapi.yaml`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mayfly::tlog::tree::{Hash, leaf_hash, verify_inclusion};
use serde_json::Value;

use crate::support::http::Request;
use crate::support::server::TestServer;

const CALLS: &str = "/ct/main/ct/v1/";

/// A server with so many published entries.
fn server_with(entries: u64) -> TestServer {
    let server = TestServer::start();
    for _ in 0..entries {
        assert_eq!(server.send(&server.good_request()).status, 200);
    }
    server.wait_for_checkpoint();
    server
}

fn bytes(value: &Value) -> Vec<u8> {
    STANDARD.decode(value.as_str().unwrap()).unwrap()
}

#[test]
fn an_auditor_of_rfc_6962_finds_every_entry_in_the_tree() {
    let server = server_with(3);
    let call = |path: &str| server.get(&format!("{CALLS}{path}")).json();
    let head = call("get-sth");
    assert_eq!(head["tree_size"], 3);
    let root: Hash = bytes(&head["sha256_root_hash"]).try_into().unwrap();
    let entries = call("get-entries?start=0&end=1000")["entries"].clone();
    let entries = entries.as_array().unwrap();
    assert_eq!(entries.len(), 3);
    for (index, entry) in (0..).zip(entries) {
        let leaf = leaf_hash(&bytes(&entry["leaf_input"]));
        let both = call(&format!(
            "get-entry-and-proof?leaf_index={index}&tree_size=3"
        ));
        assert_eq!(both["leaf_input"], entry["leaf_input"]);
        let path = both["audit_path"].as_array().unwrap().iter();
        let path: Vec<Hash> = path.map(|hash| bytes(hash).try_into().unwrap()).collect();
        assert!(verify_inclusion(&leaf, index, 3, &path, &root), "{index}");
    }
    // The note in the checkpoint says the same.
    let note = server.get("/ct/main/checkpoint").text().to_owned();
    let said = format!("\n3\n{}\n\n", head["sha256_root_hash"].as_str().unwrap());
    assert!(note.contains(&said), "{note}");
}

#[test]
fn refusals_of_reads_are_described_and_counted_by_call() {
    let server = server_with(1);
    for (path, status) in [
        ("get-entries?start=1&end=1", 400),
        ("get-entries", 400),
        ("get-sth-consistency?first=1&second=2", 400),
        ("get-entry-and-proof?leaf_index=1&tree_size=1", 400),
        ("get-proof-by-hash?hash=AAAA&tree_size=1", 400),
        ("get-nothing", 404),
    ] {
        assert_eq!(
            server.get(&format!("{CALLS}{path}")).status,
            status,
            "{path}"
        );
    }
    let unknown = STANDARD.encode([0; 32]);
    let path = format!("{CALLS}get-proof-by-hash?tree_size=1&hash={unknown}");
    assert_eq!(server.get(&path).status, 404);
    let post = Request::post(format!("{CALLS}get-entries"), "");
    assert_eq!(server.send(&post).status, 405);
    let counted = |endpoint: &str, method: &str, code: u16| {
        server.metric(&format!(
            r#"mayfly_http_requests_total{{code="{code}",endpoint="{endpoint}",method="{method}"}}"#
        ))
    };
    assert_eq!(counted("ct_get_entries", "get", 400), 2);
    assert_eq!(counted("ct_get_proof_by_hash", "get", 404), 1);
    assert_eq!(counted("other", "get", 404), 1);
}

#[test]
fn a_reader_that_has_a_file_is_told_so() {
    let server = server_with(1);
    let first = server.get("/ct/main/tile/data/000.p/1");
    let tag = first.header("etag").unwrap();
    let again = Request::get("/ct/main/tile/data/000.p/1").header("If-None-Match", tag);
    let again = crate::support::http::send(server.address, &again);
    assert_eq!((again.status, again.body.len()), (304, 0));
    let packed = Request::get("/ct/main/tile/data/000.p/1").header("Accept-Encoding", "gzip");
    let packed = server.send(&packed);
    assert_eq!(packed.header("content-encoding"), Some("gzip"));
    assert!(packed.body.starts_with(&[0x1f, 0x8b]) && packed.body != first.body);
}
