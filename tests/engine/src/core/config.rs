//! How large and how fast a simulated engine is.

use std::time::Duration;

/// Size and speed of one engine.
#[derive(Debug, Clone, PartialEq)]
pub struct CoreConfig {
    /// Tokens of one KV block, the unit of caching. Default 16; zero counts as one.
    pub block_tokens: u32,
    /// KV blocks of the engine. Default 16,384 (262,144 tokens); zero counts as one.
    pub kv_blocks: u32,
    /// Sequences in one batch. Default 128; zero counts as one.
    pub running_max: usize,
    /// Sequences that may wait. Default: no bound.
    pub waiting_max: usize,
    /// Tokens one step computes at most, prompts and decodes together. Default 2,048; zero counts as one.
    pub step_tokens_max: u32,
    /// Prompt tokens per second. Default 8,000; with the two below about a 70 B model on four large GPUs. Infinity costs
    /// nothing.
    pub prefill_tokens_per_second: f64,
    /// What a step takes before it computes anything. Default 20 ms.
    pub step_base: Duration,
    /// What one decoding sequence adds to a step. Default 200 µs.
    pub step_per_sequence: Duration,
    /// Whether prefixes are kept. Default true.
    pub prefix_cache: bool,
}

impl Default for CoreConfig {
    fn default() -> Self {
        Self {
            block_tokens: 16,
            kv_blocks: 16_384,
            running_max: 128,
            waiting_max: usize::MAX,
            step_tokens_max: 2_048,
            prefill_tokens_per_second: 8_000.0,
            step_base: Duration::from_millis(20),
            step_per_sequence: Duration::from_micros(200),
            prefix_cache: true,
        }
    }
}

impl CoreConfig {
    /// Room for `tokens` in blocks of `block_tokens`.
    pub fn with_kv_tokens(mut self, tokens: u64, block_tokens: u32) -> Self {
        self.block_tokens = block_tokens.max(1);
        self.kv_blocks = (tokens / u64::from(self.block_tokens)).min(u64::from(u32::MAX - 1)) as u32;
        self
    }

    /// The same engine in a world where everything takes `1 / factor` of the time: for traces that are sped up.
    pub fn sped_up(mut self, factor: f64) -> Self {
        let factor = factor.max(1e-9);
        self.prefill_tokens_per_second *= factor;
        self.step_base = self.step_base.div_f64(factor);
        self.step_per_sequence = self.step_per_sequence.div_f64(factor);
        self
    }

    /// What a step with so many decoding sequences and prompt tokens takes.
    pub fn step_time(&self, decoding: u32, prompt_tokens: u32) -> Duration {
        self.step_base + self.step_per_sequence * decoding + self.prefill_time(u64::from(prompt_tokens))
    }

    /// What so many prompt tokens add to the steps that compute them.
    pub fn prefill_time(&self, tokens: u64) -> Duration {
        Duration::from_secs_f64(tokens as f64 / self.prefill_tokens_per_second.max(1e-3))
    }

    pub(super) fn clamped(mut self) -> Self {
        self.block_tokens = self.block_tokens.max(1);
        self.kv_blocks = self.kv_blocks.clamp(1, u32::MAX - 1);
        self.running_max = self.running_max.max(1);
        self.step_tokens_max = self.step_tokens_max.max(1);
        self
    }
}
