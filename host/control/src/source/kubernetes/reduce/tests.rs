use manifest::Bundle;
use manifest::Change;

use super::*;

fn sight(pod: &Value) -> Sight {
    serde_json::from_value::<WatchedPod>(pod.clone()).expect("a pod").sight(Kind::Pod)
}

/// A pod as an API server gives it, and much more that nobody here asks for.
fn whole() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "p", "namespace": "ns", "uid": "u", "resourceVersion": "7",
            "labels": {"app": "x", "sleeping": "true"}, "annotations": {"a": "b"},
            "managedFields": [{"manager": "m"}], "ownerReferences": [],
        },
        "spec": {
            "nodeName": "n",
            "containers": [
                {"name": "side", "image": "i", "ports": [{"containerPort": 9}]},
                {"name": "engine", "image": "i", "ports": [{"name": "http", "containerPort": 8000}],
                 "env": [{"name": "A", "value": "B"}]},
            ],
            "initContainers": [
                {"name": "setup", "image": "i", "ports": [{"name": "http", "containerPort": 1}]},
                {"name": "proxy", "image": "i", "restartPolicy": "Always", "ports": [{"containerPort": 15021}]},
            ],
            "volumes": [{"name": "v", "emptyDir": {}}],
        },
        "status": {
            "phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "engine", "ready": true, "restartCount": 1, "image": "i", "imageID": ""}],
        },
    })
}

#[test]
fn what_is_kept_of_a_pod_means_the_same_as_the_whole_pod() {
    let name = ObjectName::new("ns", "p");
    let facts = |object: Arc<Object>| {
        let mut bundle = Bundle::default();
        bundle.apply(Change::Applied(object));
        (*bundle.pods[&name].value).clone()
    };
    let decoded = manifest::decode_object(Kind::Pod, whole());
    let from_whole = decoded.objects.into_iter().next().expect("an object");
    let from_watch = sight(&whole()).object.expect("an object");
    let facts = (facts(from_watch), facts(Arc::new(from_whole)));
    assert_eq!(facts.0, facts.1);
    assert_eq!((facts.0.http_port, facts.0.is_routable, facts.0.is_asleep), (Some(8000), true, true));
    assert_eq!(facts.0.ports, [9, 8000, 15021]);
}

#[test]
fn the_print_of_a_pod_tells_what_matters_from_what_does_not() {
    let before = sight(&whole()).print;
    let edited = |path: &str, value: Value| {
        let mut pod = whole();
        *pod.pointer_mut(path).expect("a field") = value;
        sight(&pod).print
    };
    assert_eq!(edited("/metadata/resourceVersion", json!("8")), before);
    assert_eq!(edited("/status/containerStatuses/0/restartCount", json!(9)), before);
    for (path, value) in [
        ("/status/conditions/1/status", json!("False")),
        ("/status/podIP", json!("10.0.0.2")),
        ("/status/phase", json!("Failed")),
        ("/metadata/labels/sleeping", json!("false")),
        ("/metadata/annotations/a", json!("c")),
        ("/metadata/uid", json!("v")),
    ] {
        assert_ne!(edited(path, value), before, "{path}");
    }
}

#[test]
fn an_object_of_ours_keeps_its_status_unless_that_means_nothing() {
    let of = |status: Value| {
        let object = json!({
            "apiVersion": "production-stack.vllm.ai/v1alpha1", "kind": "StaticRoute",
            "metadata": {"name": "r", "namespace": "ns", "resourceVersion": "3", "managedFields": []},
            "spec": {"staticBackends": "http://a:1", "staticModels": "m", "serviceDiscovery": "static", "routingLogic": "roundrobin"},
            "status": status,
        });
        let object: DynamicObject = serde_json::from_value(object).expect("an object");
        let sight = object.sight(Kind::StaticRoute);
        assert!(sight.findings.is_empty(), "{:?}", sight.findings);
        let Body::StaticRoute(route) = &sight.object.expect("understood").body else {
            panic!("another kind")
        };
        (route.metadata.resource_version.clone(), route.status.clone())
    };
    let (version, status) = of(json!({"configMapRef": "c"}));
    assert_eq!(version.as_deref(), Some("3"));
    assert_eq!(status.and_then(|status| status.config_map_ref).as_deref(), Some("c"));
    assert_eq!(of(json!({"configMapRef": {"of": "a later version"}})).1, None);
}
