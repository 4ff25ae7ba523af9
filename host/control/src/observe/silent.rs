//! Engines that have never answered a request and cannot be used: one finding per service and cause.
//!
//! An engine that has answered once and fails now is news for the log, not for the owner of the manifests: the proxy logs
//! it. One that never did is most probably named wrongly, or does not run.

use std::collections::BTreeMap;

use domain::breaker::Cause;
use domain::endpoint::{Avoided, Endpoint};
use domain::finding::{Finding, Severity};
use domain::name::ObjectName;
use domain::snapshot::Snapshot;
use manifest::{Bundle, Kind, ObjectKey};

/// Findings at a time; further ones are left out.
const FINDINGS_MAX: usize = 256;
/// Time between two looks, milliseconds.
const INTERVAL_MS: u64 = 2_000;

/// What was found last.
#[derive(Debug, Default)]
pub(super) struct Silent {
    told: Vec<Finding>,
    looked_ms: Option<u64>,
}

impl Silent {
    /// Everything that is to be found, if that has changed and it is time to look.
    pub(super) fn take_due(
        &mut self,
        now_ms: u64,
        snapshot: &Snapshot,
        bundle: &Bundle,
    ) -> Option<Vec<Finding>> {
        if self.looked_ms.is_some_and(|looked_ms| now_ms < looked_ms + INTERVAL_MS) {
            return None;
        }
        self.looked_ms = Some(now_ms);
        let found = findings(now_ms, snapshot, bundle);
        if found == self.told {
            return None;
        }
        self.told.clone_from(&found);
        Some(found)
    }

    /// The findings were not taken: they are due again.
    pub(super) fn untold(&mut self) {
        *self = Self::default();
    }
}

fn findings(now_ms: u64, snapshot: &Snapshot, bundle: &Bundle) -> Vec<Finding> {
    let mut groups: BTreeMap<(&ObjectName, &'static str), (&str, bool)> = BTreeMap::new();
    for route in snapshot.gateways.iter().flat_map(|gateway| gateway.routes.values()) {
        for endpoint in &route.pool.endpoints {
            let Some(cause) = silence(endpoint, now_ms) else { continue };
            let url = &*endpoint.spec.id.url;
            let (first, has_more) = groups.entry((&route.service, cause.sentence())).or_insert((url, false));
            *has_more |= *first != url;
            *first = url.min(*first);
        }
    }
    let found = groups.into_iter().take(FINDINGS_MAX);
    found.map(|((service, why), engines)| finding(bundle, service, why, engines)).collect()
}

/// Why an engine that has never answered gets no requests; `None` if it has, or gets them.
fn silence(endpoint: &Endpoint, now_ms: u64) -> Option<Cause> {
    let cause = match endpoint.avoided(now_ms)? {
        // The same to the reader as a request that was refused.
        Avoided::Unreachable { .. } => Cause::Refused,
        Avoided::Ejected(ejection) => ejection.last.cause,
        Avoided::Asleep | Avoided::Refuses(..) => return None,
    };
    (cause != Cause::Overloaded && !endpoint.has_answered()).then_some(cause)
}

fn finding(bundle: &Bundle, service: &ObjectName, why: &str, (url, has_more): (&str, bool)) -> Finding {
    let is_service = bundle.services.contains_key(service);
    let kind = if is_service { Kind::InferenceService } else { Kind::StaticRoute };
    let key = ObjectKey { kind, name: service.clone() };
    let field = if is_service { "spec.backendRef" } else { "" };
    let origin = bundle.source(&key).map(|source| source.locate(field)).unwrap_or_default();
    // How many there are changes with every engine that comes or goes, and would be a new finding each time.
    let others = if has_more { " (and other engines)" } else { "" };
    Finding {
        severity: Severity::Warning,
        object: key.to_string().into(),
        origin,
        field: field.to_owned(),
        reason: "EngineNeverAnswered",
        message: format!(
            "the engine {url}{others} {why} and has never answered a request; requests avoid it"
        ),
        remedy: "check that it runs, and that its address and port are right".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use domain::assemble::Assembler;
    use domain::breaker::Failed;
    use domain::request::RequestKind;
    use manifest::{Change, decode, lower};

    use super::*;
    use crate::fake::{FakePrepare, gateway, service};

    /// N3: a dead engine is found as long as it has never answered.
    #[test]
    fn an_engine_that_never_answered_is_a_finding_until_it_does() {
        let mut bundle = Bundle::default();
        let text = service("s", &["http://a:1", "http://b:1"]) + &gateway("g", "s", &[]);
        for object in decode(&"m.yaml".into(), text.as_bytes()).objects {
            bundle.apply(Change::Applied(Arc::new(object)));
        }
        let lowered = lower(&bundle, &Default::default());
        let snapshot = Assembler::default().assemble(&lowered.draft, &FakePrepare::default()).snapshot;
        let mut silent = Silent::default();
        let [a, b] = &snapshot.endpoints[..] else { panic!("two engines") };
        assert_eq!(silent.take_due(0, &snapshot, &bundle), None, "nothing is wrong");
        a.state.observed(false, 1_000);
        b.state.observed(false, 1_000);
        assert_eq!(silent.take_due(1_000, &snapshot, &bundle), None, "not yet");
        let found = silent.take_due(2_000, &snapshot, &bundle).expect("news");
        let [finding] = &found[..] else { panic!("{found:?}") };
        assert_eq!((&*finding.object, finding.reason), ("InferenceService default/s", "EngineNeverAnswered"));
        let message = "the engine http://a:1 (and other engines) refuses connections and has never answered a request; \
                       requests avoid it";
        assert_eq!(finding.message, message);
        a.state.observed(true, 3_000);
        b.state.observed(true, 3_000);
        assert_eq!(silent.take_due(4_000, &snapshot, &bundle), Some(Vec::new()), "they can be reached");

        let admitted = a.admit(RequestKind::default(), 5_000);
        a.succeeded(&admitted, 5_000);
        for endpoint in [a, b] {
            let mut admitted = endpoint.admit(RequestKind::default(), 5_001);
            endpoint.failed(&mut admitted, Failed::of(Cause::Lost), 5_001);
        }
        let found = silent.take_due(6_000, &snapshot, &bundle).expect("news");
        assert_eq!(found.len(), 1);
        assert!(found[0].message.starts_with("the engine http://b:1 closes"), "a has answered: {found:?}");
    }
}
