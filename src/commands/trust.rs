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
    #[arg(
        short,
        long,
        env = "MAYFLY_CONFIG",
        hide_env_values = true,
        value_name = "FILE"
    )]
    config: Option<PathBuf>,
    /// The folder that `mayfly init` made [default: /var/lib/mayfly]
    #[arg(
        long,
        env = "MAYFLY_DATA_DIR",
        value_name = "DIR",
        hide_env_values = true
    )]
    data_dir: Option<PathBuf>,
    /// Who may have a certificate; people's issuers go into signing_config.json [default: as for `mayfly serve`]
    #[arg(
        long,
        env = "MAYFLY_IDENTITY_CONFIG",
        value_name = "FILE",
        hide_env_values = true
    )]
    identity_config: Option<PathBuf>,
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
        data_dir: arguments.data_dir,
        identity_config: arguments.identity_config,
        ca_cert: arguments.ca_cert,
        ..Settings::default()
    };
    let config = ServerConfig::new(settings.with_file(arguments.config.as_deref())?)?;
    let trust = server::exported_trust(&config)?;
    for name in trust
        .export(&arguments.folder)
        .map_err(Failure::operation)?
    {
        println!("{}", arguments.folder.join(name).display());
    }
    Ok(())
}
