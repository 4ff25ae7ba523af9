//! What the target of a request says: which gateway, which operation, and what goes on to the engine.

use std::borrow::Cow;
use std::sync::Arc;

use domain::failure::FailureKind;
use domain::route::Gateway;
use domain::snapshot::Snapshot;
use domain::surface::{ENGINE_CONTROLS, FurtherPath, ModelPlace};
use http::header::{CONTENT_TYPE, HOST};
use http::request::Parts;
use http::{Method, Uri};

use crate::dialect::{self, JsonKind, Operation, query};

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
    /// The gateway that lists the path, where not all serve it.
    pub(super) further: Option<Arc<Gateway>>,
}

impl<'a> Address<'a> {
    /// Takes a target apart. `root`: the prefix under which everything is also served.
    pub(super) fn of(parts: &'a Parts, root: &str) -> Result<Self, FailureKind> {
        let (gateway, path) = split(parts, root);
        let content_type = parts.headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
        let operation = dialect::classify(&parts.method, path)?.for_content_type(content_type);
        Ok(Self { gateway, host: host(parts), operation, path, query: parts.uri.query(), further: None })
    }

    /// The same for a path that gateways list: the one that path or host names, else the oldest that lists it.
    ///
    /// Fails with `PathUnknown`, or with `MethodNotAllowed`.
    #[cold]
    pub(super) fn further(parts: &'a Parts, root: &str, snapshot: &Snapshot) -> Result<Self, FailureKind> {
        let (lister, entry) = lister(parts, root, snapshot).ok_or(FailureKind::PathUnknown)?;
        if !entry.methods.contains(&parts.method) {
            return Err(FailureKind::MethodNotAllowed);
        }
        let content_type = parts.headers.get(CONTENT_TYPE).map(|value| value.as_bytes());
        let has_body = !matches!(parts.method, Method::GET | Method::HEAD | Method::DELETE);
        let operation = match entry.model {
            ModelPlace::Body if has_body => Operation::Json(JsonKind::Further).for_content_type(content_type),
            ModelPlace::Body | ModelPlace::Query | ModelPlace::Fixed(_) => Operation::Opaque(has_body),
        };
        let (gateway, path) = split(parts, root);
        let further = Some(Arc::clone(lister));
        Ok(Self { gateway, host: host(parts), operation, path, query: parts.uri.query(), further })
    }

    /// Whether this gateway lists the path in the same way as the one that was found first.
    pub(super) fn is_listed_by(&self, gateway: &Gateway) -> bool {
        let of = |gateway: &'_ Gateway| gateway.settings.further(self.path).cloned();
        self.further.as_ref().is_none_or(|lister| match (of(lister), of(gateway)) {
            (Some(one), Some(other)) => one.model == other.model && one.methods == other.methods,
            _ => false,
        })
    }

    /// The model that every request to this path is for, and the gateway that says so.
    pub(super) fn fixed(&self) -> Option<(&Gateway, &str)> {
        let lister = self.further.as_deref()?;
        match &lister.settings.further(self.path)?.model {
            ModelPlace::Fixed(model) => Some((lister, model.as_str())),
            ModelPlace::Body | ModelPlace::Query => None,
        }
    }

    /// The gateway that the path names, or else the host. `None`: neither names one.
    ///
    /// Fails with `PathUnknown` where the path names a gateway that does not exist.
    pub(super) fn named<'s>(&self, snapshot: &'s Snapshot) -> Result<Option<&'s Arc<Gateway>>, FailureKind> {
        find(self.gateway, self.host, snapshot)
    }

    /// The id of the model that is asked about, of `/v1/models/<id>`; as it stands where its percent codes are broken.
    pub(super) fn model_id(&self) -> Cow<'a, str> {
        let id = self.path.strip_prefix(dialect::MODELS).unwrap_or_default();
        query::percent_decoded(id).unwrap_or(Cow::Borrowed(id))
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

/// The gateway that the path of a request names, or else its host: [`Address::named`] for any path and method.
pub(crate) fn named<'s>(
    parts: &Parts,
    root: &str,
    snapshot: &'s Snapshot,
) -> Result<Option<&'s Arc<Gateway>>, FailureKind> {
    find(split(parts, root).0, host(parts), snapshot)
}

fn find<'s>(
    gateway: Option<(&str, &str)>,
    host: Option<&str>,
    snapshot: &'s Snapshot,
) -> Result<Option<&'s Arc<Gateway>>, FailureKind> {
    match gateway {
        Some((namespace, name)) => match snapshot.gateway_by_name(namespace, name) {
            Some(gateway) => Ok(Some(gateway)),
            None => Err(FailureKind::PathUnknown),
        },
        None => Ok(host.and_then(|host| snapshot.gateway_by_host(host))),
    }
}

/// HTTP/2 has the host in the target; a host in the target of HTTP/1.1 goes before the header, too.
fn host(parts: &Parts) -> Option<&str> {
    match parts.uri.authority() {
        Some(authority) => Some(authority.host()),
        None => parts.headers.get(HOST).and_then(|host| host.to_str().ok()),
    }
}

/// The methods that the path of a request knows, as an `Allow` header has them.
pub(super) fn allowed(parts: &Parts, root: &str, snapshot: &Snapshot) -> Option<Box<str>> {
    match dialect::allowed(split(parts, root).1) {
        Some(allow) => Some(allow.into()),
        None => lister(parts, root, snapshot).map(|(_, entry)| entry.allow.clone()),
    }
}

/// The gateway that lists the path of a request, and how it does. `None`: none does, or the path may not be listed.
fn lister<'s>(
    parts: &Parts,
    root: &str,
    snapshot: &'s Snapshot,
) -> Option<(&'s Arc<Gateway>, &'s FurtherPath)> {
    let path = split(parts, root).1;
    if !may_be_listed(path) {
        return None;
    }
    let of = |gateway: &'s Arc<Gateway>| Some((gateway, gateway.settings.further(path)?));
    match named(parts, root, snapshot).ok()? {
        Some(gateway) => of(gateway),
        None => snapshot.gateways.iter().find_map(of),
    }
}

/// Whether manifests decide about a path. They do not about what the gateway answers itself, nor about what changes engines,
/// however it is written: an engine decodes percent codes, and some resolve dot segments.
fn may_be_listed(path: &str) -> bool {
    let Some(decoded) = query::percent_decoded(path) else { return false };
    let is_plain = |segment: &str| {
        !(segment.is_empty() || matches!(segment, "." | ".."))
            && segment.chars().all(|char| !char.is_control() && char != '\\')
    };
    let is_whole = decoded.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_plain));
    is_whole && !dialect::is_known(&decoded) && !ENGINE_CONTROLS.contains(&&*decoded)
}

/// The gateway that the path names, and the path below it.
fn split<'a>(parts: &'a Parts, root: &str) -> (Option<(&'a str, &'a str)>, &'a str) {
    let path = dialect::below_root(parts.uri.path(), root);
    match dialect::gateway_prefix(path) {
        Some((namespace, name, rest)) => (Some((namespace, name)), rest),
        None => (None, path),
    }
}

/// The target with one slash where several stand together, and without one at the end of its path: so it is routed, and so
/// the engine sees it. `None`: it is like that.
pub(super) fn tidied(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    let is_tidy =
        !path.as_bytes().windows(2).any(|pair| pair == b"//") && (path.len() < 2 || !path.ends_with('/'));
    if is_tidy { None } else { tidy(uri) }
}

#[cold]
fn tidy(uri: &Uri) -> Option<Uri> {
    let mut target = String::with_capacity(uri.path().len());
    for segment in uri.path().split('/').filter(|segment| !segment.is_empty()) {
        target.push('/');
        target.push_str(segment);
    }
    if target.is_empty() {
        target.push('/');
    }
    if let Some(query) = uri.query() {
        target.push('?');
        target.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.parse().ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// B8: clients join a base URL and a path carelessly.
    #[test]
    fn slashes_are_tidied_and_nothing_else() {
        let table = [
            ("//v1/chat/completions", Some("/v1/chat/completions")),
            ("/v1//chat///completions/", Some("/v1/chat/completions")),
            ("/v1/models/?a=//b/", Some("/v1/models?a=//b/")),
            ("//", Some("/")),
            ("/", None),
            ("/v1/models?a=//b/", None),
            ("/v1/models/org%2F%2Fname", None),
            ("http://host//v1/models/", Some("http://host/v1/models")),
        ];
        for (target, expected) in table {
            let tidied = tidied(&target.parse().unwrap()).map(|uri| uri.to_string());
            assert_eq!(tidied.as_deref(), expected, "{target}");
        }
    }

    /// B8: neither an own page nor a control of engines can be listed, however it is written.
    #[test]
    fn paths_that_are_not_the_manifests_to_list_are_refused() {
        for path in ["/v1/custom", "/plugins/a%20b", "/v1/models:x", "/a..b/.c"] {
            assert!(may_be_listed(path), "{path}");
        }
        for path in [
            "/v1/models",
            "/v1/models/m",
            "/metrics",
            "/%6detrics",
            "/v1/models%2fm",
            "/sleep",
            "/%73leep",
            "/v1/load_lora_adapter",
            "/v1/load%5flora_adapter",
            "/x/../sleep",
            "/x/%2e%2e/sleep",
            "/x/%2e%2e%2fsleep",
            "/x/./y",
            "/x\\..\\sleep",
            "/x%5c..%5csleep",
            "/x%00",
            "/x%",
            "/x%ff",
            "x",
            "",
            "/",
            "/x%2f",
        ] {
            assert!(!may_be_listed(path), "{path}");
        }
    }
}
