//! What of a request's JSON the engine looks at, and how its text becomes blocks.

use serde::Deserialize;
use serde_json::Value;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::core::BlockHash;

/// The fields an engine acts on; every other one is accepted and ignored.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Request {
    pub(super) model: Option<String>,
    pub(super) stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    max_output_tokens: Option<u32>,
    system: Option<Value>,
    instructions: Option<Value>,
    tools: Option<Value>,
    messages: Option<Vec<Message>>,
    prompt: Option<Value>,
    pub(super) input: Option<Value>,
    pub(super) query: Option<Value>,
    pub(super) documents: Option<Vec<Value>>,
    pub(super) text_1: Option<Value>,
    pub(super) text_2: Option<Value>,
    pub(super) top_n: Option<usize>,
    pub(super) tokens: Option<Vec<u32>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct StreamOptions {
    include_usage: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Message {
    role: Option<String>,
    content: Option<Value>,
    tool_calls: Option<Value>,
}

impl Request {
    pub(super) fn of_model(model: Option<&str>) -> Self {
        Self { model: model.map(str::to_owned), ..Self::default() }
    }

    pub(super) fn is_stream(&self) -> bool {
        self.stream == Some(true)
    }

    pub(super) fn wants_usage(&self) -> bool {
        self.stream_options.as_ref().and_then(|options| options.include_usage) == Some(true)
    }

    /// The limit the client set, under any of its names.
    pub(super) fn output_limit(&self) -> Option<u32> {
        self.max_completion_tokens.or(self.max_tokens).or(self.max_output_tokens)
    }

    /// Everything the model would read, in order; a longer conversation starts with the bytes of a shorter one.
    pub(super) fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for part in
            [&self.tools, &self.system, &self.instructions, &self.prompt, &self.input].into_iter().flatten()
        {
            push_text(&mut text, part);
        }
        for message in self.messages.iter().flatten() {
            text.extend_from_slice(b"<|");
            text.extend_from_slice(message.role.as_deref().unwrap_or("user").as_bytes());
            text.extend_from_slice(b"|>");
            for part in [&message.content, &message.tool_calls].into_iter().flatten() {
                push_text(&mut text, part);
            }
        }
        text
    }

    pub(super) fn has_prompt(&self) -> bool {
        self.messages.as_ref().is_some_and(|messages| !messages.is_empty())
            || self.prompt.is_some()
            || self.input.is_some()
    }
}

/// Strings as they are, token ids as four bytes, parts by their text, anything else as JSON.
pub(super) fn push_text(text: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => {}
        Value::String(string) => text.extend_from_slice(string.as_bytes()),
        Value::Number(number) => match number.as_u64() {
            Some(token) => text.extend_from_slice(&(token as u32).to_le_bytes()),
            None => text.extend_from_slice(number.to_string().as_bytes()),
        },
        Value::Array(parts) => parts.iter().for_each(|part| push_text(text, part)),
        Value::Object(part) => match part.get("text").or_else(|| part.get("content")) {
            Some(inner) => push_text(text, inner),
            None => text.extend_from_slice(value.to_string().as_bytes()),
        },
        Value::Bool(_) => text.extend_from_slice(value.to_string().as_bytes()),
    }
}

/// A prompt as the core wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokenized {
    /// Chained hashes of the full blocks.
    pub blocks: Vec<BlockHash>,
    /// Length in tokens, at least one.
    pub tokens: u32,
}

/// Cuts text into tokens of `bytes_per_token` bytes (a share of a byte is allowed: short text then counts as a long
/// prompt) and blocks of `block_tokens`, and hashes the blocks in a chain that starts at `seed` (the adapter, say).
pub fn tokenize(text: &[u8], bytes_per_token: f64, block_tokens: u32, seed: &str) -> Tokenized {
    let tokens = (text.len() as f64 / bytes_per_token).ceil().max(1.0) as u32;
    let block_bytes = ((f64::from(block_tokens) * bytes_per_token) as usize).max(1);
    let mut parent = xxh3_64(seed.as_bytes());
    let chain = |block: &[u8]| {
        parent = xxh3_64_with_seed(block, parent);
        parent
    };
    Tokenized { blocks: text.chunks_exact(block_bytes).map(chain).collect(), tokens }
}
