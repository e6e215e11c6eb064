//! Every metric, in one struct; `docs/metrics.md` lists the same names, and a test compares the two.
//!
//! Labels come from closed sets or from the configuration, never from a request. The `fulcio_*`, `http_requests_total` and
//! `grpc_server_*` families keep the names and meanings that dashboards of Sigstore deployments already use.

use std::collections::HashSet;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use prometheus::{
    Encoder, Error, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::reason::Reason;

mod http;
mod parts;

use http::HttpMetrics;
pub use http::InFlight;
use parts::PartMetrics;
pub use parts::{
    CtLogMetrics, LogMetrics, SigningMetrics, StoreMetrics, StoreOperation, SubmissionResult,
    Written,
};

/// Buckets of the inherited latency histogram, in seconds.
const INHERITED_BUCKETS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Buckets of our own latency histograms, in seconds.
const LATENCY_BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Buckets of lengths, in octets.
const BYTE_BUCKETS: &[f64] = &[
    256.0,
    1024.0,
    4096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
];
/// Buckets of the numbers of entries in a batch.
const BATCH_BUCKETS: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0,
];

/// How many issuers have series of their own; those that come later share `other`.
const MAX_ISSUERS: usize = 200;
/// The label of issuers beyond that number.
const OTHER_ISSUER: &str = "other";

/// The 17 gRPC codes, in the order of their numbers.
const GRPC_CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// The name of a gRPC code as the `grpc_code` label spells it. Unknown numbers are `Unknown`.
#[must_use]
pub fn grpc_code_name(code: u8) -> &'static str {
    GRPC_CODES
        .get(usize::from(code))
        .copied()
        .unwrap_or("Unknown")
}

/// A procedure of the gRPC interface, as the inherited `grpc_server_*` counters name it. HTTP requests count there too.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Procedure {
    /// The full service name.
    pub service: &'static str,
    /// The method name.
    pub method: &'static str,
    /// How many messages it takes and gives, as the `grpc_type` label has it.
    kind: &'static str,
}

impl Procedure {
    const fn new(service: &'static str, method: &'static str) -> Self {
        Self {
            service,
            method,
            kind: "unary",
        }
    }

    /// `POST /api/v2/signingCert`.
    pub const CREATE_SIGNING_CERTIFICATE: Self =
        Self::new("dev.sigstore.fulcio.v2.CA", "CreateSigningCertificate");
    /// `GET /api/v2/trustBundle`.
    pub const GET_TRUST_BUNDLE: Self = Self::new("dev.sigstore.fulcio.v2.CA", "GetTrustBundle");
    /// `GET /api/v2/configuration`.
    pub const GET_CONFIGURATION: Self = Self::new("dev.sigstore.fulcio.v2.CA", "GetConfiguration");
    /// `POST /api/v1/signingCert`.
    pub const V1_CREATE_SIGNING_CERTIFICATE: Self =
        Self::new("dev.sigstore.fulcio.v1beta.CA", "CreateSigningCertificate");
    /// `GET /api/v1/rootCert`.
    pub const V1_GET_ROOT_CERTIFICATE: Self =
        Self::new("dev.sigstore.fulcio.v1beta.CA", "GetRootCertificate");
    /// `GET /healthz`.
    pub const HEALTH_CHECK: Self = Self::new("grpc.health.v1.Health", "Check");

    /// The health of all services, over gRPC alone.
    pub const HEALTH_LIST: Self = Self::new("grpc.health.v1.Health", "List");
    /// The health of a service as it changes, over gRPC alone.
    pub const HEALTH_WATCH: Self = Self {
        kind: "server_stream",
        ..Self::new("grpc.health.v1.Health", "Watch")
    };
    /// What can be called, over gRPC alone.
    pub const REFLECTION: Self = Self {
        kind: "bidi_stream",
        ..Self::new(
            "grpc.reflection.v1.ServerReflection",
            "ServerReflectionInfo",
        )
    };

    /// Whether its answer goes on, and is over when nobody can say how long it took.
    #[must_use]
    pub fn is_stream(self) -> bool {
        self.kind != "unary"
    }

    /// Those whose counters exist from the start, at zero.
    const INITIALISED: [Self; 4] = [
        Self::CREATE_SIGNING_CERTIFICATE,
        Self::GET_TRUST_BUNDLE,
        Self::GET_CONFIGURATION,
        Self::HEALTH_CHECK,
    ];
}

/// How an issued certificate is counted.
#[derive(Clone, Copy, Debug)]
pub struct Issued<'a> {
    /// The issuer's configured id.
    pub issuer: &'a str,
    /// The issuer's configured type.
    pub issuer_type: &'a str,
    /// The kind of the client's key.
    pub key: &'a str,
    /// How possession was proved.
    pub proof: &'a str,
    /// Where the timestamp is: `embedded` or `none`.
    pub sct: &'a str,
    /// The interface that was asked.
    pub api: &'a str,
}

/// How an HTTP request is counted.
#[derive(Clone, Copy, Debug)]
pub struct HttpRequest {
    /// The name of the route.
    pub endpoint: &'static str,
    /// The method in lower case; `other` for what is no method of HTTP.
    pub method: &'static str,
    /// The status that was sent.
    pub status: u16,
    /// How long it took.
    pub duration: Duration,
    /// The length of its body, as announced.
    pub request_bytes: u64,
    /// The length of the answer's body.
    pub response_bytes: u64,
    /// The procedure that the request stands for, with the gRPC code of its answer.
    pub procedure: Option<(Procedure, u8)>,
}

/// A step of the way to a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Stage {
    /// From octets to a request.
    Parse,
    /// The token, with the issuer's keys.
    Token,
    /// Key and proof of possession.
    Proof,
    /// What the certificate will say.
    Template,
    /// The precertificate's signature.
    SignPrecert,
    /// The log's timestamp.
    Ct,
    /// The certificate's signature.
    SignFinal,
    /// From the certificate to octets.
    Encode,
}

impl Stage {
    const ALL: [Self; 8] = [
        Self::Parse,
        Self::Token,
        Self::Proof,
        Self::Template,
        Self::SignPrecert,
        Self::Ct,
        Self::SignFinal,
        Self::Encode,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::Token => "token",
            Self::Proof => "proof",
            Self::Template => "template",
            Self::SignPrecert => "sign_precert",
            Self::Ct => "ct",
            Self::SignFinal => "sign_final",
            Self::Encode => "encode",
        }
    }
}

/// Which limit was exceeded: one on the rate of requests, or that of connections.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RateScope {
    /// That of one client address.
    Ip,
    /// That of one issuer.
    Issuer,
    /// That of one subject.
    Subject,
    /// That over all.
    Global,
    /// That of the connections of one client address.
    Connections,
}

impl RateScope {
    const ALL: [Self; 5] = [
        Self::Ip,
        Self::Issuer,
        Self::Subject,
        Self::Global,
        Self::Connections,
    ];

    /// The label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Issuer => "issuer",
            Self::Subject => "subject",
            Self::Global => "global",
            Self::Connections => "connections",
        }
    }
}

/// What can be loaded again while the server runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reloadable {
    /// The identity configuration.
    Identity,
    /// Certificates and keys of TLS.
    Tls,
}

impl Reloadable {
    const fn label(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Tls => "tls",
        }
    }
}

/// How an issuer's keys stand.
#[derive(Clone, Copy, Debug)]
pub struct IssuerKeys<'a> {
    /// The issuer's configured id.
    pub issuer: &'a str,
    /// Whether the last fetch succeeded.
    pub is_up: bool,
    /// How many keys there are.
    pub keys: usize,
    /// When they were fetched, seconds since 1970; 0 for never.
    pub last_success: i64,
}

/// Registers families; a name that is taken is an error.
struct Registrar<'a>(&'a Registry);

impl Registrar<'_> {
    fn counter(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, Error> {
        let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn single_counter(&self, name: &str, help: &str) -> Result<IntCounter, Error> {
        let metric = IntCounter::new(name, help)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn gauge(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec, Error> {
        let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn single_gauge(&self, name: &str, help: &str) -> Result<IntGauge, Error> {
        let metric = IntGauge::new(name, help)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn histogram(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
        buckets: &[f64],
    ) -> Result<HistogramVec, Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        let metric = HistogramVec::new(options, labels)?;
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }
}

/// Every metric of this process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    http: HttpMetrics,
    parts: PartMetrics,
    new_certs: IntCounter,
    issued: IntCounterVec,
    refused: IntCounterVec,
    issuance_issued: Histogram,
    issuance_refused: Histogram,
    issuance_error: Histogram,
    stages: [Histogram; 8],
    rate_limited: IntCounterVec,
    oidc_requests: IntCounterVec,
    oidc_duration: HistogramVec,
    oidc_refreshes: IntCounterVec,
    oidc_last_success: IntGaugeVec,
    oidc_keys: IntGaugeVec,
    oidc_up: IntGaugeVec,
    oidc_tenants: IntGauge,
    log_tree_size: IntGaugeVec,
    log_published_size: IntGaugeVec,
    ca_not_after: IntGaugeVec,
    config_info: IntGaugeVec,
    config_issuers: IntGaugeVec,
    config_reloads: IntCounterVec,
    config_last_reload_ok: IntGaugeVec,
    config_last_reload: IntGaugeVec,
    insecure_settings: IntGaugeVec,
    ready: IntGauge,
    ready_check: IntGaugeVec,
    ready_age: Gauge,
    panics: IntCounter,
    log_lines_dropped: IntCounter,
    tls_handshakes: IntCounterVec,
    tls_not_after: IntGaugeVec,
    tuf_expires: IntGaugeVec,
    /// The issuers that have series of their own.
    issuers: RwLock<HashSet<String>>,
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// When two metrics have one name: a defect, found by any test that starts a server.
    pub fn new() -> Result<Self, Error> {
        let registry = Registry::new();
        let registrar = Registrar(&registry);
        let new_certs = registrar.single_counter(
            "fulcio_new_certs",
            "The total number of certificates generated",
        )?;
        registrar
            .gauge(
                "fulcio_build_info",
                "A metric with a constant '1' value labeled by version, revision, build_date and goversion",
                &["version", "revision", "build_date", "goversion"],
            )?
            .with_label_values(&[crate::VERSION, crate::REVISION, "", crate::RUSTC])
            .set(1);
        registrar
            .gauge(
                "mayfly_build_info",
                "Always 1; the labels say which build this is",
                &["version", "revision", "rustc"],
            )?
            .with_label_values(&[crate::VERSION, crate::REVISION, crate::RUSTC])
            .set(1);
        let issuance = registrar.histogram(
            "mayfly_issuance_duration_seconds",
            "Time from a whole request for a certificate to its answer, by what it came to",
            &["result"],
            LATENCY_BUCKETS,
        )?;
        let stages = registrar.histogram(
            "mayfly_issuance_stage_duration_seconds",
            "Time that a step of the way to a certificate took",
            &["stage"],
            LATENCY_BUCKETS,
        )?;
        let rate_limited = registrar.counter(
            "mayfly_rate_limited_total",
            "Requests that exceeded a limit on their rate, by which",
            &["scope"],
        )?;
        for scope in RateScope::ALL {
            rate_limited.with_label_values(&[scope.label()]);
        }
        let metrics = Self {
            http: HttpMetrics::new(&registrar)?,
            parts: PartMetrics::new(&registrar)?,
            issued: registrar.counter(
                "mayfly_certificates_issued_total",
                "Certificates that were handed out",
                &["issuer", "issuer_type", "key", "proof", "sct", "api"],
            )?,
            refused: registrar.counter(
                "mayfly_certificate_requests_refused_total",
                "Requests for a certificate that were not served, by reason",
                &["issuer", "reason"],
            )?,
            issuance_issued: issuance.with_label_values(&["issued"]),
            issuance_refused: issuance.with_label_values(&["refused"]),
            issuance_error: issuance.with_label_values(&["error"]),
            stages: Stage::ALL.map(|stage| stages.with_label_values(&[stage.label()])),
            rate_limited,
            oidc_requests: registrar.counter(
                "mayfly_oidc_requests_total",
                "Documents that were fetched from issuers, by outcome",
                &["issuer", "kind", "result"],
            )?,
            oidc_duration: registrar.histogram(
                "mayfly_oidc_request_duration_seconds",
                "Time that fetching a document from an issuer took",
                &["kind", "result"],
                LATENCY_BUCKETS,
            )?,
            oidc_refreshes: registrar.counter(
                "mayfly_oidc_jwks_refreshes_total",
                "Times that an issuer's keys were fetched, by why",
                &["issuer", "trigger"],
            )?,
            oidc_last_success: registrar.gauge(
                "mayfly_oidc_jwks_last_success_timestamp_seconds",
                "When an issuer's keys were last fetched, seconds since 1970",
                &["issuer"],
            )?,
            oidc_keys: registrar.gauge(
                "mayfly_oidc_jwks_keys",
                "Usable keys of an issuer",
                &["issuer"],
            )?,
            oidc_up: registrar.gauge(
                "mayfly_oidc_issuer_up",
                "Whether the last fetch of an issuer's keys succeeded",
                &["issuer"],
            )?,
            oidc_tenants: registrar.single_gauge(
                "mayfly_oidc_wildcard_cache_entries",
                "Issuers of patterns whose keys are kept",
            )?,
            log_tree_size: registrar.gauge(
                "mayfly_log_tree_size",
                "Entries that are durable in the log",
                &["log"],
            )?,
            log_published_size: registrar.gauge(
                "mayfly_log_published_size",
                "Entries that the published checkpoint covers",
                &["log"],
            )?,
            ca_not_after: registrar.gauge(
                "mayfly_ca_certificate_not_after_timestamp_seconds",
                "When a certificate of the CA's chain ends, seconds since 1970",
                &["generation", "role", "state"],
            )?,
            config_info: registrar.gauge(
                "mayfly_config_info",
                "Always 1; the label is the start of the SHA-256 of the configuration in force",
                &["kind", "digest"],
            )?,
            config_issuers: registrar.gauge(
                "mayfly_config_issuers",
                "Configured issuers, by kind",
                &["kind"],
            )?,
            config_reloads: registrar.counter(
                "mayfly_config_reloads_total",
                "Reloads of a configuration, by what came of them",
                &["kind", "result"],
            )?,
            config_last_reload_ok: registrar.gauge(
                "mayfly_config_last_reload_successful",
                "Whether the last reload of a configuration put it in force; 1 before any",
                &["kind"],
            )?,
            config_last_reload: registrar.gauge(
                "mayfly_config_last_reload_success_timestamp_seconds",
                "When a configuration was last put in force, seconds since 1970",
                &["kind"],
            )?,
            insecure_settings: registrar.gauge(
                "mayfly_insecure_settings",
                "Settings in force that weaken what certificates mean, by configuration",
                &["kind"],
            )?,
            ready: registrar.single_gauge("mayfly_ready", "Whether certificates can be issued")?,
            ready_check: registrar.gauge(
                "mayfly_ready_check",
                "Whether a check of readiness holds",
                &["check"],
            )?,
            ready_age: {
                let gauge = Gauge::new(
                    "mayfly_ready_check_duration_seconds",
                    "Time that the last round of checks took",
                )?;
                registry.register(Box::new(gauge.clone()))?;
                gauge
            },
            panics: registrar.single_counter(
                "mayfly_panics_total",
                "Requests whose handling ended in a panic; any is a defect",
            )?,
            log_lines_dropped: registrar.single_counter(
                "mayfly_log_lines_dropped_total",
                "Log lines that standard error did not take",
            )?,
            tls_handshakes: registrar.counter(
                "mayfly_tls_handshakes_total",
                "TLS handshakes, by outcome",
                &["result"],
            )?,
            tls_not_after: registrar.gauge(
                "mayfly_tls_certificate_not_after_timestamp_seconds",
                "When the TLS certificate ends that is shown, seconds since 1970",
                &[],
            )?,
            tuf_expires: registrar.gauge(
                "mayfly_tuf_expires_timestamp_seconds",
                "When the metadata of a role of the TUF repository ends that is served, seconds since 1970",
                &["role"],
            )?,
            issuers: RwLock::default(),
            new_certs,
            registry: registry.clone(),
        };
        #[cfg(target_os = "linux")]
        registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        Ok(metrics)
    }

    /// Counts a request as under way until what is returned is dropped.
    #[must_use]
    pub fn begin_http_request(&self, endpoint: &'static str) -> InFlight {
        self.http.begin(endpoint)
    }

    /// Counts an answered HTTP request on the API's listener.
    pub fn http_request(&self, request: &HttpRequest) {
        self.http.record(request);
    }

    /// Counts a call over gRPC, when it is over.
    pub fn grpc_call(&self, procedure: Procedure, code: u8, duration: Duration) {
        self.http.record_call(procedure, code, duration);
    }

    /// Counts a certificate that was handed out.
    pub fn issued(&self, issued: &Issued<'_>, duration: Duration) {
        self.new_certs.inc();
        let Issued {
            issuer,
            issuer_type,
            key,
            proof,
            sct,
            api,
        } = *issued;
        let issuer = self.issuer_label(issuer);
        self.issued
            .with_label_values(&[issuer, issuer_type, key, proof, sct, api])
            .inc();
        self.issuance_issued.observe(duration.as_secs_f64());
    }

    /// Counts a request for a certificate that was not served. `issuer` is a configured id, or `unknown`.
    pub fn refused(&self, issuer: &str, reason: Reason, is_our_fault: bool, duration: Duration) {
        self.refused
            .with_label_values(&[self.issuer_label(issuer), reason.as_str()])
            .inc();
        let histogram = if is_our_fault {
            &self.issuance_error
        } else {
            &self.issuance_refused
        };
        histogram.observe(duration.as_secs_f64());
    }

    /// Records how long a step took.
    pub fn stage(&self, stage: Stage, duration: Duration) {
        let [
            parse,
            token,
            proof,
            template,
            sign_precert,
            ct,
            sign_final,
            encode,
        ] = &self.stages;
        let histogram = match stage {
            Stage::Parse => parse,
            Stage::Token => token,
            Stage::Proof => proof,
            Stage::Template => template,
            Stage::SignPrecert => sign_precert,
            Stage::Ct => ct,
            Stage::SignFinal => sign_final,
            Stage::Encode => encode,
        };
        histogram.observe(duration.as_secs_f64());
    }

    /// Counts what was turned away by a limit.
    pub fn rate_limited(&self, scope: RateScope) {
        self.rate_limited.with_label_values(&[scope.label()]).inc();
    }

    /// Counts a fetch of a document (`discovery` or `jwks`) from an issuer; `result` is `ok` or what went wrong.
    pub fn oidc_request(
        &self,
        issuer: &str,
        kind: &'static str,
        result: &'static str,
        duration: Duration,
    ) {
        self.oidc_requests
            .with_label_values(&[self.issuer_label(issuer), kind, result])
            .inc();
        self.oidc_duration
            .with_label_values(&[kind, result])
            .observe(duration.as_secs_f64());
    }

    /// Counts that an issuer's keys were fetched, and why: `startup`, `expired` or `unknown_kid`.
    pub fn oidc_refresh(&self, issuer: &str, trigger: &'static str) {
        self.oidc_refreshes
            .with_label_values(&[self.issuer_label(issuer), trigger])
            .inc();
    }

    /// Sets how the keys of an issuer stand.
    pub fn issuer_keys(&self, status: &IssuerKeys<'_>) {
        let issuer = self.issuer_label(status.issuer);
        self.oidc_up
            .with_label_values(&[issuer])
            .set(i64::from(status.is_up));
        self.oidc_keys
            .with_label_values(&[issuer])
            .set(i64::try_from(status.keys).unwrap_or(i64::MAX));
        self.oidc_last_success
            .with_label_values(&[issuer])
            .set(status.last_success);
    }

    /// Sets how many issuers of patterns are kept.
    pub fn oidc_tenants(&self, tenants: usize) {
        self.oidc_tenants
            .set(i64::try_from(tenants).unwrap_or(i64::MAX));
    }

    /// Sets the sizes of a log.
    pub fn log_sizes(&self, log: &str, tree_size: u64, published_size: u64) {
        self.log_tree_size
            .with_label_values(&[log])
            .set(i64::try_from(tree_size).unwrap_or(i64::MAX));
        self.log_published_size
            .with_label_values(&[log])
            .set(i64::try_from(published_size).unwrap_or(i64::MAX));
    }

    /// Sets when a certificate of the CA ends: `role` is `root` or `intermediate`.
    pub fn ca_certificate(&self, role: &'static str, not_after: i64) {
        self.ca_not_after
            .with_label_values(&["1", role, "active"])
            .set(not_after);
    }

    /// Says which configuration is in force; `digest` is the start of its SHA-256, hex.
    /// `before` is that of the one before, which is no longer told.
    pub fn configuration(&self, kind: &'static str, digest: &str, before: Option<&str>) {
        if let Some(before) = before.filter(|before| *before != digest) {
            // It was set when that one was put in force.
            let _ = self.config_info.remove_label_values(&[kind, before]);
        }
        self.config_info.with_label_values(&[kind, digest]).set(1);
    }

    /// Something is in force since the start; `now` in seconds since 1970.
    pub fn loaded(&self, what: Reloadable, now: i64) {
        let kind = what.label();
        for result in ["ok", "refused"] {
            self.config_reloads
                .with_label_values(&[kind, result])
                .inc_by(0);
        }
        self.config_last_reload_ok.with_label_values(&[kind]).set(1);
        self.config_last_reload.with_label_values(&[kind]).set(now);
    }

    /// Another version of it is in force; `now` in seconds since 1970.
    pub fn reloaded(&self, what: Reloadable, now: i64) {
        self.count_reload(what, "ok", 1);
        self.config_last_reload
            .with_label_values(&[what.label()])
            .set(now);
    }

    /// Another version of it does not hold up; the one before stays in force.
    pub fn reload_refused(&self, what: Reloadable) {
        self.count_reload(what, "refused", 0);
    }

    fn count_reload(&self, what: Reloadable, result: &str, is_ok: i64) {
        let kind = what.label();
        self.config_reloads.with_label_values(&[kind, result]).inc();
        self.config_last_reload_ok
            .with_label_values(&[kind])
            .set(is_ok);
    }

    /// Drops the series of an issuer that is no longer configured, and makes room for another one's.
    pub fn forget_issuer(&self, id: &str) {
        let mut issuers = self.issuers.write().unwrap_or_else(PoisonError::into_inner);
        if !issuers.remove(id) {
            return;
        }
        for gauge in [&self.oidc_up, &self.oidc_keys, &self.oidc_last_success] {
            // One that never had a value has no series.
            let _ = gauge.remove_label_values(&[id]);
        }
        let _ = self
            .ready_check
            .remove_label_values(&[&format!("issuer:{id}")]);
    }

    /// Sets how many issuers are configured.
    pub fn configured_issuers(&self, exact: usize, wildcard: usize, disabled: usize) {
        let kinds = [
            ("exact", exact),
            ("wildcard", wildcard),
            ("disabled", disabled),
        ];
        for (kind, number) in kinds {
            self.config_issuers
                .with_label_values(&[kind])
                .set(i64::try_from(number).unwrap_or(i64::MAX));
        }
    }

    /// Sets how many settings in force weaken what certificates mean: of the configuration `kind`, `identity` or `server`.
    pub fn insecure_settings(&self, kind: &'static str, number: usize) {
        self.insecure_settings
            .with_label_values(&[kind])
            .set(i64::try_from(number).unwrap_or(i64::MAX));
    }

    /// Sets whether a check of readiness holds. The name is one of a closed set, or made of a configured id.
    pub fn ready_check(&self, check: &str, holds: bool) {
        self.ready_check
            .with_label_values(&[check])
            .set(i64::from(holds));
    }

    /// Sets whether certificates can be issued, and how long it took to find out.
    pub fn ready(&self, is_ready: bool, took: Duration) {
        self.ready.set(i64::from(is_ready));
        self.ready_age.set(took.as_secs_f64());
    }

    /// Says that certificates cannot be counted on, whatever the last round of checks came to.
    pub fn not_ready(&self) {
        self.ready.set(0);
    }

    /// Counts a request whose handling ended in a panic.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// Sets how many log lines were lost since the start.
    pub fn log_lines_dropped(&self, dropped: u64) {
        let counted = self.log_lines_dropped.get();
        self.log_lines_dropped
            .inc_by(dropped.saturating_sub(counted));
    }

    /// Counts a TLS handshake: `ok`, `failed` or `timeout`.
    pub fn tls_handshake(&self, result: &'static str) {
        self.tls_handshakes.with_label_values(&[result]).inc();
    }

    /// Sets when the TLS certificate ends that is shown, seconds since 1970.
    pub fn tls_certificate(&self, not_after: i64) {
        self.tls_not_after
            .with_label_values::<&str>(&[])
            .set(not_after);
    }

    /// Sets when the metadata of a role of the TUF repository ends, seconds since 1970.
    pub fn tuf_expires(&self, role: &'static str, end: i64) {
        self.tuf_expires.with_label_values(&[role]).set(end);
    }

    /// What is counted of a key: `ca` or `ct`.
    #[must_use]
    pub fn signing(&self, key: &str, backend: &str) -> SigningMetrics {
        self.parts.signing(key, backend)
    }

    /// What is counted of a store, by the name of its kind.
    #[must_use]
    pub fn store(&self, backend: &str) -> StoreMetrics {
        self.parts.store(backend)
    }

    /// What is counted of submissions to a log, by its configured name.
    #[must_use]
    pub fn ct_log(&self, log: &str) -> CtLogMetrics {
        self.parts.ct_log(log)
    }

    /// What is counted of a log of ours, by its configured name.
    #[must_use]
    pub fn log(&self, log: &str) -> LogMetrics {
        self.parts.log(log)
    }

    /// Writes every metric in the text format 0.0.4.
    ///
    /// # Errors
    /// When a collector fails.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        let mut text = Vec::with_capacity(64 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// The issuer's label: its id while there are few, so that the number of series stays bounded.
    fn issuer_label<'a>(&self, id: &'a str) -> &'a str {
        let known = self.issuers.read().unwrap_or_else(PoisonError::into_inner);
        if known.contains(id) {
            return id;
        }
        if known.len() >= MAX_ISSUERS {
            return OTHER_ISSUER;
        }
        drop(known);
        let mut issuers = self.issuers.write().unwrap_or_else(PoisonError::into_inner);
        if issuers.len() < MAX_ISSUERS {
            issuers.insert(id.to_owned());
        }
        if issuers.contains(id) {
            id
        } else {
            OTHER_ISSUER
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuance_shows_under_inherited_and_own_names() {
        let metrics = Metrics::new().unwrap();
        metrics.http_request(&HttpRequest {
            endpoint: "v1_signing_cert",
            method: "post",
            status: 201,
            duration: Duration::from_millis(3),
            request_bytes: 300,
            response_bytes: 3000,
            procedure: Some((Procedure::V1_CREATE_SIGNING_CERTIFICATE, 0)),
        });
        let issued = Issued {
            issuer: "dev",
            issuer_type: "email",
            key: "p256",
            proof: "csr",
            sct: "embedded",
            api: "v1",
        };
        metrics.issued(&issued, Duration::from_millis(2));

        let text = String::from_utf8(metrics.encode().unwrap()).unwrap();
        for line in [
            "fulcio_new_certs 1",
            r#"fulcio_api_latency_count{code="201",method="post"} 1"#,
            r#"http_requests_total{code="201",method="post"} 1"#,
            r#"grpc_server_handled_total{grpc_code="OK",grpc_method="CreateSigningCertificate",grpc_service="dev.sigstore.fulcio.v1beta.CA",grpc_type="unary"} 1"#,
            r#"grpc_server_handled_total{grpc_code="Unavailable",grpc_method="GetTrustBundle",grpc_service="dev.sigstore.fulcio.v2.CA",grpc_type="unary"} 0"#,
            r#"mayfly_certificates_issued_total{api="v1",issuer="dev",issuer_type="email",key="p256",proof="csr",sct="embedded"} 1"#,
        ] {
            assert!(
                text.contains(&format!("{line}\n")),
                "{line} is missing in\n{text}"
            );
        }
    }

    #[test]
    fn issuers_beyond_the_first_two_hundred_share_a_label() {
        let metrics = Metrics::new().unwrap();
        for number in 0..300 {
            let issuer = format!("issuer-{number}");
            metrics.refused(&issuer, Reason::TokenExpired, false, Duration::ZERO);
        }
        let text = String::from_utf8(metrics.encode().unwrap()).unwrap();
        let series = text
            .lines()
            .filter(|line| line.starts_with("mayfly_certificate_requests_refused_total{"));
        assert_eq!(series.count(), 201);
        assert!(text.contains(r#"issuer="other",reason="token_expired"} 100"#));
        assert!(text.contains(r#"issuer="issuer-199""#));
    }

    #[test]
    fn a_request_is_under_way_until_it_is_dropped() {
        let metrics = Metrics::new().unwrap();
        let shown = || {
            let text = String::from_utf8(metrics.encode().unwrap()).unwrap();
            let series = r#"mayfly_http_requests_in_flight{endpoint="healthz"} "#;
            let line = text.lines().find_map(|line| line.strip_prefix(series));
            line.unwrap().to_owned()
        };
        let request = metrics.begin_http_request("healthz");
        assert_eq!(shown(), "1");
        drop(request);
        assert_eq!(shown(), "0");
    }

    #[test]
    fn the_worst_case_stays_within_its_bounds() {
        let metrics = Metrics::new().unwrap();
        for number in 0..MAX_ISSUERS {
            let issuer = format!("issuer-number-{number}.example.com-path");
            for key in [
                "p256", "p384", "p521", "rsa2048", "rsa3072", "rsa4096", "ed25519",
            ] {
                for proof in ["challenge", "csr"] {
                    for api in ["v1", "v2"] {
                        let issued = Issued {
                            issuer: &issuer,
                            issuer_type: "github-workflow",
                            key,
                            proof,
                            sct: "embedded",
                            api,
                        };
                        metrics.issued(&issued, Duration::from_millis(1));
                    }
                }
            }
            for reason in Reason::ALL {
                metrics.refused(&issuer, *reason, false, Duration::ZERO);
            }
            for kind in ["discovery", "jwks"] {
                for result in [
                    "ok", "timeout", "tls", "dns", "connect", "http_4xx", "http_5xx",
                ] {
                    metrics.oidc_request(&issuer, kind, result, Duration::ZERO);
                }
            }
        }
        let text = String::from_utf8(metrics.encode().unwrap()).unwrap();
        let series = text.lines().filter(|line| !line.starts_with('#')).count();
        assert!(series <= 20_000, "{series}");
    }
}
