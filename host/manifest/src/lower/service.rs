//! An `InferenceService`, lowered: its endpoints, the thresholds of its cache, and what blocks it.

use std::sync::Arc;

use domain::endpoint::EndpointSpec;
use domain::name::{ModelName, ObjectName};

use super::Lowering;
use super::chain::Thresholds;
use super::models::Adapter;
use super::report::About;
use crate::bundle::Held;
use crate::kind::{InferenceCache, InferenceService, InferenceServiceSpec, NumberOrString};
use crate::object::Kind;
use crate::spelling;

/// Filters that are meant to stop requests: one that cannot be enforced fails closed.
const GUARDS: [&str; 3] = ["promptGuard", "tokenLimit", "contentFilter"];
/// Filters that only help: one that is missing is left out.
const HELPERS: [&str; 2] = ["semanticCache", "sentimentAnalysis"];

const SPLIT: &str = "prefill/decode disaggregation";
const PAIR: &str = "speculative decoding over two engines";

/// A service, lowered. Shared by every route that names it.
#[derive(Debug)]
pub struct ServiceDraft {
    /// The model as the engines know it.
    pub model: ModelName,
    /// Routable endpoints.
    pub endpoints: Arc<[Arc<EndpointSpec>]>,
    /// Endpoints whose model list lacks the model.
    pub withheld: Vec<Arc<EndpointSpec>>,
    /// Adapters of the model that some endpoints have loaded.
    pub(super) adapters: Vec<Adapter>,
    /// Settings of its cache.
    pub(super) thresholds: Thresholds,
    /// Why every request is turned away.
    pub blocked: Option<Box<str>>,
}

impl<'a> Lowering<'a> {
    /// The service of this name, lowered once. `None`: there is none.
    pub(super) fn service(&mut self, name: &ObjectName) -> Option<Arc<ServiceDraft>> {
        if let Some(known) = self.services.get(name) {
            return Some(Arc::clone(known));
        }
        let held = self.bundle.services.get(name)?;
        let draft = Arc::new(self.service_draft(name, held));
        self.services.insert(name.clone(), Arc::clone(&draft));
        Some(draft)
    }

    fn service_draft(&mut self, name: &ObjectName, held: &'a Held<InferenceService>) -> ServiceDraft {
        let about = About::new(Kind::InferenceService, name);
        let spec = &held.value.spec;
        let engine = self.engine(&about, spec);
        let endpoints = self.backend(&about, &spec.backend_ref, &engine);
        if spec.tls.is_none() && endpoints.iter().any(|endpoint| endpoint.target.tls) {
            let message = "the engines speak https, but nothing says whom to trust, so they are not reached";
            let remedy = "add tls.caRef";
            self.report.error(self.bundle, &about, "spec.tls", "NoTrust", message, remedy);
        }
        if spec.tls.is_some()
            && !endpoints.is_empty()
            && endpoints.iter().all(|endpoint| !endpoint.target.tls)
        {
            // Only URLs say themselves how they are asked.
            let message = "no effect: no URL of an engine is https";
            let remedy = "write https URLs, or remove tls";
            self.report.warning(self.bundle, &about, "spec.tls", "NoEffect", message, remedy);
        }
        let heard = self.heard(&spec.model_name, endpoints);
        if heard.serving.is_empty() && !heard.withheld.is_empty() {
            let message = format!("none of the engines that are ready lists the model {}", spec.model_name);
            let remedy = "correct modelName, or load the model";
            self.report.warning(self.bundle, &about, "spec.modelName", "ModelNotServed", message, remedy);
        }
        let cache = spec.inference_cache_ref.as_ref().and_then(|to| {
            let caches = (Kind::InferenceCache, &self.bundle.caches);
            self.follow(&about, "spec.inferenceCacheRef", caches, to)
        });
        let thresholds =
            cache.as_ref().map_or_else(Thresholds::default, |(name, held)| self.thresholds(name, held));
        self.pairs(&about, spec, cache.map(|(_, held)| held));
        ServiceDraft {
            model: ModelName::from(spec.model_name.as_str()),
            endpoints: heard.serving,
            withheld: heard.withheld,
            adapters: heard.adapters,
            thresholds,
            blocked: self.filters(&about, spec),
        }
    }

    /// What a cache asks of prefix policies. A ratio that is none is left out, and found.
    pub(super) fn thresholds(&mut self, name: &ObjectName, held: &Held<InferenceCache>) -> Thresholds {
        let Some(policy) = &held.value.spec.kv_cache_transfer_policy else { return Thresholds::default() };
        let about = About::new(Kind::InferenceCache, name);
        let mut ratio = |value: &Option<NumberOrString>, field: &str| {
            let ratio = value.as_ref()?.ratio();
            if ratio.is_none() {
                let field = format!("spec.kvCacheTransferPolicy.{field}");
                let message = "the value is no ratio from 0 to 1; it is ignored";
                self.report.error(
                    self.bundle,
                    &about,
                    &field,
                    "OutOfRange",
                    message,
                    "write one such as 0.8",
                );
            }
            ratio
        };
        Thresholds {
            hit_rate: ratio(&policy.threshold_hit_rate, "thresholdHitRate"),
            eviction: ratio(&policy.eviction_threshold, "evictionThreshold"),
        }
    }

    /// References that ask for two legs, directly or through the cache. They are checked, and not executed yet.
    fn pairs(&mut self, about: &About, spec: &InferenceServiceSpec, cache: Option<&'a Held<InferenceCache>>) {
        let bundle = self.bundle;
        let (split, pair) = (
            (Kind::PrefillDecodingDisaggregation, &bundle.disaggregated),
            (Kind::SpeculativeDecoding, &bundle.speculative),
        );
        let mut asked = Vec::new();
        if let Some(to) = &spec.prefill_decoding_ref {
            self.follow(about, "spec.prefillDecodingRef", split, to);
            asked.push(("spec.prefillDecodingRef", SPLIT));
        } else if cache.is_some_and(|held| held.value.spec.pdd_ref.is_some()) {
            asked.push(("spec.inferenceCacheRef", SPLIT));
        }
        if let Some(to) = &spec.speculative_decoding_ref {
            self.follow(about, "spec.speculativeDecodingRef", pair, to);
            asked.push(("spec.speculativeDecodingRef", PAIR));
        } else if cache.is_some_and(|held| held.value.spec.sd_ref.is_some()) {
            asked.push(("spec.inferenceCacheRef", PAIR));
        }
        for (field, what) in asked {
            let message = format!(
                "this version does not execute {what}; each request goes to one engine that does all of it"
            );
            let remedy = "nothing, if the engines can; else remove the reference";
            self.report.warning(bundle, about, field, "NotImplemented", message, remedy);
        }
    }

    /// Why every request is turned away, because of a guard that cannot be enforced.
    fn filters(&mut self, about: &About, spec: &InferenceServiceSpec) -> Option<Box<str>> {
        let mut blocked = None;
        for (name, at) in spec.nlp_filters.as_ref()?.names() {
            let field = format!("spec.nlpFilters{at}");
            if GUARDS.contains(&name) {
                let message = format!(
                    "this version cannot enforce {name}, so every request to this service is answered 503"
                );
                let remedy = "remove the filter to serve without it";
                self.report.error(self.bundle, about, &field, "NotImplemented", message, remedy);
                let reason =
                    || format!("the filter {name} of this model cannot be enforced by this version").into();
                blocked.get_or_insert_with(reason);
            } else if HELPERS.contains(&name) {
                let message =
                    format!("this version does without {name}; requests are served as if it were not there");
                let remedy = "nothing, or remove the filter";
                self.report.warning(self.bundle, about, &field, "NotImplemented", message, remedy);
            } else {
                let message = format!(
                    "{name} is no filter; as it may be meant as a guard, every request is answered 503"
                );
                let near = spelling::nearest(name, GUARDS.into_iter().chain(HELPERS));
                let near = near.map_or_else(String::new, |near| format!("did you mean {near}? "));
                let remedy = format!(
                    "{near}use semanticCache, promptGuard, tokenLimit, contentFilter or sentimentAnalysis"
                );
                self.report.error(self.bundle, about, &field, "UnknownFilter", message, remedy);
                blocked.get_or_insert_with(|| format!("the filter {name} of this model is not known").into());
            }
        }
        blocked
    }
}
