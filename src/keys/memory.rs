//! A private key in this process's memory.

use std::fmt;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use futures_util::future::{BoxFuture, FutureExt, ready};
use zeroize::Zeroizing;

use super::{SignError, SignatureAlgorithm, Signer};

/// The kinds of key that can be generated here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NewKey {
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// ECDSA on P-521.
    P521,
    /// Ed25519.
    Ed25519,
    /// RSA with a modulus of 2048 bits.
    Rsa2048,
    /// RSA with a modulus of 3072 bits.
    Rsa3072,
    /// RSA with a modulus of 4096 bits.
    Rsa4096,
}

impl NewKey {
    /// Generates a key: its PKCS#8 (v1) DER.
    fn pkcs8(self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let ecdsa = |algorithm: &'static EcdsaSigningAlgorithm| {
            let pair = EcdsaKeyPair::generate(algorithm).map_err(|_| KeyError::Generation)?;
            let der = pair.to_pkcs8v1().map_err(|_| KeyError::Generation)?;
            Ok(Zeroizing::new(der.as_ref().to_vec()))
        };
        let rsa = |size| {
            let pair = RsaKeyPair::generate(size).map_err(|_| KeyError::Generation)?;
            let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).map_err(|_| KeyError::Generation)?;
            Ok(Zeroizing::new(der.as_ref().to_vec()))
        };
        match self {
            Self::P256 => ecdsa(&ECDSA_P256_SHA256_ASN1_SIGNING),
            Self::P384 => ecdsa(&ECDSA_P384_SHA384_ASN1_SIGNING),
            Self::P521 => ecdsa(&ECDSA_P521_SHA512_ASN1_SIGNING),
            Self::Ed25519 => {
                let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::Generation)?;
                let der = pair.to_pkcs8v1().map_err(|_| KeyError::Generation)?;
                Ok(Zeroizing::new(der.as_ref().to_vec()))
            }
            Self::Rsa2048 => rsa(KeySize::Rsa2048),
            Self::Rsa3072 => rsa(KeySize::Rsa3072),
            Self::Rsa4096 => rsa(KeySize::Rsa4096),
        }
    }
}

/// Why bytes are not a private key that can sign here.
#[derive(Clone, Debug, thiserror::Error)]
pub enum KeyError {
    /// Not PKCS#8, SEC1 or PKCS#1, or of a kind that is not supported.
    #[error(
        "not a PKCS#8, SEC1 or PKCS#1 private key of ECDSA P-256/P-384/P-521, RSA 2048 to 8192 bits or Ed25519"
    )]
    Unsupported,
    /// The system could not generate a key.
    #[error("the system could not generate a key")]
    Generation,
}

enum Pair {
    Ecdsa(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
    Ed25519(Ed25519KeyPair),
}

/// A signing key held in memory. Its `Debug` shows the algorithm alone.
pub struct InMemoryKey {
    pair: Pair,
    algorithm: SignatureAlgorithm,
    public_key_der: Vec<u8>,
    random: SystemRandom,
}

impl fmt::Debug for InMemoryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemoryKey")
            .field("algorithm", &self.algorithm)
            .finish_non_exhaustive()
    }
}

impl InMemoryKey {
    /// Makes a new key and returns it with its PKCS#8 (v1) DER, for whoever wants to keep it.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate(kind: NewKey) -> Result<(Self, Zeroizing<Vec<u8>>), KeyError> {
        let der = kind.pkcs8()?;
        Ok((Self::from_der(&der)?, der))
    }

    /// Reads a private key: PKCS#8, SEC1 (`EC PRIVATE KEY`) or PKCS#1 (`RSA PRIVATE KEY`), DER.
    ///
    /// # Errors
    /// When `der` is none of these, or its kind is not supported.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        for (signing, algorithm) in [
            (
                &ECDSA_P256_SHA256_ASN1_SIGNING,
                SignatureAlgorithm::EcdsaP256Sha256,
            ),
            (
                &ECDSA_P384_SHA384_ASN1_SIGNING,
                SignatureAlgorithm::EcdsaP384Sha384,
            ),
            (
                &ECDSA_P521_SHA512_ASN1_SIGNING,
                SignatureAlgorithm::EcdsaP521Sha512,
            ),
        ] {
            if let Ok(pair) = EcdsaKeyPair::from_private_key_der(signing, der) {
                let public_key = pair
                    .public_key()
                    .as_der()
                    .map_err(|_| KeyError::Unsupported)?
                    .as_ref()
                    .to_vec();
                return Ok(Self::new(Pair::Ecdsa(pair), algorithm, public_key));
            }
        }
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8(der) {
            let public_key = pair
                .public_key()
                .as_der()
                .map_err(|_| KeyError::Unsupported)?
                .as_ref()
                .to_vec();
            return Ok(Self::new(
                Pair::Ed25519(pair),
                SignatureAlgorithm::Ed25519,
                public_key,
            ));
        }
        if let Ok(pair) = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der)) {
            let public_key = pair
                .public_key()
                .as_der()
                .map_err(|_| KeyError::Unsupported)?
                .as_ref()
                .to_vec();
            return Ok(Self::new(
                Pair::Rsa(Box::new(pair)),
                SignatureAlgorithm::RsaPkcs1Sha256,
                public_key,
            ));
        }
        Err(KeyError::Unsupported)
    }

    fn new(pair: Pair, algorithm: SignatureAlgorithm, public_key_der: Vec<u8>) -> Self {
        Self {
            pair,
            algorithm,
            public_key_der,
            random: SystemRandom::new(),
        }
    }

    /// Signs at once; see [`Signer::sign`].
    ///
    /// # Errors
    /// When the system has no randomness, or an RSA signature does not verify (a fault in the computation would otherwise
    /// give the private key away).
    pub fn sign_now(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let failed = |_| SignError::Backend("the key in memory could not sign".to_owned());
        match &self.pair {
            Pair::Ecdsa(pair) => Ok(pair
                .sign(&self.random, message)
                .map_err(failed)?
                .as_ref()
                .to_vec()),
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &self.random, message, &mut signature)
                    .map_err(failed)?;
                let public_key = aws_lc_rs::signature::UnparsedPublicKey::new(
                    &aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256,
                    pair.public_key().as_ref(),
                );
                public_key
                    .verify(message, &signature)
                    .map_err(|_| SignError::BadSignature)?;
                Ok(signature)
            }
        }
    }
}

impl Signer for InMemoryKey {
    fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    fn public_key_der(&self) -> &[u8] {
        &self.public_key_der
    }

    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, SignError>> {
        ready(self.sign_now(message)).boxed()
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{self as lc, VerificationAlgorithm};

    use super::*;

    #[test]
    fn a_generated_key_signs_and_reads_back_from_its_pkcs8() {
        let kinds: [(NewKey, &'static dyn VerificationAlgorithm); 5] = [
            (NewKey::P256, &lc::ECDSA_P256_SHA256_ASN1),
            (NewKey::P384, &lc::ECDSA_P384_SHA384_ASN1),
            (NewKey::P521, &lc::ECDSA_P521_SHA512_ASN1),
            (NewKey::Ed25519, &lc::ED25519),
            (NewKey::Rsa2048, &lc::RSA_PKCS1_2048_8192_SHA256),
        ];
        for (kind, algorithm) in kinds {
            let (key, pkcs8) = InMemoryKey::generate(kind).unwrap();
            let again = InMemoryKey::from_der(&pkcs8).unwrap();

            assert_eq!(key.public_key_der(), again.public_key_der(), "{kind:?}");
            let signature = again.sign_now(b"message").unwrap();
            lc::UnparsedPublicKey::new(algorithm, key.public_key_der())
                .verify(b"message", &signature)
                .unwrap_or_else(|_| panic!("{kind:?}"));
        }
    }

    #[test]
    fn debug_output_shows_no_key() {
        let (key, _) = InMemoryKey::generate(NewKey::P384).unwrap();
        assert_eq!(
            format!("{key:?}"),
            "InMemoryKey { algorithm: EcdsaP384Sha384, .. }"
        );
    }
}
