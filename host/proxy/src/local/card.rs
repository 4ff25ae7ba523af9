//! A model's card: what an engine said of it, under the name that clients use.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// One entry of `/v1/models`. The engine's own fields stay, in its order; missing ones are filled in.
pub(super) struct Card<'a> {
    id: &'a str,
    parent: Option<&'a str>,
    known: Members<'a>,
    created_unix: u64,
}

impl<'a> Card<'a> {
    /// `known` is the engine's card, if there is one and it is an object; `parent` is configuration's and wins.
    pub(super) fn new(
        id: &'a str,
        parent: Option<&'a str>,
        known: Option<&'a RawValue>,
        created_unix: u64,
    ) -> Self {
        let known = known.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
        Self { id, parent, known, created_unix }
    }
}

impl Serialize for Card<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const FIXED: [&str; 6] = ["id", "object", "created", "owned_by", "root", "parent"];
        let known = |name: &str| self.known.0.iter().find(|(key, _)| key == name).map(|(_, value)| *value);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("id", self.id)?;
        map.serialize_entry("object", "model")?;
        match known("created") {
            Some(created) => map.serialize_entry("created", created)?,
            None => map.serialize_entry("created", &self.created_unix)?,
        }
        match known("owned_by") {
            Some(owner) => map.serialize_entry("owned_by", owner)?,
            None => map.serialize_entry("owned_by", "vllm")?,
        }
        map.serialize_entry("root", &known("root"))?;
        match self.parent {
            Some(parent) => map.serialize_entry("parent", parent)?,
            None => map.serialize_entry("parent", &known("parent"))?,
        }
        for (key, value) in self.known.0.iter().filter(|(key, _)| !FIXED.contains(&key.as_str())) {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// An object's members in their order, values as they stand.
#[derive(Default)]
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a model card")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}
