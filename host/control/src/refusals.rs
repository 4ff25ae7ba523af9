//! Rights that the API server refuses us: which ones, until when, and what is not done meanwhile.
//!
//! All requests of the controllers and of the election go through one client ([`Refusals::guard`]), so that no writer needs
//! to report a refusal itself. A right counts as refused from an answer 403 on, and as granted again when the same request
//! is answered otherwise. Watches of configuration are not among them: their source reports its own.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use domain::finding::{Finding, Origin, Severity};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use kube::Client;
use kube::client::Body;
use serde::Deserialize;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::publish::Remarks;
use crate::start::stopped;

/// Name of this part in [`Remarks`].
const SOURCE: &str = "rights";
/// Different rights that are remembered as refused; further ones are only logged by the writer.
const REFUSED_MAX: usize = 256;
/// Largest refusal that is read for its message, bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// A message is cut at so many bytes.
const MESSAGE_BYTES_MAX: usize = 512;
/// Writers try again within a minute. An object that was refused and has not been tried for this long is gone; the right
/// then counts as granted when it is granted for any other object.
const STALE: Duration = Duration::from_secs(150);

/// What a request needs to be allowed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    verb: &'static str,
    /// API group; empty for the core group.
    group: String,
    /// Plural, with the subresource behind a slash.
    resource: String,
    /// Empty for all namespaces.
    namespace: String,
}

/// The last refusal of a right.
#[derive(Clone, Debug)]
struct Refusal {
    /// Object that was refused; empty where the request names none.
    name: String,
    /// The API server's words.
    message: String,
    at: Instant,
}

#[derive(Clone, Debug, Default)]
struct State {
    refused: BTreeMap<Right, Refusal>,
    /// Why the Lease cannot be read or written, if not for a missing right.
    lease: Option<String>,
}

/// What is refused now. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<watch::Sender<State>>);

impl Refusals {
    /// A client that notes what the API server refuses it.
    pub(crate) fn guard(&self, client: Client) -> Client {
        let refusals = self.clone();
        let namespace = client.default_namespace().to_owned();
        let send = move |request: Request<Body>| {
            let (refusals, client) = (refusals.clone(), client.clone());
            async move {
                let asked = Right::of(&request);
                let response = client.send(request).await?;
                let Some((right, name)) = asked else { return Ok(response) };
                if response.status() != StatusCode::FORBIDDEN {
                    refusals.granted(&right, &name);
                    return Ok(response);
                }
                let (response, message) = read(response).await?;
                refusals.refused(right, name, message);
                Ok::<_, kube::Error>(response)
            }
        };
        Client::new(tower::service_fn(send), namespace)
    }

    /// The Lease cannot be read or written for this reason; `None`: it can, or a right is missing, which is noted already.
    pub(crate) fn lease(&self, trouble: Option<String>) {
        self.0.send_if_modified(|state| {
            let is_new = state.lease != trouble;
            state.lease = trouble;
            is_new
        });
    }

    fn refused(&self, right: Right, name: String, message: String) {
        self.0.send_if_modified(|state| {
            let at = Instant::now();
            if let Some(known) = state.refused.get_mut(&right) {
                // The message names the object; the first one stays, so that a thousand objects are one finding.
                (known.name, known.at) = (name, at);
                return false;
            }
            if state.refused.len() >= REFUSED_MAX {
                return false;
            }
            state.refused.insert(right, Refusal { name, message, at });
            true
        });
    }

    fn granted(&self, right: &Right, name: &str) {
        self.0.send_if_modified(|state| {
            let is_over = |known: &Refusal| known.name == name || known.at.elapsed() >= STALE;
            if !state.refused.get(right).is_some_and(is_over) {
                return false;
            }
            state.refused.remove(right);
            true
        });
    }

    /// Reports what is refused, until `stop` turns true (or its sender is gone).
    pub(crate) async fn run(self, remarks: mpsc::Sender<Remarks>, mut stop: watch::Receiver<bool>) {
        let mut states = self.0.subscribe();
        loop {
            tokio::select! {
                () = stopped(&mut stop) => return,
                changed = states.changed() => if changed.is_err() {
                    return;
                },
            }
            let findings = states.borrow_and_update().findings();
            if remarks.send(Remarks { source: SOURCE, findings }).await.is_err() {
                return;
            }
        }
    }
}

impl State {
    fn findings(&self) -> Vec<Finding> {
        let lease = self.lease.iter().map(|why| {
            let message = format!("the Lease cannot be read or written: {why}; meanwhile no replica leads and no status is written");
            let remedy = "check the API server, and the namespace that --namespace names";
            finding(Severity::Error, "LeaseFailed", message, remedy.to_owned())
        });
        let refused = self.refused.iter().map(|(right, refusal)| {
            let (severity, meanwhile) = right.meanwhile();
            let message = format!("not allowed to {right}: {}; meanwhile {meanwhile}", refusal.message);
            let remedy =
                format!("allow the gateway's account to {right}: docs/operations.md lists all rights");
            finding(severity, "Forbidden", message, remedy)
        });
        lease.chain(refused).collect()
    }
}

impl Right {
    /// The right that a request needs, and the object that it names (empty: none). `None`: it is for no resource.
    fn of(request: &Request<Body>) -> Option<(Self, String)> {
        let mut parts = request.uri().path().split('/').filter(|part| !part.is_empty());
        let group = match parts.next()? {
            "api" => "",
            "apis" => parts.next()?,
            _ => return None,
        };
        let _version = parts.next()?;
        let parts: Vec<&str> = parts.collect();
        let (namespace, rest) = match parts.as_slice() {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let (resource, name) = match rest {
            [resource] => ((*resource).to_owned(), ""),
            [resource, name] => ((*resource).to_owned(), *name),
            [resource, name, subresource, ..] => (format!("{resource}/{subresource}"), *name),
            [] => return None,
        };
        let is_watch = request.uri().query().unwrap_or_default().split('&').any(|part| part == "watch=true");
        let verb = match *request.method() {
            Method::GET if is_watch => "watch",
            Method::GET if name.is_empty() => "list",
            Method::GET => "get",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => return None,
        };
        Some((Self { verb, group: group.into(), resource, namespace: namespace.into() }, name.to_owned()))
    }

    /// What is not done without it.
    fn meanwhile(&self) -> (Severity, &'static str) {
        match (&*self.group, &*self.resource) {
            ("coordination.k8s.io", "leases") => {
                (Severity::Error, "no replica leads, so no status, Event, ConfigMap or Service is written")
            }
            (_, resource) if resource.ends_with("/status") => {
                (Severity::Warning, "the status of these objects stays as it is")
            }
            ("events.k8s.io", "events") => (Severity::Warning, "transitions are told by no Event"),
            ("", "configmaps") => (Severity::Warning, "the ConfigMaps of StaticRoutes stay as they are"),
            ("", "services") => (Severity::Warning, "the Services of gateways stay as they are"),
            ("", "pods") => (Severity::Warning, "pods are not labelled as sleeping or awake"),
            _ => (Severity::Warning, "what needs it is not done"),
        }
    }
}

impl fmt::Display for Right {
    /// Such as `patch pods in namespace ns`, with the group behind the resource.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verb, group, resource, namespace } = self;
        write!(f, "{verb} {resource}")?;
        if !group.is_empty() {
            write!(f, " ({group})")?;
        }
        if namespace.is_empty() { Ok(()) } else { write!(f, " in namespace {namespace}") }
    }
}

/// Reads a refusal for its message, and puts it together again.
async fn read(response: Response<Body>) -> kube::Result<(Response<Body>, String)> {
    #[derive(Deserialize)]
    struct Status {
        message: String,
    }
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(kube::Error::Service)?.to_bytes();
    let status = serde_json::from_slice::<Status>(&body).ok();
    let mut message = status.map_or_else(|| "the API server answers 403".to_owned(), |status| status.message);
    if message.len() > MESSAGE_BYTES_MAX {
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
        message.push('…');
    }
    Ok((Response::from_parts(head, Body::from(body.to_vec())), message))
}

fn finding(severity: Severity, reason: &'static str, message: String, remedy: String) -> Finding {
    let origin = Origin::default();
    Finding { severity, object: "".into(), origin, field: String::new(), reason, message, remedy }
}

#[cfg(test)]
mod tests;
