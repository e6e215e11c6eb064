//! Keeps the log readable while everything fails: lines that say the same are written ten times a minute.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::reason::Reason;

/// How many lines for one reason are written within [`PERIOD`].
const LINES: u32 = 10;
const PERIOD: Duration = Duration::from_secs(60);

/// The lines that were written lately, and those that were not.
#[derive(Debug, Default)]
pub struct Repeats(Mutex<HashMap<Reason, Window>>);

#[derive(Debug)]
struct Window {
    start: Instant,
    written: u32,
    suppressed: u64,
}

impl Repeats {
    /// Whether a line for this reason is to be written; if so, how many were left out since the last one.
    pub fn admit(&self, reason: Reason, now: Instant) -> Option<u64> {
        // Counters are whole after any panic.
        let mut windows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = windows.entry(reason).or_insert_with(|| Window {
            start: now,
            written: 0,
            suppressed: 0,
        });
        if now.saturating_duration_since(window.start) >= PERIOD {
            window.start = now;
            window.written = 0;
        }
        if window.written == LINES {
            window.suppressed += 1;
            return None;
        }
        window.written += 1;
        Some(std::mem::take(&mut window.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_a_minute_are_written_for_each_reason_and_the_next_one_counts_the_others() {
        let repeats = Repeats::default();
        let start = Instant::now();
        for _ in 0..10 {
            assert_eq!(repeats.admit(Reason::CaError, start), Some(0));
        }
        for second in [0, 30, 59] {
            let now = start + Duration::from_secs(second);
            assert_eq!(repeats.admit(Reason::CaError, now), None);
        }
        assert_eq!(repeats.admit(Reason::Internal, start), Some(0));

        let next_minute = start + Duration::from_secs(60);
        assert_eq!(repeats.admit(Reason::CaError, next_minute), Some(3));
        assert_eq!(repeats.admit(Reason::CaError, next_minute), Some(0));
    }
}
