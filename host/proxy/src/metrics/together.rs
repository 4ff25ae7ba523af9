//! Which models have no series of their own: a page's length must not follow the number of adapters that an engine lists.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use domain::name::ModelName;
use domain::snapshot::Snapshot;

/// Adapters of one model, in one gateway, that have series of their own: the first by name. The others are counted together,
/// under the model `other`. Models that the configuration names always have their own.
pub(super) const ADAPTERS_MAX: usize = 100;
/// The model label of what has none of its own: models without a route, and adapters beyond the bound.
pub(super) const OTHER: &str = "other";

/// The models that are counted together. Stays the same while the configuration and the engines' lists do.
#[derive(Debug, Default)]
pub(super) struct Together<'a>(HashSet<&'a str>);

impl<'a> Together<'a> {
    /// Those of a snapshot.
    pub(super) fn of(snapshot: &'a Snapshot) -> Self {
        let mut shown: HashSet<&str> = HashSet::new();
        let mut beyond: HashSet<&str> = HashSet::new();
        for gateway in &snapshot.gateways {
            let mut adapters: BTreeMap<&ModelName, BTreeSet<&ModelName>> = BTreeMap::new();
            for (model, route) in &gateway.routes {
                match &route.parent {
                    Some(parent) => {
                        adapters.entry(parent).or_default().insert(model);
                    }
                    None => {
                        shown.insert(model.as_str());
                    }
                }
            }
            for names in adapters.into_values() {
                let mut names = names.into_iter().map(ModelName::as_str);
                shown.extend(names.by_ref().take(ADAPTERS_MAX));
                beyond.extend(names);
            }
        }
        beyond.retain(|model| !shown.contains(model));
        Self(beyond)
    }

    /// The model label of a model.
    pub(super) fn label<'m>(&self, model: &'m str) -> &'m str {
        if self.0.contains(model) { OTHER } else { model }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
