//! What is counted of every HTTP request on the API's listener.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use prometheus::{
    Error, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
};

use super::{
    BYTE_BUCKETS, GRPC_CODES, HttpRequest, INHERITED_BUCKETS, LATENCY_BUCKETS, Procedure,
    Registrar, grpc_code_name,
};

/// The families of requests, and the series that were used so far.
#[derive(Debug)]
pub(super) struct HttpMetrics {
    api_latency: HistogramVec,
    http_requests: IntCounterVec,
    grpc_started: IntCounterVec,
    grpc_received: IntCounterVec,
    grpc_sent: IntCounterVec,
    grpc_handled: IntCounterVec,
    grpc_handling: HistogramVec,
    requests: IntCounterVec,
    durations: HistogramVec,
    request_bytes: HistogramVec,
    response_bytes: HistogramVec,
    in_flight: IntGaugeVec,
    /// One look-up a request finds all that has to be counted.
    series: RwLock<HashMap<Key, Arc<Series>>>,
}

/// Endpoint, method, status, gRPC code: all from closed sets.
type Key = (&'static str, &'static str, u16, u8);

#[derive(Debug)]
struct Series {
    api_latency: Histogram,
    http_requests: IntCounter,
    requests: IntCounter,
    duration: Histogram,
    request_bytes: Histogram,
    response_bytes: Histogram,
    procedure: Option<ProcedureSeries>,
}

#[derive(Debug)]
struct ProcedureSeries {
    started: IntCounter,
    received: IntCounter,
    /// Only answers that are no errors.
    sent: Option<IntCounter>,
    handled: IntCounter,
    handling: Histogram,
}

impl ProcedureSeries {
    fn record(&self, seconds: f64) {
        self.started.inc();
        self.received.inc();
        if let Some(sent) = &self.sent {
            sent.inc();
        }
        self.handled.inc();
        self.handling.observe(seconds);
    }
}

/// A request that is being answered; counts as such until it is dropped.
#[derive(Debug)]
pub struct InFlight(IntGauge);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl HttpMetrics {
    pub(super) fn new(registrar: &Registrar<'_>) -> Result<Self, Error> {
        let procedure = ["grpc_type", "grpc_service", "grpc_method"];
        let metrics = Self {
            api_latency: registrar.histogram(
                "fulcio_api_latency",
                "API Latency on calls",
                &["code", "method"],
                INHERITED_BUCKETS,
            )?,
            http_requests: registrar.counter(
                "http_requests_total",
                "Total number of HTTP requests",
                &["code", "method"],
            )?,
            grpc_started: registrar.counter(
                "grpc_server_started_total",
                "Total number of calls started",
                &procedure,
            )?,
            grpc_received: registrar.counter(
                "grpc_server_msg_received_total",
                "Total number of messages received",
                &procedure,
            )?,
            grpc_sent: registrar.counter(
                "grpc_server_msg_sent_total",
                "Total number of messages sent",
                &procedure,
            )?,
            grpc_handled: registrar.counter(
                "grpc_server_handled_total",
                "Total number of calls completed, by code",
                &["grpc_type", "grpc_service", "grpc_method", "grpc_code"],
            )?,
            grpc_handling: registrar.histogram(
                "grpc_server_handling_seconds",
                "Time from the start of a call to its answer",
                &procedure,
                INHERITED_BUCKETS,
            )?,
            requests: registrar.counter(
                "mayfly_http_requests_total",
                "HTTP requests by route, method and status",
                &["endpoint", "method", "code"],
            )?,
            durations: registrar.histogram(
                "mayfly_http_request_duration_seconds",
                "Time from a request's head to its answer, by route, method and class of status",
                &["endpoint", "method", "code_class"],
                LATENCY_BUCKETS,
            )?,
            request_bytes: registrar.histogram(
                "mayfly_http_request_body_bytes",
                "Length of request bodies, by route",
                &["endpoint"],
                BYTE_BUCKETS,
            )?,
            response_bytes: registrar.histogram(
                "mayfly_http_response_body_bytes",
                "Length of the bodies of answers, by route",
                &["endpoint"],
                BYTE_BUCKETS,
            )?,
            in_flight: registrar.gauge(
                "mayfly_http_requests_in_flight",
                "Requests that are being answered, by route",
                &["endpoint"],
            )?,
            series: RwLock::default(),
        };
        for procedure in Procedure::INITIALISED {
            let Procedure {
                service, method, ..
            } = procedure;
            let labels = ["unary", service, method];
            metrics.grpc_started.with_label_values(&labels);
            metrics.grpc_received.with_label_values(&labels);
            metrics.grpc_sent.with_label_values(&labels);
            for code in GRPC_CODES {
                metrics
                    .grpc_handled
                    .with_label_values(&["unary", service, method, code]);
            }
        }
        Ok(metrics)
    }

    pub(super) fn begin(&self, endpoint: &'static str) -> InFlight {
        let gauge = self.in_flight.with_label_values(&[endpoint]);
        gauge.inc();
        InFlight(gauge)
    }

    pub(super) fn record(&self, request: &HttpRequest) {
        let grpc_code = request.procedure.map_or(0, |(_, code)| code);
        let key = (request.endpoint, request.method, request.status, grpc_code);
        let known = self.series.read().unwrap_or_else(PoisonError::into_inner);
        let series = known.get(&key).map(Arc::clone);
        drop(known);
        let series = series.unwrap_or_else(|| {
            let made = Arc::new(self.make(request));
            let mut series = self.series.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(series.entry(key).or_insert(made))
        });

        let seconds = request.duration.as_secs_f64();
        series.api_latency.observe(seconds);
        series.http_requests.inc();
        series.requests.inc();
        series.duration.observe(seconds);
        series.request_bytes.observe(as_f64(request.request_bytes));
        series
            .response_bytes
            .observe(as_f64(request.response_bytes));
        if let Some(procedure) = &series.procedure {
            procedure.record(seconds);
        }
    }

    pub(super) fn record_call(&self, procedure: Procedure, code: u8, duration: Duration) {
        self.make_procedure(procedure, code)
            .record(duration.as_secs_f64());
    }

    fn make_procedure(&self, procedure: Procedure, code: u8) -> ProcedureSeries {
        let Procedure {
            service,
            method,
            kind,
        } = procedure;
        let labels = [kind, service, method];
        let handled = [kind, service, method, grpc_code_name(code)];
        ProcedureSeries {
            started: self.grpc_started.with_label_values(&labels),
            received: self.grpc_received.with_label_values(&labels),
            sent: (code == 0).then(|| self.grpc_sent.with_label_values(&labels)),
            handled: self.grpc_handled.with_label_values(&handled),
            handling: self.grpc_handling.with_label_values(&labels),
        }
    }

    fn make(&self, request: &HttpRequest) -> Series {
        let HttpRequest {
            endpoint,
            method,
            status,
            ..
        } = *request;
        let code = format!("{status:03}");
        let class = match status {
            ..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            500.. => "5xx",
        };
        let procedure = request.procedure;
        let procedure = procedure.map(|(procedure, code)| self.make_procedure(procedure, code));
        Series {
            api_latency: self.api_latency.with_label_values(&[code.as_str(), method]),
            http_requests: self
                .http_requests
                .with_label_values(&[code.as_str(), method]),
            requests: self
                .requests
                .with_label_values(&[endpoint, method, code.as_str()]),
            duration: self.durations.with_label_values(&[endpoint, method, class]),
            request_bytes: self.request_bytes.with_label_values(&[endpoint]),
            response_bytes: self.response_bytes.with_label_values(&[endpoint]),
            procedure,
        }
    }
}

/// Octets as the number that a histogram takes; exact below 4 GiB, and no body here is longer.
fn as_f64(octets: u64) -> f64 {
    f64::from(u32::try_from(octets).unwrap_or(u32::MAX))
}
