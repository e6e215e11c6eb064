//! Every metric, in one struct; `docs/metrics.md` lists the same names, and a test compares the two.
//!
//! Labels come from closed sets or from the configuration, never from a request. The `fulcio_*`, `http_requests_total` and
//! `grpc_server_*` families keep the names and meanings that dashboards of Sigstore deployments already use.

use std::time::Duration;

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

use crate::reason::Reason;

/// Buckets of the inherited latency histogram, in seconds.
const INHERITED_BUCKETS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];
/// Buckets of our own latency histograms, in seconds.
const LATENCY_BUCKETS: &[f64] = &[
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

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
}

impl Procedure {
    const fn new(service: &'static str, method: &'static str) -> Self {
        Self { service, method }
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
    /// The procedure that the request stands for, with the gRPC code of its answer.
    pub procedure: Option<(Procedure, u8)>,
}

/// Every metric of this process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    new_certs: IntCounter,
    api_latency: HistogramVec,
    http_requests: IntCounterVec,
    grpc_started: IntCounterVec,
    grpc_received: IntCounterVec,
    grpc_sent: IntCounterVec,
    grpc_handled: IntCounterVec,
    endpoint_requests: IntCounterVec,
    issued: IntCounterVec,
    refused: IntCounterVec,
    rate_limited: IntCounterVec,
    issuance_issued: Histogram,
    issuance_refused: Histogram,
    issuance_error: Histogram,
    log_tree_size: IntGaugeVec,
    log_published_size: IntGaugeVec,
}

impl Metrics {
    /// Registers every metric.
    ///
    /// # Errors
    /// When two metrics have one name: a defect, found by any test that starts a server.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let counter =
            |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
                let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
                registry.register(Box::new(metric.clone()))?;
                Ok(metric)
            };
        let gauge =
            |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
                let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
                registry.register(Box::new(metric.clone()))?;
                Ok(metric)
            };
        let histogram =
            |name: &str, help: &str, labels: &[&str], buckets: &[f64]| -> Result<HistogramVec, _> {
                let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
                let metric = HistogramVec::new(options, labels)?;
                registry.register(Box::new(metric.clone())).map(|()| metric)
            };

        let new_certs = IntCounter::new(
            "fulcio_new_certs",
            "The total number of certificates generated",
        )?;
        registry.register(Box::new(new_certs.clone()))?;
        let build = gauge(
            "fulcio_build_info",
            "A metric with a constant '1' value labeled by version, revision, build_date and goversion",
            &["version", "revision", "build_date", "goversion"],
        )?;
        build
            .with_label_values(&[crate::VERSION, crate::REVISION, "", crate::RUSTC])
            .set(1);
        let build = gauge(
            "mayfly_build_info",
            "Always 1; the labels say which build this is",
            &["version", "revision", "rustc"],
        )?;
        build
            .with_label_values(&[crate::VERSION, crate::REVISION, crate::RUSTC])
            .set(1);

        let procedure = ["grpc_type", "grpc_service", "grpc_method"];
        let issuance = histogram(
            "mayfly_issuance_duration_seconds",
            "Time from a whole request for a certificate to its answer, by what it came to",
            &["result"],
            LATENCY_BUCKETS,
        )?;
        let metrics = Self {
            api_latency: histogram(
                "fulcio_api_latency",
                "API Latency on calls",
                &["code", "method"],
                INHERITED_BUCKETS,
            )?,
            http_requests: counter(
                "http_requests_total",
                "Total number of HTTP requests",
                &["code", "method"],
            )?,
            grpc_started: counter(
                "grpc_server_started_total",
                "Total number of calls started",
                &procedure,
            )?,
            grpc_received: counter(
                "grpc_server_msg_received_total",
                "Total number of messages received",
                &procedure,
            )?,
            grpc_sent: counter(
                "grpc_server_msg_sent_total",
                "Total number of messages sent",
                &procedure,
            )?,
            grpc_handled: counter(
                "grpc_server_handled_total",
                "Total number of calls completed, by code",
                &["grpc_type", "grpc_service", "grpc_method", "grpc_code"],
            )?,
            endpoint_requests: counter(
                "mayfly_http_requests_total",
                "HTTP requests by route, method and status",
                &["endpoint", "method", "code"],
            )?,
            issued: counter(
                "mayfly_certificates_issued_total",
                "Certificates that were handed out",
                &["issuer", "issuer_type", "key", "proof", "sct", "api"],
            )?,
            refused: counter(
                "mayfly_certificate_requests_refused_total",
                "Requests for a certificate that were not served, by reason",
                &["issuer", "reason"],
            )?,
            rate_limited: counter(
                "mayfly_rate_limited_total",
                "What was turned away because there was too much of its kind, by whose limit it was",
                &["scope"],
            )?,
            issuance_issued: issuance.with_label_values(&["issued"]),
            issuance_refused: issuance.with_label_values(&["refused"]),
            issuance_error: issuance.with_label_values(&["error"]),
            log_tree_size: gauge(
                "mayfly_log_tree_size",
                "Entries that are durable in the log",
                &["log"],
            )?,
            log_published_size: gauge(
                "mayfly_log_published_size",
                "Entries that the published checkpoint covers",
                &["log"],
            )?,
            new_certs,
            registry: registry.clone(),
        };
        for Procedure { service, method } in Procedure::INITIALISED {
            metrics
                .grpc_started
                .with_label_values(&["unary", service, method]);
            metrics
                .grpc_received
                .with_label_values(&["unary", service, method]);
            metrics
                .grpc_sent
                .with_label_values(&["unary", service, method]);
            for code in GRPC_CODES {
                metrics
                    .grpc_handled
                    .with_label_values(&["unary", service, method, code]);
            }
        }
        #[cfg(target_os = "linux")]
        registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        Ok(metrics)
    }

    /// Counts an answered HTTP request on the API's listener.
    pub fn http_request(&self, request: &HttpRequest) {
        let mut buffer = [0; 3];
        let code = status_text(request.status, &mut buffer);
        self.api_latency
            .with_label_values(&[code, request.method])
            .observe(request.duration.as_secs_f64());
        self.http_requests
            .with_label_values(&[code, request.method])
            .inc();
        self.endpoint_requests
            .with_label_values(&[request.endpoint, request.method, code])
            .inc();
        if let Some((Procedure { service, method }, code)) = request.procedure {
            self.grpc_started
                .with_label_values(&["unary", service, method])
                .inc();
            self.grpc_received
                .with_label_values(&["unary", service, method])
                .inc();
            if code == 0 {
                self.grpc_sent
                    .with_label_values(&["unary", service, method])
                    .inc();
            }
            self.grpc_handled
                .with_label_values(&["unary", service, method, grpc_code_name(code)])
                .inc();
        }
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
        self.issued
            .with_label_values(&[issuer, issuer_type, key, proof, sct, api])
            .inc();
        self.issuance_issued.observe(duration.as_secs_f64());
    }

    /// Counts a request for a certificate that was not served. `issuer` is a configured id, or `unknown`.
    pub fn refused(&self, issuer: &str, reason: Reason, is_our_fault: bool, duration: Duration) {
        self.refused
            .with_label_values(&[issuer, reason.as_str()])
            .inc();
        let histogram = if is_our_fault {
            &self.issuance_error
        } else {
            &self.issuance_refused
        };
        histogram.observe(duration.as_secs_f64());
    }

    /// Counts what was turned away by a rate limit, or by the limit of connections.
    pub fn rate_limited(&self, scope: &str) {
        self.rate_limited.with_label_values(&[scope]).inc();
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

    /// Writes every metric in the text format 0.0.4.
    ///
    /// # Errors
    /// When a collector fails.
    pub fn encode(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// Writes a status without allocating: this is done for every request.
fn status_text(status: u16, buffer: &mut [u8; 3]) -> &str {
    let mut rest = status.min(999);
    for digit in buffer.iter_mut().rev() {
        *digit = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
    }
    std::str::from_utf8(buffer).unwrap_or("000")
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
    fn every_status_has_three_digits() {
        let mut buffer = [0; 3];
        assert_eq!(status_text(201, &mut buffer), "201");
        assert_eq!(status_text(7, &mut buffer), "007");
    }
}
