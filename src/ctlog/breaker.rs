//! Whether a log that failed is asked again yet.
//!
//! After a few failures in a row a log is left alone for a while, so that nobody waits for it; then one submission finds out
//! whether it is back. Each time in vain, the while doubles.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// So many failures in a row, and a log is left alone.
const MAX_FAILURES: u32 = 5;
/// For how long at first.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// For how long at most, whatever the log says of itself.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The failures of one log.
#[derive(Debug)]
pub(super) struct Breaker(Mutex<State>);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// It is asked. So many failures came in a row.
    Closed { failures: u32 },
    /// It is left alone.
    Open { until: Instant, pause: Duration },
    /// One submission finds out whether it is back.
    Trying { pause: Duration },
}

/// What a result changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Change {
    /// The log is left alone for this long.
    Opened(Duration),
    /// The log is back.
    Closed,
}

impl Breaker {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(State::Closed { failures: 0 }))
    }

    /// Lets a submission pass, or says for how long there is no use in asking. One that passes must be followed by a result.
    pub(super) fn admit(&self, now: Instant) -> Result<(), Duration> {
        let mut state = self.state();
        match *state {
            State::Closed { .. } => Ok(()),
            State::Open { until, .. } if now < until => Err(until - now),
            State::Open { pause, .. } => {
                *state = State::Trying { pause };
                Ok(())
            }
            State::Trying { .. } => Err(FIRST_PAUSE),
        }
    }

    /// The log did what it is for.
    pub(super) fn succeeded(&self) -> Option<Change> {
        let before = std::mem::replace(&mut *self.state(), State::Closed { failures: 0 });
        (!matches!(before, State::Closed { .. })).then_some(Change::Closed)
    }

    /// The log did not do what it is for.
    pub(super) fn failed(&self, now: Instant) -> Option<Change> {
        let mut state = self.state();
        let pause = match *state {
            State::Closed { failures } if failures + 1 < MAX_FAILURES => {
                let failures = failures + 1;
                *state = State::Closed { failures };
                return None;
            }
            State::Closed { .. } => FIRST_PAUSE,
            // Of a submission that began before.
            State::Open { .. } => return None,
            State::Trying { pause } => (2 * pause).min(LONGEST_PAUSE),
        };
        *state = open(now, pause);
        Some(Change::Opened(pause))
    }

    /// The log said that it wants to be left alone, or must not be believed: no further failure is waited for.
    pub(super) fn leave_alone(&self, now: Instant, pause: Duration) -> Option<Change> {
        let pause = pause.clamp(FIRST_PAUSE, LONGEST_PAUSE);
        let mut state = self.state();
        let was_open = matches!(*state, State::Open { .. });
        *state = open(now, pause);
        (!was_open).then_some(Change::Opened(pause))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(now: Instant, pause: Duration) -> State {
    let until = now + pause;
    State::Open { until, pause }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn opened(seconds: u64) -> Option<Change> {
        Some(Change::Opened(Duration::from_secs(seconds)))
    }

    /// One that was just opened, at `start`, for a second.
    fn open_breaker(start: Instant) -> Breaker {
        let breaker = Breaker::new();
        for _ in 1..MAX_FAILURES {
            assert_eq!(breaker.failed(start), None);
        }
        assert_eq!(breaker.failed(start), opened(1));
        breaker
    }

    #[test]
    fn a_log_that_fails_now_and_then_is_asked_all_the_same() {
        let (breaker, now) = (Breaker::new(), Instant::now());
        for _ in 0..10 {
            for _ in 1..MAX_FAILURES {
                assert_eq!(breaker.failed(now), None);
            }
            assert_eq!(breaker.succeeded(), None);
            assert_eq!(breaker.admit(now), Ok(()));
        }
    }

    #[test]
    fn after_five_failures_a_log_is_left_alone_and_then_asked_once() {
        let start = Instant::now();
        let breaker = open_breaker(start);
        assert_eq!(breaker.admit(start), Err(FIRST_PAUSE));
        // A submission from before that ends now changes nothing.
        assert_eq!(breaker.failed(start), None);
        assert_eq!(breaker.admit(after(start, 1)), Ok(()));
        assert!(breaker.admit(after(start, 1)).is_err(), "one is enough");
        assert_eq!(breaker.succeeded(), Some(Change::Closed));
        assert_eq!(breaker.admit(after(start, 1)), Ok(()));
    }

    #[test]
    fn a_log_that_stays_away_is_asked_less_and_less() {
        let mut now = Instant::now();
        let breaker = open_breaker(now);
        let mut pause = 1;
        for expected in [2, 4, 8, 16, 30, 30] {
            now = after(now, pause);
            assert_eq!(breaker.admit(now), Ok(()));
            assert_eq!(breaker.failed(now), opened(expected));
            pause = expected;
        }
        assert_eq!(breaker.succeeded(), Some(Change::Closed));
        let failures = (0..MAX_FAILURES).filter_map(|_| breaker.failed(now)).last();
        assert_eq!(failures, opened(1).as_ref().copied(), "it begins anew");
    }

    #[test]
    fn a_log_is_left_alone_as_long_as_it_asks_for_within_reason() {
        let now = Instant::now();
        for (asked, given) in [(0, 1), (7, 7), (86_400, 30)] {
            let breaker = Breaker::new();
            let change = breaker.leave_alone(now, Duration::from_secs(asked));
            assert_eq!(change, opened(given));
            assert_eq!(breaker.admit(now), Err(Duration::from_secs(given)));
        }
    }
}
