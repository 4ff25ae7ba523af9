//! What a page was that held no number we know: for the operator, who has to find out what stands there instead.

use std::fmt;

/// Longest name of a metric that is shown, bytes.
const NAME_BYTES_MAX: usize = 64;
/// Prefixes of what every program shows of itself: they say nothing about what it is.
const RUNTIMES: [&[u8]; 4] = [b"python_", b"process_", b"go_", b"promhttp_"];

/// A page without a known number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// Nothing but blanks.
    Empty,
    /// It begins like HTML or XML.
    Html,
    /// It begins like JSON.
    Json,
    /// Metrics of something else.
    Other {
        /// Name of one of them, of its own kind if there is one.
        example: Box<str>,
    },
    /// No line is a sample.
    NoMetrics,
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("an empty page"),
            Self::Html => f.write_str("an HTML page"),
            Self::Json => f.write_str("JSON"),
            Self::Other { example } => write!(f, "metrics such as {example}, none of them known"),
            Self::NoMetrics => f.write_str("text without metrics"),
        }
    }
}

/// Looks at a page while it is read.
#[derive(Debug, Default)]
pub(super) struct Glance {
    first: Option<u8>,
    example: Option<(Box<[u8]>, bool)>,
}

impl Glance {
    /// The next piece.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        if self.first.is_none() {
            self.first = bytes.iter().copied().find(|byte| !byte.is_ascii_whitespace());
        }
    }

    /// A sample of this name.
    pub(super) fn sample(&mut self, name: &[u8]) {
        if self.example.as_ref().is_some_and(|(_, is_own)| *is_own) {
            return;
        }
        let is_own = !RUNTIMES.iter().any(|prefix| name.starts_with(prefix));
        if is_own || self.example.is_none() {
            self.example = Some((name[..name.len().min(NAME_BYTES_MAX)].into(), is_own));
        }
    }

    /// What the page was.
    pub(super) fn finish(self) -> Unread {
        match (self.first, self.example) {
            (None, _) => Unread::Empty,
            (Some(b'<'), _) => Unread::Html,
            (Some(b'{' | b'['), _) => Unread::Json,
            // Names of metrics are ASCII.
            (_, Some((name, _))) => Unread::Other { example: String::from_utf8_lossy(&name).into() },
            (_, None) => Unread::NoMetrics,
        }
    }
}
