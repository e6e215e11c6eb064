//! Hostile input and broken surroundings: one test, or more, for each row of `docs/security-tests.md`.

use std::collections::BTreeSet;
use std::path::Path;

mod certificates;
mod durability;
mod http;
mod http2;
mod issuers;
mod logs;
mod operations;
mod proofs;
mod rules;
mod signing_keys;
mod templates;
mod tokens;

/// The rows that there must be.
fn required_rows() -> BTreeSet<String> {
    let mut rows = BTreeSet::new();
    let mut add = |letter: char, numbers: &[std::ops::RangeInclusive<u8>]| {
        for number in numbers.iter().cloned().flatten() {
            rows.insert(format!("{letter}{number:02}"));
        }
    };
    add('T', &[1..=32, 40..=70]);
    add('I', &[1..=24, 29..=32]);
    add('P', &[1..=36]);
    add('H', &[1..=1, 3..=30]);
    add('C', &[1..=14]);
    add('X', &[1..=20]);
    add('S', &[1..=9]);
    add('L', &[1..=12, 14..=21, 24..=25]);
    add('K', &[1..=5, 10..=10]);
    add('O', &[1..=15]);
    rows
}

/// A test reference is `path/below/tests.rs::name_of_the_test`, or a file below `tests` that is a test as a whole.
fn find_test(reference: &str) -> Result<(), String> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (file, name) = reference.split_once("::").unwrap_or((reference, ""));
    let text = std::fs::read_to_string(tests.join(file))
        .map_err(|error| format!("{reference}: {file}: {error}"))?;
    let is_there = name.is_empty()
        || text.contains(&format!("fn {name}("))
        || text.contains(&format!("def {name}("));
    is_there
        .then_some(())
        .ok_or_else(|| format!("{reference}: no such test in {file}"))
}

#[test]
fn every_test_that_the_guarantees_name_exists() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/guarantees.md");
    let text = std::fs::read_to_string(path).unwrap();
    let named = text.split('`').skip(1).step_by(2);
    let is_test =
        |name: &&str| name.contains("::") || name.starts_with("tests/") && name.contains('.');
    let problems: Vec<_> = named
        .filter(is_test)
        .filter_map(|name| find_test(name).err())
        .collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn every_row_of_the_security_tests_names_tests_that_exist_or_says_why_not() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/security-tests.md");
    let text = std::fs::read_to_string(path).unwrap();
    let mut missing = required_rows();
    let mut problems = Vec::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [id, _, _, shown_by] = cells[..] else {
            continue;
        };
        let is_row = id.len() == 3 && id[1..].bytes().all(|byte| byte.is_ascii_digit());
        if !is_row {
            continue;
        }
        missing.remove(id);
        let references: Vec<&str> = shown_by.split('`').skip(1).step_by(2).collect();
        if references.is_empty() && !shown_by.starts_with("no test: ") {
            problems.push(format!("{id}: names no test, and no reason (`no test: …`)"));
        }
        problems.extend(references.iter().filter_map(|name| find_test(name).err()));
    }
    problems.extend(missing.iter().map(|id| format!("{id}: not in the table")));
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
