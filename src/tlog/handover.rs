//! The way from the sequencer to the publisher, who comes for what is there when a checkpoint is due.
//!
//! To wake the publisher for each segment would take longer than its work on one. Readers wake it, where what they want to
//! see may be news: they ask, and wait until it has looked.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use super::sync::{Arc, Condvar, Mutex, MutexGuard};

struct Way<T> {
    state: Mutex<State<T>>,
    for_taker: Condvar,
    for_askers: Condvar,
}

struct State<T> {
    items: Vec<T>,
    /// Whether the taker waits for a first item.
    waits_for_first: bool,
    /// Whether an item is there for which the taker is to come at once.
    is_urgent: bool,
    is_over: bool,
    /// How many questions were asked, and how many of them have been answered.
    asked: u64,
    taken: u64,
    answered: u64,
    is_taker_gone: bool,
}

/// The side that hands over.
pub(super) struct Giver<T>(Arc<Way<T>>);

/// The side that comes and takes.
pub(super) struct Taker<T>(Arc<Way<T>>);

/// Who wants the taker to look.
pub(super) struct Asker<T>(Arc<Way<T>>);

/// What was there.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Taken<T> {
    /// Oldest first.
    pub(super) items: Vec<T>,
    /// Whether somebody asks; to be [answered](Taker::answer).
    pub(super) is_asked: bool,
    /// Whether the giver is gone, and these were its last.
    pub(super) is_last: bool,
}

/// The sides of a new way.
pub(super) fn handover<T>() -> (Giver<T>, Taker<T>, Asker<T>) {
    let way = Arc::new(Way {
        state: Mutex::new(State {
            items: Vec::new(),
            waits_for_first: false,
            is_urgent: false,
            is_over: false,
            asked: 0,
            taken: 0,
            answered: 0,
            is_taker_gone: false,
        }),
        for_taker: Condvar::new(),
        for_askers: Condvar::new(),
    });
    (Giver(Arc::clone(&way)), Taker(Arc::clone(&way)), Asker(way))
}

impl<T> Way<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    const fn is_asked(&self) -> bool {
        self.asked > self.answered
    }

    /// Whether the taker is to come, however few items there are.
    const fn is_wanted(&self) -> bool {
        self.is_over || self.is_urgent || self.is_asked()
    }
}

impl<T> Giver<T> {
    /// Hands one over. It wakes the other side only where that waits for a first one, or where it is urgent.
    pub(super) fn give(&self, item: T, is_urgent: bool) {
        let mut state = self.0.lock();
        if state.is_taker_gone {
            // It has reported why.
            return;
        }
        state.items.push(item);
        state.is_urgent |= is_urgent;
        let is_waited_for = state.waits_for_first || is_urgent;
        drop(state);
        if is_waited_for {
            self.0.for_taker.notify_one();
        }
    }
}

impl<T> Drop for Giver<T> {
    fn drop(&mut self) {
        self.0.lock().is_over = true;
        self.0.for_taker.notify_one();
    }
}

impl<T> Taker<T> {
    /// Waits for one, for a question, or for the end of the giver, at most for `timeout`, and takes all there are.
    pub(super) fn first(&self, timeout: Duration) -> Taken<T> {
        self.take(timeout, true)
    }

    /// Lets them gather for `pause`, or until one is urgent, somebody asks or the giver is gone, and takes all.
    pub(super) fn all(&self, pause: Duration) -> Taken<T> {
        self.take(pause, false)
    }

    fn take(&self, timeout: Duration, waits_for_first: bool) -> Taken<T> {
        let mut state = self.0.lock();
        state.waits_for_first = waits_for_first;
        let end = Instant::now() + timeout;
        while !(state.is_wanted() || waits_for_first && !state.items.is_empty()) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            (state, _) = (self.0.for_taker)
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
        state.waits_for_first = false;
        state.is_urgent = false;
        state.taken = state.asked;
        Taken {
            items: std::mem::take(&mut state.items),
            is_asked: state.is_asked(),
            is_last: state.is_over,
        }
    }

    /// Tells those who had asked when the last items were taken that it has looked.
    pub(super) fn answer(&self) {
        let mut state = self.0.lock();
        state.answered = state.taken;
        drop(state);
        self.0.for_askers.notify_all();
    }
}

impl<T> Drop for Taker<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_taker_gone = true;
        state.items.clear();
        drop(state);
        self.0.for_askers.notify_all();
    }
}

impl<T> Asker<T> {
    /// Asks the taker to look, and waits until it has, at most for `timeout`; whether it has.
    pub(super) fn ask(&self, timeout: Duration) -> bool {
        let mut state = self.0.lock();
        state.asked += 1;
        let ticket = state.asked;
        self.0.for_taker.notify_one();
        let end = Instant::now() + timeout;
        loop {
            if state.answered >= ticket {
                return true;
            }
            let left = end.saturating_duration_since(Instant::now());
            if state.is_taker_gone || left.is_zero() {
                return false;
            }
            (state, _) = (self.0.for_askers)
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}
