use super::*;

fn gateway_yaml(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceGateway\nmetadata: {{{name}}}\nspec:\n{spec}\n---\n"
    )
}

fn service_yaml(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: InferenceService\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n---\n"
    )
}

fn two_services() -> String {
    let spec = |host: &str| format!("modelName: m, backendRef: {{kind: Static, urls: ['http://{host}:1']}}");
    service_yaml("a", &spec("a")) + &service_yaml("b", &spec("b"))
}

#[test]
fn routes_of_both_lists_are_one_list_and_contradictions_are_found() {
    for (spec, expected, findings) in [
        (
            "  routes: [{model: m, inferenceServiceRef: a}]\n  modelRoutes: [{modelName: n, serviceRef: {name: b}}]",
            vec!["m a", "n b"],
            vec![],
        ),
        (
            "  routes: [{modelName: m, serviceRef: a}, {model: n, inferenceServiceRef: {name: b, kind: InferenceService}}]",
            vec!["m a", "n b"],
            vec![],
        ),
        (
            "  routes: [{model: m, inferenceServiceRef: a}]\n  modelRoutes: [{modelName: m, serviceRef: a}]",
            vec!["m a"],
            vec![],
        ),
        (
            "  routes: [{model: m, inferenceServiceRef: a}]\n  modelRoutes: [{modelName: m, serviceRef: b}]",
            vec!["m a"],
            vec!["spec.modelRoutes[0] ConflictingRoutes"],
        ),
        (
            "  routes: [{model: m, inferenceServiceRef: a}, {model: m, inferenceServiceRef: b}, {model: n, inferenceServiceRef: b}]",
            vec!["m a", "n b"],
            vec!["spec.routes[1] ConflictingRoutes"],
        ),
        (
            "  routes: [{inferenceServiceRef: a}, {model: n, inferenceServiceRef: b}]",
            vec!["n b"],
            vec!["spec.routes[0] InvalidRoute"],
        ),
        (
            "  routes: [{model: m}, {model: n, inferenceServiceRef: b}]",
            vec!["n b"],
            vec!["spec.routes[0] InvalidRoute"],
        ),
        (
            "  routes: [{model: m, modelName: x, inferenceServiceRef: a}]\n  modelRoutes: [{modelName: n, serviceRef: b}]",
            vec!["n b"],
            vec!["spec.routes[0] InvalidRoute"],
        ),
        (
            "  routes: [{model: m, inferenceServiceRef: a, serviceRef: b}]\n  modelRoutes: [{modelName: n, serviceRef: b}]",
            vec!["n b"],
            vec!["spec.routes[0] InvalidRoute"],
        ),
        (
            "  routes: [{model: m, inferenceServiceRef: {name: a, kind: InferenceCache}}, {model: n, inferenceServiceRef: b}]",
            vec!["n b"],
            vec!["spec.routes[0].inferenceServiceRef InvalidReference"],
        ),
        (
            "  routes: [{model: m, inferenceServiceRef: other/a}, {model: n, inferenceServiceRef: default/b}]",
            vec!["n b"],
            vec!["spec.routes[0].inferenceServiceRef RefNotPermitted"],
        ),
        (
            "  routes: [{model: m, inferenceServiceRef: {name: a, apiGroup: x.y}}, {model: n, inferenceServiceRef: b}]",
            vec!["n b"],
            vec!["spec.routes[0].inferenceServiceRef InvalidReference"],
        ),
    ] {
        let lowered = lowered(&[&two_services(), &gateway_yaml("name: g", spec)]);
        let routes: Vec<String> =
            gateway(&lowered, "g").routes.iter().map(|r| format!("{} {}", r.model, r.service.name)).collect();
        assert_eq!(routes, expected, "{spec}");
        let findings: Vec<String> =
            findings.iter().map(|f| format!("error InferenceGateway default/g {f}")).collect();
        assert_eq!(serious(&lowered), findings, "{spec}");
    }
}

#[test]
fn the_older_gateway_has_a_model_and_both_are_told() {
    let route = "  routes: [{model: m, inferenceServiceRef: a}]";
    let young = gateway_yaml("name: young, creationTimestamp: '2026-02-01T00:00:00Z'", route);
    let old = gateway_yaml("name: zold, creationTimestamp: '2026-01-01T00:00:00Z'", route);
    let lowered = lowered(&[&two_services(), &young, &old]);
    let order: Vec<&str> = lowered.draft.gateways.iter().map(|gateway| &*gateway.name.name).collect();
    assert_eq!(order, ["zold", "young"]);
    assert_eq!(
        shown(&lowered.findings),
        [
            "warning InferenceGateway default/young spec ModelConflict",
            "info InferenceGateway default/zold spec ModelConflict"
        ]
    );
}

#[test]
fn hosts_belong_to_one_gateway_and_odd_ones_are_refused() {
    let one = gateway_yaml(
        "name: a",
        "  hostnames: [x.example, 'http://y', '*.z', 'h:1']\n  routes: [{model: m, inferenceServiceRef: a}]",
    );
    let two =
        gateway_yaml("name: b", "  hostnames: [X.example]\n  routes: [{model: n, inferenceServiceRef: b}]");
    let lowered = lowered(&[&two_services(), &one, &two]);
    let odd = |n: u32| format!("error InferenceGateway default/a spec.hostnames[{n}] Invalid");
    let taken = "error InferenceGateway default/b spec.hostnames[0] HostConflict".to_owned();
    assert_eq!(serious(&lowered), [odd(1), odd(2), odd(3), taken]);
    assert_eq!(gateway(&lowered, "a").hostnames.len(), 1);
}

/// C4: names inside the cluster that are of another namespace are refused, whatever their case, ending and domain.
#[test]
fn in_cluster_names_of_other_namespaces_are_refused_as_hostnames() {
    let route = "  routes: [{model: m, inferenceServiceRef: a}]";
    let other = gateway_yaml("name: llm, namespace: prod", "  routes: []")
        + "apiVersion: v1\nkind: Service\nmetadata: {name: front, namespace: prod}\nspec: {ports: [{port: 80}]}\n---\n";
    let options = LowerOptions {
        own_service: Some(domain::name::ObjectName::new("infra", "wicketgate")),
        ..LowerOptions::default()
    };
    for (host, expected) in [
        ("llm.prod.svc", "HostNotPermitted"),
        ("LLM.Prod.SVC.", "HostNotPermitted"),
        ("llm.prod.svc.cluster.local", "HostNotPermitted"),
        ("llm.prod.svc.corp.example", "HostNotPermitted"),
        ("anything.prod.svc", "HostNotPermitted"),
        ("llm.prod", "HostNotPermitted"),
        ("front.prod", "HostNotPermitted"),
        ("wicketgate", "HostNotPermitted"),
        ("wicketgate.infra", "HostNotPermitted"),
        ("wicketgate.infra.svc", "HostNotPermitted"),
        ("llm.prod.svc:80", "Invalid"),
        ("*.prod.svc", "Invalid"),
        ("10.0.0.1", "Invalid"),
        ("-a.example", "Invalid"),
        ("llm", "HostConflict"),
        ("llm.default.svc", ""),
        ("llm.example.com", ""),
        ("llm.dev", ""),
        ("llm.svc.example.com", ""),
    ] {
        let own = gateway_yaml("name: g", &format!("  hostnames: ['{host}']\n{route}"));
        let lowered = lower(&bundle(&[&two_services(), &other, &own]), &options);
        let about =
            |f: &&Finding| &*f.object == "InferenceGateway default/g" && f.severity == Severity::Error;
        let found: Vec<(&str, &str)> =
            lowered.findings.iter().filter(about).map(|f| (f.field.as_str(), f.reason)).collect();
        let wanted = if expected.is_empty() { vec![] } else { vec![("spec.hostnames[0]", expected)] };
        assert_eq!(found, wanted, "{host}");
        let is_kept = expected.is_empty() || expected == "HostConflict";
        assert_eq!(gateway(&lowered, "g").hostnames.len(), usize::from(is_kept), "{host}");
    }
    let namesake = gateway_yaml("name: wicketgate", route);
    let lowered = lower(&bundle(&[&two_services(), &namesake]), &options);
    assert!(!gateway(&lowered, "wicketgate").has_short_host, "clients of all gateways come by that name");
}

/// C4: which of two gateways has a name is said to both.
#[test]
fn both_gateways_are_told_which_of_them_has_a_host() {
    let route = "  routes: [{model: m, inferenceServiceRef: a}]";
    let older =
        gateway_yaml("name: llm, namespace: one, creationTimestamp: '2026-01-01T00:00:00Z'", "  routes: []");
    let younger =
        gateway_yaml("name: llm, namespace: two, creationTimestamp: '2026-02-01T00:00:00Z'", "  routes: []");
    let lister = gateway_yaml("name: g", &format!("  hostnames: [llm]\n{route}"));
    let lowered = lowered(&[&two_services(), &older, &younger, &lister]);
    let about: Vec<Finding> =
        lowered.findings.iter().filter(|finding| finding.reason == "HostConflict").cloned().collect();
    assert_eq!(
        shown(&about),
        [
            "error InferenceGateway default/g spec.hostnames[0] HostConflict",
            "info InferenceGateway one/llm  HostConflict",
            "info InferenceGateway one/llm  HostConflict",
            "warning InferenceGateway two/llm metadata.name HostConflict",
        ]
    );
    assert!(about[0].message.contains("InferenceGateway one/llm"), "{}", about[0]);
    assert!(about[3].remedy.contains("llm.two"), "{}", about[3]);
}

/// C2: a credential is never sent under a name that frames the request or is the gateway's own.
#[test]
fn a_credential_under_a_header_of_the_gateways_own_is_refused() {
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: t}\nstringData: {k: chunked}\n---\n";
    for (header, is_taken) in [
        ("authorization", true),
        ("x-api-key", true),
        ("transfer-encoding", false),
        ("Transfer-Encoding", false),
        ("transfer_encoding", false),
        ("Content-Length", false),
        ("host", false),
        ("x-wicketgate-policy", false),
    ] {
        let spec = format!(
            "modelName: m, backendRef: {{kind: Static, urls: ['http://a:1']}}, auth: {{secretRef: {{name: t, key: k}}, header: {header}}}"
        );
        let gateway_text = gateway_yaml("name: g", "  routes: [{model: m, inferenceServiceRef: a}]");
        let lowered = lowered(&[secret, &service_yaml("a", &spec), &gateway_text]);
        let endpoint = &route(gateway(&lowered, "g"), "m").endpoints[0];
        assert_eq!(endpoint.auth.is_some(), is_taken, "{header}");
        let refused = "error InferenceService default/a spec.auth.header HeaderNotPermitted".to_owned();
        assert_eq!(serious(&lowered), if is_taken { vec![] } else { vec![refused] }, "{header}");
    }
}

#[test]
fn aliases_that_lead_nowhere_are_left_out() {
    let spec = "  routes: [{model: m, inferenceServiceRef: a}]\n  aliases: {ok: m, m: m, lost: x, c1: c2, c2: c1, self: self}";
    let lowered = lowered(&[&two_services(), &gateway_yaml("name: g", spec)]);
    assert_eq!(gateway(&lowered, "g").aliases.keys().map(|a| &**a).collect::<Vec<_>>(), ["ok"]);
    assert_eq!(
        serious(&lowered),
        [
            ("c1", "AliasCycle"),
            ("c2", "AliasCycle"),
            ("lost", "AliasTargetNotFound"),
            ("m", "AliasShadowed"),
            ("self", "AliasCycle")
        ]
        .map(|(alias, reason)| format!("error InferenceGateway default/g spec.aliases.{alias} {reason}"))
    );
}

#[test]
fn a_guard_that_cannot_be_enforced_closes_its_model_only() {
    for (filters, blocked, reason) in [
        ("{promptGuard: {blockedPatterns: [SSN]}}", true, "NotImplemented"),
        ("{semanticCache: {threshold: 0.9}, tokenLimit: {maxTokens: 10}}", true, "NotImplemented"),
        ("[{type: contentFilter}]", true, "NotImplemented"),
        ("[{type: sentimentAnalysis}]", false, "NotImplemented"),
        ("{promptgaurd: {}}", true, "UnknownFilter"),
        ("{}", false, ""),
    ] {
        let guarded = service_yaml(
            "a",
            &format!(
                "modelName: m, backendRef: {{kind: Static, urls: ['http://a:1']}}, nlpFilters: {filters}"
            ),
        );
        let spec = "  routes: [{model: m, inferenceServiceRef: a}, {model: n, inferenceServiceRef: b}]";
        let lowered = lowered(&[&two_services(), &guarded, &gateway_yaml("name: g", spec)]);
        let gateway = gateway(&lowered, "g");
        assert_eq!(route(gateway, "m").blocked.is_some(), blocked, "{filters}");
        assert_eq!(route(gateway, "n").blocked, None);
        assert!(lowered.findings.iter().all(|finding| finding.reason == reason), "{filters}");
        assert_eq!(lowered.findings.is_empty(), reason.is_empty());
    }
}

#[test]
fn static_routes_are_gateways_unless_they_cannot_be() {
    let sroute = |spec: &str| {
        format!(
            "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: StaticRoute\nmetadata: {{name: r}}\nspec: {{{spec}}}\n---\n"
        )
    };
    let of = |yaml: &str, options: &LowerOptions| lower(&bundle(&[yaml]), options);
    let usual = LowerOptions::default();
    for (spec, models, findings) in [
        ("staticBackends: 'http://a:1, http://b:1', staticModels: 'm, m'", vec!["m 2"], vec![]),
        ("staticBackends: 'http://a:1,http://a:1/', staticModels: 'm,m'", vec!["m 1"], vec![]),
        (
            "staticBackends: 'http://a:1,http://b:1', staticModels: m",
            vec![],
            vec!["error StaticRoute default/r spec.staticModels UnequalLists"],
        ),
        (
            "staticBackends: 'a:1,http://b:1', staticModels: 'm,n'",
            vec!["m 0", "n 1"],
            vec!["error StaticRoute default/r spec.staticBackends InvalidUrl"],
        ),
        (
            "staticBackends: 'http://a:1', staticModels: m, routingLogic: nope",
            vec!["m 1"],
            vec!["error StaticRoute default/r spec.routingLogic PolicyNotFound"],
        ),
        (
            "staticBackends: 'https://a,http://b:1', staticModels: 'm,m'",
            vec!["m 2"],
            vec!["error StaticRoute default/r spec.staticBackends NoTrust"],
        ),
    ] {
        let lowered = of(&sroute(spec), &usual);
        let routes = lowered.draft.gateways.iter().flat_map(|gateway| &gateway.routes);
        let routes: Vec<String> = routes.map(|r| format!("{} {}", r.model, r.endpoints.len())).collect();
        assert_eq!(routes, models, "{spec}");
        assert_eq!(serious(&lowered), findings, "{spec}");
    }
    let twice = of(&sroute("staticBackends: 'http://a:1,http://a:1', staticModels: 'm,m'"), &usual);
    assert_eq!(twice.draft.gateways[0].routes[0].endpoints[0].weight, 2, "listed twice counts twice");

    let named = sroute("staticBackends: 'http://a:1', staticModels: m, routerRef: {name: other}");
    let own =
        LowerOptions { own_names: vec![domain::name::ObjectName::new("default", "me")], ..usual.clone() };
    assert_eq!(of(&named, &usual).draft.gateways.len(), 1);
    let other = of(&named, &own);
    assert_eq!((other.draft.gateways.len(), other.findings[0].reason), (0, "OtherRouter"));

    let namesake =
        gateway_yaml("name: r", "  routes: []") + &sroute("staticBackends: 'http://a:1', staticModels: m");
    let lowered = of(&namesake, &usual);
    assert_eq!(lowered.draft.gateways.len(), 1);
    assert!(serious(&lowered).contains(&"error StaticRoute default/r metadata.name NameConflict".to_owned()));
}

#[test]
fn a_bad_object_touches_only_what_refers_to_it() {
    let bad = service_yaml(
        "bad",
        "modelName: x, backendRef: nowhere, inferenceCacheRef: {name: c, kind: RoutingPolicy}, prefillDecodingRef: lost, tls: {caRef: {name: lost}}, auth: {secretRef: {name: lost, key: k}}",
    );
    let spec = "  routes: [{model: m, inferenceServiceRef: a}, {model: x, inferenceServiceRef: bad}]\n  service: {enabled: true}";
    let lowered = lowered(&[&two_services(), &bad, &gateway_yaml("name: g", spec)]);
    assert_eq!(urls(route(gateway(&lowered, "g"), "m")), ["http://a:1"]);
    let service = |rest: &str| format!("error InferenceService default/bad {rest}");
    assert_eq!(
        serious(&lowered),
        [
            "warning InferenceGateway default/g spec.routes[1] NoEndpoints".to_owned(),
            "warning InferenceGateway default/g spec.service.enabled NotImplemented".to_owned(),
            service("spec.auth.secretRef ReferenceNotFound"),
            service("spec.backendRef BackendNotFound"),
            service("spec.inferenceCacheRef InvalidReference"),
            service("spec.prefillDecodingRef ReferenceNotFound"),
            service("spec.tls.caRef ReferenceNotFound"),
            "warning InferenceService default/bad spec.prefillDecodingRef NotImplemented".to_owned(),
        ]
    );
}

#[test]
fn what_an_api_server_would_refuse_is_rejected_and_the_rest_is_not() {
    let gateway = |spec: &str| {
        gateway_yaml("name: x", &format!("{spec}\n  routes: [{{model: m, inferenceServiceRef: a}}]"))
    };
    let policy = |source: &str| {
        format!(
            "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: RoutingPolicy\nmetadata: {{name: x}}\nspec: {{source: {source}}}\n"
        )
    };
    let sroute = "apiVersion: production-stack.vllm.ai/v1alpha1\nkind: StaticRoute\nmetadata: {name: x}\nspec: {staticBackends: 'http://a', staticModels: 'm,n'}\n";
    for (yaml, rejected) in [
        (gateway("  errorFormat: Compat"), false),
        (gateway("  sessionAffinity: true\n  policies: [{name: round-robin}]"), true),
        (gateway("  policies: [{}]"), true),
        (gateway("  sessionKey: {}"), true),
        (gateway("  routeStrategy: nope"), false),
        (gateway("  modelRoutes: [{modelName: m, serviceRef: b}]"), true),
        (gateway("  modelRoutes: [{serviceRef: b}]"), true),
        (gateway("  modelRoutes: [{modelName: n, serviceRef: gone}]"), false),
        (policy("{}"), true),
        (policy("{file: a, builtin: b}"), true),
        (policy("{file: ../a}"), false),
        (sroute.to_owned(), true),
    ] {
        let lowered = lowered(&[&two_services(), &yaml]);
        assert_eq!(
            lowered.rejected.iter().map(|key| &*key.name.name).collect::<Vec<_>>(),
            vec!["x"; usize::from(rejected)],
            "{yaml}"
        );
    }
}

/// N5: why an object that is referred to is not there comes first, with its line.
#[test]
fn what_is_missing_is_said_with_its_cause() {
    let spec = "  routes: [{model: m, inferenceServiceRef: llama}]";
    let elsewhere = service_yaml("llama, namespace: ml", "modelName: m, backendRef: b");
    let near = service_yaml("lama", "modelName: m, backendRef: {kind: Static, urls: ['http://a:1']}");
    let refused = read(&service_yaml("llama", "modelName: 7, backendRef: b"));
    let of = |texts: &[&str], refused: &[Finding]| {
        let mut bundle = bundle(texts);
        bundle.refused = refused.iter().map(|finding| (finding.object.clone(), finding.clone())).collect();
        let lowered = lower(&bundle, &LowerOptions::default());
        let about = |f: &&Finding| f.reason == "ReferenceNotFound" && f.field.starts_with("spec.routes");
        let found: Vec<String> =
            lowered.findings.iter().filter(about).map(|f| format!("{} -> {}", f.message, f.remedy)).collect();
        found.join("; ")
    };
    let gateway = gateway_yaml("name: g", spec);
    let cases = [
        (
            of(&[&gateway, &elsewhere], &[]),
            "InferenceService llama is in namespace ml (m.yaml:1), not in default",
        ),
        (of(&[&gateway, &near], &[]), "did you mean lama?"),
        (
            of(&[&gateway, &elsewhere], &refused.findings),
            "InferenceService default/llama is refused (m.yaml:4): spec.modelName: a number where a text belongs",
        ),
        (of(&[&gateway], &[]), "there is no InferenceService default/llama; model m is answered 503"),
    ];
    for (found, expected) in cases {
        assert!(found.contains(expected), "{expected}: {found}");
    }
}
