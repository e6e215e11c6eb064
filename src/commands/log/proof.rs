//! `mayfly log proof`: proofs that hold without the log.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde_json::json;

use super::verify_inclusion::prove;
use super::{Failure, LogArguments, Output, print_json, read_certificates};
use crate::auditor::AuditError;
use crate::auditor::entries::CtEntries;
use crate::auditor::tree::CheckedTree;
use crate::commands::print;
use crate::hex::hex;
use crate::tlog::tree::{Hash, Nodes as _, verify_consistency, verify_inclusion};

/// The first line of a proof (C2SP tlog-proof).
const HEADER: &str = "c2sp.org/tlog-proof@v1";
/// How long to wait for a checkpoint that covers a certificate.
const WAIT: Duration = Duration::from_secs(10);

/// The arguments of `mayfly log proof`.
#[derive(Args, Debug)]
#[command(after_help = "\
A proof of inclusion is printed as a C2SP tlog-proof: the index, the hashes, the signed checkpoint. Whoever has the leaf and the
log's key checks it without the log. A proof of consistency has no text form; it is JSON.

Exit code: 0 if there is a proof, 1 if not, 3 if the key is wrong or missing, 4 if something cannot be read.

Examples:
  mayfly log proof --certificate cert.pem > cert.tlog-proof
  mayfly log proof https://ca.example.com/ct/main/ --key trusted_root.json --index 12 --output json
  mayfly log proof --consistency 1000")]
pub(in crate::commands) struct Arguments {
    #[command(flatten)]
    log: LogArguments,
    #[command(flatten)]
    what: What,
}

/// What is to be proved.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct What {
    /// That the entry with this index is in the log
    #[arg(long, value_name = "N")]
    index: Option<u64>,
    /// That the leaf with this hash is in the log, hexadecimal or base64; reads all hashes of leaves until it is found
    #[arg(long, value_name = "HASH", value_parser = hash)]
    leaf_hash: Option<Hash>,
    /// That this certificate, PEM, is in the log
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// That the log extends its first so many entries
    #[arg(long, value_name = "SIZE")]
    consistency: Option<u64>,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let opened = arguments.log.open()?;
    let failed = |error: AuditError| opened.failed(&error);
    let what = &arguments.what;
    let (mut index, checkpoint) = match &what.certificate {
        Some(path) => {
            let (inclusion, checkpoint) = prove(&opened, &read_certificates(path)?, WAIT)?;
            (Some(inclusion.index), checkpoint)
        }
        None => (what.index, opened.checkpoint()?),
    };
    let tree = CheckedTree::open(opened.source(), &CtEntries, &checkpoint).map_err(failed)?;
    let head = checkpoint.signed.head;
    if let Some(hash) = &what.leaf_hash {
        let found = tree.find(hash).map_err(failed)?;
        let found = found.ok_or_else(|| {
            Failure::operation("the log's checkpoint covers no leaf with this hash")
        })?;
        index = Some(found);
    }
    let encode = |proof: &[Hash]| -> Vec<String> {
        proof.iter().map(|hash| STANDARD.encode(hash)).collect()
    };
    if let Some(index) = index {
        let proof = tree.inclusion_proof(index).map_err(failed)?;
        let leaf = tree.node(0, index).map_err(failed)?;
        if !verify_inclusion(&leaf, index, head.size, &proof, &head.root) {
            return Err(Failure::defect("the proof does not verify"));
        }
        let proof = encode(&proof);
        return match arguments.log.trust.output {
            Output::Text => print(&tlog_proof(index, &proof, &checkpoint.note)),
            Output::Json => print_json(&json!({
                "index": index,
                "leaf_hash": STANDARD.encode(leaf),
                "tree_size": head.size,
                "root": STANDARD.encode(head.root),
                "inclusion": proof,
                "checkpoint": checkpoint.note,
            })),
        };
    }
    let first = what.consistency.unwrap_or_default();
    let proof = tree.consistency_proof(first).map_err(failed)?;
    let root = tree.root_at(first).map_err(failed)?;
    if !verify_consistency(first, &root, head.size, &head.root, &proof) {
        return Err(Failure::defect("the proof does not verify"));
    }
    print_json(&json!({
        "first": first,
        "first_root": STANDARD.encode(root),
        "second": head.size,
        "second_root": STANDARD.encode(head.root),
        "consistency": encode(&proof),
        "checkpoint": checkpoint.note,
    }))
}

fn tlog_proof(index: u64, proof: &[String], note: &str) -> String {
    let mut text = format!("{HEADER}\nindex {index}\n");
    for hash in proof {
        // Writing to a `String` does not fail.
        let _ = writeln!(text, "{hash}");
    }
    text + "\n" + note
}

/// Reads a hash in hexadecimal digits or base64.
fn hash(text: &str) -> Result<Hash, String> {
    let from_base64 = || STANDARD.decode(text).ok()?.try_into().ok();
    let from_hex = || {
        let octet = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
        let octets: Option<Vec<u8>> = (0..text.len()).step_by(2).map(octet).collect();
        let hash: Hash = octets?.try_into().ok()?;
        (hex(&hash) == text.to_ascii_lowercase()).then_some(hash)
    };
    from_hex()
        .or_else(from_base64)
        .ok_or_else(|| "not a SHA-256 hash in hexadecimal digits or base64".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_read_in_both_spellings() {
        let expected: Hash = [0xab; 32];
        assert_eq!(hash(&hex(&expected)), Ok(expected));
        assert_eq!(hash(&hex(&expected).to_uppercase()), Ok(expected));
        assert_eq!(hash(&STANDARD.encode(expected)), Ok(expected));
        for wrong in ["", "ab", "é", &"+a".repeat(32), &"ab".repeat(33)] {
            assert!(hash(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_proof_has_the_form_of_the_specification() {
        let text = tlog_proof(5, &["AA==".to_owned(), "BB==".to_owned()], "note\n");
        assert_eq!(
            text,
            "c2sp.org/tlog-proof@v1\nindex 5\nAA==\nBB==\n\nnote\n"
        );
    }
}
