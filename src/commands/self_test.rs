//! `mayfly dev --self-test`: one certificate, checked from token to checkpoint, with the time that each step took.

use std::future::Future;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Failure;
use crate::client::{self, EphemeralKey, Expected};
use crate::dev::ISSUER_PATH;
use crate::server::{Environment, ExtraRoutes, Server};
use crate::tlog::checkpoint::LogIdentity;
use crate::tlog::tree::{CompactRange, Hash};
use crate::trust::TrustMaterial;

/// Whose certificate is asked for.
const NAME: &str = "dev@example.com";
/// How long the log may take to publish what it holds.
const PUBLICATION_TIMEOUT: Duration = Duration::from_secs(10);

/// One line of the table.
struct Step {
    name: &'static str,
    took: Duration,
    what: String,
}

/// Serves, tests from another thread as a client would, stops (also when `interrupted`), and prints the table.
pub(super) fn run(
    server: Server,
    routes: ExtraRoutes,
    interrupted: impl Future<Output = ()>,
    start: Instant,
    environment: &Environment,
) -> Result<(), Failure> {
    let (done, is_done) = oneshot::channel::<()>();
    let client = Client {
        url: server.trust().ca_url.clone(),
        trust: server.trust().clone(),
        environment: environment.clone(),
        start,
    };
    let testing = std::thread::Builder::new()
        .name("self-test".to_owned())
        .spawn(move || {
            let result = client.run();
            // The server may have failed before; then nobody waits.
            let _ = done.send(());
            result
        })
        .map_err(Failure::defect)?;
    let stop = async move {
        tokio::select! {
            _ = is_done => {}
            () = interrupted => {}
        }
    };
    server.run(Some(routes), stop)?;
    let result = testing
        .join()
        .map_err(|_| Failure::defect("the self-test panicked"))?;
    let (steps, error) = match result {
        Ok(steps) => (steps, None),
        Err((steps, error)) => (steps, Some(error)),
    };
    print_table(&steps, start.elapsed(), error.as_deref());
    error.map_or(Ok(()), |error| {
        Err(Failure::operation(format!("self-test failed: {error}")))
    })
}

fn print_table(steps: &[Step], whole: Duration, error: Option<&str>) {
    println!();
    println!("  Mayfly self-test");
    println!();
    for Step { name, took, what } in steps {
        println!("  ✓ {name:<12} {:>9}   {what}", milliseconds(*took));
    }
    if let Some(error) = error {
        println!("  ✗ {error}");
    }
    println!();
    let verdict = if error.is_some() { "failed" } else { "passed" };
    println!("  {verdict:<14} {:>9}   start to end", milliseconds(whole));
    println!();
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1000.0)
}

struct Client {
    url: String,
    trust: TrustMaterial,
    environment: Environment,
    start: Instant,
}

/// The steps that passed, and what the next one came to.
struct Steps {
    done: Vec<Step>,
    last: Instant,
}

impl Steps {
    fn pass(&mut self, name: &'static str, what: impl Into<String>) {
        let now = Instant::now();
        self.done.push(Step {
            name,
            took: now - self.last,
            what: what.into(),
        });
        self.last = now;
    }
}

impl Client {
    fn run(&self) -> Result<Vec<Step>, (Vec<Step>, String)> {
        let mut steps = Steps {
            done: Vec::new(),
            last: self.start,
        };
        let runtime = match tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
        {
            Ok(runtime) => runtime,
            Err(error) => return Err((steps.done, error.to_string())),
        };
        match runtime.block_on(self.steps(&mut steps)) {
            Ok(()) => Ok(steps.done),
            Err(error) => Err((steps.done, error)),
        }
    }

    async fn steps(&self, steps: &mut Steps) -> Result<(), String> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(5))
            .build()
            .map_err(|error| error.to_string())?;
        let get = async |path: &str| -> Result<Vec<u8>, String> {
            let url = format!("{}{path}", self.url);
            let wrong = |error: reqwest::Error| format!("GET {url}: {error}");
            let response = http
                .get(&url)
                .send()
                .await
                .map_err(wrong)?
                .error_for_status()
                .map_err(wrong)?;
            Ok(response.bytes().await.map_err(wrong)?.to_vec())
        };

        get("/healthz").await?;
        steps.pass("start", format!("CA, log and test issuer at {}", self.url));

        let token = get(&format!("{ISSUER_PATH}/token?email={NAME}")).await?;
        let token = String::from_utf8(token).map_err(|_| "the token is not text".to_owned())?;
        steps.pass(
            "token",
            format!("an ID token for {NAME}, {} octets", token.len()),
        );

        let key = EphemeralKey::generate(self.environment.random.as_ref())
            .map_err(|error| error.to_string())?;
        let public_key_der = key.public_key_der();
        steps.pass("key", "a P-256 key that is never stored");

        let request = key.signing_request(&token, NAME);
        steps.pass("proof", "a signature over the token's `email` claim");

        let response = http
            .post(format!("{}/api/v2/signingCert", self.url))
            .body(request)
            .send()
            .await
            .map_err(|error| error.to_string())?;
        let status = response.status();
        let body = response.bytes().await.map_err(|error| error.to_string())?;
        if !status.is_success() {
            return Err(format!(
                "POST /api/v2/signingCert: {status}: {}",
                String::from_utf8_lossy(&body)
            ));
        }
        let certificates =
            client::certificates_of_answer(&body).map_err(|error| error.to_string())?;
        let (leaf, chain) = certificates
            .split_first()
            .ok_or("the answer holds no certificate")?;
        steps.pass(
            "certificate",
            "issued: verified, signed, logged, signed again",
        );

        let trusted: Vec<&[u8]> = self
            .trust
            .chain
            .certificates()
            .iter()
            .map(|one| one.der())
            .collect();
        if chain != trusted {
            return Err("the answer's chain is not the one in the trust files".to_owned());
        }
        steps.pass(
            "chain",
            format!(
                "ends in the trusted root, {} certificates",
                certificates.len()
            ),
        );

        let log = self.trust.ct_logs.first().ok_or("there is no log")?;
        let issuer = format!("{}{ISSUER_PATH}", self.url);
        let expected = Expected {
            public_key_der: &public_key_der,
            name: NAME,
            issuer: &issuer,
            authority_der: self.trust.chain.issuing().der(),
            log_key_der: &log.public_key_der,
            now: self.environment.clock.now(),
        };
        let checked =
            client::check_certificate(leaf, &expected).map_err(|error| error.to_string())?;
        steps.pass(
            "contents",
            "key, name, issuer, ten minutes; the log's timestamp verifies",
        );

        let index = checked
            .leaf_index
            .ok_or("the timestamp does not say where the entry is")?;
        let path = log.url.strip_prefix(&self.url).unwrap_or(&log.url);
        let origin = log.origin.as_deref().ok_or("the log has no name")?;
        let identity = LogIdentity::new(origin, &log.public_key_der);
        let waiting = Instant::now();
        let head = loop {
            let note = get(&format!("{path}/checkpoint")).await?;
            let head = identity
                .verify(&note)
                .map_err(|error| format!("checkpoint: {error}"))?;
            if head.size > index {
                break head;
            }
            if waiting.elapsed() > PUBLICATION_TIMEOUT {
                return Err(format!(
                    "the log did not publish entry {index} in {PUBLICATION_TIMEOUT:?}"
                ));
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        steps.pass(
            "checkpoint",
            match head.size {
                1 => "signed by the log, 1 entry".to_owned(),
                size => format!("signed by the log, {size} entries"),
            },
        );

        // The whole tree, from the hashes that anyone can download.
        let mut tree = CompactRange::default();
        let mut found = false;
        for tile in 0..head.size.div_ceil(256) {
            let width = (head.size - tile * 256).min(256);
            let partial = if width == 256 {
                String::new()
            } else {
                format!(".p/{width}")
            };
            let hashes = get(&format!("{path}/tile/0/{}{partial}", tile_number(tile))).await?;
            for (offset, hash) in hashes.chunks_exact(32).enumerate() {
                let hash: Hash = hash
                    .try_into()
                    .map_err(|_| "a tile is cut off".to_owned())?;
                found |= hash == checked.leaf_hash && tile * 256 + offset as u64 == index;
                tree.push(hash);
            }
        }
        if !found {
            return Err(format!("entry {index} of the log is another certificate's"));
        }
        if tree.root() != head.root {
            return Err("the log's tiles do not have the checkpoint's root".to_owned());
        }
        steps.pass(
            "inclusion",
            format!("entry {index}; the tiles give the checkpoint's root"),
        );
        Ok(())
    }
}

/// `1234067` → `x001/x234/067` (C2SP tlog-tiles).
fn tile_number(tile: u64) -> String {
    let mut text = format!("{:03}", tile % 1000);
    let mut rest = tile / 1000;
    while rest > 0 {
        text = format!("x{:03}/{text}", rest % 1000);
        rest /= 1000;
    }
    text
}
