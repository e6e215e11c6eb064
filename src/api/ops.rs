//! What operators and their tools ask for: health, metrics, the description of the API.

use actix_web::http::header::ContentType;
use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};

use crate::api::Api;
use crate::api::outcome::Refusal;
use crate::ctlog::CtLog;
use crate::readiness::{Check, Status};

/// `GET`: whether the process serves; never depends on anything outside it.
pub const HEALTHZ: &str = "/healthz";
/// `GET`: the same.
pub const LIVEZ: &str = "/livez";
/// `GET`: the description of this API.
pub const OPENAPI: &str = "/openapi.yaml";
/// `GET` on the metrics listener.
pub const METRICS: &str = "/metrics";

/// `GET`: whether certificates can be issued now, check by check.
pub const READYZ: &str = "/readyz";

const OPENAPI_TEXT: &str = include_str!("../../openapi.yaml");

/// The services that a health check may name; none means the whole process.
pub(super) const SERVICES: [&str; 3] = [
    "",
    "dev.sigstore.fulcio.v2.CA",
    "dev.sigstore.fulcio.v1beta.CA",
];

#[derive(Deserialize)]
pub(super) struct HealthQuery {
    #[serde(default)]
    service: String,
}

/// `GET /healthz`. Probes look for this very text, without a space in it.
pub(super) async fn healthz(
    api: web::Data<Api>,
    query: Option<web::Query<HealthQuery>>,
) -> HttpResponse {
    let is_known = query.is_none_or(|query| SERVICES.contains(&query.service.as_str()));
    if !is_known {
        return Refusal::unknown_service().into_response(api.error_detail);
    }
    if api.is_stopping() {
        return Refusal::shutting_down().into_response(api.error_detail);
    }
    HttpResponse::Ok()
        .content_type(ContentType::json())
        .body("{\"status\":\"SERVING\"}\n")
}

#[derive(Deserialize)]
pub(super) struct ReadyQuery {
    verbose: Option<String>,
}

#[derive(Serialize)]
struct Ready<'a> {
    status: Status,
    version: &'static str,
    config_digest: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<&'a [Check]>,
}

/// `GET /readyz`: what the last round of checks came to; 503 when no certificate can be issued. `?verbose=0` leaves the
/// checks out.
pub(super) async fn readyz(
    api: web::Data<Api>,
    query: Option<web::Query<ReadyQuery>>,
) -> HttpResponse {
    let is_verbose = query.is_none_or(|query| query.verbose.as_deref() != Some("0"));
    let report = api.readiness.report();
    let status = if api.is_stopping() {
        Status::NotReady
    } else {
        report.status
    };
    let policy = api.readiness.policy();
    let body = Ready {
        status,
        version: crate::VERSION,
        config_digest: &policy.digest,
        checks: is_verbose.then_some(&report.checks),
    };
    if status == Status::NotReady {
        HttpResponse::ServiceUnavailable().json(body)
    } else {
        HttpResponse::Ok().json(body)
    }
}

/// `GET /openapi.yaml`.
pub(super) async fn openapi() -> HttpResponse {
    HttpResponse::Ok()
        .content_type("application/yaml")
        .body(OPENAPI_TEXT)
}

/// The routes of the metrics listener: metrics at any path, as scrapers of Fulcio expect, and health.
pub fn configure_metrics(api: &std::sync::Arc<Api>, routes: &mut web::ServiceConfig) {
    routes.app_data(web::Data::from(std::sync::Arc::clone(api)));
    super::resource(routes, HEALTHZ, "GET", web::get().to(healthz));
    super::resource(routes, LIVEZ, "GET", web::get().to(healthz));
    super::resource(routes, READYZ, "GET", web::get().to(readyz));
    routes.default_service(web::to(metrics));
}

async fn metrics(api: web::Data<Api>) -> HttpResponse {
    if let Some(log) = api.log.as_ref().map(super::ct::LogSite::log) {
        api.metrics
            .log_sizes(log.name(), log.tip_size(), log.published_size());
    }
    if api.readiness.report().status == Status::NotReady {
        api.metrics.not_ready();
    }
    api.metrics.log_lines_dropped((api.dropped_log_lines)());
    match api.metrics.encode() {
        Ok(text) => HttpResponse::Ok()
            .content_type("text/plain; version=0.0.4")
            .body(text),
        Err(error) => {
            tracing::error!(event = "metrics_failed", %error, "the metrics could not be written");
            HttpResponse::InternalServerError().finish()
        }
    }
}
