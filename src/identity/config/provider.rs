//! The entries of `ci-issuer-metadata`: templates become providers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::finding::{Code, Place, Report, closest};
use super::preset::PresetProvider;
use super::raw::{RawMetadata, Text};
use super::{pointer, unknown_keys};
use crate::excerpt::Excerpt;
use crate::identity::ci_provider::{
    CiProvider, EXTENSION_TEMPLATES, ProviderMistake, ProviderTexts, Purpose,
};

/// Claims that every token has, so that a default of their name never counts.
const WELL_KNOWN_CLAIMS: [&str; 5] = ["aud", "exp", "iat", "iss", "sub"];

/// The providers of all files, by name.
pub(super) struct Providers {
    by_name: HashMap<String, Provider>,
    of_presets: HashMap<(&'static str, String, String), Option<Arc<CiProvider>>>,
}

struct Provider {
    place: Place,
    path: String,
    /// Nothing when something is wrong with it, which was reported.
    provider: Option<Arc<CiProvider>>,
    is_used: bool,
    /// It has no template for the certificate's name, which matters once an issuer uses it.
    is_nameless: bool,
}

impl Providers {
    pub(super) fn new() -> Self {
        Self {
            by_name: HashMap::new(),
            of_presets: HashMap::new(),
        }
    }

    /// Reads an entry of the file with this index.
    pub(super) fn add(
        &mut self,
        report: &mut Report<'_>,
        file: usize,
        name: &Text,
        raw: &RawMetadata,
    ) {
        let path = pointer(&["ci-issuer-metadata", &name.value]);
        if let Some(other) = self.by_name.get(&name.value) {
            let (file_name, line) = (report.file(other.place.file), other.place.line);
            let message = format!("ci-issuer-metadata has {} twice", Excerpt::new(&name.value));
            report
                .add(Code::Duplicate, Place::of(file, name), &path, message)
                .help(format!("the other stands at {file_name}:{line}"));
            return;
        }
        let provider = build(report, file, name, raw, &path);
        let entry = Provider {
            place: Place::of(file, name),
            path,
            provider,
            is_used: false,
            is_nameless: raw
                .subject_alternative_name
                .as_ref()
                .is_none_or(|text| text.value.trim().is_empty()),
        };
        self.by_name.insert(name.value.clone(), entry);
    }

    /// Finds the provider that an issuer names. What is wrong with it is reported where it stands.
    pub(super) fn find(
        &mut self,
        report: &mut Report<'_>,
        name: &str,
    ) -> Option<Option<Arc<CiProvider>>> {
        let found = self.by_name.get_mut(name)?;
        if found.is_nameless && !found.is_used {
            let message = "there is no template for the certificate's name";
            report
                .add(Code::NoName, found.place, &found.path, message)
                .help("add subject-alternative-name-template");
        }
        found.is_used = true;
        Some(found.provider.clone())
    }

    /// The provider that a preset makes for an entry.
    pub(super) fn of_preset(&mut self, preset: &PresetProvider) -> Option<Arc<CiProvider>> {
        let known = self.of_presets.entry(preset.key.clone());
        let provider = known.or_insert_with(|| {
            // There is nothing to find: a test reads every preset.
            let mut report = Report::new(&[]);
            build(&mut report, 0, &preset.name, &preset.metadata, "")
        });
        provider.clone()
    }

    /// The name that a misspelt one probably means.
    pub(super) fn closest(&self, name: &str) -> Option<&str> {
        closest(name, self.by_name.keys().map(String::as_str))
    }

    /// Reports what no issuer names.
    pub(super) fn report_unused(&self, report: &mut Report<'_>) {
        for (name, provider) in &self.by_name {
            if !provider.is_used {
                let message = format!("no issuer uses the ci-provider {}", Excerpt::new(name));
                report.add(Code::Superfluous, provider.place, &provider.path, message);
            }
        }
    }
}

fn build(
    report: &mut Report<'_>,
    file: usize,
    name: &Text,
    raw: &RawMetadata,
    path: &str,
) -> Option<Arc<CiProvider>> {
    unknown_keys(report, file, path, &raw.unknown);
    let mut is_good = true;
    let mut defaults = BTreeMap::new();
    for (claim, value) in raw.defaults.iter().flat_map(|entries| &entries.0) {
        if WELL_KNOWN_CLAIMS.contains(&claim.value.as_str()) {
            let message = format!(
                "the default of `{}` never counts: every token has that claim",
                claim.value
            );
            let path = format!(
                "{path}{}",
                pointer(&["default-template-values", &claim.value])
            );
            report.add(Code::Superfluous, Place::of(file, claim), &path, message);
        }
        // A default without a value is empty.
        let value = value.as_ref().map_or("", |value| &value.value);
        defaults.insert(claim.value.clone(), value.to_owned());
    }
    let mut places: Vec<(Purpose, &Text)> = Vec::new();
    for (key, template) in raw.extensions.iter().flat_map(|entries| &entries.0) {
        let known = EXTENSION_TEMPLATES
            .iter()
            .find(|(_, yaml, json)| key.value == *yaml || key.value == *json);
        match known {
            Some((fact, name, _)) => {
                let purpose = Purpose::Extension(*fact);
                if places.iter().any(|(known, _)| *known == purpose) {
                    let path = format!("{path}{}", pointer(&["extension-templates", &key.value]));
                    let message = format!("the key `{name}` stands twice");
                    report.add(Code::Duplicate, Place::of(file, key), &path, message);
                }
                places.extend(template.as_ref().map(|template| (purpose, template)));
            }
            None if ["issuer", "subject", "Issuer", "Subject"].contains(&key.value.as_str()) => {
                let path = format!("{path}{}", pointer(&["extension-templates", &key.value]));
                let message = format!("the template of `{}` has no effect", key.value);
                report
                    .add(Code::NoEffect, Place::of(file, key), &path, message)
                    .help("the certificate always carries the token's own");
            }
            None => {
                is_good = false;
                let path = format!("{path}{}", pointer(&["extension-templates", &key.value]));
                let is_json = key.value.starts_with(char::is_uppercase);
                let known = EXTENSION_TEMPLATES
                    .iter()
                    .map(|(_, yaml, json)| if is_json { *json } else { *yaml });
                let message = format!("unknown extension {}", Excerpt::new(&key.value));
                let suggestion = closest(&key.value, known);
                let finding = report.add(Code::UnknownKey, Place::of(file, key), &path, message);
                if let Some(name) = suggestion {
                    finding.help(format!("did you mean `{name}`?"));
                }
            }
        }
    }
    let san = raw.subject_alternative_name.as_ref();
    if let Some(san) = san {
        places.push((Purpose::SubjectAlternativeName, san));
    }
    let extensions = places.iter().filter_map(|(purpose, text)| match purpose {
        Purpose::Extension(fact) => Some((*fact, text.value.as_str())),
        Purpose::SubjectAlternativeName => None,
    });
    let patterns = raw.claim_patterns.iter().flat_map(|entries| &entries.0);
    let texts = ProviderTexts {
        name: &name.value,
        defaults,
        san: san.map_or("", |san| san.value.as_str()),
        extensions: extensions.collect(),
        patterns: patterns
            .map(|(claim, pattern)| (claim.value.as_str(), pattern.value.as_str()))
            .collect(),
    };
    let mistakes = match CiProvider::new(texts) {
        Ok(provider) => return Some(Arc::new(provider)).filter(|_| is_good),
        Err(mistakes) => mistakes,
    };
    for mistake in mistakes {
        match mistake {
            ProviderMistake::Template { purpose, error } => {
                let text = places.iter().find(|(of, _)| *of == purpose);
                let place = match text {
                    Some((_, text)) => report.inside(file, text, error.offset),
                    None => Place::of(file, name),
                };
                let message = format!(
                    "the template of {purpose} cannot be used: {}",
                    error.message
                );
                report.add(Code::Template, place, path, message);
            }
            // It matters to those who use the provider.
            ProviderMistake::NoName => {}
            ProviderMistake::Pattern { claim, message } => {
                let mut patterns = raw.claim_patterns.iter().flat_map(|entries| &entries.0);
                let text = patterns.find(|(name, _)| name.value == claim);
                let place =
                    text.map_or_else(|| Place::of(file, name), |(_, text)| Place::of(file, text));
                let message =
                    format!("the pattern of the claim `{claim}` cannot be used: {message}");
                report.add(Code::Rule, place, path, message);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use crate::identity::Issuers;

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
        findings
            .iter()
            .map(|finding| {
                finding
                    .to_string()
                    .replacen(&format!("[{}] ", finding.code), "", 1)
            })
            .collect()
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
            [
                "id.yaml:13:7: the template of `issuer` has no effect (the certificate always carries the token's own)"
            ]
        );
    }

    #[test]
    fn an_issuer_names_a_provider_that_is_there() {
        let missing = findings(&(issuer("    ci-provider: forgo") + PROVIDER));
        assert_eq!(
            missing,
            [
                "id.yaml:6:18: the ci-provider \"forgo\" is not defined in ci-issuer-metadata (did you mean \"forge\"?)",
                "id.yaml:8:3: no issuer uses the ci-provider \"forge\"",
                "id.yaml:13:7: the template of `issuer` has no effect (the certificate always carries the token's own)",
            ]
        );
        assert_eq!(
            findings(&issuer("")),
            [
                "id.yaml:2:3: an issuer of type ci-provider must have ci-provider (the name of an entry of ci-issuer-metadata)"
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
                "the default of `sub` never counts: every token has that claim",
            ),
            (
                1,
                "cannot be used: found \"|\", expected the end of the action",
            ),
            (
                6,
                "unknown extension \"buildTrigger\" (did you mean `build-trigger`?)",
            ),
            (7, "the key `build-trigger` stands twice"),
            (
                8,
                "the pattern of the claim `a` cannot be used: unclosed group",
            ),
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
                "id.yaml:8:3: there is no template for the certificate's name (add subject-alternative-name-template)",
                "id.yaml:10:3: no issuer uses the ci-provider \"other\"",
            ]
        );
    }
}
