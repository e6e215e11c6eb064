//! The identity file: which issuers are trusted, in Fulcio's format, with a place for everything that is wrong with it.
//!
//! YAML in kebab case and JSON in camel case are read as they are. Every scalar has a typed field, so that no reader of
//! YAML can take `no` or `0123` for something else than another one does.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_saphyr::{Location, Spanned};
use url::Url;

use super::claims::{ClaimPath, EmailRule, IdentityRule, SUPPORTED_TYPES, UriRule};
use super::excerpt::Excerpt;
use super::issuers::{Issuer, Issuers, Pattern};
use super::jwks::KeyEndpoint;
use crate::fetch::ExtraRoots;

/// The longest identity file, in octets.
const MAX_OCTETS: usize = 4 * 1024 * 1024;

/// Every type that Fulcio knows.
const KNOWN_TYPES: [&str; 11] = [
    "buildkite-job",
    "chainguard-identity",
    "ci-provider",
    "codefresh-workflow",
    "email",
    "github-workflow",
    "gitlab-pipeline",
    "kubernetes",
    "spiffe",
    "uri",
    "username",
];

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
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        match &self.help {
            Some(help) => write!(f, " ({help})"),
            None => Ok(()),
        }
    }
}

/// Reads and checks an identity file; see [`Issuers::parse`].
pub(super) fn read(file: &str, text: &str) -> Result<(Issuers, Vec<Finding>), Vec<Finding>> {
    let mut report = Report { file, findings: Vec::new() };
    let issuers = match parse(text) {
        Ok(raw) => Checker { report: &mut report, ids: HashMap::new() }.check(raw),
        Err((place, message)) => {
            report.error(place, message, None);
            None
        }
    };
    let mut findings = report.findings;
    findings.sort_by_key(|finding| (finding.line, finding.column, finding.severity));
    let has_errors = findings.iter().any(|finding| finding.severity == Severity::Error);
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
    /// Templates of `ci-provider` issuers. Their contents are not looked at: no such issuer can be configured yet.
    struct RawMetadata {
        defaults: BTreeMap<String, String> = "default-template-values" | "DefaultTemplateValues",
        extensions: BTreeMap<String, String> = "extension-templates" | "ExtensionTemplates",
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
        return Err((Place::START, format!("the file is larger than {MAX_OCTETS} octets")));
    }
    let options = serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let place = error.location().map_or(Place::START, Place::from);
        (place, error.to_string())
    })
}

// The checks.

/// Turns the raw file into issuers and reports everything that is wrong.
struct Checker<'a, 'f> {
    report: &'a mut Report<'f>,
    /// The ids given so far.
    ids: HashMap<Arc<str>, ()>,
}

impl Checker<'_, '_> {
    fn check(&mut self, raw: RawFile) -> Option<Issuers> {
        let _ = raw;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn try_it() {
        for text in [
            "oidc-issuers:\n  https://a.example:\n    issuer-url: https://a.example\n    client-id: yes\n    tipe: email\n",
            "oidc-issuers:\n  https://a.example:\n    issuer-url: [1]\n",
            "oidc-issuers:\n  https://a.example:\n    client-id: 0123\n    client-id: b\n",
            "oidc-issuers:\n  https://a.example:\n    client-id: 0123\n    contact:\n    description: ~\n    skip-email-verification: yes\n",
            "oidc-issuers:\n  https://a.example:\n    client-id: x\n    ClientID: 1\n",
            "{\n\t\"OIDCIssuers\": {\n\t\t\"https://a.example\": {\"IssuerURL\": \"https:\\/\\/a.example\",\n\t\t\t\"ClientID\": \"\\ud83d\\ude00\",\n\t\t\t\"SkipEmailVerification\": true}}}",
            "",
            "# nothing\n",
            "oidc-issuers:\n",
            "oidc-issuers: {}\n",
            "- a\n",
            "define:\n  - &t \"email\"\nbase: &base\n  client-id: z\noidc-issuers:\n  https://a.example:\n    <<: *base\n    type: *t\n",
            "oidc-issuers:\n\tx: y\n",
            "a: &a [x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e]\ndefine: [*f,*f,*f,*f]",
        ] {
            match parse(text) {
                Ok(raw) => println!("{raw:?}\n"),
                Err((p, m)) => println!("ERR {p:?} {m}\n"),
            }
        }
    }
}
