//! `mayfly trust`: the files by which clients trust an instance.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Failure;
use crate::config::{ServerConfig, Settings};
use crate::server;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write trusted_root.json, signing_config.json and the single files that older clients read
    Export(ExportArguments),
}

/// The arguments of `mayfly trust export`.
#[derive(Args, Debug)]
pub(super) struct ExportArguments {
    /// The folder to write into
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// The server's configuration [default: /etc/mayfly/mayfly.yaml, else mayfly.yaml in the data folder]
    #[arg(short, long, env = "MAYFLY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

pub(super) fn run(command: Command) -> Result<(), Failure> {
    let Command::Export(arguments) = command;
    let config = ServerConfig::new(arguments.settings.with_file(arguments.config.as_deref())?)?;
    let trust = server::exported_trust(&config)?;
    for name in trust
        .export(&arguments.folder)
        .map_err(Failure::operation)?
    {
        println!("{}", arguments.folder.join(name).display());
    }
    Ok(())
}
