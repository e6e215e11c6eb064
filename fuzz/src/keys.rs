//! What requesters send as a key, and as the proof that they hold it.

use std::sync::LazyLock;

use aws_lc_rs::digest;
use mayfly::keys::InMemoryKey;
use mayfly::x509::algorithm::{Hash, KeyKind, SignatureScheme};
use mayfly::x509::chain::CertificateChain;
use mayfly::x509::csr::{CertificateRequest, MAX_REQUEST_BYTES};
use mayfly::x509::der;
use mayfly::x509::pem::PemBlock;
use mayfly::x509::spki::SubjectPublicKey;
use num_bigint::BigUint;
use p256::pkcs8::DecodePublicKey;
use x509_cert::der::{Decode as _, Encode as _};
use x509_cert::request::CertReq;
use x509_cert::spki::SubjectPublicKeyInfoRef;
use x509_parser::prelude::FromDer as _;

use super::{check_message, golden_key};

/// A public key, PEM or DER: what is accepted is the key that other libraries read, in its one encoding.
pub fn pubkey(input: &[u8]) -> bool {
    let is_pem = PemBlock::first(input).is_ok();
    let key = match SubjectPublicKey::from_pem_or_der(input) {
        Ok(key) => key,
        Err(error) => {
            check_message(&error);
            let is_elliptic = |kind: KeyKind| !is_rsa(kind);
            assert!(
                is_pem || !kind_of(input).is_some_and(is_elliptic),
                "{error}: a good key"
            );
            return false;
        }
    };
    assert!(is_pem || key.spki_der() == input);
    assert_eq!(kind_of(key.spki_der()), Some(key.kind()));
    assert!(key.spki_der().ends_with(key.key_bits()));
    let again = SubjectPublicKey::from_der(key.spki_der().to_vec()).unwrap();
    assert_eq!(again.key_identifier(), key.key_identifier());
    true
}

const fn is_rsa(kind: KeyKind) -> bool {
    matches!(kind, KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096)
}

/// The kind of a key by other libraries than the one that uses it; nothing for one that may not be certified. Weak RSA
/// moduli are not looked for.
fn kind_of(spki_der: &[u8]) -> Option<KeyKind> {
    let spki = SubjectPublicKeyInfoRef::from_der(spki_der).ok()?;
    assert_eq!(spki.to_der().unwrap(), spki_der, "DER has one encoding");
    let bits = spki.subject_public_key.as_bytes()?;
    if p256::PublicKey::from_public_key_der(spki_der).is_ok() && bits.len() == 65 {
        return Some(KeyKind::EcdsaP256);
    }
    if p384::PublicKey::from_public_key_der(spki_der).is_ok() && bits.len() == 97 {
        return Some(KeyKind::EcdsaP384);
    }
    if p521::PublicKey::from_public_key_der(spki_der).is_ok() && bits.len() == 133 {
        return Some(KeyKind::EcdsaP521);
    }
    let (_, parsed) = x509_parser::x509::SubjectPublicKeyInfo::from_der(spki_der).ok()?;
    match spki.algorithm.oid.to_string().as_str() {
        "1.3.101.112" if spki.algorithm.parameters.is_none() => {
            super::tokens::is_good_ed25519(bits).then_some(KeyKind::Ed25519)
        }
        "1.2.840.113549.1.1.1" => {
            let x509_parser::public_key::PublicKey::RSA(key) = parsed.parsed().ok()? else {
                return None;
            };
            let exponent = BigUint::from_bytes_be(key.exponent);
            if exponent != BigUint::from(65_537_u32) {
                return None;
            }
            match BigUint::from_bytes_be(key.modulus).bits() {
                2048 => Some(KeyKind::Rsa2048),
                3072 => Some(KeyKind::Rsa3072),
                4096 => Some(KeyKind::Rsa4096),
                _ => None,
            }
        }
        _ => None,
    }
}

/// A key, a signature and a message: the verdict is that of other libraries.
///
/// One octet says which scheme, 7 for a proof of possession; key and signature follow, each after its length in two octets;
/// the rest is the message.
pub fn proof(input: &[u8]) -> bool {
    let Some((&number, rest)) = input.split_first() else {
        return false;
    };
    let Some((key, rest)) = split_field(rest) else {
        return false;
    };
    let Some((signature, message)) = split_field(rest) else {
        return false;
    };
    let Ok(key) = SubjectPublicKey::from_der(key.to_vec()) else {
        return false;
    };
    let (is_good, is_good_elsewhere) = if let Some(&scheme) = SCHEMES.get(usize::from(number % 8)) {
        (
            key.verify(scheme, message, signature).is_ok(),
            second_opinion(&key, scheme, message, signature),
        )
    } else {
        let scheme = key.kind().proof_scheme();
        (
            key.verify_proof(message, signature).is_ok(),
            second_opinion(&key, scheme, message, signature)
                || second_opinion_on_halves(&key, message, signature),
        )
    };
    assert_eq!(is_good, is_good_elsewhere);
    is_good
}

/// The schemes, in the order of their numbers in inputs.
const SCHEMES: [SignatureScheme; 7] = [
    SignatureScheme::Ecdsa(Hash::Sha256),
    SignatureScheme::Ecdsa(Hash::Sha384),
    SignatureScheme::Ecdsa(Hash::Sha512),
    SignatureScheme::RsaPkcs1(Hash::Sha256),
    SignatureScheme::RsaPkcs1(Hash::Sha384),
    SignatureScheme::RsaPkcs1(Hash::Sha512),
    SignatureScheme::Ed25519,
];

/// Cuts off a field after its length in two octets.
fn split_field(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = input.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// Whether a signature verifies, by other libraries: RustCrypto's curves, and arithmetic for RSA.
fn second_opinion(
    key: &SubjectPublicKey,
    scheme: SignatureScheme,
    message: &[u8],
    signature: &[u8],
) -> bool {
    match (key.kind(), scheme) {
        (KeyKind::EcdsaP256, SignatureScheme::Ecdsa(hash)) => {
            let signature = p256::ecdsa::Signature::from_der(signature);
            verify_p256(key, &hashed(hash, message), signature)
        }
        (KeyKind::EcdsaP384, SignatureScheme::Ecdsa(hash)) => {
            let signature = p384::ecdsa::Signature::from_der(signature);
            verify_p384(key, &hashed(hash, message), signature)
        }
        (KeyKind::EcdsaP521, SignatureScheme::Ecdsa(hash)) => {
            let signature = p521::ecdsa::Signature::from_der(signature);
            // The library refuses hashes that are much narrower than the curve; zeros in front change no number.
            let mut hash = hashed(hash, message);
            hash.splice(..0, vec![0; 64 - hash.len()]);
            verify_p521(key, &hash, signature)
        }
        (KeyKind::Ed25519, SignatureScheme::Ed25519) => {
            let point = key.key_bits().try_into().unwrap();
            let key = ed25519_dalek::VerifyingKey::from_bytes(point);
            let signature = ed25519_dalek::Signature::from_slice(signature);
            key.is_ok_and(|key| {
                signature.is_ok_and(|signature| key.verify_strict(message, &signature).is_ok())
            })
        }
        (kind, SignatureScheme::RsaPkcs1(hash)) if is_rsa(kind) => {
            verify_rsa(key, hash, message, signature)
        }
        _ => false,
    }
}

/// The same for ECDSA signatures that are r and s one after the other.
fn second_opinion_on_halves(key: &SubjectPublicKey, message: &[u8], signature: &[u8]) -> bool {
    match key.kind() {
        KeyKind::EcdsaP256 => {
            let signature = p256::ecdsa::Signature::from_slice(signature);
            verify_p256(key, &hashed(Hash::Sha256, message), signature)
        }
        KeyKind::EcdsaP384 => {
            let signature = p384::ecdsa::Signature::from_slice(signature);
            verify_p384(key, &hashed(Hash::Sha384, message), signature)
        }
        KeyKind::EcdsaP521 => {
            let signature = p521::ecdsa::Signature::from_slice(signature);
            verify_p521(key, &hashed(Hash::Sha512, message), signature)
        }
        KeyKind::Rsa2048 | KeyKind::Rsa3072 | KeyKind::Rsa4096 | KeyKind::Ed25519 => false,
    }
}

macro_rules! verify_with {
    ($name:ident, $curve:ident) => {
        fn $name(
            key: &SubjectPublicKey,
            hash: &[u8],
            signature: Result<$curve::ecdsa::Signature, $curve::ecdsa::Error>,
        ) -> bool {
            use $curve::ecdsa::signature::hazmat::PrehashVerifier as _;
            let key = $curve::ecdsa::VerifyingKey::from_sec1_bytes(key.key_bits()).unwrap();
            signature.is_ok_and(|signature| key.verify_prehash(hash, &signature).is_ok())
        }
    };
}
verify_with!(verify_p256, p256);
verify_with!(verify_p384, p384);
verify_with!(verify_p521, p521);

fn hashed(hash: Hash, message: &[u8]) -> Vec<u8> {
    let algorithm = match hash {
        Hash::Sha256 => &digest::SHA256,
        Hash::Sha384 => &digest::SHA384,
        Hash::Sha512 => &digest::SHA512,
    };
    digest::digest(algorithm, message).as_ref().to_vec()
}

/// RSASSA-PKCS1-v1_5 as RFC 8017 writes it down (section 8.2.2).
fn verify_rsa(key: &SubjectPublicKey, hash: Hash, message: &[u8], signature: &[u8]) -> bool {
    let (sequence, _) = der::expect(key.key_bits(), der::tag::SEQUENCE).unwrap();
    let (modulus, _) = der::expect(sequence.content, der::tag::INTEGER).unwrap();
    let modulus = BigUint::from_bytes_be(modulus.content);
    let width = usize::try_from(modulus.bits()).unwrap() / 8;
    let representative = BigUint::from_bytes_be(signature);
    if signature.len() != width || representative >= modulus {
        return false;
    }
    let encoded = representative.modpow(&BigUint::from(65_537_u32), &modulus);
    let last_arc = match hash {
        Hash::Sha256 => 1,
        Hash::Sha384 => 2,
        Hash::Sha512 => 3,
    };
    let oid = [
        0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, last_arc,
    ];
    let identifier = der::encode(der::tag::SEQUENCE, &[&oid, &[0x05, 0x00]]);
    let hash = der::encode(der::tag::OCTET_STRING, &[&hashed(hash, message)]);
    let info = der::encode(der::tag::SEQUENCE, &[&identifier, &hash]);
    let padding = vec![0xff; width - info.len() - 3];
    let expected = [&[0, 1][..], &padding, &[0], &info].concat();
    encoded == BigUint::from_bytes_be(&expected)
}

/// A certificate signing request: PEM or DER; and what would be signed in one, which is signed here first.
pub fn csr(input: &[u8]) -> bool {
    if PemBlock::first(input).is_ok() {
        return check_csr(input);
    }
    let signed = || {
        let algorithm = der::encode(der::tag::SEQUENCE, &[ECDSA_WITH_SHA256]);
        let signature = GOLDEN_KEY.sign_now(input).unwrap();
        let signature = der::encode(der::tag::BIT_STRING, &[&[0], &signature]);
        der::encode(der::tag::SEQUENCE, &[input, &algorithm, &signature])
    };
    match der::expect(input, der::tag::SEQUENCE) {
        Ok((_, [])) => check_csr(&pem_of(input)) | check_csr(&pem_of(&signed())),
        _ => check_csr(&pem_of(input)),
    }
}

static GOLDEN_KEY: LazyLock<InMemoryKey> = LazyLock::new(golden_key);

/// ecdsa-with-SHA256 (RFC 5758, section 3.2), an OID in DER.
const ECDSA_WITH_SHA256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];

fn pem_of(request_der: &[u8]) -> Vec<u8> {
    pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", request_der)).into_bytes()
}

fn check_csr(request_pem: &[u8]) -> bool {
    let parsed = CertificateRequest::from_pem(request_pem);
    assert!(parsed.is_err() || request_pem.len() <= MAX_REQUEST_BYTES);
    let (key, scheme) = match parsed.and_then(CertificateRequest::verify) {
        Ok(verified) => verified,
        Err(error) => {
            check_message(&error);
            return false;
        }
    };
    let block = PemBlock::first(request_pem).unwrap().decode().unwrap();
    let (request, _) = der::expect(&block, der::tag::SEQUENCE).unwrap();
    let (info, rest) = der::expect(request.content, der::tag::SEQUENCE).unwrap();
    let (_, rest) = der::read(rest).unwrap();
    let (signature, _) = der::expect(rest, der::tag::BIT_STRING).unwrap();
    let signature = &signature.content[1..];
    assert!(second_opinion(&key, scheme, info.whole, signature));
    // Names and attributes are not looked at, so another library may find fault with those, or write them in another order.
    if let Ok(elsewhere) = CertReq::from_der(&block) {
        let spki = elsewhere.info.public_key.to_der().unwrap();
        assert_eq!(spki, key.spki_der());
        assert_eq!(elsewhere.signature.raw_bytes(), signature);
    }
    true
}

/// A text with PEM in it: what is read is what another library reads, and comes back from being written.
pub fn pem(input: &[u8]) -> bool {
    // Operators' files; whatever they hold must not stop the process.
    if let Ok(text) = str::from_utf8(input)
        && let Ok(chain) = CertificateChain::from_pem(text)
    {
        let written: String = chain.certificates().iter().map(|one| one.pem()).collect();
        assert_eq!(CertificateChain::from_pem(&written).unwrap(), chain);
    }
    let block = match PemBlock::first(input) {
        Ok(block) => block,
        Err(error) => {
            check_message(&error);
            return false;
        }
    };
    let Ok(content) = block.decode() else {
        return false;
    };
    assert_eq!(
        block.is_private_key(),
        block.label().ends_with("PRIVATE KEY")
    );
    let written = pem::encode(&pem::Pem::new(block.label(), content.clone()));
    let again = PemBlock::first(written.as_bytes()).unwrap();
    assert_eq!(again.label(), block.label());
    assert_eq!(again.decode().unwrap(), content);
    true
}
