//! Every field of every kind, with a misspelt neighbour.

use serde_json::json;

use super::*;

/// Longest way down: schemas of core kinds have deep corners that mean nothing here.
const DEPTH_MAX: usize = 12;

/// A value that a schema takes, with what has to be there.
fn sample(schema: &Value) -> Value {
    if let Some(first) = schema["enum"].as_array().and_then(|values| values.first()) {
        return first.clone();
    }
    if schema["properties"].is_object() {
        let mut required: Vec<&Value> = schema["required"].as_array().into_iter().flatten().collect();
        let choice = schema.pointer("/anyOf/0/required").and_then(Value::as_array).into_iter().flatten();
        required.extend(choice);
        let fields = required.into_iter().filter_map(Value::as_str);
        return fields.map(|name| (name.to_owned(), sample(&schema["properties"][name]))).collect();
    }
    match schema["type"].as_str() {
        Some("integer" | "number") => {
            json!(schema["minimum"].as_f64().map_or(1, |least| least.ceil() as i64))
        }
        Some("boolean") => json!(true),
        Some("array") => json!([]),
        Some("object") => json!({}),
        _ => match schema["pattern"].as_str() {
            Some(text::DURATION_PATTERN) => json!("1s"),
            Some(text::MEMORY_PATTERN) => json!("1Mi"),
            Some(text::TTL_PATTERN) => json!("1h"),
            Some(text::SHA256_PATTERN) => json!("0".repeat(64)),
            Some(_) => json!("1"),
            None => json!("text"),
        },
    }
}

/// Every mapping of a schema with fields of its own: its path, as steps of a JSON pointer (`0` for entries of lists).
fn mappings(schema: &Value, path: &str, depth: usize, found: &mut Vec<String>) {
    if depth > DEPTH_MAX {
        return;
    }
    if let Some(properties) = schema["properties"].as_object() {
        let is_open = schema["x-kubernetes-preserve-unknown-fields"] == true && schema["type"].is_string();
        if !is_open {
            found.push(path.to_owned());
        }
        for (name, below) in properties {
            mappings(below, &format!("{path}/{name}"), depth + 1, found);
        }
    }
    if schema["items"].is_object() {
        mappings(&schema["items"], &format!("{path}/0"), depth + 1, found);
    }
}

fn schema_at<'s>(schema: &'s Value, path: &str) -> &'s Value {
    path.split('/')
        .skip(1)
        .fold(schema, |schema, step| if step == "0" { &schema["items"] } else { &schema["properties"][step] })
}

/// An object of this schema in which the mapping at `path` is there, and has this key with this value.
fn with(schema: &Value, path: &str, key: &str, value: Value) -> Value {
    let Some(rest) = path.strip_prefix('/') else {
        let mut whole = sample(schema);
        if !whole.is_object() {
            whole = json!({});
        }
        whole[key] = value;
        return whole;
    };
    let (step, rest) =
        rest.split_once('/').map_or((rest, String::new()), |(step, rest)| (step, format!("/{rest}")));
    if step == "0" {
        return json!([with(&schema["items"], &rest, key, value)]);
    }
    let mut whole = sample(schema);
    if !whole.is_object() {
        whole = json!({});
    }
    whole[step] = with(&schema["properties"][step], &rest, key, value);
    whole
}

/// N4: a field that the schema does not have is found wherever it stands, and the field beside it is named.
#[test]
fn every_field_of_every_kind_has_its_misspelt_neighbour_found() {
    let mut fields = 0;
    for kind in Kind::ALL {
        let schema = schema::of(kind);
        let mut all = Vec::new();
        mappings(schema, "", 0, &mut all);
        for path in all.iter().filter(|path| !path.starts_with("/status") && !path.starts_with("/metadata")) {
            let mapping = schema_at(schema, path);
            for (name, below) in mapping["properties"].as_object().expect("fields") {
                let misspelt = format!("{name}x");
                if mapping["properties"].get(&misspelt).is_some() || path.is_empty() && name == "metadata" {
                    continue;
                }
                fields += 1;
                let object = with(schema, path, &misspelt, sample(below));
                let found = super::object(&Node::from(&object), kind).problems;
                let steps = format!("{path}/{misspelt}").replace("/0", "[0]").replace('/', ".");
                let is_it = |problem: &&Problem| {
                    problem.reason == "UnknownField" && problem.path == steps.trim_start_matches('.')
                };
                assert!(found.iter().any(|problem| is_it(&problem)), "{} {steps}: {object}", kind.as_str());
            }
        }
    }
    assert!(fields > 300, "{fields} fields");
}
