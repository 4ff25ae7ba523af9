//! What an engine says it serves.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use domain::name::ModelName;
use manifest::ListedModel;

/// Models of one engine that are taken; more are ignored.
pub const MODELS_MAX: usize = 4_096;
/// Longest model name that is taken, bytes.
pub const MODEL_NAME_BYTES_MAX: usize = 512;

#[derive(Deserialize)]
struct OpenAiList<'a> {
    /// Null where nothing is loaded: an empty list of Go or Pydantic is often written so. A list without the field is none.
    #[serde(borrow, deserialize_with = "nullable")]
    data: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct OpenAiCard<'a> {
    #[serde(borrow)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    parent: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct LoadedList<'a> {
    #[serde(borrow, deserialize_with = "nullable")]
    models: Vec<LoadedModel<'a>>,
}

#[derive(Deserialize)]
struct LoadedModel<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

/// A list that may be null, which is an empty one.
fn nullable<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The cards of the same body, as they stand. Empty if it is no such list.
pub(super) fn cards(body: &[u8]) -> Vec<(ModelName, Box<RawValue>)> {
    let Ok(list) = serde_json::from_slice::<OpenAiList<'_>>(body) else { return Vec::new() };
    let cards = list.data.into_iter().take(MODELS_MAX).filter_map(|raw| {
        let card: OpenAiCard<'_> = serde_json::from_str(raw.get()).ok()?;
        is_name(&card.id).then(|| (ModelName::from(&*card.id), raw.to_owned()))
    });
    cards.collect()
}

/// Reads the body of `/v1/models`; cards without a usable `id` are left out, the rest is sorted by it. `None`: it is no such list.
pub(super) fn from_openai(body: &[u8]) -> Option<Arc<[ListedModel]>> {
    let list: OpenAiList<'_> = serde_json::from_slice(body).ok()?;
    let cards = list.data.into_iter().filter_map(|raw| {
        let card: OpenAiCard<'_> = serde_json::from_str(raw.get()).ok()?;
        let parent = card.parent.filter(|parent| is_name(parent)).map(|parent| ModelName::from(&*parent));
        is_name(&card.id).then(|| ListedModel { id: ModelName::from(&*card.id), parent })
    });
    Some(listed(cards))
}

/// Reads the body of `/api/ps`, the models that are loaded. `None`: it is no such list.
pub(super) fn from_loaded(body: &[u8]) -> Option<Arc<[ListedModel]>> {
    let list: LoadedList<'_> = serde_json::from_slice(body).ok()?;
    let models = list.models.into_iter().filter(|model| is_name(&model.name));
    Some(listed(models.map(|model| ListedModel { id: ModelName::from(&*model.name), parent: None })))
}

/// Reads the body of `/is_sleeping`. `None`: it is no such answer.
pub(super) fn is_sleeping(body: &[u8]) -> Option<bool> {
    #[derive(Deserialize)]
    struct Sleeping {
        is_sleeping: bool,
    }
    serde_json::from_slice::<Sleeping>(body).ok().map(|answer| answer.is_sleeping)
}

/// The same list for the same models, in whatever order the engine tells them.
fn listed(models: impl Iterator<Item = ListedModel>) -> Arc<[ListedModel]> {
    let mut models: Vec<ListedModel> = models.take(MODELS_MAX).collect();
    models.sort_by(|a, b| a.id.cmp(&b.id));
    models.dedup_by(|a, b| a.id == b.id);
    models.into()
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MODEL_NAME_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(models: Option<Arc<[ListedModel]>>) -> Option<Vec<String>> {
        models.map(|models| models.iter().map(|model| model.id.to_string()).collect())
    }

    #[test]
    fn adapters_name_their_parent_and_escaped_names_are_decoded() {
        let body = br#"{"object":"list","data":[
            {"id":"base","object":"model","owned_by":"vllm","parent":null},
            {"id":"sql-\u006cora","parent":"base","root":"/adapters/sql"}]}"#;
        let models = from_openai(body).expect("a list");
        assert_eq!(models[0].parent, None);
        assert_eq!(
            (models[1].id.as_str(), models[1].parent.as_ref().map(ModelName::as_str)),
            ("sql-lora", Some("base"))
        );
    }

    #[test]
    fn the_order_of_a_list_means_nothing() {
        let [one, other] =
            [r#"{"data":[{"id":"a"},{"id":"b"}]}"#, r#"{"data":[{"id":"b"},{"id":"a"},{"id":"b"}]}"#];
        assert_eq!(from_openai(one.as_bytes()), from_openai(other.as_bytes()));
    }

    #[test]
    fn a_bad_card_costs_only_itself_and_what_is_no_list_is_none() {
        let long = "x".repeat(MODEL_NAME_BYTES_MAX + 1);
        let body = format!(r#"{{"data":[{{"id":7}},{{"id":"a"}},"b",{{"id":""}},{{"id":"{long}"}}]}}"#);
        assert_eq!(names(from_openai(body.as_bytes())), Some(vec!["a".to_owned()]));
        for body in ["", "[]", "{}", r#"{"data":{}}"#, "<html>", r#"{"error":"no"}"#] {
            assert_eq!(from_openai(body.as_bytes()), None, "{body}");
        }
        assert_eq!(names(from_openai(br#"{"data":[]}"#)), Some(Vec::new()), "an engine may serve nothing");
    }

    /// B6: a list that is null is an empty list, and an answer.
    #[test]
    fn a_list_that_is_null_is_an_empty_list() {
        assert_eq!(names(from_openai(br#"{"object":"list","data":null}"#)), Some(Vec::new()));
        assert_eq!(names(from_loaded(br#"{"models":null}"#)), Some(Vec::new()));
        assert!(cards(br#"{"data":null}"#).is_empty());
        for body in ["null", "{}", r#"{"object":"list"}"#, r#"{"data":"null"}"#] {
            assert_eq!(from_openai(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn loaded_models_are_names_without_cards() {
        let body = br#"{"models":[{"name":"qwen-7b","model":"qwen-7b","size":1}]}"#;
        assert_eq!(names(from_loaded(body)), Some(vec!["qwen-7b".to_owned()]));
        assert_eq!(names(from_loaded(b"{}")), None);
    }
}
