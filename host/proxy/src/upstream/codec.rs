//! HTTP/1.1 answers, from bytes to a head and to pieces of a body. Pure: buffers in, values out.
//!
//! Strict where a lenient reading could desynchronise a kept connection, and an answer that it cannot frame is an error,
//! never a guess.

use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use smallvec::SmallVec;

/// Most header lines of an answer.
pub(crate) const HEADERS_MAX: usize = 128;
/// Largest head of an answer, bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 64 << 10;
/// Most interim answers (1xx) before an answer; together they may take [`HEAD_BYTES_MAX`].
pub(crate) const INTERIM_ANSWERS_MAX: usize = 32;
/// Longest chunk-size line with its extensions, and longest trailer section, bytes.
const CHUNK_LINE_BYTES_MAX: usize = 4 << 10;

/// The answer is not HTTP as we can frame it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    /// The head does not parse, or is too large.
    #[error("malformed head")]
    Head,
    /// Contradictory or unknown framing headers.
    #[error("malformed framing headers")]
    Framing,
    /// A chunk does not parse.
    #[error("malformed chunk")]
    Chunk,
}

/// How the body of an answer ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// After this many more bytes; 0 is no body.
    Length(u64),
    /// With a last chunk.
    Chunked(Chunks),
    /// With the connection.
    UntilClose,
}

/// Interim answers (1xx) that came before the answer, over all reads of its head.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interim {
    answers: usize,
    bytes: usize,
}

/// The head of an answer.
#[derive(Debug)]
pub(crate) struct AnswerHead {
    /// Status; never 1xx.
    pub(crate) status: StatusCode,
    /// Header lines as they came, without those that concern the connection, the engine's `server` and request id, and
    /// (where a body follows) its length.
    pub(crate) headers: HeaderMap,
    /// How the body ends.
    pub(crate) framing: Framing,
    /// Whether the connection may be used again after the body.
    pub(crate) keep_alive: bool,
}

/// Where a header's name and value stand in the head.
type Place = (Range<usize>, Range<usize>);

/// Takes the head of the answer off the front of `buffer`. `None`: more bytes are needed. Interim answers (1xx) are
/// skipped and counted in `interim`. `to_head`: the request was a HEAD, so no body follows whatever the headers say.
pub(crate) fn take_head(
    buffer: &mut BytesMut,
    to_head: bool,
    interim: &mut Interim,
) -> Result<Option<AnswerHead>, CodecError> {
    loop {
        let Some((status, version, length, lines)) = parse(buffer)? else {
            return if buffer.len() > HEAD_BYTES_MAX { Err(CodecError::Head) } else { Ok(None) };
        };
        if length > HEAD_BYTES_MAX {
            return Err(CodecError::Head);
        }
        if (100..200).contains(&status) {
            // Nobody asked for an upgrade, so there is nothing that 101 could switch to.
            if status == 101 {
                return Err(CodecError::Framing);
            }
            interim.add(length)?;
            buffer.advance(length);
            continue;
        }
        let head = buffer.split_to(length).freeze();
        let status = StatusCode::from_u16(status).map_err(|_| CodecError::Head)?;
        let bodiless = to_head || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
        let mut lines = Lines::read(&head, &lines, bodiless)?;
        let (framing, unambiguous) = lines.framing(bodiless, to_head);
        let keep_alive =
            unambiguous && framing != Framing::UntilClose && !lines.closes && (lines.keeps || version == 1);
        for name in &lines.listed {
            lines.headers.remove(name);
        }
        return Ok(Some(AnswerHead { status, headers: lines.headers, framing, keep_alive }));
    }
}

impl Interim {
    fn add(&mut self, bytes: usize) -> Result<(), CodecError> {
        self.answers += 1;
        self.bytes += bytes;
        let fits = self.answers <= INTERIM_ANSWERS_MAX && self.bytes <= HEAD_BYTES_MAX;
        if fits { Ok(()) } else { Err(CodecError::Head) }
    }
}

/// Status, minor version, length of the head, and the places of its lines.
type Parsed = (u16, u8, usize, SmallVec<[Place; 24]>);

fn parse(buffer: &[u8]) -> Result<Option<Parsed>, CodecError> {
    let mut headers = [const { std::mem::MaybeUninit::uninit() }; HEADERS_MAX];
    let mut answer = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = match config.parse_response_with_uninit_headers(&mut answer, buffer, &mut headers) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(CodecError::Head),
    };
    let (Some(status), Some(version)) = (answer.code, answer.version) else {
        return Err(CodecError::Head);
    };
    let base = buffer.as_ptr().addr();
    let place = |part: &[u8]| {
        let start = part.as_ptr().addr().wrapping_sub(base);
        // An empty value need not point into the buffer.
        if part.is_empty() { 0..0 } else { start..start + part.len() }
    };
    let lines = answer.headers.iter().map(|line| (place(line.name.as_bytes()), place(line.value))).collect();
    Ok(Some((status, version, length, lines)))
}

/// The header lines of a head, read once: what concerns the connection is taken out, the rest goes on.
struct Lines {
    headers: HeaderMap,
    /// Whether there is a `Content-Length`, readable or not.
    has_length: bool,
    length: Option<u64>,
    is_chunked: bool,
    closes: bool,
    keeps: bool,
    /// Names that `Connection` lists.
    listed: SmallVec<[HeaderName; 2]>,
}

impl Lines {
    fn read(head: &Bytes, places: &[Place], bodiless: bool) -> Result<Self, CodecError> {
        let mut lines = Self {
            // Room for the line that we add.
            headers: HeaderMap::with_capacity(places.len() + 1),
            has_length: false,
            length: None,
            is_chunked: false,
            closes: false,
            keeps: false,
            listed: SmallVec::new(),
        };
        for (name, value) in places {
            let name = HeaderName::from_bytes(&head[name.clone()]).map_err(|_| CodecError::Head)?;
            match name.as_str() {
                "content-length" => {
                    lines.add_length(&head[value.clone()], bodiless)?;
                    if !bodiless {
                        continue;
                    }
                }
                "transfer-encoding" => {
                    let is_known = head[value.clone()].eq_ignore_ascii_case(b"chunked");
                    if !bodiless && (lines.is_chunked || !is_known) {
                        return Err(CodecError::Framing);
                    }
                    lines.is_chunked = true;
                    continue;
                }
                "connection" => {
                    lines.add_connection(&head[value.clone()]);
                    continue;
                }
                "keep-alive" | "proxy-connection" | "upgrade" | "te" | "trailer" | "server"
                | "x-request-id" => {
                    continue;
                }
                _ => {}
            }
            let value = HeaderValue::from_maybe_shared(head.slice(value.clone()));
            lines.headers.append(name, value.map_err(|_| CodecError::Head)?);
        }
        Ok(lines)
    }

    fn add_length(&mut self, value: &[u8], bodiless: bool) -> Result<(), CodecError> {
        let length = decimal(value);
        let agrees = self.length.is_none() || self.length == length;
        if !bodiless && (length.is_none() || !agrees) {
            return Err(CodecError::Framing);
        }
        self.has_length = true;
        self.length = length;
        Ok(())
    }

    fn add_connection(&mut self, value: &[u8]) {
        for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if token.eq_ignore_ascii_case(b"close") {
                self.closes = true;
            } else if token.eq_ignore_ascii_case(b"keep-alive") {
                self.keeps = true;
            } else if let Ok(name) = HeaderName::from_bytes(token) {
                self.listed.push(name);
            }
        }
    }

    /// The framing, and whether the engine and we agree on it. An answer with both a length and chunks is read by its
    /// chunks, but its connection is not trusted with another request (RFC 9112, 6.3). Neither is one whose 204 or 304
    /// announces a body: if that body comes late, it would be taken for the next answer. For a HEAD it is the rule.
    fn framing(&self, bodiless: bool, to_head: bool) -> (Framing, bool) {
        if bodiless {
            let announces = self.is_chunked || self.has_length && self.length != Some(0);
            (Framing::Length(0), to_head || !announces)
        } else if self.is_chunked {
            (Framing::Chunked(Chunks::default()), self.length.is_none())
        } else {
            (self.length.map_or(Framing::UntilClose, Framing::Length), true)
        }
    }
}

fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 19 || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(text.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// One step of reading a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Bytes of the body, never empty.
    Data(Bytes),
    /// More bytes are needed.
    More,
    /// The body is complete.
    End,
}

impl Framing {
    /// The next piece of the body out of `buffer`. After [`Piece::End`] it stays at the end.
    pub(crate) fn take(&mut self, buffer: &mut BytesMut) -> Result<Piece, CodecError> {
        match self {
            Self::Length(0) => Ok(Piece::End),
            _ if buffer.is_empty() && !self.is_ended() => Ok(Piece::More),
            Self::Length(left) => {
                let length = usize::try_from(*left).map_or(buffer.len(), |left| left.min(buffer.len()));
                *left -= length as u64;
                Ok(Piece::Data(buffer.split_to(length).freeze()))
            }
            Self::Chunked(chunks) => chunks.take(buffer),
            Self::UntilClose => Ok(Piece::Data(buffer.split().freeze())),
        }
    }

    /// Whether the whole body has been taken.
    pub(crate) fn is_ended(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunks { state: ChunkState::End, .. }))
    }
}

/// A chunked body being read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chunks {
    state: ChunkState,
    trailer_bytes: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ChunkState {
    /// At a size line.
    #[default]
    Size,
    /// Inside a chunk, with this many bytes left.
    Data(u64),
    /// At the line end behind a chunk.
    DataEnd,
    /// In the trailer section.
    Trailer,
    /// Behind the last chunk.
    End,
}

impl Chunks {
    fn take(&mut self, buffer: &mut BytesMut) -> Result<Piece, CodecError> {
        if self.step_over(buffer)? {
            return Ok(Piece::End);
        }
        let ChunkState::Data(left) = self.state else {
            return Ok(Piece::More);
        };
        if buffer.is_empty() {
            return Ok(Piece::More);
        }
        let length = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let data = buffer.split_to(length).freeze();
        let left = left - length as u64;
        self.state = if left == 0 { ChunkState::DataEnd } else { ChunkState::Data(left) };
        // Stepping over what follows now lets the last data be recognised as the last.
        self.step_over(buffer)?;
        Ok(Piece::Data(data))
    }

    /// Consumes framing up to data, to the end (true), or to where bytes are missing.
    fn step_over(&mut self, buffer: &mut BytesMut) -> Result<bool, CodecError> {
        loop {
            match self.state {
                ChunkState::Data(_) => return Ok(false),
                ChunkState::End => return Ok(true),
                ChunkState::DataEnd => match buffer.as_ref() {
                    [b'\r', b'\n', ..] => {
                        buffer.advance(2);
                        self.state = ChunkState::Size;
                    }
                    [] | [b'\r'] => return Ok(false),
                    _ => return Err(CodecError::Chunk),
                },
                ChunkState::Size => match httparse::parse_chunk_size(buffer) {
                    Ok(httparse::Status::Complete((length, size))) => {
                        buffer.advance(length);
                        self.state = if size == 0 { ChunkState::Trailer } else { ChunkState::Data(size) };
                    }
                    Ok(httparse::Status::Partial) if buffer.len() <= CHUNK_LINE_BYTES_MAX => {
                        return Ok(false);
                    }
                    _ => return Err(CodecError::Chunk),
                },
                ChunkState::Trailer => {
                    let Some(line) = memchr::memchr(b'\n', buffer) else {
                        let fits = self.trailer_bytes + buffer.len() <= CHUNK_LINE_BYTES_MAX;
                        return if fits { Ok(false) } else { Err(CodecError::Chunk) };
                    };
                    self.trailer_bytes += line + 1;
                    if self.trailer_bytes > CHUNK_LINE_BYTES_MAX + 2 {
                        return Err(CodecError::Chunk);
                    }
                    let is_last = matches!(&buffer[..line], b"" | b"\r");
                    buffer.advance(line + 1);
                    if is_last {
                        self.state = ChunkState::End;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
