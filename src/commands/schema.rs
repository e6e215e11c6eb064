//! `mayfly schema`: what a configuration may say, for editors that complete and check.

use clap::ValueEnum;

use super::{Failure, print};

/// The files that have a JSON Schema (draft 2020-12).
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Schema {
    /// Who may have a certificate
    Identity,
    /// The server's configuration
    Server,
}

pub(super) fn run(schema: Schema) -> Result<(), Failure> {
    print(match schema {
        Schema::Identity => include_str!("../../config/schema/identity.schema.json"),
        Schema::Server => include_str!("../../config/schema/server.schema.json"),
    })
}
