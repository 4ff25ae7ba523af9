//! The pages of the two admin listeners.

use std::sync::Arc;
use std::time::{Duration, Instant};

use domain::finding::Finding;
use domain::published::Published;
use hyper::StatusCode;
use proxy::Workers;
use proxy::metrics::{Board, MetricsPage};
use serde_json::{Value, json};
use tokio::sync::watch;

mod snapshot;

use crate::admin::{Page, PageFuture, Pages};

/// A worker that has not beaten for this long hangs, and liveness fails.
pub(crate) const BEAT_AGE_MAX: Duration = Duration::from_secs(10);
/// Decisions that `/explain` shows.
const EXPLAINED: usize = 50;

/// Whether the gateway takes requests, as probes see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No snapshot yet.
    Starting,
    /// Waiting for the engines' first answers, for a bounded time.
    Asking,
    /// Serving.
    Ready,
    /// Told to end.
    Draining,
}

/// Probes: `/livez` and `/healthz` fail when a worker hangs, `/readyz` until a snapshot is in force and from SIGTERM on.
pub(crate) fn probes(phase: watch::Receiver<Phase>, workers: Workers) -> Pages {
    let page = move |path: &str| match path {
        "/livez" | "/healthz" => {
            let hung = workers.states().iter().position(|worker| worker.beat_age > BEAT_AGE_MAX);
            match hung {
                None => Page::text(StatusCode::OK, "ok\n"),
                Some(worker) => {
                    Page::text(StatusCode::SERVICE_UNAVAILABLE, format!("worker {worker} does not answer\n"))
                }
            }
        }
        "/readyz" => match *phase.borrow() {
            Phase::Ready => Page::text(StatusCode::OK, "ok\n"),
            Phase::Starting => Page::text(StatusCode::SERVICE_UNAVAILABLE, "no configuration in force yet\n"),
            Phase::Asking => {
                Page::text(StatusCode::SERVICE_UNAVAILABLE, "waiting for the engines' first answers\n")
            }
            Phase::Draining => Page::text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        },
        _ => Page::not_found(),
    };
    Arc::new(move |path, _| now(page(path)))
}

/// A page that is there at once.
fn now(page: Page) -> PageFuture {
    Box::pin(std::future::ready(page))
}

/// What the admin pages show.
pub(crate) struct Sources {
    /// All metrics.
    pub(crate) metrics: MetricsPage,
    /// What is in force.
    pub(crate) published: Published,
    /// What is wrong.
    pub(crate) reports: watch::Receiver<control::publish::Report>,
    /// Decisions.
    pub(crate) board: Arc<Board>,
    /// When the gateway's clock began.
    pub(crate) epoch: Instant,
}

/// Metrics and the pages for operators.
pub(crate) fn admin(sources: Sources) -> Pages {
    Arc::new(move |path, _| match path {
        "/metrics" => metrics(sources.metrics.clone()),
        _ => now(page(&sources, path)),
    })
}

fn page(sources: &Sources, path: &str) -> Page {
    match path {
        "/findings" => {
            let report = sources.reports.borrow().clone();
            let findings: Vec<Value> = report.findings.iter().map(finding).collect();
            Page::json(&json!({ "generation": report.generation.0, "findings": findings }))
        }
        "/snapshot" => {
            let now_ms = sources.epoch.elapsed().as_millis() as u64;
            let facts = Arc::clone(&sources.reports.borrow().facts);
            Page::json(&snapshot::page(&sources.published.load_full(), &facts.bundle.models, now_ms))
        }
        "/explain" => Page::json(&json!({ "decisions": sources.board.log().last(EXPLAINED) })),
        "/" => {
            Page::text(StatusCode::OK, "/metrics\n/findings\n/snapshot\n/explain\n/explain/<request id>\n")
        }
        _ => match path.strip_prefix("/explain/") {
            Some(id) => {
                let decisions = sources.board.log().find(id);
                if decisions.is_empty() {
                    Page::text(StatusCode::NOT_FOUND, "no decision about this request is remembered\n")
                } else {
                    Page::json(&json!({ "decisions": decisions }))
                }
            }
            None => Page::not_found(),
        },
    }
}

fn metrics(page: MetricsPage) -> PageFuture {
    Box::pin(async move {
        match page.render().await {
            Some(body) => Page { status: StatusCode::OK, content_type: MetricsPage::CONTENT_TYPE, body },
            None => Page::text(StatusCode::SERVICE_UNAVAILABLE, "the gateway is ending\n"),
        }
    })
}

/// A finding as JSON.
pub(crate) fn finding(finding: &Finding) -> Value {
    json!({
        "severity": finding.severity.as_str(),
        "object": &*finding.object,
        "file": &*finding.origin.file,
        "line": finding.origin.line,
        "column": finding.origin.column,
        "field": finding.field,
        "reason": finding.reason,
        "message": finding.message,
        "remedy": finding.remedy,
    })
}
