//! The authority: its chain, its key, and what must hold before it signs anything.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::digest::{SHA256, digest};
use time::OffsetDateTime;

use crate::ca::profile::LIFETIME;
use crate::ca::tbs::TbsTemplate;
use crate::hex::hex;
use crate::keys::{SignError, SignatureAlgorithm, Signer};
use crate::limits::{TooBusy, Turns};
use crate::x509::chain::{CertificateChain, ChainError};
use crate::x509::der;

/// What the key signs at start to show that it is the certificate's. Not DER, so that it can never pass for a certificate.
const START_UP_TEXT: &[u8] = b"mayfly: does this key belong to this certificate?";

/// Why an authority cannot start, or cannot issue.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The chain is not valid now.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The key is another one than the certificate's.
    #[error(
        "the CA key does not belong to the CA certificate: the certificate ({subject}) holds public key SHA-256 {certificate}, the key file holds {key}"
    )]
    KeyMismatch {
        /// The certificate's subject.
        subject: String,
        /// The start of the hash of the certificate's public key, hex.
        certificate: String,
        /// The start of the hash of the key's public half, hex.
        key: String,
    },
    /// The key does not sign.
    #[error("the CA key failed: {0}")]
    Sign(#[from] SignError),
    /// A certificate of the chain is not valid yet.
    #[error("the CA certificate is not valid before {not_before}; check the clock")]
    NotYetValid {
        /// When the last certificate of the chain begins.
        not_before: OffsetDateTime,
    },
    /// More is asked of the key than it can do; trying again later may help.
    #[error(transparent)]
    TooBusy(#[from] TooBusy),
    /// A certificate of the chain ends before a new certificate would.
    #[error(
        "the CA certificate ends at {not_after}, before a certificate issued now would; rotate the CA"
    )]
    EndsTooSoon {
        /// When the first certificate of the chain ends.
        not_after: OffsetDateTime,
    },
    /// Precertificate and certificate differ in more than poison and timestamp, or could not be built.
    #[error("the certificate could not be built: {0}")]
    Build(String),
}

/// A certificate authority: a chain and the key of its first certificate.
pub struct Authority {
    pub(super) chain: Arc<CertificateChain>,
    pub(super) signer: Arc<dyn Signer>,
    /// For a key that makes only so many signatures at the same time.
    turns: Option<Arc<Turns>>,
    pub(super) issuer_key_hash: [u8; 32],
    /// What all its certificates have in common.
    pub(super) template: TbsTemplate,
    verify_signatures: bool,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("chain", &self.chain)
            .field("signer", &self.signer)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Joins a chain with its key.
    ///
    /// Signs a fixed text and verifies it with the certificate's key, which finds a wrong key, a wrong encoding and a dead
    /// back-end before the first request does. With `verify_signatures`, every later signature is verified too: for keys
    /// outside this process.
    ///
    /// # Errors
    /// When the chain is not valid at `now` or ends within the life of a certificate, or the key is not the chain's.
    pub async fn new(
        chain: Arc<CertificateChain>,
        signer: Arc<dyn Signer>,
        verify_signatures: bool,
        now: OffsetDateTime,
    ) -> Result<Self, AuthorityError> {
        chain.check_validity(now)?;
        let issuing = chain.issuing();
        if issuing.public_key_der() != signer.public_key_der() {
            return Err(AuthorityError::KeyMismatch {
                subject: issuing.subject().to_owned(),
                certificate: short_hash(issuing.public_key_der()),
                key: short_hash(signer.public_key_der()),
            });
        }
        let mut issuer_key_hash = [0; 32];
        issuer_key_hash.copy_from_slice(digest(&SHA256, issuing.public_key_der()).as_ref());
        let mut authority = Self {
            issuer_key_hash,
            template: TbsTemplate::new(issuing, signer.algorithm())?,
            verify_signatures,
            turns: None,
            signer,
            chain,
        };
        authority.check_lifetime(now)?;
        let start = Instant::now();
        authority.check_key().await?;
        let usual = start.elapsed();
        let at_once = authority.signer.at_once();
        authority.turns = at_once.map(|at_once| Turns::new(at_once, usual));
        Ok(authority)
    }

    /// Signs a fixed text and verifies it: whether the key is there, and is the certificate's.
    ///
    /// # Errors
    /// When the key does not sign, or its signature does not verify.
    pub async fn check_key(&self) -> Result<(), SignError> {
        let signature = self.signer.sign(START_UP_TEXT).await?;
        self.verify(START_UP_TEXT, &signature)
    }

    /// Checks that the whole chain is valid at `now`, and will be for the life of a certificate.
    ///
    /// # Errors
    /// When it is not.
    pub fn check_validity(&self, now: OffsetDateTime) -> Result<(), AuthorityError> {
        self.chain.check_validity(now)?;
        self.check_lifetime(now)
    }

    /// The chain, issuing CA first.
    #[must_use]
    pub const fn chain(&self) -> &Arc<CertificateChain> {
        &self.chain
    }

    /// Checks that a certificate issued at `now` would not be valid outside the chain's own validity.
    ///
    /// # Errors
    /// [`AuthorityError::NotYetValid`], [`AuthorityError::EndsTooSoon`].
    pub fn check_lifetime(&self, now: OffsetDateTime) -> Result<(), AuthorityError> {
        let (not_before, not_after) = (self.chain.not_before(), self.chain.not_after());
        if now < not_before {
            Err(AuthorityError::NotYetValid { not_before })
        } else if now + LIFETIME > not_after {
            Err(AuthorityError::EndsTooSoon { not_after })
        } else {
            Ok(())
        }
    }

    /// Signs a TBSCertificate for which nothing was signed before, and returns the whole certificate, DER (RFC 5280,
    /// section 4.1). Where the key is busy, it waits, but not for long.
    pub(super) async fn sign_first(&self, tbs: &[u8]) -> Result<Vec<u8>, AuthorityError> {
        let _turn = match &self.turns {
            Some(turns) => Some(turns.take().await?),
            None => None,
        };
        self.sign(tbs).await
    }

    /// The same where a precertificate was signed and logged before: it goes before all that have not begun.
    pub(super) async fn sign_again(&self, tbs: &[u8]) -> Result<Vec<u8>, AuthorityError> {
        let _turn = match &self.turns {
            Some(turns) => Some(turns.take_again().await),
            None => None,
        };
        self.sign(tbs).await
    }

    async fn sign(&self, tbs: &[u8]) -> Result<Vec<u8>, AuthorityError> {
        let signature = self.signer.sign(tbs).await?;
        if self.verify_signatures {
            self.verify(tbs, &signature)?;
        }
        let bits = der::encode(der::tag::BIT_STRING, &[&[0], &signature]);
        Ok(der::encode(
            der::tag::SEQUENCE,
            &[tbs, self.signer.algorithm().identifier_der(), &bits],
        ))
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), SignError> {
        use aws_lc_rs::signature as lc;
        let algorithm: &'static dyn lc::VerificationAlgorithm = match self.signer.algorithm() {
            SignatureAlgorithm::EcdsaP256Sha256 => &lc::ECDSA_P256_SHA256_ASN1,
            SignatureAlgorithm::EcdsaP384Sha384 => &lc::ECDSA_P384_SHA384_ASN1,
            SignatureAlgorithm::EcdsaP521Sha512 => &lc::ECDSA_P521_SHA512_ASN1,
            SignatureAlgorithm::RsaPkcs1Sha256 => &lc::RSA_PKCS1_2048_8192_SHA256,
            SignatureAlgorithm::Ed25519 => &lc::ED25519,
        };
        lc::UnparsedPublicKey::new(algorithm, self.chain.issuing().public_key_der())
            .verify(message, signature)
            .map_err(|_| SignError::BadSignature)
    }
}

fn short_hash(bytes: &[u8]) -> String {
    let digest = digest(&SHA256, bytes);
    hex(digest.as_ref().get(..8).unwrap_or_default())
}
