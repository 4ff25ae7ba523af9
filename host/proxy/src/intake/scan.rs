//! Reads the few facts that routing needs out of a JSON body: one pass, borrowed, no tree.
//!
//! The whole body is validated on the way, so that what an engine would call malformed is answered here and every other
//! byte can be forwarded as it came. The rules are RFC 8259's; of a repeated key the last one counts, as in the engines;
//! escaped keys are decoded; nesting is bounded by [`NESTING_MAX`].

use std::borrow::Cow;
use std::ops::Range;

use domain::failure::FailureKind;
use smallvec::SmallVec;

mod lexer;
mod text;

pub(crate) use lexer::{Lexer, Malformed};
pub(crate) use text::{decode, python_str};

#[cfg(test)]
mod tests;

/// Most objects and arrays inside each other, the outermost one included. Deeper bodies are refused as not JSON.
pub const NESTING_MAX: usize = 128;

/// Most values of `model` in one body. More are refused: each is replaced where the engines have another name.
pub const MODELS_MAX: usize = 16;

/// Where the values of `model` stand in a body, at most [`MODELS_MAX`].
pub type Spans = SmallVec<[Range<usize>; 2]>;

/// What routing needs to know of a JSON body. Ranges are byte positions in the body scanned.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scan<'a> {
    /// The model. `None`: absent, empty or no string.
    pub model: Option<Cow<'a, str>>,
    /// Every top-level `model` value, quotes included, in order.
    pub model_spans: Spans,
    /// `stream` is `true`.
    pub stream: bool,
    /// `stream_options.include_usage` is `true`.
    pub include_usage: bool,
    /// The output limit: the first there is of `max_completion_tokens`, `max_tokens`, `max_output_tokens`.
    pub max_tokens: Option<u32>,
    /// Raw JSON of `messages`, else `prompt`, else `input`; empty where there is none.
    pub prompt: Range<usize>,
    /// Raw JSON of `tools`; empty where there are none.
    pub tools: Range<usize>,
    /// The session field, other values than strings written as Python's `str()` would. `None`: absent or `null`.
    pub session: Option<Cow<'a, str>>,
    /// `user`, if it is a string that is not empty.
    pub user: Option<Cow<'a, str>>,
    /// `priority`, clamped; 0 where absent or no integer.
    pub priority: i32,
}

/// The top-level values that matter, as ranges; the last of a repeated key.
#[derive(Default)]
struct Found {
    model: Range<usize>,
    model_spans: Spans,
    stream: Range<usize>,
    stream_options: Range<usize>,
    max_completion_tokens: Range<usize>,
    max_tokens: Range<usize>,
    max_output_tokens: Range<usize>,
    messages: Range<usize>,
    prompt: Range<usize>,
    input: Range<usize>,
    tools: Range<usize>,
    user: Range<usize>,
    priority: Range<usize>,
    session: Range<usize>,
}

/// Scans a whole body. `session_field` is the top-level field that may name the session.
///
/// Fails with `BodyNotJson`, `BodyNotObject` or `ModelRepeated`; a missing model is the caller's business.
pub fn scan<'a>(body: &'a [u8], session_field: Option<&str>) -> Result<Scan<'a>, FailureKind> {
    let mut lexer = Lexer::new(body);
    lexer.space();
    if lexer.peek() != Some(b'{') {
        let whole = lexer.value().and_then(|()| lexer.end());
        return Err(if whole.is_ok() { FailureKind::BodyNotObject } else { FailureKind::BodyNotJson });
    }
    let mut found = Found::default();
    match lexer.try_members(|key, value| found.keep(key, value, session_field)).and_then(|()| lexer.end()) {
        Ok(()) => Ok(read(body, found)),
        Err(Malformed) if found.model_spans.len() > MODELS_MAX => {
            Err(FailureKind::ModelRepeated { max: MODELS_MAX })
        }
        Err(Malformed) => Err(FailureKind::BodyNotJson),
    }
}

impl Scan<'_> {
    /// The same, borrowing nothing.
    pub fn into_owned(self) -> Scan<'static> {
        let owned = |text: Option<Cow<'_, str>>| text.map(|text| Cow::Owned(text.into_owned()));
        Scan {
            model: owned(self.model),
            model_spans: self.model_spans,
            stream: self.stream,
            include_usage: self.include_usage,
            max_tokens: self.max_tokens,
            prompt: self.prompt,
            tools: self.tools,
            session: owned(self.session),
            user: owned(self.user),
            priority: self.priority,
        }
    }
}

impl Found {
    /// Fails with the first `model` beyond the bound: nothing behind it matters.
    fn keep(
        &mut self,
        key: &[u8],
        value: Range<usize>,
        session_field: Option<&str>,
    ) -> Result<(), Malformed> {
        if session_field.is_some_and(|field| field.as_bytes() == key) {
            self.session = value.clone();
        }
        let place = match key {
            b"model" => {
                self.model_spans.push(value.clone());
                if self.model_spans.len() > MODELS_MAX {
                    return Err(Malformed);
                }
                &mut self.model
            }
            b"stream" => &mut self.stream,
            b"stream_options" => &mut self.stream_options,
            b"max_completion_tokens" => &mut self.max_completion_tokens,
            b"max_tokens" => &mut self.max_tokens,
            b"max_output_tokens" => &mut self.max_output_tokens,
            b"messages" => &mut self.messages,
            b"prompt" => &mut self.prompt,
            b"input" => &mut self.input,
            b"tools" => &mut self.tools,
            b"user" => &mut self.user,
            b"priority" => &mut self.priority,
            _ => return Ok(()),
        };
        *place = value;
        Ok(())
    }
}

fn read(body: &[u8], found: Found) -> Scan<'_> {
    let limit =
        |range: &Range<usize>| integer(&body[range.clone()]).map(|n| n.clamp(0, i64::from(u32::MAX)) as u32);
    let prompt = [&found.messages, &found.prompt, &found.input].into_iter().find(|range| !range.is_empty());
    Scan {
        model: string(&body[found.model]),
        stream: &body[found.stream] == b"true",
        include_usage: asks_for_usage(&body[found.stream_options]),
        max_tokens: limit(&found.max_completion_tokens)
            .or_else(|| limit(&found.max_tokens))
            .or_else(|| limit(&found.max_output_tokens)),
        prompt: prompt.cloned().unwrap_or_default(),
        tools: found.tools,
        session: if found.session.is_empty() { None } else { python_str(&body[found.session]) },
        user: string(&body[found.user]),
        priority: integer(&body[found.priority])
            .map_or(0, |n| n.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32),
        model_spans: found.model_spans,
    }
}

/// A string value that is not empty.
fn string(raw: &[u8]) -> Option<Cow<'_, str>> {
    if raw.first() != Some(&b'"') {
        return None;
    }
    decode(raw).filter(|text| !text.is_empty())
}

/// An integer value; fractions, exponents and everything else are none. Beyond 64 bits it saturates.
fn integer(raw: &[u8]) -> Option<i64> {
    let text = str::from_utf8(raw).ok()?;
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(if text.starts_with('-') { i64::MIN } else { i64::MAX }))
}

fn asks_for_usage(stream_options: &[u8]) -> bool {
    let mut asks = false;
    if stream_options.first() == Some(&b'{') {
        let mut lexer = Lexer::new(stream_options);
        // The value was validated with the body, so this cannot fail.
        let _ = lexer.members(|key, value| {
            if key == b"include_usage" {
                asks = &stream_options[value] == b"true";
            }
        });
    }
    asks
}

/// A body with other values of `model`: some of its ranges replaced, every other byte as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splice {
    /// Ascending and disjoint.
    spans: Spans,
    with: Vec<u8>,
}

impl Splice {
    /// Of a JSON body: `spans` are [`Scan::model_spans`] of it.
    pub fn json(spans: Spans, model: &str) -> Self {
        let mut with = Vec::with_capacity(model.len() + 2);
        text::quote(model, &mut with);
        Self { spans, with }
    }

    /// The same with the text as it stands: of a form.
    pub(crate) fn plain(spans: Spans, model: &str) -> Self {
        Self { spans, with: model.as_bytes().to_vec() }
    }

    /// Length of the result for a body of `length` bytes.
    pub(crate) fn length(&self, length: usize) -> usize {
        let cut: usize = self.spans.iter().map(Range::len).sum();
        length - cut + self.spans.len() * self.with.len()
    }

    /// Where a range outside the spans stands in the result.
    pub(crate) fn moved(&self, range: &Range<usize>) -> Range<usize> {
        let before = self.spans.iter().filter(|span| span.end <= range.start);
        let (count, cut) = before.fold((0, 0), |(count, cut), span| (count + 1, cut + span.len()));
        let shift = |at: usize| at + count * self.with.len() - cut;
        shift(range.start)..shift(range.end)
    }

    /// The result for `body`.
    pub fn apply(&self, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.length(body.len()));
        let mut from = 0;
        for span in &self.spans {
            out.extend_from_slice(&body[from..span.start]);
            out.extend_from_slice(&self.with);
            from = span.end;
        }
        out.extend_from_slice(&body[from..]);
        out
    }
}
