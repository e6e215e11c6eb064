//! A requester's key, for tests. Its signatures come from other code than that which verifies them, but for RSA.

use std::fmt::Write as _;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self as lc, KeyPair as _, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signer as _;
use p256::ecdsa::signature::hazmat::PrehashSigner as _;

use super::algorithm::{Hash, KeyKind, SignatureScheme};
use super::der::{self, tag};

/// A key that tests prove to hold.
pub(crate) struct TestKey {
    kind: KeyKind,
    spki_der: Vec<u8>,
    secret: Secret,
}

enum Secret {
    P256(p256::ecdsa::SigningKey),
    P384(p384::ecdsa::SigningKey),
    P521(p521::ecdsa::SigningKey),
    Rsa(Box<RsaKeyPair>),
    Ed25519(ed25519_dalek::SigningKey),
}

impl TestKey {
    /// Makes a key: always the same one but for RSA, whose keys are new.
    pub(crate) fn new(kind: KeyKind) -> Self {
        Self::numbered(kind, 1)
    }

    /// Makes the key with the given number, from 1.
    pub(crate) fn numbered(kind: KeyKind, number: u8) -> Self {
        let secret = match kind {
            KeyKind::EcdsaP256 => {
                Secret::P256(p256::ecdsa::SigningKey::from_slice(&[number; 32]).unwrap())
            }
            KeyKind::EcdsaP384 => {
                Secret::P384(p384::ecdsa::SigningKey::from_slice(&[number; 48]).unwrap())
            }
            KeyKind::EcdsaP521 => {
                let mut scalar = [number; 66];
                scalar[0] = 0;
                Secret::P521(p521::ecdsa::SigningKey::from_slice(&scalar).unwrap())
            }
            KeyKind::Rsa2048 => rsa(KeySize::Rsa2048),
            KeyKind::Rsa3072 => rsa(KeySize::Rsa3072),
            KeyKind::Rsa4096 => rsa(KeySize::Rsa4096),
            KeyKind::Ed25519 => {
                Secret::Ed25519(ed25519_dalek::SigningKey::from_bytes(&[number; 32]))
            }
        };
        let spki_der = match &secret {
            Secret::P256(key) => {
                let point = key.verifying_key().to_sec1_point(false);
                elliptic_spki(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7], point.as_bytes())
            }
            Secret::P384(key) => {
                let point = key.verifying_key().to_sec1_point(false);
                elliptic_spki(&[0x2b, 0x81, 4, 0, 0x22], point.as_bytes())
            }
            Secret::P521(key) => {
                let point = key.verifying_key().to_sec1_point(false);
                elliptic_spki(&[0x2b, 0x81, 4, 0, 0x23], point.as_bytes())
            }
            Secret::Rsa(pair) => pair.public_key().as_der().unwrap().as_ref().to_vec(),
            Secret::Ed25519(key) => ed25519_spki(key.verifying_key().as_bytes()),
        };
        Self {
            kind,
            spki_der,
            secret,
        }
    }

    pub(crate) fn spki_der(&self) -> &[u8] {
        &self.spki_der
    }

    /// The public key as most clients send it.
    pub(crate) fn pem(&self) -> String {
        pem("PUBLIC KEY", &self.spki_der)
    }

    /// Signs a challenge as the kind of key wants it.
    pub(crate) fn prove(&self, challenge: &str) -> Vec<u8> {
        self.sign(self.kind.proof_scheme(), challenge.as_bytes())
    }

    /// Signs; ECDSA signatures are DER.
    pub(crate) fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Vec<u8> {
        match &self.secret {
            Secret::P256(key) => {
                let signature: p256::ecdsa::DerSignature =
                    key.sign_prehash(&hash_for(scheme, message)).unwrap();
                signature.as_bytes().to_vec()
            }
            Secret::P384(key) => {
                let signature: p384::ecdsa::DerSignature =
                    key.sign_prehash(&hash_for(scheme, message)).unwrap();
                signature.as_bytes().to_vec()
            }
            Secret::P521(key) => {
                // The signer wants at least half a coordinate; a zero in front does not change the number.
                let hash = [&[0][..], &hash_for(scheme, message)].concat();
                let signature: p521::ecdsa::DerSignature = key.sign_prehash(&hash).unwrap();
                signature.as_bytes().to_vec()
            }
            Secret::Rsa(pair) => {
                let padding: &'static dyn lc::RsaEncoding = match scheme.hash().unwrap() {
                    Hash::Sha256 => &lc::RSA_PKCS1_SHA256,
                    Hash::Sha384 => &lc::RSA_PKCS1_SHA384,
                    Hash::Sha512 => &lc::RSA_PKCS1_SHA512,
                };
                rsa_sign(pair, padding, message)
            }
            Secret::Ed25519(key) => key.sign(message).to_bytes().to_vec(),
        }
    }

    /// Signs with RSASSA-PSS and SHA-256.
    pub(crate) fn sign_pss(&self, message: &[u8]) -> Vec<u8> {
        let Secret::Rsa(pair) = &self.secret else {
            panic!("not an RSA key")
        };
        rsa_sign(pair, &lc::RSA_PSS_SHA256, message)
    }

    /// The private RSA key: PKCS#8, DER.
    pub(crate) fn rsa_pkcs8(&self) -> Vec<u8> {
        let Secret::Rsa(pair) = &self.secret else {
            panic!("not an RSA key")
        };
        pair.as_der().unwrap().as_ref().to_vec()
    }

    /// A certificate signing request without subject and attributes, PEM.
    pub(crate) fn csr(&self, scheme: SignatureScheme) -> String {
        let algorithm = algorithm_identifier(scheme);
        self.csr_with(&self.spki_der, &algorithm, |info| self.sign(scheme, info))
    }

    /// A certificate signing request for any key, with any algorithm and signature, PEM.
    pub(crate) fn csr_with(
        &self,
        spki_der: &[u8],
        algorithm: &[u8],
        sign: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> String {
        let info = der::encode(
            tag::SEQUENCE,
            &[
                &[2, 1, 0],
                &der::encode(tag::SEQUENCE, &[]),
                spki_der,
                &der::encode(0xa0, &[]),
            ],
        );
        pem(
            "CERTIFICATE REQUEST",
            &signed(&info, algorithm, &sign(&info)),
        )
    }
}

/// Puts a CertificationRequestInfo, an AlgorithmIdentifier and a signature together.
pub(crate) fn signed(info: &[u8], algorithm: &[u8], signature: &[u8]) -> Vec<u8> {
    let signature = der::encode(tag::BIT_STRING, &[&[0], signature]);
    der::encode(tag::SEQUENCE, &[info, algorithm, &signature])
}

/// A PEM block with lines of 64 characters.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let digits = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in digits.as_bytes().chunks(64) {
        writeln!(text, "{}", str::from_utf8(line).unwrap()).unwrap();
    }
    writeln!(text, "-----END {label}-----").unwrap();
    text
}

/// The SubjectPublicKeyInfo of a point on a named curve.
pub(crate) fn elliptic_spki(curve: &[u8], point: &[u8]) -> Vec<u8> {
    let id_ec_public_key = [6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
    spki(
        &[&id_ec_public_key, &der::encode(tag::OID, &[curve])],
        point,
    )
}

/// The SubjectPublicKeyInfo of an Ed25519 point.
pub(crate) fn ed25519_spki(point: &[u8]) -> Vec<u8> {
    spki(&[&[6, 3, 0x2b, 0x65, 0x70]], point)
}

/// The SubjectPublicKeyInfo of an RSA modulus and exponent, both content octets of an INTEGER.
pub(crate) fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let modulus = der::encode(tag::INTEGER, &[modulus]);
    let exponent = der::encode(tag::INTEGER, &[exponent]);
    let algorithm = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
    spki(
        &[&algorithm],
        &der::encode(tag::SEQUENCE, &[&modulus, &exponent]),
    )
}

/// A SubjectPublicKeyInfo of the parts of an AlgorithmIdentifier and the octets of a key.
pub(crate) fn spki(algorithm: &[&[u8]], key_bits: &[u8]) -> Vec<u8> {
    let algorithm = der::encode(tag::SEQUENCE, algorithm);
    let bits = der::encode(tag::BIT_STRING, &[&[0], key_bits]);
    der::encode(tag::SEQUENCE, &[&algorithm, &bits])
}

/// The AlgorithmIdentifier of a scheme, DER (RFC 5758, RFC 4055, RFC 8410).
pub(crate) fn algorithm_identifier(scheme: SignatureScheme) -> Vec<u8> {
    let last = |hash| match hash {
        Hash::Sha256 => 0,
        Hash::Sha384 => 1,
        Hash::Sha512 => 2,
    };
    match scheme {
        SignatureScheme::Ecdsa(hash) => {
            vec![
                0x30,
                10,
                6,
                8,
                0x2a,
                0x86,
                0x48,
                0xce,
                0x3d,
                4,
                3,
                2 + last(hash),
            ]
        }
        SignatureScheme::RsaPkcs1(hash) => {
            let oid = [
                6,
                9,
                0x2a,
                0x86,
                0x48,
                0x86,
                0xf7,
                0x0d,
                1,
                1,
                11 + last(hash),
            ];
            der::encode(tag::SEQUENCE, &[&oid, &[5, 0]])
        }
        SignatureScheme::Ed25519 => vec![0x30, 5, 6, 3, 0x2b, 0x65, 0x70],
    }
}

/// The hash of a message under a scheme that has one.
pub(crate) fn hash_for(scheme: SignatureScheme, message: &[u8]) -> Vec<u8> {
    use aws_lc_rs::digest;
    let algorithm = match scheme.hash().unwrap() {
        Hash::Sha256 => &digest::SHA256,
        Hash::Sha384 => &digest::SHA384,
        Hash::Sha512 => &digest::SHA512,
    };
    digest::digest(algorithm, message).as_ref().to_vec()
}

fn rsa(size: KeySize) -> Secret {
    Secret::Rsa(Box::new(RsaKeyPair::generate(size).unwrap()))
}

fn rsa_sign(pair: &RsaKeyPair, padding: &'static dyn lc::RsaEncoding, message: &[u8]) -> Vec<u8> {
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(padding, &SystemRandom::new(), message, &mut signature)
        .unwrap();
    signature
}
