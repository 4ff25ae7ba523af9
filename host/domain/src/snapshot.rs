//! The immutable, self-consistent state that each request reads exactly once.

use std::collections::HashMap;
use std::net::Ipv4Addr;
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

/// What one gateway wants to be called by.
#[derive(Clone, Copy, Debug)]
pub struct HostClaims<'a> {
    /// Namespace and name.
    pub name: &'a ObjectName,
    /// Whether its name alone, without the namespace, selects it.
    pub has_short_host: bool,
    /// Other host names, lower case, without port and final dot.
    pub hostnames: &'a [Box<str>],
}

/// Host names with the index of the gateway that claims each, in the order in which claims win; `gateways` come oldest first.
///
/// Own names come before all other host names, and the longest form before the shorter ones, so that no gateway of another
/// namespace can take them, whatever its age: `<name>.<namespace>.svc` belongs to one gateway alone.
pub fn host_claims<'a>(gateways: impl Iterator<Item = HostClaims<'a>>) -> Vec<(Box<str>, usize)> {
    let gateways: Vec<HostClaims<'a>> = gateways.collect();
    let mut claims = Vec::with_capacity(3 * gateways.len());
    let names = || gateways.iter().map(|gateway| gateway.name).enumerate();
    claims.extend(names().map(|(at, name)| (lower_host(&[&name.name, &name.namespace, "svc"]), at)));
    claims.extend(names().map(|(at, name)| (lower_host(&[&name.name, &name.namespace]), at)));
    let short = names().filter(|(at, _)| gateways[*at].has_short_host);
    claims.extend(short.map(|(at, name)| (lower_host(&[&name.name]), at)));
    for (at, gateway) in gateways.iter().enumerate() {
        claims.extend(gateway.hostnames.iter().map(|host| (host.clone(), at)));
    }
    claims
}

fn lower_host(labels: &[&str]) -> Box<str> {
    labels.join(".").to_ascii_lowercase().into()
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
        for (host, index) in host_claims(snapshot.gateways.iter().map(|gateway| HostClaims {
            name: &gateway.name,
            has_short_host: gateway.has_short_host,
            hostnames: &gateway.hostnames,
        })) {
            snapshot.by_host.entry(host).or_insert(index as u32);
        }
        for (index, gateway) in snapshot.gateways.iter().enumerate() {
            let index = index as u32;
            let ObjectName { namespace, name } = &gateway.name;
            snapshot.by_name.entry(format!("{namespace}/{name}").into()).or_insert(index);
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

    /// The gateway that a Host header names, with or without port, cluster domain and final dot.
    pub fn gateway_by_host(&self, host: &str) -> Option<&Arc<Gateway>> {
        // A bracketed IPv6 address names no gateway.
        let host = host.split(':').next().unwrap_or_default();
        let host = host.strip_suffix('.').unwrap_or(host);
        // Most clients that name an address name an IPv4 one: not looked up.
        let is_address = |host: &str| host.as_bytes()[0].is_ascii_digit() && host.parse::<Ipv4Addr>().is_ok();
        if host.is_empty() || is_address(host) {
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
