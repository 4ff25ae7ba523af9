//! The prober against engines on loopback.

use manifest::{Change, decode};

use super::*;
use crate::fake::{FakePrepare, PATIENCE, document};
use crate::index::Index;
use crate::observe::fake_engine::{FakeEngine, Script, self_signed};
use crate::publish::{Core, Input};
use crate::source::Burst;

const CHECK: &str =
    r#""healthCheck":{"timeoutSeconds":1,"periodSeconds":1,"successThreshold":1,"failureThreshold":2}"#;

struct Rig {
    core: Core,
    reports: watch::Sender<Report>,
    outcomes: watch::Sender<Outcomes>,
    leads: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Rig {
    fn start() -> Self {
        let reports = watch::Sender::new(Report::default());
        let outcomes = watch::Sender::new(Outcomes::default());
        let (leads, stop) = (watch::Sender::new(true), watch::Sender::new(false));
        let parts = HealthParts {
            reports: reports.subscribe(),
            outcomes: outcomes.clone(),
            leads: leads.subscribe(),
            names: Names::default(),
        };
        let task = tokio::spawn(run(parts, stop.subscribe()));
        Self { core: Core::new(Index::default()), reports, outcomes, leads, stop, task }
    }

    fn apply(&mut self, text: &str) {
        let decoded = decode(&"m.yaml".into(), text.as_bytes());
        assert!(decoded.findings.is_empty(), "{:?}", decoded.findings);
        let changes = decoded.objects.into_iter().map(|object| Change::Applied(Arc::new(object))).collect();
        let burst = Burst { source: "test", changes, findings: Vec::new() };
        self.core.apply([Input::Burst(burst)], &FakePrepare::default());
        self.reports.send_modify(|report| {
            report.bursts += 1;
            report.facts = Arc::new(self.core.facts());
        });
    }

    async fn until(&self, what: &str, holds: impl Fn(&Outcomes) -> bool) {
        let mut outcomes = self.outcomes.subscribe();
        let reached = tokio::time::timeout(PATIENCE, outcomes.wait_for(|now| holds(now))).await;
        assert!(reached.is_ok(), "never: {what}");
    }

    async fn end(self) {
        self.stop.send_replace(true);
        self.task.await.expect("a clean end");
    }
}

fn name() -> ObjectName {
    ObjectName::new("default", "r")
}

fn route(backends: &str, more: &str) -> String {
    let models = backends.split(',').map(|_| "m").collect::<Vec<_>>().join(",");
    let spec = format!(r#"{{"staticBackends":"{backends}","staticModels":"{models}",{more}{CHECK}}}"#);
    document("StaticRoute", "r", &spec)
}

/// A Service `router` whose pod is this engine.
fn router(port: u16) -> String {
    format!(
        r#"---
{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"router"}},"spec":{{"ports":[{{"name":"http","port":80}}]}}}}
---
{{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{{"name":"router-1","labels":{{"kubernetes.io/service-name":"router"}}}},"addressType":"IPv4","ports":[{{"name":"http","port":{port}}}],"endpoints":[{{"addresses":["127.0.0.1"],"conditions":{{"ready":true}}}}]}}
"#
    )
}

#[tokio::test]
async fn a_dead_backend_is_named_and_one_without_a_health_path_is_asked_for_its_models() {
    let engine = FakeEngine::start().await;
    engine.on("/health", Script::Answer(404, String::new()));
    engine.on("/v1/models", Script::Answer(200, "{}".to_owned()));
    let mut rig = Rig::start();
    let alive = format!("http://127.0.0.1:{}", engine.port);
    let dead = "http://127.0.0.1:1";
    rig.apply(&route(&format!("{alive},{dead}"), ""));
    rig.until("one is dead", |now| {
        now.backends.get(&name()).is_some_and(|health| health.total == 2 && health.dead.keys().eq([dead]))
    })
    .await;
    rig.apply(&route(&alive, ""));
    rig.until("all are well", |now| now.backends.get(&name()).is_some_and(|health| health.dead.is_empty()))
        .await;
    rig.leads.send_replace(false);
    rig.until("forgotten", |now| now.backends.is_empty()).await;
    rig.end().await;
}

#[tokio::test]
async fn a_router_is_missing_then_well_then_ill_then_well_again() {
    let engine = FakeEngine::start().await;
    engine.on("/health", Script::Answer(200, "{}".to_owned()));
    let mut rig = Rig::start();
    let route = route("http://127.0.0.1:1", r#""routerRef":{"kind":"Service","name":"router"},"#);
    rig.apply(&route);
    rig.until("it is missing", |now| matches!(now.routers.get(&name()), Some(RouterHealth::Missing { .. })))
        .await;
    rig.apply(&router(engine.port));
    rig.until("it is well", |now| now.routers.get(&name()) == Some(&RouterHealth::Healthy)).await;
    engine.on("/health", Script::Answer(500, String::new()));
    rig.until("it is ill", |now| {
        matches!(now.routers.get(&name()), Some(RouterHealth::Unhealthy { message }) if message.contains("500"))
    })
    .await;
    engine.on("/health", Script::Answer(200, "{}".to_owned()));
    rig.until("it is well again", |now| now.routers.get(&name()) == Some(&RouterHealth::Healthy)).await;
    rig.end().await;
}

/// A listener that accepts nobody: connections to it wait for ever.
fn black_hole() -> (std::net::TcpListener, u16) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    (listener, port)
}

#[tokio::test(start_paused = true)]
async fn backends_that_never_answer_silence_nobody() {
    let (_listener, port) = black_hole();
    let mut rig = Rig::start();
    let silent = (0..PROBES_MAX).map(|n| format!("http://127.0.0.1:{port}/{n:02}")).collect::<Vec<_>>();
    // A router sorts behind every backend, and that it is missing is known without a connection.
    rig.apply(&route(&silent.join(","), r#""routerRef":{"kind":"Service","name":"router"},"#));
    rig.until("the router is asked", |now| now.routers.contains_key(&name())).await;
    rig.until("the backends are ill", |now| {
        now.backends.get(&name()).is_some_and(|health| health.dead.len() == PROBES_MAX)
    })
    .await;
    rig.end().await;
}

#[tokio::test]
async fn who_is_ill_says_why_down_to_the_cause() {
    let nobody = "http://127.0.0.1:1";
    let stranger = format!("https://localhost:{}", FakeEngine::start_with(Some(self_signed())).await.port);
    let mut rig = Rig::start();
    rig.apply(&route(&format!("{nobody},{stranger}"), ""));
    rig.until("both are ill", |now| {
        let why = |url: &str| now.backends.get(&name())?.dead.get(url).cloned();
        why(nobody).is_some_and(|why| why.starts_with("connect failed: Connection refused"))
            && why(&stranger).is_some_and(|why| why.starts_with("TLS failed: invalid peer certificate"))
    })
    .await;
    rig.end().await;
}

#[tokio::test]
async fn a_router_whose_port_is_named_https_is_asked_over_tls() {
    let engine = FakeEngine::start_with(Some(self_signed())).await;
    let mut rig = Rig::start();
    rig.apply(&route("http://127.0.0.1:1", r#""routerRef":{"kind":"Service","name":"router"},"#));
    rig.apply(&router(engine.port).replace(r#""name":"http""#, r#""name":"https""#));
    rig.until("its certificate is looked at", |now| {
        matches!(now.routers.get(&name()), Some(RouterHealth::Unhealthy { message }) if message.starts_with("TLS failed"))
    })
    .await;
    rig.end().await;
}

#[test]
fn a_question_never_outlasts_its_period_nor_the_bound() {
    for (period_seconds, timeout_seconds, expected) in
        [(10, 5, 5), (10, 10, 10), (10, 60, 10), (3_600, 3_600, 30), (90, 31, 30), (0, 0, 1)]
    {
        let check =
            HealthCheck { period_seconds, timeout_seconds, success_threshold: 1, failure_threshold: 1 };
        let timeout = timing(Some(&check)).timeout;
        assert_eq!(timeout.as_secs(), expected, "{timeout_seconds} s of {period_seconds} s");
    }
}

#[test]
fn answers_count_in_a_row() {
    let timing = Timing { period: Duration::ZERO, timeout: Duration::ZERO, successes: 2, failures: 2 };
    let ill = || Answer::Ill("no".to_owned());
    let mut known =
        Known { due: Instant::now(), is_running: false, successes: 0, failures: 0, verdict: None };
    let steps = [
        (Answer::Well, false),
        (ill(), false),
        (Answer::Well, false),
        (Answer::Well, true),
        (Answer::Well, false),
        (ill(), false),
        (ill(), true),
        (ill(), false),
    ];
    for (step, (answer, changes)) in steps.into_iter().enumerate() {
        assert_eq!(known.learn(timing, answer), changes, "step {step}");
    }
}
