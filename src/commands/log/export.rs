//! `mayfly log export`: a log written into an empty folder.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::fsck::Progress;
use super::{Failure, Output, TrustArguments, entries, grouped, not_exported, print_json};
use crate::auditor::entries::CtEntries;
use crate::auditor::export::export;
use crate::commands::{plain, print};

/// The arguments of `mayfly log export`.
#[derive(Args, Debug)]
#[command(after_help = "\
Writes checkpoint, tiles and certificates as any web server can serve them, and as every `mayfly log` command reads them. Every
tile is made again from the entries, and the root is the one that the log's key signed, or the checkpoint is not written. In the
folder of a server the entries come from its journal; so the tiles of a server whose own are damaged can be had again.

It is a copy for reading. A copy of a log is never continued as the log: its key would sign two trees.

Exit code: 0 if all is written, 1 if the log is not what its key signed, 3 if the key is wrong or missing, 4 if something cannot
be read or written.

Example:
  mayfly log export mirror https://ca.example.com/ct/main/ --key trusted_root.json")]
pub(in crate::commands) struct Arguments {
    /// The folder to write into; it must not exist, or be empty
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The log: its URL, or a folder [default: the log in the data folder]
    #[arg(value_name = "LOG")]
    log: Option<String>,
    #[command(flatten)]
    trust: TrustArguments,
    /// Take the entries from the tiles, also where there is a journal
    #[arg(long)]
    no_journal: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let opened = arguments.trust.open(arguments.log.as_deref())?;
    let checkpoint = opened.checkpoint()?;
    let progress = Progress::new(checkpoint.signed.head.size);
    let journal = opened.place.journal().filter(|_| !arguments.no_journal);
    let exported = export(
        opened.source(),
        journal,
        &CtEntries,
        &checkpoint,
        &arguments.folder,
        &|done| progress.show(done),
    );
    progress.end();
    let exported = exported.map_err(|error| not_exported(&opened, &error))?;
    match arguments.trust.output {
        Output::Json => print_json(&json!({
            "log": opened.name,
            "folder": arguments.folder,
            "exported": exported,
        })),
        Output::Text => print(
            &(plain(&format!(
                "{}: {}, {} tiles, {} certificates of chains",
                arguments.folder.display(),
                entries(exported.entries),
                grouped(exported.tiles),
                exported.certificates
            )) + "\n"),
        ),
    }
}
