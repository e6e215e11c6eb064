//! `mayfly serve`: runs an instance.

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::config::{ConfigError, ServerConfig, Settings};
use crate::logging;
use crate::server::{Environment, Server, Sockets};

/// The arguments of `mayfly serve`.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The server's configuration [default: /etc/mayfly/mayfly.yaml, else mayfly.yaml in the data folder]
    #[arg(short, long, env = "MAYFLY_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

pub(super) fn run(arguments: Arguments, environment: &Environment) -> Result<(), Failure> {
    let settings = arguments.settings.with_file(arguments.config.as_deref())?;
    let level = settings.log_level.as_deref().unwrap_or("info");
    let format = settings.log_format.map(|name| name.0).unwrap_or_default();
    logging::start(level, format).map_err(ConfigError::one)?;
    let config = ServerConfig::new(settings)?;
    if rustix::process::geteuid().is_root() {
        tracing::warn!(
            event = "running_as_root",
            "running as root, which nothing here needs; use a user of its own"
        );
    }
    let sockets = Sockets::bind(config.listen, config.metrics_listen)?;
    let server = Server::new(&config, sockets, environment, false)?;
    server.run(None, stop_signal())?;
    Ok(())
}

/// Ready at the first SIGTERM or SIGINT. A second one ends the process at once, with exit code 1.
pub(super) async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    ) else {
        tracing::error!(
            event = "no_signals",
            "cannot listen for signals; only SIGKILL stops this process"
        );
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(1);
    });
}
