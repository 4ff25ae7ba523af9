//! Prompts that grow: blocks with fresh ids, handed on to whoever continues.

use std::sync::Arc;

use crate::core::BlockHash;

/// Gives ids that were never given before.
#[derive(Debug, Default)]
pub(super) struct Ids(BlockHash);

impl Ids {
    fn fresh(&mut self) -> BlockHash {
        self.0 += 1;
        self.0 - 1
    }
}

/// Everything said so far.
#[derive(Debug, Clone)]
pub(super) struct Conversation {
    block_tokens: u32,
    /// One id per block, the last one perhaps partial.
    blocks: Vec<BlockHash>,
    tokens: u32,
}

impl Conversation {
    pub(super) fn new(block_tokens: u32) -> Self {
        Self { block_tokens, blocks: Vec::new(), tokens: 0 }
    }

    pub(super) fn tokens(&self) -> u32 {
        self.tokens
    }

    pub(super) fn blocks(&self) -> Arc<[BlockHash]> {
        self.blocks.as_slice().into()
    }

    /// Says something nobody else said. A partial last block keeps its id as it fills up.
    pub(super) fn say(&mut self, tokens: u32, ids: &mut Ids) {
        self.tokens += tokens;
        while (self.blocks.len() as u32) < self.tokens.div_ceil(self.block_tokens) {
            self.blocks.push(ids.fresh());
        }
    }

    /// The beginning of this conversation, of at most `tokens`, for someone to continue in another way: whole blocks.
    pub(super) fn fork(&self, tokens: u32) -> Self {
        let blocks = tokens.min(self.tokens) / self.block_tokens;
        Self {
            block_tokens: self.block_tokens,
            blocks: self.blocks[..blocks as usize].to_vec(),
            tokens: blocks * self.block_tokens,
        }
    }
}
