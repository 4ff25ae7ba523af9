//! Status of a `RoutingPolicy`.

use std::collections::{BTreeMap, BTreeSet};

use domain::name::ObjectName;
use domain::policy::{EntrySpec, PolicySource, Preparation, PrepareFailure, Prepared};
use domain::snapshot::Snapshot;
use manifest::kind::opaque::AnyObject;
use manifest::kind::routing_policy::{PolicyDescription, PolicyFaults};
use manifest::kind::{RoutingPolicy, RoutingPolicyStatus};

use super::condition::Conditions;
use super::{About, Draft, NAMES_MAX, Said, View, few};
use crate::publish::Facts;

/// Reasons that speak of getting the component, not of the component.
const NOT_FETCHED: [&str; 3] = ["FetchFailed", "DigestMismatch", "TooLarge"];
/// Characters of the digest in its column.
const DIGEST_SHOWN: usize = 12;

pub(super) fn draft(
    about: &About<'_, RoutingPolicy>,
    before: &RoutingPolicyStatus,
) -> Draft<RoutingPolicyStatus> {
    let view = about.view;
    let mut conditions = Conditions::of(&about.findings);
    let none = BTreeSet::new();
    let users = view.policy_users.get(about.name).unwrap_or(&none);
    let mut resolved = BTreeMap::from([("source".to_owned(), source(about.object))]);
    if !users.is_empty() {
        resolved.insert("usedBy".into(), few(users.iter().map(|name| &*name.name)));
    }
    let state = view.facts.policies.get(about.name);
    let mut policy = None;
    match state.map(|state| &*state.preparation) {
        Some(Preparation::Ready(prepared)) => {
            conditions.set("Fetched", Said::yes("Fetched", ""));
            conditions.set("Programmed", in_force(view, about.name, users));
            let digest = prepared.digest().to_string();
            resolved.insert("digest".into(), digest.chars().take(DIGEST_SHOWN).collect());
            policy = Some(description(&**prepared, digest));
        }
        Some(Preparation::Pending) => {
            for kind in ["Fetched", "Programmed"] {
                conditions.set(kind, Said::pending("the policy is being prepared"));
            }
            conditions.limit("Ready", Said::pending("the policy is being prepared"));
        }
        Some(Preparation::Failed(failure)) => failed(&mut conditions, failure),
        // Its findings say why there is no source.
        None => {
            let ready = conditions.get("Ready").cloned().unwrap_or_else(|| Said::pending(""));
            let why = if conditions.is_true("Ready") { Said::pending("not looked at yet") } else { ready };
            conditions.limit("Ready", why.clone());
            conditions.set("Fetched", why.clone());
            conditions.set("Programmed", why);
        }
    }
    let in_use_by = users.iter().take(NAMES_MAX).map(ToString::to_string).collect();
    let faults = faults(about, before);
    let status = RoutingPolicyStatus { policy, in_use_by, faults, ..Default::default() };
    Draft { conditions: conditions.with_progress(), resolved, status }
}

fn failed(conditions: &mut Conditions, failure: &PrepareFailure) {
    let said = Said::no(failure.reason, failure.sentence() + &failure.advice());
    let is_fetched = !NOT_FETCHED.contains(&failure.reason);
    let fetched = if is_fetched { Said::yes("Fetched", "") } else { said.clone() };
    conditions.set("Fetched", fetched);
    conditions.set("Programmed", said.clone());
    if failure.reason == "ConfigRejected" {
        conditions.limit("Accepted", said.clone());
    }
    conditions.limit("Ready", said);
}

/// Whether somebody's chain runs it.
fn in_force(view: &View<'_>, name: &ObjectName, users: &BTreeSet<&ObjectName>) -> Said {
    if users.is_empty() {
        return Said::no("NotReferenced", "no gateway names this policy");
    }
    let trouble =
        view.facts.troubles.iter().find(|trouble| {
            users.contains(&trouble.gateway) && is_meant(&trouble.spec, &trouble.gateway, name)
        });
    match trouble {
        None => Said::yes("Programmed", ""),
        Some(trouble) => {
            let message =
                format!("it is not in force in gateway {}; see its PolicyProgrammed", trouble.gateway);
            match &trouble.failure {
                Some(failure) => Said::no(failure.reason, message),
                None => Said::pending(message),
            }
        }
    }
}

/// Whether a chain's entry is this policy: by its name, unless that is a built-in's own.
fn is_meant(spec: &EntrySpec, gateway: &ObjectName, policy: &ObjectName) -> bool {
    gateway.namespace == policy.namespace && spec.name.as_str() == &*policy.name && !is_builtin(spec)
}

fn is_builtin(spec: &EntrySpec) -> bool {
    matches!(&spec.source, PolicySource::Builtin(name) if *name == spec.name)
}

/// Gateways by the policies that their chains ask for or run.
pub(super) fn users<'a>(
    facts: &'a Facts,
    snapshot: &'a Snapshot,
) -> BTreeMap<ObjectName, BTreeSet<&'a ObjectName>> {
    let mut users: BTreeMap<ObjectName, BTreeSet<&ObjectName>> = BTreeMap::new();
    let mut add = |spec: &EntrySpec, gateway: &'a ObjectName| {
        if !is_builtin(spec) {
            let policy = ObjectName::new(gateway.namespace.clone(), spec.name.as_str());
            users.entry(policy).or_default().insert(gateway);
        }
    };
    for pool in &snapshot.pools {
        pool.chain.entries.iter().for_each(|entry| add(&entry.spec, &pool.gateway));
    }
    facts.troubles.iter().for_each(|trouble| add(&trouble.spec, &trouble.gateway));
    users
}

fn source(policy: &RoutingPolicy) -> String {
    let source = &policy.spec.source;
    if let Some(name) = &source.builtin {
        return format!("builtin:{name}");
    }
    if let Some(file) = &source.file {
        return format!("file:{file}");
    }
    for (kind, key) in [("ConfigMap", &source.config_map_ref), ("Secret", &source.secret_ref)] {
        if let Some(key) = key {
            return format!("{kind}:{}/{}", key.name, key.key);
        }
    }
    source.oci.as_ref().map_or_else(String::new, |oci| format!("oci:{}", oci.image))
}

fn description(prepared: &dyn Prepared, digest: String) -> PolicyDescription {
    let said = prepared.description();
    let schema: Option<AnyObject> = serde_json::from_str(&said.config_schema).ok();
    PolicyDescription {
        name: said.name.clone(),
        version: said.version.clone(),
        summary: said.summary.clone(),
        digest,
        size_bytes: prepared.size_bytes().and_then(|bytes| i64::try_from(bytes).ok()),
        imports: prepared.imports(),
        signals: said.signals.iter().map(|signal| signal.name().to_owned()).collect(),
        config_schema: schema.filter(|schema| !schema.0.is_empty()),
    }
}

/// Failed calls in all gateways. The time moves with the count.
fn faults(about: &About<'_, RoutingPolicy>, before: &RoutingPolicyStatus) -> Option<PolicyFaults> {
    let all = about.view.sight.faults.iter().filter(|((gateway, policy), _)| {
        gateway.namespace == about.name.namespace && policy.as_str() == &*about.name.name
    });
    let (mut count, mut last) = (0, None);
    for (_, (faults, reason)) in all {
        count += faults;
        last = Some(reason.clone());
    }
    if count == 0 {
        return None;
    }
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let known = before.faults.as_ref().filter(|known| known.count == count);
    let last_time = known.and_then(|known| known.last_time.clone());
    Some(PolicyFaults {
        count,
        last_reason: last,
        last_time: Some(last_time.unwrap_or_else(|| about.view.now.to_string())),
    })
}
