//! Host names that select gateways: which of them a gateway may have, and what each side is told where two want one.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use domain::draft::GatewayDraft;
use domain::name::ObjectName;
use domain::snapshot::{HostClaims, host_claims};

use super::Lowering;
use super::report::About;
use crate::kind::text::is_dns_name;
use crate::object::Kind;

impl Lowering<'_> {
    /// The host names of a gateway that it may have, in one form. Others are left out, and found.
    pub(super) fn hostnames(&mut self, about: &About, written: &[String]) -> Vec<Box<str>> {
        let mut hosts: Vec<Box<str>> = Vec::with_capacity(written.len());
        for (index, written) in written.iter().enumerate() {
            let host = normal(written);
            let field = format!("spec.hostnames[{index}]");
            if !is_dns_name(&host) || host.parse::<Ipv4Addr>().is_ok() {
                let message = format!("{written:?} is not a host name; it is ignored");
                let remedy = "write one without scheme, port, path and wildcard, such as llm.example.com";
                self.report.error(self.bundle, about, &field, "Invalid", message, remedy);
            } else if let Some(whose) = self.foreign_namespace(&host, &about.name().namespace) {
                let message =
                    format!("{written:?} is a name inside the cluster, in namespace {whose}; it is ignored");
                let remedy = format!(
                    "use a name of namespace {}, or one outside the cluster such as llm.example.com",
                    about.name().namespace
                );
                self.report.error(self.bundle, about, &field, "HostNotPermitted", message, remedy);
            } else if !hosts.iter().any(|known| **known == *host) {
                hosts.push(host.into());
            }
        }
        hosts
    }

    /// Whether a gateway is selected by its name alone: not by that of the Service through which clients of all gateways come.
    pub(super) fn has_short_host(&self, gateway: &ObjectName) -> bool {
        self.options.own_service.as_ref().is_none_or(|service| {
            service.namespace == gateway.namespace || !service.name.eq_ignore_ascii_case(&gateway.name)
        })
    }

    /// The namespace, other than `own`, that a host name inside the cluster is of. `None`: it is of `own`, or outside.
    ///
    /// `<name>.<namespace>.svc` is such a name whatever follows: the cluster's domain is not known here. `<name>.<namespace>`
    /// is one if something has that name; else it may be any domain.
    fn foreign_namespace<'h>(&'h self, host: &'h str, own: &str) -> Option<&'h str> {
        let labels: Vec<&str> = host.split('.').collect();
        let before_svc = (2..labels.len()).filter(|at| labels[*at] == "svc").map(|at| labels[at - 1]);
        if let Some(foreign) = before_svc.into_iter().find(|namespace| *namespace != own) {
            return Some(foreign);
        }
        let service = self.options.own_service.as_ref();
        let Some((name, namespace)) = host.rsplit_once('.') else {
            let is_shared = |service: &&ObjectName| service.name.eq_ignore_ascii_case(host);
            return service.filter(is_shared).map(|service| &*service.namespace).filter(|it| *it != own);
        };
        let object = ObjectName::new(namespace, name);
        let is_there = self.bundle.core_services.contains_key(&object)
            || self.bundle.gateways.contains_key(&object)
            || self.bundle.static_routes.contains_key(&object)
            || service == Some(&object);
        (is_there && namespace != own).then_some(namespace)
    }

    /// Tells both sides where two gateways want one host name. Which one has it is decided by [`host_claims`].
    pub(super) fn shared_hosts(&mut self, gateways: &[(Kind, GatewayDraft)]) {
        let claims = gateways.iter().map(|(_, gateway)| HostClaims {
            name: &gateway.name,
            has_short_host: gateway.has_short_host,
            hostnames: &gateway.hostnames,
        });
        let mut owners: HashMap<Box<str>, usize> = HashMap::new();
        for (host, index) in host_claims(claims) {
            let owner = *owners.entry(host.clone()).or_insert(index);
            if owner != index {
                self.shared_host(&gateways[owner], &gateways[index], &host);
            }
        }
    }

    fn shared_host(&mut self, winner: &(Kind, GatewayDraft), loser: &(Kind, GatewayDraft), host: &str) {
        let bundle = self.bundle;
        let what = |(kind, gateway): &(Kind, GatewayDraft)| format!("{} {}", kind.as_str(), gateway.name);
        let about = About::new(loser.0, &loser.1.name);
        let is_own = !winner.1.hostnames.iter().any(|known| **known == *host);
        let why = if is_own { "is the name of" } else { "already selects" };
        let message = format!("host {host} {why} {}: requests for it go there", what(winner));
        let spec = bundle.gateways.get(&loser.1.name).map(|held| &held.value.spec);
        let asked = spec.and_then(|spec| spec.hostnames.iter().position(|written| normal(written) == host));
        match asked {
            Some(at) => {
                let field = format!("spec.hostnames[{at}]");
                self.report.error(bundle, &about, &field, "HostConflict", message, "use another host");
            }
            None => {
                let remedy =
                    format!("name this one by the host {}.{}", loser.1.name.name, loser.1.name.namespace);
                self.report.warning(bundle, &about, "metadata.name", "HostConflict", message, remedy);
            }
        }
        let about = About::new(winner.0, &winner.1.name);
        let message = format!("{} also wants the host {host}: requests for it come here", what(loser));
        self.report.info(bundle, &about, "", "HostConflict", message, "nothing, if that is meant");
    }
}

/// A host name as it is compared: lower case, without a final dot.
fn normal(written: &str) -> String {
    written.strip_suffix('.').unwrap_or(written).to_ascii_lowercase()
}
