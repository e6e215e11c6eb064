//! `mayfly diff-config`: what an edit of an identity configuration does to trust.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::test_config::{find_files, read_tests};
use super::{Failure, load, plain, print};
use crate::identity::json::{Object, parse_object};
use crate::identity::jws::MAX_DEPTH;
use crate::policy::diff::{Change, Difference, Direction, PartDifference};
use crate::server::Environment;

/// The arguments of `mayfly diff-config`.
#[derive(Args, Debug)]
#[command(after_help = "\
Every change is wider, narrower or the same. What cannot be shown to be narrower or the same counts as wider: another
template, another type, a rule of allow that no rule allowed before.

Exit code: 0; with --exit-code 1 if trust is wider; 3 if a configuration is wrong.

Example, for a review:
  git worktree add /tmp/base origin/main
  mayfly diff-config /tmp/base/identity.d identity.d --corpus tests --format markdown --exit-code")]
pub(super) struct Arguments {
    /// The configuration as it was: a file, or a folder of files
    #[arg(value_name = "OLD")]
    old: PathBuf,
    /// The configuration as it is to be
    #[arg(value_name = "NEW")]
    new: PathBuf,
    /// Golden tests (.test.yaml) or claims, one JSON object a line (.ndjson): what comes of which is compared too
    #[arg(long, value_name = "PATH")]
    corpus: Vec<PathBuf>,
    /// End with exit code 1 if trust is wider
    #[arg(long)]
    exit_code: bool,
    /// How the difference is printed
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For the comment of a pull request.
    Markdown,
    /// One JSON document, diff-v1.
    Json,
}

pub(super) fn run(arguments: &Arguments, environment: &Environment) -> Result<(), Failure> {
    let now = environment.clock.now();
    let old = load(&arguments.old, now)?;
    let new = load(&arguments.new, now)?;
    let corpus = corpus(&arguments.corpus)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .map_err(Failure::defect)?;
    let mut difference = Difference::of(&old, &new);
    for (name, claims) in &corpus {
        runtime.block_on(difference.add(name, claims, &old, &new, now));
    }
    print(&match arguments.format {
        Format::Text => text(&difference),
        Format::Markdown => markdown(&difference),
        Format::Json => {
            let json = serde_json::to_string_pretty(&difference).map_err(Failure::defect)?;
            json + "\n"
        }
    })?;
    if arguments.exit_code && difference.direction == Direction::Wider {
        return Err(Failure::operation("trust is wider"));
    }
    Ok(())
}

/// Every claims set of the corpus, with a name.
fn corpus(paths: &[PathBuf]) -> Result<Vec<(String, Object)>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        find_files(path, &[".test.yaml", ".ndjson"], &mut files)?;
    }
    let mut corpus = Vec::new();
    for path in files {
        if path
            .extension()
            .is_some_and(|extension| extension == "ndjson")
        {
            corpus.extend(lines_of_claims(&path)?);
        } else {
            let file = read_tests(&path)?;
            corpus.extend(
                file.claims()
                    .map(|(name, claims)| (name.to_owned(), claims)),
            );
        }
    }
    Ok(corpus)
}

fn lines_of_claims(path: &Path) -> Result<Vec<(String, Object)>, Failure> {
    let name = path.display();
    let failed = |error: &dyn std::fmt::Display| Failure::configuration(format!("{name}: {error}"));
    let text = fs::read_to_string(path).map_err(|error| failed(&error))?;
    let lines = text
        .lines()
        .zip(1..)
        .filter(|(line, _)| !line.trim().is_empty());
    let claims = lines.map(|(line, number)| {
        let claims = parse_object(line.as_bytes(), MAX_DEPTH);
        let claims = claims.map_err(|error| failed(&format_args!("line {number}: {error}")))?;
        Ok((format!("{name}:{number}"), claims))
    });
    claims.collect()
}

/// What all of it does to trust, in a sentence.
const fn verdict(difference: &Difference) -> &'static str {
    match (
        difference.direction,
        difference.parts.is_empty() && difference.corpus.is_empty(),
    ) {
        (Direction::Wider, _) => "Trust is wider.",
        (Direction::Narrower, _) => "Trust is narrower.",
        (Direction::Same, false) => "Trust is the same.",
        (Direction::Same, true) => "Nothing changes.",
    }
}

/// What a part is called.
fn title(part: &PartDifference) -> String {
    let url = part
        .url
        .as_ref()
        .map_or_else(String::new, |url| format!(" ({url})"));
    format!("{} {}{url} {}", part.kind, part.name, part.what)
}

fn text(difference: &Difference) -> String {
    let mut text = format!("{}\n", verdict(difference));
    // Writing to a `String` does not fail.
    for part in &difference.parts {
        let _ = writeln!(text, "\n{}", plain(&title(part)));
        for Change {
            direction,
            setting,
            old,
            new,
        } in &part.changes
        {
            let _ = writeln!(text, "  {:<9} {}", direction.name(), plain(setting));
            for (mark, value) in [('-', old), ('+', new)] {
                if let Some(value) = value {
                    let _ = writeln!(text, "            {mark} {}", plain(value));
                }
            }
        }
    }
    if !difference.corpus.is_empty() {
        let _ = writeln!(text, "\nClaims that come to something else");
    }
    for changed in &difference.corpus {
        let _ = writeln!(
            text,
            "  {:<9} {}",
            changed.direction.name(),
            plain(&changed.name)
        );
        let _ = writeln!(
            text,
            "            - {}\n            + {}",
            plain(&changed.old),
            plain(&changed.new)
        );
    }
    text
}

fn markdown(difference: &Difference) -> String {
    let mut text = format!("### {}\n", verdict(difference));
    let cell = |value: Option<&String>| value.map_or_else(String::new, |value| code(value));
    for part in &difference.parts {
        let url = part
            .url
            .as_ref()
            .map_or_else(String::new, |url| format!(" {}", code(url)));
        let _ = writeln!(
            text,
            "\n**{} {}**{url} {}\n",
            part.kind,
            code(&part.name),
            part.what
        );
        text.push_str("| Trust | Setting | Before | After |\n|---|---|---|---|\n");
        for Change {
            direction,
            setting,
            old,
            new,
        } in &part.changes
        {
            let (old, new) = (cell(old.as_ref()), cell(new.as_ref()));
            let _ = writeln!(
                text,
                "| {} | {} | {old} | {new} |",
                direction.name(),
                code(setting)
            );
        }
    }
    if !difference.corpus.is_empty() {
        text.push_str("\n**Claims that come to something else**\n\n| Trust | Claims | Before | After |\n|---|---|---|---|\n");
    }
    for changed in &difference.corpus {
        let direction = changed.direction.name();
        let [name, old, new] = [&changed.name, &changed.old, &changed.new].map(|text| code(text));
        let _ = writeln!(text, "| {direction} | {name} | {old} | {new} |");
    }
    text
}

/// A text as code in the cell of a table, where it means nothing else.
fn code(text: &str) -> String {
    let text = plain(text).replace('|', "\\|");
    let longest = text.split(|character| character != '`').map(str::len).max();
    let fence = "`".repeat(longest.unwrap_or(0) + 1);
    match fence.len() {
        1 => format!("`{text}`"),
        _ => format!("{fence} {text} {fence}"),
    }
}
