//! Chained hashes of a prompt's leading blocks.
//!
//! The input is the raw JSON text of `messages` (or `prompt`, `input`) as it stands in the body: nothing is unescaped, no
//! tree is built. A conversation's next turn starts with the same bytes but for what closes the list: the last byte of the
//! input, `]`, becomes `,`. So the last byte never is part of a hashed block, and neither is a block that is not full.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Blocks of a prompt at most; together they cover [`PROMPT_BYTES_MAX`].
pub const BLOCKS_MAX: usize = 127;

/// Bytes of a prompt that are hashed; what comes after does not count. 4 MiB, about a million tokens.
pub const PROMPT_BYTES_MAX: usize = 4 << 20;

/// Bytes of JSON text that make a token: the rule of thumb for English text. Only ratios of such estimates are compared.
pub const BYTES_PER_TOKEN: f32 = 4.0;

/// Where blocks end, bytes from the start of the prompt, ascending.
///
/// Blocks grow with depth, so that few hashes cover much while an edge is never far in proportion: 128 B × 8, 1 KiB × 31
/// (to 32 KiB), then every doubling of the prompt in 16 equal blocks up to 512 KiB and in 8 up to 4 MiB.
const EDGES: [u32; BLOCKS_MAX] = edges();

const fn edges() -> [u32; BLOCKS_MAX] {
    let mut edges = [0; BLOCKS_MAX];
    let (mut block, mut edge) = (0, 0_u32);
    while block < BLOCKS_MAX {
        edge += match edge {
            0..0x400 => 128,
            0x400..0x8000 => 1024,
            // A sixteenth, an eighth of the power of two that was passed last.
            0x8000..0x8_0000 => 1 << (edge.ilog2() - 4),
            _ => 1 << (edge.ilog2() - 3),
        };
        edges[block] = edge;
        block += 1;
    }
    edges
}

const _: () = assert!(EDGES[BLOCKS_MAX - 1] as usize == PROMPT_BYTES_MAX, "the last block ends at the bound");

/// Where blocks end, bytes from the start of the prompt, ascending: for tests and benchmarks that need an exact depth.
pub fn block_edges() -> &'static [u32] {
    &EDGES
}

/// Hashes of one prompt's leading blocks, shortest prefix first. A kilobyte: one per worker, filled anew per request.
#[derive(Clone, Debug)]
pub struct PromptHashes {
    hashes: [u64; BLOCKS_MAX],
    len: usize,
    prompt_bytes: usize,
}

impl Default for PromptHashes {
    fn default() -> Self {
        Self { hashes: [0; BLOCKS_MAX], len: 0, prompt_bytes: 0 }
    }
}

impl PromptHashes {
    /// The hashes. The one at `depth` stands for the whole prefix up to the end of that block.
    pub fn as_slice(&self) -> &[u64] {
        &self.hashes[..self.len]
    }

    /// Number of blocks, at most [`BLOCKS_MAX`].
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the prompt is too short to have a block: at most 128 bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the prefix that ends with block `depth`. `depth` must be less than [`Self::len`].
    pub fn bytes_through(&self, depth: usize) -> u32 {
        debug_assert!(depth < self.len, "block {depth} of {}", self.len);
        EDGES[depth]
    }

    /// Estimated tokens of the prefix that ends with block `depth`. `depth` must be less than [`Self::len`].
    pub fn tokens_through(&self, depth: usize) -> f32 {
        self.bytes_through(depth) as f32 / BYTES_PER_TOKEN
    }

    /// Estimated tokens of the whole prompt, what was not hashed included.
    pub fn prompt_tokens(&self) -> f32 {
        self.prompt_bytes as f32 / BYTES_PER_TOKEN
    }

    /// Forgets the prompt: for a request without one.
    pub fn clear(&mut self) {
        self.len = 0;
        self.prompt_bytes = 0;
    }
}

/// Hashes the leading blocks of a prompt into `out`, whatever it held before.
///
/// Each block is hashed in one shot with its predecessor's hash as the seed, the first with `seed` ([`prompt_seed`]).
/// Replicas agree on the hashes, as `prefix-hashes` are what policies choose homes by. Not safe against collisions made
/// on purpose; they cost a wrong guess.
pub fn hash_prompt(seed: u64, bytes: &[u8], out: &mut PromptHashes) {
    // All but the last byte: it closes the list or the string.
    let hashable = bytes.len().saturating_sub(1);
    let (mut chain, mut start, mut len) = (seed, 0, 0);
    for edge in EDGES {
        let edge = edge as usize;
        if edge > hashable {
            break;
        }
        chain = xxh3_64_with_seed(&bytes[start..edge], chain);
        out.hashes[len] = chain;
        len += 1;
        start = edge;
    }
    out.len = len;
    out.prompt_bytes = bytes.len();
}

/// Seed of a prompt's hashes: its pool, and the raw JSON of `tools` (empty where there is none), which engines put in
/// front of the messages.
pub fn prompt_seed(pool_key: u64, tools: &[u8]) -> u64 {
    if tools.is_empty() { pool_key } else { xxh3_64_with_seed(tools, pool_key) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashes(bytes: &[u8]) -> Vec<u64> {
        let mut out = PromptHashes::default();
        hash_prompt(7, bytes, &mut out);
        out.as_slice().to_vec()
    }

    fn text(len: usize) -> Vec<u8> {
        let mut random = fastrand::Rng::with_seed(1);
        (0..len).map(|_| random.u8(b' '..b'z')).collect()
    }

    #[test]
    fn blocks_grow_with_depth_and_cover_four_mebibytes() {
        assert_eq!(EDGES[0], 128);
        assert_eq!(EDGES[7], 1 << 10);
        assert_eq!(EDGES[8], 2 << 10);
        assert_eq!(EDGES[38], 32 << 10);
        assert_eq!(EDGES[39], 34 << 10);
        assert_eq!(EDGES[102], 512 << 10);
        assert_eq!(EDGES[103], 576 << 10);
        assert_eq!(EDGES[126], 4 << 20);
        let sizes: Vec<u32> = EDGES.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(sizes.is_sorted(), "{sizes:?}");
    }

    #[test]
    fn the_next_turn_of_a_conversation_shares_every_full_block_of_the_last() {
        let turn = |text: &str| format!(r#"{{"role":"user","content":"{text}"}}"#);
        let word = String::from_utf8(text(5_000)).expect("ASCII").replace(['"', '\\'], "x");
        for cut in 100..1_400 {
            let first = format!("[{}]", turn(&word[..cut]));
            let second = format!("[{},{}]", turn(&word[..cut]), turn(&word[..1_100]));
            let (first, second) = (hashes(first.as_bytes()), hashes(second.as_bytes()));
            assert_eq!(first, second[..first.len()], "content of {cut} bytes");
            assert!(second.len() > first.len());
        }
    }

    #[test]
    fn a_difference_changes_the_hashes_of_its_block_and_of_all_after_it() {
        let one = text(40_000);
        for at in [0, 127, 128, 1_023, 1_024, 5_000, 33_000] {
            let mut other = one.clone();
            other[at] ^= 1;
            let block = EDGES.iter().position(|edge| at < *edge as usize).expect("within");
            for (depth, (left, right)) in hashes(&one).into_iter().zip(hashes(&other)).enumerate() {
                assert_eq!(left == right, depth < block, "byte {at}, block {depth}");
            }
        }
    }

    #[test]
    fn the_last_byte_and_unfinished_blocks_are_not_hashed() {
        let text = text(5 << 20);
        for (bytes, blocks) in
            [(0, 0), (1, 0), (128, 0), (129, 1), (256, 1), (1_025, 8), (2_048, 8), (2_049, 9)]
        {
            assert_eq!(hashes(&text[..bytes]).len(), blocks, "{bytes} bytes");
        }
        assert_eq!(hashes(&text[..4 << 20]).len(), BLOCKS_MAX - 1);
        assert_eq!(hashes(&text).len(), BLOCKS_MAX, "never more");
    }

    #[test]
    fn seeds_keep_pools_and_tools_apart() {
        let seeds =
            [prompt_seed(1, b""), prompt_seed(2, b""), prompt_seed(1, b"[{}]"), prompt_seed(2, b"[{}]")];
        let mut out = PromptHashes::default();
        let firsts: std::collections::HashSet<u64> = seeds
            .into_iter()
            .map(|seed| {
                hash_prompt(seed, &text(300), &mut out);
                out.as_slice()[0]
            })
            .collect();
        assert_eq!(firsts.len(), 4);
    }

    #[test]
    fn tokens_are_estimated_from_bytes_so_that_unequal_blocks_compare() {
        let mut out = PromptHashes::default();
        hash_prompt(0, &text(4_001), &mut out);
        let tokens: Vec<f32> = (0..out.len()).map(|depth| out.tokens_through(depth)).collect();
        assert_eq!(tokens, [32.0, 64.0, 96.0, 128.0, 160.0, 192.0, 224.0, 256.0, 512.0, 768.0]);
        assert_eq!(out.prompt_tokens(), 1_000.25);
    }

    #[test]
    fn a_shorter_prompt_leaves_nothing_of_a_longer_one() {
        let mut out = PromptHashes::default();
        hash_prompt(0, &text(9_000), &mut out);
        hash_prompt(0, &text(300), &mut out);
        assert_eq!((out.len(), out.prompt_tokens()), (2, 75.0));
        assert_eq!(out.tokens_through(1), 64.0);
        out.clear();
        assert!(out.is_empty());
    }
}
