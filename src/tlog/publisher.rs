//! The publisher: follows the journal with tiles and checkpoints, off the path of the requests.
//!
//! The order is fixed: full tiles, then the checkpoint over them, and only then do readers see it. A crash between any two
//! leaves a store from which the same tiles come out again.
//!
//! In a store that several processes write, each of them publishes for all: whoever finds the stored checkpoint old
//! replaces exactly the one it has read, and the others follow.

use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::checkpoint::TreeHead;
use super::handover::{Taken, Taker};
use super::journal::{Committed, Tip};
use super::tile::{Edge, FullTile, TILE_WIDTH, TileKind, TilePath, cut_entries, cut_hashes};
use super::tree::Hash;
use super::{EntryFormat, LogParts, Shared, Timing};
use crate::keys::SignError;
use crate::parallel::try_map;
use crate::store::folder::write_durably;
use crate::store::{SharedStore, StoreError, Version};

/// The name of the published checkpoint.
pub(super) const CHECKPOINT: &str = "checkpoint";
/// The name of the pointer from which the next start reads the journal.
pub(super) const STATE: &str = "state.json";

/// How long to wait before trying again what failed.
const RETRY: Duration = Duration::from_secs(1);
/// After how long without a checkpoint that is due the log takes no more entries.
pub(super) const MAX_LAG: Duration = Duration::from_secs(10);
/// How often a process that has nothing to publish looks whether others have.
const LOOK: Duration = Duration::from_secs(10);
/// How often an overtaken publisher tries again at once, where there is no later.
const TRIES: usize = 3;
/// How often a store may show an older checkpoint than before until it is believed to have gone back.
const LOOKS_BACK: u32 = 3;

/// What a reader sees: one published tree. It never changes; the next one replaces it.
pub(super) struct View {
    pub(super) checkpoint: Arc<str>,
    pub(super) head: TreeHead,
    edge: Edge,
}

impl View {
    /// See [`super::Log::tile`].
    pub(super) fn tile(
        &self,
        path: TilePath,
        parts: &LogParts,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        let available = path.available(self.head.size);
        if path.width() > available {
            return Ok(None);
        }
        let cut = |tile: &[u8]| match path.kind() {
            TileKind::Hashes(_) => cut_hashes(tile, path.width()).map(<[u8]>::to_vec),
            TileKind::Data => cut_entries(&*parts.format, tile, path.width()).map(<[u8]>::to_vec),
        };
        if available < TILE_WIDTH {
            return Ok(cut(self.edge.partial(path.kind())));
        }
        let (store, format) = (&*parts.store, &*parts.format);
        let tile = self
            .edge
            .full_tile(path.kind(), path.index(), store, format)?;
        Ok(cut(&tile))
    }
}

/// From where the next start reads the journal. Advisory: without it, everything is read.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    /// All entries below are in full tiles.
    pub(super) folded_size: u64,
    /// The last segment that begins at or below that size.
    pub(super) folded_segment: u64,
}

#[derive(Debug)]
pub(super) enum PublishError {
    Store(StoreError),
    Sign(SignError),
    /// Two computations of one tree disagree: memory or disk flipped a bit.
    RootDiffers,
}

impl From<StoreError> for PublishError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// What came of a turn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Published {
    /// A checkpoint of everything that is durable.
    Yes,
    /// Nothing: the stored checkpoint is young enough.
    NotDue,
    /// Nothing: another process was quicker.
    Overtaken,
    /// Nothing: the clock is behind, or was set, and nothing may be signed.
    ClockIsOff,
}

/// When a checkpoint of a grown log is due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Urgency {
    /// As often as the timing says.
    Paced,
    /// At once.
    Now,
}

pub(super) struct Publisher {
    shared: Arc<Shared>,
    tree: Tree,
    /// Durable segments that are not in the tree yet, oldest first.
    waiting: VecDeque<Committed>,
    /// The end of the journal behind those.
    known: Tip,
    /// What was published when it was last looked at, in a store that others write too.
    stored: Option<Stored>,
    /// The last checkpoint of this process, and between which times the store took it.
    own: Option<(Vec<u8>, u64, u64)>,
    /// How often in a row the store showed an older checkpoint.
    looks_back: u32,
    /// The segment in the last pointer that was written.
    folded_segment: Option<u64>,
    /// Whether the last write of the high-water file failed.
    high_water_failed: bool,
}

/// The checkpoint in the store.
#[derive(Clone, Debug)]
struct Stored {
    bytes: Vec<u8>,
    head: TreeHead,
    version: Version,
    /// When it was first seen, by the clock that nobody sets.
    seen: Duration,
}

/// The tree over what is, or is to be, published.
#[derive(Clone)]
struct Tree {
    edge: Edge,
    /// The root that was computed for the same tree when its last segment was read.
    tip_root: Hash,
    /// Full tiles that are not written yet.
    full: Vec<FullTile>,
    /// Number and first index of the segments that a start may have to read from.
    starts: VecDeque<(u64, u64)>,
}

impl Tree {
    fn new(edge: Edge) -> Self {
        Self {
            tip_root: edge.root(),
            edge,
            full: Vec::new(),
            starts: VecDeque::new(),
        }
    }

    /// Takes a durable segment in.
    ///
    /// The leaves are hashed again here: a bit that flipped in memory since must not be signed.
    fn apply(
        &mut self,
        Committed { segment, tip }: &Committed,
        format: &dyn EntryFormat,
    ) -> Result<(), PublishError> {
        let leaves = segment
            .leaf_hashes(format)
            .map_err(|_| PublishError::RootDiffers)?;
        for (entry, leaf) in segment.entries.iter().zip(leaves) {
            self.edge.push(entry, leaf, &mut self.full);
        }
        self.tip_root = *tip.root();
        self.starts.push_back((segment.number, segment.first_index));
        Ok(())
    }

    /// The root, if two computations of it agree.
    fn root(&self) -> Result<Hash, PublishError> {
        let root = self.edge.root();
        if root == self.tip_root {
            Ok(root)
        } else {
            Err(PublishError::RootDiffers)
        }
    }

    /// Writes the tiles that became full, and reads them back: no checkpoint is signed over a tree that is not the stored
    /// one.
    fn write_tiles(&mut self, parts: &LogParts) -> Result<(), StoreError> {
        let LogParts { store, format, .. } = parts;
        try_map(store.at_once(), &self.full, |(path, tile)| {
            store.put_immutable(&path.to_string(), tile)?;
            if let Some(metrics) = &parts.metrics {
                match path.kind() {
                    TileKind::Hashes(_) => metrics.hash_tiles.wrote(tile.len()),
                    TileKind::Data => metrics.data_tiles.wrote(tile.len()),
                }
            }
            Ok(())
        })?;
        try_map(store.at_once(), &self.full, |(path, _)| {
            // Above a data tile lie all the tiles of hashes that it made full.
            if path.kind() == TileKind::Data {
                self.edge
                    .full_tile(path.kind(), path.index(), &**store, &**format)?;
            }
            Ok(())
        })?;
        self.full.clear();
        Ok(())
    }

    /// From where a start reads the journal, once all of this is published.
    fn state(&mut self) -> Option<State> {
        let folded_size = self.edge.size() / TILE_WIDTH * TILE_WIDTH;
        while self
            .starts
            .get(1)
            .is_some_and(|&(_, first_index)| first_index <= folded_size)
        {
            self.starts.pop_front();
        }
        let &(folded_segment, _) = self.starts.front()?;
        Some(State {
            folded_size,
            folded_segment,
        })
    }
}

impl Publisher {
    /// Follows the tree whose edge is `edge`, and which `tip` ends.
    pub(super) fn new(shared: Arc<Shared>, edge: Edge, tip: Tip) -> Self {
        Self {
            shared,
            tree: Tree::new(edge),
            waiting: VecDeque::new(),
            known: tip,
            stored: None,
            own: None,
            looks_back: 0,
            folded_segment: None,
            high_water_failed: false,
        }
    }

    /// Takes durable segments, oldest first.
    pub(super) fn receive(&mut self, segments: impl IntoIterator<Item = Committed>) {
        for committed in segments {
            // What another process wrote may have been read here and met by the sequencer too.
            if committed.segment.number >= self.known.next_number {
                self.known = committed.tip.clone();
                self.waiting.push_back(committed);
            }
        }
    }

    /// Takes everything that was received into the tree, and writes its tiles: for what is published already.
    pub(super) fn fold(&mut self) -> Result<(), PublishError> {
        self.apply_until(u64::MAX)?;
        Ok(self.tree.write_tiles(&self.shared.parts)?)
    }

    /// What readers saw of the tree so far, if that is the tree of `head`.
    pub(super) fn view_of(&self, head: TreeHead, checkpoint: &Arc<str>) -> Option<View> {
        (self.tree.edge.size() == head.size).then(|| View {
            checkpoint: Arc::clone(checkpoint),
            head,
            edge: self.tree.edge.clone(),
        })
    }

    fn apply_until(&mut self, size: u64) -> Result<(), PublishError> {
        while self.tree.edge.size() < size
            && let Some(committed) = self.waiting.pop_front()
        {
            self.tree.apply(&committed, &*self.shared.parts.format)?;
        }
        Ok(())
    }

    /// Publishes a checkpoint, if one is due; in a store that others write too, follows theirs first.
    pub(super) fn turn(&mut self, urgency: Urgency) -> Result<Published, PublishError> {
        let shared = Arc::clone(&self.shared);
        let Some(store) = shared.parts.store.as_shared() else {
            return self.publish(|checkpoint| {
                shared.parts.store.put_mutable(CHECKPOINT, checkpoint)?;
                Ok(true)
            });
        };
        let tries = if urgency == Urgency::Now { TRIES } else { 1 };
        for _ in 0..tries {
            let stored = self.refresh(store)?;
            let timing = shared.parts.timing;
            let interval = match (self.known.size() > stored.head.size, urgency) {
                (true, Urgency::Now) => Duration::ZERO,
                (true, Urgency::Paced) => timing.growth,
                (false, _) => timing.heartbeat,
            };
            if self.age(&stored) < interval {
                return Ok(Published::NotDue);
            }
            let replace =
                |checkpoint: &[u8]| store.replace(CHECKPOINT, checkpoint, Some(&stored.version));
            let published = self.publish(replace)?;
            if published != Published::Overtaken {
                return Ok(published);
            }
        }
        Ok(Published::Overtaken)
    }

    /// Publishes the first checkpoint of a log, where there is none.
    pub(super) fn publish_first(&mut self) -> Result<Published, PublishError> {
        let shared = Arc::clone(&self.shared);
        let store = &shared.parts.store;
        self.publish(|checkpoint| match store.as_shared() {
            None => store.put_mutable(CHECKPOINT, checkpoint).map(|()| true),
            Some(store) => store.replace(CHECKPOINT, checkpoint, None),
        })
    }

    /// Signs a checkpoint of everything that is durable; `put` stores it, unless another process was quicker.
    fn publish(
        &mut self,
        put: impl FnOnce(&[u8]) -> Result<bool, StoreError>,
    ) -> Result<Published, PublishError> {
        let shared = Arc::clone(&self.shared);
        let parts = &shared.parts;
        let Some(now) = shared.now() else {
            return Ok(Published::ClockIsOff);
        };
        // Of a try that comes to nothing, nothing may stay.
        let mut tree = self.tree.clone();
        for committed in &self.waiting {
            tree.apply(committed, &*parts.format)?;
        }
        let root = tree.root()?;
        tree.write_tiles(parts)?;

        // Strictly after every timestamp that it covers and every checkpoint before it.
        let newest = shared.newest_timestamp.load(Ordering::Acquire);
        let head = TreeHead {
            size: tree.edge.size(),
            root,
            timestamp: now.max(newest + 1),
        };
        let checkpoint = parts.key.checkpoint(&head).map_err(PublishError::Sign)?;
        shared.advance_newest(head.timestamp);
        let began = parts.clock.now_millis();
        if !put(checkpoint.as_bytes())? {
            return Ok(Published::Overtaken);
        }
        let ended = parts.clock.now_millis();
        self.own = Some((checkpoint.clone().into_bytes(), began, ended));
        if let Some(metrics) = &parts.metrics {
            metrics.checkpoints.wrote(checkpoint.len());
        }
        self.tree = tree;
        self.waiting.clear();
        self.show(checkpoint.into(), head);
        self.write_state()?;
        Ok(Published::Yes)
    }

    /// Looks at what is published, by whichever process, and shows it to readers.
    fn refresh(&mut self, store: &dyn SharedStore) -> Result<Stored, PublishError> {
        let found = store.read_version(CHECKPOINT)?.ok_or_else(|| {
            StoreError::Damaged(format!("{CHECKPOINT} is missing, which was there before"))
        })?;
        if let Some((own, began, ended)) = &self.own
            && *own == found.bytes
        {
            self.shared.compare_clock(found.written, *began, *ended);
        }
        let known = self.stored.take();
        if let Some(known) = known.filter(|known| known.bytes == found.bytes) {
            let stored = Stored {
                version: found.version,
                ..known
            };
            self.stored = Some(stored.clone());
            return Ok(stored);
        }
        let parts = &self.shared.parts;
        let head = parts.key.identity().verify(&found.bytes);
        let head = head.map_err(|error| StoreError::Damaged(format!("{CHECKPOINT}: {error}")))?;
        let shown = self.shared.view.load().as_ref().map(|view| view.head);
        if shown.is_some_and(|shown| head.timestamp < shown.timestamp) {
            self.looks_back += 1;
            let what = "it shows an older checkpoint than before".to_owned();
            return Err(if self.looks_back < LOOKS_BACK {
                StoreError::Unanswered(what).into()
            } else {
                StoreError::Damaged(what).into()
            });
        }
        self.looks_back = 0;
        let seen = parts.clock.monotonic();
        if shown != Some(head) {
            self.follow(store, head.size)?;
            self.apply_until(head.size)?;
            let root = self.tree.root()?;
            if (self.tree.edge.size(), root) != (head.size, head.root) {
                return Err(StoreError::Damaged(format!(
                    "the published checkpoint of {} entries is not of the tree in the journal",
                    head.size
                ))
                .into());
            }
            // They are in the store: who published has read them there.
            self.tree.full.clear();
            self.shared.advance_newest(head.timestamp);
            let checkpoint = String::from_utf8_lossy(&found.bytes).into();
            self.show(checkpoint, head);
        }
        let stored = Stored {
            bytes: found.bytes,
            head,
            version: found.version,
            seen,
        };
        self.stored = Some(stored.clone());
        Ok(stored)
    }

    /// Reads what other processes wrote into the journal, as far as `size` entries at least.
    fn follow(&mut self, store: &dyn SharedStore, size: u64) -> Result<(), PublishError> {
        while self.known.size() < size {
            let number = self.known.next_number;
            let segments = store.segments(number)?;
            if segments.is_empty() {
                let what =
                    format!("segment {number}, of which there is a checkpoint, is not there");
                return Err(StoreError::Unanswered(what).into());
            }
            for bytes in segments {
                let committed = self.shared.read(&self.known, &bytes)?;
                self.receive([committed]);
            }
        }
        self.shared.follow(&self.known);
        Ok(())
    }

    /// How old a stored checkpoint is: by its time, or by when it was first seen, as another process's clock may be ahead.
    fn age(&self, stored: &Stored) -> Duration {
        let clock = &self.shared.parts.clock;
        let by_time = clock.now_millis().saturating_sub(stored.head.timestamp);
        let by_sight = clock.monotonic().saturating_sub(stored.seen);
        by_sight.max(Duration::from_millis(by_time))
    }

    /// Shows a published tree, which is the present one, to readers.
    fn show(&mut self, checkpoint: Arc<str>, head: TreeHead) {
        if let Some(metrics) = &self.shared.parts.metrics {
            let seconds = i64::try_from(head.timestamp / 1000).unwrap_or(i64::MAX);
            metrics.checkpoint_timestamp.set(seconds);
        }
        self.remember(&checkpoint);
        self.shared.view.store(Some(Arc::new(View {
            checkpoint,
            head,
            edge: self.tree.edge.clone(),
        })));
    }

    /// Writes the high-water mark. Its failure is an alarm and no more: the log itself is sound.
    fn remember(&mut self, checkpoint: &str) {
        let keeps_it = self.shared.keeps_high_water.load(Ordering::Acquire);
        let Some(path) = self.shared.parts.high_water.as_ref().filter(|_| keeps_it) else {
            return;
        };
        match write_durably(path, checkpoint.as_bytes()) {
            Ok(()) => self.high_water_failed = false,
            Err(error) => {
                if !self.high_water_failed {
                    tracing::error!(
                        event = "log_high_water_not_written",
                        error = error.to_string(),
                        "the high-water file of the log cannot be written; a log taken back in time may go unnoticed"
                    );
                }
                self.high_water_failed = true;
            }
        }
    }

    fn write_state(&mut self) -> Result<(), PublishError> {
        let Some(state) = self.tree.state() else {
            return Ok(());
        };
        // It saves a start some reading, and need not cost more than that: each write of a bucket has its price.
        let is_shared = self.shared.parts.store.as_shared().is_some();
        if is_shared && self.folded_segment == Some(state.folded_segment) {
            return Ok(());
        }
        let json = serde_json::to_vec(&state)
            .map_err(|error| StoreError::io("write state.json")(error.into()))?;
        self.shared.parts.store.put_mutable(STATE, &json)?;
        self.folded_segment = Some(state.folded_segment);
        Ok(())
    }

    /// Runs until the sequencer is gone, then publishes what is left.
    pub(super) fn run(mut self, sequencer: &Taker<Committed>) {
        let mut last = Instant::now();
        let mut failing: Option<Failing> = None;
        let mut quiet_turns = 0;
        loop {
            let is_idle = failing.is_none() && self.is_published();
            let due = match &failing {
                Some(failing) => failing.last + RETRY,
                None => last + self.interval(is_idle, quiet_turns),
            };
            let wait = due.saturating_duration_since(Instant::now());
            let Taken {
                items,
                is_asked,
                is_last,
            } = if is_idle {
                sequencer.first(wait)
            } else {
                sequencer.all(wait)
            };
            if self.shared.has_failed() {
                return;
            }
            self.receive(items);
            let now = Instant::now();
            let is_urgent = failing.is_none() && self.shared.is_publication_urgent();
            if !is_last && !is_asked && !is_urgent && now < due {
                continue;
            }
            last = now;
            let shown_before = self.shown_at();
            let urgency = if is_last || is_urgent {
                Urgency::Now
            } else {
                Urgency::Paced
            };
            let result = self.turn(urgency);
            sequencer.answer();
            quiet_turns = if self.shown_at() == shown_before {
                quiet_turns + 1
            } else {
                0
            };
            match result {
                Ok(Published::ClockIsOff) => Failing::note(
                    &mut failing,
                    now,
                    &"the clock is behind the log, or was set",
                ),
                Ok(Published::Yes | Published::NotDue | Published::Overtaken) => {
                    Failing::end(&mut failing);
                }
                Err(PublishError::Store(error)) if error.is_passing() => {
                    Failing::note(&mut failing, now, &error);
                }
                Err(PublishError::Sign(error)) => Failing::note(&mut failing, now, &error),
                Err(PublishError::Store(error)) => {
                    self.shared.note_damage(&error);
                    return self.shared.fail(&error.to_string());
                }
                Err(PublishError::RootDiffers) => {
                    if let Some(metrics) = &self.shared.parts.metrics {
                        metrics.integrity_errors.inc();
                    }
                    return self.shared.fail(
                        "two computations of the log's tree disagree: memory or disk is failing",
                    );
                }
            }
            let is_stalled = failing
                .as_ref()
                .is_some_and(|failing| failing.since.elapsed() > MAX_LAG);
            self.shared.is_stalled.store(is_stalled, Ordering::Release);
            if is_last {
                return;
            }
        }
    }

    /// How long after the last turn the next one is.
    fn interval(&self, is_idle: bool, quiet_turns: u32) -> Duration {
        let parts = &self.shared.parts;
        let Timing {
            growth, heartbeat, ..
        } = parts.timing;
        match (parts.store.as_shared().is_some(), is_idle) {
            (false, true) => heartbeat,
            (false, false) => growth,
            // Others grow the log as well. The quieter it is, the less often that is looked for.
            (true, true) => growth.saturating_mul(1 << quiet_turns.min(10)).min(LOOK),
            // Two who always came at the same moment would always be in each other's way.
            (true, false) => growth + growth.mul_f64(parts.jitter() / 2.0),
        }
    }

    fn shown_at(&self) -> Option<u64> {
        let view = self.shared.view.load();
        view.as_ref().map(|view| view.head.timestamp)
    }

    /// Whether readers see everything that is known.
    fn is_published(&self) -> bool {
        let view = self.shared.view.load();
        view.as_ref()
            .is_some_and(|view| view.head.size == self.known.size())
    }
}

/// Since when publication fails, and when it was tried last.
struct Failing {
    since: Instant,
    last: Instant,
}

impl Failing {
    /// Notes a failure, and reports the first one.
    fn note(failing: &mut Option<Self>, now: Instant, why: &dyn Display) {
        if failing.is_none() {
            tracing::error!(
                event = "log_not_published",
                error = why.to_string(),
                "the log cannot publish a checkpoint; it tries again every second, and soon takes no more entries"
            );
        }
        let since = failing.as_ref().map_or(now, |failing| failing.since);
        *failing = Some(Self { since, last: now });
    }

    /// Reports the end of the failures, if there were any.
    fn end(failing: &mut Option<Self>) {
        if failing.take().is_some() {
            tracing::info!(
                event = "log_published",
                "the log publishes checkpoints again"
            );
        }
    }
}
