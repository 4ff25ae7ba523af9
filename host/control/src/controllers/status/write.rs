//! One write of one status.

use std::time::Duration;

use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use manifest::Kind;
use manifest::kind::{GROUP, VERSION};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::status::Told;

/// Who owns the fields of status.
pub(super) const FIELD_MANAGER: &str = "wicketgate-status";
/// Longest time for one write. Less than what lies between giving up a lease and its end.
pub(super) const WRITE_TIMEOUT: Duration = Duration::from_secs(4);

/// How a write ended.
pub(super) struct Ended {
    pub(super) told: Told,
    /// The status as the API server holds it now, and the object's version.
    pub(super) result: Result<(Value, Option<String>), WriteError>,
    pub(super) took: Duration,
}

/// Why a status was not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum WriteError {
    /// The object is gone, or another one has its name.
    #[error("the object is gone")]
    Gone,
    /// The right is missing.
    #[error("forbidden: {0}")]
    Forbidden(String),
    /// It does not fit the schema, or the account is not known.
    #[error("refused: {0}")]
    Refused(String),
    /// Anything else; worth another try.
    #[error("{0}")]
    Failed(String),
}

/// Server-side apply of a whole status.
pub(super) async fn write(client: Client, told: Told) -> Ended {
    let began = Instant::now();
    let result = match timeout(WRITE_TIMEOUT, apply(client, &told)).await {
        Ok(Ok(object)) => {
            Ok((object.data.get("status").cloned().unwrap_or_default(), object.metadata.resource_version))
        }
        Ok(Err(kube::Error::Api(status))) => Err(match status.code {
            404 | 409 => WriteError::Gone,
            403 => WriteError::Forbidden(status.message.clone()),
            400 | 401 | 405 | 422 => WriteError::Refused(status.message.clone()),
            _ => WriteError::Failed(status.message.clone()),
        }),
        Ok(Err(error)) => Err(WriteError::Failed(error.to_string())),
        Err(_) => Err(WriteError::Failed("no answer in time".into())),
    };
    Ended { told, result, took: began.elapsed() }
}

async fn apply(client: Client, told: &Told) -> kube::Result<DynamicObject> {
    let name = &told.key.name;
    let api: Api<DynamicObject> = Api::namespaced_with(client, &name.namespace, &resource(told.key.kind));
    let mut metadata = json!({"name": &*name.name, "namespace": &*name.namespace});
    if let Some(uid) = &told.uid {
        metadata["uid"] = json!(uid);
    }
    let body = json!({
        "apiVersion": told.key.kind.api_version(),
        "kind": told.key.kind.as_str(),
        "metadata": metadata,
        "status": told.status,
    });
    api.patch_status(&name.name, &PatchParams::apply(FIELD_MANAGER).force(), &Patch::Apply(body)).await
}

/// Our kinds' path: plurals are the lower-case kind with the usual English ending.
pub(in crate::controllers) fn resource(kind: Kind) -> ApiResource {
    let lower = kind.as_str().to_ascii_lowercase();
    let plural = match kind {
        Kind::RoutingPolicy => "routingpolicies".to_owned(),
        _ => format!("{lower}s"),
    };
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(GROUP, VERSION, kind.as_str()), &plural)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_the_definitions() {
        for definition in manifest::crd::definitions() {
            let kind = Kind::ALL.into_iter().find(|kind| kind.as_str() == definition.spec.names.kind);
            assert_eq!(resource(kind.expect("known")).plural, definition.spec.names.plural);
        }
    }
}
