//! What can go wrong on purpose, and the words for it.
//!
//! A fault comes from the request's `x-engine-fault` header, else from the queue of one-time faults, else from the
//! standing fault. Whatever the words do not know is answered 400, so that a misspelt test fails.

use std::collections::VecDeque;
use std::str::FromStr;
use std::time::Duration;

/// The header that asks for a fault in its own request only.
pub const FAULT_HEADER: &str = "x-engine-fault";

/// One way to misbehave once a request has been read. Its words (for the header and the command line) are in brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// No fault: lets a queued entry pass one request unharmed. \[`none`\]
    None,
    /// Never answers; ends when the client leaves. \[`hang`\]
    Hang,
    /// Waits before it begins to answer. \[`delay=MS`\]
    Delay(Duration),
    /// Closes the connection instead of answering. \[`close`\]
    Close,
    /// Resets the connection (RST) instead of answering. \[`reset`\]
    Reset,
    /// Like `Close`, but only if the connection has carried a request before: the stale keep-alive race,
    /// deterministic. \[`close-reused`\]
    CloseReused,
    /// Sends the head and so many bytes of the body, then closes. \[`cut=BYTES`\]
    Cut(u64),
    /// Sends the head and so many bytes of the body, then nothing more. \[`stall=BYTES`\]
    Stall(u64),
    /// Waits before every chunk of the body; a body in one piece is sent in pieces of 16 bytes. \[`slow=MS`\]
    SlowChunks(Duration),
    /// Answers this status with an error body, or the one given, without computing. \[`status=CODE`\]
    Status {
        /// 200 to 599.
        code: u16,
        /// The whole body; default an error object in vLLM's shape.
        body: Option<String>,
        /// More headers, for example `retry-after`.
        headers: Vec<(String, String)>,
    },
    /// Answers this status before it has read the body, and logs the request without one. \[`early=CODE`\]
    Early(u16),
    /// Sends bytes that are not HTTP and closes. \[`garbage`\]
    Garbage,
    /// Encodes the body with gzip, whatever the client accepts. \[`gzip`\]
    Gzip,
    /// Sends the body chunked, without a length, and trickled in two pieces. \[`chunked`\]
    Chunked,
    /// Sends the body without length or chunks: it ends with the connection. \[`until-close`\]
    UntilClose,
    /// Adds headers of so many bytes together. \[`big-headers=BYTES`\]
    BigHeaders(usize),
    /// Sends so many `103 Early Hints` heads before the answer. \[`interim=COUNT`\]
    Interim(u32),
}

impl Fault {
    /// [`Fault::Status`] with the default body and no more headers.
    pub fn status(code: u16) -> Self {
        Self::Status { code, body: None, headers: Vec::new() }
    }
}

/// What a fault's words should have been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownFault(pub String);

impl std::fmt::Display for UnknownFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "unknown fault `{}`", self.0)
    }
}

impl std::error::Error for UnknownFault {}

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(words: &str) -> Result<Self, UnknownFault> {
        let unknown = || UnknownFault(words.to_owned());
        let (name, value) = words.trim().split_once('=').unwrap_or((words.trim(), ""));
        let number = || value.parse::<u64>().map_err(|_| unknown());
        let millis = || number().map(Duration::from_millis);
        Ok(match name {
            "none" => Self::None,
            "hang" => Self::Hang,
            "delay" => Self::Delay(millis()?),
            "close" => Self::Close,
            "reset" => Self::Reset,
            "close-reused" => Self::CloseReused,
            "cut" => Self::Cut(number()?),
            "stall" => Self::Stall(number()?),
            "slow" => Self::SlowChunks(millis()?),
            "status" => match value.parse() {
                Ok(code @ 200..=599) => Self::status(code),
                _ => return Err(unknown()),
            },
            "early" => match value.parse() {
                Ok(code @ 200..=599) => Self::Early(code),
                _ => return Err(unknown()),
            },
            "garbage" => Self::Garbage,
            "gzip" => Self::Gzip,
            "chunked" => Self::Chunked,
            "until-close" => Self::UntilClose,
            "big-headers" => Self::BigHeaders(value.parse().map_err(|_| unknown())?),
            "interim" => Self::Interim(value.parse().map_err(|_| unknown())?),
            _ => return Err(unknown()),
        })
    }
}

/// What happens to new connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Accept {
    /// They are served.
    #[default]
    Serve,
    /// The port is held but nobody listens: the client's connect is refused.
    Refuse,
    /// Accepted and closed at once.
    Close,
    /// Accepted, never read, never answered.
    Silent,
    /// Accepted and answered with bytes that are not HTTP, then closed.
    Garbage,
}

/// Which faults the next requests get.
#[derive(Debug, Default)]
pub(super) struct Script {
    pub(super) queue: VecDeque<Fault>,
    pub(super) standing: Option<Fault>,
    pub(super) probes: Option<Fault>,
}

impl Script {
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.standing.is_none() && self.probes.is_none()
    }

    pub(super) fn next(&mut self, is_probe: bool) -> Option<Fault> {
        if is_probe {
            return self.probes.clone();
        }
        self.queue.pop_front().or_else(|| self.standing.clone())
    }
}

/// Bytes no HTTP parser takes.
pub(super) const GARBAGE: &[u8] = b"\x16\x03\x01 this is not HTTP \x00\xff\r\n\r\n";
