//! The build services of an identity file, `ci-issuer-metadata`: read once each, shared by the issuers that name them.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Entries, Place, RawMetadata, Report, Text, closest, place};
use crate::identity::BuildFact;
use crate::identity::ci_provider::{CiProvider, EXTENSION_TEMPLATES, ProviderMistake};
use crate::identity::ci_provider::{ProviderTexts, Purpose};
use crate::identity::claims::IdentityRule;
use crate::identity::excerpt::Excerpt;

/// The keys of templates that Fulcio has and ignores: what they would make comes from the token.
const IGNORED_TEMPLATES: [&str; 4] = ["issuer", "Issuer", "subject", "Subject"];

/// Claims that every token has: a default of that name would never count.
const CLAIMS_OF_EVERY_TOKEN: [&str; 4] = ["iss", "aud", "exp", "sub"];

/// The providers of a file, by name.
#[derive(Debug, Default)]
pub(super) struct Providers(BTreeMap<String, Provider>);

#[derive(Debug)]
struct Provider {
    place: Place,
    /// What it is, unless something is wrong with it.
    read: Option<Arc<CiProvider>>,
    /// Whether it has no template for the certificate's name, which matters only to those who use it.
    is_nameless: bool,
    is_used: bool,
}

impl Providers {
    /// Reads every provider and reports what is wrong with it.
    pub(super) fn read(
        entries: &Entries<RawMetadata>,
        source: &str,
        report: &mut Report<'_>,
    ) -> Self {
        let read = |(name, raw): &(Text, RawMetadata)| {
            let provider = Provider::read(name, raw, source, report);
            (name.value.clone(), provider)
        };
        Self(entries.0.iter().map(read).collect())
    }

    /// The rule of an issuer that names a provider, whose entry begins at `entry`.
    pub(super) fn rule(
        &mut self,
        name: Option<&Text>,
        entry: Place,
        report: &mut Report<'_>,
    ) -> Option<IdentityRule> {
        let Some(name) = name else {
            let help = "name an entry of ci-issuer-metadata".to_owned();
            report.error(
                entry,
                "a ci-provider issuer must have ci-provider",
                Some(help),
            );
            return None;
        };
        let Some(provider) = self.0.get_mut(&name.value) else {
            let known = closest(&name.value, self.0.keys().map(String::as_str));
            let message = format!(
                "the provider {} is not defined in ci-issuer-metadata",
                Excerpt::new(&name.value)
            );
            let help = known.map(|known| format!("did you mean `{known}`?"));
            report.error(place(name), message, help);
            return None;
        };
        if provider.is_nameless && !provider.is_used {
            let help = "the name is what verifiers compare".to_owned();
            report.error(
                provider.place,
                "the provider has no subject-alternative-name-template",
                Some(help),
            );
        }
        provider.is_used = true;
        provider.read.clone().map(IdentityRule::CiProvider)
    }

    /// Reports the providers that no issuer names.
    pub(super) fn report_unused(&self, report: &mut Report<'_>) {
        for provider in self.0.values().filter(|provider| !provider.is_used) {
            report.warning(provider.place, "no issuer uses the provider", None);
        }
    }
}

impl Provider {
    fn read(name: &Text, raw: &RawMetadata, source: &str, report: &mut Report<'_>) -> Self {
        let extensions = extensions(raw, report);
        let patterns: Vec<_> = raw
            .claim_patterns
            .iter()
            .flat_map(|entries| &entries.0)
            .collect();
        let san = raw.subject_alternative_name.as_ref();
        let texts = ProviderTexts {
            name: &name.value,
            defaults: defaults(raw, report),
            san: san.map_or("", |text| &text.value),
            extensions: extensions
                .iter()
                .map(|(purpose, text)| (*purpose, text.value.as_str()))
                .collect(),
            patterns: patterns
                .iter()
                .map(|(claim, pattern)| (claim.value.as_str(), pattern.value.as_str()))
                .collect(),
        };
        let mut provider = Self {
            place: place(name),
            read: None,
            is_nameless: false,
            is_used: false,
        };
        let mistakes = match CiProvider::new(texts) {
            Ok(read) => {
                provider.read = Some(Arc::new(read));
                return provider;
            }
            Err(mistakes) => mistakes,
        };
        for mistake in mistakes {
            match mistake {
                ProviderMistake::NoName => provider.is_nameless = true,
                ProviderMistake::Template { purpose, error } => {
                    let text = match purpose {
                        Purpose::SubjectAlternativeName => san,
                        Purpose::Extension(fact) => extensions
                            .iter()
                            .find(|(known, _)| *known == fact)
                            .map(|(_, text)| *text),
                    };
                    let place = text.map_or(provider.place, |text| {
                        place_inside(text, error.offset, source)
                    });
                    report.error(place, format!("the template cannot be used: {error}"), None);
                }
                ProviderMistake::Pattern { claim, message } => {
                    let pattern = patterns.iter().find(|(known, _)| known.value == claim);
                    let place = pattern.map_or(provider.place, |(_, pattern)| place(pattern));
                    report.error(
                        place,
                        format!("the pattern cannot be used: {message}"),
                        None,
                    );
                }
            }
        }
        provider
    }
}

/// The defaults of a provider; a default without a value is empty.
fn defaults(raw: &RawMetadata, report: &mut Report<'_>) -> BTreeMap<String, String> {
    let entries = raw.defaults.iter().flat_map(|entries| &entries.0);
    let entries = entries.map(|(name, value)| {
        if CLAIMS_OF_EVERY_TOKEN.contains(&name.value.as_str()) {
            let message = format!(
                "the default `{}` never counts: every token has the claim",
                name.value
            );
            report.warning(place(name), message, None);
        }
        let value = value
            .as_ref()
            .map_or_else(String::new, |value| value.value.clone());
        (name.value.clone(), value)
    });
    entries.collect()
}

/// The templates of a provider's extensions.
fn extensions<'a>(raw: &'a RawMetadata, report: &mut Report<'_>) -> Vec<(BuildFact, &'a Text)> {
    let mut extensions = Vec::new();
    for (key, text) in raw.extensions.iter().flat_map(|entries| &entries.0) {
        let row = EXTENSION_TEMPLATES
            .iter()
            .find(|(_, yaml, json)| key.value == *yaml || key.value == *json);
        let Some((fact, yaml, _)) = row else {
            if !IGNORED_TEMPLATES.contains(&key.value.as_str()) {
                let is_json = key.value.starts_with(char::is_uppercase);
                let names = EXTENSION_TEMPLATES
                    .iter()
                    .map(|(_, yaml, json)| if is_json { *json } else { *yaml });
                let help = closest(&key.value, names).map(|name| format!("did you mean `{name}`?"));
                let message = format!("unknown extension {}", Excerpt::new(&key.value));
                report.error(place(key), message, help);
            }
            continue;
        };
        if extensions.iter().any(|(known, _)| known == fact) {
            report.error(place(key), format!("the key `{yaml}` stands twice"), None);
        }
        extensions.extend(text.as_ref().map(|text| (*fact, text)));
    }
    extensions
}

/// Where an octet of a scalar's value stands in the file: inside the scalar, when it is written in one line there, else at
/// its beginning.
fn place_inside(text: &Text, offset: usize, source: &str) -> Place {
    let start = place(text);
    let written = text.referenced.span().byte_offset();
    let written = written.and_then(|start| source.get(usize::try_from(start).ok()?..));
    let value = text.value.get(..offset);
    match written
        .zip(value)
        .and_then(|(written, value)| columns(written, value))
    {
        Some(columns) => Place {
            column: start.column + columns,
            ..start
        },
        None => start,
    }
}

/// How many characters a scalar takes, from its beginning, to write the beginning of its value. Nothing when it is not
/// written in one line, or with escapes other than those of quotes and backslashes.
fn columns(written: &str, value: &str) -> Option<u64> {
    let quote = written
        .chars()
        .next()
        .filter(|first| matches!(first, '"' | '\''));
    let mut written = written.chars().skip(usize::from(quote.is_some()));
    let mut columns = u64::from(quote.is_some());
    for wanted in value.chars() {
        let mut found = written.next()?;
        let is_escape = match quote {
            Some('"') => found == '\\',
            Some(_) => found == '\'',
            None => false,
        };
        if is_escape {
            found = written.next()?;
            columns += 1;
        }
        columns += 1;
        if found != wanted || found == '\n' {
            return None;
        }
    }
    Some(columns)
}

#[cfg(test)]
mod tests {
    use crate::identity::Issuers;
    use crate::identity::config::Finding;

    const PROVIDER: &str = "
ci-issuer-metadata:
  forge:
    default-template-values: { url: https://forge.example, environment: , port: 8080 }
    subject-alternative-name-template: '{{ .url }}:{{ .port }}/{{ .ref }}'
    extension-templates:
      build-trigger: event
      issuer: '{{ nonsense'
      run-invocation-uri:
    claim-patterns: { ref: .+ }
";

    /// What is found in a file that has this under its one provider, one finding a line.
    fn findings(text: &str) -> Vec<String> {
        let findings = match Issuers::parse("id.yaml", text) {
            Ok((_, warnings)) => warnings,
            Err(findings) => findings,
        };
        findings.iter().map(Finding::to_string).collect()
    }

    fn issuer(provider: &str) -> String {
        format!(
            "oidc-issuers:\n  https://a.example:\n    issuer-url: https://a.example\n    client-id: sigstore\n    type: ci-provider\n{provider}"
        )
    }

    #[test]
    fn a_provider_is_read_with_all_that_fulcio_allows() {
        assert_eq!(
            findings(&(issuer("    ci-provider: forge") + PROVIDER)),
            [""; 0]
        );
    }

    #[test]
    fn an_issuer_names_a_provider_that_is_there() {
        let missing = findings(&(issuer("    ci-provider: forgo") + PROVIDER));
        assert_eq!(
            missing,
            [
                "id.yaml:6:18: the provider \"forgo\" is not defined in ci-issuer-metadata (did you mean `forge`?)",
                "id.yaml:8:3: no issuer uses the provider",
            ]
        );
        assert_eq!(
            findings(&issuer("")),
            [
                "id.yaml:2:3: a ci-provider issuer must have ci-provider (name an entry of ci-issuer-metadata)"
            ]
        );
    }

    #[test]
    fn mistakes_of_a_provider_are_found_where_they_stand() {
        let provider = r#"
ci-issuer-metadata:
  forge:
    default-template-values: { sub: x }
    subject-alternative-name-template: https://a.example/{{ .a | html }}
    extension-templates:
      build-trigger: "{{ index . \"a\" }}{{ .b"
      run-invocation-uri: 'it''s {{ range }}'
      build-config-uri: |
        {{ .a
      source-repository-ref: "\u0041{{ .b"
      buildTrigger: x
      BuildTrigger: x
    claim-patterns: { a: '(' }
"#;
        let found = findings(&(issuer("    ci-provider: forge") + provider));
        let places: Vec<_> = found
            .iter()
            .map(|line| line.split(": ").next().unwrap())
            .collect();
        assert_eq!(
            places,
            [
                "id.yaml:9:32",
                "id.yaml:10:64",
                "id.yaml:12:47",
                "id.yaml:13:37",
                "id.yaml:15:9",
                "id.yaml:16:30",
                "id.yaml:17:7",
                "id.yaml:18:7",
                "id.yaml:19:26",
            ],
            "{found:#?}"
        );
        for (index, text) in [
            (
                0,
                "the default `sub` never counts: every token has the claim",
            ),
            (
                1,
                "the template cannot be used: found \"|\", expected the end of the action",
            ),
            (
                6,
                "unknown extension \"buildTrigger\" (did you mean `build-trigger`?)",
            ),
            (7, "the key `build-trigger` stands twice"),
            (8, "the pattern cannot be used: unclosed group"),
        ] {
            assert!(found[index].contains(text), "{found:#?}");
        }
    }

    #[test]
    fn a_provider_in_use_needs_a_template_for_the_name() {
        let provider = "\nci-issuer-metadata:\n  forge:\n    subject-alternative-name-template: ' '\n  other:\n";
        assert_eq!(
            findings(&(issuer("    ci-provider: forge") + provider)),
            [
                "id.yaml:8:3: the provider has no subject-alternative-name-template (the name is what verifiers compare)",
                "id.yaml:10:3: no issuer uses the provider",
            ]
        );
    }
}
