//! A client's key, and the bodies that clients send.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mayfly::client::EphemeralKey;
use mayfly::proto::fulcio::create_signing_certificate_request::Key;
use mayfly::proto::fulcio::{
    CreateSigningCertificateRequest, PublicKey, PublicKeyAlgorithm, PublicKeyRequest,
};
use mayfly::random::SystemRandomness;
use serde_json::{Value, json};

/// A P-256 key.
#[derive(Debug)]
pub(crate) struct TestKey(EphemeralKey);

impl TestKey {
    pub(crate) fn generate() -> Self {
        Self(EphemeralKey::generate(&SystemRandomness).unwrap())
    }

    /// The public key, a DER SubjectPublicKeyInfo.
    pub(crate) fn der(&self) -> Vec<u8> {
        self.0.public_key_der()
    }

    pub(crate) fn pem(&self) -> String {
        pem::encode_config(
            &pem::Pem::new("PUBLIC KEY", self.der()),
            pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF),
        )
    }

    /// The signature over the challenge, in base64.
    pub(crate) fn proof(&self, challenge: &str) -> String {
        STANDARD.encode(self.0.sign(challenge.as_bytes()))
    }

    /// The message of gRPC without a token.
    pub(crate) fn message(&self, challenge: &str) -> CreateSigningCertificateRequest {
        let public_key = PublicKey {
            algorithm: PublicKeyAlgorithm::Ecdsa.into(),
            content: self.pem(),
        };
        let request = PublicKeyRequest {
            public_key: Some(public_key),
            proof_of_possession: self.0.sign(challenge.as_bytes()),
        };
        CreateSigningCertificateRequest {
            credentials: None,
            key: Some(Key::PublicKeyRequest(request)),
        }
    }

    /// The body of version 2 without a token.
    pub(crate) fn v2(&self, challenge: &str) -> Value {
        v2(&self.pem(), &self.proof(challenge))
    }

    /// The body of version 1.
    pub(crate) fn v1(&self, challenge: &str) -> Value {
        json!({
            "publicKey": { "content": STANDARD.encode(self.der()), "algorithm": "ecdsa" },
            "signedEmailAddress": self.proof(challenge),
        })
    }
}

/// The body of version 2 for any key and proof.
pub(crate) fn v2(public_key: &str, proof: &str) -> Value {
    json!({ "publicKeyRequest": {
        "publicKey": { "algorithm": "ECDSA", "content": public_key },
        "proofOfPossession": proof,
    } })
}

/// The body of either version for the text of a certificate signing request.
pub(crate) fn csr(pem: &str) -> Value {
    json!({ "certificateSigningRequest": STANDARD.encode(pem) })
}

/// A certificate signing request by a new P-256 key, PEM.
pub(crate) fn new_csr() -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    request.pem().unwrap()
}
