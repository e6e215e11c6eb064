//! What a log in a bucket costs in time: `cargo bench --bench bucket`.
//!
//! The bucket is one in memory that takes 30 ms for a write and 15 ms for a read. All figures but the rates are in writes:
//! one that arrives during a write waits for its end, and then for its own.

#![expect(
    clippy::expect_used,
    reason = "a benchmark that cannot run should stop"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use mayfly::clock::SystemClock;
use mayfly::keys::memory::NewKey;
use mayfly::keys::{InMemoryKey, Signer};
use mayfly::random::{Random as _, SystemRandomness};
use mayfly::store::ObjectStorage;
use mayfly::tlog::checkpoint::LogKey;
use mayfly::tlog::tree::{Hash, leaf_hash};
use mayfly::tlog::{AppendError, Entry, EntryFormat, Log, LogParts, Position, Timing};
use object_store::memory::InMemory;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use tokio::runtime::Runtime;

const PUT: Duration = Duration::from_millis(30);
const GET: Duration = Duration::from_millis(15);
/// How long a caller waits that was refused.
const PAUSE: Duration = Duration::from_millis(250);
const ENTRY_BYTES: usize = 1500;
const CALLERS: usize = 256;
const SECONDS: u64 = 30;
/// How long few entries come, so that a hundredth of them is more than one or two.
const SECONDS_OF_FEW: u64 = 180;

fn main() {
    let runtime = Runtime::new().expect("a runtime");
    println!("one writer");
    report("idle", run(&runtime, 1, Load::OneByOne));
    let alone = report("256 callers", run(&runtime, 1, Load::Callers(CALLERS)));
    println!("three writers");
    let few = Load::Every(5 * 3 * PUT);
    report("a fifth of the slots", run(&runtime, 3, few));
    let shared = report(
        "256 callers of each",
        run(&runtime, 3, Load::Callers(CALLERS)),
    );
    println!(
        "three writers reach {:.2} of the rate of one",
        shared / alone
    );
}

/// How entries come to each writer.
#[derive(Clone, Copy)]
enum Load {
    /// The next one when the last has its place.
    OneByOne,
    /// So many at a time.
    Callers(usize),
    /// One in so long a time on average, at any moment, whatever became of the last.
    Every(Duration),
}

/// What came of a load.
struct Outcome {
    waits: Vec<Duration>,
    failed: usize,
    seconds: u64,
}

/// Prints an outcome, and returns the entries a second.
#[expect(clippy::cast_precision_loss, reason = "a figure to read")]
fn report(name: &str, outcome: Outcome) -> f64 {
    let Outcome {
        mut waits,
        failed,
        seconds,
    } = outcome;
    waits.sort_unstable();
    let at = |percent: usize| {
        let wait = waits.get((waits.len() * percent / 1000).min(waits.len().saturating_sub(1)));
        wait.map_or(0.0, |wait| wait.as_secs_f64() / PUT.as_secs_f64())
    };
    let rate = waits.len() as f64 / seconds as f64;
    println!(
        "  {name:<22} {rate:>8.0}/s   p50 {:>5.2}   p99 {:>5.2}   p99.9 {:>5.2} writes   {failed} of {} not in time",
        at(500),
        at(990),
        at(999),
        waits.len() + failed,
    );
    rate
}

fn run(runtime: &Runtime, writers: usize, load: Load) -> Outcome {
    let wait = ThrottleConfig {
        wait_put_per_call: PUT,
        wait_get_per_call: GET,
        ..ThrottleConfig::default()
    };
    let objects = Arc::new(ThrottledStore::new(InMemory::new(), wait));
    let signer = Arc::new(InMemoryKey::generate(NewKey::P256).expect("a key").0);
    let parts = |signer: &Arc<InMemoryKey>| LogParts {
        store: Arc::new(ObjectStorage::on_runtime(objects.clone(), runtime.handle())),
        key: LogKey::new("log.example", Arc::clone(signer) as Arc<dyn Signer>).expect("a log key"),
        format: Arc::new(Opaque),
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandomness),
        high_water: None,
        timing: Timing::in_object_store(Duration::from_secs(1), None),
        metrics: None,
        on_fatal: Arc::new(|why| eprintln!("{why}")),
    };
    Log::create(&parts(&signer)).expect("a log");
    let logs: Vec<_> = (0..writers)
        .map(|_| Arc::new(Log::open(parts(&signer)).expect("the log")))
        .collect();
    let seconds = match load {
        Load::OneByOne | Load::Callers(_) => SECONDS,
        Load::Every(_) => SECONDS_OF_FEW,
    };
    let end = Instant::now() + Duration::from_secs(seconds);
    let outcomes = runtime.block_on(join_all(logs.iter().map(|log| drive(log, load, end))));
    drop(logs);
    let mut all = Outcome {
        waits: Vec::new(),
        failed: 0,
        seconds,
    };
    for (wait, answer) in outcomes.into_iter().flatten() {
        match answer {
            Ok(_) => all.waits.push(wait),
            Err(_) => all.failed += 1,
        }
    }
    all
}

type Answer = (Duration, Result<Position, AppendError>);

async fn append(log: Arc<Log>) -> Answer {
    let start = Instant::now();
    let answer = log.append(Box::new(Filler)).await;
    (start.elapsed(), answer)
}

async fn drive(log: &Arc<Log>, load: Load, end: Instant) -> Vec<Answer> {
    let callers = match load {
        Load::OneByOne => 1,
        Load::Callers(callers) => callers,
        Load::Every(every) => {
            let mut under_way = Vec::new();
            while Instant::now() < end {
                tokio::time::sleep(every.mul_f64(2.0 * chance())).await;
                under_way.push(tokio::spawn(append(Arc::clone(log))));
            }
            let answers = join_all(under_way).await;
            return answers.into_iter().filter_map(Result::ok).collect();
        }
    };
    let caller = |log: Arc<Log>| async move {
        let mut answers = Vec::new();
        while Instant::now() < end {
            let answer = append(Arc::clone(&log)).await;
            let is_refused = answer.1.is_err();
            answers.push(answer);
            // As a client does that is told to come back.
            if is_refused {
                tokio::time::sleep(PAUSE).await;
            }
        }
        answers
    };
    let callers = (0..callers).map(|_| tokio::spawn(caller(Arc::clone(log))));
    let answers = join_all(callers).await;
    answers
        .into_iter()
        .filter_map(Result::ok)
        .flatten()
        .collect()
}

/// A number from 0 to 1.
fn chance() -> f64 {
    let mut octets = [0; 4];
    SystemRandomness.fill(&mut octets).expect("randomness");
    f64::from(u32::from_be_bytes(octets)) / f64::from(u32::MAX)
}

/// Entries of one length: index, timestamp, zeros.
#[derive(Debug)]
struct Opaque;

struct Filler;

impl Entry for Filler {
    fn encode(&self, position: Position) -> Vec<u8> {
        let mut entry = position.index.to_be_bytes().to_vec();
        entry.extend(position.timestamp.to_be_bytes());
        entry.resize(ENTRY_BYTES, 0);
        entry
    }
}

impl EntryFormat for Opaque {
    fn split_first<'a>(&self, tile: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        tile.split_at_checked(ENTRY_BYTES)
    }

    fn timestamp(&self, entry: &[u8]) -> Option<u64> {
        Some(u64::from_be_bytes(*entry.get(8..)?.first_chunk()?))
    }

    fn leaf_hash(&self, entry: &[u8], position: Position) -> Option<Hash> {
        let index = u64::from_be_bytes(*entry.first_chunk()?);
        let is_good = entry.len() == ENTRY_BYTES
            && index == position.index
            && self.timestamp(entry) == Some(position.timestamp);
        is_good.then(|| leaf_hash(entry))
    }
}
