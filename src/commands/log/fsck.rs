//! `mayfly log fsck`: everything that a log holds, computed again.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;
use serde_json::json;

use super::{Failure, LogArguments, Output, entries, grouped, print_json, unreadable};
use crate::auditor::Checkpoint;
use crate::auditor::entries::CtEntries;
use crate::auditor::fsck::{Report, check, check_journal};
use crate::commands::{plain, print};
use crate::hex::hex;

/// The arguments of `mayfly log fsck`.
#[derive(Args, Debug)]
#[command(after_help = "\
Reads every entry, and computes from them every hash, tile and root; compares those with the log's tiles and with the root that
its key signed; looks at the place and time in every entry, at every precertificate against what was logged of it, and at every
certificate of a chain. In the folder of a server, running or not, it reads the journal too.

Exit code: 0 if all of it holds, 1 if not, 3 if the key is wrong or missing, 4 if the log cannot be read.

Examples:
  mayfly log fsck
  mayfly log fsck https://ca.example.com/ct/main/ --key trusted_root.json --output json")]
pub(in crate::commands) struct Arguments {
    #[command(flatten)]
    log: LogArguments,
    /// Leave the journal alone
    #[arg(long)]
    no_journal: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let opened = arguments.log.open()?;
    let checkpoint = opened.checkpoint()?;
    let progress = Progress::new(checkpoint.signed.head.size);
    let report = check(opened.source(), &CtEntries, &checkpoint, &|done| {
        progress.show(done);
    });
    progress.end();
    let mut report = report.map_err(|error| unreadable(&error))?;
    if let Some(journal) = opened.place.journal().filter(|_| !arguments.no_journal) {
        check_journal(journal, &CtEntries, &checkpoint, &mut report)
            .map_err(|error| unreadable(&error))?;
    }
    match arguments.log.trust.output {
        Output::Json => print_json(&json!({
            "log": opened.name,
            "origin": checkpoint.identity.origin(),
            "tree_size": checkpoint.signed.head.size,
            "root": hex(&checkpoint.signed.head.root),
            "ok": report.is_good(),
            "report": report,
        }))?,
        Output::Text => print(&text(&checkpoint, &report))?,
    }
    if report.is_good() {
        return Ok(());
    }
    let count = u64::try_from(report.findings.len()).unwrap_or(u64::MAX);
    Err(Failure::operation(format!(
        "the log is not what its key signed, or has lost parts: findings: {}",
        grouped(count.saturating_add(report.more_findings))
    )))
}

fn text(checkpoint: &Checkpoint, report: &Report) -> String {
    let mut lines = Vec::new();
    for finding in &report.findings {
        lines.push(format!("{}: {}", finding.place, finding.what));
    }
    if report.more_findings > 0 {
        lines.push(format!("and {} more", grouped(report.more_findings)));
    }
    let mut read = format!(
        "{}: {}, {} tiles, {} certificates of chains",
        checkpoint.identity.origin(),
        entries(report.entries),
        grouped(report.tiles),
        report.certificates
    );
    if let Some(segments) = report.segments {
        read += &format!(", {} segments of the journal", grouped(segments));
    }
    lines.push(read);
    if report.is_good() {
        lines.push("All of it is what the log's key signed.".to_owned());
    }
    let lines = lines.iter().map(|line| plain(line) + "\n");
    lines.collect()
}

/// How far it is, on a terminal.
pub(super) struct Progress {
    total: u64,
    is_shown: bool,
    percent: AtomicU64,
}

impl Progress {
    pub(super) fn new(total: u64) -> Self {
        Self {
            total,
            is_shown: std::io::stderr().is_terminal(),
            percent: AtomicU64::new(0),
        }
    }

    pub(super) fn show(&self, done: u64) {
        let percent = done.saturating_mul(100) / self.total.max(1);
        if self.is_shown && self.percent.fetch_max(percent, Ordering::Relaxed) < percent {
            // A terminal that is gone needs no progress.
            let _ = write!(
                std::io::stderr(),
                "\r{percent:3} % of {}",
                entries(self.total)
            );
        }
    }

    pub(super) fn end(&self) {
        if self.is_shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
