//! The rights that are asked for.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::render::{chart, identity, items, of_kind, overlay, rendered, the};

/// One right: group, resource, verb and, where limited, the name.
type Right = (String, String, String, String);

fn rights(object: &Value) -> BTreeSet<Right> {
    let texts = |value: &Value| -> Vec<String> {
        items(value).iter().map(|text| text.as_str().expect("a text").to_owned()).collect()
    };
    let mut all = BTreeSet::new();
    for rule in items(&object["rules"]) {
        let mut names = texts(&rule["resourceNames"]);
        if names.is_empty() {
            names.push(String::new());
        }
        for group in texts(&rule["apiGroups"]) {
            for resource in texts(&rule["resources"]) {
                for verb in texts(&rule["verbs"]) {
                    for name in &names {
                        all.insert((group.clone(), resource.clone(), verb.clone(), name.clone()));
                    }
                }
            }
        }
    }
    all
}

/// The Lease goes with the release.
#[test]
fn the_lease_comes_with_the_release() {
    for objects in [
        chart(&[]),
        chart(&["--set", "rbac.scope=namespace"]),
        overlay("base").to_vec(),
        overlay("overlays/rkllama").to_vec(),
    ] {
        let lease = the(&objects, "Lease");
        assert_eq!(lease["metadata"]["name"], "wicketgate");
        assert!(lease.get("spec").is_none(), "who holds it is the gateway's to say");
    }
    let without = chart(&["--set", "leaderElection.enabled=false,replicaCount=1"]);
    assert!(of_kind(&without, "Lease").is_empty());
}

/// All rights of the roles that are bound to the gateway's account.
fn bound(objects: &[Value]) -> BTreeSet<Right> {
    let bindings = objects
        .iter()
        .filter(|object| object["kind"].as_str().is_some_and(|kind| kind.ends_with("RoleBinding")));
    let role_of = |binding: &Value| {
        let found = objects.iter().find(|object| {
            object["kind"] == binding["roleRef"]["kind"]
                && object["metadata"]["name"] == binding["roleRef"]["name"]
                && object["metadata"]["namespace"] == binding["metadata"]["namespace"]
        });
        rights(found.unwrap_or_else(|| panic!("{} binds nothing", identity(binding))))
    };
    bindings.flat_map(role_of).collect()
}

fn right(group: &str, resource: &str, verb: &str) -> Right {
    [group, resource, verb, ""].map(str::to_owned).into()
}

#[test]
fn chart_and_overlays_ask_for_the_same_rights() {
    let cases = [
        ("base", vec![]),
        ("overlays/dev", vec!["--set", "gateway.engineControl=true"]),
        ("overlays/production", vec!["--set", "secrets.enabled=true"]),
        ("overlays/namespaced", vec!["--set", "rbac.scope=namespace"]),
        ("overlays/rkllama", vec!["--set", "rbac.scope=namespace"]),
    ];
    for (name, args) in cases {
        assert_eq!(bound(overlay(name)), bound(&chart(&args)), "{name}");
    }
}

#[test]
fn no_right_is_wider_than_named() {
    for (scenario, objects) in rendered() {
        for (group, resource, verb, name) in bound(objects) {
            assert!(
                ![&group, &resource, &verb].iter().any(|part| part.contains('*')),
                "{scenario}: {resource}"
            );
            assert!(
                !["delete", "deletecollection", "escalate", "bind", "impersonate"].contains(&&*verb),
                "{scenario}"
            );
            if resource == "leases" {
                // A right to create cannot be limited to a name.
                let wanted = if verb == "create" { "" } else { "wicketgate" };
                assert_eq!(name, wanted, "{scenario}: {verb} on the one Lease only");
            }
        }
    }
}

#[test]
fn what_is_switched_on_brings_its_right_and_nothing_else() {
    let plain = bound(&chart(&[]));
    let cases = [
        ("secrets.enabled=true", vec![right("", "secrets", "list"), right("", "secrets", "watch")]),
        (
            "gatewayServices.enabled=true",
            vec![right("", "services", "create"), right("", "services", "patch")],
        ),
        ("gateway.engineControl=true", vec![right("", "pods", "patch")]),
    ];
    for (set, wanted) in cases {
        let more: Vec<Right> = bound(&chart(&["--set", set])).difference(&plain).cloned().collect();
        assert_eq!(more, wanted, "{set}");
    }
    let without = bound(&chart(&["--set", "leaderElection.enabled=false,replicaCount=1"]));
    assert!(plain.difference(&without).all(|(_, resource, ..)| resource == "leases"));
    assert_eq!(plain.difference(&without).count(), 3, "get, update and create");
}

/// A9: who installs may leave the Lease out (Argo CD does by default): the gateway may create it, in its own namespace only.
#[test]
fn the_gateway_may_create_its_lease_in_its_own_namespace_and_nowhere_else() {
    for objects in [
        chart(&[]),
        chart(&["--set", "rbac.scope=namespace,watchNamespaces={a,b}"]),
        overlay("base").to_vec(),
        overlay("overlays/rkllama").to_vec(),
    ] {
        let of_lease = |role: &&Value| rights(role).iter().any(|(_, resource, ..)| resource == "leases");
        assert!(of_kind(&objects, "ClusterRole").iter().all(|role| !of_lease(role)));
        let roles: Vec<&Value> = of_kind(&objects, "Role").into_iter().filter(of_lease).collect();
        assert_eq!(roles.len(), 1);
        assert!(rights(roles[0]).contains(&right("coordination.k8s.io", "leases", "create")));
        assert_eq!(roles[0]["metadata"]["namespace"], the(&objects, "Lease")["metadata"]["namespace"]);
    }
}

#[test]
fn a_namespaces_release_has_no_cluster_wide_object() {
    for set in ["rbac.scope=namespace", "rbac.scope=namespace,watchNamespaces={a,b}"] {
        let objects = chart(&["--set", set]);
        assert!(objects.iter().all(|object| !object["metadata"]["namespace"].is_null()), "{set}");
    }
    let objects = chart(&["--set", "rbac.scope=namespace,watchNamespaces={a,b}"]);
    let namespace = |binding: &&Value| binding["metadata"]["namespace"].as_str().map(str::to_owned);
    let namespaces: BTreeSet<_> = of_kind(&objects, "RoleBinding").iter().map(namespace).collect();
    assert_eq!(namespaces.len(), 3, "a and b, and the Lease's: {namespaces:?}");
    let namespaced = overlay("overlays/namespaced");
    assert!(namespaced.iter().all(|object| object["metadata"]["namespace"] == "inference"));
}

/// People see and edit the resources with the roles that they have anyway.
#[test]
fn the_clusters_own_roles_grow_by_our_kinds() {
    let objects = chart(&[]);
    let label = |object: &Value, role: &str| {
        object["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{role}")] == "true"
    };
    let kinds = std::fs::read_dir(crate::render::path("crds")).expect("definitions").count();
    for (role, verb) in [("view", "watch"), ("edit", "watch"), ("edit", "patch"), ("admin", "delete")] {
        let all: BTreeSet<Right> = of_kind(&objects, "ClusterRole")
            .into_iter()
            .filter(|object| label(object, role))
            .flat_map(rights)
            .collect();
        let ours = all.iter().filter(|right| right.2 == verb).count();
        assert_eq!(ours, kinds, "{role} may {verb} every kind");
    }
    let view: BTreeSet<Right> = of_kind(&objects, "ClusterRole")
        .into_iter()
        .filter(|object| label(object, "view"))
        .flat_map(rights)
        .collect();
    assert!(view.iter().all(|right| ["get", "list", "watch"].contains(&&*right.2)), "{view:?}");
}
