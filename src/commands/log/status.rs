//! `mayfly log status`: what a log says of itself now.

use clap::Args;
use serde::Serialize;
use time::OffsetDateTime;

use super::{
    Failure, LogArguments, Opened, Output, Table, entries, grouped, print_json, unreadable,
};
use crate::auditor::entries::{CtEntries, time_text};
use crate::auditor::tree::CheckedTree;
use crate::clock::millis;
use crate::commands::print;
use crate::ctlog::embedded::MMD_SECONDS;
use crate::hex::hex;
use crate::server::Environment;

/// How far a checkpoint may be ahead of this clock, in seconds.
const MAX_AHEAD_SECONDS: i64 = 5;

/// The arguments of `mayfly log status`.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit code: 0 if the log's key signed its checkpoint, which is fresh and whose tree is there; 1 if not, 3 if the key is wrong or
missing, 4 if the log cannot be read.

Examples:
  mayfly log status
  mayfly log status https://ca.example.com/ct/main/ --key trusted_root.json")]
pub(in crate::commands) struct Arguments {
    #[command(flatten)]
    log: LogArguments,
}

/// What is printed.
#[derive(Serialize)]
struct Status {
    log: String,
    origin: String,
    log_id: String,
    key_from: String,
    tree_size: u64,
    root: String,
    timestamp: u64,
    time: String,
    age_seconds: i64,
    /// How many entries the journal of the folder has.
    #[serde(skip_serializing_if = "Option::is_none")]
    journal_size: Option<u64>,
    /// What does not hold.
    problems: Vec<String>,
}

pub(super) fn run(arguments: &Arguments, environment: &Environment) -> Result<(), Failure> {
    let opened = arguments.log.open()?;
    let status = Status::of(&opened, environment.clock.now())?;
    match arguments.log.trust.output {
        Output::Json => print_json(&status)?,
        Output::Text => print(&status.text())?,
    }
    if status.problems.is_empty() {
        Ok(())
    } else {
        Err(Failure::operation(status.problems.join("\n")))
    }
}

impl Status {
    fn of(opened: &Opened, now: OffsetDateTime) -> Result<Self, Failure> {
        let checkpoint = opened.checkpoint()?;
        let head = checkpoint.signed.head;
        let mut problems = Vec::new();
        if let Err(error) = CheckedTree::open(opened.source(), &CtEntries, &checkpoint) {
            problems.push(error.to_string());
        }
        let signed = |millis: u64| i64::try_from(millis).unwrap_or(i64::MAX);
        let age_seconds = (signed(millis(now)) - signed(head.timestamp)) / 1000;
        if age_seconds > signed(MMD_SECONDS) {
            problems.push(format!(
                "the checkpoint is older than a day ({}): the log has stopped, or an old copy is served",
                duration(age_seconds)
            ));
        }
        if age_seconds < -MAX_AHEAD_SECONDS {
            problems.push(format!(
                "the checkpoint is {} ahead of this clock; one of the two clocks is wrong",
                duration(-age_seconds)
            ));
        }
        Ok(Self {
            log: opened.name.clone(),
            origin: checkpoint.identity.origin().to_owned(),
            log_id: hex(checkpoint.identity.log_id()),
            key_from: opened.key_origin.clone(),
            tree_size: head.size,
            root: hex(&head.root),
            timestamp: head.timestamp,
            time: time_text(head.timestamp),
            age_seconds,
            journal_size: journal_size(opened)?,
            problems,
        })
    }

    fn text(&self) -> String {
        let age = match self.age_seconds {
            ahead @ ..0 => format!("{} ahead of this clock", duration(-ahead)),
            age => format!("{} ago", duration(age)),
        };
        let mut rows = vec![
            ("log", self.log.clone()),
            ("origin", self.origin.clone()),
            ("key", format!("{}, from {}", self.log_id, self.key_from)),
            ("size", entries(self.tree_size)),
            ("root", self.root.clone()),
            ("signed", format!("{}, {age}", self.time)),
        ];
        if let Some(size) = self.journal_size {
            let waiting = match size.saturating_sub(self.tree_size) {
                0 => "all of them published".to_owned(),
                waiting => format!("{} not published yet", grouped(waiting)),
            };
            rows.push(("journal", format!("{}, {waiting}", entries(size))));
        }
        if self.problems.is_empty() {
            let verdict = "signed by the log's key, and its tree is there";
            rows.push(("good", verdict.to_owned()));
        }
        Table(rows).text()
    }
}

/// How many entries the journal has, where there is one.
fn journal_size(opened: &Opened) -> Result<Option<u64>, Failure> {
    let Some(folder) = opened.place.journal() else {
        return Ok(None);
    };
    let size = folder.journal_size();
    size.map(Some).map_err(|error| unreadable(&error))
}

/// Some seconds, as people say them.
fn duration(seconds: i64) -> String {
    match seconds {
        ..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}
