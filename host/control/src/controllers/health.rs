//! Asks the backends of each `StaticRoute`, and the router that it names, whether they are well, as the leader.
//!
//! A backend is asked `GET /health`, and `GET /v1/models` if it knows no such path; a router `GET /health`. Each has its
//! own period and thresholds (`spec.healthCheck`); what several routes name with the same ones is asked once. At most
//! [`PROBES_MAX`] questions are under way, each bounded in time, and nothing waits for an answer. Whoever waits longest for
//! a place is asked first, so that backends which never answer delay the others, and do not silence them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use domain::name::ObjectName;
use manifest::kind::StaticRoute;
use manifest::kind::static_route::HealthCheck;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{each_term, lost, sleep_until};
use crate::observe::client::{Access, Names};
use crate::publish::{Facts, Report};
use crate::start::stopped;
use crate::status::{BackendHealth, Outcomes, RouterHealth};

mod ask;

use ask::{Answer, ask};

/// Questions under way at a time.
pub(super) const PROBES_MAX: usize = 64;
/// Bounds of what an object may ask for: a period or timeout beyond is taken as this.
const SECONDS_MAX: u64 = 3_600;
/// Longest that one question waits, whatever an object asks for: it holds one of [`PROBES_MAX`] places all the while.
const TIMEOUT_MAX: Duration = Duration::from_secs(30);

/// What the prober is plugged into.
pub(super) struct HealthParts {
    pub(super) reports: watch::Receiver<Report>,
    pub(super) outcomes: watch::Sender<Outcomes>,
    pub(super) leads: watch::Receiver<bool>,
    /// Outlives a term: look-ups do too.
    pub(super) names: Names,
}

/// Whom to ask.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    /// The backend at this base URL.
    Backend(String),
    /// The router behind this Service.
    Router(ObjectName),
}

/// How often to ask, and how many answers in a row count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Timing {
    period: Duration,
    /// At most `period` and [`TIMEOUT_MAX`].
    timeout: Duration,
    successes: u32,
    failures: u32,
}

type Question = (Subject, Timing);

/// What is known of one subject.
#[derive(Debug)]
struct Known {
    due: Instant,
    is_running: bool,
    successes: u32,
    failures: u32,
    verdict: Option<Verdict>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Well,
    Ill(String),
    Missing(String),
}

/// Asks whenever this replica leads, until `stop` turns true (or its sender is gone).
pub(super) async fn run(parts: HealthParts, stop: watch::Receiver<bool>) {
    let leads = parts.leads.clone();
    each_term(parts, leads, stop, |mut parts, mut stop| async move {
        Term::new(&mut parts).serve(&mut stop).await;
        parts.outcomes.send_modify(|outcomes| {
            outcomes.backends.clear();
            outcomes.routers.clear();
        });
        parts
    })
    .await;
}

/// Whom a route wants asked.
#[derive(Debug)]
struct Wanted {
    object: Arc<StaticRoute>,
    backends: BTreeSet<Question>,
    router: Option<Question>,
}

/// What is known while this replica leads.
struct Term<'a> {
    parts: &'a mut HealthParts,
    facts: Arc<Facts>,
    routes: BTreeMap<ObjectName, Wanted>,
    known: BTreeMap<Question, Known>,
    access: Access,
}

impl<'a> Term<'a> {
    fn new(parts: &'a mut HealthParts) -> Self {
        let access = Access::with_system_roots(parts.names.clone());
        Self { parts, facts: Arc::default(), routes: BTreeMap::new(), known: BTreeMap::new(), access }
    }

    async fn serve(&mut self, stop: &mut watch::Receiver<bool>) {
        let mut probes: JoinSet<(Question, Answer)> = JoinSet::new();
        self.take_report();
        loop {
            self.begin(&mut probes);
            let due = self.known.values().filter(|known| !known.is_running).map(|known| known.due).min();
            let is_free = probes.len() < PROBES_MAX;
            tokio::select! {
                () = stopped(stop) => break,
                () = lost(&mut self.parts.leads) => break,
                changed = self.parts.reports.changed() => match changed {
                    Ok(()) => self.take_report(),
                    Err(_) => break,
                },
                Some(ended) = probes.join_next() => if let Ok((question, answer)) = ended {
                    self.settle(&question, answer);
                },
                () = sleep_until(due), if is_free => {}
            }
        }
        probes.shutdown().await;
    }

    /// Takes over who is to be asked now.
    fn take_report(&mut self) {
        self.facts = Arc::clone(&self.parts.reports.borrow_and_update().facts);
        let routes = &self.facts.bundle.static_routes;
        self.routes.retain(|name, _| routes.contains_key(name));
        let mut is_new = false;
        for (name, held) in routes {
            if self.routes.get(name).is_some_and(|wanted| Arc::ptr_eq(&wanted.object, &held.value)) {
                continue;
            }
            is_new = true;
            self.routes.insert(name.clone(), wanted(name, &held.value));
        }
        let live: BTreeSet<&Question> =
            self.routes.values().flat_map(|wanted| wanted.backends.iter().chain(&wanted.router)).collect();
        self.known.retain(|question, _| live.contains(question));
        for question in live {
            if !self.known.contains_key(question) {
                self.known.insert(question.clone(), Known::new());
            }
        }
        let routes = &self.routes;
        self.parts.outcomes.send_if_modified(|outcomes| {
            let before = (outcomes.backends.len(), outcomes.routers.len());
            outcomes.backends.retain(|name, _| routes.contains_key(name));
            outcomes.routers.retain(|name, _| routes.get(name).is_some_and(|wanted| wanted.router.is_some()));
            before != (outcomes.backends.len(), outcomes.routers.len())
        });
        if is_new {
            self.tell(|_| true);
        }
    }

    /// Asks who is due, the earliest first, as long as places are free.
    fn begin(&mut self, probes: &mut JoinSet<(Question, Answer)>) {
        let now = Instant::now();
        let free = PROBES_MAX.saturating_sub(probes.len());
        if free == 0 {
            return;
        }
        let is_due = |known: &Known| !known.is_running && known.due <= now;
        let mut due: Vec<_> = self.known.iter_mut().filter(|(_, known)| is_due(known)).collect();
        due.sort_by_key(|(_, known)| known.due);
        for (question, known) in due.into_iter().take(free) {
            known.is_running = true;
            known.due = now + question.1.period;
            let (question, facts, access) = (question.clone(), Arc::clone(&self.facts), self.access.clone());
            probes.spawn(async move {
                let answer = ask(&question.0, question.1.timeout, &facts, &access).await;
                (question, answer)
            });
        }
    }

    fn settle(&mut self, question: &Question, answer: Answer) {
        let Some(known) = self.known.get_mut(question) else { return };
        known.is_running = false;
        if known.learn(question.1, answer) {
            self.tell(|wanted| {
                wanted.backends.contains(question) || wanted.router.as_ref() == Some(question)
            });
        }
    }

    /// Tells what is known of these routes, as far as all of it is.
    fn tell(&self, which: impl Fn(&Wanted) -> bool) {
        self.parts.outcomes.send_if_modified(|outcomes| {
            let mut is_new = false;
            for (name, wanted) in self.routes.iter().filter(|(_, wanted)| which(wanted)) {
                if let Some(health) = self.backends(wanted) {
                    is_new |=
                        outcomes.backends.insert(name.clone(), health.clone()).as_ref() != Some(&health);
                }
                if let Some(health) = self.router(wanted) {
                    is_new |= outcomes.routers.insert(name.clone(), health.clone()).as_ref() != Some(&health);
                }
            }
            is_new
        });
    }

    /// `None`: some backend has not answered often enough yet.
    fn backends(&self, wanted: &Wanted) -> Option<BackendHealth> {
        let mut health = BackendHealth { total: wanted.backends.len(), ..BackendHealth::default() };
        for question in &wanted.backends {
            let Subject::Backend(url) = &question.0 else { continue };
            match self.known.get(question)?.verdict.as_ref()? {
                Verdict::Well => {}
                Verdict::Ill(why) | Verdict::Missing(why) => _ = health.dead.insert(url.clone(), why.clone()),
            }
        }
        (health.total > 0).then_some(health)
    }

    fn router(&self, wanted: &Wanted) -> Option<RouterHealth> {
        Some(match self.known.get(wanted.router.as_ref()?)?.verdict.clone()? {
            Verdict::Well => RouterHealth::Healthy,
            Verdict::Ill(message) => RouterHealth::Unhealthy { message },
            Verdict::Missing(message) => RouterHealth::Missing { message },
        })
    }
}

impl Known {
    fn new() -> Self {
        Self { due: Instant::now(), is_running: false, successes: 0, failures: 0, verdict: None }
    }

    /// Takes an answer in. Returns whether the verdict changed. The reason of an ill one may change silently: it is told
    /// with the next change, so that a flapping reason writes no status.
    fn learn(&mut self, timing: Timing, answer: Answer) -> bool {
        let verdict = match answer {
            Answer::Well => {
                (self.successes, self.failures) = (self.successes.saturating_add(1), 0);
                (self.successes >= timing.successes).then_some(Verdict::Well)
            }
            Answer::Ill(why) => {
                (self.successes, self.failures) = (0, self.failures.saturating_add(1));
                (self.failures >= timing.failures).then_some(Verdict::Ill(why))
            }
            Answer::Missing(what) => {
                (self.successes, self.failures) = (0, 0);
                Some(Verdict::Missing(what))
            }
        };
        let Some(verdict) = verdict else { return false };
        let is_same =
            self.verdict.as_ref().map(std::mem::discriminant) == Some(std::mem::discriminant(&verdict));
        if !is_same {
            self.verdict = Some(verdict);
        }
        !is_same
    }
}

fn wanted(name: &ObjectName, route: &Arc<StaticRoute>) -> Wanted {
    let timing = timing(route.spec.health_check.as_ref());
    let backends = route.spec.static_backends.split(',').map(str::trim).filter(|url| !url.is_empty());
    let router = route.spec.router_ref.as_ref().and_then(|to| {
        let is_service = to.kind.as_deref().is_none_or(|kind| kind == "Service");
        let service = to.name.as_deref().filter(|name| is_service && !name.is_empty())?;
        let namespace = to.namespace.as_deref().unwrap_or(&name.namespace);
        Some((Subject::Router(ObjectName::new(namespace, service)), timing))
    });
    Wanted {
        object: Arc::clone(route),
        backends: backends.map(|url| (Subject::Backend(url.to_owned()), timing)).collect(),
        router,
    }
}

fn timing(check: Option<&HealthCheck>) -> Timing {
    let seconds =
        |seconds: i32| Duration::from_secs(u64::try_from(seconds).unwrap_or(1).clamp(1, SECONDS_MAX));
    let times = |times: i32| u32::try_from(times).unwrap_or(1).max(1);
    let (period, timeout, successes, failures) = check.map_or((10, 5, 1, 3), |check| {
        (check.period_seconds, check.timeout_seconds, check.success_threshold, check.failure_threshold)
    });
    let period = seconds(period);
    Timing {
        period,
        // A question that outlasts its period would hold its place for ever.
        timeout: seconds(timeout).min(period).min(TIMEOUT_MAX),
        successes: times(successes),
        failures: times(failures),
    }
}

#[cfg(test)]
mod tests;
