//! The sequencer: the one thread that writes the journal.
//!
//! It takes whatever waits, makes one segment of it, and answers when that is durable. While the disk works, the next
//! batch gathers: nobody waits for a timer. A thread, because it must not be cancelled between a write and its sync.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use super::handover::Giver;
use super::journal::{Draft, MAX_ENTRIES, MAX_ENTRY_BYTES, MAX_SEGMENT_BYTES, Segment, Tip};
use super::tree::Hash;
use super::{AppendError, CLOCK_BEHIND, CLOSED, Entry, FAILED, Position, Shared};
use crate::store::Journal;

/// An entry that waits for its place.
pub(super) struct Pending {
    pub(super) entry: Box<dyn Entry>,
    pub(super) done: oneshot::Sender<Result<Position, AppendError>>,
}

/// A durable segment on its way to the publisher, with the root of the tree that it made.
pub(super) struct Committed {
    pub(super) segment: Segment,
    pub(super) tip_root: Hash,
}

pub(super) struct Sequencer {
    shared: Arc<Shared>,
    journal: Box<dyn Journal>,
    tip: Tip,
    publisher: Giver<Committed>,
}

/// What keeps a batch from being sequenced.
enum Refusal {
    /// This batch alone; nothing was written.
    Batch(AppendError),
    /// Everything from here on: the state of the journal is not known, or is not what was meant.
    Fatal(String),
}

impl Sequencer {
    pub(super) fn new(
        shared: Arc<Shared>,
        journal: Box<dyn Journal>,
        tip: Tip,
        publisher: Giver<Committed>,
    ) -> Self {
        Self {
            shared,
            journal,
            tip,
            publisher,
        }
    }

    /// Runs until every sender of `queue` is gone, or the log fails.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Pending>) {
        let mut received = Vec::with_capacity(MAX_ENTRIES);
        while queue.blocking_recv_many(&mut received, MAX_ENTRIES) > 0 {
            self.shared.step();
            gather(&mut queue, &mut received);
            // Who stopped waiting has told its client that there is no certificate.
            let waiting = received
                .drain(..)
                .filter(|pending| !pending.done.is_closed());
            let mut waiting: VecDeque<_> = waiting.collect();
            while !waiting.is_empty() {
                let (draft, waiters) = self.draft(&mut waiting);
                match self.commit(draft) {
                    Ok(first) => {
                        for (index, waiter) in (first.index..).zip(waiters) {
                            // Who left meanwhile leaves an entry without a certificate behind: harmless.
                            let _ = waiter.send(Ok(Position { index, ..first }));
                        }
                    }
                    Err(Refusal::Batch(error)) => refuse(waiters, &error),
                    Err(Refusal::Fatal(why)) => {
                        self.shared.fail(&why);
                        refuse(waiters, &FAILED);
                        return;
                    }
                }
            }
            self.shared.step();
        }
    }

    /// Encodes as many of the waiting entries as one segment takes.
    fn draft(&self, waiting: &mut VecDeque<Pending>) -> (Draft, Vec<Waiter>) {
        let now = self.shared.parts.clock.now_millis();
        let mut draft = Draft {
            entries: Vec::with_capacity(waiting.len()),
            leaves: Vec::with_capacity(waiting.len()),
            timestamp: now.max(self.tip.timestamp),
            nonce: [0; 16],
        };
        let mut waiters = Vec::with_capacity(waiting.len());
        let mut bytes = 0;
        while bytes < MAX_SEGMENT_BYTES
            && let Some(pending) = waiting.pop_front()
        {
            let position = Position {
                index: self.tip.size() + draft.entries.len() as u64,
                timestamp: draft.timestamp,
            };
            let entry = pending.entry.encode(position);
            let leaf = self.shared.parts.format.leaf_hash(&entry, position);
            let Some(leaf) = leaf.filter(|_| entry.len() <= MAX_ENTRY_BYTES) else {
                refuse([pending.done], &AppendError::NotAnEntry);
                continue;
            };
            bytes += entry.len();
            draft.entries.push(entry);
            draft.leaves.push(leaf);
            waiters.push(pending.done);
        }
        (draft, waiters)
    }

    /// Makes a segment durable and returns the position of its first entry.
    fn commit(&mut self, draft: Draft) -> Result<Position, Refusal> {
        let (start, entries) = (Instant::now(), draft.entries.len());
        let committed = self.try_commit(draft);
        if let Some(metrics) = &self.shared.parts.metrics {
            match &committed {
                Ok(_) => {
                    let entries = u32::try_from(entries).unwrap_or(u32::MAX);
                    metrics.batch_entries.observe(entries.into());
                    let seconds = start.elapsed().as_secs_f64();
                    metrics.sequencing_duration.observe(seconds);
                }
                Err(Refusal::Batch(CLOCK_BEHIND)) => metrics.clock_failures.inc(),
                Err(Refusal::Batch(KEY_SILENT)) => metrics.sign_failures.inc(),
                Err(_) => metrics.store_failures.inc(),
            }
        }
        committed
    }

    fn try_commit(&mut self, mut draft: Draft) -> Result<Position, Refusal> {
        // An empty segment would close the log.
        if draft.entries.is_empty() {
            return Err(Refusal::Batch(AppendError::NotAnEntry));
        }
        if self.shared.has_failed() {
            return Err(Refusal::Batch(FAILED));
        }
        if self.tip.is_closed {
            return Err(Refusal::Batch(CLOSED));
        }
        if self.shared.now().is_none() {
            return Err(Refusal::Batch(CLOCK_BEHIND));
        }
        let parts = &self.shared.parts;
        parts
            .random
            .fill(&mut draft.nonce)
            .map_err(|_| Refusal::Batch(FAILED))?;
        let bytes = self
            .tip
            .seal(&draft, &parts.key)
            .map_err(|_| Refusal::Batch(KEY_SILENT))?;
        // A wrong segment would stop the log for ever, so what is written is read back first, all the way to the root.
        let wrong = |error| Refusal::Fatal(format!("a segment came out wrong: {error}"));
        let segment = Segment::decode(&bytes).map_err(wrong)?;
        let leaves = segment.leaf_hashes(&*parts.format).map_err(wrong)?;
        let tip = self.tip.extend(&segment, &leaves).map_err(wrong)?;

        match self.journal.commit(segment.number, &bytes) {
            Ok(()) => self.shared.is_store_full.store(false, Ordering::Release),
            Err(error) if error.is_passing() => {
                self.shared.is_store_full.store(true, Ordering::Release);
                return Err(Refusal::Batch(AppendError::Store(
                    "there is no space left, or too many files are open",
                )));
            }
            Err(error) => return Err(Refusal::Fatal(error.to_string())),
        }

        let first = Position {
            index: segment.first_index,
            timestamp: segment.timestamp,
        };
        self.tip = tip;
        self.shared.advance_newest(first.timestamp);
        self.shared
            .tip_size
            .store(self.tip.size(), Ordering::Release);
        self.publisher.give(Committed {
            segment,
            tip_root: *self.tip.root(),
        });
        Ok(first)
    }
}

/// How often the sequencer lets others go first before it seals a segment.
const YIELDS: usize = 4;

/// Lets threads that compute go first, as long as they bring entries, and takes those.
///
/// A segment costs a signature, a sync and several wake-ups, whether it holds one entry or a hundred. On a machine with time
/// to spare a yield returns at once and brings nothing; on a busy one, the requests that wait for the processor reach this
/// batch instead of the next.
fn gather(queue: &mut mpsc::Receiver<Pending>, received: &mut Vec<Pending>) {
    for _ in 0..YIELDS {
        std::thread::yield_now();
        let before = received.len();
        while received.len() < MAX_ENTRIES
            && let Ok(pending) = queue.try_recv()
        {
            received.push(pending);
        }
        if received.len() == before {
            return;
        }
    }
}

const KEY_SILENT: AppendError = AppendError::Unavailable("its key does not answer");

type Waiter = oneshot::Sender<Result<Position, AppendError>>;

fn refuse(waiters: impl IntoIterator<Item = Waiter>, error: &AppendError) {
    for waiter in waiters {
        // Nobody to tell is no harm.
        let _ = waiter.send(Err(error.clone()));
    }
}
