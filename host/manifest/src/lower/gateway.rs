//! An `InferenceGateway`, lowered.

use std::collections::{BTreeMap, HashMap, HashSet};

use domain::draft::{GatewayDraft, RouteDraft};
use domain::name::{ModelName, ObjectName};

use super::Lowering;
use super::report::About;
use crate::bundle::Held;
use crate::kind::InferenceGateway;
use crate::object::Kind;
use crate::spelling;

impl<'a> Lowering<'a> {
    pub(super) fn gateway(&mut self, name: &ObjectName, held: &'a Held<InferenceGateway>) -> GatewayDraft {
        let about = About::new(Kind::InferenceGateway, name);
        let spec = &held.value.spec;
        let mut settings = self.settings(&about, spec);
        let hostnames = self.hostnames(&about, &spec.hostnames);
        let asks_for_service = spec.service.as_ref().is_some_and(|service| service.enabled);
        if asks_for_service && !self.options.creates_services {
            let message = "a Service is created in a cluster only, and this gateway serves from a directory";
            let remedy = "create one that points to the gateway, or use the path prefix";
            self.report.warning(
                self.bundle,
                &about,
                "spec.service.enabled",
                "NotImplemented",
                message,
                remedy,
            );
        }
        let chain = self.asked_chain(&about, spec);
        let routes = self.routes(&about, spec, &chain);
        // A list under a misspelt name is found already.
        let misspelt = |path: &str| {
            let key = path.strip_prefix("spec.").filter(|key| !key.contains(['.', '[']));
            key.is_some_and(|key| {
                !["routes", "modelRoutes"].contains(&key)
                    && spelling::nearest(key, ["routes", "modelRoutes"]).is_some()
            })
        };
        if routes.is_empty() && !held.source.fields.keys().any(|path| misspelt(path)) {
            let message = "the gateway routes no model";
            self.report.warning(self.bundle, &about, "spec.routes", "NoRoutes", message, "add routes");
        }
        let aliases = self.aliases(&about, &spec.aliases, &routes);
        let routed = routes.iter().map(|route| route.model.as_str());
        let models = routed.chain(aliases.keys().map(|alias| &**alias)).collect();
        settings.paths = self.paths(&about, spec, &models);
        let has_short_host = self.has_short_host(name);
        GatewayDraft { name: name.clone(), hostnames, has_short_host, settings, aliases, routes }
    }

    /// Aliases that lead to a routed model, each led to its end.
    fn aliases(
        &mut self,
        about: &About,
        written: &BTreeMap<String, String>,
        routes: &[RouteDraft],
    ) -> HashMap<Box<str>, ModelName> {
        let routed: HashSet<&str> = routes.iter().map(|route| route.model.as_str()).collect();
        let mut aliases = HashMap::with_capacity(written.len());
        for alias in written.keys() {
            let field = format!("spec.aliases.{alias}");
            let bundle = self.bundle;
            if routed.contains(alias.as_str()) {
                let message = format!("{alias} is a model of its own; the alias is ignored");
                self.report.error(bundle, about, &field, "AliasShadowed", message, "rename the alias");
                continue;
            }
            match end_of(alias, written, &routed) {
                Ok(model) => {
                    aliases.insert(alias.as_str().into(), model);
                }
                Err(AliasEnd::Unknown(model)) => {
                    let message = format!("{alias} leads to {model}, which this gateway does not route");
                    self.report.error(
                        bundle,
                        about,
                        &field,
                        "AliasTargetNotFound",
                        message,
                        "add a route for it",
                    );
                }
                Err(AliasEnd::Cycle) => {
                    let message = format!("{alias} leads back to itself");
                    self.report.error(
                        bundle,
                        about,
                        &field,
                        "AliasCycle",
                        message,
                        "let it lead to a routed model",
                    );
                }
            }
        }
        aliases
    }
}

/// Why an alias leads nowhere.
enum AliasEnd<'a> {
    Unknown(&'a str),
    Cycle,
}

fn end_of<'a>(
    alias: &str,
    aliases: &'a BTreeMap<String, String>,
    routed: &HashSet<&str>,
) -> Result<ModelName, AliasEnd<'a>> {
    let mut at = aliases.get(alias).map(String::as_str).ok_or(AliasEnd::Cycle)?;
    // A walk longer than there are aliases has met one twice.
    for _ in 0..=aliases.len() {
        if let Some(model) = routed.get(at) {
            return Ok(ModelName::from(*model));
        }
        at = aliases.get(at).map(String::as_str).ok_or(AliasEnd::Unknown(at))?;
    }
    Err(AliasEnd::Cycle)
}
