//! `mayfly admin`: asks a running server, at its socket or over TLS.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use reqwest::header::ACCEPT;
use reqwest::redirect::Policy;
use reqwest::{Client, Identity, Method, StatusCode};
use serde::Serialize;
use url::Url;

use super::{Failure, innermost, read, tls_roots};
use crate::admin::report::LogFilter;
use crate::admin::{self, ReloadRequest};
use crate::fetch::TlsRoots;

/// Longer than anything takes that is asked for here.
const PATIENCE: Duration = Duration::from_secs(30);

/// The arguments of `mayfly admin`.
#[derive(Args, Debug)]
#[command(after_help = "\
Only the server's own user and root can open its socket. A server with an --admin-listen is asked
from elsewhere at its --admin-url, by whoever has a certificate of its --admin-client-ca.
`mayfly explain` asks at both too.

Exit code: 0, 1 if the server refuses, 3 if its identity configuration is wrong, 4 if it cannot be reached.")]
pub(super) struct Arguments {
    /// The server's --admin-socket
    #[arg(
        long,
        env = "MAYFLY_ADMIN_SOCKET",
        hide_env_values = true,
        value_name = "PATH",
        default_value = "/run/mayfly/admin.sock",
        global = true
    )]
    admin_socket: PathBuf,
    #[command(flatten)]
    remote: RemoteServer,
    /// How the answer is printed
    #[arg(long, value_enum, default_value = "text", global = true)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

/// A server that is asked over TLS.
#[derive(Args, Clone, Debug)]
pub(super) struct RemoteServer {
    /// Ask over TLS in place of the socket: https://, and host and port of the server's --admin-listen
    #[arg(long, value_name = "URL", requires_all = ["admin_cert", "admin_key"], global = true)]
    admin_url: Option<Url>,
    /// The certificate to show at --admin-url, a PEM file: one of the server's --admin-client-ca
    #[arg(long, value_name = "FILE", requires = "admin_url", global = true)]
    admin_cert: Option<PathBuf>,
    /// The key of --admin-cert, a PEM file
    #[arg(long, value_name = "FILE", requires = "admin_url", global = true)]
    admin_key: Option<PathBuf>,
    /// The root of the server's certificate at --admin-url, a PEM file [default: those of the system]
    #[arg(long, value_name = "FILE", requires = "admin_url", global = true)]
    admin_ca: Option<PathBuf>,
}

impl RemoteServer {
    /// Where and how the server is asked, if over TLS.
    ///
    /// # Errors
    /// When the URL is no such URL, or a file cannot be used.
    pub(super) fn place(&self) -> Result<Option<Place>, Failure> {
        let Self {
            admin_url: Some(url),
            admin_cert: Some(certificate),
            admin_key: Some(key),
            admin_ca,
        } = self
        else {
            return Ok(None);
        };
        if url.scheme() != "https" || !matches!(url.path(), "/" | "") {
            let wanted = "give https://HOST:PORT and nothing behind it";
            return Err(Failure::configuration(format!("{url}: {wanted}")));
        }
        let mut pem = read(key)?;
        pem.extend_from_slice(b"\n");
        pem.extend_from_slice(&read(certificate)?);
        let identity = Identity::from_pem(&pem);
        let identity = identity.map_err(|error| {
            let why = innermost(&error);
            Failure::configuration(format!("{}: {why}", certificate.display()))
        })?;
        let roots = admin_ca.as_deref().map(tls_roots).transpose()?;
        Ok(Some(Place::Url {
            url: url.clone(),
            identity,
            roots,
        }))
    }
}

/// Where a server is asked.
#[derive(Debug)]
pub(super) enum Place {
    /// At its socket.
    Socket(PathBuf),
    /// At its address, over TLS.
    Url {
        /// Its scheme, host and port.
        url: Url,
        /// What we show.
        identity: Identity,
        /// Whom the server's certificate must be of, if not of the system's roots.
        roots: Option<TlsRoots>,
    },
}

impl Place {
    /// What asks there, and the URL of a path.
    fn client(self, path: &str) -> reqwest::Result<(Client, String)> {
        let builder = Client::builder().no_proxy().timeout(PATIENCE);
        match self {
            Self::Socket(socket) => {
                let client = builder.unix_socket(socket).build()?;
                Ok((client, format!("http://mayfly{path}")))
            }
            Self::Url {
                url,
                identity,
                roots,
            } => {
                let builder = builder.identity(identity).redirect(Policy::none());
                let builder = match roots {
                    Some(roots) => builder.tls_certs_only(roots.certificates()?),
                    None => builder,
                };
                let url = format!("{}{path}", url.as_str().trim_end_matches('/'));
                Ok((builder.build()?, url))
            }
        }
    }

    /// What to say when nobody answers there.
    fn unreachable(&self) -> (String, &'static str) {
        match self {
            Self::Socket(socket) => (
                socket.display().to_string(),
                "is the server running, and with this --admin-socket?",
            ),
            Self::Url { url, .. } => (
                url.to_string(),
                "is the server running with this --admin-listen, its certificate one of --admin-ca, and ours one of its \
                 --admin-client-ca?",
            ),
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Version, readiness, configuration, CA and log of the server
    Status,
    /// Who may have a certificate: every entry of the identity configuration in force, and how its keys stand
    Config,
    /// Read the identity configuration again, and say what comes of it
    Reload {
        /// Also when most entries are gone
        #[arg(long)]
        force: bool,
    },
    /// Which log lines are written; until the server's end, others
    LogFilter {
        /// A level, or a list of target=level, such as info,mayfly::identity=debug
        filter: Option<String>,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// One JSON document.
    Json,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments {
        admin_socket,
        remote,
        output,
        command,
    } = arguments;
    let place = remote.place()?;
    let server = RunningServer {
        place: place.unwrap_or(Place::Socket(admin_socket)),
        is_text: matches!(output, Output::Text),
    };
    match command {
        Command::Status => server.get(admin::STATUS),
        Command::Config => server.get(admin::CONFIG),
        Command::Reload { force } => {
            server.ask(Method::POST, admin::RELOAD, &ReloadRequest { force })
        }
        Command::LogFilter { filter: None } => server.get(admin::LOG_FILTER),
        Command::LogFilter {
            filter: Some(filter),
        } => server.ask(Method::PUT, admin::LOG_FILTER, &LogFilter { filter }),
    }
}

/// A server that runs, and how its answers are printed.
#[derive(Debug)]
pub(super) struct RunningServer {
    /// Where it is asked.
    pub(super) place: Place,
    /// As text; else as JSON.
    pub(super) is_text: bool,
}

struct Answer {
    status: StatusCode,
    /// What it explains a refusal with.
    reason: Option<String>,
    body: String,
}

impl RunningServer {
    fn get(self, path: &str) -> Result<(), Failure> {
        self.request(Method::GET, path, None)
    }

    /// Sends a request and prints its answer.
    ///
    /// # Errors
    /// When the server is not there, or refuses, or what it explains is a refusal.
    pub(super) fn ask(
        self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<(), Failure> {
        let body = serde_json::to_vec(body).map_err(Failure::defect)?;
        self.request(method, path, Some(body))
    }

    fn request(self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Failure::defect)?;
        let is_text = self.is_text;
        let Answer {
            status,
            reason,
            body,
        } = runtime.block_on(self.send(method, path, body))?;
        if status.is_success() || !is_text {
            println!("{}", body.trim_end());
        }
        let refused = if is_text { body } else { "refused".to_owned() };
        match (status, reason) {
            (StatusCode::UNPROCESSABLE_ENTITY, _) => Err(Failure::configuration(refused)),
            (status, _) if !status.is_success() => Err(Failure::operation(refused)),
            (_, Some(reason)) => Err(Failure::operation(format!("refused: {reason}"))),
            (_, None) => Ok(()),
        }
    }

    async fn send(
        self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Answer, Failure> {
        let (place, advice) = self.place.unreachable();
        let (client, url) = self.place.client(path).map_err(Failure::defect)?;
        let mut request = client.request(method, url);
        if self.is_text {
            request = request.header(ACCEPT, admin::TEXT);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let unreachable = |error: reqwest::Error| {
            let why = innermost(&error);
            Failure::dependency(format!("{place}: {why}; {advice}"))
        };
        let response = request.send().await.map_err(unreachable)?;
        let reason = response.headers().get(admin::REASON.as_str());
        let reason = reason.and_then(|reason| reason.to_str().ok().map(str::to_owned));
        Ok(Answer {
            status: response.status(),
            reason,
            body: response.text().await.map_err(unreachable)?,
        })
    }
}
