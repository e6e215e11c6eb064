//! `mayfly config`: the server's configuration as it would be in force.

use std::fmt::Write as _;
use std::path::Path;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Subcommand};
use serde::Serialize;

use super::{ConfigFile, Failure, print};
use crate::config::fulcio::{FulcioFlags, Given};
use crate::config::{ServerConfig, Settings};

/// Where what stands behind a value begins, as far as values are short enough.
const COLUMN: usize = 44;

/// The subcommands of `mayfly config`.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Every setting with the value that `mayfly serve` would have, as a configuration file
    #[command(after_help = "\
It takes the flags, the environment and the file that `mayfly serve` takes. A flag comes before the environment, the
environment before the file, the file before the default. It takes Fulcio's flags and environment too, and says them in our
words.")]
    Show(Box<ShowArguments>),
}

/// The arguments of `mayfly config show`.
#[derive(Args, Debug)]
pub(super) struct ShowArguments {
    /// Say beside each value where it is from
    #[arg(long)]
    origin: bool,
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    fulcio: FulcioFlags,
}

/// `matches`: how the arguments were given.
pub(super) fn run(command: Command, matches: &ArgMatches) -> Result<(), Failure> {
    let Command::Show(arguments) = command;
    let ShowArguments {
        origin,
        file: ConfigFile { config },
        settings,
        fulcio,
    } = *arguments;
    let Given {
        settings: given,
        file,
        translations,
        ..
    } = Given::read(settings.clone(), fulcio, config.as_deref(), None)?;
    let effective = ServerConfig::new(given.clone())?.settings(&given);

    let mut text = String::new();
    let written = settings.values().into_iter();
    let in_file = file
        .as_ref()
        .map(|(path, settings)| (path, settings.values()));
    let matches = matches.subcommand_matches("show");
    for ((id, value), (_, argument)) in effective.values().into_iter().zip(written) {
        let name = id.replace('_', "-");
        let is_in_file = in_file.as_ref().filter(|(_, values)| {
            let mut values = values.iter();
            values.any(|(other, value)| *other == id && value.is_some())
        });
        let from = match (argument, is_in_file) {
            (Some(_), _) => match matches.and_then(|matches| matches.value_source(id)) {
                Some(ValueSource::EnvVariable) => {
                    format!("MAYFLY_{}", id.to_uppercase())
                }
                _ => format!("--{name}"),
            },
            (None, in_file) => {
                let mut translations = translations.iter();
                let translated = translations.find(|one| one.setting == Some(id));
                match (translated, in_file) {
                    (Some(translation), _) => format!("Fulcio's {}", translation.flag),
                    (None, Some((path, _))) => path.display().to_string(),
                    (None, None) => "default".to_owned(),
                }
            }
        };
        line(&mut text, &name, value.as_deref(), origin.then_some(&*from));
    }
    let path = file.as_ref().map(|(path, _)| path.as_path());
    section(&mut text, "ct", &effective.ct, path.filter(|_| origin))?;
    section(
        &mut text,
        "trust",
        &effective.trust,
        path.filter(|_| origin),
    )?;
    print(&text)
}

/// A setting. One without value stands there only where origins are asked for, as a comment.
fn line(text: &mut String, name: &str, value: Option<&str>, from: Option<&str>) {
    let start = text.len();
    // Writing to a `String` does not fail.
    let _ = match (value, from) {
        (Some(value), _) => write!(text, "{name}: {}", scalar(value)),
        (None, Some(_)) => write!(text, "# {name}: not set"),
        (None, None) => return,
    };
    if let (Some(from), Some(_)) = (from, value) {
        let width = text.len() - start;
        let _ = write!(text, "{:1$}  # {from}", "", COLUMN.saturating_sub(width));
    }
    text.push('\n');
}

/// A value as a YAML scalar, quoted where it could be taken for something else.
fn scalar(value: &str) -> String {
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-_./:=,+".contains(&octet);
    let starts_plain =
        value.starts_with(|first: char| first.is_ascii_alphanumeric() || first == '/');
    if starts_plain && value.bytes().all(is_plain) && !value.ends_with(':') {
        value.to_owned()
    } else {
        serde_json::Value::from(value).to_string()
    }
}

/// A section that only the file has.
fn section(
    text: &mut String,
    name: &str,
    section: &impl Serialize,
    from: Option<&Path>,
) -> Result<(), Failure> {
    let value = serde_json::to_value(section).map_err(Failure::defect)?;
    let Some(value) = pruned(value) else {
        return Ok(());
    };
    if let Some(from) = from {
        let _ = writeln!(text, "# {}", from.display());
    }
    let document = serde_json::json!({ name: value });
    text.push_str(&serde_saphyr::to_string(&document).map_err(Failure::defect)?);
    Ok(())
}

/// Without members that say nothing.
fn pruned(value: serde_json::Value) -> Option<serde_json::Value> {
    use serde_json::Value;
    match value {
        Value::Null => None,
        Value::Object(members) => {
            let members = members.into_iter();
            let members: serde_json::Map<_, _> = members
                .filter_map(|(name, value)| Some((name, pruned(value)?)))
                .collect();
            (!members.is_empty()).then_some(Value::Object(members))
        }
        Value::Array(values) if values.is_empty() => None,
        Value::Array(values) => Some(values.into_iter().filter_map(pruned).collect()),
        value @ (Value::Bool(_) | Value::Number(_) | Value::String(_)) => Some(value),
    }
}
