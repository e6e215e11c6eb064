//! A log written into an empty folder, made again from its entries: every file of static-ct-api, as any web server can serve
//! them, and as [`fsck`](super::fsck) and everything else here read them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::entries::EntryKind;
use super::follow::entries_from;
use super::source::{FolderSource, Source};
use super::{AuditError, CHECKPOINT, Checkpoint, issuer_name};
use crate::tlog::journal::Tip;
use crate::tlog::tile::{Edge, FullTile, TileKind, TilePath};
use crate::tlog::tree::{Hash, sha256};

/// What describes the log, where it has that.
const DESCRIPTION: &str = "log.v3.json";

/// Why nothing, or not all, was written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The log cannot be read, or is not what it says.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// Something is there already.
    #[error("{}: is not empty; a log is written into a folder of its own", .0.display())]
    NotEmpty(PathBuf),
    /// The folder cannot be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

/// What was written.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Exported {
    /// How many entries.
    pub entries: u64,
    /// How many tiles, of entries and of hashes.
    pub tiles: u64,
    /// How many certificates of chains.
    pub certificates: u64,
}

/// Writes the tree of a checkpoint into `folder`, which is made, or empty. From the journal, where `journal` is one: that is
/// the log itself, and shows what its tiles should be; else from the data tiles.
///
/// The checkpoint is written last: a folder without it is unfinished.
///
/// # Errors
/// See [`ExportError`].
pub fn export(
    source: &dyn Source,
    journal: Option<&FolderSource>,
    kind: &dyn EntryKind,
    checkpoint: &Checkpoint,
    folder: &Path,
    progress: &dyn Fn(u64),
) -> Result<Exported, ExportError> {
    let mut writer = Writer {
        folder,
        kind,
        edge: Edge::default(),
        full: Vec::new(),
        certificates: BTreeSet::new(),
        exported: Exported::default(),
        failure: None,
    };
    writer.begin()?;
    let size = checkpoint.signed.head.size;
    let mut take = |index: u64, entry: &[u8], leaf: &Hash| {
        if index.is_multiple_of(4096) {
            progress(index);
        }
        writer.push(index, entry, *leaf)
    };
    match journal {
        Some(journal) => entries_of_journal(journal, kind, size, &mut take)?,
        None => entries_from(source, kind, checkpoint, 0, &mut take)?,
    }
    if let Some(failure) = writer.failure.take() {
        return Err(failure);
    }
    if writer.edge.size() != size || writer.edge.root() != checkpoint.signed.head.root {
        return Err(AuditError::wrong(
            "the entries",
            "they do not have the root that the checkpoint signs",
        )
        .into());
    }
    writer.finish(source, checkpoint)
}

/// Hands over the entries of a journal, up to the size of the checkpoint, while each segment continues the one before it.
fn entries_of_journal(
    journal: &FolderSource,
    kind: &dyn EntryKind,
    size: u64,
    take: &mut dyn FnMut(u64, &[u8], &Hash) -> bool,
) -> Result<(), AuditError> {
    let mut tip = Tip::empty();
    let mut wrong = None;
    journal.segments(0, |segment| {
        let hashes = segment.entries.iter().map(|entry| kind.leaf_hash(entry));
        let leaves: Vec<Hash> = hashes.collect();
        match tip.extend(&segment, &leaves) {
            Ok(next) => tip = next,
            Err(error) => {
                let place = format!("journal, segment {}", segment.number);
                wrong = Some(AuditError::wrong(place, error.to_string()));
                return false;
            }
        }
        for ((index, entry), leaf) in (segment.first_index..).zip(&segment.entries).zip(&leaves) {
            if index >= size || !take(index, entry, leaf) {
                return false;
            }
        }
        true
    })?;
    wrong.map_or(Ok(()), Err)
}

struct Writer<'a> {
    folder: &'a Path,
    kind: &'a dyn EntryKind,
    edge: Edge,
    full: Vec<FullTile>,
    certificates: BTreeSet<Hash>,
    exported: Exported,
    failure: Option<ExportError>,
}

impl Writer<'_> {
    fn begin(&self) -> Result<(), ExportError> {
        let failed = |source| ExportError::Write {
            path: self.folder.to_owned(),
            source,
        };
        fs::create_dir_all(self.folder).map_err(failed)?;
        let mut inside = fs::read_dir(self.folder).map_err(failed)?;
        match inside.next() {
            None => Ok(()),
            Some(_) => Err(ExportError::NotEmpty(self.folder.to_owned())),
        }
    }

    /// Takes the next entry; `false` when it cannot be written.
    fn push(&mut self, index: u64, entry: &[u8], leaf: Hash) -> bool {
        let inspected = self.kind.inspect(index, entry);
        self.certificates.extend(inspected.chain);
        self.edge.push(entry, leaf, &mut self.full);
        for (path, tile) in std::mem::take(&mut self.full) {
            if let Err(error) = self.tile(path, &tile) {
                self.failure = Some(error);
                return false;
            }
        }
        true
    }

    fn tile(&mut self, path: TilePath, tile: &[u8]) -> Result<(), ExportError> {
        self.exported.tiles += 1;
        self.file(&path.to_string(), tile)
    }

    fn finish(
        mut self,
        source: &dyn Source,
        checkpoint: &Checkpoint,
    ) -> Result<Exported, ExportError> {
        let size = self.edge.size();
        self.exported.entries = size;
        let levels = (0..=7).map(TileKind::Hashes);
        for kind in [TileKind::Data].into_iter().chain(levels) {
            if let Some(path) = kind.partial_of(size) {
                let part = self.edge.partial(kind).to_vec();
                self.tile(path, &part)?;
            }
        }
        for fingerprint in std::mem::take(&mut self.certificates) {
            let name = issuer_name(&fingerprint);
            let der = source.read(&name).map_err(AuditError::from)?;
            let der = der.ok_or_else(|| AuditError::Missing(name.clone()))?;
            if sha256(&[&der]) != fingerprint {
                let what = "its content does not have the hash that its name says";
                return Err(AuditError::wrong(name, what).into());
            }
            self.file(&name, &der)?;
            self.exported.certificates += 1;
        }
        if let Some(description) = source.read(DESCRIPTION).map_err(AuditError::from)? {
            self.file(DESCRIPTION, &description)?;
        }
        self.file(CHECKPOINT, checkpoint.note.as_bytes())?;
        Ok(self.exported)
    }

    fn file(&self, name: &str, bytes: &[u8]) -> Result<(), ExportError> {
        let path = self.folder.join(name);
        let parent = path.parent().unwrap_or(self.folder);
        fs::create_dir_all(parent)
            .and_then(|()| fs::write(&path, bytes))
            .map_err(|source| ExportError::Write { path, source })
    }
}
