//! Claim rules: which of an issuer's tokens may have a certificate.
//!
//! A rule is a list of conditions that hold together. A token that a rule of `deny` applies to has none, whatever `allow` says;
//! where `allow` has rules, one of them must apply. Conditions look at claims octet by octet, each in time that grows with
//! the length of the claim alone.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::error::TokenError;
use super::json::Object;
use crate::excerpt::Excerpt;

mod condition;
mod glob;
mod path;
mod raw;
#[cfg(test)]
mod tests;

pub use condition::Condition;
pub use path::{ClaimName, InvalidName};
pub use raw::{RawRules, RuleMistake};

/// The most characters of a message that the conditions of a rule may take.
const MAX_SHOWN: usize = 600;

/// The `allow` and `deny` rules of one issuer. Without any, every token that verifies may have a certificate.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClaimRules {
    /// Every claim that a condition looks at, once.
    claims: Vec<Arc<ClaimName>>,
    allow: Vec<Rule>,
    deny: Vec<Rule>,
}

/// Conditions that hold together; never empty.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    conditions: Vec<Condition>,
}

/// Which list a rule stands in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RuleList {
    /// One of its rules must apply.
    Allow,
    /// None of its rules may apply.
    Deny,
}

impl RuleList {
    /// The key of the list in the identity file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// How one rule stands to the claims of a token.
#[derive(Clone, Debug)]
pub struct RuleOutcome<'a> {
    /// Where the rule stands.
    pub list: RuleList,
    /// Its number in the list, from 1.
    pub number: usize,
    /// Each condition, and whether it holds.
    pub conditions: Vec<(&'a Condition, bool)>,
}

impl RuleOutcome<'_> {
    /// Whether all conditions hold.
    #[must_use]
    pub fn applies(&self) -> bool {
        self.conditions.iter().all(|(_, holds)| *holds)
    }
}

impl ClaimRules {
    /// Checks that the rules let the token with these claims have a certificate.
    ///
    /// # Errors
    /// [`TokenError::DeniedByRule`] or [`TokenError::NoAllowRuleMatched`].
    pub fn check(&self, claims: &Object) -> Result<(), TokenError> {
        let values = self.values(claims);
        let mut denying = self.deny.iter().zip(1..);
        if let Some((rule, number)) = denying.find(|(rule, _)| rule.applies(&values)) {
            return Err(TokenError::DeniedByRule {
                rule: number,
                conditions: rule.to_string(),
            });
        }
        if self.allow.is_empty() || self.allow.iter().any(|rule| rule.applies(&values)) {
            return Ok(());
        }
        Err(self.not_allowed(&values))
    }

    /// Names the rule that needs the least to apply, for whoever has to mend the token or the rule.
    fn not_allowed(&self, values: &[Option<&Value>]) -> TokenError {
        let rules = self.allow.iter().zip(1..);
        let closest = rules.map(|(rule, number)| {
            let conditions = rule.conditions.iter();
            let failed = conditions.filter(|condition| !condition.holds(values));
            (failed.collect::<Vec<_>>(), number)
        });
        let closest = closest.min_by_key(|(failed, _)| failed.len());
        let (expected, closest) = closest.unwrap_or_default();
        TokenError::NoAllowRuleMatched {
            rules: self.allow.len(),
            closest,
            expected: list(expected),
        }
    }

    /// How every rule stands to the claims of a token, in the order in which they count.
    #[must_use]
    pub fn outcomes(&self, claims: &Object) -> Vec<RuleOutcome<'_>> {
        let values = self.values(claims);
        self.rules()
            .map(|(list, number, rule)| RuleOutcome {
                list,
                number,
                conditions: rule
                    .conditions
                    .iter()
                    .map(|condition| (condition, condition.holds(&values)))
                    .collect(),
            })
            .collect()
    }

    /// Every rule with its list and its number in it, in the order in which they count.
    pub fn rules(&self) -> impl Iterator<Item = (RuleList, usize, &Rule)> {
        [RuleList::Deny, RuleList::Allow]
            .into_iter()
            .flat_map(|list| {
                let rules = self.list(list).iter().zip(1..);
                rules.map(move |(rule, number)| (list, number, rule))
            })
    }

    /// The rules of one list.
    #[must_use]
    pub fn list(&self, list: RuleList) -> &[Rule] {
        match list {
            RuleList::Allow => &self.allow,
            RuleList::Deny => &self.deny,
        }
    }

    /// What the claims that rules look at are, in the order of `self.claims`. Many rules look at few claims.
    fn values<'a>(&self, claims: &'a Object) -> Vec<Option<&'a Value>> {
        self.claims.iter().map(|name| name.find(claims)).collect()
    }
}

impl Rule {
    /// The conditions, in the order in which they are written.
    #[must_use]
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    fn applies(&self, values: &[Option<&Value>]) -> bool {
        self.conditions
            .iter()
            .all(|condition| condition.holds(values))
    }

    /// Whether every token that `other` applies to is one that this rule applies to as well, as far as that can be seen from
    /// the conditions: `false` means that it may be otherwise.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.conditions.iter().all(|wide| {
            let mut others = other.conditions.iter();
            others.any(|narrow| wide.covers(narrow))
        })
    }
}

impl Rule {
    /// Whether these rules together cover this one, as far as that can be seen: one of them does, or for each value of a list
    /// in it there is one that does.
    #[must_use]
    pub fn is_covered_by(&self, rules: &[Self]) -> bool {
        rules.iter().any(|rule| rule.covers(self))
            || self.by_value().is_some_and(|each| {
                let mut each = each.iter();
                each.all(|rule| rule.is_covered_by(rules))
            })
    }

    /// The same as several rules: one for each value of the first list in it.
    fn by_value(&self) -> Option<Vec<Self>> {
        let mut conditions = self.conditions.iter().enumerate();
        let (index, values) =
            conditions.find_map(|(index, condition)| Some((index, condition.by_value()?)))?;
        let with = |value: Condition| {
            let conditions = self.conditions.iter().enumerate();
            let conditions = conditions.map(|(other, condition)| match other == index {
                true => value.clone(),
                false => condition.clone(),
            });
            Self {
                conditions: conditions.collect(),
            }
        };
        Some(values.into_iter().map(with).collect())
    }
}

impl fmt::Display for Rule {
    /// The conditions as one text of bounded length; with `#` as they are.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return f.write_str(&list(&self.conditions));
        }
        for (index, condition) in self.conditions.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { " and " })?;
            condition.fmt(f)?;
        }
        Ok(())
    }
}

/// Conditions as one text of bounded length.
fn list<'a>(conditions: impl IntoIterator<Item = &'a Condition>) -> String {
    let texts: Vec<String> = conditions.into_iter().map(ToString::to_string).collect();
    let text = texts.join(" and ");
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// A value of the identity file as it is shown in a message: at most 64 characters of it, or with `#` all.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MAX_CHARACTERS: usize = 64;
        let mut rest = self.0;
        f.write_str("\"")?;
        while let Some((end, _)) = rest.char_indices().nth(MAX_CHARACTERS) {
            let (piece, tail) = rest.split_at_checked(end).unwrap_or((rest, ""));
            f.write_str(Excerpt::new(piece).unquoted())?;
            if !f.alternate() {
                return f.write_str("…\"");
            }
            rest = tail;
        }
        write!(f, "{}\"", Excerpt::new(rest).unquoted())
    }
}
