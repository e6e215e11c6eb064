//! What the tests share: a server in this process, the binary as a process, a client's key, and a client that sends
//! exactly the octets it is told to.

pub(crate) mod client_key;
pub(crate) mod document;
pub(crate) mod faults;
pub(crate) mod frames;
pub(crate) mod grpc;
pub(crate) mod http;
pub(crate) mod issuer;
pub(crate) mod key;
pub(crate) mod log;
pub(crate) mod process;
pub(crate) mod refusal;
pub(crate) mod server;
pub(crate) mod tls;

/// How long a test waits before it calls something hung.
pub(crate) const HANG: std::time::Duration = std::time::Duration::from_secs(30);

/// Tries until there is a result, and panics with `what` when there is none for too long.
pub(crate) fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let start = std::time::Instant::now();
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        assert!(start.elapsed() < HANG, "waited in vain for {what}");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}
