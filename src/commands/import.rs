//! `mayfly import`: the configuration of another program, as ours.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::check_config::text;
use super::{Failure, counted, print};
use crate::commands::say;
use crate::identity::config::import::import;
use crate::identity::config::source::MAX_OCTETS;
use crate::identity::{Issuers, Source};
use crate::policy::diff::Difference;
use crate::server::Environment;

/// The subcommands of `mayfly import`.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Fulcio's configuration: YAML, JSON, or the ConfigMap that has it, as `kubectl get configmap -o yaml` prints it
    #[command(after_help = "\
A file of Fulcio's also works as it is. What is written trusts exactly the same tokens; this is checked before. What Fulcio
overlooks and Mayfly refuses is listed, as by `mayfly check-config`, and then nothing is written.

Exit code: 0; 3 if the configuration has errors; 4 if a file cannot be read or written.")]
    Fulcio(FulcioArguments),
}

/// The arguments of `mayfly import fulcio`.
#[derive(Args, Debug)]
pub(super) struct FulcioArguments {
    /// The file; - is the standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where to write, a file that does not exist yet [default: the standard output]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(command: Command, environment: &Environment) -> Result<(), Failure> {
    let Command::Fulcio(arguments) = command;
    let name = arguments.file.display().to_string();
    let imported = import(&read(&arguments.file)?)
        .map_err(|error| Failure::configuration(format!("{name}: {error}")))?;
    let name = imported
        .key
        .map_or_else(|| name.clone(), |key| format!("{name} ({key})"));
    let now = environment.clock.now();
    let sources = [Source::new(&name, imported.original)];
    let (before, warnings) = Issuers::load(&sources, Some(now)).map_err(|findings| {
        eprint!("{}", text(&findings, &sources));
        let found = counted(findings.len(), "finding");
        Failure::configuration(format!("{name}: {found}; nothing is written"))
    })?;
    let converted = Source::new("the result", imported.converted);
    let (after, _) = Issuers::load(std::slice::from_ref(&converted), Some(now))
        .map_err(|findings| Failure::defect(text(&findings, std::slice::from_ref(&converted))))?;
    if !Difference::of(&before, &after).parts.is_empty() {
        return Err(Failure::defect(format!(
            "{name}: the result would not trust the same tokens; nothing is written"
        )));
    }
    eprint!("{}", text(&warnings, &sources));
    match &arguments.output {
        None => print(&converted.text)?,
        Some(path) => {
            let written = OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(path)
                .and_then(|mut file| file.write_all(converted.text.as_bytes()));
            written.map_err(|error| Failure::dependency(format!("{}: {error}", path.display())))?;
        }
    }
    say!(
        "mayfly: {}, {}",
        counted(after.all().len(), "issuer"),
        counted(warnings.len(), "warning")
    );
    Ok(())
}

/// Reads a text as long as a configuration may be.
fn read(path: &Path) -> Result<String, Failure> {
    let failed = |error| Failure::dependency(format!("{}: {error}", path.display()));
    let mut text = String::new();
    let limit = MAX_OCTETS + 1;
    if path == Path::new("-") {
        std::io::stdin()
            .lock()
            .take(limit)
            .read_to_string(&mut text)
    } else {
        fs::File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text))
    }
    .map_err(failed)?;
    if text.len() as u64 > MAX_OCTETS {
        return Err(Failure::configuration(format!(
            "{}: it has more than {MAX_OCTETS} octets",
            path.display()
        )));
    }
    Ok(text)
}
