//! Reads the engine's own token counts out of an answer as it passes, without parsing it.
//!
//! Only the end of an answer is kept: there `usage` stands, in a whole JSON answer as in the last event of a stream.
//! Understood are the spellings of the completions and embeddings APIs, of responses, and of Anthropic's messages.

use std::ops::Range;

use domain::outcome::Usage;
use memchr::memmem;

use crate::intake::scan::Lexer;

#[cfg(test)]
mod tests;

/// Bytes kept of an answer's end.
pub const TAIL_BYTES_MAX: usize = 4 << 10;

/// Places where `"usage"` is looked for, from the end.
const CANDIDATES_MAX: usize = 16;

/// What an answer's body is, by its content type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shape {
    /// One JSON value.
    Json,
    /// Server-sent events.
    Events,
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
        } else {
            Self::Other
        }
    }
}

/// Watches one answer's body go by.
#[derive(Debug, Default)]
pub struct UsageWatch {
    shape: Shape,
    tail: Vec<u8>,
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
            Shape::Other => return,
            Shape::Events => self.count(chunk),
            Shape::Json => {}
        }
        if chunk.len() >= TAIL_BYTES_MAX {
            self.tail.clear();
            self.tail.extend_from_slice(&chunk[chunk.len() - TAIL_BYTES_MAX..]);
            return;
        }
        // Twice the bound is let grow, so that the tail is moved once per bound and not once per chunk.
        if self.tail.len() + chunk.len() > 2 * TAIL_BYTES_MAX {
            self.tail.drain(..self.tail.len() - TAIL_BYTES_MAX);
        }
        self.tail.extend_from_slice(chunk);
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

    /// Complete events so far, the final `[DONE]` included; 0 for other shapes. In a stream of tokens, about their number.
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The engine's token counts, as far as the bytes seen so far hold them. Ask once, at the end.
    pub fn usage(&self) -> Option<Usage> {
        let mut end = self.tail.len();
        for _ in 0..CANDIDATES_MAX {
            let at = memmem::rfind(&self.tail[..end], b"\"usage\"")?;
            if let Some(usage) = usage_at(&self.tail[at + b"\"usage\"".len()..]) {
                return Some(usage);
            }
            end = at;
        }
        None
    }
}

/// The usage object behind a key and its colon.
fn usage_at(text: &[u8]) -> Option<Usage> {
    let text = text.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start();
    let mut usage = Usage::default();
    let mut found = false;
    members(text, |key, value| {
        let count = |value: &[u8]| str::from_utf8(value).ok().and_then(|digits| digits.parse::<u64>().ok());
        let place = match key {
            b"prompt_tokens" | b"input_tokens" => &mut usage.prompt_tokens,
            b"completion_tokens" | b"output_tokens" => &mut usage.completion_tokens,
            b"cache_read_input_tokens" => {
                usage.cached_tokens = count(value);
                found |= usage.cached_tokens.is_some();
                return;
            }
            b"prompt_tokens_details" | b"input_tokens_details" => {
                members(value, |key, value| {
                    if key == b"cached_tokens" {
                        usage.cached_tokens = count(value);
                    }
                });
                return;
            }
            _ => return,
        };
        if let Some(count) = count(value) {
            *place = count;
            found = true;
        }
    });
    found.then_some(usage)
}

/// The members of the object that `text` begins with; nothing unless it begins with one.
fn members(text: &[u8], mut each: impl FnMut(&[u8], &[u8])) {
    if text.first() == Some(&b'{') {
        // A cut or garbled object reports what it has: these are the engine's bytes, and only counted.
        let _ = Lexer::new(text).members(|key, value: Range<usize>| each(key, &text[value]));
    }
}
