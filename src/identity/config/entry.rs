//! One entry of `oidc-issuers` or `meta-issuers`: its checks, and the issuer that it makes.

use std::borrow::Cow;
use std::sync::Arc;

use serde_saphyr::Spanned;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;
use time::{Date, Duration, OffsetDateTime};
use url::{Host, Url};
use x509_parser::pem::Pem;

use super::finding::{Code, Finding, Place, Severity, closest, misspelt};
use super::preset::{Preset, PresetProvider};
use super::raw::{RawFile, RawIssuer, Text};
use super::{Checker, pointer};
use crate::excerpt::{Excerpt, is_invisible};
use crate::fetch::{ClusterFiles, TlsRoots};
use crate::identity::claims::{
    ClaimPath, EmailRule, IdentityRule, InvalidDomain, SUPPORTED_TYPES, SpiffeRule, UriRule,
    UsernameRule,
};
use crate::identity::issuers::{Issuer, Pattern, TokenLimits};
use crate::identity::jwks::{ClusterAccess, KeyEndpoint, KeyLocation};
use crate::identity::jws::Algorithm;
use crate::identity::rules::{ClaimRules, RuleList};
use crate::limits::Rate;

/// How long before the end of an entry, or of a certificate, it is told of.
const NOTICE: Duration = Duration::days(30);
/// The longest time that `max-token-age` can be.
const MAX_TOKEN_AGE: Duration = Duration::days(366);
/// The longest time that `clock-skew` can be.
const MAX_CLOCK_SKEW: Duration = Duration::minutes(10);

/// Build services at which everybody can get a token.
const OPEN_ISSUERS: [&str; 6] = [
    "https://agent.buildkite.com",
    "https://gitlab.com",
    "https://oidc.circleci.com",
    "https://oidc.codefresh.io",
    "https://oidc.buddyusercontent.com",
    "https://token.actions.githubusercontent.com",
];

/// Providers of addresses that everybody can register at.
const PUBLIC_MAIL: [&str; 3] = [
    "https://accounts.google.com",
    "https://login.microsoftonline.com",
    "https://oauth2.sigstore.dev/auth",
];

/// Types that a provider with templates replaces.
const DEPRECATED_TYPES: [&str; 4] = [
    "buildkite-job",
    "codefresh-workflow",
    "github-workflow",
    "gitlab-pipeline",
];

/// An entry as it was read.
pub(super) struct Entry<'a> {
    pub(super) file: usize,
    pub(super) is_wildcard: bool,
    pub(super) key: &'a Text,
    /// What it says, and what its preset fills in.
    pub(super) raw: Cow<'a, RawIssuer>,
    /// The templates of its preset, unless it names others.
    pub(super) provider: Option<PresetProvider>,
}

impl<'a> Entry<'a> {
    /// Every entry of a file.
    pub(super) fn all(file: usize, raw: &'a RawFile) -> impl Iterator<Item = Self> {
        let entries = |is_wildcard, entries: &'a Option<_>| {
            let entries: &'a Option<super::raw::Entries<RawIssuer>> = entries;
            let entries = entries.iter().flat_map(|entries| &entries.0);
            entries.map(move |(key, raw)| Entry {
                file,
                is_wildcard,
                key,
                raw: Cow::Borrowed(raw),
                provider: None,
            })
        };
        entries(false, &raw.issuers).chain(entries(true, &raw.meta_issuers))
    }

    /// Where it begins.
    pub(super) fn place(&self) -> Place {
        Place::of(self.file, self.key)
    }

    /// The JSON pointer of it, or of one of its values.
    pub(super) fn path(&self, field: Option<&str>) -> String {
        let section = if self.is_wildcard {
            "meta-issuers"
        } else {
            "oidc-issuers"
        };
        let mut path = pointer(&[section, &self.key.value]);
        if let Some(field) = field {
            path += &pointer(&[field]);
        }
        path
    }

    /// The issuer's URL, or its pattern.
    pub(super) fn url(&self) -> Option<&str> {
        if self.is_wildcard {
            return Some(&self.key.value);
        }
        self.raw.issuer_url.as_ref().map(|url| url.value.as_str())
    }

    fn type_name(&self) -> &str {
        let name = self.raw.issuer_type.as_ref();
        name.map_or("", |name| name.value.as_str())
    }
}

impl Checker<'_, '_> {
    /// Adds a finding about the whole of an entry.
    fn on(&mut self, code: Code, entry: &Entry<'_>, message: impl Into<String>) -> &mut Finding {
        self.report
            .add(code, entry.place(), &entry.path(None), message)
    }

    /// Adds a finding about a value of an entry.
    pub(super) fn at<T>(
        &mut self,
        code: Code,
        entry: &Entry<'_>,
        field: &str,
        value: &Spanned<T>,
        message: impl Into<String>,
    ) -> &mut Finding {
        let place = Place::of(entry.file, value);
        self.report
            .add(code, place, &entry.path(Some(field)), message)
    }

    /// Ids that are written out come before those that are made up, which keep out of their way.
    pub(super) fn given_id(&mut self, entry: &Entry<'_>) {
        let Some(id) = &entry.raw.id else { return };
        let is_allowed = |octet: u8| {
            octet.is_ascii_lowercase() || octet.is_ascii_digit() || b"._-".contains(&octet)
        };
        if !(1..=64).contains(&id.value.len()) || !id.value.bytes().all(is_allowed) {
            self.at(Code::Setting, entry, "id", id, "the id cannot be used")
                .help("expected 1 to 64 of a-z, 0-9, . _ -");
        } else if !self.ids.insert(id.value.clone()) {
            let message = format!("the id `{}` stands twice", id.value);
            self.at(Code::Duplicate, entry, "id", id, message);
        }
    }

    /// Host and path of the URL, made unique.
    fn made_up_id(&mut self, url: &str) -> String {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let slug = |character: char| match character {
            '*' => 'x',
            character if character.is_ascii_alphanumeric() || character == '.' => {
                character.to_ascii_lowercase()
            }
            _ => '-',
        };
        let base: String = rest.trim_end_matches('/').chars().map(slug).collect();
        let numbered = (2_u32..).map(|number| format!("{base}-{number}"));
        let mut candidates = std::iter::once(base.clone()).chain(numbered);
        // There are more numbers than issuers.
        candidates
            .find(|id| self.ids.insert(id.clone()))
            .unwrap_or(base)
    }

    pub(super) fn exact(&mut self, entry: &Entry<'_>) -> Option<Issuer> {
        let key = &entry.key.value;
        let Some(url) = &entry.raw.issuer_url else {
            let help = match key.contains("://") {
                true => format!("add issuer-url: {key}"),
                false => "it must equal the `iss` of the tokens, octet for octet".to_owned(),
            };
            self.on(Code::IssuerUrl, entry, "the entry has no issuer-url")
                .help(help);
            // What else is wrong with it is told as well.
            self.issuer(entry, key, |id, roots| {
                KeyEndpoint::exact(id, key.clone(), roots)
            });
            return None;
        };
        if url.value != *key && key.contains("://") {
            let message = format!("issuer-url differs from the key {}", Excerpt::new(key));
            self.at(Code::KeyDiffers, entry, "issuer-url", url, message)
                .help("the key must be the same URL, octet for octet, or a name that is no URL");
        }
        match check_issuer_url(&url.value) {
            Ok(parsed) => {
                if parsed.scheme() == "http" && !is_loopback(&parsed) {
                    let message = "the issuer's keys are fetched over http";
                    self.at(Code::PlainHttp, entry, "issuer-url", url, message)
                        .help("whoever can change its answers can sign for every one of its users");
                }
                // Presets know whose URLs end so.
                if url.value.ends_with('/') && entry.raw.preset.is_none() {
                    let message = "issuer-url ends with a slash, which most issuers' do not";
                    self.at(Code::Lookalike, entry, "issuer-url", url, message)
                        .help("it must equal the `iss` of the tokens, octet for octet");
                }
            }
            Err(why) => {
                let message = format!("issuer-url cannot be used: {why}");
                self.at(Code::IssuerUrl, entry, "issuer-url", url, message);
            }
        }
        self.issuer(entry, &url.value, |id, roots| {
            KeyEndpoint::exact(id, url.value.clone(), roots)
        })
    }

    pub(super) fn wildcard(&mut self, entry: &Entry<'_>) -> Option<(Place, Pattern, Issuer)> {
        let key = &entry.key.value;
        if let Some(url) = entry
            .raw
            .issuer_url
            .as_ref()
            .filter(|url| url.value != *key)
        {
            let message = "issuer-url differs from the entry's key";
            self.at(Code::KeyDiffers, entry, "issuer-url", url, message)
                .help("leave it out here");
        }
        let pattern = Pattern::parse(key);
        match &pattern {
            Ok(_) => self.breadth(entry),
            Err(why) => {
                let message = format!("the pattern cannot be used: {why}");
                self.on(Code::IssuerUrl, entry, message);
            }
        }
        let issuer = self.issuer(entry, key, |id, roots| {
            KeyEndpoint::wildcard(id, key.clone(), roots)
        });
        Some((entry.place(), pattern.ok()?, issuer?))
    }

    /// Whether what a pattern leaves open in the host belongs to one owner.
    fn breadth(&mut self, entry: &Entry<'_>) {
        let rest = entry.key.value.strip_prefix("https://");
        let host = rest.and_then(|rest| rest.split(['/', ':']).next());
        let Some((_, fixed)) = host.and_then(|host| host.rsplit_once('*')) else {
            return;
        };
        let Some((_, fixed)) = fixed.split_once('.') else {
            return;
        };
        let Some(suffix) = psl::suffix(fixed.as_bytes()) else {
            return;
        };
        if suffix.as_bytes() != fixed.as_bytes() {
            return;
        }
        let message = format!("the pattern matches hosts of everybody below {fixed}");
        let is_registry = suffix.typ() == Some(psl::Type::Icann);
        let finding = self.on(Code::BroadPattern, entry, message);
        finding.help("whoever has a name there can be such an issuer");
        if is_registry {
            finding.severity(Severity::Error);
        }
    }

    /// Checks what exact entries and patterns have in common.
    fn issuer(
        &mut self,
        entry: &Entry<'_>,
        url: &str,
        endpoint: impl Fn(Arc<str>, Option<Arc<TlsRoots>>) -> KeyEndpoint,
    ) -> Option<Issuer> {
        let rule = self.rule(entry, url);
        let audiences = self.audiences(entry, url);
        let roots = self.roots(entry);
        let location = self.key_location(entry, url);
        let cluster = self.cluster_access(entry);
        let tokens = self.token_limits(entry);
        let rate = self.rate(entry);
        let expires = self.expires(entry);
        let access = self.access(entry);
        if access
            .as_ref()
            .is_some_and(|rules| rules.list(RuleList::Allow).is_empty())
        {
            self.open_issuer(entry, url, rule.as_ref());
        }
        let id: Arc<str> = match &entry.raw.id {
            Some(id) => id.value.clone().into(),
            None => self.made_up_id(url).into(),
        };
        let place = match &entry.raw.issuer_url {
            Some(url) => Place::of(entry.file, url),
            None => entry.place(),
        };
        self.places
            .insert(Arc::clone(&id), (place, entry.path(None)));
        let mut endpoint = endpoint(Arc::clone(&id), roots).with_keys_at(location);
        if let Some(cluster) = cluster {
            endpoint = endpoint.with_cluster_access(cluster);
        }
        Some(Issuer {
            endpoint: Arc::new(endpoint),
            id,
            audiences: audiences?,
            rule: rule?,
            access: access?,
            tokens,
            rate,
            disabled: entry.raw.disabled.as_ref().is_some_and(|flag| flag.value),
            expires,
        })
    }

    /// `allow` and `deny`.
    fn access(&mut self, entry: &Entry<'_>) -> Option<ClaimRules> {
        let mistakes = match ClaimRules::new(entry.raw.allow.as_ref(), entry.raw.deny.as_ref()) {
            Ok(rules) => {
                self.misspelt_claims(entry);
                return Some(rules);
            }
            Err(mistakes) => mistakes,
        };
        for mistake in mistakes {
            let names: Vec<&str> = mistake.path.iter().map(String::as_str).collect();
            let path = entry.path(None) + &pointer(&names);
            let place = Place::new(entry.file, mistake.location);
            let finding = self.report.add(Code::Rule, place, &path, mistake.message);
            if let Some(help) = mistake.help {
                finding.help(help);
            }
        }
        None
    }

    /// Claims in rules that are almost called like one that tokens of the preset have.
    fn misspelt_claims(&mut self, entry: &Entry<'_>) {
        let preset = entry.raw.preset.as_ref();
        let Some(preset) = preset.and_then(|name| Preset::named(&name.value)) else {
            return;
        };
        let lists = [
            (RuleList::Allow, &entry.raw.allow),
            (RuleList::Deny, &entry.raw.deny),
        ];
        let rules = lists.map(|(list, rules)| rules.as_ref().map(|rules| (list, rules)));
        let rules: Vec<_> = rules.into_iter().flatten().collect();
        if rules.is_empty() {
            return;
        }
        let known = self.presets.claims(preset);
        for (list, rules) in rules {
            for (claim, location, rule) in rules.claims() {
                // What is inside a claim is not known.
                let name = claim.strip_prefix("$.").unwrap_or(claim);
                let meant = misspelt(name, known.iter().map(String::as_str));
                let Some(meant) = meant.filter(|_| !known.contains(name)) else {
                    continue;
                };
                let names = [list.name(), &rule.to_string(), claim];
                let path = entry.path(None) + &pointer(&names);
                let place = Place::new(entry.file, location);
                let message = format!(
                    "tokens of this kind have no claim {} that is known",
                    Excerpt::new(claim)
                );
                self.report
                    .add(Code::Misspelt, place, &path, message)
                    .help(format!("did you mean `{meant}`?"));
            }
        }
    }

    /// `client-id`, or `client-ids`.
    fn audiences(&mut self, entry: &Entry<'_>, url: &str) -> Option<Vec<String>> {
        let one = entry.raw.client_id.as_ref();
        let list = entry.raw.client_ids.as_deref();
        if let (Some(one), Some(_)) = (one, list) {
            let message = "client-id and client-ids stand together";
            self.at(Code::NoAudience, entry, "client-id", one, message)
                .help("put all of them into client-ids");
            return None;
        }
        let (field, given): (_, Vec<&Text>) = match list {
            Some(list) => ("client-ids", list.iter().collect()),
            None => ("client-id", one.into_iter().collect()),
        };
        let message = format!("{field} is missing or empty");
        let help = "give the value that tokens have as `aud`, usually sigstore";
        if given.is_empty() {
            self.on(Code::NoAudience, entry, message).help(help);
            return None;
        }
        let mut audiences = Vec::with_capacity(given.len());
        for audience in given {
            let value = &audience.value;
            if value.trim().is_empty() {
                self.at(Code::NoAudience, entry, field, audience, message)
                    .help(help);
                return None;
            }
            if value.trim() != value || value.chars().any(is_invisible) {
                let message = format!("{field} {} is the `aud` of no token", Excerpt::new(value));
                self.at(Code::NoAudience, entry, field, audience, message)
                    .help("white space around it, and characters that nobody sees, count as any other");
                return None;
            }
            let place = entry.place();
            let key = (url.to_owned(), value.clone());
            if let Some(other) = self.urls.insert(key, place) {
                let (file, line) = (self.report.file(other.file), other.line);
                let message = format!("issuer and audience {} stand twice", Excerpt::new(value));
                self.at(Code::Duplicate, entry, field, audience, message)
                    .help(format!("the other stands at {file}:{line}"));
                return None;
            }
            audiences.push(value.clone());
        }
        Some(audiences)
    }

    fn roots(&mut self, entry: &Entry<'_>) -> Option<Arc<TlsRoots>> {
        let pem = entry.raw.ca_cert.as_ref()?;
        match TlsRoots::parse(&pem.value) {
            Ok(roots) => {
                self.roots_end(entry, pem);
                Some(Arc::new(roots))
            }
            Err(why) => {
                let message = format!("ca-cert cannot be used: it is {why}");
                self.at(Code::CaCert, entry, "ca-cert", pem, message);
                None
            }
        }
    }

    fn roots_end(&mut self, entry: &Entry<'_>, pem: &Text) {
        let Some(now) = self.now else { return };
        let ends = Pem::iter_from_buffer(pem.value.as_bytes()).filter_map(|block| {
            let block = block.ok()?;
            let certificate = block.parse_x509().ok()?;
            Some(certificate.validity().not_after.to_datetime())
        });
        if let Some(end) = ends.min().filter(|end| *end < now + NOTICE) {
            let verb = if end < now { "ended" } else { "ends" };
            let message = format!("a certificate of ca-cert {verb} on {}", end.date());
            self.at(Code::Ends, entry, "ca-cert", pem, message);
        }
    }

    /// Where the keys are: `jwks-uri` or `jwks-file`, and otherwise where the discovery document says.
    fn key_location(&mut self, entry: &Entry<'_>, url: &str) -> KeyLocation {
        let (found, field, text) = match (&entry.raw.jwks_uri, &entry.raw.jwks_file) {
            (None, None) => return KeyLocation::Discovery,
            (Some(uri), Some(_)) => {
                let message = "jwks-uri and jwks-file stand together";
                self.at(Code::Setting, entry, "jwks-uri", uri, message);
                return KeyLocation::Discovery;
            }
            (Some(uri), None) => {
                let found = KeyLocation::url(&uri.value, url).map_err(|why| why.to_string());
                (found, "jwks-uri", uri)
            }
            (None, Some(path)) => (self.key_file(entry, path), "jwks-file", path),
        };
        found.unwrap_or_else(|why| {
            let message = format!("{field} cannot be used: {why}");
            self.at(Code::Setting, entry, field, text, message);
            KeyLocation::Discovery
        })
    }

    /// The keys in a file. They are those of the moment when the configuration is read.
    fn key_file(&self, entry: &Entry<'_>, path: &Text) -> Result<KeyLocation, String> {
        let source = self.report.source(entry.file);
        let source = source.ok_or_else(|| "there is no such file".to_owned())?;
        let jwks = source
            .read_named(&path.value)
            .map_err(|why| why.to_string())?;
        KeyLocation::given(&jwks).map_err(|why| why.to_string())
    }

    /// The cluster's token, where an entry says where it is. It is read for every fetch.
    fn cluster_access(&mut self, entry: &Entry<'_>) -> Option<ClusterAccess> {
        let text = entry.raw.token_file.as_ref()?;
        if entry.is_wildcard || entry.type_name() != "kubernetes" {
            let message = "only issuers of type kubernetes that are no pattern can have token-file";
            self.at(Code::Setting, entry, "token-file", text, message)
                .help("whoever a pattern names would be sent the token");
            return None;
        }
        let source = self.report.source(entry.file);
        let token = source.and_then(|source| source.path_of(&text.value));
        Some(ClusterAccess::Files(Arc::new(ClusterFiles {
            ca: None,
            token: token.unwrap_or_else(|| text.value.clone().into()),
        })))
    }

    fn token_limits(&mut self, entry: &Entry<'_>) -> TokenLimits {
        let raw = &entry.raw;
        TokenLimits {
            max_age: self.duration(
                entry,
                "max-token-age",
                raw.max_token_age.as_ref(),
                MAX_TOKEN_AGE,
            ),
            clock_skew: self.duration(entry, "clock-skew", raw.clock_skew.as_ref(), MAX_CLOCK_SKEW),
            algorithms: self.algorithms(entry),
        }
    }

    fn rate(&mut self, entry: &Entry<'_>) -> Option<Rate> {
        let text = entry.raw.rate.as_ref()?;
        let rate = text.value.parse();
        if let Err(why) = &rate {
            let why: &String = why;
            self.at(Code::Setting, entry, "rate", text, "rate cannot be used")
                .help(why.clone());
        }
        rate.ok()
    }

    fn duration(
        &mut self,
        entry: &Entry<'_>,
        field: &str,
        text: Option<&Text>,
        longest: Duration,
    ) -> Option<Duration> {
        let text = text?;
        let duration = parse_duration(&text.value).filter(|duration| *duration <= longest);
        if duration.is_none() {
            let message = format!("{field} cannot be used");
            let help = format!(
                "expected a number with s, m, h or d behind it, such as 10m, at most {} minutes",
                longest.whole_minutes()
            );
            self.at(Code::Setting, entry, field, text, message)
                .help(help);
        }
        duration
    }

    fn algorithms(&mut self, entry: &Entry<'_>) -> Option<Vec<Algorithm>> {
        let names = entry.raw.algorithms.as_deref()?;
        if names.is_empty() {
            self.on(Code::Setting, entry, "algorithms is empty")
                .help("leave it out to accept what the issuer says it uses");
        }
        let known = || Algorithm::ALL.into_iter().map(Algorithm::name);
        let mut algorithms = Vec::with_capacity(names.len());
        for name in names {
            if let Some(algorithm) = Algorithm::named(&name.value) {
                algorithms.push(algorithm);
                continue;
            }
            let message = format!("unknown algorithm {}", Excerpt::new(&name.value));
            let help = match closest(&name.value, known()) {
                Some(known) => format!("did you mean {known}?"),
                None => format!(
                    "expected some of {}",
                    known().collect::<Vec<_>>().join(", ")
                ),
            };
            self.at(Code::Setting, entry, "algorithms", name, message)
                .help(help);
        }
        Some(algorithms)
    }

    fn expires(&mut self, entry: &Entry<'_>) -> Option<OffsetDateTime> {
        let text = entry.raw.expires.as_ref()?;
        let day = format_description!("[year]-[month]-[day]");
        let expires = OffsetDateTime::parse(&text.value, &Rfc3339).or_else(|_| {
            let day = Date::parse(&text.value, day)?;
            Ok::<_, time::error::Parse>(day.midnight().assume_utc())
        });
        let Ok(expires) = expires else {
            self.at(Code::Setting, entry, "expires", text, "expires is no date")
                .help("expected a date such as 2027-01-31, or with a time, 2027-01-31T12:00:00Z");
            return None;
        };
        if let Some(now) = self.now.filter(|now| expires < *now + NOTICE) {
            let verb = if expires < now { "ended" } else { "ends" };
            let message = format!("the entry {verb} on {}", expires.date());
            self.at(Code::Ends, entry, "expires", text, message)
                .help("tokens of this issuer are refused from then on");
        }
        Some(expires)
    }

    /// Warns of what everybody can use, unless rules say who may.
    fn open_issuer(&mut self, entry: &Entry<'_>, url: &str, rule: Option<&IdentityRule>) {
        let is_open = OPEN_ISSUERS.contains(&url);
        if is_open && rule.is_some() {
            let message = "everybody can get a token of this issuer";
            self.on(Code::OpenIssuer, entry, message)
                .help("an allow rule says whose tokens may have a certificate");
        }
    }

    fn rule(&mut self, entry: &Entry<'_>, url: &str) -> Option<IdentityRule> {
        let raw = &entry.raw;
        let Some(issuer_type) = &raw.issuer_type else {
            self.on(Code::UnknownType, entry, "type is missing")
                .help(format!("expected one of {}", SUPPORTED_TYPES.join(", ")));
            return None;
        };
        let rule = match issuer_type.value.as_str() {
            "email" => self.email_rule(entry),
            "uri" => self.domain_rule(entry, url, |domain, issuer| {
                UriRule::new(domain, issuer).map(IdentityRule::Uri)
            }),
            "username" => self.domain_rule(entry, url, |domain, issuer| {
                UsernameRule::new(domain, issuer).map(IdentityRule::Username)
            }),
            "spiffe" => self.spiffe_rule(entry),
            "ci-provider" => self.provider_rule(entry),
            name => {
                let rule = IdentityRule::plain(name);
                if rule.is_none() {
                    self.unknown_type(entry, issuer_type);
                }
                rule
            }
        };
        self.out_of_place(entry);
        let rule = rule?;
        if DEPRECATED_TYPES.contains(&issuer_type.value.as_str()) {
            let message = format!("the type {} is deprecated", issuer_type.value);
            self.at(Code::Superfluous, entry, "type", issuer_type, message)
                .help("use type ci-provider, whose templates say what certificates carry");
        }
        let challenge = raw
            .challenge_claim
            .as_ref()
            .filter(|claim| claim.value != rule.challenge_claim());
        if let Some(claim) = challenge {
            let message = format!(
                "challenge-claim has no effect: type {} uses `{}`",
                rule.type_name(),
                rule.challenge_claim()
            );
            self.at(Code::NoEffect, entry, "challenge-claim", claim, message);
        }
        Some(rule)
    }

    fn unknown_type(&mut self, entry: &Entry<'_>, issuer_type: &Text) {
        let message = format!("unknown type {}", Excerpt::new(&issuer_type.value));
        let all = format!("expected one of {}", SUPPORTED_TYPES.join(", "));
        let help = match closest(&issuer_type.value, SUPPORTED_TYPES) {
            Some(known) => format!("did you mean `{known}`? {all}"),
            None => all,
        };
        self.at(Code::UnknownType, entry, "type", issuer_type, message)
            .help(help);
    }

    /// Settings that belong to another type.
    fn out_of_place(&mut self, entry: &Entry<'_>) {
        let raw = &entry.raw;
        let name = entry.type_name();
        if let Some(claim) = raw.issuer_claim.as_ref().filter(|_| name != "email") {
            let message = "only issuers of type email can have issuer-claim";
            self.at(Code::IssuerClaim, entry, "issuer-claim", claim, message);
        }
        if let Some(provider) = raw.ci_provider.as_ref().filter(|_| name != "ci-provider") {
            let message = "only issuers of type ci-provider can have ci-provider";
            self.at(Code::CiProvider, entry, "ci-provider", provider, message);
        }
        let domain = raw.subject_domain.as_ref();
        if let Some(domain) = domain.filter(|_| !["uri", "username"].contains(&name)) {
            let message = format!("subject-domain has no effect with type {name}");
            self.at(Code::NoEffect, entry, "subject-domain", domain, message);
        }
        if let Some(domain) = raw
            .spiffe_trust_domain
            .as_ref()
            .filter(|_| name != "spiffe")
        {
            let message = format!("spiffe-trust-domain has no effect with type {name}");
            self.at(
                Code::NoEffect,
                entry,
                "spiffe-trust-domain",
                domain,
                message,
            );
        }
        let skip = raw.skip_email_verification.as_ref();
        if let Some(skip) = skip.filter(|skip| skip.value) {
            let field = "skip-email-verification";
            if name == "email" {
                let is_public = entry
                    .url()
                    .is_some_and(|url| PUBLIC_MAIL.iter().any(|public| url.starts_with(public)));
                let whoever = if is_public { "everybody" } else { "whoever" };
                let message = "addresses are not verified by the issuer";
                self.at(Code::UnverifiedEmail, entry, field, skip, message)
                    .help(format!(
                        "{whoever} can register an address there can sign as its owner"
                    ));
            } else {
                let message = format!("{field} has no effect with type {name}");
                self.at(Code::NoEffect, entry, field, skip, message);
            }
        }
    }

    fn email_rule(&mut self, entry: &Entry<'_>) -> Option<IdentityRule> {
        let issuer_claim = match &entry.raw.issuer_claim {
            None => None,
            Some(text) => match ClaimPath::parse(&text.value) {
                Ok(path) => Some(path),
                Err(why) => {
                    let message = format!("issuer-claim cannot be used: {why}");
                    self.at(Code::IssuerClaim, entry, "issuer-claim", text, message);
                    return None;
                }
            },
        };
        let skip = entry.raw.skip_email_verification.as_ref();
        Some(IdentityRule::Email(EmailRule {
            issuer_claim,
            skip_verification: skip.is_some_and(|skip| skip.value),
        }))
    }

    /// The rule of a type that needs `subject-domain`.
    fn domain_rule(
        &mut self,
        entry: &Entry<'_>,
        url: &str,
        rule: impl Fn(&str, &str) -> Result<IdentityRule, InvalidDomain>,
    ) -> Option<IdentityRule> {
        let type_name = entry.type_name();
        let Some(domain) = &entry.raw.subject_domain else {
            let scheme = if type_name == "uri" { "https://" } else { "" };
            let message = format!("a {type_name} issuer must have subject-domain");
            self.on(Code::SubjectDomain, entry, message)
                .help(format!("such as {scheme}example.com"));
            return None;
        };
        rule(&domain.value, url)
            .map_err(|why| {
                let code = match why {
                    InvalidDomain::PublicSuffix { .. } => Code::PublicSuffix,
                    InvalidDomain::NoScheme
                    | InvalidDomain::Scheme
                    | InvalidDomain::Form
                    | InvalidDomain::OtherScheme { .. }
                    | InvalidDomain::Issuer
                    | InvalidDomain::Unrelated { .. } => Code::SubjectDomain,
                };
                let message = format!("subject-domain cannot be used: {why}");
                self.at(code, entry, "subject-domain", domain, message);
            })
            .ok()
    }

    fn spiffe_rule(&mut self, entry: &Entry<'_>) -> Option<IdentityRule> {
        if entry.is_wildcard {
            self.on(
                Code::SpiffeDomain,
                entry,
                "a pattern cannot have type spiffe",
            );
            return None;
        }
        let Some(domain) = &entry.raw.spiffe_trust_domain else {
            let message = "a spiffe issuer must have spiffe-trust-domain";
            self.on(Code::SpiffeDomain, entry, message)
                .help("such as example.com");
            return None;
        };
        match SpiffeRule::new(&domain.value) {
            Ok(rule) => Some(IdentityRule::Spiffe(rule)),
            Err(why) => {
                let message = format!("spiffe-trust-domain cannot be used: {why}");
                let field = "spiffe-trust-domain";
                self.at(Code::SpiffeDomain, entry, field, domain, message);
                None
            }
        }
    }

    fn provider_rule(&mut self, entry: &Entry<'_>) -> Option<IdentityRule> {
        let Some(name) = &entry.raw.ci_provider else {
            let message = "an issuer of type ci-provider must have ci-provider";
            self.on(Code::CiProvider, entry, message)
                .help("the name of an entry of ci-issuer-metadata");
            return None;
        };
        if let Some(preset) = &entry.provider {
            return self
                .providers
                .of_preset(preset)
                .map(IdentityRule::CiProvider);
        }
        if let Some(provider) = self.providers.find(self.report, &name.value) {
            return provider.map(IdentityRule::CiProvider);
        }
        let help = match self.providers.closest(&name.value) {
            Some(known) => format!("did you mean \"{known}\"?"),
            None => "the names are the keys of ci-issuer-metadata".to_owned(),
        };
        let message = format!(
            "the ci-provider {} is not defined in ci-issuer-metadata",
            Excerpt::new(&name.value)
        );
        self.at(Code::CiProvider, entry, "ci-provider", name, message)
            .help(help);
        None
    }
}

/// Reads a number with a unit behind it: `s`, `m`, `h` or `d`.
fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return None,
    };
    let number: i64 = number.parse().ok().filter(|number| *number >= 0)?;
    number.checked_mul(seconds).map(Duration::seconds)
}

/// Checks the URL of an issuer that is written out.
fn check_issuer_url(text: &str) -> Result<Url, &'static str> {
    if text.contains('*') {
        return Err("a pattern belongs under meta-issuers");
    }
    let url = Url::parse(text).map_err(|_| "it is not a URL")?;
    let is_plain = text
        .bytes()
        .all(|octet| octet.is_ascii_graphic() && octet != b'\\');
    if !matches!(url.scheme(), "http" | "https")
        || !text.starts_with(&format!("{}://", url.scheme()))
        || !is_plain
    {
        return Err("expected https:// and a host");
    }
    if !url.username().is_empty() || url.password().is_some() || text.contains(['@', '?', '#']) {
        return Err("it has a user name, a query or a fragment");
    }
    Ok(url)
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}
