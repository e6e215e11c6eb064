//! Private keys in PEM files, plain or encrypted with a passphrase.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use pkcs8::der::pem::PemLabel;
use pkcs8::{EncryptedPrivateKeyInfoRef, LineEnding, PrivateKeyInfoRef, SecretDocument};
use zeroize::Zeroizing;

use super::InMemoryKey;
use super::memory::KeyError;

mod rfc1423;
mod sealed;

use rfc1423::Rfc1423Error;
use sealed::SealedError;

/// The largest key file that is read, in bytes. An RSA-4096 key takes 3,300.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// A passphrase. Wiped when dropped, and shown nowhere.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

impl Passphrase {
    /// Takes a passphrase as a person typed it.
    #[must_use]
    pub const fn new(text: Zeroizing<String>) -> Self {
        Self(text)
    }

    /// Whether it has no character.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads a passphrase from a file; one line end at the end of the file is not part of it.
    ///
    /// # Errors
    /// When the file cannot be read or is empty.
    pub fn from_file(path: &Path) -> Result<Self, KeyFileError> {
        let unreadable = |source| KeyFileError::Read {
            path: path.to_owned(),
            source,
        };
        let mut text = Zeroizing::new(String::new());
        File::open(path)
            .and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text))
            .map_err(unreadable)?;
        let trimmed = text.strip_suffix('\n').map_or(text.as_str(), |line| {
            line.strip_suffix('\r').unwrap_or(line)
        });
        if trimmed.is_empty() {
            return Err(KeyFileError::EmptyPassphrase(path.to_owned()));
        }
        Ok(Self(Zeroizing::new(trimmed.to_owned())))
    }
}

impl std::str::FromStr for Passphrase {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::new(Zeroizing::new(text.to_owned())))
    }
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase([redacted])")
    }
}

/// Why a key file could not be read or written. Each says which file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file cannot be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Others than the owner can read the file.
    #[error("{}: others can read this private key (mode {mode:04o}); run `chmod 600` on it, or pass --allow-insecure-permissions", path.display())]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file belongs to another user, who can put another key into it.
    #[error("{}: this private key belongs to another user (id {owner}); run `chown` on it, or pass --allow-insecure-permissions", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// Everyone can put another file in the place of this one.
    #[error("{}: everyone can replace this private key, as its folder has mode {mode:04o}; run `chmod o-w` on the folder, or pass --allow-insecure-permissions", path.display())]
    Folder {
        /// The file.
        path: PathBuf,
        /// The permission bits of its folder.
        mode: u32,
    },
    /// The file is no PEM, or holds no private key.
    #[error("{}: no private key: {what}", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
        /// What is there instead, or what is wrong with it.
        what: String,
    },
    /// The key is encrypted and no passphrase was given.
    #[error("{}: this key is encrypted; name the file that holds its passphrase with --ca-key-password-file", .0.display())]
    PassphraseNeeded(PathBuf),
    /// The passphrase does not decrypt the key.
    #[error("{}: the passphrase does not decrypt this key", .0.display())]
    WrongPassphrase(PathBuf),
    /// The passphrase file is empty.
    #[error("{}: the passphrase file is empty", .0.display())]
    EmptyPassphrase(PathBuf),
    /// The key is of a kind that cannot sign here.
    #[error("{}: {source}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is supported.
        source: KeyError,
    },
}

/// Reads a private key from a PEM file: `PRIVATE KEY`, `ENCRYPTED PRIVATE KEY` (PBES2), `EC PRIVATE KEY` or
/// `RSA PRIVATE KEY`, the last two also as OpenSSL used to encrypt them (RFC 1423, AES), or as cosign seals one.
///
/// Unless `allow_insecure_permissions` is set, the file must be ours or root's, and readable by its owner alone; the process's
/// own group may read it too, as mounted Kubernetes Secrets have it. Nobody else may be able to replace it.
///
/// # Errors
/// See [`KeyFileError`].
pub fn load(
    path: &Path,
    passphrase: Option<&Passphrase>,
    allow_insecure_permissions: bool,
) -> Result<InMemoryKey, KeyFileError> {
    let unreadable = |source| KeyFileError::Read {
        path: path.to_owned(),
        source,
    };
    let no_key = |what: &str| KeyFileError::NoKey {
        path: path.to_owned(),
        what: what.to_owned(),
    };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(no_key("not a regular file"));
    }
    if !allow_insecure_permissions {
        check_permissions(path, &metadata)?;
    }
    let mut text = Zeroizing::new(String::new());
    file.take(MAX_FILE_BYTES)
        .read_to_string(&mut text)
        .map_err(unreadable)?;

    let block = pem::parse(text.as_str()).map_err(|_| no_key("not a PEM file"))?;
    let label = block.tag().to_owned();
    let legacy_encryption = block.headers().get("DEK-Info").map(str::to_owned);
    let mut der = Zeroizing::new(block.into_contents());
    let needed = || passphrase.ok_or_else(|| KeyFileError::PassphraseNeeded(path.to_owned()));
    if let Some(header) = legacy_encryption {
        der = rfc1423::decrypt(&header, der, needed()?).map_err(|error| match error {
            Rfc1423Error::WrongPassphrase => KeyFileError::WrongPassphrase(path.to_owned()),
            Rfc1423Error::Cipher => no_key(
                "encrypted in an old form; convert it with `openssl pkcs8 -topk8 -v2 aes-256-cbc -in OLD -out NEW`",
            ),
        })?;
    }
    let key = match label.as_str() {
        "ENCRYPTED PRIVATE KEY" => {
            let passphrase = needed()?;
            let encrypted = EncryptedPrivateKeyInfoRef::try_from(der.as_slice())
                .map_err(|_| no_key("the ENCRYPTED PRIVATE KEY block is not PKCS#8"))?;
            let decrypted = encrypted
                .decrypt(passphrase.0.as_bytes())
                .map_err(|_| KeyFileError::WrongPassphrase(path.to_owned()))?;
            InMemoryKey::from_der(decrypted.as_bytes())
        }
        "PRIVATE KEY" | "EC PRIVATE KEY" | "RSA PRIVATE KEY" => InMemoryKey::from_der(&der),
        label if sealed::LABELS.contains(&label) => {
            let opened = sealed::open(&der, needed()?).map_err(|error| match error {
                SealedError::WrongPassphrase => KeyFileError::WrongPassphrase(path.to_owned()),
                SealedError::Form => {
                    no_key("it is not sealed as cosign does it, with scrypt and a secretbox")
                }
            })?;
            InMemoryKey::from_der(&opened)
        }
        other => return Err(no_key(&format!("the PEM block is a {other}"))),
    };
    key.map_err(|source| KeyFileError::Unsupported {
        path: path.to_owned(),
        source,
    })
}

/// Checks that nobody else can read or replace a key file.
fn check_permissions(path: &Path, file: &Metadata) -> Result<(), KeyFileError> {
    let mode = file.mode() & 0o777;
    let own_group = file.gid() == rustix::process::getegid().as_raw();
    let allowed = if own_group { 0o740 } else { 0o700 };
    if mode & !allowed != 0 {
        return Err(KeyFileError::Permissions {
            path: path.to_owned(),
            mode,
        });
    }
    let owner = file.uid();
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(KeyFileError::Owner {
            path: path.to_owned(),
            owner,
        });
    }
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let folder = std::fs::metadata(folder).map_err(|source| KeyFileError::Read {
        path: path.to_owned(),
        source,
    })?;
    // With the sticky bit, as a mounted Kubernetes Secret has it, only a file's owner can replace it.
    let mode = folder.mode() & 0o7777;
    if mode & 0o1002 == 0o0002 {
        return Err(KeyFileError::Folder {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}

/// Writes a PKCS#8 key to a new file with mode 0600, encrypted (PBES2 with scrypt and AES-256) when there is a
/// passphrase, and syncs it. Never overwrites.
///
/// # Errors
/// When the file exists or cannot be written, or `pkcs8` is not PKCS#8.
pub fn create(
    path: &Path,
    pkcs8: &[u8],
    passphrase: Option<&Passphrase>,
) -> Result<(), KeyFileError> {
    let no_key = |what: &str| KeyFileError::NoKey {
        path: path.to_owned(),
        what: what.to_owned(),
    };
    let info =
        PrivateKeyInfoRef::try_from(pkcs8).map_err(|_| no_key("the new key is not PKCS#8"))?;
    let pem = match passphrase {
        Some(passphrase) => info.encrypt(passphrase.0.as_bytes()).and_then(|document| {
            Ok(document.to_pem(
                pkcs8::EncryptedPrivateKeyInfo::<Vec<u8>>::PEM_LABEL,
                LineEnding::LF,
            )?)
        }),
        None => SecretDocument::try_from(pkcs8)
            .and_then(|document| document.to_pem(PrivateKeyInfoRef::PEM_LABEL, LineEnding::LF))
            .map_err(Into::into),
    }
    .map_err(|_| no_key("the new key could not be encoded"))?;
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| {
            file.write_all(pem.as_bytes())?;
            file.sync_all()
        });
    written.map_err(|source| KeyFileError::Write {
        path: path.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::keys::Signer;
    use crate::keys::memory::NewKey;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(Zeroizing::new(text.to_owned()))
    }

    #[test]
    fn keys_are_read_back_plain_and_encrypted() {
        let folder = tempfile::tempdir().unwrap();
        for (name, secret) in [
            ("plain.pem", None),
            ("encrypted.pem", Some(passphrase("correct horse"))),
        ] {
            let path = folder.path().join(name);
            let (key, pkcs8) = InMemoryKey::generate(NewKey::P256).unwrap();

            create(&path, &pkcs8, secret.as_ref()).unwrap();

            let loaded = load(&path, secret.as_ref(), false).unwrap();
            assert_eq!(loaded.public_key_der(), key.public_key_der());
            assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
            assert!(
                matches!(create(&path, &pkcs8, None), Err(KeyFileError::Write { .. })),
                "{name} was overwritten"
            );
        }
        let encrypted = folder.path().join("encrypted.pem");
        assert!(matches!(
            load(&encrypted, None, false),
            Err(KeyFileError::PassphraseNeeded(_))
        ));
        let wrong = passphrase("wrong horse");
        assert!(matches!(
            load(&encrypted, Some(&wrong), false),
            Err(KeyFileError::WrongPassphrase(_))
        ));
    }

    #[test]
    fn a_key_in_the_old_form_is_read_with_its_passphrase() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let vector = include_bytes!("../../tests/vectors/openssl-aes-256.key.pem");
        std::fs::write(&path, vector).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();

        load(&path, Some(&passphrase("correct horse")), false).unwrap();
        assert!(matches!(
            load(&path, None, false),
            Err(KeyFileError::PassphraseNeeded(_))
        ));
        assert!(matches!(
            load(&path, Some(&passphrase("wrong horse")), false),
            Err(KeyFileError::WrongPassphrase(_))
        ));
    }

    #[test]
    fn a_key_that_cosign_sealed_is_opened_with_its_passphrase() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        let vector = include_str!("../../tests/vectors/cosign.key.pem");
        let write = |text: &str| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        };
        write(vector);
        let key = load(&path, Some(&passphrase("opensesame")), false).unwrap();
        let public = include_str!("../../tests/vectors/cosign.pub.pem");
        assert_eq!(key.public_key_der(), pem::parse(public).unwrap().contents());
        assert!(matches!(
            load(&path, None, false),
            Err(KeyFileError::PassphraseNeeded(_))
        ));
        assert!(matches!(
            load(&path, Some(&passphrase("wrong horse")), false),
            Err(KeyFileError::WrongPassphrase(_))
        ));
        // The label of older releases.
        write(&vector.replace("SIGSTORE", "COSIGN"));
        load(&path, Some(&passphrase("opensesame")), false).unwrap();

        let json = pem::parse(vector).unwrap().into_contents();
        let json = String::from_utf8(json).unwrap();
        for (from, to) in [
            ("65536", "65537"),
            ("65536", "4294967296"),
            ("\"p\":1", "\"p\":1000000"),
            ("scrypt", "argon2"),
            ("nacl/secretbox", "aes"),
            ("\"nonce\":\"", "\"nonce\":\"AA"),
            ("{", ""),
        ] {
            let block = pem::Pem::new("ENCRYPTED SIGSTORE PRIVATE KEY", json.replacen(from, to, 1));
            write(&pem::encode(&block));
            let refused = load(&path, Some(&passphrase("opensesame")), false).unwrap_err();
            let refused = refused.to_string();
            assert!(
                refused.contains("not sealed as cosign does it"),
                "{to}: {refused}"
            );
        }
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        create(&path, &InMemoryKey::generate(NewKey::P256).unwrap().1, None).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();

        assert!(matches!(
            load(&path, None, false),
            Err(KeyFileError::Permissions { mode: 0o644, .. })
        ));
        load(&path, None, true).unwrap();
    }

    #[test]
    fn a_key_that_others_can_replace_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        create(&path, &InMemoryKey::generate(NewKey::P256).unwrap().1, None).unwrap();
        let set_folder = |mode| {
            std::fs::set_permissions(folder.path(), Permissions::from_mode(mode)).unwrap();
        };
        for mode in [0o777, 0o703] {
            set_folder(mode);
            let refused = load(&path, None, false).unwrap_err();
            assert!(
                matches!(refused, KeyFileError::Folder { mode: found, .. } if found == mode),
                "{mode:o}: {refused}"
            );
            load(&path, None, true).unwrap();
        }
        for mode in [0o1777, 0o755, 0o770, 0o700] {
            set_folder(mode);
            load(&path, None, false).unwrap_or_else(|error| panic!("{mode:o}: {error}"));
        }
    }

    #[test]
    fn a_key_of_another_user_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        create(&path, &InMemoryKey::generate(NewKey::P256).unwrap().1, None).unwrap();
        // Only root can give a file away.
        if std::os::unix::fs::chown(&path, Some(4711), None).is_err() {
            return;
        }
        let refused = load(&path, None, false).unwrap_err();
        assert!(
            matches!(refused, KeyFileError::Owner { owner: 4711, .. }),
            "{refused}"
        );
        load(&path, None, true).unwrap();
    }

    #[test]
    fn what_is_no_key_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        for (text, expected) in [
            ("hello", "not a PEM file"),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "the PEM block is a CERTIFICATE",
            ),
            (
                "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: DES-CBC,0011223344556677\n\nAAAA\n-----END EC PRIVATE KEY-----\n",
                "openssl pkcs8 -topk8",
            ),
        ] {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            let error = load(&path, Some(&passphrase("correct horse")), false);
            let error = error.unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
