//! Which config maps, secrets and pools an object names: only those are looked at.

use domain::name::ObjectName;
use manifest::kind::inference_service::CaKind;
use manifest::kind::{BackendRef, InferenceService, RoutingPolicy};
use manifest::{Body, Kind, Object, ObjectKey};

/// Everything that `object` names, perhaps more than once.
pub(super) fn named(object: &Object) -> Vec<ObjectKey> {
    let named = match &object.body {
        Body::InferenceService(service) => by_service(service),
        Body::RoutingPolicy(policy) => by_policy(policy),
        // Placements name secrets too, and static routes config maps; nothing here acts upon what those hold.
        _ => Vec::new(),
    };
    let namespace = object.key().name.namespace;
    let usable = named.into_iter().filter(|(_, name)| is_name(name));
    usable.map(|(kind, name)| ObjectKey { kind, name: ObjectName::new(namespace.clone(), name) }).collect()
}

/// Whether an object can have this name: it goes into a field selector.
fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

fn by_service(service: &InferenceService) -> Vec<(Kind, &str)> {
    let spec = &service.spec;
    let mut named = Vec::new();
    if let Some(auth) = &spec.auth {
        named.push((Kind::Secret, auth.secret_ref.name.as_str()));
    }
    if let Some(ca) = spec.tls.as_ref().and_then(|tls| tls.ca_ref.as_ref()) {
        let kind = if ca.kind == CaKind::Secret { Kind::Secret } else { Kind::ConfigMap };
        named.push((kind, ca.name.as_str()));
    }
    if let BackendRef::Ref(backend) = &spec.backend_ref
        && backend.kind.as_deref() == Some(Kind::InferencePool.as_str())
    {
        named.push((Kind::InferencePool, backend.name.as_str()));
    }
    named
}

fn by_policy(policy: &RoutingPolicy) -> Vec<(Kind, &str)> {
    let source = &policy.spec.source;
    let pull_secret = source.oci.as_ref().and_then(|oci| oci.pull_secret_ref.as_ref());
    let config_map = source.config_map_ref.as_ref().map(|to| (Kind::ConfigMap, to.name.as_str()));
    let secret = source.secret_ref.as_ref().map(|to| (Kind::Secret, to.name.as_str()));
    let pull_secret = pull_secret.map(|to| (Kind::Secret, to.name.as_str()));
    [config_map, secret, pull_secret].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn names(kind: Kind, spec: &Value) -> Vec<String> {
        let value = json!({
            "apiVersion": kind.api_version(),
            "kind": kind.as_str(),
            "metadata": {"name": "x", "namespace": "ns"},
            "spec": spec,
        });
        let decoded = manifest::decode_object(kind, value);
        let object = decoded.objects.first().unwrap_or_else(|| panic!("{:?}", decoded.findings));
        named(object).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_needed_is_named_and_nothing_else() {
        let service = json!({
            "modelName": "m",
            "backendRef": {"kind": "InferencePool", "group": "inference.networking.k8s.io", "name": "pool"},
            "auth": {"secretRef": {"name": "token", "key": "k"}},
            "tls": {"caRef": {"name": "roots", "key": "ca.pem"}},
        });
        let all = ["Secret ns/token", "ConfigMap ns/roots", "InferencePool ns/pool"];
        assert_eq!(names(Kind::InferenceService, &service), all);
        let plain = json!({"modelName": "m", "backendRef": "engines"});
        assert_eq!(names(Kind::InferenceService, &plain), Vec::<String>::new());
        let policy = json!({"source": {"configMapRef": {"name": "wasm", "key": "p.wasm"}}});
        assert_eq!(names(Kind::RoutingPolicy, &policy), ["ConfigMap ns/wasm"]);
        let image = format!("r.example/p@sha256:{}", "0".repeat(64));
        let policy = json!({"source": {"oci": {"image": image, "pullSecretRef": {"name": "pull"}}}});
        assert_eq!(names(Kind::RoutingPolicy, &policy), ["Secret ns/pull"]);
    }

    #[test]
    fn a_name_that_no_object_can_have_is_not_asked_for() {
        let service = json!({
            "modelName": "m",
            "backendRef": "engines",
            "auth": {"secretRef": {"name": "a,metadata.namespace=kube-system", "key": "k"}},
        });
        assert_eq!(names(Kind::InferenceService, &service), Vec::<String>::new());
    }
}
