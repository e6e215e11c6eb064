//! Wire formats on one side, the types of `ca` on the other; no decisions.
//!
//! [`Api::configure`] is the list of routes. [`observe`] wraps them all: request id, CORS, deadline, metrics, log line.

use std::future::Future;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::body::{BoxBody, EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::middleware::{Next, from_fn};
use actix_web::{Error, HttpRequest, HttpResponse, Route, web};
use futures_util::FutureExt;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::ca::CertificateAuthority;
use crate::limits::{self, Admission, Networks, RateLimiter};
use crate::metrics::{Metrics, Procedure};
use crate::random::Random;
use crate::readiness::Readiness;

pub mod ct;
pub mod fulcio;
pub mod fulcio_legacy;
pub mod grpc;
pub mod observe;
pub mod ops;
pub mod outcome;
pub mod page;
pub mod repeats;
pub mod request;
mod rfc6962;
pub mod trust;

use outcome::Refusal;

/// From the first byte of a request's head to the last of its answer: the time within which every request is answered.
/// The quickest client gives up after 5 s.
pub const DEADLINE: Duration = Duration::from_secs(4);

/// When an answer is due.
#[derive(Clone, Copy, Debug)]
struct Deadline {
    at: Instant,
    /// Whether it is sooner than ours, because the client says so.
    is_clients: bool,
}

impl Deadline {
    /// Ours, for a request that began at `start`.
    fn ours(start: Instant) -> Self {
        Self {
            at: start + DEADLINE,
            is_clients: false,
        }
    }

    /// What a future comes to by then; else the refusal, or that the client has given up, if it has.
    ///
    /// The caller pins the future: one that is handed over whole has room in this one twice, and is copied.
    async fn of<T>(
        self,
        future: impl Future<Output = T> + Unpin,
        refusal: fn() -> Refusal,
    ) -> Result<T, Refusal> {
        let late = || {
            if self.is_clients {
                Refusal::given_up()
            } else {
                refusal()
            }
        };
        // The timer looks at the future first, and one that is ready then would be in time for ever.
        if self.at <= Instant::now() {
            return Err(late());
        }
        timeout_at(self.at, future).await.map_err(|_| late())
    }
}

/// How much an error answer tells.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, serde::Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorDetail {
    /// Only the fixed text of the stage: what Fulcio answers, to the letter.
    Compatible,
    /// The fixed text, what was wrong, and the `Mayfly-Reason` header.
    #[default]
    Reason,
}

/// What the handlers share.
#[derive(Debug)]
pub struct Api {
    /// Issues.
    pub ca: Arc<CertificateAuthority>,
    /// Whether it can.
    pub readiness: Readiness,
    /// How many log lines were lost since the start.
    pub dropped_log_lines: fn() -> u64,
    /// The embedded log that is served, if there is one.
    pub log: Option<ct::LogSite>,
    /// What clients must trust.
    pub trust: Arc<trust::TrustSite>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Request ids come from here.
    pub random: Arc<dyn Random>,
    /// How much errors tell.
    pub error_detail: ErrorDetail,
    /// The largest body that is read, in octets.
    pub max_body_bytes: usize,
    /// Requests for a certificate that are worked on, or wait within.
    pub admission: Admission,
    /// Bodies that are read at the same time and are longer than those of clients.
    pub long_bodies: Admission,
    /// Calls over gRPC whose answers go on.
    pub streams: Arc<Semaphore>,
    /// What tells gRPC clients which services there are, if they are to know.
    pub reflection: Option<grpc::Reflection>,
    /// How often an address may ask, and all of them.
    pub rates: Arc<RateLimiter>,
    /// Whose word about the client's address is taken.
    pub trusted_proxies: Networks,
    /// Which failures were logged lately.
    pub repeats: repeats::Repeats,
    /// Set when the server begins to stop: health checks fail from then on.
    pub is_stopping: Arc<AtomicBool>,
    /// Answers that are the same for the life of the process.
    pub documents: fulcio::Documents,
}

/// The name of a route in metrics and logs, and the procedure it stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Endpoint {
    /// The label.
    pub name: &'static str,
    /// The gRPC procedure with the same meaning.
    pub procedure: Option<Procedure>,
    /// Whether the log line of a request that succeeds is only for debugging.
    pub is_quiet: bool,
}

impl Endpoint {
    const fn new(name: &'static str, procedure: Option<Procedure>, is_quiet: bool) -> Self {
        Self {
            name,
            procedure,
            is_quiet,
        }
    }

    /// Whether that holds for any answer: of probes, as the log says once that what they look at has changed.
    fn is_probe(&self) -> bool {
        self.name == Self::HEALTHZ || self.name == Self::READYZ
    }

    const HEALTHZ: &str = "healthz";
    const READYZ: &str = "readyz";

    /// What no route has taken.
    pub const OTHER: Self = Self::new("other", None, false);

    /// The endpoint of a request. A path that no route takes may be named after the route it resembles.
    #[must_use]
    pub fn of_path(path: &str) -> Self {
        match path {
            fulcio::SIGNING_CERT => Self::new(
                "v2_signing_cert",
                Some(Procedure::CREATE_SIGNING_CERTIFICATE),
                false,
            ),
            fulcio::TRUST_BUNDLE => {
                Self::new("v2_trust_bundle", Some(Procedure::GET_TRUST_BUNDLE), false)
            }
            fulcio::CONFIGURATION => Self::new(
                "v2_configuration",
                Some(Procedure::GET_CONFIGURATION),
                false,
            ),
            fulcio_legacy::SIGNING_CERT => Self::new(
                "v1_signing_cert",
                Some(Procedure::V1_CREATE_SIGNING_CERTIFICATE),
                false,
            ),
            fulcio_legacy::ROOT_CERT => Self::new(
                "v1_root_cert",
                Some(Procedure::V1_GET_ROOT_CERTIFICATE),
                false,
            ),
            ops::HEALTHZ | ops::LIVEZ => {
                Self::new(Self::HEALTHZ, Some(Procedure::HEALTH_CHECK), true)
            }
            ops::READYZ => Self::new(Self::READYZ, None, true),
            ops::OPENAPI => Self::new("openapi", None, true),
            // Routes that only `mayfly dev` has, which asks its own issuers for their keys.
            _ if path.starts_with("/dev/") => Self::new(Self::OTHER.name, None, true),
            _ if path.starts_with("/ct/") => Self::new(ct::endpoint_name(path), None, true),
            _ => trust::endpoint_name(path).map_or(Self::OTHER, |name| Self::new(name, None, true)),
        }
    }
}

impl Api {
    /// Adds every route of the API's listener.
    pub fn configure(self: &Arc<Self>, routes: &mut web::ServiceConfig) {
        routes.app_data(web::Data::from(Arc::clone(self)));
        resource(
            routes,
            fulcio::SIGNING_CERT,
            "POST",
            web::post().to(fulcio::signing_cert),
        );
        resource(
            routes,
            fulcio::TRUST_BUNDLE,
            "GET",
            web::get().to(fulcio::trust_bundle),
        );
        resource(
            routes,
            fulcio::CONFIGURATION,
            "GET",
            web::get().to(fulcio::configuration),
        );
        resource(
            routes,
            fulcio_legacy::SIGNING_CERT,
            "POST",
            web::post().to(fulcio_legacy::signing_cert),
        );
        resource(
            routes,
            fulcio_legacy::ROOT_CERT,
            "GET",
            web::get().to(fulcio_legacy::root_cert),
        );
        resource(routes, ops::HEALTHZ, "GET", web::get().to(ops::healthz));
        resource(routes, ops::LIVEZ, "GET", web::get().to(ops::healthz));
        resource(routes, ops::READYZ, "GET", web::get().to(ops::readyz));
        resource(routes, ops::OPENAPI, "GET", web::get().to(ops::openapi));
        trust::configure(routes, &self.trust);
        if let Some(log) = &self.log {
            ct::configure(routes, log);
        }
        let detail = self.error_detail;
        routes.default_service(web::to(move || async move {
            Refusal::not_found().into_response(detail)
        }));
    }

    /// The address that a request is counted and logged under. `None`: the connection is gone.
    #[must_use]
    pub fn client_address(&self, request: &HttpRequest) -> Option<IpAddr> {
        let values = |name: &'static str| {
            let values = request.headers().get_all(name);
            // What is not text is no address either, and must not vanish from between those that are.
            values
                .map(|value| value.to_str().unwrap_or_default())
                .collect()
        };
        Some(self.address_behind(request.peer_addr()?.ip(), values))
    }

    /// The address behind a peer, by what header fields of a name say if the peer is a trusted proxy.
    fn address_behind<'a>(
        &self,
        peer: IpAddr,
        values: impl Fn(&'static str) -> Vec<&'a str>,
    ) -> IpAddr {
        if self.trusted_proxies.is_empty() {
            return peer;
        }
        limits::client_address(
            peer,
            &self.trusted_proxies,
            values("x-forwarded-for").into_iter(),
            values("forwarded").into_iter(),
        )
    }

    /// Whether the server has begun to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }
}

/// Adds a path with its one method; others get 405 that names it.
fn resource(routes: &mut web::ServiceConfig, path: &str, allow: &'static str, route: Route) {
    let others = move |api: web::Data<Api>| async move {
        Refusal::method_not_allowed(allow).into_response(api.error_detail)
    };
    routes.service(
        web::resource(path)
            .route(route)
            .default_service(web::to(others))
            .wrap(from_fn(guard)),
    );
}

/// The middleware around every route: a panic in it is answered, and ends neither the worker nor its other connections.
async fn guard<B: MessageBody + 'static>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B, BoxBody>>, Error> {
    let head = request.request().clone();
    let Some(api) = head.app_data::<web::Data<Api>>().cloned() else {
        return next
            .call(request)
            .await
            .map(ServiceResponse::map_into_left_body);
    };
    match survive(&api, next.call(request)).await {
        Ok(answered) => answered.map(ServiceResponse::map_into_left_body),
        Err(refusal) => {
            let response = refusal.into_response(api.error_detail);
            Ok(ServiceResponse::new(head, response.map_into_right_body()))
        }
    }
}

/// Counts a panic, and turns it into a refusal: one request that meets a defect must not take others with it.
///
/// What the future shares with others is behind locks that outlive a panic, or was not begun to be changed. The caller pins
/// it, as for [`Deadline::of`].
async fn survive<T>(api: &Api, future: impl Future<Output = T> + Unpin) -> Result<T, Refusal> {
    let result = AssertUnwindSafe(future).catch_unwind().await;
    result.map_err(|_| {
        api.metrics.panicked();
        Refusal::internal()
    })
}

/// A method in lower case, as the inherited metrics have it; `other` for what HTTP does not know.
#[must_use]
pub fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::POST => "post",
        Method::HEAD => "head",
        Method::PUT => "put",
        Method::DELETE => "delete",
        Method::OPTIONS => "options",
        Method::PATCH => "patch",
        Method::TRACE => "trace",
        Method::CONNECT => "connect",
        _ => "other",
    }
}

/// Makes a response of a result.
fn respond(api: &Api, result: Result<HttpResponse, Refusal>) -> HttpResponse {
    result.unwrap_or_else(|refusal| {
        refusal
            .retry_after(|| limits::retry_after(api.random.as_ref()))
            .into_response(api.error_detail)
    })
}
