//! `mayfly dev`: a whole private Sigstore CA on this machine alone, to be thrown away.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::Args;

use super::{Failure, self_test, serve};
use crate::ca::hierarchy::Names;
use crate::commands::say;
use crate::config::{GrpcListen, InstanceState, PublicUrl, ServerConfig, Settings, parse_address};
use crate::dev::DevIssuers;
use crate::dev::oidc::TestKeys;
use crate::instance::NewInstance;
use crate::logging::{self, LogFormat};
use crate::server::{Environment, ExtraRoutes, Server, Sockets};

/// The arguments of `mayfly dev`.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The address of the API [default: that of the last time, where --data-dir keeps it; else 127.0.0.1:5555; with
    /// --self-test a free port]
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    listen: Option<SocketAddr>,
    /// The address of metrics and health [default: 127.0.0.1:2112; with --self-test a free port]
    #[arg(long, value_name = "ADDR", value_parser = parse_address)]
    metrics_listen: Option<SocketAddr>,
    /// Where the trust files and a token are written
    #[arg(long, value_name = "DIR", default_value = "mayfly-dev")]
    out: PathBuf,
    /// Keep CA and log in this folder, and go on with them the next time [default: a new temporary folder]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Get a certificate, check everything about it, print how long each step took, and stop
    #[arg(long)]
    self_test: bool,
    /// Listen on an address that other machines reach, although anyone can get any identity from this server
    #[arg(long)]
    dangerously_listen_anywhere: bool,
    /// Lowest level of log lines, or a list of target=level [default: info; with --self-test error]
    #[arg(
        long,
        env = "MAYFLY_LOG_LEVEL",
        value_name = "LEVEL",
        hide_env_values = true
    )]
    log_level: Option<String>,
}

pub(super) fn run(arguments: &Arguments, environment: &Environment) -> Result<(), Failure> {
    let start = Instant::now();
    let default_level = if arguments.self_test { "error" } else { "info" };
    logging::start(
        arguments.log_level.as_deref().unwrap_or(default_level),
        LogFormat::Auto,
    )
    .map_err(Failure::configuration)?;
    let default_port =
        |port: u16| SocketAddr::from(([127, 0, 0, 1], if arguments.self_test { 0 } else { port }));
    let listen = match arguments.listen {
        Some(address) => address,
        None => kept_address(arguments.data_dir.as_deref())?.unwrap_or_else(|| default_port(5555)),
    };
    let metrics_listen = arguments
        .metrics_listen
        .unwrap_or_else(|| default_port(2112));
    for address in [listen, metrics_listen] {
        if !address.ip().is_loopback() && !arguments.dangerously_listen_anywhere {
            return Err(Failure::configuration(format!(
                "{address} is reached from other machines, and `mayfly dev` gives anyone any identity; \
                 use a loopback address, or --dangerously-listen-anywhere"
            )));
        }
    }

    let stop = serve::stop_signal(&[], None)?;
    let sockets = Sockets::bind(listen, metrics_listen)?;
    let url = format!("http://{}", sockets.api_address()?);
    let temporary = tempfile::Builder::new()
        .prefix("mayfly-dev-")
        .tempdir()
        .map_err(Failure::operation)?;
    let data_dir = arguments
        .data_dir
        .clone()
        .unwrap_or_else(|| temporary.path().join("data"));
    let public_url: PublicUrl = url.parse().map_err(Failure::defect)?;
    make_instance(&data_dir, &public_url, environment)?;

    let keys = Arc::new(TestKeys::generate().map_err(Failure::defect)?);
    let issuers = Arc::new(DevIssuers::new(&url, &keys, &environment.clock));
    let identity_config = temporary.path().join("identity.yaml");
    std::fs::write(&identity_config, issuers.identity_file()).map_err(Failure::operation)?;
    let settings = Settings {
        data_dir: Some(data_dir.clone()),
        public_url: Some(public_url),
        identity_config: Some(identity_config),
        listen: Some(listen),
        metrics_listen: Some(metrics_listen),
        grpc_listen: Some(GrpcListen(None)),
        grpc_reflection: Some(true),
        ..Settings::default()
    };
    let config = ServerConfig::new(settings)?;
    let server = Server::new(&config, sockets, environment, true)?;

    let routes: ExtraRoutes = {
        let issuers = Arc::clone(&issuers);
        Arc::new(move |routes| issuers.configure(routes))
    };
    if arguments.self_test {
        return self_test::run(server, routes, stop, start, environment);
    }

    let out = &arguments.out;
    server.trust().export(out).map_err(Failure::operation)?;
    let token = issuers
        .email()
        .map(|issuer| issuer.token_for_query("email=dev@example.com&ttl=86400"));
    let token = token
        .transpose()
        .map_err(Failure::defect)?
        .unwrap_or_default();
    write_private(&out.join("token"), &token)?;
    let env = format!(
        "export SIGSTORE_ID_TOKEN=\"$(cat {})\"\n",
        out.join("token").display()
    );
    write_private(&out.join("env.sh"), &env)?;
    print_welcome(
        &url,
        &server.metrics_url()?,
        out,
        &data_dir,
        arguments.data_dir.is_some(),
    );
    server.run(Some(routes), stop)?;
    Ok(())
}

/// The address of the instance in a folder, if there is one: its URL names it, and cannot change.
fn kept_address(data_dir: Option<&Path>) -> Result<Option<SocketAddr>, Failure> {
    let Some(data_dir) = data_dir.filter(|folder| InstanceState::path(folder).exists()) else {
        return Ok(None);
    };
    let url: Option<PublicUrl> = InstanceState::read(data_dir)?.public_url.parse().ok();
    Ok(url.and_then(|url| url.authority().parse().ok()))
}

/// Makes an instance, unless the folder holds one.
fn make_instance(
    data_dir: &Path,
    public_url: &PublicUrl,
    environment: &Environment,
) -> Result<(), Failure> {
    if InstanceState::path(data_dir).exists() {
        return Ok(());
    }
    let instance = NewInstance {
        data_dir,
        public_url,
        names: Names {
            organization: "Mayfly dev".to_owned(),
            common_name: "Mayfly dev root".to_owned(),
        },
        passphrase: None,
        high_water: None,
        bucket: None,
        is_throw_away: true,
        clock: &environment.clock,
        random: &environment.random,
    };
    instance.create().map(drop).map_err(Failure::operation)
}

/// Writes a file that only its owner can read: a token is a secret.
fn write_private(path: &Path, text: &str) -> Result<(), Failure> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| Failure::operation(format!("{}: {error}", path.display())))
}

fn print_welcome(url: &str, metrics: &str, out: &Path, data_dir: &Path, is_kept: bool) {
    let out = out.display();
    let (data_dir, fate) = (
        data_dir.display(),
        if is_kept {
            "kept"
        } else {
            "deleted at the end"
        },
    );
    say!("DEV MODE: test identity provider enabled, do not expose");
    println!(
        "
Mayfly is serving a certificate authority of your own, with its transparency log.

  API and log     {url} (gRPC too)
  test issuer     {url}/dev/oidc
  metrics         {metrics}
  trust files     {out}/
  data            {data_dir} ({fate})

Sign a file and verify it with cosign, while this runs:

  echo hello > hello.txt
  cosign sign-blob -y --signing-config {out}/signing_config.json --trusted-root {out}/trusted_root.json --identity-token {out}/token --bundle hello.sigstore.json hello.txt
  cosign verify-blob --trusted-root {out}/trusted_root.json --certificate-identity dev@example.com --certificate-oidc-issuer {url}/dev/oidc --insecure-ignore-tlog --bundle hello.sigstore.json hello.txt

  (verify within ten minutes: without a timestamp, a signature counts while its certificate lives)

A token for someone else, or for a workflow of GitHub Actions:

  curl '{url}/dev/oidc/token?email=ada@example.com'
  curl '{url}/dev/oidc/github/token?preset=github&claim.repository=acme/app'

The log, as anyone can read it:

  curl {url}/ct/main/checkpoint

Stop with Ctrl-C.
"
    );
}
