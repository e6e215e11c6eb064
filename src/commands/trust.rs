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
    /// The log that certificates are in, where it is another's and not in the configuration file
    #[arg(
        long,
        env = "MAYFLY_CT_LOG_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    ct_log_url: Option<String>,
    /// Its public key, a PEM file
    #[arg(
        long,
        env = "MAYFLY_CT_LOG_PUBLIC_KEY",
        value_name = "FILE",
        hide_env_values = true
    )]
    ct_log_public_key: Option<PathBuf>,
}

pub(super) fn run(command: Command) -> Result<(), Failure> {
    let Command::Export(arguments) = command;
    let settings = Settings {
        ca_cert: arguments.ca_cert,
        ct_log_url: arguments.ct_log_url,
        ct_log_public_key: arguments.ct_log_public_key,
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
