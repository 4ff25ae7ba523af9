use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use manifest::crd::{crds, definitions};
use serde_json::Value;

#[test]
fn every_kind_has_a_definition_that_plain_apply_can_take() {
    let names: Vec<String> = crds().into_iter().map(|(name, _)| name).collect();
    let plurals = [
        "inferencecaches",
        "inferencegateways",
        "inferenceservices",
        "modelplacements",
        "prefilldecodingdisaggregations",
        "routingpolicies",
        "speculativedecodings",
        "staticroutes",
    ];
    assert_eq!(names, plurals.map(|plural| format!("production-stack.vllm.ai_{plural}.yaml")));
    for (name, yaml) in crds() {
        assert!(yaml.len() < 200 << 10, "{name} is {} bytes", yaml.len());
        let back: Value = serde_saphyr::from_str(&yaml).expect("readable");
        assert_eq!(back["spec"]["names"]["categories"][0], "inference");
        assert_eq!(back["spec"]["scope"], "Namespaced");
        let version = &back["spec"]["versions"][0];
        assert!(version["subresources"]["status"].is_object(), "{name}");
        assert!(
            version["additionalPrinterColumns"].as_array().is_some_and(|columns| columns.len() >= 4),
            "{name}"
        );
    }
}

/// The files that people apply are what the types print. `BLESS=1` writes them.
#[test]
fn files_in_crds_are_what_the_types_print() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crds");
    let printed: BTreeMap<String, String> = crds().into_iter().collect();
    if std::env::var_os("BLESS").is_some() {
        std::fs::create_dir_all(&directory).expect("a directory");
        for (name, yaml) in &printed {
            std::fs::write(directory.join(name), yaml).expect("written");
        }
    }
    let files = std::fs::read_dir(&directory).expect("crds/").map(|entry| entry.expect("readable"));
    let files: BTreeMap<String, String> = files
        .map(|entry| (entry.file_name().into_string().expect("a name"), entry.path()))
        .map(|(name, path)| (name, std::fs::read_to_string(path).expect("readable")))
        .collect();
    for (name, yaml) in &printed {
        let stale = "is stale: run `wicketgate crds --out crds`";
        assert!(files.get(name) == Some(yaml), "crds/{name} {stale}");
    }
    assert!(files.keys().eq(printed.keys()), "crds/ holds something else");
}

/// Calls `visit` with every schema below, and its path.
fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&Value, &str)) {
    visit(schema, path);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(property, &format!("{path}.{name}"), visit);
    }
    for key in ["items", "additionalProperties"] {
        if schema[key].is_object() {
            walk(&schema[key], &format!("{path}[]"), visit);
        }
    }
}

#[test]
fn every_field_is_described_and_structural_and_every_form_is_checked() {
    let mut patterns = BTreeSet::new();
    for definition in definitions() {
        let kind = definition.spec.names.kind;
        let schema =
            definition.spec.versions[0].schema.clone().and_then(|s| s.open_api_v3_schema).expect("a schema");
        let schema = serde_json::to_value(schema).expect("plain data");
        walk(&schema, &kind, &mut |schema, path| {
            let field = path.rsplit('.').next().unwrap_or_default();
            if !path.ends_with(']') && path.contains('.') && !path.contains(".conditions") {
                assert!(
                    schema["description"].as_str().is_some_and(|d| !d.is_empty()),
                    "{path} has no description"
                );
            }
            let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
            assert!(schema["type"].is_string() || open, "{path} has no type");
            for word in ["oneOf", "allOf", "$ref"] {
                assert!(schema[word].is_null(), "{path} is not structural: {word}");
            }
            let format = schema["format"].as_str().unwrap_or("int32");
            assert!(
                matches!(format, "int32" | "int64" | "double" | "date-time"),
                "{path} has format {format}"
            );
            patterns.extend(schema["pattern"].as_str().map(|pattern| (pattern.to_owned(), field.to_owned())));
            if schema["type"] == "string" && schema["default"].is_string() && schema["enum"].is_array() {
                assert!(
                    schema["enum"].as_array().is_some_and(|names| names.contains(&schema["default"])),
                    "{path}"
                );
            }
        });
    }
    let known = [
        manifest::kind::number::RATIO_PATTERN,
        manifest::kind::text::DURATION_PATTERN,
        manifest::kind::text::MEMORY_PATTERN,
        manifest::kind::text::SHA256_PATTERN,
        manifest::kind::text::TTL_PATTERN,
        manifest::kind::text::DIGITS_PATTERN,
    ];
    for (pattern, field) in &patterns {
        assert!(known.contains(&pattern.as_str()), "{field}: {pattern} is checked nowhere");
    }
    assert_eq!(patterns.iter().map(|(pattern, _)| pattern).collect::<BTreeSet<_>>().len(), known.len());
}

#[test]
fn what_may_be_a_name_or_an_object_says_so_exactly() {
    let gateway = definitions().into_iter().find(|d| d.spec.names.kind == "InferenceGateway").expect("there");
    let schema = serde_json::to_value(&gateway.spec.versions[0].schema).expect("plain data");
    let node = schema
        .pointer("/openAPIV3Schema/properties/spec/properties/routes/items/properties/inferenceServiceRef");
    let node = node.expect("there");
    assert!(node["type"].is_null());
    assert_eq!(node["x-kubernetes-preserve-unknown-fields"], true);
    assert_eq!((&node["minLength"], &node["maxLength"]), (&1.into(), &253.into()));
    assert_eq!((&node["minItems"], &node["maxItems"]), (&1.into(), &0.into()));
    assert_eq!((node["minimum"].as_f64(), node["maximum"].as_f64()), (Some(1.0), Some(0.0)));
    assert_eq!(node["not"]["enum"], serde_json::json!([true, false]));
    assert_eq!(node["required"], serde_json::json!(["name"]));
}
