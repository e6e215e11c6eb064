//! Randomness, as something that is passed in.
//!
//! Keys and signatures draw theirs inside the cryptographic library; this is for what we choose ourselves: serial
//! numbers, request identifiers, nonces, jitter.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The source gave no bytes, or the same again.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the system's source of randomness failed")]
pub struct RandomError;

/// Where random bytes come from.
pub trait Random: Debug + Send + Sync {
    /// Fills `bytes` with bytes nobody can foresee.
    ///
    /// # Errors
    /// When the source fails; `bytes` must then not be used.
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError>;
}

/// The system's randomness, asked for each time: a copy of this process (a fork, a snapshot of the machine that is started
/// twice) has no state of a generator that could give the same bytes again.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandomness;

impl Random for SystemRandomness {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        getrandom::fill(bytes).map_err(|_| RandomError)
    }
}

/// Another source under watch: an error takes the place of bytes that it has just given before, as a broken source does.
/// Nothing less is noticed.
#[derive(Debug)]
pub struct WatchedRandomness {
    source: Arc<dyn Random>,
    last: Mutex<Start>,
}

/// What is compared: sixteen octets, which no sound source gives twice.
type Start = [u8; 16];

impl WatchedRandomness {
    /// Puts a source under watch, and tries it.
    ///
    /// # Errors
    /// When it fails, or gives the same twice.
    pub fn new(source: Arc<dyn Random>) -> Result<Self, RandomError> {
        let watched = Self {
            source,
            last: Mutex::default(),
        };
        for _ in 0..2 {
            watched.fill(&mut Start::default())?;
        }
        Ok(watched)
    }
}

impl Random for WatchedRandomness {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        self.source.fill(bytes)?;
        let Some(start) = bytes.first_chunk::<16>() else {
            // Too short to be told from chance.
            return Ok(());
        };
        // A panic elsewhere cannot leave it half written.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *last, *start) == *start {
            return Err(RandomError);
        }
        Ok(())
    }
}

/// A sequence that repeats for the same seed; for tests.
#[derive(Debug)]
pub struct SeededRandom(AtomicU64);

impl SeededRandom {
    /// Starts the sequence that belongs to `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
        for chunk in bytes.chunks_mut(8) {
            // SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
            let state = self
                .0
                .fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)
                .wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(
                (mixed ^ (mixed >> 31))
                    .to_le_bytes()
                    .get(..chunk.len())
                    .unwrap_or_default(),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives the same bytes from some draw on.
    #[derive(Debug)]
    struct Stuck {
        sound: SeededRandom,
        draws_left: AtomicU64,
    }

    impl Stuck {
        fn after(draws: u64) -> Arc<Self> {
            Arc::new(Self {
                sound: SeededRandom::new(1),
                draws_left: AtomicU64::new(draws),
            })
        }
    }

    impl Random for Stuck {
        fn fill(&self, bytes: &mut [u8]) -> Result<(), RandomError> {
            let one_less = |left: u64| left.checked_sub(1);
            let draw = self
                .draws_left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
            match draw {
                Ok(_) => self.sound.fill(bytes),
                Err(_) => {
                    bytes.fill(7);
                    Ok(())
                }
            }
        }
    }

    #[test]
    fn a_source_that_repeats_itself_is_found_at_once() {
        assert!(WatchedRandomness::new(Stuck::after(0)).is_err());

        let watched = WatchedRandomness::new(Stuck::after(5)).unwrap();
        let mut drawn = [0; 20];
        // The sixth draw is the first of the stuck ones, and nothing can tell yet.
        for _ in 3..=6 {
            watched.fill(&mut drawn).unwrap();
        }
        for _ in 0..3 {
            assert!(watched.fill(&mut drawn).is_err());
        }
    }

    #[test]
    fn short_draws_may_be_equal() {
        let watched = WatchedRandomness::new(Stuck::after(2)).unwrap();
        for _ in 0..3 {
            watched.fill(&mut [0; 15]).unwrap();
        }
    }

    #[test]
    fn the_system_gives_other_bytes_each_time() {
        let watched = WatchedRandomness::new(Arc::new(SystemRandomness)).unwrap();
        let mut drawn = vec![0; 1000];
        for _ in 0..100 {
            watched.fill(&mut drawn).unwrap();
        }
        assert!(drawn.iter().any(|octet| *octet != drawn[0]));
    }
}
