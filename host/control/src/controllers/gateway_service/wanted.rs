//! The Service that a gateway should have, whether one that was found is like it, and what to change if not. No IO.

use std::collections::BTreeMap;

use domain::name::ObjectName;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use crate::controllers::config_map::LABEL;

/// Ports of the own Service where it cannot be read.
const PORTS: [(&str, i32); 2] = [("http", 80), ("http-alt", 8001)];
/// The type of a Service that selects pods; also what an absent one means.
const CLUSTER_IP: &str = "ClusterIP";
/// The type of a Service that stands for a name.
const EXTERNAL_NAME: &str = "ExternalName";

/// The Service as it should be. `target` is the own Service, where it is in the same namespace.
pub(super) fn service(
    own: &ObjectName,
    name: &ObjectName,
    owner: OwnerReference,
    target: Option<&Service>,
) -> Service {
    let selected = target.and_then(|target| target.spec.as_ref()).filter(|spec| spec.selector.is_some());
    let spec = match selected {
        Some(spec) => ServiceSpec {
            type_: Some(CLUSTER_IP.into()),
            selector: spec.selector.clone(),
            ports: spec.ports.as_ref().map(|ports| ports.iter().map(plain).collect()),
            ..ServiceSpec::default()
        },
        None => ServiceSpec {
            type_: Some(EXTERNAL_NAME.into()),
            external_name: Some(format!("{}.{}.svc.cluster.local", own.name, own.namespace)),
            ports: Some(PORTS.iter().map(|(name, port)| port_of(name, *port)).collect()),
            ..ServiceSpec::default()
        },
    };
    Service {
        metadata: ObjectMeta {
            name: Some(name.name.to_string()),
            namespace: Some(name.namespace.to_string()),
            labels: Some(BTreeMap::from([(LABEL.0.to_owned(), LABEL.1.to_owned())])),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}

fn port_of(name: &str, port: i32) -> ServicePort {
    ServicePort { name: Some(name.into()), port, protocol: Some("TCP".into()), ..ServicePort::default() }
}

/// A port without what the cluster chose for the other Service.
fn plain(port: &ServicePort) -> ServicePort {
    ServicePort { node_port: None, ..port.clone() }
}

/// Whether there is nothing to correct, whatever the API server has filled in.
pub(super) fn is_met(wanted: &Service, found: &Service) -> bool {
    let (Some(wanted), Some(found)) = (&wanted.spec, &found.spec) else { return false };
    let type_ = |spec: &ServiceSpec| spec.type_.clone().unwrap_or_else(|| CLUSTER_IP.into());
    let selector = |spec: &ServiceSpec| spec.selector.clone().unwrap_or_default();
    let name = |spec: &ServiceSpec| spec.external_name.clone().unwrap_or_default();
    let ports =
        |spec: &ServiceSpec| -> Vec<ServicePort> { spec.ports.iter().flatten().map(filled_in).collect() };
    type_(wanted) == type_(found)
        && selector(wanted) == selector(found)
        && name(wanted) == name(found)
        && ports(wanted) == ports(found)
}

/// A port with what the API server fills in, and without what it chooses.
fn filled_in(port: &ServicePort) -> ServicePort {
    ServicePort {
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
        target_port: Some(port.target_port.clone().unwrap_or(IntOrString::Int(port.port))),
        ..plain(port)
    }
}

/// A merge patch that makes the wanted Service of the one that was found, and of no later version of it. What belongs to
/// another type (addresses, node ports) the API server drops by itself when the type changes.
pub(super) fn correction(wanted: &Service, found: &Service) -> Value {
    let spec = wanted.spec.clone().unwrap_or_default();
    let before = found.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    // A merge patch takes a key away only if it says so.
    let gone = before.into_iter().flatten().map(|(key, _)| (key.clone(), None));
    let kept = spec.selector.into_iter().flatten().map(|(key, value)| (key, Some(value)));
    let selector: BTreeMap<String, Option<String>> = gone.chain(kept).collect();
    json!({
        "metadata": {
            "resourceVersion": found.metadata.resource_version,
            "labels": wanted.metadata.labels,
        },
        "spec": {
            "type": spec.type_,
            "externalName": spec.external_name,
            "selector": selector,
            "ports": spec.ports,
        },
    })
}
