//! Status of a `ModelPlacement`.

use std::collections::BTreeMap;

use manifest::kind::{ModelPlacement, ModelPlacementStatus};

use super::condition::Conditions;
use super::{About, Draft, Said, few};

pub(super) fn draft(
    about: &About<'_, ModelPlacement>,
    _before: &ModelPlacementStatus,
) -> Draft<ModelPlacementStatus> {
    let mut conditions = Conditions::of(&about.findings);
    let ready = conditions.get("Ready").cloned().unwrap_or_else(|| Said::pending(""));
    conditions.set("PlacementSatisfied", ready);
    let mut resolved = BTreeMap::new();
    let models = &about.object.spec.models;
    if !models.is_empty() {
        resolved.insert("models".into(), few(models.keys().map(String::as_str)));
    }
    Draft { conditions: conditions.with_progress(), resolved, status: ModelPlacementStatus::default() }
}
