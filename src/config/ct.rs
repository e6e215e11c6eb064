//! Whose log certificates are in: the server's own, those of others, or none.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Settings, Span};
use crate::ctlog::embedded::EmbeddedLogConfig;
use crate::ctlog::ordered::Patience;
use crate::ctlog::remote::{RemoteLogConfig, RemoteLogSettings};
use crate::ctlog::sct::SctExtensions;

/// The most logs of others.
const MAX_LOGS: usize = 4;
/// How long is waited for logs of others: at least, and at most, which leaves the rest of a request half a second.
const MIN_PATIENCE: Duration = Duration::from_millis(100);
const MAX_PATIENCE: Duration = Duration::from_millis(3500);
const DEFAULT_PATIENCE: Span = Span(Duration::from_secs(2));
const DEFAULT_HEDGE: Span = Span(Duration::from_millis(700));

/// The `ct` section of the file: the server's own log, or logs of others.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct CtSettings {
    /// Whose log. Default: `embedded`, or `external` where logs of others are named.
    pub mode: Option<CtMode>,
    /// The own log's; see [`EmbeddedLogConfig`].
    pub name: Option<String>,
    /// The own log's.
    pub origin: Option<String>,
    /// The own log's.
    pub sct_extensions: SctExtensions,
    /// The own log's.
    pub high_water: Option<PathBuf>,
    /// The own log's.
    pub store: Option<String>,
    /// The own log's.
    pub max_puts_per_second: Option<u32>,
    /// The own log's.
    pub proof_by_hash: Option<bool>,
    /// Logs of others, in the order in which they are asked.
    pub logs: Vec<RemoteLogConfig>,
}

/// Whose log certificates are in.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CtMode {
    /// The server's own.
    Embedded,
    /// Those of others.
    External,
    /// Nobody's; only together with `no-ct`.
    None,
}

impl CtSettings {
    /// What concerns the own log.
    pub(super) fn embedded(&self) -> EmbeddedLogConfig {
        EmbeddedLogConfig {
            name: self.name.clone(),
            origin: self.origin.clone(),
            sct_extensions: self.sct_extensions,
            high_water: self.high_water.clone(),
            store: self.store.clone(),
            max_puts_per_second: self.max_puts_per_second,
            proof_by_hash: self.proof_by_hash,
        }
    }

    /// Paths are relative to the file that names them.
    pub(super) fn resolve_paths(&mut self, base: &Path) {
        let of_logs = self.logs.iter_mut().flat_map(|log| {
            let tls_ca_file = log.tls_ca_file.as_mut();
            std::iter::once(&mut log.public_key_file).chain(tls_ca_file)
        });
        for path in self.high_water.iter_mut().chain(of_logs) {
            *path = base.join(&path);
        }
    }
}

/// Logs of others, and how long is waited for them.
#[derive(Clone, Debug)]
pub struct ExternalLogs {
    /// In the order in which they are asked; one or more.
    pub logs: Vec<RemoteLogSettings>,
    /// How long is waited.
    pub patience: Patience,
}

impl Settings {
    /// Whose log certificates are in.
    pub(super) fn ct_mode(&self, findings: &mut Vec<String>) -> CtMode {
        let no_ct = self.no_ct.unwrap_or(false);
        // An empty URL is how Fulcio is told that there is no log.
        let has_url = self
            .ct_log_url
            .as_deref()
            .is_some_and(|url| !(url.is_empty() && no_ct));
        let is_external = has_url || !self.ct.logs.is_empty();
        let (mode, wrong) = match (self.ct.mode, no_ct) {
            (None | Some(CtMode::None), true) if !is_external => (CtMode::None, None),
            (_, true) => (
                CtMode::None,
                Some("no-ct: a log is configured; take the one or the other out"),
            ),
            (Some(CtMode::None), false) => (
                CtMode::None,
                Some(
                    "ct.mode: none; no verifier will take such certificates, so no-ct must be true as well",
                ),
            ),
            (Some(CtMode::Embedded), false) if is_external => (
                CtMode::Embedded,
                Some(
                    "ct.mode: embedded, but logs of others are named (ct.logs, ct-log-url); take them out, or give external",
                ),
            ),
            (Some(CtMode::External), false) if !is_external => (
                CtMode::External,
                Some("ct.mode: external; name the logs in ct.logs, or give ct-log-url"),
            ),
            (None, false) if is_external => (CtMode::External, None),
            (mode, false) => (mode.unwrap_or(CtMode::Embedded), None),
        };
        findings.extend(wrong.map(str::to_owned));
        mode
    }

    /// The logs of others, if there are any.
    pub(super) fn external_logs(&self, findings: &mut Vec<String>) -> Option<ExternalLogs> {
        let mut logs: Vec<RemoteLogSettings> = Vec::new();
        for (place, config) in self.named_logs(findings) {
            match config.check() {
                Ok(log) if logs.iter().any(|other| other.name() == log.name()) => {
                    let name = log.name();
                    findings.push(format!(
                        "{place}.name: {name:?} is the name of another log; give each its own"
                    ));
                }
                Ok(log) => logs.push(log),
                Err(error) => findings.push(format!("{place}: {error}")),
            }
        }
        if logs.len() > MAX_LOGS {
            findings.push(format!(
                "ct.logs: more than {MAX_LOGS}; each certificate is in one of them"
            ));
        }
        let patience = self.patience(findings);
        (!logs.is_empty()).then_some(ExternalLogs { logs, patience })
    }

    /// The logs of others as they are named, each with its place.
    fn named_logs(&self, findings: &mut Vec<String>) -> Vec<(String, RemoteLogConfig)> {
        let Some(url) = &self.ct_log_url else {
            let in_file = self.ct.logs.iter().cloned().enumerate();
            return in_file
                .map(|(number, log)| (format!("ct.logs[{number}]"), log))
                .collect();
        };
        if url.is_empty() {
            if self.no_ct != Some(true) {
                let what = "ct-log-url: empty, and no verifier takes a certificate that is in no log; give no-ct if that \
                            is meant, or leave this out for a log of our own (mayfly init, data-dir)";
                findings.push(what.to_owned());
            }
            return Vec::new();
        }
        if !self.ct.logs.is_empty() {
            findings.push("ct-log-url: ct.logs names logs too; give one of the two".to_owned());
        }
        let Some(public_key_file) = self.ct_log_public_key.clone() else {
            let what = "ct-log-public-key: missing; without it, nobody can tell the log's timestamps from forged ones";
            findings.push(what.to_owned());
            return Vec::new();
        };
        let log = RemoteLogConfig {
            url: url.clone(),
            public_key_file,
            name: None,
            tls_ca_file: self.ct_log_tls_ca.clone(),
            host: self.ct_log_host.clone(),
        };
        vec![("ct-log-url".to_owned(), log)]
    }

    /// How long is waited for logs of others.
    fn patience(&self, findings: &mut Vec<String>) -> Patience {
        let in_all = self.ct_submit_timeout.unwrap_or(DEFAULT_PATIENCE);
        let hedge_after = self.ct_hedge_after.unwrap_or(DEFAULT_HEDGE);
        if !(MIN_PATIENCE..=MAX_PATIENCE).contains(&in_all.0) {
            findings.push(format!(
                "ct-submit-timeout: {in_all}; give {} to {}: every request is answered within 4s",
                Span(MIN_PATIENCE),
                Span(MAX_PATIENCE)
            ));
        }
        Patience {
            hedge_after: hedge_after.0,
            in_all: in_all.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    const KEY: &str = "public-key-file: log.pub";

    /// What whoever writes this comes to, and what is wrong with it.
    fn read(text: &str) -> (CtMode, Vec<String>, Vec<String>) {
        let settings = Settings::parse("mayfly.yaml", text, HashMap::new()).unwrap();
        let mut findings = Vec::new();
        let mode = settings.ct_mode(&mut findings);
        let logs = settings.external_logs(&mut findings);
        let names = logs.iter().flat_map(|external| &external.logs);
        let names = names.map(|log| format!("{} {}", log.name(), log.url()));
        (mode, names.collect(), findings)
    }

    #[test]
    fn without_a_word_the_log_is_our_own() {
        assert_eq!(read(""), (CtMode::Embedded, vec![], vec![]));
        assert_eq!(read("ct: { name: main }").0, CtMode::Embedded);
        assert_eq!(read("no-ct: true"), (CtMode::None, vec![], vec![]));
    }

    #[test]
    fn an_empty_url_is_no_log_when_that_is_said() {
        assert_eq!(
            read("no-ct: true\nct-log-url: ''"),
            (CtMode::None, vec![], vec![])
        );
    }

    #[test]
    fn logs_of_others_take_the_place_of_our_own() {
        let flags = "ct-log-url: http://localhost:6962/test/\nct-log-public-key: log.pub";
        let (mode, names, findings) = read(flags);
        assert_eq!((mode, findings), (CtMode::External, vec![]));
        assert_eq!(names, ["localhost http://localhost:6962/test"]);

        let (mode, names, findings) = read(&format!(
            "ct:\n  logs:\n  - {{ url: 'https://one.example/2027', {KEY} }}\n  - {{ url: 'https://[2001:db8::1]', {KEY} }}\n"
        ));
        assert_eq!((mode, findings), (CtMode::External, vec![]));
        let expected = [
            "one.example https://one.example/2027",
            "2001-db8--1 https://[2001:db8::1]",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn what_does_not_go_together_is_named_by_its_setting() {
        let log = format!("logs: [{{ url: 'https://log.example', {KEY} }}]");
        let two = format!(
            "logs: [{{ url: 'https://log.example/1', {KEY} }}, {{ url: 'https://log.example/2', {KEY} }}]"
        );
        for (text, expected) in [
            (
                "ct-log-url: https://log.example".to_owned(),
                "ct-log-public-key: missing",
            ),
            ("ct-log-url: ''".to_owned(), "ct-log-url: empty"),
            (
                format!("ct-log-url: https://x.example\nct-log-public-key: x\nct: {{ {log} }}"),
                "ct-log-url: ct.logs",
            ),
            (
                format!("no-ct: true\nct: {{ {log} }}"),
                "no-ct: a log is configured",
            ),
            (
                "no-ct: true\nct: { mode: embedded }".to_owned(),
                "no-ct: a log is configured",
            ),
            ("ct: { mode: none }".to_owned(), "ct.mode: none"),
            ("ct: { mode: external }".to_owned(), "ct.mode: external"),
            (
                format!("ct: {{ mode: embedded, {log} }}"),
                "ct.mode: embedded",
            ),
            (
                format!("ct: {{ {two} }}"),
                "ct.logs[1].name: \"log.example\"",
            ),
            (
                format!("ct: {{ logs: [{{ url: 'https://log.example/ct/v1/', {KEY} }}] }}"),
                "ct.logs[0]: url: ",
            ),
            (
                format!("ct: {{ logs: [{{ url: 'ftp://log.example', {KEY} }}] }}"),
                "ct.logs[0]: url: ",
            ),
            (
                format!("ct: {{ logs: [{{ url: 'https://log.example?x', {KEY} }}] }}"),
                "ct.logs[0]: url: ",
            ),
            (
                format!("ct: {{ logs: [{{ url: 'https://log.example', name: A, {KEY} }}] }}"),
                "ct.logs[0]: name: ",
            ),
            (
                "ct-submit-timeout: 4s".to_owned(),
                "ct-submit-timeout: 4s; give 100ms to 3s500ms",
            ),
        ] {
            let (_, _, findings) = read(&text);
            let [finding] = &findings[..] else {
                panic!("{text}: {findings:?}");
            };
            assert!(finding.starts_with(expected), "{text}: {finding}");
        }
    }
}
