//! Who is asking: from the bytes of an ID token to the [`Identity`] that it proves.
//!
//! The only way to an `Identity` is [`verifier::TokenVerifier::verify`]; nothing else in the crate reads a token.

use std::sync::Arc;

pub mod ci_provider;
pub mod claims;
pub mod config;
pub mod error;
pub mod issuers;
pub mod json;
pub mod jwks;
pub mod jws;
pub mod origin;
pub mod rules;
pub mod template;
pub mod trace;
pub mod verifier;

#[cfg(test)]
pub(crate) mod testing;

pub use config::{Finding, Severity, Source};
pub use error::{RefusedToken, TokenError};
pub use issuers::{Issuer, IssuerConfiguration, Issuers, TokenLimits};
pub use jwks::{KeySource, KeyStatus};
pub use verifier::TokenVerifier;

use crate::limits::Rate;

/// What a verified token proves about its bearer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The configured id of the issuer: a label for metrics and logs, never taken from the token.
    pub issuer_id: Arc<str>,
    /// The configured type of the issuer, such as `email`.
    pub issuer_type: &'static str,
    /// The issuer as the certificate names it: the token's `iss`, or what `issuer-claim` selects.
    pub issuer: String,
    /// The token's `sub`, octet for octet.
    pub subject: String,
    /// The claim whose value a proof of possession must sign, `email` or `sub`.
    pub challenge_claim: &'static str,
    /// That claim's value, octet for octet.
    pub challenge: String,
    /// The name that the certificate carries.
    pub san: San,
    /// What the token says about the build it was given to. Empty for people.
    pub build: BuildFacts,
    /// How often tokens of the issuer's entry may be used, where it says so.
    pub rate: Option<Rate>,
}

/// The subject alternative name of a certificate (RFC 5280, section 4.2.1.6).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum San {
    /// `rfc822Name`: an e-mail address, ASCII.
    Email(String),
    /// `uniformResourceIdentifier`: a URI, ASCII.
    Uri(String),
    /// `otherName` of Sigstore's own type 1.3.6.1.4.1.57264.1.7: `user!domain`, UTF-8.
    OtherName(String),
}

/// One fact about a build, with an extension of its own in the certificate.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[expect(
    missing_docs,
    reason = "the names are those of the extensions; ca::extensions says what each one holds"
)]
pub enum BuildFact {
    GithubWorkflowTrigger,
    GithubWorkflowSha,
    GithubWorkflowName,
    GithubWorkflowRepository,
    GithubWorkflowRef,
    BuildSignerUri,
    BuildSignerDigest,
    RunnerEnvironment,
    SourceRepositoryUri,
    SourceRepositoryDigest,
    SourceRepositoryRef,
    SourceRepositoryIdentifier,
    SourceRepositoryOwnerUri,
    SourceRepositoryOwnerIdentifier,
    BuildConfigUri,
    BuildConfigDigest,
    BuildTrigger,
    RunInvocationUri,
    SourceRepositoryVisibilityAtSigning,
    DeploymentEnvironment,
}

/// The facts that a token states about its build; at most one value for each, none of them empty.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct BuildFacts(Vec<(BuildFact, String)>);

impl BuildFacts {
    /// Sets a fact. An empty value is left out, as the certificate has no extension for it.
    pub fn set(&mut self, fact: BuildFact, value: String) {
        self.0.retain(|(known, _)| *known != fact);
        if !value.is_empty() {
            self.0.push((fact, value));
        }
    }

    /// The value of a fact.
    #[must_use]
    pub fn get(&self, fact: BuildFact) -> Option<&str> {
        self.0
            .iter()
            .find(|(known, _)| *known == fact)
            .map(|(_, value)| value.as_str())
    }

    /// Every fact with its value, in the order in which they were set.
    pub fn iter(&self) -> impl Iterator<Item = (BuildFact, &str)> {
        self.0.iter().map(|(fact, value)| (*fact, value.as_str()))
    }
}
