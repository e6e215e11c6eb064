//! Creating a log, and finding it again after whatever happened.
//!
//! Everything that is read is verified. What does not fit stops the start: a log that went on after damage, or from an
//! older copy, would sign two different trees.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use super::checkpoint::TreeHead;
use super::journal::{Segment, Tip};
use super::publisher::{CHECKPOINT, Published, Publisher, STATE, State, View};
use super::tile::Edge;
use super::tree::Hash;
use super::{LogError, LogParts, Shared};
use crate::store::folder::lock;
use crate::store::{Journal, StoreError};

/// How often a journal that ends too early is read on.
const LOOKS: u32 = 3;

/// A log as it was found: verified, durable, nothing published yet.
pub(super) struct Recovered {
    pub(super) journal: Box<dyn Journal>,
    pub(super) tip: Tip,
    pub(super) publisher: Publisher,
    /// What readers saw last; nothing where that lies before what was read of the journal.
    pub(super) published: Option<View>,
    pub(super) high_water_lock: Option<File>,
}

/// See [`super::Log::create`].
pub(super) fn create(parts: &LogParts) -> Result<(), LogError> {
    if parts.store.get(CHECKPOINT)?.is_some() {
        return Err(LogError::Exists(CHECKPOINT.to_owned()));
    }
    if let Some(path) = parts.high_water.as_deref().filter(|path| path.exists()) {
        return Err(LogError::Exists(format!(
            "the high-water file {} remembers it; a key that signed one tree must never start another: use a new key \
             and another file",
            path.display()
        )));
    }
    parts
        .store
        .create_journal(parts.key.identity().log_id())
        .map_err(|error| {
            if let StoreError::Conflict(name) = error {
                LogError::Exists(name)
            } else {
                error.into()
            }
        })?;
    let shared = Arc::new(Shared::new(parts.clone()));
    match Publisher::new(shared, Edge::default(), Tip::empty()).publish_first()? {
        Published::Yes | Published::NotDue => Ok(()),
        Published::Overtaken => Err(LogError::Exists(CHECKPOINT.to_owned())),
        Published::ClockIsOff => {
            Err(StoreError::Unsuitable("the clock was set meanwhile".to_owned()).into())
        }
    }
}

/// Reads and verifies the log, and makes what it found durable.
pub(super) fn recover(shared: &Arc<Shared>) -> Result<Recovered, LogError> {
    let parts = &shared.parts;
    if let Some(store) = parts.store.as_shared() {
        shared.try_clock(store)?;
    }
    let high_water_lock = lock_high_water(shared)?;
    let (note, head, mut marks) = read_marks(parts)?;
    let state = read_state(parts)?;

    let identity = parts.key.identity();
    let mut journal = parts
        .store
        .open_journal(identity.log_id(), state.folded_segment)?;
    // An object store may fail to show what it has: before a log is given up for lost, it is looked at again.
    let mut looks = parts.store.as_shared().map_or(0, |_| LOOKS);
    let mut look_again = || {
        let may_look = looks > 0;
        if may_look {
            looks -= 1;
            thread::sleep(parts.timing.backoff * 10);
        }
        may_look
    };
    let mut next = journal.next()?;
    while next.is_none() && state.folded_segment > 0 && look_again() {
        next = journal.next()?;
    }
    let (mut tip, edge) = match &next {
        Some((number, bytes)) if state.folded_segment > 0 => {
            let first = Segment::decode(bytes).map_err(|source| LogError::Segment {
                number: *number,
                source,
            })?;
            start_in_the_middle(parts, &first)?
        }
        _ => (Tip::empty(), Edge::default()),
    };
    marks.pass_below(&tip, parts)?;
    let mut publisher = Publisher::new(Arc::clone(shared), edge, tip.clone());
    let mut published = publisher.view_of(head, &note);
    loop {
        let Some((number, bytes)) = next else {
            if marks.are_reached(&tip, state) || !look_again() {
                break;
            }
            next = journal.next()?;
            continue;
        };
        let committed = tip
            .read(&bytes, identity, &*parts.format)
            .map_err(|source| LogError::Segment { number, source })?;
        tip = committed.tip.clone();
        marks.pass(&tip)?;
        publisher.receive([committed]);
        // What is published is durable for certain, so its tiles need not wait in memory.
        if tip.size() <= head.size {
            publisher.fold()?;
            published = publisher.view_of(head, &note);
        }
        next = journal.next()?;
    }
    marks.finish(&tip, state)?;
    journal.settle()?;

    shared.advance_newest(tip.timestamp);
    shared.advance_newest(marks.newest_timestamp);
    shared.tip_size.store(tip.size(), Ordering::Release);
    shared.is_closed.store(tip.is_closed, Ordering::Release);
    Ok(Recovered {
        journal,
        tip,
        publisher,
        published,
        high_water_lock,
    })
}

/// Locks the high-water mark for as long as the log is open: a copy of the log's folder has a lock of its own, but the same
/// mark.
///
/// The lock is on a file beside the mark, which every write replaces. Where that file cannot be made or is deleted, the
/// lock on the store still holds; it is the one to rely on.
fn lock_high_water(shared: &Shared) -> Result<Option<File>, LogError> {
    let parts = &shared.parts;
    let Some(path) = &parts.high_water else {
        return Ok(None);
    };
    let Ok(file) = File::create(path.with_added_extension("lock")) else {
        // The mark cannot be written either, and that is reported.
        return Ok(None);
    };
    match lock(&file) {
        // Processes that share a log may share a machine: one of them keeps the mark for all.
        Err(StoreError::Locked) if parts.store.as_shared().is_some() => {
            shared.keeps_high_water.store(false, Ordering::Release);
            Ok(None)
        }
        Err(StoreError::Locked) => Err(LogError::HighWaterLocked(path.clone())),
        _ => Ok(Some(file)),
    }
}

/// The tree before a segment that is not the first, from the tiles.
fn start_in_the_middle(parts: &LogParts, first: &Segment) -> Result<(Tip, Edge), LogError> {
    let edge = Edge::load(&*parts.store, &*parts.format, first.first_index);
    let edge = edge.map_err(|error| {
        if let StoreError::Damaged(what) = error {
            LogError::Tiles(what)
        } else {
            error.into()
        }
    })?;
    let tip = Tip::before(first, edge.range())
        .map_err(|_| LogError::Tiles(format!("segment {}", first.number)))?;
    Ok((tip, edge))
}

/// Reads the pointer into the journal; one that cannot be read means the journal's beginning.
fn read_state(parts: &LogParts) -> Result<State, LogError> {
    let json = parts.store.get(STATE)?;
    Ok(json
        .and_then(|json| serde_json::from_slice(&json).ok())
        .unwrap_or_default())
}

/// What was published and must be found again, each with the name of what remembers it.
struct Marks {
    waiting: Vec<(String, TreeHead)>,
    newest_timestamp: u64,
}

/// Reads the stored checkpoint, which is returned with its head, and, where there is one, the high-water mark.
fn read_marks(parts: &LogParts) -> Result<(Arc<str>, TreeHead, Marks), LogError> {
    let verify = |name: &str, note: &[u8]| {
        parts
            .key
            .identity()
            .verify(note)
            .map_err(|source| LogError::Checkpoint {
                name: name.to_owned(),
                source,
            })
    };
    let note = parts
        .store
        .get(CHECKPOINT)?
        .ok_or(LogError::Missing(CHECKPOINT))?;
    let published = verify("the stored checkpoint", &note)?;
    let mut waiting = vec![("the stored checkpoint".to_owned(), published)];
    if let Some(path) = &parts.high_water {
        let name = format!("the high-water file {}", path.display());
        match std::fs::read(path) {
            Ok(note) => waiting.push((name.clone(), verify(&name, &note)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => tracing::warn!(
                event = "log_high_water_missing",
                "{name} is missing and begins anew; whether the log was taken back in time cannot be told this once"
            ),
            Err(error) => return Err(StoreError::io(format!("read {name}"))(error).into()),
        }
    }
    let newest_timestamp = waiting
        .iter()
        .map(|(_, head)| head.timestamp)
        .max()
        .unwrap_or(0);
    Ok((
        String::from_utf8_lossy(&note).into(),
        published,
        Marks {
            waiting,
            newest_timestamp,
        },
    ))
}

impl Marks {
    /// Checks the marks that lie below the tree with which reading begins, by the tiles.
    fn pass_below(&mut self, tip: &Tip, parts: &LogParts) -> Result<(), LogError> {
        for (name, head) in &self.waiting {
            if head.size < tip.size() {
                let edge = Edge::load(&*parts.store, &*parts.format, head.size)?;
                compare(name, head, &edge.root())?;
            }
        }
        self.waiting.retain(|(_, head)| head.size >= tip.size());
        self.pass(tip)
    }

    /// Checks the marks that `tip` reaches. Checkpoints cover whole segments.
    fn pass(&mut self, tip: &Tip) -> Result<(), LogError> {
        for (name, head) in &self.waiting {
            if head.size == tip.size() {
                compare(name, head, tip.root())?;
            } else if head.size < tip.size() {
                return Err(other_tree(name, head));
            }
        }
        self.waiting.retain(|(_, head)| head.size > tip.size());
        Ok(())
    }

    /// Whether nothing says that there is more than `tip`.
    fn are_reached(&self, tip: &Tip, state: State) -> bool {
        self.waiting.is_empty() && state.folded_size <= tip.size()
    }

    /// Checks that none is left.
    fn finish(&self, tip: &Tip, state: State) -> Result<(), LogError> {
        let beyond = self
            .waiting
            .first()
            .map(|(name, head)| (name.as_str(), head.size))
            .or_else(|| (state.folded_size > tip.size()).then_some((STATE, state.folded_size)));
        match beyond {
            None => Ok(()),
            Some((name, published)) => Err(LogError::RolledBack {
                name: name.to_owned(),
                published,
                found: tip.size(),
            }),
        }
    }
}

fn compare(name: &str, head: &TreeHead, root: &Hash) -> Result<(), LogError> {
    if head.root == *root {
        Ok(())
    } else {
        Err(other_tree(name, head))
    }
}

fn other_tree(name: &str, head: &TreeHead) -> LogError {
    LogError::OtherTree {
        name: name.to_owned(),
        size: head.size,
    }
}
