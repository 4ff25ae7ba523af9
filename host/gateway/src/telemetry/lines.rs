//! How a log line looks: text for people, one JSON object for programs.
//!
//! The library's own formats print module paths as sources and pass line feeds of a policy's message on; these do not.

use std::fmt::{self, Debug, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::source;
use crate::args::Format;

/// Text: `TIME LEVEL SOURCE: MESSAGE NAME=VALUE…`. JSON: `timestamp`, `level`, the line's own fields, `target`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines {
    pub(super) format: Format,
    /// Text only.
    pub(super) is_coloured: bool,
}

impl<S, N> FormatEvent<S, N> for Lines
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
        let mut time = String::with_capacity(32);
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        writer.write_str(&self.line(&time, event))
    }
}

impl Lines {
    /// The line, with its line feed.
    fn line(self, time: &str, event: &Event<'_>) -> String {
        let level = event.metadata().level();
        let mut line = match self.format {
            Format::Json => {
                JsonFields { out: format!("{{\"timestamp\":\"{time}\",\"level\":\"{level}\""), target: None }
                    .end(event)
            }
            Format::Text => {
                let mut fields = TextFields::default();
                event.record(&mut fields);
                let source = source::word(fields.target.as_deref().unwrap_or(event.metadata().target()));
                let TextFields { message, rest, .. } = &fields;
                let (dim, colour, plain) =
                    if self.is_coloured { ("\x1b[2m", colour(*level), "\x1b[0m") } else { ("", "", "") };
                format!("{dim}{time}{plain} {colour}{level:>5}{plain} {dim}{source}:{plain} {message}{rest}")
            }
        };
        line.push('\n');
        line
    }
}

fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

/// Fields that the bridge from the `log` crate adds; of them only the source is shown.
fn is_bridge(name: &str) -> bool {
    name.starts_with("log.")
}
const BRIDGE_TARGET: &str = "log.target";

/// Gathers the fields of a line of JSON, in their order.
struct JsonFields {
    out: String,
    target: Option<String>,
}

impl JsonFields {
    fn end(mut self, event: &Event<'_>) -> String {
        event.record(&mut self);
        let target = self.target.take();
        let source = source::word(target.as_deref().unwrap_or(event.metadata().target()));
        let _ = write!(self.out, ",\"target\":{}}}", json(source));
        self.out
    }

    fn plain(&mut self, field: &Field, value: impl fmt::Display) {
        let _ = write!(self.out, ",{}:{value}", json(field.name()));
    }
}

impl Visit for JsonFields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() { self.plain(field, value) } else { self.plain(field, "null") }
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            BRIDGE_TARGET => self.target = Some(value.to_owned()),
            name if is_bridge(name) => {}
            _ => self.plain(field, json(value)),
        }
    }
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

/// `text` as a JSON string.
fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Gathers the message and, behind it, the other fields of a line of text.
#[derive(Default)]
struct TextFields {
    message: String,
    rest: String,
    target: Option<String>,
}

impl Visit for TextFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            BRIDGE_TARGET => self.target = Some(value.to_owned()),
            _ => self.record_debug(field, &value),
        }
    }
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = shown(&format!("{value:?}")),
            name if is_bridge(name) => {}
            name => {
                let _ = write!(self.rest, " {name}={}", shown(&format!("{value:?}")));
            }
        }
    }
}

/// Control characters, line feeds too, as escapes: one event is one line, and does nothing to a terminal.
fn shown(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    text.chars().fold(String::with_capacity(text.len() + 8), |mut shown, char| {
        if char.is_control() {
            shown.extend(char.escape_default());
        } else {
            shown.push(char);
        }
        shown
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::{Value, json};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// What `log` writes.
    fn written(format: Format, log: impl FnOnce()) -> String {
        let sink = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&sink);
        let layer = tracing_subscriber::fmt::layer()
            .event_format(Lines { format, is_coloured: false })
            .with_writer(move || Sink(Arc::clone(&to)));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
        String::from_utf8(sink.lock().unwrap().clone()).unwrap()
    }

    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// N10: the source of a line is a word, and a line is one line whatever a policy says.
    #[test]
    fn a_line_of_text_names_its_source_in_one_word_and_stays_one_line() {
        let line = written(Format::Text, || {
            tracing::warn!(target: "control::publish::run", file = "a b", count = 3, "two\nlines {}", 1);
        });
        let (_, rest) = line.split_once(' ').unwrap();
        assert_eq!(rest, " WARN config: two\\nlines 1 file=\"a b\" count=3\n");
    }

    #[test]
    fn a_line_of_json_has_every_field_with_its_own_type() {
        let absent: Option<u64> = None;
        let line = written(Format::Json, || {
            tracing::info!(target: "request", a = "\"x\"\n", b = 1.5, c = f64::NAN, d = true, e = -1, absent, f = ?Some(1), "hi");
        });
        let mut line: Value = serde_json::from_str(line.strip_suffix('\n').unwrap()).unwrap();
        assert!(line.as_object_mut().unwrap().remove("timestamp").unwrap().as_str().unwrap().ends_with('Z'));
        let expected = json!({"level": "INFO", "message": "hi", "a": "\"x\"\n", "b": 1.5, "c": null, "d": true,
            "e": -1, "f": "Some(1)", "target": "request"});
        assert_eq!(line, expected);
    }
}
