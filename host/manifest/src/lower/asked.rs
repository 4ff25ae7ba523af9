//! What objects ask for that is not done, or not here: said once per object, whoever refers to it.

use domain::name::ObjectName;

use super::Lowering;
use super::report::About;
use crate::kind::opaque::TopologyHint;
use crate::kind::{InferenceCacheSpec, PrefillDecodingDisaggregationSpec, SpeculativeDecodingSpec};
use crate::object::Kind;

/// Looks at every object by itself.
pub(super) fn find(lowering: &mut Lowering<'_>) {
    let bundle = lowering.bundle;
    for (name, held) in &bundle.services {
        let spec = &held.value.spec;
        let fields = [
            ("spec.image", spec.image.is_some()),
            ("spec.resources", spec.resources.is_some()),
            ("spec.tensorParallelSize", spec.tensor_parallel_size.is_some()),
        ];
        lowering.not_acted_upon(&About::new(Kind::InferenceService, name), &fields);
    }
    for (name, held) in &bundle.gateways {
        let hint = held.value.spec.topology_hint.is_some();
        lowering.not_acted_upon(&About::new(Kind::InferenceGateway, name), &[("spec.topologyHint", hint)]);
    }
    for (name, held) in &bundle.caches {
        lowering.cache(name, &held.value.spec);
        lowering.thresholds(name, held);
    }
    for (name, held) in &bundle.disaggregated {
        lowering.split(name, &held.value.spec);
    }
    for (name, held) in &bundle.speculative {
        lowering.pair(name, &held.value.spec);
    }
    for name in bundle.placements.keys() {
        let about = About::new(Kind::ModelPlacement, name);
        let message = "this version neither loads nor unloads models";
        lowering.report.warning(
            bundle,
            &about,
            "",
            "NotImplemented",
            message,
            "load the models by other means",
        );
    }
    for (name, held) in &bundle.policies {
        lowering.policy_alone(name, &held.value);
    }
}

impl Lowering<'_> {
    /// Fields of the Go dialect about pods: kept, and done by nobody here.
    fn not_acted_upon(&mut self, about: &About, fields: &[(&str, bool)]) {
        for (field, _) in fields.iter().filter(|(_, is_given)| *is_given) {
            let message = "the field is kept but not acted upon: engines are created elsewhere";
            self.report.info(self.bundle, about, field, "NotActedUpon", message, "nothing, or remove it");
        }
    }

    fn cache(&mut self, name: &ObjectName, spec: &InferenceCacheSpec) {
        let bundle = self.bundle;
        let about = About::new(Kind::InferenceCache, name);
        let fields = [
            ("spec.image", spec.image.is_some()),
            ("spec.tensorParallelSize", spec.tensor_parallel_size > 1),
            ("spec.cacheSize", spec.cache_size.is_some()),
            ("spec.resources", spec.resources.is_some()),
            ("spec.disaggregatedPrefillConfig", spec.disaggregated_prefill_config.is_some()),
        ];
        self.not_acted_upon(&about, &fields);
        if let Some(to) = &spec.pdd_ref {
            let table = (Kind::PrefillDecodingDisaggregation, &bundle.disaggregated);
            self.follow(&about, "spec.pddRef", table, to);
        }
        if let Some(to) = &spec.sd_ref {
            self.follow(&about, "spec.sdRef", (Kind::SpeculativeDecoding, &bundle.speculative), to);
        }
    }

    fn split(&mut self, name: &ObjectName, spec: &PrefillDecodingDisaggregationSpec) {
        let about = About::new(Kind::PrefillDecodingDisaggregation, name);
        let is_about_pods = |hint: &TopologyHint| hint.affinity.is_some() || !hint.tolerations.is_empty();
        let fields = [
            ("spec.prefillResources", spec.prefill_resources.is_some()),
            ("spec.decodeResources", spec.decode_resources.is_some()),
            ("spec.engineConfig", !spec.engine_config.is_empty()),
            ("spec.topologyHint", spec.topology_hint.as_ref().is_some_and(is_about_pods)),
        ];
        self.not_acted_upon(&about, &fields);
        self.not_executed(&about, "prefill/decode disaggregation");
    }

    fn pair(&mut self, name: &ObjectName, spec: &SpeculativeDecodingSpec) {
        let about = About::new(Kind::SpeculativeDecoding, name);
        let fields = [
            ("spec.draftTensorParallelSize", spec.draft_tensor_parallel_size.is_some()),
            ("spec.promptLookupMax", spec.prompt_lookup_max.is_some()),
            ("spec.draftModelConfig", spec.draft_model_config.is_some()),
        ];
        self.not_acted_upon(&about, &fields);
        self.not_executed(&about, "speculative decoding over two engines");
    }

    fn not_executed(&mut self, about: &About, what: &str) {
        let message =
            format!("this version does not execute {what}; services that refer to it are served without");
        self.report.warning(
            self.bundle,
            about,
            "",
            "NotImplemented",
            message,
            "nothing, or remove the object",
        );
    }
}
