//! The end of a chain that gave scores: from one number per endpoint to the few that are tried, best first.

use domain::policy::ORDERED_MAX;
use domain::pool::Pool;
use domain::request::{Fleet, RequestView};
use domain::signal::Signal;
use smallvec::SmallVec;

/// Scores looked at together: most are below the best so far, and comparing many at once costs little more than one.
const CHUNK: usize = 32;

/// What a pool's endpoints have in common, found out once per pool: reading it from each endpoint would miss the cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Common {
    /// All answer whole requests.
    serve: bool,
    /// All have weight 1.
    weigh_one: bool,
}

impl Common {
    pub(crate) fn of(pool: &Pool) -> Self {
        Self {
            serve: pool.endpoints.iter().all(|endpoint| endpoint.spec.roles.serve),
            weigh_one: pool.endpoints.iter().all(|endpoint| endpoint.spec.weight <= 1),
        }
    }
}

/// The best by score, ties by least in flight ÷ weight, then by rotation; at most [`ORDERED_MAX`]. Endpoints without a
/// score, excluded ones and those that cannot answer whole requests are left out. Empty if nobody is left.
///
/// One pass: what does not get among the best so far costs one comparison.
pub(crate) fn best(
    scores: &[f32],
    (pool, common): (&Pool, Common),
    request: &RequestView<'_>,
    fleet: &Fleet,
) -> SmallVec<[u32; ORDERED_MAX]> {
    let len = scores.len().min(pool.endpoints.len());
    if len == 0 {
        return SmallVec::new();
    }
    let inflight = fleet.column(Signal::Inflight);
    let mut ranking = Ranking { pool, common, inflight, excluded: request.excluded, best: SmallVec::new() };
    // Starting at the ticket's place and letting only strictly better ones pass makes ties rotate.
    let start = (request.ticket % len as u64) as usize;
    for range in [start..len, 0..start] {
        let mut at = range.start;
        for chunk in scores[range].chunks(CHUNK) {
            ranking.look(at, chunk);
            at += chunk.len();
        }
    }
    ranking.best.into_iter().map(|candidate| candidate.index).collect()
}

/// The first of the best scores; 0 if there is none.
pub(crate) fn first_best(scores: &[f32]) -> u32 {
    let mut lanes = [f32::NEG_INFINITY; CHUNK];
    for chunk in scores.chunks(CHUNK) {
        for (lane, score) in lanes.iter_mut().zip(chunk) {
            *lane = if *score > *lane { *score } else { *lane };
        }
    }
    let best = lanes.into_iter().fold(f32::NEG_INFINITY, f32::max);
    for (at, chunk) in scores.chunks(CHUNK).enumerate() {
        if chunk.iter().fold(false, |found, score| found | (*score == best)) {
            let within = chunk.iter().position(|score| *score == best).unwrap_or_default();
            return (at * CHUNK + within) as u32;
        }
    }
    0
}

struct Candidate {
    index: u32,
    score: f32,
    load: f32,
}

struct Ranking<'a> {
    pool: &'a Pool,
    common: Common,
    inflight: Option<&'a [f32]>,
    excluded: &'a [u32],
    best: SmallVec<[Candidate; ORDERED_MAX]>,
}

impl Ranking<'_> {
    /// Looks at the scores of the endpoints from `start` on.
    fn look(&mut self, start: usize, scores: &[f32]) {
        if !self.may_pass(start, scores) {
            return;
        }
        let (mut bar, _) = self.bar();
        for (offset, score) in scores.iter().enumerate() {
            if *score >= bar {
                self.offer(start + offset, *score);
                (bar, _) = self.bar();
            }
        }
    }

    /// Whether any of these may get among the best; that most do not is what makes a large pool cheap. On an idle fleet most
    /// scores are equal, so ties are settled here too where loads stand in a column as they count.
    fn may_pass(&self, start: usize, scores: &[f32]) -> bool {
        let (bar, load_bar) = self.bar();
        // No comparison with NaN holds, so endpoints without a score never pass.
        match self.inflight.and_then(|column| column.get(start..start + scores.len())) {
            Some(loads) if self.common.weigh_one => {
                scores.iter().zip(loads).fold(false, |found, (score, load)| {
                    found | (*score > bar) | ((*score == bar) & (*load < load_bar))
                })
            }
            _ => scores.iter().fold(false, |found, score| found | (*score >= bar)),
        }
    }

    /// The score and load that somebody has to beat to get among the best.
    fn bar(&self) -> (f32, f32) {
        match self.best.get(ORDERED_MAX - 1) {
            Some(last) => (last.score, last.load),
            None => (f32::NEG_INFINITY, f32::INFINITY),
        }
    }

    fn offer(&mut self, index: usize, score: f32) {
        let load = self.load(index);
        let beats = |other: &Candidate| score > other.score || (score == other.score && load < other.load);
        if self.best.len() == ORDERED_MAX && !beats(&self.best[ORDERED_MAX - 1]) {
            return;
        }
        let serves = self.common.serve || self.pool.endpoints[index].spec.roles.serve;
        let index = index as u32;
        if !serves || self.excluded.binary_search(&index).is_ok() {
            return;
        }
        let place = self.best.iter().position(beats).unwrap_or(self.best.len());
        self.best.truncate(ORDERED_MAX - 1);
        self.best.insert(place, Candidate { index, score, load });
    }

    fn load(&self, index: usize) -> f32 {
        let inflight = match self.inflight.and_then(|column| column.get(index)) {
            Some(inflight) => *inflight,
            None => self.pool.endpoints[index].state.inflight() as f32,
        };
        if self.common.weigh_one {
            return inflight;
        }
        inflight / self.pool.endpoints[index].spec.weight.max(1) as f32
    }
}

#[cfg(test)]
mod tests;
