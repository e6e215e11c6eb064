//! The administration of a running server: HTTP over a unix socket, which only its own user and root can open, and over TLS
//! for those who show a certificate of a CA that is named for it.
//!
//! It tells how the server is and what it would make of a token, reloads the identity configuration, and changes which log
//! lines are written.

use std::any::Any;
use std::fmt;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::body::MessageBody;
use actix_web::dev::{Extensions, Server, ServerHandle, ServiceRequest, ServiceResponse};
use actix_web::http::header::{ACCEPT, ContentType, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, Method, StatusCode};
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, Error, HttpRequest, HttpResponse, HttpServer, web};
use rustls::ServerConfig;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::serde::rfc3339;
use tokio::net::UnixStream;

use crate::api::{Api, outcome};
use crate::identity::json::parse_object;
use crate::identity::jws::MAX_DEPTH;
use crate::identity::trace::{Keys, Presented};
use crate::listener::{self, ClientCertificate, Listener, ListenerConfig};
use crate::logging;
use crate::policy::explain::{self, Explanation, Question};
use crate::reload::{PolicyError, PolicyFiles, ReloadHandle};

pub mod report;
pub mod socket;

use report::{
    CaCertificate, Entry, LogFilter, LogStatus, PolicyReport, PolicySummary, Readiness, Refused,
    ServerStatus,
};
use socket::{AdminSocket, SocketFile};

/// `GET`: how the server is.
pub const STATUS: &str = "/admin/v1/status";
/// `GET`: who may have a certificate.
pub const CONFIG: &str = "/admin/v1/config";
/// `POST`: reads the identity configuration again.
pub const RELOAD: &str = "/admin/v1/reload";
/// `POST`: what a token would get, and why.
pub const EXPLAIN: &str = "/admin/v1/explain";
/// `GET`, `PUT`: which log lines are written.
pub const LOG_FILTER: &str = "/admin/v1/log-filter";

/// What `Accept` says who wants text for people and not JSON.
pub const TEXT: &str = "text/plain";
/// The header with the code of a refusal that was explained, as those have that are no explanation.
pub const REASON: HeaderName = outcome::REASON_HEADER;

/// Connections at the same time: a few people, and a tool that asks again and again.
const MAX_CONNECTIONS: usize = 32;
/// The largest body of a request, in octets.
const MAX_BODY_BYTES: usize = 64 << 10;

/// What is administered.
#[derive(Debug)]
pub struct Administered {
    /// The server.
    pub api: Arc<Api>,
    /// Puts another identity configuration in force.
    pub reload: ReloadHandle,
    /// Where that is.
    pub files: PolicyFiles,
    /// When the server started, on two clocks.
    started: (OffsetDateTime, Instant),
}

impl Administered {
    /// A server that starts now.
    #[must_use]
    pub fn new(api: Arc<Api>, reload: ReloadHandle, files: PolicyFiles) -> Self {
        Self {
            started: (api.ca.clock.now().truncate_to_second(), Instant::now()),
            api,
            reload,
            files,
        }
    }

    fn status(&self) -> ServerStatus {
        let Api { ca, log, .. } = &*self.api;
        let log = log.as_ref().map(|site| LogStatus::of(site.log()));
        let (started, since) = self.started;
        let now = ca.clock.now();
        let certificates = ca.authority.chain().certificates();
        let roles = ["ca"].into_iter().chain(log.is_some().then_some("ct"));
        ServerStatus {
            version: crate::VERSION.to_owned(),
            revision: crate::REVISION.to_owned(),
            started,
            uptime_seconds: since.elapsed().as_secs(),
            roles: roles.map(str::to_owned).collect(),
            readiness: Readiness::of(&self.api),
            config: self.policy_summary(),
            ca: certificates
                .iter()
                .map(|certificate| CaCertificate::of(certificate, now))
                .collect(),
            log,
            log_filter: LogFilter::current().filter,
        }
    }

    fn policy(&self) -> PolicyReport {
        let ca = &self.api.ca;
        let now = ca.clock.now();
        let policy = self.api.readiness.policy();
        let entries = policy.issuers.iter();
        PolicyReport {
            summary: self.policy_summary(),
            entries: entries
                .map(|issuer| Entry::of(issuer, ca.tokens.key_status_of(issuer), now))
                .collect(),
        }
    }

    /// Explains what the configuration in force makes of a token, with the keys that the server has or fetches.
    async fn explain(&self, body: &[u8]) -> Result<Explanation, Refused> {
        let asked: ExplainRequest = parse(body)?;
        let claims;
        let presented = match (&asked.token, &asked.claims) {
            (Some(token), None) => Presented::Token(token),
            (None, Some(raw)) => {
                claims = parse_object(raw.get().as_bytes(), MAX_DEPTH)
                    .map_err(|error| Refused::new(format!("the claims: {error}")))?;
                Presented::Claims(&claims)
            }
            (Some(_), Some(_)) | (None, None) => {
                return Err(Refused::new("give either token or claims"));
            }
        };
        let ca = &self.api.ca;
        let question = Question {
            presented,
            keys: Keys::Issuer(ca.tokens.keys()),
            at: asked.at,
            public_key: asked.public_key.as_deref().map(str::as_bytes),
            permitted: &ca.permitted,
        };
        let issuers = ca.tokens.issuers();
        Ok(explain::explain(&issuers, question, ca.clock.now()).await)
    }

    fn policy_summary(&self) -> PolicySummary {
        PolicySummary::of(&self.api, self.files.path.display().to_string())
    }
}

/// An administration that is ready to run.
pub(crate) struct Administration {
    server: Server,
    file: SocketFile,
}

impl Administration {
    /// To stop it.
    pub(crate) fn handle(&self) -> ServerHandle {
        self.server.handle()
    }

    /// Runs until it is stopped; then the socket's file goes.
    pub(crate) async fn run(self) -> io::Result<()> {
        let Self { server, file } = self;
        let served = server.await;
        drop(file);
        served
    }
}

/// Serves the administration at a socket. Must be called inside an actix system.
///
/// # Errors
/// When the socket cannot be handed to its thread.
pub(crate) fn serve(
    socket: AdminSocket,
    administered: web::Data<Administered>,
    shutdown_grace: Duration,
) -> io::Result<Administration> {
    let AdminSocket { listener, file } = socket;
    let application = move || {
        let administered = administered.clone();
        App::new()
            .wrap(from_fn(record))
            .configure(move |routes| configure(administered, routes))
    };
    let server = HttpServer::new(application)
        .workers(1)
        .max_connections(MAX_CONNECTIONS)
        .disable_signals()
        .shutdown_timeout(shutdown_grace.as_secs())
        .on_connect(remember_peer)
        .listen_uds(listener)?
        .run();
    Ok(Administration { server, file })
}

/// Serves the administration to clients that have shown a certificate. Must be called inside an actix system.
///
/// # Errors
/// When the socket cannot be handed to its thread.
pub(crate) fn serve_over_tls(
    socket: TcpListener,
    tls: Arc<ServerConfig>,
    administered: web::Data<Administered>,
    private: &ListenerConfig,
) -> io::Result<Listener> {
    let config = ListenerConfig {
        tls: Some(tls),
        max_connections: MAX_CONNECTIONS,
        ..private.clone()
    };
    listener::serve("admin", socket, &config, move || {
        let administered = administered.clone();
        App::new()
            .wrap(from_fn(record))
            .wrap(from_fn(close))
            .configure(move |routes| configure(administered, routes))
    })
}

/// The middleware of connections whose client was verified when they were opened: each is for one request, so that nobody
/// outlives the end of a certificate, or of the trust in its CA.
async fn close(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let mut response = next.call(request).await?;
    let head = response.response_mut().head_mut();
    head.set_connection_type(ConnectionType::Close);
    Ok(response)
}

fn configure(administered: web::Data<Administered>, routes: &mut web::ServiceConfig) {
    let resource = |path| web::resource(path).default_service(web::to(not_allowed));
    routes
        .app_data(administered)
        .app_data(web::PayloadConfig::new(MAX_BODY_BYTES))
        .service(resource(STATUS).get(status))
        .service(resource(CONFIG).get(config))
        .service(resource(RELOAD).post(reload))
        .service(resource(EXPLAIN).post(explain))
        .service(resource(LOG_FILTER).get(log_filter).put(set_log_filter))
        .default_service(web::to(not_found));
}

/// The process at the other end of a connection.
#[derive(Clone, Copy, Debug)]
struct Peer {
    user: u32,
    process: Option<i32>,
}

fn remember_peer(connection: &dyn Any, extensions: &mut Extensions) {
    let stream = connection.downcast_ref::<UnixStream>();
    if let Some(peer) = stream.and_then(|stream| stream.peer_cred().ok()) {
        extensions.insert(Peer {
            user: peer.uid(),
            process: peer.pid(),
        });
    }
}

/// The middleware around every route: what is asked to change anything is logged, with who asks, before it is done, so that
/// nobody can silence the log unnoticed.
async fn record(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    if request.method() != Method::GET {
        let peer = request.conn_data::<Peer>();
        let client = request.conn_data::<ClientCertificate>();
        tracing::info!(
            event = "admin.call",
            method = request.method().as_str(),
            path = request.match_pattern().as_deref().unwrap_or("other"),
            user = peer.map(|peer| peer.user),
            process = peer.and_then(|peer| peer.process),
            certificate = client.map(|client| client.subject.as_str()),
            "asked by the administration"
        );
    }
    next.call(request).await
}

async fn status(administered: web::Data<Administered>, request: HttpRequest) -> HttpResponse {
    answer(&request, StatusCode::OK, &administered.status())
}

async fn config(administered: web::Data<Administered>, request: HttpRequest) -> HttpResponse {
    answer(&request, StatusCode::OK, &administered.policy())
}

/// How a reload is meant.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReloadRequest {
    /// Also when most entries are gone.
    pub force: bool,
}

async fn reload(
    administered: web::Data<Administered>,
    request: HttpRequest,
    body: web::Bytes,
) -> HttpResponse {
    let ReloadRequest { force } = match parse(&body) {
        Ok(wanted) => wanted,
        Err(refused) => return answer(&request, StatusCode::BAD_REQUEST, &refused),
    };
    match administered.reload.reload(force).await {
        Ok(reloaded) => answer(&request, StatusCode::OK, &reloaded),
        Err(error) => {
            let status = match &error {
                PolicyError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
                PolicyError::Unreadable(_)
                | PolicyError::Refused { .. }
                | PolicyError::Shrinks { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            };
            answer(&request, status, &Refused::from(&error))
        }
    }
}

/// What is asked about a token: itself or its claims, one of the two.
#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExplainRequest {
    /// The token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The claims of one, an object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub claims: Option<Box<RawValue>>,
    /// The moment that is asked about. Without it, now; for claims, when they are valid.
    #[serde(with = "rfc3339::option", skip_serializing_if = "Option::is_none")]
    pub at: Option<OffsetDateTime>,
    /// The key that a certificate is wanted for, PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub public_key: Option<String>,
}

// Not derived: a token is for nobody's eyes.
impl fmt::Debug for ExplainRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExplainRequest").finish_non_exhaustive()
    }
}

async fn explain(
    administered: web::Data<Administered>,
    request: HttpRequest,
    body: web::Bytes,
) -> HttpResponse {
    match administered.explain(&body).await {
        Ok(explanation) => {
            let mut response = answer(&request, StatusCode::OK, &explanation);
            if let Some(reason) = explanation.reason {
                let reason = HeaderValue::from_static(reason);
                response.headers_mut().insert(REASON, reason);
            }
            response
        }
        Err(refused) => answer(&request, StatusCode::BAD_REQUEST, &refused),
    }
}

async fn log_filter(request: HttpRequest) -> HttpResponse {
    answer(&request, StatusCode::OK, &LogFilter::current())
}

async fn set_log_filter(request: HttpRequest, body: web::Bytes) -> HttpResponse {
    let changed = parse(&body).and_then(|LogFilter { filter }| {
        logging::set_filter(&filter)
            .map(|()| LogFilter::current())
            .map_err(Refused::new)
    });
    match changed {
        Ok(filter) => answer(&request, StatusCode::OK, &filter),
        Err(refused) => answer(&request, StatusCode::BAD_REQUEST, &refused),
    }
}

/// Parses a body; an empty one has no members.
fn parse<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, Refused> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| Refused::new(format!("the body: {error}")))
}

/// Answers in JSON, or with text for people if that is what is accepted.
fn answer(
    request: &HttpRequest,
    status: StatusCode,
    document: &(impl Serialize + fmt::Display),
) -> HttpResponse {
    let mut response = HttpResponse::build(status);
    let accepted = request.headers().get(ACCEPT);
    if accepted.is_some_and(|accepted| accepted == TEXT) {
        response
            .content_type(ContentType::plaintext())
            .body(document.to_string())
    } else {
        response.json(document)
    }
}

async fn not_allowed(request: HttpRequest) -> HttpResponse {
    let refused = Refused::new("this path has no such method");
    answer(&request, StatusCode::METHOD_NOT_ALLOWED, &refused)
}

async fn not_found(request: HttpRequest) -> HttpResponse {
    let refused = Refused::new("there is no such path");
    answer(&request, StatusCode::NOT_FOUND, &refused)
}
