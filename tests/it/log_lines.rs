//! What becomes of a server when nobody takes its log lines.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A child that does not outlive its test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail when it has ended, as it should have.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `/dev/full` takes nothing, like a disk without room; so does a pipe whose reader is gone.
#[cfg(target_os = "linux")]
#[test]
fn a_server_whose_log_lines_cannot_be_written_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let mayfly = || Command::new(env!("CARGO_BIN_EXE_mayfly"));
    let init = mayfly()
        .args(["init", "--public-url", "http://ca.example", "--no-password"])
        .arg("--data-dir")
        .arg(&data_dir)
        .output();
    assert!(init.unwrap().status.success());
    // Nobody is there; the server starts all the same.
    let url = "http://127.0.0.1:9";
    let identity = format!(
        "oidc-issuers:\n  {url}:\n    issuer-url: {url}\n    client-id: sigstore\n    type: email\n"
    );
    fs::write(data_dir.join("identity.yaml"), identity).unwrap();

    let free = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut server = Running(
        mayfly()
            .args(["serve", "--metrics-listen", "127.0.0.1:0", "--listen"])
            .arg(address.to_string())
            .arg("--config")
            .arg(data_dir.join("mayfly.yaml"))
            .stderr(full)
            .spawn()
            .unwrap(),
    );
    let request = b"GET /healthz HTTP/1.1\r\nHost: ca.example\r\nConnection: close\r\n\r\n";
    let ask = || -> std::io::Result<String> {
        let mut connection = TcpStream::connect(address)?;
        connection.write_all(request)?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let start = Instant::now();
    let answer = loop {
        assert_eq!(server.0.try_wait().unwrap(), None, "it ended");
        assert!(start.elapsed() < Duration::from_secs(30), "it hangs");
        if let Ok(answer) = ask() {
            break answer;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");

    let pid = i32::try_from(server.0.id()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    assert!(server.0.wait().unwrap().success());
}
