//! The stages of an issuance side by side, for whoever changes one of them: `cargo bench`.
//!
//! A stage alone, on one thread. What a server takes for a certificate in all, and how far that is from the least it could
//! take, is what `mayfly bench load` measures.

#![expect(
    clippy::expect_used,
    reason = "a benchmark that cannot run should stop"
)]

use std::sync::Arc;

use arc_swap::ArcSwap;
use divan::Bencher;
use futures_util::future::{BoxFuture, ready};
use mayfly::bench::floor::Floor;
use mayfly::ca::authority::Authority;
use mayfly::ca::hierarchy::{Hierarchy, Names};
use mayfly::ca::profile::CertificateProfile;
use mayfly::ca::request::{KeyEncoding, PermittedAlgorithms, ProofOfPossession, ProvenKey};
use mayfly::client::EphemeralKey;
use mayfly::clock::{Clock, SystemClock};
use mayfly::ctlog::CtLog;
use mayfly::ctlog::embedded::{EmbeddedLog, EmbeddedLogConfig, EmbeddedLogParts};
use mayfly::dev::oidc::{TestAlgorithm, TestClaims, TestIssuer, TestKeys};
use mayfly::fetch::{FetchError, FetchRequest, Fetcher};
use mayfly::identity::jwks::KeySourceLimits;
use mayfly::identity::{Identity, Issuers, KeySource, TokenVerifier};
use mayfly::keys::InMemoryKey;
use mayfly::keys::memory::NewKey;
use mayfly::metrics::Metrics;
use mayfly::random::{Random, SystemRandomness};
use mayfly::store::folder::{Folder, FolderOptions};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const ISSUER: &str = "https://issuer.example.com";

fn main() {
    let floor = Floor::measure().expect("the library computes");
    println!(
        "floor, CPU of one certificate's cryptography: {:?}\n{floor:?}\n",
        floor.per_certificate()
    );
    divan::main();
}

/// The issuer's documents, without a network.
#[derive(Debug)]
struct Documents(TestIssuer);

impl Fetcher for Documents {
    fn get(&self, request: FetchRequest) -> BoxFuture<'static, Result<Vec<u8>, FetchError>> {
        let is_discovery = request.url.path().ends_with("openid-configuration");
        let document = if is_discovery {
            self.0.discovery_json()
        } else {
            self.0.jwks_json()
        };
        Box::pin(ready(Ok(document.into_bytes())))
    }
}

/// Everything that issues, in this process, with its log in a folder.
struct Stages {
    runtime: Runtime,
    issuer: TestIssuer,
    tokens: TokenVerifier,
    authority: Authority,
    log: EmbeddedLog,
    random: Arc<dyn Random>,
    _folder: TempDir,
}

impl Stages {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let runtime = runtime.expect("a runtime");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let random: Arc<dyn Random> = Arc::new(SystemRandomness);
        let keys = Arc::new(TestKeys::generate().expect("keys"));
        let issuer = TestIssuer::new(ISSUER.to_owned(), keys, Arc::clone(&clock));
        let file = format!(
            "oidc-issuers:\n  {ISSUER}:\n    issuer-url: {ISSUER}\n    client-id: sigstore\n    type: email\n"
        );
        let (issuers, _) = Issuers::parse("identity.yaml", &file).expect("an identity file");
        let keys = KeySource::new(
            Arc::new(Documents(issuer.clone())),
            Arc::clone(&clock),
            runtime.handle().clone(),
            KeySourceLimits::default(),
            Arc::new(Metrics::new().expect("metrics")),
        );
        let tokens = TokenVerifier::new(Arc::new(ArcSwap::from_pointee(issuers)), Arc::new(keys));

        let names = Names {
            organization: "Bench".to_owned(),
            common_name: "Bench root".to_owned(),
        };
        let hierarchy =
            Hierarchy::generate(&names, clock.now(), random.as_ref()).expect("a hierarchy");
        let chain = Arc::new(hierarchy.chain);
        let authority = Authority::new(chain, Arc::new(hierarchy.issuing_key), false, clock.now());
        let authority = runtime.block_on(authority).expect("an authority");

        let folder = tempfile::tempdir_in(".").expect("a folder");
        let options = FolderOptions {
            allow_volatile: true,
            allow_network: false,
        };
        let store = Folder::create(folder.path().join("log"), options, Arc::clone(&random))
            .expect("a store");
        let parts = EmbeddedLogParts {
            store: Arc::new(store),
            signer: Arc::new(InMemoryKey::generate(NewKey::P256).expect("a key").0),
            clock,
            random: Arc::clone(&random),
            metrics: None,
            on_fatal: Arc::new(|why| eprintln!("the log failed: {why}")),
        };
        let url = url::Url::parse("https://ca.example.com").expect("a URL");
        let settings = EmbeddedLogConfig::default().check(&url).expect("settings");
        EmbeddedLog::create(&settings, &parts).expect("a log");
        let log = EmbeddedLog::open(settings, &parts).expect("the log");
        Self {
            runtime,
            issuer,
            tokens,
            authority,
            log,
            random,
            _folder: folder,
        }
    }

    fn token(&self) -> String {
        self.issuer
            .token(&TestClaims::email("ada@example.com"), TestAlgorithm::Rs256)
            .expect("a token")
    }

    fn identity(&self) -> Identity {
        let verified = self
            .runtime
            .block_on(self.tokens.verify(&self.token(), SystemClock.now()));
        verified.expect("a good token")
    }

    fn proof(&self, identity: &Identity) -> ProofOfPossession {
        let key = EphemeralKey::generate(self.random.as_ref()).expect("a key");
        let block = pem::encode(&pem::Pem::new("PUBLIC KEY", key.public_key_der()));
        ProofOfPossession::Challenge {
            public_key: block.into_bytes().into(),
            encoding: KeyEncoding::Pem,
            signature: key.sign(identity.challenge.as_bytes()),
        }
    }

    fn profile(&self, identity: &Identity) -> CertificateProfile {
        let key: ProvenKey = self
            .proof(identity)
            .check(identity, &PermittedAlgorithms::default())
            .expect("a good proof");
        CertificateProfile::new(identity, key, SystemClock.now(), self.random.as_ref())
            .expect("a profile")
    }
}

#[divan::bench]
fn verify_token(bencher: Bencher<'_, '_>) {
    let stages = Stages::new();
    let (token, now) = (stages.token(), SystemClock.now());
    bencher.bench_local(|| {
        stages
            .runtime
            .block_on(stages.tokens.verify(&token, now))
            .expect("good")
    });
}

#[divan::bench]
fn check_proof(bencher: Bencher<'_, '_>) {
    let stages = Stages::new();
    let (identity, permitted) = (stages.identity(), PermittedAlgorithms::default());
    bencher
        .with_inputs(|| stages.proof(&identity))
        .bench_local_values(|proof| proof.check(&identity, &permitted).expect("good"));
}

#[divan::bench]
fn sign_precertificate(bencher: Bencher<'_, '_>) {
    let stages = Stages::new();
    let profile = stages.profile(&stages.identity());
    bencher.bench_local(|| {
        stages
            .runtime
            .block_on(stages.authority.precertify(&profile))
            .expect("signed")
    });
}

#[divan::bench]
fn append_to_log(bencher: Bencher<'_, '_>) {
    let stages = Stages::new();
    let profile = stages.profile(&stages.identity());
    let precertificate = stages
        .runtime
        .block_on(stages.authority.precertify(&profile))
        .expect("signed");
    bencher
        .with_inputs(|| precertificate.submission())
        .bench_local_values(|submission| {
            stages
                .runtime
                .block_on(stages.log.submit(submission))
                .expect("durable")
        });
}

#[divan::bench]
fn sign_certificate(bencher: Bencher<'_, '_>) {
    let stages = Stages::new();
    let profile = stages.profile(&stages.identity());
    let block_on = &stages.runtime;
    let precertificate = block_on
        .block_on(stages.authority.precertify(&profile))
        .expect("signed");
    let sct = block_on
        .block_on(stages.log.submit(precertificate.submission()))
        .expect("durable");
    bencher.bench_local(|| {
        block_on
            .block_on(stages.authority.certify(&precertificate, &sct))
            .expect("signed")
    });
}
