//! The log's engine by its size, with small opaque entries: `cargo bench --bench log -- 7` up to ten millions of them (6
//! without a number).
//!
//! What an append costs, how long a start takes, what memory a process needs that starts and appends, how long an auditor
//! computes everything again: the first three must hardly show the size. Ten millions take some minutes and 3 GB of disk.

#![expect(
    clippy::expect_used,
    reason = "a benchmark that cannot run should stop"
)]

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use mayfly::auditor::Checkpoint;
use mayfly::auditor::entries::{EntryKind, Inspected};
use mayfly::auditor::fsck;
use mayfly::auditor::source::FolderSource;
use mayfly::clock::SystemClock;
use mayfly::keys::memory::NewKey;
use mayfly::keys::{InMemoryKey, Signer};
use mayfly::random::SystemRandomness;
use mayfly::store::folder::{Folder, FolderOptions};
use mayfly::tlog::checkpoint::LogKey;
use mayfly::tlog::tree::{Hash, leaf_hash};
use mayfly::tlog::{Entry, EntryFormat, Log, LogParts, Position, Timing};
use rustix::time::{ClockId, clock_gettime};
use tokio::runtime::Runtime;

const ORIGIN: &str = "bench.example/log";
/// The file with the log's key, beside the log.
const KEY: &str = "key.der";
/// How many appends are under way at a time.
const AT_ONCE: u64 = 2048;
/// Over how many appends a cost is measured.
const WINDOW: u64 = 100_000;
/// How many callers wait when an append is compared with a signature.
const WAITING: u64 = 256;
/// How many signatures are measured.
const SAMPLES: u32 = 2000;
/// How often a start is measured.
const STARTS: usize = 5;
/// The octets of an entry: index, timestamp, and as many again.
const ENTRY_BYTES: usize = 32;

/// Tells this program to be the process whose memory is measured.
const APPENDER: &str = "--appender";

fn main() {
    if let Some(folder) = std::env::args().skip_while(|word| word != APPENDER).nth(1) {
        return append_once(Path::new(&folder));
    }
    let largest = std::env::args().skip(1).find_map(|word| word.parse().ok());
    let folder = || tempfile::tempdir_in(".").expect("a folder");
    let compared = folder();
    Place::new(compared.path()).compare();
    println!(
        "{:>10}  {:>12}  {:>12}  {:>10}  {:>10}  {:>12}",
        "entries", "append CPU", "append", "start", "memory", "fsck"
    );
    for decade in 3..=largest.unwrap_or(6) {
        let target = 10_u64.pow(decade);
        let folder = folder();
        let place = Place::new(folder.path());
        let log = place.open();
        place.append(&log, target);
        let (processor, clock) = (processor_time(), Instant::now());
        place.append(&log, WINDOW);
        let (processor, clock) = (processor_time() - processor, clock.elapsed());
        log.shutdown();
        drop(log);
        let start = place.start_time();
        let memory = place.memory_mib();
        let fsck = place.fsck_time(target + WINDOW + AT_ONCE);
        println!(
            "{target:>10}  {:>9.2} µs  {:>9.2} µs  {:>7} ms  {memory:>6} MiB  {:>9.2} s",
            processor.as_secs_f64() * 1e6 / WINDOW as f64,
            clock.as_secs_f64() * 1e6 / WINDOW as f64,
            start.as_millis(),
            fsck.as_secs_f64(),
        );
    }
}

/// Opens a log in a process of its own, appends to it, and prints what memory that took.
fn append_once(folder: &Path) {
    let key = std::fs::read(folder.join(KEY)).expect("the key of the log");
    let place = Place::at(folder, InMemoryKey::from_der(&key).expect("a key"));
    let log = place.open();
    place.append(&log, AT_ONCE);
    log.shutdown();
    println!("{}", peak_mib());
}

/// A log that is opened again and again.
struct Place {
    folder: PathBuf,
    signer: Arc<dyn Signer>,
    runtime: Runtime,
}

impl Place {
    fn new(folder: &Path) -> Self {
        let (key, der) = InMemoryKey::generate(NewKey::P256).expect("a key");
        std::fs::write(folder.join(KEY), &*der).expect("a file");
        let place = Self::at(folder, key);
        Log::create(&place.parts()).expect("a log");
        place
    }

    fn at(folder: &Path, key: InMemoryKey) -> Self {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        Self {
            folder: folder.to_owned(),
            signer: Arc::new(key),
            runtime: runtime.enable_time().build().expect("a runtime"),
        }
    }

    fn parts(&self) -> LogParts {
        let random = Arc::new(SystemRandomness);
        let options = FolderOptions {
            allow_volatile: true,
            allow_network: false,
        };
        LogParts {
            store: Arc::new(Folder::open(&self.folder, options, random.clone()).expect("a store")),
            key: LogKey::new(ORIGIN, Arc::clone(&self.signer)).expect("a key"),
            format: Arc::new(Opaque),
            clock: Arc::new(SystemClock),
            random,
            high_water: None,
            timing: Timing {
                append: Duration::from_secs(60),
                // So that many entries are never unpublished, which would hold appends up.
                growth: Duration::from_millis(20),
                ..Timing::default()
            },
            metrics: None,
            on_fatal: Arc::new(|why| eprintln!("the log failed: {why}")),
        }
    }

    fn open(&self) -> Log {
        Log::open(self.parts()).expect("the log")
    }

    /// Prints what an append costs beside what it cannot do without: a signature, and a sync.
    fn compare(&self) {
        let begun = processor_time();
        for _ in 0..SAMPLES {
            let signature = self.signer.sign(&[7; 200]);
            self.runtime.block_on(signature).expect("a signature");
        }
        let signature = (processor_time() - begun) / SAMPLES;
        let log = self.open();
        let begun = processor_time();
        let entries = u64::from(SAMPLES) * 10;
        self.append_by(WAITING, &log, entries);
        let append = (processor_time() - begun).as_secs_f64() / entries as f64;
        println!(
            "{WAITING} callers: {:.1} µs of CPU an entry, {:.2} of a P-256 signature ({:.1} µs)",
            append * 1e6,
            append / signature.as_secs_f64(),
            signature.as_secs_f64() * 1e6,
        );
        let file = std::fs::File::create(self.folder.join("synced")).expect("a file");
        file.write_all_at(&[1; 1 << 20], 0).expect("written");
        file.sync_all().expect("synced");
        let (mut appends, mut syncs) = (Vec::new(), Vec::new());
        for offset in 0..u64::from(SAMPLES) / 4 {
            let start = Instant::now();
            self.append_by(1, &log, 1);
            appends.push(start.elapsed());
            let start = Instant::now();
            file.write_all_at(&[2; 512], offset * 512).expect("written");
            file.sync_data().expect("synced");
            syncs.push(start.elapsed());
        }
        log.shutdown();
        println!(
            "a lone append: {} µs; the write and sync of 512 octets beside it: {} µs (medians)",
            median(appends).as_micros(),
            median(syncs).as_micros(),
        );
    }

    fn append(&self, log: &Log, entries: u64) {
        self.append_by(AT_ONCE, log, entries);
    }

    /// Appends entries, so many at a time.
    fn append_by(&self, at_once: u64, log: &Log, entries: u64) {
        let mut accepted = 0;
        while accepted < entries {
            let batch = (0..at_once.min(entries - accepted)).map(|_| log.append(Box::new(Opaque)));
            let answers = self.runtime.block_on(join_all(batch));
            // What cannot be published in time is refused; nobody is in a hurry here.
            accepted += answers.iter().filter(|answer| answer.is_ok()).count() as u64;
        }
    }

    /// The median time of a start, up to its checkpoint.
    fn start_time(&self) -> Duration {
        let times = (0..STARTS)
            .map(|_| {
                let start = Instant::now();
                let log = self.open();
                let time = start.elapsed();
                drop(log);
                time
            })
            .collect();
        median(times)
    }

    /// The most memory that a process held which opened the log and appended to it, in MiB.
    fn memory_mib(&self) -> u64 {
        let program = std::env::current_exe().expect("this program");
        let appender = Command::new(program)
            .arg(APPENDER)
            .arg(&self.folder)
            .output()
            .expect("a process");
        let printed = String::from_utf8_lossy(&appender.stdout);
        printed.trim().parse().expect("a size")
    }

    fn fsck_time(&self, size: u64) -> Duration {
        let key = self.signer.public_key_der();
        let source = FolderSource::new(&self.folder, key, Arc::new(Opaque));
        let start = Instant::now();
        let checkpoint = Checkpoint::read(&source, key, Some(ORIGIN)).expect("a checkpoint");
        let mut report =
            fsck::check(&source, &Opaque, &checkpoint, &|_| ()).expect("a log that can be read");
        fsck::check_journal(&source, &Opaque, &checkpoint, &mut report).expect("a journal");
        assert!(report.is_good() && report.entries == size, "{report:?}");
        start.elapsed()
    }
}

/// An entry with nothing but its place.
#[derive(Debug)]
struct Opaque;

impl Entry for Opaque {
    fn encode(&self, position: Position) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ENTRY_BYTES);
        bytes.extend(position.index.to_be_bytes());
        bytes.extend(position.timestamp.to_be_bytes());
        bytes.resize(ENTRY_BYTES, 7);
        bytes
    }
}

impl EntryFormat for Opaque {
    fn split_first<'a>(&self, tile: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        tile.split_at_checked(ENTRY_BYTES)
    }

    fn timestamp(&self, entry: &[u8]) -> Option<u64> {
        let timestamp = entry.get(8..)?.first_chunk()?;
        Some(u64::from_be_bytes(*timestamp))
    }

    fn leaf_hash(&self, entry: &[u8], position: Position) -> Option<Hash> {
        (entry == self.encode(position)).then(|| leaf_hash(entry))
    }
}

impl EntryKind for Opaque {
    fn split_first<'a>(&self, tile: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        EntryFormat::split_first(self, tile)
    }

    fn leaf_hash(&self, entry: &[u8]) -> Hash {
        leaf_hash(entry)
    }

    fn inspect(&self, index: u64, entry: &[u8]) -> Inspected {
        let timestamp = self.timestamp(entry).unwrap_or_default();
        let is_good = entry == self.encode(Position { index, timestamp });
        Inspected {
            problem: (!is_good).then(|| "it is of another place".to_owned()),
            timestamp,
            ..Inspected::default()
        }
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// What the process has computed so far.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("a time after the start")
}

/// The most memory that the process held, in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the status of the process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.expect("its size in memory") / 1024
}
