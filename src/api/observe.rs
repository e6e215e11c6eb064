//! What surrounds every request: its id, CORS, its metrics, and its one log line.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use actix_web::body::{BodySize, BoxBody, EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::uri::{PathAndQuery, Uri};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, HttpResponse, web};

use crate::api::outcome::{Refusal, Refused};
use crate::api::{Api, Endpoint, method_label};
use crate::ca::IssuedCertificate;
use crate::excerpt::Excerpt;
use crate::hex::hex;
use crate::metrics;
use crate::random::Random;
use crate::reason::Reason;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The largest head of a request. A token may be 32 KiB of it.
const MAX_HEAD_BYTES: usize = 48 << 10;
/// The longest request id that is taken over from a client.
const MAX_REQUEST_ID: usize = 128;
/// How much of a `User-Agent` is logged.
const MAX_USER_AGENT: usize = 200;
/// What browsers may ask for across origins; `Authorization` is not among it, so v1 is out of their reach.
const CORS_METHODS: &str = "GET, POST, HEAD";
const CORS_HEADERS: [&str; 3] = ["accept", "content-type", "x-requested-with"];

/// What the log line says of a certificate that was handed out. No identity: that stands in the certificate.
#[derive(Clone, Debug)]
pub(super) struct IssuedLine {
    issuer: std::sync::Arc<str>,
    serial: String,
    leaf_index: Option<u64>,
    api: &'static str,
}

impl IssuedLine {
    pub(super) fn new(issued: &IssuedCertificate, api: &'static str) -> Self {
        Self {
            issuer: std::sync::Arc::clone(&issued.identity.issuer_id),
            serial: hex(&issued.serial),
            leaf_index: issued.leaf_index,
            api,
        }
    }
}

/// The middleware around every route of the API's listener.
///
/// # Errors
/// Those of the routes; none of its own.
pub async fn observe<B: MessageBody + 'static>(
    mut request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B, BoxBody>>, Error> {
    let start = Instant::now();
    merge_leading_slashes(&mut request);
    let Some(api) = request.app_data::<web::Data<Api>>().cloned() else {
        return next
            .call(request)
            .await
            .map(ServiceResponse::map_into_left_body);
    };
    let given_id = request.headers().get(REQUEST_ID).map(HeaderValue::as_bytes);
    let request_id = request_id(api.random.as_ref(), given_id);
    let endpoint = Endpoint::of_path(request.path());
    let _in_flight = api.metrics.begin_http_request(endpoint.name);
    // A preflight says itself what it allows.
    let is_readable = request.headers().contains_key(header::ORIGIN) && !is_preflight(&request);

    let answered_here = if head_bytes(&request) > MAX_HEAD_BYTES {
        Some(Refusal::head_too_large(MAX_HEAD_BYTES).into_response(api.error_detail))
    } else {
        is_preflight(&request).then(|| preflight(request.headers()))
    };
    let mut response = match answered_here {
        Some(answer) => request.into_response(answer).map_into_right_body(),
        None => next.call(request).await?.map_into_left_body(),
    };

    let headers = response.headers_mut();
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    if is_readable {
        headers.insert(
            header::ACCESS_CONTROL_ALLOW_ORIGIN,
            HeaderValue::from_static("*"),
        );
    }
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        headers.insert(REQUEST_ID, value);
    }
    account(&api, &response, &request_id, start);
    Ok(response)
}

/// Clients that join a base URL ending in `/` with a path send `//api/…`.
fn merge_leading_slashes(request: &mut ServiceRequest) {
    let Some(path_and_query) = request.uri().path_and_query() else {
        return;
    };
    let trimmed = path_and_query.as_str().trim_start_matches('/');
    if path_and_query.as_str().len() - trimmed.len() < 2 {
        return;
    }
    let Ok(merged) = PathAndQuery::try_from(format!("/{trimmed}")) else {
        return;
    };
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = Some(merged);
    if let Ok(uri) = Uri::from_parts(parts) {
        request.match_info_mut().get_mut().update(&uri);
        request.head_mut().uri = uri;
    }
}

/// The id that a client gave its request, if it is one; else another.
pub(super) fn request_id(random: &dyn Random, given: Option<&[u8]>) -> String {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let given = given.filter(|given| {
        (1..=MAX_REQUEST_ID).contains(&given.len()) && given.iter().copied().all(is_allowed)
    });
    if let Some(Ok(given)) = given.map(std::str::from_utf8) {
        return given.to_owned();
    }
    let mut drawn = [0; 8];
    // Without randomness the id is all zeros: it identifies nothing then, and nothing depends on it.
    let _ = random.fill(&mut drawn);
    hex(&drawn)
}

/// What the request line and the header fields take, without the octets between them.
fn head_bytes(request: &ServiceRequest) -> usize {
    let fields = request
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    request.uri().path().len() + request.query_string().len() + fields.sum::<usize>()
}

fn is_preflight(request: &ServiceRequest) -> bool {
    request.method() == Method::OPTIONS
        && request.headers().contains_key(header::ORIGIN)
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// 204; the allow headers only when all that is asked for is allowed.
fn preflight(asked: &HeaderMap) -> HttpResponse {
    let method = asked
        .get(header::ACCESS_CONTROL_REQUEST_METHOD)
        .and_then(|value| value.to_str().ok());
    let headers = asked
        .get(header::ACCESS_CONTROL_REQUEST_HEADERS)
        .and_then(|value| value.to_str().ok());
    let method_fits =
        method.is_some_and(|method| CORS_METHODS.split(", ").any(|allowed| allowed == method));
    let headers_fit = headers
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .all(|name| {
            CORS_HEADERS
                .iter()
                .any(|allowed| allowed.eq_ignore_ascii_case(name))
        });
    let mut response = HttpResponse::NoContent();
    response.append_header((
        header::VARY,
        "Access-Control-Request-Method, Access-Control-Request-Headers",
    ));
    if method_fits && headers_fit {
        response.append_header((header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"));
        response.append_header((
            header::ACCESS_CONTROL_ALLOW_METHODS,
            method.unwrap_or_default().to_owned(),
        ));
        if let Some(headers) = headers {
            response.append_header((header::ACCESS_CONTROL_ALLOW_HEADERS, headers.to_owned()));
        }
    }
    response.finish()
}

/// What `Content-Length` says; 0 without it.
fn announced_length(headers: &HeaderMap) -> u64 {
    let value = headers.get(header::CONTENT_LENGTH);
    let length = value.and_then(|value| value.to_str().ok()?.parse().ok());
    length.unwrap_or(0)
}

/// Counts a request and writes its log line.
fn account<B: MessageBody>(
    api: &Api,
    response: &ServiceResponse<B>,
    request_id: &str,
    start: Instant,
) {
    let request = response.request();
    let endpoint = Endpoint::of_path(request.path());
    let refused = response.response().extensions().get::<Refused>().cloned();
    let observed = metrics::HttpRequest {
        endpoint: endpoint.name,
        method: method_label(request.method()),
        status: response.status().as_u16(),
        duration: start.elapsed(),
        request_bytes: announced_length(request.headers()),
        response_bytes: match response.response().body().size() {
            BodySize::Sized(octets) => octets,
            BodySize::None | BodySize::Stream => 0,
        },
        procedure: endpoint.procedure.map(|procedure| {
            let code = match &refused {
                Some(refused) => refused.grpc,
                None if response.status().is_success() => 0,
                // A route that refused without a word of ours: unknown.
                None => 2,
            };
            (procedure, code)
        }),
    };
    api.metrics.http_request(&observed);
    let user_agent = request.headers().get(header::USER_AGENT);
    let line = Line {
        request_id,
        endpoint: observed.endpoint,
        method: observed.method,
        status: Some(observed.status),
        grpc_code: None,
        duration: observed.duration,
        client: api.client_address(request),
        user_agent: user_agent.and_then(|value| value.to_str().ok()),
        issued: request.extensions().get::<IssuedLine>().cloned(),
        refused,
        is_quiet: endpoint.is_quiet && (observed.status < 400 || endpoint.is_probe()),
    };
    line.write(api);
}

/// The one log line of a request, which says no more of the client than where it is and what it is.
pub(super) struct Line<'a> {
    pub(super) request_id: &'a str,
    pub(super) endpoint: &'static str,
    /// That of HTTP/1.1, or `grpc`.
    pub(super) method: &'static str,
    /// The status of HTTP.
    pub(super) status: Option<u16>,
    /// The name of the status of gRPC.
    pub(super) grpc_code: Option<&'static str>,
    pub(super) duration: Duration,
    pub(super) client: Option<IpAddr>,
    pub(super) user_agent: Option<&'a str>,
    pub(super) issued: Option<IssuedLine>,
    pub(super) refused: Option<Refused>,
    /// Whether the line is only for debugging.
    pub(super) is_quiet: bool,
}

impl Line<'_> {
    pub(super) fn write(&self, api: &Api) {
        let Self {
            request_id,
            endpoint,
            method,
            status,
            grpc_code,
            client,
            user_agent,
            ..
        } = *self;
        let duration_ms = self.duration.as_secs_f64() * 1000.0;
        let client_ip = client.map(tracing::field::display);
        let user_agent = user_agent.map(|text| text.get(..MAX_USER_AGENT).unwrap_or(text));
        /// A line of the given level, with what every line has.
        macro_rules! line {
        ($level:ident, $event:literal, $message:literal $(, $($field:tt)+)?) => {
            tracing::$level!(
                event = $event, request_id, endpoint, method, status, grpc_code, duration_ms, client_ip, user_agent,
                $($($field)+,)? $message
            )
        };
    }
        match (&self.issued, &self.refused) {
            (
                Some(IssuedLine {
                    issuer,
                    serial,
                    leaf_index,
                    api,
                }),
                _,
            ) => {
                let (issuer, serial) = (&**issuer, serial.as_str());
                line!(
                    info,
                    "certificate_issued",
                    "certificate issued",
                    api,
                    issuer,
                    serial,
                    leaf_index
                );
            }
            (
                None,
                Some(Refused {
                    reason: Some(reason),
                    detail,
                    is_our_fault,
                    for_log,
                    ..
                }),
            ) => {
                let detail = loggable(*reason, detail.as_deref());
                let issuer = for_log.issuer.as_deref();
                let iss_claim = for_log.iss_claim.as_ref().map(Excerpt::unquoted);
                if *is_our_fault {
                    let Some(suppressed) = api.repeats.admit(*reason, Instant::now()) else {
                        return;
                    };
                    let (reason, error) = (reason.as_str(), for_log.error.as_deref());
                    let suppressed = (suppressed > 0).then_some(suppressed);
                    line!(
                        error,
                        "request_failed",
                        "the request could not be served",
                        reason,
                        detail,
                        issuer,
                        iss_claim,
                        error,
                        suppressed
                    );
                } else {
                    let reason = reason.as_str();
                    line!(
                        warn,
                        "request_refused",
                        "request refused",
                        reason,
                        detail,
                        issuer,
                        iss_claim
                    );
                }
            }
            (None, _) if self.is_quiet => line!(debug, "http_request", "request answered"),
            (None, _) => line!(info, "http_request", "request answered"),
        }
    }
}

/// The detail, unless it repeats whose token it is: that belongs into certificates, and not into log lines.
fn loggable(reason: Reason, detail: Option<&str>) -> Option<&str> {
    let names_somebody = reason == Reason::BadProof || reason == Reason::SubjectDomainMismatch;
    detail.filter(|_| !names_somebody)
}
