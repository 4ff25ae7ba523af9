//! The engine without IO: continuous batching over a finite KV cache, with time passed in.
//!
//! Work happens in steps, as in vLLM: a step computes one token for every decoding sequence and spends what is left of
//! its token budget on chunks of prompts. A step takes a fixed time, plus a little per decoding sequence, plus its prompt
//! tokens at prefill speed. The same core runs behind HTTP in real time and in the fleet simulator in virtual time.
//! Nothing here is random and nothing reads a clock.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

mod blocks;
mod config;

pub use blocks::BlockHash;
pub use config::CoreConfig;

use blocks::{BlockId, BlockPool};

/// Time since the engine started.
pub type Time = Duration;

/// A sequence in one [`Core`]; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SequenceId(pub u64);

/// What a caller wants computed.
#[derive(Debug, Clone)]
pub struct Work {
    /// Chained hashes of the *full* blocks of the prompt; more than `prompt_tokens` fill are ignored.
    pub blocks: Arc<[BlockHash]>,
    /// Length of the prompt; zero counts as one.
    pub prompt_tokens: u32,
    /// How many tokens to generate; zero counts as one.
    pub output_tokens: u32,
}

/// Something that happened to a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub at: Time,
    /// To whom.
    pub sequence: SequenceId,
    /// What.
    pub kind: EventKind,
}

/// What can happen to a sequence, in this order; `Preempted` leads back to `Admitted`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// It left the waiting queue; this many tokens of its prompt were in the cache.
    Admitted {
        /// A multiple of the block size, always less than the prompt.
        cached_tokens: u32,
    },
    /// It lost its blocks to an older sequence and waits again, at the head of the queue.
    Preempted,
    /// It generated its `n`-th token, counted from one.
    Token {
        /// Counted from one.
        n: u32,
    },
    /// It generated its last token (which had an event of its own) and left.
    Finished,
}

/// Why a sequence was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejected {
    /// Prompt and output together need more blocks than the whole cache has.
    TooLong,
    /// The waiting queue is at its bound.
    QueueFull,
}

/// What an engine would report of itself now.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Load {
    /// Sequences in the batch.
    pub running: u32,
    /// Sequences waiting for a place in it.
    pub waiting: u32,
    /// Share of the KV blocks held by running sequences, 0 to 1. Remembered blocks nobody holds do not count.
    pub kv_usage: f64,
    /// Prompt tokens still to be computed, of running and waiting sequences.
    pub pending_prefill_tokens: u64,
}

/// Running totals since the engine started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Sequences taken.
    pub submitted: u64,
    /// Sequences that generated their last token.
    pub finished: u64,
    /// Sequences removed before that.
    pub aborted: u64,
    /// Times a sequence lost its blocks.
    pub preempted: u64,
    /// Prompt tokens looked up in the prefix cache.
    pub queried_tokens: u64,
    /// Of these, found.
    pub cached_tokens: u64,
    /// Prompt tokens computed (again, after a preemption).
    pub prefilled_tokens: u64,
    /// Tokens generated.
    pub generated_tokens: u64,
    /// Time spent in steps.
    pub busy: Duration,
}

impl Totals {
    /// Tokens computed, prompt or output: the engine's share of a fleet's work.
    pub fn work_tokens(&self) -> u64 {
        self.prefilled_tokens + self.generated_tokens
    }
}

/// One simulated engine.
#[derive(Debug)]
pub struct Core {
    config: CoreConfig,
    pool: BlockPool,
    running: Vec<Sequence>,
    waiting: VecDeque<Sequence>,
    /// Sums over `waiting`: tokens its prompts lack, and blocks its prompts fill.
    waiting_lacking: u64,
    waiting_blocks: u64,
    step: Option<Step>,
    events: Vec<Event>,
    totals: Totals,
    next_id: u64,
}

#[derive(Debug)]
struct Sequence {
    id: SequenceId,
    work: Work,
    /// Tokens whose KV is in the cache.
    computed: u32,
    generated: u32,
    /// Tokens this step computes.
    scheduled: u32,
    blocks: Vec<BlockId>,
    /// Leading blocks that are findable by hash.
    remembered: u32,
    /// Prompt tokens it was found to lack when it came; an estimate for those who ask how much waits.
    lacking: u32,
}

#[derive(Debug)]
struct Step {
    ends: Time,
}

impl Sequence {
    /// How many tokens must be computed before the next one can be generated.
    fn target(&self) -> u32 {
        self.work.prompt_tokens + self.generated
    }

    fn is_decoding(&self) -> bool {
        self.generated > 0 && self.target() - self.computed == 1
    }

    fn pending_prefill(&self) -> u32 {
        self.work.prompt_tokens.saturating_sub(self.computed)
    }
}

impl Core {
    /// An idle engine with an empty cache.
    pub fn new(config: CoreConfig) -> Self {
        let config = config.clamped();
        Self {
            pool: BlockPool::new(config.kv_blocks),
            config,
            running: Vec::new(),
            waiting: VecDeque::new(),
            waiting_lacking: 0,
            waiting_blocks: 0,
            step: None,
            events: Vec::new(),
            totals: Totals::default(),
            next_id: 0,
        }
    }

    /// What it was made with.
    pub fn config(&self) -> &CoreConfig {
        &self.config
    }

    /// Takes a sequence at `now`. Call [`Core::advance`] up to `now` first.
    ///
    /// # Errors
    /// When it can never fit, or the queue is full; nothing has changed then.
    pub fn submit(&mut self, now: Time, mut work: Work) -> Result<SequenceId, Rejected> {
        work.prompt_tokens = work.prompt_tokens.max(1);
        work.output_tokens = work.output_tokens.max(1);
        if self.blocks_of(work.prompt_tokens.saturating_add(work.output_tokens)) > self.pool.capacity() {
            return Err(Rejected::TooLong);
        }
        if self.waiting.len() >= self.config.waiting_max {
            return Err(Rejected::QueueFull);
        }
        let id = SequenceId(self.next_id);
        self.next_id += 1;
        self.totals.submitted += 1;
        let lacking = work.prompt_tokens - self.cached_tokens(&work.blocks, work.prompt_tokens);
        let sequence = Sequence {
            id,
            work,
            computed: 0,
            generated: 0,
            scheduled: 0,
            blocks: Vec::new(),
            remembered: 0,
            lacking,
        };
        self.count_waiting(&sequence);
        self.waiting.push_back(sequence);
        if self.step.is_none() {
            self.begin_step(now);
        }
        Ok(id)
    }

    /// Removes a sequence at once, wherever it is; false when it is not there (any more).
    pub fn abort(&mut self, id: SequenceId) -> bool {
        let sequence = if let Some(at) = self.running.iter().position(|s| s.id == id) {
            self.running.remove(at)
        } else if let Some(at) = self.waiting.iter().position(|s| s.id == id) {
            let Some(sequence) = self.waiting.remove(at) else { return false };
            self.discount_waiting(&sequence);
            sequence
        } else {
            return false;
        };
        self.release(sequence.blocks);
        self.totals.aborted += 1;
        true
    }

    /// When the current step ends; `None` when there is nothing to do.
    pub fn next_event_at(&self) -> Option<Time> {
        self.step.as_ref().map(|step| step.ends)
    }

    /// Runs every step that ends by `now` and appends what happened to `events`, in order.
    pub fn advance(&mut self, now: Time, events: &mut Vec<Event>) {
        while let Some(ends) = self.next_event_at().filter(|ends| *ends <= now) {
            self.end_step(ends);
            self.begin_step(ends);
        }
        events.append(&mut self.events);
    }

    /// What the engine would report of itself.
    pub fn load(&self) -> Load {
        let running: u64 = self.running.iter().map(|s| u64::from(s.pending_prefill())).sum();
        Load {
            running: self.running.len() as u32,
            waiting: self.waiting.len() as u32,
            kv_usage: f64::from(self.pool.held()) / f64::from(self.pool.capacity()),
            pending_prefill_tokens: self.waiting_lacking + running,
        }
    }

    /// Totals since the start.
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// Tokens of such a prompt that the cache holds now: what a request would be spared. Changes nothing.
    pub fn cached_tokens(&self, blocks: &[BlockHash], prompt_tokens: u32) -> u32 {
        self.pool.peek(self.reusable(blocks, prompt_tokens)) * self.config.block_tokens
    }

    /// Forgets all prefixes; running sequences keep their blocks.
    pub fn reset_prefix_cache(&mut self) {
        self.pool.forget_all();
        for sequence in &mut self.running {
            // More than any sequence has: what it holds is not entered again.
            sequence.remembered = u32::MAX;
        }
    }

    /// About when the first token of a new sequence would come, counted from `now`: the rest of the running step, what
    /// waits ahead of it, its own uncached prompt, and a place in the batch. What an all-knowing router minimises.
    pub fn time_to_first_token(&self, now: Time, blocks: &[BlockHash], prompt_tokens: u32) -> Duration {
        let load = self.load();
        let lacking = u64::from(prompt_tokens - self.cached_tokens(blocks, prompt_tokens).min(prompt_tokens));
        let tokens = load.pending_prefill_tokens + lacking;
        let steps = tokens.div_ceil(u64::from(self.config.step_tokens_max)).max(1) as u32;
        let decode_step = self.config.step_time(load.running, 0);
        let rest = self.next_event_at().map_or(Duration::ZERO, |ends| ends.saturating_sub(now));
        let prefill = self.config.prefill_time(tokens) + decode_step * steps;
        rest + prefill + self.time_to_place(decode_step, prompt_tokens)
    }

    /// How long until the batch and the KV cache have room for one more behind all that wait: the sequences whose turn
    /// it is to leave, at the mean of what they have left.
    fn time_to_place(&self, decode_step: Duration, prompt_tokens: u32) -> Duration {
        if self.running.is_empty() {
            return Duration::ZERO;
        }
        let ahead = self.running.len() + self.waiting.len() + 1;
        let slots = ahead.saturating_sub(self.config.running_max) as f64;
        let wanted = self.waiting_blocks + u64::from(self.blocks_of(prompt_tokens));
        let missing = wanted.saturating_sub(u64::from(self.pool.available())) as f64;
        let per_sequence = f64::from(self.pool.held()) / self.running.len() as f64;
        let leaving = slots.max(missing / per_sequence.max(1.0));
        let left: u32 = self.running.iter().map(|s| s.work.output_tokens - s.generated).sum();
        let mean_left = f64::from(left) / self.running.len() as f64;
        // At an even spread of ages one sequence leaves every `mean_left / running` steps, twice as long at the worst.
        decode_step.mul_f64(leaving * mean_left / self.running.len() as f64)
    }

    fn begin_step(&mut self, now: Time) {
        let mut budget = self.config.step_tokens_max;
        let preempted = self.schedule_running(now, &mut budget);
        if !preempted {
            self.admit_waiting(now, &mut budget);
        }
        let decoding = self.running.iter().filter(|s| s.scheduled > 0 && s.is_decoding()).count() as u32;
        let scheduled: u32 = self.running.iter().map(|s| s.scheduled).sum();
        if scheduled == 0 {
            self.step = None;
            return;
        }
        let takes = self.config.step_time(decoding, scheduled - decoding);
        self.totals.busy += takes;
        self.step = Some(Step { ends: now + takes });
    }

    /// Gives every running sequence its tokens of this step, preempting from the back when blocks run out.
    fn schedule_running(&mut self, now: Time, budget: &mut u32) -> bool {
        let mut preempted = false;
        let mut at = 0;
        while at < self.running.len() {
            let sequence = &self.running[at];
            let tokens = (sequence.target() - sequence.computed).min(*budget);
            let wanted = self.blocks_of(sequence.computed + tokens);
            let missing = wanted.saturating_sub(sequence.blocks.len() as u32);
            if missing > self.pool.available() {
                self.preempt_last(now, budget);
                preempted = true;
                continue;
            }
            for _ in 0..missing {
                let block = self.pool.take_empty();
                self.running[at].blocks.extend(block);
            }
            self.running[at].scheduled = tokens;
            *budget -= tokens;
            at += 1;
        }
        preempted
    }

    fn preempt_last(&mut self, now: Time, budget: &mut u32) {
        let Some(mut sequence) = self.running.pop() else { return };
        *budget += sequence.scheduled;
        self.release(std::mem::take(&mut sequence.blocks));
        sequence.computed = 0;
        sequence.scheduled = 0;
        sequence.remembered = 0;
        self.totals.preempted += 1;
        self.events.push(Event { at: now, sequence: sequence.id, kind: EventKind::Preempted });
        self.count_waiting(&sequence);
        self.waiting.push_front(sequence);
    }

    /// First come, first served: the head of the queue waits for room and everyone behind it waits too.
    fn admit_waiting(&mut self, now: Time, budget: &mut u32) {
        while *budget > 0 && self.running.len() < self.config.running_max {
            let Some(head) = self.waiting.front() else { return };
            let reusable = self.reusable(&head.work.blocks, head.target());
            let hits = self.pool.peek(reusable);
            let available = self.pool.available() - self.pool.idle_among(reusable, hits);
            let missing = self.blocks_of(head.target()) - hits;
            if missing > available {
                return;
            }
            let Some(mut sequence) = self.waiting.pop_front() else { return };
            self.discount_waiting(&sequence);
            for hash in &sequence.work.blocks[..hits as usize] {
                sequence.blocks.push(self.pool.take_cached(*hash));
            }
            for _ in 0..missing {
                sequence.blocks.extend(self.pool.take_empty());
            }
            let cached_tokens = hits * self.config.block_tokens;
            sequence.computed = cached_tokens;
            sequence.remembered = hits;
            sequence.scheduled = (sequence.target() - cached_tokens).min(*budget);
            *budget -= sequence.scheduled;
            if sequence.generated == 0 {
                self.totals.queried_tokens += u64::from(sequence.work.prompt_tokens);
                self.totals.cached_tokens += u64::from(cached_tokens);
            }
            let kind = EventKind::Admitted { cached_tokens };
            self.events.push(Event { at: now, sequence: sequence.id, kind });
            self.running.push(sequence);
        }
    }

    fn end_step(&mut self, now: Time) {
        let mut done = false;
        for sequence in &mut self.running {
            let tokens = std::mem::take(&mut sequence.scheduled);
            if tokens == 0 {
                continue;
            }
            let prompt = sequence.work.prompt_tokens;
            self.totals.prefilled_tokens += u64::from(tokens.min(prompt.saturating_sub(sequence.computed)));
            sequence.computed += tokens;
            if self.config.prefix_cache {
                remember_blocks(&mut self.pool, sequence, self.config.block_tokens);
            }
            if sequence.computed < sequence.target() {
                continue;
            }
            sequence.generated += 1;
            self.totals.generated_tokens += 1;
            let id = sequence.id;
            let kind = EventKind::Token { n: sequence.generated };
            self.events.push(Event { at: now, sequence: id, kind });
            if sequence.generated == sequence.work.output_tokens {
                self.events.push(Event { at: now, sequence: id, kind: EventKind::Finished });
                done = true;
            }
        }
        if done {
            self.remove_finished();
        }
    }

    fn remove_finished(&mut self) {
        let finished = |s: &mut Sequence| s.generated == s.work.output_tokens;
        let gone: Vec<Sequence> = self.running.extract_if(.., finished).collect();
        for sequence in gone {
            self.totals.finished += 1;
            self.release(sequence.blocks);
        }
    }

    /// Tail first, so that the end of a prompt is evicted before its beginning.
    fn release(&mut self, blocks: Vec<BlockId>) {
        for block in blocks.into_iter().rev() {
            self.pool.release(block);
        }
    }

    fn count_waiting(&mut self, sequence: &Sequence) {
        self.waiting_lacking += u64::from(sequence.lacking);
        self.waiting_blocks += u64::from(self.blocks_of(sequence.work.prompt_tokens));
    }

    fn discount_waiting(&mut self, sequence: &Sequence) {
        self.waiting_lacking -= u64::from(sequence.lacking);
        self.waiting_blocks -= u64::from(self.blocks_of(sequence.work.prompt_tokens));
    }

    fn blocks_of(&self, tokens: u32) -> u32 {
        tokens.div_ceil(self.config.block_tokens)
    }

    /// The blocks that may come from the cache: full ones, and never the whole prompt, since its last token has to be
    /// computed to generate anything.
    fn reusable<'a>(&self, blocks: &'a [BlockHash], tokens: u32) -> &'a [BlockHash] {
        if !self.config.prefix_cache {
            return &[];
        }
        let full = (tokens.saturating_sub(1) / self.config.block_tokens) as usize;
        &blocks[..full.min(blocks.len())]
    }
}

/// Enters the full prompt blocks that are computed by now. Generated tokens are not entered: the text of an answer comes
/// back in the next prompt in another shape.
fn remember_blocks(pool: &mut BlockPool, sequence: &mut Sequence, block_tokens: u32) {
    let computed = sequence.computed.min(sequence.work.prompt_tokens) / block_tokens;
    let full = computed.min(sequence.work.blocks.len() as u32);
    while sequence.remembered < full {
        let at = sequence.remembered as usize;
        sequence.blocks[at] = pool.remember(sequence.blocks[at], sequence.work.blocks[at]);
        sequence.remembered += 1;
    }
}

#[cfg(test)]
mod tests;
