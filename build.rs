//! Writes down which build this is, for `--version` and the build metrics, and makes the gRPC messages of `proto/`.
//!
//! Reads nothing but these files, the environment and git.

use std::path::Path;
use std::process::Command;

/// What clients and the server say to each other over gRPC.
const PROTOCOLS: [&str; 2] = ["fulcio.proto", "health.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tell_build();
    make_messages()
}

/// Messages and clients in Rust, and the descriptors that reflection serves.
fn make_messages() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true);
    compiler.open_files(PROTOCOLS)?;
    let out = std::env::var("OUT_DIR")?;
    let descriptors = Path::new(&out).join("descriptors.bin");
    std::fs::write(descriptors, compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        .build_server(false)
        .build_transport(false)
        // They hold a token, which nothing may print.
        .skip_debug([
            "dev.sigstore.fulcio.v2.CreateSigningCertificateRequest",
            "dev.sigstore.fulcio.v2.Credentials",
            "dev.sigstore.fulcio.v2.Credentials.credentials",
        ])
        .compile_fds(compiler.file_descriptor_set())?;
    Ok(())
}

fn tell_build() {
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
