//! Modules depend one way only: each may use what its row names, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// A top-level module, and the others that it may use. `ARCHITECTURE.md` says why.
const ALLOWED: &[(&str, &[&str])] = &[
    // Layer 0: what everything is given.
    ("clock", &[]),
    ("random", &[]),
    ("excerpt", &[]),
    ("hex", &[]),
    ("parallel", &[]),
    ("reason", &[]),
    ("metrics", &["reason"]),
    ("proto", &[]),
    // Layer 1: the outside world and its formats.
    ("x509", &["excerpt", "reason"]),
    ("keys", &["metrics", "random", "x509"]),
    ("store", &["hex", "metrics", "reason", "random"]),
    ("fetch", &["reason"]),
    ("limits", &["metrics", "random"]),
    // Layer 2: who is asking; a verifiable log of opaque entries.
    (
        "identity",
        &[
            "excerpt", "clock", "fetch", "limits", "metrics", "random", "reason", "x509",
        ],
    ),
    (
        "tlog",
        &[
            "clock", "keys", "metrics", "parallel", "random", "reason", "store",
        ],
    ),
    // Layer 3: what the product is for.
    (
        "ctlog",
        &[
            "hex", "clock", "fetch", "keys", "metrics", "random", "reason", "store", "tlog", "x509",
        ],
    ),
    (
        "ca",
        &[
            "excerpt", "hex", "clock", "ctlog", "identity", "keys", "limits", "metrics", "random",
            "reason", "x509",
        ],
    ),
    ("auditor", &["ca", "ctlog", "hex", "store", "tlog", "x509"]),
    ("trust", &["hex", "keys", "x509"]),
    (
        "client",
        &[
            "ca", "ctlog", "fetch", "hex", "keys", "proto", "random", "tlog", "x509",
        ],
    ),
    // Layer 4: wire formats.
    (
        "api",
        &[
            "excerpt",
            "hex",
            "ca",
            "ctlog",
            "identity",
            "limits",
            "metrics",
            "proto",
            "random",
            "readiness",
            "reason",
            "store",
            "tlog",
            "trust",
            "clock",
            "keys",
            "x509",
        ],
    ),
    ("readiness", &["ca", "ctlog", "identity", "metrics"]),
    (
        "policy",
        &[
            "excerpt", "api", "ca", "clock", "identity", "reason", "x509",
        ],
    ),
    // Layer 5: puts the parts together.
    ("listener", &["limits", "metrics"]),
    ("logging", &["excerpt", "clock"]),
    ("systemd", &[]),
    (
        "reload",
        &[
            "hex",
            "api",
            "clock",
            "identity",
            "listener",
            "metrics",
            "readiness",
            "systemd",
            "tlog",
        ],
    ),
    (
        "admin",
        &[
            "api",
            "ctlog",
            "identity",
            "listener",
            "logging",
            "policy",
            "readiness",
            "reload",
            "x509",
        ],
    ),
    ("dev", &["clock"]),
    (
        "bench",
        &[
            "ca", "client", "clock", "dev", "identity", "proto", "random",
        ],
    ),
    (
        "config",
        &[
            "api", "ca", "ctlog", "keys", "limits", "listener", "logging", "trust",
        ],
    ),
    (
        "instance",
        &[
            "ca", "clock", "config", "ctlog", "keys", "random", "x509", "store", "trust",
        ],
    ),
    (
        "server",
        &[
            "admin",
            "reload",
            "api",
            "ca",
            "clock",
            "config",
            "ctlog",
            "fetch",
            "identity",
            "keys",
            "limits",
            "listener",
            "logging",
            "metrics",
            "random",
            "readiness",
            "store",
            "tlog",
            "trust",
            "x509",
            "systemd",
        ],
    ),
    (
        "check",
        &[
            "ca", "clock", "config", "ctlog", "identity", "keys", "listener", "server", "x509",
        ],
    ),
    (
        "commands",
        &[
            "excerpt", "hex", "admin", "auditor", "bench", "ca", "check", "client", "clock",
            "config", "ctlog", "dev", "fetch", "identity", "instance", "keys", "logging",
            "metrics", "policy", "random", "reload", "server", "systemd", "tlog", "trust", "x509",
            "store",
        ],
    ),
];

/// Files that only tests are built with; they may use anything.
const TEST_FILES: &[&str] = &[
    "testing.rs",
    "test_key.rs",
    "tests.rs",
    "deterministic.rs",
    "faulty.rs",
    "simulation.rs",
];

#[test]
fn modules_use_only_what_their_layer_allows() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for file in rust_files(&source) {
        let relative = file.strip_prefix(&source).unwrap();
        let module = relative
            .components()
            .next()
            .unwrap()
            .as_os_str()
            .to_str()
            .unwrap();
        let module = module.trim_end_matches(".rs");
        let is_for_tests = TEST_FILES.iter().any(|name| file.ends_with(name));
        if matches!(module, "lib" | "main") || is_for_tests {
            continue;
        }
        let Some((_, allowed)) = ALLOWED.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!(
                "{module} is not in the list: say which modules it may use"
            ));
            continue;
        };
        seen.insert(module.to_owned());
        for (used, lines) in used_modules(&std::fs::read_to_string(&file).unwrap()) {
            if used != module && !allowed.contains(&used.as_str()) {
                wrong.push(format!(
                    "{}:{}: {module} may not use {used}",
                    relative.display(),
                    lines[0]
                ));
            }
        }
    }
    for (name, _) in ALLOWED {
        assert!(seen.contains(*name), "{name} is in the list and not in src");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The top-level modules that a file names in code behind `crate::`, with the lines; tests at its end are left out, as are
/// comments.
fn used_modules(text: &str) -> BTreeMap<String, Vec<usize>> {
    let mut used: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (number, line) in text.lines().enumerate() {
        if line.trim() == "#[cfg(test)]"
            && text
                .lines()
                .nth(number + 1)
                .is_some_and(|next| next.contains("mod tests"))
        {
            break;
        }
        let code = line.split("//").next().unwrap_or_default();
        for rest in code.split("crate::").skip(1) {
            let name: String = rest
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            // Constants of the crate root, such as the version, are not modules.
            if name.starts_with(|c: char| c.is_ascii_lowercase()) {
                used.entry(name).or_default().push(number + 1);
            }
        }
    }
    used
}

#[expect(
    clippy::unwrap_used,
    reason = "without the source there is nothing to test"
)]
pub(crate) fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
