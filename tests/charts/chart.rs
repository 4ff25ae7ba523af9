//! The chart: every scenario, both versions of Helm, and what is refused.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};

use crate::render::{
    HELMS, OVERLAYS, RELEASE, chart, identity, items, objects, of_kind, overlay, pod, rendered, run,
    scenarios, template, the,
};

/// Everything that is rendered anywhere: the chart's scenarios and the overlays.
fn everything() -> impl Iterator<Item = (&'static str, &'static [Value])> {
    let overlays = OVERLAYS.into_iter().map(|name| (name, overlay(name)));
    rendered().iter().map(|(name, objects)| (&**name, &**objects)).chain(overlays)
}

#[test]
fn both_versions_of_helm_render_every_scenario_alike() {
    for file in scenarios() {
        let args = ["--values", &file.to_string_lossy()];
        let [new, old] = HELMS.map(|helm| template(helm, &args).map(|yaml| objects(&yaml)));
        assert!(new.is_ok(), "{}: {new:?}", file.display());
        assert_eq!(new, old, "{}", file.display());
    }
}

#[test]
fn no_warning_of_lint_in_any_scenario() {
    for helm in HELMS {
        for file in scenarios() {
            let mut lint = crate::render::tool(helm);
            lint.arg("lint").arg("--strict").arg(crate::render::path("charts/wicketgate"));
            let said = run(lint.arg("--values").arg(&file));
            assert!(said.is_ok(), "{helm} {}: {said:?}", file.display());
        }
    }
}

#[test]
fn every_object_of_the_chart_has_the_recommended_labels_and_its_namespace() {
    for (scenario, objects) in rendered() {
        for object in objects.iter().filter(|object| {
            // Objects of the user's own are left as they are.
            !identity(object).contains("-notes") && !identity(object).contains("llm-text")
        }) {
            let id = format!("{scenario}: {}", identity(object));
            let labels = &object["metadata"]["labels"];
            for label in ["name", "instance", "version", "component", "part-of", "managed-by"] {
                assert!(
                    labels[format!("app.kubernetes.io/{label}")].is_string(),
                    "{id} has no label {label}"
                );
            }
            assert!(
                labels["helm.sh/chart"].as_str().is_some_and(|chart| chart.starts_with("wicketgate-")),
                "{id}"
            );
            assert_eq!(labels["app.kubernetes.io/instance"], RELEASE, "{id}");
            let cluster_wide = object["kind"].as_str().is_some_and(|kind| kind.starts_with("Cluster"));
            assert_eq!(object["metadata"]["namespace"].is_null(), cluster_wide, "{id}");
        }
    }
}

#[test]
fn pods_satisfy_the_restricted_standard_and_have_bounds() {
    for (scenario, objects) in everything() {
        for (object, spec) in objects.iter().filter_map(|object| Some((object, pod(object)?.0))) {
            let id = format!("{scenario}: {}", identity(object));
            assert_eq!(spec["securityContext"]["runAsNonRoot"], true, "{id}");
            assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{id}");
            for container in items(&spec["containers"]) {
                let security = &container["securityContext"];
                assert_eq!(security["allowPrivilegeEscalation"], false, "{id}");
                assert_eq!(security["readOnlyRootFilesystem"], true, "{id}");
                assert_eq!(security["capabilities"], json!({"drop": ["ALL"]}), "{id}");
                assert!(container["resources"]["requests"]["cpu"].is_string(), "{id}");
                assert!(container["resources"]["limits"]["memory"].is_string(), "{id}");
            }
            assert!(spec["automountServiceAccountToken"].is_boolean(), "{id}: says whether it needs a token");
        }
    }
}

/// Server-side apply, Helm 4's way, refuses an entry twice.
#[test]
fn no_list_with_names_has_a_name_twice() {
    for (scenario, objects) in everything() {
        for (object, spec) in objects.iter().filter_map(|object| Some((object, pod(object)?.0))) {
            let container = &spec["containers"][0];
            let lists = [
                &container["env"],
                &container["ports"],
                &container["volumeMounts"],
                &spec["volumes"],
                &spec["containers"],
            ];
            for list in lists {
                let name =
                    |item: &Value| item["mountPath"].as_str().or(item["name"].as_str()).map(str::to_owned);
                let names: BTreeSet<_> = items(list).iter().map(name).collect();
                assert_eq!(names.len(), items(list).len(), "{scenario}: {}: {list}", identity(object));
            }
        }
        for service in of_kind(objects, "Service") {
            let ports = items(&service["spec"]["ports"]);
            let numbers: BTreeSet<_> = ports.iter().map(|port| port["port"].as_i64()).collect();
            assert_eq!(numbers.len(), ports.len(), "{scenario}: {}", identity(service));
        }
    }
}

/// A Service that selects the pod of `helm test`, or a Deployment whose selector changes, cannot be put right later.
#[test]
fn selectors_match_the_gateways_pods_and_nothing_else() {
    for (scenario, objects) in everything() {
        let deployment = the(objects, "Deployment");
        let selector = &deployment["spec"]["selector"]["matchLabels"];
        let names: BTreeSet<&str> =
            selector.as_object().expect("labels").keys().map(String::as_str).collect();
        let allowed =
            ["app", "app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component"];
        assert!(names.iter().all(|name| allowed.contains(name)), "{scenario}: {names:?} change over time");
        let matches = |labels: &Value, selector: &Value| {
            selector.as_object().expect("labels").iter().all(|(key, value)| labels[key] == *value)
        };
        let (_, labels) = pod(deployment).expect("a template");
        assert!(matches(labels, selector), "{scenario}");
        for service in of_kind(objects, "Service").into_iter().filter(|service| {
            // Engines, not the gateway.
            service["metadata"]["name"] != "rkllama-pods"
        }) {
            assert!(matches(labels, &service["spec"]["selector"]), "{scenario}: {}", identity(service));
        }
        for other in of_kind(objects, "Pod") {
            assert!(!matches(&other["metadata"]["labels"], selector), "{scenario}: {}", identity(other));
        }
    }
}

/// Every named port that a Service, a probe or a policy refers to exists.
#[test]
fn named_ports_are_ports_of_the_container() {
    for (scenario, objects) in everything() {
        let container = &the(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0];
        let known: Vec<&str> =
            items(&container["ports"]).iter().filter_map(|port| port["name"].as_str()).collect();
        let probes = ["startupProbe", "livenessProbe", "readinessProbe"];
        let asked = probes.iter().filter_map(|probe| container[probe]["httpGet"]["port"].as_str());
        let services =
            of_kind(objects, "Service").into_iter().flat_map(|service| items(&service["spec"]["ports"]));
        let targets = services.filter_map(|port| port["targetPort"].as_str());
        let policies = of_kind(objects, "NetworkPolicy")
            .into_iter()
            .flat_map(|policy| items(&policy["spec"]["ingress"]));
        let let_in = policies.flat_map(|rule| items(&rule["ports"])).filter_map(|port| port["port"].as_str());
        for port in asked.chain(targets).chain(let_in) {
            assert!(known.contains(&port), "{scenario}: {port} is none of {known:?}");
        }
    }
}

#[test]
fn probes_and_the_grace_period_fit_how_the_gateway_ends() {
    for (scenario, objects) in everything() {
        let (spec, _) = pod(the(objects, "Deployment")).expect("a template");
        let container = &spec["containers"][0];
        assert_eq!(container["readinessProbe"]["httpGet"]["path"], "/readyz", "{scenario}");
        let seconds = |flag: &str, default: i64| {
            let found = items(&container["args"])
                .iter()
                .filter_map(Value::as_str)
                .find_map(|arg| arg.strip_prefix(flag));
            found.map_or(default, |value| value.trim_end_matches('s').parse().expect("seconds"))
        };
        let needed = seconds("--drain-delay=", 5) + seconds("--drain-timeout=", 30) + 5;
        let given = spec["terminationGracePeriodSeconds"].as_i64().expect("a grace period");
        assert!(given >= needed, "{scenario}: {given} s, where draining takes {needed} s");
    }
}

/// The Services of gateways lead to a Service that there is, whatever the release is called.
#[test]
fn the_gateway_knows_its_own_service() {
    for (scenario, objects) in everything() {
        let container = &the(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0];
        let mut variables = items(&container["env"]).iter();
        let told = variables.find(|variable| variable["name"] == "GATEWAY_SERVICE");
        let own = told.map_or("wicketgate", |told| told["value"].as_str().expect("a name"));
        let is_own = |service: &&Value| service["metadata"]["name"] == own;
        assert!(of_kind(objects, "Service").iter().any(is_own), "{scenario}: {own}");
    }
}

/// The binary takes the arguments and the environment of every pod as they are.
#[test]
fn the_binary_knows_every_argument_and_variable() {
    for (scenario, objects) in everything() {
        for (object, spec) in objects.iter().filter_map(|object| Some((object, pod(object)?.0))) {
            let container = &spec["containers"][0];
            let mut command = Command::new(harness::gateway::binary());
            command.env_clear();
            for variable in items(&container["env"]) {
                let value = variable["value"].as_str().unwrap_or("inference");
                command.env(variable["name"].as_str().expect("a name"), value);
            }
            let arguments = items(&container["args"]).iter().filter_map(Value::as_str);
            // `--help` comes last: what stands before it is parsed, and refused if it is wrong.
            let said = run(command
                .args(arguments.map(|arg| arg.replace("$(NAMESPACE)", "inference")))
                .arg("--help"));
            assert!(said.is_ok(), "{scenario}: {}: {said:?}", identity(object));
        }
    }
}

/// A release may be tested where traffic is limited: the test's pod is let in, to the ports that it asks.
#[test]
fn the_network_policy_lets_the_releases_own_test_in() {
    let set = "networkPolicy.enabled=true,networkPolicy.ingress.from[0].podSelector.matchLabels.a=b";
    let objects = chart(&["--set", set]);
    let policy = &the(&objects, "NetworkPolicy")["spec"]["ingress"];
    let test = of_kind(&objects, "Pod")[0];
    let selects = |rule: &Value| {
        let labels = rule["from"][0]["podSelector"]["matchLabels"].as_object().cloned().unwrap_or_default();
        !labels.is_empty() && labels.iter().all(|(key, value)| test["metadata"]["labels"][key] == *value)
    };
    let rule = items(policy).iter().find(|rule| selects(rule)).expect("a rule for the test's pod");
    let ports: Vec<_> = items(&rule["ports"]).iter().filter_map(|port| port["port"].as_str()).collect();
    assert_eq!(ports, ["http", "metrics"]);
}

/// `null` takes a probe's times away, not the probe.
#[test]
fn probes_without_times_of_their_own_are_still_probes() {
    let objects = chart(&["--set", "livenessProbe=null"]);
    let container = &the(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["livenessProbe"], json!({"httpGet": {"path": "/livez", "port": "health"}}));
}

#[test]
fn values_that_contradict_each_other_are_refused_with_the_remedy() {
    let cases = [
        ("shutdown.terminationGracePeriodSeconds=100", "must be at least 130"),
        ("watchNamespaces={a}", "needs rbac.scope=namespace"),
        ("leaderElection.enabled=false", "set replicaCount=1"),
        ("leaderElection.enabled=false,replicaCount=1,autoscaling.enabled=true", "set replicaCount=1"),
        ("autoscaling.enabled=true,autoscaling.minReplicas=11", "must not exceed"),
        ("autoscaling.enabled=true,autoscaling.targetCPUUtilizationPercentage=null", "autoscaling needs"),
        ("tls.enabled=true", "needs tls.existingSecret"),
        ("metrics.enabled=false,metrics.serviceMonitor.enabled=true", "needs metrics.enabled"),
        ("metrics.enabled=false,metrics.prometheusRule.enabled=true", "needs metrics.enabled"),
        (
            "rbac.scope=namespace,watchNamespaces={a},gateways[0].name=g,gateways[0].spec.routes=null",
            "is not watched",
        ),
        ("gateway.logLevel=warning", "/gateway/logLevel"),
        ("rkllama.enabled=true,rkllama.port=9090", "are equal"),
        ("tls.enabled=true,tls.existingSecret=s,tls.servicePort=80", "are equal"),
        ("gateway.extraArgs={--listen=:9}", "--listen=:9 is set by a value"),
        ("gateway.extraArgs={--leader-elect}", "is set by a value"),
        ("gateway.extraArgs={-drain-delay=1s}", "is set by a value"),
        ("gateway.extraArgs={--engine-control}", "is set by a value"),
        ("extraEnv[0].name=METRICS_ADDR,extraEnv[0].value=x", "METRICS_ADDR is set twice"),
        ("replicaCount=many", "/replicaCount"),
        ("gateway.wrkers=2", "'wrkers' not allowed"),
        ("rbac.scope=everything", "/rbac/scope"),
        ("image.digest=sha256:1", "/image/digest"),
        ("gateways[0].name=g", "missing property 'spec'"),
        ("gateway.engineScrapeInterval=2", "/gateway/engineScrapeInterval"),
    ];
    for (set, wanted) in cases {
        for helm in HELMS {
            let said = template(helm, &["--set", set]).expect_err(set);
            assert!(said.contains(wanted), "{set}: {said}");
        }
    }
}

#[test]
fn replicas_belong_to_the_autoscaler_where_there_is_one() {
    let objects = chart(&["--set", "autoscaling.enabled=true"]);
    assert!(the(&objects, "Deployment")["spec"].get("replicas").is_none());
    assert_eq!(
        the(&objects, "HorizontalPodAutoscaler")["spec"]["behavior"]["scaleDown"]["stabilizationWindowSeconds"],
        300
    );
    let production = overlay("overlays/production");
    assert!(the(production, "Deployment")["spec"].get("replicas").is_none());
    assert_eq!(the(&chart(&[]), "Deployment")["spec"]["replicas"], 2);
}

#[test]
fn a_single_replica_may_always_be_evicted() {
    for (set, budgets) in [
        ("replicaCount=1", 0),
        ("replicaCount=2", 1),
        ("autoscaling.enabled=true,autoscaling.minReplicas=1", 0),
        ("autoscaling.enabled=true,autoscaling.minReplicas=2", 1),
    ] {
        let objects = chart(&["--set", set]);
        let found = of_kind(&objects, "PodDisruptionBudget");
        assert_eq!(found.len(), budgets, "{set}");
        assert!(
            found.iter().all(|budget| budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"),
            "{set}"
        );
    }
}

/// B10: what is asked for is rendered, also by a `helm template` that knows of no cluster: the API server says what it lacks.
#[test]
fn the_prometheus_operators_kinds_are_rendered_where_they_are_asked_for() {
    let values = "metrics.serviceMonitor.enabled=true,metrics.prometheusRule.enabled=true";
    let mut command = crate::render::tool("helm");
    command.args(["template", RELEASE]).arg(crate::render::path("charts/wicketgate")).args(["--set", values]);
    let alone = objects(&run(&mut command).expect("rendered"));
    let kinds =
        |objects: &[Value]| ["ServiceMonitor", "PrometheusRule"].map(|kind| of_kind(objects, kind).len());
    assert_eq!(kinds(&alone), [1, 1]);
    assert_eq!(kinds(&chart(&[])), [0, 0]);
}

/// The numbers of the chart's defaults reach the binary as they are: Helm likes to print large ones with an exponent.
#[test]
fn large_numbers_keep_their_digits() {
    let objects = chart(&[]);
    let (spec, _) = pod(the(&objects, "Deployment")).expect("a template");
    for wanted in ["--body-memory-bytes=536870912", "--prefix-index-bytes=67108864"] {
        assert!(items(&spec["containers"][0]["args"]).contains(&json!(wanted)), "{wanted}: {spec}");
    }
}

#[test]
fn long_names_stay_names() {
    let long = "n".repeat(80);
    for object in
        chart(&["--set", &format!("fullnameOverride={}", &long[..63]), "--set", "policyFiles.a=AA=="])
    {
        let name = object["metadata"]["name"].as_str().expect("a name");
        let cluster_wide = object["metadata"]["namespace"].is_null();
        assert!(cluster_wide || name.len() <= 63, "{}", identity(&object));
    }
    let names = |fullname: &str| -> BTreeSet<String> {
        chart(&["--set", &format!("fullnameOverride={fullname}")]).iter().map(identity).collect()
    };
    assert_eq!(names(&long[..63]).len(), names("short").len(), "no two names became one");
}
