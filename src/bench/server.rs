//! A server of the benchmark's own: made by `mayfly init`, run by `mayfly serve`, in a process of its own.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::load::Target;

/// How long the first answer, or the end after SIGTERM, may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often the first answer is asked for.
const POLL: Duration = Duration::from_millis(2);

/// Why there is no server to measure.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The system refused.
    #[error("{doing}: {source}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        source: std::io::Error,
    },
    /// `mayfly init` did not make an instance.
    #[error("mayfly init: {0}")]
    Init(String),
    /// `mayfly serve` ended before it was told to, or with an error.
    #[error("the server ended with {status}; its log is {}", log.display())]
    Ended {
        /// How.
        status: ExitStatus,
        /// Where its log lines are.
        log: PathBuf,
    },
    /// It did not answer, or did not stop, in time.
    #[error("the server did not {doing} in {PATIENCE:?}; its log is {}", log.display())]
    Hangs {
        /// What it should have done.
        doing: &'static str,
        /// Where its log lines are.
        log: PathBuf,
    },
}

fn failed(doing: &'static str) -> impl FnOnce(std::io::Error) -> ServerError {
    move |source| ServerError::System { doing, source }
}

/// A running server. It is killed if it is dropped before [`Self::stop`].
#[derive(Debug)]
pub struct OwnServer {
    child: Child,
    log: PathBuf,
    identity_file: PathBuf,
    /// Where it listens.
    pub target: Target,
    /// The time from the start of the process to the first answer.
    pub start_time: Duration,
}

impl OwnServer {
    /// Makes an instance in `folder` that trusts the issuers of `identity_file`, and serves it. Its log lines go to a file,
    /// as they do where it matters.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub async fn start(folder: &Path, identity_file: &str) -> Result<Self, ServerError> {
        let program = std::env::current_exe().map_err(failed("find this program"))?;
        let [address, metrics_address] = free_addresses().map_err(failed("find a free port"))?;
        let instance = folder.join("instance");
        let made = Command::new(&program)
            .args(["init", "--no-password", "--public-url"])
            .arg(format!("http://{address}"))
            .arg("--data-dir")
            .arg(&instance)
            .stdin(Stdio::null())
            .output()
            .map_err(failed("run mayfly init"))?;
        if !made.status.success() {
            let message = String::from_utf8_lossy(&made.stderr);
            return Err(ServerError::Init(message.trim_end().to_owned()));
        }
        let identity_path = instance.join("identity.yaml");
        std::fs::write(&identity_path, identity_file).map_err(failed("write the identity file"))?;

        let log = folder.join("server.log");
        let log_file = File::create(&log).map_err(failed("write the server's log"))?;
        let spawned = Instant::now();
        let child = Command::new(&program)
            .args(["serve", "--config"])
            .arg(instance.join("mayfly.yaml"))
            .args(["--listen", &address.to_string()])
            .args(["--metrics-listen", &metrics_address.to_string()])
            .args(["--grpc-listen", "off"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log_file)
            .spawn()
            .map_err(failed("run mayfly serve"))?;
        let mut server = Self {
            child,
            log,
            identity_file: identity_path,
            target: Target {
                address,
                host: address.to_string(),
            },
            start_time: Duration::ZERO,
        };
        while server.target.get("/healthz").await.is_err() {
            server.check_running()?;
            if spawned.elapsed() > PATIENCE {
                return Err(server.hangs("answer"));
            }
            tokio::time::sleep(POLL).await;
        }
        server.start_time = spawned.elapsed();
        Ok(server)
    }

    /// The id of its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Gives the server another identity file and tells it to read that, as an operator would. It does so by itself.
    ///
    /// # Errors
    /// When the file cannot be written, or the server is gone.
    pub fn reload(&self, identity_file: &str) -> Result<(), ServerError> {
        let next = self.identity_file.with_extension("next");
        std::fs::write(&next, identity_file)
            .and_then(|()| std::fs::rename(&next, &self.identity_file))
            .map_err(failed("write the identity file"))?;
        self.signal(Signal::HUP)
    }

    fn signal(&self, signal: Signal) -> Result<(), ServerError> {
        let id = i32::try_from(self.id()).ok().and_then(Pid::from_raw);
        let id = id.ok_or_else(|| self.hangs("tell its process id"))?;
        kill_process(id, signal).map_err(|error| failed("signal the server")(error.into()))
    }

    /// Tells the server to stop, as an operator would, and waits for its end.
    ///
    /// # Errors
    /// When it does not end, or not well.
    pub async fn stop(mut self) -> Result<(), ServerError> {
        self.signal(Signal::TERM)?;
        let told = Instant::now();
        loop {
            match self
                .child
                .try_wait()
                .map_err(failed("wait for the server"))?
            {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.ended(status)),
                None if told.elapsed() > PATIENCE => return Err(self.hangs("stop")),
                None => tokio::time::sleep(POLL).await,
            }
        }
    }

    fn check_running(&mut self) -> Result<(), ServerError> {
        match self
            .child
            .try_wait()
            .map_err(failed("wait for the server"))?
        {
            Some(status) => Err(self.ended(status)),
            None => Ok(()),
        }
    }

    fn ended(&self, status: ExitStatus) -> ServerError {
        ServerError::Ended {
            status,
            log: self.log.clone(),
        }
    }

    fn hangs(&self, doing: &'static str) -> ServerError {
        ServerError::Hangs {
            doing,
            log: self.log.clone(),
        }
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        // Without effect on one that has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two free ports on the loopback interface. Another process may take one before the server does; that is a failed start.
fn free_addresses() -> std::io::Result<[SocketAddr; 2]> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    // Both are open at once, so that they differ.
    let (first, second) = (TcpListener::bind(any)?, TcpListener::bind(any)?);
    Ok([first.local_addr()?, second.local_addr()?])
}
