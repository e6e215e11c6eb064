//! The one place where parts are put together: configuration → keys, log, authority → sockets; and taken down again.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::middleware::from_fn;
use actix_web::{App, web};
use arc_swap::ArcSwap;
use rustix::process::{Resource, getrlimit};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::Semaphore;

use crate::admin::socket::{AdminSocket, AdminSocketError};
use crate::admin::{self, Administered, Administration};
use crate::api::ct::LogSite;
use crate::api::fulcio::Documents;
use crate::api::grpc::{self, Reflection};
use crate::api::observe::observe;
use crate::api::outcome::Refusal;
use crate::api::repeats::Repeats;
use crate::api::trust::{SignedRepository, TrustSite, login_urls};
use crate::api::{Api, ops};
use crate::ca::CertificateAuthority;
use crate::ca::authority::{Authority, AuthorityError};
use crate::ca::hierarchy::{Hierarchy, Names};
use crate::clock::{Clock, ClockGuard};
use crate::config::{
    ConfigError, ExternalLogs, ServerConfig, log_folder, read_limited, tuf_folder,
};
use crate::ctlog::CtLog;
use crate::ctlog::embedded::{EmbeddedLog, EmbeddedLogError, EmbeddedLogParts, LogDescription};
use crate::ctlog::metered::MeteredLog;
use crate::ctlog::ordered::OrderedLogs;
use crate::ctlog::remote::{RemoteLog, RemoteLogError, RemoteLogParts, RemoteLogSettings};
use crate::fetch::{ClusterFiles, FetchLimits, HttpFetcher, Resolver};
use crate::identity::config::source;
use crate::identity::jwks::KeySourceLimits;
use crate::identity::{IssuerConfiguration, Issuers, KeySource, TokenVerifier};
use crate::keys::file::{self, KeyFileError, Passphrase};
use crate::keys::metered::MeteredSigner;
use crate::limits::{Admission, ConnectionLimit, Networks, RateLimiter};
use crate::listener::{self, Http2, ListenerConfig, Protocols, Pulse, TlsError};
use crate::logging;
use crate::metrics::{Metrics, RateScope, Reloadable};
use crate::random::{Random, WatchedRandomness};
use crate::readiness::{PolicyInForce, Readiness, Watched};
use crate::reload::tls::{CertificateWatch, WatchedCertificate};
use crate::reload::{
    self, Fingerprint, LoadedPolicy, PolicyFiles, ReloadHandle, ReloadRequests, Reloader,
};
use crate::store::folder::{Folder, FolderOptions};
use crate::store::metered::MeteredStore;
use crate::store::object::ObjectStorage;
use crate::store::{Store, StoreError};
use crate::systemd::Supervisor;
use crate::trust::tuf::{Repository, TufError};
use crate::trust::{TrustMaterial, TrustedLog};
use crate::x509::chain::{CertificateChain, ChainError};
use crate::x509::spki::SubjectPublicKey;

/// What bodies longer than those of clients may take of memory at the same time, in bytes.
const LONG_BODIES_BYTES: usize = 16 << 20;
/// Calls over gRPC whose answers go on, at the same time.
const MAX_STREAMS: usize = 1024;
/// Descriptors that are kept for the log, the keys, the issuers and the metrics.
const RESERVED_DESCRIPTORS: usize = 128;
/// With fewer descriptors for connections a server is of no use.
const FEWEST_CONNECTIONS: usize = 16;

/// Where time, randomness and the addresses of other hosts come from.
#[derive(Clone, Debug)]
pub struct Environment {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Serial numbers and request ids.
    pub random: Arc<dyn Random>,
    /// The addresses of the issuers' hosts.
    pub resolver: Arc<dyn Resolver>,
    /// What a Kubernetes cluster gives to those who run in it.
    pub cluster_files: ClusterFiles,
}

/// Why a server does not start. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration, or a file that it names, is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A key file cannot be used.
    #[error(transparent)]
    Key(#[from] KeyFileError),
    /// The CA's certificates cannot be used.
    #[error("{file}: {source}")]
    Chain {
        /// Their file.
        file: String,
        /// Why not.
        source: ChainError,
    },
    /// Key and certificates make no authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The TLS files cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The log cannot be opened.
    #[error("{place}: {source}")]
    Log {
        /// Its folder or bucket.
        place: String,
        /// Why not.
        source: EmbeddedLogError,
    },
    /// A log of others cannot be submitted to.
    #[error("ct log {name}: {source}")]
    RemoteLog {
        /// Which.
        name: String,
        /// Why not.
        source: RemoteLogError,
    },
    /// The log's folder or bucket cannot be opened.
    #[error("{place}: {source}")]
    Store {
        /// Which.
        place: String,
        /// Why not.
        source: StoreError,
    },
    /// The TUF repository cannot be used, or a trust file.
    #[error(transparent)]
    Tuf(#[from] TufError),
    /// The administration cannot be listened for.
    #[error(transparent)]
    Admin(#[from] AdminSocketError),
    /// An address cannot be listened on.
    #[error(
        "{setting}: cannot listen on {address}: {source}; give another address with --{setting}"
    )]
    Bind {
        /// The setting that names it.
        setting: &'static str,
        /// Which.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The system refused something that no configuration changes.
    #[error("{0}")]
    System(String),
}

/// Routes that a command adds to the API's listener; `serve` adds none.
pub type ExtraRoutes = Arc<dyn Fn(&mut web::ServiceConfig) + Send + Sync>;

fn bind(setting: &'static str, address: SocketAddr) -> Result<TcpListener, StartError> {
    listener::bind(address).map_err(|source| StartError::Bind {
        setting,
        address,
        source,
    })
}

fn address_of(socket: &TcpListener) -> Result<SocketAddr, StartError> {
    socket
        .local_addr()
        .map_err(|error| StartError::System(error.to_string()))
}

/// The sockets of a server. They are opened before anything else, so that a port in use is found first.
#[derive(Debug)]
pub struct Sockets {
    api: TcpListener,
    grpc: Option<TcpListener>,
    admin: Option<TcpListener>,
    metrics: TcpListener,
}

impl Sockets {
    /// Listens on both addresses. Port 0 takes a free one.
    ///
    /// # Errors
    /// When an address is in use or not ours.
    pub fn bind(api: SocketAddr, metrics: SocketAddr) -> Result<Self, StartError> {
        Ok(Self {
            api: bind("listen", api)?,
            grpc: None,
            admin: None,
            metrics: bind("metrics-listen", metrics)?,
        })
    }

    /// Listens on a third address, for gRPC alone.
    ///
    /// # Errors
    /// When it is in use or not ours.
    pub fn with_grpc(self, address: SocketAddr) -> Result<Self, StartError> {
        Ok(Self {
            grpc: Some(bind("grpc-listen", address)?),
            ..self
        })
    }

    /// Listens on another address, for the administration.
    ///
    /// # Errors
    /// When it is in use or not ours.
    pub fn with_admin(self, address: SocketAddr) -> Result<Self, StartError> {
        Ok(Self {
            admin: Some(bind("admin-listen", address)?),
            ..self
        })
    }

    /// The address of the API.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn api_address(&self) -> Result<SocketAddr, StartError> {
        address_of(&self.api)
    }

    /// The address of gRPC alone, if there is one.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn grpc_address(&self) -> Result<Option<SocketAddr>, StartError> {
        self.grpc.as_ref().map(address_of).transpose()
    }

    /// The address of the administration, if there is one.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn admin_address(&self) -> Result<Option<SocketAddr>, StartError> {
        self.admin.as_ref().map(address_of).transpose()
    }

    /// The address of metrics and health.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn metrics_address(&self) -> Result<SocketAddr, StartError> {
        address_of(&self.metrics)
    }
}

/// What a server is put together from: all that is read from files, and whatever can fail while it serves.
#[derive(Debug)]
pub struct Parts {
    /// What waits for other machines runs here: actix's workers each have a runtime of one thread.
    runtime: Runtime,
    /// What happens is counted here.
    pub metrics: Arc<Metrics>,
    /// Who may ask.
    pub policy: LoadedPolicy,
    /// What could be seen of its files before.
    seen: Fingerprint,
    /// Who signs.
    pub authority: Authority,
    /// Our own log, which is served to its readers.
    pub log: Option<Arc<EmbeddedLog>>,
    /// The logs of others that take its place.
    pub remote_logs: Vec<RemoteLog>,
    /// Where precertificates go: to our own log, or to those of others. `None` with `--no-ct`.
    pub submit_to: Option<Arc<dyn CtLog>>,
    /// Where serial numbers come from.
    serials: Arc<dyn Random>,
    /// What clients must trust, signed.
    repository: Option<SignedRepository>,
}

impl Parts {
    /// Reads every file, and opens the log.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(
        config: &ServerConfig,
        environment: &Environment,
        is_throw_away: bool,
    ) -> Result<Self, StartError> {
        let Environment { clock, random, .. } = environment;
        let insecure = config.insecure_settings();
        if config.strict && !insecure.is_empty() {
            let lines = insecure
                .iter()
                .map(|what| format!("{what} (refused by strict)"));
            return Err(ConfigError(lines.collect()).into());
        }
        for setting in &insecure {
            tracing::warn!(event = "insecure_setting", "{setting}");
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("background")
            .enable_all()
            .build()
            .map_err(|error| StartError::System(format!("cannot start a runtime: {error}")))?;
        let metrics = Metrics::new().map_err(|error| StartError::System(error.to_string()))?;
        let serials = WatchedRandomness::new(Arc::clone(random))
            .map_err(|error| StartError::System(error.to_string()))?;
        let files = policy_files(config);
        // Before they are read, so that what changes meanwhile is a change.
        let seen = files.look();
        let policy = files
            .load(clock.now())
            .map_err(|error| ConfigError(error.lines()))?;
        // The issuers of `dev` try every type, those that nobody should begin with too.
        if !is_throw_away {
            reload::log_warnings(&policy.warnings);
        }
        let passphrase = config.passphrase()?;
        let authority = runtime.block_on(load_authority(
            config,
            passphrase.as_ref(),
            environment,
            &metrics,
        ))?;
        let log = match &config.log {
            Some(settings) => {
                let folder = log_folder(&config.data_dir);
                let key = file::load(
                    &folder.join("key.pem"),
                    passphrase.as_ref(),
                    config.allow_insecure_permissions,
                )?;
                let place = settings
                    .bucket()
                    .map_or_else(|| folder.display().to_string(), ToString::to_string);
                let in_store = |source| StartError::Store {
                    place: place.clone(),
                    source,
                };
                let (store, backend): (Arc<dyn Store>, _) = if let Some(bucket) = settings.bucket()
                {
                    let storage = ObjectStorage::open(bucket, runtime.handle(), random.as_ref());
                    let backend = bucket.provider().scheme();
                    (Arc::new(storage.map_err(in_store)?), backend)
                } else {
                    let options = FolderOptions {
                        allow_volatile: is_throw_away,
                        allow_network: false,
                    };
                    let folder = Folder::open(&folder, options, Arc::clone(random));
                    (Arc::new(folder.map_err(in_store)?), "folder")
                };
                let parts = EmbeddedLogParts {
                    store: Arc::new(MeteredStore::new(store, metrics.store(backend))),
                    signer: Arc::new(MeteredSigner::new(
                        Arc::new(key),
                        metrics.signing("ct", "file"),
                    )),
                    clock: Arc::clone(clock),
                    random: Arc::clone(random),
                    metrics: Some(metrics.log(settings.name())),
                    on_fatal: Arc::new(stop_at_once),
                };
                let log = EmbeddedLog::open(settings.clone(), &parts).map_err(|source| {
                    let place = place.clone();
                    StartError::Log { place, source }
                })?;
                match log.store_issuers(authority.chain()) {
                    // They are stored before the first entry that needs them; until then the log can be read.
                    Err(error) if error.is_passing() => tracing::error!(
                        event = "log_issuers_not_stored",
                        error = error.to_string(),
                        "the CA's certificates cannot be stored in the log"
                    ),
                    stored => stored.map_err(in_store)?,
                }
                Some(Arc::new(log))
            }
            None => None,
        };
        let external = config.external_logs.as_ref();
        let remote_logs = external
            .map(|external| open_remote_logs(external, runtime.handle(), environment, &metrics));
        let remote_logs = remote_logs.transpose()?.unwrap_or_default();
        let submit_to = match (&log, external) {
            (Some(log), _) => Some(Arc::clone(log) as Arc<dyn CtLog>),
            (None, Some(external)) => Some(submit_to_first(&remote_logs, external)),
            (None, None) => None,
        };
        Ok(Self {
            runtime,
            metrics: Arc::new(metrics),
            policy,
            seen,
            authority,
            log,
            remote_logs,
            submit_to,
            serials: Arc::new(serials),
            repository: open_repository(config)?,
        })
    }
}

/// The TUF repository, if the instance has one, with its key, unless somebody else signs.
fn open_repository(config: &ServerConfig) -> Result<Option<SignedRepository>, StartError> {
    let repository = Repository::at(tuf_folder(&config.data_dir));
    if !repository.exists() {
        return Ok(None);
    }
    let config = config.clone();
    let read_key = move |repository: &Repository| {
        if !repository.online_key_path().exists() {
            return Ok(None);
        }
        let passphrase = config.passphrase()?;
        let insecure = config.allow_insecure_permissions;
        repository
            .online_key(passphrase.as_ref(), insecure)
            .map(Some)
    };
    Ok(Some(SignedRepository::open(
        repository,
        Box::new(read_key),
    )?))
}

fn open_remote_logs(
    external: &ExternalLogs,
    runtime: &Handle,
    environment: &Environment,
    metrics: &Metrics,
) -> Result<Vec<RemoteLog>, StartError> {
    let open = |settings: &RemoteLogSettings| {
        let parts = RemoteLogParts {
            runtime: runtime.clone(),
            resolver: Arc::clone(&environment.resolver),
            clock: Arc::clone(&environment.clock),
            metrics: metrics.ct_log(settings.name()),
            answer_within: external.patience.in_all,
        };
        RemoteLog::open(settings, parts).map_err(in_remote_log(settings))
    };
    external.logs.iter().map(open).collect()
}

fn in_remote_log(settings: &RemoteLogSettings) -> impl FnOnce(RemoteLogError) -> StartError {
    let name = settings.name().to_owned();
    |source| StartError::RemoteLog { name, source }
}

/// The one log, or all of them in order.
fn submit_to_first(logs: &[RemoteLog], external: &ExternalLogs) -> Arc<dyn CtLog> {
    let logs = logs
        .iter()
        .map(|log| Arc::new(log.clone()) as Arc<dyn CtLog>);
    Arc::new(OrderedLogs::new(logs.collect(), external.patience))
}

/// A server that is put together and not yet serving.
pub struct Server {
    api: Arc<Api>,
    log: Option<Arc<EmbeddedLog>>,
    remote_logs: Vec<RemoteLog>,
    sockets: Sockets,
    listener: ListenerConfig,
    /// TLS for gRPC on its own address.
    grpc_tls: Option<Arc<rustls::ServerConfig>>,
    admin_tls: Option<Arc<rustls::ServerConfig>>,
    certificates: Option<CertificateWatch>,
    trust: TrustMaterial,
    runtime: Runtime,
    supervisor: Option<Supervisor>,
    files: PolicyFiles,
    seen: Fingerprint,
    is_watching: bool,
    reloads: Option<ReloadRequests>,
    admin: Option<(Option<AdminSocket>, ReloadHandle)>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("sockets", &self.sockets)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Reads every file, opens the log and checks that all of it fits together.
    ///
    /// # Errors
    /// The first thing that does not.
    pub fn new(
        config: &ServerConfig,
        sockets: Sockets,
        environment: &Environment,
        is_throw_away: bool,
    ) -> Result<Self, StartError> {
        let parts = Parts::load(config, environment, is_throw_away)?;
        Self::assemble(config, sockets, environment, parts)
    }

    /// Puts a server together from parts that are ready.
    ///
    /// # Errors
    /// When the TLS files cannot be used.
    pub fn assemble(
        config: &ServerConfig,
        sockets: Sockets,
        environment: &Environment,
        parts: Parts,
    ) -> Result<Self, StartError> {
        let Environment {
            clock,
            random,
            resolver,
            cluster_files,
        } = environment.clone();
        let Parts {
            runtime,
            metrics,
            policy,
            seen,
            authority,
            log,
            remote_logs,
            submit_to,
            serials,
            repository,
        } = parts;
        let tls = config.tls.as_ref().map(WatchedCertificate::load);
        let tls = tls.transpose()?;
        let grpc_tls = config.grpc_tls.as_ref().map(WatchedCertificate::load);
        let grpc_tls = grpc_tls.transpose()?;
        let admin_tls = config.admin_listen.as_ref();
        let admin_tls = admin_tls.map(|(_, files)| WatchedCertificate::load(files));
        let admin_tls = admin_tls.transpose()?;
        let speaking = |watched: Option<&WatchedCertificate>, protocols| {
            let config = watched.map(|watched| watched.certificate().server_config(protocols));
            config.transpose()
        };
        let api_tls = speaking(tls.as_ref(), Protocols::Both)?;
        let own_admin_tls = speaking(admin_tls.as_ref(), Protocols::Http1)?;
        let own_grpc_tls = speaking(grpc_tls.as_ref().or(tls.as_ref()), Protocols::Http2)?;

        let LoadedPolicy {
            issuers, digest, ..
        } = policy;
        let published = issuers.configuration();
        let policy = PolicyInForce::new(&issuers, digest, clock.now());
        let fetcher = Arc::new(HttpFetcher::new(
            runtime.handle().clone(),
            FetchLimits::default(),
            resolver,
            cluster_files,
        ));
        let limits = KeySourceLimits::default();
        let keys = KeySource::new(
            fetcher,
            Arc::clone(&clock),
            runtime.handle().clone(),
            limits,
            Arc::clone(&metrics),
        );
        let tokens = TokenVerifier::new(Arc::new(ArcSwap::from_pointee(issuers)), Arc::new(keys));

        let rates = RateLimiter::new(&config.rate_limits, random.as_ref())
            .map_err(|error| StartError::System(error.to_string()))?;
        let rates = Arc::new(rates);
        let chain = Arc::clone(authority.chain());
        announce_chain(&metrics, &chain);
        reload::announce(&metrics, &policy, None);
        metrics.insecure_settings("server", config.insecure_settings().len());
        metrics.loaded(Reloadable::Identity, clock.now().unix_timestamp());
        let own_log = log.as_deref().map(|log| LogDescription {
            origin: log.origin().to_owned(),
            public_key_der: log.public_key_der().to_vec(),
            created: log.created(),
        });
        let own_log = own_log.and_then(|log| trusted_own_log(config, log));
        let others = remote_logs.iter();
        let others = others.map(|log| trusted_remote_log(log.url(), log.public_key(), &chain));
        let ct_logs = own_log.into_iter().chain(others).collect();
        let trust = trust_material(config, &chain, ct_logs, &published);
        let trust_site = TrustSite::new(
            trust.clone(),
            repository,
            Arc::clone(&clock),
            Arc::clone(&metrics),
        )?;
        let own_keys = chain
            .certificates()
            .iter()
            .map(|certificate| certificate.public_key_der().to_vec())
            .chain(log.iter().map(|log| log.public_key_der().to_vec()))
            .collect::<Vec<_>>();
        // Logs of others count for themselves, also what nobody waits for any more.
        let metered = |log: Arc<dyn CtLog>| {
            let counted = metrics.ct_log(log.name());
            Arc::new(MeteredLog::new(log, counted)) as Arc<dyn CtLog>
        };
        let submit_to = if remote_logs.is_empty() {
            submit_to.map(metered)
        } else {
            submit_to
        };
        let ca = Arc::new(CertificateAuthority {
            tokens,
            rates: Arc::clone(&rates),
            // Whoever proves to hold one of our own keys is no client.
            permitted: config.permitted.clone().reserving(own_keys),
            authority,
            log: submit_to,
            clock_guard: ClockGuard::new(Arc::clone(&clock)),
            clock,
            metrics: Arc::clone(&metrics),
            random: serials,
        });
        let watched = Watched {
            ca: Arc::clone(&ca),
            log: log.clone(),
            remote_logs: remote_logs.clone(),
        };
        let reflection = config.grpc_reflection.then(Reflection::new).transpose();
        let reflection = reflection.map_err(|error| StartError::System(error.to_string()))?;
        let api = Arc::new(Api {
            reflection,
            streams: Arc::new(Semaphore::new(MAX_STREAMS)),
            documents: Documents::new(&chain, &published),
            ca,
            readiness: Readiness::new(watched, policy, Arc::clone(&metrics)),
            dropped_log_lines: logging::dropped_lines,
            log: log
                .clone()
                .inspect(EmbeddedLog::fill_leaf_index)
                .map(|log| LogSite::new(log, std::slice::from_ref(chain.as_ref()))),
            trust: Arc::new(trust_site),
            metrics: Arc::clone(&metrics),
            random,
            error_detail: config.error_detail,
            max_body_bytes: config.max_body_bytes,
            admission: Admission::new(config.max_waiting),
            long_bodies: Admission::new((LONG_BODIES_BYTES / config.max_body_bytes.max(1)).max(1)),
            rates,
            trusted_proxies: config.trusted_proxies.clone(),
            repeats: Repeats::default(),
            is_stopping: Arc::new(AtomicBool::new(false)),
        });
        let http2 = {
            let api = Arc::clone(&api);
            Http2::new(move |request, peer| {
                let api = Arc::clone(&api);
                Box::pin(async move { grpc::answer(&api, request, peer).await })
            })
        };
        let certificates: Vec<_> = [tls, grpc_tls, admin_tls].into_iter().flatten().collect();
        let certificates = (!certificates.is_empty()).then(|| CertificateWatch {
            certificates,
            host: config.public_url.host().to_owned(),
            clock: Arc::clone(&api.ca.clock),
            metrics: Arc::clone(&metrics),
            is_stopping: Arc::clone(&api.is_stopping),
        });
        let listener = ListenerConfig {
            tls: api_tls,
            http2: Some(http2),
            workers: config.workers,
            max_connections: max_connections(config.max_connections)?,
            metrics: Some(Arc::clone(&metrics)),
            by_address: ConnectionLimit::new(
                config.max_connections_per_ip,
                config.trusted_proxies.clone(),
                move || metrics.rate_limited(RateScope::Connections),
            ),
            idle_timeout: config.idle_timeout,
            shutdown_grace: config.shutdown_grace,
        };
        Ok(Self {
            api,
            log,
            remote_logs,
            sockets,
            listener,
            grpc_tls: own_grpc_tls,
            admin_tls: own_admin_tls,
            certificates,
            trust,
            runtime,
            supervisor: None,
            files: policy_files(config),
            seen,
            is_watching: !config.no_watch,
            reloads: None,
            admin: None,
        })
    }

    /// Tells a supervisor when it serves, while it works, and when it stops.
    #[must_use]
    pub fn supervised_by(self, supervisor: Option<Supervisor>) -> Self {
        Self { supervisor, ..self }
    }

    /// Takes other versions of its identity configuration while it serves: when asked to, and, unless that is switched off,
    /// when the files change.
    #[must_use]
    pub fn reloading(self, requests: ReloadRequests) -> Self {
        Self {
            reloads: Some(requests),
            ..self
        }
    }

    /// Is administered while it serves: at a socket if there is one, and where its own sockets have an address for it.
    #[must_use]
    pub fn administered_at(self, socket: Option<AdminSocket>, reload: ReloadHandle) -> Self {
        Self {
            admin: Some((socket, reload)),
            ..self
        }
    }

    /// What clients of this server must trust.
    #[must_use]
    pub const fn trust(&self) -> &TrustMaterial {
        &self.trust
    }

    /// The URL of the metrics.
    ///
    /// # Errors
    /// When the system does not tell the address.
    pub fn metrics_url(&self) -> Result<String, StartError> {
        let address = self.sockets.metrics.local_addr();
        let address = address.map_err(|error| StartError::System(error.to_string()))?;
        Ok(format!("http://{address}/metrics"))
    }

    /// Serves until `stop` is ready, then finishes what has begun, and closes the log. Blocks.
    ///
    /// # Errors
    /// When the sockets cannot be served.
    pub fn run(
        self,
        extra_routes: Option<ExtraRoutes>,
        stop: impl Future<Output = ()>,
    ) -> Result<(), StartError> {
        let Self {
            api,
            log,
            remote_logs,
            sockets,
            listener,
            grpc_tls,
            admin_tls,
            certificates,
            runtime,
            supervisor,
            files,
            seen,
            is_watching,
            reloads,
            admin,
            trust: _,
        } = self;
        let failed = |error: std::io::Error| StartError::System(format!("cannot serve: {error}"));
        let is_stopping = Arc::clone(&api.is_stopping);
        let detail = api.error_detail;
        let sequenced = log.clone();
        let addresses = (
            sockets.api_address().ok(),
            sockets.grpc_address().ok().flatten(),
            sockets.admin_address().ok().flatten(),
            sockets.metrics_address().ok(),
        );
        let scheme = if listener.tls.is_some() {
            "https"
        } else {
            "http"
        };

        let background = runtime.handle().clone();
        let served = actix_web::rt::System::new().block_on(async move {
            let (first, metrics_api) = (Arc::clone(&api), Arc::clone(&api));
            let public = listener::serve("api", sockets.api, &listener, move || {
                let (api, extra_routes) = (Arc::clone(&api), extra_routes.clone());
                App::new().wrap(from_fn(observe)).configure(move |routes| {
                    if let Some(extra) = &extra_routes {
                        extra(routes);
                    }
                    api.configure(routes);
                })
            })
            .map_err(failed)?;
            let grpc = sockets.grpc.map(|socket| {
                let config = ListenerConfig {
                    tls: grpc_tls,
                    ..listener.clone()
                };
                listener::serve("grpc", socket, &config, move || {
                    let refuse = move || async move { Refusal::grpc_only().into_response(detail) };
                    App::new().default_service(web::to(refuse))
                })
            });
            let grpc = grpc.transpose().map_err(failed)?;
            let private = ListenerConfig {
                tls: None,
                http2: None,
                workers: 1,
                max_connections: RESERVED_DESCRIPTORS / 4,
                metrics: None,
                by_address: ConnectionLimit::new(0, Networks::default(), || {}),
                idle_timeout: listener.idle_timeout,
                shutdown_grace: Duration::from_secs(1),
            };
            let metrics = listener::serve("metrics", sockets.metrics, &private, move || {
                let api = Arc::clone(&metrics_api);
                App::new().configure(move |routes| ops::configure_metrics(&api, routes))
            })
            .map_err(failed)?;

            let (admin_socket, reload) = admin.unzip();
            let admin_socket = admin_socket.flatten();
            let admin_path = admin_socket.as_ref().map(|socket| socket.path().to_owned());
            let administered = reload.map(|reload| {
                web::Data::new(Administered::new(Arc::clone(&first), reload, files.clone()))
            });
            let admin = admin_socket.zip(administered.clone());
            let admin = admin.map(|(socket, administered)| {
                admin::serve(socket, administered, private.shutdown_grace)
            });
            let admin = admin.transpose().map_err(failed)?;
            let remote_admin = sockets.admin.zip(admin_tls).zip(administered);
            let remote_admin = remote_admin.map(|((socket, tls), administered)| {
                admin::serve_over_tls(socket, tls, administered, &private)
            });
            let remote_admin = remote_admin.transpose().map_err(failed)?;

            let (api_address, grpc_address, admin_address, metrics_address) = addresses;
            tracing::info!(
                event = "started",
                version = crate::VERSION,
                scheme,
                listen = api_address.map(tracing::field::display),
                grpc_listen = grpc_address.map(tracing::field::display),
                metrics_listen = metrics_address.map(tracing::field::display),
                admin_listen = admin_address.map(tracing::field::display),
                admin_socket = admin_path
                    .as_deref()
                    .map(|path| tracing::field::display(path.display())),
                "serving"
            );
            let mut watch = None;
            if let Some(supervisor) = &supervisor {
                supervisor.ready();
                watch = supervisor
                    .watch(fault_of(public.pulse, sequenced))
                    .map_err(failed)?;
            }
            if let Some(requests) = reloads {
                let reloader = Reloader {
                    api: Arc::clone(&first),
                    files,
                    supervisor: supervisor.clone(),
                    is_watching,
                    seen,
                };
                std::thread::Builder::new()
                    .name("reload".to_owned())
                    .spawn(move || reloader.run(&requests))
                    .map_err(failed)?;
            }
            if let Some(certificates) = certificates {
                std::thread::Builder::new()
                    .name("tls".to_owned())
                    .spawn(move || certificates.run())
                    .map_err(failed)?;
            }
            // So that the first token of each issuer need not wait for its keys.
            first.ca.tokens.prefetch(first.ca.clock.now());
            for log in remote_logs {
                let chain = Arc::clone(first.ca.authority.chain());
                background.spawn(async move { log.watch(&chain).await });
            }
            let trust = Arc::clone(&first.trust);
            background.spawn(async move { trust.keep_fresh().await });
            background.spawn(async move { first.readiness.watch().await });
            let handles = [
                Some(public.handle.clone()),
                grpc.as_ref().map(|grpc| grpc.handle.clone()),
                Some(metrics.handle.clone()),
                admin.as_ref().map(Administration::handle),
                remote_admin.as_ref().map(|admin| admin.handle.clone()),
            ];
            let stopping = async move {
                stop.await;
                is_stopping.store(true, Ordering::Relaxed);
                tracing::info!(event = "stopping", "finishing the requests that have begun");
                if let Some(supervisor) = supervisor {
                    supervisor.stopping();
                }
                for handle in handles.into_iter().flatten() {
                    handle.stop(true).await;
                }
            };
            let administering = async move {
                match admin {
                    Some(admin) => admin.run().await,
                    None => Ok(()),
                }
            };
            let administering_over_tls = async move {
                match remote_admin {
                    Some(admin) => admin.server.await,
                    None => Ok(()),
                }
            };
            let calling = async move {
                match grpc {
                    Some(grpc) => grpc.server.await,
                    None => Ok(()),
                }
            };
            let ((), public, grpc, metrics, admin, remote_admin) = tokio::join!(
                stopping,
                public.server,
                calling,
                metrics.server,
                administering,
                administering_over_tls
            );
            drop(watch);
            let private = metrics.and(admin).and(remote_admin);
            public.and(grpc).and(private).map_err(failed)
        });
        if let Some(log) = log {
            // Nobody waits for an entry any more: the last checkpoint covers them all.
            log.shutdown();
        }
        runtime.shutdown_timeout(Duration::from_secs(1));
        tracing::info!(event = "stopped", "stopped");
        served
    }
}

/// How many connections there may be: as many as are asked for, as far as the system's limit of open files goes.
fn max_connections(asked: usize) -> Result<usize, StartError> {
    let limit = getrlimit(Resource::Nofile).current;
    let limit = limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    });
    let possible = limit.saturating_sub(RESERVED_DESCRIPTORS);
    if possible < FEWEST_CONNECTIONS.min(asked) {
        return Err(StartError::System(format!(
            "the limit of open files is {limit}; give {} or more (ulimit -n, LimitNOFILE): {RESERVED_DESCRIPTORS} for the \
             log and what surrounds it, the others for connections",
            RESERVED_DESCRIPTORS + FEWEST_CONNECTIONS
        )));
    }
    if possible < asked {
        tracing::warn!(
            event = "descriptor_limit",
            limit,
            max_connections = possible,
            "the limit of open files allows fewer connections than max-connections"
        );
    }
    Ok(possible.min(asked))
}

/// Finds out what in a server hangs, if anything: a thread that serves, or the log's sequencer.
fn fault_of(
    workers: Pulse,
    log: Option<Arc<EmbeddedLog>>,
) -> impl FnMut(Duration) -> Option<&'static str> + Send {
    let mut last_step = 0;
    move |timeout| {
        let step = log.as_deref().map_or(0, |log| log.log().sequencer_steps());
        let is_stuck = step == last_step && !step.is_multiple_of(2);
        last_step = step;
        if is_stuck {
            Some("the log's sequencer hangs")
        } else if !workers.is_felt_within(timeout) {
            Some("a thread of the API hangs")
        } else {
            None
        }
    }
}

/// A log that cannot be trusted to have written must not sign again in this process, whatever a later write says.
fn stop_at_once(what: &str) {
    tracing::error!(
        event = "log_failed",
        error = what,
        "the log failed; the process ends, and a restart recovers it"
    );
    logging::flush();
    std::process::exit(70);
}

/// Sets the metrics that never change.
fn announce_chain(metrics: &Metrics, chain: &CertificateChain) {
    for certificate in chain.certificates() {
        let role = if certificate.fingerprint() == chain.root().fingerprint() {
            "root"
        } else {
            "intermediate"
        };
        metrics.ca_certificate(role, certificate.not_after().unix_timestamp());
    }
}

fn policy_files(config: &ServerConfig) -> PolicyFiles {
    PolicyFiles {
        path: config.identity_config.clone(),
        is_strict: config.strict,
    }
}

async fn load_authority(
    config: &ServerConfig,
    passphrase: Option<&Passphrase>,
    environment: &Environment,
    metrics: &Metrics,
) -> Result<Authority, StartError> {
    let now = environment.clock.now();
    let (chain, key, backend) = if config.ephemeral_ca {
        let names = Names {
            organization: "Mayfly ephemeral".to_owned(),
            common_name: "Mayfly ephemeral root".to_owned(),
        };
        let made = Hierarchy::generate(&names, now, environment.random.as_ref());
        let made = made.map_err(|error| StartError::System(error.to_string()))?;
        (made.chain, made.issuing_key, "ephemeral")
    } else {
        let chain = load_chain(config)?;
        let insecure = config.allow_insecure_permissions;
        let key = file::load(&config.ca_key, passphrase, insecure)?;
        (chain, key, "file")
    };
    // A key in memory checks its own signatures where that is needed; one outside the process would be checked here.
    let key = MeteredSigner::new(Arc::new(key), metrics.signing("ca", backend));
    Ok(Authority::new(Arc::new(chain), Arc::new(key), false, now).await?)
}

/// Reads the CA's certificates.
///
/// # Errors
/// When the file cannot be read, or they make no chain; or when they are in no file.
pub fn load_chain(config: &ServerConfig) -> Result<CertificateChain, StartError> {
    if config.ephemeral_ca {
        let what = "ephemeral-ca: the CA is in the memory of the running server alone; ask it for /api/v2/trustBundle";
        return Err(ConfigError::one(what).into());
    }
    let text = read_limited(&config.ca_cert, 1 << 20)?;
    let file = config.ca_cert.display().to_string();
    CertificateChain::from_pem(&text).map_err(|source| StartError::Chain { file, source })
}

/// What clients of an instance must trust, read from its files: while it runs, and without its keys.
///
/// # Errors
/// When a file cannot be read.
pub fn exported_trust(config: &ServerConfig) -> Result<TrustMaterial, StartError> {
    // An identity file that is not finished yet keeps nobody from giving clients what they trust.
    let issuers = source::read(&config.identity_config).ok();
    let issuers = issuers.and_then(|sources| Issuers::load(&sources, None).ok());
    let issuers = issuers.map(|(issuers, _)| issuers.configuration());
    let folder = log_folder(&config.data_dir);
    let own_log = config
        .log
        .as_ref()
        .map(|_| LogDescription::read(&folder))
        .transpose()
        .map_err(|source| {
            let place = folder.display().to_string();
            StartError::Log { place, source }
        })?;
    let own_log = own_log.and_then(|log| trusted_own_log(config, log));
    let chain = load_chain(config)?;
    let others = config
        .external_logs
        .iter()
        .flat_map(|external| &external.logs);
    let others = others.map(|log| {
        let key = log.public_key().map_err(in_remote_log(log))?;
        Ok(trusted_remote_log(log.url(), &key, &chain))
    });
    let ct_logs = own_log.into_iter().map(Ok).chain(others);
    let ct_logs = ct_logs.collect::<Result<_, StartError>>()?;
    Ok(trust_material(
        config,
        &chain,
        ct_logs,
        &issuers.unwrap_or_default(),
    ))
}

fn trusted_own_log(config: &ServerConfig, log: LogDescription) -> Option<TrustedLog> {
    let settings = config.log.as_ref()?;
    Some(TrustedLog {
        url: settings.url().trim_end_matches('/').to_owned(),
        origin: Some(log.origin),
        public_key_der: log.public_key_der,
        created: log.created,
    })
}

/// When another's log was made is not known; no timestamp of our certificates is older than our CA.
fn trusted_remote_log(
    url: &str,
    public_key: &SubjectPublicKey,
    chain: &CertificateChain,
) -> TrustedLog {
    TrustedLog {
        url: url.to_owned(),
        origin: None,
        public_key_der: public_key.spki_der().to_vec(),
        created: chain.not_before(),
    }
}

/// What clients of a configuration must trust.
fn trust_material(
    config: &ServerConfig,
    chain: &CertificateChain,
    ct_logs: Vec<TrustedLog>,
    issuers: &[IssuerConfiguration],
) -> TrustMaterial {
    TrustMaterial {
        ca_url: config.public_url.to_string(),
        operator: config.public_url.authority().to_owned(),
        chain: chain.clone(),
        ct_logs,
        oidc_urls: login_urls(issuers),
        external: config.external.clone(),
    }
}
