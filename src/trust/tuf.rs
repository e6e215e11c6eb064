//! The trust files as a repository of The Update Framework (TUF 1.0): clients that know its root follow every change of them,
//! and take nothing that is older than what they have seen.
//!
//! A folder holds it: `root/key.pem` signs roots and nothing else, and belongs off the machine; `key.pem` signs the rest, and
//! is sealed as the CA's key is; `repository/` is what clients are served. Snapshots are consistent: what is named by a
//! version or by a hash never changes, and is written before what names it.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use rustix::fs::{FlockOperation, flock};
use serde_json::{Map, Value, json};
use time::{Duration, OffsetDateTime};

use super::canonical::canonical;
use super::{TrustError, instant, parse_instant, public_key_pem};
use crate::hex::hex;
use crate::keys::file::{self, KeyFileError, Passphrase};
use crate::keys::memory::{KeyError, NewKey};
use crate::keys::{InMemoryKey, SignError, SignatureAlgorithm, Signer as _};

/// The version of the specification that the metadata follows.
const SPEC_VERSION: &str = "1.0.31";
/// How long a root counts: as long as the root of the CA. Another is made in a minute.
const ROOT_LIFETIME: Duration = Duration::days(3650);
/// How long it counts which files there are.
const TARGETS_LIFETIME: Duration = Duration::days(182);
/// How long it counts that nothing newer is there. Whoever holds clients off for longer is found out.
const TIMESTAMP_LIFETIME: Duration = Duration::days(14);

/// What is served: names without a slash but for those below `targets/`, and their content.
pub type RepositoryFiles = BTreeMap<String, Vec<u8>>;

/// A file that clients ask for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    /// The name that clients know it by.
    pub name: String,
    /// What is in it.
    pub content: Vec<u8>,
    /// What older clients look for, where it is a key or a certificate.
    pub usage: Option<Usage>,
}

/// What a key or a certificate is for, as older clients of Sigstore find it (`custom.sigstore`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Usage {
    /// `Fulcio`, `CTFE`, `Rekor` or `TSA`.
    pub name: &'static str,
    /// Where the service is.
    pub uri: String,
}

/// Why a repository cannot be made, read or signed.
#[derive(Debug, thiserror::Error)]
pub enum TufError {
    /// There is one already.
    #[error("{}: is there already; a repository is never overwritten, as clients would refuse another", .0.display())]
    Exists(PathBuf),
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file of it is damaged.
    #[error("{}: {what}", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A key file cannot be read or written.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// A key cannot be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A key is of a kind that clients do not all verify.
    #[error("{}: keys of a TUF repository are ECDSA P-256, ECDSA P-384 or Ed25519", .0.display())]
    KeyKind(PathBuf),
    /// A key does not sign.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// The key is not the one that the root names.
    #[error("{}: not the key that root {version} names for {role}; `mayfly trust rotate` makes a root that names another", path.display())]
    OtherKey {
        /// Its file.
        path: PathBuf,
        /// Whose key it would be.
        role: &'static str,
        /// The version of the root.
        version: u64,
    },
    /// The trust files cannot be made.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

/// A repository in a folder.
#[derive(Clone, Debug)]
pub struct Repository {
    folder: PathBuf,
}

/// What a refresh came to.
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
pub struct Refreshed {
    /// Whether anything was signed.
    pub is_changed: bool,
    /// Whether the files that clients get are others.
    pub is_content_changed: bool,
    /// Each role, its version, and when it ends, RFC 3339.
    pub roles: Vec<RoleState>,
}

impl Refreshed {
    /// Whether no client can have seen any other version.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.roles.iter().all(|role| role.version == 1)
    }
}

/// A role's metadata.
#[derive(Clone, Debug, Eq, PartialEq, serde::Serialize)]
pub struct RoleState {
    /// `root`, `targets`, `snapshot` or `timestamp`.
    pub role: &'static str,
    /// Its version.
    pub version: u64,
    /// When it ends.
    #[serde(with = "time::serde::rfc3339")]
    pub expires: OffsetDateTime,
}

/// Keys of a root, as it is made.
#[derive(Debug)]
pub struct RootKeys<'a> {
    /// Sign it: the one that it names, and the one that the root before it names.
    pub root: &'a InMemoryKey,
    /// The key before it, where that is another.
    pub previous_root: Option<&'a InMemoryKey>,
}

impl Repository {
    /// The repository whose folder this is to be, or is.
    #[must_use]
    pub const fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Whether there is one.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.published("1.root.json").exists()
    }

    /// The file of the key that signs roots.
    #[must_use]
    pub fn root_key_path(&self) -> PathBuf {
        self.folder.join("root").join("key.pem")
    }

    /// The file of the key that signs the rest.
    #[must_use]
    pub fn online_key_path(&self) -> PathBuf {
        self.folder.join("key.pem")
    }

    /// The root that clients begin with.
    #[must_use]
    pub fn root_path(&self) -> PathBuf {
        self.published("root.json")
    }

    fn published(&self, name: &str) -> PathBuf {
        self.folder.join("repository").join(name)
    }

    /// Makes both keys and the first root.
    ///
    /// # Errors
    /// When there is a repository, or a file cannot be written.
    pub fn create(
        &self,
        passphrase: Option<&Passphrase>,
        now: OffsetDateTime,
    ) -> Result<(), TufError> {
        if self.exists() || self.root_key_path().exists() || self.online_key_path().exists() {
            return Err(TufError::Exists(self.folder.clone()));
        }
        for folder in ["root", "repository/targets"] {
            make_folder(&self.folder.join(folder))?;
        }
        let (root, root_pkcs8) = InMemoryKey::generate(NewKey::P256)?;
        let (online, online_pkcs8) = InMemoryKey::generate(NewKey::P256)?;
        file::create(&self.root_key_path(), &root_pkcs8, passphrase)?;
        file::create(&self.online_key_path(), &online_pkcs8, passphrase)?;
        let keys = RootKeys {
            root: &root,
            previous_root: None,
        };
        self.write_root(1, &keys, &self.public(&online)?, now)
    }

    /// Reads the key that signs all but roots.
    ///
    /// # Errors
    /// When it cannot be read, or is not the one that the root names.
    pub fn online_key(
        &self,
        passphrase: Option<&Passphrase>,
        allow_insecure_permissions: bool,
    ) -> Result<InMemoryKey, TufError> {
        let path = self.online_key_path();
        let key = file::load(&path, passphrase, allow_insecure_permissions)?;
        let root = self.root()?;
        if !root.names("timestamp", &self.public(&key)?.id) {
            return Err(self.other_key("timestamp", &root));
        }
        Ok(key)
    }

    /// Signs what has changed, or has less than half of its time left. Nothing is signed when nothing has.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn refresh(
        &self,
        targets: &[Target],
        key: &InMemoryKey,
        now: OffsetDateTime,
    ) -> Result<Refreshed, TufError> {
        let _lock = self.lock()?;
        let root = self.root()?;
        let public = self.public(key)?;
        if !root.names("timestamp", &public.id) {
            return Err(self.other_key("timestamp", &root));
        }
        let sign = |signed: Value| signed_by(&[(&public.id, key)], signed);
        let is_due = |previous: Option<&Metadata>, lifetime: Duration| {
            previous.is_none_or(|previous| {
                previous.expires - now < lifetime / 2 || !previous.is_signed_by(&public.id)
            })
        };
        let previous = self.previous()?;
        let (old_targets, old_snapshot) = (previous.targets.as_ref(), previous.snapshot.as_ref());

        let listed = listed(targets);
        let is_content_changed =
            old_targets.is_none_or(|old| old.signed.get("targets") != Some(&listed));
        let mut is_changed = is_content_changed || is_due(old_targets, TARGETS_LIFETIME);
        let targets_version = previous.targets_version + u64::from(is_changed);
        let expires = now + TARGETS_LIFETIME;
        if is_changed {
            for target in targets {
                self.write(&target_path(target), &target.content)?;
            }
            let body = role("targets", targets_version, expires, [("targets", listed)]);
            self.write(&format!("{targets_version}.targets.json"), &sign(body)?)?;
        }
        is_changed |= is_due(old_snapshot, TARGETS_LIFETIME);
        let snapshot_version = previous.snapshot_version + u64::from(is_changed);
        if is_changed {
            let meta = json!({ "targets.json": { "version": targets_version } });
            let body = role("snapshot", snapshot_version, expires, [("meta", meta)]);
            self.write(&format!("{snapshot_version}.snapshot.json"), &sign(body)?)?;
        }
        is_changed |= is_due(previous.timestamp.as_ref(), TIMESTAMP_LIFETIME);
        if is_changed {
            let version = previous.timestamp_version + 1;
            let meta = json!({ "snapshot.json": { "version": snapshot_version } });
            let expires = now + TIMESTAMP_LIFETIME;
            let body = role("timestamp", version, expires, [("meta", meta)]);
            // Last: it is what leads clients to the rest.
            self.write("timestamp.json", &sign(body)?)?;
        }
        Ok(Refreshed {
            is_changed,
            is_content_changed,
            roles: self.roles(&root)?,
        })
    }

    /// Whether these are the files that clients get, and nothing needs to be signed yet.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn is_current(&self, targets: &[Target], now: OffsetDateTime) -> Result<bool, TufError> {
        let previous = self.previous()?;
        let has_time = |metadata: &Option<Metadata>, lifetime: Duration| {
            let expires = metadata.as_ref().map(|metadata| metadata.expires);
            expires.is_some_and(|expires| expires - now >= lifetime / 2)
        };
        let listed = listed(targets);
        let is_same = previous
            .targets
            .as_ref()
            .is_some_and(|old| old.signed.get("targets") == Some(&listed));
        Ok(is_same
            && has_time(&previous.targets, TARGETS_LIFETIME)
            && has_time(&previous.snapshot, TARGETS_LIFETIME)
            && has_time(&previous.timestamp, TIMESTAMP_LIFETIME))
    }

    /// Makes the next root: the same keys for longer, or others. It is signed by the root key that it names and by the one
    /// before, so that clients of either follow.
    ///
    /// # Errors
    /// When `keys` do not hold the key that the root in force names, or a file cannot be written.
    pub fn rotate(
        &self,
        keys: &RootKeys<'_>,
        online: &InMemoryKey,
        now: OffsetDateTime,
    ) -> Result<u64, TufError> {
        let _lock = self.lock()?;
        let root = self.root()?;
        let before = keys.previous_root.unwrap_or(keys.root);
        if !root.names("root", &self.public(before)?.id) {
            return Err(self.other_key("root", &root));
        }
        let version = root.version + 1;
        self.write_root(version, keys, &self.public(online)?, now)?;
        Ok(version)
    }

    /// Makes the next root, which names a new key for all but roots, and puts that key in the place of the one before.
    ///
    /// # Errors
    /// See [`Self::rotate`].
    pub fn rotate_with_new_online_key(
        &self,
        keys: &RootKeys<'_>,
        passphrase: Option<&Passphrase>,
        now: OffsetDateTime,
    ) -> Result<u64, TufError> {
        let (online, pkcs8) = InMemoryKey::generate(NewKey::P256)?;
        let (path, new) = (self.online_key_path(), self.folder.join("key.pem.new"));
        // On the disk before a root names it; in its place after that.
        file::create(&new, &pkcs8, passphrase)?;
        let version = self.rotate(keys, &online, now)?;
        fs::rename(&new, &path).map_err(failed(&path))?;
        Ok(version)
    }

    /// Every file that clients may ask for.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn files(&self) -> Result<RepositoryFiles, TufError> {
        let mut files = BTreeMap::new();
        for folder in ["", "targets/"] {
            let path = self.published(folder);
            for entry in fs::read_dir(&path).map_err(failed(&path))? {
                let entry = entry.map_err(failed(&path))?;
                let file = entry.path();
                let name = entry.file_name().to_string_lossy().into_owned();
                if file.is_file() && !name.starts_with('.') {
                    let content = fs::read(&file).map_err(failed(&file))?;
                    files.insert(format!("{folder}{name}"), content);
                }
            }
        }
        Ok(files)
    }

    /// Copies every file that clients may ask for into a folder, what leads to the others last.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn export(&self, folder: &Path) -> Result<(), TufError> {
        let mut files: Vec<_> = self.files()?.into_iter().collect();
        files.sort_by_key(|(name, _)| {
            (
                !name.starts_with("targets/"),
                name.contains("snapshot"),
                name == "timestamp.json",
            )
        });
        make_public_folder(&folder.join("targets"))?;
        for (name, content) in files {
            replace(&folder.join(name), &content)?;
        }
        Ok(())
    }

    /// The state of every role.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn state(&self) -> Result<Vec<RoleState>, TufError> {
        self.roles(&self.root()?)
    }

    fn roles(&self, root: &Metadata) -> Result<Vec<RoleState>, TufError> {
        let previous = self.previous()?;
        let state = |role, metadata: &Metadata| RoleState {
            role,
            version: metadata.version,
            expires: metadata.expires,
        };
        let others = [
            ("targets", &previous.targets),
            ("snapshot", &previous.snapshot),
            ("timestamp", &previous.timestamp),
        ];
        let others = others
            .into_iter()
            .filter_map(|(role, metadata)| Some(state(role, metadata.as_ref()?)));
        Ok(std::iter::once(state("root", root)).chain(others).collect())
    }

    fn write_root(
        &self,
        version: u64,
        keys: &RootKeys<'_>,
        online: &PublicKey,
        now: OffsetDateTime,
    ) -> Result<(), TufError> {
        let root = self.public(keys.root)?;
        let keys_of = [&root, online].map(|key| (key.id.clone(), key.value.clone()));
        let by = |key: &PublicKey| json!({ "keyids": [key.id], "threshold": 1 });
        let roles = json!({
            "root": by(&root),
            "targets": by(online),
            "snapshot": by(online),
            "timestamp": by(online),
        });
        let members = [
            ("consistent_snapshot", json!(true)),
            ("keys", Value::Object(keys_of.into_iter().collect())),
            ("roles", roles),
        ];
        let body = role("root", version, now + ROOT_LIFETIME, members);
        let mut signers = vec![(root.id.clone(), keys.root)];
        if let Some(previous) = keys.previous_root {
            signers.push((self.public(previous)?.id, previous));
        }
        let signers: Vec<(&str, &InMemoryKey)> = signers
            .iter()
            .map(|(id, key)| (id.as_str(), *key))
            .collect();
        let text = signed_by(&signers, body)?;
        self.write(&format!("{version}.root.json"), &text)?;
        self.write("root.json", &text)
    }

    /// The root in force: the last of those that follow each other.
    fn root(&self) -> Result<Metadata, TufError> {
        let mut version = 1;
        while self
            .published(&format!("{}.root.json", version + 1))
            .exists()
        {
            version += 1;
        }
        self.metadata(&format!("{version}.root.json"))
    }

    /// What was signed last. Versions go on from the highest that there is, whatever the timestamp says: a version that was
    /// ever seen is never given to something else.
    fn previous(&self) -> Result<Previous, TufError> {
        let timestamp = self.optional("timestamp.json")?;
        let snapshot_version = self.highest("snapshot")?;
        if timestamp.is_none() && snapshot_version > 0 {
            return Err(TufError::Damaged {
                path: self.published("timestamp.json"),
                what: "missing; put that of a backup, or of an export, back: its version must not begin anew".to_owned(),
            });
        }
        let follow = |metadata: Option<&Metadata>, name: &str| {
            let version = metadata.and_then(|metadata| {
                let named = metadata.signed.get("meta")?.get(format!("{name}.json"))?;
                named.get("version")?.as_u64()
            });
            version.map_or(Ok(None), |version| {
                self.optional(&format!("{version}.{name}.json"))
            })
        };
        let snapshot = follow(timestamp.as_ref(), "snapshot")?;
        let targets = follow(snapshot.as_ref(), "targets")?;
        Ok(Previous {
            targets_version: self.highest("targets")?,
            snapshot_version,
            timestamp_version: timestamp.as_ref().map_or(0, |timestamp| timestamp.version),
            targets,
            snapshot,
            timestamp,
        })
    }

    /// The highest version of a role among the files; 0 when there is none.
    fn highest(&self, role: &str) -> Result<u64, TufError> {
        let folder = self.published("");
        let mut highest = 0;
        for entry in fs::read_dir(&folder).map_err(failed(&folder))? {
            let name = entry.map_err(failed(&folder))?.file_name();
            let name = name.to_string_lossy();
            let version = name.strip_suffix(&format!(".{role}.json"));
            let version = version.and_then(|version| version.parse().ok());
            highest = highest.max(version.unwrap_or(0));
        }
        Ok(highest)
    }

    fn optional(&self, name: &str) -> Result<Option<Metadata>, TufError> {
        if self.published(name).exists() {
            self.metadata(name).map(Some)
        } else {
            Ok(None)
        }
    }

    fn metadata(&self, name: &str) -> Result<Metadata, TufError> {
        let path = self.published(name);
        let text = fs::read(&path).map_err(failed(&path))?;
        Metadata::read(&text).ok_or_else(|| TufError::Damaged {
            path,
            what: "not the metadata that was written there; put the file of a backup back"
                .to_owned(),
        })
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), TufError> {
        replace(&self.published(name), content)
    }

    /// Keeps other processes from signing at the same time. The lock goes with the file.
    fn lock(&self) -> Result<File, TufError> {
        let path = self.folder.join("lock");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed(&path))?;
        flock(&file, FlockOperation::LockExclusive).map_err(|error| failed(&path)(error.into()))?;
        Ok(file)
    }

    fn other_key(&self, role: &'static str, root: &Metadata) -> TufError {
        let path = match role {
            "root" => self.root_key_path(),
            _ => self.online_key_path(),
        };
        TufError::OtherKey {
            path,
            role,
            version: root.version,
        }
    }

    fn public(&self, key: &InMemoryKey) -> Result<PublicKey, TufError> {
        PublicKey::of(key).ok_or_else(|| TufError::KeyKind(self.folder.clone()))
    }
}

/// The metadata that clients are led to, and the highest versions that there are.
struct Previous {
    targets: Option<Metadata>,
    snapshot: Option<Metadata>,
    timestamp: Option<Metadata>,
    targets_version: u64,
    snapshot_version: u64,
    timestamp_version: u64,
}

/// Signed metadata, read back.
struct Metadata {
    signed: Value,
    version: u64,
    expires: OffsetDateTime,
    key_ids: Vec<String>,
}

impl Metadata {
    fn read(text: &[u8]) -> Option<Self> {
        let mut document: Value = serde_json::from_slice(text).ok()?;
        let signatures = document.get("signatures")?.as_array()?;
        let key_ids = signatures
            .iter()
            .map(|signature| signature.get("keyid")?.as_str().map(str::to_owned));
        let key_ids = key_ids.collect::<Option<_>>()?;
        let signed = document.get_mut("signed")?.take();
        Some(Self {
            version: signed.get("version")?.as_u64()?,
            expires: parse_instant(signed.get("expires")?.as_str()?)?,
            signed,
            key_ids,
        })
    }

    fn is_signed_by(&self, key_id: &str) -> bool {
        self.key_ids.iter().any(|id| id == key_id)
    }

    /// Whether a root names this key for a role.
    fn names(&self, role: &str, key_id: &str) -> bool {
        let ids = self
            .signed
            .pointer(&format!("/roles/{role}/keyids"))
            .and_then(Value::as_array);
        ids.is_some_and(|ids| ids.iter().any(|id| id == key_id))
    }
}

/// A public key as metadata has it.
struct PublicKey {
    id: String,
    value: Value,
}

impl PublicKey {
    /// Nothing, where not all clients verify that kind.
    fn of(key: &InMemoryKey) -> Option<Self> {
        let der = key.public_key_der();
        let (kind, scheme, public) = match key.algorithm() {
            SignatureAlgorithm::EcdsaP256Sha256 => {
                ("ecdsa", "ecdsa-sha2-nistp256", public_key_pem(der))
            }
            SignatureAlgorithm::EcdsaP384Sha384 => {
                ("ecdsa", "ecdsa-sha2-nistp384", public_key_pem(der))
            }
            SignatureAlgorithm::Ed25519 => ("ed25519", "ed25519", hex(super::ed25519_key(der)?)),
            SignatureAlgorithm::EcdsaP521Sha512 | SignatureAlgorithm::RsaPkcs1Sha256 => {
                return None;
            }
        };
        let value = json!({ "keytype": kind, "scheme": scheme, "keyval": { "public": public } });
        let id = hex(digest(&SHA256, &canonical(&value)).as_ref());
        Some(Self { id, value })
    }
}

/// What a role signs, with these members of its own.
fn role<const N: usize>(
    name: &str,
    version: u64,
    expires: OffsetDateTime,
    members: [(&str, Value); N],
) -> Value {
    let common = [
        ("_type", json!(name)),
        ("spec_version", json!(SPEC_VERSION)),
        ("version", json!(version)),
        ("expires", json!(instant(expires))),
    ];
    let members = common.into_iter().chain(members);
    let members = members.map(|(name, value)| (name.to_owned(), value));
    Value::Object(members.collect())
}

/// The document of a role, signed by these keys.
fn signed_by(signers: &[(&str, &InMemoryKey)], signed: Value) -> Result<Vec<u8>, TufError> {
    let message = canonical(&signed);
    let signatures = signers.iter().map(|(id, key)| {
        let signature = key.sign_now(&message)?;
        Ok(json!({ "keyid": id, "sig": hex(&signature) }))
    });
    let signatures = signatures.collect::<Result<Vec<_>, SignError>>()?;
    let document = json!({ "signatures": signatures, "signed": signed });
    Ok(format!("{document:#}\n").into_bytes())
}

/// The member `targets` of the metadata.
fn listed(targets: &[Target]) -> Value {
    let entries = targets.iter().map(|target| {
        let mut entry = Map::new();
        entry.insert("length".to_owned(), json!(target.content.len()));
        let hashes = json!({ "sha256": sha256_hex(&target.content) });
        entry.insert("hashes".to_owned(), hashes);
        if let Some(Usage { name, uri }) = &target.usage {
            let custom = json!({ "sigstore": { "status": "Active", "usage": name, "uri": uri } });
            entry.insert("custom".to_owned(), custom);
        }
        (target.name.clone(), Value::Object(entry))
    });
    Value::Object(entries.collect())
}

/// Where a target lies: a consistent snapshot names it by its content.
fn target_path(target: &Target) -> String {
    format!("targets/{}.{}", sha256_hex(&target.content), target.name)
}

fn sha256_hex(content: &[u8]) -> String {
    hex(digest(&SHA256, content).as_ref())
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> TufError + use<> {
    let path = path.to_owned();
    move |source| TufError::File { path, source }
}

fn make_folder(path: &Path) -> Result<(), TufError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(failed(path))
}

fn make_public_folder(path: &Path) -> Result<(), TufError> {
    fs::create_dir_all(path).map_err(failed(path))
}

/// Puts a file in the place of another at once: whoever reads meanwhile sees the one or the other.
fn replace(path: &Path, content: &[u8]) -> Result<(), TufError> {
    let folder = path.parent().unwrap_or(path);
    let write = || -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(content)?;
        file.as_file()
            .set_permissions(Permissions::from_mode(0o644))?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(failed(path))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};
    use tempfile::TempDir;

    use super::*;
    use crate::clock::{Clock as _, FixedClock};

    fn now() -> OffsetDateTime {
        FixedClock::at("2026-01-02T03:04:05.5Z").now()
    }

    fn target(name: &str, content: &str) -> Target {
        Target {
            name: name.to_owned(),
            content: content.as_bytes().to_vec(),
            usage: None,
        }
    }

    /// A new repository in a folder that is there as long as the first value.
    fn created() -> (TempDir, Repository) {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::at(folder.path().join("tuf"));
        repository.create(None, now()).unwrap();
        (folder, repository)
    }

    fn refresh(repository: &Repository, content: &str, at: OffsetDateTime) -> Refreshed {
        let key = repository.online_key(None, false).unwrap();
        let targets = [target("trusted_root.json", content)];
        repository.refresh(&targets, &key, at).unwrap()
    }

    fn versions(refreshed: &Refreshed) -> Vec<u64> {
        refreshed.roles.iter().map(|role| role.version).collect()
    }

    fn document(repository: &Repository, name: &str) -> Value {
        serde_json::from_slice(&repository.files().unwrap()[name]).unwrap()
    }

    /// Follows metadata as a client does: signatures by the keys of the root, versions, hashes.
    fn checked(repository: &Repository) -> BTreeMap<String, Vec<u8>> {
        let files = repository.files().unwrap();
        let read = |name: String| -> Value { serde_json::from_slice(&files[&name]).unwrap() };
        let mut version = 1;
        while files.contains_key(&format!("{}.root.json", version + 1)) {
            let (old, new) = (
                read(format!("{version}.root.json")),
                read(format!("{}.root.json", version + 1)),
            );
            verify(&new, &old, "root");
            verify(&new, &new, "root");
            version += 1;
        }
        let root = read(format!("{version}.root.json"));
        assert_eq!(files["root.json"], files[&format!("{version}.root.json")]);
        let timestamp = read("timestamp.json".to_owned());
        let snapshot = timestamp["signed"]["meta"]["snapshot.json"]["version"].clone();
        let snapshot = read(format!("{snapshot}.snapshot.json"));
        let targets = snapshot["signed"]["meta"]["targets.json"]["version"].clone();
        let targets = read(format!("{targets}.targets.json"));
        for (document, role) in [
            (&timestamp, "timestamp"),
            (&snapshot, "snapshot"),
            (&targets, "targets"),
        ] {
            assert_eq!(document["signed"]["_type"], role);
            verify(document, &root, role);
        }
        let listed = targets["signed"]["targets"].as_object().unwrap();
        let contents = listed.iter().map(|(name, entry)| {
            let hash = entry["hashes"]["sha256"].as_str().unwrap();
            let content = files[&format!("targets/{hash}.{name}")].clone();
            assert_eq!(sha256_hex(&content), hash);
            assert_eq!(entry["length"], content.len());
            (name.clone(), content)
        });
        contents.collect()
    }

    /// Whether one of the keys that a root names for a role has signed a document.
    fn verify(document: &Value, root: &Value, role: &str) {
        let id = root["signed"]["roles"][role]["keyids"][0].as_str().unwrap();
        let key = &root["signed"]["keys"][id];
        assert_eq!(hex(digest(&SHA256, &canonical(key)).as_ref()), id);
        let pem = pem::parse(key["keyval"]["public"].as_str().unwrap()).unwrap();
        let signatures = document["signatures"].as_array().unwrap().iter();
        let mut signatures = signatures.filter(|signature| signature["keyid"] == id);
        let signature = signatures
            .next()
            .unwrap_or_else(|| panic!("{role}: no signature by {id}"));
        let signature = signature["sig"].as_str().unwrap();
        let octets = (0..signature.len()).step_by(2);
        let octets: Vec<u8> = octets
            .map(|place| u8::from_str_radix(&signature[place..place + 2], 16).unwrap())
            .collect();
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, pem.contents())
            .verify(&canonical(&document["signed"]), &octets)
            .unwrap_or_else(|_| panic!("{role}: the signature does not verify"));
    }

    #[test]
    fn a_client_that_knows_the_root_gets_to_the_files() {
        let (_folder, repository) = created();
        let refreshed = refresh(&repository, "one", now());
        assert_eq!(versions(&refreshed), [1, 1, 1, 1]);
        assert_eq!(instant(refreshed.roles[3].expires), "2026-01-16T03:04:05Z");
        assert_eq!(checked(&repository)["trusted_root.json"], b"one");
        let root = document(&repository, "1.root.json");
        assert_eq!(root["signed"]["consistent_snapshot"], true);
        assert_eq!(root["signed"]["expires"], "2035-12-31T03:04:05Z");
    }

    #[test]
    fn what_has_not_changed_is_not_signed_and_what_has_goes_up() {
        let (_folder, repository) = created();
        assert!(refresh(&repository, "one", now()).is_first());
        let before = repository.files().unwrap();
        let nothing = refresh(&repository, "one", now() + Duration::days(6));
        assert!(!nothing.is_changed);
        assert_eq!(repository.files().unwrap(), before);

        let changed = refresh(&repository, "two", now() + Duration::days(6));
        assert!(changed.is_changed && changed.is_content_changed && !changed.is_first());
        assert_eq!(versions(&changed), [1, 2, 2, 2]);
        assert_eq!(checked(&repository)["trusted_root.json"], b"two");
        // Who was led to the old ones finds them.
        for (name, content) in before {
            if !matches!(name.as_str(), "timestamp.json") {
                assert_eq!(repository.files().unwrap()[&name], content, "{name}");
            }
        }
    }

    #[test]
    fn each_role_is_signed_again_when_half_of_its_time_is_over() {
        let (_folder, repository) = created();
        refresh(&repository, "one", now());
        let after = |days| refresh(&repository, "one", now() + Duration::days(days));
        assert_eq!(versions(&after(6)), [1, 1, 1, 1]);
        assert_eq!(versions(&after(8)), [1, 1, 1, 2]);
        assert_eq!(versions(&after(90)), [1, 1, 1, 3]);
        assert_eq!(versions(&after(92)), [1, 2, 2, 4]);
        let targets = [target("trusted_root.json", "one")];
        assert!(
            repository
                .is_current(&targets, now() + Duration::days(93))
                .unwrap()
        );
        assert!(
            !repository
                .is_current(&targets, now() + Duration::days(100))
                .unwrap()
        );
        assert!(
            !repository
                .is_current(
                    &[target("trusted_root.json", "two")],
                    now() + Duration::days(93)
                )
                .unwrap()
        );
        checked(&repository);
    }

    #[test]
    fn older_clients_find_keys_by_their_usage() {
        let (_folder, repository) = created();
        let usage = Usage {
            name: "CTFE",
            uri: "https://ca.example.com/ct/main".to_owned(),
        };
        let target = Target {
            usage: Some(usage),
            ..target("ctfe.pub", "key")
        };
        let key = repository.online_key(None, false).unwrap();
        repository.refresh(&[target], &key, now()).unwrap();
        let entry = &document(&repository, "1.targets.json")["signed"]["targets"]["ctfe.pub"];
        let expected =
            json!({ "status": "Active", "usage": "CTFE", "uri": "https://ca.example.com/ct/main" });
        assert_eq!(entry["custom"]["sigstore"], expected);
    }

    #[test]
    fn a_root_is_followed_by_one_with_other_keys() {
        let (folder, repository) = created();
        refresh(&repository, "one", now());
        let load = |path: &Path| file::load(path, None, false).unwrap();
        let first = load(&repository.root_key_path());
        let first_online = load(&repository.online_key_path());
        let (second, _) = InMemoryKey::generate(NewKey::P256).unwrap();
        let keys = RootKeys {
            root: &second,
            previous_root: Some(&first),
        };
        repository
            .rotate_with_new_online_key(&keys, None, now())
            .unwrap();
        // What the key before has signed is signed anew, though nothing else has changed.
        let refreshed = refresh(&repository, "one", now());
        assert_eq!(versions(&refreshed), [2, 2, 2, 2]);
        assert!(!refreshed.is_content_changed);
        assert_eq!(checked(&repository)["trusted_root.json"], b"one");

        // Whoever still has the key before signs nothing that clients would refuse.
        let refused = repository.refresh(&[], &first_online, now());
        assert!(
            matches!(
                refused,
                Err(TufError::OtherKey {
                    role: "timestamp",
                    ..
                })
            ),
            "{refused:?}"
        );

        // The first root key has no say any more.
        let keys = RootKeys {
            root: &first,
            previous_root: None,
        };
        let online = repository.online_key(None, false).unwrap();
        let refused = repository.rotate(&keys, &online, now());
        assert!(
            matches!(
                refused,
                Err(TufError::OtherKey {
                    role: "root",
                    version: 2,
                    ..
                })
            ),
            "{refused:?}"
        );
        assert!(!folder.path().join("tuf/repository/3.root.json").exists());
    }

    #[test]
    fn another_key_and_a_lost_timestamp_are_refused() {
        let (folder, repository) = created();
        refresh(&repository, "one", now());
        fs::remove_file(repository.online_key_path()).unwrap();
        let (_, pkcs8) = InMemoryKey::generate(NewKey::P256).unwrap();
        file::create(&repository.online_key_path(), &pkcs8, None).unwrap();
        let refused = repository.online_key(None, false);
        assert!(
            matches!(
                refused,
                Err(TufError::OtherKey {
                    role: "timestamp",
                    ..
                })
            ),
            "{refused:?}"
        );

        // Its version would begin anew, and clients would take that for an attack.
        fs::remove_file(folder.path().join("tuf/repository/timestamp.json")).unwrap();
        let refused = repository.is_current(&[], now());
        assert!(
            matches!(refused, Err(TufError::Damaged { .. })),
            "{refused:?}"
        );
        assert!(matches!(
            repository.create(None, now()),
            Err(TufError::Exists(_))
        ));
    }
}
