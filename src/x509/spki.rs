//! Public keys of requesters: from what a client sent to a key that is fit for a certificate.
//!
//! A [`SubjectPublicKey`] is well formed, of a kind that we certify, and not known to be weak; there is no other way to one.

use std::fmt;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use aws_lc_rs::signature as lc;

use super::der::{self, DerError, tag};
use super::pem::{PemBlock, PemError};
use super::weak_rsa;
pub use super::weak_rsa::WeakModulus;
use crate::reason::Reason;

/// The longest public key that is looked at, in octets, PEM or DER.
pub const MAX_PUBLIC_KEY_BYTES: usize = 16 * 1024;

// The whole AlgorithmIdentifier of the keys that we certify: an encoding that differs in any octet is another algorithm.
/// RFC 5480, section 2.1.1: id-ecPublicKey with secp256r1.
const P256: &[u8] = &[
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
    0xce, 0x3d, 0x03, 0x01, 0x07,
];
/// RFC 5480, section 2.1.1: id-ecPublicKey with secp384r1.
const P384: &[u8] = &[
    0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04,
    0x00, 0x22,
];
/// RFC 5480, section 2.1.1: id-ecPublicKey with secp521r1.
const P521: &[u8] = &[
    0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04,
    0x00, 0x23,
];
/// RFC 3279, section 2.3.1: rsaEncryption with NULL.
const RSA: &[u8] = &[
    0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];
/// RFC 8410, section 3: id-Ed25519 without parameters.
const ED25519: &[u8] = &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];

/// id-ecPublicKey, content octets.
const ID_EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];

/// Algorithms that Fulcio can read and calls insecure; everything else that is not above it cannot read. Content octets of
/// the curve's OID or of the algorithm's.
const INSECURE: [(&[u8], &str); 3] = [
    (&[0x2b, 0x81, 0x04, 0x00, 0x21], "ECDSA P-224"),
    (&[0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x01], "DSA"),
    (&[0x2b, 0x65, 0x6e], "X25519"),
];

/// What we certify, for messages.
const ACCEPTED: &str = "ECDSA P-256, P-384 or P-521, RSA of 2048, 3072 or 4096 bits, or Ed25519";

/// The one public exponent that is accepted, 65537.
const RSA_EXPONENT: &[u8] = &[0x01, 0x00, 0x01];

/// The kinds of key that certificates are issued for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum KeyKind {
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// ECDSA on P-521.
    EcdsaP521,
    /// RSA with a modulus of 2048 bits.
    Rsa2048,
    /// RSA with a modulus of 3072 bits.
    Rsa3072,
    /// RSA with a modulus of 4096 bits.
    Rsa4096,
    /// Ed25519.
    Ed25519,
}

impl KeyKind {
    /// Every kind.
    pub const ALL: [Self; 7] = [
        Self::EcdsaP256,
        Self::EcdsaP384,
        Self::EcdsaP521,
        Self::Rsa2048,
        Self::Rsa3072,
        Self::Rsa4096,
        Self::Ed25519,
    ];

    /// The kind as metrics and logs name it, such as `p256`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "p256",
            Self::EcdsaP384 => "p384",
            Self::EcdsaP521 => "p521",
            Self::Rsa2048 => "rsa2048",
            Self::Rsa3072 => "rsa3072",
            Self::Rsa4096 => "rsa4096",
            Self::Ed25519 => "ed25519",
        }
    }

    /// The scheme that a proof of possession uses with this kind of key.
    #[must_use]
    pub const fn proof_scheme(self) -> SignatureScheme {
        match self {
            Self::EcdsaP256 => SignatureScheme::Ecdsa(Hash::Sha256),
            Self::EcdsaP384 => SignatureScheme::Ecdsa(Hash::Sha384),
            Self::EcdsaP521 => SignatureScheme::Ecdsa(Hash::Sha512),
            Self::Rsa2048 | Self::Rsa3072 | Self::Rsa4096 => {
                SignatureScheme::RsaPkcs1(Hash::Sha256)
            }
            Self::Ed25519 => SignatureScheme::Ed25519,
        }
    }
}

/// Names the kind for people, such as `ECDSA P-256`.
impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EcdsaP256 => "ECDSA P-256",
            Self::EcdsaP384 => "ECDSA P-384",
            Self::EcdsaP521 => "ECDSA P-521",
            Self::Rsa2048 => "RSA-2048",
            Self::Rsa3072 => "RSA-3072",
            Self::Rsa4096 => "RSA-4096",
            Self::Ed25519 => "Ed25519",
        })
    }
}

/// A hash function of the SHA-2 family (FIPS 180-4).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Hash {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

impl Hash {
    /// The name, such as `SHA-256`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA-256",
            Self::Sha384 => "SHA-384",
            Self::Sha512 => "SHA-512",
        }
    }
}

/// How a signature is made from a message.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum SignatureScheme {
    /// ECDSA (FIPS 186-5, section 6).
    Ecdsa(Hash),
    /// RSASSA-PKCS1-v1_5 (RFC 8017, section 8.2).
    RsaPkcs1(Hash),
    /// Pure Ed25519 (RFC 8032, section 5.1).
    Ed25519,
}

impl SignatureScheme {
    /// The hash of the message, where the scheme has one of its own.
    #[must_use]
    pub const fn hash(self) -> Option<Hash> {
        match self {
            Self::Ecdsa(hash) | Self::RsaPkcs1(hash) => Some(hash),
            Self::Ed25519 => None,
        }
    }
}

/// Why a public key is not accepted. The client's fault, always.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum KeyError {
    /// No key was sent.
    #[error(
        "the request holds neither a public key nor a certificate signing request; send the PEM text of a public key"
    )]
    Missing,
    /// Longer than [`MAX_PUBLIC_KEY_BYTES`].
    #[error("the public key is longer than {MAX_PUBLIC_KEY_BYTES} bytes")]
    TooLarge,
    /// It is a private key, which its owner must replace: it has been sent over the network.
    #[error(
        "the public key field holds a private key; stop using that key, and send only the public key"
    )]
    PrivateKey,
    /// Not PEM, where PEM was expected.
    #[error("{0}; expected a PEM block labelled PUBLIC KEY")]
    Pem(#[from] PemError),
    /// PEM with a label that is not that of a public key.
    #[error("the PEM block is not labelled PUBLIC KEY or RSA PUBLIC KEY")]
    Label,
    /// Not a DER SubjectPublicKeyInfo of its algorithm; what is wrong with it.
    #[error("the public key is malformed: {0}")]
    Malformed(&'static str),
    /// An algorithm that Fulcio cannot read either; which one.
    #[error("public keys of {0} are not accepted; use {ACCEPTED}")]
    Unsupported(String),
    /// An algorithm that Fulcio can read but does not certify; which one.
    #[error("public keys of {0} are not accepted; use {ACCEPTED}")]
    Insecure(&'static str),
    /// An RSA modulus of another size, in bits.
    #[error("the RSA key has {0} bits; use one of exactly 2048, 3072 or 4096 bits")]
    RsaSize(usize),
    /// An RSA exponent that is not 65537.
    #[error("the RSA key's public exponent is not 65537")]
    RsaExponent,
    /// An RSA modulus that can be factored.
    #[error("the RSA key is weak: {0}; make a new one")]
    RsaModulus(#[from] WeakModulus),
    /// An Ed25519 point of small order, or not in its one canonical encoding: anyone can sign for it.
    #[error("the Ed25519 key is weak: its point has a small order or is not canonically encoded")]
    Ed25519Point,
}

impl KeyError {
    /// The code that stands for it.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Missing
            | Self::TooLarge
            | Self::PrivateKey
            | Self::Pem(_)
            | Self::Label
            | Self::Malformed(_) => Reason::MalformedPublicKey,
            Self::Unsupported(_) | Self::Insecure(_) => Reason::AlgorithmNotPermitted,
            Self::RsaSize(_) | Self::RsaExponent | Self::RsaModulus(_) | Self::Ed25519Point => {
                Reason::WeakKey
            }
        }
    }

    /// Whether the key could be read and is refused for what it is, rather than for how it was written.
    #[must_use]
    pub const fn is_insecure(&self) -> bool {
        match self {
            Self::Insecure(_)
            | Self::RsaSize(_)
            | Self::RsaExponent
            | Self::RsaModulus(_)
            | Self::Ed25519Point => true,
            Self::Missing
            | Self::TooLarge
            | Self::PrivateKey
            | Self::Pem(_)
            | Self::Label
            | Self::Malformed(_)
            | Self::Unsupported(_) => false,
        }
    }
}

impl From<DerError> for KeyError {
    fn from(_: DerError) -> Self {
        Self::Malformed("it is not a DER SubjectPublicKeyInfo")
    }
}

/// The signature does not verify.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct BadSignature;

/// A public key that a certificate may be issued for: well formed, of an accepted kind, not known to be weak.
#[derive(Clone)]
pub struct SubjectPublicKey {
    spki_der: Vec<u8>,
    key_bits_len: usize,
    kind: KeyKind,
    /// The key, ready to verify with the kind's [`KeyKind::proof_scheme`].
    parsed: lc::ParsedPublicKey,
}

impl fmt::Debug for SubjectPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubjectPublicKey")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

impl SubjectPublicKey {
    /// Reads the first PEM block of `text`: `PUBLIC KEY` (SubjectPublicKeyInfo, RFC 7468, section 13) or `RSA PUBLIC KEY`
    /// (PKCS#1, RFC 8017, appendix A.1.1).
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        if text.len() > MAX_PUBLIC_KEY_BYTES {
            return Err(KeyError::TooLarge);
        }
        let block = PemBlock::first(text)?;
        if block.is_private_key() {
            return Err(KeyError::PrivateKey);
        }
        match block.label() {
            "PUBLIC KEY" => Self::from_der(block.decode()?),
            "RSA PUBLIC KEY" => {
                let bits = [&[0][..], &block.decode()?].concat();
                let bits = der::encode(tag::BIT_STRING, &[&bits]);
                Self::from_der(der::encode(tag::SEQUENCE, &[RSA, &bits]))
            }
            _ => Err(KeyError::Label),
        }
    }

    /// Reads PEM as [`Self::from_pem`] does, or, where there is no PEM block, a DER SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn from_pem_or_der(bytes: &[u8]) -> Result<Self, KeyError> {
        match Self::from_pem(bytes) {
            Err(KeyError::Pem(PemError::NoBlock)) => Self::from_der(bytes.to_vec()),
            result => result,
        }
    }

    /// Reads a DER SubjectPublicKeyInfo (RFC 5280, section 4.1), and keeps it octet for octet.
    ///
    /// # Errors
    /// See [`KeyError`].
    pub fn from_der(spki_der: Vec<u8>) -> Result<Self, KeyError> {
        if spki_der.len() > MAX_PUBLIC_KEY_BYTES {
            return Err(KeyError::TooLarge);
        }
        let (algorithm, key_bits) = split_spki(&spki_der)?;
        let kind = match algorithm.whole {
            P256 => KeyKind::EcdsaP256,
            P384 => KeyKind::EcdsaP384,
            P521 => KeyKind::EcdsaP521,
            RSA => check_rsa(key_bits)?,
            ED25519 => check_ed25519(key_bits)?,
            _ => return Err(refuse_algorithm(algorithm.content)),
        };
        let verification = verification_algorithm(kind, kind.proof_scheme())
            .ok_or(KeyError::Malformed("its algorithm has no proof"))?;
        let parsed = match kind {
            KeyKind::EcdsaP256 => parse_point(key_bits, 32, verification),
            KeyKind::EcdsaP384 => parse_point(key_bits, 48, verification),
            KeyKind::EcdsaP521 => parse_point(key_bits, 66, verification),
            KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 | KeyKind::Ed25519 => {
                lc::ParsedPublicKey::new(verification, key_bits)
                    .map_err(|_| KeyError::Malformed("the key cannot be used"))
            }
        }?;
        Ok(Self {
            key_bits_len: key_bits.len(),
            kind,
            parsed,
            spki_der,
        })
    }

    /// The DER SubjectPublicKeyInfo, octet for octet as it was sent.
    #[must_use]
    pub fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// The content of the `subjectPublicKey` BIT STRING, without the octet that counts unused bits.
    #[must_use]
    pub fn key_bits(&self) -> &[u8] {
        // The BIT STRING ends the SubjectPublicKeyInfo.
        self.spki_der
            .len()
            .checked_sub(self.key_bits_len)
            .map_or(&[], |start| self.spki_der.get(start..).unwrap_or_default())
    }

    /// The SHA-1 hash of [`Self::key_bits`]: the key's identifier (RFC 5280, section 4.2.1.2, method 1).
    #[must_use]
    pub fn key_identifier(&self) -> [u8; 20] {
        let mut identifier = [0; 20];
        identifier.copy_from_slice(digest(&SHA1_FOR_LEGACY_USE_ONLY, self.key_bits()).as_ref());
        identifier
    }

    /// What kind of key it is.
    #[must_use]
    pub const fn kind(&self) -> KeyKind {
        self.kind
    }

    /// Verifies a signature over `message`. An ECDSA signature is a DER `ECDSA-Sig-Value` (RFC 3279, section 2.2.3).
    ///
    /// # Errors
    /// When it does not verify, or the scheme does not fit the key.
    pub fn verify(
        &self,
        scheme: SignatureScheme,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), BadSignature> {
        if self.kind == KeyKind::Ed25519 && !has_usable_commitment(signature) {
            return Err(BadSignature);
        }
        if scheme == self.kind.proof_scheme() {
            return self
                .parsed
                .verify_sig(message, signature)
                .map_err(|_| BadSignature);
        }
        let algorithm = verification_algorithm(self.kind, scheme).ok_or(BadSignature)?;
        lc::UnparsedPublicKey::new(algorithm, self.key_bits())
            .verify(message, signature)
            .map_err(|_| BadSignature)
    }

    /// Verifies a proof of possession: a signature by the kind's [`KeyKind::proof_scheme`]. An ECDSA signature may also be
    /// the halves r and s one after the other (IEEE P1363), which is what WebCrypto makes.
    ///
    /// # Errors
    /// When it does not verify.
    pub fn verify_proof(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        let halves: &'static dyn lc::VerificationAlgorithm = match self.kind {
            KeyKind::EcdsaP256 => &lc::ECDSA_P256_SHA256_FIXED,
            KeyKind::EcdsaP384 => &lc::ECDSA_P384_SHA384_FIXED,
            KeyKind::EcdsaP521 => &lc::ECDSA_P521_SHA512_FIXED,
            KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 | KeyKind::Ed25519 => {
                return self.verify(self.kind.proof_scheme(), message, signature);
            }
        };
        if is_der_ecdsa_signature(signature) {
            return self.verify(self.kind.proof_scheme(), message, signature);
        }
        lc::UnparsedPublicKey::new(halves, self.key_bits())
            .verify(message, signature)
            .map_err(|_| BadSignature)
    }
}

/// Cuts a SubjectPublicKeyInfo into its AlgorithmIdentifier and the content of its BIT STRING.
fn split_spki(spki_der: &[u8]) -> Result<(der::Value<'_>, &[u8]), KeyError> {
    let (spki, after) = der::expect(spki_der, tag::SEQUENCE)?;
    let (algorithm, rest) = der::expect(spki.content, tag::SEQUENCE)?;
    let (bits, inside) = der::expect(rest, tag::BIT_STRING)?;
    if !after.is_empty() || !inside.is_empty() {
        return Err(KeyError::Malformed("there are bytes after its end"));
    }
    match bits.content {
        [0, key_bits @ ..] => Ok((algorithm, key_bits)),
        _ => Err(KeyError::Malformed(
            "its BIT STRING does not hold whole octets",
        )),
    }
}

/// Says why an AlgorithmIdentifier, given by its content, is none of those we certify.
fn refuse_algorithm(content: &[u8]) -> KeyError {
    let Ok((algorithm, parameters)) = der::expect(content, tag::OID) else {
        return KeyError::Malformed("its algorithm is not an object identifier");
    };
    let is_elliptic = algorithm.content == ID_EC_PUBLIC_KEY;
    let named = match der::read(parameters) {
        Ok((curve, [])) if is_elliptic && curve.tag == tag::OID => curve.content,
        _ if is_elliptic => {
            return KeyError::Malformed("its curve must be named by an object identifier");
        }
        _ => algorithm.content,
    };
    if [RSA, ED25519]
        .iter()
        .any(|known| known.get(4..).is_some_and(|oid| oid.starts_with(named)))
    {
        return KeyError::Malformed("its algorithm's parameters are not the standard ones");
    }
    if let Some((_, name)) = INSECURE.iter().find(|(oid, _)| *oid == named) {
        return KeyError::Insecure(name);
    }
    let oid = oid_text(named);
    KeyError::Unsupported(if is_elliptic {
        format!("the elliptic curve {oid}")
    } else {
        format!("the algorithm {oid}")
    })
}

/// Reads an uncompressed point (SEC 1, section 2.3.4), and checks that it lies on the curve. That is all there is to check:
/// these curves have no small subgroups.
fn parse_point(
    key_bits: &[u8],
    coordinate_bytes: usize,
    algorithm: &'static dyn lc::VerificationAlgorithm,
) -> Result<lc::ParsedPublicKey, KeyError> {
    if key_bits.first() != Some(&4) || key_bits.len() != 1 + 2 * coordinate_bytes {
        return Err(KeyError::Malformed(
            "its point is not an uncompressed point of the curve's size",
        ));
    }
    lc::ParsedPublicKey::new(algorithm, key_bits)
        .map_err(|_| KeyError::Malformed("its point does not lie on the curve"))
}

/// Checks an RSAPublicKey (RFC 8017, appendix A.1.1), cheap things first.
fn check_rsa(key_bits: &[u8]) -> Result<KeyKind, KeyError> {
    let (sequence, after) = der::expect(key_bits, tag::SEQUENCE)?;
    let (modulus, rest) = der::expect(sequence.content, tag::INTEGER)?;
    let (exponent, inside) = der::expect(rest, tag::INTEGER)?;
    if !after.is_empty() || !inside.is_empty() {
        return Err(KeyError::Malformed(
            "there are bytes after the end of the RSA key",
        ));
    }
    let modulus = magnitude(modulus.content)?;
    let bits = bit_length(modulus);
    let kind = match bits {
        2048 => KeyKind::Rsa2048,
        3072 => KeyKind::Rsa3072,
        4096 => KeyKind::Rsa4096,
        _ => return Err(KeyError::RsaSize(bits)),
    };
    if magnitude(exponent.content)? != RSA_EXPONENT {
        return Err(KeyError::RsaExponent);
    }
    weak_rsa::check(modulus)?;
    Ok(kind)
}

/// The content of an INTEGER without the octet that keeps it positive. A negative number counts as 0: as weak as that.
fn magnitude(content: &[u8]) -> Result<&[u8], KeyError> {
    match content {
        [] | [0, 0..=0x7f, ..] | [0xff, 0x80..=0xff, ..] => Err(KeyError::Malformed(
            "one of its numbers is not minimally encoded",
        )),
        [0x80..=0xff, ..] => Ok(&[]),
        [0, rest @ ..] => Ok(rest),
        positive => Ok(positive),
    }
}

/// The number of bits of a number that begins with an octet that is not 0.
fn bit_length(magnitude: &[u8]) -> usize {
    magnitude.first().map_or(0, |first| {
        magnitude.len() * 8 - usize::try_from(first.leading_zeros()).unwrap_or_default()
    })
}

/// Checks the encoding of an Ed25519 point.
fn check_ed25519(key_bits: &[u8]) -> Result<KeyKind, KeyError> {
    let point = <&[u8; 32]>::try_from(key_bits)
        .map_err(|_| KeyError::Malformed("an Ed25519 key has 32 octets"))?;
    if is_usable_point(point) {
        Ok(KeyKind::Ed25519)
    } else {
        Err(KeyError::Ed25519Point)
    }
}

/// Whether the encoding is canonical (RFC 8032, section 5.1.3) and the point is none of the eight of small order, for which
/// everyone knows a signature (Chalkias et al.: "Taming the Many EdDSAs", 2020).
fn is_usable_point(encoded: &[u8; 32]) -> bool {
    /// The field's prime, 2^255 − 19, little endian.
    const PRIME: [u8; 32] = {
        let mut prime = [0xff; 32];
        prime[0] = 0xed;
        prime[31] = 0x7f;
        prime
    };
    /// The y coordinates of the points whose order divides 8, but 0, 1 and −1.
    const ORDER_EIGHT: [[u8; 32]; 2] = [
        [
            0x26, 0xe8, 0x95, 0x8f, 0xc2, 0xb2, 0x27, 0xb0, 0x45, 0xc3, 0xf4, 0x89, 0xf2, 0xef,
            0x98, 0xf0, 0xd5, 0xdf, 0xac, 0x05, 0xd3, 0xc6, 0x33, 0x39, 0xb1, 0x38, 0x02, 0x88,
            0x6d, 0x53, 0xfc, 0x05,
        ],
        [
            0xc7, 0x17, 0x6a, 0x70, 0x3d, 0x4d, 0xd8, 0x4f, 0xba, 0x3c, 0x0b, 0x76, 0x0d, 0x10,
            0x67, 0x0f, 0x2a, 0x20, 0x53, 0xfa, 0x2c, 0x39, 0xcc, 0xc6, 0x4e, 0xc7, 0xfd, 0x77,
            0x92, 0xac, 0x03, 0x7a,
        ],
    ];
    let mut y = *encoded;
    if let Some(last) = y.last_mut() {
        // The sign of x.
        *last &= 0x7f;
    }
    // 0 has order 4, 1 is the identity, −1 has order 2; what is not below the prime is not canonical.
    let (Some((&low, high)), Some((&prime_low, prime_high))) =
        (y.split_first(), PRIME.split_first())
    else {
        return false;
    };
    let is_zero_or_one = low <= 1 && high.iter().all(|&byte| byte == 0);
    let is_minus_one_or_more = low >= prime_low - 1 && high == prime_high;
    !(is_zero_or_one || is_minus_one_or_more || ORDER_EIGHT.contains(&y))
}

/// Whether the first half of an Ed25519 signature, R, is a point that an honest signer can have drawn.
fn has_usable_commitment(signature: &[u8]) -> bool {
    signature.first_chunk().is_some_and(is_usable_point)
}

/// Whether `signature` has the form of a DER `ECDSA-Sig-Value`: a SEQUENCE of two INTEGERs, and nothing else.
fn is_der_ecdsa_signature(signature: &[u8]) -> bool {
    let Ok((sequence, [])) = der::expect(signature, tag::SEQUENCE) else {
        return false;
    };
    let Ok((_r, rest)) = der::expect(sequence.content, tag::INTEGER) else {
        return false;
    };
    matches!(der::expect(rest, tag::INTEGER), Ok((_s, [])))
}

/// The verifier for a kind of key and a scheme, where they fit.
fn verification_algorithm(
    kind: KeyKind,
    scheme: SignatureScheme,
) -> Option<&'static dyn lc::VerificationAlgorithm> {
    use KeyKind::{EcdsaP256, EcdsaP384, EcdsaP521, Rsa2048, Rsa3072, Rsa4096};
    use SignatureScheme::{Ecdsa, RsaPkcs1};
    Some(match (kind, scheme) {
        (EcdsaP256, Ecdsa(Hash::Sha256)) => &lc::ECDSA_P256_SHA256_ASN1,
        (EcdsaP256, Ecdsa(Hash::Sha384)) => &lc::ECDSA_P256_SHA384_ASN1,
        (EcdsaP256, Ecdsa(Hash::Sha512)) => &lc::ECDSA_P256_SHA512_ASN1,
        (EcdsaP384, Ecdsa(Hash::Sha256)) => &lc::ECDSA_P384_SHA256_ASN1,
        (EcdsaP384, Ecdsa(Hash::Sha384)) => &lc::ECDSA_P384_SHA384_ASN1,
        (EcdsaP384, Ecdsa(Hash::Sha512)) => &lc::ECDSA_P384_SHA512_ASN1,
        (EcdsaP521, Ecdsa(Hash::Sha256)) => &lc::ECDSA_P521_SHA256_ASN1,
        (EcdsaP521, Ecdsa(Hash::Sha384)) => &lc::ECDSA_P521_SHA384_ASN1,
        (EcdsaP521, Ecdsa(Hash::Sha512)) => &lc::ECDSA_P521_SHA512_ASN1,
        (Rsa2048 | Rsa3072 | Rsa4096, RsaPkcs1(Hash::Sha256)) => &lc::RSA_PKCS1_2048_8192_SHA256,
        (Rsa2048 | Rsa3072 | Rsa4096, RsaPkcs1(Hash::Sha384)) => &lc::RSA_PKCS1_2048_8192_SHA384,
        (Rsa2048 | Rsa3072 | Rsa4096, RsaPkcs1(Hash::Sha512)) => &lc::RSA_PKCS1_2048_8192_SHA512,
        (KeyKind::Ed25519, SignatureScheme::Ed25519) => &lc::ED25519,
        (EcdsaP256 | EcdsaP384 | EcdsaP521, RsaPkcs1(_) | SignatureScheme::Ed25519)
        | (Rsa2048 | Rsa3072 | Rsa4096, Ecdsa(_) | SignatureScheme::Ed25519)
        | (KeyKind::Ed25519, Ecdsa(_) | RsaPkcs1(_)) => return None,
    })
}

/// Writes an OBJECT IDENTIFIER, given by its content, with dots. Arcs that do not fit 64 bits end the text.
pub(super) fn oid_text(content: &[u8]) -> String {
    /// Longer texts are cut.
    const MAX_ARCS: usize = 24;
    let mut arcs: Vec<u64> = Vec::new();
    let mut arc: u64 = 0;
    for byte in content {
        if arcs.len() >= MAX_ARCS || arc >> 57 != 0 {
            break;
        }
        arc = arc << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        if arcs.is_empty() {
            // The first two arcs share one number (X.690, section 8.19.4).
            let first = (arc / 40).min(2);
            arcs.push(first);
            arc -= first * 40;
        }
        arcs.push(arc);
        arc = 0;
    }
    arcs.iter()
        .map(u64::to_string)
        .collect::<Vec<_>>()
        .join(".")
}
