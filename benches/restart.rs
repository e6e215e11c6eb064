//! How long a log takes to open, by its size: `cargo bench --bench restart`.
//!
//! A start reads the journal from the last full tile on, and a few tiles; the log's length must hardly show. The entries are
//! as large as those of usual certificates; making a million of them takes some minutes and 4 GB.

#![expect(
    clippy::expect_used,
    reason = "a benchmark that cannot run should stop"
)]

use std::path::Path;
use std::sync::Arc;

use divan::Bencher;
use mayfly::ca::hierarchy::{Hierarchy, Names};
use mayfly::clock::{Clock, SystemClock};
use mayfly::ctlog::embedded::{
    EmbeddedLog, EmbeddedLogConfig, EmbeddedLogParts, EmbeddedLogSettings,
};
use mayfly::ctlog::{CtLog, Submission};
use mayfly::keys::memory::NewKey;
use mayfly::keys::{InMemoryKey, Signer};
use mayfly::random::{Random, SystemRandomness};
use mayfly::store::folder::{Folder, FolderOptions};

/// How many submissions are under way at a time.
const AT_ONCE: usize = 1024;

fn main() {
    divan::main();
}

/// A log that is opened again and again.
struct Place {
    folder: tempfile::TempDir,
    settings: EmbeddedLogSettings,
    signer: Arc<dyn Signer>,
    random: Arc<dyn Random>,
}

impl Place {
    /// Makes a log with so many entries.
    fn with_entries(entries: usize) -> Self {
        let url = url::Url::parse("https://ca.example.com").expect("a URL");
        let place = Self {
            folder: tempfile::tempdir_in(".").expect("a folder"),
            settings: EmbeddedLogConfig::default().check(&url).expect("settings"),
            signer: Arc::new(InMemoryKey::generate(NewKey::P256).expect("a key").0),
            random: Arc::new(SystemRandomness),
        };
        EmbeddedLog::create(&place.settings, &place.parts()).expect("a log");
        let log = place.open();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        let submission = Arc::new(place.submission());
        let mut accepted = 0;
        while accepted < entries {
            let batch =
                (0..AT_ONCE.min(entries - accepted)).map(|_| log.submit(Arc::clone(&submission)));
            let timestamps = runtime.block_on(futures_util::future::join_all(batch));
            // On a busy machine the log refuses what it cannot publish in time; nobody is in a hurry here.
            accepted += timestamps.iter().filter(|it| it.is_ok()).count();
        }
        place
    }

    fn parts(&self) -> EmbeddedLogParts {
        let options = FolderOptions {
            allow_volatile: true,
            allow_network: false,
        };
        let folder: &Path = self.folder.path();
        EmbeddedLogParts {
            store: Arc::new(
                Folder::open(folder, options, Arc::clone(&self.random)).expect("a store"),
            ),
            signer: Arc::clone(&self.signer),
            clock: Arc::new(SystemClock),
            random: Arc::clone(&self.random),
            metrics: None,
            on_fatal: Arc::new(|why| eprintln!("the log failed: {why}")),
        }
    }

    fn open(&self) -> EmbeddedLog {
        EmbeddedLog::open(self.settings.clone(), &self.parts()).expect("the log")
    }

    fn submission(&self) -> Submission {
        let names = Names {
            organization: "Bench".to_owned(),
            common_name: "Bench root".to_owned(),
        };
        let hierarchy = Hierarchy::generate(&names, SystemClock.now(), &*self.random);
        Submission {
            precertificate: vec![7; 850],
            tbs: vec![7; 700],
            issuer_key_hash: [7; 32],
            chain: Arc::new(hierarchy.expect("a hierarchy").chain),
        }
    }
}

/// Opening, up to the published checkpoint.
#[divan::bench(args = [1_000, 100_000, 1_000_000], sample_count = 20, sample_size = 1)]
fn open(bencher: Bencher<'_, '_>, entries: usize) {
    let place = Place::with_entries(entries);
    bencher.bench_local(|| place.open());
}
