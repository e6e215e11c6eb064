//! Rows L: the log under a server whose store fails, hangs, fills up or rots, and whose clock jumps.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use mayfly::api::ct::LogSite;
use mayfly::clock::{Clock, FixedClock};
use mayfly::ctlog::embedded::{EmbeddedLog, EmbeddedLogConfig, EmbeddedLogParts};
use mayfly::keys::InMemoryKey;
use mayfly::keys::memory::NewKey;
use mayfly::random::SystemRandomness;
use mayfly::store::memory::Fault;
use mayfly::store::{Journal, MemoryStore, Store, StoreError};
use time::Duration;
use url::Url;

use crate::support::http::{self, Answer};
use crate::support::server::{NOW, TestServer, Traces};
use crate::support::wait_for;

const CHECKPOINT: &str = "/ct/main/checkpoint";

/// A server on a store that a test can break, and what it says when its log cannot go on.
struct Broken {
    store: MemoryStore,
    fatal: Arc<Mutex<Vec<String>>>,
    server: TestServer,
}

impl Broken {
    fn new() -> Self {
        let (store, fatal) = (MemoryStore::default(), Arc::<Mutex<Vec<String>>>::default());
        let server = TestServer::start_on(&store, {
            let fatal = Arc::clone(&fatal);
            move |why| fatal.lock().unwrap().push(why.to_owned())
        });
        Self {
            store,
            fatal,
            server,
        }
    }

    /// Asks for a certificate, which must come.
    fn issues(&self) {
        self.server
            .issues("a good request", &self.server.good_request());
    }

    /// Asks for a certificate, which must not come: 503, with a reason and a time to come back.
    fn refuses(&self, what: &str, reason: &str) {
        let before = self.server.traces();
        let answer = self.server.send(&self.server.good_request());
        assert_refused(what, &answer, reason);
        // Only the precertificate was signed, which nobody has.
        let expected = Traces {
            submissions: before.submissions + 1,
            signatures: before.signatures + 1,
            ..before
        };
        assert_eq!(self.server.traces(), expected, "{what}");
    }

    /// Asks for a certificate, and returns at once; the answer arrives when there is one.
    fn ask(&self) -> Receiver<Answer> {
        let (address, request) = (self.server.address, self.server.good_request());
        let (answered, answer) = channel();
        std::thread::spawn(move || answered.send(http::send(address, &request)));
        answer
    }

    /// Waits until a segment is written, whose sync is held back.
    fn await_write(&self, segments: usize) {
        wait_for("the write of a segment", || {
            (self.store.segments().len() == segments).then_some(())
        });
    }

    fn log(&self) -> Arc<EmbeddedLog> {
        Arc::clone(self.server.own_log.as_ref().unwrap())
    }

    fn published_size(&self) -> u64 {
        self.log().published_size()
    }

    fn await_published(&self, size: u64) {
        wait_for("a checkpoint", || {
            (self.published_size() == size).then_some(())
        });
    }
}

fn assert_refused(what: &str, answer: &Answer, reason: &str) {
    let shown = answer.text();
    assert_eq!(answer.status, 503, "{what}: {shown}");
    assert_eq!(answer.header("mayfly-reason"), Some(reason), "{what}");
    assert!(answer.header("retry-after").is_some(), "{what}");
    assert!(!shown.contains("BEGIN"), "{what}: {shown}");
}

#[test]
fn no_answer_leaves_before_the_sync_of_its_entry_returns() {
    let broken = Broken::new();
    broken.store.hold_commits();
    let answer = broken.ask();
    broken.await_write(1);
    // The one worker that could have sent an answer serves other requests meanwhile, and no reader sees the entry.
    for _ in 0..3 {
        let checkpoint = broken.server.get(CHECKPOINT);
        assert!(checkpoint.text().contains("\n0\n"), "{checkpoint:?}");
        assert!(answer.try_recv().is_err(), "an answer before the sync");
    }
    assert_eq!(broken.log().tip_size(), 0);

    broken.store.release_commits();
    let answer = answer.recv().unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(broken.log().tip_size(), 1);
}

#[test]
fn a_disk_that_does_not_answer_is_overload_and_passes() {
    let broken = Broken::new();
    broken.store.hold_commits();
    let first = broken.ask();
    broken.await_write(1);
    let second = broken.ask();
    for (what, answer) in [("being written", first), ("behind it", second)] {
        assert_refused(what, &answer.recv().unwrap(), "overloaded");
    }
    assert_eq!(broken.server.get(CHECKPOINT).status, 200);
    broken.store.release_commits();
    broken.issues();
    // Who was refused while the entry was being written has left it behind; who waited has not.
    broken.await_published(2);
}

#[test]
fn a_full_disk_stops_issuing_and_not_reading() {
    let broken = Broken::new();
    broken.issues();
    broken.await_published(1);
    for _ in 0..2 {
        broken.store.fail_next("journal/", Fault::NoSpace);
        broken.refuses("a full disk", "store_unavailable");
        for path in [
            CHECKPOINT,
            "/ct/main/tile/0/000.p/1",
            "/ct/main/tile/data/000.p/1",
        ] {
            assert_eq!(broken.server.get(path).status, 200, "{path}");
        }
    }
    broken.issues();
    assert_eq!(broken.log().tip_size(), 2);
    assert!(broken.fatal.lock().unwrap().is_empty());
}

#[test]
fn a_log_that_may_have_written_or_not_signs_nothing_more_and_ends_the_process() {
    for (fault, segments) in [(Fault::Before, 1), (Fault::After, 2), (Fault::Panic, 1)] {
        let broken = Broken::new();
        broken.issues();
        broken.store.fail_next("journal/", fault);
        for what in ["the request that met it", "one after it"] {
            broken.refuses(&format!("{fault:?}: {what}"), "store_unavailable");
        }
        assert_eq!(broken.store.segments().len(), segments, "{fault:?}");
        assert_eq!(broken.server.get(CHECKPOINT).status, 200, "{fault:?}");
        assert_eq!(broken.fatal.lock().unwrap().len(), 1, "{fault:?}");
    }
}

#[test]
fn a_file_that_went_bad_is_not_served_and_issuing_goes_on() {
    let broken = Broken::new();
    broken.issues();
    let issuers = broken.store.names();
    let issuer = issuers
        .iter()
        .find(|name| name.starts_with("issuer/"))
        .unwrap();
    let target = format!("/ct/main/{issuer}");
    assert_eq!(broken.server.get(&target).status, 200);
    broken.store.garble(issuer);
    let answer = broken.server.get(&target);
    assert_eq!(answer.status, 503);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    broken.issues();
}

#[test]
fn whatever_the_clock_does_times_in_the_log_do_not_go_back() {
    let broken = Broken::new();
    let set = |hours| {
        let start = FixedClock::at(NOW).now();
        // As if that much time had passed: a clock that is set stops the whole server, not the log alone.
        broken.server.clock.move_to(start + Duration::hours(hours));
    };
    let mut newest = 0;
    let mut size = 0;
    for (hours, is_issuing) in [
        (0, true),
        (2, true),
        (1, false),
        (0, false),
        (2, true),
        (3, true),
    ] {
        set(hours);
        if is_issuing {
            broken.issues();
            size += 1;
            broken.await_published(size);
        } else {
            // An hour behind the newest entry.
            broken.refuses("the clock went back", "ct_unavailable");
            assert_eq!(broken.server.get(CHECKPOINT).status, 200);
        }
        let head = broken.log().head().unwrap();
        assert!(head.timestamp >= newest);
        newest = head.timestamp;
    }
    assert!(broken.fatal.lock().unwrap().is_empty());
}

#[test]
fn a_stop_answers_everyone_who_waits_for_the_log_and_publishes_their_entries() {
    let mut broken = Broken::new();
    broken.store.hold_commits();
    let waiting: Vec<_> = (0..8).map(|_| broken.ask()).collect();
    let watched = Arc::clone(broken.server.log.as_ref().unwrap());
    wait_for("eight submissions", || {
        (watched.submissions() == 8).then_some(())
    });
    broken.server.begin_to_stop();
    broken.store.release_commits();
    for answer in waiting {
        let answer = answer.recv().unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let (log, store) = (broken.log(), broken.store.clone());
    drop(broken);
    assert_eq!((log.tip_size(), log.published_size()), (8, 8));
    let checkpoint = store.get("checkpoint").unwrap().unwrap();
    assert_eq!(checkpoint, log.checkpoint().unwrap().as_bytes());
}

/// A store that notes what is read.
#[derive(Debug, Default)]
struct Noting {
    store: MemoryStore,
    read: Mutex<Vec<String>>,
}

impl Store for Noting {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.read.lock().unwrap().push(name.to_owned());
        self.store.get(name)
    }

    fn put_immutable(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.store.put_immutable(name, bytes)
    }

    fn put_mutable(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.store.put_mutable(name, bytes)
    }

    fn create_journal(&self, log_id: &[u8; 32]) -> Result<(), StoreError> {
        self.store.create_journal(log_id)
    }

    fn open_journal(&self, log_id: &[u8; 32], from: u64) -> Result<Box<dyn Journal>, StoreError> {
        self.store.open_journal(log_id, from)
    }
}

#[test]
fn paths_that_name_nothing_published_never_reach_the_store() {
    let store = Arc::new(Noting::default());
    let parts = EmbeddedLogParts {
        store: Arc::clone(&store) as _,
        signer: Arc::new(InMemoryKey::generate(NewKey::P256).unwrap().0),
        clock: Arc::new(FixedClock::at(NOW)),
        random: Arc::new(SystemRandomness),
        metrics: None,
        on_fatal: Arc::new(|why| panic!("{why}")),
    };
    let settings = EmbeddedLogConfig::default()
        .check(&Url::parse("https://ca.example.com").unwrap())
        .unwrap();
    EmbeddedLog::create(&settings, &parts).unwrap();
    let log = EmbeddedLog::open(settings, &parts).unwrap();
    let site = LogSite::new(Arc::new(log), &[]);
    store.read.lock().unwrap().clear();

    // Every path of up to four of these.
    let pieces = [
        "tile",
        "issuer",
        "journal",
        "checkpoint",
        "key.pem",
        "/",
        "/0/",
        "/data/",
        "/000",
        "/x999",
        ".p/256",
        "..",
        "/../",
        "%2e%2e/",
        "\0",
        "-1",
        "18446744073709551616",
    ];
    let mut paths = vec![String::new()];
    let mut begin = 0;
    for _ in 0..4 {
        let end = paths.len();
        for base in begin..end {
            for piece in pieces {
                paths.push(paths[base].clone() + piece);
            }
        }
        begin = end;
    }
    assert!(paths.len() > 80_000);
    for path in paths {
        let page = site.read(&path, "");
        let is_there = path == "checkpoint";
        assert_eq!(page.status, if is_there { 200 } else { 404 }, "{path:?}");
        assert_eq!(page.cache_control, "no-store", "{path:?}");
    }
    let absent = format!("issuer/{}", "0".repeat(64));
    assert_eq!(site.read(&absent, "").status, 404);
    assert_eq!(*store.read.lock().unwrap(), [absent]);
}
