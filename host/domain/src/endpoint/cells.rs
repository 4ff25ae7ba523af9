//! Where the live numbers that policies see as columns stand: together by number, not by endpoint.
//!
//! A decision reads a few numbers of every endpoint of a pool. Were each endpoint's numbers kept with the endpoint, that
//! would be a walk over as many cache lines as there are endpoints; here it is a copy of a few runs of neighbours
//! ([`Runs`]). Endpoints that are made together become neighbours.
//!
//! Numbers of the request path and of the observer never share a cache line, as each column has lines of its own.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{ENGINE_NUMBERS_AGE_MAX_MS, Endpoint};
use crate::load::RecentTokens;
use crate::signal::Signal;

/// Endpoints whose numbers stand in one block: 12 KiB.
const BLOCK: usize = 256;

const NAN_BITS: u32 = f32::NAN.to_bits();

/// One number of each endpoint of a block, on cache lines of its own.
#[repr(align(64))]
struct Column<T>([T; BLOCK]);

impl<T> Column<T> {
    fn new(mut value: impl FnMut() -> T) -> Self {
        Self(std::array::from_fn(|_| value()))
    }
}

/// Numbers of up to [`BLOCK`] endpoints.
struct Block {
    inflight: Column<AtomicU32>,
    inflight_tokens: Column<AtomicU32>,
    recent_tokens: Column<RecentTokens>,
    /// Bits of `f32`, NaN when unknown, as the others of engines and exporters.
    queued: Column<AtomicU32>,
    running: Column<AtomicU32>,
    kv_usage: Column<AtomicU32>,
    gpu_util: Column<AtomicU32>,
    gpu_memory: Column<AtomicU32>,
    acceptance: Column<AtomicU32>,
    /// When the engine's page was read, milliseconds on the gateway's clock; 0 is never.
    read_ms: Column<AtomicU64>,
    /// Places whose endpoints are gone.
    free: Mutex<Vec<u16>>,
}

impl Block {
    fn new() -> Self {
        let zero = || Column::new(|| AtomicU32::new(0));
        let unknown = || Column::new(|| AtomicU32::new(NAN_BITS));
        Self {
            inflight: zero(),
            inflight_tokens: zero(),
            recent_tokens: Column::new(RecentTokens::default),
            queued: unknown(),
            running: unknown(),
            kv_usage: unknown(),
            gpu_util: unknown(),
            gpu_memory: unknown(),
            acceptance: unknown(),
            read_ms: Column::new(|| AtomicU64::new(0)),
            free: Mutex::new(Vec::new()),
        }
    }

    /// The column of a number that the engine's page gives.
    fn engine(&self, signal: Signal) -> Option<&Column<AtomicU32>> {
        match signal {
            Signal::Queued => Some(&self.queued),
            Signal::Running => Some(&self.running),
            Signal::KvUsage => Some(&self.kv_usage),
            Signal::Acceptance => Some(&self.acceptance),
            _ => None,
        }
    }

    /// The column of a number that a GPU exporter gives.
    fn gpu(&self, signal: Signal) -> Option<&Column<AtomicU32>> {
        match signal {
            Signal::GpuUtil => Some(&self.gpu_util),
            Signal::GpuMemory => Some(&self.gpu_memory),
            _ => None,
        }
    }

    /// Copies the numbers of `column.len()` neighbours from `start` on. False if this signal stands elsewhere.
    fn copy(&self, signal: Signal, start: usize, column: &mut [f32], now_ms: u64) -> bool {
        let range = start..start + column.len();
        match signal {
            // Counts stay far below 2^31, and the conversion of signed numbers is the cheaper one.
            Signal::Inflight => put(column, &self.inflight.0[range], |count| count as i32 as f32),
            Signal::InflightTokens => {
                put(column, &self.inflight_tokens.0[range], |count| count as i32 as f32);
            }
            Signal::RecentTokens => RecentTokens::get_all(&self.recent_tokens.0[range], now_ms, column),
            _ => {
                if let Some(numbers) = self.gpu(signal) {
                    put(column, &numbers.0[range], f32::from_bits);
                } else if let Some(numbers) = self.engine(signal) {
                    let from = numbers.0[range.clone()].iter().zip(&self.read_ms.0[range]);
                    for (cell, (number, read_ms)) in column.iter_mut().zip(from) {
                        let (number, fresh) = (number.load(Relaxed), is_fresh(read_ms.load(Relaxed), now_ms));
                        *cell = f32::from_bits(if fresh { number } else { NAN_BITS });
                    }
                } else {
                    return false;
                }
            }
        }
        true
    }
}

/// Eight at a time: they are converted together, though atomics are read one by one.
fn put(column: &mut [f32], numbers: &[AtomicU32], convert: impl Fn(u32) -> f32) {
    let (chunks, rest) = numbers.as_chunks::<8>();
    let (columns, column_rest) = column.as_chunks_mut::<8>();
    for (column, numbers) in columns.iter_mut().zip(chunks) {
        *column = numbers.each_ref().map(|number| number.load(Relaxed)).map(&convert);
    }
    for (cell, number) in column_rest.iter_mut().zip(rest) {
        *cell = convert(number.load(Relaxed));
    }
}

/// Whether numbers read at `read_ms` (0: never) still count. One comparison with what is the same for a whole column.
fn is_fresh(read_ms: u64, now_ms: u64) -> bool {
    read_ms >= now_ms.saturating_sub(ENGINE_NUMBERS_AGE_MAX_MS).max(1)
}

/// One endpoint's place among the columns. Given back on drop.
pub(super) struct Cells {
    block: Arc<Block>,
    at: usize,
}

impl Cells {
    pub(super) fn inflight(&self) -> &AtomicU32 {
        &self.block.inflight.0[self.at]
    }

    pub(super) fn inflight_tokens(&self) -> &AtomicU32 {
        &self.block.inflight_tokens.0[self.at]
    }

    pub(super) fn recent_tokens(&self) -> &RecentTokens {
        &self.block.recent_tokens.0[self.at]
    }

    pub(super) fn read_ms(&self) -> &AtomicU64 {
        &self.block.read_ms.0[self.at]
    }

    /// Stores a number of the engine's page or of a GPU exporter; others have no place here.
    pub(super) fn store(&self, signal: Signal, value: Option<f32>) {
        if let Some(column) = self.block.engine(signal).or_else(|| self.block.gpu(signal)) {
            column.0[self.at].store(value.unwrap_or(f32::NAN).to_bits(), Relaxed);
        }
    }

    /// A number of the engine's page, however old; `None` when unknown.
    pub(super) fn stored(&self, signal: Signal) -> Option<f32> {
        let column = self.block.engine(signal)?;
        Some(f32::from_bits(column.0[self.at].load(Relaxed))).filter(|value| !value.is_nan())
    }

    /// The number behind a signal; `None` if it stands elsewhere.
    pub(super) fn read(&self, signal: Signal, now_ms: u64) -> Option<f32> {
        let mut number = [0.0];
        self.block.copy(signal, self.at, &mut number, now_ms).then_some(number[0])
    }

    /// As if nothing had ever been there.
    fn clear(&self) {
        for counter in [self.inflight(), self.inflight_tokens()] {
            counter.store(0, Relaxed);
        }
        self.recent_tokens().clear();
        for signal in Signal::ALL {
            self.store(signal, None);
        }
        self.read_ms().store(0, Relaxed);
    }
}

impl fmt::Debug for Cells {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |signal| self.read(signal, 0);
        f.debug_struct("Cells")
            .field("inflight", &number(Signal::Inflight))
            .field("inflight_tokens", &number(Signal::InflightTokens))
            .finish_non_exhaustive()
    }
}

impl Drop for Cells {
    fn drop(&mut self) {
        self.clear();
        self.block.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.at as u16);
    }
}

/// Gives endpoints their places, neighbours to those that come one after the other. What is given back is used again, so
/// memory is bounded by the most endpoints that ever lived at once.
#[derive(Default)]
pub struct Slab {
    current: Option<(Arc<Block>, usize)>,
    blocks: Vec<Weak<Block>>,
}

impl fmt::Debug for Slab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slab").field("blocks", &self.blocks.len()).finish_non_exhaustive()
    }
}

impl Slab {
    pub(super) fn take(&mut self) -> Cells {
        if let Some((block, next)) = &mut self.current
            && *next < BLOCK
        {
            *next += 1;
            return Cells { block: Arc::clone(block), at: *next - 1 };
        }
        if let Some(cells) = self.take_freed() {
            return cells;
        }
        let block = Arc::new(Block::new());
        self.blocks.push(Arc::downgrade(&block));
        self.current = Some((Arc::clone(&block), 1));
        Cells { block, at: 0 }
    }

    fn take_freed(&mut self) -> Option<Cells> {
        self.blocks.retain(|block| block.strong_count() > 0);
        self.blocks.iter().find_map(|block| {
            let block = block.upgrade()?;
            let at = block.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
            Some(Cells { block, at: at.into() })
        })
    }
}

/// Endpoints of a pool, sorted by URL, which know where their numbers stand together. Reads as a slice.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    list: Box<[Endpoint]>,
    runs: Box<[Run]>,
}

/// Neighbours in a block that are neighbours in the pool.
#[derive(Clone)]
struct Run {
    block: Arc<Block>,
    start: usize,
    len: usize,
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.start, self.len)
    }
}

impl Endpoints {
    /// Fills `column` with the number behind `signal` of each endpoint. False if it does not stand in columns.
    pub(crate) fn copy(&self, signal: Signal, column: &mut [f32], now_ms: u64) -> bool {
        let mut rest = column;
        for run in &self.runs {
            let (part, after) = rest.split_at_mut(run.len);
            if !run.block.copy(signal, run.start, part, now_ms) {
                return false;
            }
            rest = after;
        }
        true
    }
}

impl FromIterator<Endpoint> for Endpoints {
    fn from_iter<I: IntoIterator<Item = Endpoint>>(endpoints: I) -> Self {
        let list: Box<[Endpoint]> = endpoints.into_iter().collect();
        let mut runs: Vec<Run> = Vec::new();
        for Cells { block, at } in list.iter().map(|endpoint| &endpoint.state.cells) {
            match runs.last_mut() {
                Some(run) if Arc::ptr_eq(&run.block, block) && run.start + run.len == *at => run.len += 1,
                _ => runs.push(Run { block: Arc::clone(block), start: *at, len: 1 }),
            }
        }
        Self { list, runs: runs.into() }
    }
}

impl Deref for Endpoints {
    type Target = [Endpoint];

    fn deref(&self) -> &[Endpoint] {
        &self.list
    }
}

impl<'a> IntoIterator for &'a Endpoints {
    type Item = &'a Endpoint;
    type IntoIter = std::slice::Iter<'a, Endpoint>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::EndpointState;
    use crate::fixture;

    fn endpoints(states: impl IntoIterator<Item = Arc<EndpointState>>) -> Endpoints {
        let spec = fixture::endpoint("http://a:1");
        states.into_iter().map(|state| Endpoint { spec: Arc::clone(&spec), state }).collect()
    }

    fn states(slab: &mut Slab, len: u32) -> Vec<Arc<EndpointState>> {
        (1..=len).map(|slot| Arc::new(EndpointState::in_slab(slot, slab))).collect()
    }

    #[test]
    fn a_column_is_what_each_endpoint_says_in_whatever_order_the_pool_has_them() {
        let mut slab = Slab::default();
        let mut states = states(&mut slab, 600);
        for (at, state) in states.iter().enumerate() {
            state.cells.inflight().store(at as u32, Relaxed);
            // The first block's within one step of fading, the others' not.
            state.recent_tokens().add(at as f32, if at > 300 && at % 3 == 0 { 1 } else { 20_000 });
            state.cells.store(Signal::KvUsage, (at % 3 > 0).then_some(at as f32));
            state.cells.read_ms().store(if at % 5 == 0 { 1 } else { 20_000 }, Relaxed);
        }
        assert_eq!(endpoints(states.clone()).runs.len(), 3, "one run per block of {BLOCK}");
        states.swap(7, 400);
        states.remove(100);
        let pool = endpoints(states);
        let mut column = vec![0.0; pool.len()];
        for signal in
            [Signal::Inflight, Signal::InflightTokens, Signal::RecentTokens, Signal::KvUsage, Signal::GpuUtil]
        {
            assert!(pool.copy(signal, &mut column, 20_001));
            for (number, endpoint) in column.iter().zip(&pool) {
                let expected = endpoint.read(signal, 20_001);
                assert_eq!(
                    number.to_bits(),
                    expected.to_bits(),
                    "{signal:?} of slot {}",
                    endpoint.state.slot
                );
            }
        }
        assert!(!pool.copy(Signal::Errors, &mut column, 20_001), "stands elsewhere");
    }

    #[test]
    fn a_place_is_used_again_and_remembers_nothing() {
        let mut slab = Slab::default();
        let mut states = states(&mut slab, BLOCK as u32);
        let gone = states.remove(9);
        gone.cells.inflight().store(4, Relaxed);
        gone.recent_tokens().add(5.0, 1);
        gone.cells.store(Signal::Queued, Some(2.0));
        gone.cells.read_ms().store(1, Relaxed);
        drop(gone);
        let state = EndpointState::in_slab(1_000, &mut slab);
        assert_eq!((slab.blocks.len(), state.cells.at), (1, 9));
        assert_eq!((state.inflight(), state.age_ms(5)), (0, None));
        assert_eq!((state.cells.stored(Signal::Queued), state.recent_tokens().get(1)), (None, 0.0));
        EndpointState::in_slab(1_001, &mut slab);
        assert_eq!(slab.blocks.len(), 2, "every place of the first is taken");
    }
}
