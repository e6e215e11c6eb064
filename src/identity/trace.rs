//! What happens to a token, step by step, for those who write the configuration.
//!
//! The steps are those of [`TokenVerifier::verify`](super::TokenVerifier::verify), one after another and nothing else; but here the
//! signature may be left out, so that what comes of it is no [`super::Identity`] that a certificate can be made for.

use std::sync::Arc;

use time::OffsetDateTime;

use super::error::TokenError;
use super::issuers::MatchedIssuer;
use super::json::Object;
use super::jwks::{KeyEndpoint, KeyLocation, KeySource};
use super::jws::{self, UnverifiedToken};
use super::verifier::{Step, Watch, check_before_signature, find_issuer, identify};
use super::{Identity, Issuers};

/// Why steps are skipped that need a signature.
const CLAIMS_ALONE: &str = "claims alone have no signature";

/// What is traced.
#[derive(Clone, Copy, Debug)]
pub enum Presented<'a> {
    /// A token in compact form.
    Token(&'a str),
    /// Claims that nobody signed.
    Claims(&'a Object),
}

/// With whose keys the signature is verified.
#[derive(Clone, Debug)]
pub enum Keys<'a> {
    /// With those of the issuer, which are fetched if need be.
    Issuer(&'a KeySource),
    /// With these, whatever the entry says.
    Given(&'a KeySource, KeyLocation),
    /// With those that the entry has in the configuration. Where they would have to be fetched, the step is skipped.
    AtHand(&'a KeySource),
    /// With none: the step is skipped.
    None,
}

/// How a step ended.
#[derive(Clone, Debug)]
pub enum StepResult {
    /// It holds.
    Passed,
    /// It does not.
    Failed(TokenError),
    /// It was not taken, for this reason.
    Skipped(&'static str),
}

/// The identity that would be proved, if the token is what it says. Fit to be shown and for nothing else.
#[derive(Clone, Debug)]
pub struct SupposedIdentity(Identity);

impl SupposedIdentity {
    /// What there is to show.
    #[must_use]
    pub const fn shown(&self) -> &Identity {
        &self.0
    }
}

/// What happened to a token.
#[derive(Debug)]
pub struct Trace {
    /// Every step, in order, also those that were not reached.
    pub steps: Vec<(Step, StepResult)>,
    /// The entry that it falls under.
    pub matched: Option<MatchedIssuer>,
    /// The claims, where they could be read.
    pub claims: Option<Object>,
    /// What would be proved, or the step's error that ended it.
    pub outcome: Result<SupposedIdentity, TokenError>,
}

/// Takes every step of a verification at the time `now`, until one fails.
pub async fn trace(
    issuers: &Issuers,
    keys: Keys<'_>,
    presented: Presented<'_>,
    now: OffsetDateTime,
) -> Trace {
    let mut tracer = Tracer::default();
    let outcome = tracer.follow(issuers, keys, presented, now).await;
    for step in Step::ALL {
        if !tracer.steps.iter().any(|(known, _)| *known == step) {
            tracer.skip(step, "not reached");
        }
    }
    Trace {
        steps: tracer.steps,
        matched: tracer.matched,
        claims: tracer.claims,
        outcome: outcome.map(SupposedIdentity),
    }
}

/// Takes the steps and remembers how each ended.
#[derive(Default)]
struct Tracer {
    steps: Vec<(Step, StepResult)>,
    matched: Option<MatchedIssuer>,
    claims: Option<Object>,
}

impl Watch for Tracer {
    fn saw<T>(&mut self, step: Step, result: Result<T, TokenError>) -> Result<T, TokenError> {
        let outcome = match &result {
            Ok(_) => StepResult::Passed,
            Err(error) => StepResult::Failed(error.clone()),
        };
        self.steps.push((step, outcome));
        result
    }
}

impl Tracer {
    async fn follow(
        &mut self,
        issuers: &Issuers,
        keys: Keys<'_>,
        presented: Presented<'_>,
        now: OffsetDateTime,
    ) -> Result<Identity, TokenError> {
        let token;
        let (claims, signed) = match presented {
            Presented::Token(text) => {
                token = self.saw(Step::Form, UnverifiedToken::parse(text))?;
                (&token.claims, Some(&token))
            }
            Presented::Claims(claims) => {
                self.skip(Step::Form, CLAIMS_ALONE);
                (claims, None)
            }
        };
        self.claims = Some(claims.clone());
        let matched = jws::issuer(claims).and_then(|iss| find_issuer(issuers, iss, claims));
        let matched = self.saw(Step::Issuer, matched)?;
        self.matched = Some(matched.clone());
        let algorithm = signed.map(|token| token.algorithm);
        check_before_signature(&matched, algorithm, now, self)?;
        match signed {
            Some(token) => self.verify_signature(&matched, token, keys, now).await?,
            None => {
                self.skip(Step::Algorithm, CLAIMS_ALONE);
                self.skip(Step::Signature, CLAIMS_ALONE);
            }
        }
        identify(&matched, claims, now, self)
    }

    async fn verify_signature(
        &mut self,
        matched: &MatchedIssuer,
        token: &UnverifiedToken<'_>,
        keys: Keys<'_>,
        now: OffsetDateTime,
    ) -> Result<(), TokenError> {
        let (source, endpoint) = match keys {
            Keys::Issuer(source) => (source, Arc::clone(&matched.endpoint)),
            Keys::Given(source, location) => {
                let endpoint = KeyEndpoint::clone(&matched.endpoint);
                (source, Arc::new(endpoint.with_keys_at(location)))
            }
            Keys::AtHand(source) if matched.endpoint.given_key_set().is_some() => {
                (source, Arc::clone(&matched.endpoint))
            }
            Keys::AtHand(_) | Keys::None => {
                self.skip(Step::Signature, "no keys are looked for");
                return Ok(());
            }
        };
        let verdict = source.verify(&endpoint, token, now).await;
        self.saw(Step::Signature, verdict)
    }

    fn skip(&mut self, step: Step, why: &'static str) {
        self.steps.push((step, StepResult::Skipped(why)));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::{Bench, ISSUER, entry, payload};
    use super::*;
    use crate::dev::oidc::{TestAlgorithm, TestClaims};

    fn shape(trace: &Trace) -> String {
        let letter = |result: &StepResult| match result {
            StepResult::Passed => '+',
            StepResult::Failed(_) => '!',
            StepResult::Skipped(_) => '-',
        };
        trace
            .steps
            .iter()
            .map(|(_, result)| letter(result))
            .collect()
    }

    #[tokio::test]
    async fn a_trace_has_the_steps_of_a_verification_and_its_outcome() {
        let rules = "type: email\n    allow:\n      - team: release";
        let bench = Bench::with_issuers(&entry(ISSUER, rules));
        let (issuers, _) = Issuers::parse("identity.yaml", &entry(ISSUER, rules)).unwrap();
        let good = TestClaims::email("ada@example.com").with("team", "release");
        let token = |claims: &TestClaims| bench.issuer.token(claims, TestAlgorithm::Rs256).unwrap();
        let mut cut = token(&good);
        cut.truncate(cut.len() - 4);
        cut.push_str("AAAA");
        for (token, expected) in [
            (token(&good), "+++++++++"),
            ("x".to_owned(), "!--------"),
            (
                token(&good.clone().with("iss", "https://other.example")),
                "+!-------",
            ),
            (cut, "++++!----"),
            (token(&good.clone().with("exp", 5)), "+++++!---"),
            (token(&good.clone().with("aud", "x")), "++++++!--"),
            (token(&good.clone().with("team", "x")), "+++++++!-"),
            (
                token(&good.clone().with("email_verified", false)),
                "++++++++!",
            ),
        ] {
            let keys = Keys::Issuer(&bench.keys);
            let trace = trace(&issuers, keys, Presented::Token(&token), bench.now()).await;
            assert_eq!(shape(&trace), expected);
            let steps: Vec<Step> = trace.steps.iter().map(|(step, _)| *step).collect();
            assert_eq!(steps, Step::ALL);
            match (bench.verify(&token).await, &trace.outcome) {
                (Ok(identity), Ok(supposed)) => assert_eq!(identity, *supposed.shown()),
                (Err(error), Err(traced)) => assert_eq!(error.to_string(), traced.to_string()),
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn claims_alone_and_given_keys_need_no_network() {
        let bench = Bench::new();
        let (issuers, _) = Issuers::parse("identity.yaml", &entry(ISSUER, "type: email")).unwrap();
        let Value::Object(claims) = payload() else {
            panic!();
        };
        let of_claims = trace(
            &issuers,
            Keys::None,
            Presented::Claims(&claims),
            bench.now(),
        )
        .await;
        assert_eq!(shape(&of_claims), "-++--++++");
        assert_eq!(
            of_claims.outcome.unwrap().shown().challenge,
            "ada@example.com"
        );

        let token = bench
            .issuer
            .token(&TestClaims::email("ada@example.com"), TestAlgorithm::Rs256)
            .unwrap();
        let of_token = trace(&issuers, Keys::None, Presented::Token(&token), bench.now()).await;
        assert_eq!(shape(&of_token), "++++-++++");
        let location = KeyLocation::given(&bench.issuer.jwks_json()).unwrap();
        let keys = Keys::Given(&bench.keys, location);
        let of_token = trace(&issuers, keys, Presented::Token(&token), bench.now()).await;
        assert_eq!(shape(&of_token), "+++++++++");
        let other = KeyLocation::given(
            &json!({ "keys": [super::super::testing::stranger().jwks()["keys"][0]] }).to_string(),
        )
        .unwrap();
        let keys = Keys::Given(&bench.keys, other);
        let of_token = trace(&issuers, keys, Presented::Token(&token), bench.now()).await;
        assert_eq!(shape(&of_token), "++++!----");
        assert!(bench.network.urls().is_empty());
    }
}
