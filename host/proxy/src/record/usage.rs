//! Reads the engine's own token counts out of an answer as it passes, without a tree of it.
//!
//! An answer in one piece, and an event of a stream, is kept while it is short, and read once at its end. A long one is read
//! as it passes, by [`reader`], and not kept. Of a stream, the first event counts (there the messages API has the prompt's
//! tokens) and the last one with a `usage`. Which spellings are understood, [`tally`] says.

use domain::outcome::Usage;
use memchr::memmem;

mod reader;
mod tally;

#[cfg(test)]
mod tests;

use reader::Reader;
use tally::Tally;

use crate::intake::scan::Lexer;

/// Bytes of an answer, or of a line of a stream, that are kept to be read at once.
const KEPT_BYTES_MAX: usize = 8 << 10;

/// The key of counts.
const USAGE: &[u8] = b"\"usage\"";

/// What an answer's body is, by its content type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// One JSON value.
    Json,
    /// Server-sent events.
    Events,
    /// One JSON value a line.
    Lines,
    /// Anything else, or compressed: not read.
    #[default]
    Other,
}

impl Shape {
    /// The shape of an answer with these headers.
    pub fn of(headers: &http::HeaderMap) -> Self {
        use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
        if headers.get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return Self::Other;
        }
        let Some(kind) = headers.get(CONTENT_TYPE) else { return Self::Other };
        let starts = |text: &str| {
            kind.as_bytes().get(..text.len()).is_some_and(|start| start.eq_ignore_ascii_case(text.as_bytes()))
        };
        if starts("text/event-stream") {
            Self::Events
        } else if starts("application/json") {
            Self::Json
        } else if starts("application/x-ndjson") {
            Self::Lines
        } else {
            Self::Other
        }
    }
}

/// Watches one answer's body go by. Keeps at most twice [`KEPT_BYTES_MAX`].
#[derive(Debug, Default)]
pub struct UsageWatch {
    shape: Shape,
    /// What has not been read yet; of a stream, from the start of a line on.
    kept: Vec<u8>,
    /// Reads an answer, or a line, that is too long to be kept.
    reader: Option<Box<Reader>>,
    tally: Tally,
    /// The first event of the stream was read.
    has_first: bool,
    /// Complete events so far.
    events: u64,
    /// The last line is empty so far.
    line_empty: bool,
    /// The event has a line that is not empty.
    event_begun: bool,
}

impl UsageWatch {
    /// At the start of an answer.
    pub fn new(shape: Shape) -> Self {
        Self { shape, line_empty: true, ..Self::default() }
    }

    /// The next bytes of the body.
    pub fn feed(&mut self, chunk: &[u8]) {
        match self.shape {
            Shape::Other => {}
            Shape::Json => self.keep_whole(chunk),
            Shape::Events => {
                self.count(chunk);
                self.keep_lines(chunk);
            }
            Shape::Lines => {
                self.events += memchr::memchr_iter(b'\n', chunk).count() as u64;
                self.keep_lines(chunk);
            }
        }
    }

    fn keep_whole(&mut self, chunk: &[u8]) {
        if self.reader.is_none() {
            if self.kept.len() + chunk.len() <= KEPT_BYTES_MAX {
                return self.kept.extend_from_slice(chunk);
            }
            let mut reader = Box::new(Reader::default());
            reader.feed(&self.kept, &mut self.tally);
            self.kept = Vec::new();
            self.reader = Some(reader);
        }
        if let Some(reader) = &mut self.reader {
            reader.feed(chunk, &mut self.tally);
        }
    }

    fn keep_lines(&mut self, mut chunk: &[u8]) {
        while !chunk.is_empty() {
            if let Some(reader) = &mut self.reader {
                let end = memchr::memchr(b'\n', chunk);
                reader.feed(&chunk[..end.unwrap_or(chunk.len())], &mut self.tally);
                let Some(end) = end else { return };
                self.reader = None;
                chunk = &chunk[end + 1..];
                continue;
            }
            let (piece, rest) = chunk.split_at(chunk.len().min(KEPT_BYTES_MAX));
            self.kept.extend_from_slice(piece);
            chunk = rest;
            // Once per bound, not once per chunk.
            if self.kept.len() > KEPT_BYTES_MAX {
                self.read_lines();
            }
        }
    }

    /// Reads the lines that are whole, and lets go of them. One that is too long is read from here on as it passes.
    fn read_lines(&mut self) {
        match memchr::memrchr(b'\n', &self.kept) {
            Some(end) => {
                self.has_first = read_stream(self.shape, &self.kept[..end], self.has_first, &mut self.tally);
                self.kept.drain(..=end);
            }
            None => {
                let mut reader = Box::new(Reader::default());
                if let Some(data) = data(&self.kept) {
                    reader.feed(data, &mut self.tally);
                    self.has_first = true;
                }
                self.kept.clear();
                self.reader = Some(reader);
            }
        }
    }

    fn count(&mut self, chunk: &[u8]) {
        let mut from = 0;
        for at in memchr::memchr_iter(b'\n', chunk) {
            let line = &chunk[from..at];
            from = at + 1;
            if !self.line_empty || !matches!(line, b"" | b"\r") {
                self.event_begun = true;
            } else if self.event_begun {
                self.events += 1;
                self.event_begun = false;
            }
            self.line_empty = true;
        }
        let rest = &chunk[from..];
        self.line_empty &= matches!(rest, b"" | b"\r");
    }

    /// Complete events so far, the final `[DONE]` included; 0 for answers in one piece. In a stream of tokens, about their number.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The engine's token counts, as far as the bytes seen so far hold them. Ask once, at the end.
    pub fn usage(&self) -> Option<Usage> {
        let mut tally = self.tally;
        match self.shape {
            Shape::Other => return None,
            Shape::Json => {
                read(&self.kept, &mut tally);
            }
            Shape::Events | Shape::Lines => {
                read_stream(self.shape, &self.kept, self.has_first, &mut tally);
            }
        }
        tally.usage()
    }
}

/// Reads the lines of a stream that matter: the first event, unless it was read before, and the last one with counts. True
/// where the first event has been read.
fn read_stream(shape: Shape, lines: &[u8], mut has_first: bool, tally: &mut Tally) -> bool {
    if !has_first && let Some(first) = lines.split(|byte| *byte == b'\n').find_map(data) {
        has_first = true;
        if memmem::find(first, USAGE).is_some() {
            read(first, tally);
        }
    }
    // Most streams have counts nowhere but at their end. Where each value has a line, they may have other names.
    if shape == Shape::Events && !has_counts(lines) {
        return has_first;
    }
    let mut end = lines.len();
    loop {
        let start = memchr::memrchr(b'\n', &lines[..end]).map_or(0, |at| at + 1);
        if data(&lines[start..end]).is_some_and(|data| read(data, tally)) || start == 0 {
            return has_first;
        }
        end = start - 1;
    }
}

/// Whether there is a `usage` that is an object; in many streams each event but the last has one that is null.
fn has_counts(lines: &[u8]) -> bool {
    memmem::find_iter(lines, USAGE).any(|at| {
        let value = lines[at + USAGE.len()..].trim_ascii_start().strip_prefix(b":");
        value.is_some_and(|value| value.trim_ascii_start().starts_with(b"{"))
    })
}

/// The JSON text of a line, if it has one.
fn data(line: &[u8]) -> Option<&[u8]> {
    let text = line.strip_prefix(b"data:").unwrap_or(line).trim_ascii_start();
    text.starts_with(b"{").then_some(text)
}

/// Reads the counts of a JSON text. False: it has none.
fn read(text: &[u8], tally: &mut Tally) -> bool {
    if let Some(value) = last_value(text) {
        // Most answers end with it, and need not be read from their start.
        let (mut trial, mut found) = (*tally, false);
        let mut lexer = Lexer::new(value);
        if value.starts_with(b"{") {
            let _ = lexer.members(|key, range| found |= trial.count(key, &value[range]));
        }
        if ends_outermost(lexer.rest()) {
            *tally = trial;
            return found;
        }
    }
    let mut reader = Reader::default();
    reader.feed(text, tally);
    reader.has_found()
}

/// The text from the value of the last `usage` on.
fn last_value(text: &[u8]) -> Option<&[u8]> {
    let at = memmem::rfind(text, USAGE)?;
    // The end of a string is no key.
    if at == 0 || text[at - 1] == b'\\' {
        return None;
    }
    Some(text[at + USAGE.len()..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start())
}

/// Whether the object that is open before `rest` ends the text: then it is the outermost one.
fn ends_outermost(rest: &[u8]) -> bool {
    let (mut depth, mut in_string, mut is_escaped) = (0_u32, false, false);
    for (at, byte) in rest.iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = in_string,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'{' | b'[' => depth += 1,
            b'}' if depth == 0 => return rest[at + 1..].trim_ascii().is_empty(),
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}
