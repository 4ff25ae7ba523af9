//! What decisions and policies may see of a request and of the pool. Prompt text is not part of it.

use http::HeaderName;

use crate::endpoint::Endpoint;
use crate::pool::Pool;
use crate::signal::{Signal, SignalSet};

/// Kinds of requests that are told apart; further ones share the last.
pub const KINDS_MAX: usize = 32;

/// What a request asks an engine for: one number per operation, below [`KINDS_MAX`]. Engines that serve one kind may not
/// serve another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestKind(u8);

impl RequestKind {
    /// The kind of that number.
    pub const fn new(number: usize) -> Self {
        Self(if number < KINDS_MAX { number } else { KINDS_MAX - 1 } as u8)
    }

    /// Its number, below [`KINDS_MAX`].
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// One request, reduced to what routing needs.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a> {
    /// Position in the pool, counted once over all workers and over reloads.
    pub ticket: u64,
    /// Random bits of this request.
    pub seed: u64,
    /// Milliseconds on the gateway's monotonic clock.
    pub now_ms: u64,
    /// 0 the first time through the chain.
    pub attempt: u32,
    /// Smaller is more urgent; 0 is ordinary.
    pub priority: i32,
    /// Estimated prompt length in tokens (bytes ÷ 4).
    pub prompt_tokens: u32,
    /// The client's output limit in tokens.
    pub output_tokens: Option<u32>,
    /// Hash of the session's name.
    pub session: Option<u64>,
    /// Hash of the tenant's name.
    pub tenant: Option<u64>,
    /// Endpoints that must not be chosen, ascending indices.
    pub excluded: &'a [u32],
    /// The session's owners, nearest first, at most 3; empty without a session.
    pub owners: &'a [u32],
    /// Chained hashes of the prompt's leading blocks, longest prefix last.
    pub prefix_hashes: &'a [u64],
    /// Those of the wanted headers that are present.
    pub headers: &'a [(HeaderName, &'a str)],
}

/// The pool as it is now, by columns. One buffer per worker, filled anew for each decision.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    set: SignalSet,
    len: usize,
    values: Vec<f32>,
}

impl Fleet {
    /// Fills the buffer with the columns of `set` for the endpoints of `pool`, as they are at `now_ms`.
    ///
    /// [`Signal::CachedTokens`] is left at zero: the prefix index fills it through [`Self::column_mut`].
    pub fn gather(&mut self, pool: &Pool, set: SignalSet, now_ms: u64) {
        let len = pool.endpoints.len();
        self.set = set;
        self.len = len;
        self.values.resize(len * set.len(), 0.0);
        if len == 0 {
            return;
        }
        // Column by column, so that which signal it is is asked once and not for every endpoint.
        for (signal, column) in set.iter().zip(self.values.chunks_exact_mut(len)) {
            if signal == Signal::CachedTokens {
                column.fill(0.0);
            } else if !pool.endpoints.copy(signal, column, now_ms) {
                fill(column, pool, |endpoint| endpoint.read(signal, now_ms));
            }
        }
    }

    /// Makes a fleet from whole columns, for tests and recorded scenarios. Columns are in the order of `set`.
    pub fn from_columns(set: SignalSet, len: usize, values: Vec<f32>) -> Self {
        assert_eq!(values.len(), set.len() * len, "one number per signal and endpoint");
        Self { set, len, values }
    }

    /// Number of endpoints.
    pub fn len(&self) -> usize {
        self.len
    }
    /// Whether the pool is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Which columns are there.
    pub fn signals(&self) -> SignalSet {
        self.set
    }
    /// One column, if it was gathered.
    pub fn column(&self, signal: Signal) -> Option<&[f32]> {
        let position = self.set.position(signal)?;
        self.values.get(position * self.len..(position + 1) * self.len)
    }
    /// Several columns one after the other, without a copy: where they stand so, in this order. `None` where they do not.
    pub fn columns(&self, signals: &[Signal]) -> Option<&[f32]> {
        let first = self.set.position(*signals.first()?)?;
        let in_order = |(at, signal): (usize, &Signal)| self.set.position(*signal) == Some(first + at);
        if !signals.iter().enumerate().all(in_order) {
            return None;
        }
        self.values.get(first * self.len..(first + signals.len()) * self.len)
    }
    /// Hands over the numbers of one endpoint, in the order of the columns.
    pub fn each(&self, index: u32, mut take: impl FnMut(f32)) {
        if self.len > 0 {
            self.values.iter().skip(index as usize).step_by(self.len).for_each(|value| take(*value));
        }
    }
    /// One column, to be filled.
    pub fn column_mut(&mut self, signal: Signal) -> Option<&mut [f32]> {
        let position = self.set.position(signal)?;
        self.values.get_mut(position * self.len..(position + 1) * self.len)
    }
}

/// Fills a column with one number of each endpoint.
fn fill(column: &mut [f32], pool: &Pool, read: impl Fn(&Endpoint) -> f32) {
    for (cell, endpoint) in column.iter_mut().zip(&pool.endpoints) {
        *cell = read(endpoint);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_lent_only_where_they_stand_in_the_order_asked_for() {
        use Signal::{Inflight, InflightTokens, KvUsage, Queued};
        let set = [Inflight, InflightTokens, KvUsage].into_iter().collect();
        let fleet = Fleet::from_columns(set, 2, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let table: [(&[Signal], Option<&[f32]>); 6] = [
            (&[Inflight, InflightTokens, KvUsage], Some(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])),
            (&[InflightTokens, KvUsage], Some(&[3.0, 4.0, 5.0, 6.0])),
            (&[InflightTokens, Inflight], None),
            (&[Inflight, KvUsage], None),
            (&[Queued], None),
            (&[], None),
        ];
        for (signals, expected) in table {
            assert_eq!(fleet.columns(signals), expected, "{signals:?}");
        }
    }
}
