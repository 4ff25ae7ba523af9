//! The end of a chain that gave scores: from one number per endpoint to the few that are tried, best first.

use domain::policy::ORDERED_MAX;
use domain::pool::Pool;
use domain::request::{Fleet, RequestView};
use domain::signal::Signal;
use smallvec::SmallVec;

/// The best by score, ties by least in flight ÷ weight, then by rotation; at most [`ORDERED_MAX`]. Endpoints without a
/// score, excluded ones and those that cannot answer whole requests are left out. Empty if nobody is left.
///
/// One pass: an endpoint that does not get among the best so far costs one comparison.
pub(crate) fn best(
    scores: &[f32],
    pool: &Pool,
    request: &RequestView<'_>,
    fleet: &Fleet,
) -> SmallVec<[u32; ORDERED_MAX]> {
    let len = scores.len().min(pool.endpoints.len());
    let mut ranking = Ranking { pool, inflight: fleet.column(Signal::Inflight), best: SmallVec::new() };
    if len == 0 {
        return SmallVec::new();
    }
    // Starting at the ticket's place and letting only strictly better ones pass makes ties rotate.
    let start = (request.ticket % len as u64) as usize;
    for index in (start..len).chain(0..start) {
        let score = scores[index];
        if ranking.is_hopeless(score) {
            continue;
        }
        let may = request.excluded.binary_search(&(index as u32)).is_err();
        if may && pool.endpoints[index].spec.roles.serve {
            ranking.offer(index as u32, score);
        }
    }
    ranking.best.into_iter().map(|candidate| candidate.index).collect()
}

struct Candidate {
    index: u32,
    score: f32,
    load: f32,
}

struct Ranking<'a> {
    pool: &'a Pool,
    inflight: Option<&'a [f32]>,
    best: SmallVec<[Candidate; ORDERED_MAX]>,
}

impl Ranking<'_> {
    /// Whether a score cannot get among the best: NaN, or below a full list's last.
    fn is_hopeless(&self, score: f32) -> bool {
        score.is_nan() || (self.best.len() == ORDERED_MAX && score < self.best[ORDERED_MAX - 1].score)
    }

    fn offer(&mut self, index: u32, score: f32) {
        let load = self.load(index as usize);
        let place = self
            .best
            .iter()
            .position(|other| score > other.score || (score == other.score && load < other.load))
            .unwrap_or(self.best.len());
        if place == ORDERED_MAX {
            return;
        }
        if self.best.len() == ORDERED_MAX {
            self.best.pop();
        }
        self.best.insert(place, Candidate { index, score, load });
    }

    fn load(&self, index: usize) -> f32 {
        let endpoint = &self.pool.endpoints[index];
        let inflight = match self.inflight.and_then(|column| column.get(index)) {
            Some(inflight) => *inflight,
            None => endpoint.state.inflight() as f32,
        };
        inflight / endpoint.spec.weight.max(1) as f32
    }
}

#[cfg(test)]
mod tests;
