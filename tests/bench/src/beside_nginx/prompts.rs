//! Requests rendered before the clock starts: sessions of tenants whose prompts share a beginning.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

/// Words of the text, of the length that English has.
const WORDS: [&str; 24] = [
    "the", "engine", "of", "a", "token", "waits", "and", "while", "queue", "memory", "is", "long", "prompt",
    "to", "answer", "in", "model", "with", "gateway", "that", "cache", "prefix", "for", "load",
];

/// Digits of the number that makes a prompt new.
const SERIAL_DIGITS: usize = 10;

/// How the prompts of one workload look.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Length of the prompt's text, bytes.
    pub(crate) prompt_bytes: usize,
    /// How many sessions there are; each has a session header and a text of its own.
    pub(crate) sessions: usize,
    /// How many tenants; the sessions of a tenant share the first quarter of the prompt.
    pub(crate) tenants: usize,
    /// What of a session's last prompt is repeated: from there on every request is new. 0 to 1.
    pub(crate) repeated: f64,
    /// Chunks of the answer, if it is to be streamed.
    pub(crate) chunks: Option<usize>,
    /// Whether requests name their session.
    pub(crate) named: bool,
}

impl Shape {
    /// A conversation: a quarter of the prompt is the tenant's, three quarters are known from the last turn.
    pub(crate) const fn conversation(prompt_bytes: usize, sessions: usize) -> Self {
        Self { prompt_bytes, sessions, tenants: 20, repeated: 0.75, chunks: None, named: true }
    }
}

/// One request, head and body. [`Prompts::put_back`] returns it.
#[derive(Debug)]
pub(crate) struct Prompt {
    bytes: Vec<u8>,
    serial_at: usize,
}

impl Prompt {
    /// What to send.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The requests of a workload, handed out in turn; each time a request is handed out its prompt is a new one.
#[derive(Debug)]
pub(crate) struct Prompts {
    queue: Mutex<(VecDeque<Prompt>, u64)>,
}

impl Prompts {
    /// Renders one request per session. The same shape gives the same text.
    pub(crate) fn render(shape: Shape) -> Self {
        let mut random = fastrand::Rng::with_seed(7);
        let tenants: Vec<String> =
            (0..shape.tenants).map(|_| text(&mut random, shape.prompt_bytes / 4)).collect();
        let prompts = (0..shape.sessions).map(|session| {
            let mut prompt = tenants[session % tenants.len()].clone();
            prompt += &text(&mut random, shape.prompt_bytes - prompt.len());
            render(shape, session, &prompt)
        });
        Self { queue: Mutex::new((prompts.collect(), 0)) }
    }

    /// The next request. There must be more sessions than connections.
    pub(crate) fn take(&self) -> Option<Prompt> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.1 += 1;
        let mut serial = queue.1;
        let mut prompt = queue.0.pop_front()?;
        drop(queue);
        for digit in prompt.bytes[prompt.serial_at..][..SERIAL_DIGITS].iter_mut().rev() {
            *digit = b'0' + (serial % 10) as u8;
            serial /= 10;
        }
        Some(prompt)
    }

    /// Gives a request back after its answer.
    pub(crate) fn put_back(&self, prompt: Prompt) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).0.push_back(prompt);
    }
}

fn text(random: &mut fastrand::Rng, bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 16);
    while text.len() < bytes {
        text += WORDS[random.usize(..WORDS.len())];
        text += if random.u8(..) < 6 { "\\n" } else { " " };
    }
    text.truncate(bytes);
    // An escape must not be cut.
    if text.ends_with('\\') {
        text.pop();
        text.push('.');
    }
    text
}

fn render(shape: Shape, session: usize, prompt: &str) -> Prompt {
    let mut prompt = prompt.to_owned();
    let at = (prompt.len() as f64 * shape.repeated) as usize;
    let mut serial_at = at.min(prompt.len() - SERIAL_DIGITS - 1);
    if serial_at > 0 && prompt.as_bytes()[serial_at - 1] == b'\\' {
        serial_at += 1;
    }
    // The byte behind the number may be the second half of an escape.
    prompt.replace_range(serial_at..=serial_at + SERIAL_DIGITS, "0000000000 ");
    let (system, user) = prompt.split_at((shape.prompt_bytes / 4).min(serial_at));
    let stream = shape.chunks.map_or_else(
        || "\"stream\":false,\"max_tokens\":16".to_owned(),
        |chunks| format!("\"stream\":true,\"max_tokens\":{chunks}"),
    );
    let body_head =
        format!("{{\"model\":\"m\",{stream},\"messages\":[{{\"role\":\"system\",\"content\":\"{system}\"}},");
    let body = format!("{body_head}{{\"role\":\"user\",\"content\":\"{user}\"}}]}}");
    let session = if shape.named { format!("x-session-id: session-{session:06}\r\n") } else { String::new() };
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: bench.example:8001\r\nUser-Agent: OpenAI/Python 2.8.0\r\n\
         Accept: application/json\r\nContent-Type: application/json\r\nAuthorization: Bearer sk-bench-0123456789\r\n\
         {session}Content-Length: {}\r\n\r\n",
        body.len()
    );
    let serial = "0000000000 ";
    let bytes = (head + &body).into_bytes();
    let serial_at = super::wire::find(&bytes, serial.as_bytes()).unwrap_or(0);
    Prompt { bytes, serial_at }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_json_and_none_is_twice() {
        for prompt_bytes in [1 << 10, 16 << 10] {
            for repeated in [0.0, 0.75] {
                let shape = Shape { repeated, ..Shape::conversation(prompt_bytes, 50) };
                let prompts = Prompts::render(shape);
                let mut bodies = std::collections::HashSet::new();
                for _ in 0..120 {
                    let prompt = prompts.take().unwrap();
                    let at = super::super::wire::head_end(prompt.bytes()).unwrap();
                    let body: serde_json::Value = serde_json::from_slice(&prompt.bytes()[at..]).unwrap();
                    assert!(bodies.insert(body.to_string()));
                    prompts.put_back(prompt);
                }
            }
        }
    }
}
