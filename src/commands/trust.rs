//! `mayfly trust`: the files by which clients trust an instance, and the TUF repository that keeps clients up to date.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use time::OffsetDateTime;

use super::log::{Output, print_json};
use super::{ConfigPaths, Failure, print};
use crate::clock::rfc3339;
use crate::config::{ServerConfig, Settings, tuf_folder};
use crate::keys::InMemoryKey;
use crate::keys::file::{self, KeyFileError, Passphrase};
use crate::keys::memory::NewKey;
use crate::server::{self, Environment};
use crate::trust::TrustMaterial;
use crate::trust::tuf::{Refreshed, Repository, RoleState, RootKeys, TufError};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write trusted_root.json, signing_config.json, the single files that older clients read, and the TUF repository
    Export(ExportArguments),
    /// Make the TUF repository of an instance that has none: its keys and its first root
    Init(InitArguments),
    /// Sign the TUF repository again, if the trust files have changed or its time runs out; a running server does that itself
    Refresh(RefreshArguments),
    /// Make the next root of the TUF repository: for longer, or with other keys
    Rotate(RotateArguments),
}

/// The arguments of `mayfly trust export`.
#[derive(Args, Debug)]
#[command(after_help = "\
Below DIR/tuf is a static TUF repository, where the instance has one: any web server may serve it, under any URL. It is signed
again when something has changed or half of its time is over, so an export once a week keeps it good.

Examples:
  mayfly trust export --config mayfly.yaml trust
  cosign initialize --mirror https://ca.example.com/tuf --root trust/tuf/root.json")]
pub(super) struct ExportArguments {
    /// The folder to write into
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    #[command(flatten)]
    instance: InstanceArguments,
}

/// The arguments of `mayfly trust init`.
#[derive(Args, Debug)]
pub(super) struct InitArguments {
    #[command(flatten)]
    instance: InstanceArguments,
    /// Leave the private keys unencrypted, readable by their owner alone
    #[arg(long, conflicts_with = "ca_key_password_file")]
    no_password: bool,
}

/// The arguments of `mayfly trust refresh`.
#[derive(Args, Debug)]
pub(super) struct RefreshArguments {
    #[command(flatten)]
    instance: InstanceArguments,
    /// How the outcome is printed
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// The arguments of `mayfly trust rotate`.
#[derive(Args, Debug)]
#[command(after_help = "\
The next root is signed by the root key that it names and by the one before, so that every client follows. Without --new-root-key
and --new-online-key it names the same keys, for longer.

Examples:
  mayfly trust rotate --config mayfly.yaml --root-key /media/offline/key.pem
  mayfly trust rotate --config mayfly.yaml --root-key /media/offline/key.pem --new-online-key")]
pub(super) struct RotateArguments {
    #[command(flatten)]
    instance: InstanceArguments,
    /// The key that the root in force names [default: tuf/root/key.pem in the data folder]
    #[arg(long, value_name = "FILE")]
    root_key: Option<PathBuf>,
    /// The passphrase of that key, and of the one that takes its place [default: that of --ca-key-password-file]
    #[arg(long, value_name = "FILE")]
    root_key_password_file: Option<PathBuf>,
    /// Make another root key, in this file
    #[arg(long, value_name = "FILE")]
    new_root_key: Option<PathBuf>,
    /// Make another key for everything else: the one before may have been seen
    #[arg(long)]
    new_online_key: bool,
    /// How the outcome is printed
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

/// Which instance.
#[derive(Args, Debug)]
struct InstanceArguments {
    #[command(flatten)]
    paths: ConfigPaths,
    /// The CA's certificates, where they are not in the data folder
    #[arg(
        long,
        env = "MAYFLY_CA_CERT",
        value_name = "FILE",
        hide_env_values = true
    )]
    ca_cert: Option<PathBuf>,
    /// The log that certificates are in, where it is another's and not in the configuration file
    #[arg(
        long,
        env = "MAYFLY_CT_LOG_URL",
        value_name = "URL",
        hide_env_values = true
    )]
    ct_log_url: Option<String>,
    /// Its public key, a PEM file
    #[arg(
        long,
        env = "MAYFLY_CT_LOG_PUBLIC_KEY",
        value_name = "FILE",
        hide_env_values = true
    )]
    ct_log_public_key: Option<PathBuf>,
    /// The passphrase of the TUF repository's key, which is that of the CA's
    #[arg(
        long,
        env = "MAYFLY_CA_KEY_PASSWORD_FILE",
        value_name = "FILE",
        hide_env_values = true
    )]
    ca_key_password_file: Option<PathBuf>,
}

pub(super) fn run(command: Command, environment: &Environment) -> Result<(), Failure> {
    let now = environment.clock.now();
    match command {
        Command::Export(arguments) => {
            let instance = Instance::load(arguments.instance)?;
            let folder = &arguments.folder;
            for name in instance.trust.export(folder).map_err(Failure::operation)? {
                println!("{}", folder.join(name).display());
            }
            if instance.repository.exists() {
                let targets = instance.trust.targets().map_err(Failure::operation)?;
                // Its key is not needed where there is nothing to sign.
                if !instance.repository.is_current(&targets, now)? {
                    instance.refresh(now)?;
                }
                let folder = folder.join("tuf");
                instance.repository.export(&folder)?;
                println!("{}", folder.join("root.json").display());
            }
            Ok(())
        }
        Command::Init(arguments) => init(arguments, now),
        Command::Refresh(arguments) => {
            let instance = Instance::load(arguments.instance)?;
            instance.needs_repository()?;
            tell(&instance.refresh(now)?, arguments.output)
        }
        Command::Rotate(arguments) => rotate(arguments, now),
    }
}

/// An instance, and what its clients trust.
struct Instance {
    config: ServerConfig,
    trust: TrustMaterial,
    repository: Repository,
}

impl Instance {
    fn load(arguments: InstanceArguments) -> Result<Self, Failure> {
        let settings = Settings {
            ca_cert: arguments.ca_cert,
            ct_log_url: arguments.ct_log_url,
            ct_log_public_key: arguments.ct_log_public_key,
            ca_key_password_file: arguments.ca_key_password_file,
            ..arguments.paths.settings()
        };
        let config = arguments.paths.server_config(settings)?;
        Ok(Self {
            trust: server::exported_trust(&config)?,
            repository: Repository::at(tuf_folder(&config.data_dir)),
            config,
        })
    }

    fn needs_repository(&self) -> Result<(), Failure> {
        if self.repository.exists() {
            return Ok(());
        }
        let folder = tuf_folder(&self.config.data_dir);
        Err(Failure::configuration(format!(
            "{}: there is no TUF repository; `mayfly trust init` makes one",
            folder.display()
        )))
    }

    fn passphrase(&self) -> Result<Option<Passphrase>, KeyFileError> {
        let path = self.config.ca_key_password_file.as_deref();
        path.map(Passphrase::from_file).transpose()
    }

    fn online_key(&self) -> Result<InMemoryKey, Failure> {
        let passphrase = self.passphrase().map_err(TufError::from)?;
        let insecure = self.config.allow_insecure_permissions;
        Ok(self.repository.online_key(passphrase.as_ref(), insecure)?)
    }

    fn refresh(&self, now: OffsetDateTime) -> Result<Refreshed, Failure> {
        let targets = self.trust.targets().map_err(TufError::from)?;
        Ok(self
            .repository
            .refresh(&targets, &self.online_key()?, now)?)
    }
}

fn init(arguments: InitArguments, now: OffsetDateTime) -> Result<(), Failure> {
    let no_password = arguments.no_password;
    let instance = Instance::load(arguments.instance)?;
    let passphrase = instance.passphrase().map_err(TufError::from)?;
    if passphrase.is_none() && !no_password {
        return Err(Failure {
            code: 2,
            message: "the private keys need a passphrase: give --ca-key-password-file FILE, or --no-password to leave them unencrypted".to_owned(),
        });
    }
    let repository = &instance.repository;
    repository.create(passphrase.as_ref(), now)?;
    // What a service manager runs as another user must be able to sign.
    let refreshed = instance.refresh(now)?;
    let text = format!(
        "Made a TUF repository\n\n{}\nNext:\n  1. Give clients its root:           {}\n  2. Take its key off this machine:   {}\n",
        roles(&refreshed.roles),
        repository.root_path().display(),
        repository.root_key_path().display(),
    );
    print(&text)
}

fn rotate(arguments: RotateArguments, now: OffsetDateTime) -> Result<(), Failure> {
    let instance = Instance::load(arguments.instance)?;
    instance.needs_repository()?;
    let repository = &instance.repository;
    let insecure = instance.config.allow_insecure_permissions;
    let passphrase = match &arguments.root_key_password_file {
        Some(path) => Some(Passphrase::from_file(path).map_err(TufError::from)?),
        None => instance.passphrase().map_err(TufError::from)?,
    };
    let path = arguments
        .root_key
        .unwrap_or_else(|| repository.root_key_path());
    let root = file::load(&path, passphrase.as_ref(), insecure).map_err(TufError::from)?;
    let new_root = arguments.new_root_key.as_deref().map(|path| {
        let (key, pkcs8) = InMemoryKey::generate(NewKey::P256).map_err(TufError::from)?;
        file::create(path, &pkcs8, passphrase.as_ref()).map_err(TufError::from)?;
        Ok::<_, Failure>(key)
    });
    let new_root = new_root.transpose()?;
    let keys = match &new_root {
        Some(new) => RootKeys {
            root: new,
            previous_root: Some(&root),
        },
        None => RootKeys {
            root: &root,
            previous_root: None,
        },
    };
    if arguments.new_online_key {
        let passphrase = instance.passphrase().map_err(TufError::from)?;
        repository.rotate_with_new_online_key(&keys, passphrase.as_ref(), now)?;
    } else {
        repository.rotate(&keys, &instance.online_key()?, now)?;
    }
    tell(&instance.refresh(now)?, arguments.output)
}

fn tell(refreshed: &Refreshed, output: Output) -> Result<(), Failure> {
    match output {
        Output::Json => print_json(refreshed),
        Output::Text => {
            let what = match (refreshed.is_content_changed, refreshed.is_changed) {
                (true, _) => "Signed: the trust files have changed",
                (false, true) => "Signed again",
                (false, false) => "Nothing to sign",
            };
            print(&format!("{what}\n\n{}", roles(&refreshed.roles)))
        }
    }
}

fn roles(roles: &[RoleState]) -> String {
    let line = |state: &RoleState| {
        let RoleState {
            role,
            version,
            expires,
        } = state;
        let end = rfc3339(*expires);
        format!("  {role:<12}version {version:<6}until {end}\n")
    };
    roles.iter().map(line).collect()
}

impl From<TufError> for Failure {
    fn from(error: TufError) -> Self {
        match &error {
            TufError::Exists(_) | TufError::Sign(_) => Self::operation(error),
            TufError::File { .. } => Self::dependency(error),
            TufError::Key(_) => Self::defect(error),
            TufError::Damaged { .. }
            | TufError::KeyFile(_)
            | TufError::KeyKind(_)
            | TufError::OtherKey { .. }
            | TufError::Trust(_) => Self::configuration(error),
        }
    }
}
