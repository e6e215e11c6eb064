//! What an edit of a configuration does to trust.
//!
//! Of every change it is told whether more can have certificates than before, or other ones. What cannot be shown to be
//! narrower, or the same, counts as wider: this is a gate for reviews.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use time::{Duration, OffsetDateTime};

use super::explain::{Explanation, Question, explain};
use crate::ca::request::PermittedAlgorithms;
use crate::clock::rfc3339;
use crate::identity::ci_provider::{CiProvider, Purpose};
use crate::identity::claims::IdentityRule;
use crate::identity::json::Object;
use crate::identity::jws;
use crate::identity::rules::{ClaimRules, RuleList};
use crate::identity::trace::{Keys, Presented};
use crate::identity::{Issuer, Issuers};

/// The name of the form that differences have as JSON.
const SCHEMA: &str = "diff-v1";

/// How far ahead `nbf` may be where the entry does not say.
const USUAL_SKEW: Duration = Duration::minutes(5);

/// What a change does to trust. The greatest of several counts.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Nothing.
    Same,
    /// Fewer tokens have certificates.
    Narrower,
    /// More tokens have certificates, or others than before, or that cannot be ruled out.
    Wider,
}

impl Direction {
    /// `same`, `narrower` or `wider`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Narrower => "narrower",
            Self::Wider => "wider",
        }
    }
}

/// The difference of two configurations.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    schema: &'static str,
    /// What all of it does to trust.
    pub direction: Direction,
    /// What changed, by issuer or build service.
    pub parts: Vec<PartDifference>,
    /// Identities of the corpus that come to something else.
    pub corpus: Vec<CorpusDifference>,
}

/// What changed of an issuer or a build service.
#[derive(Clone, Debug, Serialize)]
pub struct PartDifference {
    /// `issuer` or `ci-provider`.
    pub kind: &'static str,
    /// The id of the issuer, or the name of the build service.
    pub name: String,
    /// The URL of the issuer, or its pattern.
    pub url: Option<String>,
    /// `added`, `removed` or `changed`.
    pub what: &'static str,
    /// Each change.
    pub changes: Vec<Change>,
}

/// One change.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Change {
    /// What it does to trust.
    pub direction: Direction,
    /// The key in the configuration.
    pub setting: String,
    /// What it was.
    pub old: Option<String>,
    /// What it is.
    pub new: Option<String>,
}

/// Claims that come to something else.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct CorpusDifference {
    /// What the corpus calls them.
    pub name: String,
    /// What it does to trust.
    pub direction: Direction,
    /// The name in the certificate, or the refusal.
    pub old: String,
    /// The same, after the change.
    pub new: String,
}

impl Difference {
    /// Compares two configurations.
    #[must_use]
    pub fn of(old: &Issuers, new: &Issuers) -> Self {
        let mut parts = issuers(old, new);
        parts.extend(providers(old, new));
        let changes = parts.iter().flat_map(|part| &part.changes);
        let direction = changes.map(|change| change.direction).max();
        Self {
            schema: SCHEMA,
            direction: direction.unwrap_or(Direction::Same),
            parts,
            corpus: Vec::new(),
        }
    }

    /// Adds what claims come to, if it is not the same with both configurations.
    pub async fn add(
        &mut self,
        name: &str,
        claims: &Object,
        old: &Issuers,
        new: &Issuers,
        now: OffsetDateTime,
    ) {
        let before = answer(old, claims, now).await;
        let after = answer(new, claims, now).await;
        let Some(direction) = compare_answers(&before, &after) else {
            return;
        };
        self.direction = self.direction.max(direction);
        self.corpus.push(CorpusDifference {
            name: name.to_owned(),
            direction,
            old: shown(&before),
            new: shown(&after),
        });
    }
}

async fn answer(issuers: &Issuers, claims: &Object, now: OffsetDateTime) -> Explanation {
    let question = Question {
        presented: Presented::Claims(claims),
        keys: Keys::None,
        at: None,
        public_key: None,
        permitted: &PermittedAlgorithms::default(),
    };
    explain(issuers, question, now).await
}

/// The name in the certificate, or the refusal.
fn shown(answer: &Explanation) -> String {
    match (answer.reason, &answer.san) {
        (Some(reason), _) => format!("refused: {reason}"),
        (None, san) => san
            .as_ref()
            .map_or_else(String::new, |name| name.value.clone()),
    }
}

/// Nothing if both are the same.
fn compare_answers(before: &Explanation, after: &Explanation) -> Option<Direction> {
    let contents = |answer: &Explanation| {
        let extensions = answer.extensions.iter();
        let extensions =
            extensions.map(|extension| (extension.oid.clone(), extension.value.clone()));
        (shown(answer), extensions.collect::<Vec<_>>())
    };
    match (before.is_issued(), after.is_issued()) {
        (_, true) if contents(before) != contents(after) => Some(Direction::Wider),
        (true, false) => Some(Direction::Narrower),
        (false, false) if before.reason != after.reason => Some(Direction::Same),
        (true | false, true) | (false, false) => None,
    }
}

/// Pairs the entries of both configurations and compares each pair.
fn issuers(old: &Issuers, new: &Issuers) -> Vec<PartDifference> {
    let mut removed: Vec<&Arc<Issuer>> = old.all();
    let mut added: Vec<&Arc<Issuer>> = Vec::new();
    let mut pairs: Vec<(&Issuer, &Issuer)> = Vec::new();
    for issuer in new.all() {
        let of_url = removed
            .iter()
            .enumerate()
            .filter(|(_, old)| is_same_issuer(old, issuer));
        let closest = of_url.max_by_key(|(_, old)| {
            let audiences = old.audiences.iter();
            let shared = audiences
                .filter(|audience| issuer.audiences.contains(audience))
                .count();
            (shared, old.id == issuer.id)
        });
        match closest.map(|(index, _)| index) {
            Some(index) => pairs.push((removed.swap_remove(index), issuer)),
            None => added.push(issuer),
        }
    }
    removed.sort_by(|one, other| one.url().cmp(other.url()));
    let mut parts = Vec::new();
    for issuer in added {
        // Until now its tokens fell under a pattern, perhaps.
        let before = old.lookup(issuer.url()).filter(|_| !issuer.is_wildcard());
        let changes = match before {
            Some(before) => compare(&before.issuer, issuer),
            None => vec![change(
                appears(issuer),
                "entry",
                None,
                Some(describe(issuer)),
            )],
        };
        parts.push(part(issuer, "added", changes));
    }
    for issuer in removed {
        let after = new.lookup(issuer.url()).filter(|_| !issuer.is_wildcard());
        let changes = match after {
            Some(after) => compare(issuer, &after.issuer),
            None => vec![change(
                Direction::Narrower,
                "entry",
                Some(describe(issuer)),
                None,
            )],
        };
        parts.push(part(issuer, "removed", changes));
    }
    for (before, after) in pairs {
        let changes = compare(before, after);
        if !changes.is_empty() {
            parts.push(part(after, "changed", changes));
        }
    }
    parts
}

fn is_same_issuer(one: &Issuer, other: &Issuer) -> bool {
    one.url() == other.url() && one.is_wildcard() == other.is_wildcard()
}

fn appears(issuer: &Issuer) -> Direction {
    if issuer.disabled {
        Direction::Same
    } else {
        Direction::Wider
    }
}

fn part(issuer: &Issuer, what: &'static str, changes: Vec<Change>) -> PartDifference {
    PartDifference {
        kind: "issuer",
        name: issuer.id.to_string(),
        url: Some(issuer.url().to_owned()),
        what,
        changes,
    }
}

fn change(direction: Direction, setting: &str, old: Option<String>, new: Option<String>) -> Change {
    Change {
        direction,
        setting: setting.to_owned(),
        old,
        new,
    }
}

/// An entry in a line.
fn describe(issuer: &Issuer) -> String {
    let rules = issuer.access.rules().count();
    let rules = match rules {
        0 => "no rules".to_owned(),
        1 => "1 rule".to_owned(),
        rules => format!("{rules} rules"),
    };
    format!(
        "type {}, for {}, {rules}",
        issuer.rule.type_name(),
        issuer.audiences.join(", ")
    )
}

/// Every change of an entry.
fn compare(old: &Issuer, new: &Issuer) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut add = |direction, setting: &str, old: Option<String>, new: Option<String>| {
        if old != new {
            changes.push(change(direction, setting, old, new));
        }
    };
    if old.url() != new.url() {
        let urls = [old, new].map(|issuer| Some(issuer.url().to_owned()));
        let [before, after] = urls;
        // The same tokens, now under a pattern or no longer under one.
        add(Direction::Same, "entry", before, after);
    }
    add(
        Direction::Same,
        "id",
        Some(old.id.to_string()),
        Some(new.id.to_string()),
    );
    let direction = if new.disabled {
        Direction::Narrower
    } else {
        Direction::Wider
    };
    add(
        direction,
        "disabled",
        Some(old.disabled.to_string()),
        Some(new.disabled.to_string()),
    );
    let direction = wider_if(ends_later(old.expires, new.expires));
    add(
        direction,
        "expires",
        old.expires.map(rfc3339),
        new.expires.map(rfc3339),
    );
    for (one, other, direction) in [
        (old, new, Direction::Narrower),
        (new, old, Direction::Wider),
    ] {
        for audience in one
            .audiences
            .iter()
            .filter(|audience| !other.audiences.contains(audience))
        {
            let value = Some(audience.clone());
            match direction {
                Direction::Wider => add(direction, "audience", None, value),
                Direction::Narrower | Direction::Same => add(direction, "audience", value, None),
            }
        }
    }
    let (before, after) = (&old.tokens, &new.tokens);
    let seconds = |duration: Option<Duration>| {
        duration.map(|duration| format!("{} s", duration.whole_seconds()))
    };
    let is_longer = match (before.max_age, after.max_age) {
        (Some(before), Some(after)) => after > before,
        (_, after) => after.is_none(),
    };
    add(
        wider_if(is_longer),
        "max-token-age",
        seconds(before.max_age),
        seconds(after.max_age),
    );
    let is_longer = match (before.clock_skew, after.clock_skew) {
        // Without it `iat` is not looked at.
        (_, None) => true,
        (before, Some(after)) => after > before.unwrap_or(USUAL_SKEW),
    };
    add(
        wider_if(is_longer),
        "clock-skew",
        seconds(before.clock_skew),
        seconds(after.clock_skew),
    );
    let accepts_more = match (&before.algorithms, &after.algorithms) {
        (Some(before), Some(after)) => after.iter().any(|algorithm| !before.contains(algorithm)),
        (_, after) => after.is_none(),
    };
    let names = |algorithms: &Option<Vec<jws::Algorithm>>| algorithms.as_deref().map(jws::names);
    add(
        wider_if(accepts_more),
        "algorithms",
        names(&before.algorithms),
        names(&after.algorithms),
    );
    let allows_more = match (old.rate, new.rate) {
        (Some(before), Some(after)) => !before.allows_all_of(after),
        (_, after) => after.is_none(),
    };
    let [before, after] = [old.rate, new.rate].map(|rate| rate.map(|rate| rate.to_string()));
    add(wider_if(allows_more), "rate", before, after);
    if is_same_issuer(old, new) && old.endpoint != new.endpoint {
        let elsewhere = Some("keys that are found or fetched in another way".to_owned());
        add(
            Direction::Wider,
            "keys",
            Some("as before".to_owned()),
            elsewhere,
        );
    }
    compare_rules(&old.access, &new.access, &mut changes);
    changes.extend(compare_identities(&old.rule, &new.rule));
    changes
}

const fn wider_if(condition: bool) -> Direction {
    if condition {
        Direction::Wider
    } else {
        Direction::Narrower
    }
}

fn ends_later(old: Option<OffsetDateTime>, new: Option<OffsetDateTime>) -> bool {
    match (old, new) {
        (Some(old), Some(new)) => new > old,
        (_, new) => new.is_none(),
    }
}

/// Tells which rules are new and which are gone, and what each of them meant.
fn compare_rules(old: &ClaimRules, new: &ClaimRules, changes: &mut Vec<Change>) {
    for list in [RuleList::Allow, RuleList::Deny] {
        let (before, after) = (old.list(list), new.list(list));
        // Without a rule of `allow`, everything is let through.
        let was_open = list == RuleList::Allow && before.is_empty();
        let is_open = list == RuleList::Allow && after.is_empty();
        let (less, more) = match list {
            RuleList::Allow => (Direction::Narrower, Direction::Wider),
            RuleList::Deny => (Direction::Wider, Direction::Narrower),
        };
        for rule in before.iter().filter(|rule| !after.contains(rule)) {
            let direction = match (is_open, rule.is_covered_by(after)) {
                (true, _) => Direction::Wider,
                (false, true) => Direction::Same,
                (false, false) => less,
            };
            changes.push(change(
                direction,
                list.name(),
                Some(format!("{rule:#}")),
                None,
            ));
        }
        for rule in after.iter().filter(|rule| !before.contains(rule)) {
            let direction = match (was_open, rule.is_covered_by(before)) {
                (true, _) => Direction::Narrower,
                (false, true) => Direction::Same,
                (false, false) => more,
            };
            changes.push(change(
                direction,
                list.name(),
                None,
                Some(format!("{rule:#}")),
            ));
        }
    }
}

/// Compares what becomes of claims. The templates of build services are compared apart from their issuers.
fn compare_identities(old: &IdentityRule, new: &IdentityRule) -> Vec<Change> {
    let settings = |rule: &IdentityRule| {
        let provider = match rule {
            IdentityRule::CiProvider(provider) => Some(provider.name().to_owned()),
            IdentityRule::Email(_)
            | IdentityRule::Uri(_)
            | IdentityRule::Username(_)
            | IdentityRule::Spiffe(_)
            | IdentityRule::Kubernetes
            | IdentityRule::Chainguard
            | IdentityRule::Build(_) => None,
        };
        let issuer_claim = match rule {
            IdentityRule::Email(email) => email.issuer_claim.as_ref().map(ToString::to_string),
            IdentityRule::Uri(_)
            | IdentityRule::Username(_)
            | IdentityRule::Spiffe(_)
            | IdentityRule::Kubernetes
            | IdentityRule::Chainguard
            | IdentityRule::Build(_)
            | IdentityRule::CiProvider(_) => None,
        };
        let filled = |text: String| Some(text).filter(|text| !text.is_empty());
        [
            ("type", Some(rule.type_name().to_owned())),
            ("ci-provider", provider),
            ("issuer-claim", issuer_claim),
            ("subject-domain", filled(rule.subject_domain())),
            (
                "spiffe-trust-domain",
                filled(rule.spiffe_trust_domain().to_owned()),
            ),
        ]
    };
    let pairs = settings(old).into_iter().zip(settings(new));
    let changed = pairs.filter(|((_, old), (_, new))| old != new);
    let mut changes: Vec<Change> = changed
        .map(|((setting, old), (_, new))| change(Direction::Wider, setting, old, new))
        .collect();
    let [before, after] = [old, new].map(IdentityRule::skips_email_verification);
    if before != after {
        let setting = "skip-email-verification";
        changes.push(change(
            wider_if(after),
            setting,
            Some(before.to_string()),
            Some(after.to_string()),
        ));
    }
    changes
}

/// Compares the build services that issuers use.
fn providers(old: &Issuers, new: &Issuers) -> Vec<PartDifference> {
    let used = |issuers: &Issuers| -> BTreeMap<String, Arc<CiProvider>> {
        let all = issuers.all().into_iter();
        all.filter_map(|issuer| match &issuer.rule {
            IdentityRule::CiProvider(provider) => {
                Some((provider.name().to_owned(), Arc::clone(provider)))
            }
            IdentityRule::Email(_)
            | IdentityRule::Uri(_)
            | IdentityRule::Username(_)
            | IdentityRule::Spiffe(_)
            | IdentityRule::Kubernetes
            | IdentityRule::Chainguard
            | IdentityRule::Build(_) => None,
        })
        .collect()
    };
    let (before, after) = (used(old), used(new));
    // One that only the old or only the new configuration uses belongs to an issuer that is told of.
    let both = before
        .iter()
        .filter_map(|(name, old)| Some((name, old, after.get(name)?)));
    let parts = both.filter_map(|(name, old, new)| {
        let changes = compare_providers(old, new);
        (!changes.is_empty()).then(|| PartDifference {
            kind: "ci-provider",
            name: name.clone(),
            url: None,
            what: "changed",
            changes,
        })
    });
    parts.collect()
}

fn compare_providers(old: &CiProvider, new: &CiProvider) -> Vec<Change> {
    let templates = |provider: &CiProvider| -> BTreeMap<String, String> {
        let templates = provider.templates();
        templates
            .map(|(purpose, template)| (purpose.to_string(), template.as_str().to_owned()))
            .collect()
    };
    let san = Purpose::SubjectAlternativeName.to_string();
    let mut changes = compare_maps(
        &templates(old),
        &templates(new),
        |name, change| match change {
            // One more statement about a build takes nothing away from the others; a name is always there.
            (None, Some(_)) if name != san => Direction::Same,
            (Some(_), None) => Direction::Narrower,
            (_, _) => Direction::Wider,
        },
    );
    let named = |prefix: &str, changes: Vec<Change>| {
        let prefix = prefix.to_owned();
        changes.into_iter().map(move |change| Change {
            setting: format!("{prefix} {}", change.setting),
            ..change
        })
    };
    let defaults = compare_maps(old.defaults(), new.defaults(), |_, change| match change {
        // Templates fail without a value that they look at.
        (Some(_), None) => Direction::Narrower,
        (_, _) => Direction::Wider,
    });
    changes.extend(named("default-template-values", defaults));
    let patterns = |provider: &CiProvider| -> BTreeMap<String, String> {
        let patterns = provider.patterns();
        patterns
            .map(|(claim, pattern)| (claim.to_owned(), pattern.to_owned()))
            .collect()
    };
    let patterns = compare_maps(&patterns(old), &patterns(new), |_, change| match change {
        (None, Some(_)) => Direction::Narrower,
        (_, _) => Direction::Wider,
    });
    changes.extend(named("claim-patterns", patterns));
    changes
}

fn compare_maps(
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
    direction: impl Fn(&str, (Option<&String>, Option<&String>)) -> Direction,
) -> Vec<Change> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed = names.into_iter().filter_map(|name| {
        let (before, after) = (old.get(name), new.get(name));
        (before != after).then(|| {
            change(
                direction(name, (before, after)),
                name,
                before.cloned(),
                after.cloned(),
            )
        })
    });
    changed.collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn issuers(text: &str) -> Issuers {
        match Issuers::parse("identity.yaml", text) {
            Ok((issuers, _)) => issuers,
            Err(findings) => panic!("{text}: {findings:?}"),
        }
    }

    fn entry(url: &str, settings: &str) -> String {
        format!(
            "  {url}:\n    issuer-url: {url}\n    client-id: sigstore\n    type: email\n{settings}"
        )
    }

    fn file(settings: &str) -> String {
        format!("oidc-issuers:\n{}", entry("https://a.example", settings))
    }

    fn direction(old: &str, new: &str) -> Direction {
        Difference::of(&issuers(old), &issuers(new)).direction
    }

    /// The direction there, and the direction back.
    fn both_ways(old: &str, new: &str) -> (Direction, Direction) {
        (direction(old, new), direction(new, old))
    }

    #[test]
    fn settings_of_an_entry_make_it_wider_or_narrower() {
        use Direction::{Narrower, Same, Wider};
        for (old, new, expected) in [
            ("", "    id: a\n", (Same, Same)),
            ("", "    description: a\n", (Same, Same)),
            ("", "    disabled: true\n", (Narrower, Wider)),
            ("", "    expires: 2030-01-01\n", (Narrower, Wider)),
            (
                "    expires: 2030-01-01\n",
                "    expires: 2031-01-01\n",
                (Wider, Narrower),
            ),
            ("", "    max-token-age: 10m\n", (Narrower, Wider)),
            (
                "    max-token-age: 5m\n",
                "    max-token-age: 10m\n",
                (Wider, Narrower),
            ),
            ("", "    clock-skew: 1m\n", (Narrower, Wider)),
            ("", "    clock-skew: 9m\n", (Wider, Wider)),
            ("", "    algorithms: [RS256]\n", (Narrower, Wider)),
            (
                "    algorithms: [RS256]\n",
                "    algorithms: [ES256]\n",
                (Wider, Wider),
            ),
            ("", "    rate: 10/h:5\n", (Narrower, Wider)),
            (
                "    rate: 10/h:5\n",
                "    rate: 20/h:5\n",
                (Wider, Narrower),
            ),
            ("    rate: 10/h:5\n", "    rate: 20/h:4\n", (Wider, Wider)),
            ("", "    skip-email-verification: true\n", (Wider, Narrower)),
            ("", "    issuer-claim: $.a\n", (Wider, Wider)),
            // Rules.
            ("", "    allow: [{ a: x }]\n", (Narrower, Wider)),
            (
                "    allow: [{ a: x }]\n",
                "    allow: [{ a: x }, { a: y }]\n",
                (Wider, Narrower),
            ),
            (
                "    allow: [{ a: x }]\n",
                "    allow: [{ a: x, b: y }]\n",
                (Narrower, Wider),
            ),
            (
                "    allow: [{ a: x, b: y }]\n",
                "    allow: [{ b: y, a: x }]\n",
                (Same, Same),
            ),
            (
                "    allow: [{ a: x }, { a: y }]\n",
                "    allow: [{ a: { in: [y, x] } }]\n",
                (Same, Same),
            ),
            (
                "    allow: [{ a: x }]\n",
                "    allow: [{ a: { glob: x** } }]\n",
                (Wider, Narrower),
            ),
            (
                "    allow: [{ a: { prefix: xy } }]\n",
                "    allow: [{ a: { glob: x** } }]\n",
                (Wider, Narrower),
            ),
            (
                "    allow: [{ a: x }]\n",
                "    allow: [{ a: y }]\n",
                (Wider, Wider),
            ),
            (
                "    allow: [{ a: { regex: x } }]\n",
                "    allow: [{ a: { exists: true } }]\n",
                (Wider, Narrower),
            ),
            ("", "    deny: [{ a: x }]\n", (Narrower, Wider)),
            (
                "    deny: [{ a: x }]\n",
                "    deny: [{ a: { prefix: x } }]\n",
                (Narrower, Wider),
            ),
            (
                "    deny: [{ a: x }]\n",
                "    deny: [{ a: x, b: y }]\n",
                (Wider, Narrower),
            ),
        ] {
            assert_eq!(both_ways(&file(old), &file(new)), expected, "{old} → {new}");
        }
    }

    #[test]
    fn entries_come_and_go_and_fall_under_patterns() {
        use Direction::{Narrower, Same, Wider};
        let one = file("");
        let two = format!("{one}{}", entry("https://b.example", ""));
        assert_eq!(both_ways(&one, &two), (Wider, Narrower));
        let off = format!(
            "{one}{}",
            entry("https://b.example", "    disabled: true\n")
        );
        assert_eq!(both_ways(&one, &off), (Same, Narrower));

        let pattern =
            "meta-issuers:\n  https://*.b.example/:\n    client-id: sigstore\n    type: email\n";
        let open = format!("{one}{pattern}");
        let strict = format!(
            "{one}{}{pattern}",
            entry("https://x.b.example/", "    allow: [{ a: x }]\n")
        );
        let wide = format!("{one}{}{pattern}", entry("https://x.b.example/", ""));
        assert_eq!(both_ways(&open, &strict), (Narrower, Wider));
        assert_eq!(both_ways(&open, &wide), (Same, Same));

        let audiences =
            |list: &str| one.replace("client-id: sigstore", &format!("client-ids: [{list}]"));
        assert_eq!(both_ways(&one, &audiences("sigstore")), (Same, Same));
        assert_eq!(
            both_ways(&one, &audiences("sigstore, other")),
            (Wider, Narrower)
        );
        assert_eq!(both_ways(&one, &audiences("other")), (Wider, Wider));
        assert_eq!(
            both_ways(&one, &one.replace("type: email", "type: kubernetes")),
            (Wider, Wider)
        );
    }

    #[test]
    fn templates_are_told_once_for_all_issuers_that_use_them() {
        use Direction::{Narrower, Same, Wider};
        let with = |provider: &str| {
            let entry =
                |url| entry(url, "    ci-provider: forge\n").replace("email", "ci-provider");
            let (one, two) = (entry("https://a.example"), entry("https://b.example"));
            let san = "subject-alternative-name-template: https://x.example/{{ .a }}";
            format!("oidc-issuers:\n{one}{two}ci-issuer-metadata:\n  forge:\n    {san}\n{provider}")
        };
        let base = "    extension-templates: { build-trigger: a }\n";
        for (old, new, expected) in [
            (
                base,
                "    extension-templates: { build-trigger: a, runner-environment: b }\n",
                (Same, Narrower),
            ),
            (
                base,
                "    extension-templates: { build-trigger: b }\n",
                (Wider, Wider),
            ),
            (
                "",
                "    default-template-values: { a: b }\n",
                (Wider, Narrower),
            ),
            (
                "",
                "    claim-patterns: { a: '[a-z]+' }\n",
                (Narrower, Wider),
            ),
        ] {
            let (old, new) = (with(old), with(new));
            assert_eq!(both_ways(&old, &new), expected, "{new}");
            assert_eq!(
                Difference::of(&issuers(&old), &issuers(&new)).parts.len(),
                1,
                "{new}"
            );
        }
        let other_name = with(base).replace("x.example", "y.example");
        assert_eq!(both_ways(&with(base), &other_name), (Wider, Wider));
    }

    #[tokio::test]
    async fn claims_of_a_corpus_are_compared_by_what_they_come_to() {
        let now = OffsetDateTime::from_unix_timestamp(1_767_323_045).unwrap();
        let old = issuers(&file("    allow: [{ team: release }]\n"));
        let new = issuers(&file(
            "    allow: [{ email: { glob: \"*@example.com\" } }]\n    deny: [{ team: x }]\n",
        ));
        let claims = |team: &str, email: &str| {
            let claims = json!({
                "iss": "https://a.example", "aud": "sigstore", "sub": "1", "email": email, "email_verified": true, "team": team,
            });
            let Value::Object(claims) = claims else {
                panic!()
            };
            claims
        };
        let mut difference = Difference::of(&old, &new);
        for (name, team, email) in [
            ("stays", "release", "a@example.com"),
            ("goes", "release", "a@elsewhere.example"),
            ("comes", "other", "a@example.com"),
            ("refused", "other", "a@elsewhere.example"),
            ("refused otherwise", "x", "a@example.com"),
        ] {
            difference
                .add(name, &claims(team, email), &old, &new, now)
                .await;
        }
        let found: Vec<(&str, Direction)> = difference
            .corpus
            .iter()
            .map(|changed| (changed.name.as_str(), changed.direction))
            .collect();
        let expected = [
            ("goes", Direction::Narrower),
            ("comes", Direction::Wider),
            ("refused otherwise", Direction::Same),
        ];
        assert_eq!(found, expected);
        assert_eq!(difference.corpus[1].new, "a@example.com");
    }

    fn rule() -> impl Strategy<Value = String> {
        let test = prop_oneof![
            "[ab]{1,2}",
            "[ab]{1,2}".prop_map(|text| format!("{{ prefix: {text} }}")),
            "[ab]{1,2}".prop_map(|text| format!("{{ glob: \"{text}**\" }}")),
            "[ab]{0,2}\\*[ab]{0,2}".prop_map(|glob| format!("{{ glob: \"{glob}\" }}")),
            "[ab]{1,2}".prop_map(|text| format!("{{ not: {text} }}")),
            "[ab]{1,2}, [ab]{1,2}".prop_map(|texts| format!("{{ in: [{texts}] }}")),
            any::<bool>().prop_map(|exists| format!("{{ exists: {exists} }}")),
        ];
        prop::collection::btree_map("[xy]", test, 1..3).prop_map(|conditions| {
            let conditions = conditions
                .iter()
                .map(|(claim, test)| format!("{claim}: {test}"));
            format!("{{ {} }}", conditions.collect::<Vec<_>>().join(", "))
        })
    }

    fn settings() -> impl Strategy<Value = String> {
        let list = || prop::collection::vec(rule(), 0..3).prop_map(|rules| rules.join(", "));
        (list(), list()).prop_map(|(allow, deny)| {
            let allow = Some(allow).filter(|allow| !allow.is_empty());
            let allow = allow.map(|allow| format!("    allow: [{allow}]\n"));
            format!("{}    deny: [{deny}]\n", allow.unwrap_or_default())
        })
    }

    proptest! {
        #[test]
        fn what_is_called_narrower_lets_nothing_through_that_was_refused(
            old in settings(),
            new in settings(),
            claims in prop::collection::btree_map("[xy]", "[ab]{0,3}", 0..3),
        ) {
            let claims: Object = claims.into_iter().map(|(name, text)| (name, Value::from(text))).collect();
            let [old, new] = [old, new].map(|settings| issuers(&file(&settings)));
            let passes = |issuers: &Issuers| issuers.all()[0].access.check(&claims).is_ok();
            let direction = Difference::of(&old, &new).direction;
            if direction < Direction::Wider {
                prop_assert!(passes(&old) || !passes(&new));
            }
            if direction == Direction::Same {
                prop_assert_eq!(passes(&old), passes(&new));
            }
        }
    }
}
