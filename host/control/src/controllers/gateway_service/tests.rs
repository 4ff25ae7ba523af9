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
        let decoded = decode(&"m.yaml".into(), text.as_bytes());
        let changes = decoded.objects.into_iter().map(|object| Change::Applied(Arc::new(object))).collect();
        let burst = Burst { source: "test", changes, findings: Vec::new() };
        self.core.apply([Input::Burst(burst)], &FakePrepare::default());
        self.reports.send_modify(|report| {
            report.bursts += 1;
            report.facts = Arc::new(self.core.facts());
        });
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
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "own", "namespace": "default", "uid": "own"},
        "spec": {"selector": {"app": "wicketgate"}, "clusterIP": "10.0.0.1",
                 "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP", "nodePort": 30080}]},
    })
}

#[tokio::test(start_paused = true)]
async fn in_the_own_namespace_it_selects_the_same_pods() {
    let api = FakeApi::default();
    api.put("/api/v1/namespaces/default/services/own", own());
    let mut rig = Rig::start(api, "default/own");
    rig.apply(r#"{"service":{"enabled":true}}"#);
    assert_eq!(rig.said().await.truth, Truth::True);
    let service = rig.api.get(SERVICE).expect("created");
    assert_eq!(service["spec"]["selector"], json!({"app": "wicketgate"}));
    let port = json!({"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"});
    assert_eq!(service["spec"]["ports"], json!([port]), "nothing that the cluster chose for the other one");
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
