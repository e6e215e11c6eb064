//! `mayfly admin`: asks a running server at its socket.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use reqwest::header::ACCEPT;
use reqwest::{Method, StatusCode};
use serde::Serialize;

use super::{Failure, innermost};
use crate::admin::report::LogFilter;
use crate::admin::{self, ReloadRequest};

/// Longer than anything takes that is asked for here.
const PATIENCE: Duration = Duration::from_secs(30);

/// The arguments of `mayfly admin`.
#[derive(Args, Debug)]
#[command(after_help = "\
Only the server's own user and root can open its socket. `mayfly explain --admin-socket` asks there too.
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
    /// How the answer is printed
    #[arg(long, value_enum, default_value = "text", global = true)]
    output: Output,
    #[command(subcommand)]
    command: Command,
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
        output,
        command,
    } = arguments;
    let server = RunningServer {
        socket: admin_socket,
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

/// A server at its socket, and how its answers are printed.
#[derive(Debug)]
pub(super) struct RunningServer {
    /// Where.
    pub(super) socket: PathBuf,
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
    fn get(&self, path: &str) -> Result<(), Failure> {
        self.request(Method::GET, path, None)
    }

    /// Sends a request and prints its answer.
    ///
    /// # Errors
    /// When the server is not there, or refuses, or what it explains is a refusal.
    pub(super) fn ask(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<(), Failure> {
        let body = serde_json::to_vec(body).map_err(Failure::defect)?;
        self.request(method, path, Some(body))
    }

    fn request(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Failure::defect)?;
        let Answer {
            status,
            reason,
            body,
        } = runtime.block_on(self.send(method, path, body))?;
        if status.is_success() || !self.is_text {
            println!("{}", body.trim_end());
        }
        let refused = if self.is_text {
            body
        } else {
            "refused".to_owned()
        };
        match (status, reason) {
            (StatusCode::UNPROCESSABLE_ENTITY, _) => Err(Failure::configuration(refused)),
            (status, _) if !status.is_success() => Err(Failure::operation(refused)),
            (_, Some(reason)) => Err(Failure::operation(format!("refused: {reason}"))),
            (_, None) => Ok(()),
        }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Answer, Failure> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .unix_socket(self.socket.as_path())
            .timeout(PATIENCE)
            .build()
            .map_err(Failure::defect)?;
        let mut request = client.request(method, format!("http://mayfly{path}"));
        if self.is_text {
            request = request.header(ACCEPT, admin::TEXT);
        }
        if let Some(body) = body {
            request = request.body(body);
        }
        let unreachable = |error: reqwest::Error| {
            let (socket, why) = (self.socket.display(), innermost(&error));
            Failure::dependency(format!(
                "{socket}: {why}; is the server running, and with this --admin-socket?"
            ))
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
