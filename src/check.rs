//! Everything that is wrong with a server's configuration and the files that it names, found without starting the server:
//! no socket is bound and no log is opened, so that one which runs is not disturbed.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use time::{Duration, OffsetDateTime};

use crate::ca::authority::{Authority, AuthorityError};
use crate::clock::rfc3339;
use crate::config::{ConfigError, ServerConfig, Settings, log_folder};
use crate::ctlog::embedded::LogDescription;
use crate::ctlog::remote::{RemoteLog, RemoteLogParts};
use crate::identity::config::{Code, Finding};
use crate::keys::Signer;
use crate::keys::file;
use crate::listener::TlsCertificate;
use crate::server::load_chain;
use crate::x509::chain::CertificateChain;

/// How long before the CA's certificates end that is told.
const NOTICE: Duration = Duration::days(90);

/// Whether only one of two addresses can be listened on.
fn exclude_each_other(one: SocketAddr, other: SocketAddr) -> bool {
    let is_everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && one.port() != 0 && (one.ip() == other.ip() || is_everywhere)
}

/// What was found.
#[derive(Debug)]
pub struct ServerCheck {
    /// The configuration, unless a setting is wrong.
    pub config: Option<ServerConfig>,
    /// Everything that its operator should know, in the order in which a start would meet it.
    pub findings: Vec<Finding>,
}

/// Checks the settings of a server, those in `file` below them, and what they name.
pub async fn check(settings: Settings, file: Option<&Path>, now: OffsetDateTime) -> ServerCheck {
    let settings = settings.with_file(file);
    let config = match settings.and_then(ServerConfig::new) {
        Ok(config) => config,
        Err(ConfigError(lines)) => {
            let findings = lines.iter().map(|line| {
                let (place, message) = place_of(line);
                finding(Code::ServerSetting, place, message)
            });
            return ServerCheck {
                config: None,
                findings: findings.collect(),
            };
        }
    };
    let mut checker = Checker {
        config: &config,
        findings: Vec::new(),
    };
    checker.settings();
    checker.authority(now).await;
    checker.log();
    checker.tls();
    let findings = checker.findings;
    ServerCheck {
        config: Some(config),
        findings,
    }
}

/// Asks the logs of others that certificates are to be in whether they would take them.
pub async fn check_logs(config: &ServerConfig, parts: &RemoteLogParts) -> Vec<Finding> {
    let mut checker = Checker {
        config,
        findings: Vec::new(),
    };
    // Without them this was told of before, and there is nothing to look for.
    let Ok(chain) = load_chain(config) else {
        return Vec::new();
    };
    let external = config.external_logs.as_ref();
    for settings in external.iter().flat_map(|external| &external.logs) {
        let Ok(log) = RemoteLog::open(settings, parts.clone()) else {
            continue;
        };
        if let Err(why) = log.look(&chain).await {
            checker.report_log(settings.name(), why);
        }
    }
    checker.findings
}

/// A file, and the line and column in it.
#[derive(Debug, Eq, PartialEq)]
struct PlaceOf<'a> {
    file: &'a str,
    line: u64,
    column: u64,
}

impl<'a> PlaceOf<'a> {
    const fn start_of(file: &'a str) -> Self {
        Self {
            file,
            line: 1,
            column: 1,
        }
    }
}

/// Takes a message apart that begins with a place, `file:line:column: ` or `file: `.
fn place_of(line: &str) -> (PlaceOf<'_>, &str) {
    let Some((place, message)) = line.split_once(": ") else {
        return (PlaceOf::start_of("settings"), line);
    };
    let mut parts = place.rsplitn(3, ':');
    let mut number = || parts.next()?.parse().ok();
    if let (Some(column), Some(line)) = (number(), number())
        && let Some(file) = parts.next()
    {
        return (PlaceOf { file, line, column }, message);
    }
    if place.contains('/') {
        (PlaceOf::start_of(place), message)
    } else {
        // The name of a setting, which says more than where it was given.
        (PlaceOf::start_of("settings"), line)
    }
}

fn finding(code: Code, place: PlaceOf<'_>, message: &str) -> Finding {
    let PlaceOf { file, line, column } = place;
    Finding {
        code,
        severity: code.severity(),
        message: message.to_owned(),
        file: file.into(),
        line,
        column,
        end_line: line,
        end_column: column,
        help: None,
        path: String::new(),
    }
}

struct Checker<'a> {
    config: &'a ServerConfig,
    findings: Vec<Finding>,
}

impl Checker<'_> {
    /// Reports something about a file. Messages that begin with its name do so only here.
    fn report(&mut self, code: Code, file: &Path, message: impl ToString) {
        let (file, message) = (file.display().to_string(), message.to_string());
        let message = message
            .strip_prefix(&file)
            .and_then(|message| message.strip_prefix(": "))
            .unwrap_or(&message);
        let found = finding(code, PlaceOf::start_of(&file), message);
        self.findings.push(found);
    }

    /// Reports something about a log of others.
    fn report_log(&mut self, name: &str, message: impl ToString) {
        let message = format!("ct log {name}: {}", message.to_string());
        let found = finding(Code::CtLog, PlaceOf::start_of("settings"), &message);
        self.findings.push(found);
    }

    fn settings(&mut self) {
        let config = self.config;
        let mut report = |code, message: &str| {
            let found = finding(code, PlaceOf::start_of("settings"), message);
            self.findings.push(found);
        };
        let (api, metrics) = (config.listen, config.metrics_listen);
        let grpc = config.grpc_listen;
        let taken = [
            ("metrics-listen", Some(metrics), "listen", Some(api)),
            ("grpc-listen", grpc, "listen", Some(api)),
            ("metrics-listen", Some(metrics), "grpc-listen", grpc),
        ];
        for (setting, address, other_setting, other) in taken {
            if let (Some(address), Some(other)) = (address, other)
                && exclude_each_other(address, other)
            {
                let message = format!(
                    "{setting}: {address} is taken by {other_setting} ({other}); give another port"
                );
                report(Code::ServerSetting, &message);
            }
        }
        for what in config.insecure_settings() {
            report(Code::WeakSetting, what);
        }
    }

    async fn authority(&mut self, now: OffsetDateTime) {
        let config = self.config;
        if config.ephemeral_ca {
            return;
        }
        let chain = load_chain(config)
            .map(Arc::new)
            .map_err(|error| self.report(Code::CaCertificates, &config.ca_cert, error));
        if let Ok(chain) = &chain {
            self.lifetime(chain, now);
        }
        let key = self.key(Code::CaKey, &config.ca_key);
        let (Ok(chain), Some(key)) = (chain, key) else {
            return;
        };
        match Authority::new(chain, key, false, now).await {
            Ok(_) => {}
            // Told of by `lifetime`.
            Err(AuthorityError::EndsTooSoon { .. } | AuthorityError::Chain(_)) => {}
            Err(error @ AuthorityError::KeyMismatch { .. }) => {
                self.report(Code::CaMismatch, &config.ca_key, error);
            }
            Err(error @ (AuthorityError::Sign(_) | AuthorityError::TooBusy(_))) => {
                self.report(Code::CaKey, &config.ca_key, error);
            }
            Err(error @ (AuthorityError::NotYetValid { .. } | AuthorityError::Build(_))) => {
                self.report(Code::CaCertificates, &config.ca_cert, error);
            }
        }
    }

    /// Whether the CA's certificates are valid now, and for how long.
    fn lifetime(&mut self, chain: &CertificateChain, now: OffsetDateTime) {
        let file = &self.config.ca_cert;
        let end = chain.not_after();
        if let Err(error) = chain.check_validity(now) {
            self.report(Code::CaCertificates, file, error);
        } else if end - now < NOTICE {
            let days = (end - now).whole_days();
            let end = rfc3339(end);
            let message = format!("the CA's certificates end at {end}, in {days} days");
            self.report(Code::CaEnds, file, message);
        }
    }

    /// A key, with the passphrase that is configured for it.
    fn key(&mut self, code: Code, path: &Path) -> Option<Arc<dyn Signer>> {
        let config = self.config;
        let passphrase = match config.passphrase() {
            Ok(passphrase) => passphrase,
            Err(error) => {
                self.report(code, path, error);
                return None;
            }
        };
        match file::load(path, passphrase.as_ref(), config.allow_insecure_permissions) {
            Ok(key) => Some(Arc::new(key)),
            Err(error) => {
                self.report(code, path, error);
                None
            }
        }
    }

    fn log(&mut self) {
        let external = self.config.external_logs.as_ref();
        for log in external.iter().flat_map(|external| &external.logs) {
            for error in log.check_files() {
                self.report_log(log.name(), error);
            }
        }
        if self.config.log.is_none() {
            return;
        }
        let folder = log_folder(&self.config.data_dir);
        let described = match LogDescription::read(&folder) {
            Ok(described) => described,
            Err(error) => {
                self.report(Code::CtLog, &folder, error);
                return;
            }
        };
        let path = folder.join("key.pem");
        if let Some(key) = self.key(Code::CtLog, &path)
            && key.public_key_der() != described.public_key_der
        {
            let message = "this key is another one than that which the log was made with";
            self.report(Code::CtLog, &path, message);
        }
    }

    fn tls(&mut self) {
        let ServerConfig {
            tls,
            grpc_tls,
            admin_listen,
            ..
        } = self.config;
        let admin = admin_listen.as_ref().map(|(_, files)| files);
        for files in [tls.as_ref(), grpc_tls.as_ref(), admin]
            .into_iter()
            .flatten()
        {
            if let Err(error) = TlsCertificate::load(files) {
                self.report(Code::ServerTls, &files.certificate, error);
            }
        }
    }
}
