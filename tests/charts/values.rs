//! Every value of the chart is documented, has a schema, and stands in the chart's README.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::render::{path, text};

/// One value: its path and default, and its `# --` line.
#[derive(Debug)]
struct Documented {
    default: String,
    says: String,
}

/// What `values.yaml` documents, by path. Reads the file's own layout: two spaces a level, a `# --` line before each value.
fn documented() -> BTreeMap<String, Documented> {
    let file = text("charts/wicketgate/values.yaml");
    let values: Value = serde_saphyr::from_str(&file).expect("YAML");
    let mut parents: Vec<String> = Vec::new();
    let mut says = None;
    let mut found = BTreeMap::new();
    for line in file.lines() {
        let trimmed = line.trim_start();
        let level = (line.len() - trimmed.len()) / 2;
        if let Some(text) = trimmed.strip_prefix("# -- ") {
            says = Some((level, text.to_owned()));
            continue;
        }
        let Some((key, _)) =
            trimmed.split_once(':').filter(|(key, _)| key.chars().all(char::is_alphanumeric))
        else {
            continue;
        };
        if level > parents.len() {
            continue;
        }
        parents.truncate(level);
        parents.push(key.to_owned());
        let path = parents.join(".");
        if let Some((_, says)) = says.take_if(|(at, _)| *at == level) {
            let pointer = format!("/{}", parents.join("/"));
            let value =
                values.pointer(&pointer).unwrap_or_else(|| panic!("{path} is not where it is documented"));
            found.insert(path, Documented { default: value.to_string(), says });
        }
    }
    found
}

/// Every leaf of the schema: what is not a closed map of further values.
fn leaves(schema: &Value, path: &str, found: &mut Vec<String>) {
    match schema["properties"].as_object().filter(|_| schema["additionalProperties"] == false) {
        Some(properties) => {
            for (name, inner) in properties {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                leaves(inner, &path, found);
            }
        }
        None => found.push(path.to_owned()),
    }
}

fn schema() -> Value {
    serde_json::from_str(&text("charts/wicketgate/values.schema.json")).expect("JSON")
}

#[test]
fn every_value_has_a_line_and_a_schema() {
    let documented = documented();
    let mut all = Vec::new();
    leaves(&schema(), "", &mut all);
    for leaf in all.iter().filter(|leaf| *leaf != "global") {
        let explained = documented.keys().any(|path| leaf == path || leaf.starts_with(&format!("{path}.")));
        assert!(explained, "{leaf} has no `# --` line in values.yaml");
    }
    for path in documented.keys() {
        let known = all
            .iter()
            .any(|leaf| leaf == path || leaf.starts_with(&format!("{path}.")) || path.starts_with("global."));
        assert!(known, "{path} is not in values.schema.json");
    }
}

/// Every map that is not meant for the user's own keys is closed.
#[test]
fn the_schema_is_of_the_draft_that_helm_checks_and_closed() {
    let schema = schema();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["additionalProperties"], false);
    let open = [
        "resources.requests",
        "resources.limits",
        "affinity",
        "podSecurityContext",
        "securityContext",
        "global",
        "strategy",
        "lifecycle",
        "dnsConfig",
        "keda.fallback",
        "autoscaling.behavior",
        "service.sessionAffinityConfig",
        "tls.certificate.issuerRef",
        "metrics.serviceMonitor.tlsConfig",
        "metrics.podMonitor.tlsConfig",
        "metrics.vmServiceScrape.tlsConfig",
    ];
    let mut all = Vec::new();
    leaves(&schema, "", &mut all);
    for leaf in all {
        let pointer = format!("/properties/{}", leaf.replace('.', "/properties/"));
        let node = schema.pointer(&pointer).expect("there");
        let bare = node["type"] == "object" && node.get("additionalProperties").is_none();
        assert!(!bare || open.contains(&&*leaf), "{leaf} accepts anything");
    }
}

/// `BLESS=1` writes the table.
#[test]
fn the_readme_lists_every_value() {
    let mut table = String::from("| value | default | meaning |\n| --- | --- | --- |\n");
    for (path, Documented { default, says }) in documented() {
        let default = default.replace('|', "\\|");
        table.push_str(&format!("| `{path}` | `{default}` | {} |\n", says.replace('|', "\\|")));
    }
    let file = path("charts/wicketgate/README.md");
    let readme = std::fs::read_to_string(&file).expect("the README");
    let (head, _) = readme.split_once("| value |").unwrap_or((&readme, ""));
    let wanted = format!("{head}{table}");
    if std::env::var_os("BLESS").is_some() {
        std::fs::write(&file, wanted).expect("written");
        return;
    }
    assert!(readme == wanted, "charts/wicketgate/README.md is stale: BLESS=1 writes it");
}
