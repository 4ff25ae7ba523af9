//! The names of the columns a policy may ask for.

/// One measured number per endpoint. NaN means unknown; how to treat that is the policy's decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Requests this gateway has in flight there.
    InFlight,
    /// Estimated prompt tokens in flight there that were not believed cached when they were sent.
    InFlightTokens,
    /// Tokens computed there of late for this gateway: prompt tokens that were not cached and tokens generated. Halves every
    /// 66 seconds; meant to be compared between endpoints.
    RecentTokens,
    /// Requests waiting in the engine, all gateways together.
    Queued,
    /// Requests running in the engine, all gateways together.
    Running,
    /// Share of the KV cache in use, 0 to 1.
    KvUsage,
    /// GPU utilisation, 0 to 1.
    GpuUtil,
    /// Share of GPU memory in use, 0 to 1.
    GpuMemory,
    /// Tokens of this request's prompt that the endpoint is believed to hold in its cache.
    CachedTokens,
    /// Moving average of the time to the first token, in milliseconds, as this gateway saw it.
    FirstTokenMs,
    /// Moving average of the time between tokens, in milliseconds.
    TokenMs,
    /// Recent share of failed requests, 0 to 1.
    Errors,
    /// Age of the engine's own numbers (`Queued`, `Running`, `KvUsage`, GPU), in milliseconds.
    AgeMs,
    /// Share of drafted tokens that the target model accepted, 0 to 1.
    Acceptance,
    /// Relative capacity, 1 or more. [`crate::Endpoint::weight`] in `sync` is the same and costs nothing per request.
    Weight,
    /// A signal of a newer gateway, by its name. The gateway refuses to load a policy that names one it does not have.
    Named(&'static str),
}

impl Signal {
    /// The name in the contract, for example `kv-usage`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InFlight => "inflight",
            Self::InFlightTokens => "inflight-tokens",
            Self::RecentTokens => "recent-tokens",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::KvUsage => "kv-usage",
            Self::GpuUtil => "gpu-util",
            Self::GpuMemory => "gpu-memory",
            Self::CachedTokens => "cached-tokens",
            Self::FirstTokenMs => "first-token-ms",
            Self::TokenMs => "token-ms",
            Self::Errors => "errors",
            Self::AgeMs => "age-ms",
            Self::Acceptance => "acceptance",
            Self::Weight => "weight",
            Self::Named(name) => name,
        }
    }
}
