//! Build services that are described by templates: the type `ci-provider`.
//!
//! What varies between services is data of the identity file. Everything is read and checked once, with the file; a token
//! costs one look at each claim that a template names.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use super::json::Object;
use super::template::{Template, TemplateError, TemplateSyntaxError, Values};
use super::{BuildFact, BuildFacts, San};
use crate::excerpt::{Excerpt, is_invisible};

mod san;

/// The templates that a provider may have for extensions: the fact, and its key in YAML and in JSON, in Fulcio's order.
///
/// Fulcio's file also has `issuer` and `subject`, which have no effect: these two come from the token.
pub const EXTENSION_TEMPLATES: [(BuildFact, &str, &str); 20] = {
    use BuildFact as Fact;
    [
        (
            Fact::GithubWorkflowTrigger,
            "github-workflow-trigger",
            "GithubWorkflowTrigger",
        ),
        (
            Fact::GithubWorkflowSha,
            "github-workflow-sha",
            "GithubWorkflowSHA",
        ),
        (
            Fact::GithubWorkflowName,
            "github-workflow-name",
            "GithubWorkflowName",
        ),
        (
            Fact::GithubWorkflowRepository,
            "github-workflow-repository",
            "GithubWorkflowRepository",
        ),
        (
            Fact::GithubWorkflowRef,
            "github-workflow-ref",
            "GithubWorkflowRef",
        ),
        (Fact::BuildSignerUri, "build-signer-uri", "BuildSignerURI"),
        (
            Fact::BuildSignerDigest,
            "build-signer-digest",
            "BuildSignerDigest",
        ),
        (
            Fact::RunnerEnvironment,
            "runner-environment",
            "RunnerEnvironment",
        ),
        (
            Fact::SourceRepositoryUri,
            "source-repository-uri",
            "SourceRepositoryURI",
        ),
        (
            Fact::SourceRepositoryDigest,
            "source-repository-digest",
            "SourceRepositoryDigest",
        ),
        (
            Fact::SourceRepositoryRef,
            "source-repository-ref",
            "SourceRepositoryRef",
        ),
        (
            Fact::SourceRepositoryIdentifier,
            "source-repository-identifier",
            "SourceRepositoryIdentifier",
        ),
        (
            Fact::SourceRepositoryOwnerUri,
            "source-repository-owner-uri",
            "SourceRepositoryOwnerURI",
        ),
        (
            Fact::SourceRepositoryOwnerIdentifier,
            "source-repository-owner-identifier",
            "SourceRepositoryOwnerIdentifier",
        ),
        (Fact::BuildConfigUri, "build-config-uri", "BuildConfigURI"),
        (
            Fact::BuildConfigDigest,
            "build-config-digest",
            "BuildConfigDigest",
        ),
        (Fact::BuildTrigger, "build-trigger", "BuildTrigger"),
        (
            Fact::RunInvocationUri,
            "run-invocation-uri",
            "RunInvocationURI",
        ),
        (
            Fact::SourceRepositoryVisibilityAtSigning,
            "source-repository-visibility-at-signing",
            "SourceRepositoryVisibilityAtSigning",
        ),
        (
            Fact::DeploymentEnvironment,
            "deployment-environment",
            "DeploymentEnvironment",
        ),
    ]
};

/// What a provider's template is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Purpose {
    /// The certificate's name.
    SubjectAlternativeName,
    /// An extension.
    Extension(BuildFact),
}

impl fmt::Display for Purpose {
    /// The key of the template in YAML.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SubjectAlternativeName => "subject-alternative-name-template",
            Self::Extension(fact) => EXTENSION_TEMPLATES
                .iter()
                .find(|(known, ..)| known == fact)
                .map_or("extension-templates", |(_, key, _)| key),
        })
    }
}

/// A part of a provider that cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ProviderMistake {
    /// There is no template for the certificate's name, or it is blank.
    NoName,
    /// A template cannot be read.
    Template {
        /// Which.
        purpose: Purpose,
        /// What is wrong, and where in the template.
        error: TemplateSyntaxError,
    },
    /// The pattern of a claim cannot be read.
    Pattern {
        /// The claim's name.
        claim: String,
        /// What is wrong.
        message: String,
    },
}

/// Why the claims of a token make no certificate. The text is fit for clients and names claims without what they say.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ProviderError {
    /// A template came to nothing that a certificate can carry.
    #[error("{error} (in {purpose})")]
    Text {
        /// Which.
        purpose: Purpose,
        /// Why.
        error: TextError,
    },
    /// A claim is not of the form that the provider's configuration tells.
    #[error(
        "the claim `{}` does not match the pattern that the configuration has for it",
        Excerpt::new(claim).unquoted()
    )]
    Pattern {
        /// The claim's name.
        claim: String,
    },
    /// A claim that has a pattern is no text.
    #[error(transparent)]
    Claim(TemplateError),
}

/// Why a template made no text for a certificate.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum TextError {
    /// The template came to nothing.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The certificate's name is not a URI that a certificate may have.
    #[error("the certificate's name {0}")]
    Name(&'static str),
    /// The text has characters that cannot be seen, or change the direction of text.
    #[error("the text has control characters or marks that change the direction of text")]
    Invisible,
}

/// A kind of build service, described by templates over the claims of its tokens.
#[derive(Clone, Debug)]
pub struct CiProvider {
    name: String,
    defaults: BTreeMap<String, String>,
    san: Template,
    /// The schemes that the name may have, in lower case.
    schemes: Vec<String>,
    extensions: Vec<(BuildFact, Template)>,
    patterns: Vec<ClaimPattern>,
}

/// What the whole of a claim must match, where a token has it.
#[derive(Clone, Debug)]
struct ClaimPattern {
    claim: String,
    text: String,
    whole: regex::Regex,
}

/// The parts of a provider as they are written.
#[derive(Clone, Debug, Default)]
pub struct ProviderTexts<'a> {
    /// Its name in the file.
    pub name: &'a str,
    /// Values for claims that a token does not have.
    pub defaults: BTreeMap<String, String>,
    /// The template of the certificate's name.
    pub san: &'a str,
    /// The templates of the extensions. One that is blank is left out.
    pub extensions: Vec<(BuildFact, &'a str)>,
    /// Claims with the regular expression that the whole of each must match, where the token has it.
    pub patterns: Vec<(&'a str, &'a str)>,
}

impl CiProvider {
    /// Reads the parts of a provider.
    ///
    /// # Errors
    /// Everything that is wrong, in the order of the parts.
    pub fn new(texts: ProviderTexts<'_>) -> Result<Self, Vec<ProviderMistake>> {
        let mut mistakes = Vec::new();
        let mut read = |purpose, text| {
            Template::parse(text)
                .map_err(|error| mistakes.push(ProviderMistake::Template { purpose, error }))
                .ok()
        };
        let san = read(Purpose::SubjectAlternativeName, texts.san);
        let extensions = texts.extensions.into_iter();
        let extensions = extensions
            .filter(|(_, text)| !text.trim().is_empty())
            .filter_map(|(fact, text)| Some((fact, read(Purpose::Extension(fact), text)?)))
            .collect();
        if texts.san.trim().is_empty() {
            mistakes.push(ProviderMistake::NoName);
        }
        let mut patterns = Vec::new();
        for (claim, text) in texts.patterns {
            match pattern(text) {
                Ok(whole) => patterns.push(ClaimPattern {
                    claim: claim.to_owned(),
                    text: text.to_owned(),
                    whole,
                }),
                Err(message) => mistakes.push(ProviderMistake::Pattern {
                    claim: claim.to_owned(),
                    message,
                }),
            }
        }
        let Some(san) = san.filter(|_| mistakes.is_empty()) else {
            return Err(mistakes);
        };
        let mut schemes = vec!["https".to_owned()];
        schemes.extend(san::scheme(san.opening(&texts.defaults)).map(str::to_ascii_lowercase));
        Ok(Self {
            name: texts.name.to_owned(),
            defaults: texts.defaults,
            san,
            schemes,
            extensions,
            patterns,
        })
    }

    /// Its name in the identity file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The values that stand in for claims that a token does not have.
    #[must_use]
    pub const fn defaults(&self) -> &BTreeMap<String, String> {
        &self.defaults
    }

    /// Every template, that of the name first.
    pub fn templates(&self) -> impl Iterator<Item = (Purpose, &Template)> {
        let extensions = self.extensions.iter();
        let extensions = extensions.map(|(fact, template)| (Purpose::Extension(*fact), template));
        std::iter::once((Purpose::SubjectAlternativeName, &self.san)).chain(extensions)
    }

    /// Claims, and the regular expression that the whole of each must match.
    pub fn patterns(&self) -> impl Iterator<Item = (&str, &str)> {
        let patterns = self.patterns.iter();
        patterns.map(|pattern| (pattern.claim.as_str(), pattern.text.as_str()))
    }

    /// Makes the name and the build facts of a certificate. A claim comes before a default of the same name.
    ///
    /// # Errors
    /// When a template needs a value that is missing or no text, or makes what a certificate may not carry.
    pub fn describe(&self, claims: &Object) -> Result<(San, BuildFacts), ProviderError> {
        let values = Values::new(claims, &self.defaults);
        for ClaimPattern { claim, whole, .. } in &self.patterns {
            let value = values.get(claim).map_err(ProviderError::Claim)?;
            if value.is_some_and(|value: Cow<'_, str>| !whole.is_match(value.as_ref())) {
                return Err(ProviderError::Pattern {
                    claim: claim.clone(),
                });
            }
        }
        let render = |purpose, template: &Template| {
            let text = template.render(values).map_err(TextError::Template);
            let text = text.and_then(|text| match text.chars().any(is_invisible) {
                true => Err(TextError::Invisible),
                false => Ok(text),
            });
            text.map_err(|error| ProviderError::Text { purpose, error })
        };
        let purpose = Purpose::SubjectAlternativeName;
        let uri = san::uri(&render(purpose, &self.san)?, &self.schemes);
        let uri = uri.map_err(|why| ProviderError::Text {
            purpose,
            error: TextError::Name(why),
        })?;
        let mut facts = BuildFacts::default();
        for (fact, template) in &self.extensions {
            facts.set(*fact, render(Purpose::Extension(*fact), template)?);
        }
        Ok((San::Uri(uri), facts))
    }
}

/// Reads the regular expression that the whole of a claim must match. Matching takes linear time.
fn pattern(text: &str) -> Result<regex::Regex, String> {
    const MAX_OCTETS: usize = 1024;
    const MAX_COMPILED_OCTETS: usize = 1024 * 1024;
    if text.len() > MAX_OCTETS {
        return Err(format!("the pattern is longer than {MAX_OCTETS} octets"));
    }
    let compile = |text: &str| {
        let mut builder = regex::RegexBuilder::new(text);
        let compiled = builder.size_limit(MAX_COMPILED_OCTETS).build();
        compiled.map_err(|error| {
            // Several lines, which show the pattern; the last says what is wrong.
            let error = error.to_string();
            let last = error.lines().last().unwrap_or_default();
            last.trim_start_matches("error: ").to_owned()
        })
    };
    // Alone first: a parenthesis must not close the group that is put around it.
    compile(text)?;
    compile(&format!(r"\A(?:{text})\z"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn texts(san: &str) -> ProviderTexts<'_> {
        let default = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        ProviderTexts {
            name: "forge",
            defaults: BTreeMap::from([
                default("url", "https://forge.example"),
                default("environment", ""),
            ]),
            san,
            ..ProviderTexts::default()
        }
    }

    fn describe(texts: ProviderTexts<'_>, claims: &Value) -> Result<(String, BuildFacts), String> {
        let provider = CiProvider::new(texts).unwrap();
        let Value::Object(claims) = claims else {
            panic!("{claims}");
        };
        match provider.describe(claims) {
            Ok((San::Uri(uri), facts)) => Ok((uri, facts)),
            Ok(other) => panic!("{other:?}"),
            Err(error) => Err(error.to_string()),
        }
    }

    fn name(text: &str, claims: &Value) -> Result<String, String> {
        describe(texts(text), claims).map(|(uri, _)| uri)
    }

    #[test]
    fn claims_become_a_name_and_facts() {
        let provider = ProviderTexts {
            extensions: vec![
                (BuildFact::BuildTrigger, "event"),
                (BuildFact::RunnerEnvironment, " \t"),
                (BuildFact::DeploymentEnvironment, "environment"),
                (BuildFact::SourceRepositoryUri, "{{ .url }}/{{ .path }}"),
                (BuildFact::BuildSignerUri, "{{ .url }}/a b?{{ .html }}"),
            ],
            ..texts("{{ .url }}/{{ .path }}/ü")
        };
        let claims = json!({ "event": "push", "path": "a/..//b", "html": "<{{ .path }}&'\">🦀", "other": { "a": [1] } });
        let (uri, facts) = describe(provider, &claims).unwrap();
        assert_eq!(uri, "https://forge.example/a/..//b/%C3%BC");
        assert_eq!(facts.get(BuildFact::BuildTrigger), Some("push"));
        assert_eq!(
            facts.get(BuildFact::SourceRepositoryUri),
            Some("https://forge.example/a/..//b")
        );
        // As it is: neither escaped, nor taken for a template.
        assert_eq!(
            facts.get(BuildFact::BuildSignerUri),
            Some("https://forge.example/a b?<{{ .path }}&'\">🦀")
        );
        assert_eq!(facts.get(BuildFact::RunnerEnvironment), None);
        assert_eq!(facts.get(BuildFact::DeploymentEnvironment), None);
    }

    #[test]
    fn what_is_missing_is_named_with_its_template_and_nothing_else() {
        let claims = json!({ "secret": "hunter2" });
        for (fact, template, message) in [
            (
                BuildFact::SourceRepositoryUri,
                "{{ .url }}/{{ .repository }}",
                "template: :1:14: executing \"\" at <.repository>: map has no entry for key \"repository\" (in source-repository-uri)",
            ),
            (
                BuildFact::RunnerEnvironment,
                "hosted",
                "value <hosted> not present in either claims or defaults (in runner-environment)",
            ),
        ] {
            let provider = ProviderTexts {
                extensions: vec![(fact, template)],
                ..texts("{{ .url }}/x")
            };
            assert_eq!(describe(provider, &claims).unwrap_err(), message);
        }
        assert_eq!(
            name("{{ .missing }}", &claims).unwrap_err(),
            "template: :1:3: executing \"\" at <.missing>: map has no entry for key \"missing\" (in subject-alternative-name-template)"
        );
    }

    #[test]
    fn a_name_is_a_uri_with_a_host_and_a_scheme_that_its_author_wrote() {
        for (template, claim, why) in [
            ("{{ .x }}", "", "is not a URI with a scheme"),
            ("{{ .x }}", "///x", "is not a URI with a scheme"),
            ("{{ .x }}", "/x:y", "is not a URI with a scheme"),
            ("{{ .x }}", "javascript:alert(1)", "has another scheme"),
            ("{{ .x }}", "data:text/plain,x", "has another scheme"),
            ("{{ .x }}", "http://a.example/x", "has another scheme"),
            ("{{ .x }}", "https:8080/x", "has no host"),
            ("{{ .x }}", "https:///x", "has no host"),
            ("https://{{ .x }}/a", "", "has no host"),
            ("https://{{ .x }}/a", "?", "has no host"),
            ("https://{{ .x }}/a", ":443", "has no host"),
            ("https://{{ .x }}/a", "b@c.example", "has no host, or more"),
            ("https://{{ .x }}/a", "c.example:8x", "has no host, or more"),
            ("https://{{ .x }}/a", "c%2eexample", "has no host, or more"),
            ("https://{{ .x }}/a", "[::1", "has no host, or more"),
            ("https://{{ .x }}/a", "ü.example", "has no host, or more"),
            ("{{ .url }}/{{ .x }}", "a b", "has white space"),
            ("{{ .url }}/{{ .x }}", "a#b", "has a fragment"),
            ("{{ .url }}/{{ .x }}", "a%zz", "has an incomplete percent"),
            ("{{ .url }}/{{ .x }}", "a%2", "has an incomplete percent"),
            (
                "{{ .url }}/{{ .x }}",
                "a?ü",
                "has a query that is not ASCII",
            ),
            (
                "{{ .url }}/{{ .x }}",
                "a\u{0}",
                "the text has control characters",
            ),
            (
                "{{ .url }}/{{ .x }}",
                "a\nb",
                "the text has control characters",
            ),
            (
                "{{ .url }}/{{ .x }}",
                "a\u{202e}b",
                "the text has control characters",
            ),
            (
                "{{ .url }}/{{ .x }}",
                &"x".repeat(2049 - 22),
                "is longer than 2048",
            ),
        ] {
            let error = name(template, &json!({ "x": claim })).unwrap_err();
            assert!(error.contains(why), "{template}: {claim}: {error}");
        }
        let claims = json!({ "x": "x".repeat(2048 - 22), "url": "https://forge.example" });
        assert_eq!(
            name("{{ .url }}/{{ .x }}", &claims).map(|uri| uri.len()),
            Ok(2048)
        );
        // What the author of the template wrote is allowed, as a literal or as a default; what a claim says is not.
        let claims = json!({ "x": "ns/app" });
        assert_eq!(
            name("SPIFFE://a.example/{{ .x }}", &claims).as_deref(),
            Ok("spiffe://a.example/ns/app")
        );
        let with_url = |url: &str| {
            let mut texts = texts("{{ .url }}/{{ .x }}");
            texts.defaults.insert("url".to_owned(), url.to_owned());
            texts
        };
        assert!(describe(with_url("http://forge.internal:8080"), &claims).is_ok());
        let claims = json!({ "x": "ns/app", "url": "javascript://a.example" });
        let error = describe(with_url("http://forge.internal:8080"), &claims).unwrap_err();
        assert!(error.contains("has another scheme"), "{error}");
    }

    #[test]
    fn a_path_is_written_as_go_writes_it() {
        for (path, written) in [
            ("a/b.yml@refs/heads/main", "a/b.yml@refs/heads/main"),
            ("a//../b/.", "a//../b/."),
            ("a/%20b%2f", "a/%20b%2f"),
            ("!$&'()*+,;=:@[]-._~", "!$&'()*+,;=:@[]-._~"),
            ("ü", "%C3%BC"),
            // With one character that must be encoded, all of the path is written anew.
            ("ü/%2f%41%0a(x)", "%C3%BC//A%0A%28x%29"),
            ("{a}|\\^`\"<>", "%7Ba%7D%7C%5C%5E%60%22%3C%3E"),
            ("a?b=c d", "a?b=c d"),
            ("a?b=/%zz{", "a?b=/%zz{"),
            ("a?", "a?"),
        ] {
            let name = name("{{ .url }}/{{ .x }}", &json!({ "x": path }));
            if path.contains(' ') {
                assert!(name.is_err());
            } else {
                assert_eq!(
                    name,
                    Ok(format!("https://forge.example/{written}")),
                    "{path}"
                );
            }
        }
    }

    #[test]
    fn a_claim_must_match_its_pattern_from_end_to_end() {
        let provider = |patterns| ProviderTexts {
            patterns,
            ..texts("{{ .url }}/{{ .repository }}")
        };
        let owner_and_name = r"[\w.-]+/[\w.-]+|x";
        for (repository, is_accepted) in [
            ("acme/app", true),
            ("x", true),
            ("acme/x/.github/workflows/a.yml@refs/heads/main", false),
            ("acme/app\n", false),
            ("acme/app#", false),
            ("", false),
        ] {
            let patterns = vec![("repository", owner_and_name), ("absent", "x")];
            let described = describe(provider(patterns), &json!({ "repository": repository }));
            match described {
                Ok(_) => assert!(is_accepted, "{repository}"),
                Err(error) => {
                    assert!(!is_accepted, "{repository}: {error}");
                    assert_eq!(
                        error,
                        "the claim `repository` does not match the pattern that the configuration has for it"
                    );
                }
            }
        }
        let error =
            describe(provider(vec![("object", ".*")]), &json!({ "object": {} })).unwrap_err();
        assert!(
            error.starts_with("the claim `object` is an object"),
            "{error}"
        );
        for (pattern, message) in [
            ("a)|(?:b", "unopened group"),
            ("(a", "unclosed group"),
            (&"a".repeat(1025), "longer than 1024 octets"),
            ("(?:(?:\\w{100}){100}){100}", "size limit"),
        ] {
            let mistakes = CiProvider::new(provider(vec![("a", pattern)])).unwrap_err();
            let [
                ProviderMistake::Pattern {
                    claim,
                    message: found,
                },
            ] = &mistakes[..]
            else {
                panic!("{mistakes:?}");
            };
            assert_eq!(claim, "a");
            assert!(found.contains(message), "{found}");
        }
    }

    #[test]
    fn every_mistake_of_a_provider_is_found_at_once() {
        let provider = ProviderTexts {
            extensions: vec![
                (BuildFact::BuildTrigger, "{{ .event"),
                (BuildFact::RunnerEnvironment, "{{ nofunc }}"),
            ],
            ..texts(" ")
        };
        let mistakes = CiProvider::new(provider).unwrap_err();
        let purposes = mistakes.iter().map(|mistake| match mistake {
            ProviderMistake::Template { purpose, .. } => purpose.to_string(),
            ProviderMistake::NoName | ProviderMistake::Pattern { .. } => format!("{mistake:?}"),
        });
        assert_eq!(
            purposes.collect::<Vec<_>>(),
            ["build-trigger", "runner-environment", "NoName"]
        );
    }

    #[test]
    fn every_fact_has_one_template() {
        let mut facts: Vec<_> = EXTENSION_TEMPLATES.iter().map(|(fact, ..)| fact).collect();
        facts.sort();
        facts.dedup();
        assert_eq!(facts.len(), EXTENSION_TEMPLATES.len());
        for (_, yaml, json) in EXTENSION_TEMPLATES {
            assert_eq!(yaml.replace('-', ""), json.to_lowercase());
        }
    }
}
