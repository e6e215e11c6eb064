//! `mayfly check-config`: everything that is wrong with a configuration, at once, before it is in force: who may have a
//! certificate, and what the server is made of.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{ConfigPaths, Failure, counted, print};
use crate::check::{ServerCheck, check, check_logs};
use crate::config::Settings;
use crate::ctlog::remote::RemoteLogParts;
use crate::fetch::{FetchLimits, HttpFetcher};
use crate::identity::config::{Code, Finding, Severity, online, source};
use crate::identity::{Issuers, Source};
use crate::metrics::Metrics;
use crate::server::Environment;

/// The arguments of `mayfly check-config`.
#[derive(Args, Debug)]
pub(super) struct Arguments {
    /// The same as --identity-config, and before it
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,
    #[command(flatten)]
    paths: ConfigPaths,
    /// A file with the passphrase of the CA's key and the log's key
    #[arg(
        long,
        env = "MAYFLY_CA_KEY_PASSWORD_FILE",
        value_name = "FILE",
        hide_env_values = true
    )]
    ca_key_password_file: Option<PathBuf>,
    /// Ask each issuer for its keys too, as the server does, and each log of others whether it takes our certificates
    #[arg(long)]
    online: bool,
    /// Warnings fail the check too
    #[arg(long)]
    strict: bool,
    /// How findings are printed
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// A warning that fails the check, by its code; may be repeated
    #[arg(long, value_name = "CODE", value_parser = code)]
    deny: Vec<Code>,
    /// A warning that is not printed, by its code; may be repeated
    #[arg(long, value_name = "CODE", value_parser = code)]
    allow: Vec<Code>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people: each finding with the line that it is about.
    Text,
    /// One JSON array.
    Json,
    /// SARIF 2.1.0, for code scanning.
    Sarif,
    /// Annotations of GitHub Actions.
    Github,
}

fn code(text: &str) -> Result<Code, String> {
    let known = Code::ALL.iter().find(|code| code.name() == text);
    known
        .copied()
        .ok_or_else(|| "no such code; docs/config-errors.md lists them".to_owned())
}

pub(super) fn run(arguments: &Arguments, environment: &Environment) -> Result<(), Failure> {
    let mut findings = Vec::new();
    let path = match arguments.identity_config() {
        Some(path) if !arguments.paths.names_server() => Some(path.clone()),
        given => {
            let check = arguments.check_server(environment)?;
            findings = check.findings;
            let configured = check.config.map(|config| config.identity_config);
            given.cloned().or(configured)
        }
    };
    // Without settings that hold up, nobody knows where it is.
    let sources = path.as_deref().map(source::read).transpose();
    let sources = sources.map_err(Failure::configuration)?.unwrap_or_default();
    let mut issuers = None;
    if path.is_some() {
        let (loaded, found) = load(&sources, arguments.online, environment)?;
        issuers = loaded;
        findings.extend(found);
    }
    let findings = arguments.judge(findings);
    let count = |severity| {
        let of = |finding: &&Finding| finding.severity == severity;
        findings.iter().filter(of).count()
    };
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    print(&match arguments.format {
        Format::Text => text(&findings, &sources),
        Format::Json => json(&findings)?,
        Format::Sarif => sarif(&findings)?,
        Format::Github => github(&findings),
    })?;
    let server = arguments.paths.names_server().then_some("the server");
    let parts = [
        server.map(ToOwned::to_owned),
        path.map(|path| path.display().to_string()),
    ];
    let what = parts
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" and ");
    let summary = format!(
        "{what}: {}, {}",
        counted(errors, "error"),
        counted(warnings, "warning")
    );
    if errors > 0 || (arguments.strict && warnings > 0) {
        return Err(Failure::configuration(summary));
    }
    if matches!(arguments.format, Format::Text) {
        let entries = issuers.map_or(0, |issuers| issuers.all().len());
        print(&format!("{summary}, {}\n", counted(entries, "issuer")))?;
    }
    Ok(())
}

/// Reads the sources; online it asks the issuers too, by the fetcher of the server, with its limits.
fn load(
    sources: &[Source],
    is_online: bool,
    environment: &Environment,
) -> Result<(Option<Issuers>, Vec<Finding>), Failure> {
    let now = environment.clock.now();
    let loaded = if is_online {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Failure::defect)?;
        let fetcher = HttpFetcher::new(
            runtime.handle().clone(),
            FetchLimits::default(),
            Arc::clone(&environment.resolver),
            environment.cluster_files.clone(),
        );
        // The fetches are counted for nobody.
        let metrics = Metrics::new().map_err(Failure::defect)?;
        runtime.block_on(online::load(sources, now, &fetcher, &metrics))
    } else {
        Issuers::load(sources, Some(now))
    };
    Ok(match loaded {
        Ok((issuers, warnings)) => (Some(issuers), warnings),
        Err(findings) => (None, findings),
    })
}

impl Arguments {
    fn identity_config(&self) -> Option<&PathBuf> {
        self.path.as_ref().or(self.paths.identity_config.as_ref())
    }

    /// Checks the server's own configuration; online it asks the logs of others too.
    fn check_server(&self, environment: &Environment) -> Result<ServerCheck, Failure> {
        let settings = Settings {
            ca_key_password_file: self.ca_key_password_file.clone(),
            identity_config: self.identity_config().cloned(),
            ..self.paths.settings()
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(Failure::defect)?;
        let now = environment.clock.now();
        let checking = check(settings, self.paths.file.config.as_deref(), now);
        let mut found = runtime.block_on(checking);
        if let Some(config) = found.config.as_ref().filter(|_| self.online) {
            let parts = RemoteLogParts {
                runtime: runtime.handle().clone(),
                resolver: Arc::clone(&environment.resolver),
                clock: Arc::clone(&environment.clock),
                // What is asked is counted for nobody.
                metrics: Metrics::new().map_err(Failure::defect)?.ct_log("check"),
                answer_within: FetchLimits::default().total,
            };
            let logs = runtime.block_on(check_logs(config, &parts));
            found.findings.extend(logs);
        }
        Ok(found)
    }

    /// Applies `--allow` and `--deny`. An error stays one.
    fn judge(&self, findings: Vec<Finding>) -> Vec<Finding> {
        let judged = findings.into_iter().filter_map(|mut finding| {
            if finding.severity == Severity::Warning {
                if self.allow.contains(&finding.code) {
                    return None;
                }
                if self.deny.contains(&finding.code) {
                    finding.severity = Severity::Error;
                }
            }
            Some(finding)
        });
        judged.collect()
    }
}

/// Each finding with the line that it is about, and a mark under what is meant.
pub(super) fn text(findings: &[Finding], sources: &[Source]) -> String {
    let mut text = String::new();
    for finding in findings {
        let Finding {
            code,
            severity,
            message,
            file,
            line,
            column,
            end_column,
            help,
            ..
        } = finding;
        // Writing to a `String` does not fail.
        let _ = writeln!(text, "{}[{code}]: {message}", severity.name());
        let number = line.to_string();
        let margin = " ".repeat(number.len());
        let _ = writeln!(text, "{margin}--> {file}:{line}:{column}");
        if let Some(shown) = line_of(sources, file, *line) {
            let before: String = shown
                .chars()
                .take(usize::try_from(column - 1).unwrap_or(0))
                .map(|character| if character == '\t' { '\t' } else { ' ' })
                .collect();
            let left = shown.chars().count().saturating_sub(before.chars().count());
            let width = usize::try_from(end_column.saturating_sub(*column)).unwrap_or(1);
            let mark = "^".repeat(width.min(left).max(1));
            let help = help.as_ref();
            let help = help.map_or_else(String::new, |help| format!(" help: {help}"));
            let _ = writeln!(text, "{margin} |\n{number} | {shown}");
            let _ = writeln!(text, "{margin} | {before}{mark}{help}");
        } else if let Some(help) = help {
            let _ = writeln!(text, "{margin} = help: {help}");
        }
        text.push('\n');
    }
    text
}

/// A line of a source, unless it is empty or too long to be read.
fn line_of<'a>(sources: &'a [Source], file: &Arc<str>, line: u64) -> Option<&'a str> {
    const MAX_SHOWN: usize = 200;
    let source = sources.iter().find(|source| source.name == *file)?;
    let line = source.text.lines().nth(usize::try_from(line - 1).ok()?)?;
    let is_shown = !line.trim().is_empty()
        && line.len() <= MAX_SHOWN
        && !line
            .chars()
            .any(|character| character.is_control() && character != '\t');
    is_shown.then_some(line)
}

fn json(findings: &[Finding]) -> Result<String, Failure> {
    let json = serde_json::to_string_pretty(findings).map_err(Failure::defect)?;
    Ok(json + "\n")
}

/// The Static Analysis Results Interchange Format (OASIS, version 2.1.0).
fn sarif(findings: &[Finding]) -> Result<String, Failure> {
    let rules: Vec<_> = Code::ALL
        .iter()
        .map(|code| json!({ "id": code.name(), "shortDescription": { "text": code.title() } }))
        .collect();
    let results: Vec<_> = findings
        .iter()
        .map(|finding| {
            let help = finding.help.as_ref();
            let help = help.map_or_else(String::new, |help| format!(" ({help})"));
            json!({
                "ruleId": finding.code,
                "level": finding.severity,
                "message": { "text": format!("{}{help}", finding.message) },
                "locations": [{ "physicalLocation": {
                    "artifactLocation": { "uri": finding.file },
                    "region": {
                        "startLine": finding.line,
                        "startColumn": finding.column,
                        "endLine": finding.end_line,
                        "endColumn": finding.end_column.max(finding.column + 1),
                    },
                } }],
            })
        })
        .collect();
    let document = json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "mayfly", "version": crate::VERSION, "rules": rules } },
            "results": results,
        }],
    });
    let text = serde_json::to_string_pretty(&document).map_err(Failure::defect)?;
    Ok(text + "\n")
}

/// Workflow commands of GitHub Actions, which show a finding beside the line of a pull request.
fn github(findings: &[Finding]) -> String {
    let escaped = |text: &str| {
        text.replace('%', "%25")
            .replace('\r', "%0D")
            .replace('\n', "%0A")
    };
    let property = |text: &str| escaped(text).replace(':', "%3A").replace(',', "%2C");
    let mut text = String::new();
    for finding in findings {
        let help = finding.help.as_ref();
        let help = help.map_or_else(String::new, |help| format!(" ({help})"));
        // Writing to a `String` does not fail.
        let _ = writeln!(
            text,
            "::{} file={},line={},col={},endLine={},endColumn={},title={}::{}",
            finding.severity.name(),
            property(&finding.file),
            finding.line,
            finding.column,
            finding.end_line,
            finding.end_column,
            finding.code,
            escaped(&format!("{}{help}", finding.message)),
        );
    }
    text
}
