//! Finds the first part of an answer that carries content: where the time to first token ends.
//!
//! In a stream that is not its first byte. Servers send comments to keep connections open, and events that only announce
//! an answer: the role of a chat message, `message_start`, `response.created`. In any other answer it is the first byte.

use super::usage::Shape;

/// Longest line of a stream that is looked at, bytes; a longer one counts as content.
const LINE_BYTES_MAX: usize = 16 << 10;

/// Members whose value is text of the answer, in the dialects of chat, completions, responses and messages.
const TEXT_KEYS: [&[u8]; 9] = [
    b"\"content\"",
    b"\"text\"",
    b"\"delta\"",
    b"\"reasoning_content\"",
    b"\"reasoning\"",
    b"\"refusal\"",
    b"\"thinking\"",
    b"\"partial_json\"",
    b"\"arguments\"",
];

/// Watches one answer's body until its first content has passed.
#[derive(Debug, Default)]
pub(crate) struct ContentWatch {
    is_stream: bool,
    is_found: bool,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
}

impl ContentWatch {
    /// At the start of an answer of this shape.
    pub(crate) fn new(shape: Shape) -> Self {
        Self { is_stream: shape == Shape::Events, ..Self::default() }
    }

    /// Takes the next bytes of the body. Whether content has come, in them or before.
    pub(crate) fn feed(&mut self, chunk: &[u8]) -> bool {
        if !self.is_found {
            self.is_found = !self.is_stream || self.look(chunk);
        }
        self.is_found
    }

    fn look(&mut self, chunk: &[u8]) -> bool {
        let mut rest = chunk;
        while let Some(end) = memchr::memchr(b'\n', rest) {
            let (line, behind) = (&rest[..end], &rest[end + 1..]);
            let is_content = if self.line.is_empty() {
                is_content(line)
            } else {
                self.line.extend_from_slice(line);
                is_content(&self.line)
            };
            self.line.clear();
            if is_content {
                self.line = Vec::new();
                return true;
            }
            rest = behind;
        }
        self.line.extend_from_slice(rest);
        self.line.len() > LINE_BYTES_MAX
    }
}

/// Whether a line of an event stream carries content of the answer.
fn is_content(line: &[u8]) -> bool {
    let Some(data) = line.strip_prefix(b"data:").map(<[u8]>::trim_ascii) else { return false };
    match data.first() {
        None => false,
        Some(b'{') => object_has_content(data),
        // A dialect that is not known, but not the end of the known ones.
        Some(_) => data != b"[DONE]",
    }
}

fn object_has_content(data: &[u8]) -> bool {
    let mut is_known = false;
    for colon in memchr::memchr_iter(b':', data) {
        let before = data[..colon].trim_ascii_end();
        let mut value = data[colon + 1..].trim_ascii_start();
        if TEXT_KEYS.iter().any(|key| before.ends_with(key)) {
            if matches!(value, [b'"', first, ..] if *first != b'"') {
                return true;
            }
        } else if before.ends_with(b"\"tool_calls\"") || before.ends_with(b"\"function_call\"") {
            value = value.get(1..).unwrap_or_default().trim_ascii_start();
            if matches!(value.first(), Some(b'{' | b'"')) {
                return true;
            }
        }
        is_known |= [&b"\"choices\""[..], b"\"type\"", b"\"error\""].iter().any(|key| before.ends_with(key));
    }
    // An event of a known dialect without text only announces, or ends. Of another, each may be a token.
    !is_known
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A3: time to first token ends with the first event that carries content.
    #[test]
    fn comments_and_events_that_only_announce_carry_no_content() {
        for (line, wanted) in [
            (": ping", false),
            ("event: message_start", false),
            ("data:", false),
            ("data: [DONE]", false),
            (r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#, false),
            (r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":null}}]}"#, false),
            (r#"data: {"choices": [{"delta": {"content": "Hi"}}]}"#, true),
            (r#"data: {"choices":[{"delta":{"reasoning_content":"so"}}]}"#, true),
            (r#"data: {"choices":[{"delta":{"tool_calls":[{"index":0}]}}]}"#, true),
            (r#"data: {"choices":[{"delta":{"content":"","tool_calls":[]}}]}"#, false),
            (r#"data: {"choices":[],"usage":{"prompt_tokens":3}}"#, false),
            (r#"data: {"choices":[{"text":"","finish_reason":null}]}"#, false),
            (r#"data:{"choices":[{"text":" a"}]}"#, true),
            (r#"data: {"type":"message_start","message":{"content":[]}}"#, false),
            (r#"data: {"type":"content_block_start","content_block":{"type":"text","text":""}}"#, false),
            (r#"data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"a"}}"#, true),
            (r#"data: {"type":"response.created","response":{"text":{"format":"x"},"output":[]}}"#, false),
            (r#"data: {"type":"response.output_text.delta","delta":"a"}"#, true),
            (r#"data: {"error":{"message":"x"}}"#, false),
            (r#"data: {"token":1}"#, true),
            ("data: token", true),
        ] {
            assert_eq!(is_content(line.as_bytes()), wanted, "{line}");
        }
    }

    #[test]
    fn a_line_may_come_in_pieces_and_stays_bounded() {
        let mut watch = ContentWatch::new(Shape::Events);
        assert!(!watch.feed(b": ping\n\nda"));
        assert!(!watch.feed(br#"ta: {"choices":[{"text":"#));
        assert!(!watch.feed(br#""a"}]}"#), "its end has not come");
        assert!(watch.feed(b"\n\n"));
        assert!(watch.feed(b": ping\n"), "once found, found");

        let mut watch = ContentWatch::new(Shape::Events);
        let fed = (0..10_000).take_while(|_| !watch.feed(b"data: xxxxxxxx")).count();
        assert!(fed * 14 <= LINE_BYTES_MAX, "{fed}");
        assert!(ContentWatch::new(Shape::Json).feed(b"{"), "any other answer begins with its first byte");
    }
}
