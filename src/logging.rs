//! Log lines: one event a line on standard error, as JSON for machines or as text for people.

use std::fmt;
use std::io::IsTerminal;

use serde::Deserialize;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::clock::{Clock, SystemClock};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object a line.
    Json,
    /// Text with colours where the terminal has them.
    Pretty,
}

/// Begins to write log lines. `filter` is a level, or a list of `target=level` that may hold a level for all others.
///
/// # Errors
/// When `filter` does not parse, or logging was begun before.
pub fn start(filter: &str, format: LogFormat) -> Result<(), String> {
    let filter = parse_filter(filter)?;
    let is_terminal = std::io::stderr().is_terminal();
    let as_json = match format {
        LogFormat::Auto => !is_terminal,
        LogFormat::Json => true,
        LogFormat::Pretty => false,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A report of lines that cannot be written would go where they cannot be written, and panic.
        .log_internal_errors(false);
    let started = if as_json {
        builder.event_format(JsonLines).try_init()
    } else {
        let colours = is_terminal && std::env::var_os("NO_COLOR").is_none();
        builder
            .with_ansi(colours)
            .with_target(false)
            .compact()
            .try_init()
    };
    started.map_err(|error| error.to_string())
}

fn parse_filter(text: &str) -> Result<EnvFilter, String> {
    // The library takes a bare word for a target, and a mistyped level would silence everything.
    let mistyped = text.split(',').find(|part| {
        let is_level = !part.is_empty() && part.parse::<LevelFilter>().is_ok();
        !is_level && !part.contains('=')
    });
    if let Some(word) = mistyped {
        return Err(format!(
            "log-level: {word:?} is neither one of off, error, warn, info, debug and trace, nor target=level"
        ));
    }
    // actix tells of each listener and worker it starts; our own line says what matters of that.
    EnvFilter::try_new(format!("actix_server=warn,{text}"))
        .map_err(|error| format!("log-level: {text:?}: {error}"))
}

/// The format of machines: `timestamp`, `severity`, `message`, `target`, then the event's own fields.
#[derive(Debug)]
struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let severity = match *event.metadata().level() {
            Level::TRACE | Level::DEBUG => "DEBUG",
            Level::INFO => "INFO",
            Level::WARN => "WARNING",
            Level::ERROR => "ERROR",
        };
        let mut line = Map::with_capacity(16);
        line.insert("timestamp".to_owned(), timestamp(SystemClock.now()).into());
        line.insert("severity".to_owned(), severity.into());
        line.insert("message".to_owned(), Value::Null);
        line.insert("target".to_owned(), event.metadata().target().into());
        event.record(&mut Fields(&mut line));
        writeln!(writer, "{}", Value::Object(line))
    }
}

/// RFC 3339 in UTC with microseconds.
fn timestamp(now: OffsetDateTime) -> String {
    const FORMAT: &[BorrowedFormatItem<'_>] =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    now.format(FORMAT).unwrap_or_default()
}

struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn set(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().to_owned(), value);
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // Three places: durations are in milliseconds.
        self.set(field, ((value * 1000.0).round() / 1000.0).into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}").into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_or_a_list_of_targets_is_a_filter() {
        for text in [
            "info",
            "off",
            "WARN",
            "mayfly=debug",
            "warn,mayfly::api=trace",
        ] {
            assert!(parse_filter(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn a_mistyped_level_is_refused_and_not_taken_for_a_target() {
        for (text, expected) in [
            ("inof", "\"inof\" is neither"),
            ("", "\"\" is neither"),
            ("info,mayfly", "\"mayfly\" is neither"),
            ("mayfly=loud", "\"mayfly=loud\": "),
        ] {
            let error = parse_filter(text).unwrap_err();
            assert!(error.contains(expected), "{text:?} gave {error:?}");
        }
    }
}
