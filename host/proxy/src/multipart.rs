//! Reads just enough of a buffered `multipart/form-data` body to route it.
//!
//! The body goes to the engine byte for byte, unknown fields included; only an alias changes the value of `model`. As in
//! the engines, of a repeated `model` the last one counts. What Starlette takes (with `python-multipart`), which vLLM and
//! SGLang read forms with, is taken here and read alike: any boundary, names of files in any encoding, a form that is not
//! closed. Line ends are CRLF (RFC 2046); parts and their headers are bounded.

use std::borrow::Cow;
use std::ops::Range;

use domain::failure::{FailureKind, MultipartFault};
use memchr::memmem;
use smallvec::SmallVec;

use crate::dialect::MultipartKind;
use crate::intake::scan::{MODELS_MAX, Spans};

#[cfg(test)]
mod tests;

/// Most parts in a form. Starlette takes 1,000 files and as many fields.
pub const PARTS_MAX: usize = 2_048;
/// Most bytes of headers in one part. Starlette takes 8 lines of about 4 KiB.
pub const PART_HEADER_BYTES_MAX: usize = 40 << 10;
/// Longest boundary, bytes. RFC 2046 (5.1.1) allows 70, Starlette 256.
pub const BOUNDARY_BYTES_MAX: usize = 256;

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
        let form = read(content_type, body).ok_or(FailureKind::Multipart(MultipartFault::Unreadable))?;
        if form.model_spans.len() > MODELS_MAX {
            return Err(FailureKind::ModelRepeated { max: MODELS_MAX });
        }
        Ok(form)
    }

    /// The same, borrowing nothing.
    pub fn into_owned(self) -> Form<'static> {
        let model = self.model.map(|model| Cow::Owned(model.into_owned()));
        Form { model, model_spans: self.model_spans, has_file: self.has_file, stream: self.stream }
    }

    /// The model, if the form has what `kind` needs.
    pub fn model_for(&self, kind: MultipartKind) -> Result<&str, FailureKind> {
        if kind.needs_file() && !self.has_file {
            return Err(FailureKind::Multipart(MultipartFault::FileMissing));
        }
        self.model.as_deref().ok_or(FailureKind::Multipart(MultipartFault::ModelMissing))
    }
}

fn read<'a>(content_type: Option<&[u8]>, body: &'a [u8]) -> Option<Form<'a>> {
    let boundary = boundary(content_type?)?;
    let mut parts = Parts::new(&boundary, body)?;
    let mut form = Form::default();
    let mut count = 0;
    while let Some(part) = parts.part().ok()? {
        count += 1;
        if count > PARTS_MAX {
            return None;
        }
        let value = &body[part.value.clone()];
        match (&*part.name, part.is_file) {
            (b"file", _) => form.has_file = true,
            (b"model", false) => {
                form.model = Some(text(value)).filter(|model| !model.is_empty());
                form.model_spans.push(part.value);
            }
            (b"stream", false) => form.stream = value.eq_ignore_ascii_case(b"true"),
            _ => {}
        }
    }
    (count > 0 || parts.mark == Mark::Closing).then_some(form)
}

/// A field's text: UTF-8, or else Latin-1, as in the engines.
fn text(value: &[u8]) -> Cow<'_, str> {
    match str::from_utf8(value) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(value.iter().map(|byte| char::from(*byte)).collect()),
    }
}

/// The boundary of a content type; `None` unless it is a form with one.
///
/// RFC 2046 knows fewer characters and fewer bytes. Clients use more, and engines take them.
fn boundary(content_type: &[u8]) -> Option<Cow<'_, [u8]>> {
    let mut segments = Segments(Some(content_type));
    if !segments.next()?.eq_ignore_ascii_case(b"multipart/form-data") {
        return None;
    }
    let value = parameter(segments, b"boundary")?;
    (1..=BOUNDARY_BYTES_MAX).contains(&value.len()).then_some(value)
}

/// A header's value, cut at semicolons outside of quotes; white space around the pieces is left out.
///
/// A quote behind a backslash neither opens nor closes: so does `python-multipart` cut, which reads what we let pass. Bytes
/// are not decoded: names of files come in any encoding.
#[derive(Clone, Copy)]
struct Segments<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Segments<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.0.take()?;
        let mut is_quoted = false;
        for (at, byte) in rest.iter().enumerate() {
            match byte {
                b'"' if at == 0 || rest[at - 1] != b'\\' => is_quoted = !is_quoted,
                b';' if !is_quoted => {
                    self.0 = Some(&rest[at + 1..]);
                    return Some(rest[..at].trim_ascii());
                }
                _ => {}
            }
        }
        // A quote that nothing closes: what follows the next semicolon is not looked at, as in the engines.
        Some(rest.trim_ascii())
    }
}

/// The parameter `name`, compared without case; of a repeated one the last counts, as in the engines.
fn parameter<'a>(segments: Segments<'a>, name: &[u8]) -> Option<Cow<'a, [u8]>> {
    let values = segments.filter_map(|segment| {
        let at = memchr::memchr(b'=', segment)?;
        let (key, value) = (segment[..at].trim_ascii(), segment[at + 1..].trim_ascii());
        key.eq_ignore_ascii_case(name).then_some(value)
    });
    values.last().map(unquote)
}

/// A value without the quotes around it. Only `\"` and `\\` are escapes: browsers send Windows paths with bare backslashes.
fn unquote(value: &[u8]) -> Cow<'_, [u8]> {
    let Some(inner) = value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")) else {
        return Cow::Borrowed(value);
    };
    if !inner.contains(&b'\\') {
        return Cow::Borrowed(inner);
    }
    let mut plain = Vec::with_capacity(inner.len());
    let mut bytes = inner.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let escaped = bytes.next_if(|next| byte == b'\\' && matches!(next, b'"' | b'\\'));
        plain.push(escaped.unwrap_or(byte));
    }
    Cow::Owned(plain)
}

/// One part of a form.
struct Part<'a> {
    name: Cow<'a, [u8]>,
    is_file: bool,
    value: Range<usize>,
}

/// What stands behind a part.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    /// The start of another part.
    Next,
    /// The end of the form.
    Closing,
}

/// Walks over the parts.
struct Parts<'a> {
    body: &'a [u8],
    /// CRLF, two hyphens and the boundary.
    delimiter: memmem::Finder<'static>,
    /// Behind the last delimiter and its line end.
    at: usize,
    mark: Mark,
}

/// The form breaks the rules.
struct Broken;

impl<'a> Parts<'a> {
    fn new(boundary: &[u8], body: &'a [u8]) -> Option<Self> {
        let mut delimiter: SmallVec<[u8; 80]> = SmallVec::from_slice(b"\r\n--");
        delimiter.extend_from_slice(boundary);
        let finder = memmem::Finder::new(&delimiter).into_owned();
        let mut parts = Self { body, delimiter: finder, at: 0, mark: Mark::Next };
        let start = parts.start(&delimiter[2..]);
        let (at, mark) = match start.and_then(|at| parts.mark(at)) {
            Some(found) => found,
            None => {
                // After a preamble (RFC 2046, 5.1.1).
                let (_, at, mark) = parts.find(0)?;
                (at, mark)
            }
        };
        (parts.at, parts.mark) = (at, mark);
        Some(parts)
    }

    /// Behind the first delimiter, if it stands at the very start, or there behind line ends of any kind.
    fn start(&self, line: &[u8]) -> Option<usize> {
        let begins = match self.body.first()? {
            b'\r' | b'\n' => memchr::memchr(b'-', self.body)?,
            _ => 0,
        };
        self.body[begins..].starts_with(line).then_some(begins + line.len())
    }

    /// What the bytes behind a delimiter make of it, and where they end. `None`: they make it a piece of the part's value.
    fn mark(&self, at: usize) -> Option<(usize, Mark)> {
        let rest = &self.body[at..];
        if rest.starts_with(b"--") {
            return Some((at + 2, Mark::Closing));
        }
        // Transport padding (RFC 2046, 5.1.1).
        let padding = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        rest[padding..].starts_with(b"\r\n").then_some((at + padding + 2, Mark::Next))
    }

    /// The next delimiter from `from` on: where it begins, where what follows it begins, and what it marks.
    fn find(&self, mut from: usize) -> Option<(usize, usize, Mark)> {
        loop {
            let begins = from + self.delimiter.find(&self.body[from..])?;
            from = begins + self.delimiter.needle().len();
            if let Some((at, mark)) = self.mark(from) {
                return Some((begins, at, mark));
            }
        }
    }

    /// The next part. `None`: the form ends here, be it closed or cut off in a part: that one does not count, as in the engines.
    fn part(&mut self) -> Result<Option<Part<'a>>, Broken> {
        if self.mark == Mark::Closing {
            return Ok(None);
        }
        let at = self.at;
        let head = &self.body[at..self.body.len().min(at + PART_HEADER_BYTES_MAX)];
        let Some(head_len) = memmem::find(head, b"\r\n\r\n") else {
            return if head.len() < PART_HEADER_BYTES_MAX { Ok(None) } else { Err(Broken) };
        };
        let (name, is_file) = disposition(&head[..head_len]).ok_or(Broken)?;
        let value = at + head_len + 4;
        // A part without a value ends at once: its delimiter begins with the CRLF that ended the headers.
        let Some((end, at, mark)) = self.find(value - 2) else { return Ok(None) };
        (self.at, self.mark) = (at, mark);
        Ok(Some(Part { name, is_file, value: value..end.max(value) }))
    }
}

/// Name of a part, and whether it is a file, from its headers. What kind of disposition it is does not count, as in the
/// engines.
fn disposition(head: &[u8]) -> Option<(Cow<'_, [u8]>, bool)> {
    let mut found = None;
    for line in head.split(|byte| *byte == b'\n') {
        let Some(at) = memchr::memchr(b':', line) else { continue };
        if line[..at].trim_ascii().eq_ignore_ascii_case(b"content-disposition") {
            let mut segments = Segments(Some(&line[at + 1..]));
            segments.next();
            found = Some(segments);
        }
    }
    let segments = found?;
    let is_file = parameter(segments, b"filename").or_else(|| parameter(segments, b"filename*")).is_some();
    Some((parameter(segments, b"name")?, is_file))
}
