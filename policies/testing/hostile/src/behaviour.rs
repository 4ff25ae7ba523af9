//! The ways to misbehave.

use core::hint::black_box;

use wicketgate_sdk::{Choice, Decision, DraftTarget, Fleet, PrefillDecode, Request, log};

use crate::HEADER;

/// What the policy does instead of deciding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Decides: a rotation by ticket.
    Honest,
    /// Never returns.
    Loop,
    /// Takes memory until there is no more (`amount`: bytes, then decides).
    Memory,
    /// Calls itself without end.
    Recursion,
    /// Panics, with a message for the log.
    Panic,
    /// Executes `unreachable` without a word.
    Trap,
    /// Counts to `amount` (default 1,000), then decides: slow but honest.
    Slow,
    /// Writes `amount` lines to the log (default 1,000), then decides.
    ManyLogs,
    /// Writes one line of `amount` bytes (default 1 MiB), then decides.
    GiantLog,
    /// Names the endpoint after the last.
    BadIndex,
    /// Names the first excluded endpoint (the first of all when there is none).
    Excluded,
    /// Scores everybody NaN.
    NanScores,
    /// Scores one endpoint too few.
    ShortScores,
    /// Scores outside 0 to 1.
    WildScores,
    /// An order of `amount` entries (default 1,000,000).
    GiantList,
    /// An order that names nobody.
    EmptyOrder,
    /// An order that names everybody twice: allowed, the host removes the repetitions.
    RepeatedOrder,
    /// Refuses with a reason of `amount` bytes (default 1 MiB).
    GiantString,
    /// Refuses with status `amount` (default 200).
    BadStatus,
    /// Refuses properly: 429, retry after a second.
    Refuse,
    /// Has no opinion.
    Abstain,
    /// Adds `amount` headers of 1 KiB to the request (default 1,000).
    GiantHeaders,
    /// Adds the header `authorization`.
    BadHeader,
    /// Prefill on the first endpoint, decode on the second.
    Disaggregated,
    /// Draft on the first endpoint, target on the second.
    Speculative,
    /// A pair of twice the same endpoint.
    SamePair,
    /// Answers differently each time it is asked the same.
    Impure,
    /// Goes where the request's header says, abstains without one.
    Header,
    /// Refuses its configuration.
    RefuseConfig,
}

impl Behaviour {
    /// Every behaviour by its name in the settings.
    pub const NAMES: [(&'static str, Self); 29] = [
        ("honest", Self::Honest),
        ("loop", Self::Loop),
        ("memory", Self::Memory),
        ("recursion", Self::Recursion),
        ("panic", Self::Panic),
        ("trap", Self::Trap),
        ("slow", Self::Slow),
        ("many-logs", Self::ManyLogs),
        ("giant-log", Self::GiantLog),
        ("bad-index", Self::BadIndex),
        ("excluded", Self::Excluded),
        ("nan-scores", Self::NanScores),
        ("short-scores", Self::ShortScores),
        ("wild-scores", Self::WildScores),
        ("giant-list", Self::GiantList),
        ("empty-order", Self::EmptyOrder),
        ("repeated-order", Self::RepeatedOrder),
        ("giant-string", Self::GiantString),
        ("bad-status", Self::BadStatus),
        ("refuse", Self::Refuse),
        ("abstain", Self::Abstain),
        ("giant-headers", Self::GiantHeaders),
        ("bad-header", Self::BadHeader),
        ("disaggregated", Self::Disaggregated),
        ("speculative", Self::Speculative),
        ("same-pair", Self::SamePair),
        ("impure", Self::Impure),
        ("header", Self::Header),
        ("refuse-config", Self::RefuseConfig),
    ];

    /// The behaviour of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, behaviour)| *behaviour)
    }

    /// Does what needs no answer.
    pub(crate) fn act(self, amount: Option<u64>) {
        match self {
            Self::Loop => count_to(u64::MAX),
            Self::Memory => take(amount),
            Self::Recursion => {
                black_box(recurse(black_box(1)));
            }
            Self::Panic => panic!("hostile, as asked for"),
            Self::Trap => trap(),
            Self::Slow => count_to(amount.unwrap_or(1_000)),
            Self::ManyLogs => {
                (0..amount.unwrap_or(1_000)).for_each(|line| log::info(&format!("line {line}")));
            }
            Self::GiantLog => log::warn(&text(amount)),
            _ => {}
        }
    }

    /// Answers. `call` counts the calls before this one.
    pub(crate) fn answer(
        self,
        request: &Request,
        fleet: &Fleet<'_>,
        (call, amount): (u64, Option<u64>),
    ) -> Decision {
        let n = fleet.len();
        match self {
            Self::BadIndex => Decision::endpoint(n),
            Self::Excluded => Decision::endpoint(fleet.excluded().first().map_or(0, |&first| first as usize)),
            Self::NanScores => Decision::scores(vec![f32::NAN; n]),
            Self::ShortScores => Decision::scores(vec![0.5; n - 1]),
            Self::WildScores => {
                Decision::scores((0..n).map(|at| if at % 2 == 0 { 2.0 } else { -1.0 }).collect())
            }
            Self::GiantList => {
                Decision::ordered((0..amount.unwrap_or(1_000_000)).map(|at| (at % n as u64) as usize))
            }
            Self::EmptyOrder => Decision::ordered([]),
            Self::RepeatedOrder => Decision::ordered((0..2 * n).map(|at| at % n)),
            Self::GiantString => Decision::refuse(503, text(amount)),
            Self::BadStatus => Decision::refuse(amount.unwrap_or(200) as u16, "a status of its own"),
            Self::Refuse => refuse_properly(),
            Self::Abstain => Decision::abstain(),
            Self::GiantHeaders => giant_headers(fleet, amount.unwrap_or(1_000)),
            Self::BadHeader => {
                let headers = Some(vec![("authorization".into(), "Bearer stolen".into())]);
                Decision { headers, ..honest(request, fleet) }
            }
            Self::Disaggregated => Choice::Disaggregated(PrefillDecode { prefill: 0, decode: 1 }).into(),
            Self::Speculative => Choice::Speculative(DraftTarget { draft: 0, target: 1 }).into(),
            Self::SamePair => Choice::Disaggregated(PrefillDecode { prefill: 0, decode: 0 }).into(),
            Self::Impure => Decision::endpoint((call % n as u64) as usize),
            Self::Header => Decision::endpoint_or_abstain(named_by_header(request)),
            _ => honest(request, fleet),
        }
    }
}

/// The decision of a well-behaved guest: everybody who may be chosen, in turn.
pub(crate) fn honest(request: &Request, fleet: &Fleet<'_>) -> Decision {
    match fleet.candidates().count() as u64 {
        0 => Decision::abstain(),
        left => Decision::endpoint_or_abstain(fleet.candidates().nth((request.ticket % left) as usize)),
    }
}

fn count_to(end: u64) {
    let mut at = 0;
    while at < end {
        at = black_box(at + 1);
    }
}

fn take(amount: Option<u64>) {
    const PIECE: usize = 64 * 1024;
    let mut taken = Vec::new();
    while amount.is_none_or(|bytes| ((taken.len() * PIECE) as u64) < bytes) {
        taken.push(black_box(vec![1_u8; PIECE]));
    }
}

fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 32]);
    if depth == 0 { 0 } else { recurse(depth + 1) + frame[31] }
}

#[cfg(target_arch = "wasm32")]
fn trap() {
    core::arch::wasm32::unreachable()
}

#[cfg(not(target_arch = "wasm32"))]
fn trap() {
    panic!("a trap, as asked for")
}

fn text(bytes: Option<u64>) -> String {
    "x".repeat(bytes.unwrap_or(1 << 20) as usize)
}

fn refuse_properly() -> Decision {
    let mut decision = Decision::refuse(429, "as asked for");
    if let Choice::Refuse(refusal) = &mut decision.choice {
        refusal.retry_after_ms = Some(1_000);
    }
    decision
}

fn giant_headers(fleet: &Fleet<'_>, count: u64) -> Decision {
    let header = |at| (format!("x-hostile-{at}"), "x".repeat(1_024));
    Decision {
        headers: Some((0..count).map(header).collect()),
        ..Decision::endpoint_or_abstain(fleet.candidates().next())
    }
}

fn named_by_header(request: &Request) -> Option<usize> {
    let (_, value) = request.headers.as_ref()?.iter().find(|(name, _)| name == HEADER)?;
    value.parse().ok()
}
