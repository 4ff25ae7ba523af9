//! Requests to run: generated to published statistics, or read from a trace.
//!
//! A prompt is a list of block ids, each of which stands for its whole prefix: two prompts share a prefix exactly as far as
//! their ids agree. [`Workload::text`] turns ids into text of which the same holds byte for byte.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

mod conversation;
mod mooncake;
mod sample;
mod synthetic;
mod text;
mod trace;

pub use mooncake::{Mooncake, mooncake};
pub use synthetic::{Shape, agentic, chats, shared_system, tenants};
pub use trace::{TraceError, read_trace};

use crate::core::{BlockHash, Work};

/// One request of a workload.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// When it arrives, since the start; later if what it follows has not ended by then.
    pub arrival: Duration,
    /// The request (by index) whose answer it continues; it cannot start before that has ended. Always an earlier one.
    pub follows: Option<usize>,
    /// Conversation, or task: what a client would send as its session.
    pub session: u64,
    /// Who pays; zero where a workload has no tenants.
    pub tenant: u32,
    /// Ids of the prompt's blocks; the last may stand for a partial block.
    pub blocks: Arc<[BlockHash]>,
    /// Length of the prompt.
    pub prompt_tokens: u32,
    /// Length of the answer.
    pub output_tokens: u32,
}

impl Request {
    /// What a core computes for it.
    pub fn work(&self) -> Work {
        Work {
            blocks: self.blocks.clone(),
            prompt_tokens: self.prompt_tokens,
            output_tokens: self.output_tokens,
        }
    }
}

/// Requests in order of arrival.
#[derive(Debug, Clone, PartialEq)]
pub struct Workload {
    /// For tables.
    pub name: String,
    /// Tokens a block id stands for; the core must use the same.
    pub block_tokens: u32,
    /// In order of arrival.
    pub requests: Vec<Request>,
}

impl Workload {
    /// From the start to the last arrival.
    pub fn span(&self) -> Duration {
        self.requests.last().map_or(Duration::ZERO, |request| request.arrival)
    }

    /// Prompt tokens of all requests.
    pub fn prompt_tokens(&self) -> u64 {
        self.requests.iter().map(|request| u64::from(request.prompt_tokens)).sum()
    }

    /// Tokens to generate in all.
    pub fn output_tokens(&self) -> u64 {
        self.requests.iter().map(|request| u64::from(request.output_tokens)).sum()
    }

    /// Share of all prompt blocks (partial ones included) that one cache without bound would have, 0 to 1.
    pub fn hit_rate_max(&self) -> f64 {
        let mut known = HashSet::new();
        let (mut hits, mut all) = (0usize, 0usize);
        for request in &self.requests {
            let full = (request.prompt_tokens / self.block_tokens) as usize;
            let blocks = &request.blocks[..full.min(request.blocks.len())];
            hits += blocks.iter().take_while(|block| known.contains(*block)).count();
            all += request.prompt_tokens.div_ceil(self.block_tokens) as usize;
            known.extend(blocks.iter().copied());
        }
        hits as f64 / all.max(1) as f64
    }

    /// The same requests so many times as fast (or slow, below one). Gaps within a session shrink too.
    pub fn sped_up(mut self, factor: f64) -> Self {
        for request in &mut self.requests {
            request.arrival = request.arrival.div_f64(factor.max(1e-9));
        }
        self
    }

    /// Only the first requests.
    pub fn first(mut self, requests: usize) -> Self {
        self.requests.truncate(requests);
        self
    }

    /// The prompt as text of about `4 / scale` bytes a token; prompts that share ids share their bytes. ASCII words, so
    /// that JSON leaves them as they are.
    ///
    /// An engine that should count as many tokens as the workload has needs `bytes_per_token: 4.0 / scale` (see
    /// [`Workload::bytes_per_token`]).
    pub fn text(&self, request: &Request, scale: u32) -> String {
        let block_bytes = self.block_bytes(scale);
        let bytes = (f64::from(request.prompt_tokens) * self.bytes_per_token(scale)) as usize;
        let mut text = String::with_capacity(request.blocks.len() * block_bytes);
        for block in request.blocks.iter() {
            text::push_block(&mut text, *block, block_bytes);
        }
        text.truncate(bytes.max(1));
        text
    }

    /// What to set an engine's `bytes_per_token` to for prompts of this scale.
    pub fn bytes_per_token(&self, scale: u32) -> f64 {
        self.block_bytes(scale) as f64 / f64::from(self.block_tokens)
    }

    /// The body of a chat completion with that prompt as its one message.
    pub fn chat_body(&self, request: &Request, scale: u32, (model, stream): (&str, bool)) -> Bytes {
        let usage = if stream { ",\"stream_options\":{\"include_usage\":true}" } else { "" };
        format!(
            "{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"{}\"}}],\"max_tokens\":{},\
             \"stream\":{stream}{usage}}}",
            self.text(request, scale),
            request.output_tokens,
        )
        .into()
    }

    fn block_bytes(&self, scale: u32) -> usize {
        (4 * self.block_tokens / scale.max(1)).max(1) as usize
    }
}

#[cfg(test)]
mod tests;
