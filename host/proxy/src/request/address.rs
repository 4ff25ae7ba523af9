//! What the target of a request says: which gateway, which operation, and what goes on to the engine.

use std::borrow::Cow;
use std::sync::Arc;

use domain::failure::FailureKind;
use domain::route::Gateway;
use domain::snapshot::Snapshot;
use http::header::{CONTENT_TYPE, HOST};
use http::request::Parts;

use crate::dialect::{self, Operation, query};

/// A request's target, taken apart.
#[derive(Debug)]
pub(super) struct Address<'a> {
    /// Namespace and name, where the path names a gateway.
    pub(super) gateway: Option<(&'a str, &'a str)>,
    /// Host without whatever is not text.
    pub(super) host: Option<&'a str>,
    /// What is asked for.
    pub(super) operation: Operation,
    /// Path without the prefixes that are ours.
    path: &'a str,
    /// Query.
    pub(super) query: Option<&'a str>,
}

impl<'a> Address<'a> {
    /// Takes a target apart. `root`: the prefix under which everything is also served.
    pub(super) fn of(parts: &'a Parts, root: &str) -> Result<Self, FailureKind> {
        let (gateway, path) = split(parts, root);
        let content_type = parts.headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
        let operation = dialect::classify(&parts.method, path)?.for_content_type(content_type);
        // HTTP/2 has the host in the target; a host in the target of HTTP/1.1 goes before the header, too.
        let host = match parts.uri.authority() {
            Some(authority) => Some(authority.host()),
            None => parts.headers.get(HOST).and_then(|host| host.to_str().ok()),
        };
        Ok(Self { gateway, host, operation, path, query: parts.uri.query() })
    }

    /// The gateway that the path names, or else the host. `None`: neither names one.
    ///
    /// Fails with `PathUnknown` where the path names a gateway that does not exist.
    pub(super) fn named<'s>(&self, snapshot: &'s Snapshot) -> Result<Option<&'s Arc<Gateway>>, FailureKind> {
        match self.gateway {
            Some((namespace, name)) => match snapshot.gateway_by_name(namespace, name) {
                Some(gateway) => Ok(Some(gateway)),
                None => Err(FailureKind::PathUnknown),
            },
            None => Ok(self.host.and_then(|host| snapshot.gateway_by_host(host))),
        }
    }

    /// The engine that the client wants.
    pub(super) fn engine_id(&self) -> Option<Cow<'a, str>> {
        query::get(self.query, "id").filter(|id| !id.is_empty())
    }

    /// Path and query for the engine.
    pub(super) fn forwarded(&self) -> Cow<'a, str> {
        match self.query {
            Some(query) => Cow::Owned(format!("{}?{query}", self.path)),
            None => Cow::Borrowed(self.path),
        }
    }

    /// Path and query for the engine, without the parameter that names the engine.
    pub(super) fn forwarded_without_id(&self) -> Cow<'a, str> {
        match query::without(self.query, "id") {
            Some(query) => Cow::Owned(format!("{}?{query}", self.path)),
            None => Cow::Borrowed(self.path),
        }
    }
}

/// The methods that the path of a request knows.
pub(super) fn allowed(parts: &Parts, root: &str) -> Option<&'static str> {
    dialect::allowed(split(parts, root).1)
}

/// The gateway that the path names, and the path below it.
fn split<'a>(parts: &'a Parts, root: &str) -> (Option<(&'a str, &'a str)>, &'a str) {
    let path = dialect::below_root(parts.uri.path(), root);
    match dialect::gateway_prefix(path) {
        Some((namespace, name, rest)) => (Some((namespace, name)), rest),
        None => (None, path),
    }
}
