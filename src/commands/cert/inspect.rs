//! `mayfly cert inspect`: what certificates say.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{Failure, read_certificates};
use crate::client::details::{CertificateDetails, Timestamp};
use crate::commands::log::{Output, print_json};
use crate::commands::{plain, print};

/// The arguments of `mayfly cert inspect`.
#[derive(Args, Debug)]
#[command(after_help = "\
Nothing is verified: a certificate may say anything. `mayfly cert verify` tells whether it counts.

Exit code: 0, or 4 if the file cannot be read or holds something that is no certificate.

Examples:
  mayfly cert inspect cert.pem
  mayfly cert inspect hello.sigstore.json --output json
  cosign … --output-certificate - | mayfly cert inspect -")]
pub(in crate::commands) struct Arguments {
    /// The certificates: PEM, DER, a Sigstore bundle, or the JSON answer of a CA; - is the standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How they are printed
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

pub(super) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let certificates = read_certificates(&arguments.file)?;
    let details: Option<Vec<_>> = certificates
        .iter()
        .map(|der| CertificateDetails::read(der))
        .collect();
    let details = details.ok_or_else(|| {
        let file = arguments.file.display();
        Failure::dependency(format!("{file}: it holds something that is no certificate"))
    })?;
    match arguments.output {
        Output::Json => print_json(&json!({ "certificates": details })),
        Output::Text => {
            let count = details.len();
            let mut text = String::new();
            for (index, details) in details.iter().enumerate() {
                if index > 0 {
                    text.push('\n');
                }
                if count > 1 {
                    // Writing to a `String` does not fail.
                    let _ = writeln!(text, "Certificate {} of {count}", index + 1);
                }
                describe(&mut text, details);
            }
            print(&text)
        }
    }
}

fn describe(text: &mut String, details: &CertificateDetails) {
    let mut line = |name: &str, value: &str| {
        // Writing to a `String` does not fail.
        let _ = writeln!(text, "  {name:<12}{}", plain(value));
    };
    for name in &details.san {
        let kind = match name.kind {
            "email" => "e-mail address",
            "uri" => "URI",
            "other_name" => "user name",
            other => other,
        };
        line("name", &format!("{} ({kind})", name.value));
    }
    if let Some(issuer) = &details.issuer {
        line("vouched by", issuer);
    }
    let lifetime = match details.lifetime_seconds {
        seconds @ 0..86_400 => format!("{seconds} s"),
        seconds => format!("{} days", seconds / 86_400),
    };
    let (start, end) = (&details.not_before, &details.not_after);
    line("valid", &format!("{start} to {end} ({lifetime})"));
    if !details.subject.is_empty() {
        line("subject", &details.subject);
    }
    let (authority, algorithm) = (&details.authority, &details.signature_algorithm);
    line("signed by", &format!("{authority} ({algorithm})"));
    line("serial", &details.serial);
    let key = format!(
        "{}, SHA-256 {}",
        details.public_key, details.public_key_sha256
    );
    line("key", &key);
    line("SHA-256", &details.sha256);
    for timestamp in &details.timestamps {
        line("logged", &timestamp_text(timestamp));
    }
    let _ = writeln!(text, "  extensions");
    let labels = details.extensions.iter().map(|extension| {
        let name = extension.name.as_deref().unwrap_or("unknown");
        let mark = if extension.critical { ", critical" } else { "" };
        format!("{name}{mark}")
    });
    let labels: Vec<String> = labels.collect();
    let width = labels.iter().map(String::len).max().unwrap_or(0);
    for (extension, label) in details.extensions.iter().zip(labels) {
        let value = plain(&extension.value);
        let _ = writeln!(text, "    {:<24}{label:<width$}  {value}", extension.oid);
    }
}

fn timestamp_text(timestamp: &Timestamp) -> String {
    let place = timestamp.leaf_index;
    let place = place.map_or_else(String::new, |index| format!(", entry {index}"));
    let Timestamp { time, log_id, .. } = timestamp;
    format!("{time}{place}, by the log {log_id}")
}
