//! Alerts and the dashboard.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::render::{chart, items, path, run, text, the, tool};

fn alerts() -> Vec<Value> {
    let file: Value = serde_saphyr::from_str(&text("charts/wicketgate/files/alerts.yaml")).expect("YAML");
    items(&file["groups"]).iter().flat_map(|group| items(&group["rules"])).cloned().collect()
}

/// Names of metrics in `docs/metrics.md`, with what Prometheus makes of histograms.
fn known_metrics() -> BTreeSet<String> {
    let page = text("docs/metrics.md");
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.splitn(3, '|');
        let name = cells.next()?.trim().trim_end_matches('`').to_owned();
        Some((name, cells.next()?.trim() == "histogram"))
    });
    rows.flat_map(|(name, histogram)| {
        let parts = if histogram { vec!["_bucket", "_sum", "_count"] } else { vec![""] };
        parts.into_iter().map(move |part| format!("{name}{part}"))
    })
    .collect()
}

/// The metrics that an expression names: words that are followed by a selector or stand where a vector does.
fn metrics_of(expression: &str) -> BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let ours = [
        "wicketgate_",
        "production_stack_",
        "vllm:",
        "router_",
        "controller_runtime_",
        "workqueue_",
        "leader_election_",
    ];
    expression
        .split(|c| !word(c))
        .filter(|name| ours.iter().any(|prefix| name.starts_with(prefix)))
        .map(str::to_owned)
        .collect()
}

#[test]
fn promtool_finds_the_alerts_right_and_each_fires_when_it_should() {
    for (verb, file) in
        [("check", "charts/wicketgate/files/alerts.yaml"), ("test", "tests/charts/alerts_test.yaml")]
    {
        let said = run(tool("promtool").args([verb, "rules"]).arg(path(file)));
        assert!(said.is_ok(), "{}", said.unwrap_err());
    }
}

#[test]
fn every_alert_is_tested_and_explained() {
    let (tests, page) = (text("tests/charts/alerts_test.yaml"), text("docs/operations.md"));
    for alert in alerts() {
        let name = alert["alert"].as_str().expect("a name");
        assert!(tests.contains(name), "{name} has no test");
        assert!(page.contains(name), "{name}: docs/operations.md says what to do");
        for annotation in ["summary", "description"] {
            assert!(alert["annotations"][annotation].is_string(), "{name} has no {annotation}");
        }
    }
}

#[test]
fn alerts_and_panels_ask_for_metrics_that_exist() {
    let known = known_metrics();
    assert!(known.len() > 40, "{known:?}");
    let dashboard: Value =
        serde_json::from_str(&text("charts/wicketgate/files/dashboard.json")).expect("JSON");
    let targets = items(&dashboard["panels"]).iter().flat_map(|panel| items(&panel["targets"]));
    let panels: Vec<String> =
        targets.map(|target| target["expr"].as_str().expect("a query").to_owned()).collect();
    assert!(panels.len() > 40, "{}", panels.len());
    let alerts = alerts().into_iter().map(|alert| alert["expr"].as_str().expect("a query").to_owned());
    for query in panels.into_iter().chain(alerts) {
        let asked = metrics_of(&query);
        assert!(!asked.is_empty(), "{query}");
        for name in asked {
            assert!(known.contains(&name), "{name} is not in docs/metrics.md: {query}");
        }
    }
}

/// What Grafana would draw is what Prometheus can answer.
#[test]
fn every_panels_query_is_well_formed() {
    let dashboard: Value =
        serde_json::from_str(&text("charts/wicketgate/files/dashboard.json")).expect("JSON");
    let mut rules = String::from("groups:\n  - name: panels\n    rules:\n");
    for (number, target) in
        items(&dashboard["panels"]).iter().flat_map(|panel| items(&panel["targets"])).enumerate()
    {
        let query = target["expr"].as_str().expect("a query");
        let query = query.replace("$__rate_interval", "5m").replace("$job", ".*");
        rules.push_str(&format!("      - record: panel:{number}\n        expr: {query:?}\n"));
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), rules).expect("written");
    let said = run(tool("promtool").args(["check", "rules", "--lint=none"]).arg(file.path()));
    assert!(said.is_ok(), "{said:?}");
}

#[test]
fn panels_lie_beside_each_other_and_have_numbers_of_their_own() {
    let dashboard: Value =
        serde_json::from_str(&text("charts/wicketgate/files/dashboard.json")).expect("JSON");
    let mut taken = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in items(&dashboard["panels"]) {
        assert!(ids.insert(panel["id"].as_i64()), "{panel}");
        let at = |key: &str| panel["gridPos"][key].as_i64().expect("a place");
        for x in at("x")..at("x") + at("w") {
            for y in at("y")..at("y") + at("h") {
                assert!(x < 24 && taken.insert((x, y)), "{} overlaps", panel["title"]);
            }
        }
    }
}

#[test]
fn alerts_can_be_left_out_labelled_and_added() {
    let rule = |set: &str| {
        let enabled = "metrics.prometheusRule.enabled=true";
        the(&chart(&["--set", enabled, "--set", set]), "PrometheusRule")["spec"]["groups"].clone()
    };
    let names = |groups: &Value| -> Vec<String> {
        let rules = items(groups).iter().flat_map(|group| items(&group["rules"]));
        rules.filter_map(|rule| rule["alert"].as_str().map(str::to_owned)).collect()
    };
    let all = names(&rule("metrics.prometheusRule.alertLabels.team=ml"));
    assert_eq!(all.len(), alerts().len());
    let fewer = names(&rule("metrics.prometheusRule.disabled={WicketgateAbsent}"));
    assert_eq!(all.iter().filter(|name| !fewer.contains(name)).collect::<Vec<_>>(), ["WicketgateAbsent"]);
    let labelled = rule("metrics.prometheusRule.alertLabels.team=ml");
    let rules = items(&labelled).iter().flat_map(|group| items(&group["rules"]));
    assert!(
        rules
            .into_iter()
            .all(|rule| rule["labels"]["team"] == "ml" && rule["labels"]["severity"].is_string())
    );
}
