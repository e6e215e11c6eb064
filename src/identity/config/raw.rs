//! The identity file as it is written: every key of it, each value with its place.
//!
//! Every scalar has a typed field, so that no reader of YAML can take `no` or `0123` for something else than another one does;
//! those of claim rules are read with as few types as YAML has.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, DeserializeOwned, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_saphyr::Spanned;

use super::finding::Place;
use crate::identity::rules::RawRules;

/// The most scalars, and beginnings and ends of collections, that all aliases of a file stand for together: a few for each
/// of thousands of issuers. Aliases of aliases could make a line stand for gigabytes.
const MAX_ALIASED_EVENTS: usize = 100_000;

/// How deep a file may nest, which claim rules do by nine levels.
const MAX_DEPTH: usize = 32;

pub(super) type Text = Spanned<String>;

/// A key that has no meaning where it stands.
#[derive(Clone, Debug)]
pub(super) struct UnknownKey {
    pub(super) key: Text,
    pub(super) known: &'static [&'static str],
}

/// Defines a mapping with optional fields, each in its YAML and its JSON spelling, that keeps the keys it does not know
/// in `unknown` instead of failing at the first.
macro_rules! mapping {
    ($(#[$doc:meta])* struct $name:ident { $($field:ident: $type:ty = $yaml:literal | $json:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default)]
        pub(super) struct $name {
            $(pub(super) $field: Option<$type>,)+
            pub(super) unknown: Vec<UnknownKey>,
        }

        impl $name {
            /// Its keys, in both spellings.
            pub(super) const KEYS: &'static [&'static str] = &[$($yaml, $json),+];
            /// Its keys: as YAML has them, and as JSON does.
            pub(super) const SPELLINGS: &'static [(&'static str, &'static str)] = &[$(($yaml, $json)),+];
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
                                    mapping.unknown.push(UnknownKey { key, known: $name::KEYS });
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
        version: Spanned<u64> = "version" | "Version",
        issuers: Entries<RawIssuer> = "oidc-issuers" | "OIDCIssuers",
        meta_issuers: Entries<RawIssuer> = "meta-issuers" | "MetaIssuers",
        ci_metadata: Entries<RawMetadata> = "ci-issuer-metadata" | "CIIssuerMetadata",
        define: IgnoredAny = "define" | "Define",
    }
}

mapping! {
    /// An entry of `oidc-issuers` or `meta-issuers`. The keys up to the blank line are Fulcio's.
    struct RawIssuer {
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

        id: Text = "id" | "ID",
        client_ids: Vec<Text> = "client-ids" | "ClientIDs",
        preset: Text = "preset" | "Preset",
        max_token_age: Text = "max-token-age" | "MaxTokenAge",
        clock_skew: Text = "clock-skew" | "ClockSkew",
        algorithms: Vec<Text> = "algorithms" | "Algorithms",
        jwks_uri: Text = "jwks-uri" | "JWKSURI",
        jwks_file: Text = "jwks-file" | "JWKSFile",
        token_file: Text = "token-file" | "TokenFile",
        rate: Text = "rate" | "Rate",
        allow: RawRules = "allow" | "Allow",
        deny: RawRules = "deny" | "Deny",
        disabled: Spanned<bool> = "disabled" | "Disabled",
        expires: Text = "expires" | "Expires",
    }
}

mapping! {
    /// The templates that `ci-provider` issuers share.
    struct RawMetadata {
        defaults: Entries<Option<Text>> = "default-template-values" | "DefaultTemplateValues",
        extensions: Entries<Option<Text>> = "extension-templates" | "ExtensionTemplates",
        subject_alternative_name: Text = "subject-alternative-name-template" | "SubjectAlternativeNameTemplate",
        claim_patterns: Entries<Text> = "claim-patterns" | "ClaimPatterns",
    }
}

/// The members of a mapping with free keys, in their order.
#[derive(Clone, Debug)]
pub(super) struct Entries<T>(pub(super) Vec<(Text, T)>);

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

/// Reads the text of the file with this index: a [`RawFile`], or what else it may be.
///
/// # Errors
/// What the reader of YAML says, and whether it is about a key that stands twice.
pub(super) fn parse<T: DeserializeOwned>(file: usize, text: &str) -> Result<T, Unreadable> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
        },
        with_snippet: false,
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_ALIASED_EVENTS,
        },
    };
    serde_saphyr::from_str_with_options(&end_alias_keys(text), options).map_err(|error| {
        let place = error
            .location()
            .map_or_else(|| Place::start(file), |location| Place::new(file, location));
        if let serde_saphyr::Error::DuplicateMappingKey { key: Some(key), .. } = &error {
            return Unreadable {
                place,
                message: format!("the key `{key}` stands twice"),
                is_duplicate: true,
            };
        }
        // The place is reported apart from the message. One message speaks of the library's functions.
        let message = if let serde_saphyr::Error::MultipleDocuments { .. } = &error {
            "another YAML document begins here: a file has one, and a folder may have several files"
                .to_owned()
        } else {
            error.to_string()
        };
        let message = message
            .split_once(" at line ")
            .map_or(message.as_str(), |(message, _)| message);
        Unreadable {
            place,
            message: message.to_owned(),
            is_duplicate: message.starts_with("duplicate field"),
        }
    })
}

/// Why a text is no identity file.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) place: Place,
    pub(super) message: String,
    /// Whether a key stands twice, rather than the text being malformed.
    pub(super) is_duplicate: bool,
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
