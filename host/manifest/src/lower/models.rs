//! What model lists mean: who is left out, and which adapters can be asked for by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::endpoint::EndpointSpec;
use domain::name::ModelName;

use super::Lowering;

/// An adapter that engines of a service have loaded.
#[derive(Clone, Debug)]
pub(super) struct Adapter {
    pub(super) name: ModelName,
    pub(super) parent: ModelName,
    pub(super) endpoints: Arc<[Arc<EndpointSpec>]>,
}

/// Endpoints after their lists were heard.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Those that list the model, or whose list is unknown.
    pub(super) serving: Arc<[Arc<EndpointSpec>]>,
    /// Those whose list lacks it.
    pub(super) withheld: Vec<Arc<EndpointSpec>>,
    /// Adapters by name.
    pub(super) adapters: Vec<Adapter>,
}

impl Lowering<'_> {
    /// Sorts endpoints by what they list. A list that lacks the model leaves its engine out; one that is unknown does not.
    pub(super) fn heard(&self, model: &str, endpoints: Vec<Arc<EndpointSpec>>) -> Heard {
        if self.bundle.models.is_empty() {
            return Heard { serving: endpoints.into(), ..Heard::default() };
        }
        let mut serving = Vec::with_capacity(endpoints.len());
        let mut withheld = Vec::new();
        let mut adapters: BTreeMap<&ModelName, (&ModelName, Vec<Arc<EndpointSpec>>)> = BTreeMap::new();
        for endpoint in endpoints {
            let Some(models) = self.bundle.models.get(&endpoint.id) else {
                serving.push(endpoint);
                continue;
            };
            if !models.iter().any(|listed| listed.id.as_str() == model) {
                withheld.push(endpoint);
                continue;
            }
            for listed in models.iter().filter(|listed| listed.id.as_str() != model) {
                // An engine that serves one model under several names gives its adapters the first of them as parent.
                let Some(parent) = &listed.parent else { continue };
                let is_served =
                    |name: &ModelName| name.as_str() == model || models.iter().any(|other| other.id == *name);
                if is_served(parent) {
                    adapters.entry(&listed.id).or_insert((parent, Vec::new())).1.push(Arc::clone(&endpoint));
                }
            }
            serving.push(endpoint);
        }
        let adapters = adapters.into_iter().map(|(name, (parent, endpoints))| Adapter {
            name: name.clone(),
            parent: parent.clone(),
            endpoints: endpoints.into(),
        });
        Heard { serving: serving.into(), withheld, adapters: adapters.collect() }
    }
}
