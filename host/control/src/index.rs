//! The ground state and what it lowers to. A value: no IO, no time.
//!
//! Lowering starts anew each time, so what an object said before it became unacceptable is kept here: until it is
//! acceptable again, its last accepted version is lowered in its place, with the endpoints of now.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use domain::draft::Draft;
use domain::endpoint::EndpointSpec;
use domain::finding::{Finding, Severity};
use domain::name::ObjectName;
use domain::policy::EntrySpec;
use manifest::{Bundle, Change, Kind, LowerOptions, Lowered, Object, ObjectKey, ServiceDraft, lower};

use crate::observe::ObservedModels;

/// Everything that is known, and what it lowers to.
#[derive(Debug, Default)]
pub struct Index {
    options: LowerOptions,
    bundle: Bundle,
    /// Objects of ours as their source tells them.
    told: HashMap<ObjectKey, Arc<Object>>,
    /// The last accepted version of each object of ours.
    accepted: HashMap<ObjectKey, Arc<Object>>,
    lowered: Lowered,
    services: Arc<Services>,
}

/// Services of ours, lowered.
pub type Services = HashMap<ObjectName, Arc<ServiceDraft>>;

impl Index {
    /// Nothing known yet.
    pub fn new(options: LowerOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// Services that gateways ask for are created; `own` is the one through which clients of all gateways come, if it is known.
    pub(crate) fn with_services(mut self, own: Option<ObjectName>) -> Self {
        self.options.creates_services = true;
        self.options.own_service = own;
        self
    }

    /// Takes changes in. Returns whether anything that matters is different: a new status, such as one that we wrote
    /// ourselves, is kept and makes nothing new.
    pub(crate) fn apply(&mut self, changes: Vec<Change>) -> bool {
        let mut is_different = false;
        for change in changes {
            let mut is_only_status = false;
            match &change {
                Change::Applied(object) if object.kind().is_ours() => {
                    let before = self.told.insert(object.key(), Arc::clone(object));
                    is_only_status = before.is_some_and(|before| before.asks_the_same(object));
                }
                Change::Removed(key) => {
                    self.told.remove(key);
                    self.accepted.remove(key);
                }
                Change::Applied(_) | Change::Models { .. } => {}
            }
            is_different |= self.bundle.apply(change) && !is_only_status;
        }
        is_different
    }

    /// What the sources refuse as it stands, for messages about what refers to it. Returns whether that is different.
    pub(crate) fn refuse<'f>(&mut self, findings: impl Iterator<Item = &'f Finding>) -> bool {
        let mut refused = HashMap::new();
        for finding in
            findings.filter(|finding| finding.severity == Severity::Error && finding.object.contains('/'))
        {
            refused.entry(Arc::clone(&finding.object)).or_insert_with(|| finding.clone());
        }
        let is_different = self.bundle.refused != refused;
        self.bundle.refused = refused;
        is_different
    }

    /// Takes an engine's model list in. Returns whether it matters.
    pub(crate) fn observe(&mut self, list: ObservedModels) -> bool {
        let ObservedModels { endpoint, models } = list;
        self.bundle.apply(Change::Models { endpoint, models })
    }

    /// Lowers what is known now. Linear in routes and endpoints.
    pub(crate) fn lower(&mut self) {
        let mut lowered = lower(&self.bundle, &self.options);
        for (key, object) in &self.told {
            if !lowered.rejected.contains(key) {
                self.accepted.insert(key.clone(), Arc::clone(object));
            }
        }
        let stand_ins: Vec<&Arc<Object>> =
            lowered.rejected.iter().filter_map(|key| self.accepted.get(key)).collect();
        if !stand_ins.is_empty() {
            let mut bundle = self.bundle.clone();
            for object in stand_ins {
                bundle.apply(Change::Applied(Arc::clone(object)));
            }
            // What is wrong is said of what was written, not of what stands in for it.
            lowered.draft = lower(&bundle, &self.options).draft;
        }
        self.services = Arc::new(std::mem::take(&mut lowered.services));
        self.lowered = lowered;
    }

    /// What to run on, as of the last [`Self::lower`].
    pub(crate) fn draft(&self) -> &Draft {
        &self.lowered.draft
    }

    /// Endpoints that are left out because their model lists lack the model.
    pub(crate) fn excluded(&self) -> Arc<[Arc<EndpointSpec>]> {
        Arc::clone(&self.lowered.withheld)
    }

    /// Whether there is nothing to serve.
    pub(crate) fn is_empty(&self) -> bool {
        self.lowered.draft.gateways.is_empty()
    }

    /// How many objects of each kind of ours are known.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (Kind, usize)> + use<> {
        let bundle = &self.bundle;
        let counts = [
            (Kind::InferenceGateway, bundle.gateways.len()),
            (Kind::InferenceService, bundle.services.len()),
            (Kind::InferenceCache, bundle.caches.len()),
            (Kind::SpeculativeDecoding, bundle.speculative.len()),
            (Kind::PrefillDecodingDisaggregation, bundle.disaggregated.len()),
            (Kind::StaticRoute, bundle.static_routes.len()),
            (Kind::RoutingPolicy, bundle.policies.len()),
            (Kind::ModelPlacement, bundle.placements.len()),
        ];
        counts.into_iter()
    }

    /// Everything that is known. A clone copies references.
    pub(crate) fn bundle(&self) -> &Bundle {
        &self.bundle
    }

    /// Every service by itself, as of the last [`Self::lower`].
    pub(crate) fn services(&self) -> &Arc<Services> {
        &self.services
    }

    /// Every `RoutingPolicy` by itself, where it has a usable source.
    pub(crate) fn policies(&self) -> &BTreeMap<ObjectName, Arc<EntrySpec>> {
        &self.lowered.policies
    }

    /// Objects that contradict themselves, sorted.
    pub(crate) fn rejected(&self) -> &[ObjectKey] {
        &self.lowered.rejected
    }

    /// What is wrong with the objects.
    pub(crate) fn findings(&self) -> &[Finding] {
        &self.lowered.findings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{document, service};
    use crate::source::directory::SOURCE;

    fn changes(text: &str) -> Vec<Change> {
        let decoded = manifest::decode(&SOURCE.into(), text.as_bytes());
        assert!(decoded.findings.is_empty(), "{:?}", decoded.findings);
        decoded.objects.into_iter().map(|object| Change::Applied(Arc::new(object))).collect()
    }

    fn gateway(services: &[&str]) -> String {
        let routes: Vec<String> = services
            .iter()
            .map(|service| format!("{{\"model\":\"m\",\"inferenceServiceRef\":\"{service}\"}}"))
            .collect();
        document("InferenceGateway", "g", &format!("{{\"routes\":[{}]}}", routes.join(",")))
    }

    fn told(index: &mut Index, text: &str) -> (String, Vec<&'static str>) {
        assert!(index.apply(changes(text)));
        index.lower();
        let urls = |route: &domain::draft::RouteDraft| {
            let urls: Vec<&str> = route.endpoints.iter().map(|endpoint| &*endpoint.id.url).collect();
            format!("{} -> {}", route.service.name, urls.join(","))
        };
        let routes: Vec<String> = index.draft().gateways.iter().flat_map(|g| &g.routes).map(urls).collect();
        (routes.join(" "), index.findings().iter().map(|finding| finding.reason).collect())
    }

    #[test]
    fn a_gateway_that_contradicts_itself_serves_its_last_accepted_version_with_the_endpoints_of_now() {
        let mut index = Index::default();
        let first = service("a", &["http://a:1"]) + &service("b", &["http://b:1"]) + &gateway(&["a"]);
        assert_eq!(told(&mut index, &first), ("a -> http://a:1".to_owned(), vec![]));
        let contradiction = ("a -> http://a:1".to_owned(), vec!["ConflictingRoutes"]);
        assert_eq!(told(&mut index, &gateway(&["b", "a"])), contradiction);
        let moved = ("a -> http://a:2".to_owned(), vec!["ConflictingRoutes"]);
        assert_eq!(told(&mut index, &service("a", &["http://a:2"])), moved, "endpoints are of now");
        assert_eq!(told(&mut index, &gateway(&["b"])), ("b -> http://b:1".to_owned(), vec![]));
    }

    #[test]
    fn one_that_never_was_accepted_serves_what_can_be_made_of_it() {
        let mut index = Index::default();
        let text = service("a", &["http://a:1"]) + &service("b", &["http://b:1"]) + &gateway(&["b", "a"]);
        assert_eq!(told(&mut index, &text), ("b -> http://b:1".to_owned(), vec!["ConflictingRoutes"]));
    }

    #[test]
    fn a_removed_object_takes_its_accepted_version_along() {
        let mut index = Index::default();
        let text = service("a", &["http://a:1"]) + &service("b", &["http://b:1"]) + &gateway(&["a"]);
        told(&mut index, &text);
        let key = ObjectKey { kind: Kind::InferenceGateway, name: ObjectName::new("default", "g") };
        assert!(index.apply(vec![Change::Removed(key)]));
        index.lower();
        assert!(index.is_empty());
        assert_eq!(told(&mut index, &gateway(&["b", "a"])).0, "b -> http://b:1");
    }
}
