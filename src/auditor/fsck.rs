//! The whole log computed again from its entries, and compared with all that it serves.
//!
//! Where two files disagree, the tiles above them, up to the signed root, tell which of them is wrong; so one bad file makes
//! one finding, and not one in every level above it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use serde::Serialize;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::entries::{EntryKind, time_text};
use super::source::{FolderSource, Source, SourceError};
use super::tree::{CheckedTree, read_tile};
use super::{AuditError, Checkpoint, issuer_name};
use crate::tlog::journal::Tip;
use crate::tlog::tile::{TILE_WIDTH, TileKind, TilePath, perfect_root};
use crate::tlog::tree::{CompactRange, Hash, sha256};

/// How many findings are told one by one.
const MAX_FINDINGS: usize = 1000;
/// How many entries of one tile are told one by one.
const MAX_OF_A_TILE: usize = 8;

/// Something that does not hold.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Finding {
    /// Which file, or which entry of which file.
    pub place: String,
    /// What does not hold.
    pub what: String,
}

/// What was checked, and what was found.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// How many entries the checkpoint covers; all were read.
    pub entries: u64,
    /// How many tiles were compared, of entries and of hashes.
    pub tiles: u64,
    /// How many certificates of chains were compared with their names.
    pub certificates: usize,
    /// How many segments of the journal were read; absent where there is none.
    pub segments: Option<u64>,
    /// How many entries the journal holds behind the checkpoint.
    pub unpublished: Option<u64>,
    /// What is wrong, in the order of the log.
    pub findings: Vec<Finding>,
    /// How many findings there are besides.
    pub more_findings: u64,
}

impl Report {
    /// Whether nothing was found.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        self.findings.is_empty()
    }

    fn find(&mut self, place: impl ToString, what: impl Into<String>) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(Finding {
                place: place.to_string(),
                what: what.into(),
            });
        } else {
            self.more_findings += 1;
        }
    }
}

/// Checks everything that the checkpoint covers. `progress` hears how many entries are done.
///
/// # Errors
/// When the log cannot be read; whatever is wrong with it is in the report.
pub fn check(
    source: &dyn Source,
    kind: &dyn EntryKind,
    checkpoint: &Checkpoint,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Report, SourceError> {
    let (tree, wrong_edge) = match CheckedTree::open(source, kind, checkpoint) {
        Ok(tree) => (Some(tree), None),
        Err(AuditError::Source(error)) => return Err(error),
        Err(error) => (None, Some(error)),
    };
    let fsck = Fsck {
        source,
        kind,
        checkpoint,
        tree,
        report: Report {
            entries: checkpoint.signed.head.size,
            ..Report::default()
        },
    };
    let mut report = fsck.run(progress)?;
    // What is wrong at the edge was mostly found where it lies.
    if let Some(error) = wrong_edge.filter(|_| report.is_good()) {
        report.find(super::CHECKPOINT, error.to_string());
    }
    Ok(report)
}

struct Fsck<'a> {
    source: &'a dyn Source,
    kind: &'a dyn EntryKind,
    checkpoint: &'a Checkpoint,
    /// The tree that the tiles of hashes are, if they fit the checkpoint at their edge.
    tree: Option<CheckedTree<'a>>,
    report: Report,
}

/// What came of a data tile and the tile of leaves over it.
struct Column {
    findings: Vec<Finding>,
    /// The hashes of the leaves: those of the tree where that is known, else those of the entries.
    leaves: Vec<u8>,
    facts: Facts,
}

/// What entries say that has to be looked at together, each with the first entry that says it.
#[derive(Default)]
struct Facts {
    certificates: BTreeMap<Hash, u64>,
    /// First certificate of the chain, and the hash of its key.
    issuer_keys: BTreeMap<(Hash, Hash), u64>,
    with_index: Option<u64>,
    without_index: Option<u64>,
    /// The chain that was seen last: nearly always the next one too.
    last: (Vec<Hash>, Option<Hash>),
}

impl Facts {
    fn add(&mut self, index: u64, chain: Vec<Hash>, issuer_key_hash: Option<Hash>) {
        let said = (chain, issuer_key_hash);
        if said == self.last {
            return;
        }
        for fingerprint in &said.0 {
            self.certificates.entry(*fingerprint).or_insert(index);
        }
        if let (Some(first), Some(hash)) = (said.0.first(), said.1) {
            self.issuer_keys.entry((*first, hash)).or_insert(index);
        }
        self.last = said;
    }

    fn merge(&mut self, other: Self) {
        let first = |mine: &mut u64, theirs: u64| *mine = theirs.min(*mine);
        for (fingerprint, index) in other.certificates {
            first(self.certificates.entry(fingerprint).or_insert(index), index);
        }
        for (pair, index) in other.issuer_keys {
            first(self.issuer_keys.entry(pair).or_insert(index), index);
        }
        let least = |mine: Option<u64>, theirs: Option<u64>| mine.into_iter().chain(theirs).min();
        self.with_index = least(self.with_index, other.with_index);
        self.without_index = least(self.without_index, other.without_index);
    }
}

/// What all columns came to.
#[derive(Default)]
struct Columns {
    /// Findings with the number of their column.
    findings: Vec<(u64, Finding)>,
    /// The root over each full tile of leaves.
    roots: BTreeMap<u64, Hash>,
    /// The leaves behind them.
    last_leaves: Vec<u8>,
    facts: Facts,
    failure: Option<SourceError>,
}

impl<'a> Fsck<'a> {
    fn size(&self) -> u64 {
        self.checkpoint.signed.head.size
    }

    fn run(mut self, progress: &(dyn Fn(u64) + Sync)) -> Result<Report, SourceError> {
        let mut columns = self.columns(progress);
        if let Some(failure) = columns.failure {
            return Err(failure);
        }
        columns.findings.sort();
        for (_, finding) in columns.findings {
            self.report.find(finding.place, finding.what);
        }
        self.report.tiles = 2 * self.size().div_ceil(TILE_WIDTH);
        if let (Some(with), Some(without)) = (columns.facts.with_index, columns.facts.without_index)
        {
            let what = format!(
                "its timestamp says where it is, and that of entry {without} does not; all of a log's do, or none"
            );
            self.report.find(format_args!("entry {with}"), what);
        }
        let roots = columns.roots.into_values().collect();
        self.upper_levels(roots, columns.last_leaves)?;
        self.certificates(&columns.facts)?;
        Ok(self.report)
    }

    /// Checks all data tiles with the leaves over them, several at a time.
    fn columns(&self, progress: &(dyn Fn(u64) + Sync)) -> Columns {
        let count = self.size().div_ceil(TILE_WIDTH);
        let (next, done, is_over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        let columns = Mutex::new(Columns::default());
        let lock = || columns.lock().unwrap_or_else(PoisonError::into_inner);
        let work = || {
            let mut facts = Facts::default();
            while !is_over.load(Ordering::Relaxed) {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    break;
                }
                match self.column(index, std::mem::take(&mut facts)) {
                    Ok(column) => {
                        facts = column.facts;
                        let root = is_full(&column.leaves).then(|| perfect_root(&column.leaves));
                        let mut columns = lock();
                        match root {
                            Some(root) => {
                                columns.roots.insert(index, root);
                            }
                            None => columns.last_leaves = column.leaves,
                        }
                        let findings = column.findings.into_iter();
                        columns
                            .findings
                            .extend(findings.map(|finding| (index, finding)));
                    }
                    Err(error) => {
                        is_over.store(true, Ordering::Relaxed);
                        lock().failure.get_or_insert(error);
                        return;
                    }
                }
                let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                progress((done * TILE_WIDTH).min(self.size()));
            }
            lock().facts.merge(facts);
        };
        let readers = u64::try_from(self.source.readers()).unwrap_or(1).min(count);
        thread::scope(|scope| {
            for _ in 1..readers {
                scope.spawn(work);
            }
            work();
        });
        columns.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks one data tile and the leaves over it.
    fn column(&self, index: u64, facts: Facts) -> Result<Column, SourceError> {
        let first = index * TILE_WIDTH;
        let width = TILE_WIDTH.min(self.size() - first);
        let data_path = TilePath::of_width(TileKind::Data, index, width);
        let hash_path = TilePath::of_width(TileKind::Hashes(0), index, width);
        let mut column = Column {
            findings: Vec::new(),
            leaves: Vec::new(),
            facts,
        };
        let derived = match self.read(data_path)? {
            Some(tile) => self.leaves_of(first, width, data_path, &tile, &mut column),
            None => {
                column.find(data_path, MISSING);
                Vec::new()
            }
        };
        let stored = self.read(hash_path)?.unwrap_or_default();
        let mut wrong = Vec::new();
        column.leaves = self.decide(hash_path, &derived, &stored, &mut wrong, |at| {
            (
                format!("{data_path}, entry {}", first + at),
                "it is not the one that was logged".to_owned(),
            )
        })?;
        // What else such an entry says means nothing.
        let is_other = |finding: &Finding| wrong.iter().all(|wrong| wrong.place != finding.place);
        column.findings.retain(is_other);
        column.findings.extend(wrong);
        Ok(column)
    }

    /// The hashes of the entries of a data tile, as far as there are whole ones; and looks at each entry.
    fn leaves_of(
        &self,
        first: u64,
        width: u64,
        path: TilePath,
        tile: &[u8],
        column: &mut Column,
    ) -> Vec<u8> {
        let newest = self.checkpoint.signed.head.timestamp;
        let (mut rest, mut leaves) = (tile, Vec::new());
        for index in first..first + width {
            let place = || format!("{path}, entry {index}");
            let Some((entry, behind)) = self.kind.split_first(rest) else {
                column.find(place(), "it is cut short or malformed");
                return leaves;
            };
            rest = behind;
            leaves.extend(self.kind.leaf_hash(entry));
            let inspected = self.kind.inspect(index, entry);
            if let Some(problem) = inspected.problem {
                column.find(place(), problem);
            }
            if inspected.timestamp > newest {
                let what = format!(
                    "its time, {}, is after that of the checkpoint, {}",
                    time_text(inspected.timestamp),
                    time_text(newest)
                );
                column.find(place(), what);
            }
            let facts = &mut column.facts;
            let seen = if inspected.has_index {
                &mut facts.with_index
            } else {
                &mut facts.without_index
            };
            seen.get_or_insert(index);
            facts.add(index, inspected.chain, inspected.issuer_key_hash);
        }
        if !rest.is_empty() {
            column.find(path, "octets follow its last entry");
        }
        leaves
    }

    /// Compares a tile of hashes with what it should be by what lies below it, tells which of them is wrong, and returns the
    /// better one. `below` names what a hash of the tile stands for.
    fn decide(
        &self,
        path: TilePath,
        derived: &[u8],
        stored: &[u8],
        findings: &mut Vec<Finding>,
        below: impl Fn(u64) -> (String, String),
    ) -> Result<Vec<u8>, SourceError> {
        if derived == stored {
            return Ok(derived.to_vec());
        }
        let mut find = |place: String, what: String| findings.push(Finding { place, what });
        let expected = usize::try_from(path.width()).unwrap_or(usize::MAX) * 32;
        if stored.is_empty() {
            find(path.to_string(), MISSING.to_owned());
            return Ok(derived.to_vec());
        }
        let is_genuine = stored.len() == expected && self.is_genuine(path, stored)?;
        if !is_genuine {
            let what = match difference(derived, stored).first() {
                Some(at) if derived.len() == expected => {
                    format!("its hash {at} is not the one of what lies below it")
                }
                _ => "it is not the tile of the tree".to_owned(),
            };
            find(path.to_string(), what);
            // Half of a tile is no better than a wrong one.
            let better = if derived.len() == expected {
                derived
            } else {
                stored
            };
            return Ok(better.to_vec());
        }
        // What is missing below was found already.
        let known = derived.len().min(stored.len());
        let wrong = difference(derived, stored.get(..known).unwrap_or_default());
        for at in wrong.iter().take(MAX_OF_A_TILE) {
            let (place, what) = below(*at);
            find(place, what);
        }
        if let Some(more) = wrong
            .len()
            .checked_sub(MAX_OF_A_TILE)
            .filter(|more| *more > 0)
        {
            find(
                path.to_string(),
                format!("{more} more hashes differ from what lies below"),
            );
        }
        Ok(stored.to_vec())
    }

    /// Whether a tile of hashes is the one of the tree.
    fn is_genuine(&self, path: TilePath, stored: &[u8]) -> Result<bool, SourceError> {
        let (Some(tree), TileKind::Hashes(level)) = (&self.tree, path.kind()) else {
            return Ok(false);
        };
        let answer = if path.width() == TILE_WIDTH {
            tree.is_genuine(path, stored)
        } else {
            tree.hashes(level, path.index()).map(|tile| *tile == stored)
        };
        match answer {
            Err(AuditError::Source(error)) => Err(error),
            // Without what is above it, nothing speaks for it.
            Err(_) => Ok(false),
            Ok(is_genuine) => Ok(is_genuine),
        }
    }

    /// Checks the levels above the leaves, from the roots of the full tiles below, and the root of all.
    fn upper_levels(
        &mut self,
        mut roots: Vec<Hash>,
        last_leaves: Vec<u8>,
    ) -> Result<(), SourceError> {
        // The hashes of each level's last tile where that is not full, lowest level first: the right edge.
        let mut edge = vec![last_leaves];
        for level in 1.. {
            if roots.is_empty() {
                break;
            }
            let mut above = Vec::new();
            let mut last = Vec::new();
            for (index, hashes) in (0..).zip(roots.chunks(256)) {
                let width = u64::try_from(hashes.len()).unwrap_or(TILE_WIDTH);
                let path = TilePath::of_width(TileKind::Hashes(level), index, width);
                let derived = hashes.concat();
                let is_file = width == TILE_WIDTH || self.source.has_partial_tiles();
                let stored = if is_file {
                    self.read(path)?.unwrap_or_default()
                } else {
                    derived.clone()
                };
                let mut findings = Vec::new();
                let better = self.decide(path, &derived, &stored, &mut findings, |at| {
                    let below = index * TILE_WIDTH + at;
                    let below = TilePath::full(TileKind::Hashes(level - 1), below);
                    (
                        below.to_string(),
                        "it is not the tile of the tree".to_owned(),
                    )
                })?;
                for finding in findings {
                    // A tile below that went bad, or is missing, was found where it lies.
                    if !self.report.findings.contains(&finding) {
                        self.report.find(finding.place, finding.what);
                    }
                }
                self.report.tiles += 1;
                if is_full(&better) {
                    above.push(perfect_root(&better));
                } else {
                    last = better;
                }
            }
            edge.push(last);
            roots = above;
        }
        let root = root_of_edge(&edge);
        if root != self.checkpoint.signed.head.root {
            self.report.find(
                super::CHECKPOINT,
                "the entries do not have the root that it signs",
            );
        }
        Ok(())
    }

    /// Checks that every certificate of a chain is there, is what its name says, and has the key that entries name.
    fn certificates(&mut self, facts: &Facts) -> Result<(), SourceError> {
        let mut key_hashes = BTreeMap::new();
        for (fingerprint, index) in &facts.certificates {
            let name = issuer_name(fingerprint);
            let Some(der) = self.source.read(&name)? else {
                let what = format!("it is missing, and entry {index} names it");
                self.report.find(name, what);
                continue;
            };
            self.report.certificates += 1;
            if sha256(&[&der]) != *fingerprint {
                let what = "its content does not have the hash that its name says";
                self.report.find(name, what);
                continue;
            }
            match X509Certificate::from_der(&der) {
                Ok((_, certificate)) => {
                    key_hashes.insert(*fingerprint, sha256(&[certificate.public_key().raw]));
                }
                Err(_) => self.report.find(name, "it is not a certificate"),
            }
        }
        for ((fingerprint, said), index) in &facts.issuer_keys {
            if key_hashes.get(fingerprint).is_some_and(|hash| hash != said) {
                self.report.find(
                    format_args!("entry {index}"),
                    "it names another key than that of the first certificate of its chain",
                );
            }
        }
        Ok(())
    }

    fn read(&self, path: TilePath) -> Result<Option<Vec<u8>>, SourceError> {
        match read_tile(self.source, self.kind, path) {
            Ok(tile) => Ok(tile),
            Err(AuditError::Source(error)) => Err(error),
            Err(_) => Ok(None),
        }
    }
}

const MISSING: &str = "it is missing";

impl Column {
    fn find(&mut self, place: impl ToString, what: impl Into<String>) {
        self.findings.push(Finding {
            place: place.to_string(),
            what: what.into(),
        });
    }
}

fn is_full(tile: &[u8]) -> bool {
    tile.len() == 256 * 32
}

/// The places at which two tiles of hashes differ.
fn difference(one: &[u8], other: &[u8]) -> Vec<u64> {
    let (one, other) = (one.as_chunks::<32>().0, other.as_chunks::<32>().0);
    let pairs = (0..).zip(one.iter().zip(other));
    pairs
        .filter(|(_, (one, other))| one != other)
        .map(|(at, _)| at)
        .collect()
}

/// The root of the tree with this right edge, lowest level first.
fn root_of_edge(edge: &[Vec<u8>]) -> Hash {
    super::tree::root_of_edge(edge.iter().map(Vec::as_slice))
}

/// Checks the journal of a folder: that it is whole and signed, and that its beginning is the tree of the checkpoint.
///
/// # Errors
/// When it cannot be read.
pub fn check_journal(
    source: &FolderSource,
    kind: &dyn EntryKind,
    checkpoint: &Checkpoint,
    report: &mut Report,
) -> Result<(), SourceError> {
    let head = checkpoint.signed.head;
    let mut range = CompactRange::default();
    let mut tip = Tip::empty();
    let mut wrong = None;
    let mut is_covered = head.size == 0;
    let read = source.segments(0, |segment| {
        let leaves: Vec<Hash> = segment
            .entries
            .iter()
            .map(|entry| kind.leaf_hash(entry))
            .collect();
        for leaf in &leaves {
            range.push(*leaf);
            if range.size() == head.size {
                is_covered = range.root() == head.root;
            }
        }
        match tip.extend(&segment, &leaves) {
            Ok(next) => tip = next,
            Err(error) => wrong = Some((segment.number, error.to_string())),
        }
        wrong.is_none()
    });
    match read {
        Ok(()) => {}
        Err(SourceError::Segment { number, source }) => wrong = Some((number, source.to_string())),
        Err(SourceError::Store(crate::store::StoreError::Damaged(what))) => {
            report.find("journal", what);
            return Ok(());
        }
        Err(error) => return Err(error),
    }
    report.segments = Some(tip.next_number);
    if let Some((number, what)) = wrong {
        report.find(format_args!("journal, segment {number}"), what);
    } else if tip.size() < head.size {
        let what = format!(
            "it ends after {} entries, and the checkpoint covers {}",
            tip.size(),
            head.size
        );
        report.find("journal", what);
    } else if is_covered {
        report.unpublished = Some(tip.size() - head.size);
    } else {
        report.find("journal", "its beginning is not the tree of the checkpoint");
    }
    Ok(())
}
