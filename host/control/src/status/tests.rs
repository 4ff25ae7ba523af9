//! Tables: objects in, what is told of them out. The objects are real manifests, lowered and assembled for real.

use std::collections::BTreeMap;

use domain::assemble::Assembled;
use domain::name::PolicyName;
use manifest::{Change, decode};
use serde_json::json;

use super::*;
use crate::fake::{FakePrepare, document, gateway, service};
use crate::index::Index;
use crate::publish::{Core, Input};
use crate::source::Burst;

const A: &str = "http://127.0.0.1:9";
const B: &str = "http://127.0.0.1:19";

/// A cluster's objects and what we told of them.
struct Place {
    core: Core,
    prepare: FakePrepare,
    snapshot: Arc<Snapshot>,
    outcomes: Outcomes,
    faults: Faults,
    second: i64,
    /// Statuses as they stand in the cluster.
    held: BTreeMap<ObjectKey, Value>,
}

impl Place {
    fn new() -> Self {
        Self {
            core: Core::new(Index::default()),
            prepare: FakePrepare::default(),
            snapshot: Arc::default(),
            outcomes: Outcomes::default(),
            faults: Faults::default(),
            second: 0,
            held: BTreeMap::new(),
        }
    }

    fn apply(&mut self, text: &str) -> &mut Self {
        let text = text.replace("\"metadata\":{", "\"metadata\":{\"generation\":7,\"uid\":\"u\",");
        let decoded = decode(&"m.yaml".into(), text.as_bytes());
        let changes = decoded.objects.into_iter().map(|object| Change::Applied(Arc::new(object))).collect();
        self.input(Input::Burst(Burst { source: "test", changes, findings: decoded.findings }))
    }

    fn remove(&mut self, kind: Kind, name: &str) -> &mut Self {
        let changes = vec![Change::Removed(key(kind, name))];
        self.input(Input::Burst(Burst { source: "test", changes, findings: Vec::new() }))
    }

    fn input(&mut self, input: Input) -> &mut Self {
        if let Some(Assembled { snapshot, .. }) = self.core.apply([input], &self.prepare) {
            self.snapshot = snapshot;
        }
        self
    }

    /// Tells, and keeps what was told.
    fn tell(&mut self) -> Vec<Told> {
        self.second += 1;
        let report = Report { facts: Arc::new(self.core.facts()), ..Report::default() };
        let sight = Sight {
            report,
            snapshot: Arc::clone(&self.snapshot),
            outcomes: Arc::new(self.outcomes.clone()),
            faults: self.faults.clone(),
            now: Timestamp::from_second(self.second).expect("a time"),
            now_ms: 1_000,
        };
        let told = tell(&sight, &|key, _| self.held.get(key).cloned()).told;
        for Told { key, status, .. } in &told {
            self.held.insert(key.clone(), status.clone());
        }
        told
    }

    fn status(&self, kind: Kind, name: &str) -> &Value {
        &self.held[&key(kind, name)]
    }

    /// A condition as `Status Reason`.
    fn condition(&self, kind: Kind, name: &str, condition: &str) -> String {
        let conditions = self.status(kind, name)["conditions"].as_array().expect("conditions").clone();
        let found = conditions.iter().find(|one| one["type"] == condition);
        found.map_or_else(String::new, |found| {
            format!("{} {}", found["status"].as_str().unwrap_or(""), found["reason"].as_str().unwrap_or(""))
        })
    }

    fn message(&self, kind: Kind, name: &str, condition: &str) -> String {
        let conditions = self.status(kind, name)["conditions"].as_array().expect("conditions").clone();
        let found = conditions.into_iter().find(|one| one["type"] == condition).expect("there");
        found["message"].as_str().unwrap_or_default().to_owned()
    }
}

fn key(kind: Kind, name: &str) -> ObjectKey {
    ObjectKey { kind, name: ObjectName::new("default", name) }
}

fn policy(name: &str, source: &str) -> String {
    document("RoutingPolicy", name, &format!("{{\"source\":{source}}}"))
}

const ROUTE: &str = r#"{"staticBackends":"http://127.0.0.1:9,http://127.0.0.1:19","staticModels":"m,m"}"#;

#[test]
fn a_gateway_and_its_service_are_ready_and_say_what_they_resolved_to() {
    let mut place = Place::new();
    place.apply(&(service("s", &[A, B]) + &gateway("g", "s", &[]))).tell();
    for condition in ["Accepted", "ResolvedRefs", "Ready"] {
        assert_eq!(place.condition(Kind::InferenceGateway, "g", condition), format!("True {condition}"));
        assert_eq!(place.condition(Kind::InferenceService, "s", condition), format!("True {condition}"));
    }
    assert_eq!(place.condition(Kind::InferenceGateway, "g", "PolicyProgrammed"), "True Programmed");
    assert_eq!(place.condition(Kind::InferenceService, "s", "Programmed"), "True Routed");
    let status = place.status(Kind::InferenceGateway, "g");
    assert_eq!(status["observedGeneration"], 7);
    assert_eq!(status["conditions"][0]["observedGeneration"], 7);
    assert_eq!(status["routes"], json!([{"model": "m", "endpoints": 2, "ready": 2}]));
    assert_eq!(status["resolved"], json!({"models": "1", "policies": "round-robin"}));
    assert_eq!(status["activePolicies"][0]["name"], "round-robin");
    assert_eq!(status["activePolicies"][0]["since"], "1970-01-01T00:00:01Z");
    let status = place.status(Kind::InferenceService, "s");
    assert_eq!((&status["endpoints"], &status["readyEndpoints"]), (&json!(2), &json!(2)));
    assert_eq!(status["resolved"], json!({"backend": "Static (2)"}));
    assert!(place.condition(Kind::InferenceGateway, "g", "Stalled").is_empty(), "told only while true");
    assert!(place.condition(Kind::InferenceGateway, "g", "Reconciling").is_empty());
}

#[test]
fn nothing_is_told_twice_and_times_move_with_the_status_only() {
    let mut place = Place::new();
    place.apply(&(service("s", &[A]) + &gateway("g", "s", &[])));
    assert_eq!(place.tell().len(), 2);
    assert_eq!(place.tell(), [], "nothing has changed");
    place.remove(Kind::InferenceService, "s").tell();
    let status = place.status(Kind::InferenceGateway, "g").clone();
    assert_eq!(place.condition(Kind::InferenceGateway, "g", "ResolvedRefs"), "False ReferenceNotFound");
    let time = |status: &Value, kind: &str| {
        let conditions = status["conditions"].as_array().expect("conditions");
        let found = conditions.iter().find(|one| one["type"] == kind).expect("there");
        found["lastTransitionTime"].as_str().expect("a time").to_owned()
    };
    assert_eq!(time(&status, "Accepted"), "1970-01-01T00:00:01Z");
    assert_eq!(time(&status, "ResolvedRefs"), "1970-01-01T00:00:03Z");
    assert_eq!(status["lastUpdated"], "1970-01-01T00:00:03Z");
    assert_eq!(status["activePolicies"][0]["since"], "1970-01-01T00:00:01Z", "it has decided all the time");
}

#[test]
fn transitions_name_what_has_changed() {
    let mut place = Place::new();
    place.apply(&(service("s", &[A]) + &gateway("g", "s", &[]))).tell();
    let told = place.remove(Kind::InferenceService, "s").tell();
    let gateway = told.iter().find(|told| told.key.kind == Kind::InferenceGateway).expect("told");
    let changes: Vec<(&str, Truth, &str)> =
        gateway.transitions.iter().map(|t| (t.kind, t.said.truth, t.said.reason.as_str())).collect();
    let gone = "ReferenceNotFound";
    assert_eq!(changes, [("ResolvedRefs", Truth::False, gone), ("Ready", Truth::False, gone)]);
}

#[test]
fn what_is_wrong_decides_the_conditions_and_names_field_and_remedy() {
    let s = || service("s", &[A]);
    let spec = |spec: &str| document("InferenceGateway", "g", spec);
    let route = r#""routes":[{"model":"m","inferenceServiceRef":"s"}]"#;
    let conflict =
        r#"{"routes":[{"model":"m","inferenceServiceRef":"s"},{"model":"m","inferenceServiceRef":"t"}]}"#;
    let wrong_kind =
        r#"{"routes":[{"model":"m","inferenceServiceRef":{"name":"s","kind":"InferenceCache"}}]}"#;
    let cases = [
        // accepted, resolved, programmed, ready, stalled
        (s() + &spec(conflict), "False ConflictingRoutes", "", "True", "False ConflictingRoutes", true),
        (
            s() + &spec(wrong_kind),
            "False InvalidReference",
            "False InvalidReference",
            "",
            "False InvalidReference",
            true,
        ),
        (
            spec(&format!("{{{route}}}")),
            "True Accepted",
            "False ReferenceNotFound",
            "True",
            "False ReferenceNotFound",
            false,
        ),
        (
            s() + &spec(&format!("{{{route},\"routeStrategy\":\"foo\"}}")),
            "False PolicyNotFound",
            "False PolicyNotFound",
            "False PolicyNotFound",
            "False PolicyNotFound",
            false,
        ),
        (
            s() + &spec(&format!("{{{route},\"aliases\":{{\"x\":\"y\",\"y\":\"x\"}}}}")),
            "False AliasCycle",
            "True",
            "True",
            "False AliasCycle",
            true,
        ),
        (
            service("s", &[]) + &spec(&format!("{{{route}}}")),
            "True Accepted",
            "True",
            "True",
            "False NoEndpoints",
            false,
        ),
    ];
    for (text, accepted, resolved, programmed, ready, stalled) in cases {
        let mut place = Place::new();
        place.apply(&text).tell();
        let conditions = [
            ("Accepted", accepted),
            ("ResolvedRefs", resolved),
            ("PolicyProgrammed", programmed),
            ("Ready", ready),
        ];
        for (kind, expected) in conditions {
            let said = place.condition(Kind::InferenceGateway, "g", kind);
            assert!(said.starts_with(expected), "{kind}: {said}, not {expected}, of {text}");
        }
        let said = place.condition(Kind::InferenceGateway, "g", "Stalled");
        assert_eq!(!said.is_empty(), stalled, "{text}: {said}");
        let message = place.message(Kind::InferenceGateway, "g", "Ready");
        assert!(message.contains("spec.") && message.contains("; "), "field and remedy: {message}");
    }
}

#[test]
fn every_spelling_of_a_strategy_is_told_as_one() {
    let spellings = [
        ("PrefixHash", "prefix-hash,load-aware"),
        ("prefix-hash", "prefix-hash,load-aware"),
        ("prefixaware", "prefix-hash,load-aware"),
        ("ROUND-ROBIN", "round-robin"),
    ];
    for (strategy, expected) in spellings {
        let mut place = Place::new();
        let spec = format!(
            r#"{{"routeStrategy":"{strategy}","routes":[{{"model":"m","inferenceServiceRef":"s"}}]}}"#
        );
        place.apply(&(service("s", &[A]) + &document("InferenceGateway", "g", &spec))).tell();
        assert_eq!(place.status(Kind::InferenceGateway, "g")["resolved"]["policies"], expected, "{strategy}");
    }
}

#[test]
fn a_threshold_that_is_none_is_not_accepted_and_harms_nobody_else() {
    for (value, accepted) in
        [("0.8", "True"), ("\"0.8\"", "True"), ("1", "True"), ("1.5", "False"), ("\"abc\"", "False")]
    {
        let mut place = Place::new();
        let cache = format!(r#"{{"modelName":"m","kvCacheTransferPolicy":{{"thresholdHitRate":{value}}}}}"#);
        let good = service("s", &[A]) + &gateway("g", "s", &[]);
        // An object that the schema refuses never comes from an API server.
        let decoded = decode(&"m.yaml".into(), document("InferenceCache", "c", &cache).as_bytes());
        if decoded.objects.is_empty() {
            assert_eq!(accepted, "False", "{value}: {:?}", decoded.findings);
            continue;
        }
        place.apply(&(good + &document("InferenceCache", "c", &cache))).tell();
        let said = place.condition(Kind::InferenceCache, "c", "Accepted");
        assert!(said.starts_with(accepted), "{value}: {said}");
        assert_eq!(place.condition(Kind::InferenceGateway, "g", "Ready"), "True Ready");
    }
}

#[test]
fn a_policy_that_does_not_load_leaves_the_gateway_ready_on_its_last_good_chain() {
    let dir = tempfile::tempdir().expect("a directory");
    let [good, bad, slow] = ["good", "bad", "slow"].map(|text| {
        std::fs::write(dir.path().join(text), text).expect("written");
        format!("{{\"file\":{:?}}}", dir.path().join(text))
    });
    let mut place = Place::new();
    let objects = service("s", &[A]) + &gateway("g", "s", &["p"]);
    place.apply(&(objects + &policy("p", &good))).tell();
    assert_eq!(place.condition(Kind::InferenceGateway, "g", "PolicyProgrammed"), "True Programmed");
    let told = place.status(Kind::RoutingPolicy, "p").clone();
    assert_eq!((&told["policy"]["version"], &told["inUseBy"]), (&json!("good"), &json!(["default/g"])));
    assert_eq!(told["resolved"]["digest"], "000000000000");
    assert_eq!(told["resolved"]["usedBy"], "g");
    for condition in ["Accepted", "Fetched", "Programmed", "Ready"] {
        assert!(place.condition(Kind::RoutingPolicy, "p", condition).starts_with("True"), "{condition}");
    }

    place.apply(&policy("p", &slow)).tell();
    assert_eq!(place.condition(Kind::InferenceGateway, "g", "PolicyProgrammed"), "Unknown Pending");
    assert_eq!(place.condition(Kind::InferenceGateway, "g", "Ready"), "True Ready");
    assert_eq!(place.condition(Kind::InferenceGateway, "g", "Reconciling"), "True Pending");
    assert_eq!(place.condition(Kind::RoutingPolicy, "p", "Ready"), "Unknown Pending");

    place.apply(&policy("p", &bad)).tell();
    assert_eq!(place.condition(Kind::InferenceGateway, "g", "PolicyProgrammed"), "False InvalidComponent");
    assert_eq!(place.condition(Kind::InferenceGateway, "g", "Accepted"), "True Accepted");
    assert_eq!(place.condition(Kind::InferenceGateway, "g", "Ready"), "True Ready");
    assert_eq!(place.condition(Kind::InferenceGateway, "g", "Stalled"), "True InvalidComponent");
    assert_eq!(place.status(Kind::InferenceGateway, "g")["activePolicies"][0]["name"], "p");
    assert!(place.message(Kind::InferenceGateway, "g", "PolicyProgrammed").contains("the last good chain"));
    assert_eq!(place.condition(Kind::RoutingPolicy, "p", "Ready"), "False InvalidComponent");
    assert_eq!(place.condition(Kind::RoutingPolicy, "p", "Fetched"), "True Fetched");
}

#[test]
fn a_policy_without_any_good_chain_before_it_keeps_the_gateway_from_being_ready() {
    let mut place = Place::new();
    let missing = policy("p", r#"{"file":"/nowhere.wasm"}"#);
    place.apply(&(service("s", &[A]) + &gateway("g", "s", &["p"]) + &missing)).tell();
    assert_eq!(place.condition(Kind::InferenceGateway, "g", "Ready"), "False FetchFailed");
    assert_eq!(place.condition(Kind::RoutingPolicy, "p", "Fetched"), "False FetchFailed");
}

#[test]
fn a_policy_that_nobody_names_is_ready_and_says_that_it_is_not_in_force() {
    let mut place = Place::new();
    place.apply(&policy("p", r#"{"builtin":"PrefixHash"}"#)).tell();
    assert_eq!(place.condition(Kind::RoutingPolicy, "p", "Ready"), "True Ready");
    assert_eq!(place.condition(Kind::RoutingPolicy, "p", "Programmed"), "False NotReferenced");
    assert_eq!(place.status(Kind::RoutingPolicy, "p")["resolved"]["source"], "builtin:PrefixHash");
    place.apply(&policy("q", r#"{"builtin":"nonsense"}"#)).tell();
    assert!(place.condition(Kind::RoutingPolicy, "q", "Ready").starts_with("False"));
}

#[test]
fn faults_are_counted_per_policy_and_their_time_moves_with_the_count() {
    let mut place = Place::new();
    let p = policy("p", r#"{"builtin":"PrefixHash"}"#);
    place.apply(&(service("s", &[A]) + &gateway("g", "s", &["p"]) + &p));
    assert!(place.tell().iter().all(|told| told.status["faults"].is_null()));
    let gateway = ObjectName::new("default", "g");
    place.faults.insert((gateway.clone(), PolicyName::from("p")), (3, "trap".into()));
    let told = place.tell();
    assert_eq!(told.len(), 1);
    assert!(told[0].is_only_live, "it can wait");
    let expected = json!({"count": 3, "lastReason": "trap", "lastTime": "1970-01-01T00:00:02Z"});
    assert_eq!(told[0].status["faults"], expected);
    assert_eq!(place.tell(), []);
}

#[test]
fn endpoints_that_come_and_go_are_live_numbers() {
    let mut place = Place::new();
    place.apply(&(service("s", &[A]) + &gateway("g", "s", &[]))).tell();
    place.snapshot.endpoints[0].command_sleep(true);
    let told = place.tell();
    assert!(told.iter().all(|told| told.is_only_live) && told.len() == 2, "{told:?}");
    assert_eq!(place.status(Kind::InferenceGateway, "g")["routes"][0]["ready"], 0);
}

#[test]
fn what_is_not_done_yet_is_said_with_its_remedy() {
    let mut place = Place::new();
    let text = document("SpeculativeDecoding", "d", r#"{"draftModel":"x","targetModel":"m"}"#)
        + &document("PrefillDecodingDisaggregation", "p", r#"{"modelName":"m"}"#)
        + &document("ModelPlacement", "m", r#"{"models":{"a":{"replicas":1}}}"#);
    place.apply(&text).tell();
    let kinds = [
        (Kind::SpeculativeDecoding, "d"),
        (Kind::PrefillDecodingDisaggregation, "p"),
        (Kind::ModelPlacement, "m"),
    ];
    for (kind, name) in kinds {
        assert_eq!(place.condition(kind, name, "Accepted"), "True Accepted");
        let ready = place.condition(kind, name, "Ready");
        if ready == "False NotImplemented" {
            assert_eq!(place.condition(kind, name, "Stalled"), "True NotImplemented");
            assert!(place.message(kind, name, "Ready").contains("; "), "a remedy");
        } else {
            assert_ne!(kind, Kind::ModelPlacement, "{ready}");
        }
    }
    assert_eq!(place.status(Kind::ModelPlacement, "m")["resolved"]["models"], "a");
}

#[test]
fn a_static_route_tells_of_its_config_map_its_backends_and_its_router() {
    let name = ObjectName::new("default", "r");
    let mut place = Place::new();
    place.apply(&document("StaticRoute", "r", ROUTE)).tell();
    assert_eq!(place.condition(Kind::StaticRoute, "r", "Ready"), "Unknown Pending");
    assert_eq!(place.condition(Kind::StaticRoute, "r", "Reconciling"), "True Pending");
    let written = |at| ConfigMapOutcome::Written { name: "r-config".into(), at, remark: String::new() };
    place.outcomes.config_maps.insert(name.clone(), written(None));
    place.tell();
    let status = place.status(Kind::StaticRoute, "r");
    assert_eq!((&status["configMapRef"], &status["resolved"]["backends"]), (&json!("r-config"), &json!("2")));
    assert_eq!(status["lastAppliedTime"], "1970-01-01T00:00:02Z");
    assert_eq!(place.condition(Kind::StaticRoute, "r", "Ready"), "True Ready");
    assert_eq!(place.tell(), [], "a route whose ConfigMap is right says nothing new");
    let later = Timestamp::from_second(77).expect("a time");
    place.outcomes.config_maps.insert(name.clone(), written(Some(later)));
    place.tell();
    assert_eq!(place.status(Kind::StaticRoute, "r")["lastAppliedTime"], "1970-01-01T00:01:17Z");

    let dead = BTreeMap::from([(B.to_owned(), "no answer".to_owned())]);
    place.outcomes.backends.insert(name.clone(), BackendHealth { total: 2, dead });
    place.tell();
    assert_eq!(place.condition(Kind::StaticRoute, "r", "BackendsHealthy"), "False BackendsUnhealthy");
    assert!(place.message(Kind::StaticRoute, "r", "BackendsHealthy").contains(B));
    assert_eq!(place.condition(Kind::StaticRoute, "r", "Ready"), "True Ready", "the others serve");

    let routed = ROUTE.replacen('{', r#"{"routerRef":{"name":"router"},"#, 1);
    place.apply(&document("StaticRoute", "r", &routed));
    let unhealthy = RouterHealth::Unhealthy { message: "answered 500".into() };
    for (health, succeeded, failed) in [
        (RouterHealth::Healthy, "True", "False"),
        (unhealthy, "False", "True"),
        (RouterHealth::Healthy, "True", "False"),
    ] {
        place.outcomes.routers.insert(name.clone(), health);
        place.tell();
        assert!(place.condition(Kind::StaticRoute, "r", "HealthCheckSucceeded").starts_with(succeeded));
        assert!(place.condition(Kind::StaticRoute, "r", "HealthCheckFailed").starts_with(failed));
    }

    // Whoever leads next knows nothing yet, and takes nothing back.
    let known = std::mem::take(&mut place.outcomes);
    assert_eq!(place.tell(), []);
    place.outcomes = known;

    let message = "ConfigMap r-config belongs to Deployment x".to_owned();
    place.outcomes.config_maps.insert(name, ConfigMapOutcome::Conflict { message });
    place.tell();
    assert_eq!(place.condition(Kind::StaticRoute, "r", "Accepted"), "False ConfigMapConflict");
    assert_eq!(place.condition(Kind::StaticRoute, "r", "Ready"), "False ConfigMapConflict");
}

#[test]
fn unequal_lists_are_not_accepted_and_the_config_map_is_left_alone() {
    let mut place = Place::new();
    let spec = r#"{"staticBackends":"http://a:1,http://b:1","staticModels":"m"}"#;
    place.apply(&document("StaticRoute", "r", spec)).tell();
    assert_eq!(place.condition(Kind::StaticRoute, "r", "Accepted"), "False UnequalLists");
    assert_eq!(place.condition(Kind::StaticRoute, "r", "Programmed"), "False NotAccepted");
    assert!(place.message(Kind::StaticRoute, "r", "Accepted").contains("spec.staticModels"));
}

#[test]
fn an_object_on_its_way_out_is_left_alone() {
    let mut place = Place::new();
    let text = service("s", &[A])
        .replace("\"metadata\":{", "\"metadata\":{\"deletionTimestamp\":\"2026-01-01T00:00:00Z\",");
    assert_eq!(place.apply(&text).tell(), []);
}

#[test]
fn a_message_is_cut_between_characters() {
    let long = "é".repeat(condition::MESSAGE_BYTES_MAX);
    let mut conditions = Conditions::of(&[]);
    conditions.set("Ready", Said::no("Long", long));
    let finished = conditions.finish(&[], None, Timestamp::UNIX_EPOCH);
    let ready = finished.iter().find(|condition| condition.type_ == "Ready").expect("there");
    assert!(ready.message.len() <= condition::MESSAGE_BYTES_MAX && ready.message.ends_with('…'));
}

/// Both spellings of a reference come to the same.
#[test]
fn both_dialects_resolve_to_the_same() {
    let resolved = |backend: &str, cache: &str| {
        let mut place = Place::new();
        let spec = format!(r#"{{"modelName":"m","backendRef":{backend},"inferenceCacheRef":{cache}}}"#);
        place.apply(&document("InferenceService", "s", &spec)).tell();
        place.status(Kind::InferenceService, "s")["resolved"].clone()
    };
    let short = resolved("\"b\"", "\"c\"");
    let long = resolved(r#"{"name":"b","port":8000}"#, r#"{"name":"c","kind":"InferenceCache"}"#);
    assert_eq!(short, long);
    assert_eq!(short, json!({"backend": "b", "cache": "c"}));
}
