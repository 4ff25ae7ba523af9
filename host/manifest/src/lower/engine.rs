//! What a service says about talking to its engines: credentials, trust, metrics page.

use std::sync::Arc;

use domain::endpoint::{EngineAuth, EngineTls, MetricsPage};
use domain::finding::Origin;
use domain::header::may_carry_credential;
use http::{HeaderName, HeaderValue, header};

use super::Lowering;
use super::reference::Missing;
use super::report::About;
use crate::bundle::facts::KeyBytes;
use crate::kind::InferenceServiceSpec;
use crate::kind::inference_service::{self as kind, CaKind, KeyRef};
use crate::object::Kind;
use domain::name::ObjectName;

/// How to talk to the engines of one service.
#[derive(Clone, Debug, Default)]
pub(super) struct Engine {
    pub(super) auth: Option<Arc<EngineAuth>>,
    pub(super) tls: Option<Arc<EngineTls>>,
    pub(super) metrics: MetricsPage,
}

impl<'a> Lowering<'a> {
    pub(super) fn engine(&mut self, about: &About, spec: &InferenceServiceSpec) -> Engine {
        Engine {
            auth: spec.auth.as_ref().and_then(|auth| self.auth(about, auth)).map(Arc::new),
            tls: spec.tls.as_ref().map(|tls| Arc::new(self.tls(about, tls))),
            metrics: spec
                .metrics
                .as_ref()
                .map_or_else(MetricsPage::default, |page| self.metrics(about, page)),
        }
    }

    /// Bytes of a key. `None`: the object or the key is missing, which is found.
    pub(super) fn key(
        &mut self,
        about: &About,
        field: &str,
        kind: Kind,
        to: &KeyRef,
    ) -> Option<&'a KeyBytes> {
        let bundle = self.bundle;
        let name = ObjectName::new(about.name().namespace.clone(), to.name.as_str());
        let table = if kind == Kind::Secret { &bundle.secrets } else { &bundle.config_maps };
        let Some(held) = table.get(&name) else {
            // What is called alike elsewhere is not said: that a Secret exists is not for every namespace to know.
            let own = table.keys().filter(|known| known.namespace == name.namespace);
            let known = own.map(|name| (name, Origin::default()));
            let Missing { message, remedy } = self.missing(kind, &name, known);
            let remedy = remedy.unwrap_or_else(|| "create it, or correct the reference".to_owned());
            self.report.error(bundle, about, field, "ReferenceNotFound", message, remedy);
            return None;
        };
        let bytes = held.value.keys.get(to.key.as_str());
        if bytes.is_none() {
            let message = format!("{} {name} has no key {}", kind.as_str(), to.key);
            self.report.error(
                bundle,
                about,
                field,
                "KeyNotFound",
                message,
                "add the key, or correct the reference",
            );
        }
        bytes
    }

    fn auth(&mut self, about: &About, auth: &kind::EngineAuth) -> Option<EngineAuth> {
        let bundle = self.bundle;
        let Ok(name) = HeaderName::from_bytes(auth.header.as_bytes()) else {
            let message = format!("{:?} is no header name", auth.header);
            let remedy = "write one such as authorization or x-api-key";
            self.report.error(bundle, about, "spec.auth.header", "Invalid", message, remedy);
            return None;
        };
        if !may_carry_credential(&name) {
            let message =
                format!("the header {name} is written by the gateway alone; no credential is sent under it");
            let remedy = "write one such as authorization or x-api-key";
            self.report.reject(bundle, about, "spec.auth.header", "HeaderNotPermitted", message, remedy);
            return None;
        }
        let field = "spec.auth.secretRef";
        let secret = &self.key(about, field, Kind::Secret, &auth.secret_ref)?.bytes;
        // A trailing newline is how secrets made from files usually look, and never part of one.
        let secret = secret.trim_ascii_end();
        let is_complete =
            name != header::AUTHORIZATION || secret.starts_with(b"Bearer ") || secret.starts_with(b"Basic ");
        let value = if is_complete { secret.to_vec() } else { [b"Bearer ", secret].concat() };
        let Ok(mut value) = HeaderValue::from_bytes(&value) else {
            let message = "the credential holds characters that a header cannot carry";
            self.report.error(bundle, about, field, "Invalid", message, "store the bare token in the secret");
            return None;
        };
        value.set_sensitive(true);
        Some(EngineAuth { header: name, value, forward_client: auth.forward_client })
    }

    /// Trust. A bundle that is missing leaves nobody trusted: the connection fails, rather than going on unchecked.
    fn tls(&mut self, about: &About, tls: &kind::EngineTls) -> EngineTls {
        let ca_pem = tls.ca_ref.as_ref().and_then(|ca| {
            let kind = if ca.kind == CaKind::Secret { Kind::Secret } else { Kind::ConfigMap };
            let to = KeyRef { name: ca.name.clone(), key: ca.key.clone() };
            Some(Arc::clone(&self.key(about, "spec.tls.caRef", kind, &to)?.bytes))
        });
        if tls.ca_ref.is_some() && tls.insecure_skip_verify {
            let message = "caRef and insecureSkipVerify exclude each other; certificates are checked";
            let remedy = "remove one of the two";
            self.report.reject(self.bundle, about, "spec.tls", "Invalid", message, remedy);
        }
        let insecure_skip_verify = tls.insecure_skip_verify && tls.ca_ref.is_none();
        EngineTls { ca_pem, insecure_skip_verify, names: Vec::new() }
    }

    fn metrics(&mut self, about: &About, page: &kind::MetricsPage) -> MetricsPage {
        let is_path = page.path.starts_with('/') && page.path.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_path {
            let message = format!("{:?} is no path", page.path);
            let remedy = "write one such as /metrics";
            self.report.error(self.bundle, about, "spec.metrics.path", "Invalid", message, remedy);
            return MetricsPage::default();
        }
        let port = page.port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0);
        MetricsPage { path: page.path.as_str().into(), port, is_plain: false }
    }
}
