//! The routes of a gateway: both lists together, each model once, and adapters beside the models they adapt.

use std::collections::HashMap;

use domain::draft::RouteDraft;
use domain::name::{ModelName, ObjectName};

use super::Lowering;
use super::chain::AskedChain;
use super::reference::Missing;
use super::report::About;
use crate::kind::InferenceGatewaySpec;
use crate::kind::inference_gateway::ModelRoute;
use crate::object::Kind;

impl<'a> Lowering<'a> {
    pub(super) fn routes(
        &mut self,
        about: &About,
        spec: &'a InferenceGatewaySpec,
        chain: &AskedChain,
    ) -> Vec<RouteDraft> {
        let lists = [("spec.routes", &spec.routes), ("spec.modelRoutes", &spec.model_routes)];
        let entries = lists.iter().flat_map(|(list, routes)| {
            routes.iter().enumerate().map(move |(index, route)| (format!("{list}[{index}]"), route))
        });
        let mut routes: Vec<RouteDraft> = Vec::new();
        let mut by_model: HashMap<ModelName, usize> = HashMap::new();
        for (field, route) in entries {
            let Some((model, service)) = self.route(about, &field, route) else { continue };
            match by_model.get(model) {
                // The first mention stands: a contradiction must not take a model away that was served.
                Some(first) if routes[*first].service != service => {
                    let first = &routes[*first].service;
                    let message = format!(
                        "model {model} leads to {service}, but to {first} above; the first one is used"
                    );
                    let remedy = "remove one of the two routes";
                    self.report.reject(self.bundle, about, &field, "ConflictingRoutes", message, remedy);
                }
                Some(_) => {}
                None => {
                    let draft = self.route_draft(about, &field, ModelName::from(model), service, chain);
                    by_model.insert(draft.model.clone(), routes.len());
                    routes.push(draft);
                }
            }
        }
        self.adapters(&mut routes, &mut by_model);
        routes
    }

    /// Model and service of one entry. `None`: it does not name both, which is found.
    fn route<'r>(
        &mut self,
        about: &About,
        field: &str,
        route: &'r ModelRoute,
    ) -> Option<(&'r str, ObjectName)> {
        let bundle = self.bundle;
        let model = match (&route.model, &route.model_name) {
            (Some(model), Some(other)) if model != other => {
                let message = format!("the route names two models, {model} and {other}");
                self.report.reject(
                    bundle,
                    about,
                    field,
                    "InvalidRoute",
                    message,
                    "keep one of model and modelName",
                );
                return None;
            }
            (Some(model), _) | (None, Some(model)) if !model.is_empty() => model,
            _ => {
                let message = "the route names no model";
                self.report.reject(bundle, about, field, "InvalidRoute", message, "add model");
                return None;
            }
        };
        let (name, to) = match (&route.inference_service_ref, &route.service_ref) {
            (Some(one), Some(other)) if one != other => {
                let message = format!("the route of {model} names two services");
                let remedy = "keep one of inferenceServiceRef and serviceRef";
                self.report.reject(bundle, about, field, "InvalidRoute", message, remedy);
                return None;
            }
            (Some(to), _) => ("inferenceServiceRef", to),
            (None, Some(to)) => ("serviceRef", to),
            (None, None) => {
                let message = format!("the route of {model} names no service");
                self.report.reject(bundle, about, field, "InvalidRoute", message, "add inferenceServiceRef");
                return None;
            }
        };
        let service = self.referent(about, &format!("{field}.{name}"), Kind::InferenceService, to)?;
        if !bundle.services.contains_key(&service) {
            let known = bundle.services.iter().map(|(name, held)| (name, held.source.origin.clone()));
            let Missing { message, remedy } = self.missing(Kind::InferenceService, &service, known);
            let message = format!("{message}; model {model} is answered 503");
            let remedy = remedy.unwrap_or_else(|| "create it, or correct the reference".to_owned());
            self.report.error(
                bundle,
                about,
                &format!("{field}.{name}"),
                "ReferenceNotFound",
                message,
                remedy,
            );
        }
        Some((model, service))
    }

    /// A route. One whose service is missing stays, without endpoints: its model is known, and not being served now.
    fn route_draft(
        &mut self,
        about: &About,
        field: &str,
        model: ModelName,
        service: ObjectName,
        chain: &AskedChain,
    ) -> RouteDraft {
        let lowered = self.service(&service);
        let thresholds = lowered.as_ref().map(|lowered| lowered.thresholds).unwrap_or_default();
        let mut draft = RouteDraft {
            engine_model: None,
            parent: None,
            blocked: None,
            endpoints: Vec::new().into(),
            chain: self.chain(chain, thresholds),
            chain_rejected: chain.rejected,
            model,
            service,
        };
        if let Some(lowered) = lowered {
            if lowered.endpoints.is_empty() && lowered.withheld.is_empty() {
                let message =
                    format!("model {} has no endpoint: requests to it are answered 503", draft.model);
                let remedy = format!("see InferenceService {}", draft.service);
                self.report.warning(self.bundle, about, field, "NoEndpoints", message, remedy);
            }
            draft.engine_model = (lowered.model != draft.model).then(|| lowered.model.clone());
            draft.blocked = lowered.blocked.clone();
            draft.endpoints = lowered.endpoints.clone();
        }
        draft
    }

    /// Adapters of routed models become routes of their own. A model that is routed by name wins over an adapter.
    fn adapters(&mut self, routes: &mut Vec<RouteDraft>, by_model: &mut HashMap<ModelName, usize>) {
        for index in 0..routes.len() {
            let base = routes[index].clone();
            let Some(service) = self.service(&base.service) else { continue };
            for adapter in &service.adapters {
                if by_model.contains_key(&adapter.name) {
                    continue;
                }
                by_model.insert(adapter.name.clone(), routes.len());
                routes.push(RouteDraft {
                    model: adapter.name.clone(),
                    engine_model: None,
                    parent: Some(adapter.parent.clone()),
                    endpoints: adapter.endpoints.clone(),
                    ..base.clone()
                });
            }
        }
    }
}
