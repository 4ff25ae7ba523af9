//! Text for block ids: words chosen by the id, so that equal ids give equal bytes.

const WORDS: [&str; 32] = [
    "water", "gate", "wheel", "river", "stone", "mill", "flow", "turn", "level", "weir", "sluice", "vane",
    "guide", "shaft", "power", "head", "basin", "canal", "lock", "pump", "valve", "spill", "crest", "bank",
    "bridge", "dam", "channel", "runner", "rotor", "bearing", "ring", "blade",
];

/// Appends exactly `bytes` bytes for block `id`: its number first, so that no two blocks are alike, then words.
pub(super) fn push_block(text: &mut String, id: u64, bytes: usize) {
    let end = text.len() + bytes;
    let mut state = id;
    text.push_str(&base36(id));
    while text.len() < end {
        state = mix(state);
        text.push(' ');
        text.push_str(WORDS[(state % 32) as usize]);
    }
    text.truncate(end);
}

/// Lowest digit first: what a short block cuts off matters least.
fn base36(mut id: u64) -> String {
    let mut digits = String::new();
    loop {
        digits.push(char::from(b"0123456789abcdefghijklmnopqrstuvwxyz"[(id % 36) as usize]));
        id /= 36;
        if id == 0 {
            return digits;
        }
    }
}

/// SplitMix64.
fn mix(state: u64) -> u64 {
    let mut z = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
