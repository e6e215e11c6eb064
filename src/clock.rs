//! The time, as something that is passed in.
//!
//! Nothing else in the crate reads the wall clock (`clippy.toml` forbids it), so a test can stand at any moment.

use std::fmt::Debug;
use std::sync::Mutex;
use std::time::Duration;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Where the time comes from.
pub trait Clock: Debug + Send + Sync {
    /// The current time, in UTC. Not monotonic.
    fn now(&self) -> OffsetDateTime;

    /// The current time in milliseconds since 1970, as RFC 6962 counts it. Times before 1970 are 0.
    fn now_millis(&self) -> u64 {
        u64::try_from(self.now().unix_timestamp_nanos() / 1_000_000).unwrap_or(0)
    }
}

/// The system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the wall clock"
    )]
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc()
    }
}

/// A clock that stands still until it is moved; for tests.
#[derive(Debug)]
pub struct FixedClock(Mutex<OffsetDateTime>);

impl FixedClock {
    /// Stands at `instant`, an RFC 3339 text such as `2026-01-02T03:04:05Z`.
    ///
    /// # Panics
    /// On a text that is not RFC 3339: a mistake in the test that wrote it.
    #[expect(clippy::expect_used, reason = "for tests, which should stop at once")]
    #[must_use]
    pub fn at(instant: &str) -> Self {
        Self(Mutex::new(
            OffsetDateTime::parse(instant, &Rfc3339).expect("an RFC 3339 instant"),
        ))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        *self.lock() += by;
    }

    /// Sets the clock, forward or back.
    pub fn set(&self, to: OffsetDateTime) {
        *self.lock() = to;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, OffsetDateTime> {
        // A panic elsewhere cannot leave a time half written.
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for FixedClock {
    fn now(&self) -> OffsetDateTime {
        *self.lock()
    }
}
