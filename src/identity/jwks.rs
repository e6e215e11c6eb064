//! The issuers' keys: fetched, judged, kept for an hour.
//!
//! A token with a known key costs no lock and no wait. Everything a stranger could use to make us fetch is bounded: one
//! fetch at a time and one in ten seconds for each issuer, and a pause after each failure.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use serde_json::Value;
use time::{Duration, OffsetDateTime};
use tokio::runtime::Handle;
use url::Url;

use super::error::TokenError;
use super::issuers::Issuers;
use super::json::{Object, parse_object};
use super::jws::{Algorithm, UnverifiedToken, names};
use crate::clock::Clock;
use crate::excerpt::Excerpt;
use crate::fetch::{
    AddressPolicy, ClusterFiles, Credential, FetchError, FetchRequest, Fetcher, TlsRoots,
};
use crate::metrics::Metrics;

mod key;
use key::VerificationKey;

/// The URL of the API server, as an issuer, inside every cluster.
pub const CLUSTER_ISSUER: &str = "https://kubernetes.default.svc";
/// How deep the JSON of a document may be nested.
const MAX_DEPTH: usize = 32;
/// The most keys that are kept of a set.
const MAX_KEYS: usize = 100;
/// The most keys that are tried for a token that names none.
const MAX_TRIES: usize = 16;
/// How long keys are used after they were fetched; a key that its issuer removed is trusted no longer than this.
const MAX_AGE: Duration = Duration::hours(1);
/// From this age on, keys are fetched anew in the background.
const REFRESH_AGE: Duration = Duration::minutes(45);
/// How often unknown keys make us fetch an issuer's keys again, after a burst of [`REFETCH_BURST`].
const REFETCH_INTERVAL: Duration = Duration::seconds(10);
const REFETCH_BURST: i32 = 5;
/// How often tokens of one pattern may bring in an issuer that was not seen before, after a burst of [`TENANT_BURST`].
const TENANT_INTERVAL: Duration = Duration::seconds(3);
const TENANT_BURST: i32 = 20;
/// The most issuers that are remembered for all patterns together.
const MAX_TENANTS: usize = 1024;

/// Where an issuer's keys are, and under which rules they are fetched.
#[derive(Clone, Debug)]
pub struct KeyEndpoint {
    /// The configured id of the issuer, or of the pattern it falls under: a label.
    id: Arc<str>,
    /// The issuer's URL, octet for octet as in `iss`; for a wildcard entry its pattern.
    pub issuer: String,
    kind: EndpointKind,
    location: KeyLocation,
    extra_roots: Option<Arc<TlsRoots>>,
    /// Whether it is asked as the API server of a cluster, with its CA and our token.
    cluster: Option<ClusterAccess>,
}

/// What the API server of a cluster is asked with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ClusterAccess {
    /// The files of the cluster that we run in.
    Own,
    /// These files.
    Files(Arc<ClusterFiles>),
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum EndpointKind {
    /// An issuer that the operator wrote out.
    Exact,
    /// A pattern, which has no keys of its own.
    Wildcard,
    /// An issuer known by a pattern, this one.
    Tenant(String),
}

/// Where the key set of an issuer is.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum KeyLocation {
    /// Where its discovery document says.
    #[default]
    Discovery,
    /// At this URL. No discovery document is fetched, and any algorithm is accepted that a key allows.
    Url(Url),
    /// Here: the text of a JWK set, which the operator gave. Nothing is fetched, and any algorithm is accepted that a key
    /// allows.
    Given(Arc<str>),
}

/// A key set, or the address of one, that cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidKeyLocation(String);

impl KeyLocation {
    /// The key set at a URL, which must be https, or http if the issuer is too.
    ///
    /// # Errors
    /// When it is not, or has a user name or a fragment.
    pub fn url(text: &str, issuer: &str) -> Result<Self, InvalidKeyLocation> {
        let invalid = |why: &str| InvalidKeyLocation(why.to_owned());
        let url = Url::parse(text).map_err(|_| invalid("it is not a URL"))?;
        let is_http_allowed = issuer.starts_with("http://");
        if url.scheme() != "https" && !(url.scheme() == "http" && is_http_allowed) {
            return Err(invalid("it is not an https URL"));
        }
        if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
            return Err(invalid("it has a user name or a fragment"));
        }
        Ok(Self::Url(url))
    }

    /// The key set whose text this is.
    ///
    /// # Errors
    /// When it is no JWK set, publishes a private key, or has no key that can be used.
    pub fn given(jwks: &str) -> Result<Self, InvalidKeyLocation> {
        match read_key_set(jwks.as_bytes(), "of the file") {
            Ok(keys) if keys.is_empty() => Err(InvalidKeyLocation(
                "key set: it has no key that can be used".to_owned(),
            )),
            Ok(_) => Ok(Self::Given(jwks.into())),
            Err(failure) => Err(InvalidKeyLocation(failure.why)),
        }
    }
}

/// The same keys, fetched in the same way, whatever the label.
impl PartialEq for KeyEndpoint {
    fn eq(&self, other: &Self) -> bool {
        let Self {
            id: _,
            issuer,
            kind,
            location,
            extra_roots,
            cluster,
        } = self;
        *issuer == other.issuer
            && *kind == other.kind
            && *location == other.location
            && *extra_roots == other.extra_roots
            && *cluster == other.cluster
    }
}

impl Eq for KeyEndpoint {}

impl KeyEndpoint {
    /// The keys of an issuer that is written out. They may lie on a private address, and on http if its URL does.
    #[must_use]
    pub const fn exact(id: Arc<str>, issuer: String, extra_roots: Option<Arc<TlsRoots>>) -> Self {
        Self {
            id,
            issuer,
            kind: EndpointKind::Exact,
            location: KeyLocation::Discovery,
            extra_roots,
            cluster: None,
        }
    }

    /// What the issuers of a pattern have in common.
    #[must_use]
    pub const fn wildcard(
        id: Arc<str>,
        pattern: String,
        extra_roots: Option<Arc<TlsRoots>>,
    ) -> Self {
        Self {
            id,
            issuer: pattern,
            kind: EndpointKind::Wildcard,
            location: KeyLocation::Discovery,
            extra_roots,
            cluster: None,
        }
    }

    /// The same issuer with its keys elsewhere.
    #[must_use]
    pub fn with_keys_at(self, location: KeyLocation) -> Self {
        Self { location, ..self }
    }

    /// The same issuer, asked as the API server of a cluster. Of the issuers of a pattern only [`CLUSTER_ISSUER`] is.
    #[must_use]
    pub fn with_cluster_access(self, access: ClusterAccess) -> Self {
        Self {
            cluster: Some(access),
            ..self
        }
    }

    /// Whether it is asked as the API server of a cluster.
    #[must_use]
    pub const fn has_cluster_access(&self) -> bool {
        self.cluster.is_some()
    }

    /// The keys of one issuer of this pattern: on https and a public address only, and without credentials.
    #[must_use]
    pub(super) fn tenant(&self, issuer: &str) -> Self {
        // The cluster that we run in is no stranger, also where only a pattern names it.
        let is_own_cluster = issuer == CLUSTER_ISSUER && self.cluster.is_some();
        Self {
            issuer: issuer.to_owned(),
            kind: if is_own_cluster {
                EndpointKind::Exact
            } else {
                EndpointKind::Tenant(self.issuer.clone())
            },
            cluster: self.cluster.clone().filter(|_| is_own_cluster),
            ..self.clone()
        }
    }

    /// The text of the key set, where it was given.
    #[must_use]
    pub fn given_key_set(&self) -> Option<&str> {
        match &self.location {
            KeyLocation::Given(jwks) => Some(jwks),
            KeyLocation::Discovery | KeyLocation::Url(_) => None,
        }
    }

    /// Whether this is a pattern.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.kind == EndpointKind::Wildcard
    }

    fn request(&self, url: Url) -> FetchRequest {
        let is_exact = self.kind == EndpointKind::Exact;
        FetchRequest {
            credential: self.cluster.as_ref().and_then(|access| {
                Some(Credential {
                    origin: Url::parse(&self.issuer).ok()?.origin(),
                    files: match access {
                        ClusterAccess::Own => None,
                        ClusterAccess::Files(files) => Some(Arc::clone(files)),
                    },
                })
            }),
            url,
            addresses: if is_exact {
                AddressPolicy::Exact
            } else {
                AddressPolicy::Public
            },
            allow_http: is_exact && self.issuer.starts_with("http://"),
            extra_roots: self.extra_roots.clone(),
        }
    }
}

/// How long [`KeySource`] waits and pauses.
#[derive(Clone, Copy, Debug)]
pub struct KeySourceLimits {
    /// How long a token waits for a fetch, which goes on without it. Default 2 s.
    pub wait: std::time::Duration,
    /// How long a fetch of discovery document and key set may take together. Default 5 s.
    pub fetch: std::time::Duration,
    /// The pause after a failed fetch from an issuer that is written out. Default 10 s.
    pub pause: Duration,
    /// The pause after a failed fetch from an issuer of a pattern. Default 60 s.
    pub tenant_pause: Duration,
}

impl Default for KeySourceLimits {
    fn default() -> Self {
        Self {
            wait: std::time::Duration::from_secs(2),
            fetch: std::time::Duration::from_secs(5),
            pause: Duration::seconds(10),
            tenant_pause: Duration::seconds(60),
        }
    }
}

/// How an issuer's keys stand.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyStatus {
    /// The issuer's URL.
    pub issuer: String,
    /// Whether only a pattern names it.
    pub is_tenant: bool,
    /// Whether the last fetch succeeded.
    pub is_up: bool,
    /// When keys were last fetched.
    pub last_success: Option<OffsetDateTime>,
    /// How many usable keys there are.
    pub keys: usize,
}

/// The issuers' keys.
#[derive(Debug)]
pub struct KeySource {
    fetcher: Arc<dyn Fetcher>,
    clock: Arc<dyn Clock>,
    runtime: Handle,
    limits: KeySourceLimits,
    /// Fetches are counted here.
    metrics: Arc<Metrics>,
    /// Replaced as a whole, so that readers never wait.
    entries: ArcSwap<Entries>,
    /// Held while `entries` is replaced: for each pattern, how often it may bring in an issuer.
    tenant_paces: Mutex<HashMap<String, Pace>>,
}

/// By the issuer's URL. There are several for one URL when entries of the identity file say different things about it.
type Entries = HashMap<String, Vec<Arc<Entry>>>;

#[derive(Debug)]
struct Entry {
    endpoint: Arc<KeyEndpoint>,
    keys: ArcSwapOption<KeySet>,
    /// Never held while anything waits.
    state: Mutex<EntryState>,
    /// Whether a token was ever verified with these keys.
    has_verified: AtomicBool,
    /// Seconds since 1970.
    last_used: AtomicI64,
}

#[derive(Debug, Default)]
struct EntryState {
    flight: Option<Flight>,
    /// The last failure, if nothing succeeded since.
    failure: Option<(OffsetDateTime, KeysFailure)>,
    pace: Pace,
}

/// A fetch that is under way; many may wait for it.
type Flight = Shared<BoxFuture<'static, Result<Arc<KeySet>, KeysFailure>>>;

/// Why there are no keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeysFailure {
    is_transient: bool,
    /// What it is about.
    pub fault: KeysFault,
    /// What is wrong, fit for clients.
    pub why: String,
}

/// What keeps an issuer's keys from being used.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeysFault {
    /// The discovery document does not come, or is no such document.
    Discovery,
    /// The discovery document is that of another issuer.
    OtherIssuer,
    /// The discovery document names no address of a key set that may be asked.
    Location,
    /// The key set does not come, or is none.
    KeySet,
    /// We are sent elsewhere.
    Redirect,
    /// The TLS handshake fails.
    Tls,
}

impl KeysFailure {
    const fn wrong(fault: KeysFault, why: String) -> Self {
        Self {
            is_transient: false,
            fault,
            why,
        }
    }

    const fn unavailable(why: String) -> Self {
        Self {
            is_transient: true,
            fault: KeysFault::Discovery,
            why,
        }
    }

    fn fetching(document: &str, fault: KeysFault, error: &FetchError) -> Self {
        Self {
            is_transient: error.is_transient(),
            fault: match error {
                FetchError::Redirect => KeysFault::Redirect,
                FetchError::Tls => KeysFault::Tls,
                FetchError::Timeout
                | FetchError::Dns
                | FetchError::ForbiddenAddress
                | FetchError::Connect
                | FetchError::Status(_)
                | FetchError::TooLarge
                | FetchError::Compressed
                | FetchError::ForbiddenUrl
                | FetchError::ForeignHost
                | FetchError::ClusterFiles => fault,
            },
            why: format!("{document}: {error}"),
        }
    }

    fn for_issuer(self, issuer: &str) -> TokenError {
        let issuer = Excerpt::new(issuer);
        if self.is_transient {
            TokenError::KeysUnavailable {
                issuer,
                why: self.why,
            }
        } else {
            TokenError::KeysWrong {
                issuer,
                why: self.why,
            }
        }
    }
}

/// Lets through a burst, and then one in every interval (the generic cell rate algorithm).
#[derive(Debug, Default)]
struct Pace {
    /// When the allowance will be whole again.
    whole_at: Option<OffsetDateTime>,
}

impl Pace {
    fn take(&mut self, now: OffsetDateTime, interval: Duration, burst: i32) -> bool {
        let whole_at = self.whole_at.map_or(now, |whole_at| whole_at.max(now));
        let is_allowed = whole_at - now <= interval * (burst - 1);
        if is_allowed {
            self.whole_at = Some(whole_at + interval);
        }
        is_allowed
    }
}

impl KeySource {
    /// Returns a source without keys. Fetches run on `runtime`, which must not be one that ends with a request.
    #[must_use]
    pub fn new(
        fetcher: Arc<dyn Fetcher>,
        clock: Arc<dyn Clock>,
        runtime: Handle,
        limits: KeySourceLimits,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            fetcher,
            clock,
            runtime,
            limits,
            metrics,
            entries: ArcSwap::default(),
            tenant_paces: Mutex::default(),
        }
    }

    /// Verifies a token's signature with the keys of its issuer, which are fetched if need be.
    pub(super) async fn verify(
        &self,
        endpoint: &Arc<KeyEndpoint>,
        token: &UnverifiedToken<'_>,
        now: OffsetDateTime,
    ) -> Result<(), TokenError> {
        let entry = self.entry(endpoint, now)?;
        let failed = |failure: KeysFailure| failure.for_issuer(&endpoint.issuer);
        let keys = self.current(&entry, now).await.map_err(failed)?;
        let mut verdict = keys.verify(token);
        // The issuer may have changed its keys. A token that names none could be signed with any.
        let may_be_newer = match &verdict {
            Err(Mismatch::UnknownKey) => true,
            Err(Mismatch::Signature) => token.key_id.is_none(),
            Ok(()) | Err(Mismatch::Algorithm) => false,
        };
        if may_be_newer && let Some(newer) = self.newer(&entry, &keys, now).await.map_err(failed)? {
            verdict = newer.verify(token);
        }
        verdict.map_err(|mismatch| mismatch.for_token(token, &keys, &endpoint.issuer))?;
        entry.has_verified.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Begins to fetch an issuer's keys if there are none. Does nothing for a pattern.
    pub fn prefetch(&self, endpoint: &Arc<KeyEndpoint>, now: OffsetDateTime) {
        if endpoint.is_wildcard() {
            return;
        }
        if let Ok(entry) = self.entry(endpoint, now)
            && entry.keys.load().is_none()
        {
            // The fetch runs by itself; whoever needs the keys will find it.
            drop(self.start(&entry, now));
        }
    }

    /// How the keys of every issuer stand that was asked for, sorted by URL.
    #[must_use]
    pub fn status(&self) -> Vec<KeyStatus> {
        let mut all: Vec<_> = self
            .entries
            .load()
            .values()
            .flatten()
            .map(|entry| entry.status())
            .collect();
        all.sort_by(|a, b| a.issuer.cmp(&b.issuer));
        all
    }

    /// How the keys of one issuer stand, if they were asked for.
    #[must_use]
    pub fn status_of(&self, endpoint: &Arc<KeyEndpoint>) -> Option<KeyStatus> {
        find(&self.entries.load(), endpoint).map(|entry| entry.status())
    }

    fn entry(
        &self,
        endpoint: &Arc<KeyEndpoint>,
        now: OffsetDateTime,
    ) -> Result<Arc<Entry>, TokenError> {
        let found = find(&self.entries.load(), endpoint);
        let entry = match found {
            Some(entry) => entry,
            None => self.register(endpoint, now)?,
        };
        entry
            .last_used
            .store(now.unix_timestamp(), Ordering::Relaxed);
        Ok(entry)
    }

    fn register(
        &self,
        endpoint: &Arc<KeyEndpoint>,
        now: OffsetDateTime,
    ) -> Result<Arc<Entry>, TokenError> {
        let mut paces = lock(&self.tenant_paces);
        let mut entries = Entries::clone(&self.entries.load());
        if let Some(entry) = find(&entries, endpoint) {
            return Ok(entry);
        }
        if let EndpointKind::Tenant(pattern) = &endpoint.kind {
            let pace = paces.entry(pattern.clone()).or_default();
            if !pace.take(now, TENANT_INTERVAL, TENANT_BURST) {
                return Err(TokenError::TooManyIssuers(Excerpt::new(pattern)));
            }
            make_room(&mut entries);
        }
        let entry = Arc::new(Entry {
            endpoint: Arc::clone(endpoint),
            keys: ArcSwapOption::empty(),
            state: Mutex::default(),
            has_verified: AtomicBool::new(false),
            last_used: AtomicI64::new(now.unix_timestamp()),
        });
        let of_url = entries.entry(endpoint.issuer.clone()).or_default();
        of_url.push(Arc::clone(&entry));
        self.entries.store(Arc::new(entries));
        Ok(entry)
    }

    /// Forgets the keys of issuers that are no longer configured, or whose keys are found or fetched in another way.
    /// Those of all others stay.
    pub fn retain(&self, issuers: &Issuers) {
        let paces = lock(&self.tenant_paces);
        let mut entries = Entries::clone(&self.entries.load());
        for of_url in entries.values_mut() {
            *of_url = of_url
                .iter()
                .filter_map(|entry| {
                    Some(entry.labelled_as(issuers.endpoint_like(&entry.endpoint)?))
                })
                .collect();
        }
        entries.retain(|_, of_url| !of_url.is_empty());
        self.entries.store(Arc::new(entries));
        drop(paces);
    }

    /// Keys that are young enough to be used.
    async fn current(
        &self,
        entry: &Arc<Entry>,
        now: OffsetDateTime,
    ) -> Result<Arc<KeySet>, KeysFailure> {
        if let Some(keys) = entry.keys.load_full() {
            let age = now - keys.fetched;
            if age >= REFRESH_AGE {
                let flight = self.start(entry, now);
                if age >= MAX_AGE {
                    return self.wait(flight?).await;
                }
            }
            return Ok(keys);
        }
        self.wait(self.start(entry, now)?).await
    }

    /// Keys fetched after `known`, or none while the issuer's allowance is used up.
    async fn newer(
        &self,
        entry: &Arc<Entry>,
        known: &Arc<KeySet>,
        now: OffsetDateTime,
    ) -> Result<Option<Arc<KeySet>>, KeysFailure> {
        if let Some(keys) = entry
            .keys
            .load_full()
            .filter(|keys| !Arc::ptr_eq(keys, known))
        {
            return Ok(Some(keys));
        }
        {
            let mut state = lock(&entry.state);
            if state.flight.is_none() && !state.pace.take(now, REFETCH_INTERVAL, REFETCH_BURST) {
                return Ok(None);
            }
        }
        self.wait(self.start(entry, now)?).await.map(Some)
    }

    async fn wait(&self, flight: Flight) -> Result<Arc<KeySet>, KeysFailure> {
        let late = |_| KeysFailure::unavailable("no complete answer so far".to_owned());
        tokio::time::timeout(self.limits.wait, flight)
            .await
            .map_err(late)?
    }

    /// Begins a fetch, or joins the one under way. Fails at once during the pause after a failure.
    fn start(&self, entry: &Arc<Entry>, now: OffsetDateTime) -> Result<Flight, KeysFailure> {
        let mut state = lock(&entry.state);
        if let Some(flight) = &state.flight {
            return Ok(flight.clone());
        }
        let is_tenant = entry.endpoint.kind != EndpointKind::Exact;
        let pause = if is_tenant {
            self.limits.tenant_pause
        } else {
            self.limits.pause
        };
        if let Some((at, failure)) = &state.failure
            && now - *at < pause
        {
            return Err(failure.clone());
        }
        if entry.keys.load().is_none() {
            // The first fetch counts as one that an unknown key asked for.
            state.pace.take(now, REFETCH_INTERVAL, REFETCH_BURST);
        }
        let trigger = match entry.keys.load().as_ref() {
            None => "startup",
            Some(keys) if now - keys.fetched >= REFRESH_AGE => "expired",
            Some(_) => "unknown_kid",
        };
        self.metrics.oidc_refresh(&entry.endpoint.id, trigger);
        let (fetcher, clock) = (Arc::clone(&self.fetcher), Arc::clone(&self.clock));
        let metrics = Arc::clone(&self.metrics);
        let (entry, limit) = (Arc::clone(entry), self.limits.fetch);
        let task = self.runtime.spawn(async move {
            let fetched = clock.now();
            let fetching = fetch_keys(&*fetcher, &entry.endpoint, fetched, &metrics);
            let keys = tokio::time::timeout(limit, fetching).await;
            let late =
                |_| KeysFailure::unavailable("no complete answer within the time limit".to_owned());
            let keys = keys.map_err(late).flatten().map(Arc::new);
            entry.record(&keys, clock.now());
            keys
        });
        let ended = |_| KeysFailure::unavailable("the server is stopping".to_owned());
        let flight = task
            .map(move |keys| keys.map_err(ended).flatten())
            .boxed()
            .shared();
        state.flight = Some(flight.clone());
        Ok(flight)
    }
}

fn find(entries: &Entries, endpoint: &Arc<KeyEndpoint>) -> Option<Arc<Entry>> {
    let is_meant =
        |entry: &&Arc<Entry>| Arc::ptr_eq(&entry.endpoint, endpoint) || entry.endpoint == *endpoint;
    let mut of_url = entries.get(&endpoint.issuer)?.iter();
    of_url.find(is_meant).map(Arc::clone)
}

/// Forgets issuers of patterns until one more fits: first those whose keys never verified a token, the longest unused first.
fn make_room(entries: &mut Entries) {
    let is_tenant = |entry: &&Arc<Entry>| matches!(entry.endpoint.kind, EndpointKind::Tenant(_));
    while entries.values().flatten().filter(is_tenant).count() >= MAX_TENANTS {
        let rank = |entry: &&Arc<Entry>| {
            (
                entry.has_verified.load(Ordering::Relaxed),
                entry.last_used.load(Ordering::Relaxed),
            )
        };
        let tenants = entries.values().flatten().filter(is_tenant);
        let Some(least) = tenants.min_by_key(rank).map(Arc::clone) else {
            return;
        };
        if let Some(of_url) = entries.get_mut(&least.endpoint.issuer) {
            of_url.retain(|entry| !Arc::ptr_eq(entry, &least));
        }
        entries.retain(|_, of_url| !of_url.is_empty());
    }
}

impl Entry {
    /// The same keys for an equal endpoint, which may have another label.
    fn labelled_as(self: &Arc<Self>, endpoint: Arc<KeyEndpoint>) -> Arc<Self> {
        if self.endpoint.id == endpoint.id {
            return Arc::clone(self);
        }
        Arc::new(Self {
            endpoint,
            keys: ArcSwapOption::new(self.keys.load_full()),
            state: Mutex::default(),
            has_verified: AtomicBool::new(self.has_verified.load(Ordering::Relaxed)),
            last_used: AtomicI64::new(self.last_used.load(Ordering::Relaxed)),
        })
    }

    fn record(&self, outcome: &Result<Arc<KeySet>, KeysFailure>, now: OffsetDateTime) {
        let issuer = &self.endpoint.issuer;
        let mut state = lock(&self.state);
        state.flight = None;
        match outcome {
            Ok(keys) => {
                if state.failure.take().is_some() {
                    tracing::info!(event = "issuer_back", %issuer, "the issuer's keys can be fetched again");
                }
                let previous = self.keys.swap(Some(Arc::clone(keys)));
                if let Some(from) = previous.and_then(|previous| previous.location.clone())
                    && let Some(to) = keys.location.as_ref().filter(|to| **to != from)
                {
                    tracing::info!(event = "issuer_moved", %issuer, %from, %to, "issuer moved its key set");
                }
            }
            Err(failure) => {
                tracing::warn!(event = "issuer_failed", %issuer, why = %failure.why, "fetching the issuer's keys failed");
                state.failure = Some((now, failure.clone()));
            }
        }
    }

    fn status(&self) -> KeyStatus {
        let keys = self.keys.load();
        KeyStatus {
            issuer: self.endpoint.issuer.clone(),
            is_tenant: matches!(self.endpoint.kind, EndpointKind::Tenant(_)),
            is_up: keys.is_some() && lock(&self.state).failure.is_none(),
            last_success: keys.as_ref().map(|keys| keys.fetched),
            keys: keys.as_ref().map_or(0, |keys| keys.keys.len()),
        }
    }
}

/// A panic elsewhere cannot leave these states half written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What an issuer published at one time.
struct KeySet {
    keys: Vec<VerificationKey>,
    /// The algorithms that the issuer says it signs with.
    algorithms: Vec<Algorithm>,
    /// Where it was fetched from.
    location: Option<Url>,
    fetched: OffsetDateTime,
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "KeySet({} keys, fetched {})",
            self.keys.len(),
            self.fetched
        )
    }
}

/// Why a key set does not verify a token.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mismatch {
    Algorithm,
    UnknownKey,
    Signature,
}

impl Mismatch {
    fn for_token(self, token: &UnverifiedToken<'_>, keys: &KeySet, issuer: &str) -> TokenError {
        match self {
            Self::Algorithm => TokenError::UnsupportedAlgorithm {
                found: Excerpt::new(token.algorithm.name()),
                expected: names(&keys.algorithms),
            },
            Self::UnknownKey => TokenError::UnknownKey {
                issuer: Excerpt::new(issuer),
                key: match &token.key_id {
                    Some(key_id) => {
                        format!("`kid` {}, {}", Excerpt::new(key_id), token.algorithm.name())
                    }
                    None => format!("no `kid`, {}", token.algorithm.name()),
                },
            },
            Self::Signature => TokenError::BadSignature(Excerpt::new(issuer)),
        }
    }
}

impl KeySet {
    /// Verifies a token with the key that it names, or with any key that fits if it names none.
    ///
    /// The algorithm has to be one of the issuer's *and* of the key's: the header alone decides nothing.
    fn verify(&self, token: &UnverifiedToken<'_>) -> Result<(), Mismatch> {
        if !self.algorithms.contains(&token.algorithm) {
            return Err(Mismatch::Algorithm);
        }
        let is_meant = |key: &&VerificationKey| {
            let is_named = token.key_id.is_none() || token.key_id == key.id;
            is_named
                && key
                    .algorithm
                    .is_none_or(|algorithm| algorithm == token.algorithm)
        };
        let mut meant = self.keys.iter().filter(is_meant).peekable();
        if meant.peek().is_none() {
            return Err(Mismatch::UnknownKey);
        }
        let mut fitting = meant
            .filter_map(|key| key.for_algorithm(token.algorithm))
            .take(MAX_TRIES);
        if fitting.any(|key| {
            key.verify_sig(token.signing_input, &token.signature)
                .is_ok()
        }) {
            Ok(())
        } else {
            Err(Mismatch::Signature)
        }
    }
}

async fn fetch_keys(
    fetcher: &dyn Fetcher,
    endpoint: &KeyEndpoint,
    fetched: OffsetDateTime,
    metrics: &Metrics,
) -> Result<KeySet, KeysFailure> {
    let any = || Algorithm::ALL.to_vec();
    let (location, algorithms) = match &endpoint.location {
        KeyLocation::Discovery => fetch_discovery(fetcher, endpoint, metrics).await?,
        KeyLocation::Url(url) => (url.clone(), any()),
        KeyLocation::Given(jwks) => {
            return Ok(KeySet {
                keys: read_key_set(jwks.as_bytes(), &endpoint.issuer)?,
                algorithms: any(),
                location: None,
                fetched,
            });
        }
    };
    let mut fetch = Fetch::begin(metrics, &endpoint.id, "jwks");
    let keys = fetcher.get(endpoint.request(location.clone())).await;
    fetch.answered(&keys);
    let keys = keys.map_err(|error| KeysFailure::fetching("key set", KeysFault::KeySet, &error))?;
    let keys = read_key_set(&keys, &endpoint.issuer)?;
    fetch.result = "ok";
    drop(fetch);
    Ok(KeySet {
        keys,
        algorithms,
        location: Some(location),
        fetched,
    })
}

/// What an issuer publishes, for those who only want to know whether it is in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PublishedKeys {
    /// How many of its keys can be used.
    pub usable: usize,
    /// Where the key set was fetched from, if it was.
    pub location: Option<Url>,
}

/// Fetches the keys of an issuer that is written out as it is done for its first token, and keeps nothing.
///
/// # Errors
/// When they cannot be had or read.
pub async fn published_keys(
    fetcher: &dyn Fetcher,
    endpoint: &KeyEndpoint,
    metrics: &Metrics,
) -> Result<PublishedKeys, KeysFailure> {
    let keys = fetch_keys(fetcher, endpoint, OffsetDateTime::UNIX_EPOCH, metrics).await?;
    Ok(PublishedKeys {
        usable: keys.keys.len(),
        location: keys.location,
    })
}

/// Fetches the discovery document, and returns where the key set is and what its keys sign with.
async fn fetch_discovery(
    fetcher: &dyn Fetcher,
    endpoint: &KeyEndpoint,
    metrics: &Metrics,
) -> Result<(Url, Vec<Algorithm>), KeysFailure> {
    let mut fetch = Fetch::begin(metrics, &endpoint.id, "discovery");
    let url = discovery_url(&endpoint.issuer)?;
    let discovery = fetcher.get(endpoint.request(url)).await;
    fetch.answered(&discovery);
    let discovery = discovery.map_err(|error| {
        KeysFailure::fetching("discovery document", KeysFault::Discovery, &error)
    })?;
    let found = read_discovery(&discovery, endpoint)?;
    fetch.result = "ok";
    Ok(found)
}

/// A document on its way; counted when it is dropped, by what it came to.
struct Fetch<'a> {
    metrics: &'a Metrics,
    issuer: &'a str,
    kind: &'static str,
    result: &'static str,
    start: Instant,
}

impl<'a> Fetch<'a> {
    /// Until something else is known: cut off by the time limit of the whole.
    fn begin(metrics: &'a Metrics, issuer: &'a str, kind: &'static str) -> Self {
        Self {
            metrics,
            issuer,
            kind,
            result: "timeout",
            start: Instant::now(),
        }
    }

    /// Until it was read: a document that says something wrong.
    fn answered(&mut self, answer: &Result<Vec<u8>, FetchError>) {
        self.result = answer
            .as_ref()
            .map_or_else(FetchError::label, |_| "invalid");
    }
}

impl Drop for Fetch<'_> {
    fn drop(&mut self) {
        let took = self.start.elapsed();
        self.metrics
            .oidc_request(self.issuer, self.kind, self.result, took);
    }
}

/// Where the discovery document is: one slash at the end of the issuer's URL does not count (OpenID Connect Discovery 1.0,
/// section 4).
fn discovery_url(issuer: &str) -> Result<Url, KeysFailure> {
    let base = issuer.strip_suffix('/').unwrap_or(issuer);
    let url = format!("{base}/.well-known/openid-configuration");
    Url::parse(&url)
        .map_err(|_| KeysFailure::wrong(KeysFault::Discovery, "the issuer is not a URL".to_owned()))
}

/// Reads where the keys are and what they sign with (OpenID Connect Discovery 1.0, section 3).
fn read_discovery(
    bytes: &[u8],
    endpoint: &KeyEndpoint,
) -> Result<(Url, Vec<Algorithm>), KeysFailure> {
    let wrong =
        |fault, why: String| KeysFailure::wrong(fault, format!("discovery document: {why}"));
    let document = parse_object(bytes, MAX_DEPTH)
        .map_err(|error| wrong(KeysFault::Discovery, error.to_string()))?;
    match document.get("issuer").and_then(Value::as_str) {
        Some(issuer) if issuer == endpoint.issuer => {}
        Some(issuer) => {
            let why = format!("it is that of issuer {}", Excerpt::new(issuer));
            return Err(wrong(KeysFault::OtherIssuer, why));
        }
        None => {
            let why = "its member `issuer` is missing or not a string";
            return Err(wrong(KeysFault::Discovery, why.to_owned()));
        }
    }
    let location = document
        .get("jwks_uri")
        .and_then(Value::as_str)
        .and_then(|location| Url::parse(location).ok());
    let location = location.ok_or("its member `jwks_uri` is missing or not a URL");
    let location = location
        .and_then(|location| check_location(&location, endpoint).map(|()| location))
        .map_err(|why| wrong(KeysFault::Location, why.to_owned()))?;
    Ok((location, read_algorithms(&document)))
}

fn check_location(location: &Url, endpoint: &KeyEndpoint) -> Result<(), &'static str> {
    let is_http_issuer =
        endpoint.kind == EndpointKind::Exact && endpoint.issuer.starts_with("http://");
    if location.scheme() != "https" && !(location.scheme() == "http" && is_http_issuer) {
        return Err("its member `jwks_uri` is not an https URL");
    }
    let is_same_host =
        || Url::parse(&endpoint.issuer).is_ok_and(|issuer| issuer.origin() == location.origin());
    if endpoint.kind != EndpointKind::Exact && !is_same_host() {
        return Err(
            "its member `jwks_uri` is on another host, which a wildcard issuer may not have",
        );
    }
    Ok(())
}

/// The issuer's algorithms, those that are never accepted left out. If none is left, RS256, which every issuer must
/// support (OpenID Connect Core 1.0, section 15.1).
fn read_algorithms(document: &Object) -> Vec<Algorithm> {
    let listed = document
        .get("id_token_signing_alg_values_supported")
        .and_then(Value::as_array);
    let listed = listed.into_iter().flatten().filter_map(Value::as_str);
    let mut algorithms: Vec<Algorithm> = listed.filter_map(Algorithm::named).collect();
    if algorithms.is_empty() {
        algorithms.push(Algorithm::Rs256);
    }
    algorithms
}

/// Reads a JWK set (RFC 7517, section 5). A key that cannot be used is left out; it does not spoil the others.
fn read_key_set(bytes: &[u8], issuer: &str) -> Result<Vec<VerificationKey>, KeysFailure> {
    let wrong = |why: String| KeysFailure::wrong(KeysFault::KeySet, format!("key set: {why}"));
    let document = parse_object(bytes, MAX_DEPTH).map_err(|error| wrong(error.to_string()))?;
    let Some(listed) = document.get("keys").and_then(Value::as_array) else {
        return Err(wrong(
            "its member `keys` is missing or not a list".to_owned(),
        ));
    };
    if listed.iter().any(key::has_private_part) {
        // Everyone who read the set can sign for this issuer.
        return Err(wrong("it publishes a private key".to_owned()));
    }
    let mut keys = Vec::new();
    let mut left_out = None;
    for jwk in listed {
        if keys.len() == MAX_KEYS {
            left_out = Some("there are too many");
            break;
        }
        match VerificationKey::parse(jwk) {
            Ok(key) => keys.push(key),
            Err(why) => left_out = Some(why),
        }
    }
    if let Some(why) = left_out {
        // One line a set, however many keys there are: the set is a stranger's.
        let (published, used) = (listed.len(), keys.len());
        tracing::warn!(
            event = "issuer_keys_unused",
            issuer,
            published,
            used,
            why,
            "some keys of the issuer are not used"
        );
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Issuer;
    use super::super::testing::{
        Answer, Bench, CapturedLog, ISSUER, entry, header, issuer_for, keys, payload, sign,
        stranger,
    };
    use super::*;
    use crate::dev::oidc::{TestAlgorithm, TestClaims};
    use crate::reason::Reason;

    const DISCOVERY: &str = "https://issuer.example/.well-known/openid-configuration";
    const JWKS: &str = "https://issuer.example/jwks";
    const ADA: &str = "ada@example.com";

    fn token(bench: &Bench) -> String {
        bench
            .issuer
            .token(&TestClaims::email(ADA), TestAlgorithm::Rs256)
            .unwrap()
    }

    async fn reason(bench: &Bench, token: &str) -> Option<Reason> {
        bench.verify(token).await.err().map(|error| error.reason())
    }

    /// A good token signed by these keys, with these members of the header.
    fn signed_by(keys: &crate::dev::oidc::TestKeys, header: &Value) -> String {
        sign(keys, header, payload().to_string().as_bytes())
    }

    fn with_kid(key_id: &str) -> Value {
        json!({ "alg": "RS256", "kid": key_id })
    }

    fn rsa_key() -> Value {
        keys().jwks()["keys"][0].clone()
    }

    fn changed(mut key: Value, changes: Value) -> Value {
        for (name, value) in changes.as_object().unwrap() {
            if value.is_null() {
                key.as_object_mut().unwrap().remove(name);
            } else {
                key[name] = value.clone();
            }
        }
        key
    }

    #[tokio::test]
    async fn discovery_documents_that_are_wrong_are_the_issuers_fault() {
        let good = Bench::new().issuer.discovery_json();
        let good: Value = serde_json::from_str(&good).unwrap();
        for (document, why) in [
            (
                changed(good.clone(), json!({ "issuer": "https://other.example" })).to_string(),
                "that of issuer",
            ),
            (
                changed(good.clone(), json!({ "issuer": "https://issuer.example/" })).to_string(),
                "that of issuer",
            ),
            (
                changed(good.clone(), json!({ "issuer": null })).to_string(),
                "`issuer` is missing",
            ),
            (
                changed(good.clone(), json!({ "jwks_uri": null })).to_string(),
                "`jwks_uri` is missing",
            ),
            (
                changed(good.clone(), json!({ "jwks_uri": 5 })).to_string(),
                "`jwks_uri` is missing",
            ),
            (
                changed(good.clone(), json!({ "jwks_uri": "/jwks" })).to_string(),
                "not a URL",
            ),
            (
                changed(
                    good.clone(),
                    json!({ "jwks_uri": "http://issuer.example/jwks" }),
                )
                .to_string(),
                "not an https URL",
            ),
            (
                changed(good.clone(), json!({ "jwks_uri": "file:///etc/passwd" })).to_string(),
                "not an https URL",
            ),
            ("<html>".to_owned(), "expected value"),
            (String::new(), "EOF"),
            (
                format!("{{\"a\":{}", "[".repeat(200_000)),
                "nested too deep",
            ),
        ] {
            let bench = Bench::new();
            bench.network.document(DISCOVERY, &document);
            let error = bench.verify(&token(&bench)).await.unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
            assert_eq!(
                (error.reason(), error.is_unavailable()),
                (Reason::IssuerUnavailable, false)
            );
            assert_eq!(bench.network.urls(), [DISCOVERY]);
        }
    }

    #[tokio::test]
    async fn key_sets_that_are_wrong_are_the_issuers_fault() {
        for (document, why) in [
            ("[]".to_owned(), "expected an object"),
            ("{}".to_owned(), "`keys` is missing"),
            (json!({ "keys": {} }).to_string(), "`keys` is missing"),
            (
                json!({ "keys": [changed(rsa_key(), json!({ "d": "AQ" }))] }).to_string(),
                "publishes a private key",
            ),
            (
                json!({ "keys": [rsa_key(), { "kty": "EC", "d": "AQ" }] }).to_string(),
                "publishes a private key",
            ),
        ] {
            let bench = Bench::new();
            bench.network.document(JWKS, &document);
            let error = bench.verify(&token(&bench)).await.unwrap_err();
            assert!(error.to_string().contains(why), "{error}");
            assert_eq!(
                (error.reason(), error.is_unavailable()),
                (Reason::IssuerUnavailable, false)
            );
        }
    }

    #[tokio::test]
    async fn whether_to_try_again_depends_on_the_failure() {
        for (failure, is_unavailable) in [
            (FetchError::Timeout, true),
            (FetchError::Dns, true),
            (FetchError::Connect, true),
            (FetchError::Status(500), true),
            (FetchError::Status(503), true),
            (FetchError::Status(429), true),
            (FetchError::Status(404), false),
            (FetchError::Tls, false),
            (FetchError::Redirect, false),
            (FetchError::ForbiddenAddress, false),
            (FetchError::TooLarge, false),
            (FetchError::Compressed, false),
        ] {
            for url in [DISCOVERY, JWKS] {
                let bench = Bench::new();
                bench.network.set(url, Answer::Failure(failure.clone()));
                let error = bench.verify(&token(&bench)).await.unwrap_err();
                assert_eq!(error.reason(), Reason::IssuerUnavailable);
                assert_eq!(error.is_unavailable(), is_unavailable, "{failure:?}");
            }
        }
    }

    #[tokio::test]
    async fn algorithms_that_the_issuer_does_not_list_are_refused() {
        let listed = |algorithms: Value| {
            let bench = Bench::new();
            let document: Value = serde_json::from_str(&bench.issuer.discovery_json()).unwrap();
            let member = json!({ "id_token_signing_alg_values_supported": algorithms });
            bench.network.document(DISCOVERY, changed(document, member));
            bench
        };
        let rsa = |bench: &Bench| {
            bench
                .issuer
                .token(&TestClaims::email(ADA), TestAlgorithm::Rs256)
                .unwrap()
        };
        let ec = |bench: &Bench| {
            bench
                .issuer
                .token(&TestClaims::email(ADA), TestAlgorithm::Es256)
                .unwrap()
        };
        for only_rsa in [
            Value::Null,
            json!([]),
            json!(["none", "HS256"]),
            json!(["RS256"]),
            json!("ES256"),
        ] {
            let bench = listed(only_rsa);
            assert_eq!(reason(&bench, &rsa(&bench)).await, None);
            assert_eq!(
                reason(&bench, &ec(&bench)).await,
                Some(Reason::UnsupportedAlg)
            );
        }
        let bench = listed(json!(["ES256"]));
        assert_eq!(reason(&bench, &ec(&bench)).await, None);
        assert_eq!(
            reason(&bench, &rsa(&bench)).await,
            Some(Reason::UnsupportedAlg)
        );
    }

    #[tokio::test]
    async fn the_algorithm_must_be_one_of_the_key() {
        let every =
            json!({ "id_token_signing_alg_values_supported": Algorithm::ALL.map(Algorithm::name) });
        let [rsa, ec] = [0, 1]
            .map(|index| changed(keys().jwks()["keys"][index].clone(), json!({ "alg": null })));
        for (alg, key_id) in [
            ("ES256", "test-rsa"),
            ("EdDSA", "test-rsa"),
            ("PS256", "test-rsa"),
            ("RS512", "test-rsa"),
            ("RS256", "test-ec"),
            ("ES384", "test-ec"),
            ("ES512", "test-ec"),
            ("EdDSA", "test-ec"),
        ] {
            let bench = Bench::new();
            let document: Value = serde_json::from_str(&bench.issuer.discovery_json()).unwrap();
            bench
                .network
                .document(DISCOVERY, changed(document, every.clone()));
            bench.network.document(JWKS, json!({ "keys": [rsa, ec] }));
            for signature in [TestAlgorithm::Rs256, TestAlgorithm::Es256] {
                let header = json!({ "alg": alg, "kid": key_id }).to_string();
                let token = keys()
                    .sign(
                        header.as_bytes(),
                        payload().to_string().as_bytes(),
                        signature,
                    )
                    .unwrap();
                assert_eq!(
                    reason(&bench, &token).await,
                    Some(Reason::BadTokenSignature),
                    "{alg} {key_id}"
                );
            }
        }
    }

    #[tokio::test]
    async fn keys_of_one_issuer_never_verify_tokens_of_another() {
        let two = "https://two.example";
        let text = format!(
            "{}{}",
            entry(ISSUER, "type: email"),
            entry(two, "type: email").replace("oidc-issuers:\n", "")
        );
        let bench = Bench::with_issuers(&text);
        let document = json!({ "issuer": two, "jwks_uri": "https://two.example/jwks" });
        bench.network.document(
            "https://two.example/.well-known/openid-configuration",
            document,
        );
        bench
            .network
            .document("https://two.example/jwks", stranger().jwks());
        let mut claims = payload();
        claims["iss"] = json!(two);
        let own = sign(&stranger(), &header(), claims.to_string().as_bytes());
        assert_eq!(reason(&bench, &own).await, None);
        let foreign = sign(&keys(), &header(), claims.to_string().as_bytes());
        assert_eq!(
            reason(&bench, &foreign).await,
            Some(Reason::BadTokenSignature)
        );
        assert_eq!(
            reason(&bench, &signed_by(&stranger(), &header())).await,
            Some(Reason::BadTokenSignature)
        );
        assert_eq!(
            reason(&bench, &signed_by(&stranger(), &with_kid("unheard-of"))).await,
            Some(Reason::UnknownKey)
        );
    }

    #[tokio::test]
    async fn a_token_that_names_no_key_may_be_signed_by_any() {
        let bench = Bench::new();
        let mut set: Vec<Value> = vec![changed(
            stranger().jwks()["keys"][0].clone(),
            json!({ "kid": "other" }),
        )];
        set.extend(keys().jwks()["keys"].as_array().unwrap().clone());
        bench.network.document(JWKS, json!({ "keys": set }));
        for header in [
            json!({ "alg": "RS256" }),
            json!({ "alg": "RS256", "kid": "" }),
        ] {
            assert_eq!(reason(&bench, &signed_by(&keys(), &header)).await, None);
        }
        let bench = Bench::new();
        assert_eq!(
            reason(&bench, &signed_by(&stranger(), &json!({ "alg": "RS256" }))).await,
            Some(Reason::BadTokenSignature)
        );
    }

    #[tokio::test]
    async fn at_most_sixteen_keys_are_tried() {
        let unnamed = |keys: &crate::dev::oidc::TestKeys| {
            changed(keys.jwks()["keys"][0].clone(), json!({ "kid": null }))
        };
        for (strangers, expected) in [(15, None), (16, Some(Reason::BadTokenSignature))] {
            let bench = Bench::new();
            let mut set = vec![unnamed(&stranger()); strangers];
            set.push(unnamed(&keys()));
            bench.network.document(JWKS, json!({ "keys": set }));
            assert_eq!(
                reason(&bench, &signed_by(&keys(), &json!({ "alg": "RS256" }))).await,
                expected
            );
        }
    }

    #[tokio::test]
    async fn keys_that_may_not_verify_are_unknown_and_spoil_no_others() {
        for (change, why) in [
            (json!({ "use": "enc" }), "use"),
            (json!({ "key_ops": ["sign"] }), "key_ops"),
            (json!({ "key_ops": [] }), "key_ops"),
            (json!({ "alg": "RS512" }), "another alg"),
            (json!({ "alg": "RSA-OAEP-512" }), "an alg for encryption"),
            (json!({ "alg": 5 }), "alg of the wrong type"),
            (json!({ "kid": 5 }), "kid of the wrong type"),
            (json!({ "kty": "oct", "k": "c2VjcmV0" }), "symmetric"),
            (json!({ "kty": "XYZ" }), "unknown kty"),
            (json!({ "n": null }), "no modulus"),
            (json!({ "n": "AQAB" }), "short modulus"),
            (json!({ "e": "AQ" }), "e = 1"),
            (json!({ "e": "Ag" }), "e even"),
            (json!({ "e": "AQAAAAE" }), "e > 2^32"),
            (json!({ "e": "" }), "no exponent"),
            (json!({ "n": "!" }), "not base64url"),
        ] {
            let bench = Bench::new();
            let ec = keys().jwks()["keys"][1].clone();
            bench
                .network
                .document(JWKS, json!({ "keys": [changed(rsa_key(), change), ec] }));
            assert_eq!(
                reason(&bench, &token(&bench)).await,
                Some(Reason::UnknownKey),
                "{why}"
            );
            let ec = bench
                .issuer
                .token(&TestClaims::email(ADA), TestAlgorithm::Es256)
                .unwrap();
            assert_eq!(reason(&bench, &ec).await, None, "{why}");
        }
    }

    #[tokio::test]
    async fn two_keys_of_one_name_are_both_tried() {
        let bench = Bench::new();
        let theirs = stranger().jwks()["keys"][0].clone();
        bench
            .network
            .document(JWKS, json!({ "keys": [theirs, rsa_key()] }));
        assert_eq!(reason(&bench, &token(&bench)).await, None);
        assert_eq!(
            reason(&bench, &signed_by(&stranger(), &header())).await,
            None
        );
    }

    #[tokio::test]
    async fn more_than_a_hundred_keys_are_not_kept() {
        let bench = Bench::new();
        let mut set = vec![stranger().jwks()["keys"][1].clone(); 200];
        set.insert(0, rsa_key());
        bench.network.document(JWKS, json!({ "keys": set }));
        assert_eq!(reason(&bench, &token(&bench)).await, None);
        assert_eq!(bench.keys.status()[0].keys, 100);
    }

    /// Lets what runs in the background go on until something holds.
    async fn eventually(holds: impl Fn() -> bool) {
        let watch = async {
            while !holds() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), watch)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_bad_signature_by_a_known_key_fetches_nothing() {
        let bench = Bench::new();
        assert_eq!(reason(&bench, &token(&bench)).await, None);
        let forged = signed_by(&stranger(), &header());
        assert_eq!(
            reason(&bench, &forged).await,
            Some(Reason::BadTokenSignature)
        );
        assert_eq!(bench.network.urls().len(), 2);
    }

    #[tokio::test]
    async fn unknown_keys_make_us_fetch_five_times_and_then_every_ten_seconds() {
        let bench = Bench::new();
        let forged = signed_by(&stranger(), &with_kid("forged"));
        for _ in 0..200 {
            assert_eq!(reason(&bench, &forged).await, Some(Reason::UnknownKey));
        }
        assert_eq!(bench.network.urls().len(), 2 * 5);
        assert_eq!(reason(&bench, &token(&bench)).await, None);
        bench.clock.advance(std::time::Duration::from_secs(10));
        for _ in 0..10 {
            assert_eq!(reason(&bench, &forged).await, Some(Reason::UnknownKey));
        }
        assert_eq!(bench.network.urls().len(), 2 * 6);
    }

    #[tokio::test]
    async fn tokens_that_arrive_together_share_one_fetch() {
        let bench = Bench::new();
        let token = token(&bench);
        let outcomes = futures_util::future::join_all((0..200).map(|_| bench.verify(&token))).await;
        assert!(outcomes.iter().all(Result::is_ok));
        assert_eq!(bench.network.urls(), [DISCOVERY, JWKS]);
        let forged = signed_by(&stranger(), &with_kid("forged"));
        futures_util::future::join_all((0..200).map(|_| bench.verify(&forged))).await;
        assert!(bench.network.urls().len() <= 2 * 5);
    }

    #[tokio::test]
    async fn a_new_key_works_at_once_and_a_removed_one_stops_within_the_hour() {
        let bench = Bench::new();
        let old = token(&bench);
        assert_eq!(reason(&bench, &old).await, None);
        let new_key = changed(
            stranger().jwks()["keys"][0].clone(),
            json!({ "kid": "new" }),
        );
        bench.network.document(JWKS, json!({ "keys": [new_key] }));
        assert_eq!(reason(&bench, &old).await, None);
        assert_eq!(
            reason(&bench, &signed_by(&stranger(), &with_kid("new"))).await,
            None
        );
        assert_eq!(reason(&bench, &old).await, Some(Reason::UnknownKey));

        bench.network.document(JWKS, keys().jwks());
        bench.clock.advance(std::time::Duration::from_secs(3_600));
        let fresh = token(&bench);
        assert_eq!(reason(&bench, &fresh).await, None);
    }

    #[tokio::test]
    async fn a_key_set_that_moves_is_followed_and_written_down() {
        let log = CapturedLog::begin();
        let bench = Bench::new();
        assert_eq!(reason(&bench, &token(&bench)).await, None);
        let moved = json!({ "issuer": ISSUER, "jwks_uri": "https://keys.example/jwks" });
        bench.network.document(DISCOVERY, moved);
        let new_key = changed(
            stranger().jwks()["keys"][0].clone(),
            json!({ "kid": "new" }),
        );
        bench
            .network
            .document("https://keys.example/jwks", json!({ "keys": [new_key] }));
        assert_eq!(
            reason(&bench, &signed_by(&stranger(), &with_kid("new"))).await,
            None
        );
        assert_eq!(
            reason(&bench, &token(&bench)).await,
            Some(Reason::UnknownKey)
        );
        let lines = log.lines_with("moved its key set");
        assert_eq!(lines.len(), 1, "{lines:?}");
        for part in [
            "INFO",
            ISSUER,
            "https://issuer.example/jwks",
            "https://keys.example/jwks",
        ] {
            assert!(lines[0].contains(part), "{}", lines[0]);
        }
    }

    #[test]
    fn keys_that_are_left_out_are_one_line_in_the_log_however_many_they_are() {
        let log = CapturedLog::begin();
        let mut listed = vec![json!({}); 20_000];
        listed.push(rsa_key());
        let keys = read_key_set(json!({ "keys": listed }).to_string().as_bytes(), ISSUER);
        assert_eq!(keys.unwrap().len(), 1);
        let lines = log.lines_with("WARN");
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("published=20001 used=1"), "{}", lines[0]);
    }

    #[tokio::test]
    async fn keys_are_refreshed_before_they_are_too_old() {
        let bench = Bench::new();
        assert_eq!(reason(&bench, &token(&bench)).await, None);
        bench
            .network
            .set(DISCOVERY, Answer::Failure(FetchError::Connect));
        bench.clock.advance(std::time::Duration::from_secs(45 * 60));
        assert_eq!(reason(&bench, &token(&bench)).await, None);
        eventually(|| !bench.keys.status()[0].is_up).await;
        assert_eq!(bench.network.urls().len(), 3);
        bench.clock.advance(std::time::Duration::from_secs(15 * 60));
        assert_eq!(
            reason(&bench, &token(&bench)).await,
            Some(Reason::IssuerUnavailable)
        );
    }

    #[tokio::test]
    async fn a_failure_is_remembered_for_ten_seconds() {
        let bench = Bench::new();
        bench
            .network
            .set(DISCOVERY, Answer::Failure(FetchError::Status(500)));
        for _ in 0..50 {
            assert_eq!(
                reason(&bench, &token(&bench)).await,
                Some(Reason::IssuerUnavailable)
            );
        }
        assert_eq!(bench.network.urls().len(), 1);
        let status = &bench.keys.status()[0];
        assert_eq!((status.is_up, status.last_success), (false, None));
        bench.network.serve(&bench.issuer);
        bench.clock.advance(std::time::Duration::from_secs(10));
        assert_eq!(reason(&bench, &token(&bench)).await, None);
        let status = &bench.keys.status()[0];
        assert_eq!(
            (status.is_up, status.last_success, status.keys),
            (true, Some(bench.now()), 2)
        );
    }

    #[tokio::test]
    async fn an_issuer_that_says_nothing_holds_up_no_other() {
        let two = "https://two.example";
        let text = format!(
            "{}{}",
            entry(ISSUER, "type: email"),
            entry(two, "type: email").replace("oidc-issuers:\n", "")
        );
        let bench = Bench::with_issuers(&text);
        bench.network.serve(&bench.at(two));
        bench.network.set(JWKS, Answer::Silence);
        let good = bench
            .at(two)
            .token(&TestClaims::email(ADA), TestAlgorithm::Rs256)
            .unwrap();
        let silent = token(&bench);
        let waiting = futures_util::future::join_all((0..40).map(|_| bench.verify(&silent)));
        let (waiting, good) = tokio::join!(waiting, bench.verify(&good));
        assert!(good.is_ok());
        assert!(
            waiting
                .iter()
                .all(|outcome| outcome.as_ref().is_err_and(TokenError::is_unavailable))
        );
    }

    #[tokio::test]
    async fn exact_issuers_may_be_private_and_keep_their_keys_elsewhere() {
        let bench = Bench::new();
        let document = json!({ "issuer": ISSUER, "jwks_uri": "https://keys.example/jwks" });
        bench.network.document(DISCOVERY, document);
        bench
            .network
            .document("https://keys.example/jwks", keys().jwks());
        assert_eq!(reason(&bench, &token(&bench)).await, None);
        assert!(
            bench.network.requests().iter().all(|request| {
                request.addresses == AddressPolicy::Exact && !request.allow_http
            })
        );
        let plain = "http://127.0.0.1:8080/dev";
        let bench = Bench::with_issuers(&entry(plain, "type: email"));
        bench.network.serve(&bench.at(plain));
        let token = bench
            .at(plain)
            .token(&TestClaims::email(ADA), TestAlgorithm::Rs256)
            .unwrap();
        assert_eq!(reason(&bench, &token).await, None);
        assert!(
            bench
                .network
                .requests()
                .iter()
                .all(|request| request.allow_http)
        );
    }

    #[tokio::test]
    async fn issuers_of_a_pattern_are_public_and_keep_their_keys_at_home() {
        let pattern = "meta-issuers:\n  https://*.idp.example/id/*:\n    client-id: sigstore\n    type: email\n";
        let bench = Bench::with_issuers(pattern);
        let tenant = bench.at("https://a.idp.example/id/1");
        bench.network.serve(&tenant);
        let token = tenant
            .token(&TestClaims::email(ADA), TestAlgorithm::Rs256)
            .unwrap();
        let identity = bench.verify(&token).await.unwrap();
        assert_eq!(
            (identity.issuer.as_str(), &*identity.issuer_id),
            (tenant.url(), "x.idp.example-id-x")
        );
        assert!(
            bench.network.requests().iter().all(|request| {
                request.addresses == AddressPolicy::Public && !request.allow_http
            })
        );
        let away = bench.at("https://b.idp.example/id/1");
        let document =
            json!({ "issuer": away.url(), "jwks_uri": "https://a.idp.example/id/1/jwks" });
        bench.network.document(
            "https://b.idp.example/id/1/.well-known/openid-configuration",
            document,
        );
        let token = away
            .token(&TestClaims::email(ADA), TestAlgorithm::Rs256)
            .unwrap();
        let error = bench.verify(&token).await.unwrap_err();
        assert!(error.to_string().contains("on another host"), "{error}");
    }

    #[tokio::test]
    async fn new_issuers_of_a_pattern_are_limited_and_known_ones_stay() {
        let pattern = "meta-issuers:\n  https://*.idp.example/id/*:\n    client-id: sigstore\n    type: email\n";
        let bench = Bench::with_issuers(pattern);
        let known = bench.at("https://known.idp.example/id/1");
        bench.network.serve(&known);
        let good = known
            .token(&TestClaims::email(ADA), TestAlgorithm::Rs256)
            .unwrap();
        assert_eq!(reason(&bench, &good).await, None);
        let mut refused = 0;
        for index in 0..200 {
            let tenant = bench.at(&format!("https://t{index}.idp.example/id/1"));
            let token = tenant
                .token(&TestClaims::email(ADA), TestAlgorithm::Rs256)
                .unwrap();
            refused += usize::from(reason(&bench, &token).await == Some(Reason::RateLimited));
        }
        assert_eq!(refused, 200 - 19);
        assert_eq!(reason(&bench, &good).await, None);
        for index in 0..1_100 {
            bench.clock.advance(std::time::Duration::from_secs(3));
            let tenant = bench.at(&format!("https://u{index}.idp.example/id/1"));
            let token = tenant
                .token(&TestClaims::email(ADA), TestAlgorithm::Rs256)
                .unwrap();
            assert_eq!(
                reason(&bench, &token).await,
                Some(Reason::IssuerUnavailable)
            );
        }
        let status = bench.keys.status();
        assert_eq!(status.len(), 1_024);
        assert!(
            status
                .iter()
                .any(|status| status.issuer == known.url() && status.is_up)
        );
    }

    #[tokio::test]
    async fn keys_can_be_fetched_ahead() {
        let bench = Bench::new();
        bench.prefetch();
        eventually(|| bench.keys.status().iter().any(|status| status.is_up)).await;
        let before = bench.network.urls().len();
        assert_eq!(reason(&bench, &token(&bench)).await, None);
        assert_eq!((before, bench.network.urls().len()), (2, 2));
    }

    fn entry_with_keys_at(location: KeyLocation) -> Issuer {
        let mut issuer = issuer_for("sigstore");
        issuer.endpoint = Arc::new(KeyEndpoint::clone(&issuer.endpoint).with_keys_at(location));
        issuer
    }

    #[tokio::test]
    async fn keys_at_a_given_url_need_no_discovery() {
        let url = "https://keys.example/set";
        let location = KeyLocation::url(url, ISSUER).unwrap();
        let bench = Bench::with_entries([entry_with_keys_at(location)]);
        bench.network.document(url, keys().jwks());
        assert_eq!(reason(&bench, &token(&bench)).await, None);
        assert_eq!(bench.network.urls(), [url]);
        let stranger = signed_by(&stranger(), &with_kid("x"));
        assert_eq!(reason(&bench, &stranger).await, Some(Reason::UnknownKey));
    }

    #[tokio::test]
    async fn keys_that_are_given_need_no_network() {
        let location = KeyLocation::given(&keys().jwks().to_string()).unwrap();
        let bench = Bench::with_entries([entry_with_keys_at(location)]);
        assert_eq!(reason(&bench, &token(&bench)).await, None);
        let stranger = signed_by(&stranger(), &header());
        assert_eq!(
            reason(&bench, &stranger).await,
            Some(Reason::BadTokenSignature)
        );
        bench.clock.advance(std::time::Duration::from_secs(86_400));
        assert_eq!(reason(&bench, &token(&bench)).await, None);
        assert!(bench.network.urls().is_empty());
    }

    #[test]
    fn locations_of_keys_are_checked() {
        assert!(KeyLocation::url("https://keys.example/a?b=c", ISSUER).is_ok());
        assert!(KeyLocation::url("http://10.0.0.1/keys", "http://10.0.0.1").is_ok());
        for text in [
            "keys",
            "http://keys.example/",
            "file:///etc/keys",
            "https://u:p@keys.example/",
            "https://keys.example/#x",
        ] {
            assert!(KeyLocation::url(text, ISSUER).is_err(), "{text}");
        }
        for (text, why) in [
            ("", "key set: EOF"),
            ("{}", "key set: its member `keys`"),
            (r#"{"keys":[]}"#, "key set: it has no key"),
            (
                r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#,
                "key set: it has no key",
            ),
            (
                r#"{"keys":[{"kty":"EC","d":"AAAA"}]}"#,
                "key set: it publishes a private key",
            ),
        ] {
            let error = KeyLocation::given(text).unwrap_err().to_string();
            assert!(error.starts_with(why), "{error}");
        }
    }

    #[tokio::test]
    async fn a_cluster_is_asked_as_such_only_where_it_is_written_out() {
        let cluster = |url: &str| {
            format!(
                "  {url}:\n    issuer-url: {url}\n    client-id: sigstore\n    type: kubernetes\n"
            )
        };
        let pattern = "meta-issuers:\n  https://*.eks.example/id/*:\n    client-id: sigstore\n    type: kubernetes\n";
        let asked_with = |text: &str, iss: &str| {
            let (issuers, _) = Issuers::parse("id.yaml", text).unwrap();
            let matched = issuers.lookup(iss).unwrap();
            let request = matched.endpoint.request(Url::parse(iss).unwrap());
            request.credential.map(|credential| {
                assert_eq!(credential.files, None);
                credential.origin.ascii_serialization()
            })
        };
        let (own, other) = (CLUSTER_ISSUER, "https://cluster.example:6443/x");
        let without = format!("oidc-issuers:\n{}{pattern}", cluster(other));
        assert_eq!(asked_with(&without, other), None);
        let with = format!(
            "oidc-issuers:\n{}{}{}{pattern}",
            cluster(other),
            cluster(own),
            cluster("https://x.example").replace("kubernetes", "email")
        );
        assert_eq!(asked_with(&with, own).as_deref(), Some(own));
        assert_eq!(
            asked_with(&with, other).as_deref(),
            Some("https://cluster.example:6443")
        );
        assert_eq!(asked_with(&with, "https://x.example"), None);
        assert_eq!(asked_with(&with, "https://a.eks.example/id/1"), None);
        let by_pattern = pattern.replace("*.eks.example/id/*", "*.default.svc");
        assert_eq!(asked_with(&by_pattern, own).as_deref(), Some(own));
        assert_eq!(asked_with(&by_pattern, "https://x.default.svc"), None);
    }
}
