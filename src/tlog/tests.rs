//! The log as a whole: growth, reading, and every way to stop it between two writes.

use std::sync::atomic::AtomicUsize;

use futures_util::FutureExt;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::checkpoint::{LogIdentity, TreeHead};
use super::journal::{Draft, Segment, Tip};
use super::tile::TILE_WIDTH;
use super::tree::tests::naive_root;
use super::tree::{leaf_hash, sha256, verify_consistency, verify_inclusion};
use super::*;
use crate::clock::FixedClock;
use crate::keys::deterministic::DeterministicKey;
use crate::random::SeededRandom;
use crate::store::folder::FolderOptions;
use crate::store::memory::Fault;
use crate::store::{Folder, MemoryStore};

/// Entries of a length, and that many octets: index, timestamp, text.
#[derive(Debug)]
pub(super) struct PlainFormat;

impl PlainFormat {
    pub(super) fn frame(content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        [&length, content].concat()
    }
}

impl EntryFormat for PlainFormat {
    fn split_first<'a>(&self, tile: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let length = u32::from_be_bytes(*tile.first_chunk()?);
        tile.split_at_checked(4 + length as usize)
    }

    fn timestamp(&self, entry: &[u8]) -> Option<u64> {
        let octets = entry.get(12..20)?.first_chunk()?;
        Some(u64::from_be_bytes(*octets))
    }

    fn leaf_hash(&self, entry: &[u8], position: Position) -> Option<Hash> {
        let (own, rest) = self.split_first(entry)?;
        let (index, own_rest) = own.get(4..)?.split_first_chunk()?;
        let (timestamp, _) = own_rest.split_first_chunk()?;
        let is_good = rest.is_empty()
            && u64::from_be_bytes(*index) == position.index
            && u64::from_be_bytes(*timestamp) == position.timestamp;
        is_good.then(|| leaf_hash(entry))
    }
}

pub(super) struct Text(pub(super) Vec<u8>);

impl Entry for Text {
    fn encode(&self, position: Position) -> Vec<u8> {
        let index = position.index.to_be_bytes();
        let timestamp = position.timestamp.to_be_bytes();
        PlainFormat::frame(&[&index, &timestamp, &self.0[..]].concat())
    }
}

fn text(text: &str) -> Box<dyn Entry> {
    Box::new(Text(text.into()))
}

const ORIGIN: &str = "log.example/test";

/// A place where a log lives through several processes.
struct Place {
    store: MemoryStore,
    clock: Arc<FixedClock>,
    fatal: Arc<Mutex<Vec<String>>>,
    high_water: Option<PathBuf>,
    /// Whether checkpoints wait for the shutdown, so that a test decides when there is one.
    publishes_at_shutdown: bool,
    opened: AtomicUsize,
    runtime: Runtime,
}

impl Place {
    fn new() -> Self {
        Self::with_store(MemoryStore::default())
    }

    fn with_store(store: MemoryStore) -> Self {
        Self {
            store,
            clock: Arc::new(FixedClock::at("2026-01-01T00:00:00Z")),
            fatal: Arc::default(),
            high_water: None,
            publishes_at_shutdown: true,
            opened: AtomicUsize::new(0),
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap(),
        }
    }

    /// A place with a log in it.
    fn created() -> Self {
        let place = Self::new();
        Log::create(&place.parts()).unwrap();
        place
    }

    /// The same place with another store.
    fn moved_to(&self, store: MemoryStore) -> Self {
        Self {
            clock: Arc::clone(&self.clock),
            high_water: self.high_water.clone(),
            ..Self::with_store(store)
        }
    }

    fn parts(&self) -> LogParts {
        self.parts_on(Arc::new(self.store.clone()))
    }

    fn parts_on(&self, store: Arc<dyn Store>) -> LogParts {
        let fatal = Arc::clone(&self.fatal);
        let seed = self.opened.fetch_add(1, Ordering::Relaxed) as u64;
        LogParts {
            store,
            key: key(0x11),
            format: Arc::new(PlainFormat),
            clock: Arc::<FixedClock>::clone(&self.clock),
            random: Arc::new(SeededRandom::new(seed)),
            high_water: self.high_water.clone(),
            timing: Timing {
                append: Duration::from_secs(30),
                growth: if self.publishes_at_shutdown {
                    Duration::from_secs(3600)
                } else {
                    Duration::ZERO
                },
                heartbeat: Duration::from_secs(3600),
                backoff: Duration::ZERO,
                ..Timing::default()
            },
            metrics: None,
            on_fatal: Arc::new(move |why| fatal.lock().unwrap().push(why.to_owned())),
        }
    }

    fn open(&self) -> Log {
        Log::open(self.parts()).unwrap()
    }

    /// Opens until no fault is left that a start meets.
    fn open_in_spite_of_faults(&self) -> Log {
        loop {
            match Log::open(self.parts()) {
                Ok(log) => return log,
                Err(error) => assert!(matches!(error, LogError::Store(_)), "{error}"),
            }
        }
    }

    fn refusal(&self) -> LogError {
        Log::open(self.parts()).unwrap_err()
    }

    fn append(&self, log: &Log, content: &str) -> Result<Position, AppendError> {
        self.runtime.block_on(log.append(text(content)))
    }

    /// Appends `count` entries at once, so that they share few segments.
    fn append_many(&self, log: &Log, count: usize) -> Vec<Result<Position, AppendError>> {
        let appends = (0..count).map(|n| log.append(text(&format!("entry {n}"))));
        self.runtime
            .block_on(futures_util::future::join_all(appends))
    }

    fn fatal(&self) -> Vec<String> {
        self.fatal.lock().unwrap().clone()
    }
}

pub(super) fn key(octet: u8) -> LogKey {
    LogKey::new(ORIGIN, Arc::new(DeterministicKey::new(octet))).unwrap()
}

/// Derives everything that readers see again from the entries, and returns the leaves.
fn assert_sound(log: &Log) -> Vec<Hash> {
    let checkpoint = log.checkpoint().unwrap();
    let head = key(0x11).identity().verify(checkpoint.as_bytes()).unwrap();
    assert_eq!(log.head(), Some(head));

    let read = |kind, index, width| {
        log.tile(TilePath::of_width(kind, index, width))
            .unwrap()
            .unwrap()
    };
    let mut leaves = Vec::new();
    let mut last_timestamp = 0;
    for tile in 0..head.size.div_ceil(TILE_WIDTH) {
        let width = (head.size - tile * TILE_WIDTH).min(TILE_WIDTH);
        let data = read(TileKind::Data, tile, width);
        let mut rest = &data[..];
        while !rest.is_empty() {
            let (entry, behind) = PlainFormat.split_first(rest).unwrap();
            let timestamp = u64::from_be_bytes(entry[12..20].try_into().unwrap());
            assert!((last_timestamp..=head.timestamp).contains(&timestamp));
            last_timestamp = timestamp;
            let position = Position {
                index: leaves.len() as u64,
                timestamp,
            };
            leaves.push(PlainFormat.leaf_hash(entry, position).unwrap());
            rest = behind;
        }
    }
    assert_eq!(leaves.len() as u64, head.size);
    assert_eq!(naive_root(&leaves), head.root);

    let mut level = leaves.clone();
    for number in 0.. {
        for (tile, hashes) in (0..).zip(level.chunks(256)) {
            let width = hashes.len() as u64;
            assert_eq!(
                read(TileKind::Hashes(number), tile, width),
                hashes.concat(),
                "tile {tile} of level {number}"
            );
            for too_wide in [width + 1, TILE_WIDTH] {
                let path = TilePath::of_width(TileKind::Hashes(number), tile, too_wide);
                assert!(too_wide <= width || log.tile(path).unwrap().is_none());
            }
        }
        if level.len() < 256 {
            break;
        }
        let full = level.chunks_exact(256);
        level = full.map(naive_root).collect();
    }
    leaves
}

#[test]
fn a_new_log_publishes_an_empty_tree() {
    let place = Place::created();
    let log = place.open();
    assert_eq!(log.head().unwrap().size, 0);
    assert!(assert_sound(&log).is_empty());
    let path = TilePath::full(TileKind::Hashes(0), 0);
    assert_eq!(log.tile(path).unwrap(), None, "no empty tiles");
}

#[test]
fn entries_get_dense_indexes_that_go_on_after_a_restart() {
    let place = Place::created();
    for round in 0..3 {
        let log = place.open();
        for n in 0..5 {
            let position = place.append(&log, "entry").unwrap();
            assert_eq!(position.index, round * 5 + n);
            assert_eq!(position.timestamp, place.clock.now_millis());
        }
        log.shutdown();
        assert_eq!(assert_sound(&log).len() as u64, (round + 1) * 5);
        place.clock.advance(Duration::from_secs(1));
    }
    assert_eq!(place.fatal(), [""; 0]);
}

#[test]
fn trees_around_a_full_tile_are_sound_before_and_after_a_restart() {
    for size in [255, 256, 257, 511, 512, 513] {
        let place = Place::created();
        let log = place.open();
        let positions = place.append_many(&log, size);
        let mut indexes: Vec<_> = positions.into_iter().map(|it| it.unwrap().index).collect();
        indexes.sort_unstable();
        assert!(indexes.into_iter().eq(0..size as u64));
        log.shutdown();
        assert_eq!(assert_sound(&log).len(), size);
        assert_eq!(assert_sound(&place.open()).len(), size);

        let full = size / 256;
        let tiles = |kind: &str| {
            let names = place.store.names();
            names.iter().filter(|name| name.starts_with(kind)).count()
        };
        assert_eq!((tiles("tile/0/"), tiles("tile/data/")), (full, full));
        assert_eq!(tiles("tile/1/"), 0, "partial tiles are not stored");
    }
}

#[test]
fn an_unpublished_entry_is_invisible() {
    let place = Place::created();
    let log = place.open();
    place.append(&log, "entry").unwrap();
    assert_eq!((log.tip_size(), log.head().unwrap().size), (1, 0));
    for kind in [TileKind::Data, TileKind::Hashes(0)] {
        assert_eq!(log.tile(TilePath::of_width(kind, 0, 1)).unwrap(), None);
    }
    assert_eq!(log.inclusion_proof(0, 1).unwrap(), None);
    assert_eq!(log.consistency_proof(0, 1).unwrap(), None);
    log.shutdown();
    assert_eq!(log.head().unwrap().size, 1);
}

#[test]
fn growth_is_published_without_being_asked() {
    let mut place = Place::created();
    place.publishes_at_shutdown = false;
    let log = place.open();
    place.append(&log, "entry").unwrap();
    while log.head().unwrap().size == 0 {
        thread::yield_now();
    }
    assert_eq!(assert_sound(&log).len(), 1);
}

#[test]
fn many_unpublished_entries_are_published_before_their_time() {
    let place = Place::created();
    let log = place.open();
    let first = usize::try_from(MANY_UNPUBLISHED).unwrap();
    place.append_many(&log, first);
    assert_eq!(log.head().unwrap().size, 0, "their time is in an hour");
    place.append_many(&log, 300);
    while log.head().unwrap().size == 0 {
        thread::yield_now();
    }
    assert!(assert_sound(&log).len() > first);
}

#[test]
fn proofs_from_tiles_verify() {
    let place = Place::created();
    let log = place.open();
    place.append_many(&log, 600);
    log.shutdown();
    let leaves = assert_sound(&log);
    let sizes = [1, 2, 3, 255, 256, 257, 300, 511, 512, 513, 599, 600];
    for size in sizes {
        let root = naive_root(&leaves[..size as usize]);
        for index in [0, 1, 254, 255, 256, 257, 511, 512, 599] {
            let proof = log.inclusion_proof(index, size).unwrap();
            assert_eq!(proof.is_some(), index < size);
            if let Some(proof) = proof {
                let leaf = &leaves[index as usize];
                assert!(verify_inclusion(leaf, index, size, &proof, &root));
            }
        }
        for first in sizes.into_iter().filter(|&first| first <= size) {
            let old = naive_root(&leaves[..first as usize]);
            let proof = log.consistency_proof(first, size).unwrap().unwrap();
            assert!(verify_consistency(first, &old, size, &root, &proof));
        }
    }
    assert_eq!(log.inclusion_proof(0, 601).unwrap(), None);
}

#[test]
fn checkpoints_have_ever_later_timestamps_though_the_clock_stands() {
    let place = Place::created();
    let mut last = 0;
    for _ in 0..5 {
        let log = place.open();
        place.append(&log, "entry").unwrap();
        log.shutdown();
        let head = log.head().unwrap();
        assert!(head.timestamp > last);
        last = head.timestamp;
    }
}

#[test]
fn an_entry_is_not_acknowledged_while_its_sync_is_held_back() {
    let place = Place::created();
    let log = place.open();
    place.store.hold_commits();
    place.runtime.block_on(async {
        let mut append = Box::pin(log.append(text("entry")));
        assert!((&mut append).now_or_never().is_none());
        // Written, and not synced: from here on an early answer would come.
        while place.store.segments().is_empty() {
            thread::yield_now();
        }
        assert!((&mut append).now_or_never().is_none());
        assert_eq!(log.tip_size(), 0);

        place.store.release_commits();
        assert_eq!(append.await.unwrap().index, 0);
    });
}

#[test]
fn a_sequencer_that_hangs_stands_at_an_odd_step() {
    let place = Place::created();
    let log = place.open();
    place.append(&log, "entry").unwrap();
    let rest = wait_for_step(&log, |step| step.is_multiple_of(2));
    place.store.hold_commits();
    place.runtime.block_on(async {
        let append = log.append(text("held back"));
        let watch = async {
            while log.sequencer_steps() == rest {
                tokio::task::yield_now().await;
            }
            assert_eq!(log.sequencer_steps(), rest + 1);
            place.store.release_commits();
        };
        let (answer, ()) = futures_util::future::join(append, watch).await;
        answer.unwrap();
    });
    assert_eq!(wait_for_step(&log, |step| step != rest + 1), rest + 2);
}

/// The count of the sequencer's steps, once it is as wanted: it answers before it counts.
fn wait_for_step(log: &Log, is_wanted: impl Fn(u64) -> bool) -> u64 {
    loop {
        let step = log.sequencer_steps();
        if is_wanted(step) {
            return step;
        }
        thread::yield_now();
    }
}

#[test]
fn a_waiter_is_sent_away_in_time_and_what_was_not_begun_is_not_logged() {
    let place = Place::created();
    let mut parts = place.parts();
    parts.timing.append = Duration::from_millis(20);
    let log = Log::open(parts).unwrap();
    place.store.hold_commits();
    // The first is being written when it is given up, the second waits behind it.
    let first = place.append(&log, "first");
    while place.store.segments().is_empty() {
        thread::yield_now();
    }
    let second = place.append(&log, "second");
    assert_eq!(first, Err(AppendError::Timeout));
    assert_eq!(second, Err(AppendError::Timeout));
    place.store.release_commits();
    log.shutdown();
    assert_eq!(assert_sound(&log).len(), 1);
}

#[test]
fn a_full_queue_is_refused_at_once() {
    let place = Place::created();
    let log = place.open();
    place.store.hold_commits();
    place.runtime.block_on(async {
        let mut waiting = Vec::new();
        let refusal = loop {
            let mut append = Box::pin(log.append(text("entry")));
            match (&mut append).now_or_never() {
                None => waiting.push(append),
                Some(answer) => break answer,
            }
        };
        assert_eq!(refusal, Err(AppendError::QueueFull));
        assert!(waiting.len() >= QUEUE_LENGTH);
        place.store.release_commits();
        let answers = futures_util::future::join_all(waiting).await;
        assert!(answers.iter().all(Result::is_ok));
    });
    log.shutdown();
    assert_sound(&log);
}

#[test]
fn what_waits_at_shutdown_is_answered_and_published() {
    let place = Place::created();
    let log = place.open();
    place.store.hold_commits();
    place.runtime.block_on(async {
        let mut append = Box::pin(log.append(text("entry")));
        assert!((&mut append).now_or_never().is_none());
        thread::scope(|scope| {
            scope.spawn(|| log.shutdown());
            place.store.release_commits();
        });
        assert_eq!(append.await.unwrap().index, 0);
    });
    assert_eq!(assert_sound(&log).len(), 1);
    assert!(!log.is_writable());
    assert_eq!(place.append(&log, "late"), Err(SHUTTING_DOWN));
}

#[test]
fn an_entry_that_is_too_large_is_refused_alone() {
    let place = Place::created();
    let log = place.open();
    let large = "x".repeat(journal::MAX_ENTRY_BYTES);
    assert_eq!(place.append(&log, &large), Err(AppendError::NotAnEntry));
    assert_eq!(place.append(&log, "small").unwrap().index, 0);
    assert_eq!(place.store.segments().len(), 1);
}

#[test]
fn a_batch_beyond_the_size_of_a_segment_takes_several() {
    let place = Place::created();
    let log = place.open();
    place.store.hold_commits();
    let large = "x".repeat(journal::MAX_SEGMENT_BYTES / 5);
    place.runtime.block_on(async {
        let mut appends: Vec<_> = (0..9).map(|_| Box::pin(log.append(text(&large)))).collect();
        assert!(appends.iter_mut().all(|it| it.now_or_never().is_none()));
        place.store.release_commits();
        let answers = futures_util::future::join_all(appends).await;
        assert!(answers.into_iter().map(|it| it.unwrap().index).eq(0..9));
    });
    let segments = place.store.segments();
    assert!(
        segments
            .iter()
            .all(|it| it.len() < journal::MAX_SEGMENT_BYTES + large.len() + 4096)
    );
    assert!(segments.len() >= 2);
}

// Storage that fails.

#[test]
fn without_room_an_entry_is_refused_and_the_next_one_taken() {
    let place = Place::created();
    let log = place.open();
    place.store.fail_next("journal/", Fault::NoSpace);
    let refusal = place.append(&log, "refused").unwrap_err();
    assert!(refusal.to_string().contains("no space"), "{refusal}");
    assert_eq!(place.append(&log, "taken").unwrap().index, 0);
    assert_eq!(place.fatal(), [""; 0]);
}

#[test]
fn a_failed_commit_ends_the_log_and_the_next_start_finds_out() {
    for (fault, size_after) in [(Fault::Before, 3), (Fault::After, 4)] {
        let place = Place::created();
        let log = place.open();
        for _ in 0..3 {
            place.append(&log, "entry").unwrap();
        }
        place.store.fail_next("journal/", fault);
        assert_eq!(place.append(&log, "unknown"), Err(FAILED));
        assert_eq!(place.append(&log, "after"), Err(FAILED));
        assert!(!log.is_writable());
        let published = place.store.get("checkpoint").unwrap();
        log.shutdown();
        assert_eq!(
            place.store.get("checkpoint").unwrap(),
            published,
            "nothing is written any more"
        );
        assert_eq!(place.fatal().len(), 1, "{:?}", place.fatal());
        assert!(place.fatal()[0].contains("injected"), "{:?}", place.fatal());

        let log = place.open();
        assert_eq!(place.append(&log, "next").unwrap().index, size_after);
        log.shutdown();
        assert_sound(&log);
    }
}

#[test]
fn what_waits_when_the_publisher_fails_is_not_written() {
    let place = Place::created();
    let mut parts = place.parts();
    parts.timing.heartbeat = Duration::ZERO;
    let log = Log::open(parts).unwrap();
    place.store.hold_commits();
    place.runtime.block_on(async {
        let mut first = Box::pin(log.append(text("first")));
        assert!((&mut first).now_or_never().is_none());
        while place.store.segments().is_empty() {
            thread::yield_now();
        }
        let mut second = Box::pin(log.append(text("second")));
        assert!((&mut second).now_or_never().is_none());
        place.store.fail_next("checkpoint", Fault::Before);
        while place.fatal().is_empty() {
            thread::yield_now();
        }
        place.store.release_commits();
        assert_eq!(first.await.unwrap().index, 0, "durable before the failure");
        assert_eq!(second.await, Err(FAILED));
    });
    log.shutdown();
    assert_eq!(place.store.segments().len(), 1);
    assert_eq!(place.fatal().len(), 1);
}

#[test]
fn a_panic_of_the_sequencer_is_fatal() {
    let place = Place::created();
    let log = place.open();
    place.store.fail_next("journal/", Fault::Panic);
    assert_eq!(place.append(&log, "entry"), Err(FAILED));
    log.shutdown();
    assert_eq!(place.fatal(), ["the thread sequencer of the log panicked"]);
    assert!(!log.is_writable());
}

#[test]
fn every_failure_of_the_publisher_leaves_a_log_that_goes_on() {
    for name in ["tile/0/", "tile/data/", "checkpoint", "state.json"] {
        for fault in [Fault::Before, Fault::After, Fault::NoSpace, Fault::Panic] {
            // 254 and 3 more: a tile becomes full in the round that fails.
            let place = Place::created();
            let log = place.open();
            place.append_many(&log, 254);
            log.shutdown();
            let before = assert_sound(&log);

            let log = place.open();
            place.append_many(&log, 3);
            place.store.fail_next(name, fault);
            log.shutdown();
            let context = format!("{name} {fault:?}");
            assert_eq!(
                place.fatal().is_empty(),
                fault == Fault::NoSpace,
                "{context}"
            );

            let log = place.open();
            let after = assert_sound(&log);
            assert_eq!(after.len(), 257, "{context}");
            assert_eq!(after[..254], before, "{context}");
            assert_eq!(place.append(&log, "next").unwrap().index, 257, "{context}");
        }
    }
}

#[test]
fn a_tile_that_was_not_stored_as_it_was_written_is_under_no_checkpoint() {
    for name in ["tile/0/000", "tile/data/000"] {
        let place = Place::created();
        let log = place.open();
        place.append_many(&log, 255);
        log.shutdown();
        let log = place.open();
        place.append(&log, "the last of its tile").unwrap();
        place.store.fail_next(name, Fault::Garbled);
        log.shutdown();
        assert!(place.fatal()[0].contains(name), "{:?}", place.fatal());
        assert_eq!(log.head().unwrap().size, 255, "no checkpoint over it");

        let refusal = place.refusal();
        assert!(matches!(refusal, LogError::Tiles(_)), "{name}: {refusal}");
        place.store.remove("tile/");
        place.store.remove("state.json");
        assert_eq!(assert_sound(&place.open()).len(), 256, "{name}");
    }
}

#[test]
fn a_damaged_tile_is_not_served_and_the_others_are() {
    let place = Place::created();
    let log = place.open();
    place.append_many(&log, 600);
    log.shutdown();
    let leaves = assert_sound(&log);
    place.store.garble("tile/data/000");
    place.store.garble("tile/0/001");
    for (kind, index, is_served) in [
        (TileKind::Data, 0, false),
        (TileKind::Hashes(0), 0, true),
        (TileKind::Data, 1, false),
        (TileKind::Hashes(0), 1, false),
    ] {
        for width in [1, 255, 256] {
            let tile = log.tile(TilePath::of_width(kind, index, width));
            assert_eq!(tile.is_ok(), is_served, "{kind:?} {index} {width}");
        }
    }
    assert!(log.inclusion_proof(300, 600).is_err(), "needs tile 1");
    let proof = log.inclusion_proof(7, 256).unwrap().unwrap();
    let root = naive_root(&leaves[..256]);
    assert!(verify_inclusion(&leaves[7], 7, 256, &proof, &root));
}

#[test]
fn a_log_that_opens_without_room_shows_its_last_checkpoint_and_recovers() {
    for unpublished in [0, 3] {
        let place = Place::created();
        let log = place.open();
        place.append_many(&log, 300);
        log.shutdown();
        let log = place.open();
        place.append_many(&log, unpublished);
        let place = place.moved_to(place.store.copy());
        let published = place.store.get("checkpoint").unwrap().unwrap();

        place.store.fail_next("checkpoint", Fault::NoSpace);
        let log = place.open();
        assert_eq!(log.checkpoint().unwrap().as_bytes(), published);
        assert_eq!(assert_sound(&log).len(), 300);
        assert_eq!(log.tip_size(), 300 + unpublished as u64);
        let next = place.append(&log, "the journal has room").unwrap();
        assert_eq!(next.index, log.tip_size() - 1);
        log.shutdown();
        assert_eq!(assert_sound(&log).len() as u64, log.tip_size());
        assert_eq!(place.fatal(), [""; 0]);
    }
}

#[test]
fn a_publisher_without_room_tries_again_by_itself() {
    let mut place = Place::created();
    place.publishes_at_shutdown = false;
    let log = place.open();
    place.store.fail_next("checkpoint", Fault::NoSpace);
    place.append(&log, "entry").unwrap();
    while log.head().unwrap().size == 0 {
        thread::yield_now();
    }
    assert_eq!(place.fatal(), [""; 0]);
    assert!(log.is_writable());
}

#[test]
fn a_publisher_that_hangs_stops_the_log_until_it_goes_on() {
    let outside = TempDir::new().unwrap();
    let mut place = Place::new();
    place.publishes_at_shutdown = false;
    place.high_water = Some(outside.path().join("high-water"));
    Log::create(&place.parts()).unwrap();
    let log = place.open();
    // The mark is written here first; a pipe that nobody reads keeps its writer waiting, as a dead network disk does.
    let pipe = outside.path().join("high-water.tmp");
    let mode = rustix::fs::Mode::RWXU;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();

    place.append(&log, "entry").unwrap();
    place.append(&log, "not late yet").unwrap();
    let timing = log.shared.parts.timing;
    place
        .clock
        .advance(timing.heartbeat + MAX_LAG + Duration::from_millis(5));
    assert_eq!(place.append(&log, "late"), Err(STALLED));
    assert!(!log.is_writable());

    std::fs::read(&pipe).unwrap();
    while !log.is_writable() {
        thread::yield_now();
    }
    assert_eq!(place.append(&log, "next").unwrap().index, 2);
}

#[test]
fn a_failure_while_opening_stops_the_start() {
    for name in ["settle", "checkpoint", "state.json"] {
        let place = Place::created();
        let log = place.open();
        place.append(&log, "entry").unwrap();
        drop(log);
        place.store.fail_next(name, Fault::Before);
        assert!(matches!(place.refusal(), LogError::Store(_)), "{name}");
        assert_eq!(assert_sound(&place.open()).len(), 1, "{name}");
    }
}

// Stores that are not what they were.

#[test]
fn entries_that_were_acknowledged_survive_a_crash_before_their_checkpoint() {
    let place = Place::created();
    let log = place.open();
    place.append_many(&log, 300);
    let crashed = place.moved_to(place.store.copy());
    assert_eq!(log.head().unwrap().size, 0);
    let log = crashed.open();
    assert_eq!(
        log.head().unwrap().size,
        300,
        "published before the first read"
    );
    assert_sound(&log);
}

/// The writes of a publication, in their order.
const PUBLICATION: [&str; 4] = ["tile/data/000", "tile/0/000", "checkpoint", "state.json"];

#[test]
fn an_end_between_any_two_writes_of_a_publication_loses_nothing_and_forks_nothing() {
    let ends = PUBLICATION
        .into_iter()
        .flat_map(|name| [Fault::Before, Fault::After].map(|fault| (name, fault)));
    // Two in a row: the process that follows meets the second one, while it opens or when it publishes.
    for first in ends.clone() {
        for second in ends.clone() {
            let place = Place::created();
            let log = place.open();
            place.append_many(&log, 200);
            log.shutdown();
            let before = assert_sound(&log);
            let log = place.open();
            place.append_many(&log, 100);
            place.store.fail_next(first.0, first.1);
            log.shutdown();
            drop(log);
            assert_eq!(place.fatal().len(), 1, "{first:?}");

            place.store.fail_next(second.0, second.1);
            let log = place.open_in_spite_of_faults();
            let after = assert_sound(&log);
            assert_eq!(after.len(), 300, "{first:?}, {second:?}");
            assert_eq!(after[..200], before, "{first:?}, {second:?}");
            place.append(&log, "one more").unwrap();
            log.shutdown();
            drop(log);
            let log = place.open_in_spite_of_faults();
            assert_eq!(assert_sound(&log)[..300], after, "{first:?}, {second:?}");
            assert_eq!(log.head().unwrap().size, 301, "{first:?}, {second:?}");
        }
    }
}

#[test]
fn a_lost_or_garbled_state_costs_time_and_nothing_else() {
    let place = Place::created();
    let log = place.open();
    place.append_many(&log, 600);
    log.shutdown();
    let leaves = assert_sound(&log);
    for state in [
        &b""[..],
        b"garbage",
        b"{\"folded_size\":0,\"folded_segment\":0}",
    ] {
        let copy = place.moved_to(place.store.copy());
        copy.store.put_mutable("state.json", state).unwrap();
        assert_eq!(assert_sound(&copy.open()), leaves);
    }
}

#[test]
fn a_start_reads_the_journal_from_the_last_full_tile_on() {
    let place = Place::created();
    for count in [300, 100, 200] {
        let log = place.open();
        place.append_many(&log, count);
    }
    let state: publisher::State =
        serde_json::from_slice(&place.store.get("state.json").unwrap().unwrap()).unwrap();
    assert_eq!(state.folded_size, 512);
    assert!(state.folded_segment > 0);
    // What lies before is not read: it could be as long as it likes.
    for number in 0..=state.folded_segment {
        let copy = place.moved_to(place.store.copy());
        copy.store.garble(&format!("journal/{number}"));
        let is_read = number == state.folded_segment;
        let opened = Log::open(copy.parts());
        assert_eq!(opened.is_err(), is_read, "segment {number}: {opened:?}");
    }
    // A damaged tile is noticed by the root of the segment before which reading starts.
    for name in ["tile/0/000", "tile/0/001"] {
        let copy = place.moved_to(place.store.copy());
        let mut tile = copy.store.get(name).unwrap().unwrap();
        tile[0] ^= 1;
        copy.store.put_mutable(name, &tile).unwrap();
        let refusal = copy.refusal();
        assert!(matches!(refusal, LogError::Tiles(_)), "{name}: {refusal}");
    }
}

#[test]
fn a_journal_shorter_than_its_checkpoint_is_refused() {
    let place = Place::created();
    let log = place.open();
    place.append(&log, "one").unwrap();
    place.append(&log, "two").unwrap();
    drop(log);
    place.store.damage_last_segment(None);
    let refusal = place.refusal();
    assert!(
        matches!(
            refusal,
            LogError::RolledBack {
                published: 2,
                found: 1,
                ..
            }
        ),
        "{refusal}"
    );
}

#[test]
fn an_older_copy_is_refused_by_the_high_water_mark() {
    let outside = TempDir::new().unwrap();
    let mut place = Place::new();
    place.high_water = Some(outside.path().join("high-water"));
    Log::create(&place.parts()).unwrap();
    let log = place.open();
    place.append(&log, "one").unwrap();
    drop(log);
    let backup = place.store.copy();
    let log = place.open();
    place.append(&log, "two").unwrap();
    drop(log);

    let refusal = place.moved_to(backup).refusal();
    assert!(
        matches!(
            refusal,
            LogError::RolledBack {
                published: 2,
                found: 1,
                ..
            }
        ),
        "{refusal}"
    );
    assert_eq!(assert_sound(&place.open()).len(), 2, "the original goes on");
}

#[test]
fn a_copy_that_grew_differently_is_refused_by_the_high_water_mark() {
    let outside = TempDir::new().unwrap();
    let mut place = Place::new();
    place.high_water = Some(outside.path().join("high-water"));
    Log::create(&place.parts()).unwrap();
    let mut copy = place.moved_to(place.store.copy());
    copy.high_water = None;
    for (place, content) in [(&place, "original"), (&copy, "copy")] {
        let log = place.open();
        place.append(&log, content).unwrap();
    }
    copy.high_water.clone_from(&place.high_water);
    let refusal = copy.refusal();
    assert!(
        matches!(refusal, LogError::OtherTree { size: 1, .. }),
        "{refusal}"
    );
}

#[test]
fn a_copy_is_refused_while_the_original_runs() {
    let outside = TempDir::new().unwrap();
    let mut place = Place::new();
    place.high_water = Some(outside.path().join("high-water"));
    Log::create(&place.parts()).unwrap();
    let original = place.open();

    let copy = place.moved_to(place.store.copy());
    let refusal = copy.refusal();
    assert!(matches!(refusal, LogError::HighWaterLocked(_)), "{refusal}");
    assert_eq!(place.append(&original, "goes on").unwrap().index, 0);
    drop(original);
    assert_eq!(place.open().tip_size(), 1);
}

#[test]
fn a_high_water_mark_that_lags_behind_is_checked_by_the_tiles() {
    let outside = TempDir::new().unwrap();
    let path = outside.path().join("high-water");
    let mut place = Place::new();
    place.high_water = Some(path.clone());
    Log::create(&place.parts()).unwrap();
    for count in [1, 300, 300, 1] {
        let log = place.open();
        place.append_many(&log, count);
        log.shutdown();
        if count == 1 && log.tip_size() == 1 {
            std::fs::copy(&path, outside.path().join("lagging")).unwrap();
        }
    }
    std::fs::copy(outside.path().join("lagging"), &path).unwrap();
    assert_eq!(assert_sound(&place.open()).len(), 602);

    let of_another_tree = TreeHead {
        size: 1,
        root: [7; 32],
        timestamp: 1,
    };
    std::fs::write(&path, key(0x11).checkpoint(&of_another_tree).unwrap()).unwrap();
    let refusal = place.refusal();
    assert!(
        matches!(refusal, LogError::OtherTree { size: 1, .. }),
        "{refusal}"
    );
}

#[test]
fn a_used_key_does_not_start_a_second_tree() {
    let outside = TempDir::new().unwrap();
    let mut place = Place::new();
    place.high_water = Some(outside.path().join("high-water"));
    Log::create(&place.parts()).unwrap();
    let empty = place.moved_to(MemoryStore::default());
    let refusal = Log::create(&empty.parts()).unwrap_err();
    assert!(matches!(refusal, LogError::Exists(_)), "{refusal}");
    assert!(matches!(empty.refusal(), LogError::Missing("checkpoint")));
    let again = Log::create(&place.parts()).unwrap_err();
    assert!(matches!(again, LogError::Exists(_)), "{again}");
}

#[test]
fn another_key_or_origin_does_not_continue_a_log() {
    let place = Place::created();
    let with = |key| LogParts {
        key,
        ..place.parts()
    };
    let signer = Arc::new(DeterministicKey::new(0x11));
    for key in [key(0x22), LogKey::new("log.example/other", signer).unwrap()] {
        let refusal = Log::open(with(key)).unwrap_err();
        assert!(matches!(refusal, LogError::Checkpoint { .. }), "{refusal}");
    }
}

/// A well-formed segment with one entry that continues an empty log, signed by `key`.
fn forged(key: &LogKey, timestamp: u64) -> Vec<u8> {
    sealed(&Tip::empty(), key, timestamp, [0; 16])
}

fn sealed(tip: &Tip, key: &LogKey, timestamp: u64, nonce: [u8; 16]) -> Vec<u8> {
    let position = Position {
        index: tip.size(),
        timestamp,
    };
    let entry = Text(b"forged".to_vec()).encode(position);
    let draft = Draft {
        leaves: vec![leaf_hash(&entry)],
        entries: vec![entry],
        timestamp,
        nonce,
    };
    tip.seal(&draft, key).unwrap()
}

#[test]
fn a_segment_that_the_key_did_not_sign_is_refused() {
    let place = Place::created();
    let log = place.open();
    place.append(&log, "entry").unwrap();
    let genuine = place.store.segments().remove(0);
    let crashed = place.store.copy();

    // The log's own identity, another's signature.
    let mut swapped = forged(&key(0x22), 1);
    swapped.truncate(swapped.len() - 72);
    for (what, segment) in [
        ("another key", forged(&key(0x22), 1)),
        ("a cut signature", swapped),
        ("no signature", genuine[..genuine.len() - 80].to_vec()),
        ("a flag of the future", {
            let mut segment = genuine.clone();
            segment[4] = 1;
            segment
        }),
    ] {
        let place = place.moved_to(crashed.copy());
        place.store.damage_last_segment(Some(segment));
        let refusal = place.refusal();
        assert!(
            matches!(refusal, LogError::Segment { number: 0, .. }),
            "{what}: {refusal}"
        );
    }
    for position in 0..genuine.len() {
        let mut segment = genuine.clone();
        segment[position] ^= 1;
        let place = place.moved_to(crashed.copy());
        place.store.damage_last_segment(Some(segment));
        assert!(
            matches!(place.refusal(), LogError::Segment { .. }),
            "octet {position}"
        );
    }
    // What the key signed is taken: this shows that the forgeries fail for their signature.
    let own = place.moved_to(crashed);
    own.store.damage_last_segment(Some(forged(&key(0x11), 1)));
    assert_eq!(own.open().tip_size(), 1);
}

#[test]
fn a_segment_reads_back_as_it_was_sealed() {
    let bytes = forged(&key(0x11), 5);
    let segment = Segment::decode(&bytes).unwrap();
    assert_eq!(
        (segment.number, segment.first_index, segment.timestamp),
        (0, 0, 5)
    );
    segment.verify_signature(key(0x11).identity()).unwrap();
    let leaves = segment.leaf_hashes(&PlainFormat).unwrap();
    let tip = Tip::empty().extend(&segment, &leaves).unwrap();
    assert_eq!((tip.size(), *tip.root()), (1, leaves[0]));

    let elsewhere = LogIdentity::new("another origin", key(0x22).identity().public_key_der());
    assert!(segment.verify_signature(&elsewhere).is_err());
    assert!(tip.extend(&segment, &leaves).is_err(), "twice");
    assert!(
        Tip::empty().extend(&segment, &[[0; 32]]).is_err(),
        "another leaf"
    );
}

#[test]
fn a_segment_always_has_a_number_after_it() {
    let sealed = forged(&key(0x11), 5);
    let is_hash = |at: &usize| sealed[*at..].starts_with(&sha256(&[&sealed[..*at]]));
    let hashed = (0..sealed.len()).find(is_hash).unwrap();
    for (what, field) in [("number", 8..16), ("first index", 16..24)] {
        let with = |number: u64| {
            let mut bytes = sealed.clone();
            bytes[field.clone()].copy_from_slice(&number.to_be_bytes());
            let hash = sha256(&[&bytes[..hashed]]);
            bytes[hashed..hashed + 32].copy_from_slice(&hash);
            Segment::decode(&bytes)
        };
        with(u64::MAX >> 1).unwrap();
        for number in [1 << 63, u64::MAX] {
            assert_eq!(with(number).unwrap_err(), SegmentError::Malformed, "{what}");
        }
    }
}

#[test]
fn a_segment_follows_one_segment_alone() {
    let key = key(0x11);
    let after = |nonce| {
        let first = Segment::decode(&sealed(&Tip::empty(), &key, 5, nonce)).unwrap();
        let leaves = first.leaf_hashes(&PlainFormat).unwrap();
        Tip::empty().extend(&first, &leaves).unwrap()
    };
    // The same tree, made by another segment.
    let (tip, twin) = (after([0; 16]), after([1; 16]));
    assert_eq!(tip.root(), twin.root());
    for (timestamp, follows) in [(5, true), (4, false)] {
        let second = Segment::decode(&sealed(&tip, &key, timestamp, [0; 16])).unwrap();
        let leaves = second.leaf_hashes(&PlainFormat).unwrap();
        assert_eq!(tip.extend(&second, &leaves).is_ok(), follows, "{timestamp}");
        let beside = twin.extend(&second, &leaves);
        assert_eq!(beside.unwrap_err(), SegmentError::OutOfOrder);
    }
}

// Clocks.

#[test]
fn a_clock_a_little_behind_repeats_the_last_timestamp() {
    let place = Place::created();
    let log = place.open();
    let first = place.append(&log, "entry").unwrap();
    let now = place.clock.now();
    place.clock.set(now - time::Duration::seconds(4));
    let second = place.append(&log, "entry").unwrap();
    assert_eq!(second.timestamp, first.timestamp);
    log.shutdown();
    assert_eq!(assert_sound(&log).len(), 2);
}

#[test]
fn a_clock_far_behind_stops_the_log_until_it_is_right_again() {
    let place = Place::created();
    let log = place.open();
    place.append(&log, "entry").unwrap();
    let now = place.clock.now();
    place.clock.set(now - time::Duration::seconds(6));
    assert_eq!(place.append(&log, "entry"), Err(CLOCK_BEHIND));
    assert!(!log.is_writable());
    place.clock.set(now);
    assert_eq!(place.append(&log, "entry").unwrap().index, 1);
    assert_eq!(place.fatal(), [""; 0]);
}

#[test]
fn a_clock_that_was_set_ahead_gets_into_nothing_that_is_signed() {
    let place = Place::created();
    let log = place.open();
    place.append(&log, "entry").unwrap();
    let now = place.clock.now();
    place.clock.set(now + time::Duration::hours(1));
    assert_eq!(place.append(&log, "entry"), Err(CLOCK_BEHIND));
    // What is published while the log stops gets no such time either.
    log.shutdown();
    place.clock.set(now);
    let log = place.open();
    assert_eq!(place.append(&log, "entry").unwrap().index, 1);
    assert_eq!(place.fatal(), [""; 0]);
}

#[test]
fn what_waits_when_the_clock_goes_back_is_not_written() {
    let place = Place::created();
    let log = place.open();
    place.store.hold_commits();
    place.runtime.block_on(async {
        let mut first = Box::pin(log.append(text("first")));
        assert!((&mut first).now_or_never().is_none());
        while place.store.segments().is_empty() {
            thread::yield_now();
        }
        let mut second = Box::pin(log.append(text("second")));
        assert!((&mut second).now_or_never().is_none());
        let now = place.clock.now();
        place.clock.set(now - time::Duration::seconds(6));
        place.store.release_commits();
        assert_eq!(first.await.unwrap().index, 0);
        assert_eq!(second.await, Err(CLOCK_BEHIND));
    });
    assert_eq!(place.store.segments().len(), 1);
}

#[test]
fn a_log_opened_with_the_clock_behind_shows_nothing_and_signs_nothing() {
    let place = Place::created();
    let log = place.open();
    place.append(&log, "entry").unwrap();
    log.shutdown();
    let published = place.store.get("checkpoint").unwrap();
    let now = place.clock.now();
    place.clock.set(now - time::Duration::hours(1));
    let log = place.open();
    assert_eq!(log.checkpoint(), None);
    assert_eq!(place.append(&log, "entry"), Err(CLOCK_BEHIND));
    log.shutdown();
    assert_eq!(place.store.get("checkpoint").unwrap(), published);
    place.clock.set(now);
    assert_eq!(assert_sound(&place.open()).len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// A clock that jumps by hours, within a process and between two, never takes the tree's times back.
    #[test]
    fn times_in_the_tree_follow_its_order_whatever_the_clock_does(
        jumps in prop::collection::vec((-3600_i64..=3600, any::<bool>()), 1..12),
    ) {
        let place = Place::created();
        let mut log = place.open();
        let (mut last, mut size) = (0, 0);
        for (seconds, is_restarting) in jumps {
            let now = place.clock.now();
            place.clock.set(now + time::Duration::seconds(seconds));
            if is_restarting {
                drop(log);
                log = place.open();
            }
            match place.append(&log, "entry") {
                Ok(position) => {
                    prop_assert_eq!(position.index, size);
                    prop_assert!(position.timestamp >= last);
                    (last, size) = (position.timestamp, size + 1);
                }
                // After a jump forward the last checkpoint looks old until there is a new one.
                Err(error) => prop_assert!(error == CLOCK_BEHIND || error == STALLED),
            }
        }
        drop(log);
        place.clock.advance(Duration::from_secs(50_000));
        prop_assert_eq!(assert_sound(&place.open()).len() as u64, size);
        prop_assert!(place.fatal().is_empty());
    }

    /// A segment reads back as it was sealed, and no bit of it can be another.
    #[test]
    fn a_segment_with_any_bit_flipped_is_refused(
        contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..5),
        timestamp in 1_u64..1 << 48,
        at in any::<prop::sample::Index>(),
        bit in 0..8,
    ) {
        let key = key(0x11);
        let entries: Vec<_> = (0..)
            .zip(contents)
            .map(|(index, content)| Text(content).encode(Position { index, timestamp }))
            .collect();
        let leaves: Vec<_> = entries.iter().map(|entry| leaf_hash(entry)).collect();
        let draft = Draft { entries: entries.clone(), leaves, timestamp, nonce: [7; 16] };
        let mut bytes = Tip::empty().seal(&draft, &key).unwrap();
        let read = |bytes: &[u8]| {
            let segment = Segment::decode(bytes)?;
            segment.verify_signature(key.identity())?;
            Ok::<_, SegmentError>(segment)
        };
        let segment = read(&bytes).unwrap();
        prop_assert_eq!((segment.timestamp, &segment.entries), (timestamp, &entries));
        prop_assert_eq!(segment.leaf_hashes(&PlainFormat).unwrap(), draft.leaves);

        *at.get_mut(&mut bytes) ^= 1_u8 << bit;
        prop_assert!(read(&bytes).is_err());
    }
}

// A folder, with everything that a disk does to it.

#[test]
fn a_log_in_a_folder_goes_on_after_a_torn_write() {
    let folder = TempDir::new().unwrap();
    let place = Place::new();
    let options = FolderOptions {
        allow_volatile: true,
        allow_network: true,
    };
    let parts = || {
        let random = Arc::new(SeededRandom::new(3));
        let store = Folder::open(folder.path(), options, random).unwrap();
        place.parts_on(Arc::new(store.with_wal_bytes(64 << 10)))
    };
    Log::create(&parts()).unwrap();
    let log = Log::open(parts()).unwrap();
    place.append_many(&log, 300);
    log.shutdown();
    let published = log.head().unwrap();
    let random = Arc::new(SeededRandom::new(3));
    let second = Folder::open(folder.path(), options, random);
    assert!(
        matches!(second, Err(StoreError::Locked)),
        "while the log is open"
    );
    drop(log);

    // A frame of which only the beginning reached the disk: nobody was told of it.
    let wal = folder.path().join("journal/0000000000000000.wal");
    let mut bytes = std::fs::read(&wal).unwrap();
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
    bytes[end..end + 12].copy_from_slice(b"\0\0\x02\0\x11\x22\x33\x44MFJ1");
    std::fs::write(&wal, &bytes).unwrap();
    let log = Log::open(parts()).unwrap();
    assert_eq!(log.head().unwrap().root, published.root);
    assert_eq!(place.append(&log, "next").unwrap().index, 300);
    log.shutdown();
    assert_sound(&log);
    drop(log);

    // The same beginning over a frame that was published: the log went back.
    let mut bytes = std::fs::read(&wal).unwrap();
    let end = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    bytes[end] ^= 1;
    std::fs::write(&wal, &bytes).unwrap();
    let refusal = Log::open(parts()).unwrap_err();
    assert!(
        matches!(
            refusal,
            LogError::RolledBack {
                published: 301,
                found: 300,
                ..
            }
        ),
        "{refusal}"
    );
}

// Anything in any order.

#[derive(Clone, Debug)]
enum Step {
    Append(usize),
    Restart,
    Crash,
    Fail(&'static str, Fault),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let names = prop::sample::select(vec!["journal/", "tile/", "checkpoint", "state.json"]);
    let faults = prop::sample::select(vec![Fault::NoSpace, Fault::Before, Fault::After]);
    let step = prop_oneof![
        4 => (1..120_usize).prop_map(Step::Append),
        1 => Just(Step::Restart),
        2 => Just(Step::Crash),
        2 => (names, faults).prop_map(|(name, fault)| Step::Fail(name, fault)),
    ];
    prop::collection::vec(step, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happens, every checkpoint ever served extends the ones before it, and every entry that was
    /// acknowledged stands at its index.
    #[test]
    fn a_log_never_forks_and_never_loses_what_it_acknowledged(steps in steps()) {
        let mut place = Place::created();
        place.publishes_at_shutdown = false;
        let mut log = place.open();
        let mut acknowledged = 0;
        let mut served = Vec::new();
        for step in steps {
            match step {
                Step::Append(count) => {
                    for position in place.append_many(&log, count).into_iter().flatten() {
                        prop_assert!(position.index >= acknowledged);
                        acknowledged = acknowledged.max(position.index + 1);
                    }
                }
                Step::Restart => {
                    log.shutdown();
                    served.extend(log.head());
                    drop(log);
                    log = place.open_in_spite_of_faults();
                }
                Step::Crash => {
                    // What was read first was served for certain; the copy may hold more.
                    served.extend(log.head());
                    let copy = place.store.copy();
                    drop(log);
                    place = place.moved_to(copy);
                    place.publishes_at_shutdown = false;
                    log = place.open();
                }
                Step::Fail(name, fault) => {
                    place.store.fail_next(name, fault);
                    if !log.is_writable() {
                        // A process that ended by a fault is started again, until it starts.
                        drop(log);
                        log = place.open_in_spite_of_faults();
                    }
                }
            }
            place.clock.advance(Duration::from_millis(7));
        }
        drop(log);
        // The faults that are left may keep the last checkpoint back, and come to an end.
        let log = loop {
            let log = place.open_in_spite_of_faults();
            log.shutdown();
            if log.head().is_some_and(|head| head.size == log.tip_size()) {
                break log;
            }
        };
        let leaves = assert_sound(&log);
        prop_assert!(leaves.len() as u64 >= acknowledged);
        for head in served {
            prop_assert_eq!(naive_root(&leaves[..head.size as usize]), head.root);
        }
    }
}
