//! An endpoint: its configuration, and the live numbers that outlive a generation.
//!
//! Live numbers are one [`EndpointState`] per endpoint id in the process, shared by every pool that holds it, so that a
//! reload resets no breaker and a recycled address inherits none. The request path writes its own counters, the observer
//! writes the engine's numbers, neither the other's; they stand on separate cache lines. Those that policies see stand in
//! columns ([`cells`]).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use http::{HeaderName, HeaderValue};

use crate::breaker::WARMTH_MIN;
use crate::load::{Averages, RecentTokens};
use crate::signal::Signal;
use cells::Cells;
use sleep::SleepWord;
use standing::Health;

mod cells;
mod sleep;
mod standing;

pub use cells::{Endpoints, Slab};
pub use sleep::SleepQuestion;
pub use standing::{Admitted, Avoided, PROVEN_MS, UNREACHABLE_MS};

/// What an endpoint can be used for. `serve` is an ordinary engine that does prefill and decode itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Roles {
    /// Whole requests.
    pub serve: bool,
    /// The prefill leg.
    pub prefill: bool,
    /// The decode leg.
    pub decode: bool,
    /// Draft model of a speculative pair.
    pub draft: bool,
}

impl Roles {
    /// An ordinary engine.
    pub const SERVE: Self = Self { serve: true, prefill: false, decode: false, draft: false };
}

/// Identity of an endpoint: its base URL and, where there is one, the uid of its pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId {
    /// Base URL without a trailing slash, such as `http://10.0.0.1:8000`.
    pub url: Arc<str>,
    /// Uid of the pod behind it; empty where there is none.
    pub pod_uid: Arc<str>,
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)?;
        if !self.pod_uid.is_empty() {
            write!(f, "#{}", self.pod_uid)?;
        }
        Ok(())
    }
}

/// The pod behind an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodRef {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name; also what `/engines` derives the engine id from.
    pub name: Arc<str>,
}

/// The parts of an endpoint's URL that connecting and requesting need.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Target {
    /// `https`.
    pub tls: bool,
    /// Host name or address, without brackets.
    pub host: Arc<str>,
    /// Port.
    pub port: u16,
    /// Path in front of every request path; empty, or starts with `/` and does not end with one.
    pub base_path: Arc<str>,
    /// Value of the `Host` header.
    pub authority: Arc<str>,
}

/// How to identify ourselves to an engine.
#[derive(Clone, PartialEq, Eq)]
pub struct EngineAuth {
    /// Header to set.
    pub header: HeaderName,
    /// Its value, marked sensitive; `Bearer …` where the header is `authorization`.
    pub value: HeaderValue,
    /// A client's own header of that name goes through instead, where there is one.
    pub forward_client: bool,
}

impl fmt::Debug for EngineAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineAuth").field("header", &self.header).finish_non_exhaustive()
    }
}

/// How to trust an engine's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct EngineTls {
    /// PEM bundle to trust; the system's roots are not used. `None`: nothing is trusted unless `insecure_skip_verify`.
    pub ca_pem: Option<Arc<[u8]>>,
    /// Accept any certificate.
    pub insecure_skip_verify: bool,
    /// Names that a certificate may be for, beside the host of the endpoint: those of the Service in front of it, as pods
    /// are known by addresses and certificates rarely are. Empty: only the host.
    pub names: Vec<Arc<str>>,
}

/// Where an engine's metrics page is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MetricsPage {
    /// Path, `/metrics` by default.
    pub path: Arc<str>,
    /// Port, the endpoint's own by default.
    pub port: Option<u16>,
    /// Asked without TLS although the endpoint speaks it: a port of its own that nothing says speaks TLS. Default: false.
    pub is_plain: bool,
}

impl Default for MetricsPage {
    fn default() -> Self {
        Self { path: "/metrics".into(), port: None, is_plain: false }
    }
}

/// Configuration of an endpoint: everything that changes only with the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Identity.
    pub id: EndpointId,
    /// Where to connect.
    pub target: Target,
    /// What it can be used for.
    pub roles: Roles,
    /// Relative capacity, at least 1.
    pub weight: u32,
    /// Node name; empty when unknown.
    pub node: Arc<str>,
    /// Failure domain; empty when unknown.
    pub zone: Arc<str>,
    /// Labels that the operator set, sorted by key.
    pub labels: Vec<(Arc<str>, Arc<str>)>,
    /// The pod, where there is one.
    pub pod: Option<PodRef>,
    /// Said to sleep by its pod's label; must not be chosen, unless the engine itself says otherwise.
    pub asleep: bool,
    /// Credentials.
    pub auth: Option<Arc<EngineAuth>>,
    /// TLS settings.
    pub tls: Option<Arc<EngineTls>>,
    /// Metrics page.
    pub metrics: MetricsPage,
}

impl EndpointSpec {
    /// One that serves and weighs 1, with nothing else said of it.
    pub fn new(id: EndpointId, target: Target) -> Self {
        Self {
            id,
            target,
            roles: Roles::SERVE,
            weight: 1,
            node: "".into(),
            zone: "".into(),
            labels: Vec::new(),
            pod: None,
            asleep: false,
            auth: None,
            tls: None,
            metrics: MetricsPage::default(),
        }
    }

    /// The same at a bare URL: `http://HOST:PORT` or `https://HOST:PORT`, the scheme's own port if there is none. `None` if
    /// `url` is something else. For whatever needs an endpoint without a manifest; manifests go through `manifest`'s own URLs.
    pub fn at(url: &str) -> Option<Self> {
        let (tls, authority) = match url.split_once("://")? {
            ("http", authority) => (false, authority),
            ("https", authority) => (true, authority),
            _ => return None,
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (authority, if tls { 443 } else { 80 }),
        };
        let base_path = "".into();
        let target = Target { tls, host: host.into(), port, base_path, authority: authority.into() };
        Some(Self::new(EndpointId { url: url.into(), pod_uid: "".into() }, target))
    }
}

/// An endpoint of a snapshot: configuration, and the live numbers it shares with every other generation.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Configuration.
    pub spec: Arc<EndpointSpec>,
    /// Live numbers.
    pub state: Arc<EndpointState>,
}

impl Endpoint {
    /// The number behind a signal at `now_ms`; NaN when unknown. `CachedTokens` is per request and reads 0 here.
    pub fn read(&self, signal: Signal, now_ms: u64) -> f32 {
        if signal == Signal::Weight {
            return self.capacity(now_ms);
        }
        self.state.read(signal, now_ms)
    }

    /// Relative capacity now: the weight, less while the endpoint warms up after an ejection (slow start). Never zero.
    pub fn capacity(&self, now_ms: u64) -> f32 {
        self.spec.weight as f32 * self.state.health.warmth(now_ms).max(WARMTH_MIN)
    }

    /// Whether it sleeps: by the engine's own word (what a probe heard, or this gateway told it) where there is one, else by
    /// its pod's label. A word from before the label came or went counts as none.
    pub fn is_asleep(&self) -> bool {
        self.state.sleep.heard(self.spec.asleep).unwrap_or(self.spec.asleep)
    }

    /// It was told to sleep, or to wake, and did.
    pub fn command_sleep(&self, asleep: bool) {
        self.state.sleep.command(asleep, self.spec.asleep);
    }
}

/// Engine numbers older than this are unknown: three scrape periods at the slowest default.
pub const ENGINE_NUMBERS_AGE_MAX_MS: u64 = 15_000;

/// Averages of the request path. Written by workers only.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct RequestCells {
    /// Moving averages of first-token time, token time and error share.
    pub averages: Averages,
}

/// Totals from the engine's own page that no policy sees. Written by the observer only; bits of `f64`, as counters outgrow
/// an `f32`, NaN when unknown.
#[derive(Debug)]
#[repr(align(64))]
pub struct EngineTotals {
    prefix_hit_rate: AtomicU64,
    prefix_hits: AtomicU64,
    prefix_queries: AtomicU64,
    kv_blocks: AtomicU64,
    kv_bytes: AtomicU64,
}

impl Default for EngineTotals {
    fn default() -> Self {
        let unknown = || AtomicU64::new(f64::NAN.to_bits());
        Self {
            prefix_hit_rate: unknown(),
            prefix_hits: unknown(),
            prefix_queries: unknown(),
            kv_blocks: unknown(),
            kv_bytes: unknown(),
        }
    }
}

/// One reading of an engine's page. `None`: the page did not say.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct EngineReading {
    /// Requests waiting.
    pub queued: Option<f32>,
    /// Requests running.
    pub running: Option<f32>,
    /// KV cache in use, 0–1.
    pub kv_usage: Option<f32>,
    /// Share of draft tokens accepted, 0–1.
    pub acceptance: Option<f32>,
    /// Share of queried prompt tokens that hit the engine's prefix cache.
    pub prefix_hit_rate: Option<f64>,
    /// Total prefix-cache hits, tokens.
    pub prefix_hits: Option<f64>,
    /// Total prefix-cache queries, tokens.
    pub prefix_queries: Option<f64>,
    /// Blocks that the KV cache has room for.
    pub kv_blocks: Option<f64>,
    /// Memory of the KV cache, bytes.
    pub kv_bytes: Option<f64>,
}

/// The live numbers of one endpoint, process-wide.
#[derive(Debug)]
pub struct EndpointState {
    /// Number of this endpoint in the process; never used again. The prefix index knows endpoints by it.
    pub slot: u32,
    /// What policies see.
    cells: Cells,
    /// The request path's averages.
    pub requests: RequestCells,
    /// The engine's totals.
    pub engine: EngineTotals,
    /// Ejection, probe and slow start.
    health: Health,
    /// What the engine itself says of whether it sleeps.
    sleep: SleepWord,
    /// When its page was first asked for; 0: never yet.
    watched_ms: AtomicU64,
}

impl EndpointState {
    /// Fresh state of an endpoint on its own: nothing in flight, nothing known.
    pub fn new(slot: u32) -> Self {
        Self::in_slab(slot, &mut Slab::default())
    }

    /// Fresh state beside the one that was made before it in the same slab: nothing in flight, nothing known.
    pub fn in_slab(slot: u32, slab: &mut Slab) -> Self {
        Self {
            slot,
            cells: slab.take(),
            requests: RequestCells::default(),
            engine: EngineTotals::default(),
            health: Health::default(),
            sleep: SleepWord::default(),
            watched_ms: AtomicU64::new(0),
        }
    }

    /// To be taken before a probe asks whether it sleeps, with the configuration it is asked under.
    pub fn ask_sleep(&self, spec: &EndpointSpec) -> SleepQuestion {
        self.sleep.ask(spec.asleep)
    }

    /// What a probe was answered. Ignored if a command was carried out since it asked: the answer may be from before.
    pub fn answer_sleep(&self, question: SleepQuestion, asleep: bool) {
        self.sleep.answer(question, asleep);
    }

    /// Requests in flight there.
    pub fn inflight(&self) -> u32 {
        self.cells.inflight().load(Relaxed)
    }

    /// Tokens computed there of late for this gateway.
    pub fn recent_tokens(&self) -> &RecentTokens {
        self.cells.recent_tokens()
    }

    /// Stores one reading of the engine's page.
    pub fn store_reading(&self, reading: &EngineReading, now_ms: u64) {
        self.cells.store(Signal::Queued, reading.queued);
        self.cells.store(Signal::Running, reading.running);
        self.cells.store(Signal::KvUsage, reading.kv_usage);
        self.cells.store(Signal::Acceptance, reading.acceptance);
        let put =
            |cell: &AtomicU64, value: Option<f64>| cell.store(value.unwrap_or(f64::NAN).to_bits(), Relaxed);
        put(&self.engine.prefix_hit_rate, reading.prefix_hit_rate);
        put(&self.engine.prefix_hits, reading.prefix_hits);
        put(&self.engine.prefix_queries, reading.prefix_queries);
        put(&self.engine.kv_blocks, reading.kv_blocks);
        put(&self.engine.kv_bytes, reading.kv_bytes);
        self.cells.read_ms().store(now_ms.max(1), Relaxed);
    }

    /// The last reading of the engine's page, however old; all `None` before the first. For metrics and status.
    pub fn reading(&self) -> EngineReading {
        let total =
            |cell: &AtomicU64| Some(f64::from_bits(cell.load(Relaxed))).filter(|value| !value.is_nan());
        EngineReading {
            queued: self.cells.stored(Signal::Queued),
            running: self.cells.stored(Signal::Running),
            kv_usage: self.cells.stored(Signal::KvUsage),
            acceptance: self.cells.stored(Signal::Acceptance),
            prefix_hit_rate: total(&self.engine.prefix_hit_rate),
            prefix_hits: total(&self.engine.prefix_hits),
            prefix_queries: total(&self.engine.prefix_queries),
            kv_blocks: total(&self.engine.kv_blocks),
            kv_bytes: total(&self.engine.kv_bytes),
        }
    }

    /// Stores numbers of a GPU exporter; `None` is unknown.
    pub fn store_gpu(&self, util: Option<f32>, memory: Option<f32>) {
        self.cells.store(Signal::GpuUtil, util);
        self.cells.store(Signal::GpuMemory, memory);
    }

    fn read(&self, signal: Signal, now_ms: u64) -> f32 {
        if let Some(number) = self.cells.read(signal, now_ms) {
            return number;
        }
        match signal {
            Signal::CachedTokens => 0.0,
            Signal::FirstTokenMs => self.requests.averages.first_token_ms(now_ms),
            Signal::TokenMs => self.requests.averages.token_ms(now_ms),
            Signal::Errors => self.requests.averages.errors(now_ms),
            Signal::AgeMs => self.age_ms(now_ms).map_or(f32::NAN, |age| age as f32),
            Signal::Weight => 1.0,
            // These stand in columns. Every signal has a line here, so that a new one is not unknown for ever.
            Signal::Inflight
            | Signal::InflightTokens
            | Signal::RecentTokens
            | Signal::Queued
            | Signal::Running
            | Signal::KvUsage
            | Signal::GpuUtil
            | Signal::GpuMemory
            | Signal::Acceptance => f32::NAN,
        }
    }

    /// Its page is asked for from now on; only the first call counts.
    pub fn watch(&self, now_ms: u64) {
        // Only the observer calls this.
        if self.watched_ms.load(Relaxed) == 0 {
            self.watched_ms.store(now_ms.max(1), Relaxed);
        }
    }

    /// How long there has been no reading of the engine's page, milliseconds: since the last one, or since it is asked for
    /// if there was none. `None`: it is not asked for. For metrics and alerts.
    pub fn unread_ms(&self, now_ms: u64) -> Option<u64> {
        self.age_ms(now_ms).or_else(|| match self.watched_ms.load(Relaxed) {
            0 => None,
            watched_ms => Some(now_ms.saturating_sub(watched_ms)),
        })
    }

    /// Age of the engine's numbers in milliseconds; `None` before the first reading.
    pub fn age_ms(&self, now_ms: u64) -> Option<u64> {
        match self.cells.read_ms().load(Relaxed) {
            0 => None,
            read_ms => Some(now_ms.saturating_sub(read_ms)),
        }
    }
}

/// One request in flight at an endpoint. Counts on creation, uncounts on drop, whatever ends the request.
#[derive(Debug)]
pub struct InFlight {
    state: Arc<EndpointState>,
    tokens: u32,
}

impl InFlight {
    /// Counts one request whose prompt is expected to cost `uncached_tokens` of prefill there.
    pub fn begin(state: Arc<EndpointState>, uncached_tokens: u32) -> Self {
        state.cells.inflight().fetch_add(1, Relaxed);
        state.cells.inflight_tokens().fetch_add(uncached_tokens, Relaxed);
        Self { state, tokens: uncached_tokens }
    }

    /// The prefill is done (the first byte of the answer is here): its tokens no longer wait there.
    pub fn prefill_done(&mut self) {
        let tokens = std::mem::take(&mut self.tokens);
        self.state.cells.inflight_tokens().fetch_sub(tokens, Relaxed);
    }

    /// The endpoint's live numbers.
    pub fn state(&self) -> &Arc<EndpointState> {
        &self.state
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.prefill_done();
        self.state.cells.inflight().fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_while_it_lives_and_its_tokens_until_the_first_byte() {
        let state = Arc::new(EndpointState::new(1));
        let mut request = InFlight::begin(Arc::clone(&state), 300);
        assert_eq!((state.inflight(), state.read(Signal::InflightTokens, 0)), (1, 300.0));
        request.prefill_done();
        assert_eq!((state.inflight(), state.read(Signal::InflightTokens, 0)), (1, 0.0));
        drop(request);
        assert_eq!((state.inflight(), state.read(Signal::InflightTokens, 0)), (0, 0.0));
    }

    #[test]
    fn engine_numbers_are_unknown_before_the_first_reading_and_when_stale() {
        let state = EndpointState::new(1);
        assert!(state.read(Signal::Queued, 5).is_nan());
        state.store_reading(&EngineReading { queued: Some(4.0), ..EngineReading::default() }, 100);
        assert_eq!(state.read(Signal::Queued, 200), 4.0);
        assert!(state.read(Signal::Running, 200).is_nan(), "the page did not say");
        assert!(state.read(Signal::Queued, 101 + ENGINE_NUMBERS_AGE_MAX_MS).is_nan(), "stale");
    }

    /// Everything that can be measured at an endpoint, once.
    fn every_reading(state: &EndpointState, now_ms: u64) {
        let reading = EngineReading {
            queued: Some(1.0),
            running: Some(1.0),
            kv_usage: Some(0.5),
            acceptance: Some(0.5),
            ..EngineReading::default()
        };
        state.store_reading(&reading, now_ms);
        state.store_gpu(Some(0.5), Some(0.5));
        state.recent_tokens().add(1.0, now_ms);
        state.requests.averages.observe_first_token(10.0, now_ms);
        state.requests.averages.observe_token(1.0, now_ms);
        state.requests.averages.observe_end(false, now_ms);
    }

    /// N6: a signal that nothing measures would be NaN for ever.
    #[test]
    fn every_signal_is_a_number_after_one_reading() {
        let state = EndpointState::new(1);
        every_reading(&state, 1_000);
        let unknown: Vec<&str> = Signal::ALL
            .into_iter()
            .filter(|signal| state.read(*signal, 1_001).is_nan())
            .map(Signal::name)
            .collect();
        assert!(unknown.is_empty(), "no reading gives a number to {unknown:?}");
    }
}
