//! The controller against an API server in memory, under paused time.

use manifest::{Change, decode};
use serde_json::{Value, json};

use super::*;
use crate::controllers::fake::FakeApi;
use crate::fake::{FakePrepare, document};
use crate::index::Index;
use crate::publish::{Core, Input};
use crate::source::Burst;
use crate::status::Truth;

const SERVICE: &str = "/api/v1/namespaces/default/services/g";
const OWN: &str = "/api/v1/namespaces/default/services/own";

struct Rig {
    api: FakeApi,
    outcomes: watch::Sender<Outcomes>,
    reports: watch::Sender<Report>,
    stop: watch::Sender<bool>,
    core: Core,
    task: tokio::task::JoinHandle<()>,
}

impl Rig {
    fn start(api: FakeApi, own: &str) -> Self {
        let (namespace, name) = own.split_once('/').expect("namespace/name");
        let reports = watch::Sender::new(Report::default());
        let outcomes = watch::Sender::new(Outcomes::default());
        let (leading, stop) = (watch::Sender::new(true), watch::Sender::new(false));
        let parts = GatewayServiceParts {
            client: api.client(),
            reports: reports.subscribe(),
            own: ObjectName::new(namespace, name),
            outcomes: outcomes.clone(),
            leads: leading.subscribe(),
            metrics: ControllerMetrics::default(),
        };
        let stopped = stop.subscribe();
        let task = tokio::spawn(async move {
            let _leading = leading;
            run(parts, stopped).await;
        });
        Self { api, outcomes, reports, stop, core: Core::new(Index::default()), task }
    }

    fn apply(&mut self, spec: &str) {
        let text = document("InferenceGateway", "g", spec)
            .replace("\"metadata\":{", "\"metadata\":{\"uid\":\"gateway\",");
        self.tell(&text);
    }

    /// The gateway's own Service is another one now, and its watch says so.
    fn change_own(&mut self, own: Value) {
        self.tell(&format!("---\n{own}\n"));
        self.api.put(OWN, own);
    }

    fn tell(&mut self, text: &str) {
        let decoded = decode(&"m.yaml".into(), text.as_bytes());
        let changes = decoded.objects.into_iter().map(|object| Change::Applied(Arc::new(object))).collect();
        let burst = Burst { source: "test", changes, findings: Vec::new() };
        self.core.apply([Input::Burst(burst)], &FakePrepare::default());
        self.reports.send_modify(|report| {
            report.bursts += 1;
            report.facts = Arc::new(self.core.facts());
        });
    }

    /// Waits until the Service has these ports.
    async fn has_ports(&self, ports: &Value) {
        let has = |api: &FakeApi| (api.get(SERVICE)?["spec"]["ports"] == *ports).then_some(());
        self.api.until("these ports", has).await;
    }

    async fn said(&self) -> Said {
        let said = |_: &FakeApi| {
            let outcomes = self.outcomes.borrow();
            outcomes.services.get(&ObjectName::new("default", "g")).map(|outcome| outcome.0.clone())
        };
        self.api.until("an outcome", said).await
    }

    async fn end(self) {
        self.stop.send_replace(true);
        self.task.await.expect("a clean end");
    }
}

fn own() -> Value {
    let mut port = port("http", 80);
    port["nodePort"] = json!(30080);
    own_with(&json!([port]))
}

fn own_with(ports: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "own", "namespace": "default", "uid": "own"},
        "spec": {"selector": {"app": "wicketgate"}, "clusterIP": "10.0.0.1", "ports": ports},
    })
}

fn port(name: &str, number: u16) -> Value {
    json!({"name": name, "port": number, "targetPort": name, "protocol": "TCP"})
}

/// A Service of ours as it may be found.
fn ours(spec: &Value) -> Value {
    let owner = json!({
        "apiVersion": API_VERSION, "kind": "InferenceGateway", "name": "g", "uid": "gateway", "controller": true,
    });
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "g", "namespace": "default", "ownerReferences": [owner]}, "spec": spec,
    })
}

#[tokio::test(start_paused = true)]
async fn in_the_own_namespace_it_selects_the_same_pods() {
    let api = FakeApi::default();
    api.put(OWN, own());
    let mut rig = Rig::start(api, "default/own");
    rig.apply(r#"{"service":{"enabled":true}}"#);
    assert_eq!(rig.said().await.truth, Truth::True);
    let service = rig.api.get(SERVICE).expect("created");
    assert_eq!(service["spec"]["selector"], json!({"app": "wicketgate"}));
    assert_eq!(
        service["spec"]["ports"],
        json!([port("http", 80)]),
        "nothing that the cluster chose for the other one"
    );
    assert!(service["spec"]["clusterIP"].is_null());
    assert_eq!(service["metadata"]["ownerReferences"][0]["uid"], "gateway");
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(rig.api.writes().len(), 1);
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn elsewhere_it_is_another_name_of_the_own_one() {
    let mut rig = Rig::start(FakeApi::default(), "infra/own");
    rig.apply(r#"{"service":{"enabled":true}}"#);
    assert_eq!(rig.said().await.truth, Truth::True);
    let service = rig.api.get(SERVICE).expect("created");
    assert_eq!(service["spec"]["type"], "ExternalName");
    assert_eq!(service["spec"]["externalName"], "own.infra.svc.cluster.local");
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_of_somebody_else_is_not_touched_until_it_is_gone() {
    let api = FakeApi::default();
    let mut theirs = own();
    theirs["metadata"]["name"] = json!("g");
    api.put(SERVICE, theirs);
    let mut rig = Rig::start(api, "infra/own");
    rig.apply(r#"{"service":{"enabled":true}}"#);
    let said = rig.said().await;
    assert_eq!((said.truth, said.reason.as_str()), (Truth::False, "ServiceConflict"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.api.writes(), []);
    rig.api.delete(SERVICE);
    rig.api.until("it is created", |api| api.get(SERVICE)).await;
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn who_does_not_ask_gets_none() {
    let mut rig = Rig::start(FakeApi::default(), "infra/own");
    rig.apply(r#"{"service":{"enabled":false}}"#);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.api.writes(), []);
    assert!(rig.outcomes.borrow().services.is_empty());
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn its_ports_are_those_of_the_own_service_whatever_they_were_before() {
    let (http, moved, extra) = (port("http", 80), port("http", 8080), port("extra", 9000));
    for (before, after) in [
        (json!([http]), json!([moved])),
        (json!([http, extra]), json!([http])),
        (json!([http]), json!([http, extra])),
    ] {
        let mut rig = Rig::start(FakeApi::default(), "default/own");
        rig.change_own(own_with(&before));
        rig.apply(r#"{"service":{"enabled":true}}"#);
        rig.has_ports(&before).await;
        rig.change_own(own_with(&after));
        rig.has_ports(&after).await;
        tokio::time::sleep(2 * LOOK).await;
        assert_eq!(rig.said().await.truth, Truth::True);
        assert_eq!(rig.api.writes().len(), 2, "created, corrected once");
        rig.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_stood_for_a_name_becomes_one_that_selects_pods() {
    let api = FakeApi::default();
    api.put(OWN, own());
    api.put(
        SERVICE,
        ours(&json!({
            "type": "ExternalName", "externalName": "own.infra.svc.cluster.local", "selector": {"old": "key"},
            "ports": [{"name": "http", "port": 80, "targetPort": 80, "protocol": "TCP"}],
        })),
    );
    let mut rig = Rig::start(api, "default/own");
    rig.apply(r#"{"service":{"enabled":true}}"#);
    assert_eq!(rig.said().await.truth, Truth::True);
    let expected =
        json!({"type": "ClusterIP", "selector": {"app": "wicketgate"}, "ports": [port("http", 80)]});
    assert_eq!(rig.api.get(SERVICE).expect("still there")["spec"], expected);
    tokio::time::sleep(2 * LOOK).await;
    assert_eq!(rig.api.writes().len(), 1);
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_correction_is_of_the_version_that_was_read_and_a_conflict_is_tried_again_at_once() {
    let api = FakeApi::default();
    api.put(OWN, own());
    api.put(SERVICE, ours(&json!({"selector": {"app": "other"}, "ports": [port("http", 80)]})));
    let version = api.get(SERVICE).expect("put")["metadata"]["resourceVersion"].clone();
    api.refuse(&[409]);
    let mut rig = Rig::start(api, "default/own");
    let began = Instant::now();
    rig.apply(r#"{"service":{"enabled":true}}"#);
    assert_eq!(rig.said().await.truth, Truth::True);
    assert!(began.elapsed() < RETRY);
    let writes = rig.api.writes();
    let versions: Vec<&Value> =
        writes.iter().map(|write| &write.body["metadata"]["resourceVersion"]).collect();
    assert_eq!(versions, [&version, &version]);
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_status_of_its_gateway_asks_the_api_server_nothing() {
    let mut rig = Rig::start(FakeApi::default(), "infra/own");
    rig.apply(r#"{"service":{"enabled":true}}"#);
    assert_eq!(rig.said().await.truth, Truth::True);
    let reads = rig.api.reads();
    for _ in 0..3 {
        rig.apply(r#"{"service":{"enabled":true}}"#);
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(rig.api.reads(), reads);
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_index_does_not_keep_is_corrected_at_the_next_look() {
    let api = FakeApi::default();
    api.put(OWN, own());
    let mut rig = Rig::start(api, "default/own");
    rig.apply(r#"{"service":{"enabled":true}}"#);
    assert_eq!(rig.said().await.truth, Truth::True);
    let made = rig.api.get(SERVICE).expect("created");
    let mut edited = made.clone();
    edited["spec"]["selector"] = json!({"app": "other"});
    rig.api.put(SERVICE, edited);
    tokio::time::sleep(LOOK + RETRY).await;
    assert_eq!(rig.api.get(SERVICE).expect("still there")["spec"], made["spec"]);
    rig.end().await;
}

#[test]
fn it_is_met_with_what_the_api_server_fills_in_and_with_nothing_else() {
    let service =
        |spec: Value| -> Service { serde_json::from_value(json!({"spec": spec})).expect("a Service") };
    let wanted = service(json!({"type": "ClusterIP", "selector": {"a": "b"}, "ports": [{"port": 80}]}));
    let filled = json!({
        "type": "ClusterIP", "selector": {"a": "b"}, "clusterIP": "10.0.0.1", "sessionAffinity": "None",
        "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}],
    });
    assert!(is_met(&wanted, &service(filled.clone())));
    for (at, other) in [
        ("/type", json!("NodePort")),
        ("/selector/a", json!("c")),
        ("/ports/0/port", json!(81)),
        ("/ports/0/targetPort", json!("http")),
        ("/ports/0/protocol", json!("UDP")),
        ("/ports", json!([])),
    ] {
        let mut found = filled.clone();
        *found.pointer_mut(at).expect("it is there") = other;
        assert!(!is_met(&wanted, &service(found)), "{at}");
    }
}
