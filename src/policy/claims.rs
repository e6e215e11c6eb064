//! The claims that real tokens of a kind carry, for tests of a configuration: data, in `config/presets/claims`.

use crate::identity::json::{InvalidJson, Object, parse_object};

macro_rules! kinds {
    ($($name:literal)+) => {
        &[$(($name, include_str!(concat!("../../config/presets/claims/", $name, ".json")))),+]
    };
}

/// Every kind, by the name of its preset.
const KINDS: &[(&str, &str)] = kinds! {
    "buddy" "buildkite" "chainguard" "circleci" "codefresh" "dex" "github" "gitlab" "google" "kubernetes"
};

/// The names of the kinds.
pub fn names() -> impl Iterator<Item = &'static str> {
    KINDS.iter().map(|(name, _)| *name)
}

/// The claims of a token of this kind, without times.
///
/// # Errors
/// When the data is not an object, which a test rules out.
pub fn of_kind(name: &str) -> Option<Result<Object, InvalidJson>> {
    let (_, text) = KINDS.iter().find(|(known, _)| *known == name)?;
    Some(parse_object(text.as_bytes(), 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_an_issuer_an_audience_and_a_subject() {
        for name in names() {
            let claims = of_kind(name).unwrap().unwrap();
            for claim in ["iss", "aud", "sub"] {
                assert!(claims.contains_key(claim), "{name}: {claim}");
            }
            assert!(!claims.contains_key("exp"), "{name}");
        }
        assert!(of_kind("unknown").is_none());
    }
}
