//! A whole server in this process: real sockets, a real data folder, test issuers beside the API, and a clock that stands
//! still.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use futures_util::FutureExt;
use mayfly::ca::authority::Authority;
use mayfly::ca::hierarchy::Names;
use mayfly::clock::{Clock, FixedClock};
use mayfly::config::{GrpcListen, PublicUrl, ServerConfig, Settings};
use mayfly::ctlog::embedded::{EmbeddedLog, EmbeddedLogParts};
use mayfly::ctlog::remote::RemoteLog;
use mayfly::dev::DevIssuers;
use mayfly::dev::oidc::{TestAlgorithm, TestClaims, TestKeys};
use mayfly::fetch::{ClusterFiles, Resolver, SystemResolver};
use mayfly::instance::NewInstance;
use mayfly::keys::memory::NewKey;
use mayfly::keys::{InMemoryKey, file};
use mayfly::random::Random;
use mayfly::server::{Environment, ExtraRoutes, Parts, Server, Sockets, StartError};
use mayfly::store::{MemoryStore, StoreError};
use mayfly::trust::TrustMaterial;
use tokio::sync::oneshot;

use super::document;
use super::faults::{BreakableRandomness, WatchedKey, WatchedLog};
use super::http::{self, Answer, Request};
use super::key::TestKey;
use super::wait_for;

/// When the tests take place.
pub(crate) const NOW: &str = "2026-01-02T03:04:05Z";
/// Whose certificate is asked for.
pub(crate) const EMAIL: &str = "ada@example.com";
/// The path of version 2's signing endpoint.
pub(crate) const V2: &str = "/api/v2/signingCert";
/// The path of version 1's signing endpoint.
pub(crate) const V1: &str = "/api/v1/signingCert";

/// A running server. It stops when it is dropped.
pub(crate) struct TestServer {
    pub(crate) url: String,
    pub(crate) address: SocketAddr,
    /// The address of gRPC alone, where the settings name one.
    pub(crate) grpc_address: Option<SocketAddr>,
    pub(crate) metrics_address: SocketAddr,
    pub(crate) clock: Arc<FixedClock>,
    pub(crate) issuers: Arc<DevIssuers>,
    pub(crate) trust: TrustMaterial,
    pub(crate) key: Arc<WatchedKey>,
    pub(crate) random: Arc<BreakableRandomness>,
    /// What the server submits to; nothing with `--no-ct`.
    pub(crate) log: Option<Arc<WatchedLog>>,
    pub(crate) own_log: Option<Arc<EmbeddedLog>>,
    /// The logs of others that it submits to.
    pub(crate) remote_logs: Vec<RemoteLog>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), StartError>>>,
    folder: tempfile::TempDir,
}

/// What an answer must not have changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Traces {
    /// Entries in the log.
    pub(crate) entries: u64,
    /// Submissions to the log.
    pub(crate) submissions: u64,
    /// Signatures by the CA's key.
    pub(crate) signatures: u64,
    /// Certificates that were handed out, by the metric.
    pub(crate) certificates: u64,
}

impl TestServer {
    pub(crate) fn start() -> Self {
        Self::start_with(|_| {}, "")
    }

    /// Starts with other settings, and with further entries (YAML) in the identity file. `{base}` in them stands for the
    /// server's URL.
    pub(crate) fn start_with(change: impl FnOnce(&mut Settings), more_issuers: &str) -> Self {
        Self::start_resolving(Arc::new(SystemResolver), change, more_issuers)
    }

    /// Starts with a log in another store: a new one, which calls `on_fatal` when it cannot go on.
    pub(crate) fn start_on(
        store: &MemoryStore,
        on_fatal: impl Fn(&str) + Send + Sync + 'static,
    ) -> Self {
        let resolver = Arc::new(SystemResolver);
        Self::start_among(
            resolver,
            |key| key,
            |_| {},
            "",
            |config, environment, parts| {
                let log_parts = EmbeddedLogParts {
                    store: Arc::new(store.clone()),
                    signer: Arc::new(InMemoryKey::generate(NewKey::P256).unwrap().0),
                    clock: Arc::clone(&environment.clock),
                    random: Arc::clone(&environment.random),
                    metrics: None,
                    on_fatal: Arc::new(on_fatal),
                };
                let settings = config.log.clone().unwrap();
                EmbeddedLog::create(&settings, &log_parts).unwrap();
                let log = Arc::new(EmbeddedLog::open(settings, &log_parts).unwrap());
                parts.submit_to = Some(Arc::clone(&log) as _);
                parts.log = Some(log);
            },
        )
    }

    /// As [`Self::start_with`]; the hosts of issuers have the addresses that `resolver` says.
    pub(crate) fn start_resolving(
        resolver: Arc<dyn Resolver>,
        change: impl FnOnce(&mut Settings),
        more_issuers: &str,
    ) -> Self {
        Self::start_among(resolver, |key| key, change, more_issuers, |_, _, _| {})
    }

    /// Starts with another CA key.
    pub(crate) fn start_with_key(
        change_key: impl FnOnce(WatchedKey) -> WatchedKey,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let resolver = Arc::new(SystemResolver);
        Self::start_among(resolver, change_key, change, "", |_, _, _| {})
    }

    /// Starts inside a cluster, which has these files and says what addresses hosts have.
    pub(crate) fn start_in_cluster(
        files: &ClusterFiles,
        resolver: Arc<dyn Resolver>,
        more_issuers: &str,
    ) -> Self {
        let change_parts = |_: &ServerConfig, _: &Environment, _: &mut Parts| {};
        Self::start_somewhere(
            resolver,
            files.clone(),
            |key| key,
            |_| {},
            more_issuers,
            change_parts,
        )
    }

    fn start_among(
        resolver: Arc<dyn Resolver>,
        change_key: impl FnOnce(WatchedKey) -> WatchedKey,
        change: impl FnOnce(&mut Settings),
        more_issuers: &str,
        change_parts: impl FnOnce(&ServerConfig, &Environment, &mut Parts),
    ) -> Self {
        let no_cluster = ClusterFiles {
            ca: Some("/nowhere/ca.crt".into()),
            token: "/nowhere/token".into(),
        };
        Self::start_somewhere(
            resolver,
            no_cluster,
            change_key,
            change,
            more_issuers,
            change_parts,
        )
    }

    fn start_somewhere(
        resolver: Arc<dyn Resolver>,
        cluster_files: ClusterFiles,
        change_key: impl FnOnce(WatchedKey) -> WatchedKey,
        change: impl FnOnce(&mut Settings),
        more_issuers: &str,
        change_parts: impl FnOnce(&ServerConfig, &Environment, &mut Parts),
    ) -> Self {
        // The second and later servers of this process find it installed.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(FixedClock::at(NOW));
        let random = Arc::new(BreakableRandomness::default());
        let environment = Environment {
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            random: Arc::clone(&random) as Arc<dyn Random>,
            resolver,
            cluster_files,
        };
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut sockets = Sockets::bind(loopback, loopback).unwrap();
        let (address, metrics_address) = (
            sockets.api_address().unwrap(),
            sockets.metrics_address().unwrap(),
        );
        let url = format!("http://{address}");

        let data_dir = folder.path().join("data");
        make_instance(&data_dir, &url, &environment);
        let issuers = Arc::new(DevIssuers::new(&url, test_keys(), &environment.clock));
        let identity_config = folder.path().join("identity.yaml");
        let identity_file = issuers.identity_file() + &more_issuers.replace("{base}", &url);
        std::fs::write(&identity_config, identity_file).unwrap();
        let mut settings = Settings {
            data_dir: Some(data_dir),
            identity_config: Some(identity_config),
            workers: Some(1),
            grpc_listen: Some(GrpcListen(None)),
            ..Settings::default()
        };
        change(&mut settings);
        let config = ServerConfig::new(settings).unwrap();
        if config.grpc_listen.is_some() {
            sockets = sockets.with_grpc(loopback).unwrap();
        }
        let grpc_address = sockets.grpc_address().unwrap();
        // A process that another test starts holds the log's lock, which making it took, from its fork to its exec.
        let mut parts = wait_for("the lock of the log", || {
            match Parts::load(&config, &environment, true) {
                Err(StartError::Store {
                    source: StoreError::Locked,
                    ..
                }) => None,
                loaded => Some(loaded.unwrap()),
            }
        });
        change_parts(&config, &environment, &mut parts);
        let key = file::load(&config.ca_key, None, false).unwrap();
        let key = Arc::new(change_key(WatchedKey::new(Arc::new(key))));
        let chain = Arc::clone(parts.authority.chain());
        // As with any key outside of the process: what it signs is verified.
        let authority = Authority::new(chain, Arc::clone(&key) as _, true, clock.now());
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().build().unwrap();
        parts.authority = runtime.block_on(authority).unwrap();
        let log = parts
            .submit_to
            .take()
            .map(|log| Arc::new(WatchedLog::new(log)));
        parts.submit_to = log.clone().map(|log| log as _);
        let own_log = parts.log.clone();
        let remote_logs = parts.remote_logs.clone();

        let server = Server::assemble(&config, sockets, &environment, parts).unwrap();
        let trust = server.trust().clone();
        let routes: ExtraRoutes = {
            let issuers = Arc::clone(&issuers);
            Arc::new(move |routes| issuers.configure(routes))
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || server.run(Some(routes), stopped.map(drop)));
        Self {
            url,
            address,
            grpc_address,
            metrics_address,
            clock,
            issuers,
            trust,
            key,
            random,
            log,
            own_log,
            remote_logs,
            stop: Some(stop),
            thread: Some(thread),
            folder,
        }
    }

    /// Where the instance is kept.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Sends a request, and holds the answer against `openapi.yaml`.
    pub(crate) fn send(&self, request: &Request) -> Answer {
        let answer = http::send(self.address, request);
        document::check(request, &answer);
        answer
    }

    pub(crate) fn get(&self, target: &str) -> Answer {
        self.send(&Request::get(target))
    }

    /// A token of the issuer for e-mail addresses.
    pub(crate) fn token(&self, claims: &TestClaims) -> String {
        self.issuers
            .email()
            .unwrap()
            .token(claims, TestAlgorithm::Es256)
            .unwrap()
    }

    /// A request of version 2 that is answered with a certificate.
    pub(crate) fn good_request(&self) -> Request {
        let token = self.token(&TestClaims::email(EMAIL));
        Request::post(V2, TestKey::generate().v2(EMAIL).to_string()).bearer(&token)
    }

    /// A request of version 1 that is answered with a certificate.
    pub(crate) fn good_request_v1(&self) -> Request {
        let token = self.token(&TestClaims::email(EMAIL));
        Request::post(V1, TestKey::generate().v1(EMAIL).to_string()).bearer(&token)
    }

    pub(crate) fn traces(&self) -> Traces {
        Traces {
            entries: self.own_log.as_ref().map_or(0, |log| log.tip_size()),
            submissions: self.log.as_ref().map_or(0, |log| log.submissions()),
            signatures: self.key.signatures(),
            certificates: self.metric("fulcio_new_certs"),
        }
    }

    /// Waits until the log's checkpoint covers its entries: only then is a jump of the clock taken for time that went by.
    pub(crate) fn wait_for_checkpoint(&self) {
        let series = |name: &str| self.metric(&format!(r#"{name}{{log="main"}}"#));
        wait_for("a checkpoint", || {
            let is_published =
                series("mayfly_log_published_size") == series("mayfly_log_tree_size");
            is_published.then_some(())
        });
    }

    pub(crate) fn metrics(&self) -> String {
        http::send(self.metrics_address, &Request::get("/metrics"))
            .text()
            .to_owned()
    }

    /// The value of a series, named with its labels as `/metrics` writes it; 0 when there is none.
    pub(crate) fn metric(&self, series: &str) -> u64 {
        let metrics = self.metrics();
        let value = metrics
            .lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    /// How many requests for a certificate were refused for a reason, whatever the issuer.
    pub(crate) fn refusals(&self, reason: &str) -> u64 {
        let metrics = self.metrics();
        let series = metrics
            .lines()
            .filter(|line| line.starts_with("mayfly_certificate_requests_refused_total{"));
        let counted = series.filter(|line| line.contains(&format!(r#"reason="{reason}""#)));
        counted
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
            .sum()
    }

    /// Begins to stop, as a signal does.
    pub(crate) fn begin_to_stop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // A server that has failed listens no more; joining its thread tells.
            let _ = stop.send(());
        }
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.begin_to_stop();
        if let Some(log) = &self.log {
            log.let_go();
        }
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap().unwrap();
            }
        }
    }
}

/// Makes an instance with unencrypted keys.
pub(crate) fn make_instance(data_dir: &Path, url: &str, environment: &Environment) {
    let public_url: PublicUrl = url.parse().unwrap();
    let instance = NewInstance {
        data_dir,
        public_url: &public_url,
        names: Names {
            organization: "Test".to_owned(),
            common_name: "Test root".to_owned(),
        },
        passphrase: None,
        high_water: None,
        bucket: None,
        is_throw_away: true,
        clock: &environment.clock,
        random: &environment.random,
    };
    instance.create().unwrap();
}

/// The test issuers' keys, made once: an RSA key takes a while.
pub(crate) fn test_keys() -> &'static Arc<TestKeys> {
    static KEYS: OnceLock<Arc<TestKeys>> = OnceLock::new();
    KEYS.get_or_init(|| Arc::new(TestKeys::generate().unwrap()))
}

/// The parts of a JSON object, to compare without order.
pub(crate) fn members(value: &serde_json::Value) -> BTreeMap<String, serde_json::Value> {
    value
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
