//! What clients see of a server that is asked for three times as much as its signing key can do:
//! `cargo bench --bench overload`.
//!
//! The key takes 2 ms a signature and makes two at a time, so there are at most 500 certificates a second. Accepted requests
//! should hardly be slower than without the overload, and the others told at once to come back.

#![expect(
    clippy::expect_used,
    reason = "a benchmark that cannot run should stop"
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mayfly::bench::floor::percentile;
use mayfly::bench::issuer::BenchIssuer;
use mayfly::bench::load::{Load, Paced, Sample, Target};
use mayfly::ca::authority::Authority;
use mayfly::ca::hierarchy::Names;
use mayfly::clock::{Clock, SystemClock};
use mayfly::config::{ServerConfig, Settings};
use mayfly::fetch::{ClusterFiles, SystemResolver};
use mayfly::instance::NewInstance;
use mayfly::keys::{SignError, SignatureAlgorithm, Signer, file};
use mayfly::random::{Random, SystemRandomness};
use mayfly::server::{Environment, Parts, Server, Sockets};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, oneshot};

/// What a signature takes.
const PACE: Duration = Duration::from_millis(2);
/// Signatures at a time: two for a certificate.
const AT_ONCE: usize = 2;
/// Certificates a second that the key can do at most, less than which is asked for first, and then three times it.
const CAPACITY: u32 = 500;
const UNLOADED: u32 = 50;
const OFFERED: u32 = 3 * CAPACITY;
/// How long each load lasts.
const SECONDS: u32 = 20;
/// Enough that no request waits for a connection, and few enough that none is so long without a request that it is closed.
const CONNECTIONS: usize = 128;

/// A key in a device that takes its time.
#[derive(Debug)]
struct SlowKey {
    key: Arc<dyn Signer>,
    device: Semaphore,
}

impl Signer for SlowKey {
    fn algorithm(&self) -> SignatureAlgorithm {
        self.key.algorithm()
    }

    fn public_key_der(&self) -> &[u8] {
        self.key.public_key_der()
    }

    fn at_once(&self) -> Option<usize> {
        Some(AT_ONCE)
    }

    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, SignError>> {
        async move {
            let _one = self.device.acquire().await.expect("never closed");
            tokio::time::sleep(PACE).await;
            self.key.sign(message).await
        }
        .boxed()
    }
}

fn main() {
    // Nothing else in this process installs one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(measure());
}

async fn measure() {
    let environment = Environment {
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandomness),
        resolver: Arc::new(SystemResolver),
        cluster_files: ClusterFiles::default(),
    };
    let clock: Arc<dyn Clock> = Arc::clone(&environment.clock);
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = TcpListener::bind(any).await.expect("a socket");
    let address = listener.local_addr().expect("an address");
    let issuer = BenchIssuer::new(address, &clock, environment.random.as_ref());
    let issuer = Arc::new(issuer.expect("an issuer"));
    tokio::spawn(Arc::clone(&issuer).serve(listener));

    let folder = tempfile::tempdir_in(".").expect("a folder");
    let sockets = Sockets::bind(any, any).expect("sockets");
    let address = sockets.api_address().expect("an address");
    let target = Target {
        address,
        host: address.to_string(),
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let server = std::thread::spawn({
        let folder = folder.path().join("data");
        let identity_file = issuer.identity_file();
        move || {
            let server = slow_server(&folder, &identity_file, sockets, &environment);
            server.run(None, stopped.map(drop))
        }
    });
    while target.get("/healthz").await.is_err() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    println!(
        "a key of {CAPACITY} certificates/s at most, {CONNECTIONS} connections, {SECONDS} s each\n"
    );
    println!(
        "  requests/s   certificates/s   p50 ms   p99 ms   refused/s   p50 ms   p99 ms   max ms"
    );
    let usual = drive(&issuer, &target, UNLOADED).await;
    let loaded = drive(&issuer, &target, OFFERED).await;
    println!(
        "\n  p99 of certificates {:.2} x that without overload (goal: 2); the slowest refusal {:.0} ms (goal: 50)",
        at(&loaded.samples, 990).as_secs_f64() / at(&usual.samples, 990).as_secs_f64(),
        at(&loaded.refused, 1000).as_secs_f64() * 1e3
    );
    // It may have stopped by itself, which its result tells.
    let _ = stop.send(());
    server.join().expect("the server").expect("a good end");
}

fn slow_server(
    folder: &std::path::Path,
    identity_file: &str,
    sockets: Sockets,
    environment: &Environment,
) -> Server {
    let url = format!("http://{}", sockets.api_address().expect("an address"));
    let instance = NewInstance {
        data_dir: folder,
        public_url: &url.parse().expect("a URL"),
        names: Names {
            organization: "Bench".to_owned(),
            common_name: "Bench root".to_owned(),
        },
        passphrase: None,
        high_water: None,
        bucket: None,
        is_throw_away: true,
        clock: &environment.clock,
        random: &(Arc::clone(&environment.random) as Arc<dyn Random>),
    };
    instance.create().expect("an instance");
    let identity = folder.join("identity.yaml");
    std::fs::write(&identity, identity_file).expect("an identity file");
    let config = ServerConfig::new(Settings {
        data_dir: Some(folder.to_owned()),
        identity_config: Some(identity),
        ..Settings::default()
    });
    let config = config.expect("settings");
    let mut parts = Parts::load(&config, environment, true).expect("all parts");
    let key = SlowKey {
        key: Arc::new(file::load(&config.ca_key, None, false).expect("the CA's key")),
        device: Semaphore::new(AT_ONCE),
    };
    let chain = Arc::clone(parts.authority.chain());
    let authority = Authority::new(chain, Arc::new(key), true, environment.clock.now());
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().build().expect("a runtime");
    parts.authority = runtime.block_on(authority).expect("an authority");
    Server::assemble(&config, sockets, environment, parts).expect("a server")
}

/// Offers so many requests a second, and prints what came of them.
async fn drive(issuer: &BenchIssuer, target: &Target, per_second: u32) -> Paced {
    let count = usize::try_from(per_second * SECONDS).expect("a small number");
    let load = Load::prepare(count, issuer, &target.host).expect("requests");
    let start = Instant::now();
    let paced = load
        .drive_at_rate(target, CONNECTIONS, per_second, start)
        .await;
    let elapsed = start.elapsed().as_secs_f64();
    assert_eq!(
        paced.outcome.failed,
        paced.refused.len(),
        "a request without an answer: {:?}",
        paced.outcome.first_failure
    );
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    let rate = |samples: &[Sample]| samples.len() as f64 / elapsed;
    let milliseconds = |samples, permille| at(samples, permille).as_secs_f64() * 1e3;
    println!(
        "  {per_second:>10} {:>16.0} {:>8.2} {:>8.2} {:>11.0} {:>8.2} {:>8.2} {:>8.2}",
        rate(&paced.samples),
        milliseconds(&paced.samples, 500),
        milliseconds(&paced.samples, 990),
        rate(&paced.refused),
        milliseconds(&paced.refused, 500),
        milliseconds(&paced.refused, 990),
        milliseconds(&paced.refused, 1000),
    );
    paced
}

/// The latency that so many in a thousand do not exceed.
fn at(samples: &[Sample], permille: usize) -> Duration {
    let mut latencies: Vec<Duration> = samples.iter().map(|sample| sample.latency).collect();
    latencies.sort_unstable();
    percentile(&latencies, permille)
}
