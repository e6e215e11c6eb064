//! What operators and their tools ask for: health, metrics, the description of the API.

use actix_web::http::header::ContentType;
use actix_web::{HttpResponse, web};
use serde::Deserialize;

use crate::api::Api;
use crate::api::outcome::Refusal;
use crate::ctlog::CtLog;

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
const SERVICES: [&str; 3] = [
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
    routes.default_service(web::to(metrics));
}

async fn metrics(api: web::Data<Api>) -> HttpResponse {
    if let Some(log) = api.log.as_ref().map(super::ct::LogSite::log) {
        api.metrics
            .log_sizes(log.name(), log.tip_size(), log.published_size());
    }
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
