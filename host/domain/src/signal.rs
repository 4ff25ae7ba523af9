//! The numbers a policy can ask for: one column per signal, one `f32` per endpoint, NaN where unknown.

/// The one list of signals: makes the enum, [`Signal::ALL`] and [`Signal::name`] of it.
macro_rules! signals {
    ($($(#[$doc:meta])* $signal:ident = $name:literal,)*) => {
        /// A column of the fleet. Adding one breaks nobody; removing one needs a new minor version of the contract.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Signal {
            $($(#[$doc])* $signal,)*
        }

        impl Signal {
            /// Every signal, in the order of their discriminants.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$signal),*];

            /// The name in a policy's description.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$signal => $name,)*
                }
            }
        }
    };
}

signals! {
    /// Requests that this replica has sent there and that have not ended. Never NaN.
    Inflight = "inflight",
    /// Estimated prompt tokens in flight there that were not believed cached. Never NaN.
    InflightTokens = "inflight-tokens",
    /// Tokens computed there of late for this replica: prompt tokens that were not cached and tokens generated, as engines
    /// report them or else as estimated; halves every [`crate::load::RECENT_HALF_LIFE_MS`]. Never NaN.
    RecentTokens = "recent-tokens",
    /// Requests waiting in the engine.
    Queued = "queued",
    /// Requests the engine is working on.
    Running = "running",
    /// Share of the engine's KV cache in use, 0–1.
    KvUsage = "kv-usage",
    /// GPU utilisation, 0–1, from an exporter.
    GpuUtil = "gpu-util",
    /// Share of GPU memory in use, 0–1, from an exporter.
    GpuMemory = "gpu-memory",
    /// Tokens of this request's prompt that the endpoint is believed to hold. Never NaN.
    CachedTokens = "cached-tokens",
    /// Moving average of the time to first token, milliseconds.
    FirstTokenMs = "first-token-ms",
    /// Moving average of the time between tokens, milliseconds.
    TokenMs = "token-ms",
    /// Share of recent requests that failed there, 0–1.
    Errors = "errors",
    /// Age of the engine's own numbers, milliseconds.
    AgeMs = "age-ms",
    /// Share of draft tokens accepted, 0–1 (speculative decoding).
    Acceptance = "acceptance",
    /// Relative capacity, 1 or more. Never NaN.
    Weight = "weight",
}

impl Signal {
    /// The signal of that name, if the host has it.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|signal| signal.name() == name)
    }
}

/// A set of signals, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SignalSet(u32);

impl SignalSet {
    /// No signal.
    pub const EMPTY: Self = Self(0);

    /// The set with `signal` in it.
    #[must_use]
    pub const fn with(self, signal: Signal) -> Self {
        Self(self.0 | 1 << signal as u8)
    }
    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    /// Whether `signal` is in the set.
    pub const fn has(self, signal: Signal) -> bool {
        self.0 & (1 << signal as u8) != 0
    }
    /// How many signals are in the set.
    pub const fn len(self) -> usize {
        self.0.count_ones() as usize
    }
    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
    /// Position of `signal` among the members, if it is one. Members are ordered by discriminant.
    pub const fn position(self, signal: Signal) -> Option<usize> {
        if !self.has(signal) {
            return None;
        }
        Some((self.0 & ((1 << signal as u8) - 1)).count_ones() as usize)
    }
    /// The members, ordered by discriminant.
    pub fn iter(self) -> impl Iterator<Item = Signal> {
        Signal::ALL.into_iter().filter(move |signal| self.has(*signal))
    }
}

impl FromIterator<Signal> for SignalSet {
    fn from_iter<I: IntoIterator<Item = Signal>>(signals: I) -> Self {
        signals.into_iter().fold(Self::EMPTY, Self::with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_is_found_by_its_own_name_and_keeps_its_position() {
        let all: SignalSet = Signal::ALL.into_iter().collect();
        for (index, signal) in Signal::ALL.into_iter().enumerate() {
            assert_eq!(Signal::from_name(signal.name()), Some(signal));
            assert_eq!(all.position(signal), Some(index), "{signal:?}");
        }
        assert_eq!(Signal::from_name("temperature"), None);
    }

    #[test]
    fn a_position_counts_only_members() {
        let set = SignalSet::EMPTY.with(Signal::Weight).with(Signal::KvUsage);
        assert_eq!(set.position(Signal::KvUsage), Some(0));
        assert_eq!(set.position(Signal::Weight), Some(1));
        assert_eq!(set.position(Signal::Inflight), None);
    }
}
