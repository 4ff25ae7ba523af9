//! What `wicketgate policy run FILE --scenario FILE.json` does: one decision, with everything that led to it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::policy::{Choice, Description, Fault, PrepareFailure, Refusal};
use domain::request::RequestView;
use domain::signal::Signal;
use http::{HeaderName, HeaderValue};
use xxhash_rust::xxh3::xxh3_64;

use crate::answer::{self, Question};
use crate::bindings::wicketgate::routing::types;
use crate::check::spec;
use crate::convert;
use crate::host_state::{LogLine, PolicyLog};
use crate::library::{Library, digest};
use crate::probe;
use crate::rank::{self, Common};
use crate::scenario::{Scenario, ScenarioError, Stage};

/// A decision and its reasons. Indices count endpoints sorted by URL.
#[derive(Clone, Debug)]
pub struct Decided {
    /// Name of the policy.
    pub policy: String,
    /// Why no gateway would let it serve as it is; `None`: it would.
    pub refused: Option<PrepareFailure>,
    /// URLs of the endpoints, by index.
    pub endpoints: Vec<Arc<str>>,
    /// What the policy saw: its signals in its order, one number per endpoint; NaN is unknown.
    pub columns: Vec<(Signal, Vec<f32>)>,
    /// The answer, or the fault it is.
    pub answer: Result<Answered, (Fault, String)>,
    /// Lines it wrote: the reasons it gives itself.
    pub log: Vec<LogLine>,
    /// Fuel that the decision took.
    pub fuel: u64,
    /// Fuel that it might have taken.
    pub fuel_limit: u64,
    /// Time that the decision took.
    pub duration: Duration,
}

/// An answer within the contract.
#[derive(Clone, Debug, PartialEq)]
pub enum Answered {
    /// It ends the chain; with headers for the upstream request.
    Chose(Choice, Vec<(HeaderName, HeaderValue)>),
    /// It hands on scores, one per endpoint; alone, it would lead to `order`.
    Scored {
        /// The scores as the next policy sees them; NaN is ruled out.
        scores: Vec<f32>,
        /// Best first, at most 8.
        order: Vec<u32>,
        /// Headers for the upstream request.
        headers: Vec<(HeaderName, HeaderValue)>,
    },
    /// It turns the request away.
    Refused(Refusal),
    /// It has no opinion.
    Abstained,
    /// It needs a session and there is none: it is not even asked.
    NoSession,
}

/// Why there is no decision.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The scenario makes no sense.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// The policy does not load.
    #[error(transparent)]
    Policy(#[from] PrepareFailure),
    /// The policy did not start with the scenario's pool.
    #[error("the policy does not start: {0}")]
    Start(String),
}

/// Takes the scenario's decision.
///
/// # Errors
/// When the scenario makes no sense, or the component does not load. One that loads and fails its probe is looked at all the
/// same, and a failing `pick` is part of the result.
pub fn run(library: &Library, component: &[u8], scenario: &Scenario) -> Result<Decided, RunError> {
    let stage = scenario.stage()?;
    let config = serde_json::Value::Object(scenario.config.clone()).to_string();
    let spec = spec(component, &config);
    let log = Arc::new(PolicyLog::keeping(spec.name.as_str()));
    let refused = library.ready_now(&spec).err();
    let compiled = library.compiled(digest(component));
    let (recipe, description) = match (&refused, compiled) {
        (_, Some(compiled)) => {
            let recipe = library.recipe(&compiled, &spec, Arc::clone(&log));
            let description = probe::describe(&recipe)?;
            (recipe, description)
        }
        (Some(failure), None) => return Err(failure.clone().into()),
        (None, None) => return Err(RunError::Start("it was forgotten meanwhile".to_owned())),
    };
    // What it said of itself is not part of the decision.
    log.take();
    let mut decided = Decided {
        policy: description.name.clone(),
        refused,
        endpoints: stage.pool.endpoints.iter().map(|endpoint| Arc::clone(&endpoint.spec.id.url)).collect(),
        columns: columns(&description, &stage),
        answer: Ok(Answered::NoSession),
        log: Vec::new(),
        fuel: 0,
        fuel_limit: recipe.pick_fuel(stage.pool.endpoints.len()),
        duration: Duration::ZERO,
    };
    let mut instance = recipe.start(&stage.pool).map_err(|error| RunError::Start(error.to_string()))?;
    let session = scenario.request.session.as_deref();
    if !description.needs_session || session.is_some() {
        let owners = owners(scenario, &stage);
        let headers: Vec<(HeaderName, &str)> =
            stage.headers.iter().map(|(name, value)| (name.clone(), value.as_str())).collect();
        let request = request(scenario, &stage, &owners, &headers);
        let mut flat = Vec::new();
        let columns = convert::columns(&stage.fleet, &description, &mut flat);
        let fleet = types::Fleet { scores: stage.scores.as_deref(), columns };
        let began = Instant::now();
        let decision = instance.pick(&request, &description, fleet);
        decided.duration = began.elapsed();
        decided.fuel = instance.fuel_used();
        decided.answer = match decision {
            Ok(decision) => answered(decision, &stage, &request),
            Err(error) => Err((error.fault, error.to_string())),
        };
    }
    decided.log = log.take();
    Ok(decided)
}

fn columns(description: &Description, stage: &Stage) -> Vec<(Signal, Vec<f32>)> {
    let column = |signal: &Signal| (*signal, stage.fleet.column(*signal).unwrap_or_default().to_vec());
    description.signals.iter().map(column).collect()
}

fn owners(scenario: &Scenario, stage: &Stage) -> Vec<u32> {
    match (&scenario.request.owners, &scenario.request.session) {
        (Some(owners), _) => owners.clone(),
        (None, Some(session)) => stage.pool.ring.owners(session.as_bytes()).to_vec(),
        (None, None) => Vec::new(),
    }
}

fn request<'a>(
    scenario: &'a Scenario,
    stage: &'a Stage,
    owners: &'a [u32],
    headers: &'a [(HeaderName, &'a str)],
) -> RequestView<'a> {
    let asked = &scenario.request;
    let hash = |name: &String| xxh3_64(name.as_bytes());
    RequestView {
        ticket: asked.ticket,
        seed: asked.seed,
        now_ms: asked.now_ms,
        attempt: asked.attempt,
        priority: asked.priority,
        prompt_tokens: asked.prompt_tokens,
        output_tokens: asked.output_tokens,
        session: asked.session.as_ref().map(hash),
        tenant: asked.tenant.as_ref().map(hash),
        excluded: &stage.excluded,
        owners,
        prefix_hashes: &asked.prefix_hashes,
        headers,
    }
}

fn answered(
    decision: types::Decision,
    stage: &Stage,
    request: &RequestView<'_>,
) -> Result<Answered, (Fault, String)> {
    let question =
        Question { pool: &stage.pool, excluded: request.excluded, scores: stage.scores.as_deref() };
    let answer = answer::check(decision, question).map_err(|error| (Fault::Answer, error.to_string()))?;
    let headers = answer.headers;
    Ok(match answer.choice {
        answer::Choice::Endpoint(index) => Answered::Chose(Choice::Endpoint(index), headers),
        answer::Choice::Ordered(list) => Answered::Chose(Choice::Ordered(list), headers),
        answer::Choice::PrefillDecode(prefill, decode) => {
            Answered::Chose(Choice::PrefillDecode { prefill, decode }, headers)
        }
        answer::Choice::DraftTarget(draft, target) => {
            Answered::Chose(Choice::DraftTarget { draft, target }, headers)
        }
        answer::Choice::Scores(scores) => {
            let order =
                rank::best(&scores, (&stage.pool, Common::of(&stage.pool)), request, &stage.fleet).to_vec();
            Answered::Scored { scores, order, headers }
        }
        answer::Choice::Refuse(refusal) => Answered::Refused(refusal),
        answer::Choice::Abstain => Answered::Abstained,
    })
}

#[cfg(test)]
mod tests;
