//! Private keys as `cosign generate-key-pair` seals them: PKCS#8 in a secretbox of NaCl, whose key scrypt (RFC 7914) makes of
//! the passphrase, described by JSON inside of the PEM block.
//!
//! Read for the sake of the CAs that have such a file, and never written.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto_secretbox::aead::Aead as _;
use crypto_secretbox::{KeyInit as _, XSalsa20Poly1305};
use scrypt::Params;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::Passphrase;

/// The labels of such blocks, now and before.
pub(super) const LABELS: [&str; 2] = [
    "ENCRYPTED SIGSTORE PRIVATE KEY",
    "ENCRYPTED COSIGN PRIVATE KEY",
];

/// The most octets that scrypt may take; cosign has it take 64 MiB.
const MAX_MEMORY: u64 = 256 << 20;

/// Why such a block is not opened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum SealedError {
    /// It is no such box, or asks for more memory or time than it should.
    Form,
    /// The passphrase does not open it.
    WrongPassphrase,
}

#[derive(Deserialize)]
struct Sealed {
    kdf: Kdf,
    cipher: Cipher,
    ciphertext: String,
}

#[derive(Deserialize)]
struct Kdf {
    name: String,
    params: KdfParams,
    salt: String,
}

#[derive(Deserialize)]
struct KdfParams {
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
}

#[derive(Deserialize)]
struct Cipher {
    name: String,
    nonce: String,
}

/// Opens the contents of a block.
pub(super) fn open(
    contents: &[u8],
    passphrase: &Passphrase,
) -> Result<Zeroizing<Vec<u8>>, SealedError> {
    let sealed: Sealed = serde_json::from_slice(contents).map_err(|_| SealedError::Form)?;
    let decode = |text: &str| STANDARD.decode(text).map_err(|_| SealedError::Form);
    let nonce: [u8; 24] = decode(&sealed.cipher.nonce)?
        .try_into()
        .map_err(|_| SealedError::Form)?;
    if sealed.kdf.name != "scrypt" || sealed.cipher.name != "nacl/secretbox" {
        return Err(SealedError::Form);
    }
    let mut key = Zeroizing::new([0; 32]);
    let (params, salt) = (sealed.kdf.params.check()?, decode(&sealed.kdf.salt)?);
    scrypt::scrypt(passphrase.0.as_bytes(), &salt, &params, &mut *key)
        .map_err(|_| SealedError::Form)?;
    let ciphertext = decode(&sealed.ciphertext)?;
    XSalsa20Poly1305::new((&*key).into())
        .decrypt((&nonce).into(), ciphertext.as_slice())
        .map(Zeroizing::new)
        .map_err(|_| SealedError::WrongPassphrase)
}

impl KdfParams {
    fn check(&self) -> Result<Params, SealedError> {
        let Self { n, r, p } = *self;
        let memory = n.checked_mul(128 * u64::from(r));
        let is_bounded = memory.is_some_and(|memory| memory <= MAX_MEMORY) && p <= 4;
        if !n.is_power_of_two() || !is_bounded {
            return Err(SealedError::Form);
        }
        let log_n = u8::try_from(n.trailing_zeros()).map_err(|_| SealedError::Form)?;
        Params::new(log_n, r, p).map_err(|_| SealedError::Form)
    }
}
