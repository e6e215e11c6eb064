//! What the tests of this module share: an issuer, and a fetcher that answers for it.

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::future::{BoxFuture, FutureExt, ready};
use serde_json::Value;
use time::OffsetDateTime;
use tokio::runtime::Handle;

use super::claims::{EmailRule, IdentityRule};
use super::jwks::{KeyEndpoint, KeySourceLimits};
use super::rules::ClaimRules;
use super::{Identity, Issuer, Issuers, KeySource, TokenError, TokenLimits, TokenVerifier};
use crate::clock::{Clock, FixedClock};
use crate::dev::oidc::{TestAlgorithm, TestClaims, TestIssuer, TestKeys};
use crate::fetch::{FetchError, FetchRequest, Fetcher};
use crate::metrics::Metrics;

/// The issuer of most tests.
pub(crate) const ISSUER: &str = "https://issuer.example";
/// When most tests happen.
pub(crate) const NOW: &str = "2026-01-02T03:04:05Z";

/// What the fake network does for one URL.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Document(String),
    Failure(FetchError),
    /// Accepts and says nothing.
    Silence,
}

/// A network that knows only the URLs it was told, and remembers what it was asked.
#[derive(Debug, Default)]
pub(crate) struct FakeFetcher {
    answers: Mutex<HashMap<String, Answer>>,
    requests: Mutex<Vec<FetchRequest>>,
}

impl FakeFetcher {
    pub(crate) fn set(&self, url: &str, answer: Answer) {
        self.answers.lock().unwrap().insert(url.to_owned(), answer);
    }

    pub(crate) fn document(&self, url: &str, document: impl ToString) {
        self.set(url, Answer::Document(document.to_string()));
    }

    /// Serves an issuer's two documents.
    pub(crate) fn serve(&self, issuer: &TestIssuer) {
        let base = issuer.url().trim_end_matches('/');
        self.document(
            &format!("{base}/.well-known/openid-configuration"),
            issuer.discovery_json(),
        );
        self.document(&format!("{}/jwks", issuer.url()), issuer.jwks_json());
    }

    pub(crate) fn requests(&self) -> Vec<FetchRequest> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn urls(&self) -> Vec<String> {
        self.requests()
            .iter()
            .map(|request| request.url.to_string())
            .collect()
    }
}

impl Fetcher for FakeFetcher {
    fn get(&self, request: FetchRequest) -> BoxFuture<'static, Result<Vec<u8>, FetchError>> {
        let answer = self
            .answers
            .lock()
            .unwrap()
            .get(request.url.as_str())
            .cloned();
        self.requests.lock().unwrap().push(request);
        match answer {
            Some(Answer::Document(text)) => ready(Ok(text.into_bytes())).boxed(),
            Some(Answer::Failure(error)) => ready(Err(error)).boxed(),
            Some(Answer::Silence) => pending().boxed(),
            None => ready(Err(FetchError::Status(404))).boxed(),
        }
    }
}

/// What this thread writes to the log, until it is dropped.
pub(crate) struct CapturedLog {
    octets: Octets,
    _guard: tracing::subscriber::DefaultGuard,
}

#[derive(Clone, Default)]
struct Octets(Arc<Mutex<Vec<u8>>>);

impl io::Write for Octets {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl CapturedLog {
    pub(crate) fn begin() -> Self {
        // With a single subscriber in the process, a line that another thread reaches first would stay switched off.
        static ANOTHER: OnceLock<tracing::Dispatch> = OnceLock::new();
        ANOTHER.get_or_init(|| tracing::Dispatch::new(tracing_subscriber::registry()));
        let octets = Octets::default();
        let writer = octets.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        Self {
            octets,
            _guard: tracing::subscriber::set_default(subscriber),
        }
    }

    /// The lines that contain a text.
    pub(crate) fn lines_with(&self, text: &str) -> Vec<String> {
        let octets = self.octets.0.lock().unwrap();
        let lines = String::from_utf8_lossy(&octets).into_owned();
        let lines = lines.lines().filter(|line| line.contains(text));
        lines.map(str::to_owned).collect()
    }
}

/// Keys that are generated once for all tests.
pub(crate) fn keys() -> Arc<TestKeys> {
    static KEYS: OnceLock<Arc<TestKeys>> = OnceLock::new();
    Arc::clone(KEYS.get_or_init(|| Arc::new(TestKeys::generate().unwrap())))
}

/// Keys that no issuer of the tests publishes.
pub(crate) fn stranger() -> Arc<TestKeys> {
    static KEYS: OnceLock<Arc<TestKeys>> = OnceLock::new();
    Arc::clone(KEYS.get_or_init(|| Arc::new(TestKeys::generate().unwrap())))
}

/// A verifier with a fake network and a clock that stands still.
pub(crate) struct Bench {
    pub(crate) clock: Arc<FixedClock>,
    pub(crate) network: Arc<FakeFetcher>,
    pub(crate) issuer: TestIssuer,
    pub(crate) keys: Arc<KeySource>,
    verifier: TokenVerifier,
}

impl Bench {
    /// Trusts [`ISSUER`] for e-mail addresses.
    pub(crate) fn new() -> Self {
        Self::with_issuers(&entry(ISSUER, "type: email"))
    }

    /// Trusts what the text of an identity file says; serves [`ISSUER`].
    pub(crate) fn with_issuers(text: &str) -> Self {
        let (issuers, _) = Issuers::parse("identity.yaml", text).unwrap();
        Self::trusting(issuers)
    }

    /// Trusts these entries; serves [`ISSUER`].
    pub(crate) fn with_entries(entries: impl IntoIterator<Item = Issuer>) -> Self {
        Self::trusting(Issuers::new(entries.into_iter().collect(), Vec::new()))
    }

    fn trusting(issuers: Issuers) -> Self {
        let clock = Arc::new(FixedClock::at(NOW));
        let network = Arc::new(FakeFetcher::default());
        let issuer = TestIssuer::new(ISSUER.to_owned(), keys(), clock.clone());
        network.serve(&issuer);
        let limits = KeySourceLimits {
            wait: Duration::from_millis(20),
            fetch: Duration::from_millis(100),
            ..KeySourceLimits::default()
        };
        let keys = Arc::new(KeySource::new(
            network.clone(),
            clock.clone(),
            Handle::current(),
            limits,
            Arc::new(Metrics::new().unwrap()),
        ));
        let issuers = Arc::new(ArcSwap::from_pointee(issuers));
        let verifier = TokenVerifier::new(issuers, Arc::clone(&keys));
        Self {
            clock,
            network,
            issuer,
            keys,
            verifier,
        }
    }

    pub(crate) fn at(&self, url: &str) -> TestIssuer {
        TestIssuer::new(url.to_owned(), keys(), self.clock.clone())
    }

    /// Puts other entries in force.
    pub(crate) fn replace(&self, entries: impl IntoIterator<Item = Issuer>) {
        let issuers = Issuers::new(entries.into_iter().collect(), Vec::new());
        self.verifier.replace(Arc::new(issuers), self.now());
    }

    pub(crate) fn prefetch(&self) {
        self.verifier.prefetch(self.now());
    }

    pub(crate) fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    pub(crate) async fn verify(&self, token: &str) -> Result<Identity, TokenError> {
        self.verifier
            .verify(token, self.now())
            .await
            .map_err(|refused| refused.error)
    }

    /// Verifies a token with these claims, otherwise good.
    pub(crate) async fn verify_claims(&self, claims: &TestClaims) -> Result<Identity, TokenError> {
        self.verify(&self.issuer.token(claims, TestAlgorithm::Rs256).unwrap())
            .await
    }

    /// Verifies a token whose payload is this text.
    pub(crate) async fn verify_payload(&self, payload: &[u8]) -> Result<Identity, TokenError> {
        self.verify(&sign(&keys(), &header(), payload)).await
    }
}

/// An entry for e-mail addresses of [`ISSUER`] with an audience, which is its id too.
pub(crate) fn issuer_for(audience: &str) -> Issuer {
    let id: Arc<str> = audience.into();
    Issuer {
        endpoint: Arc::new(KeyEndpoint::exact(Arc::clone(&id), ISSUER.to_owned(), None)),
        id,
        audiences: vec![audience.to_owned()],
        rule: IdentityRule::Email(EmailRule::default()),
        access: ClaimRules::default(),
        tokens: TokenLimits::default(),
        rate: None,
        disabled: false,
        expires: None,
    }
}

/// An identity file with one exact issuer.
pub(crate) fn entry(url: &str, settings: &str) -> String {
    format!(
        "oidc-issuers:\n  {url}:\n    issuer-url: {url}\n    client-id: sigstore\n    {settings}\n"
    )
}

/// The header of a good token.
pub(crate) fn header() -> Value {
    serde_json::json!({ "alg": "RS256", "kid": TestAlgorithm::Rs256.key_id() })
}

/// Signs with RS256.
pub(crate) fn sign(keys: &TestKeys, header: &Value, payload: &[u8]) -> String {
    keys.sign(header.to_string().as_bytes(), payload, TestAlgorithm::Rs256)
        .unwrap()
}

/// The claims of a good token, as a text.
pub(crate) fn payload() -> Value {
    serde_json::json!({
        "iss": ISSUER, "aud": "sigstore", "sub": "ada@example.com",
        "email": "ada@example.com", "email_verified": true, "exp": 1_767_323_345,
    })
}
