//! One probe: ask, read, and say what was learnt.

use std::sync::Arc;
use std::time::Duration;

use domain::name::ModelName;
use http::StatusCode;
use manifest::ListedModel;
use serde_json::value::RawValue;

use super::client::{Access, ProbeError, Question, get, get_whole};
use super::models::{cards, from_loaded, from_openai, is_sleeping};
use super::page::Scanner;
use super::schedule::{Job, Probe, Target};
use crate::Clock;

/// Largest metrics page that is read, bytes. Pages are scanned as they stream, so this bounds time, not memory.
pub const PAGE_BYTES_MAX: usize = 4 << 20;
/// Largest model list that is read, bytes.
pub const MODELS_BYTES_MAX: usize = 1 << 20;
/// Largest answer about sleeping, bytes.
const SLEEP_BYTES_MAX: usize = 4 << 10;

/// Time that a probe may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// For a metrics page; shorter than the interval.
    pub metrics: Duration,
    /// For everything else.
    pub other: Duration,
}

/// What a probe brought.
#[derive(Debug)]
pub(super) enum Answer {
    /// The endpoint's cells are up to date.
    Stored,
    /// The engine's list, and its cards where it has such.
    Models(Arc<[ListedModel]>, Vec<(ModelName, Box<RawValue>)>),
    /// Nothing.
    Failed(ProbeError),
}

impl Answer {
    /// Whether the engine does not know the question at all.
    pub(super) fn is_unknown(&self) -> bool {
        const UNKNOWN: [StatusCode; 3] =
            [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED, StatusCode::NOT_IMPLEMENTED];
        matches!(self, Self::Failed(ProbeError::Status(status)) if UNKNOWN.contains(status))
    }
}

impl Job {
    /// Whether the answer shows that the port that requests go to accepts connections, or refuses them. `None`: it shows
    /// neither; a probe that is late may wait for a busy engine.
    pub(super) fn reached(&self, answer: &Answer) -> Option<bool> {
        let spec = &self.target.spec;
        if self.probe == Probe::Metrics && spec.metrics.port.is_some_and(|port| port != spec.target.port) {
            return None;
        }
        match answer {
            Answer::Failed(ProbeError::Connect(_)) => Some(false),
            Answer::Failed(
                ProbeError::Tls(_) | ProbeError::Exchange(_) | ProbeError::Target(_) | ProbeError::Timeout,
            ) => None,
            Answer::Stored | Answer::Models(..) | Answer::Failed(_) => Some(true),
        }
    }
}

/// Runs a probe within its time. Dropping the future closes the connection.
pub(super) async fn run(job: &Job, access: Access, limits: Limits, clock: Clock) -> Answer {
    let limit = if job.probe == Probe::Metrics { limits.metrics } else { limits.other };
    let asked = async {
        match job.probe {
            Probe::Metrics => metrics(&job.target, access, clock).await.map(|()| Answer::Stored),
            Probe::Models => models(&job.target, access).await,
            Probe::Sleep => sleep(&job.target, access).await.map(|()| Answer::Stored),
        }
    };
    match tokio::time::timeout(limit, asked).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => Answer::Failed(error),
        Err(_) => Answer::Failed(ProbeError::Timeout),
    }
}

async fn metrics(target: &Target, access: Access, clock: Clock) -> Result<(), ProbeError> {
    let page = &target.spec.metrics;
    let mut question = Question {
        target: target.spec.target.clone(),
        address: None,
        auth: target.spec.auth.clone(),
        access,
        port: page.port,
        path: Arc::clone(&page.path),
        accept: "text/plain",
        bytes_max: PAGE_BYTES_MAX,
    };
    question.target.tls &= !page.is_plain;
    let mut scanner = Scanner::default();
    get(&question, |piece| scanner.feed(piece)).await?;
    let reading = scanner.finish().map_err(ProbeError::Unread)?;
    if let Some(state) = &target.state {
        state.store_reading(&reading, clock.now_ms());
    }
    Ok(())
}

async fn models(target: &Target, access: Access) -> Result<Answer, ProbeError> {
    let mut question = json_question(target, access, "/v1/models", MODELS_BYTES_MAX);
    match get_whole(&question).await {
        Ok(body) => {
            let models = from_openai(&body).ok_or(ProbeError::Content)?;
            Ok(Answer::Models(models, cards(&body)))
        }
        Err(ProbeError::Status(StatusCode::NOT_FOUND)) => {
            question.path = "/api/ps".into();
            let body = get_whole(&question).await?;
            let models = from_loaded(&body).ok_or(ProbeError::Content)?;
            Ok(Answer::Models(models, Vec::new()))
        }
        Err(error) => Err(error),
    }
}

async fn sleep(target: &Target, access: Access) -> Result<(), ProbeError> {
    let question = json_question(target, access, "/is_sleeping", SLEEP_BYTES_MAX);
    let asked = target.state.as_ref().map(|state| (state, state.ask_sleep(&target.spec)));
    let asleep = is_sleeping(&get_whole(&question).await?).ok_or(ProbeError::Content)?;
    if let Some((state, question)) = asked {
        state.answer_sleep(question, asleep);
    }
    Ok(())
}

fn json_question(target: &Target, access: Access, path: &str, bytes_max: usize) -> Question {
    Question {
        target: target.spec.target.clone(),
        address: None,
        auth: target.spec.auth.clone(),
        access,
        port: None,
        path: path.into(),
        accept: "application/json",
        bytes_max,
    }
}
