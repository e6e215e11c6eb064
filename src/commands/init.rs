//! `mayfly init`: makes an instance in a data folder.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Args};
use zeroize::Zeroizing;

use super::Failure;
use crate::ca::hierarchy::Names;
use crate::config::{PublicUrl, SYSTEM_DATA};
use crate::instance::NewInstance;
use crate::keys::file::Passphrase;
use crate::server::Environment;
use crate::store::object::BucketUrl;

/// The arguments of `mayfly init`.
#[derive(Args, Debug)]
#[command(group(ArgGroup::new("passphrase").args(["password_file", "no_password"])))]
pub(super) struct Arguments {
    /// The folder to make
    #[arg(
        long,
        env = "MAYFLY_DATA_DIR",
        hide_env_values = true,
        value_name = "DIR",
        default_value = SYSTEM_DATA
    )]
    data_dir: PathBuf,
    /// The URL that clients will use; the log's name and every trust file come from it, so it cannot change later
    #[arg(
        long,
        env = "MAYFLY_PUBLIC_URL",
        hide_env_values = true,
        value_name = "URL"
    )]
    public_url: PublicUrl,
    /// The organization in the CA's certificates [default: the host of the URL]
    #[arg(long, value_name = "NAME")]
    org: Option<String>,
    /// The common name of the root certificate [default: the organization and `root`]
    #[arg(long, value_name = "NAME")]
    common_name: Option<String>,
    /// A file with the passphrase that encrypts the private keys; without it and --no-password, it is asked for
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Leave the private keys unencrypted, readable by their owner alone
    #[arg(long)]
    no_password: bool,
    /// The file outside the data folder that remembers how far the log has come [default: beside the data folder]
    #[arg(long, value_name = "FILE")]
    high_water: Option<PathBuf>,
    /// Put the log into a bucket, which several servers may share: s3://BUCKET/PREFIX, gs://BUCKET/PREFIX or
    /// az://CONTAINER/PREFIX; credentials come from the environment [default: into the data folder]
    #[arg(long, value_name = "URL")]
    log_store: Option<BucketUrl>,
}

pub(super) fn run(arguments: &Arguments, environment: &Environment) -> Result<(), Failure> {
    let passphrase = match &arguments.password_file {
        Some(path) => Some(Passphrase::from_file(path).map_err(Failure::configuration)?),
        None if arguments.no_password => None,
        None => Some(ask_passphrase()?),
    };
    let data_dir = std::path::absolute(&arguments.data_dir).map_err(Failure::operation)?;
    let high_water = match &arguments.high_water {
        Some(path) => std::path::absolute(path).map_err(Failure::operation)?,
        None => beside(&data_dir),
    };
    let organization = arguments
        .org
        .clone()
        .unwrap_or_else(|| arguments.public_url.host().to_owned());
    let common_name = arguments
        .common_name
        .clone()
        .unwrap_or_else(|| format!("{organization} root"));
    let instance = NewInstance {
        data_dir: &data_dir,
        public_url: &arguments.public_url,
        names: Names {
            organization,
            common_name,
        },
        passphrase: passphrase.as_ref(),
        high_water: Some(&high_water),
        bucket: arguments.log_store.as_ref(),
        is_throw_away: false,
        clock: &environment.clock,
        random: &environment.random,
    };
    let created = instance.create().map_err(Failure::operation)?;

    let data_dir = data_dir.display();
    let url = &arguments.public_url;
    println!("Made an instance for {url} in {data_dir}");
    println!();
    println!("  root         {}", created.chain.root().subject());
    println!("  issuing CA   {}", created.chain.issuing().subject());
    println!("  log          {}", created.log_origin);
    if let Some(bucket) = &arguments.log_store {
        println!("  its store    {bucket}");
    }
    println!("  its memory   {}", high_water.display());
    println!();
    println!("Next:");
    println!("  1. Say who may have a certificate:   {data_dir}/identity.yaml");
    println!("  2. Take the root keys off this machine; the server never needs them:");
    for key in [&created.root_key, &created.tuf_root_key] {
        println!("                                       {}", key.display());
    }
    let password = match &arguments.password_file {
        Some(path) => {
            let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            format!(" --ca-key-password-file {}", path.display())
        }
        None if arguments.no_password => String::new(),
        None => " --ca-key-password-file FILE".to_owned(),
    };
    println!(
        "  3. Serve:                            mayfly serve --config {data_dir}/mayfly.yaml{password}"
    );
    println!(
        "  4. Give clients what they trust:     mayfly trust export --config {data_dir}/mayfly.yaml DIR"
    );
    Ok(())
}

/// `/var/lib/mayfly` → `/var/lib/mayfly-high-water/main`: outside the folder that a backup or a snapshot may restore.
fn beside(data_dir: &Path) -> PathBuf {
    let mut name = data_dir.file_name().unwrap_or_default().to_owned();
    name.push("-high-water");
    data_dir.with_file_name(name).join("main")
}

fn ask_passphrase() -> Result<Passphrase, Failure> {
    if !std::io::stdin().is_terminal() {
        let what = "the private keys need a passphrase: give --password-file FILE, or --no-password to leave them unencrypted";
        return Err(Failure {
            code: 2,
            message: what.to_owned(),
        });
    }
    let ask = |prompt: &str| {
        rpassword::prompt_password(prompt)
            .map(Zeroizing::new)
            .map_err(Failure::operation)
    };
    let first = ask("Passphrase for the private keys: ")?;
    if first.is_empty() {
        return Err(Failure::operation(
            "an empty passphrase protects nothing; use --no-password to say so",
        ));
    }
    if *ask("Once more: ")? != *first {
        return Err(Failure::operation("the two passphrases differ"));
    }
    Ok(Passphrase::new(first))
}
