//! The immutable, self-consistent state that each request reads exactly once.

use std::collections::HashMap;
use std::sync::Arc;

use crate::endpoint::Endpoint;
use crate::name::{Generation, ModelName, ObjectName};
use crate::pool::Pool;
use crate::route::{Gateway, Route};

/// Everything in force. Every reference in it resolves; every policy in it is compiled, configured and probed.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts published snapshots.
    pub generation: Generation,
    /// Gateways, oldest first.
    pub gateways: Vec<Arc<Gateway>>,
    /// Every pool, each once.
    pub pools: Vec<Arc<Pool>>,
    /// Every endpoint, each once, sorted by URL.
    pub endpoints: Vec<Endpoint>,
    /// Gateway by `namespace/name`.
    by_name: HashMap<Box<str>, u32>,
    /// Gateway by host name, lower case.
    by_host: HashMap<Box<str>, u32>,
    /// Gateway by model or alias.
    by_model: HashMap<Box<str>, u32>,
}

/// What a request's address and model lead to.
#[derive(Clone, Copy, Debug)]
pub enum Resolution<'a> {
    /// A gateway routes the model.
    Route(&'a Arc<Gateway>, &'a Arc<Route>),
    /// Path or host named a gateway which does not route the model.
    NotRouted(&'a Arc<Gateway>),
    /// The path names a gateway that does not exist.
    NoSuchGateway,
    /// Nobody routes the model.
    Unknown,
}

impl Snapshot {
    /// Puts the parts together and builds the look-up tables.
    pub fn new(
        generation: Generation,
        gateways: Vec<Arc<Gateway>>,
        pools: Vec<Arc<Pool>>,
        endpoints: Vec<Endpoint>,
    ) -> Self {
        let mut snapshot = Self { generation, gateways, pools, endpoints, ..Self::default() };
        for (index, gateway) in snapshot.gateways.iter().enumerate() {
            let index = index as u32;
            let ObjectName { namespace, name } = &gateway.name;
            snapshot.by_name.entry(format!("{namespace}/{name}").into()).or_insert(index);
            let own = [name.to_string(), format!("{name}.{namespace}"), format!("{name}.{namespace}.svc")];
            let own = own.into_iter().map(|host| host.to_ascii_lowercase().into());
            for host in gateway.hostnames.iter().cloned().chain(own) {
                snapshot.by_host.entry(host).or_insert(index);
            }
            let models = gateway.routes.keys().map(ModelName::as_str);
            for model in models.chain(gateway.aliases.keys().map(|alias| &**alias)) {
                snapshot.by_model.entry(model.into()).or_insert(index);
            }
        }
        snapshot
    }

    /// The gateway that a path prefix `/gateways/<namespace>/<name>/` names.
    pub fn gateway_by_name(&self, namespace: &str, name: &str) -> Option<&Arc<Gateway>> {
        self.at(self.by_name.get(format!("{namespace}/{name}").as_str())?)
    }

    /// The gateway that a Host header names, with or without port and cluster domain.
    pub fn gateway_by_host(&self, host: &str) -> Option<&Arc<Gateway>> {
        // A bracketed IPv6 address is no gateway's name.
        let host = host.split(':').next().unwrap_or_default();
        if host.is_empty() || host.as_bytes()[0].is_ascii_digit() {
            return None;
        }
        let lower;
        let host = if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
            lower = host.to_ascii_lowercase();
            lower.as_str()
        } else {
            host
        };
        let found = self.by_host.get(host).or_else(|| {
            let cut = host.find(".svc.")? + ".svc".len();
            self.by_host.get(&host[..cut])
        });
        self.at(found?)
    }

    /// The oldest gateway that routes the model or alias.
    pub fn gateway_by_model(&self, model: &str) -> Option<&Arc<Gateway>> {
        self.at(self.by_model.get(model)?)
    }

    fn at(&self, index: &u32) -> Option<&Arc<Gateway>> {
        self.gateways.get(*index as usize)
    }

    /// Which gateway and route answer a request: by path, else by host, else by model.
    pub fn resolve(&self, path: Option<(&str, &str)>, host: Option<&str>, model: &str) -> Resolution<'_> {
        let named = match path {
            Some((namespace, name)) => match self.gateway_by_name(namespace, name) {
                Some(gateway) => Some(gateway),
                None => return Resolution::NoSuchGateway,
            },
            None => host.and_then(|host| self.gateway_by_host(host)),
        };
        let Some(gateway) = named.or_else(|| self.gateway_by_model(model)) else {
            return Resolution::Unknown;
        };
        match gateway.route(model) {
            Some(route) => Resolution::Route(gateway, route),
            None => Resolution::NotRouted(gateway),
        }
    }
}

#[cfg(test)]
mod tests;
