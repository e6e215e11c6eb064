//! Golden tests of a configuration: claims, and the certificate or the refusal that must come of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::Spanned;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::claims;
use super::explain::{Explanation, Question, explain};
use crate::ca::request::PermittedAlgorithms;
use crate::identity::Issuers;
use crate::identity::json::Object;
use crate::identity::trace::{Keys, Presented};

/// How deep a file may nest.
const MAX_DEPTH: usize = 64;

/// A file of tests.
#[derive(Debug)]
pub struct GoldenFile {
    /// What it is called.
    pub name: String,
    text: String,
    tests: Vec<Spanned<GoldenTest>>,
}

/// A file of tests that cannot be used.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{file}:{line}:{column}: {why}")]
pub struct GoldenError {
    file: String,
    line: u64,
    column: u64,
    why: String,
}

/// One test as it is written.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct GoldenTest {
    name: String,
    /// The kind of token whose claims are filled in; null takes one of them away.
    preset_claims: Option<Spanned<String>>,
    #[serde(default)]
    claims: BTreeMap<String, Value>,
    /// The moment, RFC 3339; without it one at which the token is valid.
    at: Option<Spanned<String>>,
    expect: Spanned<Expectation>,
}

/// What must come of a test. What is not named may be anything.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Expectation {
    /// The name in the certificate.
    san: Option<String>,
    /// Extensions by OID or name; null for one that must not be there.
    #[serde(default)]
    extensions: BTreeMap<String, Option<String>>,
    /// What the client signs.
    challenge: Option<String>,
    /// The code of the refusal.
    refused: Option<String>,
}

/// How a test ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct GoldenResult {
    /// Its name.
    pub name: String,
    /// The line that it begins in.
    pub line: u64,
    /// What is not as expected; nothing if it passed.
    pub differences: Vec<String>,
    /// Whether a refusal was expected and a certificate came of it.
    pub is_now_issued: bool,
    /// What came of it.
    actual: Expectation,
}

impl GoldenFile {
    /// Reads a file of tests.
    ///
    /// # Errors
    /// The first thing that is wrong with it, with its place.
    pub fn parse(name: &str, text: &str) -> Result<Self, GoldenError> {
        let options = serde_saphyr::options! {
            strict_booleans: true,
            leading_zero_numbers_as_strings: true,
            underscored_numbers_as_strings: true,
            with_snippet: false,
            budget: serde_saphyr::budget! {
                max_depth: MAX_DEPTH,
            },
        };
        let error = |line, column, why: String| GoldenError {
            file: name.to_owned(),
            line,
            column,
            why,
        };
        let tests: Vec<Spanned<GoldenTest>> = serde_saphyr::from_str_with_options(text, options)
            .map_err(|why| {
                let (line, column) = why
                    .location()
                    .map_or((1, 1), |location| (location.line(), location.column()));
                let why = why.to_string();
                let why = why
                    .split_once(" at line ")
                    .map_or(why.as_str(), |(why, _)| why);
                error(line, column, why.to_owned())
            })?;
        for test in &tests {
            if let Some(kind) = &test.value.preset_claims
                && claims::of_kind(&kind.value).is_none()
            {
                let known: Vec<&str> = claims::names().collect();
                let why = format!(
                    "unknown preset-claims; expected one of {}",
                    known.join(", ")
                );
                let place = kind.referenced;
                return Err(error(place.line(), place.column(), why));
            }
            if let Some(at) = &test.value.at
                && moment(&at.value).is_none()
            {
                let why = "expected a moment such as 2026-01-02T03:04:05Z".to_owned();
                return Err(error(at.referenced.line(), at.referenced.column(), why));
            }
            let expect = &test.value.expect;
            if expect.value.refused.is_some() && expect.value != expect.value.refusal() {
                let why = "a refusal has no name, no extensions and no challenge".to_owned();
                let place = expect.referenced;
                return Err(error(place.line(), place.column(), why));
            }
        }
        Ok(Self {
            name: name.to_owned(),
            text: text.to_owned(),
            tests,
        })
    }

    /// Runs every test.
    pub async fn run(&self, issuers: &Issuers, now: OffsetDateTime) -> Vec<GoldenResult> {
        let mut results = Vec::with_capacity(self.tests.len());
        for test in &self.tests {
            let claims = test.value.complete_claims();
            let at = test.value.at.as_ref().and_then(|at| moment(&at.value));
            let question = Question {
                presented: Presented::Claims(&claims),
                keys: Keys::None,
                at,
                public_key: None,
                permitted: &PermittedAlgorithms::default(),
            };
            let answer = explain(issuers, question, now).await;
            let expected = &test.value.expect.value;
            results.push(GoldenResult {
                name: test.value.name.clone(),
                line: test.referenced.line(),
                differences: expected.differences(&answer),
                is_now_issued: expected.refused.is_some() && answer.reason.is_none(),
                actual: expected.updated(&answer),
            });
        }
        results
    }

    /// The claims of every test, with what its preset fills in: the identities that the tests know.
    pub fn claims(&self) -> impl Iterator<Item = (&str, Object)> {
        self.tests
            .iter()
            .map(|test| (test.value.name.as_str(), test.value.complete_claims()))
    }

    /// The text of the file with what came of its tests in place of what was expected; everything else stays as it is.
    ///
    /// # Errors
    /// When the expectation of a test is written in a way that cannot be replaced.
    pub fn updated(&self, results: &[GoldenResult]) -> Result<String, GoldenError> {
        let mut lines: Vec<&str> = self.text.split_inclusive('\n').collect();
        let mut replaced = Vec::new();
        // From the end, so that the numbers of the lines before stay what they are.
        for (test, result) in self.tests.iter().zip(results).rev() {
            if result.differences.is_empty() {
                continue;
            }
            let place = test.value.expect.referenced;
            let failed = || GoldenError {
                file: self.name.clone(),
                line: place.line(),
                column: place.column(),
                why: "this expectation has to be changed by hand".to_owned(),
            };
            let (start, end, indent) = expectation(&lines, place.line()).ok_or_else(failed)?;
            let tail = lines.split_off(end);
            lines.truncate(start);
            replaced.extend(tail.into_iter().rev().map(str::to_owned));
            replaced.push(result.actual.write(indent));
        }
        let mut text: String = lines.concat();
        text.extend(replaced.into_iter().rev());
        // What is written must read as it was meant.
        let again = Self::parse(&self.name, &text)?;
        let is_same = again.tests.len() == self.tests.len()
            && again
                .tests
                .iter()
                .zip(&self.tests)
                .zip(results)
                .all(|((new, old), result)| {
                    let is_expected =
                        result.differences.is_empty() || new.value.expect.value == result.actual;
                    is_expected
                        && new.value.claims == old.value.claims
                        && new.value.name == old.value.name
                });
        if is_same {
            return Ok(text);
        }
        Err(GoldenError {
            file: self.name.clone(),
            line: 1,
            column: 1,
            why: "the expectations have to be changed by hand".to_owned(),
        })
    }
}

/// The lines of the expectation whose value begins in line `number` or the one before: from `expect:` to the first line that
/// is not part of it, and how far `expect` is indented.
fn expectation(lines: &[&str], number: u64) -> Option<(usize, usize, usize)> {
    let at = usize::try_from(number).ok()?.checked_sub(1)?;
    let is_key = |line: &&str| {
        line.trim_start()
            .trim_start_matches("- ")
            .starts_with("expect:")
    };
    let start = [Some(at), at.checked_sub(1)]
        .into_iter()
        .flatten()
        .find(|index| lines.get(*index).is_some_and(is_key))?;
    let key = lines.get(start)?;
    // As the first key of a test it stands behind a dash, which must stay.
    if key.trim_start().starts_with("- ") {
        return None;
    }
    let indent = key.len() - key.trim_start().len();
    let is_inside = |line: &&str| {
        let text = line.trim_start();
        !text.trim().is_empty() && line.len() - text.len() > indent
    };
    let inside = lines
        .get(start + 1..)?
        .iter()
        .take_while(|line| is_inside(line));
    Some((start, start + 1 + inside.count(), indent))
}

impl GoldenTest {
    fn complete_claims(&self) -> Object {
        let kind = self.preset_claims.as_ref();
        let preset = kind.and_then(|kind| claims::of_kind(&kind.value));
        let mut complete = preset.unwrap_or_default();
        for (name, value) in &self.claims {
            if value.is_null() && kind.is_some() {
                complete.remove(name);
            } else {
                complete.insert(name.clone(), value.clone());
            }
        }
        complete
    }
}

impl Expectation {
    /// The refusal alone.
    fn refusal(&self) -> Self {
        Self {
            refused: self.refused.clone(),
            ..Self::default()
        }
    }

    /// What of an answer is not as expected.
    fn differences(&self, answer: &Explanation) -> Vec<String> {
        if *self == Self::default() {
            return vec!["nothing is expected".to_owned()];
        }
        if self.refused.as_deref() != answer.reason {
            let shown = |reason: Option<&str>| match reason {
                Some(reason) => format!("the refusal {reason}"),
                None => "a certificate".to_owned(),
            };
            let told = answer.client_visible.as_ref();
            let told = told.map_or_else(String::new, |told| format!(" ({})", told.message));
            let expected = shown(self.refused.as_deref());
            let found = shown(answer.reason);
            return vec![format!("expected {expected}, found {found}{told}")];
        }
        let mut differences = Vec::new();
        let mut compare = |what: &str, expected: Option<&str>, found: Option<&str>| {
            let shown = |text: Option<&str>| match text {
                Some(text) => format!("{text:?}"),
                None => "nothing".to_owned(),
            };
            if expected != found {
                let (expected, found) = (shown(expected), shown(found));
                differences.push(format!("{what}: expected {expected}, found {found}"));
            }
        };
        let san = answer.san.as_ref().map(|name| name.value.as_str());
        for (what, expected, found) in [
            ("san", self.san.as_deref(), san),
            (
                "challenge",
                self.challenge.as_deref(),
                answer.challenge.as_deref(),
            ),
        ] {
            if expected.is_some() {
                compare(what, expected, found);
            }
        }
        for (name, value) in &self.extensions {
            compare(name, value.as_deref(), extension(answer, name));
        }
        differences
    }

    /// What should be expected for this to be the answer: of a certificate, the name, and the extensions that are named here,
    /// or all if none is.
    fn updated(&self, answer: &Explanation) -> Self {
        if let Some(reason) = answer.reason {
            return Self {
                refused: Some(reason.to_owned()),
                ..Self::default()
            };
        }
        let extensions = if self.extensions.is_empty() {
            let all = answer.extensions.iter();
            all.map(|found| (found.oid.clone(), Some(found.value.clone())))
                .collect()
        } else {
            let named = self.extensions.keys();
            named
                .map(|name| (name.clone(), extension(answer, name).map(str::to_owned)))
                .collect()
        };
        Self {
            san: answer.san.as_ref().map(|name| name.value.clone()),
            extensions,
            challenge: self
                .challenge
                .as_ref()
                .and_then(|_| answer.challenge.clone()),
            refused: None,
        }
    }

    /// As YAML, in lines, indented so far. Texts are JSON strings, which YAML reads as they are meant.
    fn write(&self, indent: usize) -> String {
        let margin = " ".repeat(indent);
        let quoted = |text: &str| Value::from(text).to_string();
        let mut text = format!("{margin}expect:\n");
        // Writing to a `String` does not fail.
        for (name, value) in [
            ("san", &self.san),
            ("challenge", &self.challenge),
            ("refused", &self.refused),
        ] {
            if let Some(value) = value {
                let is_word = value
                    .bytes()
                    .all(|octet| octet.is_ascii_lowercase() || octet == b'_');
                let value = if is_word {
                    value.clone()
                } else {
                    quoted(value)
                };
                let _ = writeln!(text, "{margin}  {name}: {value}");
            }
        }
        if !self.extensions.is_empty() {
            let _ = writeln!(text, "{margin}  extensions:");
        }
        for (name, value) in &self.extensions {
            let value = value.as_deref().map_or_else(|| "null".to_owned(), quoted);
            let _ = writeln!(text, "{margin}    {}: {value}", quoted(name));
        }
        text
    }
}

/// The value of an extension, by its OID or its name.
fn extension<'a>(answer: &'a Explanation, name: &str) -> Option<&'a str> {
    let mut all = answer.extensions.iter();
    let found = all.find(|extension| extension.oid == name || extension.name == name)?;
    Some(&found.value)
}

fn moment(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok()
}
