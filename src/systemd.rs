//! What systemd is told of the server: that it is ready, that it stops, and, as long as that is so, that it works
//! (sd_notify(3)).

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// The longest that telling may take: a supervisor that does not read must not keep a server from its work.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many signs of life fit into the time after which systemd misses them: some may come late, or not at all.
const SIGNS_A_PERIOD: u32 = 4;

/// The supervisor of this process. Clones talk to the same one.
#[derive(Clone, Debug)]
pub struct Supervisor {
    socket: Arc<UnixDatagram>,
    /// How long systemd waits for a sign of life. `None`: for ever.
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// The supervisor that the environment names: `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`. One that cannot be
    /// reached is logged, and the server goes on without.
    #[must_use]
    pub fn from_environment() -> Option<Self> {
        let socket = std::env::var_os("NOTIFY_SOCKET")?;
        let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
        let is_for_us =
            number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|&micros| micros > 0 && is_for_us);
        Self::connect(&socket, watchdog.map(Duration::from_micros))
            .inspect_err(|error| {
                tracing::warn!(event = "supervisor_unreachable", %error, "NOTIFY_SOCKET names no socket that can be used");
            })
            .ok()
    }

    /// Connects to a socket, named by its path, or by `@` and its name in the abstract namespace. `watchdog` is how long
    /// signs of life may stay away.
    ///
    /// # Errors
    /// When there is no such socket.
    pub fn connect(name: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => abstract_address(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            socket: Arc::new(socket),
            watchdog,
        })
    }

    /// The server serves.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// The server reads its configuration again; [`Self::ready`] ends it.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The server has begun to stop.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// Starts a thread that gives a sign of life as long as `find_fault` finds none; it may take as long as it is told.
    /// Without a watchdog there is nothing to do.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn watch(
        &self,
        mut find_fault: impl FnMut(Duration) -> Option<&'static str> + Send + 'static,
    ) -> io::Result<Option<Watch>> {
        let Some(watchdog) = self.watchdog else {
            return Ok(None);
        };
        let period = watchdog / SIGNS_A_PERIOD;
        let supervisor = self.clone();
        let (end, ended) = channel::<()>();
        std::thread::Builder::new()
            .name("watchdog".to_owned())
            .spawn(move || {
                while ended.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
                    match find_fault(period) {
                        None => supervisor.tell("WATCHDOG=1"),
                        Some(fault) => tracing::error!(
                            event = "watchdog_silent",
                            fault,
                            "no sign of life is given; systemd ends the process if this lasts"
                        ),
                    }
                }
            })?;
        Ok(Some(Watch { _end: end }))
    }

    fn tell(&self, state: &str) {
        if let Err(error) = self.socket.send(state.as_bytes()) {
            tracing::warn!(event = "supervisor_unreachable", state, %error, "systemd was not told");
        }
    }
}

/// Signs of life are given until this is dropped.
#[derive(Debug)]
pub struct Watch {
    _end: Sender<()>,
}

#[cfg(target_os = "linux")]
fn abstract_address(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn abstract_address(_: &[u8]) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// systemd's end of a socket in a folder, and the server's.
    fn pair(watchdog: Option<Duration>) -> (tempfile::TempDir, UnixDatagram, Supervisor) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        systemd
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let supervisor = Supervisor::connect(path.as_os_str(), watchdog).unwrap();
        (folder, systemd, supervisor)
    }

    fn received(systemd: &UnixDatagram) -> String {
        let mut buffer = [0; 64];
        let length = systemd.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn start_and_stop_are_told() {
        let (_folder, systemd, supervisor) = pair(None);
        supervisor.ready();
        supervisor.stopping();
        assert_eq!(received(&systemd), "READY=1");
        assert_eq!(received(&systemd), "STOPPING=1");
        assert!(supervisor.watch(|_| None).unwrap().is_none());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_socket_without_a_file_is_told_too() {
        use std::os::linux::net::SocketAddrExt;
        let name = format!("mayfly-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let systemd = UnixDatagram::bind_addr(&address).unwrap();
        Supervisor::connect(OsStr::new(&format!("@{name}")), None)
            .unwrap()
            .ready();
        assert_eq!(received(&systemd), "READY=1");
    }

    #[test]
    fn signs_of_life_are_given_while_no_fault_is_found() {
        let (_folder, systemd, supervisor) = pair(Some(Duration::from_millis(8)));
        let (is_ill, asked_while_ill) = (Arc::new(AtomicBool::new(false)), channel());
        let (ill, ask) = (Arc::clone(&is_ill), asked_while_ill.0);
        let watch = supervisor.watch(move |_| {
            let fault = ill.load(Ordering::SeqCst).then_some("ill");
            if fault.is_some() {
                // Nobody listens once the test has seen enough.
                let _ = ask.send(());
            }
            fault
        });
        assert_eq!(received(&systemd), "WATCHDOG=1");
        is_ill.store(true, Ordering::SeqCst);
        for _ in 0..2 {
            asked_while_ill.1.recv().unwrap();
        }
        // Whatever was sent before the fault is read; nothing follows it.
        systemd.set_nonblocking(true).unwrap();
        let mut buffer = [0; 64];
        while systemd.recv(&mut buffer).is_ok() {}
        asked_while_ill.1.recv().unwrap();
        assert!(systemd.recv(&mut buffer).is_err());

        systemd.set_nonblocking(false).unwrap();
        is_ill.store(false, Ordering::SeqCst);
        assert_eq!(received(&systemd), "WATCHDOG=1");
        drop(watch);
    }

    #[test]
    fn a_socket_that_is_not_there_is_an_error() {
        assert!(Supervisor::connect(OsStr::new("/nowhere/notify"), None).is_err());
    }
}
