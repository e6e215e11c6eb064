//! `mayfly log`: a log looked at from outside, on a disk or over HTTP, by its public key alone.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use serde_json::Value;
use url::Url;

use super::{Failure, print};
use crate::auditor::entries::CtEntries;
use crate::auditor::export::ExportError;
use crate::auditor::source::{FolderSource, HttpSource, Source, SourceError};
use crate::auditor::{AuditError, CHECKPOINT, Checkpoint};
use crate::config::{SYSTEM_DATA, log_folder};
use crate::ctlog::embedded::LogDescription;
use crate::server::Environment;
use crate::store::StoreError;
use crate::x509::spki::SubjectPublicKey;

mod export;
mod follow;
mod fsck;
mod proof;
mod status;
mod verify_inclusion;

pub(super) use verify_inclusion::prove;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show what the log's checkpoint says, how old it is, and whether its tree is there
    Status(status::Arguments),
    /// Compute the whole log again from its entries, and compare it with everything that is there
    Fsck(fsck::Arguments),
    /// Prove that a certificate is in the log
    VerifyInclusion(verify_inclusion::Arguments),
    /// Make a proof that can be checked without the log
    Proof(proof::Arguments),
    /// Watch the log grow: every checkpoint must extend the one before it
    Follow(follow::Arguments),
    /// Write the log into an empty folder, made again from its entries
    Export(export::Arguments),
}

pub(super) fn run(command: &Command, environment: &Environment) -> Result<(), Failure> {
    match command {
        Command::Status(arguments) => status::run(arguments, environment),
        Command::Fsck(arguments) => fsck::run(arguments),
        Command::VerifyInclusion(arguments) => verify_inclusion::run(arguments),
        Command::Proof(arguments) => proof::run(arguments),
        Command::Follow(arguments) => follow::run(arguments),
        Command::Export(arguments) => export::run(arguments),
    }
}

/// Which log, and why it is believed.
#[derive(Args, Debug)]
struct LogArguments {
    /// The log: its URL, such as `https://ca.example.com/ct/main/`, or a folder [default: the log in the data folder]
    #[arg(value_name = "LOG")]
    log: Option<String>,
    #[command(flatten)]
    trust: TrustArguments,
}

#[derive(Args, Debug)]
struct TrustArguments {
    /// The log's public key, which is all that is believed: a PEM file, or `trusted_root.json`. For a folder of a server
    /// [default: the key that the folder names]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The name that the log must have in its checkpoints [default: whatever the key signs]
    #[arg(long, value_name = "ORIGIN")]
    origin: Option<String>,
    /// The folder that `mayfly init` made
    #[arg(
        long,
        env = "MAYFLY_DATA_DIR",
        value_name = "DIR",
        default_value = SYSTEM_DATA,
        hide_env_values = true
    )]
    data_dir: PathBuf,
    /// How results are printed
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Output {
    /// For people.
    Text,
    /// JSON, for machines.
    Json,
}

/// Where the log is.
enum Place {
    Folder(FolderSource),
    Url(HttpSource),
}

impl Place {
    fn source(&self) -> &dyn Source {
        match self {
            Self::Folder(source) => source,
            Self::Url(source) => source,
        }
    }

    /// The folder of a server, with its journal.
    fn journal(&self) -> Option<&FolderSource> {
        match self {
            Self::Folder(source) => Some(source).filter(|source| source.has_journal()),
            Self::Url(_) => None,
        }
    }
}

/// A log that can be read, and the key by which it is believed.
pub(super) struct Opened {
    place: Place,
    /// Its URL or path.
    name: String,
    public_key_der: Vec<u8>,
    /// Where the key is from.
    key_origin: String,
    origin: Option<String>,
}

impl LogArguments {
    fn open(&self) -> Result<Opened, Failure> {
        self.trust.open(self.log.as_deref())
    }
}

impl TrustArguments {
    /// Opens a log at a URL or in a folder.
    fn open(&self, log: Option<&str>) -> Result<Opened, Failure> {
        let keys = self.key.as_deref().map(read_keys).transpose()?;
        match log {
            Some(url) if url.starts_with("http://") || url.starts_with("https://") => {
                let base = Url::parse(url);
                let base =
                    base.map_err(|error| Failure::configuration(format!("{url}: {error}")))?;
                let keys = keys.ok_or_else(|| {
                    Failure::configuration(
                        "--key is missing: a log at a URL is believed by its public key alone; give a PEM file or trusted_root.json",
                    )
                })?;
                let source = HttpSource::new(base).map_err(|error| unreadable(&error))?;
                self.choose(Place::Url(source), url.to_owned(), keys)
            }
            folder => {
                let folder = folder.map_or_else(|| self.data_dir.clone(), PathBuf::from);
                self.open_folder(&folder, keys)
            }
        }
    }

    fn open_folder(&self, folder: &Path, keys: Option<Vec<Vec<u8>>>) -> Result<Opened, Failure> {
        let is_log = |folder: &PathBuf| folder.join(CHECKPOINT).exists();
        let folder = [folder.to_owned(), log_folder(folder)]
            .into_iter()
            .find(is_log)
            .ok_or_else(|| {
                Failure::dependency(format!(
                    "{}: neither a log nor the data folder of one: it has no checkpoint",
                    folder.display()
                ))
            })?;
        let name = folder.display().to_string();
        let (keys, is_own) = match keys {
            Some(keys) => (keys, false),
            None => {
                let description = LogDescription::read(&folder).map_err(|error| {
                    Failure::configuration(format!(
                        "{name}: {error}; or give the log's public key with --key"
                    ))
                })?;
                (vec![description.public_key_der], true)
            }
        };
        let source = |key: &[u8]| FolderSource::new(&folder, key, Arc::new(CtEntries));
        let first = keys.first().map(Vec::as_slice).unwrap_or_default();
        let mut opened = self.choose(Place::Folder(source(first)), name, keys)?;
        opened.place = Place::Folder(source(&opened.public_key_der));
        if is_own {
            "the folder itself".clone_into(&mut opened.key_origin);
        }
        Ok(opened)
    }

    /// Takes the one of the keys that signed the log's checkpoint; the first where none did, and then nothing verifies.
    fn choose(&self, place: Place, name: String, keys: Vec<Vec<u8>>) -> Result<Opened, Failure> {
        let mut keys = keys.into_iter();
        let mut key = keys.next().unwrap_or_default();
        if keys.len() > 0 {
            let note = place.source().read(CHECKPOINT);
            let note = note
                .map_err(|error| unreadable(&error))?
                .unwrap_or_default();
            let signed = keys.find(|key| Checkpoint::verify(&note, key, None).is_ok());
            key = signed.unwrap_or(key);
        }
        Ok(Opened {
            place,
            name,
            public_key_der: key,
            key_origin: self
                .key
                .as_deref()
                .map_or_else(String::new, |path| path.display().to_string()),
            origin: self.origin.clone(),
        })
    }
}

impl Opened {
    /// Opens a log at a URL or in a folder, which is believed by this key.
    pub(super) fn at(log: &str, public_key_der: Vec<u8>) -> Result<Self, Failure> {
        let place = if log.starts_with("http://") || log.starts_with("https://") {
            let base = Url::parse(log)
                .map_err(|error| Failure::configuration(format!("{log}: {error}")))?;
            Place::Url(HttpSource::new(base).map_err(|error| unreadable(&error))?)
        } else {
            let kind = Arc::new(CtEntries);
            Place::Folder(FolderSource::new(Path::new(log), &public_key_der, kind))
        };
        Ok(Self {
            place,
            name: log.to_owned(),
            public_key_der,
            key_origin: "the trusted root".to_owned(),
            origin: None,
        })
    }

    fn source(&self) -> &dyn Source {
        self.place.source()
    }

    fn checkpoint(&self) -> Result<Checkpoint, Failure> {
        Checkpoint::read(self.source(), &self.public_key_der, self.origin.as_deref())
            .map_err(|error| self.failed(&error))
    }

    /// What a failed audit is to whoever asked for it.
    fn failed(&self, error: &AuditError) -> Failure {
        match error {
            AuditError::Source(error) => unreadable(error),
            AuditError::Missing(name) if name == CHECKPOINT => Failure::dependency(format!(
                "{}: there is no checkpoint here; the URL of a log ends before that, as in https://ca.example.com/ct/main/",
                self.name
            )),
            AuditError::Missing(_) | AuditError::Checkpoint(_) | AuditError::Wrong { .. } => {
                Failure::operation(error)
            }
        }
    }
}

/// What it is to whoever asked when a log cannot be read, or when a journal is none.
fn unreadable(error: &SourceError) -> Failure {
    match error {
        SourceError::Segment { .. } | SourceError::Store(StoreError::Damaged(_)) => {
            Failure::operation(error)
        }
        SourceError::Http { .. } | SourceError::Store(_) | SourceError::System(_) => {
            Failure::dependency(format!("the log cannot be read: {error}"))
        }
    }
}

fn not_exported(opened: &Opened, error: &ExportError) -> Failure {
    match error {
        ExportError::Audit(error) => opened.failed(error),
        ExportError::NotEmpty(_) | ExportError::Write { .. } => Failure::dependency(error),
    }
}

/// The keys in a PEM file, or of the logs of a `trusted_root.json`; DER.
fn read_keys(path: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let failed = |why: String| Failure::configuration(format!("{}: {why}", path.display()));
    let bytes = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    if let Ok(trusted_root) = serde_json::from_slice::<Value>(&bytes) {
        let logs = trusted_root.get("ctlogs").and_then(Value::as_array);
        let key = |log: &Value| {
            let key = log.pointer("/publicKey/rawBytes")?.as_str()?;
            STANDARD.decode(key).ok()
        };
        let keys = logs.into_iter().flatten().filter_map(key);
        let keys: Vec<_> = keys.collect();
        return if keys.is_empty() {
            Err(failed(
                "it names no certificate transparency log".to_owned(),
            ))
        } else {
            Ok(keys)
        };
    }
    let key = SubjectPublicKey::from_pem_or_der(&bytes);
    let key = key.map_err(|error| failed(format!("no public key: {error}")))?;
    Ok(vec![key.spki_der().to_vec()])
}

/// Prints a JSON document.
pub(super) fn print_json(document: &impl Serialize) -> Result<(), Failure> {
    let json = serde_json::to_string_pretty(document).map_err(Failure::defect)?;
    print(&(json + "\n"))
}

/// Lines of a name and a value, the values below each other.
struct Table(Vec<(&'static str, String)>);

impl Table {
    fn text(&self) -> String {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut text = String::new();
        for (name, value) in &self.0 {
            // Writing to a `String` does not fail.
            let _ = writeln!(text, "{name:<width$}  {}", super::plain(value));
        }
        text
    }
}

/// A number in groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of entries.
fn entries(number: u64) -> String {
    match number {
        1 => "1 entry".to_owned(),
        _ => format!("{} entries", grouped(number)),
    }
}

/// Reads the certificates of a PEM file, DER, in their order.
fn read_certificates(path: &Path) -> Result<Vec<Vec<u8>>, Failure> {
    let failed = |why: String| Failure::dependency(format!("{}: {why}", path.display()));
    let text = std::fs::read(path).map_err(|error| failed(error.to_string()))?;
    let blocks = pem::parse_many(text).map_err(|error| failed(error.to_string()))?;
    let mut seen = BTreeSet::new();
    let certificates: Vec<_> = blocks
        .into_iter()
        .filter(|block| block.tag() == "CERTIFICATE")
        .map(pem::Pem::into_contents)
        .filter(|der| seen.insert(der.clone()))
        .collect();
    if certificates.is_empty() {
        return Err(failed("it holds no certificate in PEM".to_owned()));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_from_their_end() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_234_567, "1,234,567"),
        ] {
            assert_eq!(grouped(number), text);
        }
        assert_eq!(entries(1), "1 entry");
        assert_eq!(entries(1_000), "1,000 entries");
    }
}
