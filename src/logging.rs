//! Log lines: one event a line on standard error, as JSON for machines or as text for people.

use std::any::Any;
use std::fmt::{self, Write};
use std::io::IsTerminal;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::clock::{Clock, SystemClock};
use crate::excerpt::is_invisible;

mod writer;

use writer::LineWriter;

/// Where this process's lines go; empty before [`start`].
static WRITER: OnceLock<LineWriter> = OnceLock::new();
/// Which lines are written; empty before [`start`].
static FILTER: OnceLock<Filter> = OnceLock::new();
/// How long the end of the process waits for its last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

/// The field that `tracing` keeps an event's text in.
const MESSAGE: &str = "message";

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
    let (parsed, handle) = reload::Layer::new(parse_setting(filter)?);
    let is_terminal = std::io::stderr().is_terminal();
    let as_json = match format {
        LogFormat::Auto => !is_terminal,
        LogFormat::Json => true,
        LogFormat::Pretty => false,
    };
    let writer = LineWriter::start(std::io::stderr()).map_err(|error| error.to_string())?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(WRITER.get_or_init(|| writer).clone())
        // A report of lines that cannot be written would go where they cannot be written, and panic.
        .log_internal_errors(false);
    let filtered = tracing_subscriber::registry().with(parsed);
    let started = if as_json {
        filtered.with(lines.event_format(JsonLines)).try_init()
    } else {
        let colours = is_terminal && std::env::var_os("NO_COLOR").is_none();
        let lines = lines.with_ansi(colours).with_target(false).compact();
        filtered.with(lines).try_init()
    };
    started.map_err(|error| error.to_string())?;
    FILTER.get_or_init(|| Filter {
        text: Mutex::new(filter.to_owned()),
        handle,
    });
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        log_panic(location.as_deref(), panic.payload());
    }));
    Ok(())
}

/// Which lines are written, and how that is changed.
struct Filter {
    text: Mutex<String>,
    handle: reload::Handle<EnvFilter, Registry>,
}

/// Which lines are written: what [`start`] was given, or [`set_filter`] last. `None` before the start.
#[must_use]
pub fn filter() -> Option<String> {
    let text = FILTER.get()?.text.lock();
    Some(text.unwrap_or_else(PoisonError::into_inner).clone())
}

/// Writes other lines from here on: those that `text` lets through, which is as for [`start`].
///
/// # Errors
/// When `text` does not parse, or nothing is written at all.
pub fn set_filter(text: &str) -> Result<(), String> {
    let parsed = parse_filter(text)?;
    let filter = FILTER.get().ok_or("no log lines are written")?;
    // Held over both, so that what is told is what is in force.
    let mut current = filter.text.lock().unwrap_or_else(PoisonError::into_inner);
    // Before the change: who silences the log stands in it.
    tracing::info!(
        event = "log_filter_changed",
        from = *current,
        to = text,
        "other log lines are written from here on"
    );
    let reloaded = filter.handle.reload(parsed);
    reloaded.map_err(|error| error.to_string())?;
    text.clone_into(&mut current);
    Ok(())
}

/// Writes where a panic was, as one line. Of its text only what stands in the source: the rest may hold what clients sent.
fn log_panic(location: Option<&str>, payload: &dyn Any) {
    let thread = std::thread::current();
    tracing::error!(
        event = "panicked",
        thread = thread.name(),
        location,
        error = payload.downcast_ref::<&'static str>(),
        "a defect: please report it"
    );
    if thread.name() == Some("main") {
        // Nobody else would before the process ends.
        flush();
    }
}

/// Waits until the lines so far are written, for a second at most. To be called before the process ends.
pub fn flush() {
    if let Some(writer) = WRITER.get() {
        writer.flush_within(LAST_LINES);
    }
}

/// How many lines were lost: standard error took them too slowly, or not at all.
#[must_use]
pub fn dropped_lines() -> u64 {
    WRITER.get().map_or(0, LineWriter::dropped)
}

fn parse_setting(text: &str) -> Result<EnvFilter, String> {
    parse_filter(text).map_err(|error| format!("log-level: {error}"))
}

fn parse_filter(text: &str) -> Result<EnvFilter, String> {
    // The library takes a bare word for a target, and a mistyped level would silence everything.
    let mistyped = text.split(',').find(|part| {
        let is_level = !part.is_empty() && part.parse::<LevelFilter>().is_ok();
        !is_level && !part.contains('=')
    });
    if let Some(word) = mistyped {
        return Err(format!(
            "{word:?} is neither one of off, error, warn, info, debug and trace, nor target=level"
        ));
    }
    // actix tells of each listener and worker it starts; our own line says what matters of that.
    EnvFilter::try_new(format!("actix_server=warn,{text}"))
        .map_err(|error| format!("{text:?}: {error}"))
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
        let timestamp = timestamp(SystemClock.now());
        write!(
            writer,
            r#"{{"timestamp":"{timestamp}","severity":"{severity}","message":"#
        )?;
        let mut message = Message {
            writer: &mut writer,
            result: Ok(()),
            is_written: false,
        };
        event.record(&mut message);
        message.result?;
        if !message.is_written {
            writer.write_str("null")?;
        }
        writer.write_str(r#","target":"#)?;
        write_string(&mut writer, format_args!("{}", event.metadata().target()))?;
        let mut fields = Fields {
            writer: &mut writer,
            result: Ok(()),
        };
        event.record(&mut fields);
        fields.result?;
        writer.write_str("}\n")
    }
}

/// RFC 3339 in UTC with microseconds.
fn timestamp(now: OffsetDateTime) -> String {
    const FORMAT: &[BorrowedFormatItem<'_>] =
        format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:6]Z");
    now.format(FORMAT).unwrap_or_default()
}

/// Writes the value of the field `message`, and no other.
struct Message<'a, 'w> {
    writer: &'a mut Writer<'w>,
    result: fmt::Result,
    is_written: bool,
}

impl Visit for Message<'_, '_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == MESSAGE && !self.is_written {
            self.result = write_string(self.writer, format_args!("{value:?}"));
            self.is_written = true;
        }
    }
}

/// Writes every other field, each behind a comma: straight to the line, as there is one for every request.
struct Fields<'a, 'w> {
    writer: &'a mut Writer<'w>,
    result: fmt::Result,
}

impl Fields<'_, '_> {
    /// Writes a name, which is a Rust identifier and needs no escape, and a value that is JSON.
    fn write(&mut self, field: &Field, value: impl FnOnce(&mut Writer<'_>) -> fmt::Result) {
        if field.name() != MESSAGE && self.result.is_ok() {
            self.result =
                write!(self.writer, r#","{}":"#, field.name()).and_then(|()| value(self.writer));
        }
    }
}

impl Visit for Fields<'_, '_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        // Three places: durations are in milliseconds. JSON has no other numbers than finite ones.
        let rounded = (value * 1000.0).round() / 1000.0;
        self.write(field, |writer| {
            if rounded.is_finite() {
                write!(writer, "{rounded:?}")
            } else {
                writer.write_str("null")
            }
        });
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.write(field, |writer| write!(writer, "{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.write(field, |writer| write!(writer, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.write(field, |writer| write!(writer, "{value}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.write(field, |writer| {
            write_string(writer, format_args!("{value}"))
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.write(field, |writer| {
            write_string(writer, format_args!("{value:?}"))
        });
    }
}

/// Writes a JSON string (RFC 8259, section 7).
fn write_string(writer: &mut Writer<'_>, text: fmt::Arguments<'_>) -> fmt::Result {
    writer.write_char('"')?;
    Escaped(writer).write_fmt(text)?;
    writer.write_char('"')
}

/// Passes text on as the inside of a JSON string. What could move a cursor or turn text around on an operator's screen is
/// escaped too, although JSON does not ask for that.
struct Escaped<'a, 'w>(&'a mut Writer<'w>);

impl Write for Escaped<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        let needs_escape = |one: char| matches!(one, '"' | '\\') || is_invisible(one);
        while let Some(plain) = rest.find(needs_escape) {
            let (before, from) = rest.split_at(plain);
            self.0.write_str(before)?;
            let mut characters = from.chars();
            match characters.next() {
                Some(quote @ ('"' | '\\')) => write!(self.0, "\\{quote}")?,
                Some('\n') => self.0.write_str("\\n")?,
                Some(invisible) => write!(self.0, "\\u{:04x}", u32::from(invisible))?,
                None => {}
            }
            rest = characters.as_str();
        }
        self.0.write_str(rest)
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

    /// The line that is written for the events of `body`.
    fn line_of(body: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Sink(std::sync::Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Sink {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let sink = Sink::default();
        let writer = sink.clone();
        let subscriber = tracing_subscriber::fmt()
            .event_format(JsonLines)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, body);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_event_is_one_line_of_json_with_its_fields_in_order() {
        let line = line_of(|| {
            let nothing: Option<u64> = None;
            tracing::warn!(
                event = "tested",
                count = 7_u64,
                change = -1,
                is_good = true,
                duration_ms = 1.23456,
                endless = f64::INFINITY,
                nothing,
                shown = ?Some("x"),
                "a message of {} parts",
                2
            );
        });
        let (timestamp, rest) = line.split_at(r#"{"timestamp":"2026-01-02T03:04:05.678901Z"#.len());
        assert!(timestamp.ends_with('Z'), "{line}");
        assert_eq!(
            rest,
            "\",\"severity\":\"WARNING\",\"message\":\"a message of 2 parts\",\"target\":\"mayfly::logging::tests\",\
             \"event\":\"tested\",\"count\":7,\"change\":-1,\"is_good\":true,\"duration_ms\":1.235,\"endless\":null,\
             \"shown\":\"Some(\\\"x\\\")\"}\n"
        );
    }

    #[test]
    fn no_text_can_end_its_string_or_its_line() {
        let text = "\" \\ \n \r \t \0 \x1f \u{7f} \u{9b} \u{202e} \u{2028} é {}";
        let line = line_of(|| tracing::info!(text, "{text}"));
        assert_eq!(line.matches('\n').count(), 1);
        assert!(line.ends_with("}\n") && !line.trim_end().contains(is_invisible));
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&line["text"], &line["message"]),
            (&text.into(), &text.into())
        );
    }

    #[test]
    fn a_panic_is_a_line_that_repeats_only_what_the_source_says() {
        let line = line_of(|| log_panic(Some("src/x.rs:1:2"), &"a defect"));
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&line["event"], &line["location"], &line["error"]),
            (
                &"panicked".into(),
                &"src/x.rs:1:2".into(),
                &"a defect".into()
            )
        );
        let line = line_of(|| log_panic(None, &format!("not a number: {}", "what was sent")));
        assert!(
            line.contains("panicked") && !line.contains("what was sent"),
            "{line}"
        );
    }

    #[test]
    fn an_event_without_a_message_is_json_too() {
        let line = line_of(|| tracing::info!(event = "silent"));
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&line["message"], &line["event"]),
            (&serde_json::Value::Null, &"silent".into())
        );
    }
}
