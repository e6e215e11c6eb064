//! The issuers' keys: fetched, judged, kept for an hour.
//!
//! A token with a known key costs no lock and no wait. Everything a stranger could use to make us fetch is bounded: one
//! fetch at a time and one in ten seconds for each issuer, and a pause after each failure.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use serde_json::Value;
use time::{Duration, OffsetDateTime};
use tokio::runtime::Handle;
use url::Url;

use super::excerpt::Excerpt;
use super::json::{Object, parse_object};
use super::jws::{Algorithm, UnverifiedToken, names};
use super::verifier::TokenError;
use crate::clock::Clock;
use crate::fetch::{AddressPolicy, ExtraRoots, FetchError, FetchRequest, Fetcher};

mod key;
use key::VerificationKey;

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
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeyEndpoint {
    /// The issuer's URL, octet for octet as in `iss`; for a wildcard entry its pattern.
    pub issuer: String,
    kind: EndpointKind,
    extra_roots: Option<Arc<ExtraRoots>>,
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

impl KeyEndpoint {
    /// The keys of an issuer that is written out. They may lie on a private address, and on http if its URL does.
    #[must_use]
    pub const fn exact(issuer: String, extra_roots: Option<Arc<ExtraRoots>>) -> Self {
        Self {
            issuer,
            kind: EndpointKind::Exact,
            extra_roots,
        }
    }

    /// What the issuers of a pattern have in common.
    #[must_use]
    pub const fn wildcard(pattern: String, extra_roots: Option<Arc<ExtraRoots>>) -> Self {
        Self {
            issuer: pattern,
            kind: EndpointKind::Wildcard,
            extra_roots,
        }
    }

    /// The keys of one issuer of this pattern: on https and a public address only.
    #[must_use]
    pub(super) fn tenant(&self, issuer: &str) -> Self {
        Self {
            issuer: issuer.to_owned(),
            kind: EndpointKind::Tenant(self.issuer.clone()),
            extra_roots: self.extra_roots.clone(),
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
    /// By the issuer's URL. Replaced as a whole, so that readers never wait.
    entries: ArcSwap<HashMap<String, Arc<Entry>>>,
    /// Held while `entries` is replaced: for each pattern, how often it may bring in an issuer.
    tenant_paces: Mutex<HashMap<String, Pace>>,
}

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
struct KeysFailure {
    is_transient: bool,
    why: String,
}

impl KeysFailure {
    const fn wrong(why: String) -> Self {
        Self {
            is_transient: false,
            why,
        }
    }

    const fn unavailable(why: String) -> Self {
        Self {
            is_transient: true,
            why,
        }
    }

    fn fetching(document: &str, error: &FetchError) -> Self {
        Self {
            is_transient: error.is_transient(),
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
    ) -> Self {
        Self {
            fetcher,
            clock,
            runtime,
            limits,
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
            .map(|entry| entry.status())
            .collect();
        all.sort_by(|a, b| a.issuer.cmp(&b.issuer));
        all
    }

    fn entry(
        &self,
        endpoint: &Arc<KeyEndpoint>,
        now: OffsetDateTime,
    ) -> Result<Arc<Entry>, TokenError> {
        let found = self.entries.load().get(&endpoint.issuer).map(Arc::clone);
        // A reload may have changed the rules, such as the trusted roots; keys fetched under others are dropped.
        let entry = match found
            .filter(|entry| Arc::ptr_eq(&entry.endpoint, endpoint) || entry.endpoint == *endpoint)
        {
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
        let mut entries = HashMap::clone(&self.entries.load());
        if let Some(entry) = entries
            .get(&endpoint.issuer)
            .filter(|entry| entry.endpoint == *endpoint)
        {
            return Ok(Arc::clone(entry));
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
        entries.insert(endpoint.issuer.clone(), Arc::clone(&entry));
        self.entries.store(Arc::new(entries));
        Ok(entry)
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
        let (fetcher, clock) = (Arc::clone(&self.fetcher), Arc::clone(&self.clock));
        let (entry, limit) = (Arc::clone(entry), self.limits.fetch);
        let task = self.runtime.spawn(async move {
            let fetched = clock.now();
            let keys =
                tokio::time::timeout(limit, fetch_keys(&*fetcher, &entry.endpoint, fetched)).await;
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

/// Forgets issuers of patterns until one more fits: first those whose keys never verified a token, the longest unused first.
fn make_room(entries: &mut HashMap<String, Arc<Entry>>) {
    let is_tenant = |entry: &&Arc<Entry>| matches!(entry.endpoint.kind, EndpointKind::Tenant(_));
    while entries.values().filter(is_tenant).count() >= MAX_TENANTS {
        let rank = |entry: &&Arc<Entry>| {
            (
                entry.has_verified.load(Ordering::Relaxed),
                entry.last_used.load(Ordering::Relaxed),
            )
        };
        let Some(least) = entries.values().filter(is_tenant).min_by_key(rank) else {
            return;
        };
        let issuer = least.endpoint.issuer.clone();
        entries.remove(&issuer);
    }
}

impl Entry {
    fn record(&self, outcome: &Result<Arc<KeySet>, KeysFailure>, now: OffsetDateTime) {
        let issuer = &self.endpoint.issuer;
        let mut state = lock(&self.state);
        state.flight = None;
        match outcome {
            Ok(keys) => {
                state.failure = None;
                let previous = self.keys.swap(Some(Arc::clone(keys)));
                if previous.is_some_and(|previous| previous.location != keys.location) {
                    tracing::info!(%issuer, jwks_uri = %keys.location, "issuer moved its key set");
                }
            }
            Err(failure) => {
                tracing::warn!(%issuer, why = %failure.why, "fetching the issuer's keys failed");
                state.failure = Some((now, failure.clone()));
            }
        }
    }

    fn status(&self) -> KeyStatus {
        let keys = self.keys.load();
        KeyStatus {
            issuer: self.endpoint.issuer.clone(),
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
    location: Url,
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
) -> Result<KeySet, KeysFailure> {
    let discovery = fetcher
        .get(endpoint.request(discovery_url(&endpoint.issuer)?))
        .await;
    let discovery =
        discovery.map_err(|error| KeysFailure::fetching("discovery document", &error))?;
    let (location, algorithms) = read_discovery(&discovery, endpoint)?;
    let keys = fetcher.get(endpoint.request(location.clone())).await;
    let keys = keys.map_err(|error| KeysFailure::fetching("key set", &error))?;
    let keys = read_key_set(&keys, &endpoint.issuer)?;
    Ok(KeySet {
        keys,
        algorithms,
        location,
        fetched,
    })
}

/// Where the discovery document is: one slash at the end of the issuer's URL does not count (OpenID Connect Discovery 1.0,
/// section 4).
fn discovery_url(issuer: &str) -> Result<Url, KeysFailure> {
    let base = issuer.strip_suffix('/').unwrap_or(issuer);
    let url = format!("{base}/.well-known/openid-configuration");
    Url::parse(&url).map_err(|_| KeysFailure::wrong("the issuer is not a URL".to_owned()))
}

/// Reads where the keys are and what they sign with (OpenID Connect Discovery 1.0, section 3).
fn read_discovery(
    bytes: &[u8],
    endpoint: &KeyEndpoint,
) -> Result<(Url, Vec<Algorithm>), KeysFailure> {
    let wrong = |why: String| KeysFailure::wrong(format!("discovery document: {why}"));
    let document = parse_object(bytes, MAX_DEPTH).map_err(|error| wrong(error.to_string()))?;
    match document.get("issuer").and_then(Value::as_str) {
        Some(issuer) if issuer == endpoint.issuer => {}
        Some(issuer) => {
            return Err(wrong(format!(
                "it is that of issuer {}",
                Excerpt::new(issuer)
            )));
        }
        None => {
            return Err(wrong(
                "its member `issuer` is missing or not a string".to_owned(),
            ));
        }
    }
    let location = document
        .get("jwks_uri")
        .and_then(Value::as_str)
        .and_then(|location| Url::parse(location).ok());
    let location = location
        .ok_or_else(|| wrong("its member `jwks_uri` is missing or not a URL".to_owned()))?;
    check_location(&location, endpoint).map_err(|why| wrong(why.to_owned()))?;
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
    let wrong = |why: String| KeysFailure::wrong(format!("key set: {why}"));
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
    let usable = |jwk: &Value| {
        let key = VerificationKey::parse(jwk);
        key.inspect_err(|why| tracing::warn!(issuer, why, "a key of the issuer is not used"))
            .ok()
    };
    let keys: Vec<_> = listed.iter().filter_map(usable).take(MAX_KEYS).collect();
    if listed.len() > MAX_KEYS {
        tracing::warn!(
            issuer,
            published = listed.len(),
            used = keys.len(),
            "the issuer publishes very many keys"
        );
    }
    Ok(keys)
}
