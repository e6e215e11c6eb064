//! Where a log is read: file by file, from a folder or over HTTP. Nothing that comes from here is believed.

use std::fmt::Debug;
use std::io::Read as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use flate2::read::GzDecoder;
use reqwest::header::{ACCEPT_ENCODING, CONTENT_ENCODING, RETRY_AFTER};
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use tokio::runtime::{self, Runtime};
use url::Url;

use super::CHECKPOINT;
use super::entries::EntryKind;
use crate::store::{FolderReader, StoreError};
use crate::tlog::checkpoint::LogIdentity;
use crate::tlog::journal::{Segment, SegmentError};
use crate::tlog::tile::{TILE_WIDTH, TileKind, TilePath, perfect_root};

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How often a request is tried again that failed in passing.
const RETRIES: u32 = 3;
/// The first wait before a second try; each one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// How many requests are under way at once.
const REQUESTS_AT_ONCE: usize = 8;

/// A place where the files of a log are, named as in static-ct-api: `checkpoint`, `tile/0/000.p/7`, `issuer/…`.
pub trait Source: Debug + Send + Sync {
    /// Returns a file; nothing where there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError>;

    /// How many reads at once are worth it.
    fn readers(&self) -> usize;

    /// Whether tiles that are not full are files here, and not made from what else is here.
    fn has_partial_tiles(&self) -> bool {
        true
    }
}

/// Why a file cannot be read. That says nothing about the log.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Not over HTTP.
    #[error("{url}: {why}")]
    Http {
        /// What was asked for.
        url: String,
        /// What came of it.
        why: String,
    },
    /// Not from the disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal holds a segment that is none of this log.
    #[error("segment {number} of the journal: {source}")]
    Segment {
        /// Its number.
        number: u64,
        /// Why.
        source: SegmentError,
    },
    /// There is no process to read with.
    #[error("the system refused: {0}")]
    System(#[from] std::io::Error),
}

/// A log at a URL: the monitoring prefix of static-ct-api.
#[derive(Debug)]
pub struct HttpSource {
    base: Url,
    client: Client,
    runtime: Runtime,
}

impl HttpSource {
    /// Reads below `base`, with or without a slash at its end.
    ///
    /// # Errors
    /// When the system has no thread or no sockets for it.
    pub fn new(mut base: Url) -> Result<Self, SourceError> {
        if !base.path().ends_with('/') {
            let path = format!("{}/", base.path());
            base.set_path(&path);
        }
        let client = Client::builder()
            .user_agent(concat!("mayfly-log/", env!("CARGO_PKG_VERSION")))
            .timeout(REQUEST_TIMEOUT)
            .build()
            .map_err(|error| SourceError::Http {
                url: base.to_string(),
                why: innermost(&error),
            })?;
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        Ok(Self {
            base,
            client,
            runtime,
        })
    }

    /// One try: the file, or why not, and how long to wait before the next one.
    async fn fetch(
        &self,
        url: &Url,
        limit: usize,
    ) -> Result<Option<Vec<u8>>, (String, Option<Duration>)> {
        let passing = |error: reqwest::Error| (innermost(&error), Some(Duration::ZERO));
        let request = self.client.get(url.clone()).header(ACCEPT_ENCODING, "gzip");
        let mut response = request.send().await.map_err(passing)?;
        let status = response.status();
        if status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        if status != StatusCode::OK {
            let may_pass = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
            let wait = response.headers().get(RETRY_AFTER);
            let wait = wait.and_then(|wait| wait.to_str().ok()?.parse().ok());
            let wait = Duration::from_secs(wait.unwrap_or(0).min(30));
            return Err((format!("HTTP {status}"), may_pass.then_some(wait)));
        }
        let coding = response.headers().get(CONTENT_ENCODING).cloned();
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(passing)? {
            body.extend_from_slice(&part);
            if body.len() > limit {
                return Err(too_long(limit));
            }
        }
        match coding {
            None => Ok(Some(body)),
            Some(coding) if coding == "identity" => Ok(Some(body)),
            Some(coding) if coding == "gzip" => unzip(&body, limit).map(Some),
            Some(_) => Err(("compressed in an unknown way".to_owned(), None)),
        }
    }
}

/// The largest file of this name that is read, in octets. Entries have some thousand each, and may have a hundred times as many.
fn limit_of(name: &str) -> usize {
    match name {
        CHECKPOINT => 64 << 10,
        _ if name.starts_with("tile/data/") => 64 << 20,
        _ if name.starts_with("tile/") => 256 * 32,
        _ => 1 << 20,
    }
}

impl Source for HttpSource {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError> {
        let failed = |why: String| SourceError::Http {
            url: format!("{}{name}", self.base),
            why,
        };
        let url = self.base.join(name);
        let url = url.map_err(|error| failed(error.to_string()))?;
        let mut wait = FIRST_WAIT;
        let mut tries = 0;
        loop {
            match self.runtime.block_on(self.fetch(&url, limit_of(name))) {
                Ok(file) => return Ok(file),
                Err((why, None)) => return Err(failed(why)),
                Err((why, Some(_))) if tries == RETRIES => return Err(failed(why)),
                Err((_, Some(asked))) => thread::sleep(wait.max(asked)),
            }
            tries += 1;
            wait *= 2;
        }
    }

    fn readers(&self) -> usize {
        REQUESTS_AT_ONCE
    }
}

fn unzip(body: &[u8], limit: usize) -> Result<Vec<u8>, (String, Option<Duration>)> {
    let mut plain = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX);
    let unpacked = GzDecoder::new(body).take(most + 1).read_to_end(&mut plain);
    match unpacked {
        Ok(length) if length <= limit => Ok(plain),
        Ok(_) => Err(too_long(limit)),
        Err(error) => Err((error.to_string(), None)),
    }
}

fn too_long(limit: usize) -> (String, Option<Duration>) {
    (format!("longer than {limit} octets"), None)
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// A log in a folder: that of a server, running or not, or the files of one, as [`export`](super::export) writes them.
///
/// A server keeps full tiles alone; what is behind them is made from its journal, up to the checkpoint that was read last.
#[derive(Debug)]
pub struct FolderSource {
    folder: FolderReader,
    public_key_der: Vec<u8>,
    kind: Arc<dyn EntryKind>,
    tail: Mutex<Tail>,
}

/// The entries behind the last full data tile.
#[derive(Debug, Default)]
struct Tail {
    /// The index of the first.
    start: u64,
    entries: Vec<Vec<u8>>,
}

/// Where the journal is to be read from; a hint that may be stale or missing.
#[derive(Debug, Default, Deserialize)]
struct State {
    folded_segment: u64,
}

impl FolderSource {
    /// Reads in a folder. The journal is read only if its segments are signed by the log's key, a DER `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn new(
        folder: impl Into<PathBuf>,
        public_key_der: &[u8],
        kind: Arc<dyn EntryKind>,
    ) -> Self {
        Self {
            folder: FolderReader::new(folder),
            public_key_der: public_key_der.to_vec(),
            kind,
            tail: Mutex::default(),
        }
    }

    /// The folder.
    #[must_use]
    pub const fn folder(&self) -> &FolderReader {
        &self.folder
    }

    /// Whether there is a journal: whether it is the folder of a server.
    #[must_use]
    pub fn has_journal(&self) -> bool {
        self.folder.root().join("journal").is_dir()
    }

    /// Calls `take` with the segments of the journal from number `from` on, until it returns `false`.
    ///
    /// Each is signed by the log's key; that it continues the one before it is for the caller to see.
    ///
    /// # Errors
    /// When the journal cannot be read, or a segment is not signed.
    pub fn segments(
        &self,
        from: u64,
        mut take: impl FnMut(Segment) -> bool,
    ) -> Result<(), SourceError> {
        // Segments name the log by its key alone.
        let identity = LogIdentity::new("", &self.public_key_der);
        let mut journal = self.folder.open_journal(identity.log_id(), from)?;
        while let Some((number, bytes)) = journal.next()? {
            let wrong = |source| SourceError::Segment { number, source };
            let segment = Segment::decode(&bytes).map_err(wrong)?;
            segment.verify_signature(&identity).map_err(wrong)?;
            if !take(segment) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// How many entries the journal has.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn journal_size(&self) -> Result<u64, SourceError> {
        let state = self.folder.get("state.json")?.unwrap_or_default();
        let state: State = serde_json::from_slice(&state).unwrap_or_default();
        retry_damage(|| {
            let mut size = 0;
            self.segments(state.folded_segment, |segment| {
                let count = u64::try_from(segment.entries.len()).unwrap_or(u64::MAX);
                size = segment.first_index.saturating_add(count);
                true
            })?;
            Ok(size)
        })
    }

    /// Reads the entries of the tree of `size` that are in no full tile.
    fn read_tail(&self, size: u64) -> Result<Tail, SourceError> {
        let start = size - size % TILE_WIDTH;
        let count = usize::try_from(size - start).unwrap_or(0);
        let mut tail = Tail {
            start,
            entries: Vec::new(),
        };
        if count == 0 || self.has_full_tiles(start / TILE_WIDTH)? {
            return Ok(tail);
        }
        let state = self.folder.get("state.json")?.unwrap_or_default();
        let state: State = serde_json::from_slice(&state).unwrap_or_default();
        for from in [state.folded_segment, 0] {
            let mut is_before = false;
            self.segments(from, |segment| {
                is_before |= segment.first_index <= start;
                let skipped = start.saturating_sub(segment.first_index);
                let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
                let entries = segment.entries.into_iter().skip(skipped);
                tail.entries
                    .extend(entries.take(count - tail.entries.len()));
                is_before && tail.entries.len() < count
            })?;
            if is_before {
                break;
            }
            // The hint led behind what is wanted.
            tail.entries.clear();
        }
        Ok(tail)
    }

    /// Whether a log that has grown on since its checkpoint has full tiles of these entries by now: both of them, as its
    /// server may be, or may have ended, between the two.
    fn has_full_tiles(&self, index: u64) -> Result<bool, SourceError> {
        for kind in [TileKind::Data, TileKind::Hashes(0)] {
            let path = TilePath::full(kind, index).to_string();
            if self.folder.get(&path)?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A tile that is in no file, from what is in files and in the tail.
    fn partial(&self, path: TilePath) -> Result<Option<Vec<u8>>, SourceError> {
        let full = TilePath::full(path.kind(), path.index());
        let width = usize::try_from(path.width()).unwrap_or(usize::MAX);
        if let Some(tile) = self.folder.get(&full.to_string())? {
            return Ok(cut(&*self.kind, path, &tile));
        }
        if let TileKind::Hashes(level @ 1..) = path.kind() {
            let mut tile = Vec::new();
            let first = path.index() * TILE_WIDTH;
            for index in first..first + path.width() {
                let below = TilePath::full(TileKind::Hashes(level - 1), index);
                let Some(below) = self.folder.get(&below.to_string())? else {
                    return Ok(None);
                };
                tile.extend(perfect_root(&below));
            }
            return Ok(Some(tile));
        }
        let tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        if tail.start != path.index() * TILE_WIDTH || tail.entries.len() < width {
            return Ok(None);
        }
        let entries = tail.entries.iter().take(width);
        Ok(Some(match path.kind() {
            TileKind::Data => entries.flatten().copied().collect(),
            TileKind::Hashes(_) => entries
                .flat_map(|entry| self.kind.leaf_hash(entry))
                .collect(),
        }))
    }
}

impl Source for FolderSource {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, SourceError> {
        if let Some(file) = self.folder.get(name)? {
            if name == CHECKPOINT
                && self.has_journal()
                && let Some(size) = size_of_note(&file)
            {
                let tail = match retry_damage(|| self.read_tail(size)) {
                    // Who asks for what is in it finds it missing; the checkpoint itself is as it is.
                    Err(SourceError::Store(StoreError::Damaged(_)))
                    | Err(SourceError::Segment { .. }) => Tail::default(),
                    tail => tail?,
                };
                *self.tail.lock().unwrap_or_else(PoisonError::into_inner) = tail;
            }
            return Ok(Some(file));
        }
        match name.parse::<TilePath>() {
            Ok(path) if path.width() < TILE_WIDTH && self.has_journal() => self.partial(path),
            _ => Ok(None),
        }
    }

    fn readers(&self) -> usize {
        thread::available_parallelism().map_or(1, usize::from)
    }

    fn has_partial_tiles(&self) -> bool {
        !self.has_journal()
    }
}

/// The size that a checkpoint names; it is not verified here.
fn size_of_note(note: &[u8]) -> Option<u64> {
    let line = note.split(|octet| *octet == b'\n').nth(1)?;
    str::from_utf8(line).ok()?.parse().ok()
}

/// The first hashes or entries of a full tile.
pub(super) fn cut(kind: &dyn EntryKind, path: TilePath, tile: &[u8]) -> Option<Vec<u8>> {
    match path.kind() {
        TileKind::Hashes(_) => {
            let part = crate::tlog::tile::cut_hashes(tile, path.width());
            part.map(<[u8]>::to_vec)
        }
        TileKind::Data => {
            let mut rest = tile;
            for _ in 0..path.width() {
                (_, rest) = kind.split_first(rest)?;
            }
            tile.get(..tile.len() - rest.len()).map(<[u8]>::to_vec)
        }
    }
}

/// Reads a journal again that looks damaged: its writer may be at work.
fn retry_damage<T>(read: impl Fn() -> Result<T, SourceError>) -> Result<T, SourceError> {
    for _ in 0..3 {
        match read() {
            Err(SourceError::Store(StoreError::Damaged(_))) => {
                thread::sleep(Duration::from_millis(20));
            }
            result => return result,
        }
    }
    read()
}
