//! `mayfly serve`: runs an instance.

use std::future::Future;
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::FutureExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use super::{ConfigFile, Failure, print};
use crate::admin::socket::AdminSocket;
use crate::config::fulcio::{FulcioFlags, Given, Translation};
use crate::config::{ConfigError, ServerConfig, Settings};
use crate::logging;
use crate::reload::{self, ReloadHandle};
use crate::server::{Environment, Server, Sockets, StartError};
use crate::systemd::Supervisor;

/// The arguments of `mayfly serve`.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(flatten)]
    file: ConfigFile,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    fulcio: FulcioFlags,
    /// Show the flags of Fulcio's that are taken too, and what they are here
    #[arg(long)]
    help_compat: bool,
}

impl Arguments {
    /// What was given, in our words or in Fulcio's.
    fn read(self) -> Result<Given, ConfigError> {
        let program = std::env::args_os().next();
        let (file, program) = (self.file.config.as_deref(), program.as_deref());
        Given::read(self.settings, self.fulcio, file, program)
    }
}

pub(super) fn run(arguments: Arguments, environment: &Environment) -> Result<(), Failure> {
    if arguments.help_compat {
        return print(&FulcioFlags::help());
    }
    let given = arguments.read()?;
    let settings = &given.settings;
    logging::start(settings.log_level(), settings.log_format()).map_err(ConfigError::one)?;
    tell_of_fulcio(&given);
    let config = ServerConfig::new(given.settings)?;
    if rustix::process::geteuid().is_root() {
        tracing::warn!(
            event = "running_as_root",
            "running as root, which nothing here needs; use a user of its own"
        );
    }
    raise_descriptor_limit();
    let (reload, reloads) = reload::channel();
    let stop = stop_signal(&[SignalKind::user_defined1()], Some(reload.clone()))?;
    let mut sockets = Sockets::bind(config.listen, config.metrics_listen)?;
    if let Some(address) = config.grpc_listen {
        sockets = sockets.with_grpc(address)?;
    }
    if let Some((address, _)) = &config.admin_listen {
        sockets = sockets.with_admin(*address)?;
    }
    let admin = (config.admin_socket.as_deref()).map(AdminSocket::bind);
    let admin = admin.transpose().map_err(StartError::from)?;
    Server::new(&config, sockets, environment, false)?
        .supervised_by(Supervisor::from_environment())
        .reloading(reloads)
        .administered_at(admin, reload)
        .run(None, stop)?;
    Ok(())
}

/// Says what stands for each flag of Fulcio's, so that whoever wants to can write it in our words.
fn tell_of_fulcio(given: &Given) {
    for Translation { flag, setting } in &given.translations {
        match setting {
            Some(setting) => {
                let setting = setting.replace('_', "-");
                tracing::info!(
                    event = "fulcio_flag",
                    flag,
                    setting,
                    "a flag of Fulcio's; `mayfly config show` with the same flags writes it in Mayfly's words"
                );
            }
            None => tracing::info!(
                event = "fulcio_flag",
                flag,
                "a flag of Fulcio's that changes nothing"
            ),
        }
    }
    for note in &given.notes {
        tracing::warn!(event = "fulcio_note", "{note}");
    }
}

/// Takes as many descriptors as the system allows: every connection needs one, and so does the log.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limits = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limits.maximum,
        ..limits
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(event = "descriptor_limit", %error, "cannot raise the limit of open files");
    }
}

/// How soon after the first signal another still counts as the same: `timeout` and some shells send one to the process
/// and one to its group.
const SAME_SIGNAL: Duration = Duration::from_secs(1);

/// Listens for SIGTERM and SIGINT from here on; what it returns is ready at the first. A later second one ends the process
/// at once, with exit code 1. SIGHUP asks for a reload, if there is something to be asked. Signals of the kinds in `ignored`
/// are logged, and do nothing.
///
/// To be called before anything is made that has to be taken down again: one that comes during the start is not lost.
///
/// # Errors
/// When the system gives no signals or no thread.
pub(super) fn stop_signal(
    ignored: &[SignalKind],
    reload: Option<ReloadHandle>,
) -> Result<impl Future<Output = ()> + use<>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::defect)?;
    let (mut terminate, mut interrupt) = {
        let _context = runtime.enter();
        if let Some(reload) = reload {
            let mut signals = signal(SignalKind::hangup()).map_err(Failure::defect)?;
            runtime.spawn(async move {
                while signals.recv().await.is_some() {
                    reload.ask();
                }
            });
        }
        for kind in ignored {
            let mut signals = signal(*kind).map_err(Failure::defect)?;
            let number = kind.as_raw_value();
            runtime.spawn(async move {
                while signals.recv().await.is_some() {
                    tracing::info!(
                        event = "signal_ignored",
                        number,
                        "a signal that changes nothing"
                    );
                }
            });
        }
        (
            signal(SignalKind::terminate()).map_err(Failure::defect)?,
            signal(SignalKind::interrupt()).map_err(Failure::defect)?,
        )
    };
    let (stop, stopped) = oneshot::channel();
    let listen = async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        next().await;
        let first = Instant::now();
        // The server may have failed before; then nobody waits.
        let _ = stop.send(());
        while first.elapsed() < SAME_SIGNAL {
            next().await;
        }
        logging::flush();
        std::process::exit(1);
    };
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || runtime.block_on(listen))
        .map_err(Failure::defect)?;
    Ok(stopped.map(drop))
}
