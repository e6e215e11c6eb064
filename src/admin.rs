//! The administration of a running server: HTTP over a unix socket, which only its own user and root can open.
//!
//! It tells how the server is, reloads the identity configuration, and changes which log lines are written. It has no other
//! way in, and nothing in it is reachable from the API's port.

use std::any::Any;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::body::MessageBody;
use actix_web::dev::{Extensions, Server, ServerHandle, ServiceRequest, ServiceResponse};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, Error, HttpResponse, HttpServer, web};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::net::UnixStream;

use crate::api::Api;
use crate::logging;
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
/// `GET`, `PUT`: which log lines are written.
pub const LOG_FILTER: &str = "/admin/v1/log-filter";

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

/// Serves the administration. Must be called inside an actix system.
///
/// # Errors
/// When the socket cannot be handed to its thread.
pub(crate) fn serve(
    socket: AdminSocket,
    administered: Administered,
    shutdown_grace: Duration,
) -> io::Result<Administration> {
    let AdminSocket { listener, file } = socket;
    let administered = web::Data::new(administered);
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

fn configure(administered: web::Data<Administered>, routes: &mut web::ServiceConfig) {
    let not_allowed = || async { refusal(StatusCode::METHOD_NOT_ALLOWED, "no such method here") };
    let resource = |path| web::resource(path).default_service(web::to(not_allowed));
    routes
        .app_data(administered)
        .app_data(web::PayloadConfig::new(MAX_BODY_BYTES))
        .service(resource(STATUS).get(status))
        .service(resource(CONFIG).get(config))
        .service(resource(RELOAD).post(reload))
        .service(resource(LOG_FILTER).get(log_filter).put(set_log_filter))
        .default_service(web::to(|| async {
            refusal(StatusCode::NOT_FOUND, "no such path")
        }));
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
        tracing::info!(
            event = "admin.call",
            method = request.method().as_str(),
            path = request.match_pattern().as_deref().unwrap_or("other"),
            user = peer.map(|peer| peer.user),
            process = peer.and_then(|peer| peer.process),
            "asked by the administration"
        );
    }
    next.call(request).await
}

async fn status(administered: web::Data<Administered>) -> HttpResponse {
    HttpResponse::Ok().json(administered.status())
}

async fn config(administered: web::Data<Administered>) -> HttpResponse {
    HttpResponse::Ok().json(administered.policy())
}

/// How a reload is meant.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReloadRequest {
    /// Also when most entries are gone.
    pub force: bool,
}

async fn reload(administered: web::Data<Administered>, body: web::Bytes) -> HttpResponse {
    let request = match parse(&body) {
        Ok(request) => request,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, error),
    };
    let ReloadRequest { force } = request;
    match administered.reload.reload(force).await {
        Ok(reloaded) => HttpResponse::Ok().json(reloaded),
        Err(error) => {
            let status = match &error {
                PolicyError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
                PolicyError::Unreadable(_)
                | PolicyError::Refused { .. }
                | PolicyError::Shrinks { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            };
            HttpResponse::build(status).json(Refused::from(&error))
        }
    }
}

async fn log_filter() -> HttpResponse {
    HttpResponse::Ok().json(LogFilter::current())
}

async fn set_log_filter(body: web::Bytes) -> HttpResponse {
    let LogFilter { filter } = match parse(&body) {
        Ok(wanted) => wanted,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, error),
    };
    match logging::set_filter(&filter) {
        Ok(()) => HttpResponse::Ok().json(LogFilter::current()),
        Err(error) => refusal(StatusCode::BAD_REQUEST, error),
    }
}

/// Parses a body; an empty one has no members.
fn parse<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Result<T, String> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| format!("the body: {error}"))
}

fn refusal(status: StatusCode, error: impl Into<String>) -> HttpResponse {
    HttpResponse::build(status).json(Refused::new(error))
}
