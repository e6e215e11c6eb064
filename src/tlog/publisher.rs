//! The publisher: follows the journal with tiles and checkpoints, off the path of the requests.
//!
//! The order is fixed: full tiles, then the checkpoint over them, and only then do readers see it. A crash between any two
//! leaves a store from which the same tiles come out again.

use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::checkpoint::TreeHead;
use super::handover::{Taken, Taker};
use super::journal::Segment;
use super::sequencer::Committed;
use super::tile::{Edge, FullTile, TILE_WIDTH, TileKind, TilePath, cut_entries, cut_hashes};
use super::tree::Hash;
use super::{LogParts, Shared};
use crate::keys::SignError;
use crate::store::StoreError;
use crate::store::folder::write_durably;

/// The name of the published checkpoint.
pub(super) const CHECKPOINT: &str = "checkpoint";
/// The name of the pointer from which the next start reads the journal.
pub(super) const STATE: &str = "state.json";

/// How long to wait before trying again what failed.
const RETRY: Duration = Duration::from_secs(1);
/// After how long without a checkpoint that is due the log takes no more entries.
pub(super) const MAX_LAG: Duration = Duration::from_secs(10);

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

pub(super) struct Publisher {
    shared: Arc<Shared>,
    edge: Edge,
    /// The root that the sequencer computed for the same tree.
    tip_root: Hash,
    /// Full tiles that are not written yet.
    full: Vec<FullTile>,
    /// Number and first index of the segments that a start may have to read from.
    starts: VecDeque<(u64, u64)>,
    /// Whether the last write of the high-water file failed.
    high_water_failed: bool,
}

impl Publisher {
    /// Follows the tree whose edge is `edge`.
    pub(super) fn new(shared: Arc<Shared>, edge: Edge) -> Self {
        Self {
            shared,
            tip_root: edge.root(),
            edge,
            full: Vec::new(),
            starts: VecDeque::new(),
            high_water_failed: false,
        }
    }

    /// Takes a durable segment; `tip_root` is the root after it.
    ///
    /// The leaves are hashed again here: a bit that flipped in memory since must not be signed.
    pub(super) fn apply(&mut self, segment: &Segment, tip_root: Hash) -> Result<(), PublishError> {
        let format = Arc::clone(&self.shared.parts.format);
        let leaves = segment
            .leaf_hashes(&*format)
            .map_err(|_| PublishError::RootDiffers)?;
        for (entry, leaf) in segment.entries.iter().zip(leaves) {
            self.edge.push(entry, leaf, &mut self.full);
        }
        self.tip_root = tip_root;
        self.starts.push_back((segment.number, segment.first_index));
        Ok(())
    }

    /// Writes the tiles that became full, and reads them back: no checkpoint is signed over a tree that is not the stored
    /// one.
    pub(super) fn write_tiles(&mut self) -> Result<(), PublishError> {
        let LogParts { store, format, .. } = &self.shared.parts;
        for (path, tile) in &self.full {
            store
                .put_immutable(&path.to_string(), tile)
                .map_err(PublishError::Store)?;
            if let Some(metrics) = &self.shared.parts.metrics {
                match path.kind() {
                    TileKind::Hashes(_) => metrics.hash_tiles.wrote(tile.len()),
                    TileKind::Data => metrics.data_tiles.wrote(tile.len()),
                }
            }
        }
        for (path, _) in &self.full {
            // Above a data tile lie all the tiles of hashes that it made full.
            if path.kind() == TileKind::Data {
                self.edge
                    .full_tile(path.kind(), path.index(), &**store, &**format)
                    .map_err(PublishError::Store)?;
            }
        }
        self.full.clear();
        Ok(())
    }

    /// What readers saw of the tree that was applied so far, if that is the tree of `head`.
    pub(super) fn view_of(&self, head: TreeHead, checkpoint: &Arc<str>) -> Option<View> {
        (self.edge.size() == head.size).then(|| View {
            checkpoint: Arc::clone(checkpoint),
            head,
            edge: self.edge.clone(),
        })
    }

    /// Publishes a checkpoint of everything that was applied; `false` when the clock is behind and nothing may be signed.
    pub(super) fn publish(&mut self) -> Result<bool, PublishError> {
        let shared = Arc::clone(&self.shared);
        let Some(now) = shared.now() else {
            return Ok(false);
        };
        let root = self.edge.root();
        if root != self.tip_root {
            return Err(PublishError::RootDiffers);
        }
        self.write_tiles()?;

        // Strictly after every timestamp that it covers and every checkpoint before it.
        let newest = shared.newest_timestamp.load(Ordering::Acquire);
        let head = TreeHead {
            size: self.edge.size(),
            root,
            timestamp: now.max(newest + 1),
        };
        let checkpoint = shared
            .parts
            .key
            .checkpoint(&head)
            .map_err(PublishError::Sign)?;
        shared.advance_newest(head.timestamp);
        shared
            .parts
            .store
            .put_mutable(CHECKPOINT, checkpoint.as_bytes())
            .map_err(PublishError::Store)?;
        if let Some(metrics) = &shared.parts.metrics {
            metrics.checkpoints.wrote(checkpoint.len());
            let seconds = i64::try_from(head.timestamp / 1000).unwrap_or(i64::MAX);
            metrics.checkpoint_timestamp.set(seconds);
        }
        self.remember(&checkpoint);
        shared.view.store(Some(Arc::new(View {
            checkpoint: checkpoint.into(),
            head,
            edge: self.edge.clone(),
        })));
        self.write_state()?;
        Ok(true)
    }

    /// Writes the high-water mark. Its failure is an alarm and no more: the log itself is sound.
    fn remember(&mut self, checkpoint: &str) {
        let Some(path) = &self.shared.parts.high_water else {
            return;
        };
        match write_durably(path, checkpoint.as_bytes()) {
            Ok(()) => self.high_water_failed = false,
            Err(error) => {
                if !self.high_water_failed {
                    tracing::error!(
                        error = error.to_string(),
                        "the high-water file of the log cannot be written; a log taken back in time may go unnoticed"
                    );
                }
                self.high_water_failed = true;
            }
        }
    }

    fn write_state(&mut self) -> Result<(), PublishError> {
        let folded_size = self.edge.size() / TILE_WIDTH * TILE_WIDTH;
        while self
            .starts
            .get(1)
            .is_some_and(|&(_, first_index)| first_index <= folded_size)
        {
            self.starts.pop_front();
        }
        let Some(&(folded_segment, _)) = self.starts.front() else {
            return Ok(());
        };
        let state = State {
            folded_size,
            folded_segment,
        };
        let json = serde_json::to_vec(&state).map_err(|error| {
            PublishError::Store(StoreError::io("write state.json")(error.into()))
        })?;
        self.shared
            .parts
            .store
            .put_mutable(STATE, &json)
            .map_err(PublishError::Store)
    }

    /// Runs until the sequencer is gone, then publishes what is left.
    pub(super) fn run(mut self, sequencer: &Taker<Committed>) {
        let timing = self.shared.parts.timing;
        let mut last_published = Instant::now();
        let mut failing: Option<Failing> = None;
        loop {
            let is_idle = failing.is_none() && self.is_published();
            let due = match &failing {
                Some(failing) => failing.last + RETRY,
                None if is_idle => last_published + timing.heartbeat,
                None => last_published + timing.growth,
            };
            let wait = due.saturating_duration_since(Instant::now());
            let Taken { items, is_last } = if is_idle {
                sequencer.first(wait)
            } else {
                sequencer.all(wait)
            };
            if self.shared.has_failed() {
                return;
            }
            let mut result = items
                .iter()
                .try_for_each(|Committed { segment, tip_root }| self.apply(segment, *tip_root));
            let now = Instant::now();
            if result.is_ok() && (is_last || now >= due) {
                result = self.publish().map(|is_published| {
                    if is_published {
                        last_published = now;
                        Failing::end(&mut failing);
                    } else {
                        Failing::note(
                            &mut failing,
                            now,
                            &"the clock is behind the log, or was set",
                        );
                    }
                });
            }
            match result {
                Ok(()) => {}
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

    /// Whether readers see everything that was applied.
    fn is_published(&self) -> bool {
        let view = self.shared.view.load();
        view.as_ref()
            .is_some_and(|view| view.head.size == self.edge.size())
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
            tracing::info!("the log publishes checkpoints again");
        }
    }
}
