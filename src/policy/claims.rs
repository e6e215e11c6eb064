//! The claims that real tokens of a kind carry, for tests of a configuration: those of the first test of a preset.

use crate::identity::config::preset::{PRESETS, Preset};
use crate::identity::json::Object;

/// The names of the kinds.
pub fn names() -> impl Iterator<Item = &'static str> {
    PRESETS.iter().map(|preset| preset.name)
}

/// The claims of a token of this kind, without times; nothing if there is no such kind.
#[must_use]
pub fn of_kind(name: &str) -> Option<Object> {
    Preset::named(name)?.tokens().into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_an_issuer_an_audience_and_a_subject() {
        for name in names() {
            let claims = of_kind(name).unwrap();
            for claim in ["iss", "aud", "sub"] {
                assert!(claims.contains_key(claim), "{name}: {claim}");
            }
            assert!(!claims.contains_key("exp"), "{name}");
        }
        assert!(of_kind("unknown").is_none());
    }
}
