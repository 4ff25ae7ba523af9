//! Running a policy natively: the same values in, the same checks on what comes out, no WebAssembly.
//!
//! ```
//! # use wicketgate_sdk::{About, ConfigError, Decision, Fleet, Policy, Request, Settings};
//! # struct First;
//! # impl Policy for First {
//! #     const ABOUT: About = About::new("first", "0.1.0", "The first that may be chosen.");
//! #     fn configure(_: &mut Settings) -> Result<Self, ConfigError> { Ok(Self) }
//! #     fn pick(&self, _: &Request, fleet: &Fleet<'_>) -> Decision {
//! #         Decision::endpoint_or_abstain(fleet.candidates().next())
//! #     }
//! # }
//! use wicketgate_sdk::testing::{Case, Harness, pool};
//!
//! let policy = Harness::<First>::new("{}", &pool(3));
//! assert_eq!(policy.choose(&Case::new().excluded([0])), Some(1));
//! ```

use crate::bindings::wicketgate::routing::types;
use crate::guest::Instance;
use crate::{Choice, ConfigError, Decision, Endpoint, Policy, Pool, Request, Roles, Signal};

/// A policy that is configured and synced, and whose answers are checked.
#[derive(Debug)]
pub struct Harness<P> {
    instance: Instance<P>,
    endpoints: usize,
}

/// One call of `pick`: a request, and the fleet as it is at that moment. Columns that are not set are unknown (NaN).
#[derive(Clone, Debug)]
pub struct Case {
    /// The request; every field may be set directly.
    pub request: Request,
    columns: Vec<(Signal, Vec<f32>)>,
    scores: Option<Vec<f32>>,
}

/// A pool of plain engines `http://10.0.0.1:8000`, `.2`, ... of weight 1.
pub fn pool(endpoints: usize) -> Pool {
    weighted_pool(&vec![1; endpoints])
}

/// A pool of plain engines with these weights.
pub fn weighted_pool(weights: &[u32]) -> Pool {
    let endpoint = |(at, &weight): (usize, &u32)| {
        let (high, low) = ((at + 1) / 256, (at + 1) % 256);
        let url = format!("http://10.0.{high}.{low}:8000");
        let (node, zone, labels) = Default::default();
        Endpoint { id: url.clone(), url, roles: Roles::SERVE, weight, node, zone, labels }
    };
    Pool { model: "test".into(), endpoints: weights.iter().enumerate().map(endpoint).collect() }
}

impl Case {
    /// An ordinary request: ticket 0, a prompt of 1,000 tokens, no session, nothing excluded.
    pub fn new() -> Self {
        let request = Request {
            ticket: 0,
            seed: 0,
            now_ms: 0,
            attempt: 0,
            priority: 0,
            prompt_tokens: 1_000,
            output_tokens: None,
            session: None,
            tenant: None,
            excluded: None,
            owners: None,
            prefix_hashes: None,
            headers: None,
        };
        Self { request, columns: Vec::new(), scores: None }
    }

    /// Sets the request's number in its pool.
    pub fn ticket(mut self, ticket: u64) -> Self {
        self.request.ticket = ticket;
        self
    }

    /// Sets the length of the prompt.
    pub fn prompt_tokens(mut self, tokens: u32) -> Self {
        self.request.prompt_tokens = tokens;
        self
    }

    /// Gives the request a session with these owners, nearest first.
    pub fn owners(mut self, owners: impl Into<Vec<u32>>) -> Self {
        self.request.session.get_or_insert(1);
        self.request.owners = Some(owners.into());
        self
    }

    /// Sets the chained hashes of the prompt's leading blocks.
    pub fn prefix_hashes(mut self, hashes: impl Into<Vec<u64>>) -> Self {
        self.request.prefix_hashes = Some(hashes.into());
        self
    }

    /// Sets what must not be chosen.
    pub fn excluded(mut self, excluded: impl Into<Vec<u32>>) -> Self {
        self.request.excluded = Some(excluded.into());
        self
    }

    /// Sets one column.
    pub fn column(mut self, signal: Signal, values: impl Into<Vec<f32>>) -> Self {
        self.columns.retain(|(known, _)| *known != signal);
        self.columns.push((signal, values.into()));
        self
    }

    /// Sets what the policies before this one think.
    pub fn scores(mut self, scores: impl Into<Vec<f32>>) -> Self {
        self.scores = Some(scores.into());
        self
    }

    fn fleet(&self, signals: &[Signal], endpoints: usize) -> types::Fleet {
        let column = |signal: &Signal| {
            let set = self.columns.iter().find(|(known, _)| known == signal);
            let values = set.map_or_else(|| vec![f32::NAN; endpoints], |(_, values)| values.clone());
            assert_eq!(values.len(), endpoints, "the column `{}` must fit the pool", signal.name());
            values
        };
        types::Fleet { scores: self.scores.clone(), columns: signals.iter().flat_map(column).collect() }
    }
}

impl Default for Case {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Policy> Harness<P> {
    /// A policy with these settings for this pool.
    ///
    /// # Panics
    /// When the policy refuses the settings; see [`refusal`] for testing that.
    pub fn new(config: &str, pool: &Pool) -> Self {
        let instance = Instance::new();
        if let Err(error) = instance.configure(config) {
            panic!("settings refused at `{}`: {}", error.path, error.message);
        }
        instance.sync(pool);
        Self { instance, endpoints: pool.endpoints.len() }
    }

    /// Asks once, and once more to see that the answer is the same, and checks it as the host does.
    ///
    /// # Panics
    /// On an answer that the host would count as a fault.
    pub fn pick(&self, case: &Case) -> Decision {
        let fleet = case.fleet(P::ABOUT.signals, self.endpoints);
        let decision = self.instance.pick(&case.request, &fleet);
        let again = self.instance.pick(&case.request, &fleet);
        // As text, because NaN differs from itself.
        assert_eq!(format!("{decision:?}"), format!("{again:?}"), "a policy is a pure function");
        self.check(&decision, case);
        decision
    }

    /// Where the request goes: the endpoint, the first of an order, or the best of the scores (the first of equals). `None` when
    /// the policy abstains.
    ///
    /// # Panics
    /// On a faulty answer, or one that is no single endpoint.
    pub fn choose(&self, case: &Case) -> Option<usize> {
        match self.pick(case).choice {
            Choice::Endpoint(endpoint) => Some(endpoint as usize),
            Choice::Ordered(endpoints) => endpoints.first().map(|&endpoint| endpoint as usize),
            Choice::Scores(scores) => {
                let allowed = |at: &usize| self.may_choose(*at, case) && !scores[*at].is_nan();
                let first_best = |best: usize, at: usize| if scores[at] > scores[best] { at } else { best };
                (0..self.endpoints).filter(allowed).reduce(first_best)
            }
            Choice::Abstain => None,
            other => panic!("not a single endpoint: {other:?}"),
        }
    }

    fn check(&self, decision: &Decision, case: &Case) {
        let endpoint =
            |at: u32| assert!(self.may_choose(at as usize, case), "endpoint {at} may not be chosen");
        match &decision.choice {
            Choice::Endpoint(at) => endpoint(*at),
            Choice::Ordered(order) => {
                assert!(!order.is_empty(), "an order names somebody");
                order.iter().for_each(|at| endpoint(*at));
            }
            Choice::Scores(scores) => {
                assert_eq!(scores.len(), self.endpoints, "a score for every endpoint");
                let fits = |score: &f32| score.is_nan() || (0.0..=1.0).contains(score);
                assert!(scores.iter().all(fits), "scores are 0 to 1 or NaN: {scores:?}");
                assert!(scores.iter().any(|score| !score.is_nan()), "somebody has a score");
                let stays = |(at, score): (usize, &f32)| {
                    score.is_nan() || self.may_choose(at, &case.clone().excluded([]))
                };
                assert!(scores.iter().enumerate().all(stays), "what was NaN stays NaN");
            }
            Choice::Disaggregated(pair) => {
                assert_ne!(pair.prefill, pair.decode, "two endpoints");
                [pair.prefill, pair.decode].into_iter().for_each(endpoint);
            }
            Choice::Speculative(pair) => {
                assert_ne!(pair.draft, pair.target, "two endpoints");
                [pair.draft, pair.target].into_iter().for_each(endpoint);
            }
            Choice::Refuse(refusal) => assert!(matches!(refusal.status, 429 | 503), "429 or 503"),
            Choice::Abstain => {}
        }
    }

    fn may_choose(&self, endpoint: usize, case: &Case) -> bool {
        let excluded = case.request.excluded.as_deref().unwrap_or_default();
        endpoint < self.endpoints
            && !excluded.contains(&(endpoint as u32))
            && case.scores.as_ref().is_none_or(|scores| !scores[endpoint].is_nan())
    }
}

/// What a policy says to settings it cannot use.
///
/// # Panics
/// When it accepts them.
pub fn refusal<P: Policy>(config: &str) -> ConfigError {
    match Instance::<P>::new().configure(config) {
        Ok(()) => panic!("these settings were accepted: {config}"),
        Err(error) => error,
    }
}

/// Checks that a policy's description is one the host accepts: a plain name, one line of summary, a schema that is an object's and
/// lets the pool's settings pass.
///
/// # Panics
/// When it is not.
pub fn check_description<P: Policy>() {
    let about = crate::guest::describe::<P>();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    assert!(
        !about.name.is_empty() && about.name.chars().all(plain),
        "a name is lower-case words joined by `-`"
    );
    assert!(!about.summary.is_empty() && !about.summary.contains('\n'), "a summary is one line");
    let schema: serde_json::Value = serde_json::from_str(&about.config_schema).expect("the schema is JSON");
    assert_eq!(schema["type"], "object", "settings are an object");
    assert_eq!(schema["properties"]["pool"]["type"], "object", "the gateway adds the pool's settings");
}
