//! Fulcio's flags, environment and settings file, as settings of ours: a deployment of Fulcio's changes the binary.
//!
//! [`Given::read`] is the whole of it. What Fulcio is told has Fulcio's defaults behind it; ours, where they are given as well,
//! come first.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use clap::Args as _;
use serde::Deserialize;
use serde_json::Value;

use super::{
    ConfigError, GrpcListen, InstanceState, LogFormatName, MAX_FILE_BYTES, PublicUrl, SYSTEM_DATA,
    Settings, Span, read_limited, scalar,
};
use crate::keys::file::Passphrase;
use crate::logging::LogFormat;

/// What Fulcio puts before the names of its flags, in upper case, for the environment.
const VARIABLES: &str = "FULCIO_SERVE_";
/// Program names under which Fulcio's defaults hold without any flag.
const PROGRAMS: [&str; 3] = ["fulcio", "fulcio-server", "server"];
/// Where Fulcio's deployments have their identity configuration; the first that exists.
const IDENTITY: [&str; 2] = [
    "/etc/fulcio-config/config.yaml",
    "/etc/fulcio-config/config.json",
];
const LOG_URL: &str = "http://localhost:6962/test";
/// The CA in memory, among Fulcio's.
const EPHEMERAL: &str = "ephemeralca";
const HTTP_PORT: u16 = 8080;
const GRPC_PORT: u16 = 8081;
const METRICS_PORT: u16 = 2112;

macro_rules! flags {
    (
        its_own {
            $($(#[$attribute:meta])* $name:ident = $long:literal $(or $alias:literal)? : $kind:ty => $ours:expr,)+
        }
        ours_too { $($shared:ident = $shared_long:literal: $shared_kind:ty,)+ }
    ) => {
        /// Fulcio's flags. Help shows them only when asked to; those of its file and environment that are flags of ours too
        /// are no flags here.
        #[derive(Clone, Debug, Default, Deserialize, clap::Args)]
        #[serde(deny_unknown_fields, default)]
        pub struct FulcioFlags {
            $(
                $(#[$attribute])*
                #[arg(long = $long, $(alias = $alias,)? hide = true, value_name = "VALUE")]
                #[serde(rename = $long, $(alias = $alias,)? deserialize_with = "scalar")]
                pub $name: Option<$kind>,
            )+
            $(
                /// The flag is one of ours too.
                #[arg(skip)]
                #[serde(rename = $shared_long, deserialize_with = "scalar")]
                pub $shared: Option<$shared_kind>,
            )+
        }

        /// Every name that Fulcio's file and environment have.
        const NAMES: &[&str] = &[$($long, $($alias,)?)+ $($shared_long,)+];

        impl FulcioFlags {
            /// These, and those of `lower` where these are silent.
            #[must_use]
            fn over(self, lower: Self) -> Self {
                Self {
                    $($name: self.$name.or(lower.$name),)+
                    $($shared: self.$shared.or(lower.$shared),)+
                }
            }

            /// Those that are given.
            fn translations(&self) -> Vec<Translation> {
                let all = [
                    $((concat!("--", $long), self.$name.is_some(), $ours),)+
                    $((concat!("--", $shared_long), self.$shared.is_some(), Some(stringify!($shared))),)+
                ];
                let is_ephemeral = self.ca.as_deref() == Some(EPHEMERAL);
                let given = all.into_iter().filter(|(_, is_given, _)| *is_given);
                let translated = given.map(|(flag, _, setting)| Translation {
                    flag,
                    setting: if flag == "--ca" && is_ephemeral { Some("ephemeral_ca") } else { setting },
                });
                translated.collect()
            }
        }
    };
}

flags! {
    its_own {
        /// Address of HTTP [Fulcio's default: 0.0.0.0]; with --port our --listen
        host = "host" or "http-host": String => Some("listen"),
        /// Port of HTTP [Fulcio's default: 8080]; with --host our --listen
        port = "port" or "http-port": u16 => Some("listen"),
        /// Address of gRPC [Fulcio's default: 0.0.0.0]; with --grpc-port our --grpc-listen
        grpc_host = "grpc-host": String => Some("grpc_listen"),
        /// Port of gRPC [Fulcio's default: 8081]; with --grpc-host our --grpc-listen
        grpc_port = "grpc-port": u16 => Some("grpc_listen"),
        /// Port of metrics, at every address [Fulcio's default: 2112]; our --metrics-listen
        metrics_port = "metrics-port": u16 => Some("metrics_listen"),
        /// Changes nothing here
        legacy_unix_domain_socket = "legacy-unix-domain-socket": String => None,
        /// Who may have a certificate [Fulcio's default: /etc/fulcio-config/config.yaml, else config.json beside it]; our
        /// --identity-config
        config_path = "config-path": PathBuf => Some("identity_config"),
        /// `dev` or `prod` [Fulcio's default: dev]; our --log-format pretty or json
        log_type = "log_type": String => Some("log_format"),
        /// Certificates of `fileca`; our --ca-cert
        fileca_cert = "fileca-cert": PathBuf => Some("ca_cert"),
        /// Key of `fileca`; our --ca-key
        fileca_key = "fileca-key": PathBuf => Some("ca_key"),
        /// Passphrase of the key of `fileca`; better in a file, with our --ca-key-password-file
        fileca_key_passwd = "fileca-key-passwd": Passphrase => Some("ca_key_password_file"),
        /// Changes nothing here: the CA's files are read at the start
        #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
        fileca_watch = "fileca-watch": String => None,
        /// `fileca` or `ephemeralca`; our --ca-cert and --ca-key, or --ephemeral-ca
        ca = "ca": String => Some("ca_cert"),
        /// Key of `kmsca`, which is not to be had here
        kms_resource = "kms-resource": String => None,
        /// Certificates of `kmsca`
        kms_cert_chain_path = "kms-cert-chain-path": PathBuf => None,
        /// Of `kmsca`
        gcp_kms_retries = "gcp-kms-retries": String => None,
        /// Of `kmsca`
        gcp_kms_timeout = "gcp-kms-timeout": String => None,
        /// Of `pkcs11ca`, which is not to be had here
        pkcs11_config_path = "pkcs11-config-path": PathBuf => None,
        /// Of `pkcs11ca`
        hsm_caroot_id = "hsm-caroot-id": String => None,
        /// Of `pkcs11ca`
        hsm_key_label = "hsm-key-label": String => None,
        /// Of `pkcs11ca`
        aws_hsm_root_ca_path = "aws-hsm-root-ca-path": PathBuf => None,
        /// Of `tinkca`, which is not to be had here
        tink_kms_resource = "tink-kms-resource": String => None,
        /// Of `tinkca`
        tink_cert_chain_path = "tink-cert-chain-path": PathBuf => None,
        /// Of `tinkca`
        tink_keyset_path = "tink-keyset-path": PathBuf => None,
        /// Of `googleca`, which is not to be had here
        gcp_private_ca_parent = "gcp_private_ca_parent": String => None,
        /// The log's public key, which Fulcio can do without and Mayfly cannot; our --ct-log-public-key
        ct_log_public_key_path = "ct-log-public-key-path": PathBuf => Some("ct_log_public_key"),
        /// The host that the log knows itself by; our --ct-log-host
        ct_log_origin = "ct-log-origin": String => Some("ct_log_host"),
        /// Roots for TLS to the log; our --ct-log-tls-ca
        ct_log_tls_ca_cert = "ct-log.tls-ca-cert": PathBuf => Some("ct_log_tls_ca"),
        /// How long a connection is kept for its next request; our --idle-timeout
        idle_connection_timeout = "idle-connection-timeout": Span => Some("idle_timeout"),
        /// Changes nothing here: the head of a request has ten seconds
        read_header_timeout = "read-header-timeout": Span => None,
    }
    ours_too {
        ct_log_url = "ct-log-url": String,
        client_signing_algorithms = "client-signing-algorithms": String,
        grpc_tls_certificate = "grpc-tls-certificate": PathBuf,
        grpc_tls_key = "grpc-tls-key": PathBuf,
    }
}

/// A flag of Fulcio's that was given, in whatever way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Translation {
    /// The flag.
    pub flag: &'static str,
    /// The name in Rust of the setting that stands for it; `None` if it changes nothing.
    pub setting: Option<&'static str>,
}

/// What an operator gave, in our words or in Fulcio's.
#[derive(Debug)]
pub struct Given {
    /// All of it, as settings of ours.
    pub settings: Settings,
    /// What the configuration file alone says, if it is one of ours, with its path.
    pub file: Option<(PathBuf, Settings)>,
    /// Fulcio's flags among it.
    pub translations: Vec<Translation>,
    /// What the operator should know.
    pub notes: Vec<&'static str>,
}

impl Given {
    /// Reads everything: flags and environment of ours (`settings`), flags of Fulcio's, its environment, and the file, which may
    /// be of either. `program` is the name that the process was started by.
    ///
    /// # Errors
    /// When a file cannot be read or is wrong, or what is given means nothing here: every finding.
    pub fn read(
        settings: Settings,
        flags: FulcioFlags,
        file: Option<&Path>,
        program: Option<&OsStr>,
    ) -> Result<Self, ConfigError> {
        let is_named = program
            .and_then(|program| Path::new(program).file_name()?.to_str())
            .is_some_and(|name| PROGRAMS.contains(&name));
        let shows_passphrase = flags.fileca_key_passwd.is_some();
        let flags = flags.over(FulcioFlags::from_environment(std::env::vars())?);
        let its_file = file.map(FulcioFlags::from_file).transpose()?.flatten();
        let ours = if its_file.is_some() {
            None
        } else {
            settings.read_file(file)?
        };
        let flags = flags.over(its_file.unwrap_or_default());
        let translations = flags.translations();
        if translations.is_empty() && !is_named {
            let given = match ours.clone() {
                Some((_, lower)) => settings.over(lower),
                None => settings,
            };
            return Ok(Self {
                settings: given,
                file: ours,
                translations,
                notes: Vec::new(),
            });
        }
        let mut notes = Vec::new();
        if shows_passphrase {
            notes.push(
                "a passphrase among the flags can be read by every process of the machine; better have it in a file, with \
                 --ca-key-password-file",
            );
        }
        let (lower, ct) = match ours.clone() {
            Some((_, lower)) => (lower.clone(), lower.ct),
            None => Default::default(),
        };
        let trust = lower.trust.clone();
        let given = settings.over(flags.settings()?).over(lower);
        let has_folder =
            given.data_dir.is_some() || InstanceState::path(SYSTEM_DATA.as_ref()).exists();
        let has_url = given.public_url.is_some() || has_folder;
        let has_log = has_folder || !ct.logs.is_empty();
        let defaults = defaults(&given, has_folder, has_log);
        let mut settings = given.over(defaults);
        (settings.ct, settings.trust) = (ct, trust);
        if !has_url {
            notes.push("public-url: not given, so that the trust files name this machine alone");
        }
        Ok(Self {
            settings,
            file: ours,
            translations,
            notes,
        })
    }
}

/// What Fulcio does where nothing is said, as far as no data folder and no other log do it.
fn defaults(given: &Settings, has_folder: bool, has_log: bool) -> Settings {
    let anywhere = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let listen = anywhere(HTTP_PORT);
    let port = given.listen.unwrap_or(listen).port();
    let local: Option<PublicUrl> = format!("http://localhost:{port}").parse().ok();
    let identity = IDENTITY.iter().find(|path| Path::new(path).exists());
    let identity = identity.or_else(|| IDENTITY.first().filter(|_| !has_folder));
    let has_log = has_log || given.no_ct == Some(true);
    Settings {
        listen: Some(listen),
        grpc_listen: Some(GrpcListen(Some(anywhere(GRPC_PORT)))),
        metrics_listen: Some(anywhere(METRICS_PORT)),
        identity_config: identity.map(PathBuf::from),
        log_format: Some(LogFormatName(LogFormat::Pretty)),
        ct_log_url: (!has_log).then(|| LOG_URL.to_owned()),
        public_url: local.filter(|_| !has_folder),
        ..Settings::default()
    }
}

impl FulcioFlags {
    /// The flags with what each does, as `--help` shows ours.
    #[must_use]
    pub fn help() -> String {
        let command = clap::Command::new("fulcio")
            .disable_help_flag(true)
            .help_template("{options}");
        let mut command = Self::augment_args(command).mut_args(|argument| argument.hide(false));
        command.render_help().to_string()
    }

    /// What the environment says. Fulcio keeps the hyphens of its flags in the names of variables, which few shells can set:
    /// underscores will do. What is empty counts as not set.
    fn from_environment(
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut found = serde_json::Map::new();
        for (variable, value) in variables.filter(|(_, value)| !value.is_empty()) {
            let Some(name) = variable.strip_prefix(VARIABLES) else {
                continue;
            };
            let known = NAMES.iter().find(|known| {
                let (known, name) = (known.to_uppercase(), name.to_uppercase());
                known == name || known.replace(['-', '.'], "_") == name
            });
            if let Some(known) = known {
                found.insert((*known).to_owned(), Value::String(value));
            }
        }
        Self::from_members(found).map_err(|(name, error)| {
            let variable = name.to_uppercase();
            ConfigError::one(format!("{VARIABLES}{variable}: {error}"))
        })
    }

    /// The settings file, if it is one of Fulcio's: it has a name that only Fulcio knows.
    fn from_file(path: &Path) -> Result<Option<Self>, ConfigError> {
        let text = read_limited(path, MAX_FILE_BYTES)?;
        // What does not parse is told of by whoever reads it as one of ours, with its place.
        let Ok(Value::Object(members)) = serde_saphyr::from_str::<Value>(&text) else {
            return Ok(None);
        };
        let mut flat = serde_json::Map::new();
        flatten("", members, &mut flat);
        let ours = Settings::default().values();
        let is_ours = |name: &str| ours.iter().any(|(id, _)| id.replace('_', "-") == name);
        if !flat
            .keys()
            .any(|name| NAMES.contains(&&**name) && !is_ours(name))
        {
            return Ok(None);
        }
        let path = path.display();
        match Self::from_members(flat) {
            Ok(flags) => Ok(Some(flags)),
            Err((name, error)) => Err(ConfigError::one(format!("{path}: {name}: {error}"))),
        }
    }

    /// Takes members one by one, so that a mistake is named by the member it is in.
    fn from_members(
        members: serde_json::Map<String, Value>,
    ) -> Result<Self, (String, serde_json::Error)> {
        let mut flags = Self::default();
        for (name, value) in members {
            let one = HashMap::from([(name.clone(), value)]);
            let one = serde_json::to_value(one).and_then(serde_json::from_value);
            flags = flags.over(one.map_err(|error| (name, error))?);
        }
        Ok(flags)
    }

    /// What they are in our words.
    fn settings(self) -> Result<Settings, ConfigError> {
        let mut findings = Vec::new();
        let is_ephemeral = self.is_ephemeral(&mut findings);
        let metrics = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let mut address = |name, host: &Option<String>, port: Option<u16>, default| {
            let is_given = host.is_some() || port.is_some();
            let address = address(name, host.as_deref(), port.unwrap_or(default));
            let address = address.map_err(|error| findings.push(error)).ok();
            address.filter(|_| is_given)
        };
        let listen = address("host", &self.host, self.port, HTTP_PORT);
        let grpc_listen = address("grpc-host", &self.grpc_host, self.grpc_port, GRPC_PORT);
        let log_format = match self.log_type.as_deref() {
            None => None,
            Some("dev") => Some(LogFormat::Pretty),
            Some("prod") => Some(LogFormat::Json),
            Some(other) => {
                findings.push(format!("log_type: {other:?} is none of dev, prod"));
                None
            }
        };
        if !findings.is_empty() {
            return Err(ConfigError(findings));
        }
        Ok(Settings {
            listen,
            grpc_listen: grpc_listen.map(|address| GrpcListen(Some(address))),
            metrics_listen: self.metrics_port.map(metrics),
            identity_config: self.config_path,
            log_format: log_format.map(LogFormatName),
            ephemeral_ca: is_ephemeral.then_some(true),
            ca_cert: self.fileca_cert,
            ca_key: self.fileca_key,
            ca_key_password: self.fileca_key_passwd.filter(|text| !text.is_empty()),
            ct_log_url: self.ct_log_url,
            ct_log_public_key: self.ct_log_public_key_path,
            ct_log_host: self.ct_log_origin.filter(|host| !host.is_empty()),
            ct_log_tls_ca: self.ct_log_tls_ca_cert,
            client_signing_algorithms: self.client_signing_algorithms,
            grpc_tls_certificate: self.grpc_tls_certificate,
            grpc_tls_key: self.grpc_tls_key,
            idle_timeout: self.idle_connection_timeout,
            ..Settings::default()
        })
    }

    /// Whether the CA is to be in memory. Says what is wrong with the choice of the CA.
    fn is_ephemeral(&self, findings: &mut Vec<String>) -> bool {
        match self.ca.as_deref() {
            None => {}
            Some(EPHEMERAL) => return true,
            Some("fileca") => {
                for (name, is_missing) in [
                    ("fileca-cert", self.fileca_cert.is_none()),
                    ("fileca-key", self.fileca_key.is_none()),
                ] {
                    if is_missing {
                        findings.push(format!("{name}: missing; --ca fileca needs it"));
                    }
                }
            }
            Some(other @ ("kmsca" | "pkcs11ca" | "tinkca" | "googleca")) => findings.push(format!(
                "ca: {other}: Mayfly has its CA's key in a file alone; give --ca fileca with --fileca-cert and --fileca-key"
            )),
            Some(other) => findings.push(format!("ca: {other:?} is none of fileca, ephemeralca")),
        }
        false
    }
}

/// Brings members of members to the top, with a dot between the names, in lower case; without those that say nothing.
fn flatten(
    prefix: &str,
    members: serde_json::Map<String, Value>,
    flat: &mut serde_json::Map<String, Value>,
) {
    for (name, value) in members {
        let name = format!("{prefix}{}", name.to_lowercase());
        match value {
            Value::Object(members) => flatten(&format!("{name}."), members, flat),
            Value::Null => {}
            value @ (Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
                flat.insert(name, value);
            }
        }
    }
}

/// An address as Fulcio has it: a host, which may be missing, and a port.
fn address(name: &str, host: Option<&str>, port: u16) -> Result<SocketAddr, String> {
    let host = match host.unwrap_or_default() {
        "" => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        "localhost" => IpAddr::from(Ipv4Addr::LOCALHOST),
        host => {
            let plain = host.trim_start_matches('[').trim_end_matches(']');
            plain.parse().map_err(|_| {
                format!("{name}: {host:?} is not an IP address to listen on, such as 0.0.0.0 or ::")
            })?
        }
    };
    Ok(SocketAddr::from((host, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    use clap::FromArgMatches as _;

    fn flags(arguments: &[&str]) -> FulcioFlags {
        let command = FulcioFlags::augment_args(clap::Command::new("fulcio"));
        let arguments = std::iter::once(&"fulcio").chain(arguments);
        let matches = command.try_get_matches_from(arguments).unwrap();
        FulcioFlags::from_arg_matches(&matches).unwrap()
    }

    fn read(arguments: &[&str]) -> Given {
        Given::read(Settings::default(), flags(arguments), None, None).unwrap()
    }

    fn refused(arguments: &[&str]) -> Vec<String> {
        let given = Given::read(Settings::default(), flags(arguments), None, None);
        given.unwrap_err().0
    }

    fn from_file(text: &str) -> Result<Option<FulcioFlags>, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        FulcioFlags::from_file(file.path())
    }

    #[test]
    fn without_a_word_of_fulcio_s_nothing_is_as_fulcio_has_it() {
        let given = read(&[]);
        let values = given.settings.values();
        let written = values.iter().filter(|(_, value)| value.is_some());
        assert_eq!(written.count(), 0);
        assert!(given.translations.is_empty() && given.notes.is_empty());
    }

    #[test]
    fn flags_become_settings_with_fulcio_s_defaults_behind_them() {
        let given = read(&["--ca=fileca", "--fileca-cert=c", "--fileca-key", "k"]);
        let settings = given.settings;
        assert_eq!(settings.listen, Some("0.0.0.0:8080".parse().unwrap()));
        let grpc = settings.grpc_listen.unwrap();
        assert_eq!(grpc.to_string(), "0.0.0.0:8081");
        let metrics = "0.0.0.0:2112".parse().unwrap();
        assert_eq!(settings.metrics_listen, Some(metrics));
        assert_eq!(settings.ca_cert, Some("c".into()));
        assert_eq!(settings.ca_key, Some("k".into()));
        assert_eq!(settings.ephemeral_ca, None);
        assert_eq!(settings.ct_log_url.as_deref(), Some(LOG_URL));
        assert_eq!(settings.log_format, Some(LogFormatName(LogFormat::Pretty)));
        let identity = settings.identity_config.unwrap();
        assert_eq!(identity, Path::new("/etc/fulcio-config/config.yaml"));

        let given = read(&[
            "--http-host=::1",
            "--http-port=5555",
            "--grpc-port=5554",
            "--metrics-port=99",
            "--log_type=prod",
            "--ca=ephemeralca",
            "--config-path=i.yaml",
            "--ct-log-origin=log.example",
            "--ct-log.tls-ca-cert=roots.pem",
            "--ct-log-public-key-path=log.pub",
            "--idle-connection-timeout=1m0s",
            "--fileca-watch",
        ]);
        let settings = given.settings;
        assert_eq!(settings.listen, Some("[::1]:5555".parse().unwrap()));
        let grpc = settings.grpc_listen.unwrap();
        assert_eq!(grpc.to_string(), "0.0.0.0:5554");
        let metrics = "0.0.0.0:99".parse().unwrap();
        assert_eq!(settings.metrics_listen, Some(metrics));
        assert_eq!(settings.log_format, Some(LogFormatName(LogFormat::Json)));
        assert_eq!(settings.ephemeral_ca, Some(true));
        assert_eq!(settings.identity_config, Some("i.yaml".into()));
        assert_eq!(settings.ct_log_host.as_deref(), Some("log.example"));
        assert_eq!(settings.ct_log_tls_ca, Some("roots.pem".into()));
        assert_eq!(settings.ct_log_public_key, Some("log.pub".into()));
        assert_eq!(settings.idle_timeout.unwrap().0.as_secs(), 60);
        let url = settings.public_url.unwrap().to_string();
        assert_eq!(url, "http://localhost:5555");
        let watch = given
            .translations
            .iter()
            .find(|one| one.flag == "--fileca-watch");
        assert_eq!(watch.unwrap().setting, None);
    }

    #[test]
    fn the_name_of_the_program_alone_brings_the_defaults() {
        for (program, expected) in [
            ("/usr/local/bin/fulcio-server", Some("0.0.0.0:8080")),
            ("fulcio", Some("0.0.0.0:8080")),
            ("/usr/bin/mayfly", None),
        ] {
            let program = Some(OsStr::new(program));
            let given =
                Given::read(Settings::default(), FulcioFlags::default(), None, program).unwrap();
            let listen = given.settings.listen.map(|address| address.to_string());
            assert_eq!(listen.as_deref(), expected);
        }
    }

    #[test]
    fn our_own_flags_come_first() {
        let ours = Settings {
            listen: Some("127.0.0.1:1".parse().unwrap()),
            data_dir: Some("data".into()),
            ..Settings::default()
        };
        let given = Given::read(ours, flags(&["--port=5555"]), None, None).unwrap();
        let settings = given.settings;
        assert_eq!(settings.listen, Some("127.0.0.1:1".parse().unwrap()));
        // A data folder has a log and a URL of its own.
        assert_eq!((settings.ct_log_url, settings.public_url), (None, None));
    }

    #[test]
    fn the_environment_is_read_with_hyphens_and_without() {
        let variables = [
            ("FULCIO_SERVE_CA", "fileca"),
            ("FULCIO_SERVE_FILECA-CERT", "cert.pem"),
            ("FULCIO_SERVE_FILECA_KEY", "key.pem"),
            ("FULCIO_SERVE_CT-LOG.TLS-CA-CERT", "roots.pem"),
            ("FULCIO_SERVE_CT_LOG_URL", "http://log.example"),
            ("FULCIO_SERVE_LOG_TYPE", "prod"),
            ("FULCIO_SERVE_GRPC-TLS-KEY", "tls.key"),
            ("FULCIO_SERVE_HTTP_PORT", "5555"),
            ("FULCIO_SERVE_HOST", ""),
            ("FULCIO_SERVE_NOBODY-KNOWS", "x"),
            ("FULCIO_SERVER_PORT", "tcp://10.0.0.1:80"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let flags = FulcioFlags::from_environment(variables.into_iter()).unwrap();
        assert_eq!(flags.ca.as_deref(), Some("fileca"));
        assert_eq!(flags.fileca_cert, Some("cert.pem".into()));
        assert_eq!(flags.fileca_key, Some("key.pem".into()));
        assert_eq!(flags.ct_log_tls_ca_cert, Some("roots.pem".into()));
        assert_eq!(flags.ct_log_url.as_deref(), Some("http://log.example"));
        assert_eq!(flags.log_type.as_deref(), Some("prod"));
        assert_eq!(flags.grpc_tls_key, Some("tls.key".into()));
        assert_eq!((flags.port, flags.host), (Some(5555), None));

        let wrong = [("FULCIO_SERVE_METRICS-PORT".to_owned(), "many".to_owned())];
        let error = FulcioFlags::from_environment(wrong.into_iter()).unwrap_err();
        let error = error.to_string();
        let expected = "FULCIO_SERVE_METRICS-PORT: \"many\": invalid digit";
        assert!(error.starts_with(expected), "{error}");
    }

    #[test]
    fn a_settings_file_is_fulcio_s_if_it_has_a_name_that_only_fulcio_knows() {
        let text = "Port: 5555\nca: fileca\nct-log-url: http://log.example\nct-log:\n  tls-ca-cert: roots.pem\n\
                    fileca-watch: true\ngrpc-host:\n";
        let flags = from_file(text).unwrap().unwrap();
        assert_eq!(
            (flags.port, flags.ca.as_deref()),
            (Some(5555), Some("fileca"))
        );
        assert_eq!(flags.ct_log_tls_ca_cert, Some("roots.pem".into()));
        assert_eq!(flags.ct_log_url.as_deref(), Some("http://log.example"));
        assert_eq!(from_file(r#"{"port": 1}"#).unwrap().unwrap().port, Some(1));

        for ours in [
            "listen: 127.0.0.1:1\n",
            "ct-log-url: http://log.example\n",
            "",
            "- x\n",
            "port: [\n",
        ] {
            assert!(from_file(ours).unwrap().is_none(), "{ours:?}");
        }
        for (text, expected) in [
            ("port: many\n", ": port: \"many\": invalid digit"),
            ("port: 1\nlisten: 127.0.0.1:1\n", ": listen: unknown field"),
            ("ca: [fileca]\n", ": ca: "),
        ] {
            let error = from_file(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn what_means_nothing_here_is_named() {
        for (arguments, expected) in [
            (
                &["--ca=kmsca"][..],
                &["ca: kmsca: Mayfly has its CA's key"][..],
            ),
            (&["--ca=other"], &["ca: \"other\" is none of fileca"]),
            (
                &["--ca=fileca"],
                &["fileca-cert: missing", "fileca-key: missing"],
            ),
            (
                &["--host=ca.example.com", "--log_type=x"],
                &["host: \"ca.example.com\" is not an IP", "log_type: \"x\""],
            ),
        ] {
            let findings = refused(arguments);
            assert_eq!(findings.len(), expected.len(), "{findings:?}");
            for (finding, expected) in findings.iter().zip(expected) {
                assert!(finding.starts_with(expected), "{finding}");
            }
        }
    }

    #[test]
    fn an_empty_passphrase_is_none_and_no_passphrase_is_shown() {
        let given = read(&["--ca=ephemeralca", "--fileca-key-passwd="]);
        assert!(given.settings.ca_key_password.is_none());
        let given = read(&["--ca=ephemeralca", "--fileca-key-passwd", "correct horse"]);
        assert!(given.settings.ca_key_password.is_some());
        assert!(!format!("{given:?}").contains("horse"));
    }

    #[test]
    fn help_shows_every_flag() {
        let help = FulcioFlags::help();
        for flag in [
            "--host",
            "--ca ",
            "--fileca-cert",
            "--ct-log.tls-ca-cert",
            "--log_type",
        ] {
            assert!(help.contains(flag), "{help}");
        }
    }
}
