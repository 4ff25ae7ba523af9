//! Bytes on a socket, for what an HTTP library would not send.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fleet::soon;

/// Longest wait for the end of a connection: more than the 15 s that a head may take, and less than the 30 s that a body may
/// pause and the 75 s that a connection may be idle, or the end would say nothing.
const CLOSED_MAX: Duration = Duration::from_secs(25);

/// A connection without any protocol.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
}

/// An answer as it came, head and body apart; a chunked body is still chunked.
#[derive(Clone, Debug)]
pub struct RawAnswer {
    /// Status line and header lines.
    pub head: String,
    /// What followed.
    pub body: Vec<u8>,
}

impl RawAnswer {
    /// The status code; 0 if there is none.
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
    }
    /// A header's value, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Raw {
    /// Connects.
    pub async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("connects");
        stream.set_nodelay(true).expect("nodelay");
        Self { stream }
    }

    /// Sends bytes.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("sent");
    }

    /// Reads one answer: a body as long as its `Content-Length` says, or else up to the end of the connection.
    pub async fn answer(&mut self) -> RawAnswer {
        soon("an answer", self.read_answer()).await
    }

    async fn read_answer(&mut self) -> RawAnswer {
        let mut bytes = Vec::new();
        let head_end = loop {
            if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            assert!(self.more(&mut bytes).await, "the connection ended within a head: {bytes:?}");
        };
        let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
        let mut answer = RawAnswer { head, body: bytes.split_off(head_end) };
        let length = answer.header("content-length").and_then(|length| length.parse().ok());
        while length.is_none_or(|length: usize| answer.body.len() < length) {
            let mut body = std::mem::take(&mut answer.body);
            let is_more = self.more(&mut body).await;
            answer.body = body;
            if !is_more {
                break;
            }
        }
        answer
    }

    async fn more(&mut self, bytes: &mut Vec<u8>) -> bool {
        // A reset is an end, too.
        self.stream.read_buf(bytes).await.unwrap_or(0) > 0
    }

    /// Waits until the other side closes, and returns what came until then.
    pub async fn closed(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let end = async { while self.more(&mut bytes).await {} };
        assert!(tokio::time::timeout(CLOSED_MAX, end).await.is_ok(), "not closed within {CLOSED_MAX:?}");
        bytes
    }
}
