//! The last check before a policy may serve: does it start, does it answer within the contract, and does it give the same
//! answer to the same question?

use std::fmt;

use domain::endpoint::Roles;
use domain::policy::{Description, Fault, PrepareFailure};
use domain::pool::Pool;
use domain::request::{Fleet, RequestView};
use domain::signal::{Signal, SignalSet};
use http::HeaderName;

use crate::answer::{self, AnswerError, Question};
use crate::bindings::wicketgate::routing::types;
use crate::convert;
use crate::description;
use crate::inspect::refuse;
use crate::instance::{CallError, Instance, Recipe, StartError};
use crate::made_up;

/// Endpoints of the made-up pool.
const ENDPOINTS: usize = 4;

/// What a probe saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// The answer to each of the two questions, as text.
    pub answers: [String; 2],
    /// Fuel that each took.
    pub fuel: [u64; 2],
}

/// One made-up question.
struct Case {
    fleet: Fleet,
    scores: Option<Vec<f32>>,
    excluded: Vec<u32>,
    request: RequestView<'static>,
}

/// Starts two instances and asks them two questions, in both orders, the first one both ways. Every answer must be within
/// the contract, and the same each time.
///
/// # Errors
/// `ConfigRejected`, `ProbeFailed` or `Impure`.
pub(crate) fn probe(recipe: &Recipe, description: &Description) -> Result<Probed, PrepareFailure> {
    let pool = pool();
    let headers: Vec<(HeaderName, &str)> =
        description.headers.iter().map(|name| (name.clone(), "made-up")).collect();
    let cases = [case(0, description), case(1, description)];
    let mut probed = Probed { answers: Default::default(), fuel: [0; 2] };
    let mut wrong = None;
    for order in [&[0, 1, 1, 0][..], &[1, 0]] {
        let mut instance = recipe.start(&pool).map_err(start_failure)?;
        for &which in order {
            let (answer, checked) = ask(&mut instance, &pool, &cases[which], &headers, description)?;
            wrong = wrong.or(checked.err());
            let before = &mut probed.answers[which];
            if before.is_empty() {
                *before = answer;
                probed.fuel[which] = instance.fuel_used();
            } else if *before != answer {
                return Err(impure(before, &answer));
            }
        }
    }
    // Purity comes first: an answer that depends on chance is wrong by chance too.
    wrong.map_or(Ok(probed), |error| Err(probe_failed(&error)))
}

/// What a policy says of itself, by two instances: both must say the same.
///
/// # Errors
/// `ProbeFailed`, `Impure`, `UnknownSignal` or `InvalidComponent`.
pub(crate) fn describe(recipe: &Recipe) -> Result<Description, PrepareFailure> {
    let first = recipe.describe().map_err(start_failure)?;
    let second = recipe.describe().map_err(start_failure)?;
    if format!("{first:?}") != format!("{second:?}") {
        return Err(refuse(
            "Impure",
            "asked twice it described itself differently",
            "return the same description every time",
        ));
    }
    description::check(first)
}

fn impure(before: &str, after: &str) -> PrepareFailure {
    refuse(
        "Impure",
        format!("asked the same twice it answered `{before}` and then `{after}`"),
        "decide by the arguments alone: use `ticket` instead of a counter, `seed` instead of a generator",
    )
}

/// Why a policy that does not start does not load.
pub(crate) fn start_failure(error: StartError) -> PrepareFailure {
    match error {
        StartError::Config(types::ConfigError { path, message }) => PrepareFailure {
            reason: "ConfigRejected",
            message,
            config_path: Some(path),
            remedy:
                "see the schema that `wicketgate policy check` prints; its `--config JSON` tries settings"
                    .to_owned(),
        },
        StartError::Failed(error) => call_failed(&error),
    }
}

/// The failure of a policy that does not get through a made-up question.
fn probe_failed(error: &impl fmt::Display) -> PrepareFailure {
    refuse(
        "ProbeFailed",
        format!("on made-up fleets it fails: {error}"),
        "look at one decision with `wicketgate policy run FILE --scenario SCENARIO.json`",
    )
}

/// The same of a call that did not come to its end.
fn call_failed(error: &CallError) -> PrepareFailure {
    let failure = probe_failed(error);
    let remedy = match error.fault {
        Fault::Fuel => {
            "do less in this call, or raise `limits.fuelFactor` of the RoutingPolicy, at most to 10"
        }
        Fault::Memory => "use less memory, or raise `limits.memory` of the RoutingPolicy, at most to 16Mi",
        _ => return failure,
    };
    PrepareFailure { remedy: remedy.to_owned(), ..failure }
}

/// The answer as text, and whether it is within the contract.
fn ask(
    instance: &mut Instance,
    pool: &Pool,
    case: &Case,
    headers: &[(HeaderName, &str)],
    description: &Description,
) -> Result<(String, Result<(), AnswerError>), PrepareFailure> {
    let mut scratch = Vec::new();
    let columns = convert::columns(&case.fleet, description, &mut scratch);
    let request = RequestView { excluded: &case.excluded, headers, ..case.request };
    let fleet = types::Fleet { scores: case.scores.as_deref(), columns };
    let decision = instance.pick(&request, description, fleet).map_err(|error| call_failed(&error))?;
    // Debug text tells every number apart and calls all NaN the same.
    let answer = format!("{decision:?}");
    let question = Question { pool, excluded: &case.excluded, scores: case.scores.as_deref() };
    Ok((answer, answer::check(decision, question).map(drop)))
}

/// Engines that can do everything, so that no answer is refused for a role.
fn pool() -> Pool {
    let roles = Roles { serve: true, prefill: true, decode: true, draft: true };
    let endpoint = |index: usize| {
        let mut spec =
            made_up::endpoint(&format!("http://192.0.2.{}:8000", index + 1), roles, index as u32 % 2 + 1);
        spec.node = format!("node-{}", index / 2).into();
        spec.zone = "zone-1".into();
        spec.labels = vec![("tier".into(), "made-up".into())];
        spec
    };
    made_up::pool("made-up", (0..ENDPOINTS).map(endpoint).collect(), Vec::new())
}

/// The first question is rich: everything known, a session. The second has gaps, scores, and somebody excluded.
fn case(which: usize, description: &Description) -> Case {
    let set: SignalSet = description.signals.iter().copied().collect();
    let values = set.iter().flat_map(|signal| (0..ENDPOINTS).map(move |at| value(signal, at, which == 1)));
    let rich = which == 0;
    Case {
        fleet: Fleet::from_columns(set, ENDPOINTS, values.collect()),
        scores: (!rich).then(|| vec![0.25, f32::NAN, 0.75, 0.75]),
        excluded: if rich { Vec::new() } else { vec![0] },
        request: RequestView {
            ticket: 41 + which as u64,
            seed: 0x9E37_79B9_7F4A_7C15,
            now_ms: 1_000_000,
            attempt: u32::from(!rich),
            priority: 0,
            prompt_tokens: 1_000,
            output_tokens: rich.then_some(256),
            session: (rich || description.needs_session).then_some(7),
            tenant: rich.then_some(11),
            excluded: &[],
            owners: if rich || description.needs_session { &[2, 3, 1] } else { &[] },
            prefix_hashes: if rich { &[3, 5, 8, 13] } else { &[] },
            headers: &[],
        },
    }
}

fn value(signal: Signal, at: usize, gaps: bool) -> f32 {
    let step = (at * 7 % ENDPOINTS) as f32;
    match signal {
        Signal::Weight => (at % 2 + 1) as f32,
        Signal::Inflight => step,
        Signal::InflightTokens | Signal::RecentTokens => step * 500.0,
        Signal::CachedTokens => {
            if at == 1 {
                800.0
            } else {
                0.0
            }
        }
        _ if gaps && at % 2 == 1 => f32::NAN,
        Signal::Queued | Signal::Running => step + 1.0,
        Signal::FirstTokenMs | Signal::TokenMs | Signal::AgeMs => step * 40.0 + 20.0,
        Signal::KvUsage | Signal::GpuUtil | Signal::GpuMemory | Signal::Errors | Signal::Acceptance => {
            step / 4.0
        }
    }
}
