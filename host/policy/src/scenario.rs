//! One decision written down as JSON, for `wicketgate policy run FILE --scenario FILE.json`. The format: [`Scenario`].

use std::collections::BTreeMap;

use domain::endpoint::Roles;
use domain::pool::Pool;
use domain::request::Fleet;
use domain::signal::{Signal, SignalSet};
use http::HeaderName;
use serde::Deserialize;

use crate::made_up;

/// A decision to take.
///
/// ```json
/// {
///   "config": {"beta": 0.5},
///   "pool": {
///     "model": "llama-3-8b",
///     "endpoints": [
///       {"url": "http://10.0.0.1:8000"},
///       {"url": "http://10.0.0.2:8000", "weight": 2, "roles": ["serve"], "node": "n1", "zone": "a", "labels": {"tier": "gold"}}
///     ]
///   },
///   "columns": {"inflight": [3, 0], "kv-usage": [0.5, null]},
///   "scores": [0.5, null],
///   "request": {
///     "ticket": 7, "seed": 1, "nowMs": 1000, "attempt": 0, "priority": 0, "promptTokens": 1200, "outputTokens": 256,
///     "session": "user-42", "tenant": "acme", "excluded": [1], "owners": [0], "prefixHashes": [17, 18],
///     "headers": {"x-tier": "gold"}
///   }
/// }
/// ```
///
/// Only `pool.endpoints` is required. Endpoints are sorted by URL first, as in the gateway, with their columns; indices in
/// the request count after that. A `null` in a column is unknown, in `scores` it rules an endpoint out. A column that is
/// left out is 0 where the gateway always knows it (`inflight`, `inflight-tokens`, `recent-tokens`, `cached-tokens`),
/// the endpoints' own `weight`, and else unknown. `session` and `tenant` are names, hashed as the gateway does; `owners` follow from the
/// session unless given.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The policy's settings; `{}` by default.
    #[serde(default)]
    pub config: serde_json::Map<String, serde_json::Value>,
    /// The pool.
    pub pool: ScenarioPool,
    /// Numbers by signal, one per endpoint; `null` is unknown.
    #[serde(default)]
    pub columns: BTreeMap<String, Vec<Option<f32>>>,
    /// Scores of the policies before; `null` rules an endpoint out. Absent: none gave any.
    pub scores: Option<Vec<Option<f32>>>,
    /// The request.
    #[serde(default)]
    pub request: ScenarioRequest,
}

/// The pool of a scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioPool {
    /// Name of the model; `model` by default.
    #[serde(default = "default_model")]
    pub model: String,
    /// At least one.
    pub endpoints: Vec<ScenarioEndpoint>,
}

/// An endpoint of a scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScenarioEndpoint {
    /// Base URL; must differ from the others'.
    pub url: String,
    /// Relative capacity, 1 by default.
    #[serde(default = "default_weight")]
    pub weight: u32,
    /// `serve` (the default), `prefill`, `decode`, `draft`.
    #[serde(default)]
    pub roles: Vec<Role>,
    /// Node name.
    #[serde(default)]
    pub node: String,
    /// Failure domain.
    #[serde(default)]
    pub zone: String,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// A role of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Whole requests.
    Serve,
    /// The prefill leg.
    Prefill,
    /// The decode leg.
    Decode,
    /// Draft model of a speculative pair.
    Draft,
}

/// The request of a scenario. Everything is 0 or absent by default.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ScenarioRequest {
    /// Position in the pool.
    pub ticket: u64,
    /// Random bits.
    pub seed: u64,
    /// The clock, milliseconds.
    pub now_ms: u64,
    /// How often the chain ran before.
    pub attempt: u32,
    /// Smaller is more urgent.
    pub priority: i32,
    /// Length of the prompt, tokens.
    pub prompt_tokens: u32,
    /// The client's output limit, tokens.
    pub output_tokens: Option<u32>,
    /// Name of the session.
    pub session: Option<String>,
    /// Name of the tenant.
    pub tenant: Option<String>,
    /// Endpoints that must not be chosen.
    pub excluded: Vec<u32>,
    /// The session's owners; by default those of the session ring.
    pub owners: Option<Vec<u32>>,
    /// Hashes of the prompt's blocks.
    pub prefix_hashes: Vec<u64>,
    /// Request headers.
    pub headers: BTreeMap<String, String>,
}

/// What is wrong with a scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// Not the JSON that is documented.
    #[error("the scenario cannot be read")]
    Json(#[from] serde_json::Error),
    /// There is no endpoint.
    #[error("`pool.endpoints` names no endpoint")]
    NoEndpoint,
    /// Two endpoints are the same.
    #[error("`pool.endpoints` names {0} twice")]
    TwiceTheSame(String),
    /// The gateway has no such signal.
    #[error("`columns` names the signal `{0}`, which the gateway does not have")]
    UnknownSignal(String),
    /// A column or the scores have the wrong length.
    #[error("`{name}` has {given} numbers for {endpoints} endpoints")]
    Length {
        /// The column, or `scores`.
        name: String,
        /// How many there are.
        given: usize,
        /// How many there should be.
        endpoints: usize,
    },
    /// An index names nobody.
    #[error("`request.{list}` names endpoint {index}, which the pool does not have")]
    Index {
        /// `excluded` or `owners`.
        list: &'static str,
        /// The index.
        index: u32,
    },
    /// Not a header name.
    #[error("`request.headers` names `{0}`, which is not a lower-case header name")]
    Header(String),
}

/// A scenario in the gateway's own types.
pub(crate) struct Stage {
    pub(crate) pool: Pool,
    pub(crate) fleet: Fleet,
    pub(crate) scores: Option<Vec<f32>>,
    pub(crate) headers: Vec<(HeaderName, String)>,
    /// Ascending.
    pub(crate) excluded: Vec<u32>,
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// When it is not the JSON documented above.
    pub fn parse(json: &[u8]) -> Result<Self, ScenarioError> {
        Ok(serde_json::from_slice(json)?)
    }

    /// Sets the stage for a decision.
    pub(crate) fn stage(&self) -> Result<Stage, ScenarioError> {
        let len = self.pool.endpoints.len();
        if len == 0 {
            return Err(ScenarioError::NoEndpoint);
        }
        let mut order: Vec<usize> = (0..len).collect();
        order.sort_by(|a, b| self.pool.endpoints[*a].url.cmp(&self.pool.endpoints[*b].url));
        let same = |pair: &&[usize]| self.pool.endpoints[pair[0]].url == self.pool.endpoints[pair[1]].url;
        if let Some(pair) = order.windows(2).find(same) {
            return Err(ScenarioError::TwiceTheSame(self.pool.endpoints[pair[0]].url.clone()));
        }
        let specs = order.iter().map(|index| self.pool.endpoints[*index].spec()).collect();
        for (list, indices) in [
            ("excluded", &self.request.excluded),
            ("owners", self.request.owners.as_ref().unwrap_or(&Vec::new())),
        ] {
            if let Some(index) = indices.iter().find(|index| **index as usize >= len) {
                return Err(ScenarioError::Index { list, index: *index });
            }
        }
        let scores = self.scores.as_ref().map(|scores| sorted("scores", scores, &order)).transpose()?;
        let mut excluded = self.request.excluded.clone();
        excluded.sort_unstable();
        excluded.dedup();
        Ok(Stage {
            pool: made_up::pool(&self.pool.model, specs, Vec::new()),
            fleet: self.fleet(&order)?,
            scores,
            headers: self.headers()?,
            excluded,
        })
    }

    fn fleet(&self, order: &[usize]) -> Result<Fleet, ScenarioError> {
        if let Some(name) = self.columns.keys().find(|name| Signal::from_name(name).is_none()) {
            return Err(ScenarioError::UnknownSignal(name.clone()));
        }
        let set: SignalSet = Signal::ALL.into_iter().collect();
        let mut values = Vec::with_capacity(set.len() * order.len());
        for signal in set.iter() {
            match self.columns.get(signal.name()) {
                Some(column) => values.extend(sorted(signal.name(), column, order)?),
                None => values.extend(order.iter().map(|index| match signal {
                    Signal::Weight => self.pool.endpoints[*index].weight as f32,
                    Signal::Inflight
                    | Signal::InflightTokens
                    | Signal::RecentTokens
                    | Signal::CachedTokens => 0.0,
                    _ => f32::NAN,
                })),
            }
        }
        Ok(Fleet::from_columns(set, order.len(), values))
    }

    fn headers(&self) -> Result<Vec<(HeaderName, String)>, ScenarioError> {
        let headers = self.request.headers.iter();
        headers
            .map(|(name, value)| {
                let header = HeaderName::from_lowercase(name.as_bytes());
                Ok((header.map_err(|_| ScenarioError::Header(name.clone()))?, value.clone()))
            })
            .collect()
    }
}

impl ScenarioEndpoint {
    fn spec(&self) -> domain::endpoint::EndpointSpec {
        let has = |role| self.roles.contains(&role);
        let roles = Roles {
            serve: has(Role::Serve) || self.roles.is_empty(),
            prefill: has(Role::Prefill),
            decode: has(Role::Decode),
            draft: has(Role::Draft),
        };
        let mut spec = made_up::endpoint(&self.url, roles, self.weight.max(1));
        spec.node = self.node.as_str().into();
        spec.zone = self.zone.as_str().into();
        spec.labels =
            self.labels.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect();
        spec
    }
}

/// Numbers in the order of the sorted endpoints.
fn sorted(name: &str, numbers: &[Option<f32>], order: &[usize]) -> Result<Vec<f32>, ScenarioError> {
    if numbers.len() != order.len() {
        let (given, endpoints) = (numbers.len(), order.len());
        return Err(ScenarioError::Length { name: name.to_owned(), given, endpoints });
    }
    Ok(order.iter().map(|index| numbers[*index].unwrap_or(f32::NAN)).collect())
}

fn default_model() -> String {
    "model".to_owned()
}

fn default_weight() -> u32 {
    1
}
