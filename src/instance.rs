//! A new instance: its hierarchy, its log, its keys and its first configuration, in one data folder.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use time::format_description::well_known::Rfc3339;
use url::Host;

use crate::ca::hierarchy::{Hierarchy, HierarchyError, Names};
use crate::clock::Clock;
use crate::config::{ConfigError, InstanceState, PublicUrl, ca_folder, log_folder, tuf_folder};
use crate::ctlog::embedded::{
    EmbeddedLog, EmbeddedLogConfig, EmbeddedLogError, EmbeddedLogParts, LogDescription,
};
use crate::keys::InMemoryKey;
use crate::keys::file::{self, KeyFileError, Passphrase};
use crate::keys::memory::{KeyError, NewKey};
use crate::random::Random;
use crate::store::folder::{Folder, FolderOptions};
use crate::store::object::{BucketUrl, ObjectStorage};
use crate::store::{Store, StoreError};
use crate::trust::tuf::{Repository, TufError};
use crate::x509::chain::CertificateChain;

/// Why an instance was not made.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// Something lies in the data folder already. Nothing is ever overwritten.
    #[error("{}: is not empty; an instance is never overwritten. Give another folder, or remove this one if it is an unfinished `mayfly init`", .0.display())]
    NotEmpty(PathBuf),
    /// A file or folder cannot be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A key file cannot be written.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// A key cannot be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The CA certificates cannot be made.
    #[error(transparent)]
    Hierarchy(#[from] HierarchyError),
    /// The log cannot be made.
    #[error(transparent)]
    Log(#[from] EmbeddedLogError),
    /// The log's store cannot be made.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The TUF repository cannot be made.
    #[error(transparent)]
    Tuf(#[from] TufError),
    /// The log's settings are wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// What an instance is made from.
#[derive(Debug)]
pub struct NewInstance<'a> {
    /// The folder to make; it must not exist, or be empty.
    pub data_dir: &'a Path,
    /// The URL that clients will use.
    pub public_url: &'a PublicUrl,
    /// The names in the CA's certificates.
    pub names: Names,
    /// Encrypts the private keys.
    pub passphrase: Option<&'a Passphrase>,
    /// The file outside the data folder that remembers how far the log has come.
    pub high_water: Option<&'a Path>,
    /// Where the log is to live, if not in the data folder.
    pub bucket: Option<&'a BucketUrl>,
    /// Whether the log may lie where nothing survives a restart of the machine.
    pub is_throw_away: bool,
    /// The time.
    pub clock: &'a Arc<dyn Clock>,
    /// Serial numbers come from here.
    pub random: &'a Arc<dyn Random>,
}

/// What was made.
#[derive(Debug)]
pub struct CreatedInstance {
    /// Issuing CA, root.
    pub chain: CertificateChain,
    /// The first line of the log's checkpoints.
    pub log_origin: String,
    /// Where the root's key lies.
    pub root_key: PathBuf,
    /// Where the key lies that signs roots of the TUF repository.
    pub tuf_root_key: PathBuf,
}

impl NewInstance<'_> {
    /// Makes the instance. `state.json` is written last: a folder without it is unfinished, and is not served.
    ///
    /// # Errors
    /// See [`InstanceError`].
    pub fn create(&self) -> Result<CreatedInstance, InstanceError> {
        let data_dir = self.data_dir;
        make_folder(data_dir)?;
        if std::fs::read_dir(data_dir)
            .map_err(failed(data_dir))?
            .next()
            .is_some()
        {
            return Err(InstanceError::NotEmpty(data_dir.to_owned()));
        }
        let now = self.clock.now();

        let hierarchy = Hierarchy::generate(&self.names, now, self.random.as_ref())?;
        let current = ca_folder(data_dir);
        let ca = current.parent().unwrap_or(data_dir);
        let generation = ca.join("gen-0001");
        make_folder(&generation)?;
        file::create(
            &generation.join("key.pem"),
            &hierarchy.issuing_key_pkcs8,
            self.passphrase,
        )?;
        let pems: Vec<String> = hierarchy
            .chain
            .certificates()
            .iter()
            .map(|one| one.pem() + "\n")
            .collect();
        write_new(&generation.join("chain.pem"), &pems.concat(), 0o644)?;
        symlink("gen-0001", &current).map_err(failed(&current))?;
        let root = ca.join("root");
        make_folder(&root)?;
        let root_key = root.join("key.pem");
        file::create(&root_key, &hierarchy.root_key_pkcs8, self.passphrase)?;

        let (log_key, log_key_pkcs8) = InMemoryKey::generate(NewKey::P256)?;
        let folder = log_folder(data_dir);
        make_folder(folder.parent().unwrap_or(data_dir))?;
        // What waits for a bucket runs here.
        let runtime = tokio::runtime::Runtime::new().map_err(failed(data_dir))?;
        let store: Arc<dyn Store> = if let Some(bucket) = self.bucket {
            make_folder(&folder)?;
            let random = self.random.as_ref();
            Arc::new(ObjectStorage::open(bucket, runtime.handle(), random)?)
        } else {
            let options = FolderOptions {
                allow_volatile: self.is_throw_away,
                allow_network: false,
            };
            Arc::new(Folder::create(&folder, options, Arc::clone(self.random))?)
        };
        file::create(&folder.join("key.pem"), &log_key_pkcs8, self.passphrase)?;
        if let Some(parent) = self.high_water.and_then(Path::parent) {
            make_folder(parent)?;
        }
        let config = EmbeddedLogConfig {
            high_water: self.high_water.map(Path::to_owned),
            store: self.bucket.map(ToString::to_string),
            ..EmbeddedLogConfig::default()
        };
        let settings = config
            .check(self.public_url.as_url())
            .map_err(|error| ConfigError::one(error.to_string()))?;
        let parts = EmbeddedLogParts {
            store: Arc::clone(&store),
            signer: Arc::new(log_key),
            clock: Arc::clone(self.clock),
            random: Arc::clone(self.random),
            // Creation reports its errors; nothing has been promised yet.
            metrics: None,
            on_fatal: Arc::new(|_| {}),
        };
        EmbeddedLog::create(&settings, &parts)?;
        if self.bucket.is_some() {
            LogDescription::copy(store.as_ref(), &folder)?;
        }

        let repository = Repository::at(tuf_folder(data_dir));
        repository.create(self.passphrase, now)?;

        write_new(&data_dir.join("mayfly.yaml"), &self.server_file(), 0o644)?;
        write_new(&data_dir.join("identity.yaml"), IDENTITY_FILE, 0o644)?;
        let state = InstanceState {
            format: InstanceState::FORMAT,
            public_url: self.public_url.to_string(),
            created: now
                .replace_nanosecond(0)
                .unwrap_or(now)
                .format(&Rfc3339)
                .unwrap_or_default(),
            version: crate::VERSION.to_owned(),
        };
        let text = serde_json::to_string_pretty(&state).unwrap_or_default() + "\n";
        write_new(&InstanceState::path(data_dir), &text, 0o644)?;
        std::fs::File::open(data_dir)
            .and_then(|folder| folder.sync_all())
            .map_err(failed(data_dir))?;
        Ok(CreatedInstance {
            chain: hierarchy.chain,
            log_origin: settings.origin().to_owned(),
            root_key,
            tuf_root_key: repository.root_key_path(),
        })
    }

    /// Where the server listens: on this machine alone, if nobody else can use its URL.
    fn listen(&self) -> SocketAddr {
        const PORT: u16 = 5555;
        let url = self.public_url.as_url();
        let address = match url.host() {
            Some(Host::Domain("localhost")) => Some(IpAddr::from(Ipv4Addr::LOCALHOST)),
            Some(Host::Ipv4(address)) => Some(address.into()),
            Some(Host::Ipv6(address)) => Some(address.into()),
            Some(Host::Domain(_)) | None => None,
        };
        match address.filter(IpAddr::is_loopback) {
            Some(address) => (address, url.port().unwrap_or(PORT)).into(),
            None => (Ipv4Addr::UNSPECIFIED, PORT).into(),
        }
    }

    fn server_file(&self) -> String {
        let high_water = self.high_water.map(|path| {
            format!(
                "  # Remembers how far the log has come, outside the log. Best on another volume, and in no backup.\n  \
                 high-water: {}\n",
                serde_json::Value::from(path.display().to_string())
            )
        });
        let bucket = self.bucket.map(|url| {
            format!(
                "  # Where the log lives. Any number of servers may share it, each with a copy of this folder.\n  store: {url}\n"
            )
        });
        let log = [bucket, high_water].map(Option::unwrap_or_default).concat();
        let log = if log.is_empty() {
            log
        } else {
            format!("ct:\n{log}")
        };
        let password = if self.passphrase.is_some() {
            "# The passphrase of the CA's key and the log's key.\n# ca-key-password-file: /run/credentials/mayfly.service/ca-pass\n"
        } else {
            ""
        };
        format!(
            "# Mayfly's server configuration. `mayfly serve --help` describes every key; paths are relative to this file.\n\
             data-dir: .\nidentity-config: identity.yaml\npublic-url: {}\n\n\
             # The API and the log. Add tls-cert and tls-key to serve HTTPS.\nlisten: {}\n\
             # Metrics and health.\nmetrics-listen: 127.0.0.1:2112\n{password}{}",
            self.public_url,
            self.listen(),
            log,
        )
    }
}

/// The first identity file: it trusts nobody until its admin says whom.
const IDENTITY_FILE: &str = "\
# Who may have a certificate. Each issuer is an OIDC provider whose tokens are accepted; the certificate carries the
# identity that the token proves. Take the comment signs away from what you need.
oidc-issuers:
  # People, by e-mail address, from a provider of your own.
  # https://accounts.example.com:
  #   issuer-url: https://accounts.example.com
  #   client-id: sigstore
  #   type: email
  # Workflows of one organisation on GitHub. `mayfly presets` lists what else is known.
  # https://token.actions.githubusercontent.com:
  #   issuer-url: https://token.actions.githubusercontent.com
  #   client-id: sigstore
  #   preset: github
  #   allow:
  #     - repository_owner: acme
";

/// Makes a folder, and those above it, that only its owner can enter. One that exists stays as it is.
fn make_folder(path: &Path) -> Result<(), InstanceError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed(path))
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), InstanceError> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.sync_all()
        });
    written.map_err(failed(path))
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> InstanceError + use<> {
    let path = path.to_owned();
    move |source| InstanceError::Write { path, source }
}
