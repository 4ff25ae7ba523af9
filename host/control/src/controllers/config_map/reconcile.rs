//! Brings one ConfigMap to what its route wants.

use std::collections::BTreeMap;
use std::time::Duration;

use domain::name::ObjectName;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, Patch, PatchParams, PostParams};
use manifest::Kind;
use manifest::kind::{API_VERSION, StaticRoute};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::LABEL;
use super::content::{KEYS, content};
use crate::controllers::status::whole_seconds;
use crate::status::ConfigMapOutcome;

/// Who owns our keys.
pub(super) const FIELD_MANAGER: &str = "wicketgate-staticroute";
/// Longest time for one reconciliation. Less than what lies between giving up a lease and its end.
pub(super) const RECONCILE_TIMEOUT: Duration = Duration::from_secs(4);
/// Looks at a ConfigMap that changes between being read and being written.
const LOOKS_MAX: usize = 3;

/// What a route wants of its ConfigMap.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Wanted {
    namespace: String,
    name: String,
    owner: OwnerReference,
    content: String,
    remark: String,
}

/// How a reconciliation ended.
pub(super) struct Done {
    pub(super) route: ObjectName,
    pub(super) wanted: Wanted,
    pub(super) outcome: ConfigMapOutcome,
    /// The ConfigMap as it is now, where it is ours.
    pub(super) object: Option<ConfigMap>,
    pub(super) took: Duration,
}

impl Wanted {
    /// `None`: the route has no uid, so it does not come from an API server and can own nothing.
    pub(super) fn of(name: &ObjectName, route: &StaticRoute) -> Option<Self> {
        let (content, remark) = content(&route.spec);
        let default = || format!("{}-config", name.name);
        Some(Self {
            namespace: name.namespace.to_string(),
            name: route.spec.config_map_name.clone().unwrap_or_else(default),
            owner: OwnerReference {
                api_version: API_VERSION.into(),
                kind: Kind::StaticRoute.as_str().into(),
                name: name.name.to_string(),
                uid: route.metadata.uid.clone()?,
                controller: Some(true),
                block_owner_deletion: None,
            },
            content,
            remark,
        })
    }

    /// Its namespace and name.
    pub(super) fn config_map(&self) -> ObjectName {
        ObjectName::new(self.namespace.as_str(), self.name.as_str())
    }

    fn data(&self) -> BTreeMap<String, String> {
        KEYS.iter().map(|key| ((*key).to_owned(), self.content.clone())).collect()
    }

    /// Whether there is nothing to write.
    fn is_met_by(&self, object: &ConfigMap) -> bool {
        let holds = |key: &str| {
            object.data.as_ref().and_then(|data| data.get(key)).is_some_and(|value| *value == self.content)
        };
        KEYS.iter().all(|key| holds(key))
            && is_labelled(object)
            && controller(object).is_some_and(|owner| owner.uid == self.owner.uid)
    }

    /// Why we may not write there. `None`: we may.
    fn conflict(&self, object: &ConfigMap) -> Option<String> {
        let name = self.config_map();
        let remedy = "name another one in spec.configMapName";
        if let Some(owner) = controller(object) {
            let is_ours = owner.uid == self.owner.uid;
            return (!is_ours)
                .then(|| format!("ConfigMap {name} belongs to {} {}; {remedy}", owner.kind, owner.name));
        }
        let is_empty = object.data.as_ref().is_none_or(BTreeMap::is_empty)
            && object.binary_data.as_ref().is_none_or(BTreeMap::is_empty);
        (!is_empty && !is_labelled(object))
            .then(|| format!("ConfigMap {name} was made by somebody else; {remedy}, or delete it"))
    }

    fn written(&self, at: Option<Timestamp>) -> ConfigMapOutcome {
        ConfigMapOutcome::Written { name: self.name.clone(), at, remark: self.remark.clone() }
    }
}

/// Brings the ConfigMap of a route to what is wanted. `present` is what the watch shows of it.
pub(super) async fn reconcile(
    client: Client,
    route: ObjectName,
    wanted: Wanted,
    present: Option<ConfigMap>,
) -> Done {
    let began = Instant::now();
    let api = Api::namespaced(client, &wanted.namespace);
    let (outcome, object) = match timeout(RECONCILE_TIMEOUT, attempt(&api, &wanted, present)).await {
        Ok(Ok(ended)) => ended,
        Ok(Err(error)) => {
            let message = match error {
                kube::Error::Api(status) => status.message.clone(),
                error => error.to_string(),
            };
            (ConfigMapOutcome::Failed { message }, None)
        }
        Err(_) => (ConfigMapOutcome::Failed { message: "no answer in time".into() }, None),
    };
    Done { route, wanted, outcome, object, took: began.elapsed() }
}

async fn attempt(
    api: &Api<ConfigMap>,
    wanted: &Wanted,
    mut present: Option<ConfigMap>,
) -> kube::Result<(ConfigMapOutcome, Option<ConfigMap>)> {
    for _ in 0..LOOKS_MAX {
        let found = match present.take() {
            Some(present) => Some(present),
            None => api.get_opt(&wanted.name).await?,
        };
        let is_new = found.is_none();
        let written = match found {
            None => create(api, wanted).await,
            Some(object) if object.metadata.deletion_timestamp.is_some() => {
                let message = format!("ConfigMap {} is being deleted", wanted.config_map());
                return Ok((ConfigMapOutcome::Failed { message }, None));
            }
            Some(object) => {
                if let Some(message) = wanted.conflict(&object) {
                    return Ok((ConfigMapOutcome::Conflict { message }, None));
                }
                if wanted.is_met_by(&object) {
                    return Ok((wanted.written(None), Some(object)));
                }
                apply(api, wanted, &object).await
            }
        };
        match written {
            Ok(object) => {
                tracing::info!(config_map = %wanted.config_map(), route = %wanted.owner.name, "ConfigMap written");
                return Ok((wanted.written(Some(whole_seconds(Timestamp::now()))), Some(object)));
            }
            Err(kube::Error::Api(status)) if status.code == 404 && is_new => {
                let message =
                    format!("there is no namespace {} for the ConfigMap {}", wanted.namespace, wanted.name);
                return Ok((ConfigMapOutcome::Failed { message }, None));
            }
            // Somebody was quicker: see what it is now.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => return Err(error),
        }
    }
    let message = format!("ConfigMap {} changes all the time", wanted.config_map());
    Ok((ConfigMapOutcome::Failed { message }, None))
}

async fn create(api: &Api<ConfigMap>, wanted: &Wanted) -> kube::Result<ConfigMap> {
    let object = ConfigMap {
        metadata: ObjectMeta {
            name: Some(wanted.name.clone()),
            namespace: Some(wanted.namespace.clone()),
            labels: Some(BTreeMap::from([(LABEL.0.to_owned(), LABEL.1.to_owned())])),
            owner_references: Some(vec![wanted.owner.clone()]),
            ..ObjectMeta::default()
        },
        data: Some(wanted.data()),
        ..ConfigMap::default()
    };
    let parameters = PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() };
    api.create(&parameters, &object).await
}

/// Our keys, label and owner over what was read; the rest stays.
async fn apply(api: &Api<ConfigMap>, wanted: &Wanted, object: &ConfigMap) -> kube::Result<ConfigMap> {
    let body = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": wanted.name,
            "namespace": wanted.namespace,
            "uid": object.metadata.uid,
            "resourceVersion": object.metadata.resource_version,
            "labels": {LABEL.0: LABEL.1},
            "ownerReferences": [wanted.owner],
        },
        "data": wanted.data(),
    });
    api.patch(&wanted.name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(body)).await
}

fn is_labelled(object: &ConfigMap) -> bool {
    let labels = object.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(LABEL.0)).is_some_and(|label| label == LABEL.1)
}

fn controller(object: &ConfigMap) -> Option<&OwnerReference> {
    object.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}
