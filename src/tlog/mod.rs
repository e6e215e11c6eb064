//! A verifiable log of opaque entries: an append-only Merkle tree in tiles, whose head is published as a checkpoint.
//!
//! The journal is the log: an entry has its index from the moment its segment is durable, and only then is anybody told.
//! Tiles, checkpoints and everything else are derived from the journal, later, and always come out the same.
//!
//! [`Log::append`] hands an entry to the sequencer, a thread that writes segments; the publisher, another, follows it with
//! tiles and checkpoints. Readers see what was published, never more.
//!
//! In a [shared store](crate::store::SharedStore) several processes write one log, each with its two threads. They race for
//! the next number of the journal; who loses takes the winner's segment in and gives its own entries the next places.

use std::fmt;
use std::fmt::Debug;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::{mpsc, oneshot};

use crate::clock::{Clock, ClockGuard, millis};
use crate::keys::SignError;
use crate::metrics::LogMetrics;
use crate::random::Random;
use crate::reason::Reason;
use crate::store::{SharedStore, Store, StoreError};

pub mod checkpoint;
mod handover;
pub mod journal;
pub mod leaf_index;
mod publisher;
mod recovery;
mod sequencer;
pub mod tile;
pub mod tree;

/// On what [`handover`] stands. What checks it in every order of its threads puts another in its place.
mod sync {
    pub(super) use std::sync::{Arc, Condvar, Mutex, MutexGuard};
}

use checkpoint::{CheckpointError, LogKey};
use handover::{Asker, handover};
use journal::{Committed, SegmentError, Tip};
use publisher::{MAX_LAG, PublishError, Urgency, View};
use sequencer::{Pending, Sequencer};
use tile::{TileKind, TilePath};
use tree::{Hash, Nodes};

/// How many entries may wait for the sequencer.
const QUEUE_LENGTH: usize = 4096;
/// How many entries may be in the journal and not yet published.
const MAX_UNPUBLISHED: u64 = 10_000;
/// From how many unpublished entries on a checkpoint is due at once: long before entries would be refused.
const MANY_UNPUBLISHED: u64 = MAX_UNPUBLISHED / 4;
/// How far the clock may be behind the newest timestamp of the log, or from the clock of its store, in milliseconds.
const MAX_CLOCK_BEHIND_MILLIS: u64 = 5_000;
/// How old what readers see may be when other processes write the log too.
const MAX_VIEW_AGE: Duration = Duration::from_millis(100);
/// How long a reader waits for the store to say whether there is news.
const REFRESH: Duration = Duration::from_secs(1);

/// Where an entry is in the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Position {
    /// Its index, from 0.
    pub index: u64,
    /// The time of its sequencing, milliseconds since 1970.
    pub timestamp: u64,
}

/// An entry that has no place yet.
pub trait Entry: Send {
    /// The entry in the form of data tiles, for the place that it got.
    fn encode(&self, position: Position) -> Vec<u8>;
}

/// What one kind of log knows of its entries.
pub trait EntryFormat: Debug + Send + Sync {
    /// Cuts the first entry off the content of a data tile; nothing when there is no whole one.
    fn split_first<'a>(&self, tile: &'a [u8]) -> Option<(&'a [u8], &'a [u8])>;

    /// The time that `entry` says it was sequenced, milliseconds since 1970; nothing when it is malformed.
    fn timestamp(&self, entry: &[u8]) -> Option<u64>;

    /// The hash of the leaf of `entry`; nothing when that is not exactly one well-formed entry for `position`.
    fn leaf_hash(&self, entry: &[u8], position: Position) -> Option<Hash>;
}

/// What a log is made of.
#[derive(Clone)]
pub struct LogParts {
    /// Where it lives.
    pub store: Arc<dyn Store>,
    /// Its name and key.
    pub key: LogKey,
    /// What its entries are.
    pub format: Arc<dyn EntryFormat>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The source of nonces.
    pub random: Arc<dyn Random>,
    /// A file outside the store that keeps the last published checkpoint, so that a store that went back in time is
    /// noticed.
    pub high_water: Option<PathBuf>,
    /// How long things take.
    pub timing: Timing,
    /// What happens is counted here.
    pub metrics: Option<LogMetrics>,
    /// Called once, with the reason, when the log cannot go on and the process has to end: what is on the disk is not
    /// known any more.
    pub on_fatal: Arc<dyn Fn(&str) + Send + Sync>,
}

impl LogParts {
    /// A number from 0 up to 1 by which this process differs from others that do the same.
    fn jitter(&self) -> f64 {
        let mut octets = [0; 2];
        // Without randomness everything else stops too.
        let _ = self.random.fill(&mut octets);
        f64::from(u16::from_be_bytes(octets)) / f64::from(u16::MAX)
    }
}

impl Debug for LogParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogParts")
            .field("store", &self.store)
            .field("origin", &self.key.identity().origin())
            .finish_non_exhaustive()
    }
}

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The longest that one entry waits for its index.
    pub append: Duration,
    /// The shortest time between two checkpoints of a growing log.
    pub growth: Duration,
    /// The time between two checkpoints of a log that does not grow.
    pub heartbeat: Duration,
    /// The shortest time between two segments of this process.
    pub commit: Duration,
    /// How long to wait before a store that did not answer is asked again, at first.
    pub backoff: Duration,
    /// How long a process that shares the log lets others go first after its turn, at least, in writes.
    pub pause: f64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            append: Duration::from_secs(2),
            growth: Duration::from_millis(200),
            heartbeat: Duration::from_secs(60),
            commit: Duration::ZERO,
            backoff: Duration::from_millis(50),
            pause: 1.0,
        }
    }
}

impl Timing {
    /// The timing in an object store, where every write has its price, and overwriting one object has its limits.
    ///
    /// `max_puts` is how many writes a second one process may make, tiles not counted.
    #[must_use]
    pub fn in_object_store(growth: Duration, max_puts: Option<f64>) -> Self {
        let default = Self {
            growth,
            ..Self::default()
        };
        let Some(max_puts) = max_puts else {
            return default;
        };
        // A quarter for checkpoints, the rest for segments.
        let every = |share: f64| Duration::try_from_secs_f64(1.0 / (max_puts * share));
        Self {
            growth: every(0.25).map_or(growth, |every| growth.max(every)),
            commit: every(0.75).unwrap_or_default(),
            ..default
        }
    }
}

/// Why a log cannot be created or opened. The texts are for operators.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key failed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// There is something where a log is to be created.
    #[error("there is a log already: {0}")]
    Exists(String),
    /// The store holds no log, or half of one.
    #[error(
        "{0} is missing: the folder is empty, was copied in part, or its creation was interrupted"
    )]
    Missing(&'static str),
    /// A stored checkpoint does not verify.
    #[error("{name}: {source}")]
    Checkpoint {
        /// Which one.
        name: String,
        /// Why.
        source: CheckpointError,
    },
    /// The journal holds a segment that is not the next one of this log.
    #[error(
        "the log is damaged: segment {number} of the journal: {source}; restore nothing over it, and look at the disk"
    )]
    Segment {
        /// Its number.
        number: u64,
        /// Why.
        source: SegmentError,
    },
    /// The tiles do not fit the journal.
    #[error(
        "the log is damaged: its tiles do not fit its journal ({0}); with the process stopped, remove `state.json` and the \
         folder `tile`: they are made again from the journal"
    )]
    Tiles(String),
    /// Another process has locked the high-water mark.
    #[error(
        "the high-water file {} is in use by another process: that one runs this log, or this one is a copy of it; of two \
         copies of a log only one may ever go on", .0.display()
    )]
    HighWaterLocked(PathBuf),
    /// What was published is not the beginning of what is stored.
    #[error(
        "{name} is of another tree: its {size} entries are not the first ones of the journal; keep the store as it is, and \
         start a new log with a new key"
    )]
    OtherTree {
        /// What remembers it.
        name: String,
        /// The published size.
        size: u64,
    },
    /// The store is older than what was published.
    #[error(
        "the log went back in time, or its end is damaged: {name} says {published} entries, the journal holds {found} that \
         fit; a log that lost entries must never go on: start a new log with a new key"
    )]
    RolledBack {
        /// What remembers more.
        name: String,
        /// The published size.
        published: u64,
        /// The size of the journal.
        found: u64,
    },
}

impl From<PublishError> for LogError {
    fn from(error: PublishError) -> Self {
        match error {
            PublishError::Store(StoreError::Conflict(name)) => Self::Tiles(name),
            PublishError::Store(error) => error.into(),
            PublishError::Sign(error) => error.into(),
            PublishError::RootDiffers => {
                StoreError::Damaged("two computations of its tree disagree".to_owned()).into()
            }
        }
    }
}

impl LogError {
    /// The code that clients and metrics see.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Store(error) => error.reason(),
            Self::Sign(_)
            | Self::Exists(_)
            | Self::Missing(_)
            | Self::Checkpoint { .. }
            | Self::Segment { .. }
            | Self::Tiles(_)
            | Self::HighWaterLocked(_)
            | Self::OtherTree { .. }
            | Self::RolledBack { .. } => Reason::CtUnavailable,
        }
    }
}

/// Why an entry got no index. It may still get one when the error is [`AppendError::Timeout`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AppendError {
    /// As many entries wait as may.
    #[error("the log's queue is full")]
    QueueFull,
    /// There was no answer in time.
    #[error("the log did not answer in time")]
    Timeout,
    /// The entry is too large, or not of the form that the log takes.
    #[error("the entry is malformed, or larger than {} KiB", journal::MAX_ENTRY_BYTES >> 10)]
    NotAnEntry,
    /// The log takes nothing now, for another reason than its store.
    #[error("the log cannot write: {0}")]
    Unavailable(&'static str),
    /// The log's store cannot be written.
    #[error("the log's store cannot be written: {0}")]
    Store(&'static str),
}

impl AppendError {
    /// The code that clients and metrics see.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::QueueFull | Self::Timeout => Reason::Overloaded,
            Self::Unavailable(_) => Reason::CtUnavailable,
            Self::Store(_) => Reason::StoreUnavailable,
            Self::NotAnEntry => Reason::CtRejected,
        }
    }
}

/// A running log. It stops when it is dropped; [`Self::shutdown`] says so.
pub struct Log {
    shared: Arc<Shared>,
    queue: RwLock<Option<mpsc::Sender<Pending>>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    publisher: Asker<Committed>,
    /// When the publisher last looked at what others published.
    refreshed: Mutex<Option<Instant>>,
    /// Keeps copies of the log from running beside it.
    _high_water_lock: Option<File>,
}

/// What the threads and the readers share.
struct Shared {
    parts: LogParts,
    /// A time that is ahead, once it is in a checkpoint, would keep the log from going on until it has come.
    clock: ClockGuard,
    /// What readers see; nothing before the first checkpoint of this process.
    view: ArcSwapOption<View>,
    tip_size: AtomicU64,
    /// Odd while the sequencer works on what it took from the queue.
    sequencer_steps: AtomicU64,
    /// The newest timestamp in the journal or in a checkpoint.
    newest_timestamp: AtomicU64,
    /// Set once; nothing is written after it.
    has_failed: AtomicBool,
    is_closed: AtomicBool,
    /// Whether publication has failed for too long.
    is_stalled: AtomicBool,
    /// Whether the store had no room for the last batch.
    is_store_full: AtomicBool,
    /// Whether it has not been known for long what became of the last segment.
    is_unanswered: AtomicBool,
    /// Whether the store's clock is another one.
    is_clock_off: AtomicBool,
    /// Whether the process is about to end.
    is_stopping: AtomicBool,
    /// Whether this process writes the high-water mark.
    keeps_high_water: AtomicBool,
    /// How far the journal goes that other processes have written, where the publisher has read it.
    followed: Mutex<Option<Tip>>,
}

/// How a log is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogHealth {
    /// Why it takes no entries, if so.
    pub writable: Result<(), AppendError>,
    /// Why its store takes nothing, if so.
    pub last_write_failed: Option<String>,
}

/// The blob that shows whether a store which was full takes something again.
const PROBE: &str = "probe";
/// The blob by which the clock is compared with the store's.
const CLOCK: &str = "clock";
/// About a small segment.
const PROBE_BYTES: usize = 4096;

impl Log {
    /// Creates an empty log, with its first checkpoint.
    ///
    /// # Errors
    /// When the store or the high-water file holds a log, or the store or the key fails.
    pub fn create(parts: &LogParts) -> Result<(), LogError> {
        recovery::create(parts)
    }

    /// Opens the log, verifies what its journal holds, publishes a checkpoint of it, and starts its threads.
    ///
    /// While the clock is behind the log's newest timestamp, nothing is published and [`Self::checkpoint`] is empty. While
    /// there is no room for a new checkpoint, readers see the stored one.
    ///
    /// # Errors
    /// See [`LogError`]; a log that may have been damaged or taken back in time is never continued.
    pub fn open(parts: LogParts) -> Result<Self, LogError> {
        let shared = Arc::new(Shared::new(parts));
        let recovered = recovery::recover(&shared)?;
        let mut publisher = recovered.publisher;
        match publisher.turn(Urgency::Now) {
            Ok(_) => {}
            Err(PublishError::Store(error)) if error.is_passing() => {
                tracing::error!(
                    event = "log_not_published",
                    error = error.to_string(),
                    "the log cannot publish a checkpoint; until it can, readers see the last one"
                );
                if shared.view.load().is_none() {
                    shared.view.store(recovered.published.map(Arc::new));
                }
            }
            Err(error) => return Err(error.into()),
        }
        let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
        let (to_publisher, from_sequencer, asker) = handover();
        let sequencer = Sequencer::new(
            Arc::clone(&shared),
            recovered.journal,
            recovered.tip,
            to_publisher,
        );
        let threads = vec![
            shared.spawn("sequencer", move || sequencer.run(receiver))?,
            shared.spawn("publisher", move || publisher.run(&from_sequencer))?,
        ];
        Ok(Self {
            shared,
            queue: RwLock::new(Some(sender)),
            threads: Mutex::new(threads),
            publisher: asker,
            refreshed: Mutex::new(None),
            _high_water_lock: recovered.high_water_lock,
        })
    }

    /// Gives an entry its place. When this returns one, the entry is durable there.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub async fn append(&self, entry: Box<dyn Entry>) -> Result<Position, AppendError> {
        let Some(metrics) = &self.shared.parts.metrics else {
            return self.enqueue(entry).await;
        };
        let start = Instant::now();
        metrics.pending_entries.inc();
        // Also when the caller goes away.
        let _waiting = OnDrop(|| metrics.pending_entries.dec());
        let answer = self.enqueue(entry).await;
        match &answer {
            Ok(_) => {
                metrics.appended.inc();
                metrics.append_wait.observe(start.elapsed().as_secs_f64());
            }
            Err(AppendError::QueueFull) => metrics.overloaded.inc(),
            Err(_) => metrics.append_failed.inc(),
        }
        answer
    }

    async fn enqueue(&self, entry: Box<dyn Entry>) -> Result<Position, AppendError> {
        self.shared.check_writable()?;
        let (done, answer) = oneshot::channel();
        {
            let queue = self.queue.read().unwrap_or_else(PoisonError::into_inner);
            let queue = queue.as_ref().ok_or(SHUTTING_DOWN)?;
            queue
                .try_send(Pending { entry, done })
                .map_err(|error| match error {
                    mpsc::error::TrySendError::Full(_) => AppendError::QueueFull,
                    mpsc::error::TrySendError::Closed(_) => FAILED,
                })?;
        }
        match tokio::time::timeout(self.shared.parts.timing.append, answer).await {
            Err(_) => Err(AppendError::Timeout),
            // The sequencer went away without an answer.
            Ok(Err(_)) => Err(FAILED),
            Ok(Ok(answer)) => answer,
        }
    }

    /// The latest checkpoint; nothing while the clock is behind after a start.
    #[must_use]
    pub fn checkpoint(&self) -> Option<Arc<str>> {
        let view = self.shared.view.load();
        view.as_ref().map(|view| Arc::clone(&view.checkpoint))
    }

    /// The head of the latest checkpoint.
    #[must_use]
    pub fn head(&self) -> Option<checkpoint::TreeHead> {
        self.shared.view.load().as_ref().map(|view| view.head)
    }

    /// Whether other processes may write this log too. What readers see is then as old as the last [`Self::refresh`].
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.shared.parts.store.as_shared().is_some()
    }

    /// Looks at what other processes published, unless that was done a moment ago; readers see it when this returns. Waits
    /// for the store. Where that does not answer, readers go on seeing what they saw.
    pub fn refresh(&self) {
        if !self.is_shared() {
            return;
        }
        // Who comes meanwhile waits for this look, and has it then.
        let mut refreshed = self
            .refreshed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if refreshed.is_none_or(|at| at.elapsed() > MAX_VIEW_AGE) {
            self.publisher.ask(REFRESH);
            *refreshed = Some(Instant::now());
        }
    }

    /// How many entries are in the journal.
    #[must_use]
    pub fn tip_size(&self) -> u64 {
        self.shared.tip_size.load(Ordering::Acquire)
    }

    /// Counts how often the sequencer has begun or ended to work on what it took: odd while it does. The same odd number,
    /// much later, is a sequencer that hangs.
    #[must_use]
    pub fn sequencer_steps(&self) -> u64 {
        self.shared.sequencer_steps.load(Ordering::Relaxed)
    }

    /// Whether the log takes entries now.
    #[must_use]
    pub fn is_writable(&self) -> bool {
        let queue = self.queue.read().unwrap_or_else(PoisonError::into_inner);
        queue.as_ref().is_some_and(|queue| !queue.is_closed())
            && self.shared.check_writable().is_ok()
    }

    /// Whether the log takes entries, and whether its store took the last ones.
    ///
    /// A store that was full is tried again here: nobody may send entries while the log is not ready.
    #[must_use]
    pub fn health(&self) -> LogHealth {
        let is_stopping = || {
            let queue = self.queue.read().unwrap_or_else(PoisonError::into_inner);
            queue.is_none()
        };
        let writable = if is_stopping() {
            Err(SHUTTING_DOWN)
        } else {
            self.shared.check_writable()
        };
        let shared = &self.shared;
        let mut last_write_failed = None;
        if shared.is_store_full.load(Ordering::Acquire) {
            match shared.parts.store.put_mutable(PROBE, &[0; PROBE_BYTES]) {
                Ok(()) => shared.is_store_full.store(false, Ordering::Release),
                Err(error) => last_write_failed = Some(error.to_string()),
            }
        }
        LogHealth {
            writable,
            last_write_failed,
        }
    }

    /// How many tiles are worth reading at once.
    fn reads_at_once(&self) -> usize {
        self.shared.parts.store.at_once()
    }

    /// Returns a tile as far as its entries are published; nothing for one that has not that many.
    ///
    /// A full tile is read from the store, and has been checked up to the root of the latest checkpoint.
    ///
    /// # Errors
    /// When the store fails, has lost a published tile, or gives another back than was written.
    pub fn tile(&self, path: TilePath) -> Result<Option<Vec<u8>>, StoreError> {
        let read = || match self.shared.view.load().as_ref() {
            Some(view) => view.tile(path, &self.shared.parts),
            None => Ok(None),
        };
        let tile = match read() {
            // The reader may have seen a later checkpoint elsewhere.
            Ok(None) if self.is_shared() => {
                self.refresh();
                read()
            }
            tile => tile,
        };
        tile.inspect_err(|error| self.shared.note_damage(error))
    }

    /// The hashes that show that the entry at `index` is in the published tree of `size` entries; nothing when it is not,
    /// or `size` is not published.
    ///
    /// # Errors
    /// When the store fails.
    pub fn inclusion_proof(&self, index: u64, size: u64) -> Result<Option<Vec<Hash>>, StoreError> {
        if index >= size || !self.has_published(size) {
            return Ok(None);
        }
        tree::inclusion_proof(self, index, size).map(Some)
    }

    /// The hashes that show that the tree of `second` entries extends that of `first`; nothing when `first` is larger, or
    /// `second` is not published.
    ///
    /// # Errors
    /// When the store fails.
    pub fn consistency_proof(
        &self,
        first: u64,
        second: u64,
    ) -> Result<Option<Vec<Hash>>, StoreError> {
        if first > second || !self.has_published(second) {
            return Ok(None);
        }
        tree::consistency_proof(self, first, second).map(Some)
    }

    fn has_published(&self, size: u64) -> bool {
        let has = || self.head().is_some_and(|head| size <= head.size);
        has() || {
            self.refresh();
            has()
        }
    }

    /// Stops: takes nothing more, answers what waits, publishes a last checkpoint, ends the threads. Blocks until then.
    pub fn shutdown(&self) {
        self.shared.is_stopping.store(true, Ordering::Release);
        let queue = self
            .queue
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(queue);
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            // The end of a thread by a panic was reported as fatal by its watch.
            let _ = thread.join();
        }
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// Does something when it is dropped.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("parts", &self.shared.parts)
            .field("tip_size", &self.tip_size())
            .finish_non_exhaustive()
    }
}

impl Nodes for Log {
    type Error = StoreError;

    fn node(&self, level: u32, index: u64) -> Result<Hash, StoreError> {
        // A tile level is eight levels of the tree; the node is the root over a part of one tile.
        let within = level % 8;
        let first = index << within;
        let missing = || StoreError::Damaged(format!("node {index} of level {level} is missing"));
        let tile_level = u8::try_from(level / 8).map_err(|_| missing())?;
        let (tile_index, start) = (first / tile::TILE_WIDTH, first % tile::TILE_WIDTH);
        let end = start + (1 << within);
        let path = TilePath::of_width(TileKind::Hashes(tile_level), tile_index, end);
        let bytes = self.tile(path)?.ok_or_else(missing)?;
        let skipped = tile::cut_hashes(&bytes, start).ok_or_else(missing)?.len();
        Ok(tile::perfect_root(bytes.get(skipped..).unwrap_or_default()))
    }
}

const SHUTTING_DOWN: AppendError = AppendError::Unavailable("it is shutting down");
const FAILED: AppendError = AppendError::Store("it failed, and the process has to end");
const CLOSED: AppendError = AppendError::Unavailable("it was closed for good");
const UNANSWERED: AppendError = AppendError::Store("it does not answer");
const CLOCK_BEHIND: AppendError =
    AppendError::Unavailable("the clock is behind the log's newest entry, or was set");
const STALLED: AppendError = AppendError::Store("checkpoints cannot be published");

impl Shared {
    fn new(parts: LogParts) -> Self {
        Self {
            clock: ClockGuard::new(Arc::clone(&parts.clock)),
            parts,
            view: ArcSwapOption::empty(),
            tip_size: AtomicU64::new(0),
            sequencer_steps: AtomicU64::new(0),
            newest_timestamp: AtomicU64::new(0),
            has_failed: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            is_stalled: AtomicBool::new(false),
            is_store_full: AtomicBool::new(false),
            is_unanswered: AtomicBool::new(false),
            is_clock_off: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            keeps_high_water: AtomicBool::new(true),
            followed: Mutex::new(None),
        }
    }

    /// Says that the log cannot go on. Only the first call counts.
    fn fail(&self, why: &str) {
        if !self.has_failed.swap(true, Ordering::AcqRel) {
            (self.parts.on_fatal)(why);
        }
    }

    /// The sequencer begins or ends to work on a batch.
    fn step(&self) {
        self.sequencer_steps.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts what shows that the log is not what it was.
    fn note_damage(&self, error: &StoreError) {
        let is_damage = matches!(error, StoreError::Damaged(_) | StoreError::Conflict(_));
        if let Some(metrics) = self.parts.metrics.as_ref().filter(|_| is_damage) {
            metrics.integrity_errors.inc();
        }
    }

    /// Reads the segment behind `tip` that another process wrote.
    fn read(&self, tip: &Tip, bytes: &[u8]) -> Result<Committed, StoreError> {
        let LogParts { key, format, .. } = &self.parts;
        tip.read(bytes, key.identity(), &**format).map_err(|error| {
            let number = tip.next_number;
            StoreError::Damaged(format!("segment {number} of the journal: {error}"))
        })
    }

    /// The journal has come to `tip`.
    fn advance(&self, tip: &Tip) {
        self.advance_newest(tip.timestamp);
        self.tip_size.fetch_max(tip.size(), Ordering::AcqRel);
        self.is_closed.fetch_or(tip.is_closed, Ordering::AcqRel);
    }

    /// The publisher has read the journal up to `tip`, which may be further than the sequencer has come.
    fn follow(&self, tip: &Tip) {
        self.advance(tip);
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        *followed = Some(tip.clone());
    }

    /// What the publisher has read since the sequencer last asked.
    fn take_followed(&self) -> Option<Tip> {
        let mut followed = self.followed.lock().unwrap_or_else(PoisonError::into_inner);
        followed.take()
    }

    /// Compares the clock with the store's, by a blob written for that.
    fn try_clock(&self, store: &dyn SharedStore) -> Result<(), StoreError> {
        let began = self.parts.clock.now_millis();
        store.put_mutable(CLOCK, b"")?;
        if let Some(found) = store.read_version(CLOCK)? {
            self.compare_clock(found.written, began, self.parts.clock.now_millis());
        }
        Ok(())
    }

    /// Notes whether the clock is far from the store's, which took something at `written`: between `began` and `ended` here.
    ///
    /// Many processes write one log; one whose clock is ahead would stop all those whose clock is right.
    fn compare_clock(&self, written: u64, began: u64, ended: u64) {
        let is_off = written.saturating_add(MAX_CLOCK_BEHIND_MILLIS) < began
            || written > ended.saturating_add(MAX_CLOCK_BEHIND_MILLIS);
        if is_off && !self.is_clock_off.swap(is_off, Ordering::AcqRel) {
            tracing::error!(
                event = "log_clock_off",
                store = written,
                own = ended,
                "the clock differs from that of the log's store by more than 5 s; nothing is signed. Check the time source"
            );
        }
        self.is_clock_off.store(is_off, Ordering::Release);
    }

    fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Acquire)
    }

    /// The time for a new segment or checkpoint: the clock's, or nothing while it is behind the newest timestamp, or was set.
    fn now(&self) -> Option<u64> {
        let now = millis(self.clock.now().ok()?);
        if self.is_clock_off.load(Ordering::Acquire) {
            return None;
        }
        let newest = self.newest_timestamp.load(Ordering::Acquire);
        (newest <= now.saturating_add(MAX_CLOCK_BEHIND_MILLIS)).then_some(now)
    }

    fn advance_newest(&self, timestamp: u64) {
        self.newest_timestamp.fetch_max(timestamp, Ordering::AcqRel);
    }

    fn check_writable(&self) -> Result<(), AppendError> {
        if self.has_failed() {
            return Err(FAILED);
        }
        if self.is_closed.load(Ordering::Acquire) {
            return Err(CLOSED);
        }
        if self.is_unanswered.load(Ordering::Acquire) {
            return Err(UNANSWERED);
        }
        let now = self.now().ok_or(CLOCK_BEHIND)?;
        if self.is_stalled.load(Ordering::Acquire) || self.is_publisher_late(now) {
            return Err(STALLED);
        }
        Ok(())
    }

    /// Whether too much waits for its publication, or has waited too long: a publisher that hangs in a system call cannot
    /// say so itself.
    fn is_publisher_late(&self, now: u64) -> bool {
        let unpublished = self.unpublished();
        let at = self.view.load().as_ref().map(|view| view.head.timestamp);
        let longest = self.parts.timing.heartbeat + MAX_LAG;
        let age = Duration::from_millis(now.saturating_sub(at.unwrap_or(now)));
        unpublished > MAX_UNPUBLISHED || (unpublished > 0 && age > longest)
    }

    /// Whether so much waits for its publication that it should not wait for its time.
    fn is_publication_urgent(&self) -> bool {
        self.unpublished() > MANY_UNPUBLISHED
    }

    /// How many entries are in the journal and not yet published.
    fn unpublished(&self) -> u64 {
        let published = self.view.load().as_ref().map_or(0, |view| view.head.size);
        let tip_size = self.tip_size.load(Ordering::Acquire);
        tip_size.saturating_sub(published)
    }

    /// Starts a thread whose end by a panic is fatal.
    fn spawn(
        self: &Arc<Self>,
        name: &'static str,
        body: impl FnOnce() + Send + 'static,
    ) -> Result<JoinHandle<()>, StoreError> {
        let watch = Watch {
            shared: Arc::clone(self),
            name,
        };
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let watch = watch;
                body();
                drop(watch);
            })
            .map_err(|source| StoreError::Io {
                doing: format!("start the thread {name}"),
                source,
            })
    }
}

/// Reports a thread that panics: a log without it looks alive and is not.
struct Watch {
    shared: Arc<Shared>,
    name: &'static str,
}

impl Drop for Watch {
    fn drop(&mut self) {
        if thread::panicking() {
            self.shared
                .fail(&format!("the thread {} of the log panicked", self.name));
        }
    }
}

#[cfg(test)]
mod handover_tests;
#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the trees of tests are small"
)]
mod simulation;
#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    reason = "the trees of tests are small"
)]
mod tests;
