//! Writes down which build this is, for `--version` and the build metrics. Reads nothing but the environment and git.

use std::process::Command;

fn main() {
    let revision = std::env::var("MAYFLY_REVISION")
        .ok()
        .or_else(|| run("git", &["rev-parse", "--short=12", "HEAD"]));
    let rustc = run(
        &std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned()),
        &["--version"],
    );
    let rustc = rustc
        .as_deref()
        .and_then(|text| text.split(' ').nth(1))
        .unwrap_or("unknown");
    println!(
        "cargo:rustc-env=MAYFLY_REVISION={}",
        revision.as_deref().unwrap_or("unknown")
    );
    println!("cargo:rustc-env=MAYFLY_RUSTC=rustc-{rustc}");
    println!("cargo:rerun-if-env-changed=MAYFLY_REVISION");
    // Every commit and checkout adds a line to this file.
    if let Some(log) = run("git", &["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo:rerun-if-changed={log}");
    }
}

fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
