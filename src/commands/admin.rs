//! `mayfly admin`: asks a running server at its socket.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use reqwest::{Method, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Failure, innermost};
use crate::admin::report::{LogFilter, PolicyReport, Refused, ServerStatus};
use crate::admin::{self, ReloadRequest};
use crate::reload::Reloaded;

/// Longer than anything takes that is asked for here.
const PATIENCE: Duration = Duration::from_secs(30);

/// The arguments of `mayfly admin`.
#[derive(Args, Debug)]
#[command(after_help = "\
Only the server's own user and root can open its socket.
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
    /// One JSON document, as the server sent it.
    Json,
}

pub(super) fn run(arguments: Arguments) -> Result<(), Failure> {
    let Arguments {
        admin_socket,
        output,
        command,
    } = arguments;
    let server = Server {
        socket: admin_socket,
        output,
    };
    match command {
        Command::Status => server.get(admin::STATUS, ServerStatus::to_string),
        Command::Config => server.get(admin::CONFIG, PolicyReport::to_string),
        Command::Reload { force } => {
            server.ask(Method::POST, admin::RELOAD, &ReloadRequest { force }, text)
        }
        Command::LogFilter { filter: None } => server.get(admin::LOG_FILTER, filter_line),
        Command::LogFilter {
            filter: Some(filter),
        } => server.ask(
            Method::PUT,
            admin::LOG_FILTER,
            &LogFilter { filter },
            filter_line,
        ),
    }
}

fn filter_line(answer: &LogFilter) -> String {
    format!("{}\n", answer.filter)
}

/// What a reload came to.
fn text(reloaded: &Reloaded) -> String {
    let Reloaded {
        digest,
        is_changed,
        issuers,
        warnings,
    } = reloaded;
    let warnings = warnings
        .iter()
        .map(|finding| format!("warning: {finding}\n"));
    let warnings: String = warnings.collect();
    let news = if *is_changed {
        "in force"
    } else {
        "in force as before"
    };
    format!("{warnings}{digest} is {news}: {issuers} entries\n")
}

/// A running server, and how its answers are printed.
struct Server {
    socket: PathBuf,
    output: Output,
}

impl Server {
    fn get<A: DeserializeOwned>(
        &self,
        path: &str,
        text: impl FnOnce(&A) -> String,
    ) -> Result<(), Failure> {
        self.ask(Method::GET, path, &(), text)
    }

    /// Sends a request and prints its answer. Of a request without a body, `body` is `()`.
    fn ask<A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        text: impl FnOnce(&A) -> String,
    ) -> Result<(), Failure> {
        let body = serde_json::to_vec(body).map_err(Failure::defect)?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Failure::defect)?;
        let (status, answer) = runtime.block_on(self.send(method, path, body))?;
        let malformed =
            |error: serde_json::Error| self.unreachable(&format!("unknown answer: {error}"));
        if !status.is_success() {
            let refused: Refused = serde_json::from_slice(&answer).map_err(malformed)?;
            if matches!(self.output, Output::Json) {
                println!("{}", String::from_utf8_lossy(&answer));
            }
            return Err(failure(status, refused));
        }
        match self.output {
            Output::Text => {
                let answer = serde_json::from_slice(&answer).map_err(malformed)?;
                print!("{}", text(&answer));
            }
            Output::Json => println!("{}", String::from_utf8_lossy(&answer)),
        }
        Ok(())
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Vec<u8>), Failure> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .unix_socket(self.socket.as_path())
            .timeout(PATIENCE)
            .build()
            .map_err(Failure::defect)?;
        let request = client.request(method.clone(), format!("http://mayfly{path}"));
        let request = if method == Method::GET {
            request
        } else {
            request.body(body)
        };
        let unreachable = |error: reqwest::Error| self.unreachable(innermost(&error));
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let body = response.bytes().await.map_err(unreachable)?;
        Ok((status, body.to_vec()))
    }

    fn unreachable(&self, what: &(impl Display + ?Sized)) -> Failure {
        let socket = self.socket.display();
        Failure::dependency(format!(
            "{socket}: {what}; is the server running, and with this --admin-socket?"
        ))
    }
}

fn failure(status: StatusCode, refused: Refused) -> Failure {
    let Refused { error, findings } = refused;
    if status != StatusCode::UNPROCESSABLE_ENTITY {
        return Failure::operation(error);
    }
    let mut lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    if lines.is_empty() {
        lines.push(error);
    }
    lines.push("the configuration is not used; what was in force stays".to_owned());
    Failure::configuration(lines.join("\n"))
}
