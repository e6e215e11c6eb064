//! The identity configuration: which issuers are trusted, in Fulcio's format, with a place for everything that is wrong with it.
//!
//! YAML in kebab case and JSON in camel case are read as they are, from one file or from all files of a folder. Each step has
//! a file: the texts (`source`), their raw form with places (`raw`), the checks of what entries share (this file), of each
//! entry (`entry`), of what it leaves to a preset (`preset`) and of templates (`provider`), and what they report (`finding`).

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use time::OffsetDateTime;

use super::issuers::{Issuer, Issuers, Pattern};

mod entry;
mod finding;
pub mod import;
pub mod online;
pub mod preset;
mod provider;
mod raw;
pub mod source;

pub use finding::{Code, Finding, Severity};
pub use source::{Source, SourceError};

use crate::excerpt::Excerpt;
use entry::Entry;
use finding::{Place, Report, closest};
use preset::Presets;
use provider::Providers;
use raw::{RawFile, UnknownKey};

/// The newest version of the format.
const VERSION: u64 = 1;

/// Reads and checks sources; see [`Issuers::load`].
pub(super) fn read(
    sources: &[Source],
    now: Option<OffsetDateTime>,
) -> Result<(Issuers, Vec<Finding>), Vec<Finding>> {
    let (issuers, report, _) = check(sources, now);
    conclude(issuers, report)
}

/// The files that sources name and that are read with them: key sets. Also of a configuration that does not hold up.
#[must_use]
pub fn named_files(sources: &[Source]) -> Vec<PathBuf> {
    let named = sources.iter().enumerate().flat_map(|(file, source)| {
        let raw = raw::parse::<RawFile>(file, &source.text).unwrap_or_default();
        let sections = [raw.issuers, raw.meta_issuers].into_iter().flatten();
        let entries = sections.flat_map(|section| section.0);
        entries.filter_map(|(_, entry)| source.path_of(&entry.jwks_file?.value))
    });
    named.collect()
}

/// Where the entry of an issuer stands, by its id.
type Places = HashMap<Arc<str>, (Place, String)>;

/// Checks what the files alone tell.
fn check(sources: &[Source], now: Option<OffsetDateTime>) -> (Option<Issuers>, Report<'_>, Places) {
    let mut report = Report::new(sources);
    let mut places = Places::new();
    let issuers = parse(sources, &mut report).map(|files| {
        Checker {
            report: &mut report,
            providers: Providers::new(),
            presets: Presets::default(),
            ids: HashSet::new(),
            urls: HashMap::new(),
            places: &mut places,
            now,
        }
        .check(&files)
    });
    (issuers, report, places)
}

/// One error is enough for the issuers not to be used.
fn conclude(
    issuers: Option<Issuers>,
    report: Report<'_>,
) -> Result<(Issuers, Vec<Finding>), Vec<Finding>> {
    let findings = report.finish();
    let has_errors = findings
        .iter()
        .any(|finding| finding.severity == Severity::Error);
    match issuers {
        Some(issuers) if !has_errors => Ok((issuers, findings)),
        Some(_) | None => Err(findings),
    }
}

/// Reads every text into its raw form; nothing if one of them has none.
fn parse(sources: &[Source], report: &mut Report<'_>) -> Option<Vec<RawFile>> {
    let octets: usize = sources.iter().map(|source| source.text.len()).sum();
    if u64::try_from(octets).unwrap_or(u64::MAX) > source::MAX_OCTETS {
        let message = format!(
            "the configuration is larger than {} MiB",
            source::MAX_OCTETS >> 20
        );
        report.add(Code::NotReadable, Place::start(0), "", message);
        return None;
    }
    let mut files = Vec::with_capacity(sources.len());
    for (file, source) in sources.iter().enumerate() {
        match raw::parse::<RawFile>(file, &source.text) {
            Ok(raw) => files.push(raw),
            Err(why) => {
                let code = if why.is_duplicate {
                    Code::Duplicate
                } else {
                    Code::NotReadable
                };
                report.add(code, why.place, "", why.message);
            }
        }
    }
    (files.len() == sources.len()).then_some(files)
}

/// Turns raw files into issuers and reports everything that is wrong.
struct Checker<'a, 's> {
    report: &'a mut Report<'s>,
    providers: Providers,
    presets: Presets,
    /// Every id that is taken.
    ids: HashSet<String>,
    /// Every issuer with an audience of it, and where the entry stands.
    urls: HashMap<(String, String), Place>,
    places: &'a mut Places,
    /// What is soon over is told when the time is known.
    now: Option<OffsetDateTime>,
}

impl Checker<'_, '_> {
    fn check(mut self, files: &[RawFile]) -> Issuers {
        for (index, file) in files.iter().enumerate() {
            unknown_keys(self.report, index, "", &file.unknown);
            self.version(index, file);
            for (name, metadata) in file.ci_metadata.iter().flat_map(|entries| &entries.0) {
                self.providers.add(self.report, index, name, metadata);
            }
        }
        let mut entries: Vec<Entry<'_>> = files
            .iter()
            .enumerate()
            .flat_map(|(index, file)| Entry::all(index, file))
            .collect();
        if entries.is_empty() {
            self.report
                .add(
                    Code::NoIssuer,
                    Place::start(0),
                    "",
                    "the configuration has no issuer",
                )
                .help("list at least one under oidc-issuers");
        }
        self.keys(&entries);
        // Without its preset an entry lacks so much that what else is wrong with it cannot be told.
        entries.retain_mut(|entry| self.apply_preset(entry));
        for entry in &entries {
            unknown_keys(
                self.report,
                entry.file,
                &entry.path(None),
                &entry.raw.unknown,
            );
            self.given_id(entry);
        }
        let mut exact = Vec::new();
        let mut wildcards = Vec::new();
        for entry in &entries {
            if entry.is_wildcard {
                wildcards.extend(self.wildcard(entry));
            } else {
                exact.extend(self.exact(entry));
            }
        }
        self.overlaps(&wildcards);
        self.informational(&entries);
        self.lookalikes(&entries);
        self.providers.report_unused(self.report);
        let wildcards = wildcards
            .into_iter()
            .map(|(_, pattern, issuer)| (pattern, issuer));
        Issuers::new(exact, wildcards.collect())
    }

    fn version(&mut self, index: usize, file: &RawFile) {
        if let Some(version) = &file.version
            && version.value != VERSION
        {
            let message = format!(
                "this program reads version {VERSION} of the format, not {}",
                version.value
            );
            let place = Place::of(index, version);
            self.report.add(Code::Setting, place, "/version", message);
        }
    }

    /// A key stands once in a file, as the reader sees to; it must also stand once in all of them.
    fn keys(&mut self, entries: &[Entry<'_>]) {
        let mut seen: HashMap<(bool, &str), Place> = HashMap::new();
        for entry in entries {
            let place = entry.place();
            if let Some(other) = seen.insert((entry.is_wildcard, &entry.key.value), place) {
                let (file, line) = (self.report.file(other.file), other.line);
                let message = format!("the entry {} stands twice", Excerpt::new(&entry.key.value));
                self.report
                    .add(Code::Duplicate, place, &entry.path(None), message)
                    .help(format!("the other stands at {file}:{line}"));
            }
        }
    }

    /// Which of two patterns counts must not depend on their order.
    fn overlaps(&mut self, wildcards: &[(Place, Pattern, Issuer)]) {
        // Only those of one domain can match the same URL.
        let mut before: HashMap<(&str, usize), Vec<&Pattern>> = HashMap::new();
        for (place, pattern, _) in wildcards {
            let key = (pattern.domain(), pattern.literal_characters());
            let as_specific = before.entry(key).or_default();
            let other = as_specific.iter().find(|other| other.overlaps(pattern));
            if let Some(other) = other {
                let path = pointer(&["meta-issuers", &pattern.to_string()]);
                let message = format!("the pattern matches the same URLs as {other}");
                self.report
                    .add(Code::Overlap, *place, &path, message)
                    .help("of patterns that match one URL, one must have more literal characters");
            }
            as_specific.push(pattern);
        }
    }

    /// Settings that Fulcio's files have for people to read. One finding for all entries.
    fn informational(&mut self, entries: &[Entry<'_>]) {
        let mut with = entries.iter().filter_map(|entry| {
            let environment = entry.raw.environment.as_ref()?;
            Some((entry, environment))
        });
        let Some((entry, environment)) = with.next() else {
            return;
        };
        let message = match with.count() {
            0 => "environment has no effect".to_owned(),
            others => format!("environment has no effect (here and in {others} more entries)"),
        };
        self.report
            .add(
                Code::NoEffect,
                Place::of(entry.file, environment),
                &entry.path(Some("environment")),
                message,
            )
            .help("this server issues for every entry; leave out what it must not trust");
    }

    /// A cluster's tokens carry one of two URLs; with one of them configured, those with the other are refused.
    fn lookalikes(&mut self, entries: &[Entry<'_>]) {
        const NAMES: [&str; 2] = [
            "https://kubernetes.default.svc",
            "https://kubernetes.default.svc.cluster.local",
        ];
        let [short, long] =
            NAMES.map(|name| entries.iter().find(|entry| entry.url() == Some(name)));
        let ((Some(entry), None, [_, other]) | (None, Some(entry), [other, _])) =
            (short, long, NAMES)
        else {
            return;
        };
        let message = format!("tokens of a cluster may have the issuer {other} instead");
        self.report
            .add(Code::Lookalike, entry.place(), &entry.path(None), message)
            .help("look at the `iss` of one of its tokens; both can be configured");
    }
}

/// Reports keys that have no meaning where they stand.
fn unknown_keys(report: &mut Report<'_>, file: usize, path: &str, unknown: &[UnknownKey]) {
    for UnknownKey { key, known } in unknown {
        // JSON's names begin with capitals, YAML's do not.
        let is_json = key.value.starts_with(char::is_uppercase);
        let known = known
            .iter()
            .copied()
            .filter(|name| name.starts_with(char::is_uppercase) == is_json);
        let help = match closest(&key.value, known) {
            Some(name) => format!("did you mean `{name}`?"),
            None => "expected one of the keys of the format; anchors can stand under `define`"
                .to_owned(),
        };
        let path = format!("{path}{}", pointer(&[&key.value]));
        let message = format!("unknown key {}", Excerpt::new(&key.value));
        report
            .add(Code::UnknownKey, Place::of(file, key), &path, message)
            .help(help);
    }
}

/// A JSON pointer (RFC 6901).
fn pointer(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| format!("/{}", name.replace('~', "~0").replace('/', "~1")))
        .collect()
}

#[cfg(test)]
mod tests;
