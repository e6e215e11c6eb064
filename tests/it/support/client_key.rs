//! Clients' keys of every kind, and what is encoded of them, right and wrong.

use aws_lc_rs::digest;
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use ed25519_dalek::Signer as _;
use mayfly::x509::der::{self, tag};
use p256::ecdsa::signature::hazmat::PrehashSigner as _;
use p256::pkcs8::EncodePublicKey as _;

/// id-ecPublicKey, DER.
const ID_EC_PUBLIC_KEY: &[u8] = &[6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];

/// A key of some kind. Signatures come from other code than that which verifies them, but for RSA.
pub(crate) enum ClientKey {
    P256(p256::ecdsa::SigningKey),
    P384(p384::ecdsa::SigningKey),
    P521(p521::ecdsa::SigningKey),
    Rsa(Box<RsaKeyPair>),
    Ed25519(ed25519_dalek::SigningKey),
}

impl ClientKey {
    /// The P-256 key with this number, from 1.
    pub(crate) fn p256(number: u8) -> Self {
        Self::P256(p256::ecdsa::SigningKey::from_slice(&[number; 32]).unwrap())
    }

    pub(crate) fn p384() -> Self {
        Self::P384(p384::ecdsa::SigningKey::from_slice(&[1; 48]).unwrap())
    }

    pub(crate) fn p521() -> Self {
        let mut scalar = [1; 66];
        scalar[0] = 0;
        Self::P521(p521::ecdsa::SigningKey::from_slice(&scalar).unwrap())
    }

    pub(crate) fn ed25519() -> Self {
        Self::Ed25519(ed25519_dalek::SigningKey::from_bytes(&[1; 32]))
    }

    /// A new RSA key of 2048 bits.
    pub(crate) fn rsa() -> Self {
        Self::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).unwrap()))
    }

    /// A key of each kind.
    pub(crate) fn all() -> [Self; 5] {
        [
            Self::p256(1),
            Self::p384(),
            Self::p521(),
            Self::ed25519(),
            Self::rsa(),
        ]
    }

    /// The DER SubjectPublicKeyInfo.
    pub(crate) fn spki(&self) -> Vec<u8> {
        match self {
            Self::P256(key) => key.verifying_key().to_public_key_der().unwrap().into_vec(),
            Self::P384(key) => key.verifying_key().to_public_key_der().unwrap().into_vec(),
            Self::P521(key) => key.verifying_key().to_public_key_der().unwrap().into_vec(),
            Self::Rsa(key) => key.public_key().as_der().unwrap().as_ref().to_vec(),
            Self::Ed25519(key) => ed25519_spki(key.verifying_key().as_bytes()),
        }
    }

    pub(crate) fn pem(&self) -> String {
        pem("PUBLIC KEY", &self.spki())
    }

    /// Signs as a proof of possession is made; ECDSA signatures are DER.
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        match self {
            Self::P256(_) => self.sign_hashed(&digest::SHA256, message),
            Self::P384(_) => self.sign_hashed(&digest::SHA384, message),
            Self::P521(_) => self.sign_hashed(&digest::SHA512, message),
            Self::Rsa(_) => self.sign_rsa(&RSA_PKCS1_SHA256, message),
            Self::Ed25519(key) => key.sign(message).to_bytes().to_vec(),
        }
    }

    /// Signs by ECDSA with any hash.
    pub(crate) fn sign_hashed(
        &self,
        algorithm: &'static digest::Algorithm,
        message: &[u8],
    ) -> Vec<u8> {
        let hash = digest::digest(algorithm, message);
        let hash = hash.as_ref();
        match self {
            Self::P256(key) => {
                let signature: p256::ecdsa::DerSignature = key.sign_prehash(hash).unwrap();
                signature.as_bytes().to_vec()
            }
            Self::P384(key) => {
                let signature: p384::ecdsa::DerSignature = key.sign_prehash(hash).unwrap();
                signature.as_bytes().to_vec()
            }
            Self::P521(key) => {
                // The signer wants at least half a coordinate; a zero in front does not change the number.
                let hash = [&[0], hash].concat();
                let signature: p521::ecdsa::DerSignature = key.sign_prehash(&hash).unwrap();
                signature.as_bytes().to_vec()
            }
            Self::Rsa(_) | Self::Ed25519(_) => panic!("not an elliptic key"),
        }
    }

    fn sign_rsa(&self, padding: &'static dyn RsaEncoding, message: &[u8]) -> Vec<u8> {
        let Self::Rsa(key) = self else {
            panic!("not an RSA key")
        };
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(padding, &SystemRandom::new(), message, &mut signature)
            .unwrap();
        signature
    }

    pub(crate) fn sign_pss(&self, message: &[u8]) -> Vec<u8> {
        self.sign_rsa(&RSA_PSS_SHA256, message)
    }

    pub(crate) fn sign_pkcs1_sha384(&self, message: &[u8]) -> Vec<u8> {
        self.sign_rsa(&RSA_PKCS1_SHA384, message)
    }
}

/// A PEM block with line feeds.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(label, der), config)
}

/// A SubjectPublicKeyInfo of the content of its AlgorithmIdentifier and the octets of a key.
pub(crate) fn spki(algorithm: &[&[u8]], key_bits: &[u8]) -> Vec<u8> {
    let algorithm = der::encode(tag::SEQUENCE, algorithm);
    let bits = der::encode(tag::BIT_STRING, &[&[0], key_bits]);
    der::encode(tag::SEQUENCE, &[&algorithm, &bits])
}

/// A SubjectPublicKeyInfo of the elliptic curve with this OID (content octets).
pub(crate) fn elliptic_spki(curve: &[u8], point: &[u8]) -> Vec<u8> {
    elliptic_spki_with(&der::encode(tag::OID, &[curve]), point)
}

/// A SubjectPublicKeyInfo of an elliptic curve with any parameters.
pub(crate) fn elliptic_spki_with(parameters: &[u8], point: &[u8]) -> Vec<u8> {
    spki(&[ID_EC_PUBLIC_KEY, parameters], point)
}

pub(crate) fn ed25519_spki(point: &[u8]) -> Vec<u8> {
    spki(&[&[6, 3, 0x2b, 0x65, 0x70]], point)
}

/// A SubjectPublicKeyInfo of an RSA modulus and exponent, both content octets of an INTEGER.
pub(crate) fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> Vec<u8> {
    let modulus = der::encode(tag::INTEGER, &[modulus]);
    let exponent = der::encode(tag::INTEGER, &[exponent]);
    let algorithm = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
    let key = der::encode(tag::SEQUENCE, &[&modulus, &exponent]);
    spki(&[&algorithm], &key)
}

/// ecdsa-with-SHA256 (RFC 5758, section 3.2).
pub(crate) const ECDSA_SHA256: &[u8] = &[0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
/// ecdsa-with-SHA1 (RFC 3279, section 2.2.3).
pub(crate) const ECDSA_SHA1: &[u8] = &[0x30, 9, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 1];
/// md5WithRSAEncryption (RFC 3279, section 2.2.1).
pub(crate) const RSA_MD5: &[u8] = &[
    0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 4, 5, 0,
];
/// id-Ed25519 (RFC 8410, section 3).
pub(crate) const ED25519: &[u8] = &[0x30, 5, 6, 3, 0x2b, 0x65, 0x70];

/// A certificate signing request to be made, right or wrong (RFC 2986, section 4).
pub(crate) struct Csr<'a> {
    pub(crate) version: u8,
    /// The content of the name.
    pub(crate) subject: &'a [u8],
    pub(crate) spki: &'a [u8],
    /// The content of the attributes.
    pub(crate) attributes: &'a [u8],
    pub(crate) algorithm: &'a [u8],
}

impl<'a> Csr<'a> {
    /// One for a P-256 key, without attributes.
    pub(crate) fn of(spki: &'a [u8]) -> Self {
        Self {
            version: 0,
            subject: &[],
            spki,
            attributes: &[],
            algorithm: ECDSA_SHA256,
        }
    }

    /// The DER of the request, signed by whatever signs.
    pub(crate) fn signed(&self, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
        let subject = der::encode(tag::SEQUENCE, &[self.subject]);
        let attributes = der::encode(0xa0, &[self.attributes]);
        let version = [tag::INTEGER, 1, self.version];
        let info = der::encode(tag::SEQUENCE, &[&version, &subject, self.spki, &attributes]);
        let signature = der::encode(tag::BIT_STRING, &[&[0], &sign(&info)]);
        der::encode(tag::SEQUENCE, &[&info, self.algorithm, &signature])
    }
}
