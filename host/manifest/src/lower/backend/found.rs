//! Ports of a Service, and endpoints as they are found.

use std::collections::HashSet;
use std::sync::Arc;

use domain::endpoint::EndpointSpec;

use crate::bundle::facts::SliceFacts;

/// What a port says that it speaks.
pub(super) fn protocol(of_ports: &[(u16, Box<str>)], port: u16) -> Option<&str> {
    of_ports.iter().find(|(number, _)| *number == port).map(|(_, protocol)| &**protocol)
}

/// A port of a service.
pub(super) struct Port<'a> {
    /// Its name in the service, perhaps empty; `None`: the service lists no ports.
    pub(super) name: Option<&'a str>,
    pub(super) number: u16,
}

impl Port<'_> {
    /// The number that the engines of a slice listen on: the slice's port of the same name, else its only one where either has
    /// no name. A slice whose ports are all called otherwise is of pods that do not have this port.
    pub(super) fn on(&self, slice: &SliceFacts) -> Option<u16> {
        let named = slice.ports.iter().find(|(name, _)| self.name == Some(&**name));
        match (named, slice.ports.as_slice()) {
            (Some((_, number)), _) => Some(*number),
            (None, [(name, number)]) if name.is_empty() || self.name.is_none_or(str::is_empty) => {
                Some(*number)
            }
            (None, []) => Some(self.number),
            (None, several) => {
                several.iter().map(|(_, number)| *number).find(|number| *number == self.number)
            }
        }
    }
}

/// Endpoints found so far; each URL, and each pod and port, once.
pub(super) struct Found {
    pub(super) endpoints: Vec<Arc<EndpointSpec>>,
    urls: HashSet<Arc<str>>,
    pods: Option<HashSet<(Arc<str>, u16)>>,
}

impl Found {
    /// Room for about `count` endpoints. Pods are told apart only where one may come under two addresses.
    pub(super) fn new(count: usize, is_dual: bool) -> Self {
        let pods = is_dual.then(|| HashSet::with_capacity(count));
        Self { endpoints: Vec::with_capacity(count), urls: HashSet::with_capacity(count), pods }
    }

    /// Returns whether it was new.
    pub(super) fn add(&mut self, spec: EndpointSpec) -> bool {
        let is_new = self.urls.insert(Arc::clone(&spec.id.url))
            && match &mut self.pods {
                Some(pods) if !spec.id.pod_uid.is_empty() => {
                    pods.insert((Arc::clone(&spec.id.pod_uid), spec.target.port))
                }
                _ => true,
            };
        if is_new {
            self.endpoints.push(Arc::new(spec));
        }
        is_new
    }
}
