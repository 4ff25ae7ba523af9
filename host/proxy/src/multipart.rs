//! Reads just enough of a buffered `multipart/form-data` body to route it.
//!
//! The body goes to the engine byte for byte, unknown fields included; only an alias changes the value of `model`. As in
//! the engines, of a repeated `model` the last one counts. Line ends are CRLF (RFC 2046); parts and their headers are
//! bounded.

use std::borrow::Cow;
use std::ops::Range;

use domain::failure::{FailureKind, MultipartFault};
use memchr::memmem;
use smallvec::SmallVec;

use crate::dialect::MultipartKind;
use crate::intake::scan::{Spans, splice};

#[cfg(test)]
mod tests;

/// Most parts in a form.
pub const PARTS_MAX: usize = 1_024;
/// Most bytes of headers in one part.
pub const PART_HEADER_BYTES_MAX: usize = 8 << 10;
/// Longest boundary (RFC 2046, 5.1.1).
pub const BOUNDARY_BYTES_MAX: usize = 70;

/// What routing needs to know of a form. Ranges are byte positions in the body.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Form<'a> {
    /// The last `model`. `None`: absent or empty.
    pub model: Option<Cow<'a, str>>,
    /// The values of every part `model`.
    pub model_spans: Spans,
    /// There is a part `file`.
    pub has_file: bool,
    /// The last `stream` is `true`.
    pub stream: bool,
}

impl<'a> Form<'a> {
    /// Reads a form. `content_type` is the request's header.
    pub fn parse(content_type: Option<&[u8]>, body: &'a [u8]) -> Result<Self, FailureKind> {
        read(content_type, body).ok_or(FailureKind::Multipart(MultipartFault::Unreadable))
    }

    /// The model, if the form has what `kind` needs.
    pub fn model_for(&self, kind: MultipartKind) -> Result<&str, FailureKind> {
        if kind.needs_file() && !self.has_file {
            return Err(FailureKind::Multipart(MultipartFault::FileMissing));
        }
        self.model.as_deref().ok_or(FailureKind::Multipart(MultipartFault::ModelMissing))
    }
}

/// The body with every value of `model` replaced; every other byte stays. `spans` are [`Form::model_spans`] of it.
pub fn replace_model(body: &[u8], spans: &[Range<usize>], new: &str) -> Vec<u8> {
    splice(body, spans, new.as_bytes())
}

fn read<'a>(content_type: Option<&[u8]>, body: &'a [u8]) -> Option<Form<'a>> {
    let boundary = boundary(content_type?)?;
    let mut form = Form::default();
    for part in Parts::new(&boundary, body)?.take(PARTS_MAX + 1).enumerate() {
        let (index, Some(part)) = part else { return None };
        if index == PARTS_MAX {
            return None;
        }
        let value = &body[part.value.clone()];
        match (&*part.name, part.is_file) {
            ("file", _) => form.has_file = true,
            ("model", false) => {
                form.model =
                    Some(Cow::Borrowed(str::from_utf8(value).ok()?)).filter(|model| !model.is_empty());
                form.model_spans.push(part.value);
            }
            ("stream", false) => form.stream = value.eq_ignore_ascii_case(b"true"),
            _ => {}
        }
    }
    Some(form)
}

/// The boundary of a content type; `None` unless it is a form with a lawful one.
fn boundary(content_type: &[u8]) -> Option<Vec<u8>> {
    let text = str::from_utf8(content_type).ok()?;
    let (kind, parameters) = text.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let value = parameter(parameters, "boundary")?;
    let lawful = !value.is_empty()
        && value.len() <= BOUNDARY_BYTES_MAX
        && !value.ends_with(' ')
        && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(&byte));
    lawful.then(|| value.into_owned().into_bytes())
}

/// One parameter of a header such as `a=b; c="d;\"e"`, names compared without case; the first one counts.
fn parameter<'a>(mut rest: &'a str, name: &str) -> Option<Cow<'a, str>> {
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        let (key, after) = rest.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = after.find(';').unwrap_or(after.len());
                (Cow::Borrowed(after[..end].trim_end()), &after[end..])
            }
        };
        if key.trim().eq_ignore_ascii_case(name) {
            return Some(value);
        }
        rest = after;
    }
}

/// A quoted string after its opening quote, and what follows its closing one.
///
/// Only `\"` and `\\` are escapes: browsers send Windows paths with bare backslashes.
fn unquote(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut owned = String::new();
    let mut from = 0;
    let bytes = text.as_bytes();
    let mut at = 0;
    loop {
        match bytes.get(at)? {
            b'"' => break,
            b'\\' if matches!(bytes.get(at + 1), Some(b'"' | b'\\')) => {
                owned.push_str(&text[from..at]);
                from = at + 1;
                at += 2;
            }
            _ => at += 1,
        }
    }
    let value = if owned.is_empty() && from == 0 {
        Cow::Borrowed(&text[..at])
    } else {
        owned.push_str(&text[from..at]);
        Cow::Owned(owned)
    };
    Some((value, &text[at + 1..]))
}

/// One part of a form.
struct Part<'a> {
    name: Cow<'a, str>,
    is_file: bool,
    value: Range<usize>,
}

/// Walks over the parts. Yields `None` once where the form breaks the rules, then ends.
struct Parts<'a> {
    body: &'a [u8],
    /// CRLF, two hyphens and the boundary.
    delimiter: memmem::Finder<'static>,
    /// Behind the last delimiter.
    at: usize,
    done: bool,
}

impl<'a> Parts<'a> {
    fn new(boundary: &[u8], body: &'a [u8]) -> Option<Self> {
        let mut delimiter: SmallVec<[u8; BOUNDARY_BYTES_MAX]> = SmallVec::from_slice(b"\r\n--");
        delimiter.extend_from_slice(boundary);
        let finder = memmem::Finder::new(&delimiter).into_owned();
        // The first delimiter may stand at the very start, or after a preamble.
        let at = if body.starts_with(&delimiter[2..]) {
            delimiter.len() - 2
        } else {
            finder.find(body)? + delimiter.len()
        };
        Some(Self { body, delimiter: finder, at, done: false })
    }

    /// The part behind the delimiter that ends at `self.at`; `Ok(None)` at the closing one.
    fn part(&mut self) -> Result<Option<Part<'a>>, ()> {
        let mut at = self.at;
        let body = self.body;
        if body[at..].starts_with(b"--") {
            return Ok(None);
        }
        // Transport padding (RFC 2046, 5.1.1).
        while let Some(b' ' | b'\t') = body.get(at) {
            at += 1;
        }
        if !body[at..].starts_with(b"\r\n") {
            return Err(());
        }
        let head = &body[at..body.len().min(at + PART_HEADER_BYTES_MAX)];
        let head_len = memmem::find(head, b"\r\n\r\n").ok_or(())?;
        let (name, is_file) = disposition(&head[..head_len]).ok_or(())?;
        let value = at + head_len + 4;
        // A part without a body ends at once: its delimiter begins with the CRLF that ended the headers.
        let found = value - 2 + self.delimiter.find(&body[value - 2..]).ok_or(())?;
        let end = found.max(value);
        self.at = found + self.delimiter.needle().len();
        Ok(Some(Part { name, is_file, value: value..end }))
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Option<Part<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        match self.part() {
            Ok(Some(part)) => Some(Some(part)),
            Ok(None) => {
                self.done = true;
                None
            }
            Err(()) => {
                self.done = true;
                Some(None)
            }
        }
    }
}

/// Name of a part, and whether it is a file, from its headers.
fn disposition(head: &[u8]) -> Option<(Cow<'_, str>, bool)> {
    let head = str::from_utf8(head).ok()?;
    for line in head.split("\r\n") {
        let Some((key, value)) = line.split_once(':') else { continue };
        if key.trim().eq_ignore_ascii_case("content-disposition") {
            let (kind, parameters) = value.split_once(';')?;
            if !kind.trim().eq_ignore_ascii_case("form-data") {
                return None;
            }
            let is_file =
                parameter(parameters, "filename").or_else(|| parameter(parameters, "filename*")).is_some();
            return Some((parameter(parameters, "name")?, is_file));
        }
    }
    None
}
