//! A bucket in memory that fails in every way that buckets do, as a test tells it to.

use std::collections::HashMap;
use std::fmt::{self, Debug, Display};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result,
};

use crate::clock::Clock;

/// What goes wrong with one request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// An error, and nothing is written.
    Before,
    /// An error, although it is written.
    After,
    /// No answer; it is written later, when [`FaultyObjects::apply_late`] says so, or never.
    Late,
    /// It is written, the answer is lost, and the client inside tries again by itself.
    Retried,
    /// "Two write at once", and neither is through (409).
    Conflict,
    /// A read that ends too early.
    Partial,
    /// A read that does not find what is there.
    Missing,
    /// A read that finds what was there before.
    Old,
}

/// What is asked of the bucket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Request {
    Put,
    Get,
}

type Decide = dyn Fn(Request, &str) -> Option<Fault> + Send + Sync;

/// See the module.
pub(crate) struct FaultyObjects {
    objects: InMemory,
    clock: Arc<dyn Clock>,
    decide: Box<Decide>,
    late: Mutex<Vec<(Path, PutPayload, PutOptions)>>,
    /// Everything that was ever written under a name, with its time.
    versions: Mutex<HashMap<Path, Vec<(Bytes, u64)>>>,
}

impl FaultyObjects {
    /// A bucket with a clock; `decide` is asked before each request.
    pub(crate) fn new(
        clock: Arc<dyn Clock>,
        decide: impl Fn(Request, &str) -> Option<Fault> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            objects: InMemory::new(),
            clock,
            decide: Box::new(decide),
            late: Mutex::default(),
            versions: Mutex::default(),
        })
    }

    /// How many writes are still under way.
    pub(crate) fn late(&self) -> usize {
        self.late.lock().unwrap().len()
    }

    /// Lets one of the writes that are under way happen.
    pub(crate) fn apply_late(&self, index: usize) {
        let (path, payload, options) = self.late.lock().unwrap().remove(index);
        let _ = self.write(&path, payload, options);
    }

    /// Everything that was ever written under a name, oldest first.
    pub(crate) fn history(&self, name: &str) -> Vec<Vec<u8>> {
        let versions = self.lock_versions();
        let versions = versions.get(&Path::from(name)).into_iter().flatten();
        versions.map(|(bytes, _)| bytes.to_vec()).collect()
    }

    /// Every name with its content, sorted.
    pub(crate) fn content(&self) -> Vec<(String, Vec<u8>)> {
        let versions = self.lock_versions();
        let mut content: Vec<_> = versions
            .iter()
            .filter_map(|(path, all)| Some((path.to_string(), all.last()?.0.to_vec())))
            .collect();
        content.sort();
        content
    }

    fn lock_versions(&self) -> MutexGuard<'_, HashMap<Path, Vec<(Bytes, u64)>>> {
        self.versions.lock().unwrap()
    }

    fn write(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let bytes: Bytes = payload.clone().into();
        let request = self.objects.put_opts(path, payload, options);
        let result = futures_util::FutureExt::now_or_never(request).unwrap()?;
        let now = self.clock.now_millis();
        let mut versions = self.lock_versions();
        versions.entry(path.clone()).or_default().push((bytes, now));
        Ok(result)
    }
}

fn lost() -> Error {
    Error::Generic {
        store: "faulty",
        source: "injected".into(),
    }
}

impl Debug for FaultyObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyObjects")
    }
}

impl Display for FaultyObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FaultyObjects")
    }
}

#[async_trait]
impl ObjectStore for FaultyObjects {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let fault = (self.decide)(Request::Put, path.as_ref());
        let again = (payload.clone(), options.clone());
        match fault {
            Some(Fault::Before) => Err(lost()),
            Some(Fault::After) => {
                self.write(path, payload, options)?;
                Err(lost())
            }
            Some(Fault::Late) => {
                let mut late = self.late.lock().unwrap();
                late.push((path.clone(), payload, options));
                Err(lost())
            }
            Some(Fault::Retried) => {
                self.write(path, payload, options)?;
                self.write(path, again.0, again.1)
            }
            // Only of a name that is to be made: other conditional writes are tried again inside.
            Some(Fault::Conflict) if options.mode == PutMode::Create => Err(Error::AlreadyExists {
                path: path.to_string(),
                source: "409".into(),
            }),
            _ => self.write(path, payload, options),
        }
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let fault = (self.decide)(Request::Get, path.as_ref());
        if matches!(fault, Some(Fault::Before | Fault::After | Fault::Late)) {
            return Err(lost());
        }
        if fault == Some(Fault::Missing) {
            return Err(Error::NotFound {
                path: path.to_string(),
                source: "injected".into(),
            });
        }
        let mut found = self.objects.get_opts(path, options).await?;
        let versions = self.lock_versions().get(path).cloned().unwrap_or_default();
        let (mut bytes, mut written) = versions.last().cloned().unwrap_or_default();
        if fault == Some(Fault::Old)
            && let [.., before, _] = versions.as_slice()
        {
            (bytes, written) = before.clone();
            found.meta.e_tag = Some("before".to_owned());
        }
        found.meta.last_modified = (SystemTime::UNIX_EPOCH + Duration::from_millis(written)).into();
        found.meta.size = bytes.len() as u64;
        if fault == Some(Fault::Partial) {
            bytes.truncate(bytes.len() / 2);
        }
        found.payload = GetResultPayload::Stream(stream::once(async { Ok(bytes) }).boxed());
        Ok(found)
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.objects.put_multipart_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.objects.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.objects.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.objects.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.objects.copy_opts(from, to, options).await
    }
}
