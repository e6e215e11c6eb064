//! What a certificate costs at least on this machine: its cryptography, and one write that lasts.
//!
//! Every certificate needs an RS256 verification (the token), a P-256 verification by a key that was never seen before (the
//! proof), three P-256 signatures (precertificate, timestamp, certificate) and the hashes of the log. Whatever a server
//! takes beyond that is its own doing.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, Signature, UnparsedPublicKey,
};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use super::report::microseconds;

/// How often a primitive is measured; the median counts.
const ROUNDS: usize = 9;
/// How long a round takes at least.
const ROUND: Duration = Duration::from_millis(10);
/// How many calls of a primitive one sample beside a load takes.
const SAMPLE: u32 = 8;
/// The time between two samples.
const SAMPLE_PAUSE: Duration = Duration::from_millis(20);
/// A token's signing input, octets.
const TOKEN_BYTES: usize = 400;
/// A TBSCertificate, or the leaf made of it, octets.
const TBS_BYTES: usize = 768;
/// A segment of the journal with one entry, octets.
pub const SEGMENT_BYTES: usize = 1536;
/// How many writes are timed.
const WRITES: usize = 400;

/// Single-thread CPU times; microseconds when serialised.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Floor {
    /// RSA of 2048 bits, PKCS #1 v1.5, SHA-256, with a key that is known already.
    #[serde(rename = "rs256_verification_us", serialize_with = "microseconds")]
    pub rs256_verification: Duration,
    /// ECDSA on P-256 with SHA-256, the key's point read and checked first.
    #[serde(rename = "p256_verification_us", serialize_with = "microseconds")]
    pub p256_verification: Duration,
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "p256_signature_us", serialize_with = "microseconds")]
    pub p256_signature: Duration,
    /// SHA-256 of a leaf, of a node above it, and of the entry in its segment.
    #[serde(rename = "hashing_us", serialize_with = "microseconds")]
    pub hashing: Duration,
}

/// A primitive; what it makes is thrown away.
type Primitive = fn(&Primitives) -> Result<(), Unspecified>;

/// Keys and messages for the primitives.
struct Primitives {
    random: SystemRandom,
    issuer_key: ParsedPublicKey,
    token: Vec<u8>,
    token_signature: Vec<u8>,
    key: EcdsaKeyPair,
    proof: Signature,
    tbs: Vec<u8>,
    segment: Vec<u8>,
}

impl Primitives {
    /// In the order of [`Floor::of_parts`].
    const ALL: [Primitive; 4] = [
        Self::verify_token,
        Self::verify_proof,
        Self::sign,
        Self::hash,
    ];
    const NAME: &[u8] = b"somebody@example.com";

    fn new() -> Result<Self, Unspecified> {
        let random = SystemRandom::new();
        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| Unspecified)?;
        let token = vec![b'a'; TOKEN_BYTES];
        let mut token_signature = vec![0; rsa.public_modulus_len()];
        rsa.sign(&RSA_PKCS1_SHA256, &random, &token, &mut token_signature)?;
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
        Ok(Self {
            issuer_key: ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, rsa.public_key())
                .map_err(|_| Unspecified)?,
            token,
            token_signature,
            proof: key.sign(&random, Self::NAME)?,
            key,
            random,
            tbs: vec![b'b'; TBS_BYTES],
            segment: vec![b'c'; SEGMENT_BYTES],
        })
    }

    fn verify_token(&self) -> Result<(), Unspecified> {
        self.issuer_key
            .verify_sig(&self.token, &self.token_signature)
    }

    fn verify_proof(&self) -> Result<(), Unspecified> {
        let point = self.key.public_key().as_ref();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point)
            .verify(Self::NAME, self.proof.as_ref())
    }

    fn sign(&self) -> Result<(), Unspecified> {
        self.key.sign(&self.random, &self.tbs).map(drop)
    }

    #[expect(
        clippy::unnecessary_wraps,
        reason = "it has the form of the other primitives"
    )]
    fn hash(&self) -> Result<(), Unspecified> {
        for bytes in [&self.tbs[..], &self.segment, &[0; 65]] {
            std::hint::black_box(digest(&SHA256, std::hint::black_box(bytes)));
        }
        Ok(())
    }
}

impl Floor {
    /// Measures every primitive; takes half a second.
    ///
    /// # Errors
    /// When the cryptographic library fails.
    pub fn measure() -> Result<Self, Unspecified> {
        let primitives = Primitives::new()?;
        let mut parts = [Duration::ZERO; 4];
        for (part, primitive) in parts.iter_mut().zip(Primitives::ALL) {
            *part = cpu_time_of(|| primitive(&primitives))?;
        }
        Ok(Self::of_parts(parts))
    }

    const fn of_parts(
        [
            rs256_verification,
            p256_verification,
            p256_signature,
            hashing,
        ]: [Duration; 4],
    ) -> Self {
        Self {
            rs256_verification,
            p256_verification,
            p256_signature,
            hashing,
        }
    }

    /// The CPU time below which no certificate can be made.
    #[must_use]
    pub fn per_certificate(&self) -> Duration {
        self.rs256_verification + self.p256_verification + 3 * self.p256_signature + self.hashing
    }

    /// The medians of several measurements.
    #[must_use]
    pub fn median(all: &[Self]) -> Self {
        let of = |part: fn(&Self) -> Duration| median(all.iter().map(part).collect());
        Self {
            rs256_verification: of(|floor| floor.rs256_verification),
            p256_verification: of(|floor| floor.p256_verification),
            p256_signature: of(|floor| floor.p256_signature),
            hashing: of(|floor| floor.hashing),
        }
    }
}

/// Measures the floor again and again beside a load, in a thread of its own, which takes a twentieth of a core.
///
/// What a computation costs depends on what else the machine does: its clock rate, its caches, its neighbours. Only a floor
/// of the same seconds can be compared with what a server took in them.
#[derive(Debug)]
pub struct FloorBeside {
    stop: Arc<AtomicBool>,
    sampler: JoinHandle<Result<Floor, Unspecified>>,
}

impl FloorBeside {
    /// Begins to measure.
    #[must_use]
    pub fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&stop);
        Self {
            stop,
            sampler: std::thread::spawn(move || sample(&is_over)),
        }
    }

    /// Ends it, and returns the mean over all samples.
    ///
    /// # Errors
    /// When the cryptographic library failed.
    pub fn stop(self) -> Result<Floor, Unspecified> {
        self.stop.store(true, Ordering::Relaxed);
        self.sampler.join().map_err(|_| Unspecified)?
    }
}

/// Measures until `is_over`, once at least.
fn sample(is_over: &AtomicBool) -> Result<Floor, Unspecified> {
    let primitives = Primitives::new()?;
    let mut used = [Duration::ZERO; 4];
    let mut samples = 0;
    loop {
        for (used, primitive) in used.iter_mut().zip(Primitives::ALL) {
            // The first call finds code and tables outside the caches, and does not count.
            primitive(&primitives)?;
            let start = thread_cpu_time();
            for _ in 0..SAMPLE {
                primitive(&primitives)?;
            }
            *used += thread_cpu_time().saturating_sub(start);
        }
        samples += 1;
        if is_over.load(Ordering::Relaxed) {
            return Ok(Floor::of_parts(used.map(|time| time / (SAMPLE * samples))));
        }
        std::thread::sleep(SAMPLE_PAUSE);
    }
}

/// The CPU time of this thread for one call.
fn cpu_time_of(mut call: impl FnMut() -> Result<(), Unspecified>) -> Result<Duration, Unspecified> {
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = thread_cpu_time();
        let mut calls = 0;
        let mut used = Duration::ZERO;
        while used < ROUND {
            for _ in 0..8 {
                call()?;
            }
            calls += 8;
            used = thread_cpu_time().saturating_sub(start);
        }
        rounds.push(used / calls);
    }
    Ok(median(rounds))
}

fn thread_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or_default(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}

/// How long a write takes that lasts; microseconds when serialised.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct SyncTime {
    /// The median.
    #[serde(rename = "median_us", serialize_with = "microseconds")]
    pub median: Duration,
    /// The time within which 99 of 100 are done.
    #[serde(rename = "p99_us", serialize_with = "microseconds")]
    pub p99: Duration,
}

impl SyncTime {
    /// Writes and syncs [`SEGMENT_BYTES`] again and again, into a file in `folder` that was filled with zeros before, as the
    /// journal is.
    ///
    /// # Errors
    /// When the disk fails.
    pub fn measure(folder: &Path) -> io::Result<Self> {
        let path = folder.join("sync-probe");
        let result = Self::measure_in(&path);
        // The next measurement overwrites what cannot be removed.
        let _ = std::fs::remove_file(&path);
        result
    }

    fn measure_in(path: &Path) -> io::Result<Self> {
        let mut file = File::create(path)?;
        file.write_all(&vec![0; WRITES * SEGMENT_BYTES])?;
        file.sync_all()?;
        let segment = vec![b'c'; SEGMENT_BYTES];
        let mut times = Vec::with_capacity(WRITES);
        for offset in (0..).step_by(SEGMENT_BYTES).take(WRITES) {
            let start = Instant::now();
            file.write_all_at(&segment, offset)?;
            file.sync_data()?;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        Ok(Self {
            median: percentile(&times, 500),
            p99: percentile(&times, 990),
        })
    }

    /// The medians of several measurements.
    #[must_use]
    pub fn median(all: &[Self]) -> Self {
        Self {
            median: median(all.iter().map(|one| one.median).collect()),
            p99: median(all.iter().map(|one| one.p99).collect()),
        }
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    percentile(&times, 500)
}

/// The time within which that many of a thousand are done. `sorted`: shortest first.
#[must_use]
pub fn percentile(sorted: &[Duration], per_mille: usize) -> Duration {
    let rank = (sorted.len() * per_mille).div_ceil(1000).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_the_smallest_time_that_covers_so_many() {
        let times: Vec<Duration> = (1..=1000).map(Duration::from_millis).collect();
        for (per_mille, expected) in [(0, 1), (500, 500), (900, 900), (999, 999), (1000, 1000)] {
            assert_eq!(
                percentile(&times, per_mille),
                Duration::from_millis(expected)
            );
        }
        assert_eq!(percentile(&times[..3], 500), Duration::from_millis(2));
        assert_eq!(percentile(&[], 500), Duration::ZERO);
    }

    #[test]
    fn the_floor_is_the_sum_of_what_a_certificate_needs() {
        let micros = Duration::from_micros;
        let floor = Floor {
            rs256_verification: micros(16),
            p256_verification: micros(64),
            p256_signature: micros(20),
            hashing: micros(3),
        };
        assert_eq!(floor.per_certificate(), micros(143));
        let slow = Floor {
            p256_signature: micros(90),
            ..floor
        };
        assert_eq!(
            Floor::median(&[floor, slow, floor]).per_certificate(),
            micros(143)
        );
    }

    #[test]
    fn a_floor_beside_a_load_has_every_part() {
        let floor = FloorBeside::start().stop().unwrap();
        for part in [
            floor.rs256_verification,
            floor.p256_verification,
            floor.p256_signature,
            floor.hashing,
        ] {
            assert!(part > Duration::ZERO);
        }
    }

    #[test]
    fn a_probe_of_the_disk_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        SyncTime::measure(folder.path()).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
