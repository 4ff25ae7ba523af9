//! The controller against an API server in memory, under paused time.

use manifest::{Change, decode};
use serde_json::{Value, json};

use super::*;
use crate::controllers::fake::FakeApi;
use crate::fake::{FakePrepare, document};
use crate::index::Index;
use crate::publish::{Core, Input};
use crate::source::Burst;

const MAP: &str = "/api/v1/namespaces/default/configmaps/r-config";
const ROUTE: &str = r#"{"staticBackends":"http://a:1","staticModels":"m"}"#;

struct Rig {
    api: FakeApi,
    core: Core,
    reports: watch::Sender<Report>,
    leads: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    outcomes: watch::Sender<Outcomes>,
    task: tokio::task::JoinHandle<()>,
}

impl Rig {
    fn start(api: FakeApi) -> Self {
        let reports = watch::Sender::new(Report::default());
        let (leads, stop) = (watch::Sender::new(true), watch::Sender::new(false));
        let outcomes = watch::Sender::new(Outcomes::default());
        let parts = ConfigMapParts {
            client: api.client(),
            reports: reports.subscribe(),
            namespaces: Vec::new(),
            outcomes: outcomes.clone(),
            leads: leads.subscribe(),
            metrics: ControllerMetrics::default(),
        };
        let task = tokio::spawn(run(parts, stop.subscribe()));
        Self { api, core: Core::new(Index::default()), reports, leads, stop, outcomes, task }
    }

    fn apply(&mut self, spec: &str) {
        let text =
            document("StaticRoute", "r", spec).replace("\"metadata\":{", "\"metadata\":{\"uid\":\"route\",");
        let decoded = decode(&"m.yaml".into(), text.as_bytes());
        let changes = decoded.objects.into_iter().map(|object| Change::Applied(Arc::new(object))).collect();
        let burst = Burst { source: "test", changes, findings: Vec::new() };
        self.core.apply([Input::Burst(burst)], &FakePrepare::default());
        self.reports.send_modify(|report| {
            report.bursts += 1;
            report.facts = Arc::new(self.core.facts());
        });
    }

    fn outcome(&self) -> Option<ConfigMapOutcome> {
        self.outcomes.borrow().config_maps.get(&ObjectName::new("default", "r")).cloned()
    }

    /// The controller hears of what happens to the ConfigMap.
    async fn watched(&self) {
        self.api.until("a watch", |api| api.is_watched().then_some(())).await;
    }

    async fn written(&self) -> Value {
        self.api
            .until("the ConfigMap is written", |api| {
                matches!(self.outcome(), Some(ConfigMapOutcome::Written { .. }))
                    .then(|| api.get(MAP))
                    .flatten()
            })
            .await
    }

    async fn end(self) {
        self.stop.send_replace(true);
        self.task.await.expect("a clean end");
    }
}

fn foreign(data: &Value, owner: Option<&str>) -> Value {
    let owners = owner.map_or(json!([]), |uid| {
        json!([{"apiVersion": "apps/v1", "kind": "Deployment", "name": "x", "uid": uid, "controller": true}])
    });
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": data,
        "metadata": {"name": "r-config", "namespace": "default", "uid": "theirs", "ownerReferences": owners},
    })
}

#[tokio::test(start_paused = true)]
async fn a_route_becomes_a_config_map_with_both_keys_that_it_owns() {
    let mut rig = Rig::start(FakeApi::default());
    rig.apply(ROUTE);
    let map = rig.written().await;
    let expected = r#"{"service_discovery":"static","routing_logic":"roundrobin","static_backends":"http://a:1","static_models":"m"}"#;
    assert_eq!(map["data"], json!({"dynamic_config.json": expected, "static_config.json": expected}));
    let owner = &map["metadata"]["ownerReferences"][0];
    assert_eq!(
        (&owner["kind"], &owner["uid"], &owner["controller"]),
        (&json!("StaticRoute"), &json!("route"), &json!(true))
    );
    assert!(matches!(rig.outcome(), Some(ConfigMapOutcome::Written { at: Some(_), .. })));
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!(rig.api.writes().len(), 1, "idle, nothing is written");
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_changes_our_keys_and_keys_of_others_stay() {
    let mut rig = Rig::start(FakeApi::default());
    rig.apply(ROUTE);
    let mut map = rig.written().await;
    map["data"]["mine"] = json!("kept");
    rig.api.put(MAP, map);
    rig.apply(&ROUTE.replace("a:1", "b:1"));
    let map = rig.api.until("the edit", |api| {
        api.get(MAP)
            .filter(|map| map["data"]["static_config.json"].as_str().is_some_and(|text| text.contains("b:1")))
    });
    assert_eq!(map.await["data"]["mine"], "kept");
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_deleted_or_edited_by_hand_is_mended_within_seconds() {
    let mut rig = Rig::start(FakeApi::default());
    rig.apply(ROUTE);
    rig.written().await;
    rig.watched().await;
    let began = Instant::now();
    rig.api.delete(MAP);
    let mut map = rig.api.until("it is back", |api| api.get(MAP)).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    map["data"]["dynamic_config.json"] = json!("edited");
    rig.api.put(MAP, map);
    let is_mended = |api: &FakeApi| api.get(MAP).filter(|map| map["data"]["dynamic_config.json"] != "edited");
    rig.api.until("it is mended", is_mended).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    rig.end().await;
}

/// Whatever the controller is just doing with the first change when it hears of the second.
#[tokio::test(start_paused = true)]
async fn two_edits_close_together_leave_nothing_broken() {
    let mut rig = Rig::start(FakeApi::default());
    rig.apply(ROUTE);
    rig.written().await;
    rig.watched().await;
    let right = rig.api.get(MAP).expect("written")["data"].clone();
    for gap in 0..40 {
        let mut map = rig.api.get(MAP).expect("there");
        map["metadata"]["labels"]["touched"] = json!(gap.to_string());
        rig.api.put(MAP, map.clone());
        for _ in 0..gap {
            tokio::task::yield_now().await;
        }
        map["data"]["dynamic_config.json"] = json!("edited");
        rig.api.put(MAP, map);
        rig.api.until("it is mended", |api| api.get(MAP).filter(|map| map["data"] == right).map(drop)).await;
    }
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_belongs_to_somebody_else_is_not_touched_until_it_is_gone() {
    for theirs in [
        foreign(&json!({"x": "y"}), Some("other")),
        foreign(&json!({"dynamic_config.json": "theirs"}), None),
        foreign(&json!({}), Some("other")),
    ] {
        let api = FakeApi::default();
        api.put(MAP, theirs);
        let mut rig = Rig::start(api);
        rig.apply(ROUTE);
        let is_conflict =
            |_: &FakeApi| matches!(rig.outcome(), Some(ConfigMapOutcome::Conflict { .. })).then_some(());
        rig.api.until("a conflict", is_conflict).await;
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(rig.api.writes(), []);
        rig.api.delete(MAP);
        rig.written().await;
        rig.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_one_that_nobody_controls_is_taken_over() {
    let api = FakeApi::default();
    api.put(MAP, foreign(&json!({}), None));
    let mut rig = Rig::start(api);
    rig.apply(ROUTE);
    assert_eq!(rig.written().await["metadata"]["ownerReferences"][0]["uid"], "route");
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_is_told_and_tried_again_and_a_conflict_is_looked_into_at_once() {
    let api = FakeApi::default();
    api.refuse(&[403, 500]);
    let mut rig = Rig::start(api);
    rig.apply(ROUTE);
    let is_failed =
        |_: &FakeApi| matches!(rig.outcome(), Some(ConfigMapOutcome::Failed { .. })).then_some(());
    rig.api.until("a failure", is_failed).await;
    rig.written().await;
    assert_eq!(rig.api.writes().len(), 3);
    rig.api.refuse(&[409]);
    let began = Instant::now();
    rig.apply(&ROUTE.replace("a:1", "b:1"));
    rig.api.until("the second write", |api| (api.writes().len() == 5).then_some(())).await;
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_contradicts_itself_leaves_the_config_map_as_it_is() {
    let mut rig = Rig::start(FakeApi::default());
    rig.apply(ROUTE);
    rig.written().await;
    rig.apply(r#"{"staticBackends":"http://a:1,http://b:1","staticModels":"m"}"#);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((rig.api.writes().len(), rig.outcome()), (1, None));
    rig.end().await;
}

#[tokio::test(start_paused = true)]
async fn who_does_not_lead_writes_nothing() {
    let mut rig = Rig::start(FakeApi::default());
    rig.leads.send_replace(false);
    rig.apply(ROUTE);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.api.writes(), []);
    rig.leads.send_replace(true);
    rig.written().await;
    rig.leads.send_replace(false);
    rig.api.until("forgotten", |_| rig.outcome().is_none().then_some(())).await;
    rig.api.delete(MAP);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(rig.api.get(MAP), None);
    rig.end().await;
}
