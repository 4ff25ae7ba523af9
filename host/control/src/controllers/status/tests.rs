//! The writer against an API server in memory, under paused time.

use domain::published::published;
use manifest::{Change, decode};
use serde_json::json;

use super::*;
use crate::controllers::fake::FakeApi;
use crate::fake::{FakePrepare, PATIENCE, document, gateway, service};
use crate::index::Index;
use crate::publish::{Core, Input};
use crate::source::Burst;

const GATEWAY: &str = "/apis/production-stack.vllm.ai/v1alpha1/namespaces/default/inferencegateways/g";
const SERVICE: &str = "/apis/production-stack.vllm.ai/v1alpha1/namespaces/default/inferenceservices/s";

struct Rig {
    api: FakeApi,
    core: Core,
    publisher: domain::published::Publisher,
    reports: watch::Sender<Report>,
    leads: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    outcomes: watch::Sender<Outcomes>,
    notes: mpsc::Receiver<Note>,
    registry: prometheus::Registry,
    snapshot: Arc<domain::snapshot::Snapshot>,
    task: tokio::task::JoinHandle<()>,
}

impl Rig {
    fn start() -> Self {
        Self::start_with(Arc::new(Faults::default))
    }

    fn start_with(faults: FaultSource) -> Self {
        let api = FakeApi::default();
        let (publisher, published) = published();
        let reports = watch::Sender::new(Report::default());
        let (leads, stop) = (watch::Sender::new(true), watch::Sender::new(false));
        let outcomes = watch::Sender::new(Outcomes::default());
        let (events, notes) = mpsc::channel(64);
        let registry = prometheus::Registry::new();
        let parts = StatusParts {
            client: api.client(),
            reports: reports.subscribe(),
            published,
            outcomes: outcomes.subscribe(),
            faults,
            leads: leads.subscribe(),
            events,
            clock: Clock::new(std::time::Instant::now()),
            metrics: ControllerMetrics::register(&registry).expect("registered once"),
        };
        let task = tokio::spawn(run(parts, stop.subscribe()));
        let core = Core::new(Index::default());
        let snapshot = Arc::default();
        Self { api, core, publisher, reports, leads, stop, outcomes, notes, registry, snapshot, task }
    }

    /// The API server and the watch have these objects.
    fn apply(&mut self, text: &str) {
        let text = text.replace("\"metadata\":{", "\"metadata\":{\"uid\":\"u\",\"generation\":3,");
        for line in text.lines().filter(|line| line.starts_with('{')) {
            let mut object: Value = serde_json::from_str(line).expect("JSON");
            let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
            let kind = object["kind"].as_str().expect("a kind").to_ascii_lowercase();
            let path = format!("/apis/production-stack.vllm.ai/v1alpha1/namespaces/default/{kind}s/{name}");
            if let Some(before) = self.api.get(&path) {
                object["status"] = before["status"].clone();
            }
            self.api.put(&path, object);
        }
        self.watch(&[GATEWAY, SERVICE]);
    }

    /// The watch shows these objects as they are now.
    fn watch(&mut self, paths: &[&str]) {
        let objects = paths.iter().filter_map(|path| self.api.get(path));
        let text: String = objects.map(|object| format!("---\n{object}\n")).collect();
        let decoded = decode(&"m.yaml".into(), text.as_bytes());
        assert!(decoded.findings.is_empty(), "{:?}", decoded.findings);
        let changes = decoded.objects.into_iter().map(|object| Change::Applied(Arc::new(object))).collect();
        let burst = Burst { source: "test", changes, findings: Vec::new() };
        if let Some(assembled) = self.core.apply([Input::Burst(burst)], &FakePrepare::default()) {
            self.snapshot = Arc::clone(&assembled.snapshot);
            self.publisher.publish(assembled.snapshot);
        }
        self.reports.send_modify(|report| {
            report.bursts += 1;
            report.facts = Arc::new(self.core.facts());
        });
    }

    fn both(&mut self) {
        self.apply(&(service("s", &["http://127.0.0.1:9"]) + &gateway("g", "s", &[])));
    }

    async fn told(&self, path: &str) -> Value {
        self.api.until("a status", |api| api.get(path).filter(|object| object["status"].is_object())).await
    }

    /// How many conditions the metrics page shows.
    fn conditions_shown(&self) -> usize {
        let page = prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).expect("a page");
        page.lines().filter(|line| line.starts_with("production_stack_resource_condition{")).count()
    }

    async fn end(self) {
        self.stop.send_replace(true);
        self.task.await.expect("a clean end");
    }
}

#[tokio::test(start_paused = true)]
async fn every_object_gets_its_status_once_and_then_nobody_writes() {
    let mut rig = Rig::start();
    rig.both();
    assert_eq!(rig.told(GATEWAY).await["status"]["observedGeneration"], 3);
    rig.told(SERVICE).await;
    let first = rig.api.writes()[0].clone();
    assert!(first.path.ends_with("/g/status") && first.query.contains("fieldManager=wicketgate-status"));
    assert!(first.query.contains("force=true"));
    assert_eq!(first.body["metadata"], json!({"name": "g", "namespace": "default", "uid": "u"}));
    assert!(first.body["spec"].is_null(), "only status is ours");
    // The watch has not shown our writes yet: another report alone is no reason to write again.
    rig.reports.send_modify(|report| report.bursts += 1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    rig.watch(&[GATEWAY, SERVICE]);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(rig.api.writes().len(), 2);
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn live_numbers_are_written_at_most_every_half_minute() {
    let mut rig = Rig::start();
    rig.both();
    rig.told(GATEWAY).await;
    rig.told(SERVICE).await;
    rig.watch(&[GATEWAY, SERVICE]);
    for second in 0..120 {
        rig.snapshot.endpoints[0].command_sleep(second % 2 == 0);
        rig.reports.send_modify(|report| report.bursts += 1);
        tokio::time::sleep(Duration::from_secs(1)).await;
        rig.watch(&[GATEWAY, SERVICE]);
    }
    let writes = rig.api.writes().len() - 2;
    assert!((2..=2 * 4).contains(&writes), "{writes} writes in two minutes");
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_is_tried_again_ever_more_slowly_and_holds_up_nobody() {
    let mut rig = Rig::start();
    rig.api.refuse(&[500, 0, 500, 500]);
    let began = Instant::now();
    rig.both();
    rig.told(SERVICE).await;
    assert!(began.elapsed() < Duration::from_secs(1), "the service did not wait for the gateway");
    rig.told(GATEWAY).await;
    assert!(began.elapsed() >= Duration::from_secs(1 + 2 + 4), "{:?}", began.elapsed());
    assert_eq!(rig.api.writes().len(), 5);
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_may_not_be_written_is_tried_once_a_minute() {
    let mut rig = Rig::start();
    rig.api.refuse(&[403, 403, 403, 403]);
    rig.both();
    tokio::time::sleep(Duration::from_secs(50)).await;
    assert_eq!(rig.api.writes().len(), 2);
    rig.told(GATEWAY).await;
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_gone_or_is_another_one_is_left_alone() {
    let mut rig = Rig::start();
    rig.both();
    rig.told(SERVICE).await;
    let mut other = rig.api.get(GATEWAY).expect("there");
    other["metadata"]["uid"] = json!("another");
    other["status"] = Value::Null;
    rig.api.put(GATEWAY, other);
    rig.outcomes.send_modify(|_| {});
    rig.apply(&service("s", &["http://127.0.0.1:19"]));
    tokio::time::sleep(Duration::from_secs(5)).await;
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn who_does_not_lead_writes_nothing_and_a_new_leader_repeats_nothing() {
    let mut rig = Rig::start();
    rig.leads.send_replace(false);
    rig.both();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.api.writes(), []);
    rig.leads.send_replace(true);
    rig.told(GATEWAY).await;
    rig.told(SERVICE).await;
    rig.watch(&[GATEWAY, SERVICE]);
    assert!(rig.conditions_shown() > 0, "who leads says how things are");
    rig.leads.send_replace(false);
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(rig.conditions_shown(), 0, "who does not lead would go on saying how things were");
    rig.leads.send_replace(true);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.api.writes().len(), 2);
    assert!(rig.conditions_shown() > 0, "it leads again");
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn transitions_become_events_once() {
    let mut rig = Rig::start();
    rig.both();
    rig.told(GATEWAY).await;
    rig.told(SERVICE).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut first = Vec::new();
    while let Ok(note) = rig.notes.try_recv() {
        first.push(note);
    }
    assert_eq!(first.len(), 2, "each became ready: {first:?}");
    rig.watch(&[GATEWAY, SERVICE]);
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(rig.notes.try_recv().is_err(), "nothing has changed");
    rig.apply(&document("InferenceGateway", "g", r#"{"routes":[{"model":"m","inferenceServiceRef":"x"}]}"#));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(rig.notes.try_recv().is_ok() && rig.notes.try_recv().is_err(), "one cause, one event");
    rig.end().await;
}

#[test]
fn a_status_that_no_thread_is_free_to_compute_delays_no_end() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build();
    let runtime = runtime.expect("a runtime");
    let (release, held) = std::sync::mpsc::channel::<()>();
    runtime.block_on(async {
        drop(tokio::task::spawn_blocking(move || held.recv()));
        let (looks, mut looking) = mpsc::unbounded_channel();
        let mut rig = Rig::start_with(Arc::new(move || {
            // The test may have seen enough.
            let _ = looks.send(());
            Faults::default()
        }));
        rig.both();
        looking.recv().await.expect("it looks");
        let ended = tokio::time::timeout(PATIENCE, rig.end()).await;
        assert!(ended.is_ok(), "it waits for a thread");
    });
    drop(release);
}
