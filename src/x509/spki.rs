//! Public keys of requesters: from what a client sent to a key that is fit for a certificate.
//!
//! A [`SubjectPublicKey`] is well formed, of a kind that we certify, and not known to be weak; there is no other way to one.

use std::fmt;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use aws_lc_rs::signature as lc;

use super::algorithm::{KeyKind, SignatureScheme, proof_algorithm, verification_algorithm};
use super::der::{self, DerError, tag};
use super::ed25519_point;
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
    /// Where the content of the BIT STRING begins; it ends the SubjectPublicKeyInfo.
    key_bits_start: usize,
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
        let verification = proof_algorithm(kind);
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
            key_bits_start: spki_der.len() - key_bits.len(),
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
        self.spki_der.get(self.key_bits_start..).unwrap_or_default()
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

/// Checks the encoding of an Ed25519 point. One that names no point of the curve passes, as finding that out costs as much
/// as a signature: none verifies with it, so it is never proven.
fn check_ed25519(key_bits: &[u8]) -> Result<KeyKind, KeyError> {
    let point = <&[u8; 32]>::try_from(key_bits)
        .map_err(|_| KeyError::Malformed("an Ed25519 key has 32 octets"))?;
    if ed25519_point::is_usable(point) {
        Ok(KeyKind::Ed25519)
    } else {
        Err(KeyError::Ed25519Point)
    }
}

/// Whether the first half of an Ed25519 signature, R, is a point that an honest signer can have drawn.
fn has_usable_commitment(signature: &[u8]) -> bool {
    signature
        .first_chunk()
        .is_some_and(ed25519_point::is_usable)
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

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::SHA512;
    use num_bigint::BigUint;

    use super::*;
    use crate::x509::algorithm::Hash;
    use crate::x509::test_key::{
        TestKey, ed25519_spki, elliptic_spki, hash_for, pem, rsa_spki, spki,
    };

    const CURVE_P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
    const CURVE_P384: &[u8] = &[0x2b, 0x81, 4, 0, 0x22];
    const ELLIPTIC: [KeyKind; 3] = [KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::EcdsaP521];
    const CHALLENGE: &str = "alice@example.com";

    fn refusal(spki_der: &[u8]) -> KeyError {
        SubjectPublicKey::from_der(spki_der.to_vec()).unwrap_err()
    }

    fn read(key: &TestKey) -> SubjectPublicKey {
        SubjectPublicKey::from_der(key.spki_der().to_vec()).unwrap()
    }

    /// The point of a P-256 key, `04 x y`.
    fn point() -> Vec<u8> {
        read(&TestKey::new(KeyKind::EcdsaP256)).key_bits().to_vec()
    }

    /// Cuts a DER ECDSA signature into r and s.
    fn numbers(signature: &[u8]) -> (BigUint, BigUint) {
        let (sequence, _) = der::expect(signature, tag::SEQUENCE).unwrap();
        let (r, rest) = der::expect(sequence.content, tag::INTEGER).unwrap();
        let (s, _) = der::expect(rest, tag::INTEGER).unwrap();
        (
            BigUint::from_bytes_be(r.content),
            BigUint::from_bytes_be(s.content),
        )
    }

    /// Content octets of a positive INTEGER.
    fn integer(number: &BigUint) -> Vec<u8> {
        let bytes = number.to_bytes_be();
        if bytes[0] & 0x80 == 0 {
            bytes
        } else {
            [&[0], &bytes[..]].concat()
        }
    }

    fn signature_der(r: &[u8], s: &[u8]) -> Vec<u8> {
        let r = der::encode(tag::INTEGER, &[r]);
        let s = der::encode(tag::INTEGER, &[s]);
        der::encode(tag::SEQUENCE, &[&r, &s])
    }

    fn halves(signature: &[u8], coordinate_bytes: usize) -> Vec<u8> {
        let (r, s) = numbers(signature);
        let pad = |number: BigUint| {
            let bytes = number.to_bytes_be();
            [vec![0; coordinate_bytes - bytes.len()], bytes].concat()
        };
        [pad(r), pad(s)].concat()
    }

    #[test]
    fn every_kind_of_key_is_read_kept_and_verified_with() {
        for kind in KeyKind::ALL {
            let test_key = TestKey::new(kind);
            let key = SubjectPublicKey::from_pem(test_key.pem().as_bytes()).unwrap();
            assert_eq!((key.kind(), key.spki_der()), (kind, test_key.spki_der()));
            assert!(test_key.spki_der().ends_with(key.key_bits()));
            let proof = test_key.prove(CHALLENGE);
            assert_eq!(
                key.verify_proof(CHALLENGE.as_bytes(), &proof),
                Ok(()),
                "{kind}"
            );
            for other in [
                "bob@example.com",
                "ALICE@example.com",
                "alice@example.com\n",
                "",
            ] {
                assert_eq!(
                    key.verify_proof(other.as_bytes(), &proof),
                    Err(BadSignature),
                    "{kind}: {other:?}"
                );
            }
        }
    }

    #[test]
    fn key_identifiers_are_the_hash_of_the_key_bits_alone() {
        let key = read(&TestKey::new(KeyKind::Ed25519));
        assert_eq!(key.key_bits().len(), 32);
        let expected = digest(&SHA1_FOR_LEGACY_USE_ONLY, &key.spki_der()[12..]);
        assert_eq!(key.key_identifier(), expected.as_ref());
    }

    #[test]
    fn keys_are_read_as_clients_write_them() {
        let key = TestKey::new(KeyKind::EcdsaP256);
        let wrapped = key.pem();
        let unwrapped = {
            let mut lines = wrapped.lines();
            let (begin, end) = (lines.next().unwrap(), lines.next_back().unwrap());
            format!("{begin}\n{}\n{end}", lines.collect::<String>())
        };
        let crlf = wrapped.replace('\n', "\r\n");
        let framed = format!("my key:\n\n{wrapped}\n(end)\n{wrapped}");
        for text in [
            wrapped.as_str(),
            wrapped.trim_end(),
            &unwrapped,
            &crlf,
            &framed,
        ] {
            let read = SubjectPublicKey::from_pem(text.as_bytes()).unwrap();
            assert_eq!(read.spki_der(), key.spki_der(), "{text}");
            let read = SubjectPublicKey::from_pem_or_der(text.as_bytes()).unwrap();
            assert_eq!(read.spki_der(), key.spki_der(), "{text}");
        }
        let read = SubjectPublicKey::from_pem_or_der(key.spki_der()).unwrap();
        assert_eq!(read.spki_der(), key.spki_der());
        assert_eq!(
            SubjectPublicKey::from_pem(key.spki_der()).unwrap_err(),
            KeyError::Pem(PemError::NoBlock)
        );
    }

    #[test]
    fn pkcs1_keys_get_the_same_subject_public_key_info() {
        let test_key = TestKey::new(KeyKind::Rsa2048);
        let pkcs1 = pem("RSA PUBLIC KEY", read(&test_key).key_bits());
        let key = SubjectPublicKey::from_pem(pkcs1.as_bytes()).unwrap();
        assert_eq!(key.spki_der(), test_key.spki_der());
    }

    #[test]
    fn what_is_no_public_key_is_refused_with_its_reason() {
        let der = TestKey::new(KeyKind::EcdsaP256).spki_der().to_vec();
        for (text, error) in [
            (String::new(), KeyError::Pem(PemError::NoBlock)),
            (pem("PRIVATE KEY", &der), KeyError::PrivateKey),
            (pem("EC PRIVATE KEY", &der), KeyError::PrivateKey),
            (pem("RSA PRIVATE KEY", &der), KeyError::PrivateKey),
            (pem("ENCRYPTED PRIVATE KEY", &der), KeyError::PrivateKey),
            (pem("CERTIFICATE", &der), KeyError::Label),
            (pem("EC PUBLIC KEY", &der), KeyError::Label),
            (pem("PUBLIC KEY", &[]), DerError.into()),
            (pem("RSA PUBLIC KEY", &der), DerError.into()),
            (
                "-----BEGIN PUBLIC KEY-----\n".repeat(500),
                KeyError::Pem(PemError::Unterminated),
            ),
            (" ".repeat(MAX_PUBLIC_KEY_BYTES + 1), KeyError::TooLarge),
        ] {
            let refused = SubjectPublicKey::from_pem(text.as_bytes()).unwrap_err();
            assert_eq!(refused, error, "{text}");
            assert_eq!(refused.reason(), Reason::MalformedPublicKey);
            assert!(!refused.is_insecure());
        }
        let error =
            SubjectPublicKey::from_pem(pem("PRIVATE KEY", b"secret").as_bytes()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the public key field holds a private key; stop using that key, and send only the public key"
        );
    }

    #[test]
    fn encodings_that_are_not_der_are_refused() {
        let der = TestKey::new(KeyKind::EcdsaP256).spki_der().to_vec();
        let point = point();
        let trailing = [&der[..], &[0]].concat();
        let inside = {
            let content = [&der[2..], &[5, 0]].concat();
            der::encode(tag::SEQUENCE, &[&content])
        };
        let long_length = [&[0x30, 0x81], &der[1..]].concat();
        let indefinite = [&[0x30, 0x80], &der[2..], &[0, 0]].concat();
        let mut unused_bits = der.clone();
        unused_bits[26] = 1;
        let deep = [0x30, 0x82, 0x10, 0].repeat(2000);
        for (what, spki_der) in [
            ("trailing octet", trailing),
            ("trailing value inside", inside),
            ("length not minimal", long_length),
            ("indefinite length", indefinite),
            ("unused bits", unused_bits),
            ("cut", der[..der.len() - 1].to_vec()),
            ("no bits", spki(&[CURVE_P256], &[])),
            ("nested", deep),
            ("nothing", Vec::new()),
            ("a point alone", point),
        ] {
            let error = refusal(&spki_der);
            assert_eq!(
                error.reason(),
                Reason::MalformedPublicKey,
                "{what}: {error}"
            );
        }
    }

    #[test]
    fn points_that_are_not_plain_points_of_the_curve_are_refused() {
        let point = point();
        let with = |first: u8, rest: &[u8]| [&[first], rest].concat();
        let x_and_y = &point[1..];
        let parity = point[64] & 1;
        let mut off_curve = point.clone();
        off_curve[64] ^= 1;
        // p, the field's prime, in place of x: not reduced.
        let prime = BigUint::parse_bytes(
            b"ffffffff00000001000000000000000000000000ffffffffffffffffffffffff",
            16,
        );
        let unreduced = with(4, &[&prime.unwrap().to_bytes_be(), &x_and_y[32..]].concat());
        for (what, bits) in [
            ("infinity", vec![0]),
            ("infinity, long", with(0, &[0; 64])),
            ("(0, 0)", with(4, &[0; 64])),
            ("off the curve", off_curve),
            ("x not reduced", unreduced),
            ("hybrid", with(6 | parity, x_and_y)),
            ("compressed", with(2 | parity, &x_and_y[..32])),
            ("trailing octet", [&point[..], &[0]].concat()),
            ("cut", point[..64].to_vec()),
        ] {
            let error = refusal(&elliptic_spki(CURVE_P256, &bits));
            assert_eq!(
                error.reason(),
                Reason::MalformedPublicKey,
                "{what}: {error}"
            );
        }
        let error = refusal(&elliptic_spki(CURVE_P384, &point));
        assert_eq!(
            error.reason(),
            Reason::MalformedPublicKey,
            "P-384 named, P-256 meant: {error}"
        );

        let ec = der::encode(tag::OID, &[ID_EC_PUBLIC_KEY]);
        for (what, parameters) in [
            ("none", &[][..]),
            ("explicit", &[0x30, 0]),
            ("implicit", &[5, 0]),
        ] {
            let error = refusal(&spki(&[&ec, parameters], &point));
            assert_eq!(
                error.reason(),
                Reason::MalformedPublicKey,
                "{what} parameters: {error}"
            );
        }
    }

    #[test]
    fn other_algorithms_are_refused_by_name() {
        let curve = |oid: &[u8]| elliptic_spki(oid, &[4; 65]);
        let algorithm = |oid: &[u8]| spki(&[&der::encode(tag::OID, &[oid])], &[4; 32]);
        for (spki_der, name, is_insecure) in [
            (curve(&[0x2b, 0x81, 4, 0, 0x21]), "ECDSA P-224", true),
            (
                algorithm(&[0x2a, 0x86, 0x48, 0xce, 0x38, 4, 1]),
                "DSA",
                true,
            ),
            (algorithm(&[0x2b, 0x65, 0x6e]), "X25519", true),
            (
                curve(&[0x2b, 0x81, 4, 0, 10]),
                "the elliptic curve 1.3.132.0.10",
                false,
            ),
            (
                curve(&[0x2b, 0x24, 3, 3, 2, 8, 1, 1, 7]),
                "the elliptic curve 1.3.36.3.3.2.8.1.1.7",
                false,
            ),
            (
                curve(&[0x2a, 0x81, 0x1c, 0xcf, 0x55, 1, 0x82, 0x2d]),
                "the elliptic curve 1.2.156.10197.1.301",
                false,
            ),
            (
                algorithm(&[0x2b, 0x65, 0x71]),
                "the algorithm 1.3.101.113",
                false,
            ),
            (
                algorithm(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 10]),
                "the algorithm 1.2.840.113549.1.1.10",
                false,
            ),
            (
                algorithm(&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 3, 0x12]),
                "the algorithm 2.16.840.1.101.3.4.3.18",
                false,
            ),
        ] {
            let error = refusal(&spki_der);
            assert_eq!(
                error.to_string(),
                format!("public keys of {name} are not accepted; use {ACCEPTED}")
            );
            assert_eq!(error.reason(), Reason::AlgorithmNotPermitted, "{name}");
            assert_eq!(error.is_insecure(), is_insecure, "{name}");
        }
    }

    #[test]
    fn known_algorithms_with_odd_parameters_are_malformed() {
        let rsa = read(&TestKey::new(KeyKind::Rsa2048)).key_bits().to_vec();
        for spki_der in [
            spki(&[&RSA[2..13]], &rsa),
            spki(&[&ED25519[2..], &[5, 0]], &[9; 32]),
        ] {
            let error = refusal(&spki_der);
            assert_eq!(error.reason(), Reason::MalformedPublicKey, "{error}");
        }
    }

    #[test]
    fn rsa_keys_of_other_sizes_are_refused_before_any_arithmetic() {
        for bits in [
            0, 1, 512, 1024, 2040, 2041, 2047, 2049, 2056, 3071, 4095, 4097, 5120, 65_536,
        ] {
            let modulus = if bits == 0 {
                vec![0]
            } else {
                integer(&(BigUint::from(1_u8) << (bits - 1)))
            };
            let error = refusal(&rsa_spki(&modulus, RSA_EXPONENT));
            let counted = usize::try_from(bits).unwrap();
            assert_eq!(error, KeyError::RsaSize(counted));
            assert_eq!(error.reason(), Reason::WeakKey);
            assert!(error.is_insecure());
        }
        let error = refusal(&rsa_spki(&[0x7f; 125_000], RSA_EXPONENT));
        assert_eq!(error, KeyError::TooLarge);
    }

    #[test]
    fn rsa_exponents_other_than_65537_are_refused() {
        let good = read(&TestKey::new(KeyKind::Rsa2048));
        let (sequence, _) = der::expect(good.key_bits(), tag::SEQUENCE).unwrap();
        let (modulus, _) = der::expect(sequence.content, tag::INTEGER).unwrap();
        for exponent in [
            &[0][..],
            &[1],
            &[2],
            &[3],
            &[17],
            &[1, 0, 0],
            &[1, 0, 2],
            &[1, 0, 3],
            &[0xff],
            &[0xfe, 0xff, 0xff],
            &[1; 250],
        ] {
            let error = refusal(&rsa_spki(modulus.content, exponent));
            assert_eq!(error, KeyError::RsaExponent, "{exponent:02x?}");
            assert_eq!(error.reason(), Reason::WeakKey);
        }
        let error = refusal(&rsa_spki(modulus.content, &[0, 1, 0, 1]));
        assert_eq!(
            error.reason(),
            Reason::MalformedPublicKey,
            "exponent not minimal: {error}"
        );
        let padded = [&[0], modulus.content].concat();
        let error = refusal(&rsa_spki(&padded, RSA_EXPONENT));
        assert_eq!(
            error.reason(),
            Reason::MalformedPublicKey,
            "modulus not minimal: {error}"
        );
    }

    #[test]
    fn rsa_moduli_that_can_be_factored_are_refused() {
        let even = BigUint::from(1_u8) << 2047;
        let cases = [
            (
                integer(&even),
                KeyError::RsaModulus(WeakModulus::SmallFactor),
            ),
            (
                integer(&(&even + 1_u8)),
                KeyError::RsaModulus(WeakModulus::SmallFactor),
            ),
        ];
        for (modulus, expected) in cases {
            assert_eq!(refusal(&rsa_spki(&modulus, RSA_EXPONENT)), expected);
        }
        let error = refusal(&rsa_spki(&[0x80; 256], RSA_EXPONENT));
        assert_eq!(error, KeyError::RsaSize(0), "a negative modulus");
    }

    #[test]
    fn ed25519_keys_that_are_no_point_to_sign_with_are_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        let error = refusal(&ed25519_spki(&identity));
        assert_eq!(error, KeyError::Ed25519Point);
        assert_eq!(
            (error.reason(), error.is_insecure()),
            (Reason::WeakKey, true)
        );
        for length in [0, 31, 33] {
            let error = refusal(&ed25519_spki(&vec![9; length]));
            assert_eq!(
                error.reason(),
                Reason::MalformedPublicKey,
                "{length} octets"
            );
        }
    }

    #[test]
    fn ed25519_signatures_are_verified_strictly() {
        let test_key = TestKey::new(KeyKind::Ed25519);
        let key = read(&test_key);
        let good = test_key.prove(CHALLENGE);
        // L, the order of the base point (RFC 8032, section 5.1).
        let order: BigUint = (BigUint::from(1_u8) << 252)
            + BigUint::parse_bytes(b"27742317777372353535851937790883648493", 10).unwrap();
        let s: BigUint = BigUint::from_bytes_le(&good[32..]) + &order;
        let mut beyond = good[..32].to_vec();
        beyond.extend(s.to_bytes_le());
        beyond.resize(64, 0);
        // R is the identity, and S the challenge times the private scalar: the equation holds (section 5.1.7).
        let degenerate = {
            let mut scalar = digest(&SHA512, &[1; 32]).as_ref()[..32].to_vec();
            scalar[0] &= 0xf8;
            scalar[31] = scalar[31] & 0x3f | 0x40;
            let mut signature = vec![0; 64];
            signature[0] = 1;
            let hashed = [&signature[..32], key.key_bits(), CHALLENGE.as_bytes()].concat();
            let challenge = BigUint::from_bytes_le(digest(&SHA512, &hashed).as_ref());
            let s: BigUint = challenge * BigUint::from_bytes_le(&scalar) % &order;
            let s = s.to_bytes_le();
            signature[32..32 + s.len()].copy_from_slice(&s);
            signature
        };
        let lenient = key.parsed.verify_sig(CHALLENGE.as_bytes(), &degenerate);
        assert!(lenient.is_ok(), "it is ours to refuse");
        for (what, signature) in [
            ("S + L", beyond),
            ("R the identity", degenerate),
            ("cut", good[..63].to_vec()),
            ("longer", [&good[..], &[0]].concat()),
            ("nothing", Vec::new()),
        ] {
            let verified = key.verify_proof(CHALLENGE.as_bytes(), &signature);
            assert_eq!(verified, Err(BadSignature), "{what}");
        }
    }

    #[test]
    fn ecdsa_proofs_may_be_halves_one_after_the_other() {
        for (kind, coordinate_bytes) in ELLIPTIC.into_iter().zip([32, 48, 66]) {
            let test_key = TestKey::new(kind);
            let key = read(&test_key);
            let raw = halves(&test_key.prove(CHALLENGE), coordinate_bytes);
            assert_eq!(
                key.verify_proof(CHALLENGE.as_bytes(), &raw),
                Ok(()),
                "{kind}"
            );
            assert_eq!(
                key.verify_proof(b"another", &raw),
                Err(BadSignature),
                "{kind}"
            );
            let scheme = kind.proof_scheme();
            assert_eq!(
                key.verify(scheme, CHALLENGE.as_bytes(), &raw),
                Err(BadSignature),
                "{kind}: certificate signing requests hold DER"
            );
            for wrong in [
                &raw[1..],
                &[&raw[..], &[0, 0]].concat(),
                &vec![0; raw.len()],
            ] {
                assert_eq!(
                    key.verify_proof(CHALLENGE.as_bytes(), wrong),
                    Err(BadSignature),
                    "{kind}"
                );
            }
        }
    }

    #[test]
    fn ecdsa_signatures_must_be_der_of_numbers_in_range() {
        let order = BigUint::parse_bytes(
            b"ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551",
            16,
        )
        .unwrap();
        let test_key = TestKey::new(KeyKind::EcdsaP256);
        let key = read(&test_key);
        let good = test_key.prove(CHALLENGE);
        let (r, s) = numbers(&good);
        let (r_der, s_der) = (integer(&r), integer(&s));
        let verified = |signature: &[u8]| key.verify_proof(CHALLENGE.as_bytes(), signature);
        assert_eq!(verified(&good), Ok(()));
        assert_eq!(
            verified(&signature_der(&r_der, &integer(&(&order - &s)))),
            Ok(()),
            "the twin"
        );

        for (what, signature) in [
            ("nothing", Vec::new()),
            ("trailing octet", [&good[..], &[0]].concat()),
            (
                "trailing value inside",
                der::encode(tag::SEQUENCE, &[&good[2..], &[5, 0]]),
            ),
            (
                "r not minimal",
                signature_der(&[&[0], &r_der[..]].concat(), &s_der),
            ),
            (
                "s not minimal",
                signature_der(&r_der, &[&[0, 0], &s_der[..]].concat()),
            ),
            ("length not minimal", [&[0x30, 0x81], &good[1..]].concat()),
            (
                "indefinite length",
                [&[0x30, 0x80], &good[2..], &[0, 0]].concat(),
            ),
            (
                "r negative",
                signature_der(&[&[0x80], &r_der[..]].concat(), &s_der),
            ),
            ("r is 0", signature_der(&[0], &s_der)),
            ("s is 0", signature_der(&r_der, &[0])),
            ("both 0", signature_der(&[0], &[0])),
            ("r empty", signature_der(&[], &s_der)),
            ("r + n", signature_der(&integer(&(&r + &order)), &s_der)),
            ("s + n", signature_der(&r_der, &integer(&(&s + &order)))),
            ("s is n", signature_der(&r_der, &integer(&order))),
            ("r and s swapped", signature_der(&s_der, &r_der)),
        ] {
            assert_eq!(verified(&signature), Err(BadSignature), "{what}");
        }
    }

    #[test]
    fn proofs_use_the_hash_of_their_curve_and_requests_any() {
        for kind in ELLIPTIC {
            let test_key = TestKey::new(kind);
            let key = read(&test_key);
            for hash in [Hash::Sha256, Hash::Sha384, Hash::Sha512] {
                let scheme = SignatureScheme::Ecdsa(hash);
                let signature = test_key.sign(scheme, b"message");
                assert_eq!(
                    key.verify(scheme, b"message", &signature),
                    Ok(()),
                    "{kind} {hash:?}"
                );
                assert_eq!(
                    key.verify_proof(b"message", &signature).is_ok(),
                    scheme == kind.proof_scheme(),
                    "{kind} {hash:?}"
                );
            }
        }
    }

    #[test]
    fn schemes_of_other_kinds_of_key_do_not_verify() {
        let key = read(&TestKey::new(KeyKind::EcdsaP256));
        let signature = TestKey::new(KeyKind::EcdsaP256).prove("m");
        for scheme in [
            SignatureScheme::RsaPkcs1(Hash::Sha256),
            SignatureScheme::Ed25519,
        ] {
            assert_eq!(key.verify(scheme, b"m", &signature), Err(BadSignature));
        }
        let key = read(&TestKey::new(KeyKind::Ed25519));
        let signature = TestKey::new(KeyKind::Ed25519).prove("m");
        let scheme = SignatureScheme::Ecdsa(Hash::Sha256);
        assert_eq!(key.verify(scheme, b"m", &signature), Err(BadSignature));
    }

    #[test]
    fn rsa_signatures_are_pkcs1_with_exact_padding() {
        let test_key = TestKey::new(KeyKind::Rsa2048);
        let key = read(&test_key);
        let verified = |signature: &[u8]| key.verify_proof(CHALLENGE.as_bytes(), signature);
        assert_eq!(
            verified(&test_key.sign_pss(CHALLENGE.as_bytes())),
            Err(BadSignature),
            "PSS"
        );
        for hash in [Hash::Sha384, Hash::Sha512] {
            let scheme = SignatureScheme::RsaPkcs1(hash);
            let signature = test_key.sign(scheme, CHALLENGE.as_bytes());
            assert_eq!(verified(&signature), Err(BadSignature), "{hash:?}");
            assert_eq!(
                key.verify(scheme, CHALLENGE.as_bytes(), &signature),
                Ok(()),
                "{hash:?}"
            );
        }

        // The encoded messages of RFC 8017, section 9.2, right and wrong, signed by hand.
        let hash = hash_for(KeyKind::Rsa2048.proof_scheme(), CHALLENGE.as_bytes());
        let oid = [6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
        let info = |algorithm: &[u8]| {
            let algorithm = der::encode(tag::SEQUENCE, &[algorithm]);
            let hash = der::encode(tag::OCTET_STRING, &[&hash]);
            der::encode(tag::SEQUENCE, &[&algorithm, &hash])
        };
        let right = info(&[&oid[..], &[5, 0]].concat());
        let padded = |info: &[u8], padding: usize, garbage: usize| {
            [
                &[0, 1],
                &vec![0xff; padding][..],
                &[0],
                info,
                &vec![0x5a; garbage],
            ]
            .concat()
        };
        let fitting = 256 - 3 - right.len();
        let wrong_oid = [6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3, 5, 0];
        let sign = private_operation(&test_key.rsa_pkcs8());
        for (what, message, expected) in [
            ("right", padded(&right, fitting, 0), Ok(())),
            (
                "garbage behind",
                padded(&right, 8, fitting - 8),
                Err(BadSignature),
            ),
            (
                "padding too short",
                padded(&right, fitting - 1, 1),
                Err(BadSignature),
            ),
            (
                "no NULL",
                padded(&info(&oid), fitting + 2, 0),
                Err(BadSignature),
            ),
            (
                "another OID",
                padded(&info(&wrong_oid), fitting, 0),
                Err(BadSignature),
            ),
            (
                "no hash name",
                padded(&hash, 253 - 32, 0),
                Err(BadSignature),
            ),
        ] {
            assert_eq!(message.len(), 256);
            assert_eq!(verified(&sign(&message)), expected, "{what}");
        }
    }

    /// The private operation of RSA without any padding (RFC 8017, section 5.2.1).
    fn private_operation(pkcs8: &[u8]) -> impl Fn(&[u8]) -> Vec<u8> + use<> {
        let (info, _) = der::expect(pkcs8, tag::SEQUENCE).unwrap();
        let (_version, rest) = der::expect(info.content, tag::INTEGER).unwrap();
        let (_algorithm, rest) = der::expect(rest, tag::SEQUENCE).unwrap();
        let (key, _) = der::expect(rest, tag::OCTET_STRING).unwrap();
        let (key, _) = der::expect(key.content, tag::SEQUENCE).unwrap();
        let mut rest = key.content;
        let mut numbers = Vec::new();
        for _ in 0..4 {
            let (number, behind) = der::expect(rest, tag::INTEGER).unwrap();
            numbers.push(BigUint::from_bytes_be(number.content));
            rest = behind;
        }
        let (modulus, exponent) = (numbers[1].clone(), numbers[3].clone());
        move |message| {
            let bytes = BigUint::from_bytes_be(message)
                .modpow(&exponent, &modulus)
                .to_bytes_be();
            [vec![0; 256 - bytes.len()], bytes].concat()
        }
    }

    #[test]
    fn debug_shows_the_kind_alone() {
        let key = read(&TestKey::new(KeyKind::EcdsaP256));
        assert_eq!(
            format!("{key:?}"),
            "SubjectPublicKey { kind: EcdsaP256, .. }"
        );
    }

    #[test]
    fn oids_are_written_with_dots() {
        for (content, text) in [
            (&[0x2a, 0x86, 0x48][..], "1.2.840"),
            (&[0x88, 0x37, 3], "2.999.3"),
            (&[0x28], "1.0"),
            (&[], ""),
            (
                &[
                    0x2a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1,
                ],
                "1.2",
            ),
        ] {
            assert_eq!(oid_text(content), text);
        }
        assert!(oid_text(&[0x2a; 10_000]).len() < 100);
    }
}
