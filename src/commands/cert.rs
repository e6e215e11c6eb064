//! `mayfly cert`: one certificate, as those who use it see it.

use std::path::Path;

use clap::Subcommand;

use super::{Failure, read};
use crate::client::certificates::certificates_in;
use crate::server::Environment;

mod inspect;
mod request;
mod verify;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Get a certificate for a new key, as a signing client does, and verify it
    Request(Box<request::Arguments>),
    /// Show what a certificate says: its name, every extension by its own, its timestamps
    Inspect(inspect::Arguments),
    /// Verify a certificate: chain, time, the log's timestamp, and whom it names
    Verify(Box<verify::Arguments>),
}

pub(super) fn run(command: &Command, environment: &Environment) -> Result<(), Failure> {
    match command {
        Command::Request(arguments) => request::run(arguments, environment),
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Verify(arguments) => verify::run(arguments, environment),
    }
}

/// Reads the certificates in a file, DER, in their order; never none.
fn read_certificates(path: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let content = read(path)?;
    let certificates = certificates_in(&content);
    certificates.map_err(|error| Failure::dependency(format!("{}: {error}", path.display())))
}
