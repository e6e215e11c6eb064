//! `mayfly log verify-inclusion`: whether a certificate is in the log.

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use super::{
    Failure, Opened, Output, Table, TrustArguments, entries, print_json, read_certificates,
};
use crate::auditor::Checkpoint;
use crate::auditor::certificate::{Inclusion, Stamped};
use crate::auditor::entries::CtEntries;
use crate::commands::print;

/// How long to wait between two looks at the log.
const POLL: Duration = Duration::from_millis(200);

/// The arguments of `mayfly log verify-inclusion`.
#[derive(Args, Debug)]
#[command(after_help = "\
Takes the timestamp of this log out of the certificate, verifies it with the log's key, and proves from the log's tiles that the
entry which it promises is in the tree of a signed checkpoint.

Exit code: 0 if the certificate is in the log, 1 if not, 3 if the key is wrong or missing, 4 if something cannot be read.

Example:
  mayfly log verify-inclusion cert.pem https://ca.example.com/ct/main/ --key trusted_root.json")]
pub(in crate::commands) struct Arguments {
    /// The certificate, PEM; the one of the issuing CA may follow it
    #[arg(value_name = "CERTIFICATE")]
    certificate: PathBuf,
    /// The log: its URL, or a folder [default: the log in the data folder]
    #[arg(value_name = "LOG")]
    log: Option<String>,
    #[command(flatten)]
    trust: TrustArguments,
    /// How many seconds to wait for a checkpoint that covers the entry
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    wait: u64,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let certificates = read_certificates(&arguments.certificate)?;
    let opened = arguments.trust.open(arguments.log.as_deref())?;
    let wait = Duration::from_secs(arguments.wait);
    let (inclusion, checkpoint) = prove(&opened, &certificates, wait)?;
    match arguments.trust.output {
        Output::Json => print_json(&inclusion),
        Output::Text => print(&text(&inclusion, &checkpoint)),
    }
}

/// Proves that the first of some certificates is in the log; the second one, if any, is of who signed it.
pub(in crate::commands) fn prove(
    opened: &Opened,
    certificates: &[Vec<u8>],
    wait: Duration,
) -> Result<(Inclusion, Checkpoint), Failure> {
    let certificate = certificates.first().map(Vec::as_slice).unwrap_or_default();
    let stamped = Stamped::read(certificate, &opened.public_key_der)
        .map_err(|error| opened.failed(&error))?;
    let checkpoint = covering(opened, stamped.timestamp.leaf_index(), wait)?;
    let authority = certificates.get(1).map(Vec::as_slice);
    let inclusion = stamped
        .prove(opened.source(), &CtEntries, &checkpoint, authority)
        .map_err(|error| opened.failed(&error))?;
    Ok((inclusion, checkpoint))
}

/// Waits for a checkpoint that covers the entry at `index`; the last one, where none does in time.
fn covering(opened: &Opened, index: Option<u64>, wait: Duration) -> Result<Checkpoint, Failure> {
    let start = Instant::now();
    loop {
        let checkpoint = opened.checkpoint()?;
        let is_covered = index.is_none_or(|index| index < checkpoint.signed.head.size);
        if is_covered || start.elapsed() >= wait {
            return Ok(checkpoint);
        }
        thread::sleep(POLL);
    }
}

fn text(inclusion: &Inclusion, checkpoint: &Checkpoint) -> String {
    Table(vec![
        ("certificate", inclusion.san.join(", ")),
        ("signed by", inclusion.authority.clone()),
        ("log", checkpoint.identity.origin().to_owned()),
        ("logged", inclusion.time.clone()),
        (
            "entry",
            format!("{} of {}", inclusion.index, entries(inclusion.tree_size)),
        ),
        ("leaf", inclusion.leaf_hash.clone()),
        (
            "good",
            "its timestamp is the log's, and the entry is in the tree that the log's key signed"
                .to_owned(),
        ),
    ])
    .text()
}
