//! The sequencer: the one thread that writes the journal.
//!
//! It takes whatever waits, makes one segment of it, and answers when that is durable. While the disk works, the next
//! batch gathers: nobody waits for a timer. A thread, because it must not be cancelled between a write and its sync.
//!
//! Where other processes write the same log, a segment may turn out to have a number that is taken. Then theirs is taken in,
//! and the entries, which nobody was told of, get the places behind it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::handover::Giver;
use super::journal::{
    Committed, Draft, MAX_ENTRIES, MAX_ENTRY_BYTES, MAX_SEGMENT_BYTES, Segment, Tip,
};
use super::{AppendError, CLOCK_BEHIND, CLOSED, Entry, FAILED, Position, Shared};
use crate::store::{Commit, Journal, StoreError};

/// An entry that waits for its place.
pub(super) struct Pending {
    pub(super) entry: Box<dyn Entry>,
    pub(super) done: oneshot::Sender<Result<Position, AppendError>>,
}

/// The longest pause before a store that did not answer is asked again.
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);
/// How long another process that wrote is counted with.
const RIVALRY: Duration = Duration::from_secs(10);
/// How many segments a process writes in a row before it lets others go first.
const TURN: u32 = 3;

pub(super) struct Sequencer {
    shared: Arc<Shared>,
    journal: Box<dyn Journal>,
    tip: Tip,
    publisher: Giver<Committed>,
    pace: Pace,
}

/// When the next segment may be written. Times are those of the clock that nobody sets.
#[derive(Debug, Default)]
struct Pace {
    /// When the last one was begun, and was durable.
    last: Option<(Duration, Duration)>,
    /// How many were written without a pause between them, up to the last.
    in_a_row: u32,
    /// When a segment of another process was met.
    rival: Option<Duration>,
    /// When it was last known where the journal ends.
    known: Duration,
}

impl Pace {
    /// How long the last write took; nothing before the first.
    fn write(&self) -> Duration {
        self.last
            .map_or(Duration::ZERO, |(began, ended)| ended.saturating_sub(began))
    }

    /// A segment was written.
    fn wrote(&mut self, began: Duration, ended: Duration) {
        let pause = self.last.map(|(_, before)| began.saturating_sub(before));
        let is_next = pause.is_some_and(|pause| pause < self.write());
        self.in_a_row = if is_next { self.in_a_row + 1 } else { 1 };
        self.last = Some((began, ended));
        self.known = ended;
    }

    /// Others wrote, as was seen now.
    fn met(&mut self, now: Duration) {
        self.rival = Some(now);
        self.known = now;
    }

    fn has_rival(&self, now: Duration) -> bool {
        self.rival
            .is_some_and(|at| now.saturating_sub(at) < RIVALRY)
    }
}

/// What came of a segment.
enum Placed {
    /// It is durable, and its first entry has this position.
    At(Position),
    /// Its number was taken; the tip is behind the winner's.
    Overtaken,
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
            pace: Pace::default(),
        }
    }

    /// Runs until every sender of `queue` is gone, or the log fails.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Pending>) {
        let mut received = Vec::with_capacity(MAX_ENTRIES);
        while queue.blocking_recv_many(&mut received, MAX_ENTRIES) > 0 {
            self.shared.step();
            self.give_way();
            gather(&mut queue, &mut received);
            if !self.sequence(received.drain(..).collect()) {
                return;
            }
            self.shared.step();
        }
    }

    /// Gives all that wait their places, or says why not; `false` once the log has failed.
    pub(super) fn sequence(&mut self, mut waiting: VecDeque<Pending>) -> bool {
        loop {
            // Who stopped waiting has told its client that there is no certificate.
            waiting.retain(|pending| !pending.done.is_closed());
            if waiting.is_empty() {
                return true;
            }
            self.give_way();
            self.catch_up();
            if let Err(error) = self.look() {
                let why = error.to_string();
                self.shared.fail(&why);
                refuse(waiting, &FAILED);
                return false;
            }
            let (draft, batch) = self.draft(&mut waiting);
            let waiters = batch.into_iter();
            match self.commit(draft) {
                Ok(Placed::At(first)) => {
                    for (index, pending) in (first.index..).zip(waiters) {
                        // Who left meanwhile leaves an entry without a certificate behind: harmless.
                        let _ = pending.done.send(Ok(Position { index, ..first }));
                    }
                }
                Ok(Placed::Overtaken) => waiters
                    .rev()
                    .for_each(|pending| waiting.push_front(pending)),
                Err(Refusal::Batch(error)) => refuse(waiters, &error),
                Err(Refusal::Fatal(why)) => {
                    self.shared.fail(&why);
                    refuse(waiters, &FAILED);
                    return false;
                }
            }
        }
    }

    /// Lets other processes write, and keeps to the pace that is paid for; entries gather meanwhile.
    ///
    /// Who lost a race writes again at once, and so would the winner, who began earlier: it would win for ever. So it pauses
    /// after a few segments in a row, for as long as a loser's next attempt takes.
    fn give_way(&mut self) {
        let parts = &self.shared.parts;
        let Some((began, ended)) = self.pace.last else {
            return;
        };
        let mut until = began + parts.timing.commit;
        let now = parts.clock.monotonic();
        if self.pace.in_a_row >= TURN && self.pace.has_rival(now) {
            let pause = parts.timing.pause * (1.0 + parts.jitter());
            until = until.max(ended + self.pace.write().mul_f64(pause));
        }
        let left = until.saturating_sub(now);
        if !left.is_zero() {
            thread::sleep(left);
        }
    }

    /// Goes on from where the publisher has read what other processes wrote.
    fn catch_up(&mut self) {
        if let Some(tip) = self.shared.take_followed()
            && tip.next_number > self.tip.next_number
        {
            self.tip = tip;
            self.pace.rival = Some(self.now());
        }
    }

    /// Where others write too, reads what they have written since this process knew last where the journal ends: it takes
    /// less time than a write that finds its number taken.
    fn look(&mut self) -> Result<(), StoreError> {
        let now = self.now();
        if !self.pace.has_rival(now) || now.saturating_sub(self.pace.known) < self.pace.write() {
            return Ok(());
        }
        let before = self.tip.next_number;
        // A store that does not answer is the write's to deal with.
        if self.journal.look(before).is_ok() {
            self.take_in()?;
        }
        let now = self.now();
        self.pace.known = now;
        if self.tip.next_number > before {
            self.pace.met(now);
        }
        Ok(())
    }

    fn now(&self) -> Duration {
        self.shared.parts.clock.monotonic()
    }

    /// Encodes as many of the waiting entries as one segment takes.
    fn draft(&self, waiting: &mut VecDeque<Pending>) -> (Draft, Vec<Pending>) {
        let now = self.shared.parts.clock.now_millis();
        let mut draft = Draft {
            entries: Vec::with_capacity(waiting.len()),
            leaves: Vec::with_capacity(waiting.len()),
            timestamp: now.max(self.tip.timestamp),
            nonce: [0; 16],
        };
        let mut batch = Vec::with_capacity(waiting.len());
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
                refuse([pending], &AppendError::NotAnEntry);
                continue;
            };
            bytes += entry.len();
            draft.entries.push(entry);
            draft.leaves.push(leaf);
            batch.push(pending);
        }
        (draft, batch)
    }

    /// Makes a segment durable.
    fn commit(&mut self, draft: Draft) -> Result<Placed, Refusal> {
        let (start, entries) = (Instant::now(), draft.entries.len());
        let committed = self.try_commit(draft);
        if let Some(metrics) = &self.shared.parts.metrics {
            match &committed {
                Ok(Placed::Overtaken) => metrics.conflicts.inc(),
                Ok(Placed::At(_)) => {
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

    fn try_commit(&mut self, mut draft: Draft) -> Result<Placed, Refusal> {
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

        let began = self.now();
        match self.write(segment.number, &bytes)? {
            Commit::Written => {
                let ended = self.now();
                self.pace.wrote(began, ended);
            }
            Commit::Taken => {
                self.take_in()
                    .map_err(|error| Refusal::Fatal(error.to_string()))?;
                let now = self.now();
                self.pace.met(now);
                return Ok(Placed::Overtaken);
            }
        }
        let first = Position {
            index: segment.first_index,
            timestamp: segment.timestamp,
        };
        self.advance(Committed { segment, tip });
        Ok(Placed::At(first))
    }

    /// Writes a segment. Comes back when it is known what became of it.
    fn write(&mut self, number: u64, bytes: &[u8]) -> Result<Commit, Refusal> {
        let shared = Arc::clone(&self.shared);
        let timing = shared.parts.timing;
        let began = Instant::now();
        let mut backoff = timing.backoff;
        loop {
            match self.journal.commit(number, bytes) {
                Ok(commit) => {
                    shared.is_store_full.store(false, Ordering::Release);
                    if shared.is_unanswered.swap(false, Ordering::AcqRel) {
                        tracing::info!(event = "log_store_back", "the log's store answers again");
                    }
                    return Ok(commit);
                }
                // It may be in the journal, or come to be in it: until that is known, nothing else may be written.
                Err(StoreError::Unanswered(why)) => {
                    if let Some(metrics) = &shared.parts.metrics {
                        metrics.unanswered.inc();
                    }
                    if began.elapsed() >= timing.append {
                        if !shared.is_unanswered.swap(true, Ordering::AcqRel) {
                            tracing::error!(
                                event = "log_store_unanswered",
                                error = why,
                                "the log's store does not say what became of a segment; entries are refused until it does"
                            );
                        }
                        if shared.is_stopping.load(Ordering::Acquire) {
                            return Err(Refusal::Fatal(format!(
                                "the log's store did not say what became of segment {number} until the end of the process; \
                                 the next start finds out"
                            )));
                        }
                    }
                    thread::sleep(backoff);
                    backoff = (backoff * 2).min(LONGEST_BACKOFF);
                }
                Err(error) if error.is_passing() => {
                    shared.is_store_full.store(true, Ordering::Release);
                    return Err(Refusal::Batch(AppendError::Store(
                        "there is no space left, or too many files are open",
                    )));
                }
                Err(error) => return Err(Refusal::Fatal(error.to_string())),
            }
        }
    }

    /// Takes in what other processes wrote.
    fn take_in(&mut self) -> Result<(), StoreError> {
        loop {
            match self.journal.next() {
                Ok(Some((_, bytes))) => {
                    let committed = self.shared.read(&self.tip, &bytes)?;
                    self.advance(committed);
                }
                Ok(None) => return Ok(()),
                // What was read so far is enough to go on from.
                Err(StoreError::Unanswered(_)) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// The journal has come to here.
    fn advance(&mut self, committed: Committed) {
        self.tip = committed.tip.clone();
        self.shared.advance(&self.tip);
        let is_urgent = self.shared.is_publication_urgent();
        self.publisher.give(committed, is_urgent);
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
        thread::yield_now();
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

fn refuse(waiters: impl IntoIterator<Item = Pending>, error: &AppendError) {
    for pending in waiters {
        // Nobody to tell is no harm.
        let _ = pending.done.send(Err(error.clone()));
    }
}
