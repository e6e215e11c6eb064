//! `mayfly trust`: the files by which clients trust an instance.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{ConfigPaths, Failure};
use crate::config::Settings;
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
    #[command(flatten)]
    paths: ConfigPaths,
    /// The CA's certificates, where they are not in the data folder
    #[arg(
        long,
        env = "MAYFLY_CA_CERT",
        value_name = "FILE",
        hide_env_values = true
    )]
    ca_cert: Option<PathBuf>,
}

pub(super) fn run(command: Command) -> Result<(), Failure> {
    let Command::Export(arguments) = command;
    let settings = Settings {
        ca_cert: arguments.ca_cert,
        ..arguments.paths.settings()
    };
    let config = arguments.paths.server_config(settings)?;
    let trust = server::exported_trust(&config)?;
    for name in trust
        .export(&arguments.folder)
        .map_err(Failure::operation)?
    {
        println!("{}", arguments.folder.join(name).display());
    }
    Ok(())
}
