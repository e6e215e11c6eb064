//! The identity file: which issuers are trusted, in Fulcio's format, with a place for everything that is wrong with it.
//!
//! YAML in kebab case and JSON in camel case are read as they are. Every scalar has a typed field, so that no reader of
//! YAML can take `no` or `0123` for something else than another one does.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_saphyr::{Location, Spanned};
use url::{Host, Url};

use super::claims::{
    ClaimPath, EmailRule, IdentityRule, InvalidDomain, SUPPORTED_TYPES, SpiffeRule, UriRule,
    UsernameRule,
};
use super::excerpt::Excerpt;
use super::issuers::{Issuer, Issuers, Pattern, TokenLimits};
use super::jwks::KeyEndpoint;
use super::rules::ClaimRules;
use crate::fetch::ExtraRoots;
use providers::Providers;

mod providers;

/// The longest identity file, in octets.
const MAX_OCTETS: usize = 4 * 1024 * 1024;

/// The most scalars, and beginnings and ends of collections, that all aliases of a file stand for together: a few for each
/// of thousands of issuers. Aliases of aliases could make a line stand for gigabytes.
const MAX_ALIASED_EVENTS: usize = 100_000;

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// The file is not used.
    Error,
    /// The file is used, and probably does not do what was meant.
    Warning,
}

/// Something about an identity file that its author should know.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// The file, as its reader was called.
    pub file: String,
    /// The line, from 1.
    pub line: u64,
    /// The column, in characters, from 1.
    pub column: u64,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What would be right, where that is known.
    pub help: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}:{}: {}",
            self.file, self.line, self.column, self.message
        )?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

/// Reads and checks an identity file; see [`Issuers::parse`].
pub(super) fn read(file: &str, text: &str) -> Result<(Issuers, Vec<Finding>), Vec<Finding>> {
    let mut report = Report {
        file,
        findings: Vec::new(),
    };
    let text = end_alias_keys(text);
    let issuers = match parse(&text) {
        Ok(raw) => {
            let entries = raw.ci_metadata.as_ref();
            let providers = entries.map(|entries| Providers::read(entries, &text, &mut report));
            let checker = Checker {
                providers: providers.unwrap_or_default(),
                report: &mut report,
                ids: HashSet::new(),
            };
            Some(checker.check(raw))
        }
        Err((place, message)) => {
            report.error(place, message, None);
            None
        }
    };
    let mut findings = report.findings;
    findings.sort_by_key(|finding| (finding.line, finding.column, finding.severity));
    let has_errors = findings
        .iter()
        .any(|finding| finding.severity == Severity::Error);
    match issuers {
        Some(issuers) if !has_errors => Ok((issuers, findings)),
        Some(_) | None => Err(findings),
    }
}

/// Collects findings.
struct Report<'a> {
    file: &'a str,
    findings: Vec<Finding>,
}

impl Report<'_> {
    fn error(&mut self, place: Place, message: impl Into<String>, help: Option<String>) {
        self.add(Severity::Error, place, message.into(), help);
    }

    fn warning(&mut self, place: Place, message: impl Into<String>, help: Option<String>) {
        self.add(Severity::Warning, place, message.into(), help);
    }

    fn add(&mut self, severity: Severity, place: Place, message: String, help: Option<String>) {
        self.findings.push(Finding {
            file: self.file.to_owned(),
            line: place.line,
            column: place.column,
            severity,
            message,
            help,
        });
    }
}

/// A line and a column, both from 1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Place {
    line: u64,
    column: u64,
}

impl Place {
    const START: Self = Self { line: 1, column: 1 };
}

impl From<Location> for Place {
    /// A location that the reader of YAML does not know has line 0.
    fn from(location: Location) -> Self {
        Self {
            line: location.line().max(1),
            column: location.column().max(1),
        }
    }
}

// The raw file.

type Text = Spanned<String>;

/// A key that has no meaning where it stands.
#[derive(Debug)]
struct UnknownKey {
    key: Text,
    known: &'static [&'static str],
}

/// Defines a mapping with optional fields, each in its YAML and its JSON spelling, that keeps the keys it does not know
/// in `unknown` instead of failing at the first.
macro_rules! mapping {
    ($(#[$doc:meta])* struct $name:ident { $($field:ident: $type:ty = $yaml:literal | $json:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Default)]
        struct $name {
            $($field: Option<$type>,)+
            unknown: Vec<UnknownKey>,
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct FieldVisitor;

                impl<'de> Visitor<'de> for FieldVisitor {
                    type Value = $name;

                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("a mapping")
                    }

                    fn visit_unit<E: serde::de::Error>(self) -> Result<$name, E> {
                        Ok($name::default())
                    }

                    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<$name, A::Error> {
                        let mut mapping = $name::default();
                        while let Some(key) = members.next_key::<Text>()? {
                            match key.value.as_str() {
                                $($yaml | $json => {
                                    if mapping.$field.is_some() {
                                        return Err(serde::de::Error::duplicate_field($yaml));
                                    }
                                    mapping.$field = members.next_value()?;
                                })+
                                _ => {
                                    members.next_value::<IgnoredAny>()?;
                                    mapping.unknown.push(UnknownKey { key, known: &[$($yaml, $json),+] });
                                }
                            }
                        }
                        Ok(mapping)
                    }
                }

                deserializer.deserialize_any(FieldVisitor)
            }
        }
    };
}

mapping! {
    struct RawFile {
        issuers: Entries<RawIssuer> = "oidc-issuers" | "OIDCIssuers",
        meta_issuers: Entries<RawIssuer> = "meta-issuers" | "MetaIssuers",
        ci_metadata: Entries<RawMetadata> = "ci-issuer-metadata" | "CIIssuerMetadata",
        define: IgnoredAny = "define" | "Define",
    }
}

mapping! {
    struct RawIssuer {
        id: Text = "id" | "ID",
        issuer_url: Text = "issuer-url" | "IssuerURL",
        client_id: Text = "client-id" | "ClientID",
        issuer_type: Text = "type" | "Type",
        ci_provider: Text = "ci-provider" | "CIProvider",
        issuer_claim: Text = "issuer-claim" | "IssuerClaim",
        subject_domain: Text = "subject-domain" | "SubjectDomain",
        spiffe_trust_domain: Text = "spiffe-trust-domain" | "SPIFFETrustDomain",
        challenge_claim: Text = "challenge-claim" | "ChallengeClaim",
        description: Text = "description" | "Description",
        contact: Text = "contact" | "Contact",
        environment: Text = "environment" | "Environment",
        ca_cert: Text = "ca-cert" | "CACert",
        skip_email_verification: Spanned<bool> = "skip-email-verification" | "SkipEmailVerification",
    }
}

mapping! {
    /// A build service of `ci-provider` issuers.
    struct RawMetadata {
        defaults: Entries<Option<Text>> = "default-template-values" | "DefaultTemplateValues",
        extensions: Entries<Option<Text>> = "extension-templates" | "ExtensionTemplates",
        claim_patterns: Entries<Text> = "claim-patterns" | "ClaimPatterns",
        subject_alternative_name: Text = "subject-alternative-name-template" | "SubjectAlternativeNameTemplate",
    }
}

/// The members of a mapping with free keys, in their order.
#[derive(Debug)]
struct Entries<T>(Vec<(Text, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntriesVisitor<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for EntriesVisitor<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Entries<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(key) = members.next_key()? {
                    entries.push((key, members.next_value()?));
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(EntriesVisitor(std::marker::PhantomData))
    }
}

/// Reads the text into its raw form.
fn parse(text: &str) -> Result<RawFile, (Place, String)> {
    if text.len() > MAX_OCTETS {
        return Err((
            Place::START,
            format!("the file is larger than {MAX_OCTETS} octets"),
        ));
    }
    let options = serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_ALIASED_EVENTS,
        },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let place = error.location().map_or(Place::START, Place::from);
        if let serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } = &error {
            return (place, format!("the key `{key}` stands twice"));
        }
        // The place is reported apart from the message.
        let message = error.to_string();
        let message = message
            .split_once(" at line ")
            .map_or(message.as_str(), |(message, _)| message);
        (place, message.to_owned())
    })
}

/// Puts a space before the colon of every key that is an alias, such as `*github-type:`.
///
/// Sigstore's own files are written so, for a reader that ends an alias there; YAML 1.2 (section 6.9.2) makes the colon a
/// part of its name.
fn end_alias_keys(text: &str) -> Cow<'_, str> {
    let end_of_alias = |line: &str| {
        let alias = line.trim_start().strip_prefix('*')?;
        let (name, rest) = alias.split_once(':')?;
        let is_name = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_';
        let is_key =
            name.bytes().all(is_name) && (rest.is_empty() || rest.starts_with(char::is_whitespace));
        (is_key && text.contains(&format!("&{name}"))).then(|| line.len() - rest.len() - 1)
    };
    if !text.lines().any(|line| end_of_alias(line).is_some()) {
        return Cow::Borrowed(text);
    }
    let mut ended = String::with_capacity(text.len() + 64);
    for line in text.split_inclusive('\n') {
        let (key, rest) = end_of_alias(line)
            .and_then(|end| line.split_at_checked(end))
            .unwrap_or((line, ""));
        ended.push_str(key);
        if !rest.is_empty() {
            ended.push(' ');
        }
        ended.push_str(rest);
    }
    Cow::Owned(ended)
}

// The checks.

/// Turns the raw file into issuers and reports everything that is wrong.
struct Checker<'a, 'f> {
    report: &'a mut Report<'f>,
    providers: Providers,
    ids: HashSet<String>,
}

/// Where an entry stands and what it is about, while it is checked.
struct Entry<'a> {
    raw: &'a RawIssuer,
    place: Place,
    /// The issuer's URL or pattern.
    url: &'a str,
}

impl Checker<'_, '_> {
    fn check(mut self, file: RawFile) -> Issuers {
        self.unknown_keys(&file.unknown);
        let issuers = file.issuers.map_or_else(Vec::new, |entries| entries.0);
        let meta_issuers = file.meta_issuers.map_or_else(Vec::new, |entries| entries.0);
        for (_, metadata) in file.ci_metadata.iter().flat_map(|entries| &entries.0) {
            self.unknown_keys(&metadata.unknown);
        }
        if issuers.is_empty() && meta_issuers.is_empty() {
            let help = "list at least one under oidc-issuers".to_owned();
            self.report
                .error(Place::START, "the file configures no issuer", Some(help));
        }
        for (_, issuer) in issuers.iter().chain(&meta_issuers) {
            self.unknown_keys(&issuer.unknown);
            self.given_id(issuer);
        }
        let exact = issuers
            .iter()
            .filter_map(|(key, raw)| self.exact(key, raw))
            .collect();
        let wildcards: Vec<_> = meta_issuers
            .iter()
            .filter_map(|(key, raw)| self.wildcard(key, raw))
            .collect();
        self.overlaps(&wildcards);
        self.providers.report_unused(self.report);
        let wildcards = wildcards
            .into_iter()
            .map(|(_, pattern, issuer)| (pattern, issuer));
        Issuers::new(exact, wildcards.collect())
    }

    fn unknown_keys(&mut self, unknown: &[UnknownKey]) {
        for UnknownKey { key, known } in unknown {
            // JSON's names begin with capitals, YAML's do not.
            let is_json = key.value.starts_with(char::is_uppercase);
            let known = known
                .iter()
                .copied()
                .filter(|name| name.starts_with(char::is_uppercase) == is_json);
            let help = match closest(&key.value, known) {
                Some(name) => format!("did you mean `{name}`?"),
                None => {
                    "expected one of the keys of Fulcio's format; anchors can stand under `define`"
                        .to_owned()
                }
            };
            self.report.error(
                place(key),
                format!("unknown key {}", Excerpt::new(&key.value)),
                Some(help),
            );
        }
    }

    /// Ids that are written out come before those that are made up, which keep out of their way.
    fn given_id(&mut self, issuer: &RawIssuer) {
        let Some(id) = &issuer.id else { return };
        let is_allowed = |octet: u8| {
            octet.is_ascii_lowercase() || octet.is_ascii_digit() || b"._-".contains(&octet)
        };
        if !(1..=64).contains(&id.value.len()) || !id.value.bytes().all(is_allowed) {
            let help = "expected 1 to 64 of a-z, 0-9, . _ -".to_owned();
            self.report
                .error(place(id), "the id cannot be used", Some(help));
        } else if !self.ids.insert(id.value.clone()) {
            self.report.error(
                place(id),
                format!("the id `{}` stands twice", id.value),
                None,
            );
        }
    }

    fn exact(&mut self, key: &Text, raw: &RawIssuer) -> Option<Issuer> {
        let Some(url) = &raw.issuer_url else {
            let help = format!("add issuer-url: {}", key.value);
            self.report
                .error(place(key), "the entry has no issuer-url", Some(help));
            return None;
        };
        if url.value != key.value {
            let help = "the key and issuer-url must be equal, octet for octet".to_owned();
            self.report.error(
                place(url),
                format!(
                    "issuer-url differs from the key {}",
                    Excerpt::new(&key.value)
                ),
                Some(help),
            );
        }
        match check_issuer_url(&url.value) {
            Ok(parsed) if parsed.scheme() == "http" && !is_loopback(&parsed) => {
                let help =
                    "whoever can change its answers can sign for every one of its users".to_owned();
                self.report.warning(
                    place(url),
                    "the issuer's keys are fetched over http",
                    Some(help),
                );
            }
            Ok(_) => {}
            Err(why) => self.report.error(
                place(url),
                format!("issuer-url cannot be used: {why}"),
                None,
            ),
        }
        let entry = Entry {
            raw,
            place: place(key),
            url: &url.value,
        };
        self.issuer(&entry, |id, roots| {
            KeyEndpoint::exact(id, url.value.clone(), roots)
        })
    }

    fn wildcard(&mut self, key: &Text, raw: &RawIssuer) -> Option<(Place, Pattern, Issuer)> {
        if let Some(url) = raw.issuer_url.as_ref().filter(|url| url.value != key.value) {
            self.report.error(
                place(url),
                "issuer-url differs from the entry's key",
                Some("leave it out here".to_owned()),
            );
        }
        let pattern = Pattern::parse(&key.value);
        if let Err(why) = &pattern {
            self.report.error(
                place(key),
                format!("the pattern cannot be used: {why}"),
                None,
            );
        }
        let entry = Entry {
            raw,
            place: place(key),
            url: &key.value,
        };
        let issuer = self.issuer(&entry, |id, roots| {
            KeyEndpoint::wildcard(id, key.value.clone(), roots)
        });
        Some((entry.place, pattern.ok()?, issuer?))
    }

    /// Which of two patterns counts must not depend on their order in the file.
    fn overlaps(&mut self, wildcards: &[(Place, Pattern, Issuer)]) {
        for (index, (place, pattern, _)) in wildcards.iter().enumerate() {
            let is_tie = |(_, other, _): &&(Place, Pattern, Issuer)| {
                other.literal_characters() == pattern.literal_characters()
                    && other.overlaps(pattern)
            };
            if let Some((_, other, _)) = wildcards.iter().take(index).find(is_tie) {
                let help = "of patterns that match one URL, one must have more literal characters"
                    .to_owned();
                self.report.error(
                    *place,
                    format!("the pattern matches the same URLs as {other}"),
                    Some(help),
                );
            }
        }
    }

    /// Checks what exact entries and patterns have in common.
    fn issuer(
        &mut self,
        entry: &Entry<'_>,
        endpoint: impl Fn(Arc<str>, Option<Arc<ExtraRoots>>) -> KeyEndpoint,
    ) -> Option<Issuer> {
        let rule = self.rule(entry);
        let audience = self.audience(entry);
        let roots = match entry
            .raw
            .ca_cert
            .as_ref()
            .map(|pem| (pem, ExtraRoots::parse(&pem.value)))
        {
            None => None,
            Some((_, Ok(roots))) => Some(Arc::new(roots)),
            Some((pem, Err(why))) => {
                self.report.error(
                    place(pem),
                    format!("ca-cert cannot be used: it is {why}"),
                    None,
                );
                None
            }
        };
        let id: Arc<str> = match &entry.raw.id {
            Some(id) => id.value.clone().into(),
            None => self.made_up_id(entry.url).into(),
        };
        Some(Issuer {
            endpoint: Arc::new(endpoint(Arc::clone(&id), roots)),
            id,
            audiences: vec![audience?],
            rule: rule?,
            access: ClaimRules::default(),
            tokens: TokenLimits::default(),
            disabled: false,
            expires: None,
        })
    }

    fn audience(&mut self, entry: &Entry<'_>) -> Option<String> {
        let audience = entry.raw.client_id.as_ref();
        if let Some(audience) = audience.filter(|audience| !audience.value.trim().is_empty()) {
            return Some(audience.value.clone());
        }
        let help = "give the value that tokens have as `aud`, usually sigstore".to_owned();
        self.report.error(
            audience.map_or(entry.place, place),
            "client-id is missing or empty",
            Some(help),
        );
        None
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

    fn rule(&mut self, entry: &Entry<'_>) -> Option<IdentityRule> {
        let raw = entry.raw;
        let Some(issuer_type) = &raw.issuer_type else {
            let help = format!("expected one of {}", SUPPORTED_TYPES.join(", "));
            self.report
                .error(entry.place, "type is missing", Some(help));
            return None;
        };
        let rule = match issuer_type.value.as_str() {
            "email" => self.email_rule(raw),
            "uri" => self.domain_rule(entry, "uri", |domain, issuer| {
                UriRule::new(domain, issuer).map(IdentityRule::Uri)
            }),
            "username" => self.domain_rule(entry, "username", |domain, issuer| {
                UsernameRule::new(domain, issuer).map(IdentityRule::Username)
            }),
            "spiffe" => self.spiffe_rule(entry),
            "ci-provider" => {
                let name = raw.ci_provider.as_ref();
                self.providers.rule(name, entry.place, self.report)
            }
            name => {
                let rule = IdentityRule::plain(name);
                if rule.is_none() {
                    self.unusable_type(issuer_type);
                }
                rule
            }
        }?;
        let is_email = issuer_type.value == "email";
        self.only_for(
            raw.issuer_claim.as_ref().filter(|_| !is_email),
            "issuer-claim",
            "email",
        );
        let is_provider = issuer_type.value == "ci-provider";
        self.only_for(
            raw.ci_provider.as_ref().filter(|_| !is_provider),
            "ci-provider",
            "ci-provider",
        );
        let skip = raw
            .skip_email_verification
            .as_ref()
            .filter(|skip| skip.value);
        if let Some(skip) = skip {
            let help = "whoever can register an address there can sign as its owner".to_owned();
            self.report.warning(
                place(skip),
                "addresses are not verified by the issuer",
                Some(help).filter(|_| is_email),
            );
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
            self.report.warning(place(claim), message, None);
        }
        Some(rule)
    }

    fn unusable_type(&mut self, issuer_type: &Text) {
        let name = issuer_type.value.as_str();
        let message = format!("unknown type {}", Excerpt::new(name));
        let help = match closest(name, SUPPORTED_TYPES) {
            Some(known) => format!("did you mean `{known}`?"),
            None => format!("expected one of {}", SUPPORTED_TYPES.join(", ")),
        };
        self.report.error(place(issuer_type), message, Some(help));
    }

    fn only_for(&mut self, found: Option<&Text>, key: &str, issuer_type: &str) {
        if let Some(found) = found {
            self.report.error(
                place(found),
                format!("only issuers of type {issuer_type} can have {key}"),
                None,
            );
        }
    }

    fn email_rule(&mut self, raw: &RawIssuer) -> Option<IdentityRule> {
        let issuer_claim = match raw
            .issuer_claim
            .as_ref()
            .map(|text| (text, ClaimPath::parse(&text.value)))
        {
            None => None,
            Some((_, Ok(path))) => Some(path),
            Some((text, Err(why))) => {
                self.report.error(
                    place(text),
                    format!("issuer-claim cannot be used: {why}"),
                    None,
                );
                return None;
            }
        };
        let skip_verification = raw
            .skip_email_verification
            .as_ref()
            .is_some_and(|skip| skip.value);
        Some(IdentityRule::Email(EmailRule {
            issuer_claim,
            skip_verification,
        }))
    }

    /// The rule of a type that needs `subject-domain`.
    fn domain_rule(
        &mut self,
        entry: &Entry<'_>,
        type_name: &str,
        rule: impl Fn(&str, &str) -> Result<IdentityRule, InvalidDomain>,
    ) -> Option<IdentityRule> {
        let Some(domain) = &entry.raw.subject_domain else {
            let scheme = if type_name == "uri" { "https://" } else { "" };
            self.report.error(
                entry.place,
                format!("a {type_name} issuer must have subject-domain"),
                Some(format!("such as {scheme}example.com")),
            );
            return None;
        };
        let refused = |why| {
            let message = format!("subject-domain cannot be used: {why}");
            self.report.error(place(domain), message, None);
        };
        rule(&domain.value, entry.url).map_err(refused).ok()
    }

    fn spiffe_rule(&mut self, entry: &Entry<'_>) -> Option<IdentityRule> {
        if entry.url.contains('*') {
            let message = "a pattern cannot have type spiffe";
            self.report.error(entry.place, message, None);
            return None;
        }
        let Some(domain) = &entry.raw.spiffe_trust_domain else {
            let message = "a spiffe issuer must have spiffe-trust-domain";
            let help = "such as example.com".to_owned();
            self.report.error(entry.place, message, Some(help));
            return None;
        };
        let refused = |why| {
            let message = format!("spiffe-trust-domain cannot be used: {why}");
            self.report.error(place(domain), message, None);
        };
        let rule = SpiffeRule::new(&domain.value).map_err(refused).ok()?;
        Some(IdentityRule::Spiffe(rule))
    }
}

fn place<T>(spanned: &Spanned<T>) -> Place {
    Place::from(spanned.referenced)
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

/// The known name that a text is most likely a misspelling of, letter case aside.
fn closest<'a>(text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let text = text.to_ascii_lowercase();
    let distances = known
        .into_iter()
        .map(|name| (distance(&text, &name.to_ascii_lowercase()), name));
    let (distance, name) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance <= name.len().div_ceil(3)).then_some(name)
}

/// How many characters must be inserted, removed or replaced to make one text of the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (index, character) in from.chars().enumerate() {
        let mut diagonal = index;
        let mut left = index + 1;
        for (cell, other) in row
            .iter_mut()
            .zip(std::iter::once(None).chain(to.chars().map(Some)))
        {
            let above = *cell;
            left = match other {
                None => index + 1,
                Some(other) => (diagonal + usize::from(other != character))
                    .min(above + 1)
                    .min(left + 1),
            };
            diagonal = above;
            *cell = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::IssuerConfiguration;

    /// What is found in a file, one finding a line.
    fn findings(text: &str) -> Vec<String> {
        let findings = match Issuers::parse("id.yaml", text) {
            Ok((_, warnings)) => warnings,
            Err(findings) => findings,
        };
        findings.iter().map(Finding::to_string).collect()
    }

    fn entry_at(url: &str, settings: &str) -> String {
        format!("  {url}:\n    issuer-url: {url}\n    client-id: sigstore\n{settings}")
    }

    fn file(settings: &str) -> String {
        format!("oidc-issuers:\n{}", entry_at("https://a.example", settings))
    }

    const YAML: &str = r#"
define:
  - &type email
oidc-issuers:
  https://b.example/auth:
    issuer-url: https://b.example/auth
    client-id: yes
    type: *type
    issuer-claim: $.federated_claims.connector_id
    contact:
    description: ~
    environment: staging
  https://a.example:
    issuer-url: https://a.example
    client-id: 0123
    type: uri
    subject-domain: https://a.example
    challenge-claim: sub
meta-issuers:
  https://*.tenants.example/:
    client-id: sigstore
    type: github-workflow
ci-issuer-metadata:
  *type:
    default-template-values:
      url: https://github.com
    extension-templates:
      build-signer-uri: "{{ .url }}"
    subject-alternative-name-template: "{{ .url }}"
"#;

    #[test]
    fn a_file_of_fulcio_is_read_as_it_is() {
        let (issuers, warnings) = Issuers::parse("id.yaml", YAML).unwrap();
        let warnings: Vec<_> = warnings.iter().map(Finding::to_string).collect();
        assert_eq!(warnings, ["id.yaml:24:3: no issuer uses the provider"]);
        let row =
            |url: &str, audience: &str, challenge_claim, issuer_type, subject_domain: &str| {
                IssuerConfiguration {
                    url: url.to_owned(),
                    is_wildcard: url.contains('*'),
                    audience: audience.to_owned(),
                    challenge_claim,
                    issuer_type,
                    subject_domain: subject_domain.to_owned(),
                    spiffe_trust_domain: String::new(),
                    skip_email_verification: false,
                }
            };
        assert_eq!(
            issuers.configuration(),
            [
                row(
                    "https://a.example",
                    "0123",
                    "sub",
                    "uri",
                    "https://a.example"
                ),
                row("https://b.example/auth", "yes", "email", "email", ""),
                row(
                    "https://*.tenants.example/",
                    "sigstore",
                    "sub",
                    "github-workflow",
                    ""
                ),
            ]
        );
        let ids: Vec<_> = issuers
            .all()
            .iter()
            .map(|issuer| issuer.id.to_string())
            .collect();
        assert_eq!(ids, ["a.example", "b.example-auth", "x.tenants.example"]);
    }

    #[test]
    fn a_file_in_json_is_read_as_it_is() {
        let text = r#"{
TAB"OIDCIssuers": {
TAB"https://a.example": {
TAB"IssuerURL": "https:\/\/a.example", "ClientID": "sigstore", "Type": "email",
TAB"IssuerClaim": "$.federated_claims.connector_id", "Contact": "a@b.example", "SkipEmailVerification": true
TAB}
TAB},
TAB"MetaIssuers": { "https://*.b.example/": { "ClientID": "sigstore", "Type": "github-workflow" } },
TAB"CIIssuerMetadata": { "x": { "SubjectAlternativeNameTemplate": "", "ExtensionTemplates": { "BuildTrigger": "x" } } }
}"#;
        let (issuers, warnings) = Issuers::parse("id.json", &text.replace("TAB", "\t")).unwrap();
        assert!(issuers.lookup("https://a.example").is_some());
        assert!(issuers.lookup("https://x.b.example/").is_some());
        assert_eq!(warnings.len(), 2);
    }

    #[test]
    fn everything_that_is_wrong_is_found_at_once_with_its_place() {
        let text = "
oidc-issuer:
  x: y
oidc-issuers:
  https://a.example:
    issuer-url: https://b.example
    clientid: sigstore
    type: emial
  https://c.example/?x:
    issuer-url: https://c.example/?x
    client-id: ' '
    type: ''
  https://d.example:
    type: github-workflow
    issuer-claim: $.x
meta-issuers:
  https://*.com/:
    client-id: sigstore
    type: email
    ca-cert: none
";
        assert_eq!(
            findings(text),
            [
                "id.yaml:2:1: unknown key \"oidc-issuer\" (did you mean `oidc-issuers`?)",
                "id.yaml:5:3: client-id is missing or empty (give the value that tokens have as `aud`, usually sigstore)",
                "id.yaml:6:17: issuer-url differs from the key \"https://a.example\" (the key and issuer-url must be equal, octet for octet)",
                "id.yaml:7:5: unknown key \"clientid\" (did you mean `client-id`?)",
                "id.yaml:8:11: unknown type \"emial\" (did you mean `email`?)",
                "id.yaml:10:17: issuer-url cannot be used: it has a user name, a query or a fragment",
                "id.yaml:11:16: client-id is missing or empty (give the value that tokens have as `aud`, usually sigstore)",
                "id.yaml:12:11: unknown type \"\" (expected one of buildkite-job, chainguard-identity, ci-provider, codefresh-workflow, email, github-workflow, gitlab-pipeline, kubernetes, spiffe, uri, username)",
                "id.yaml:13:3: the entry has no issuer-url (add issuer-url: https://d.example)",
                "id.yaml:17:3: the pattern cannot be used: the last two labels of the host, and the port, must be written out",
                "id.yaml:20:14: ca-cert cannot be used: it is not one or more PEM blocks of type CERTIFICATE",
            ]
        );
    }

    #[test]
    fn texts_that_are_not_an_identity_file_are_refused_with_their_place() {
        let nothing =
            "id.yaml:1:1: the file configures no issuer (list at least one under oidc-issuers)";
        let twice = format!(
            "{}{}",
            file("    type: email\n"),
            entry_at("https://a.example", "    type: email\n")
        );
        for (text, finding) in [
            ("", nothing),
            ("# nothing\n", nothing),
            ("oidc-issuers: {}\n", nothing),
            (
                "- a\n",
                "id.yaml:1:1: invalid type: sequence, expected a mapping",
            ),
            (
                "oidc-issuers:\n\tx: y\n",
                "id.yaml:2:2: tabs disallowed within this context (block indentation)",
            ),
            (
                &file("    type: [email]\n"),
                "id.yaml:5:11: expected string scalar",
            ),
            (
                &file("    type: email\n    type: uri\n"),
                "id.yaml:6:5: the key `type` stands twice",
            ),
            (
                &file("    type: email\n    Type: uri\n"),
                "id.yaml:3:5: duplicate field `type`",
            ),
            (
                &file("    type: email\n    skip-email-verification: yes\n"),
                "id.yaml:6:30: invalid boolean (strict mode expects true/false)",
            ),
            (
                &twice,
                "id.yaml:6:3: the key `https://a.example` stands twice",
            ),
        ] {
            assert_eq!(findings(text), [finding]);
        }
        let level = |level: usize| match level.checked_sub(1) {
            None => format!("- &a{level} [x]\n"),
            Some(below) => format!(
                "- &a{level} [{}]\n",
                vec![format!("*a{below}"); 9].join(", ")
            ),
        };
        let bomb: String = (0..30).map(level).collect();
        assert!(findings(&format!("define:\n{bomb}"))[0].contains("alias replay limit"));
        assert_eq!(
            findings(&" ".repeat(MAX_OCTETS + 1)),
            ["id.yaml:1:1: the file is larger than 4194304 octets"]
        );
    }

    #[test]
    fn urls_of_issuers_have_one_form() {
        let found = |url: &str| {
            findings(&format!(
                "oidc-issuers:\n{}",
                entry_at(url, "    type: email\n")
            ))
        };
        for url in [
            "https://a.example",
            "https://a.example/",
            "https://a.example:8443/x",
            "http://127.0.0.1:5555/dev",
            "http://[::1]/",
        ] {
            assert_eq!(found(url), [""; 0], "{url}");
        }
        for url in [
            "ftp://a.example",
            "a.example",
            "https:a.example",
            "https:/a.example",
            "https://",
            "https://u@a.example",
            "https://u:p@a.example",
            "https://@a.example",
            "https://a.example?",
            "https://a.example?x=y",
            "https://a.example\\x",
            "https://*.a.example/",
        ] {
            let found = found(url);
            assert!(
                found.len() == 1 && found[0].contains("issuer-url cannot be used"),
                "{url}: {found:?}"
            );
        }
    }

    #[test]
    fn settings_that_weaken_the_server_are_pointed_out() {
        let settings =
            "    type: email\n    skip-email-verification: true\n    challenge-claim: sub\n";
        assert_eq!(
            findings(&format!(
                "oidc-issuers:\n{}",
                entry_at("http://a.example", settings)
            )),
            [
                "id.yaml:3:17: the issuer's keys are fetched over http (whoever can change its answers can sign for every one of its users)",
                "id.yaml:6:30: addresses are not verified by the issuer (whoever can register an address there can sign as its owner)",
                "id.yaml:7:22: challenge-claim has no effect: type email uses `email`",
            ]
        );
    }

    #[test]
    fn settings_of_other_types_are_refused() {
        let settings = "    type: uri\n    subject-domain: https://a.example\n    issuer-claim: $.x\n    ci-provider: y\n";
        assert_eq!(
            findings(&file(settings)),
            [
                "id.yaml:7:19: only issuers of type email can have issuer-claim",
                "id.yaml:8:18: only issuers of type ci-provider can have ci-provider",
            ]
        );
        assert_eq!(
            findings(&file(
                "    type: email\n    issuer-claim: federated_claims.connector_id\n"
            )),
            [
                "id.yaml:6:19: issuer-claim cannot be used: expected $ and one or more names, such as $.federated_claims.connector_id"
            ]
        );
    }

    #[test]
    fn types_need_the_domain_of_their_subjects() {
        for (settings, finding) in [
            (
                "    type: uri\n",
                "2:3: a uri issuer must have subject-domain (such as https://example.com)",
            ),
            (
                "    type: username\n",
                "2:3: a username issuer must have subject-domain (such as example.com)",
            ),
            (
                "    type: spiffe\n",
                "2:3: a spiffe issuer must have spiffe-trust-domain (such as example.com)",
            ),
            (
                "    type: uri\n    subject-domain: a.example\n",
                "6:21: subject-domain cannot be used: it has no scheme; expected scheme and host, such as https://example.com",
            ),
            (
                "    type: username\n    subject-domain: b.example\n",
                "6:21: subject-domain cannot be used: its host b.example is neither that of the issuer, a.example, nor in the same domain",
            ),
            (
                "    type: spiffe\n    spiffe-trust-domain: A\n",
                "6:26: spiffe-trust-domain cannot be used: expected the name of a trust domain: 1 to 255 of a-z, 0-9, . - _",
            ),
        ] {
            assert_eq!(findings(&file(settings)), [format!("id.yaml:{finding}")]);
        }
        let wildcard = "meta-issuers:\n  https://*.a.example/:\n    client-id: x\n    type: spiffe\n    spiffe-trust-domain: a\n";
        assert_eq!(
            findings(wildcard),
            ["id.yaml:2:3: a pattern cannot have type spiffe"]
        );
    }

    #[test]
    fn ids_are_unique() {
        let two = |first: &str, second: &str| {
            let first = entry_at("https://a.example/x/", &format!("    type: email\n{first}"));
            let second = entry_at("https://a.example/x", &format!("    type: email\n{second}"));
            format!("oidc-issuers:\n{first}{second}")
        };
        let ids = |text: &str| {
            let (issuers, _) = Issuers::parse("id.yaml", text).unwrap();
            let id = |url: &str| issuers.lookup(url).unwrap().issuer.id.to_string();
            [id("https://a.example/x/"), id("https://a.example/x")]
        };
        assert_eq!(ids(&two("", "")), ["a.example-x", "a.example-x-2"]);
        assert_eq!(
            ids(&two("", "    id: a.example-x\n")),
            ["a.example-x-2", "a.example-x"]
        );
        assert_eq!(
            findings(&two("    id: x\n", "    id: x\n")),
            ["id.yaml:11:9: the id `x` stands twice"]
        );
        assert_eq!(
            findings(&two("    id: X y\n", "")),
            ["id.yaml:6:9: the id cannot be used (expected 1 to 64 of a-z, 0-9, . _ -)"]
        );
    }

    #[test]
    fn patterns_that_could_both_match_are_refused_unless_one_is_more_specific() {
        let file = |patterns: [&str; 2]| {
            let entries = patterns
                .map(|pattern| format!("  {pattern}:\n    client-id: x\n    type: email\n"));
            format!("meta-issuers:\n{}", entries.concat())
        };
        assert_eq!(
            findings(&file([
                "https://*.idp.example/a",
                "https://b.idp.example/*"
            ])),
            [
                "id.yaml:5:3: the pattern matches the same URLs as https://*.idp.example/a (of patterns that match one URL, one must have more literal characters)"
            ]
        );
        let text = file(["https://*.idp.example/*", "https://*.idp.example/a-*"]);
        let (issuers, _) = Issuers::parse("id.yaml", &text).unwrap();
        let pattern_of = |iss: &str| {
            issuers
                .lookup(iss)
                .map(|found| found.issuer.endpoint.issuer.clone())
        };
        assert_eq!(
            pattern_of("https://x.idp.example/a-1").as_deref(),
            Some("https://*.idp.example/a-*")
        );
        assert_eq!(
            pattern_of("https://x.idp.example/b-1").as_deref(),
            Some("https://*.idp.example/*")
        );
        assert_eq!(pattern_of("https://x.idp.example/"), None);
    }

    #[test]
    fn an_exact_entry_comes_before_a_pattern() {
        let exact = file("    type: email\n");
        let text = format!(
            "meta-issuers:\n  https://a.*.example.org:\n    client-id: x\n    type: email\n{exact}"
        );
        let text = text
            .replace("https://a.example:", "https://a.b.example.org:")
            .replace("https://a.example\n", "https://a.b.example.org\n");
        let (issuers, _) = Issuers::parse("id.yaml", &text).unwrap();
        assert_eq!(
            issuers
                .lookup("https://a.b.example.org")
                .unwrap()
                .issuer
                .audiences,
            ["sigstore"]
        );
        assert_eq!(
            issuers
                .lookup("https://a.c.example.org")
                .unwrap()
                .issuer
                .audiences,
            ["x"]
        );
    }
}
