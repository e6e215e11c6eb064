//! Issuance: from a request to a certificate that a transparency log holds.
//!
//! [`CertificateAuthority::issue`] is the whole story; every interface (REST v1 and v2, later gRPC) calls it and no other.

use std::sync::Arc;
use std::time::Instant;

use time::OffsetDateTime;

use crate::clock::{Clock, ClockGuard, ClockWasSet};
use crate::ctlog::{CtLog, SubmitError};
use crate::excerpt::Excerpt;
use crate::identity::{Identity, RefusedToken, TokenError, TokenVerifier};
use crate::limits::{Limited, RateLimiter};
use crate::metrics::{Metrics, Stage};
use crate::random::Random;
use crate::x509::chain::CertificateChain;

pub mod authority;
pub mod extensions;
pub mod hierarchy;
pub mod precertificate;
pub mod profile;
pub mod request;
pub mod tbs;
#[cfg(test)]
mod tests;

use authority::{Authority, AuthorityError};
use profile::{CertificateProfile, ProfileError};
use request::{PermittedAlgorithms, ProofError, ProofOfPossession, SigningRequest};

/// A request that came to no certificate.
#[derive(Debug)]
pub struct FailedIssuance {
    /// The configured id of the issuer that the request's token is from, where there is one.
    pub issuer_id: Option<Arc<str>>,
    /// The token's `iss`, where the token was refused and has one.
    pub iss_claim: Option<Excerpt>,
    /// Why not.
    pub error: IssueError,
}

impl FailedIssuance {
    /// A failure that is not the token's.
    const fn new(issuer_id: Option<Arc<str>>, error: IssueError) -> Self {
        Self {
            issuer_id,
            iss_claim: None,
            error,
        }
    }
}

impl From<RefusedToken> for FailedIssuance {
    fn from(refused: RefusedToken) -> Self {
        Self {
            issuer_id: refused.issuer_id,
            iss_claim: refused.iss_claim,
            error: refused.error.into(),
        }
    }
}

/// Why no certificate was issued. Nothing was signed before [`Self::Log`]; nothing usable exists after it.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The token does not prove an identity.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// There were too many requests of this identity or its issuer.
    #[error(transparent)]
    Limited(#[from] Limited),
    /// The key, or the proof that the requester holds it, was refused.
    #[error(transparent)]
    Proof(#[from] ProofError),
    /// The identity cannot be written into a certificate.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The CA cannot sign.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Nobody knows what time it is.
    #[error(transparent)]
    Clock(#[from] ClockWasSet),
    /// The log gave no timestamp.
    #[error(transparent)]
    Log(#[from] SubmitError),
}

/// A certificate that was issued.
#[derive(Debug)]
pub struct IssuedCertificate {
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// The chain above it, issuing CA first, root last.
    pub chain: Arc<CertificateChain>,
    /// Whether the certificate carries a timestamp; without one it is in no log.
    pub is_logged: bool,
    /// Its serial number.
    pub serial: [u8; 20],
    /// Its place in the log, where the log tells.
    pub leaf_index: Option<u64>,
    /// Whom it was issued to.
    pub identity: Identity,
    /// The client's key, as metrics name it, such as `p256`.
    pub key_label: &'static str,
    /// How possession was proved: `challenge` or `csr`.
    pub proof_label: &'static str,
}

/// The certificate authority: verifies, signs, logs, and hands out.
#[derive(Debug)]
pub struct CertificateAuthority {
    /// Who may ask.
    pub tokens: TokenVerifier,
    /// How often an identity, or an issuer, may ask.
    pub rates: Arc<RateLimiter>,
    /// Which keys and signatures clients may use.
    pub permitted: PermittedAlgorithms,
    /// Who signs.
    pub authority: Authority,
    /// Where precertificates go. `None` only on a server that was started with `--no-ct`.
    pub log: Option<Arc<dyn CtLog>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The same, unless it was set while the process ran.
    pub clock_guard: ClockGuard,
    /// How long the steps take is recorded here.
    pub metrics: Arc<Metrics>,
    /// Serial numbers come from here.
    pub random: Arc<dyn Random>,
}

impl CertificateAuthority {
    /// Issues a certificate for the identity that `request.token` proves, bound to the key that `request.proof` proves.
    ///
    /// # Errors
    /// The first step that fails. Nothing is signed before token and proof hold, and no certificate exists unless the log
    /// returned a timestamp for its precertificate (RFC 6962, section 3.1).
    pub async fn issue(
        &self,
        request: SigningRequest,
    ) -> Result<IssuedCertificate, FailedIssuance> {
        let mut steps = Steps::new(&self.metrics);
        let now = self.clock_guard.now();
        let now = now.map_err(|error| FailedIssuance::new(None, error.into()))?;
        let SigningRequest { token, proof } = request;
        let identity = self.tokens.verify(token.as_str(), now).await?;
        // What is not needed any more goes, here and below: hundreds of requests may wait for the log at a time.
        drop(token);
        steps.done(Stage::Token);
        let issuer_id = Some(Arc::clone(&identity.issuer_id));
        let issued = self.issue_to(identity, proof, now, &mut steps).await;
        issued.map_err(|error| FailedIssuance::new(issuer_id, error))
    }

    async fn issue_to(
        &self,
        identity: Identity,
        proof: ProofOfPossession,
        now: OffsetDateTime,
        steps: &mut Steps<'_>,
    ) -> Result<IssuedCertificate, IssueError> {
        let Identity {
            issuer_id,
            issuer,
            subject,
            rate,
            ..
        } = &identity;
        self.rates
            .check_subject(issuer_id, *rate, issuer, subject, now)?;
        let key = proof.check(&identity, &self.permitted)?;
        steps.done(Stage::Proof);
        let (key_label, proof_label) = (key.label(), proof.label());
        drop(proof);
        let profile = CertificateProfile::new(&identity, key, now, self.random.as_ref())?;
        self.authority.check_lifetime(now)?;
        steps.done(Stage::Template);
        let serial = *profile.serial();
        let (certificate, leaf_index) = match &self.log {
            Some(log) => {
                let precertificate = self.authority.precertify(&profile).await?;
                drop(profile);
                steps.done(Stage::SignPrecert);
                let sct = log.submit(precertificate.submission()).await?;
                steps.done(Stage::Ct);
                (
                    self.authority.certify(&precertificate, &sct).await?,
                    sct.leaf_index(),
                )
            }
            None => (self.authority.certify_unlogged(&profile).await?, None),
        };
        steps.done(Stage::SignFinal);
        Ok(IssuedCertificate {
            certificate,
            chain: Arc::clone(self.authority.chain()),
            is_logged: self.log.is_some(),
            serial,
            leaf_index,
            identity,
            key_label,
            proof_label,
        })
    }
}

/// Records how long each step took, from the end of the one before it.
struct Steps<'a> {
    metrics: &'a Metrics,
    last: Instant,
}

impl<'a> Steps<'a> {
    fn new(metrics: &'a Metrics) -> Self {
        Self {
            metrics,
            last: Instant::now(),
        }
    }

    fn done(&mut self, stage: Stage) {
        let now = Instant::now();
        self.metrics.stage(stage, now - self.last);
        self.last = now;
    }
}
