//! A key that signs the same message with the same bytes, for golden vectors: ECDSA P-256 after RFC 6979.

use futures_util::future::{BoxFuture, FutureExt, ready};
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::EncodePublicKey;

use super::{SignError, SignatureAlgorithm, Signer};

/// A key whose private scalar is one octet, repeated.
#[derive(Debug)]
pub(crate) struct DeterministicKey {
    key: SigningKey,
    public_key_der: Vec<u8>,
}

impl DeterministicKey {
    /// The key with the scalar `octet` × 32.
    pub(crate) fn new(octet: u8) -> Self {
        let key = SigningKey::from_slice(&[octet; 32]).unwrap();
        let public_key = key.verifying_key().to_public_key_der().unwrap();
        Self {
            key,
            public_key_der: public_key.into_vec(),
        }
    }
}

impl Signer for DeterministicKey {
    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::EcdsaP256Sha256
    }

    fn public_key_der(&self) -> &[u8] {
        &self.public_key_der
    }

    fn sign<'a>(&'a self, message: &'a [u8]) -> BoxFuture<'a, Result<Vec<u8>, SignError>> {
        let signature: Signature = self.key.sign(message);
        ready(Ok(signature.to_der().as_bytes().to_vec())).boxed()
    }
}
