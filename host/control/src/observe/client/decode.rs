//! Bodies as they were meant: gzip is undone as it streams in, within the same bound.
//!
//! gzip is not asked for: compressing costs the engine more than the bytes cost here. Some answer with it all the same.

use std::io::{self, Write};

use flate2::write::MultiGzDecoder;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

use super::ProbeError;

/// Longest name of an encoding that is shown, bytes.
const NAME_BYTES_MAX: usize = 32;

/// Hands a body over piece by piece.
pub(super) enum Decoder<'a, F: FnMut(&[u8])> {
    Plain(&'a mut F),
    Gzip(Box<MultiGzDecoder<Bounded<'a, F>>>),
}

/// Takes what was decoded, up to a limit.
pub(super) struct Bounded<'a, F> {
    on_piece: &'a mut F,
    limit_bytes: usize,
    left: usize,
    is_full: bool,
}

impl<F: FnMut(&[u8])> Write for Bounded<'_, F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.left {
            self.is_full = true;
            return Err(io::Error::other("too large"));
        }
        self.left -= bytes.len();
        (self.on_piece)(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a, F: FnMut(&[u8])> Decoder<'a, F> {
    /// For an answer with these headers. At most `bytes_max` are handed over.
    ///
    /// # Errors
    /// The encoding is not understood.
    pub(super) fn new(
        headers: &HeaderMap,
        bytes_max: usize,
        on_piece: &'a mut F,
    ) -> Result<Self, ProbeError> {
        let encoding = headers.get(CONTENT_ENCODING).map(|value| value.as_bytes().trim_ascii());
        match encoding.map(<[u8]>::to_ascii_lowercase).as_deref() {
            None | Some(b"" | b"identity") => Ok(Self::Plain(on_piece)),
            Some(b"gzip" | b"x-gzip") => {
                let sink = Bounded { on_piece, limit_bytes: bytes_max, left: bytes_max, is_full: false };
                Ok(Self::Gzip(Box::new(MultiGzDecoder::new(sink))))
            }
            Some(other) => {
                let shown = &other[..other.len().min(NAME_BYTES_MAX)];
                Err(ProbeError::Encoding(shown.escape_ascii().to_string().into()))
            }
        }
    }

    /// The next piece, as it came.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Result<(), ProbeError> {
        match self {
            Self::Plain(on_piece) => on_piece(piece),
            Self::Gzip(decoder) => {
                let written = decoder.write_all(piece);
                written.map_err(|_| failure(decoder))?;
            }
        }
        Ok(())
    }

    /// That was all. A body that was cut is no answer.
    pub(super) fn finish(mut self) -> Result<(), ProbeError> {
        match &mut self {
            Self::Plain(_) => Ok(()),
            Self::Gzip(decoder) => {
                let ended = decoder.try_finish();
                ended.map_err(|_| failure(decoder))
            }
        }
    }
}

fn failure<F: FnMut(&[u8])>(decoder: &MultiGzDecoder<Bounded<'_, F>>) -> ProbeError {
    let sink = decoder.get_ref();
    if sink.is_full { ProbeError::TooLarge { limit_bytes: sink.limit_bytes } } else { ProbeError::Content }
}
