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

    /// Time that passes whatever the clock is set to, counted from some point in the past; goes on while the machine sleeps.
    fn monotonic(&self) -> Duration;

    /// The current time in milliseconds since 1970, as RFC 6962 counts it. Times before 1970 are 0.
    fn now_millis(&self) -> u64 {
        millis(self.now())
    }
}

/// A time in milliseconds since 1970; 0 for one before.
#[must_use]
pub fn millis(time: OffsetDateTime) -> u64 {
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).unwrap_or(0)
}

/// A time as text (RFC 3339); the second since 1970 for years that such a text cannot hold.
#[must_use]
pub fn rfc3339(time: OffsetDateTime) -> String {
    time.format(&Rfc3339)
        .unwrap_or_else(|_| format!("second {}", time.unix_timestamp()))
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

    fn monotonic(&self) -> Duration {
        let passed = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let seconds = u64::try_from(passed.tv_sec).unwrap_or_default();
        Duration::new(seconds, u32::try_from(passed.tv_nsec).unwrap_or_default())
    }
}

/// How far a clock may be set while the process runs.
const MAX_STEP: time::Duration = time::Duration::seconds(5);

/// The clock was set by more than a correction.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "the clock was set by {seconds:+} s while the process ran; check its time source, then restart"
)]
pub struct ClockWasSet {
    /// By how many seconds; negative for back.
    pub seconds: i64,
}

/// Reads a clock, and refuses to once it was set by more than 5 s: certificates and timestamps of a doubtful clock could
/// not be told from good ones later.
///
/// Corrections below that are taken over. The refusal ends when the clock is set back to where it should be.
#[derive(Debug)]
pub struct ClockGuard {
    clock: std::sync::Arc<dyn Clock>,
    /// When the monotonic clock stood at zero, as of the last correction.
    origin: Mutex<OffsetDateTime>,
}

impl ClockGuard {
    /// Trusts the clock as it is set now.
    #[must_use]
    pub fn new(clock: std::sync::Arc<dyn Clock>) -> Self {
        let origin = clock.now() - clock.monotonic();
        Self {
            clock,
            origin: Mutex::new(origin),
        }
    }

    /// The time.
    ///
    /// # Errors
    /// When the clock was set by more than 5 s since the start, or since its last correction.
    pub fn now(&self) -> Result<OffsetDateTime, ClockWasSet> {
        let now = self.clock.now();
        let origin = now - self.clock.monotonic();
        let mut trusted = self
            .origin
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let step = origin - *trusted;
        if step.abs() > MAX_STEP {
            return Err(ClockWasSet {
                seconds: step.whole_seconds(),
            });
        }
        *trusted = origin;
        Ok(now)
    }
}

/// A clock that stands still until it is moved; for tests.
#[derive(Debug)]
pub struct FixedClock(Mutex<Instants>);

/// What the clock shows, and what it would show had nobody set it.
#[derive(Clone, Copy, Debug)]
struct Instants {
    wall: OffsetDateTime,
    monotonic: Duration,
}

impl FixedClock {
    /// Stands at `instant`, an RFC 3339 text such as `2026-01-02T03:04:05Z`.
    ///
    /// # Panics
    /// On a text that is not RFC 3339: a mistake in the test that wrote it.
    #[expect(clippy::expect_used, reason = "for tests, which should stop at once")]
    #[must_use]
    pub fn at(instant: &str) -> Self {
        let wall = OffsetDateTime::parse(instant, &Rfc3339).expect("an RFC 3339 instant");
        let monotonic = Duration::from_secs(1000);
        Self(Mutex::new(Instants { wall, monotonic }))
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let mut instants = self.lock();
        instants.wall += by;
        instants.monotonic += by;
    }

    /// Lets time pass until `to`; into the past, as if it had not come so far yet.
    pub fn move_to(&self, to: OffsetDateTime) {
        let mut instants = self.lock();
        let passed = time::Duration::try_from(instants.monotonic).unwrap_or_default();
        let passed = passed + (to - instants.wall);
        instants.monotonic = Duration::try_from(passed).unwrap_or_default();
        instants.wall = to;
    }

    /// Sets the clock, forward or back, as an operator or a time service does: no time passes.
    pub fn set(&self, to: OffsetDateTime) {
        self.lock().wall = to;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Instants> {
        // A panic elsewhere cannot leave a time half written.
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Clock for FixedClock {
    fn now(&self) -> OffsetDateTime {
        self.lock().wall
    }

    fn monotonic(&self) -> Duration {
        self.lock().monotonic
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_clock_that_is_set_is_doubted_until_it_is_set_back() {
        let clock = Arc::new(FixedClock::at("2026-01-02T03:04:05Z"));
        let guard = ClockGuard::new(Arc::clone(&clock) as _);
        clock.advance(Duration::from_secs(86_400));
        guard.now().unwrap();

        for seconds in [3600, -3600, 6, -6] {
            let right = clock.now();
            clock.set(right + time::Duration::seconds(seconds));
            assert_eq!(guard.now(), Err(ClockWasSet { seconds }));
            clock.advance(Duration::from_secs(60));
            assert_eq!(guard.now(), Err(ClockWasSet { seconds }));
            clock.set(right + Duration::from_secs(60));
            guard.now().unwrap();
        }
    }

    #[test]
    fn corrections_are_taken_over_however_many() {
        let clock = Arc::new(FixedClock::at("2026-01-02T03:04:05Z"));
        let guard = ClockGuard::new(Arc::clone(&clock) as _);
        for _ in 0..10 {
            clock.set(clock.now() + time::Duration::seconds(5));
            guard.now().unwrap();
        }
    }

    #[test]
    fn the_system_s_monotonic_clock_goes_forward() {
        let first = SystemClock.monotonic();
        assert!(first > Duration::ZERO && SystemClock.monotonic() >= first);
    }
}
