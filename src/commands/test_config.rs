//! `mayfly test-config`: golden tests of an identity configuration.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{ConfigPaths, Failure, counted, plain, print};
use crate::commands::say;
use crate::policy::golden::{GoldenFile, GoldenResult};
use crate::server::Environment;

/// How deep folders are searched for tests.
const MAX_DEPTH: usize = 16;

/// The arguments of `mayfly test-config`.
#[derive(Args, Debug)]
#[command(after_help = "\
A test has a name, claims, and what must come of them:

  - name: release workflow of acme/app
    preset-claims: github          # what a real token of that kind carries; claims below come before it
    claims: { run_attempt: 2 }
    expect:
      san: https://github.com/acme/app/.github/workflows/release.yml@refs/tags/v1.0.0
      extensions: { source-repository-ref: refs/tags/v1.0.0 }   # by name or OID; null: not there
  - name: branches are refused
    preset-claims: github
    claims: { ref: refs/heads/main }
    expect: { refused: no_allow_rule_matched }

preset-claims: the name of a preset, whose claims `mayfly presets claims NAME` prints; a claim that is null is taken away
from them. A test of a refusal should differ from one that passes in one claim only: then it shows what that one does.
Without `at`, a test happens while its token is valid.

Exit code: 0 if all tests pass, 1 if not or there is none, 3 if the configuration or a test cannot be read.")]
pub(super) struct Arguments {
    #[command(flatten)]
    paths: ConfigPaths,
    /// Files of tests, or folders with files whose names end in .test.yaml
    #[arg(value_name = "PATH", required = true)]
    tests: Vec<PathBuf>,
    /// How results are printed
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
    /// Write into the files what came of the tests that failed, in place of what was expected; then read the difference
    #[arg(long)]
    update: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// The Test Anything Protocol, version 14.
    Tap,
    /// XML as of `JUnit`, which most CI systems show.
    Junit,
}

/// A file with how its tests ended.
struct Ran {
    file: GoldenFile,
    results: Vec<GoldenResult>,
}

pub(super) fn run(arguments: &Arguments, environment: &Environment) -> Result<(), Failure> {
    let now = environment.clock.now();
    let issuers = arguments.paths.issuers(now)?;
    let mut paths = Vec::new();
    for path in &arguments.tests {
        find_files(path, &[".test.yaml"], &mut paths)?;
    }
    let files: Vec<GoldenFile> = paths
        .iter()
        .map(|path| read_tests(path))
        .collect::<Result<_, _>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(Failure::defect)?;
    let ran = files.into_iter().map(|file| Ran {
        results: runtime.block_on(file.run(&issuers, now)),
        file,
    });
    let ran: Vec<Ran> = ran.collect();
    print(&match arguments.format {
        Format::Text => text(&ran),
        Format::Tap => tap(&ran),
        Format::Junit => junit(&ran),
    })?;
    let results = || ran.iter().flat_map(|ran| &ran.results);
    let total = results().count();
    let failed = results()
        .filter(|result| !result.differences.is_empty())
        .count();
    if total == 0 {
        return Err(Failure::operation(
            "there are no tests; their files end in .test.yaml",
        ));
    }
    if arguments.update && failed > 0 {
        for (path, ran) in paths.iter().zip(&ran) {
            update(path, ran)?;
        }
        for result in results().filter(|result| result.is_now_issued) {
            let name = plain(&result.name);
            say!("mayfly: {name}: expected a refusal, and now expects a certificate");
        }
        say!("mayfly: {} rewritten", counted(failed, "expectation"));
        return Ok(());
    }
    match failed {
        0 => Ok(()),
        _ => Err(Failure::operation(format!(
            "{failed} of {} failed",
            counted(total, "test")
        ))),
    }
}

/// Finds files with one of these endings below a folder, in the order of their names. A path that is a file itself counts
/// whatever its name is.
pub(super) fn find_files(
    path: &Path,
    endings: &[&str],
    found: &mut Vec<PathBuf>,
) -> Result<(), Failure> {
    if describe(path)?.is_file() {
        found.push(path.to_owned());
        return Ok(());
    }
    find_below(path, endings, MAX_DEPTH, found)
}

fn find_below(
    folder: &Path,
    endings: &[&str],
    depth: usize,
    found: &mut Vec<PathBuf>,
) -> Result<(), Failure> {
    let failed = |error| unreadable(folder, &error);
    let mut inside = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        inside.push(entry.map_err(failed)?.path());
    }
    inside.sort();
    for path in inside {
        if describe(&path)?.is_dir() {
            if depth > 0 {
                find_below(&path, endings, depth - 1, found)?;
            }
        } else if endings
            .iter()
            .any(|ending| path.to_string_lossy().ends_with(ending))
        {
            found.push(path);
        }
    }
    Ok(())
}

fn describe(path: &Path) -> Result<fs::Metadata, Failure> {
    fs::metadata(path).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::configuration(format!("{}: {error}", path.display()))
}

/// Reads a file of tests.
pub(super) fn read_tests(path: &Path) -> Result<GoldenFile, Failure> {
    let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    GoldenFile::parse(&path.display().to_string(), &text).map_err(Failure::configuration)
}

/// Writes a file anew, if one of its tests failed.
fn update(path: &Path, Ran { file, results }: &Ran) -> Result<(), Failure> {
    if results.iter().all(|result| result.differences.is_empty()) {
        return Ok(());
    }
    let text = file.updated(results).map_err(Failure::operation)?;
    fs::write(path, text)
        .map_err(|error| Failure::operation(format!("{}: {error}", path.display())))
}

fn text(ran: &[Ran]) -> String {
    let mut text = String::new();
    for Ran { file, results } in ran {
        let _ = writeln!(text, "{}", file.name);
        for result in results {
            let mark = if result.differences.is_empty() {
                "ok"
            } else {
                "FAIL"
            };
            let _ = writeln!(text, "  {mark:<5}{}", plain(&result.name));
            for difference in &result.differences {
                let _ = writeln!(text, "       line {}: {difference}", result.line);
            }
        }
    }
    let results = || ran.iter().flat_map(|ran| &ran.results);
    let passed = results()
        .filter(|result| result.differences.is_empty())
        .count();
    let _ = writeln!(
        text,
        "{passed} of {} passed",
        counted(results().count(), "test")
    );
    text
}

fn tap(ran: &[Ran]) -> String {
    let count: usize = ran.iter().map(|ran| ran.results.len()).sum();
    let mut text = format!("TAP version 14\n1..{count}\n");
    let results = ran
        .iter()
        .flat_map(|ran| ran.results.iter().map(|result| (&ran.file, result)));
    for ((file, result), number) in results.zip(1..) {
        let verdict = if result.differences.is_empty() {
            "ok"
        } else {
            "not ok"
        };
        let name = plain(&result.name)
            .replace('\\', "\\\\")
            .replace('#', "\\#");
        let _ = writeln!(text, "{verdict} {number} - {name}");
        if !result.differences.is_empty() {
            let at = format!("{}:{}", file.name, result.line);
            let _ = writeln!(text, "  ---\n  at: {}\n  differences:", Value::from(at));
            for difference in &result.differences {
                let _ = writeln!(text, "    - {}", Value::from(difference.as_str()));
            }
            let _ = writeln!(text, "  ...");
        }
    }
    text
}

fn junit(ran: &[Ran]) -> String {
    let mut text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n".to_owned();
    for Ran { file, results } in ran {
        let failures = results
            .iter()
            .filter(|result| !result.differences.is_empty())
            .count();
        let name = xml(&file.name);
        let _ = writeln!(
            text,
            "  <testsuite name=\"{name}\" tests=\"{}\" failures=\"{failures}\">",
            results.len()
        );
        for result in results {
            let case = format!(
                "    <testcase name=\"{}\" classname=\"{name}\" file=\"{name}\" line=\"{}\"",
                xml(&result.name),
                result.line
            );
            match &result.differences[..] {
                [] => {
                    let _ = writeln!(text, "{case}/>");
                }
                differences => {
                    let differences = xml(&differences.join("; "));
                    let _ = writeln!(
                        text,
                        "{case}>\n      <failure message=\"{differences}\"/>\n    </testcase>"
                    );
                }
            }
        }
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

/// A text as the value of an attribute.
fn xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in plain(text).chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            character => escaped.push(character),
        }
    }
    escaped
}
