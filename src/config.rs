//! The server's configuration: flag over environment over file over default.
//!
//! [`Settings`] is what people write, as flags, variables or YAML under the same names. [`ServerConfig`] is what they mean:
//! complete and checked. Every message names the setting and what would be accepted.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use crate::api::ErrorDetail;
use crate::ca::request::PermittedAlgorithms;
use crate::ctlog::embedded::EmbeddedLogSettings;
use crate::keys::file::{KeyFileError, Passphrase};
use crate::limits::{Networks, RateLimits};
use crate::listener::TlsFiles;
use crate::logging::LogFormat;
use crate::trust::ExternalTrust;

mod ct;
pub mod fulcio;

pub use ct::{CtMode, CtSettings, ExternalLogs};

/// Where the configuration lies when nothing else is said.
const SYSTEM_CONFIG: &str = "/etc/mayfly/mayfly.yaml";
const SYSTEM_IDENTITY: &str = "/etc/mayfly/identity.yaml";
/// The data folder when nothing else is said.
pub const SYSTEM_DATA: &str = "/var/lib/mayfly";
/// The largest configuration file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A configuration that cannot be served. All of its lines are for the operator.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

impl ConfigError {
    /// One finding.
    #[must_use]
    pub fn one(text: impl Into<String>) -> Self {
        Self(vec![text.into()])
    }
}

/// A length of time as people write it: `500ms`, `10s`, `1m30s`, `2h`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Span(pub Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, milliseconds) = (self.0.as_secs(), self.0.subsec_millis());
        match (seconds, milliseconds) {
            (0, _) => write!(f, "{milliseconds}ms"),
            (_, 0) => write!(f, "{seconds}s"),
            _ => write!(f, "{seconds}s{milliseconds}ms"),
        }
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a duration such as 500ms, 10s or 1m30s");
        let mut rest = text;
        let mut total = Duration::ZERO;
        while !rest.is_empty() {
            let digits = rest
                .find(|character: char| !character.is_ascii_digit())
                .ok_or_else(wrong)?;
            let (number, behind) = rest.split_at(digits);
            let number: u64 = number.parse().map_err(|_| wrong())?;
            let unit = behind
                .find(|character: char| character.is_ascii_digit())
                .unwrap_or(behind.len());
            let (unit, behind) = behind.split_at(unit);
            let milliseconds = match unit {
                "ms" => 1,
                "s" => 1000,
                "m" => 60_000,
                "h" => 3_600_000,
                _ => return Err(wrong()),
            };
            total += Duration::from_millis(number.checked_mul(milliseconds).ok_or_else(wrong)?);
            rest = behind;
        }
        if text.is_empty() {
            Err(wrong())
        } else {
            Ok(Self(total))
        }
    }
}

/// A number of octets as people write it: `512`, `128KiB`, `4MiB`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Size(pub usize);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            size if size > 0 && size.is_multiple_of(1 << 20) => write!(f, "{}MiB", size >> 20),
            size if size > 0 && size.is_multiple_of(1 << 10) => write!(f, "{}KiB", size >> 10),
            size => write!(f, "{size}"),
        }
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a size such as 65536, 128KiB or 1MiB");
        let digits = text
            .find(|character: char| !character.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let factor: usize = match unit {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            _ => return Err(wrong()),
        };
        let number: usize = number.parse().map_err(|_| wrong())?;
        number.checked_mul(factor).map(Self).ok_or_else(wrong)
    }
}

/// Reads an address to listen on.
///
/// # Errors
/// With what an address looks like, which the library's own message does not say.
pub fn parse_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("{text:?} is not an IP address with a port, such as 127.0.0.1:5555 or [::]:5555")
    })
}

/// Where gRPC is served alone: `ADDR`, or `off`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GrpcListen(pub Option<SocketAddr>);

impl GrpcListen {
    /// Beside the API; where that takes any free port, nobody wants a certain one.
    fn beside(api: SocketAddr) -> Self {
        Self((api.port() != 0).then(|| SocketAddr::new(api.ip(), 5554)))
    }
}

impl fmt::Display for GrpcListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("off"),
        }
    }
}

impl FromStr for GrpcListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            // What YAML makes of it.
            "off" | "false" => Ok(Self(None)),
            _ => parse_address(text)
                .map(|address| Self(Some(address)))
                .map_err(|error| format!("{error}, nor `off`")),
        }
    }
}

/// The URL under which clients reach this server: scheme, host, port, nothing behind them.
///
/// The log's origin and every URL in the trust files come from it, so it is chosen once.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PublicUrl {
    url: url::Url,
    authority: String,
}

impl PublicUrl {
    /// The URL itself.
    #[must_use]
    pub const fn as_url(&self) -> &url::Url {
        &self.url
    }

    /// Host and port.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The host alone.
    #[must_use]
    pub fn host(&self) -> &str {
        match self.authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => &self.authority,
        }
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.url.scheme(), self.authority)
    }
}

impl FromStr for PublicUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!("{text:?} {what}; give scheme, host and port, such as https://ca.example.com")
        };
        let url = url::Url::parse(text).map_err(|_| wrong("is not a URL"))?;
        let host = url.host_str().ok_or_else(|| wrong("has no host"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(wrong("is neither http nor https"));
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("has something behind the host"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("has a user in it"));
        }
        let authority = url
            .port()
            .map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Ok(Self { authority, url })
    }
}

macro_rules! settings {
    ($($(#[$attribute:meta])* $name:ident: $kind:ty,)+) => {
        /// What people write. Every member is a flag, an environment variable `MAYFLY_…` and a key of the file.
        #[derive(Clone, Debug, Default, Deserialize, clap::Args)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
        pub struct Settings {
            $($(#[$attribute])* #[arg(hide_env_values = true)] #[serde(deserialize_with = "scalar")] pub $name: Option<$kind>,)+
            /// The logs that certificates are in, in the file alone.
            #[arg(skip)]
            pub ct: CtSettings,
            /// Other services for the trust files, in the file alone.
            #[arg(skip)]
            pub trust: TrustSettings,
            /// The passphrase itself, as Fulcio takes it.
            #[arg(skip)]
            #[serde(skip)]
            pub ca_key_password: Option<Passphrase>,
        }

        impl Settings {
            /// These settings, and those of `lower` where these are silent.
            #[must_use]
            fn over(self, lower: Self) -> Self {
                Self {
                    $($name: self.$name.or(lower.$name),)+
                    ct: lower.ct,
                    trust: lower.trust,
                    ca_key_password: self.ca_key_password.or(lower.ca_key_password),
                }
            }

            /// Every setting but the sections `ct` and `trust`, and no secret: its name in Rust, which is also that of the flag's argument,
            /// and its value as it is written.
            #[must_use]
            pub fn values(&self) -> Vec<(&'static str, Option<String>)> {
                vec![$((stringify!($name), self.$name.as_ref().map(Written::written)),)+]
            }
        }
    };
}

/// A value as it is written in the file.
trait Written {
    fn written(&self) -> String;
}

impl Written for PathBuf {
    fn written(&self) -> String {
        self.display().to_string()
    }
}

macro_rules! written_as_shown {
    ($($kind:ty),+) => {
        $(impl Written for $kind {
            fn written(&self) -> String {
                self.to_string()
            }
        })+
    };
}

written_as_shown!(
    bool,
    usize,
    String,
    SocketAddr,
    GrpcListen,
    PublicUrl,
    Size,
    Span,
    RateLimits,
    Networks,
    ErrorDetailName,
    LogFormatName
);

settings! {
    /// The folder of keys, log and state that `mayfly init` made; whoever has the CA's files and logs of others needs none
    /// [default: /var/lib/mayfly]
    #[arg(long, env = "MAYFLY_DATA_DIR", value_name = "DIR")]
    data_dir: PathBuf,
    /// Who may have a certificate: a file in Fulcio's format [default: identity.yaml in the data folder, else
    /// /etc/mayfly/identity.yaml]
    #[arg(long, env = "MAYFLY_IDENTITY_CONFIG", value_name = "FILE")]
    identity_config: PathBuf,
    /// Put changes of the identity configuration in force only when asked to, by SIGHUP
    #[arg(long, env = "MAYFLY_NO_WATCH", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    no_watch: bool,
    /// The address of the API and the log [default: 0.0.0.0:5555]
    #[arg(long, env = "MAYFLY_LISTEN", value_name = "ADDR", value_parser = parse_address)]
    listen: SocketAddr,
    /// The address of gRPC alone, or `off`; the API's address takes gRPC too [default: port 5554 beside the API]
    #[arg(long, env = "MAYFLY_GRPC_LISTEN", value_name = "ADDR")]
    grpc_listen: GrpcListen,
    /// Tell gRPC clients which services there are, so that they need no files of their own
    #[arg(long, env = "MAYFLY_GRPC_REFLECTION", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    grpc_reflection: bool,
    /// The address of metrics and health [default: 127.0.0.1:2112]
    #[arg(long, env = "MAYFLY_METRICS_LISTEN", value_name = "ADDR", value_parser = parse_address)]
    metrics_listen: SocketAddr,
    /// Be administered at a unix socket of this path, by the server's own user and root [default: not at all]
    #[arg(long, env = "MAYFLY_ADMIN_SOCKET", value_name = "PATH")]
    admin_socket: PathBuf,
    /// Be administered at this address, over TLS, by those who show a certificate of --admin-client-ca [default: not at all]
    #[arg(long, env = "MAYFLY_ADMIN_LISTEN", value_name = "ADDR", value_parser = parse_address)]
    admin_listen: SocketAddr,
    /// The CAs of those who may administer the server at --admin-listen, a PEM file
    #[arg(long, env = "MAYFLY_ADMIN_CLIENT_CA", value_name = "FILE")]
    admin_client_ca: PathBuf,
    /// A PEM file, leaf first: the certificate of --admin-listen [default: as --tls-cert]
    #[arg(long, env = "MAYFLY_ADMIN_TLS_CERT", value_name = "FILE")]
    admin_tls_cert: PathBuf,
    /// The key of --admin-tls-cert
    #[arg(long, env = "MAYFLY_ADMIN_TLS_KEY", value_name = "FILE")]
    admin_tls_key: PathBuf,
    /// The URL that clients use: the one given to `mayfly init`, and no other, where there is a data folder
    #[arg(long, env = "MAYFLY_PUBLIC_URL", value_name = "URL")]
    public_url: PublicUrl,
    /// A PEM file, leaf first: serve HTTPS
    #[arg(long, env = "MAYFLY_TLS_CERT", value_name = "FILE")]
    tls_cert: PathBuf,
    /// The key of --tls-cert
    #[arg(long, env = "MAYFLY_TLS_KEY", value_name = "FILE")]
    tls_key: PathBuf,
    /// A PEM file, leaf first: gRPC with TLS on --grpc-listen [default: as --tls-cert]
    #[arg(long, env = "MAYFLY_GRPC_TLS_CERTIFICATE", value_name = "FILE")]
    grpc_tls_certificate: PathBuf,
    /// The key of --grpc-tls-certificate
    #[arg(long, env = "MAYFLY_GRPC_TLS_KEY", value_name = "FILE")]
    grpc_tls_key: PathBuf,
    /// The CA's certificates, a PEM file: issuing CA first, root last [default: in the data folder]
    #[arg(long, env = "MAYFLY_CA_CERT", value_name = "FILE")]
    ca_cert: PathBuf,
    /// The issuing CA's key, a PEM file [default: in the data folder]
    #[arg(long, env = "MAYFLY_CA_KEY", value_name = "FILE")]
    ca_key: PathBuf,
    /// A file with the passphrase of the CA's key and the log's key
    #[arg(long, env = "MAYFLY_CA_KEY_PASSWORD_FILE", value_name = "FILE", alias = "password-file")]
    ca_key_password_file: PathBuf,
    /// Have a CA in memory alone, another one at every start, to try things with: nothing that it signed verifies after it
    #[arg(long, env = "MAYFLY_EPHEMERAL_CA", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    ephemeral_ca: bool,
    /// Issue certificates that no transparency log holds; every verifier will refuse them
    #[arg(long, env = "MAYFLY_NO_CT", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    no_ct: bool,
    /// Submit to this log in place of the server's own: what `/ct/v1/add-pre-chain` stands behind
    #[arg(long, env = "MAYFLY_CT_LOG_URL", value_name = "URL")]
    ct_log_url: String,
    /// The public key of --ct-log-url, a PEM file
    #[arg(long, env = "MAYFLY_CT_LOG_PUBLIC_KEY", value_name = "FILE")]
    ct_log_public_key: PathBuf,
    /// The certificates that the TLS certificate of --ct-log-url must come from, a PEM file [default: the system's]
    #[arg(long, env = "MAYFLY_CT_LOG_TLS_CA", value_name = "FILE")]
    ct_log_tls_ca: PathBuf,
    /// The host that --ct-log-url knows itself by [default: the one in the URL]
    #[arg(long, env = "MAYFLY_CT_LOG_HOST", value_name = "HOST")]
    ct_log_host: String,
    /// How long is waited for logs of others, retries and further logs included [default: 2s]
    #[arg(long, env = "MAYFLY_CT_SUBMIT_TIMEOUT", value_name = "TIME")]
    ct_submit_timeout: Span,
    /// How long is waited for one of several logs before the next is asked as well [default: 700ms]
    #[arg(long, env = "MAYFLY_CT_HEDGE_AFTER", value_name = "TIME")]
    ct_hedge_after: Span,
    /// The keys and hashes that clients may use, separated by commas [default: P-256, P-384 and P-521 with their own
    /// hashes, RSA 2048, 3072 and 4096 with SHA-256, Ed25519]
    #[arg(long, env = "MAYFLY_CLIENT_SIGNING_ALGORITHMS", value_name = "LIST")]
    client_signing_algorithms: String,
    /// The largest request body [default: 128KiB]
    #[arg(long, env = "MAYFLY_MAX_BODY_BYTES", value_name = "SIZE")]
    max_body_bytes: Size,
    /// Requests for a certificate that are worked on or wait within; further ones get 503 [default: 1024]
    #[arg(long, env = "MAYFLY_MAX_WAITING", value_name = "N")]
    max_waiting: usize,
    /// Limits of requests for a certificate, KEY=RATE:BURST with commas between: KEY is `ip`, `issuer`, `subject` or
    /// `global`, RATE a number a second, or with /m or /h a minute or an hour [default: none]
    #[arg(long, env = "MAYFLY_RATE_LIMIT", value_name = "LIST")]
    rate_limit: RateLimits,
    /// Addresses and networks of proxies whose `X-Forwarded-For` or `Forwarded` is believed, separated by commas
    /// [default: none]
    #[arg(long, env = "MAYFLY_TRUSTED_PROXIES", value_name = "LIST")]
    trusted_proxies: Networks,
    /// Connections at the same time; further ones wait to be accepted [default: 10000]
    #[arg(long, env = "MAYFLY_MAX_CONNECTIONS", value_name = "N")]
    max_connections: usize,
    /// Connections of one address at the same time, 0 for any number; those of this machine and of trusted proxies are
    /// not counted [default: 256]
    #[arg(long, env = "MAYFLY_MAX_CONNECTIONS_PER_IP", value_name = "N")]
    max_connections_per_ip: usize,
    /// How long a connection is kept for its next request [default: 30s]
    #[arg(long, env = "MAYFLY_IDLE_TIMEOUT", value_name = "TIME")]
    idle_timeout: Span,
    /// How long a stop waits for requests that have begun [default: 25s]
    #[arg(long, env = "MAYFLY_SHUTDOWN_GRACE", value_name = "TIME")]
    shutdown_grace: Span,
    /// Threads that serve [default: one a core]
    #[arg(long, env = "MAYFLY_WORKERS", value_name = "N")]
    workers: usize,
    /// How much an error answer tells: `reason`, or what Fulcio says and no more: `compatible` [default: reason]
    #[arg(long, env = "MAYFLY_ERROR_DETAIL", value_name = "DETAIL")]
    error_detail: ErrorDetailName,
    /// Lowest level of log lines, or a list of target=level [default: info]
    #[arg(long, env = "MAYFLY_LOG_LEVEL", value_name = "LEVEL")]
    log_level: String,
    /// Form of log lines: `json`, `pretty`, or by whether standard error is a terminal: `auto` [default: auto]
    #[arg(long, env = "MAYFLY_LOG_FORMAT", value_name = "FORMAT")]
    log_format: LogFormatName,
    /// Refuse to start where a warning would do
    #[arg(long, env = "MAYFLY_STRICT", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    strict: bool,
    /// Take private keys that others can read or replace
    #[arg(long, env = "MAYFLY_ALLOW_INSECURE_PERMISSIONS", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    allow_insecure_permissions: bool,
}

/// The `trust` section of the file.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct TrustSettings {
    /// Services that this server does not run and its clients need.
    pub external: ExternalTrust,
}

macro_rules! names {
    ($(#[$attribute:meta])* $name:ident($kind:ty): $($text:literal => $value:expr,)+) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub struct $name(pub $kind);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let all = [$(($text, $value)),+];
                let name = all.iter().find(|(_, value)| *value == self.0);
                f.write_str(name.map_or("", |(text, _)| *text))
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self($value)),)+
                    _ => Err(format!("{text:?} is none of {}", [$($text),+].join(", "))),
                }
            }
        }
    };
}

names! {
    /// `--error-detail`.
    ErrorDetailName(ErrorDetail): "reason" => ErrorDetail::Reason, "compatible" => ErrorDetail::Compatible,
}
names! {
    /// `--log-format`.
    LogFormatName(LogFormat): "auto" => LogFormat::Auto, "json" => LogFormat::Json, "pretty" => LogFormat::Pretty,
}

/// Reads a setting from a YAML scalar by the same parser that reads the flag.
fn scalar<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: fmt::Display>,
{
    struct Scalar<T>(std::marker::PhantomData<T>);
    impl<T: FromStr<Err: fmt::Display>> Visitor<'_> for Scalar<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a single value")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
            text.parse::<T>().map_err(|error| {
                let error = error.to_string();
                // The messages of the standard library do not say what they are about.
                if error.contains(text) {
                    E::custom(error)
                } else {
                    E::custom(format_args!("{text:?}: {error}"))
                }
            })
        }

        fn visit_bool<E: de::Error>(self, value: bool) -> Result<T, E> {
            self.visit_str(if value { "true" } else { "false" })
        }

        fn visit_u64<E: de::Error>(self, value: u64) -> Result<T, E> {
            self.visit_str(&value.to_string())
        }
    }
    deserializer
        .deserialize_any(Scalar(std::marker::PhantomData))
        .map(Some)
}

impl Settings {
    /// Fills in from the configuration file what flags and environment did not say: `file`, or the system's, or the one
    /// in the data folder; none of them need exist but `file`. Relative paths in a file are relative to the file.
    ///
    /// # Errors
    /// When the file cannot be read, or is wrong: then with file, line and column.
    pub fn with_file(self, file: Option<&Path>) -> Result<Self, ConfigError> {
        Ok(match self.read_file(file)? {
            Some((_, lower)) => self.over(lower),
            None => self,
        })
    }

    /// The settings in the configuration file alone, with its path.
    ///
    /// # Errors
    /// As for [`Self::with_file`].
    pub fn read_file(&self, file: Option<&Path>) -> Result<Option<(PathBuf, Self)>, ConfigError> {
        let in_data_dir = self
            .data_dir
            .as_deref()
            .unwrap_or_else(|| Path::new(SYSTEM_DATA))
            .join("mayfly.yaml");
        let path = match file {
            Some(path) => path.to_owned(),
            None if Path::new(SYSTEM_CONFIG).exists() => PathBuf::from(SYSTEM_CONFIG),
            None if in_data_dir.exists() => in_data_dir,
            None => return Ok(None),
        };
        let text = read_limited(&path, MAX_FILE_BYTES)?;
        let environment: HashMap<String, String> = std::env::vars().collect();
        let name = path.display().to_string();
        let mut lower = Self::parse(&name, &text, environment)?;
        lower.resolve_paths(path.parent().unwrap_or_else(|| Path::new(".")));
        Ok(Some((path, lower)))
    }

    /// Parses the text of a configuration file. `${NAME}` and `${NAME:-default}` in values are taken from `environment`.
    ///
    /// # Errors
    /// What is wrong, as `name:line:column: message`.
    pub fn parse(
        name: &str,
        text: &str,
        environment: HashMap<String, String>,
    ) -> Result<Self, ConfigError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let options = serde_saphyr::options! { strict_booleans: true }.with_properties(environment);
        serde_saphyr::from_str_with_options(text, options).map_err(|error| {
            let place = error.location().map_or_else(
                || name.to_owned(),
                |location| format!("{name}:{}:{}", location.line(), location.column()),
            );
            ConfigError::one(format!(
                "{place}: {}",
                first_line(&error.without_snippet().to_string())
            ))
        })
    }

    /// The lowest level of log lines, or a list of `target=level`.
    #[must_use]
    pub fn log_level(&self) -> &str {
        self.log_level.as_deref().unwrap_or("info")
    }

    /// The form of log lines.
    #[must_use]
    pub fn log_format(&self) -> LogFormat {
        self.log_format.map(|name| name.0).unwrap_or_default()
    }

    fn resolve_paths(&mut self, base: &Path) {
        let members = [
            &mut self.data_dir,
            &mut self.identity_config,
            &mut self.admin_socket,
            &mut self.admin_client_ca,
            &mut self.admin_tls_cert,
            &mut self.admin_tls_key,
            &mut self.tls_cert,
            &mut self.tls_key,
            &mut self.grpc_tls_certificate,
            &mut self.grpc_tls_key,
            &mut self.ca_cert,
            &mut self.ca_key,
            &mut self.ca_key_password_file,
            &mut self.ct_log_public_key,
            &mut self.ct_log_tls_ca,
        ];
        for path in members.into_iter().flatten() {
            *path = base.join(&path);
        }
        self.ct.resolve_paths(base);
        for log in &mut self.trust.external.transparency_logs {
            log.public_key_file = base.join(&log.public_key_file);
        }
        for authority in &mut self.trust.external.timestamp_authorities {
            authority.certificate_chain_file = base.join(&authority.certificate_chain_file);
        }
    }
}

/// Parser messages end with the place, and go on with an excerpt of the file; ours begins with the place.
fn first_line(text: &str) -> &str {
    let text = text.strip_prefix("error: ").unwrap_or(text);
    let line = text.lines().next().unwrap_or(text);
    line.rsplit_once(" at line ")
        .map_or(line, |(message, _)| message)
}

/// Reads a text file of at most `limit` bytes.
///
/// # Errors
/// When it cannot be read, is too long, or is not UTF-8; the message names the file.
pub fn read_limited(path: &Path, limit: u64) -> Result<String, ConfigError> {
    use std::io::Read;
    let failed = |what: String| ConfigError::one(format!("{}: {what}", path.display()));
    let file = std::fs::File::open(path).map_err(|error| failed(error.to_string()))?;
    if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        return Err(failed("is a folder; give a file".to_owned()));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| failed(error.to_string()))?;
    if bytes.len() as u64 > limit {
        return Err(failed(format!("is larger than {limit} bytes")));
    }
    String::from_utf8(bytes).map_err(|_| failed("is not UTF-8 text".to_owned()))
}

/// What `state.json` in the data folder keeps of the instance.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceState {
    /// The version of the data folder's layout.
    pub format: u32,
    /// The URL that the instance was made for.
    pub public_url: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// The version that made it.
    pub version: String,
}

impl InstanceState {
    /// The layout that this version writes.
    pub const FORMAT: u32 = 1;

    /// Where the state lies in a data folder.
    #[must_use]
    pub fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("state.json")
    }

    /// Reads the state of a data folder.
    ///
    /// # Errors
    /// When there is none, or a newer version wrote it.
    pub fn read(data_dir: &Path) -> Result<Self, ConfigError> {
        let path = Self::path(data_dir);
        if !path.exists() {
            return Err(ConfigError::one(format!(
                "{}: there is no Mayfly instance; make one with `mayfly init --data-dir {} --public-url URL`",
                data_dir.display(),
                data_dir.display(),
            )));
        }
        let text = read_limited(&path, MAX_FILE_BYTES)?;
        let state: Self = serde_json::from_str(&text)
            .map_err(|error| ConfigError::one(format!("{}: {error}", path.display())))?;
        if state.format > Self::FORMAT {
            let (path, format, known) = (path.display(), state.format, Self::FORMAT);
            return Err(ConfigError::one(format!(
                "{path}: written by a newer version of Mayfly (format {format}, this one knows {known})"
            )));
        }
        Ok(state)
    }

    /// The URL that the instance in this folder was made for.
    fn parsed_url(&self, data_dir: &Path) -> Result<PublicUrl, String> {
        let path = Self::path(data_dir);
        let parsed = self.public_url.parse();
        parsed.map_err(|error: String| format!("{}: public_url: {error}", path.display()))
    }
}

/// Where the CA's parts lie in a data folder.
#[must_use]
pub fn ca_folder(data_dir: &Path) -> PathBuf {
    data_dir.join("ca").join("current")
}

/// Where the TUF repository of the trust files lies in a data folder, with its keys.
#[must_use]
pub fn tuf_folder(data_dir: &Path) -> PathBuf {
    data_dir.join("tuf")
}

/// Where the embedded log lies in a data folder, with its key.
#[must_use]
pub fn log_folder(data_dir: &Path) -> PathBuf {
    data_dir.join("ct").join("main")
}

/// A complete configuration, checked as far as the settings alone allow.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// The folder of keys, log and state.
    pub data_dir: PathBuf,
    /// The identity file.
    pub identity_config: PathBuf,
    /// Whether changes of it count only when a reload is asked for.
    pub no_watch: bool,
    /// The API's address.
    pub listen: SocketAddr,
    /// The address of gRPC alone, if it is not served at the API's address only.
    pub grpc_listen: Option<SocketAddr>,
    /// Whether gRPC clients are told which services there are.
    pub grpc_reflection: bool,
    /// The address of metrics and health.
    pub metrics_listen: SocketAddr,
    /// The path of the socket of the administration, if there is to be one.
    pub admin_socket: Option<PathBuf>,
    /// Where else the server is administered, and with which TLS, if anywhere.
    pub admin_listen: Option<(SocketAddr, TlsFiles)>,
    /// The URL that clients use.
    pub public_url: PublicUrl,
    /// Certificate and key for HTTPS.
    pub tls: Option<TlsFiles>,
    /// Certificate and key for the address of gRPC, where they are others.
    pub grpc_tls: Option<TlsFiles>,
    /// The CA's certificates.
    pub ca_cert: PathBuf,
    /// The issuing CA's key.
    pub ca_key: PathBuf,
    /// The file of the keys' passphrase.
    pub ca_key_password_file: Option<PathBuf>,
    /// The keys' passphrase, where it is in no file.
    pub ca_key_password: Option<Passphrase>,
    /// Whether the CA is in memory alone, and `ca_cert` and `ca_key` are not read.
    pub ephemeral_ca: bool,
    /// The server's own log, unless certificates are in those of others, or in none (`--no-ct`).
    pub log: Option<EmbeddedLogSettings>,
    /// The logs of others that take its place.
    pub external_logs: Option<ExternalLogs>,
    /// What clients may sign with.
    pub permitted: PermittedAlgorithms,
    /// The largest request body, in octets.
    pub max_body_bytes: usize,
    /// Requests for a certificate that are worked on or wait within.
    pub max_waiting: usize,
    /// How often clients may ask.
    pub rate_limits: RateLimits,
    /// Whose word about a client's address is taken.
    pub trusted_proxies: Networks,
    /// Connections at the same time.
    pub max_connections: usize,
    /// Connections of one address at the same time; 0 for any number.
    pub max_connections_per_ip: usize,
    /// How long a connection is kept for its next request.
    pub idle_timeout: Duration,
    /// How long a stop waits.
    pub shutdown_grace: Duration,
    /// Threads that serve.
    pub workers: usize,
    /// How much errors tell.
    pub error_detail: ErrorDetail,
    /// Refuse where a warning would do.
    pub strict: bool,
    /// Take private keys that others can read or replace.
    pub allow_insecure_permissions: bool,
    /// Other services for the trust files.
    pub external: ExternalTrust,
}

/// A certificate and its key, of which each needs the other.
fn pair(
    certificate: (&str, Option<PathBuf>),
    key: (&str, Option<PathBuf>),
    findings: &mut Vec<String>,
) -> Option<TlsFiles> {
    match (certificate, key) {
        ((_, Some(certificate)), (_, Some(key))) => Some(TlsFiles {
            certificate,
            key,
            client_ca: None,
        }),
        ((_, None), (_, None)) => None,
        ((given, Some(_)), (missing, None)) | ((missing, None), (given, Some(_))) => {
            findings.push(format!("{missing}: missing; --{given} needs it"));
            None
        }
    }
}

/// Where the server is administered beside its socket: nowhere, or with all that keeps others out.
fn administration(
    address: Option<SocketAddr>,
    client_ca: Option<PathBuf>,
    tls: Option<&TlsFiles>,
    findings: &mut Vec<String>,
) -> Option<(SocketAddr, TlsFiles)> {
    let Some(address) = address else {
        if client_ca.is_some() {
            findings.push("admin-listen: missing; --admin-client-ca needs it".to_owned());
        }
        return None;
    };
    if client_ca.is_none() {
        let needed = "admin-client-ca: missing; --admin-listen needs it, for without it anybody could administer the server";
        findings.push(needed.to_owned());
    }
    if tls.is_none() {
        let needed = "admin-tls-cert: missing; --admin-listen needs it and --admin-tls-key, or --tls-cert and --tls-key";
        findings.push(needed.to_owned());
    }
    let files = TlsFiles {
        client_ca: Some(client_ca?),
        ..tls?.clone()
    };
    Some((address, files))
}

impl ServerConfig {
    /// Makes settings complete and checks them against the data folder.
    ///
    /// # Errors
    /// Every finding at once.
    pub fn new(settings: Settings) -> Result<Self, ConfigError> {
        let mut findings = Vec::new();
        let mode = settings.ct_mode(&mut findings);
        let external_logs = settings.external_logs(&mut findings);
        let data_dir = settings
            .data_dir
            .unwrap_or_else(|| PathBuf::from(SYSTEM_DATA));
        // Only what has a log of its own must have a folder; one that is there still says what the CA and the URL are.
        let is_instance = mode == CtMode::Embedded || InstanceState::path(&data_dir).exists();
        let made_for = if is_instance {
            InstanceState::read(&data_dir)?
                .parsed_url(&data_dir)
                .map_err(|error| findings.push(error))
                .ok()
        } else {
            None
        };
        let is_ephemeral = settings.ephemeral_ca.unwrap_or(false);
        if !is_instance {
            for (name, is_missing) in [
                ("public-url", settings.public_url.is_none()),
                ("ca-cert", settings.ca_cert.is_none() && !is_ephemeral),
                ("ca-key", settings.ca_key.is_none() && !is_ephemeral),
            ] {
                if is_missing {
                    let folder = data_dir.display();
                    findings.push(format!(
                        "{name}: missing; {folder} is no data folder that says it"
                    ));
                }
            }
        }
        if let (Some(asked), Some(made_for)) = (&settings.public_url, &made_for)
            && asked != made_for
        {
            findings.push(format!(
                "public-url: is {asked}, but this instance was made for {made_for}: the log's origin and the trust files of \
                 every client carry that URL. Use it, or make a new instance with `mayfly init`"
            ));
        }
        let tls = pair(
            ("tls-cert", settings.tls_cert),
            ("tls-key", settings.tls_key),
            &mut findings,
        );
        let grpc_tls = pair(
            ("grpc-tls-certificate", settings.grpc_tls_certificate),
            ("grpc-tls-key", settings.grpc_tls_key),
            &mut findings,
        );
        let admin_tls = pair(
            ("admin-tls-cert", settings.admin_tls_cert),
            ("admin-tls-key", settings.admin_tls_key),
            &mut findings,
        );
        if let (None, Some(_)) = (settings.admin_listen, &admin_tls) {
            findings.push("admin-listen: missing; --admin-tls-cert needs it".to_owned());
        }
        let admin_listen = administration(
            settings.admin_listen,
            settings.admin_client_ca,
            admin_tls.as_ref().or(tls.as_ref()),
            &mut findings,
        );
        let permitted = match settings
            .client_signing_algorithms
            .as_deref()
            .map(PermittedAlgorithms::parse)
        {
            None => PermittedAlgorithms::default(),
            Some(Ok(permitted)) => permitted,
            Some(Err(error)) => {
                findings.push(format!("client-signing-algorithms: {error}"));
                PermittedAlgorithms::default()
            }
        };
        if settings.workers == Some(0) {
            findings.push("workers: 0 threads serve nobody; give 1 or more".to_owned());
        }
        if settings.max_waiting == Some(0) {
            findings.push("max-waiting: 0 requests serve nobody; give 1 or more".to_owned());
        }
        if settings.max_connections == Some(0) {
            findings.push("max-connections: 0 connections serve nobody; give 1 or more".to_owned());
        }
        let in_data_dir = data_dir.join("identity.yaml");
        let identity_config = settings.identity_config.unwrap_or_else(|| {
            if in_data_dir.exists() {
                in_data_dir
            } else {
                PathBuf::from(SYSTEM_IDENTITY)
            }
        });
        let log = made_for.as_ref().and_then(|url| {
            let checked = settings.ct.embedded().check(url.as_url());
            checked
                .map_err(|error| findings.push(format!("ct: {error}")))
                .ok()
        });
        let public_url = made_for.or(settings.public_url);
        let (Some(public_url), true) = (public_url, findings.is_empty()) else {
            return Err(ConfigError(findings));
        };
        let ca = ca_folder(&data_dir);
        let listen = settings
            .listen
            .unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 5555)));
        let grpc_listen = settings
            .grpc_listen
            .unwrap_or_else(|| GrpcListen::beside(listen));
        Ok(Self {
            identity_config,
            listen,
            // The API's address takes gRPC anyway.
            grpc_listen: grpc_listen.0.filter(|address| *address != listen),
            grpc_reflection: settings.grpc_reflection.unwrap_or(false),
            metrics_listen: settings
                .metrics_listen
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 2112))),
            admin_socket: settings.admin_socket,
            admin_listen,
            public_url,
            tls,
            grpc_tls,
            ca_cert: settings.ca_cert.unwrap_or_else(|| ca.join("chain.pem")),
            ca_key: settings.ca_key.unwrap_or_else(|| ca.join("key.pem")),
            ca_key_password_file: settings.ca_key_password_file,
            ca_key_password: settings.ca_key_password,
            ephemeral_ca: is_ephemeral,
            no_watch: settings.no_watch.unwrap_or(false),
            log: log.filter(|_| mode == CtMode::Embedded),
            external_logs: external_logs.filter(|_| mode == CtMode::External),
            permitted,
            max_body_bytes: settings.max_body_bytes.map_or(128 << 10, |size| size.0),
            max_waiting: settings.max_waiting.unwrap_or(1024),
            rate_limits: settings.rate_limit.unwrap_or_default(),
            trusted_proxies: settings.trusted_proxies.unwrap_or_default(),
            max_connections: settings.max_connections.unwrap_or(10_000),
            max_connections_per_ip: settings.max_connections_per_ip.unwrap_or(256),
            idle_timeout: settings
                .idle_timeout
                .map_or(Duration::from_secs(30), |span| span.0),
            shutdown_grace: settings
                .shutdown_grace
                .map_or(Duration::from_secs(25), |span| span.0),
            workers: settings
                .workers
                .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
            error_detail: settings
                .error_detail
                .map_or(ErrorDetail::Reason, |name| name.0),
            strict: settings.strict.unwrap_or(false),
            allow_insecure_permissions: settings.allow_insecure_permissions.unwrap_or(false),
            external: settings.trust.external,
            data_dir,
        })
    }
}

impl ServerConfig {
    /// Whether certificates are in a log.
    #[must_use]
    pub const fn has_log(&self) -> bool {
        self.log.is_some() || self.external_logs.is_some()
    }

    /// The passphrase of the keys, if they have one.
    ///
    /// # Errors
    /// When its file cannot be read.
    pub fn passphrase(&self) -> Result<Option<Passphrase>, KeyFileError> {
        let file = self.ca_key_password_file.as_deref();
        let of_file = file.map(Passphrase::from_file).transpose()?;
        Ok(of_file.or_else(|| self.ca_key_password.clone()))
    }

    /// What takes away something that the server protects, each by its setting and with what comes of it.
    #[must_use]
    pub fn insecure_settings(&self) -> Vec<&'static str> {
        let no_ct = "no-ct: certificates are in no transparency log; every Sigstore verifier will refuse them";
        let permissions =
            "allow-insecure-permissions: private keys that others can read or replace are taken";
        let ephemeral = "ephemeral-ca: the CA is another one after each start, and what it signed before verifies no more";
        let all = [
            (!self.has_log(), no_ct),
            (self.allow_insecure_permissions, permissions),
            (self.ephemeral_ca, ephemeral),
        ];
        let set = all.into_iter().filter(|(is_set, _)| *is_set);
        set.map(|(_, what)| what).collect()
    }

    /// The settings that come to this configuration, those included that nobody wrote: `given`, and what holds without it.
    #[must_use]
    pub fn settings(&self, given: &Settings) -> Settings {
        let pair = |files: TlsFiles| (files.certificate, files.key);
        let (tls_cert, tls_key) = self.tls.clone().map(pair).unzip();
        let (grpc_tls_certificate, grpc_tls_key) = self.grpc_tls.clone().map(pair).unzip();
        let (admin_listen, admin_tls) = self.admin_listen.clone().unzip();
        let admin_client_ca = admin_tls.as_ref().and_then(|files| files.client_ca.clone());
        let (admin_tls_cert, admin_tls_key) = admin_tls.map(pair).unzip();
        let external = self
            .external_logs
            .as_ref()
            .map(|external| external.patience);
        Settings {
            data_dir: Some(self.data_dir.clone()),
            identity_config: Some(self.identity_config.clone()),
            no_watch: Some(self.no_watch),
            listen: Some(self.listen),
            grpc_listen: Some(GrpcListen(self.grpc_listen)),
            grpc_reflection: Some(self.grpc_reflection),
            metrics_listen: Some(self.metrics_listen),
            admin_socket: self.admin_socket.clone(),
            admin_listen,
            admin_client_ca,
            admin_tls_cert,
            admin_tls_key,
            public_url: Some(self.public_url.clone()),
            tls_cert,
            tls_key,
            grpc_tls_certificate,
            grpc_tls_key,
            ca_cert: (!self.ephemeral_ca).then(|| self.ca_cert.clone()),
            ca_key: (!self.ephemeral_ca).then(|| self.ca_key.clone()),
            ca_key_password_file: self.ca_key_password_file.clone(),
            ephemeral_ca: Some(self.ephemeral_ca),
            no_ct: Some(!self.has_log()),
            ct_log_url: given.ct_log_url.clone(),
            ct_log_public_key: given.ct_log_public_key.clone(),
            ct_log_tls_ca: given.ct_log_tls_ca.clone(),
            ct_log_host: given.ct_log_host.clone(),
            ct_submit_timeout: external.map(|patience| Span(patience.in_all)),
            ct_hedge_after: external.map(|patience| Span(patience.hedge_after)),
            client_signing_algorithms: Some(
                (given.client_signing_algorithms.clone())
                    .unwrap_or_else(|| PermittedAlgorithms::DEFAULT.to_owned()),
            ),
            max_body_bytes: Some(Size(self.max_body_bytes)),
            max_waiting: Some(self.max_waiting),
            rate_limit: given.rate_limit,
            trusted_proxies: given.trusted_proxies.clone(),
            max_connections: Some(self.max_connections),
            max_connections_per_ip: Some(self.max_connections_per_ip),
            idle_timeout: Some(Span(self.idle_timeout)),
            shutdown_grace: Some(Span(self.shutdown_grace)),
            workers: Some(self.workers),
            error_detail: Some(ErrorDetailName(self.error_detail)),
            log_level: Some(given.log_level().to_owned()),
            log_format: Some(LogFormatName(given.log_format())),
            strict: Some(self.strict),
            allow_insecure_permissions: Some(self.allow_insecure_permissions),
            ct: given.ct.clone(),
            trust: given.trust.clone(),
            ca_key_password: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, ConfigError> {
        let environment = HashMap::from([("PORT".to_owned(), "7777".to_owned())]);
        Settings::parse("mayfly.yaml", text, environment)
    }

    #[test]
    fn every_kind_of_value_is_read_from_the_file() {
        let settings = parse(
            "listen: 127.0.0.1:${PORT}\nworkers: 3\nstrict: true\nmax-body-bytes: 64KiB\nshutdown-grace: 1m30s\n\
             public-url: https://ca.example.com\nerror-detail: compatible\n",
        )
        .unwrap();

        assert_eq!(settings.listen, Some("127.0.0.1:7777".parse().unwrap()));
        assert_eq!((settings.workers, settings.strict), (Some(3), Some(true)));
        assert_eq!(settings.max_body_bytes, Some(Size(65536)));
        assert_eq!(settings.shutdown_grace, Some(Span(Duration::from_secs(90))));
        assert_eq!(settings.public_url.unwrap().authority(), "ca.example.com");
        assert_eq!(
            settings.error_detail,
            Some(ErrorDetailName(ErrorDetail::Compatible))
        );
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        for (text, expected) in [
            ("listen: 127.0.0.1:1\nlissten: x\n", "mayfly.yaml:2:1: "),
            ("listen: 127.0.0.1:1\nlissten: x\n", "lissten"),
            (
                "workers: many\n",
                "mayfly.yaml:1:10: \"many\": invalid digit",
            ),
            ("shutdown-grace: 10\n", "is not a duration such as"),
            ("public-url: ca.example.com\n", "is not a URL"),
            ("listen: ${NOWHERE}\n", "NOWHERE"),
            ("workers: 1\nworkers: 2\n", "mayfly.yaml:2:1: "),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(
                error.contains(expected),
                "{text:?} gave {error:?}, without {expected:?}"
            );
            assert!(!error.contains(" at line "), "the place twice: {error:?}");
        }
    }

    #[test]
    fn values_are_shown_as_they_can_be_written() {
        fn check<T: FromStr<Err: fmt::Debug> + fmt::Display + fmt::Debug + PartialEq>(
            all: &[&str],
        ) {
            for text in all {
                let value: T = text.parse().unwrap();
                assert_eq!(value.to_string().parse::<T>().unwrap(), value, "{value}");
            }
        }
        check::<Span>(&["0ms", "500ms", "10s", "1m30s", "2h", "1s500ms"]);
        check::<Size>(&["0", "1", "1000", "1KiB", "128KiB", "3MiB"]);
        check::<RateLimits>(&[
            "",
            "ip=50:100",
            "ip=30/m:1,issuer=7/h:2,subject=600/h:20,global=1:1",
        ]);
        check::<Networks>(&[
            "",
            "10.0.0.0/8,192.0.2.1",
            "2001:db8::/32,::1",
            "0.0.0.0/0",
            "::/0",
        ]);
        check::<ErrorDetailName>(&["reason", "compatible"]);
        check::<GrpcListen>(&["off", "127.0.0.1:5554", "[::1]:0"]);
        check::<LogFormatName>(&["auto", "json", "pretty"]);
    }

    #[test]
    fn flags_win_over_the_file() {
        let flags = Settings {
            workers: Some(1),
            ..Settings::default()
        };
        let merged = flags.over(parse("workers: 3\nstrict: true\n").unwrap());
        assert_eq!((merged.workers, merged.strict), (Some(1), Some(true)));
    }

    #[test]
    fn a_public_url_is_an_origin_and_nothing_more() {
        for text in [
            "https://ca.example.com/path",
            "ftp://ca.example.com",
            "https://user@ca.example.com",
            "ca",
        ] {
            assert!(text.parse::<PublicUrl>().is_err(), "{text} was taken");
        }
        let url: PublicUrl = "https://ca.example.com:443/".parse().unwrap();
        assert_eq!(
            (url.to_string().as_str(), url.host()),
            ("https://ca.example.com", "ca.example.com")
        );
        let url: PublicUrl = "http://[::1]:5555".parse().unwrap();
        assert_eq!(
            (url.host(), url.to_string().as_str()),
            ("[::1]", "http://[::1]:5555")
        );
    }
}
