//! `mayfly log follow`: a log watched as it grows.

use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::{Failure, LogArguments, Opened, Output, entries};
use crate::auditor::entries::{CtEntries, EntryDetails, time_text};
use crate::auditor::follow::{
    Contradiction, ContradictionKind, FollowError, Follower, Look, entries_from,
};
use crate::auditor::{AuditError, Checkpoint};
use crate::commands::plain;
use crate::commands::say;
use crate::hex::hex;
use crate::store::folder::write_durably;

/// How often an older checkpoint is looked at again before it counts: one of several servers may be late.
const LATE_LOOKS: u32 = 3;
/// The time between those looks.
const LATE: Duration = Duration::from_secs(1);

/// The arguments of `mayfly log follow`.
#[derive(Args, Debug)]
#[command(after_help = "\
The state file holds the last checkpoint that was believed. Each one that follows must extend it; what the log's key signs
otherwise is proof against the log: it is kept beside the state file, in FILE.conflict, and the command ends with exit code 1.
Without a state file, what the log shows now is believed, and watched from here on.

Exit code: 0 with --once, if the log extends what was known; 1 if the log contradicts itself or is not what its key signed,
3 if the key is wrong or missing, 4 if the log cannot be read.

Examples:
  mayfly log follow https://ca.example.com/ct/main/ --key trusted_root.json --state ca.checkpoint
  mayfly log follow --state main.checkpoint --from-start --once --output json > entries.ndjson")]
pub(in crate::commands) struct Arguments {
    #[command(flatten)]
    log: LogArguments,
    /// Where the last checkpoint is kept
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    /// Look once, and end
    #[arg(long)]
    once: bool,
    /// Without a state file, begin with the first entry and not with the next one
    #[arg(long)]
    from_start: bool,
    /// How many seconds lie between two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    interval: u64,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let opened = arguments.log.open()?;
    let mut follower = Follower {
        public_key_der: opened.public_key_der.clone(),
        origin: opened.origin.clone(),
        last: read_state(&arguments.state, &opened)?,
    };
    let printer = Printer {
        is_json: arguments.log.trust.output == Output::Json,
    };
    loop {
        let is_first = follower.last.is_none();
        match look(&follower, &opened) {
            Ok(look) => {
                let from = if is_first && !arguments.from_start {
                    look.checkpoint.signed.head.size
                } else {
                    look.known
                };
                if !advance(&opened, &look, from, &printer)? {
                    return Ok(());
                }
                // Entries are printed before they count as known: whoever is interrupted sees them twice, not never.
                write_state(&arguments.state, &look.checkpoint)?;
                follower.believe(look.checkpoint);
            }
            // Whoever watches outlives a log that is away for a while.
            Err(FollowError::Audit(AuditError::Source(error))) if !arguments.once => {
                say!("mayfly: the log cannot be read, and is tried again: {error}");
            }
            Err(FollowError::Audit(error)) => return Err(opened.failed(&error)),
            Err(FollowError::Contradiction(contradiction)) => {
                return Err(contradicted(&arguments.state, &contradiction, &printer));
            }
        }
        if arguments.once {
            return Ok(());
        }
        thread::sleep(Duration::from_secs(arguments.interval));
    }
}

/// Looks at the log; at a smaller one again, as it may be only late.
fn look(follower: &Follower, opened: &Opened) -> Result<Look, FollowError> {
    let mut looks = 0;
    loop {
        match follower.look(opened.source(), &CtEntries) {
            Err(FollowError::Contradiction(contradiction))
                if contradiction.kind == ContradictionKind::RolledBack && looks < LATE_LOOKS =>
            {
                looks += 1;
                thread::sleep(LATE);
            }
            result => return result,
        }
    }
}

/// Prints the entries behind `from`, and the checkpoint; `false` when nobody reads.
fn advance(opened: &Opened, look: &Look, from: u64, printer: &Printer) -> Result<bool, Failure> {
    let checkpoint = &look.checkpoint;
    let size = checkpoint.signed.head.size;
    let mut printed = Ok(true);
    if from < size {
        let take = |index: u64, entry: &[u8], leaf: &[u8; 32]| {
            printed = printer.entry(&EntryDetails::of(index, entry, leaf));
            matches!(printed, Ok(true))
        };
        entries_from(opened.source(), &CtEntries, checkpoint, from, take)
            .map_err(|error| opened.failed(&error))?;
    }
    if !printed? {
        return Ok(false);
    }
    if size > look.known || from == size && look.known == 0 {
        return printer.checkpoint(checkpoint, look.known);
    }
    Ok(true)
}

struct Printer {
    is_json: bool,
}

impl Printer {
    fn entry(&self, details: &EntryDetails) -> Result<bool, Failure> {
        if self.is_json {
            let mut value = serde_json::to_value(details).map_err(Failure::defect)?;
            if let Value::Object(members) = &mut value {
                members.shift_insert(0, "event".to_owned(), "entry".into());
            }
            return self.line(&value.to_string());
        }
        let issuer = details.issuer.as_deref();
        let issuer = issuer.map_or_else(String::new, |issuer| format!("  by {issuer}"));
        self.line(&plain(&format!(
            "{:>10}  {}  {}{issuer}",
            details.index,
            details.time,
            details.san.join(", ")
        )))
    }

    fn checkpoint(&self, checkpoint: &Checkpoint, known: u64) -> Result<bool, Failure> {
        let head = checkpoint.signed.head;
        if self.is_json {
            let value = json!({
                "event": "checkpoint",
                "origin": checkpoint.identity.origin(),
                "known": known,
                "tree_size": head.size,
                "root": hex(&head.root),
                "timestamp": head.timestamp,
            });
            return self.line(&value.to_string());
        }
        let extends = match known {
            0 => String::new(),
            known => format!(", extends the first {}", entries(known)),
        };
        self.line(&plain(&format!(
            "{}: {} at {}{extends}",
            checkpoint.identity.origin(),
            entries(head.size),
            time_text(head.timestamp)
        )))
    }

    /// Prints a line; `false` when nobody reads any more.
    fn line(&self, line: &str) -> Result<bool, Failure> {
        match writeln!(std::io::stdout().lock(), "{line}") {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(Failure::operation(format!(
                "the standard output cannot be written to: {error}"
            ))),
        }
    }
}

/// The checkpoint in the state file, if there is one.
fn read_state(path: &Path, opened: &Opened) -> Result<Option<Checkpoint>, Failure> {
    let name = path.display();
    let note = match std::fs::read(path) {
        Ok(note) => note,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::dependency(format!("{name}: {error}"))),
    };
    let origin = opened.origin.as_deref();
    Checkpoint::verify(&note, &opened.public_key_der, origin)
        .map(Some)
        .map_err(|error| {
            Failure::configuration(format!(
                "{name}: {error}; it is of another log, or was changed: give the right file, or start again with a new one"
            ))
        })
}

fn write_state(path: &Path, checkpoint: &Checkpoint) -> Result<(), Failure> {
    write_durably(path, checkpoint.note.as_bytes())
        .map_err(|error| Failure::dependency(format!("{}: {error}", path.display())))
}

/// Keeps the checkpoint that contradicts the last one, and says what that means.
fn contradicted(state: &Path, contradiction: &Contradiction, printer: &Printer) -> Failure {
    let Contradiction {
        before,
        after,
        kind,
    } = contradiction;
    let kept = state.with_added_extension("conflict");
    let is_kept = match write_durably(&kept, after.note.as_bytes()) {
        Ok(()) => format!(
            "{} holds the earlier checkpoint and {} the later one: both are signed by the log's key, which is proof for anybody",
            state.display(),
            kept.display()
        ),
        Err(error) => format!(
            "the later checkpoint cannot be kept in {} ({error}):\n{}",
            kept.display(),
            after.note
        ),
    };
    if printer.is_json {
        let side = |checkpoint: &Checkpoint| {
            json!({
                "tree_size": checkpoint.signed.head.size,
                "root": hex(&checkpoint.signed.head.root),
                "timestamp": checkpoint.signed.head.timestamp,
                "checkpoint": checkpoint.note,
            })
        };
        let value = json!({
            "event": "contradiction",
            "kind": kind.name(),
            "before": side(before),
            "after": side(after),
        });
        // The exit code and the message tell it too.
        let _ = printer.line(&value.to_string());
    }
    Failure::operation(format!(
        "{contradiction}\nearlier: {} at {}; later: {} at {}\n{is_kept}\ntrust nothing that this log says until its operator has explained it",
        entries(before.signed.head.size),
        time_text(before.signed.head.timestamp),
        entries(after.signed.head.size),
        time_text(after.signed.head.timestamp),
    ))
}
