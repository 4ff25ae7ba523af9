//! Reads manifests: YAML of any number of documents into typed objects, as an API server would take them.
//!
//! A document that cannot be read costs itself only. What a schema does not name is dropped and found; defaults are
//! filled in; what a schema forbids makes the object refused. Rules across fields are [`crate::lower`]'s.

mod check;
mod document;
mod schema;
mod spelling;
mod template;
mod tree;

use std::sync::Arc;

use domain::finding::{Finding, Origin, Severity};
use domain::name::ObjectName;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::kind::text::{is_dns_label, is_dns_name};
use crate::object::{Body, DEFAULT_NAMESPACE, Kind, Object, ObjectKey, Source};
use check::Checked;
use tree::{Content, Node};

/// Most bytes of one file that are read.
pub const FILE_BYTES_MAX: usize = 16 << 20;
/// Most findings about one file; further ones are dropped.
pub const FINDINGS_MAX: usize = 1_000;

/// What a file holds.
#[derive(Debug, Default)]
pub struct Decoded {
    /// Objects that were understood, in order.
    pub objects: Vec<Object>,
    /// What is wrong with the file.
    pub findings: Vec<Finding>,
    /// Objects that the file names and that are refused as they stand: an earlier version of each should stay in force.
    pub refused: Vec<ObjectKey>,
    /// Some document could not even be named, or is of a kind or version of our group that is not known: nothing that
    /// came from this file earlier should be taken as removed.
    pub broken: bool,
    /// Documents that hold something, readable or not. 0: the file is empty but for comments.
    pub documents: usize,
}

/// Reads one file. `file` is what findings call it.
pub fn decode(file: &Arc<str>, bytes: &[u8]) -> Decoded {
    let mut reading = Reading { file, out: Decoded::default(), template: None };
    match text_of(bytes) {
        Ok(text) => {
            let documents = document::split(text);
            for document in &documents {
                reading.document(document);
            }
            if let Some((line, column)) = reading.template {
                reading.out = Decoded { broken: true, documents: documents.len(), ..Decoded::default() };
                reading.unrendered(line, column);
            }
        }
        Err((message, remedy)) => {
            let origin = Origin { file: Arc::clone(file), ..Origin::default() };
            reading.out.broken = true;
            reading.out.documents = 1;
            reading.find(Severity::Error, "", origin, "", "Unreadable", message.into(), remedy.into());
        }
    }
    reading.out
}

/// Reads one object as an API server holds it: what `kind` an object has, and where, is known already.
///
/// Its status is taken as it is, and left out where it means nothing to us.
pub fn decode_object(kind: Kind, mut value: Value) -> Decoded {
    let status = value.as_object_mut().and_then(|object| object.remove("status"));
    let mut reading = Reading { file: &"".into(), out: Decoded::default(), template: None };
    reading.typed(&Node::from(&value), kind, Origin::default(), status);
    reading.out
}

fn text_of(bytes: &[u8]) -> Result<&str, (&'static str, &'static str)> {
    if bytes.len() > FILE_BYTES_MAX {
        return Err(("the file is larger than 16 MiB", "split it into smaller files"));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::str::from_utf8(bytes).map_err(|_| ("the file is not UTF-8", "save it as UTF-8"))
}

struct Reading<'a> {
    file: &'a Arc<str>,
    out: Decoded,
    /// Line and column where the file is a template that was not rendered.
    template: Option<(u32, u32)>,
}

impl Reading<'_> {
    fn document(&mut self, document: &document::Document<'_>) {
        match tree::parse(document.text, document.line) {
            Ok(node) if matches!(node.content, Content::Null) => {}
            Ok(node) => {
                self.out.documents += 1;
                self.object(&node, document.line, None);
            }
            Err(error) => {
                self.out.documents += 1;
                self.out.broken = true;
                if self.template.is_none() {
                    self.template = template::in_text(document.text, document.line);
                }
                let origin = self.origin(error.line, error.column);
                let remedy = "correct the YAML; the other documents of this file are read all the same";
                self.find(Severity::Error, "", origin, "", "Unreadable", error.message, remedy.into());
            }
        }
    }

    /// Reads an object, or a list of them. `listed`: version and kind that the list it stands in gives to entries that have
    /// none of their own.
    fn object(&mut self, node: &Node, line: u32, listed: Option<(&str, &str)>) {
        let origin = self.origin(if line > 0 { line } else { node.line }, 1);
        let (api_version, kind) = match (text_at(node, "apiVersion"), text_at(node, "kind")) {
            (None, None) => listed.unzip(),
            own => own,
        };
        let (Some(api_version), Some(kind)) = (api_version, kind) else {
            if let Some((what, remedy)) = of_another_tool(self.file) {
                let message = format!("{what}, which means nothing here and is ignored");
                let remedy = remedy.to_owned();
                return self.find(Severity::Warning, "", origin, "kind", "UnknownKind", message, remedy);
            }
            self.out.broken = true;
            let message = "the document has no apiVersion and kind".into();
            return self.find(
                Severity::Error,
                "",
                origin,
                "",
                "NotAnObject",
                message,
                "add both, or remove it".into(),
            );
        };
        if let Some(of) = kind.strip_suffix("List") {
            // Go writes an empty list as null.
            let listed = (!of.is_empty()).then_some((api_version, of));
            match node.get("items").map(|items| &items.content) {
                Some(Content::List(items)) => {
                    return items.iter().for_each(|item| self.object(item, item.line, listed));
                }
                None | Some(Content::Null) => return,
                Some(_) => {}
            }
        }
        let Some(known) = Kind::ALL.into_iter().find(|known| known.as_str() == kind) else {
            return self.unknown_kind(origin, api_version, kind);
        };
        if known.api_version() != api_version {
            return self.unknown_version(origin, api_version, known);
        }
        self.typed(node, known, origin, None);
    }

    fn unknown_kind(&mut self, origin: Origin, api_version: &str, kind: &str) {
        let near = spelling::nearest(kind);
        // Without a group (`v1`) both may be wrong: the cluster itself has no kind that is spelt like one of ours.
        if !spelling::is_ours(api_version, kind) && (near.is_none() || api_version.contains('/')) {
            let message = format!("kind {kind} ({api_version}) means nothing here and is ignored");
            let remedy = "remove the document from this directory if that is not meant".into();
            return self.find(Severity::Warning, "", origin, "kind", "UnknownKind", message, remedy);
        }
        self.out.broken = true;
        let message =
            format!("there is no kind {kind} ({api_version}); what the file held before stays in force");
        let remedy = match near {
            Some(near) => format!("write apiVersion: {} and kind: {}", near.api_version(), near.as_str()),
            None => "correct the kind, or remove the document".into(),
        };
        self.find(Severity::Error, "", origin, "kind", "UnknownKind", message, remedy);
    }

    fn unknown_version(&mut self, origin: Origin, api_version: &str, known: Kind) {
        let kind = known.as_str();
        // A kind of ours without a group can only be a mistake; with another group it is somebody else's, who uses the
        // same name.
        let is_meant =
            spelling::is_ours(api_version, kind) || (known.is_ours() && !api_version.contains('/'));
        self.out.broken |= is_meant;
        let severity = if is_meant || known.is_ours() { Severity::Error } else { Severity::Warning };
        let stays = if is_meant { "; what the file held before stays in force" } else { "" };
        let message = format!("{kind} of {api_version} is not read{stays}");
        let remedy = format!("write apiVersion: {}", known.api_version());
        self.find(severity, "", origin, "apiVersion", "UnknownVersion", message, remedy);
    }

    /// One finding for the whole file: what else is wrong with it comes of that.
    fn unrendered(&mut self, line: u32, column: u32) {
        let message =
            "this is a Helm template that was not rendered; what the file held before stays in force".into();
        let remedy = "run `helm template … | wicketgate check -`, and put its output here".into();
        let origin = self.origin(line, column);
        self.find(Severity::Error, "", origin, "", "UnrenderedTemplate", message, remedy);
    }

    fn typed(&mut self, node: &Node, kind: Kind, origin: Origin, status: Option<Value>) {
        if !self.file.is_empty() && self.template.is_none() {
            self.template = template::in_object(node, kind);
        }
        let Some(name) = name_at(node) else {
            self.out.broken = true;
            let message = "the object has no usable metadata.name".into();
            let remedy = "add one (generateName is not followed)".into();
            return self.find(
                Severity::Error,
                kind.as_str(),
                origin,
                "metadata.name",
                "NoName",
                message,
                remedy,
            );
        };
        let key = ObjectKey { kind, name };
        let object = key.to_string();
        if let Some((field, text, remedy)) = bad_name(&key) {
            self.out.broken = true;
            let place = node.get("metadata").and_then(|metadata| metadata.get(field));
            let origin = place.map_or(origin, |place| self.origin(place.line, place.column));
            let message = format!("{text:?} is not a {field} that the API server takes");
            let field = format!("metadata.{field}");
            return self.find(Severity::Error, &object, origin, &field, "InvalidName", message, remedy);
        }
        let Checked { value, problems } = check::object(node, kind);
        let mut refused = false;
        for problem in problems {
            refused |= problem.severity == Severity::Error;
            let origin = self.origin(problem.line, problem.column);
            self.find(
                problem.severity,
                &object,
                origin,
                &problem.path,
                problem.reason,
                problem.message,
                problem.remedy,
            );
        }
        if refused {
            return self.out.refused.push(key);
        }
        match body_with(kind, value, status) {
            Ok(body) => {
                let has_positions = kind.is_ours() && !self.file.is_empty();
                let fields = if has_positions { node.positions() } else { Default::default() };
                self.out.objects.push(Object { source: Arc::new(Source { origin, fields }), body });
            }
            Err(error) => {
                self.out.refused.push(key);
                let remedy = "correct the object".into();
                self.find(Severity::Error, &object, origin, "", "Invalid", error.to_string(), remedy);
            }
        }
    }

    fn origin(&self, line: u32, column: u32) -> Origin {
        Origin { file: Arc::clone(self.file), line, column }
    }

    #[expect(clippy::too_many_arguments, reason = "one for each field of a finding, called only here")]
    fn find(
        &mut self,
        severity: Severity,
        object: &str,
        origin: Origin,
        field: &str,
        reason: &'static str,
        message: String,
        remedy: String,
    ) {
        if self.out.findings.len() < FINDINGS_MAX {
            let (object, field) = (object.into(), field.into());
            self.out.findings.push(Finding { severity, object, origin, field, reason, message, remedy });
        }
    }
}

/// What a file of another tool is that has no kind, by its name, and what to do instead. `None`: it is not known as such.
fn of_another_tool(file: &str) -> Option<(&'static str, &'static str)> {
    const RENDER: &str = "run `helm template … | wicketgate check -`, and keep charts out of this directory";
    match file.rsplit('/').next().unwrap_or_default() {
        "kustomization.yaml" | "kustomization.yml" => Some((
            "this is a kustomization",
            "nothing, if its resources stand here as well; else run `kustomize build … | wicketgate check -`",
        )),
        "Chart.yaml" => Some(("this is the head of a Helm chart", RENDER)),
        "values.yaml" => Some(("these are values of a Helm chart", RENDER)),
        _ => None,
    }
}

fn text_at<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    match &node.get(key)?.content {
        Content::Text(text) => Some(text),
        _ => None,
    }
}

/// Namespace and name. `None`: no name, or one that no object can have.
fn name_at(node: &Node) -> Option<ObjectName> {
    let metadata = node.get("metadata")?;
    let usable = |text: &&str| {
        !text.is_empty()
            && text.len() <= 253
            && !text.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control())
    };
    let name = text_at(metadata, "name").filter(usable)?;
    let namespace = match metadata.get("namespace").map(|node| &node.content) {
        None | Some(Content::Null) => DEFAULT_NAMESPACE,
        Some(Content::Text(text)) if text.is_empty() => DEFAULT_NAMESPACE,
        Some(Content::Text(text)) => Some(text.as_str()).filter(usable)?,
        Some(_) => return None,
    };
    Some(ObjectName::new(namespace, name))
}

/// What of an object's name no API server takes (RFC 1123): field, text, and what to write.
fn bad_name(key: &ObjectKey) -> Option<(&'static str, String, String)> {
    let ObjectName { namespace, name } = &key.name;
    let remedy = |text: &str| {
        let lower: String = text.to_lowercase().replace(['_', ' '], "-");
        let same = if is_dns_name(&lower) { format!(", such as {lower}") } else { String::new() };
        format!("write lower-case letters, digits and hyphens{same}")
    };
    if !is_dns_label(namespace) {
        return Some(("namespace", namespace.to_string(), remedy(namespace)));
    }
    // The name of a Service is a host name of its own.
    let is_name = if key.kind == Kind::Service { is_dns_label(name) } else { is_dns_name(name) };
    (!is_name).then(|| ("name", name.to_string(), remedy(name)))
}

fn body_with(kind: Kind, mut value: Value, status: Option<Value>) -> Result<Body, serde_json::Error> {
    if let Some(status) = status {
        let mut whole = value.clone();
        whole["status"] = status;
        if let Ok(body) = body(kind, whole) {
            return Ok(body);
        }
        value["status"] = Value::Null;
    }
    body(kind, value)
}

fn body(kind: Kind, value: Value) -> Result<Body, serde_json::Error> {
    fn read<T: DeserializeOwned>(value: Value) -> Result<Arc<T>, serde_json::Error> {
        serde_json::from_value(value).map(Arc::new)
    }
    Ok(match kind {
        Kind::InferenceGateway => Body::InferenceGateway(read(value)?),
        Kind::InferenceService => Body::InferenceService(read(value)?),
        Kind::InferenceCache => Body::InferenceCache(read(value)?),
        Kind::SpeculativeDecoding => Body::SpeculativeDecoding(read(value)?),
        Kind::PrefillDecodingDisaggregation => Body::PrefillDecodingDisaggregation(read(value)?),
        Kind::StaticRoute => Body::StaticRoute(read(value)?),
        Kind::RoutingPolicy => Body::RoutingPolicy(read(value)?),
        Kind::ModelPlacement => Body::ModelPlacement(read(value)?),
        Kind::Service => Body::Service(read(value)?),
        Kind::EndpointSlice => Body::EndpointSlice(read(value)?),
        Kind::Pod => Body::Pod(read(value)?),
        Kind::InferencePool => Body::InferencePool(read(value)?),
        Kind::ConfigMap => Body::ConfigMap(read(value)?),
        Kind::Secret => Body::Secret(read(value)?),
    })
}

#[cfg(test)]
mod tests;
