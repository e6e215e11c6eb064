//! Rate limits by client address, issuer and subject, and over all: token buckets in memory that does not grow.
//!
//! A bucket is one number, the time at which it will be full again (the generic cell rate algorithm, ITU-T I.371). Buckets
//! stand in tables of a fixed size, under a keyed hash, so that nobody can choose whose place they take. A bucket that is
//! full again is as good as none; where all places are taken, the one that is nearest to full makes room.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::hmac;
use time::OffsetDateTime;

use super::clients::subscriber;
use crate::metrics::RateScope;
use crate::random::{Random, RandomError};

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// Those of one client address.
    Ip,
    /// Those with tokens of one issuer of the configuration.
    Issuer,
    /// Those for one subject of an issuer.
    Subject,
    /// All.
    Global,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 4] = [Self::Ip, Self::Issuer, Self::Subject, Self::Global];

    /// The name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Issuer => "issuer",
            Self::Subject => "subject",
            Self::Global => "global",
        }
    }

    /// How many buckets are kept: 16 bytes each, 28 MiB in all.
    const fn places(self) -> usize {
        match self {
            Self::Ip => 1 << 19,
            Self::Issuer => 1 << 12,
            Self::Subject => 5 << 18,
            Self::Global => 1,
        }
    }
}

impl From<Scope> for RateScope {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::Ip => Self::Ip,
            Scope::Issuer => Self::Issuer,
            Scope::Subject => Self::Subject,
            Scope::Global => Self::Global,
        }
    }
}

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// Nanoseconds from one request to the next, at least 1.
    interval: u64,
    /// Requests at once, at least 1.
    burst: u32,
}

impl Rate {
    /// Whether whatever passes `other` passes this one too.
    #[must_use]
    pub const fn allows_all_of(self, other: Self) -> bool {
        self.interval <= other.interval && self.burst >= other.burst
    }

    /// The time in which an empty bucket becomes full, in nanoseconds.
    const fn capacity(self) -> u64 {
        self.interval.saturating_mul(self.burst as u64)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] = [(1, ""), (60, "/m"), (3600, "/h")];
        let per = |seconds: u64| seconds * 1_000_000_000 / self.interval;
        // The shortest unit in which it is a whole number; what is parsed always is one in some unit, to the nanosecond.
        let exact = UNITS
            .into_iter()
            .find(|(seconds, _)| seconds * 1_000_000_000 / per(*seconds).max(1) == self.interval);
        let (seconds, unit) = exact.unwrap_or((3600, "/h"));
        write!(f, "{}{unit}:{}", per(seconds), self.burst)
    }
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is not RATE:BURST such as 50:100 (a second, at once), 30/m:10 or 600/h:20"
            )
        };
        let (rate, burst) = text.split_once(':').ok_or_else(wrong)?;
        let (count, unit) = rate.split_once('/').unwrap_or((rate, "s"));
        let seconds: u64 = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return Err(wrong()),
        };
        let count: u32 = count.parse().map_err(|_| wrong())?;
        let burst: u32 = burst.parse().map_err(|_| wrong())?;
        if burst == 0 {
            return Err(wrong());
        }
        let interval = (seconds * 1_000_000_000)
            .checked_div(count.into())
            .ok_or_else(wrong)?;
        Ok(Self { interval, burst })
    }
}

/// The limits that are configured: `ip=50:100,subject=600/h:20`. None unless they are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RateLimits {
    /// In the order of [`Scope::ALL`].
    rates: [Option<Rate>; Scope::ALL.len()],
}

impl RateLimits {
    /// The limit of a scope.
    fn of(&self, scope: Scope) -> Option<Rate> {
        let mut rates = Scope::ALL.iter().zip(self.rates);
        rates.find(|(of, _)| **of == scope)?.1
    }
}

impl fmt::Display for RateLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits = Scope::ALL.iter().zip(self.rates);
        let limits = limits.filter_map(|(scope, rate)| Some((scope, rate?)));
        for (index, (scope, rate)) in limits.enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}={rate}", scope.as_str())?;
        }
        Ok(())
    }
}

impl FromStr for RateLimits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut limits = Self::default();
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let scopes = Scope::ALL.map(Scope::as_str).join(", ");
            let (name, rate) = part.split_once('=').ok_or_else(|| {
                format!("{part:?} is not KEY=RATE:BURST such as ip=50:100, with one of {scopes}")
            })?;
            let mut all = Scope::ALL.iter().zip(&mut limits.rates);
            let (_, place) = all
                .find(|(scope, _)| scope.as_str() == name)
                .ok_or_else(|| format!("{name:?} is none of {scopes}"))?;
            if place.replace(rate.parse()?).is_some() {
                return Err(format!("{name} is limited twice"));
            }
        }
        Ok(limits)
    }
}

/// A request came too soon.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the limit of requests {} is reached; the next one is taken in {} s", .scope.phrase(), .retry_after.as_secs())]
pub struct Limited {
    /// Which limit.
    pub scope: Scope,
    /// When the next one is taken, in whole seconds, rounded up.
    pub retry_after: Duration,
}

impl Scope {
    const fn phrase(self) -> &'static str {
        match self {
            Self::Ip => "from one address",
            Self::Issuer => "with tokens of one issuer",
            Self::Subject => "for one subject",
            Self::Global => "to this server",
        }
    }
}

/// Counts requests against the configured limits.
pub struct RateLimiter {
    limits: RateLimits,
    /// In the order of [`Scope::ALL`].
    tables: [Option<Table>; Scope::ALL.len()],
    key: hmac::Key,
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter").finish_non_exhaustive()
    }
}

impl RateLimiter {
    /// Makes the tables of the configured limits, and that of issuers, which can have limits of their own; others cost nothing.
    ///
    /// # Errors
    /// When there is no randomness for the key of their hash.
    pub fn new(limits: &RateLimits, random: &dyn Random) -> Result<Self, RandomError> {
        let mut secret = [0; 32];
        random.fill(&mut secret)?;
        Ok(Self {
            limits: *limits,
            tables: Scope::ALL.map(|scope| {
                let is_used = limits.of(scope).is_some() || scope == Scope::Issuer;
                is_used.then(|| Table::new(scope.places()))
            }),
            key: hmac::Key::new(hmac::HMAC_SHA256, &secret),
        })
    }

    /// Counts a request of a client address.
    ///
    /// # Errors
    /// When it came too soon.
    pub fn check_address(&self, client: IpAddr, now: OffsetDateTime) -> Result<(), Limited> {
        self.check(Scope::Global, None, &[], now)?;
        self.check(Scope::Ip, None, &[&octets(subscriber(client))], now)
    }

    /// Counts a request for a subject of an issuer: `issuer` is the configured id, `rate` its own limit if it has one, `url`
    /// the token's `iss`.
    ///
    /// # Errors
    /// When it came too soon.
    pub fn check_subject(
        &self,
        issuer: &str,
        rate: Option<Rate>,
        url: &str,
        subject: &str,
        now: OffsetDateTime,
    ) -> Result<(), Limited> {
        // The narrow one first: a subject that asks too often must not use up what its issuer may.
        let key = [url.as_bytes(), subject.as_bytes()];
        self.check(Scope::Subject, None, &key, now)?;
        self.check(Scope::Issuer, rate, &[issuer.as_bytes()], now)
    }

    /// `rate`: in place of the scope's.
    fn check(
        &self,
        scope: Scope,
        rate: Option<Rate>,
        key: &[&[u8]],
        now: OffsetDateTime,
    ) -> Result<(), Limited> {
        let mut tables = Scope::ALL.iter().zip(&self.tables);
        let table = tables.find(|(of, _)| **of == scope);
        let rate = rate.or_else(|| self.limits.of(scope));
        let (Some((_, Some(table))), Some(rate)) = (table, rate) else {
            return Ok(());
        };
        let mut hash = hmac::Context::with_key(&self.key);
        for part in key {
            // With their lengths: two keys must not become one by where their parts end.
            hash.update(&part.len().to_le_bytes());
            hash.update(part);
        }
        let hash = hash.sign();
        let (index, rest) = hash.as_ref().split_first_chunk().unwrap_or((&[0; 8], &[]));
        let (fingerprint, _) = rest.split_first_chunk().unwrap_or((&[0; 8], &[]));
        let now = u64::try_from(now.unix_timestamp_nanos()).unwrap_or(0);
        table
            .take(
                rate,
                u64::from_le_bytes(*index),
                u64::from_le_bytes(*fingerprint),
                now,
            )
            .map_err(|wait| Limited {
                scope,
                retry_after: Duration::from_secs(wait.div_ceil(1_000_000_000).max(1)),
            })
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// How many places one key may take.
const WAYS: usize = 8;

/// A bucket. It is full, and so as good as none, from `full_at` on.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    fingerprint: u64,
    /// Nanoseconds since 1970.
    full_at: u64,
}

/// The buckets of one limit: sets of [`WAYS`], of which a key's hash names one.
struct Table(Mutex<Vec<[Bucket; WAYS]>>);

impl Table {
    fn new(places: usize) -> Self {
        Self(Mutex::new(vec![
            [Bucket::default(); WAYS];
            places.div_ceil(WAYS)
        ]))
    }

    /// Takes from a key's bucket, or says in how many nanoseconds there is something to take.
    fn take(&self, rate: Rate, index: u64, fingerprint: u64, now: u64) -> Result<(), u64> {
        let Rate { interval, .. } = rate;
        let capacity = rate.capacity();
        let mut sets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let set = usize::try_from(index % sets.len() as u64).unwrap_or(0);
        let Some(set) = sets.get_mut(set) else {
            return Ok(());
        };
        let place = match set
            .iter()
            .position(|bucket| bucket.fingerprint == fingerprint)
        {
            Some(place) => set.get_mut(place),
            None => set.iter_mut().min_by_key(|bucket| bucket.full_at),
        };
        let Some(bucket) = place else {
            return Ok(());
        };
        if bucket.fingerprint != fingerprint {
            *bucket = Bucket {
                fingerprint,
                full_at: now,
            };
        }
        // No bucket is emptier than empty, whatever a clock that was set back says.
        let latest = now.saturating_add(capacity);
        bucket.full_at = bucket.full_at.clamp(now, latest);
        let after = bucket.full_at.saturating_add(interval);
        if after > latest {
            return Err(after - latest);
        }
        bucket.full_at = after;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, FixedClock};
    use crate::random::SeededRandom;

    const NOW: &str = "2026-01-02T03:04:05Z";

    fn limiter(limits: &str) -> (RateLimiter, FixedClock) {
        let limits = limits.parse().unwrap();
        let limiter = RateLimiter::new(&limits, &SeededRandom::new(1)).unwrap();
        (limiter, FixedClock::at(NOW))
    }

    /// How many requests of a subject are taken, up to 1000.
    fn taken(limiter: &RateLimiter, clock: &FixedClock, subject: &str) -> usize {
        let take = |_: &usize| {
            limiter
                .check_subject("i", None, "https://i", subject, clock.now())
                .is_ok()
        };
        (0..1000).take_while(take).count()
    }

    #[test]
    fn limits_are_written_as_rate_and_burst() {
        let rate = |interval, burst| Rate { interval, burst };
        for (text, expected) in [
            ("50:100", rate(20_000_000, 100)),
            ("50/s:100", rate(20_000_000, 100)),
            ("30/m:1", rate(2_000_000_000, 1)),
            ("1/h:2", rate(3_600_000_000_000, 2)),
        ] {
            assert_eq!(text.parse::<Rate>().unwrap(), expected, "{text}");
        }
        for text in ["50:100", "7:1", "30/m:1", "7/m:2", "1/h:2", "100/h:3"] {
            let read: Rate = text.parse().unwrap();
            let shown: Rate = read.to_string().parse().unwrap();
            assert_eq!(shown, read, "{text} is shown as {read}");
        }
        for text in [
            "", "50", "50:", ":5", "0:5", "5:0", "-1:5", "5/d:1", "1.5:2", "5:5:5",
        ] {
            let error = text.parse::<Rate>().unwrap_err();
            assert!(error.contains("RATE:BURST"), "{text}: {error}");
        }
        for text in ["ip", "host=5:5", "ip=5:5,ip=6:6", "ip=5"] {
            assert!(text.parse::<RateLimits>().is_err(), "{text}");
        }
        assert_eq!(
            "".parse::<RateLimits>().unwrap(),
            RateLimits::default(),
            "none"
        );
    }

    #[test]
    fn a_burst_is_taken_and_then_as_many_as_the_rate_allows() {
        let (limiter, clock) = limiter("subject=2:5");
        assert_eq!(taken(&limiter, &clock, "ada"), 5);
        clock.advance(Duration::from_millis(500));
        assert_eq!(taken(&limiter, &clock, "ada"), 1);
        clock.advance(Duration::from_millis(1700));
        assert_eq!(taken(&limiter, &clock, "ada"), 3);
        clock.advance(Duration::from_secs(3600));
        assert_eq!(taken(&limiter, &clock, "ada"), 5, "no more than a burst");
        assert_eq!(taken(&limiter, &clock, "bob"), 5, "another bucket");
    }

    #[test]
    fn a_client_is_told_when_the_next_request_is_taken() {
        let (limiter, clock) = limiter("subject=6/m:1");
        let check = || limiter.check_subject("i", None, "https://i", "ada", clock.now());
        check().unwrap();
        let limited = check().unwrap_err();
        assert_eq!(
            (limited.scope, limited.retry_after),
            (Scope::Subject, Duration::from_secs(10))
        );
        assert_eq!(
            limited.to_string(),
            "the limit of requests for one subject is reached; the next one is taken in 10 s"
        );
        clock.advance(Duration::from_millis(9_999));
        assert_eq!(check().unwrap_err().retry_after, Duration::from_secs(1));
        clock.advance(Duration::from_millis(1));
        check().unwrap();
    }

    #[test]
    fn each_scope_counts_for_itself() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let (limiter, clock) = limiter("ip=1:1,issuer=1:2,global=1:3");
        let from = |text: &str| {
            limiter
                .check_address(address(text), clock.now())
                .map_err(|limited| limited.scope)
        };
        assert_eq!(from("2001:db8::1"), Ok(()));
        assert_eq!(from("2001:db8::2"), Err(Scope::Ip), "the same subscriber");
        assert_eq!(from("192.0.2.1"), Ok(()));
        assert_eq!(from("192.0.2.2"), Err(Scope::Global));
        let of = |issuer: &str, subject: &str| {
            limiter
                .check_subject(issuer, None, "https://i", subject, clock.now())
                .map_err(|limited| limited.scope)
        };
        assert_eq!((of("i", "a"), of("i", "b")), (Ok(()), Ok(())));
        assert_eq!((of("i", "c"), of("j", "c")), (Err(Scope::Issuer), Ok(())));
    }

    #[test]
    fn parts_of_a_key_do_not_run_together() {
        let (limiter, clock) = limiter("subject=1/h:1");
        for (url, subject) in [("https://i/a", "bc"), ("https://i/ab", "c")] {
            let checked = limiter.check_subject("i", None, url, subject, clock.now());
            assert_eq!(checked, Ok(()), "{url} {subject}");
        }
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_nobody_out_for_longer_than_a_burst_takes() {
        let (limiter, clock) = limiter("subject=1:5");
        assert_eq!(taken(&limiter, &clock, "ada"), 5);
        clock.set(clock.now() - Duration::from_secs(86_400));
        assert_eq!(taken(&limiter, &clock, "ada"), 0);
        clock.advance(Duration::from_secs(5));
        assert!(taken(&limiter, &clock, "ada") >= 4);
    }

    #[test]
    fn a_million_subjects_take_no_more_memory_and_forget_nobody_who_is_limited() {
        let (limiter, clock) = limiter("ip=1:1,issuer=1000/s:10,subject=1/h:3,global=1:1");
        let bytes: usize = limiter
            .tables
            .iter()
            .flatten()
            .map(|table| table.0.lock().unwrap().capacity() * size_of::<[Bucket; WAYS]>())
            .sum();
        assert!(bytes <= 32 << 20, "{bytes} bytes");
        let table = limiter.tables[2].as_ref().unwrap();
        let rate = limiter.limits.of(Scope::Subject).unwrap();
        // Whoever has used up the burst is the last to be forgotten, while strangers come once each.
        let strangers = |count: u64| {
            let mix = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(31);
            for n in 1..=count {
                let _ = table.take(rate, mix(n), mix(mix(n)), nanos(&clock));
            }
        };
        assert_eq!(taken(&limiter, &clock, "mallory"), 3);
        strangers(1_000_000);
        assert_eq!(taken(&limiter, &clock, "mallory"), 0);
        let kept = table.0.lock().unwrap().len() * WAYS;
        assert_eq!(kept, Scope::Subject.places());
    }

    fn nanos(clock: &FixedClock) -> u64 {
        u64::try_from(clock.now().unix_timestamp_nanos()).unwrap()
    }

    #[test]
    fn what_is_not_configured_is_not_limited() {
        let (limiter, clock) = limiter("");
        assert_eq!(taken(&limiter, &clock, "ada"), 1000);
        let loopback = IpAddr::from([127, 0, 0, 1]);
        assert_eq!(limiter.check_address(loopback, clock.now()), Ok(()));
        let tables = limiter.tables.iter().flatten();
        assert_eq!(tables.count(), 1, "only entries have limits of their own");
    }
}
