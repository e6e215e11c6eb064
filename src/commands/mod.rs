//! The command line, one file a command.

use std::error::Error;
use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use rustix::fs::Mode;
use rustix::process::umask;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use zeroize::Zeroizing;

use crate::admin::socket::AdminSocketError;
use crate::clock::SystemClock;
use crate::config::{ConfigError, ServerConfig, Settings};
use crate::excerpt::is_invisible;
use crate::fetch::{ClusterFiles, SystemResolver, TlsRoots};
use crate::identity::Issuers;
use crate::logging;
use crate::random::SystemRandomness;
use crate::reload::PolicyFiles;
use crate::server::{Environment, StartError};
use crate::store::StoreError;

mod admin;
mod bench;
mod cert;
mod check_config;
mod completions;
mod config;
mod dev;
mod diff_config;
mod explain;
mod healthcheck;
mod import;
mod init;
mod log;
mod man;
mod presets;
mod schema;
mod self_test;
mod serve;
mod test_config;
mod trust;

/// The largest file that is read, in octets: far more than a token, a key, a key set or a chain has.
const MAX_OCTETS: u64 = 1024 * 1024;

/// A certificate authority for code signing that keeps no signing key: it verifies an identity token, issues a certificate
/// that lives ten minutes, and enters it in a transparency log before it leaves.
#[derive(Debug, Parser)]
#[command(name = "mayfly", version, long_version = LONG_VERSION, propagate_version = true, subcommand_required = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("MAYFLY_REVISION"),
    "\ncompiler: ",
    env!("MAYFLY_RUSTC")
);

#[derive(Debug, Subcommand)]
enum Command {
    /// Everything on this machine alone, to try and to test with: CA, log, and an issuer that gives a token to anyone
    Dev(dev::Arguments),
    /// Make an instance: CA, log and first configuration in a data folder
    Init(init::Arguments),
    /// Run an instance
    Serve(Box<serve::Arguments>),
    /// Find everything that is wrong with a configuration, before it is in force
    CheckConfig(check_config::Arguments),
    /// The server's configuration as it would be in force
    #[command(subcommand)]
    Config(config::Command),
    /// Show what a token, or the claims of one, would get, step by step, or why it gets nothing
    Explain(explain::Arguments),
    /// Run golden tests: claims, and the certificate or the refusal that must come of them
    TestConfig(test_config::Arguments),
    /// Show what an edit of an identity configuration does to trust
    DiffConfig(diff_config::Arguments),
    /// What is known of issuers that many trust
    Presets {
        #[command(subcommand)]
        command: Option<presets::Command>,
    },
    /// Turn the configuration of another program into one of Mayfly
    #[command(subcommand)]
    Import(import::Command),
    /// The JSON Schema of a configuration file, for editors
    Schema {
        #[arg(value_enum)]
        file: schema::Schema,
    },
    /// Look at a log from outside, on a disk or over HTTP: what it says, whether it holds, what is in it
    #[command(subcommand)]
    Log(log::Command),
    /// A certificate: get one, look at it, verify it
    #[command(subcommand)]
    Cert(cert::Command),
    /// What clients must trust
    #[command(subcommand)]
    Trust(trust::Command),
    /// Ask a running server how it is, let it read its identity configuration again, change its log lines
    Admin(admin::Arguments),
    /// Ask a running server whether it serves
    Healthcheck(healthcheck::Arguments),
    /// Measure speed and memory
    #[command(subcommand)]
    Bench(bench::Command),
    /// Print what a shell completes of these commands and their flags
    #[command(after_help = completions::AFTER_HELP)]
    Completions(completions::Arguments),
    /// Write manual pages, one for each command
    Man(man::Arguments),
}

/// A command that did not succeed: what to print, and the exit code.
///
/// 1: the operation failed · 2: usage (by clap) · 3: the configuration is wrong · 4: something it depends on is not there ·
/// 5: a defect.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn operation(message: impl ToString) -> Self {
        Self {
            code: 1,
            message: message.to_string(),
        }
    }

    fn configuration(message: impl ToString) -> Self {
        Self {
            code: 3,
            message: message.to_string(),
        }
    }

    fn dependency(message: impl ToString) -> Self {
        Self {
            code: 4,
            message: message.to_string(),
        }
    }

    fn defect(message: impl ToString) -> Self {
        Self {
            code: 5,
            message: message.to_string(),
        }
    }

    /// Whether the operation itself came to nothing, and not what it needs.
    const fn is_of_operation(&self) -> bool {
        self.code == 1
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::configuration(error)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match &error {
            StartError::Bind { .. } | StartError::Admin(AdminSocketError::InUse { .. }) => {
                Self::dependency(error)
            }
            StartError::Store {
                source: StoreError::Locked,
                ..
            } => Self::dependency(error),
            StartError::System(_) => Self::defect(error),
            StartError::Config(_)
            | StartError::Admin(_)
            | StartError::Key(_)
            | StartError::Chain { .. }
            | StartError::Authority(_)
            | StartError::Tls(_)
            | StartError::Tuf(_)
            | StartError::Log { .. }
            | StartError::RemoteLog { .. }
            | StartError::Store { .. } => Self::configuration(error),
        }
    }
}

/// Which file configures the server.
#[derive(Args, Debug)]
struct ConfigFile {
    /// The server's configuration [default: /etc/mayfly/mayfly.yaml, else mayfly.yaml in the data folder]
    #[arg(
        short,
        long,
        env = "MAYFLY_CONFIG",
        hide_env_values = true,
        value_name = "FILE"
    )]
    config: Option<PathBuf>,
}

/// Where the identity configuration is, for the commands that only read it.
#[derive(Args, Debug)]
struct ConfigPaths {
    /// Who may have a certificate: a file, or a folder of files [default: as for `mayfly serve`]
    #[arg(
        long,
        env = "MAYFLY_IDENTITY_CONFIG",
        value_name = "PATH",
        hide_env_values = true
    )]
    identity_config: Option<PathBuf>,
    #[command(flatten)]
    file: ConfigFile,
    /// The folder that `mayfly init` made [default: /var/lib/mayfly]
    #[arg(
        long,
        env = "MAYFLY_DATA_DIR",
        value_name = "DIR",
        hide_env_values = true
    )]
    data_dir: Option<PathBuf>,
}

impl ConfigPaths {
    /// The path of the identity configuration.
    ///
    /// # Errors
    /// When only the server's configuration says where it is, and that cannot be read.
    fn identity_config(&self) -> Result<PathBuf, ConfigError> {
        if let Some(path) = &self.identity_config {
            return Ok(path.clone());
        }
        Ok(self.server_config(self.settings())?.identity_config)
    }

    /// Whether the server's own configuration is named.
    const fn names_server(&self) -> bool {
        self.file.config.is_some() || self.data_dir.is_some()
    }

    /// What of the server's settings is said here.
    fn settings(&self) -> Settings {
        Settings {
            data_dir: self.data_dir.clone(),
            identity_config: self.identity_config.clone(),
            ..Settings::default()
        }
    }

    /// The server's configuration, with these settings over its file.
    ///
    /// # Errors
    /// When the file cannot be read, or a setting does not hold up.
    fn server_config(&self, settings: Settings) -> Result<ServerConfig, ConfigError> {
        ServerConfig::new(settings.with_file(self.file.config.as_deref())?)
    }

    /// The issuers of the identity configuration.
    ///
    /// # Errors
    /// When it cannot be read or has errors: every one of them.
    fn issuers(&self, now: OffsetDateTime) -> Result<Issuers, Failure> {
        load(&self.identity_config()?, now)
    }
}

/// Reads an identity configuration.
fn load(path: &Path, now: OffsetDateTime) -> Result<Issuers, Failure> {
    let files = PolicyFiles {
        path: path.to_owned(),
        is_strict: false,
    };
    match files.load(now) {
        Ok(policy) => Ok(policy.issuers),
        Err(error) => Err(Failure::configuration(error.lines().join("\n"))),
    }
}

/// Reads a file, or for `-` the standard input.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |error: io::Error| Failure::dependency(format!("{}: {error}", path.display()));
    let mut octets = Zeroizing::new(Vec::new());
    let length = if path == Path::new("-") {
        io::stdin().take(MAX_OCTETS + 1).read_to_end(&mut octets)
    } else {
        let file = File::open(path).map_err(failed)?;
        file.take(MAX_OCTETS + 1).read_to_end(&mut octets)
    };
    let length = u64::try_from(length.map_err(failed)?).unwrap_or(u64::MAX);
    if length > MAX_OCTETS {
        let message = format!("{}: more than 1 MiB", path.display());
        return Err(Failure::dependency(message));
    }
    Ok(octets)
}

/// Parses a moment as RFC 3339 has it.
fn moment(text: &str) -> Result<OffsetDateTime, String> {
    OffsetDateTime::parse(text, &Rfc3339).map_err(|error| error.to_string())
}

/// Prints what a command is asked for. Whoever reads it may stop before its end, as `head` does.
///
/// # Errors
/// When the standard output cannot be written to.
fn print(text: &str) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    match output
        .write_all(text.as_bytes())
        .and_then(|()| output.flush())
    {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Failure::operation(format!(
            "the standard output cannot be written to: {error}"
        ))),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// A text in one line, with nothing that moves a cursor.
fn plain(text: &str) -> String {
    let shown = |character| {
        if is_invisible(character) {
            ' '
        } else {
            character
        }
    };
    text.chars().map(shown).collect()
}

/// A number with what is counted.
fn counted(count: usize, what: &str) -> String {
    match count {
        0 => format!("no {what}s"),
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}

/// Whatever mask the process was started with, nobody but its user may change the files that it makes.
fn forbid_writing_by_others() {
    let writing = Mode::WGRP | Mode::WOTH;
    let given = umask(writing);
    umask(given | writing);
}

/// Writes a line to the standard error. Where nobody reads that any more, nothing is lost but the line: the exit code tells too.
macro_rules! say {
    ($($text:tt)+) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr().lock(), $($text)+);
    }};
}
pub(crate) use say;

/// The roots of a server's TLS certificate in a PEM file.
///
/// # Errors
/// When it cannot be read, or is none.
fn tls_roots(path: &Path) -> Result<TlsRoots, Failure> {
    let pem = read(path)?;
    let roots = TlsRoots::parse(&String::from_utf8_lossy(&pem));
    roots.map_err(|error| Failure::configuration(format!("{}: {error}", path.display())))
}

/// Where an error began: of all that its chain says, "connection refused" is what helps.
fn innermost<'a>(mut error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

/// Parses the arguments, runs the command, prints what went wrong, and returns the exit code.
#[must_use]
pub fn run() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    forbid_writing_by_others();
    // Every TLS connection of the process, in and out, uses the one provider.
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        say!("mayfly: a second cryptographic provider was installed");
        return ExitCode::from(5);
    }
    let environment = Environment {
        clock: std::sync::Arc::new(SystemClock),
        random: std::sync::Arc::new(SystemRandomness),
        resolver: std::sync::Arc::new(SystemResolver),
        cluster_files: ClusterFiles::default(),
    };
    let result = match cli.command {
        Command::Dev(arguments) => dev::run(&arguments, &environment),
        Command::Init(arguments) => init::run(&arguments, &environment),
        Command::Serve(arguments) => serve::run(*arguments, &environment),
        Command::CheckConfig(arguments) => check_config::run(&arguments, &environment),
        Command::Config(command) => {
            // The matches of the command that was parsed from them.
            let matches = matches.subcommand_matches("config").unwrap_or(&matches);
            config::run(command, matches)
        }
        Command::Explain(arguments) => explain::run(&arguments, &environment),
        Command::TestConfig(arguments) => test_config::run(&arguments, &environment),
        Command::DiffConfig(arguments) => diff_config::run(&arguments, &environment),
        Command::Presets { command } => presets::run(command.as_ref()),
        Command::Import(command) => import::run(command, &environment),
        Command::Schema { file } => schema::run(file),
        Command::Log(command) => log::run(&command, &environment),
        Command::Cert(command) => cert::run(&command, &environment),
        Command::Trust(command) => trust::run(command, &environment),
        Command::Admin(arguments) => admin::run(arguments),
        Command::Healthcheck(arguments) => healthcheck::run(&arguments),
        Command::Bench(command) => bench::run(command, &environment),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Man(arguments) => man::run(&arguments),
    };
    // What was logged stands before what is said last.
    logging::flush();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, message }) => {
            for line in message.lines() {
                say!("mayfly: {line}");
            }
            ExitCode::from(code)
        }
    }
}
