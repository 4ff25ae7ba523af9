//! What is kept of a decision beside its result: numbers that policies saw, who was avoided, and the attempts that followed.

use std::time::Instant;

use domain::endpoint::Avoided;
use domain::plan::{Order, Plan};
use domain::pool::Pool;
use domain::request::Fleet;
use domain::signal::SignalSet;
use smallvec::SmallVec;

use super::AVOIDED_MAX;

/// Endpoints whose numbers are kept.
const ENDPOINTS_MAX: usize = 4;
/// Numbers that are kept; with more signals, of fewer endpoints.
const NUMBERS_MAX: usize = 48;

/// Numbers and endpoints of one decision, bounded: some 300 bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// The columns.
    pub(super) signals: SignalSet,
    /// Whose numbers are kept: the plan's own first.
    pub(super) endpoints: SmallVec<[u32; ENDPOINTS_MAX]>,
    /// One number per signal, for one endpoint after the other.
    pub(super) values: SmallVec<[f32; NUMBERS_MAX]>,
    /// Endpoints that could not be chosen, and why.
    pub(super) avoided: SmallVec<[(u32, &'static str); 1]>,
}

impl Seen {
    /// What `fleet` says of the endpoints of `plan`, and then of the first others.
    pub(crate) fn of(plan: &Plan, fleet: &Fleet, excluded: &[u32]) -> Self {
        let signals = fleet.signals();
        let ranked = if let Plan::Single(order) = plan { Order::ranked(order) } else { &[] };
        let others =
            (0..fleet.len() as u32).filter(|index| !ranked.contains(index) && !excluded.contains(index));
        let room = NUMBERS_MAX.checked_div(signals.len()).unwrap_or(0).min(ENDPOINTS_MAX);
        let endpoints: SmallVec<[u32; ENDPOINTS_MAX]> =
            ranked.iter().copied().chain(others).take(room).collect();
        let mut values = SmallVec::new();
        for index in &endpoints {
            fleet.each(*index, |value| values.push(value));
        }
        Self { signals, endpoints, values, avoided: SmallVec::new() }
    }

    /// Notes who is excluded. Only called where any is.
    #[cold]
    pub(crate) fn note_avoided(&mut self, pool: &Pool, excluded: &[u32], now_ms: u64) {
        let why = |index: &u32| {
            let avoided = pool.endpoint(*index)?.avoided(now_ms);
            Some((*index, avoided.as_ref().map_or("failed_this", Avoided::label)))
        };
        self.avoided = excluded.iter().take(AVOIDED_MAX).filter_map(why).collect();
    }
}

/// Why an attempt was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// It was decided for.
    Decided,
    /// To find out whether the endpoint is well again.
    Probe,
    /// No connection was made before.
    Reconnect,
    /// The attempt before was at the gateway's risk.
    Repair,
    /// The attempt before failed, and the gateway's settings allow another.
    Retry,
}

impl Why {
    /// Stable word for pages.
    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Decided => "decided",
            Self::Probe => "probe",
            Self::Reconnect => "reconnect",
            Self::Repair => "repair",
            Self::Retry => "retry",
        }
    }
}

/// An attempt as it is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tried {
    /// Index of the endpoint.
    pub(crate) endpoint: u32,
    /// Why it was made.
    pub(crate) why: Why,
    /// How it ended.
    pub(crate) result: &'static str,
    /// The engine's status; 0 for none.
    pub(crate) status: u16,
    /// From sending to the end, microseconds.
    pub(crate) took_us: u32,
    /// From sending to the first content that went to the client, microseconds.
    pub(crate) first_byte_us: Option<u32>,
}

/// An attempt under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trying {
    /// Index of the endpoint.
    pub(crate) endpoint: u32,
    /// Why it is made.
    pub(crate) why: Why,
    /// When the request was sent.
    pub(crate) sent: Instant,
}

impl Trying {
    /// As it ended at `now`.
    pub(crate) fn ended(
        self,
        (result, status): (&'static str, u16),
        first: Option<Instant>,
        now: Instant,
    ) -> Tried {
        let micros =
            |until: Instant| u32::try_from(until.duration_since(self.sent).as_micros()).unwrap_or(u32::MAX);
        Tried {
            endpoint: self.endpoint,
            why: self.why,
            result,
            status,
            took_us: micros(now),
            first_byte_us: first.map(micros),
        }
    }
}
