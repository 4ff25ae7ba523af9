//! Whether engines behind a Service, pods or an InferencePool speak TLS.
//!
//! `spec.tls` of the InferenceService, the port's `appProtocol`, and the port's name decide, in this order. Where they
//! contradict each other nothing is sent in the clear that was meant to be encrypted.

use domain::endpoint::{EngineTls, MetricsPage};
use std::sync::Arc;

use super::Lowering;
use super::engine::Engine;
use super::report::About;
use crate::bundle::facts::is_https;

/// A port, as far as it says what it speaks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said<'a> {
    /// What has the port, such as `Service ns/name`.
    pub(super) who: &'a str,
    /// Its `appProtocol`.
    pub(super) protocol: Option<&'a str>,
    /// Its name; empty where there is none.
    pub(super) name: &'a str,
}

impl Lowering<'_> {
    /// Whether the engines behind a port are asked over TLS. What of it cannot be done as asked is found.
    pub(super) fn speaks_tls(&mut self, about: &About, said: Said<'_>, engine: &Engine) -> bool {
        let Said { who, protocol, name } = said;
        let declared = match protocol.map(str::to_ascii_lowercase).as_deref() {
            None => is_https(name).then_some(true),
            Some("https" | "kubernetes.io/https" | "tls" | "wss" | "kubernetes.io/wss") => Some(true),
            Some("http" | "kubernetes.io/http" | "ws" | "kubernetes.io/ws" | "tcp") => Some(false),
            Some(_) => {
                let tls = if engine.tls.is_some() || is_https(name) { "over TLS" } else { "without TLS" };
                let message = format!(
                    "{who} has appProtocol {}; its engines are spoken to in HTTP/1.1 {tls}",
                    protocol.unwrap_or_default()
                );
                let remedy = "nothing, if the engines speak that as well; else write https or http";
                self.report.info(self.bundle, about, "spec.backendRef", "NotActedUpon", message, remedy);
                is_https(name).then_some(true)
            }
        };
        if engine.tls.is_some() && declared == Some(false) {
            let message = format!(
                "{who} has appProtocol {}, but tls asks for TLS; its engines are asked over TLS",
                protocol.unwrap_or_default()
            );
            let remedy = "remove tls, or correct appProtocol";
            self.report.warning(self.bundle, about, "spec.tls", "Contradiction", message, remedy);
        }
        engine.tls.is_some() || declared == Some(true)
    }
}

impl Engine {
    /// The same for engines behind a Service: their certificates may be for its name.
    pub(super) fn behind(&self, namespace: &str, name: &str) -> Self {
        let with_names = |tls: &Arc<EngineTls>| {
            let service = format!("{name}.{namespace}");
            let names =
                [format!("{service}.svc"), format!("{service}.svc.cluster.local"), service, name.to_owned()];
            Arc::new(EngineTls { names: names.map(Arc::from).into(), ..(**tls).clone() })
        };
        Self { tls: self.tls.as_ref().map(with_names), ..self.clone() }
    }

    /// The same for engines whose metrics may be on a port of its own: that one is asked over TLS if it says so itself.
    pub(super) fn with_metrics_port(&self, is_https: impl Fn(u16) -> bool) -> Self {
        let is_plain = self.metrics.port.is_some_and(|port| !is_https(port));
        Self { metrics: MetricsPage { is_plain, ..self.metrics.clone() }, ..self.clone() }
    }
}
