//! What an identity looks like inside a certificate: the subject alternative name and the Sigstore extensions.
//!
//! One row of a table per extension; the order of the rows is the order in the certificate.

use x509_parser::prelude::GeneralName;

use crate::excerpt::Excerpt;
use crate::hex::hex;
use crate::identity::ci_provider::Purpose;
use crate::identity::{BuildFact, Identity, San};
use crate::reason::Reason;
use crate::x509::der::{self, tag};

/// The arc below which Sigstore's extensions are.
pub const ARC: &str = "1.3.6.1.4.1.57264.1";
/// Tag of `otherName` in a GeneralName, and of the value inside it.
const OTHER_NAME: u8 = 0xa0;
/// The number of the extension that is none: below the same arc, it is the type of Sigstore's `otherName`.
const USER_NAME: u8 = 7;
/// Tag of `rfc822Name` in a GeneralName (RFC 5280, section 4.2.1.6).
const RFC822_NAME: u8 = 0x81;
/// Tag of `uniformResourceIdentifier` in a GeneralName.
const URI: u8 = 0x86;

/// How many octets the values of a certificate's name and Sigstore extensions may have together. The certificate then stays
/// below 16 KiB with the longest key, chain and timestamp; those of real identities have two.
pub const MAX_IDENTITY_OCTETS: usize = 14 * 1024;

/// Why an identity cannot be written into a certificate.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EncodingError {
    /// The name for the certificate is not ASCII, or has control characters; the name. The text is Fulcio's.
    #[error("x509: {0} cannot be encoded as an IA5String")]
    NotAscii(Excerpt),
    /// The identity has no issuer. The text is Fulcio's.
    #[error("extensions must have a non-empty issuer url")]
    NoIssuer,
    /// A value has control characters; the last arc of its extension.
    #[error("the value of extension 1.3.6.1.4.1.57264.1.{0} has control characters")]
    ControlCharacters(u8),
    /// The identity is longer than [`MAX_IDENTITY_OCTETS`]; how long.
    #[error(
        "the identity takes {0} octets in a certificate, expected at most {MAX_IDENTITY_OCTETS}; shorten the claims that it is made of"
    )]
    TooLong(usize),
}

impl EncodingError {
    /// The code that stands for it.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::NotAscii(_) | Self::NoIssuer | Self::ControlCharacters(_) | Self::TooLong(_) => {
                Reason::TemplateError
            }
        }
    }
}

/// A Sigstore extension. None of them is critical.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Extension {
    /// The last arc of the OID, below 1.3.6.1.4.1.57264.1; less than 128.
    pub number: u8,
    /// The content of `extnValue`'s OCTET STRING (RFC 5280, section 4.1).
    pub value: Vec<u8>,
}

impl Extension {
    /// The extension's object identifier, DER.
    #[must_use]
    pub const fn oid_der(&self) -> [u8; 12] {
        oid_der(self.number)
    }
}

/// The object identifier 1.3.6.1.4.1.57264.1.`number`, DER.
const fn oid_der(number: u8) -> [u8; 12] {
    [
        0x06, 0x0a, 0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xbf, 0x30, 0x01, number,
    ]
}

/// What an extension holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Content {
    /// The issuer.
    Issuer,
    /// The subject.
    Subject,
    /// A fact about a build.
    Build(BuildFact),
}

impl Content {
    /// The text; `None` or empty means that the certificate has no such extension.
    fn value(self, identity: &Identity) -> Option<&str> {
        match self {
            Self::Issuer => Some(&identity.issuer),
            Self::Subject => Some(&identity.subject),
            Self::Build(fact) => identity.build.get(fact),
        }
    }

    /// Its name, as the keys of an identity configuration have it, such as `build-signer-uri`.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Issuer => "issuer".to_owned(),
            Self::Subject => "subject".to_owned(),
            Self::Build(fact) => Purpose::Extension(fact).to_string(),
        }
    }
}

/// How an extension's text is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Encoding {
    /// The octets of the text and nothing around them, which is not DER: verifiers read the old extensions so.
    Raw,
    /// A DER UTF8String.
    Utf8String,
}

/// Every extension: last arc, encoding, source. Number 7 is no extension, it marks a kind of name.
const ROWS: [(u8, Encoding, Content); 23] = {
    use BuildFact as Fact;
    use Content::{Build, Issuer, Subject};
    use Encoding::{Raw, Utf8String};
    [
        (1, Raw, Issuer),
        (2, Raw, Build(Fact::GithubWorkflowTrigger)),
        (3, Raw, Build(Fact::GithubWorkflowSha)),
        (4, Raw, Build(Fact::GithubWorkflowName)),
        (5, Raw, Build(Fact::GithubWorkflowRepository)),
        (6, Raw, Build(Fact::GithubWorkflowRef)),
        (8, Utf8String, Issuer),
        (9, Utf8String, Build(Fact::BuildSignerUri)),
        (10, Utf8String, Build(Fact::BuildSignerDigest)),
        (11, Utf8String, Build(Fact::RunnerEnvironment)),
        (12, Utf8String, Build(Fact::SourceRepositoryUri)),
        (13, Utf8String, Build(Fact::SourceRepositoryDigest)),
        (14, Utf8String, Build(Fact::SourceRepositoryRef)),
        (15, Utf8String, Build(Fact::SourceRepositoryIdentifier)),
        (16, Utf8String, Build(Fact::SourceRepositoryOwnerUri)),
        (17, Utf8String, Build(Fact::SourceRepositoryOwnerIdentifier)),
        (18, Utf8String, Build(Fact::BuildConfigUri)),
        (19, Utf8String, Build(Fact::BuildConfigDigest)),
        (20, Utf8String, Build(Fact::BuildTrigger)),
        (21, Utf8String, Build(Fact::RunInvocationUri)),
        (
            22,
            Utf8String,
            Build(Fact::SourceRepositoryVisibilityAtSigning),
        ),
        (23, Utf8String, Build(Fact::DeploymentEnvironment)),
        (24, Utf8String, Subject),
    ]
};

/// Returns the Sigstore extensions of a certificate for `identity`, in the order in which Fulcio writes them.
///
/// # Errors
/// When the identity has no issuer, which verifiers need, or a value has control characters. Claims were checked for them
/// before; this is the last look at what a verifier may show to people.
pub fn encode(identity: &Identity) -> Result<Vec<Extension>, EncodingError> {
    if identity.issuer.is_empty() {
        return Err(EncodingError::NoIssuer);
    }
    ROWS.iter()
        .filter_map(|&(number, encoding, content)| {
            let text = content.value(identity).filter(|text| !text.is_empty())?;
            if text.chars().any(char::is_control) {
                return Some(Err(EncodingError::ControlCharacters(number)));
            }
            let value = match encoding {
                Encoding::Raw => text.as_bytes().to_vec(),
                Encoding::Utf8String => der::encode(tag::UTF8_STRING, &[text.as_bytes()]),
            };
            Some(Ok(Extension { number, value }))
        })
        .collect()
}

/// An extension as people read it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NamedExtension<'a> {
    /// The last arc of the OID, below 1.3.6.1.4.1.57264.1.
    pub number: u8,
    /// What it holds.
    pub content: Content,
    /// The text.
    pub value: &'a str,
}

/// Returns the extensions that [`encode`] writes, in the same order.
pub fn named(identity: &Identity) -> impl Iterator<Item = NamedExtension<'_>> {
    ROWS.iter().filter_map(|&(number, _, content)| {
        let value = content.value(identity).filter(|text| !text.is_empty())?;
        Some(NamedExtension {
            number,
            content,
            value,
        })
    })
}

/// The last arc of a dotted object identifier, if it is one of Sigstore's extensions.
#[must_use]
pub fn number_of(oid: &str) -> Option<u32> {
    oid.strip_prefix(ARC)?.strip_prefix('.')?.parse().ok()
}

/// What the extension with this last arc holds; nothing if there is none such.
#[must_use]
pub fn content_of(number: u32) -> Option<Content> {
    let row = ROWS.iter().find(|row| u32::from(row.0) == number);
    row.map(|&(_, _, content)| content)
}

/// Reads the text in the value of an extension with this last arc. One that is not known is taken for a newer one.
#[must_use]
pub fn text_of(number: u32, value: &[u8]) -> Option<&str> {
    let is_raw = number <= u32::from(USER_NAME);
    let octets = if is_raw { value } else { utf8_string(value)? };
    str::from_utf8(octets).ok()
}

/// A name as people read it: its kind, as [`San`]'s are, and its text.
#[must_use]
pub fn name_of(name: &GeneralName<'_>) -> (&'static str, String) {
    match name {
        GeneralName::RFC822Name(text) => ("email", (*text).to_owned()),
        GeneralName::URI(text) => ("uri", (*text).to_owned()),
        GeneralName::DNSName(text) => ("dns", (*text).to_owned()),
        // Sigstore's user names: `[0] EXPLICIT UTF8String`.
        GeneralName::OtherName(_, value) => {
            let text = der::expect(value, OTHER_NAME)
                .ok()
                .and_then(|(tagged, _)| utf8_string(tagged.content))
                .and_then(|text| str::from_utf8(text).ok());
            let text = text.map_or_else(|| format!("othername:{}", hex(value)), str::to_owned);
            ("other_name", text)
        }
        GeneralName::X400Address(_)
        | GeneralName::DirectoryName(_)
        | GeneralName::EDIPartyName(_)
        | GeneralName::IPAddress(_)
        | GeneralName::RegisteredID(_)
        | GeneralName::Invalid(..) => ("other", name.to_string()),
    }
}

/// The octets of a DER UTF8String with nothing behind it.
fn utf8_string(value: &[u8]) -> Option<&[u8]> {
    match der::expect(value, tag::UTF8_STRING) {
        Ok((text, [])) => Some(text.content),
        _ => None,
    }
}

/// Returns the value of the subject alternative name extension: GeneralNames with one name, DER (RFC 5280, section
/// 4.2.1.6).
///
/// # Errors
/// When the name has control characters, or an address or URI is not ASCII.
pub fn subject_alternative_name(san: &San) -> Result<Vec<u8>, EncodingError> {
    let name = match san {
        San::Email(address) => der::encode(RFC822_NAME, &[ia5(address)?]),
        San::Uri(uri) => der::encode(URI, &[ia5(uri)?]),
        San::OtherName(name) => {
            if name.chars().any(char::is_control) {
                return Err(EncodingError::ControlCharacters(USER_NAME));
            }
            let text = der::encode(tag::UTF8_STRING, &[name.as_bytes()]);
            let value = der::encode(OTHER_NAME, &[&text]);
            der::encode(OTHER_NAME, &[&oid_der(USER_NAME), &value])
        }
    };
    Ok(der::encode(tag::SEQUENCE, &[&name]))
}

/// The octets of a text that is an IA5String without control characters.
fn ia5(text: &str) -> Result<&[u8], EncodingError> {
    if !text.is_ascii() || text.contains(|character: char| character.is_ascii_control()) {
        return Err(EncodingError::NotAscii(Excerpt::new(text)));
    }
    Ok(text.as_bytes())
}

/// Checks that a certificate can carry the value of its name and its Sigstore extensions.
///
/// # Errors
/// [`EncodingError::TooLong`].
pub fn check_length(name: &[u8], extensions: &[Extension]) -> Result<(), EncodingError> {
    let values = extensions.iter().map(|extension| extension.value.len());
    let octets = name.len() + values.sum::<usize>();
    if octets > MAX_IDENTITY_OCTETS {
        return Err(EncodingError::TooLong(octets));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;

    use super::*;
    use crate::dev::oidc::{TestAlgorithm, TestClaims, TestIssuer};
    use crate::identity::config::preset::PRESETS;
    use crate::identity::testing::Bench;
    use crate::identity::{BuildFacts, Issuers};

    /// Every fact, in no order that matters to the certificate.
    const FACTS: [BuildFact; 20] = [
        BuildFact::DeploymentEnvironment,
        BuildFact::BuildTrigger,
        BuildFact::RunInvocationUri,
        BuildFact::SourceRepositoryVisibilityAtSigning,
        BuildFact::GithubWorkflowTrigger,
        BuildFact::GithubWorkflowSha,
        BuildFact::GithubWorkflowName,
        BuildFact::GithubWorkflowRepository,
        BuildFact::GithubWorkflowRef,
        BuildFact::BuildSignerUri,
        BuildFact::BuildSignerDigest,
        BuildFact::RunnerEnvironment,
        BuildFact::SourceRepositoryUri,
        BuildFact::SourceRepositoryDigest,
        BuildFact::SourceRepositoryRef,
        BuildFact::SourceRepositoryIdentifier,
        BuildFact::SourceRepositoryOwnerUri,
        BuildFact::SourceRepositoryOwnerIdentifier,
        BuildFact::BuildConfigUri,
        BuildFact::BuildConfigDigest,
    ];

    fn identity() -> Identity {
        Identity {
            issuer_id: "test".into(),
            issuer_type: "email",
            issuer: "https://id.example".to_owned(),
            subject: "4711".to_owned(),
            challenge_claim: "email",
            challenge: "alice@example.com".to_owned(),
            san: San::Email("alice@example.com".to_owned()),
            build: BuildFacts::default(),
            rate: None,
        }
    }

    #[test]
    fn a_person_has_issuer_twice_and_subject() {
        let expected = [
            (1, &b"https://id.example"[..]),
            (8, b"\x0c\x12https://id.example"),
            (24, b"\x0c\x044711"),
        ]
        .map(|(number, value)| Extension {
            number,
            value: value.to_vec(),
        });
        assert_eq!(encode(&identity()).unwrap(), expected);
    }

    #[test]
    fn every_fact_has_its_extension_in_the_order_of_numbers() {
        let mut identity = identity();
        for fact in FACTS {
            identity.build.set(fact, format!("{fact:?}"));
        }
        let named = encode(&identity).unwrap().into_iter().map(|extension| {
            let text = match extension.value.as_slice() {
                [0x0c, length, text @ ..] if usize::from(*length) == text.len() => text,
                raw if extension.number <= 6 => raw,
                other => panic!("{}: {other:02x?}", extension.number),
            };
            format!("{} {}", extension.number, str::from_utf8(text).unwrap())
        });
        assert_eq!(
            named.collect::<Vec<_>>(),
            [
                "1 https://id.example",
                "2 GithubWorkflowTrigger",
                "3 GithubWorkflowSha",
                "4 GithubWorkflowName",
                "5 GithubWorkflowRepository",
                "6 GithubWorkflowRef",
                "8 https://id.example",
                "9 BuildSignerUri",
                "10 BuildSignerDigest",
                "11 RunnerEnvironment",
                "12 SourceRepositoryUri",
                "13 SourceRepositoryDigest",
                "14 SourceRepositoryRef",
                "15 SourceRepositoryIdentifier",
                "16 SourceRepositoryOwnerUri",
                "17 SourceRepositoryOwnerIdentifier",
                "18 BuildConfigUri",
                "19 BuildConfigDigest",
                "20 BuildTrigger",
                "21 RunInvocationUri",
                "22 SourceRepositoryVisibilityAtSigning",
                "23 DeploymentEnvironment",
                "24 4711",
            ]
        );
    }

    #[test]
    fn values_are_utf8_of_any_length_and_nothing_is_escaped() {
        let mut identity = identity();
        identity
            .build
            .set(BuildFact::GithubWorkflowName, "naïve <&> 🦋".to_owned());
        identity.build.set(BuildFact::BuildTrigger, "x".repeat(200));
        let extensions = encode(&identity).unwrap();
        let value = |number| {
            &extensions
                .iter()
                .find(|found| found.number == number)
                .unwrap()
                .value
        };
        assert_eq!(value(4), "naïve <&> 🦋".as_bytes());
        assert_eq!(value(20)[..3], [0x0c, 0x81, 200]);
        assert_eq!(value(20).len(), 203);
    }

    #[test]
    fn values_with_control_characters_are_refused() {
        for character in ['\0', '\t', '\n', '\u{1b}', '\u{7f}', '\u{9b}'] {
            let mut identity = identity();
            let text = format!("release{character}");
            identity.build.set(BuildFact::GithubWorkflowName, text);
            let error = encode(&identity).unwrap_err();
            assert_eq!(error, EncodingError::ControlCharacters(4), "{character:?}");
            assert_eq!(error.reason(), Reason::TemplateError);
        }
    }

    #[test]
    fn a_certificate_carries_fourteen_kibibytes_of_identity_and_not_more() {
        let extension = |octets: usize| Extension {
            number: 8,
            value: vec![b'x'; octets],
        };
        let name = [b'n'; 1000];
        let fitting = MAX_IDENTITY_OCTETS - name.len();
        assert_eq!(check_length(&name, &[extension(fitting)]), Ok(()));
        let error = check_length(&name, &[extension(fitting), extension(1)]).unwrap_err();
        assert_eq!(error, EncodingError::TooLong(MAX_IDENTITY_OCTETS + 1));
        assert_eq!(error.reason(), Reason::TemplateError);
    }

    #[test]
    fn an_identity_without_issuer_or_subject() {
        let mut identity = identity();
        identity.subject.clear();
        let numbers = encode(&identity)
            .unwrap()
            .into_iter()
            .map(|extension| extension.number);
        assert_eq!(numbers.collect::<Vec<_>>(), [1, 8]);

        identity.issuer.clear();
        let error = encode(&identity).unwrap_err();
        assert_eq!(
            error.to_string(),
            "extensions must have a non-empty issuer url"
        );
        assert_eq!(error.reason(), Reason::TemplateError);
    }

    #[test]
    fn the_name_is_one_general_name() {
        for (san, expected) in [
            (
                San::Email("a@b.c".to_owned()),
                &b"\x30\x07\x81\x05a@b.c"[..],
            ),
            (
                San::Uri("https://x/y".to_owned()),
                b"\x30\x0d\x86\x0bhttps://x/y",
            ),
            (
                San::OtherName("alice!127.0.0.1".to_owned()),
                b"\x30\x21\xa0\x1f\x06\x0a\x2b\x06\x01\x04\x01\x83\xbf\x30\x01\x07\xa0\x11\x0c\x0falice!127.0.0.1",
            ),
            (
                San::OtherName("ü!x".to_owned()),
                b"\x30\x16\xa0\x14\x06\x0a\x2b\x06\x01\x04\x01\x83\xbf\x30\x01\x07\xa0\x06\x0c\x04\xc3\xbc!x",
            ),
        ] {
            assert_eq!(subject_alternative_name(&san).unwrap(), expected);
        }
    }

    #[test]
    fn a_name_outside_printable_ascii_is_refused_in_the_words_clients_know() {
        for (san, shown) in [
            (
                San::Email("föö@example.com".to_owned()),
                "\"föö@example.com\"",
            ),
            (
                San::Uri("https://ö\u{202e}\n".to_owned()),
                "\"https://ö\\u202e\\u000a\"",
            ),
            (
                San::Email("ada@example.com\0.evil.example".to_owned()),
                "\"ada@example.com\\u0000.evil.example\"",
            ),
            (
                San::Uri("https://x\u{7f}".to_owned()),
                "\"https://x\\u007f\"",
            ),
        ] {
            let error = subject_alternative_name(&san).unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("x509: {shown} cannot be encoded as an IA5String")
            );
            assert_eq!(error.reason(), Reason::TemplateError);
        }
    }

    /// What Fulcio puts into a certificate for a token; see `tests/vectors/README.md`. Each character of a value is an octet.
    #[derive(serde::Deserialize)]
    struct Vector {
        claims: serde_json::Map<String, serde_json::Value>,
        challenge: String,
        subject_alternative_name: String,
        extensions: Vec<VectorExtension>,
    }

    #[derive(serde::Deserialize)]
    struct VectorExtension {
        number: u8,
        value: String,
    }

    fn octets(text: &str) -> Vec<u8> {
        text.chars()
            .map(|octet| u8::try_from(octet).unwrap())
            .collect()
    }

    /// What comes of a token with these claims.
    async fn identity_of(
        bench: &Bench,
        issuer: &TestIssuer,
        claims: &serde_json::Map<String, serde_json::Value>,
    ) -> Identity {
        let claims = claims
            .iter()
            .fold(TestClaims::subject("replaced"), |claims, (name, value)| {
                claims.with(name, value.clone())
            });
        let token = issuer.token(&claims, TestAlgorithm::Rs256).unwrap();
        let identity = bench.verify(&token).await;
        identity.unwrap_or_else(|error| panic!("{}: {error}", issuer.url()))
    }

    /// Makes identities of the tokens of vectors under an identity file, and compares. Every issuer must have a token.
    async fn compare_with_fulcio(file: &str, vectors: &str) {
        let vectors: Vec<Vector> = serde_json::from_str(vectors).unwrap();
        let (issuers, _) = Issuers::parse("identity.yaml", file).unwrap();
        let bench = Bench::with_issuers(file);
        let mut seen = BTreeSet::new();
        for vector in vectors {
            let issuer = bench.at(vector.claims["iss"].as_str().unwrap());
            bench.network.serve(&issuer);
            let identity = identity_of(&bench, &issuer, &vector.claims).await;
            assert_eq!(identity.challenge, vector.challenge, "{}", issuer.url());
            assert_eq!(
                subject_alternative_name(&identity.san).unwrap(),
                octets(&vector.subject_alternative_name),
                "{}: {:?}",
                issuer.url(),
                identity.san
            );
            let expected = vector.extensions.iter().map(|extension| Extension {
                number: extension.number,
                value: octets(&extension.value),
            });
            assert_eq!(
                encode(&identity).unwrap(),
                expected.collect::<Vec<_>>(),
                "{}",
                issuer.url()
            );
            seen.insert(identity.issuer_id);
        }
        let ids = issuers
            .all()
            .into_iter()
            .map(|issuer| Arc::clone(&issuer.id));
        assert_eq!(
            ids.collect::<BTreeSet<_>>(),
            seen,
            "issuers without a token"
        );
    }

    #[tokio::test]
    async fn tokens_of_the_public_instance_become_what_fulcio_makes_of_them() {
        compare_with_fulcio(
            include_str!("../../config/identity.public.yaml"),
            include_str!("../../tests/vectors/fulcio/vectors.json"),
        )
        .await;
    }

    #[tokio::test]
    async fn tokens_of_every_type_become_what_fulcio_makes_of_them() {
        compare_with_fulcio(
            include_str!("../../tests/vectors/fulcio/types.yaml"),
            include_str!("../../tests/vectors/fulcio/types.vectors.json"),
        )
        .await;
    }

    /// A test of `config/presets/*.test.yaml`.
    #[derive(serde::Deserialize)]
    struct PresetTest {
        name: String,
        claims: serde_json::Map<String, serde_json::Value>,
        expect: Expected,
    }

    #[derive(serde::Deserialize)]
    struct Expected {
        san: String,
        #[serde(default)]
        extensions: BTreeMap<String, String>,
    }

    #[tokio::test]
    async fn tokens_of_every_preset_become_what_its_tests_say() {
        for preset in PRESETS {
            let tests: Vec<PresetTest> = serde_saphyr::from_str(preset.tests).unwrap();
            for test in tests {
                let what = format!("{}: {}", preset.name, test.name);
                let url = test.claims["iss"].as_str().unwrap();
                let audiences = &test.claims["aud"];
                let audience = audiences.as_str().or_else(|| audiences[0].as_str());
                let audience = audience.unwrap();
                let mut file = format!(
                    "oidc-issuers:\n  {url}:\n    preset: {}\n    client-id: {audience:?}\n",
                    preset.name
                );
                if preset.name == "spire" {
                    file += "    spiffe-trust-domain: example.org\n";
                }
                let bench = Bench::with_issuers(&file);
                let issuer = bench.at(url);
                bench.network.serve(&issuer);
                let identity = identity_of(&bench, &issuer, &test.claims).await;
                let (San::Email(name) | San::Uri(name) | San::OtherName(name)) = &identity.san;
                assert_eq!(*name, test.expect.san, "{what}");
                let mut facts = test.expect.extensions;
                for (number, claim) in [(1, "iss"), (8, "iss"), (24, "sub")] {
                    let value = test.claims[claim].as_str().unwrap().to_owned();
                    facts.insert(format!("1.3.6.1.4.1.57264.1.{number}"), value);
                }
                let mut expected: Vec<Extension> = facts
                    .iter()
                    .map(|(oid, text)| {
                        let (_, number) = oid.rsplit_once('.').unwrap();
                        let number = number.parse().unwrap();
                        let value = match number {
                            1..=6 => text.clone().into_bytes(),
                            _ => der::encode(0x0c, &[text.as_bytes()]),
                        };
                        Extension { number, value }
                    })
                    .collect();
                expected.sort_by_key(|extension| extension.number);
                assert_eq!(encode(&identity).unwrap(), expected, "{what}");
            }
        }
    }
}
