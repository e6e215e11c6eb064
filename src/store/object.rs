//! A store in a bucket: S3 and what speaks like it, Google Cloud Storage, Azure, and memory for tests.
//!
//! Every segment is an object whose name is its number, made only where there is none. That one conditional write is the
//! whole arbiter between processes: the bucket keeps the first body that reaches a name, whatever clocks, leases or network
//! do. What the bucket answers is believed only where it says what happened; everything else is found out first.
//!
//! No object is ever deleted: a name that becomes free again would take a late write of a process that is long gone.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use futures_util::future::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientConfigKey, Error, GetOptions, GetResult, ObjectStore, PutMode, PutOptions,
    PutPayload, RetryConfig, UpdateVersion,
};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use url::Url;

use super::{Commit, Journal, SharedStore, Store, StoreError, Version, Versioned};
use crate::hex::hex;
use crate::random::Random;

/// How long one attempt to write or read may take, without what its length takes.
const ATTEMPT: Duration = Duration::from_secs(1);
/// How many octets a second are expected of a bucket at least.
const OCTETS_A_SECOND: usize = 1 << 20;
/// How many segments are read at once.
const READ_AHEAD: u64 = 16;
/// How many objects are written or read at once.
const AT_ONCE: usize = 16;
/// How many segments are read where other processes may have been first: often it is only one.
const READ_OF_OTHERS: u64 = 4;
/// For how many segments of ours, after one of another process, we are ready to lose the next race too.
const WARY: u32 = 32;
/// The object that says whose journal this is, and was made first of all.
const OWNER: &str = "journal/owner";
/// How many writers race for one name when a bucket is tried.
const PROBE_WRITERS: usize = 8;
/// How the HTTP client is set, over what the environment says. A request that hangs is given up long before; these limits
/// end what it leaves behind.
const CLIENT: [(ClientConfigKey, &str); 3] = [
    (ClientConfigKey::ConnectTimeout, "2 seconds"),
    (ClientConfigKey::Timeout, "30 seconds"),
    (
        ClientConfigKey::UserAgent,
        concat!("mayfly/", env!("CARGO_PKG_VERSION")),
    ),
];
/// How many octets of tiles are kept in memory.
const CACHE_BYTES: usize = 32 << 20;

/// A log's place in a bucket.
#[derive(Clone)]
pub struct ObjectStorage(Arc<Shared>);

struct Shared {
    objects: Arc<dyn ObjectStore>,
    prefix: Path,
    runner: Runner,
    cache: Mutex<Cache>,
}

/// Where the requests run.
#[derive(Clone, Debug)]
enum Runner {
    /// On a runtime, with a limit of time.
    Runtime(Handle),
    /// Where they are asked for: for stores in memory, that never wait.
    Caller,
}

impl std::fmt::Debug for ObjectStorage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ObjectStorage")
            .field("objects", &self.0.objects.to_string())
            .field("prefix", &self.0.prefix.as_ref())
            .finish_non_exhaustive()
    }
}

/// The URL of a log's place in a bucket: `s3://BUCKET[/PREFIX]`, `gs://BUCKET[/PREFIX]` or `az://CONTAINER[/PREFIX]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BucketUrl {
    provider: Provider,
    bucket: String,
    prefix: Path,
}

/// Whose bucket it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Provider {
    /// Amazon S3, and what speaks like it.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

impl Provider {
    /// The scheme of its URLs, which is also its name in metrics.
    #[must_use]
    pub const fn scheme(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Gcs => "gs",
            Self::Azure => "az",
        }
    }
}

/// Why a text is no place in a bucket.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "{0:?} is no place in a bucket; give s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or az://CONTAINER/PREFIX"
)]
pub struct NotABucketUrl(String);

impl std::str::FromStr for BucketUrl {
    type Err = NotABucketUrl;

    fn from_str(text: &str) -> Result<Self, NotABucketUrl> {
        let refusal = || NotABucketUrl(text.to_owned());
        let url = Url::parse(text).map_err(|_| refusal())?;
        let provider = match url.scheme() {
            "s3" => Provider::S3,
            "gs" => Provider::Gcs,
            "az" => Provider::Azure,
            _ => return Err(refusal()),
        };
        let bucket = url.host_str().unwrap_or_default();
        let is_plain = !bucket.is_empty()
            && url.username().is_empty()
            && url.password().is_none()
            && url.port().is_none()
            && url.query().is_none()
            && url.fragment().is_none();
        let prefix = Path::from_url_path(url.path()).map_err(|_| refusal())?;
        if !is_plain {
            return Err(refusal());
        }
        Ok(Self {
            provider,
            bucket: bucket.to_owned(),
            prefix,
        })
    }
}

impl std::fmt::Display for BucketUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}", self.provider.scheme(), self.bucket)?;
        if !self.prefix.as_ref().is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        Ok(())
    }
}

impl BucketUrl {
    /// Whose bucket it is.
    #[must_use]
    pub const fn provider(&self) -> Provider {
        self.provider
    }
}

impl ObjectStorage {
    /// Connects to a bucket, and tries it: one that lets two writers have the same name is refused.
    ///
    /// Credentials, region and endpoint come from the environment, by the names that the provider's own tools use. Requests
    /// run on `runtime`; calls wait for them, from any thread.
    ///
    /// # Errors
    /// [`StoreError::Unsuitable`] when credentials are missing or the bucket does not keep what it promises,
    /// [`StoreError::Unanswered`] when it does not answer.
    pub fn open(
        url: &BucketUrl,
        runtime: &Handle,
        random: &dyn Random,
    ) -> Result<Self, StoreError> {
        let unusable =
            |error: Error| StoreError::Unsuitable(format!("{url} cannot be used: {error}"));
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: Duration::from_millis(50),
                max_backoff: Duration::from_millis(200),
                base: 2.0,
            },
            max_retries: 2,
            retry_timeout: Duration::from_secs(5),
        };
        // One builder a provider, of different types with the same methods.
        macro_rules! build {
            ($builder:expr, $key:path) => {
                CLIENT
                    .iter()
                    .fold($builder, |builder, (key, value)| {
                        builder.with_config($key(*key), *value)
                    })
                    .with_retry(retry)
                    .build()
                    .map(|objects| Arc::new(objects) as Arc<dyn ObjectStore>)
                    .map_err(unusable)?
            };
        }
        let bucket = &url.bucket;
        let objects = match url.provider {
            Provider::S3 => build!(
                AmazonS3Builder::from_env()
                    .with_bucket_name(bucket)
                    // A body that is damaged on its way would have its name for ever.
                    .with_checksum_algorithm(Checksum::SHA256),
                AmazonS3ConfigKey::Client
            ),
            Provider::Gcs => build!(
                GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket),
                GoogleConfigKey::Client
            ),
            Provider::Azure => build!(
                MicrosoftAzureBuilder::from_env().with_container_name(bucket),
                AzureConfigKey::Client
            ),
        };
        let storage = Self::new(
            objects,
            url.prefix.clone(),
            Runner::Runtime(runtime.clone()),
        );
        storage.probe(random)?;
        Ok(storage)
    }

    /// A place in memory, that lasts as long as its last clone.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::on(Arc::new(InMemory::new()))
    }

    /// A place in a store that never waits: its requests run on the caller's thread.
    #[must_use]
    pub fn on(objects: Arc<dyn ObjectStore>) -> Self {
        Self::new(objects, Path::default(), Runner::Caller)
    }

    /// A place in any object store. Requests run on `runtime`; calls wait for them, from any thread.
    #[must_use]
    pub fn on_runtime(objects: Arc<dyn ObjectStore>, runtime: &Handle) -> Self {
        Self::new(objects, Path::default(), Runner::Runtime(runtime.clone()))
    }

    fn new(objects: Arc<dyn ObjectStore>, prefix: Path, runner: Runner) -> Self {
        Self(Arc::new(Shared {
            objects,
            prefix,
            runner,
            cache: Mutex::default(),
        }))
    }

    /// Finds out whether the store keeps what a log builds on. Its objects stay: whoever may not delete segments may delete
    /// nothing.
    ///
    /// # Errors
    /// [`StoreError::Unsuitable`] where it does not.
    pub fn probe(&self, random: &dyn Random) -> Result<(), StoreError> {
        let refuse = |what: &str| {
            Err(StoreError::Unsuitable(format!(
                "the object store {what}; two processes could make two logs of one: use a store with conditional writes"
            )))
        };
        let mut nonce = [0; 16];
        random
            .fill(&mut nonce)
            .map_err(|_| StoreError::Unsuitable("there is no randomness".to_owned()))?;
        let folder = hex(&nonce);

        let race = self.path(&format!("probe/{folder}/race"));
        let writers = (0..PROBE_WRITERS).map(|writer| {
            let bytes = vec![u8::try_from(writer).unwrap_or(0); 64];
            self.put_request(race.clone(), &bytes, PutMode::Create)
        });
        let outcomes = self.run(ATTEMPT * 5, join_all(writers).boxed())?;
        let won = |outcome: &Result<_, Error>| outcome.is_ok();
        let mut winners = Vec::new();
        for (writer, outcome) in outcomes.iter().enumerate() {
            match outcome {
                outcome if won(outcome) => winners.push(writer),
                Err(Error::AlreadyExists { .. }) => {}
                Err(error) => return Err(refused(error)),
                Ok(_) => {}
            }
        }
        let Some(found) = self.read(&race)? else {
            return refuse("does not show what was just written");
        };
        // A retry inside the client can make a winner look like a loser; never a loser like a winner.
        if winners.len() > 1 {
            return refuse("lets several writers make the same object");
        }
        if let Some(winner) = winners.first()
            && found
                .bytes
                .iter()
                .any(|octet| usize::from(*octet) != *winner)
        {
            return refuse("lets a writer replace an object that it was to make");
        }

        let name = format!("probe/{folder}/versions");
        let first = self.replace(&name, b"1", None)?;
        let version = self.read_version(&name)?.map(|found| found.version);
        let second = self.replace(&name, b"2", version.as_ref())?;
        let stale = self.replace(&name, b"3", version.as_ref())?;
        let absent = self.replace(&name, b"4", None)?;
        let found = self.read_version(&name)?.map(|found| found.bytes);
        if !first || !second || stale || absent || found.as_deref() != Some(b"2") {
            return refuse("does not replace exactly the version that it is told");
        }
        Ok(())
    }

    fn path(&self, name: &str) -> Path {
        self.0
            .prefix
            .parts()
            .chain(Path::from(name).parts())
            .collect()
    }

    /// Waits for a request, at most for `limit` where there is a clock to tell.
    fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        request: BoxFuture<'static, T>,
    ) -> Result<T, StoreError> {
        match &self.0.runner {
            Runner::Caller => Ok(poll_now(request)),
            // Not `block_on`, which panics on the threads of another runtime.
            Runner::Runtime(runtime) => {
                let (done, answer) = mpsc::sync_channel(1);
                runtime.spawn(async move {
                    let answer = tokio::time::timeout(limit, request).await;
                    // Who asked waits for exactly this.
                    let _ = done.send(answer);
                });
                match answer.recv() {
                    Ok(Ok(answer)) => Ok(answer),
                    Ok(Err(_)) => Err(StoreError::Unanswered(format!(
                        "no answer within {} ms",
                        limit.as_millis()
                    ))),
                    Err(_) => Err(StoreError::Unanswered("its runtime ended".to_owned())),
                }
            }
        }
    }

    fn put_request(
        &self,
        path: Path,
        bytes: &[u8],
        mode: PutMode,
    ) -> BoxFuture<'static, Result<(), Error>> {
        let objects = Arc::clone(&self.0.objects);
        let payload = PutPayload::from(bytes.to_vec());
        let options = PutOptions::from(mode);
        async move { objects.put_opts(&path, payload, options).await.map(|_| ()) }.boxed()
    }

    fn put(
        &self,
        path: &Path,
        bytes: &[u8],
        mode: PutMode,
    ) -> Result<Result<(), Error>, StoreError> {
        let request = self.put_request(path.clone(), bytes, mode);
        self.run(attempt(bytes.len()), request)
    }

    /// Makes an object where there is none; `false` where there is one, or is said to be.
    fn make(&self, path: &Path, bytes: &[u8]) -> Result<bool, StoreError> {
        match self.put(path, bytes, PutMode::Create)? {
            Ok(()) => Ok(true),
            Err(Error::AlreadyExists { .. }) => Ok(false),
            Err(error) => Err(refused(&error)),
        }
    }

    /// Makes an object that never changes.
    fn make_once(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.path(name);
        if self.make(&path, bytes)? {
            return Ok(());
        }
        // It may be our own, by an attempt whose answer was lost.
        match self.read(&path)? {
            Some(found) if found.bytes == bytes => Ok(()),
            Some(_) => Err(StoreError::Conflict(name.to_owned())),
            None => Err(contradiction(name)),
        }
    }

    fn read(&self, path: &Path) -> Result<Option<Versioned>, StoreError> {
        let objects = Arc::clone(&self.0.objects);
        let path = path.clone();
        let request = async move { fetch(&*objects, &path).await };
        self.run(attempt(4 << 20), request.boxed())?
            .map_err(|error| refused(&error))
    }

    fn read_segments(&self, from: u64, count: u64) -> Result<Vec<Vec<u8>>, StoreError> {
        let request = self.segments_request(from, count);
        self.run(attempt(16 << 20), request)?
    }

    fn segments_request(
        &self,
        from: u64,
        count: u64,
    ) -> BoxFuture<'static, Result<Vec<Vec<u8>>, StoreError>> {
        let objects = Arc::clone(&self.0.objects);
        let paths: Vec<_> = (from..from.saturating_add(count))
            .map(|number| self.path(&segment_name(number)))
            .collect();
        async move {
            let reads = paths.iter().map(|path| fetch(&*objects, path));
            let mut segments = Vec::new();
            for segment in join_all(reads).await {
                match segment.map_err(|error| refused(&error))? {
                    Some(found) => segments.push(found.bytes),
                    None => break,
                }
            }
            Ok(segments)
        }
        .boxed()
    }

    /// Reads segments after a while, beside what else is done; where nobody could, not at all.
    fn read_beside(&self, after: Duration, from: u64, count: u64) -> Option<Beside> {
        let Runner::Runtime(runtime) = &self.0.runner else {
            return None;
        };
        let (done, segments) = mpsc::sync_channel(1);
        let request = self.segments_request(from, count);
        let task = runtime.spawn(async move {
            tokio::time::sleep(after).await;
            if let Ok(Ok(segments)) = tokio::time::timeout(attempt(16 << 20), request).await {
                // Nobody waits for it where the race was won.
                let _ = done.send(segments);
            }
        });
        Some(Beside { task, segments })
    }

    fn lock_cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.0.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Segments that are being read.
struct Beside {
    task: JoinHandle<()>,
    segments: mpsc::Receiver<Vec<Vec<u8>>>,
}

impl Beside {
    /// What was read; nothing when the store did not answer so soon.
    fn wait(&self, at_most: Duration) -> Vec<Vec<u8>> {
        self.segments.recv_timeout(at_most).unwrap_or_default()
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads an object, whole.
async fn fetch(objects: &dyn ObjectStore, path: &Path) -> Result<Option<Versioned>, Error> {
    let found = match objects.get_opts(path, GetOptions::default()).await {
        Ok(found) => found,
        Err(Error::NotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let GetResult { ref meta, .. } = found;
    let (size, version) = (
        meta.size,
        Version {
            e_tag: meta.e_tag.clone(),
            generation: meta.version.clone(),
        },
    );
    let written = u64::try_from(meta.last_modified.timestamp_millis()).unwrap_or(0);
    let bytes = found.bytes().await?.to_vec();
    if bytes.len() as u64 != size {
        return Err(Error::Generic {
            store: "object store",
            source: format!("{path} came cut short").into(),
        });
    }
    Ok(Some(Versioned {
        bytes,
        version,
        written,
    }))
}

/// How long an attempt to move so many octets may take.
fn attempt(bytes: usize) -> Duration {
    let seconds = u32::try_from(bytes / OCTETS_A_SECOND).unwrap_or(u32::MAX);
    ATTEMPT.saturating_mul(seconds.saturating_add(1))
}

/// Polls a future that never waits for anything.
fn poll_now<T>(future: BoxFuture<'static, T>) -> T {
    let mut future = pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    loop {
        if let std::task::Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        std::thread::yield_now();
    }
}

/// What an error of the bucket comes to: it says nothing about what happened.
fn refused(error: &Error) -> StoreError {
    let mut text = error.to_string();
    // The answer's body can be a page.
    if let Some((end, _)) = text.char_indices().nth(300) {
        text.truncate(end);
    }
    StoreError::Unanswered(text.replace('\n', " "))
}

fn contradiction(name: &str) -> StoreError {
    StoreError::Unanswered(format!("it says that {name} exists, and does not have it"))
}

/// The name of a segment: groups of three digits, as tiles have them, so that no folder grows long.
fn segment_name(number: u64) -> String {
    let mut name = format!("{:03}", number % 1000);
    let mut rest = number / 1000;
    while rest > 0 {
        name = format!("x{:03}/{name}", rest % 1000);
        rest /= 1000;
    }
    format!("journal/{name}")
}

impl Store for ObjectStorage {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        // Tiles never change, and proofs read the same few again and again.
        let is_immutable = name.starts_with("tile/") || name.starts_with("issuer/");
        if is_immutable && let Some(bytes) = self.lock_cache().get(name) {
            return Ok(Some(bytes.to_vec()));
        }
        let found = self.read(&self.path(name))?.map(|found| found.bytes);
        if is_immutable && let Some(bytes) = &found {
            self.lock_cache().insert(name, bytes);
        }
        Ok(found)
    }

    fn put_immutable(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.make_once(name, bytes)
    }

    fn put_mutable(&self, name: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.put(&self.path(name), bytes, PutMode::Overwrite)?
            .map_err(|error| refused(&error))
    }

    fn create_journal(&self, log_id: &[u8; 32]) -> Result<(), StoreError> {
        self.make_once(OWNER, &owner(log_id))
    }

    fn open_journal(&self, log_id: &[u8; 32], from: u64) -> Result<Box<dyn Journal>, StoreError> {
        match self.read(&self.path(OWNER))? {
            Some(found) if found.bytes == owner(log_id) => {}
            Some(_) => {
                return Err(StoreError::Damaged(
                    "the journal is that of another log's key".to_owned(),
                ));
            }
            None => return Err(StoreError::Damaged(format!("{OWNER} is missing"))),
        }
        let mut journal = ObjectJournal {
            storage: self.clone(),
            next_number: from,
            ahead: VecDeque::new(),
            is_read: false,
            wary: 0,
            write: Duration::ZERO,
            read: Duration::ZERO,
        };
        journal.read_on()?;
        if journal.ahead.is_empty() && from > 0 && self.read_segments(from - 1, 1)?.is_empty() {
            return Err(StoreError::Damaged(format!(
                "the journal ends before segment {from}"
            )));
        }
        Ok(Box::new(journal))
    }

    fn at_once(&self) -> usize {
        match self.0.runner {
            Runner::Runtime(_) => AT_ONCE,
            Runner::Caller => 1,
        }
    }

    fn as_shared(&self) -> Option<&dyn SharedStore> {
        Some(self)
    }
}

fn owner(log_id: &[u8; 32]) -> Vec<u8> {
    (hex(log_id) + "\n").into_bytes()
}

impl SharedStore for ObjectStorage {
    fn read_version(&self, name: &str) -> Result<Option<Versioned>, StoreError> {
        self.read(&self.path(name))
    }

    fn replace(
        &self,
        name: &str,
        bytes: &[u8],
        version: Option<&Version>,
    ) -> Result<bool, StoreError> {
        let path = self.path(name);
        let Some(version) = version else {
            return self.make(&path, bytes);
        };
        let version = UpdateVersion {
            e_tag: version.e_tag.clone(),
            version: version.generation.clone(),
        };
        match self.put(&path, bytes, PutMode::Update(version))? {
            Ok(()) => Ok(true),
            Err(
                Error::Precondition { .. } | Error::AlreadyExists { .. } | Error::NotFound { .. },
            ) => Ok(false),
            Err(error) => Err(refused(&error)),
        }
    }

    fn segments(&self, from: u64) -> Result<Vec<Vec<u8>>, StoreError> {
        self.read_segments(from, READ_AHEAD)
    }
}

/// The journal in a bucket: one object a segment.
#[derive(Debug)]
struct ObjectJournal {
    storage: ObjectStorage,
    next_number: u64,
    /// Segments from that number on.
    ahead: VecDeque<Vec<u8>>,
    /// Whether nothing was behind those when they were read.
    is_read: bool,
    /// For how many more of our segments another process is expected to be first.
    wary: u32,
    /// How long the last write of a segment took, and the last look at those of others.
    write: Duration,
    read: Duration,
}

impl ObjectJournal {
    fn read_on(&mut self) -> Result<(), StoreError> {
        let segments = self.storage.read_segments(self.next_number, READ_AHEAD)?;
        self.is_read = (segments.len() as u64) < READ_AHEAD;
        self.ahead = segments.into();
        Ok(())
    }

    /// Takes what was read of others, from a number on.
    fn go_on_with(&mut self, number: u64, segments: Vec<Vec<u8>>) {
        if !segments.is_empty() {
            self.wary = WARY;
        }
        self.next_number = number;
        self.is_read = (segments.len() as u64) < READ_OF_OTHERS;
        self.ahead = segments.into();
    }

    fn read_others(&mut self, number: u64) -> Result<Vec<Vec<u8>>, StoreError> {
        let began = Instant::now();
        let segments = self.storage.read_segments(number, READ_OF_OTHERS)?;
        self.read = began.elapsed();
        Ok(segments)
    }
}

impl Journal for ObjectJournal {
    fn next(&mut self) -> Result<Option<(u64, Vec<u8>)>, StoreError> {
        if self.ahead.is_empty() && !self.is_read {
            self.read_on()?;
        }
        let Some(segment) = self.ahead.pop_front() else {
            // Who asks once more wants to know whether there is more by now.
            self.is_read = false;
            return Ok(None);
        };
        let number = self.next_number;
        self.next_number += 1;
        Ok(Some((number, segment)))
    }

    fn look(&mut self, number: u64) -> Result<(), StoreError> {
        let segments = self.read_others(number)?;
        self.go_on_with(number, segments);
        Ok(())
    }

    fn settle(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn commit(&mut self, number: u64, segment: &[u8]) -> Result<Commit, StoreError> {
        let name = segment_name(number);
        // Who loses a race must know the winner's segment before it can try again: where that is likely, it is read while
        // ours is written, so that both end at the same time.
        let (began, lead) = (Instant::now(), self.write.saturating_sub(self.read));
        let beside = (self.wary > 0)
            .then(|| self.storage.read_beside(lead, number, READ_OF_OTHERS))
            .flatten();
        let is_made = self.storage.make(&self.storage.path(&name), segment)?;
        self.write = began.elapsed();
        self.wary = self.wary.saturating_sub(1);
        if !is_made {
            // Somebody's, or our own by an attempt whose answer was lost, or nobody's: some stores say so when two write at
            // the same moment and neither is through.
            // Where this write was shorter than the last, reading has hardly begun.
            let beside = beside.map(|beside| beside.wait(self.read));
            let mut segments = beside.unwrap_or_default();
            if segments.is_empty() {
                segments = self.read_others(number)?;
            }
            match segments.first() {
                None => return Err(contradiction(&name)),
                Some(found) if found != segment => {
                    self.go_on_with(number, segments);
                    return Ok(Commit::Taken);
                }
                Some(_) => {}
            }
        }
        self.next_number = number + 1;
        self.ahead.clear();
        self.is_read = false;
        Ok(Commit::Written)
    }
}

/// Blobs that never change, the oldest of which go when there are too many.
#[derive(Debug, Default)]
struct Cache {
    blobs: HashMap<String, Arc<[u8]>>,
    order: VecDeque<String>,
    bytes: usize,
}

impl Cache {
    fn get(&self, name: &str) -> Option<Arc<[u8]>> {
        self.blobs.get(name).cloned()
    }

    fn insert(&mut self, name: &str, bytes: &[u8]) {
        if bytes.len() > CACHE_BYTES / 8 || self.blobs.contains_key(name) {
            return;
        }
        self.bytes += bytes.len();
        self.blobs.insert(name.to_owned(), bytes.into());
        self.order.push_back(name.to_owned());
        while self.bytes > CACHE_BYTES
            && let Some(oldest) = self.order.pop_front()
        {
            let removed = self.blobs.remove(&oldest);
            self.bytes -= removed.map_or(0, |blob| blob.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use object_store::throttle::{ThrottleConfig, ThrottledStore};

    use super::super::faulty::{Fault, FaultyObjects, Request};
    use super::*;
    use crate::clock::FixedClock;
    use crate::random::SeededRandom;

    /// A bucket whose next requests go wrong in these ways, in this order.
    fn bucket(faults: &[Fault]) -> (ObjectStorage, Arc<FaultyObjects>) {
        let faults = Mutex::new(VecDeque::from(faults.to_vec()));
        let clock = Arc::new(FixedClock::at("2026-01-01T00:00:00Z"));
        let objects = FaultyObjects::new(clock, move |_, _| faults.lock().unwrap().pop_front());
        (ObjectStorage::on(objects.clone()), objects)
    }

    fn journal(storage: &ObjectStorage) -> Box<dyn Journal> {
        storage.create_journal(&[1; 32]).unwrap();
        let mut journal = storage.open_journal(&[1; 32], 0).unwrap();
        assert_eq!(journal.next().unwrap(), None);
        journal
    }

    /// A bucket with an empty journal, whose next requests go wrong in these ways.
    fn journal_with(faults: &[Fault]) -> (Box<dyn Journal>, Arc<FaultyObjects>) {
        let script = Arc::new(Mutex::new(VecDeque::new()));
        let decide = Arc::clone(&script);
        let clock = Arc::new(FixedClock::at("2026-01-01T00:00:00Z"));
        let objects = FaultyObjects::new(clock, move |_, _| decide.lock().unwrap().pop_front());
        let journal = journal(&ObjectStorage::on(objects.clone()));
        script.lock().unwrap().extend(faults);
        (journal, objects)
    }

    fn is_unanswered<T: std::fmt::Debug>(result: &Result<T, StoreError>) -> bool {
        matches!(result, Err(StoreError::Unanswered(_)))
    }

    #[test]
    fn a_place_in_a_bucket_reads_back_and_others_are_refused() {
        for text in ["s3://logs", "s3://logs/ca/main", "gs://b/x", "az://c/x/y"] {
            assert_eq!(text.parse::<BucketUrl>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "logs",
            "/var/lib",
            "memory://",
            "http://x/y",
            "s3://",
            "s3:///x",
            "s3://key:secret@logs",
            "s3://logs:9000/x",
            "s3://logs/x?y",
        ] {
            assert!(text.parse::<BucketUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn names_of_segments_have_three_digits_a_part() {
        for (number, name) in [
            (0, "journal/000"),
            (999, "journal/999"),
            (1000, "journal/x001/000"),
            (1_234_067, "journal/x001/x234/067"),
        ] {
            assert_eq!(segment_name(number), name);
        }
    }

    #[test]
    fn a_number_is_given_once() {
        let (storage, _) = bucket(&[]);
        let mut one = journal(&storage);
        let mut other = storage.open_journal(&[1; 32], 0).unwrap();
        assert_eq!(one.commit(0, b"one 0").unwrap(), Commit::Written);
        assert_eq!(one.commit(1, b"one 1").unwrap(), Commit::Written);
        assert_eq!(other.commit(0, b"other").unwrap(), Commit::Taken);
        assert_eq!(other.next().unwrap(), Some((0, b"one 0".to_vec())));
        assert_eq!(other.next().unwrap(), Some((1, b"one 1".to_vec())));
        assert_eq!(other.next().unwrap(), None);
        assert_eq!(other.commit(2, b"other").unwrap(), Commit::Written);
        assert_eq!(one.commit(2, b"one 2").unwrap(), Commit::Taken);
    }

    #[test]
    fn who_looks_first_finds_what_others_wrote_and_a_free_number_behind_it() {
        let (storage, objects) = bucket(&[]);
        let mut one = journal(&storage);
        let mut other = storage.open_journal(&[1; 32], 0).unwrap();
        other.look(0).unwrap();
        assert_eq!(other.next().unwrap(), None);
        for number in 0..6_u64 {
            one.commit(number, &[7, u8::try_from(number).unwrap()])
                .unwrap();
        }
        other.look(0).unwrap();
        let found: Vec<_> = std::iter::from_fn(|| other.next().unwrap()).collect();
        assert_eq!(found.len(), 6);
        assert_eq!(found[5], (5, vec![7, 5]));
        assert_eq!(other.commit(6, b"other").unwrap(), Commit::Written);
        one.look(6).unwrap();
        assert_eq!(one.next().unwrap(), Some((6, b"other".to_vec())));
        assert_eq!(one.next().unwrap(), None);
        assert_eq!(one.commit(7, b"one").unwrap(), Commit::Written);
        assert_eq!(objects.history("journal/006"), [b"other"]);
    }

    #[test]
    fn who_reads_beside_a_write_goes_on_from_the_winners_segment_whenever_it_was_read() {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let slow = ThrottleConfig {
            wait_put_per_call: Duration::from_millis(4),
            wait_get_per_call: Duration::from_millis(2),
            ..ThrottleConfig::default()
        };
        let objects = Arc::new(ThrottledStore::new(InMemory::new(), slow));
        let storage = ObjectStorage::on_runtime(objects, runtime.handle());
        let mut one = journal(&storage);
        let mut other = storage.open_journal(&[1; 32], 0).unwrap();
        // The first race makes both wary; in those after it, the loser's read may find the winner's segment or come too early.
        for number in 0..20_u64 {
            let round = u8::try_from(number).unwrap();
            let (mine, theirs) = ([1, round], [2, round]);
            let (won, lost) = thread::scope(|scope| {
                let rival = scope.spawn(|| other.commit(number, &theirs).unwrap());
                thread::sleep(Duration::from_micros(number * 200));
                (one.commit(number, &mine).unwrap(), rival.join().unwrap())
            });
            let (loser, segment) = match (won, lost) {
                (Commit::Written, Commit::Taken) => (&mut other, mine),
                (Commit::Taken, Commit::Written) => (&mut one, theirs),
                outcome => panic!("{outcome:?} in round {round}"),
            };
            assert_eq!(loser.next().unwrap(), Some((number, segment.to_vec())));
            assert_eq!(loser.next().unwrap(), None);
        }
    }

    #[test]
    fn many_segments_read_back_in_order_from_anywhere() {
        let (storage, _) = bucket(&[]);
        let mut writer = journal(&storage);
        for number in 0..50_u64 {
            writer.commit(number, &number.to_be_bytes()).unwrap();
        }
        for from in [0, 1, 15, 16, 17, 49, 50] {
            let mut reader = storage.open_journal(&[1; 32], from).unwrap();
            for number in from..50 {
                let expected = Some((number, number.to_be_bytes().to_vec()));
                assert_eq!(reader.next().unwrap(), expected, "from {from}");
            }
            assert_eq!(reader.next().unwrap(), None);
            reader.settle().unwrap();
        }
        let beyond = storage.open_journal(&[1; 32], 52).map(|_| ());
        assert!(matches!(beyond, Err(StoreError::Damaged(_))), "{beyond:?}");
    }

    #[test]
    fn a_reader_at_the_end_finds_what_is_written_later() {
        let (storage, _) = bucket(&[]);
        let mut writer = journal(&storage);
        let mut reader = storage.open_journal(&[1; 32], 0).unwrap();
        assert_eq!(reader.next().unwrap(), None);
        writer.commit(0, b"later").unwrap();
        assert_eq!(reader.next().unwrap(), Some((0, b"later".to_vec())));
    }

    #[test]
    fn a_write_that_is_repeated_until_it_is_known_is_there_once() {
        for faults in [
            &[Fault::Before][..],
            &[Fault::After],
            &[Fault::Late],
            &[Fault::Conflict],
            &[Fault::Before, Fault::Before],
            &[Fault::Before, Fault::After],
            &[Fault::After, Fault::Before],
            &[Fault::After, Fault::Conflict, Fault::Before],
            &[Fault::Late, Fault::Late],
            &[Fault::Late, Fault::Conflict],
        ] {
            let (mut journal, objects) = journal_with(faults);
            let mut tries = 0;
            let commit = loop {
                match journal.commit(0, b"segment") {
                    Ok(commit) => break commit,
                    Err(error) => assert!(is_unanswered::<()>(&Err(error)), "{faults:?}"),
                }
                tries += 1;
            };
            assert!(tries > 0, "{faults:?}");
            assert_eq!(commit, Commit::Written, "{faults:?}");
            while objects.late() > 0 {
                objects.apply_late(0);
            }
            assert_eq!(objects.history("journal/000"), [b"segment"], "{faults:?}");
            assert_eq!(journal.commit(1, b"next").unwrap(), Commit::Written);
        }
    }

    #[test]
    fn a_retry_inside_the_client_that_meets_its_own_first_write_has_won() {
        let (mut journal, objects) = journal_with(&[Fault::Retried]);
        assert_eq!(journal.commit(0, b"segment").unwrap(), Commit::Written);
        assert_eq!(objects.history("journal/000"), [b"segment"]);
    }

    #[test]
    fn a_late_write_finds_its_number_taken() {
        let (mut journal, objects) = journal_with(&[Fault::Late]);
        assert!(is_unanswered(&journal.commit(0, b"late")));
        // Another process is first meanwhile.
        let mut other = ObjectStorage::on(objects.clone())
            .open_journal(&[1; 32], 0)
            .unwrap();
        assert_eq!(other.commit(0, b"other").unwrap(), Commit::Written);
        assert_eq!(journal.commit(0, b"late").unwrap(), Commit::Taken);
        objects.apply_late(0);
        assert_eq!(objects.history("journal/000"), [b"other"]);
    }

    #[test]
    fn a_name_that_is_said_to_exist_and_does_not_is_not_given_up() {
        let (mut journal, _) = journal_with(&[Fault::Conflict]);
        assert!(is_unanswered(&journal.commit(0, b"segment")));
        assert_eq!(journal.commit(0, b"segment").unwrap(), Commit::Written);
    }

    #[test]
    fn a_read_that_ends_too_early_is_no_answer() {
        let clock = Arc::new(FixedClock::at("2026-01-01T00:00:00Z"));
        let objects = FaultyObjects::new(clock, |request, _| {
            (request == Request::Get).then_some(Fault::Partial)
        });
        let storage = ObjectStorage::on(objects);
        storage.put_mutable("checkpoint", b"whole").unwrap();
        assert!(is_unanswered(&storage.get("checkpoint")));
    }

    #[test]
    fn what_never_changes_is_written_once_and_compared() {
        let (storage, objects) = bucket(&[]);
        storage.put_immutable("tile/0/000", b"one").unwrap();
        storage.put_immutable("tile/0/000", b"one").unwrap();
        let conflict = storage.put_immutable("tile/0/000", b"two");
        assert!(matches!(conflict, Err(StoreError::Conflict(_))));
        assert_eq!(objects.history("tile/0/000"), [b"one"]);
    }

    #[test]
    fn a_version_is_replaced_once() {
        let (storage, _) = bucket(&[]);
        assert!(storage.replace("checkpoint", b"1", None).unwrap());
        assert!(!storage.replace("checkpoint", b"1", None).unwrap());
        let read = storage.read_version("checkpoint").unwrap().unwrap();
        assert!(
            storage
                .replace("checkpoint", b"2", Some(&read.version))
                .unwrap()
        );
        assert!(
            !storage
                .replace("checkpoint", b"3", Some(&read.version))
                .unwrap()
        );
        assert_eq!(storage.get("checkpoint").unwrap().unwrap(), b"2");
    }

    #[test]
    fn a_journal_has_one_owner() {
        let (storage, _) = bucket(&[]);
        storage.create_journal(&[1; 32]).unwrap();
        let other = storage.create_journal(&[2; 32]);
        assert!(matches!(other, Err(StoreError::Conflict(_))), "{other:?}");
        assert!(storage.open_journal(&[2; 32], 0).is_err());
    }

    #[test]
    fn a_sound_bucket_passes_the_probe() {
        let (storage, _) = bucket(&[]);
        storage.probe(&SeededRandom::new(1)).unwrap();
        storage.probe(&SeededRandom::new(2)).unwrap();
    }

    /// A bucket that does not look at conditions.
    #[derive(Debug)]
    struct Careless(InMemory, fn(PutMode) -> PutMode);

    impl std::fmt::Display for Careless {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("careless")
        }
    }

    #[async_trait::async_trait]
    impl ObjectStore for Careless {
        async fn put_opts(
            &self,
            path: &Path,
            payload: PutPayload,
            mut options: PutOptions,
        ) -> object_store::Result<object_store::PutResult> {
            options.mode = self.1(options.mode);
            self.0.put_opts(path, payload, options).await
        }

        async fn get_opts(
            &self,
            path: &Path,
            options: GetOptions,
        ) -> object_store::Result<GetResult> {
            self.0.get_opts(path, options).await
        }

        async fn put_multipart_opts(
            &self,
            path: &Path,
            options: object_store::PutMultipartOptions,
        ) -> object_store::Result<Box<dyn object_store::MultipartUpload>> {
            self.0.put_multipart_opts(path, options).await
        }

        fn delete_stream(
            &self,
            paths: futures_util::stream::BoxStream<'static, object_store::Result<Path>>,
        ) -> futures_util::stream::BoxStream<'static, object_store::Result<Path>> {
            self.0.delete_stream(paths)
        }

        fn list(
            &self,
            prefix: Option<&Path>,
        ) -> futures_util::stream::BoxStream<'static, object_store::Result<object_store::ObjectMeta>>
        {
            self.0.list(prefix)
        }

        async fn list_with_delimiter(
            &self,
            prefix: Option<&Path>,
        ) -> object_store::Result<object_store::ListResult> {
            self.0.list_with_delimiter(prefix).await
        }

        async fn copy_opts(
            &self,
            from: &Path,
            to: &Path,
            options: object_store::CopyOptions,
        ) -> object_store::Result<()> {
            self.0.copy_opts(from, to, options).await
        }
    }

    #[test]
    fn a_bucket_that_ignores_conditions_is_refused() {
        let ignores_create = |mode| match mode {
            PutMode::Create => PutMode::Overwrite,
            other @ (PutMode::Overwrite | PutMode::Update(_)) => other,
        };
        let ignores_update = |mode| match mode {
            PutMode::Update(_) => PutMode::Overwrite,
            other @ (PutMode::Overwrite | PutMode::Create) => other,
        };
        for ignores in [ignores_create, ignores_update] {
            let storage = ObjectStorage::on(Arc::new(Careless(InMemory::new(), ignores)));
            let refusal = storage.probe(&SeededRandom::new(1));
            assert!(
                matches!(refusal, Err(StoreError::Unsuitable(_))),
                "{refusal:?}"
            );
        }
    }

    #[test]
    fn what_is_kept_in_memory_has_a_limit() {
        let mut cache = Cache::default();
        let blob = vec![0; CACHE_BYTES / 10];
        for number in 0..30 {
            cache.insert(&number.to_string(), &blob);
        }
        assert!(cache.bytes <= CACHE_BYTES);
        assert_eq!(cache.blobs.len(), cache.order.len());
        assert!(cache.get("29").is_some());
        assert!(cache.get("0").is_none());
    }
}
