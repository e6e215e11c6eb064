//! `mayfly cert verify`: whether a certificate counts.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, Args};
use serde_json::json;
use time::OffsetDateTime;

use super::{Failure, read_certificates};
use crate::auditor::certificate::Inclusion;
use crate::client::details::CertificateDetails;
use crate::client::trusted_root::TrustedRoot;
use crate::client::verify::{Check, CheckResult, Question, Verification, Wanted, When, verify};
use crate::commands::log::{self, Opened, Output, print_json};
use crate::commands::{moment, plain, print, read};
use crate::server::Environment;
use crate::x509::spki::SubjectPublicKey;

/// What `--at` says for the time in the certificate's timestamp.
const LOGGED: &str = "logged";

/// The arguments of `mayfly cert verify`.
#[derive(Args, Debug)]
#[command(
    after_help = "\
Checked are: that a CA of the trusted root signed it; that it is for code signing; that a log of the trusted root signed the
timestamp in it; that certificate and CA were valid; and what is asked for: its key, its name, who vouched for the name, and that
the log holds what it promised.

A certificate lives for minutes. To verify a signature that is older, give the time that a timestamp authority or a log vouches for.

Exit code: 0 if it counts, 1 if not, 3 if the trusted root cannot be used, 4 if something cannot be read.

Examples:
  mayfly cert verify cert.pem --trusted-root trusted_root.json --identity dev@example.com --issuer https://accounts.example.com
  mayfly cert verify hello.sigstore.json --trusted-root trusted_root.json --at logged --inclusion",
    group(ArgGroup::new("name").args(["identity", "identity_regexp"])),
    group(ArgGroup::new("voucher").args(["issuer", "issuer_regexp"]))
)]
pub(in crate::commands) struct Arguments {
    /// The certificate: PEM, DER, a Sigstore bundle, or the JSON answer of a CA; the first, if there are several; - is the
    /// standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Whom to believe: a trusted_root.json or a trust_config.json
    #[arg(
        long,
        env = "MAYFLY_TRUSTED_ROOT",
        value_name = "FILE",
        hide_env_values = true
    )]
    trusted_root: PathBuf,
    /// The name that it must have: an e-mail address, a URI or a user name
    #[arg(long, visible_alias = "certificate-identity", value_name = "NAME")]
    identity: Option<String>,
    /// A regular expression that all of the name must match
    #[arg(
        long,
        visible_alias = "certificate-identity-regexp",
        value_name = "PATTERN",
        value_parser = pattern
    )]
    identity_regexp: Option<Wanted>,
    /// Who must have vouched for the name: the issuer of the token
    #[arg(long, visible_alias = "certificate-oidc-issuer", value_name = "URL")]
    issuer: Option<String>,
    /// A regular expression that all of the issuer must match
    #[arg(
        long,
        visible_alias = "certificate-oidc-issuer-regexp",
        value_name = "PATTERN",
        value_parser = pattern
    )]
    issuer_regexp: Option<Wanted>,
    /// The public key that it must be for: a PEM file
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// When it must be valid, such as 2026-01-02T03:04:05Z; `logged`: when the log took it [default: now]
    #[arg(long, value_name = "TIME", value_parser = when)]
    at: Option<When>,
    /// Also prove that the log holds it, asking the log where the trusted root says it is
    #[arg(long)]
    inclusion: bool,
    /// Also prove that the log holds it, which is at this URL or in this folder
    #[arg(long, value_name = "LOG")]
    log: Option<String>,
    /// How many seconds to wait for a checkpoint that covers the entry
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    wait: u64,
    /// How the outcome is printed
    #[arg(long, value_enum, default_value = "text")]
    output: Output,
}

pub(super) fn run(arguments: &Arguments, environment: &Environment) -> Result<(), Failure> {
    let path = &arguments.trusted_root;
    let trusted_root = TrustedRoot::parse(&read(path)?)
        .map_err(|error| Failure::configuration(format!("{}: {error}", path.display())))?;
    let public_key = arguments.public_key.as_ref().map(|path| {
        let key = SubjectPublicKey::from_pem_or_der(&read(path)?);
        key.map_err(|error| Failure::dependency(format!("{}: {error}", path.display())))
    });
    let public_key = public_key.transpose()?;
    let certificates = read_certificates(&arguments.file)?;
    let question = Question {
        trusted_root: &trusted_root,
        when: (arguments.at).unwrap_or_else(|| When::At(environment.clock.now())),
        identity: wanted(
            arguments.identity.as_ref(),
            arguments.identity_regexp.as_ref(),
        ),
        issuer: wanted(arguments.issuer.as_ref(), arguments.issuer_regexp.as_ref()),
        public_key_der: public_key.as_ref().map(SubjectPublicKey::spki_der),
    };
    let der = certificates.first().map(Vec::as_slice).unwrap_or_default();
    let mut verification = verify(der, &question);
    let mut inclusion = None;
    if arguments.inclusion || arguments.log.is_some() {
        let (check, proved) = arguments.prove(der, &verification)?;
        verification.checks.push(check);
        inclusion = proved;
    }
    let failure = verification.failure();
    match arguments.output {
        Output::Json => print_json(&json!({
            "verified": failure.is_none(),
            "certificate": CertificateDetails::read(der),
            "checks": verification.checks,
            "inclusion": inclusion,
        }))?,
        Output::Text => print(&text(&verification.checks))?,
    }
    match failure {
        None => Ok(()),
        Some(Check { name, detail, .. }) => {
            Err(Failure::operation(plain(&format!("{name}: {detail}"))))
        }
    }
}

impl Arguments {
    /// Proves that the log holds the certificate, if the log's timestamp verified.
    fn prove(
        &self,
        der: &[u8],
        verification: &Verification<'_>,
    ) -> Result<(Check, Option<Inclusion>), Failure> {
        let (Some(log), Some(authority)) = (verification.log, verification.authority) else {
            let why = "no timestamp verifies that says in which log it is".to_owned();
            return Ok((Check::of("inclusion", Err(why)), None));
        };
        let place = self.log.as_deref().unwrap_or(&log.url);
        let opened = Opened::at(place, log.public_key_der.clone())?;
        let certificates = [der.to_vec(), authority.chain.issuing().der().to_vec()];
        match log::prove(&opened, &certificates, Duration::from_secs(self.wait)) {
            Ok((inclusion, checkpoint)) => {
                let detail = format!(
                    "entry {} of {} in {}",
                    inclusion.index,
                    inclusion.tree_size,
                    checkpoint.identity.origin()
                );
                Ok((Check::of("inclusion", Ok(detail)), Some(inclusion)))
            }
            // Not read is not the same as not there.
            Err(failure) if failure.is_of_operation() => {
                Ok((Check::of("inclusion", Err(failure.to_string())), None))
            }
            Err(failure) => Err(failure),
        }
    }
}

fn text(checks: &[Check]) -> String {
    let mut text = String::new();
    for check in checks {
        let mark = match check.result {
            CheckResult::Pass => "ok",
            CheckResult::Fail => "FAIL",
            CheckResult::Skip => "-",
        };
        // Writing to a `String` does not fail.
        let _ = writeln!(
            text,
            "  {mark:<5}{:<11}{}",
            check.name,
            plain(&check.detail)
        );
    }
    text
}

fn wanted(exact: Option<&String>, pattern: Option<&Wanted>) -> Option<Wanted> {
    let exact = exact.map(|text| Wanted::Exactly(text.clone()));
    exact.or_else(|| pattern.cloned())
}

fn pattern(text: &str) -> Result<Wanted, String> {
    Wanted::matching(text).map_err(|error| error.to_string())
}

fn when(text: &str) -> Result<When, String> {
    if text == LOGGED {
        return Ok(When::Logged);
    }
    let time: OffsetDateTime = moment(text)?;
    Ok(When::At(time))
}
