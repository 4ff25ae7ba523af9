//! B10: values that users of well-known charts expect, one by one: each arrives where it belongs, in both versions of Helm.

use serde_json::{Value, json};

use crate::render::{HELMS, NAMESPACE, chart, identity, items, objects, of_kind, path, pod, template, the};

/// Renders with these values as YAML, by both versions of Helm.
fn with_values(yaml: &str) -> Vec<Value> {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), yaml).expect("written");
    let args = ["--values", file.path().to_str().expect("a path")];
    let [new, old] =
        HELMS.map(|helm| objects(&template(helm, &args).unwrap_or_else(|error| panic!("{yaml}: {error}"))));
    assert_eq!(new, old, "{yaml}");
    new
}

/// Everything in `expected` is in `found`; lists are equal.
fn contains(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            expected.iter().all(|(key, value)| found.get(key).is_some_and(|found| contains(found, value)))
        }
        _ => found == expected,
    }
}

/// Values, the kind they reach, the place in it, and what is there.
fn check(cases: &[(&str, &str, &str, Value)]) {
    for (values, kind, pointer, expected) in cases {
        let objects = with_values(values);
        let found = of_kind(&objects, kind);
        let hit = |object: &&&Value| object.pointer(pointer).is_some_and(|found| contains(found, expected));
        let places: Vec<_> = found.iter().map(|object| object.pointer(pointer)).collect();
        assert!(
            found.iter().any(|object| hit(&object)),
            "{values}: {kind} {pointer} is not {expected}: {places:?}"
        );
    }
}

/// B10: what concerns pods and their Deployment.
#[test]
fn values_of_pods_reach_the_deployment() {
    let (spec, pod) = ("/spec", "/spec/template/spec");
    let container = "/spec/template/spec/containers/0";
    let kind = "Deployment";
    check(&[
        (
            "global: {imageRegistry: mirror:5000}\nimage: {registry: r, repository: a/b, tag: \"1.10\"}",
            kind,
            container,
            json!({"image": "mirror:5000/a/b:1.10"}),
        ),
        (
            "global: {imagePullSecrets: [a, {name: b}]}\nimagePullSecrets: [{name: b}, {name: c}]",
            kind,
            pod,
            json!({"imagePullSecrets": [{"name": "a"}, {"name": "b"}, {"name": "c"}]}),
        ),
        (
            "extraContainers: [{name: side, image: \"{{ .Release.Name }}\"}]",
            kind,
            &format!("{pod}/containers/1"),
            json!({"name": "side", "image": "rel"}),
        ),
        (
            "initContainers: [{name: first, image: i, restartPolicy: Always}]",
            kind,
            pod,
            json!({"initContainers": [{"name": "first", "image": "i", "restartPolicy": "Always"}]}),
        ),
        (
            "lifecycle: {preStop: {sleep: {seconds: 1}}}",
            kind,
            container,
            json!({"lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}),
        ),
        (
            "hostNetwork: true",
            kind,
            pod,
            json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
        ),
        ("gateway: {hostPort: 80}", kind, &format!("{container}/ports/0"), json!({"hostPort": 80})),
        (
            "hostAliases: [{ip: 192.0.2.1, hostnames: [a]}]\ndnsPolicy: None\ndnsConfig: {nameservers: [192.0.2.2]}",
            kind,
            pod,
            json!({"hostAliases": [{"ip": "192.0.2.1", "hostnames": ["a"]}], "dnsPolicy": "None", "dnsConfig": {"nameservers": ["192.0.2.2"]}}),
        ),
        (
            "runtimeClassName: gvisor\nschedulerName: mine",
            kind,
            pod,
            json!({"runtimeClassName": "gvisor", "schedulerName": "mine"}),
        ),
        (
            "revisionHistoryLimit: 0\nminReadySeconds: 7\nprogressDeadlineSeconds: 90",
            kind,
            spec,
            json!({"revisionHistoryLimit": 0, "minReadySeconds": 7, "progressDeadlineSeconds": 90}),
        ),
        (
            "strategy: {type: Recreate, rollingUpdate: null}",
            kind,
            spec,
            json!({"strategy": {"type": "Recreate"}}),
        ),
        (
            "extraEnv: {A: 1, B: {valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}, C: true, D: \"{{ .Release.Name }}\"}",
            kind,
            &format!("{container}/env/8"),
            json!({"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}),
        ),
        (
            "extraEnv: {A: 1000000}",
            kind,
            &format!("{container}/env/7"),
            json!({"name": "A", "value": "1000000"}),
        ),
        (
            "gateway: {prefixIndexBytes: 128Mi, bodyMemoryBytes: 1Gi}",
            kind,
            &format!("{container}/args/4"),
            json!("--prefix-index-bytes=134217728"),
        ),
        (
            "podLabels: {a: \"{{ .Release.Name }}\", num: 12345678}\npodAnnotations: {b: true}",
            kind,
            "/spec/template/metadata",
            json!({"labels": {"a": "rel", "num": "12345678"}, "annotations": {"b": "true"}}),
        ),
        (
            "commonLabels: {a: \"{{ .Chart.Name }}\"}\ncommonAnnotations: {b: \"{{ .Release.Namespace }}\"}",
            kind,
            "/metadata",
            json!({"labels": {"a": "wicketgate"}, "annotations": {"b": NAMESPACE}}),
        ),
        (
            "affinity: {podAntiAffinity: {x: \"{{ .Release.Name }}\"}}\nnodeSelector: {pool: \"{{ .Release.Name }}\"}",
            kind,
            pod,
            json!({"affinity": {"podAntiAffinity": {"x": "rel"}}, "nodeSelector": {"pool": "rel"}}),
        ),
        (
            "policyCache: {enabled: true}",
            kind,
            &format!("{pod}/volumes/0"),
            json!({"name": "policy-cache", "emptyDir": {"sizeLimit": "512Mi"}}),
        ),
    ]);
    let container = |values: &str| {
        with_values(values)
            .iter()
            .find_map(|object| Some(pod_of(object)?["containers"][0].clone()))
            .expect("a container")
    };
    assert!(container("startupProbe: null").get("startupProbe").is_none());
    assert!(
        items(&container("policyCache: {enabled: true}")["args"])
            .contains(&json!("--policy-cache-dir=/var/cache/wicketgate"))
    );
    assert!(the(&with_values("replicaCount: null"), "Deployment")["spec"].get("replicas").is_none());
}

fn pod_of(object: &Value) -> Option<&Value> {
    (object["kind"] == "Deployment").then(|| pod(object).map(|(spec, _)| spec)).flatten()
}

/// B10: what concerns Services, and ways in from outside.
#[test]
fn values_of_services_and_entries_reach_them() {
    let dual = json!({"ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv6", "IPv4"]});
    let families = "service: {ipFamilyPolicy: PreferDualStack, ipFamilies: [IPv6, IPv4]}";
    let metrics =
        with_values(families).into_iter().find(|object| identity(object).ends_with("-metrics")).expect("it");
    assert!(contains(&metrics["spec"], &dual), "the metrics Service follows: {metrics}");
    let tls = "tls: {enabled: true, existingSecret: s, nodePort: 30443}\nrkllama: {enabled: true, nodePort: 30080}\n";
    check(&[
        (families, "Service", "/spec", dual),
        (
            "service: {labels: {a: \"{{ .Release.Name }}\"}}",
            "Service",
            "/metadata/labels",
            json!({"a": "rel"}),
        ),
        (
            "service: {type: NodePort, nodePort: 30001, nodePort8001: 30002}",
            "Service",
            "/spec/ports/0",
            json!({"nodePort": 30001}),
        ),
        (
            "service: {type: NodePort, nodePort: 30001, nodePort8001: 30002}",
            "Service",
            "/spec/ports/1",
            json!({"nodePort": 30002}),
        ),
        (tls, "Service", "/spec/ports/2", json!({"name": "https", "nodePort": 30443})),
        (tls, "Service", "/spec/ports/3", json!({"name": "rkllama", "nodePort": 30080})),
        (
            "service: {type: LoadBalancer, loadBalancerIP: 192.0.2.7, healthCheckNodePort: 30003}",
            "Service",
            "/spec",
            json!({"loadBalancerIP": "192.0.2.7", "healthCheckNodePort": 30003}),
        ),
        ("service: {clusterIP: None}", "Service", "/spec", json!({"clusterIP": "None", "type": "ClusterIP"})),
        (
            "service: {externalIPs: [192.0.2.8], sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 5}}}",
            "Service",
            "/spec",
            json!({"externalIPs": ["192.0.2.8"], "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}}),
        ),
        (
            "service: {internalTrafficPolicy: Local, appProtocol: kubernetes.io/h2c}",
            "Service",
            "/spec",
            json!({"internalTrafficPolicy": "Local"}),
        ),
        (
            "service: {appProtocol: kubernetes.io/h2c}",
            "Service",
            "/spec/ports/0",
            json!({"appProtocol": "kubernetes.io/h2c"}),
        ),
        (
            "ingress: {enabled: true, className: nginx, hosts: [{host: \"{{ .Release.Name }}.example\"}], tls: [{secretName: s}], annotations: {a: 1}}",
            "Ingress",
            "",
            json!({"metadata": {"annotations": {"a": "1"}}, "spec": {"ingressClassName": "nginx", "tls": [{"secretName": "s"}], "rules": [{"host": "rel.example", "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "rel-wicketgate", "port": {"name": "http"}}}}]}}]}}),
        ),
        (
            "httpRoute: {enabled: true, parentRefs: [{name: g}], hostnames: [a.example]}",
            "HTTPRoute",
            "/spec",
            json!({"parentRefs": [{"name": "g"}], "hostnames": ["a.example"], "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "timeouts": {"request": "0s"}, "backendRefs": [{"name": "rel-wicketgate", "port": 80}]}]}),
        ),
        (
            "tls: {enabled: true, certificate: {enabled: true, issuerRef: {name: i}}}",
            "Certificate",
            "/spec",
            json!({"secretName": "rel-wicketgate-tls", "issuerRef": {"name": "i"}, "dnsNames": ["rel-wicketgate", "rel-wicketgate.inference", "rel-wicketgate.inference.svc"]}),
        ),
    ]);
}

/// B10: scaling, budgets, monitoring, accounts, claims.
#[test]
fn values_of_everything_else_make_or_change_their_object() {
    let keda = "keda: {enabled: true, triggers: [{type: cpu, metadata: {value: \"50\"}}]}\nautoscaling: {minReplicas: 3, maxReplicas: 5}";
    let monitor = "{enabled: true, honorLabels: false, scheme: https, tlsConfig: {insecureSkipVerify: true}}";
    let scrape = json!({"port": "metrics", "path": "/metrics", "interval": "15s", "scrapeTimeout": "10s", "honorLabels": false, "scheme": "https", "tlsConfig": {"insecureSkipVerify": true}});
    let one = |list: &str| json!({list: [scrape]});
    check(&[
        (
            "autoscaling: {enabled: true, targetMemoryUtilizationPercentage: 80, targetCPUUtilizationPercentage: null}",
            "HorizontalPodAutoscaler",
            "/spec",
            json!({"metrics": [{"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 80}}}]}),
        ),
        (
            "autoscaling: {enabled: true, targetCPUUtilizationPercentage: null, metrics: [{type: External, external: {metric: {name: q}}}], behavior: {scaleUp: {policies: []}}}",
            "HorizontalPodAutoscaler",
            "/spec",
            json!({"metrics": [{"type": "External", "external": {"metric": {"name": "q"}}}], "behavior": {"scaleUp": {"policies": []}, "scaleDown": {"stabilizationWindowSeconds": 300}}}),
        ),
        (
            keda,
            "ScaledObject",
            "/spec",
            json!({"minReplicaCount": 3, "maxReplicaCount": 5, "triggers": [{"type": "cpu", "metadata": {"value": "50"}}], "scaleTargetRef": {"name": "rel-wicketgate"}}),
        ),
        (
            "podDisruptionBudget: {minAvailable: 50%}",
            "PodDisruptionBudget",
            "/spec",
            json!({"minAvailable": "50%"}),
        ),
        (&format!("metrics: {{serviceMonitor: {monitor}}}"), "ServiceMonitor", "/spec", one("endpoints")),
        (&format!("metrics: {{podMonitor: {monitor}}}"), "PodMonitor", "/spec", one("podMetricsEndpoints")),
        (&format!("metrics: {{vmServiceScrape: {monitor}}}"), "VMServiceScrape", "/spec", one("endpoints")),
        (
            "serviceAccount: {labels: {azure.workload.identity/use: true}, automount: true}",
            "ServiceAccount",
            "",
            json!({"metadata": {"labels": {"azure.workload.identity/use": "true"}}, "automountServiceAccountToken": true}),
        ),
        (
            "policyCache: {enabled: true, persistent: true, size: 2Gi, storageClass: fast}",
            "PersistentVolumeClaim",
            "/spec",
            json!({"accessModes": ["ReadWriteMany"], "storageClassName": "fast", "resources": {"requests": {"storage": "2Gi"}}}),
        ),
        (
            "crds: {inTemplates: true}",
            "CustomResourceDefinition",
            "/metadata/annotations",
            json!({"helm.sh/resource-policy": "keep"}),
        ),
    ]);
    assert!(
        the(&with_values(keda), "Deployment")["spec"].get("replicas").is_none(),
        "replicas belong to KEDA"
    );
    assert_eq!(of_kind(&with_values("crds: {inTemplates: true}"), "CustomResourceDefinition").len(), 8);
    let claimed = with_values("policyCache: {enabled: true, persistent: true, existingClaim: mine}");
    assert!(of_kind(&claimed, "PersistentVolumeClaim").is_empty());
    assert_eq!(
        pod_of(the(&claimed, "Deployment")).expect("a pod")["volumes"][0]["persistentVolumeClaim"]["claimName"],
        "mine"
    );
}

/// B10: everything that has a namespace is in the one that is asked for, and roles are bound to accounts there.
#[test]
fn another_namespace_is_everywhere_or_nowhere() {
    for (name, values) in crate::render::scenarios().iter().map(|file| (file.display().to_string(), file)) {
        if name.contains("namespace") {
            continue;
        }
        let args = ["--values", values.to_str().expect("a path"), "--set", "namespaceOverride=elsewhere"];
        let text = template("helm", &args).expect("rendered");
        // The user's own objects are as the user writes them.
        let own = objects(&text)
            .into_iter()
            .filter(|object| !["-notes", "-text"].iter().any(|end| identity(object).ends_with(end)));
        for object in own {
            let rest = object.to_string();
            assert!(!rest.contains(&format!("\"namespace\":\"{NAMESPACE}\"")), "{name}: {rest}");
        }
    }
}

/// B10: `--set-string`, and parameters of Argo CD, mean what they say: each boolean and number as text renders the same.
#[test]
fn booleans_and_numbers_may_be_given_as_text() {
    fn scalars(value: &Value, path: &str, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                for (name, inner) in map.iter().filter(|(name, _)| !name.contains('.')) {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    scalars(inner, &path, found);
                }
            }
            Value::Bool(_) | Value::Number(_) => found.push(format!("{path}={value}")),
            _ => {}
        }
    }
    let values: Value =
        serde_saphyr::from_str(&crate::render::text("charts/wicketgate/values.yaml")).expect("YAML");
    let mut found = Vec::new();
    scalars(&values, "", &mut found);
    // These are passed on as they are: Kubernetes wants their own types.
    let passed_on = ["strategy.", "podSecurityContext.", "securityContext."];
    found.retain(|set| !passed_on.iter().any(|start| set.starts_with(start)));
    assert!(found.len() > 50, "{found:?}");
    let expected = chart(&[]);
    for helm in HELMS {
        let args: Vec<&str> = found.iter().flat_map(|set| ["--set-string", set]).collect();
        assert_eq!(objects(&template(helm, &args).expect("rendered")), expected, "{helm}");
    }
    let on = chart(&[
        "--set-string",
        "autoscaling.enabled=true,metrics.serviceMonitor.enabled=true,replicaCount=3,podDisruptionBudget.maxUnavailable=2",
    ]);
    assert_eq!(the(&on, "PodDisruptionBudget")["spec"]["maxUnavailable"], 2);
    assert_eq!((of_kind(&on, "HorizontalPodAutoscaler").len(), of_kind(&on, "ServiceMonitor").len()), (1, 1));
}

/// B10: what cannot be meant is refused, with the remedy.
#[test]
fn values_that_would_be_ignored_or_misread_are_refused() {
    let cases = [
        ("enabled: false", "is for a parent chart"),
        ("image: {tag: 1.10}", "write it in quotes"),
        ("ingress: {enabled: true}", "needs ingress.hosts"),
        ("httpRoute: {enabled: true}", "needs httpRoute.parentRefs"),
        ("keda: {enabled: true}", "needs keda.triggers"),
        ("keda: {enabled: true, triggers: [{}]}\nautoscaling: {enabled: true}", "exclude each other"),
        ("tls: {enabled: true, certificate: {enabled: true}}", "needs tls.certificate.issuerRef"),
        ("replicaCount: null\nleaderElection: {enabled: false}", "set replicaCount=1"),
        (
            "metrics: {enabled: false, podMonitor: {enabled: true}}",
            "podMonitor.enabled needs metrics.enabled",
        ),
        ("extraEnv: {METRICS_ADDR: x}", "METRICS_ADDR is set twice"),
        ("policyCache: {enabled: true}\ngateway: {extraArgs: [--policy-cache-dir=/x]}", "is set by a value"),
    ];
    for (values, wanted) in cases {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), values).expect("written");
        for helm in HELMS {
            let said =
                template(helm, &["--values", file.path().to_str().expect("a path")]).expect_err(values);
            assert!(said.contains(wanted), "{values}: {said}");
        }
    }
}

/// B10: a parent chart can switch the gateway off by `condition:`, and gives it its registry and pull secrets.
#[test]
fn a_parent_chart_switches_it_and_shares_its_registry() {
    let folder = tempfile::tempdir().expect("a folder");
    let charts = folder.path().join("charts");
    std::fs::create_dir(&charts).expect("made");
    std::os::unix::fs::symlink(path("charts/wicketgate"), charts.join("wicketgate")).expect("linked");
    let parent = "apiVersion: v2\nname: parent\nversion: 0.1.0\ndependencies:\n  - {name: wicketgate, version: 0.1.0, condition: wicketgate.enabled}\n";
    std::fs::write(folder.path().join("Chart.yaml"), parent).expect("written");
    for helm in HELMS {
        for (enabled, deployments) in [("true", 1), ("false", 0)] {
            let set = format!(
                "wicketgate.enabled={enabled},global.imageRegistry=mirror,global.imagePullSecrets[0]=s"
            );
            let mut command = crate::render::tool(helm);
            let said =
                crate::render::run(command.args(["template", "up"]).arg(folder.path()).args(["--set", &set]));
            let objects = objects(&said.expect("rendered"));
            let found = of_kind(&objects, "Deployment");
            assert_eq!(found.len(), deployments, "{helm} {enabled}");
            for deployment in found {
                let spec = &deployment["spec"]["template"]["spec"];
                assert_eq!(spec["containers"][0]["image"], "mirror/wicketgate:0.1.0");
                assert_eq!(spec["imagePullSecrets"], json!([{"name": "s"}]));
            }
        }
    }
}
