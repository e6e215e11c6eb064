//! The binary, as a process of its own.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::wait_for;

/// A command line of the binary, in an environment that sets nothing of it.
pub(crate) fn mayfly<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mayfly"));
    for (name, _) in std::env::vars_os() {
        let is_ours = |prefix| name.to_string_lossy().starts_with(prefix);
        if is_ours("MAYFLY_") || is_ours("FULCIO_") {
            command.env_remove(name);
        }
    }
    // Tests that run at the same time would all want its one port.
    command.env("MAYFLY_GRPC_LISTEN", "off");
    command.args(arguments).stdin(Stdio::null());
    command
}

/// What a process left behind.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = child.stderr.take().unwrap();
    let stderr = std::thread::spawn(move || std::io::read_to_string(stderr).unwrap());
    let mut stdout = child.stdout.take().unwrap();
    let stdout = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        text
    });
    let mut child = Running(child);
    let code = child.code();
    Outcome {
        code,
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
    }
}

/// A child that does not outlive its test.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Waits for the end, and returns the exit code.
    pub(crate) fn code(&mut self) -> i32 {
        let status = wait_for("the end of the process", || self.0.try_wait().unwrap());
        status
            .code()
            .unwrap_or_else(|| panic!("ended by a signal: {status}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended, as it should have.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that serves.
pub(crate) struct Process {
    child: Running,
    lines: Arc<Mutex<Vec<String>>>,
    reader: Option<std::thread::JoinHandle<()>>,
    pub(crate) address: SocketAddr,
    pub(crate) metrics_address: SocketAddr,
}

impl Process {
    /// Starts a command that serves, and waits until it does.
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = Running(
            command
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let stderr = BufReader::new(child.0.stderr.take().unwrap());
        let lines: Arc<Mutex<Vec<String>>> = Arc::default();
        let reader = {
            let lines = Arc::clone(&lines);
            std::thread::spawn(move || {
                for line in stderr.lines() {
                    lines.lock().unwrap().push(line.unwrap());
                }
            })
        };
        let started = wait_for("the server's start", || {
            let ended = child.0.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "the server ended: {:#?}",
                lines.lock().unwrap()
            );
            let lines = lines.lock().unwrap();
            lines
                .iter()
                .filter_map(|line| serde_json::from_str(line).ok())
                .find(|line: &Value| line["event"] == "started")
        });
        let address = |name: &str| started[name].as_str().unwrap().parse().unwrap();
        let (address, metrics_address) = (address("listen"), address("metrics_listen"));
        Self {
            child,
            lines,
            reader: Some(reader),
            address,
            metrics_address,
        }
    }

    /// The lines on standard error so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// The log lines with this `event`, as soon as there are so many.
    pub(crate) fn events(&self, event: &str, count: usize) -> Vec<Value> {
        wait_for(event, || {
            let lines = self.lines();
            let parsed = lines
                .iter()
                .filter_map(|line| serde_json::from_str(line).ok());
            let found: Vec<Value> = parsed
                .filter(|line: &Value| line["event"] == event)
                .collect();
            (found.len() >= count).then_some(found)
        })
    }

    /// The process's id.
    pub(crate) fn id(&self) -> u32 {
        self.child.0.id()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.child.signal(signal);
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        self.child.terminate();
    }

    /// Whether it runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.0.try_wait().unwrap().is_none()
    }

    /// Waits for the end, and returns the exit code with all lines of standard error.
    pub(crate) fn end(mut self) -> (i32, Vec<String>) {
        let code = self.child.code();
        self.reader.take().unwrap().join().unwrap();
        (code, self.lines())
    }
}

/// An instance on disk, made by `mayfly init`, without a passphrase.
#[derive(Debug)]
pub(crate) struct Instance {
    folder: tempfile::TempDir,
}

impl Instance {
    /// Makes one for a URL, which trusts one issuer.
    pub(crate) fn new() -> Self {
        let instance = Self {
            // A temporary folder may be in memory, where no log is kept.
            folder: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(),
        };
        let data_dir = instance.data_dir();
        let arguments = [
            "init",
            "--public-url",
            "http://ca.example.com",
            "--no-password",
            "--data-dir",
        ];
        let outcome = run(mayfly(arguments).arg(&data_dir));
        assert_eq!(outcome.code, 0, "{outcome:?}");
        let url = "https://accounts.example.com";
        instance.write_identity(&format!(
            "oidc-issuers:\n  {url}:\n    issuer-url: {url}\n    client-id: sigstore\n    type: email\n"
        ));
        instance
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The file that keeps how far the log has come, beside the data folder.
    pub(crate) fn high_water(&self) -> PathBuf {
        self.folder.path().join("data-high-water").join("main")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.data_dir().join("mayfly.yaml")
    }

    pub(crate) fn identity(&self) -> PathBuf {
        self.data_dir().join("identity.yaml")
    }

    pub(crate) fn write_identity(&self, text: &str) {
        std::fs::write(self.identity(), text).unwrap();
    }

    /// The folder of the log.
    pub(crate) fn log(&self) -> PathBuf {
        self.data_dir().join("ct").join("main")
    }

    /// The same after a shell has set limits, such as `ulimit -n 200`.
    pub(crate) fn serve_within(&self, limits: &str) -> Command {
        let serve = self.serve();
        let mut command = Command::new("sh");
        command.args(["-c", &format!(r#"{limits} && exec "$0" "$@""#)]);
        command.arg(serve.get_program()).args(serve.get_args());
        for (name, value) in serve.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.stdin(Stdio::null());
        command
    }

    /// `mayfly serve` on free ports, with JSON lines.
    pub(crate) fn serve(&self) -> Command {
        let mut command = mayfly([
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--metrics-listen",
            "127.0.0.1:0",
        ]);
        command
            .args(["--log-format", "json", "--workers", "1", "--config"])
            .arg(self.config());
        command
    }
}

/// Copies a folder with everything in it.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
