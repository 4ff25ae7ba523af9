//! The pool as it is now, by columns, and who of it may be chosen.

use crate::Signal;

/// The endpoints a request may go to, as the policy is shown them. Endpoint `i` of a column is endpoint `i` of the pool that
/// `sync` was given.
#[derive(Clone, Copy, Debug)]
pub struct Fleet<'a> {
    endpoints: usize,
    signals: &'static [Signal],
    columns: &'a [f32],
    scores: Option<&'a [f32]>,
    excluded: &'a [u32],
}

/// The endpoints that may be chosen, ascending. See [`Fleet::candidates`].
#[derive(Clone, Debug)]
pub struct Candidates<'a> {
    next: usize,
    endpoints: usize,
    excluded: &'a [u32],
    scores: Option<&'a [f32]>,
}

impl<'a> Fleet<'a> {
    /// A view over what the host handed in. `columns` holds one number per endpoint for each of `signals`, one after the other;
    /// `excluded` is ascending.
    pub fn new(
        endpoints: usize,
        (signals, columns): (&'static [Signal], &'a [f32]),
        scores: Option<&'a [f32]>,
        excluded: &'a [u32],
    ) -> Self {
        assert_eq!(columns.len(), endpoints * signals.len(), "one number per endpoint and signal");
        assert!(scores.is_none_or(|scores| scores.len() == endpoints), "one score per endpoint");
        Self { endpoints, signals, columns, scores, excluded }
    }

    /// How many endpoints the pool has, chosen from or not.
    pub fn len(&self) -> usize {
        self.endpoints
    }

    /// Whether the pool has no endpoint. Such a fleet is never asked about.
    pub fn is_empty(&self) -> bool {
        self.endpoints == 0
    }

    /// One number per endpoint; NaN where it is not known.
    ///
    /// # Panics
    /// When `signal` is not among the policy's [`crate::About::signals`].
    pub fn column(&self, signal: Signal) -> &'a [f32] {
        let Some(at) = self.signals.iter().position(|known| *known == signal) else {
            panic!("the signal `{}` is not in this policy's list of signals", signal.name());
        };
        &self.columns[at * self.endpoints..][..self.endpoints]
    }

    /// What the policies before this one think, 0 (worst) to 1 (best), NaN: not to be chosen. `None` if none gave scores.
    pub fn scores(&self) -> Option<&'a [f32]> {
        self.scores
    }

    /// Endpoints that must not be chosen for this request, ascending.
    pub fn excluded(&self) -> &'a [u32] {
        self.excluded
    }

    /// Whether this endpoint may be chosen: in the pool, not excluded, and not scored NaN.
    pub fn is_candidate(&self, endpoint: usize) -> bool {
        endpoint < self.endpoints
            && self.excluded.binary_search(&(endpoint as u32)).is_err()
            && self.scores.is_none_or(|scores| !scores[endpoint].is_nan())
    }

    /// The endpoints that may be chosen, ascending.
    pub fn candidates(&self) -> Candidates<'a> {
        Candidates { next: 0, endpoints: self.endpoints, excluded: self.excluded, scores: self.scores }
    }

    /// The candidates for which this signal is known, with its value.
    pub fn known(&self, signal: Signal) -> impl Iterator<Item = (usize, f32)> + 'a {
        let column = self.column(signal);
        self.candidates().map(|endpoint| (endpoint, column[endpoint])).filter(|(_, value)| !value.is_nan())
    }

    /// Sets `values` to NaN for every endpoint that must not be chosen, so that whole-column arithmetic need not care.
    pub fn mask(&self, values: &mut [f32]) {
        for &endpoint in self.excluded {
            if let Some(value) = values.get_mut(endpoint as usize) {
                *value = f32::NAN;
            }
        }
        if let Some(scores) = self.scores {
            for (value, score) in values.iter_mut().zip(scores) {
                *value = if score.is_nan() { f32::NAN } else { *value };
            }
        }
    }
}

impl Iterator for Candidates<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        while self.next < self.endpoints {
            let endpoint = self.next;
            self.next += 1;
            // Both lists ascend, so the one to look at is always the first.
            if let [first, rest @ ..] = self.excluded
                && *first as usize <= endpoint
            {
                self.excluded = rest;
                if *first as usize == endpoint {
                    continue;
                }
            }
            if self.scores.is_none_or(|scores| !scores[endpoint].is_nan()) {
                return Some(endpoint);
            }
        }
        None
    }
}
