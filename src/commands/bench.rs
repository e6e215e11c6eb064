//! `mayfly bench`: what this machine makes of Mayfly.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand, ValueEnum};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use url::Url;

use super::Failure;
use crate::bench::floor::{Floor, FloorBeside, SyncTime};
use crate::bench::issuer::BenchIssuer;
use crate::bench::load::{Interface, Load, Target, Trust};
use crate::bench::policy::PolicyReport;
use crate::bench::process::Process;
use crate::bench::reload::{self, Plan, ReloadReport};
use crate::bench::report::{FloorReport, Report, Run};
use crate::bench::server::OwnServer;
use crate::server::Environment;

/// Requests before the first run: they fetch the issuer's keys, and bring both processes up to speed.
const WARM_UP: usize = 200;
/// How long they may fail. A server asks an issuer that did not answer again after ten seconds.
const WARM_UP_PATIENCE: Duration = Duration::from_secs(12);

/// What is measured.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Ask a server for certificates, as many as it can make, and compare with what the machine can do at best
    Load(LoadArguments),
    /// What an identity configuration costs: to read it, and for every token
    Policy(PolicyArguments),
    /// What it does to requests when the identity configuration is replaced
    Reload(ReloadArguments),
    /// What a certificate costs at least: its cryptography, and one write to the disk
    Floor(FloorArguments),
}

/// How the figures are printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// A table.
    Text,
    /// One JSON document.
    Json,
}

/// The arguments of `mayfly bench floor`.
#[derive(Args, Debug)]
pub(super) struct FloorArguments {
    /// The folder on the disk to measure
    #[arg(long, value_name = "DIR", default_value = ".")]
    data_dir: PathBuf,
    /// A table or JSON
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// The arguments of `mayfly bench policy`.
#[derive(Args, Debug)]
pub(super) struct PolicyArguments {
    /// Entries of the configuration
    #[arg(long, value_name = "N", default_value = "1000", value_parser = at_least_one)]
    issuers: usize,
    /// Rules of the entry that the tokens fall under
    #[arg(long, value_name = "N", default_value = "100")]
    rules: usize,
    /// A table or JSON
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// The arguments of `mayfly bench reload`.
#[derive(Args, Debug)]
pub(super) struct ReloadArguments {
    /// Entries of the configuration
    #[arg(long, value_name = "N", default_value = "1000", value_parser = at_least_one)]
    issuers: usize,
    /// How many reloads there are, six seconds each
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..))]
    reloads: u32,
    /// Requests a second
    #[arg(long, value_name = "N", default_value = "500", value_parser = clap::value_parser!(u32).range(1..))]
    rate: u32,
    /// Connections that they come over
    #[arg(long, value_name = "N", default_value = "64", value_parser = at_least_one)]
    connections: usize,
    /// Where the instance is made that is measured. Kept afterwards [default: a folder in this one, deleted at the end]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// A table or JSON
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// The arguments of `mayfly bench load`.
#[derive(Args, Debug)]
pub(super) struct LoadArguments {
    /// Numbers of connections, separated by commas; each has one request under way at a time
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "1,64,256", value_parser = at_least_one)]
    connections: Vec<usize>,
    /// Certificates for each number of connections; every one has a token, a name and a key of its own
    #[arg(long, value_name = "N", default_value = "10000", value_parser = at_least_one)]
    requests: usize,
    /// What certificates are asked for over
    #[arg(long, value_enum, default_value = "http")]
    interface: Interface,
    /// Where the instance is made that is measured; on a disk like the one it is meant for. Kept afterwards
    /// [default: a folder in this one, deleted at the end]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Measure a server that runs already, over HTTP. It must trust the issuer at --issuer-listen
    #[arg(
        long,
        value_name = "URL",
        conflicts_with = "data_dir",
        requires = "issuer_listen"
    )]
    url: Option<Url>,
    /// The id of that server's process, if it is on this machine: for its CPU time and memory
    #[arg(long, value_name = "PID", requires = "url")]
    pid: Option<u32>,
    /// The path of that server's log
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/ct/main",
        requires = "url"
    )]
    log_path: String,
    /// Where the issuer of the tokens listens, for the server to fetch its keys [default: a free port of the loopback
    /// interface]
    #[arg(long, value_name = "ADDR")]
    issuer_listen: Option<SocketAddr>,
    /// A table or JSON
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

fn at_least_one(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|&number| number > 0);
    number.ok_or_else(|| "give a number from 1 on".to_owned())
}

pub(super) fn run(command: Command, environment: &Environment) -> Result<(), Failure> {
    match command {
        Command::Floor(arguments) => {
            let floor = measure_floor(&arguments.data_dir)?;
            let report = FloorReport::new(&[floor.0], &[floor.1]);
            print(arguments.output, &report)
        }
        Command::Policy(PolicyArguments {
            issuers,
            rules,
            output,
        }) => {
            let now = environment.clock.now();
            let random = environment.random.as_ref();
            let report = PolicyReport::measure(issuers, rules, now, random);
            print(output, &report.map_err(Failure::defect)?)
        }
        Command::Reload(arguments) => {
            let report = runtime()?.block_on(reload(&arguments, environment))?;
            print(arguments.output, &report)?;
            without_failures(report.failed)
        }
        Command::Load(arguments) => {
            let report = runtime()?.block_on(load(&arguments, environment))?;
            print(arguments.output, &report)?;
            without_failures(report.failed())
        }
    }
}

fn runtime() -> Result<Runtime, Failure> {
    let builder = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    builder.map_err(Failure::defect)
}

fn without_failures(failed: usize) -> Result<(), Failure> {
    match failed {
        0 => Ok(()),
        failed => Err(Failure::operation(format!("{failed} requests failed"))),
    }
}

fn print<R: std::fmt::Display + serde::Serialize>(
    output: Output,
    report: &R,
) -> Result<(), Failure> {
    use std::io::Write;
    let text = match output {
        Output::Text => report.to_string(),
        Output::Json => serde_json::to_string_pretty(report).map_err(Failure::defect)? + "\n",
    };
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(|error| Failure::operation(format!("cannot print: {error}")))
}

fn measure_floor(folder: &Path) -> Result<(Floor, SyncTime), Failure> {
    let floor = Floor::measure().map_err(Failure::defect)?;
    let sync = SyncTime::measure(folder).map_err(|error| {
        Failure::operation(format!("cannot write in {}: {error}", folder.display()))
    })?;
    Ok((floor, sync))
}

/// Where the instance is made: a folder that is kept, or one that goes with this.
enum Workplace {
    Given(PathBuf),
    Temporary(TempDir),
}

impl Workplace {
    fn new(given: Option<&Path>) -> Result<Self, Failure> {
        if let Some(folder) = given {
            std::fs::create_dir_all(folder).map_err(Failure::operation)?;
            return Ok(Self::Given(folder.to_owned()));
        }
        let made = tempfile::Builder::new()
            .prefix("mayfly-bench-")
            .tempdir_in(".");
        made.map(Self::Temporary).map_err(|error| {
            Failure::operation(format!("cannot make a folder in this one: {error}"))
        })
    }

    fn path(&self) -> &Path {
        match self {
            Self::Given(folder) => folder,
            Self::Temporary(folder) => folder.path(),
        }
    }
}

/// Starts the issuer of the tokens.
async fn start_issuer(
    listen: Option<SocketAddr>,
    environment: &Environment,
) -> Result<Arc<BenchIssuer>, Failure> {
    let listen = listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)));
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| Failure::dependency(format!("cannot listen on {listen}: {error}")))?;
    let address = listener.local_addr().map_err(Failure::defect)?;
    let issuer = BenchIssuer::new(address, &environment.clock, environment.random.as_ref())
        .map(Arc::new)
        .map_err(Failure::defect)?;
    tokio::spawn(Arc::clone(&issuer).serve(listener));
    Ok(issuer)
}

async fn reload(
    arguments: &ReloadArguments,
    environment: &Environment,
) -> Result<ReloadReport, Failure> {
    let plan = Plan {
        issuers: arguments.issuers,
        reloads: arguments.reloads,
        per_second: arguments.rate,
    };
    let workplace = Workplace::new(arguments.data_dir.as_deref())?;
    let issuer = start_issuer(None, environment).await?;
    let configuration = plan.configuration(&issuer, 0);
    let server = OwnServer::start(workplace.path(), &configuration)
        .await
        .map_err(Failure::operation)?;
    let target = &server.target;
    let trust = target.trust("/ct/main").await.map_err(Failure::operation)?;
    let load = Load::prepare(plan.requests(), &issuer, &target.host).map_err(Failure::defect)?;
    reload::wait_for_keys(target)
        .await
        .map_err(Failure::operation)?;
    let start = Instant::now();
    let (paced, reloads) = tokio::join!(
        load.drive_at_rate(target, arguments.connections, plan.per_second, start),
        plan.reload(&server, &issuer, start),
    );
    let reloads = reloads.map_err(Failure::operation)?;
    let checked = paced
        .outcome
        .check(&trust, &issuer, environment.clock.as_ref())
        .map_err(|error| Failure::operation(format!("a wrong certificate: {error}")))?;
    server.stop().await.map_err(Failure::operation)?;
    Ok(ReloadReport::new(
        &plan,
        configuration.len(),
        paced,
        &reloads,
        checked,
    ))
}

async fn load(arguments: &LoadArguments, environment: &Environment) -> Result<Report, Failure> {
    let workplace = Workplace::new(arguments.data_dir.as_deref())?;
    let folder = workplace.path();
    let issuer = start_issuer(arguments.issuer_listen, environment).await?;

    match &arguments.url {
        Some(url) => {
            let bench = Bench {
                target: target(url)?,
                interface: arguments.interface,
                process: arguments.pid.map(Process::new),
                issuer: &issuer,
                environment,
                folder,
            };
            bench.run(arguments, None).await
        }
        None => {
            let server = OwnServer::start(folder, &issuer.identity_file())
                .await
                .map_err(Failure::operation)?;
            let bench = Bench {
                target: server.target.clone(),
                interface: arguments.interface,
                process: Some(Process::new(server.id())),
                issuer: &issuer,
                environment,
                folder,
            };
            let report = bench.run(arguments, Some(server.start_time)).await;
            server.stop().await.map_err(Failure::operation)?;
            report
        }
    }
}

fn target(url: &Url) -> Result<Target, Failure> {
    let wrong = |what: &str| Failure::configuration(format!("--url {url}: {what}"));
    if url.scheme() != "http" {
        return Err(wrong(
            "only http is measured; give the server's own address",
        ));
    }
    let host = url.host_str().ok_or_else(|| wrong("has no host"))?;
    let host = format!("{host}:{}", url.port_or_known_default().unwrap_or(80));
    let address = host
        .to_socket_addrs()
        .map_err(|error| wrong(&error.to_string()))?
        .next()
        .ok_or_else(|| wrong("has no address"))?;
    Ok(Target { address, host })
}

/// What all runs share.
struct Bench<'a> {
    target: Target,
    interface: Interface,
    process: Option<Process>,
    issuer: &'a BenchIssuer,
    environment: &'a Environment,
    /// On the disk whose syncs are measured.
    folder: &'a Path,
}

impl Bench<'_> {
    async fn run(
        &self,
        arguments: &LoadArguments,
        start: Option<Duration>,
    ) -> Result<Report, Failure> {
        let trust = self
            .target
            .trust(&arguments.log_path)
            .await
            .map_err(Failure::operation)?;
        self.warm_up().await?;
        let mut floors = vec![measure_floor(self.folder)?];
        let mut runs = Vec::with_capacity(arguments.connections.len());
        for &connections in &arguments.connections {
            runs.push(
                self.measure(connections, arguments.requests, &trust)
                    .await?,
            );
            floors.push(measure_floor(self.folder)?);
        }
        let (primitives, syncs): (Vec<_>, Vec<_>) = floors.into_iter().unzip();
        Ok(Report::new(
            FloorReport::new(&primitives, &syncs),
            start,
            runs,
        ))
    }

    /// Sends requests until a server that found no keys at its start, before this issuer was there, asks for them again.
    async fn warm_up(&self) -> Result<(), Failure> {
        let start = Instant::now();
        loop {
            let outcome = self.prepare(WARM_UP)?.drive(&self.target, 1).await;
            let Some(failure) = outcome.first_failure else {
                return Ok(());
            };
            if start.elapsed() > WARM_UP_PATIENCE {
                let issuer = self.issuer.url();
                return Err(Failure::operation(format!(
                    "no certificate for a token of {issuer}; the server must trust it as an issuer of type email with \
                     audience sigstore: {failure}"
                )));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn measure(
        &self,
        connections: usize,
        requests: usize,
        trust: &Trust,
    ) -> Result<Run, Failure> {
        let load = self.prepare(requests)?;
        let gone = |error: std::io::Error| {
            Failure::operation(format!("the server's process cannot be watched: {error}"))
        };
        let before = match self.process {
            Some(process) => {
                let is_reset = process.forget_peak_memory().is_ok();
                Some((process, process.cpu_time().map_err(gone)?, is_reset))
            }
            None => None,
        };
        let floor = FloorBeside::start();
        let outcome = load.drive(&self.target, connections).await;
        let floor = floor.stop().map_err(Failure::defect)?;
        let server_use = match before {
            Some((process, before, is_reset)) => {
                let cpu = process.cpu_time().map_err(gone)?.since(before);
                Some((cpu, process.peak_memory().map_err(gone)?, is_reset))
            }
            None => None,
        };
        let checked = outcome
            .check(trust, self.issuer, self.environment.clock.as_ref())
            .map_err(|error| Failure::operation(format!("a wrong certificate: {error}")))?;
        let mut run = Run::new(connections, outcome, checked);
        if let Some((cpu, peak_memory, is_reset)) = server_use {
            run.set_server_use(cpu, &floor, peak_memory, is_reset);
        }
        Ok(run)
    }

    fn prepare(&self, requests: usize) -> Result<Load, Failure> {
        Load::prepare_over(self.interface, requests, self.issuer, &self.target.host)
            .map_err(Failure::defect)
    }
}
