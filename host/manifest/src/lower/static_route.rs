//! A `StaticRoute`: a gateway of its own name over a list of backends.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use domain::draft::{GatewayDraft, RouteDraft};
use domain::endpoint::EndpointSpec;
use domain::name::{ModelName, ObjectName};
use domain::redact;
use domain::route::GatewaySettings;

use super::Lowering;
use super::chain::Thresholds;
use super::engine::Engine;
use super::report::About;
use super::url;
use crate::bundle::Held;
use crate::kind::{StaticRoute, StaticRouteSpec};
use crate::object::Kind;

impl<'a> Lowering<'a> {
    /// The gateway that a static route makes. `None`: it is meant for another router, or cannot be served.
    pub(super) fn static_route(
        &mut self,
        name: &ObjectName,
        held: &'a Held<StaticRoute>,
    ) -> Option<GatewayDraft> {
        let about = About::new(Kind::StaticRoute, name);
        let spec = &held.value.spec;
        if self.bundle.gateways.contains_key(name) {
            let message = format!("an InferenceGateway is also called {name}; it is served, this is not");
            self.report.error(
                self.bundle,
                &about,
                "metadata.name",
                "NameConflict",
                message,
                "rename one of the two",
            );
            return None;
        }
        if !self.is_ours(name, spec) {
            let message = "routerRef names another router, so the backends are not served here";
            self.report.info(
                self.bundle,
                &about,
                "spec.routerRef",
                "OtherRouter",
                message,
                "nothing, if that is meant",
            );
            return None;
        }
        let models = self.static_models(&about, spec)?;
        if models.values().any(|endpoints| endpoints.iter().any(|endpoint| endpoint.target.tls)) {
            let message = "a backend's URL is https, but nothing here can say whom to trust";
            let remedy = "name it in an InferenceService with backendRef {kind: Static} and tls";
            self.report.error(self.bundle, &about, "spec.staticBackends", "NoTrust", message, remedy);
        }
        let chain = self.chain_of(&about, "spec.routingLogic", &spec.routing_logic);
        let routes = models.into_iter().map(|(model, endpoints)| RouteDraft {
            model,
            service: name.clone(),
            engine_model: None,
            parent: None,
            blocked: None,
            endpoints,
            chain: self.chain(&chain, Thresholds::default()),
            chain_rejected: chain.rejected,
        });
        let routes = routes.collect();
        let (settings, aliases) = (GatewaySettings::default(), HashMap::new());
        let (name, has_short_host) = (name.clone(), self.has_short_host(name));
        Some(GatewayDraft { name, hostnames: Vec::new(), has_short_host, settings, aliases, routes })
    }

    fn is_ours(&self, name: &ObjectName, spec: &StaticRouteSpec) -> bool {
        let Some(to) = &spec.router_ref else { return true };
        let namespace = to.namespace.as_deref().unwrap_or(&name.namespace);
        let is_named =
            |own: &ObjectName| *own.namespace == *namespace && Some(&*own.name) == to.name.as_deref();
        self.options.own_names.is_empty() || self.options.own_names.iter().any(is_named)
    }

    /// Models with their endpoints, by name. A backend that is listed twice for a model counts twice.
    fn static_models(
        &mut self,
        about: &About,
        spec: &StaticRouteSpec,
    ) -> Option<BTreeMap<ModelName, Arc<[Arc<EndpointSpec>]>>> {
        let backends: Vec<&str> = spec.static_backends.split(',').map(str::trim).collect();
        let models: Vec<&str> = spec.static_models.split(',').map(str::trim).collect();
        if backends.len() != models.len() {
            let message = format!("{} backends but {} models are named", backends.len(), models.len());
            let remedy = "name one model for each backend, in the same order";
            self.report.reject(self.bundle, about, "spec.staticModels", "UnequalLists", message, remedy);
            return None;
        }
        let mut found: BTreeMap<ModelName, Vec<EndpointSpec>> = BTreeMap::new();
        for (backend, model) in backends.into_iter().zip(models) {
            if model.is_empty() {
                let message = format!("backend {} has no model", redact::url(backend));
                self.report.error(
                    self.bundle,
                    about,
                    "spec.staticModels",
                    "Invalid",
                    message,
                    "name one for each backend",
                );
                continue;
            }
            let endpoints = found.entry(ModelName::from(model)).or_default();
            match url::parse_engine(backend) {
                Ok((url, target)) => match endpoints.iter_mut().find(|known| known.id.url == url) {
                    Some(known) => known.weight += 1,
                    None => endpoints.push(self.static_endpoint(url, target, 1, &Engine::default())),
                },
                Err(why) => {
                    let message = format!("{:?} is not a base URL: {why}", redact::url(backend));
                    let remedy = "write one such as http://10.0.0.1:8000";
                    self.report.error(
                        self.bundle,
                        about,
                        "spec.staticBackends",
                        "InvalidUrl",
                        message,
                        remedy,
                    );
                }
            }
        }
        Some(
            found
                .into_iter()
                .map(|(model, endpoints)| (model, endpoints.into_iter().map(Arc::new).collect()))
                .collect(),
        )
    }
}
