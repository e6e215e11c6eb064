//! The configured issuers: whose tokens are accepted, and what each one's tokens may prove.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use time::{Duration, OffsetDateTime};

use super::claims::IdentityRule;
use super::config::{self, Finding, Source};
use super::jwks::{CLUSTER_ISSUER, ClusterAccess, KeyEndpoint};
use super::jws::Algorithm;
use super::rules::ClaimRules;
use crate::limits::Rate;

/// The issuers that tokens are accepted from: one checked version of the identity file.
#[derive(Debug)]
pub struct Issuers {
    /// By the exact URL that tokens carry as `iss`; several for one URL have different audiences.
    exact: HashMap<String, Group>,
    /// By the domain that their URLs share, the pattern with the most literal characters first; equals do not overlap.
    wildcards: HashMap<String, Vec<(Pattern, Arc<Issuer>)>>,
}

/// One configured issuer: an entry of the identity file.
#[derive(Clone, Debug)]
pub struct Issuer {
    /// A short name for metrics and logs: from the file, or made of host and path.
    pub id: Arc<str>,
    /// The audiences of which its tokens must name one; never empty.
    pub audiences: Vec<String>,
    /// What its tokens prove.
    pub rule: IdentityRule,
    /// Which of its tokens may have a certificate.
    pub access: ClaimRules,
    /// What is asked of its tokens beyond what holds for every issuer.
    pub tokens: TokenLimits,
    /// How often its tokens may be used, in place of the limit that holds for every issuer.
    pub rate: Option<Rate>,
    /// Whether its tokens are refused although the entry stands in the file.
    pub disabled: bool,
    /// When its tokens begin to be refused.
    pub expires: Option<OffsetDateTime>,
    /// Where its keys are, and under which rules they are fetched. For a wildcard entry the URL is its pattern.
    pub endpoint: Arc<KeyEndpoint>,
}

/// The entries for one URL, in the order of the file.
#[derive(Clone, Debug)]
struct Group {
    first: Arc<Issuer>,
    others: Arc<[Arc<Issuer>]>,
}

/// What an entry asks of tokens beyond what holds for every issuer. The default asks nothing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TokenLimits {
    /// The longest time since `iat`, which tokens must then have.
    pub max_age: Option<Duration>,
    /// How far the issuer's clock may be ahead of ours, for `nbf` and `iat`. Without it `nbf` may be five minutes ahead,
    /// and `iat` anything.
    pub clock_skew: Option<Duration>,
    /// The accepted signature algorithms; without it all that the issuer says it uses.
    pub algorithms: Option<Vec<Algorithm>>,
}

/// What `GET /api/v2/configuration` tells about an issuer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IssuerConfiguration {
    /// The issuer's URL, or its pattern.
    pub url: String,
    /// Whether `url` is a pattern.
    pub is_wildcard: bool,
    /// The audience that tokens must name.
    pub audience: String,
    /// The claim whose value a proof of possession signs.
    pub challenge_claim: &'static str,
    /// The configured type, such as `email`.
    pub issuer_type: &'static str,
    /// The domain that subjects of types `uri` and `username` lie in; otherwise empty.
    pub subject_domain: String,
    /// The trust domain that subjects of type `spiffe` lie in; otherwise empty.
    pub spiffe_trust_domain: String,
    /// Whether addresses count as verified without the issuer saying so.
    pub skip_email_verification: bool,
}

/// The entry that a token's issuer falls under.
#[derive(Clone, Debug)]
pub struct MatchedIssuer {
    /// The entry.
    pub issuer: Arc<Issuer>,
    /// Where the keys of this very issuer are.
    pub endpoint: Arc<KeyEndpoint>,
    /// Further entries for the same URL, with other audiences.
    others: Arc<[Arc<Issuer>]>,
}

impl MatchedIssuer {
    /// Chooses among entries for one URL the one for a token with these audiences. When none is, or there is only one, the
    /// first stays: its audiences will be found missing.
    #[must_use]
    pub fn for_audiences(self, audiences: &[&str]) -> Self {
        if self.issuer.accepts(audiences) {
            return self;
        }
        let chosen = self.others.iter().find(|issuer| issuer.accepts(audiences));
        match chosen.map(Arc::clone) {
            Some(issuer) => Self {
                endpoint: Arc::clone(&issuer.endpoint),
                others: std::iter::once(&self.issuer)
                    .chain(self.others.iter())
                    .filter(|other| !Arc::ptr_eq(other, &issuer))
                    .map(Arc::clone)
                    .collect(),
                issuer,
            },
            None => self,
        }
    }

    /// Whether another entry for the same URL accepts one of the audiences too.
    #[must_use]
    pub fn is_ambiguous(&self, audiences: &[&str]) -> bool {
        self.others.iter().any(|issuer| issuer.accepts(audiences))
    }

    /// The audiences of all entries for the URL.
    pub fn expected_audiences(&self) -> impl Iterator<Item = &str> {
        let entries = std::iter::once(&self.issuer).chain(self.others.iter());
        entries
            .flat_map(|issuer| &issuer.audiences)
            .map(String::as_str)
    }
}

impl Issuers {
    /// Reads an identity file, in YAML or JSON. `name` is what the findings call it.
    ///
    /// Returns the issuers with the warnings.
    ///
    /// # Errors
    /// Every finding, when at least one of them is an error.
    pub fn parse(name: &str, text: &str) -> Result<(Self, Vec<Finding>), Vec<Finding>> {
        Self::load(&[Source::new(name, text)], None)
    }

    /// Reads the sources of an identity configuration, which count together. With `now`, what ends soon is warned of.
    ///
    /// Returns the issuers with the warnings.
    ///
    /// # Errors
    /// Every finding, when at least one of them is an error.
    pub fn load(
        sources: &[Source],
        now: Option<OffsetDateTime>,
    ) -> Result<(Self, Vec<Finding>), Vec<Finding>> {
        config::read(sources, now)
    }

    /// Puts checked entries together. The configuration has made sure that entries for one URL have no audience in common,
    /// and that patterns which can match the same URL differ in their number of literal characters.
    pub(super) fn new(mut exact: Vec<Issuer>, mut wildcards: Vec<(Pattern, Issuer)>) -> Self {
        let is_in_cluster = exact.iter().any(|issuer| issuer.url() == CLUSTER_ISSUER)
            || wildcards
                .iter()
                .any(|(pattern, _)| pattern.matches(CLUSTER_ISSUER));
        if is_in_cluster {
            let wildcards = wildcards.iter_mut().map(|(_, issuer)| issuer);
            exact
                .iter_mut()
                .chain(wildcards)
                .for_each(Issuer::join_cluster);
        }
        let mut by_url: HashMap<String, Vec<Arc<Issuer>>> = HashMap::new();
        for issuer in exact {
            let of_url = by_url.entry(issuer.endpoint.issuer.clone()).or_default();
            of_url.push(Arc::new(issuer));
        }
        let groups = by_url.into_iter().filter_map(|(url, entries)| {
            let (first, others) = entries.split_first()?;
            let group = Group {
                first: Arc::clone(first),
                others: others.into(),
            };
            Some((url, group))
        });
        let mut by_domain: HashMap<String, Vec<(Pattern, Arc<Issuer>)>> = HashMap::new();
        for (pattern, issuer) in wildcards {
            let of_domain = by_domain.entry(pattern.domain().to_owned()).or_default();
            of_domain.push((pattern, Arc::new(issuer)));
        }
        for of_domain in by_domain.values_mut() {
            of_domain.sort_by_key(|(pattern, _)| Reverse(pattern.literal_characters()));
        }
        Self {
            exact: groups.collect(),
            wildcards: by_domain,
        }
    }

    /// Finds the entries for a token's `iss`, which is compared octet by octet: the exact ones first, then the most
    /// specific pattern.
    #[must_use]
    pub fn lookup(&self, iss: &str) -> Option<MatchedIssuer> {
        if let Some(Group { first, others }) = self.exact.get(iss) {
            return Some(MatchedIssuer {
                issuer: Arc::clone(first),
                endpoint: Arc::clone(&first.endpoint),
                others: Arc::clone(others),
            });
        }
        let (_, issuer) = self
            .wildcards
            .get(domain(iss))?
            .iter()
            .find(|(pattern, _)| pattern.matches(iss))?;
        Some(MatchedIssuer {
            issuer: Arc::clone(issuer),
            endpoint: Arc::new(issuer.endpoint.tenant(iss)),
            others: Arc::default(),
        })
    }

    /// The endpoint of an entry that finds the same keys in the same way as `endpoint`.
    pub(super) fn endpoint_like(&self, endpoint: &KeyEndpoint) -> Option<Arc<KeyEndpoint>> {
        let matched = self.lookup(&endpoint.issuer)?;
        let others = matched.others.iter().map(|issuer| &issuer.endpoint);
        let mut all = std::iter::once(&matched.endpoint).chain(others);
        all.find(|known| ***known == *endpoint).map(Arc::clone)
    }

    /// Every entry, the exact ones first, each group sorted by URL.
    #[must_use]
    pub fn all(&self) -> Vec<&Arc<Issuer>> {
        let groups = self.exact.values();
        let mut exact: Vec<_> = groups
            .flat_map(|group| std::iter::once(&group.first).chain(group.others.iter()))
            .collect();
        let wildcards = self.wildcards.values().flatten();
        let mut wildcards: Vec<_> = wildcards.map(|(_, issuer)| issuer).collect();
        // Stable: entries for one URL stay in the order of the file.
        exact.sort_by_key(|issuer| &issuer.endpoint.issuer);
        wildcards.sort_by_key(|issuer| &issuer.endpoint.issuer);
        exact.extend(wildcards);
        exact
    }

    /// The texts of key sets that were read from files, in the order of [`Self::all`].
    pub fn given_key_sets(&self) -> impl Iterator<Item = &str> {
        let all = self.all().into_iter();
        all.filter_map(|issuer| issuer.endpoint.given_key_set())
    }

    /// What clients may know of the entries, in the order of [`Self::all`]. Those that are switched off are not told.
    #[must_use]
    pub fn configuration(&self) -> Vec<IssuerConfiguration> {
        self.all()
            .into_iter()
            .filter(|issuer| !issuer.disabled)
            .flat_map(|issuer| issuer.configuration())
            .collect()
    }
}

impl Issuer {
    /// Has a `kubernetes` issuer asked as the cluster that we run in, unless it has files of its own.
    ///
    /// This is Fulcio's rule: where the cluster's own API server is trusted, [`CLUSTER_ISSUER`], it holds for every such
    /// issuer that is written out; the endpoint sees to it that none is asked so which only a pattern names.
    fn join_cluster(&mut self) {
        if matches!(self.rule, IdentityRule::Kubernetes) && !self.endpoint.has_cluster_access() {
            let endpoint = KeyEndpoint::clone(&self.endpoint);
            self.endpoint = Arc::new(endpoint.with_cluster_access(ClusterAccess::Own));
        }
    }

    /// The URL that its tokens carry as `iss`, or the pattern of such URLs.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.endpoint.issuer
    }

    /// Whether one of the audiences is one of its own.
    #[must_use]
    pub fn accepts(&self, audiences: &[&str]) -> bool {
        self.audiences
            .iter()
            .any(|own| audiences.contains(&own.as_str()))
    }

    /// Whether its end has come.
    #[must_use]
    pub fn has_expired(&self, now: OffsetDateTime) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }

    /// Whether its tokens are accepted at all.
    #[must_use]
    pub fn is_in_use(&self, now: OffsetDateTime) -> bool {
        !self.disabled && !self.has_expired(now)
    }

    /// Whether it stands for many issuers.
    #[must_use]
    pub fn is_wildcard(&self) -> bool {
        self.endpoint.is_wildcard()
    }

    /// One for each audience, because clients expect one.
    fn configuration(&self) -> impl Iterator<Item = IssuerConfiguration> {
        self.audiences.iter().map(|audience| IssuerConfiguration {
            url: self.endpoint.issuer.clone(),
            is_wildcard: self.endpoint.is_wildcard(),
            audience: audience.clone(),
            challenge_claim: self.rule.challenge_claim(),
            issuer_type: self.rule.type_name(),
            subject_domain: self.rule.subject_domain(),
            spiffe_trust_domain: self.rule.spiffe_trust_domain().to_owned(),
            skip_email_verification: self.rule.skips_email_verification(),
        })
    }
}

/// The longest text that one `*` stands for, in octets.
const MAX_STAR_OCTETS: usize = 128;

/// A URL with `*` in it; each stands for 1 to 128 letters, digits, `-` and `_`, so that none reaches across a `.` or `/`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pattern(String);

/// A text is not a pattern that may be configured.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidPattern {
    /// No `https://` at its beginning.
    #[error("a pattern must begin with https://")]
    Scheme,
    /// A part between two separators has two stars, which would match in more than one way.
    #[error("at most one * between two of the characters . and /")]
    CrowdedStars,
    /// A star near the end of the host, or in the port: the pattern would span unrelated domains.
    #[error("the last two labels of the host, and the port, must be written out")]
    OpenHost,
    /// A character that no issuer URL has.
    #[error(
        "a pattern has only letters, digits and - _ . ~ / : *, and no user name, query or fragment"
    )]
    Character,
}

impl Pattern {
    /// Checks a pattern.
    ///
    /// # Errors
    /// When it is not one; see [`InvalidPattern`].
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        let rest = text
            .strip_prefix("https://")
            .ok_or(InvalidPattern::Scheme)?;
        let is_allowed = |octet: u8| octet.is_ascii_alphanumeric() || b"-_.~/:*".contains(&octet);
        if !rest.bytes().all(is_allowed) {
            return Err(InvalidPattern::Character);
        }
        if parts(text).any(|(part, _)| part.matches('*').count() > 1) {
            return Err(InvalidPattern::CrowdedStars);
        }
        let authority = rest
            .split_once('/')
            .map_or(rest, |(authority, _)| authority);
        let (host, port) = authority.split_once(':').unwrap_or((authority, "443"));
        let mut labels = host.rsplit('.');
        let is_written_out = |label: Option<&str>| {
            label.is_some_and(|label| !label.is_empty() && !label.contains('*'))
        };
        let has_domain = is_written_out(labels.next()) && is_written_out(labels.next());
        if !has_domain || port.is_empty() || !port.bytes().all(|octet| octet.is_ascii_digit()) {
            return Err(InvalidPattern::OpenHost);
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether the whole of `text` is what the pattern describes.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let mut found = parts(text);
        let mut wanted = parts(&self.0);
        loop {
            match (wanted.next(), found.next()) {
                (None, None) => return true,
                (Some((wanted, wanted_end)), Some((found, found_end))) => {
                    if wanted_end != found_end || !part_matches(wanted, found) {
                        return false;
                    }
                }
                (Some(_), None) | (None, Some(_)) => return false,
            }
        }
    }

    /// Whether some URL matches both patterns.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let (mut ours, mut theirs) = (parts(&self.0), parts(&other.0));
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) => return true,
                (Some((our, our_end)), Some((their, their_end))) => {
                    if our_end != their_end || !parts_overlap(our, their) {
                        return false;
                    }
                }
                (Some(_), None) | (None, Some(_)) => return false,
            }
        }
    }

    /// The last two labels of its host, which are written out: every URL that it matches has them.
    #[must_use]
    pub fn domain(&self) -> &str {
        domain(&self.0)
    }

    /// How specific the pattern is.
    #[must_use]
    pub fn literal_characters(&self) -> usize {
        self.0.bytes().filter(|octet| *octet != b'*').count()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The last two labels of the host of a URL, octet for octet.
fn domain(url: &str) -> &str {
    let rest = url.strip_prefix("https://").unwrap_or(url);
    let host = rest.split(['/', ':']).next().unwrap_or(rest);
    let dots = host.rmatch_indices('.');
    let start = dots.skip(1).map(|(index, _)| index + 1).next();
    host.get(start.unwrap_or(0)..).unwrap_or(host)
}

/// Cuts a URL or pattern into runs of what a star can stand for, each with the separator that ends it.
fn parts(text: &str) -> impl Iterator<Item = (&str, Option<char>)> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let current = rest?;
        let separator = current
            .char_indices()
            .find(|(_, character)| *character != '*' && !is_star_character(*character));
        let Some((index, separator)) = separator else {
            rest = None;
            return Some((current, None));
        };
        let (part, tail) = current.split_at_checked(index)?;
        rest = tail.get(separator.len_utf8()..);
        Some((part, Some(separator)))
    })
}

const fn is_star_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '-' | '_')
}

fn part_matches(wanted: &str, found: &str) -> bool {
    let Some((prefix, suffix)) = wanted.split_once('*') else {
        return wanted == found;
    };
    let star = found
        .strip_prefix(prefix)
        .and_then(|rest| rest.strip_suffix(suffix));
    star.is_some_and(|star| {
        (1..=MAX_STAR_OCTETS).contains(&star.len()) && star.chars().all(is_star_character)
    })
}

fn parts_overlap(ours: &str, theirs: &str) -> bool {
    match (ours.split_once('*'), theirs.split_once('*')) {
        (None, _) => part_matches(theirs, ours),
        (_, None) => part_matches(ours, theirs),
        (Some((our_prefix, our_suffix)), Some((their_prefix, their_suffix))) => {
            let prefixes_agree =
                our_prefix.starts_with(their_prefix) || their_prefix.starts_with(our_prefix);
            let suffixes_agree =
                our_suffix.ends_with(their_suffix) || their_suffix.ends_with(our_suffix);
            prefixes_agree && suffixes_agree
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::entry;
    use super::*;

    #[test]
    fn a_star_stands_for_part_of_one_label_or_segment() {
        let pattern = Pattern::parse("https://*.idp.example/id/*").unwrap();
        for url in [
            "https://a.idp.example/id/1",
            "https://A-b_9.idp.example/id/x-_Y",
            &format!("https://a.idp.example/id/{}", "x".repeat(128)),
        ] {
            assert!(pattern.matches(url), "{url}");
        }
        for url in [
            "https://.idp.example/id/1",
            "https://a.b.idp.example/id/1",
            "https://a.idp.example/id/",
            "https://a.idp.example/id/1/2",
            "https://a.idp.example/id/1/",
            "https://a.idp.example/id/1\n",
            "\nhttps://a.idp.example/id/1",
            "https://a.idp.example/id/1?x",
            "https://a.idp.example/id/1#x",
            "https://a.idp.example/id/%31",
            "https://a.idp.example/id/1@evil/",
            "https://a.idp.example:1@evil/id/x",
            "https://a.idp.example:443/id/x",
            "https://a\\.idp.example/id/1",
            "https://a.idp.example/id/é",
            "https://a.idp.example/id/*",
            "http://a.idp.example/id/1",
            "http://evil?https://a.idp.example/id/1",
            "https://evil/https://a.idp.example/id/1",
            &format!("https://a.idp.example/id/{}", "x".repeat(129)),
        ] {
            assert!(!pattern.matches(url), "{url}");
        }
    }

    #[test]
    fn patterns_that_span_unrelated_domains_are_refused() {
        for (text, why) in [
            ("https://*/", InvalidPattern::OpenHost),
            ("https://*.com/", InvalidPattern::OpenHost),
            ("https://idp.*/", InvalidPattern::OpenHost),
            ("https://idp.*.com/", InvalidPattern::OpenHost),
            ("https://idp.example:*/", InvalidPattern::OpenHost),
            ("https://idp.example*/", InvalidPattern::OpenHost),
            ("http*://idp.example/", InvalidPattern::Scheme),
            ("http://idp.example/*", InvalidPattern::Scheme),
            ("https://idp.example/*a*", InvalidPattern::CrowdedStars),
            ("https://idp.example/**", InvalidPattern::CrowdedStars),
            ("https://u@idp.example/*", InvalidPattern::Character),
            ("https://idp.example/*?x", InvalidPattern::Character),
        ] {
            assert_eq!(Pattern::parse(text), Err(why), "{text}");
        }
    }

    #[test]
    fn overlaps_are_found_part_by_part() {
        let overlap = |a: &str, b: &str| {
            Pattern::parse(a)
                .unwrap()
                .overlaps(&Pattern::parse(b).unwrap())
        };
        assert!(overlap(
            "https://*.idp.example/a",
            "https://x.idp.example/*"
        ));
        assert!(overlap(
            "https://idp.example/a-*",
            "https://idp.example/*-b"
        ));
        assert!(!overlap(
            "https://idp.example/*/*",
            "https://idp.example/*/*/"
        ));
        assert!(!overlap(
            "https://idp.example/a-*",
            "https://idp.example/b-*"
        ));
        assert!(!overlap("https://*.one.example/", "https://*.two.example/"));
    }

    /// What a pattern means, in the shortest form: each star eats 1 to 128 characters.
    fn naive_match(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', rest @ ..] => (1..=text.len().min(128)).any(|length| {
                let (eaten, left) = text.split_at(length);
                let is_eaten = |octet: &u8| octet.is_ascii_alphanumeric() || b"-_".contains(octet);
                eaten.iter().all(is_eaten) && naive_match(rest, left)
            }),
            [octet, rest @ ..] => text.first() == Some(octet) && naive_match(rest, &text[1..]),
        }
    }

    /// Patterns of few different characters, so that many of them meet.
    fn pattern() -> impl Strategy<Value = Pattern> {
        let texts = "https://[ab*.]{0,6}(a|b)[.]a(/[ab*./-]{0,8})?";
        texts.prop_filter_map("not a pattern", |text| Pattern::parse(&text).ok())
    }

    /// A URL that may or may not match: the pattern with its stars filled, and then perhaps damaged.
    fn url_like(pattern: &Pattern) -> impl Strategy<Value = String> + use<> {
        let stars = prop::collection::vec("[ab_-]{0,3}|a{127,130}|[a.]{2}", 8);
        let damage = "[ab.*/:@?#%\\\\\n\u{e9}]{0,2}";
        let template = pattern.to_string();
        (stars, damage, any::<prop::sample::Index>()).prop_map(move |(stars, damage, place)| {
            let mut stars = stars.into_iter();
            let mut url: String = template
                .chars()
                .map(|character| match character {
                    '*' => stars.next().unwrap_or_default(),
                    other => other.to_string(),
                })
                .collect();
            let place = place.index(url.len() + 1);
            url.insert_str(place, &damage);
            url
        })
    }

    #[test]
    fn every_one_of_thousands_of_entries_is_found() {
        const COUNT: usize = 2000;
        let exact =
            (0..COUNT).map(|number| entry(&format!("https://i{number}.example"), "type: email"));
        let mut file: String = exact.collect();
        file = file.replace("oidc-issuers:\n", "");
        file.insert_str(0, "oidc-issuers:\n");
        file += "meta-issuers:\n";
        for number in 0..COUNT {
            // Half of them in one domain.
            let domain = if number % 2 == 0 {
                "idp".to_owned()
            } else {
                format!("d{number}")
            };
            let pattern = format!("https://*.{domain}.example/{number}");
            file += &format!("  {pattern}:\n    client-id: sigstore\n    type: email\n");
        }
        let (issuers, _) = Issuers::parse("identity.yaml", &file).unwrap();
        assert_eq!(issuers.all().len(), 2 * COUNT);
        for number in 0..COUNT {
            let url = format!("https://i{number}.example");
            assert_eq!(issuers.lookup(&url).unwrap().issuer.url(), url);
            let domain = if number % 2 == 0 {
                "idp".to_owned()
            } else {
                format!("d{number}")
            };
            let found = issuers.lookup(&format!("https://t.{domain}.example/{number}"));
            let expected = format!("https://*.{domain}.example/{number}");
            assert_eq!(found.unwrap().issuer.url(), expected);
            assert!(
                issuers
                    .lookup(&format!("https://t.{domain}.example/"))
                    .is_none()
            );
        }
    }

    proptest! {
        #[test]
        fn matching_agrees_with_what_a_pattern_means(
            (pattern, url) in pattern().prop_flat_map(|pattern| {
                let url = url_like(&pattern);
                (Just(pattern), url)
            }),
        ) {
            prop_assert_eq!(
                pattern.matches(&url),
                naive_match(pattern.to_string().as_bytes(), url.as_bytes()),
                "{} {:?}", pattern, url
            );
            if pattern.matches(&url) {
                prop_assert_eq!(pattern.domain(), domain(&url));
            }
        }

        #[test]
        fn patterns_that_match_one_url_overlap(
            (one, url) in pattern().prop_flat_map(|pattern| {
                let url = url_like(&pattern);
                (Just(pattern), url)
            }),
            other in pattern(),
        ) {
            prop_assert!(one.overlaps(&one));
            prop_assert_eq!(one.overlaps(&other), other.overlaps(&one));
            if one.matches(&url) && other.matches(&url) {
                prop_assert!(one.overlaps(&other), "{} {} {:?}", one, other, url);
            }
        }

        #[test]
        fn an_exact_issuer_is_found_by_its_very_octets_only(
            place in any::<prop::sample::Index>(),
            length in 0_usize..2,
            damage in "\\PC{0,2}|[/%.A-Z\0\n]{0,2}",
        ) {
            const URL: &str = "https://issuer.example/a%2Fb";
            let (issuers, _) = Issuers::parse("identity.yaml", &entry(URL, "type: email")).unwrap();
            let start = place.index(URL.len());
            let mut iss = URL.to_owned();
            iss.replace_range(start..(start + length).min(URL.len()), &damage);
            prop_assert_eq!(issuers.lookup(&iss).is_some(), iss == URL, "{:?}", iss);
        }
    }
}
