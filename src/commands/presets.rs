//! `mayfly presets`: what an entry of the identity configuration can leave to `preset`.

use std::fmt::Write as _;

use clap::Subcommand;

use super::{Failure, print};
use crate::identity::config::preset::{PRESETS, Preset};
use crate::policy::claims;

/// The subcommands of `mayfly presets`; without one, the list.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Each preset with the URLs of the issuers that it is for; EXAMPLE stands for what you fill in
    List,
    /// The claims of a token of that kind, for `mayfly explain --claims` and to write tests from
    Claims {
        /// Its name in the list
        name: String,
    },
    /// The identity file that a preset stands for, to read or to copy from
    Show {
        /// Its name in the list
        name: String,
    },
}

pub(super) fn run(command: Option<&Command>) -> Result<(), Failure> {
    match command {
        None | Some(Command::List) => {
            let mut list = String::new();
            for preset in PRESETS {
                // Writing to a `String` does not fail.
                let _ = writeln!(list, "{:<14}{}", preset.name, preset.description());
                for issuer in preset.issuers() {
                    let _ = writeln!(list, "{:<14}  {issuer}", "");
                }
            }
            print(&list)
        }
        Some(Command::Claims { name }) => {
            let claims = claims::of_kind(name).ok_or_else(|| unknown(name))?;
            let json = serde_json::to_string_pretty(&claims).map_err(Failure::defect)?;
            print(&(json + "\n"))
        }
        Some(Command::Show { name }) => {
            let preset = Preset::named(name).ok_or_else(|| unknown(name))?;
            // The first line tells editors where the schema lies, beside that file.
            print(preset.text.split_once('\n').map_or("", |(_, text)| text))
        }
    }
}

fn unknown(name: &str) -> Failure {
    Failure::operation(format!(
        "there is no preset {name:?}; `mayfly presets list` shows all"
    ))
}
