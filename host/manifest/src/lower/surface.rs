//! Further paths of a gateway, and its leave for web pages.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use domain::surface::{Cors, ENGINE_CONTROLS, FurtherPath, ModelPlace, SERVED};
use http::{HeaderName, HeaderValue, Method};

use super::Lowering;
use super::report::About;
use crate::kind::InferenceGatewaySpec;
use crate::kind::surface::{GatewayCors, ModelFrom, PathKind, PathMethod};

/// How long a browser remembers a permission where nothing is said.
const MAX_AGE: Duration = Duration::from_secs(600);
/// Longest time that one may remember it: no browser heeds more.
const MAX_AGE_MAX: Duration = Duration::from_secs(24 * 3_600);

impl Lowering<'_> {
    /// `spec.cors`. A gateway whose credentials exclude its origins lets no page ask with credentials.
    pub(super) fn cors(&mut self, about: &About, spec: &InferenceGatewaySpec) -> Option<Arc<Cors>> {
        let cors = spec.cors.as_ref()?;
        let origins = self.origins(about, cors);
        let mut credentials = cors.allow_credentials.unwrap_or(false);
        let is_any = |names: &Option<Vec<String>>| names.iter().flatten().any(|name| name == "*");
        if credentials && (origins.is_none() || is_any(&cors.expose_headers)) {
            let message = "allowCredentials excludes the origin * and the exposed header *; it is ignored";
            let remedy = "list origins and headers, or remove allowCredentials";
            self.report.reject(self.bundle, about, "spec.cors.allowCredentials", "Invalid", message, remedy);
            credentials = false;
        }
        let methods = match &cors.allow_methods {
            Some(methods) => self.names(about, "allowMethods", methods),
            None => Some(HeaderValue::from_static("GET, POST")),
        };
        let headers = cors.allow_headers.as_ref().and_then(|names| self.names(about, "allowHeaders", names));
        let expose =
            cors.expose_headers.as_ref().filter(|names| !names.is_empty()).map(|names| {
                self.names(about, "exposeHeaders", names).unwrap_or(HeaderValue::from_static("*"))
            });
        let mut max_age = self.span(about, "spec.cors.maxAge", &cors.max_age, MAX_AGE);
        if max_age > MAX_AGE_MAX {
            let message = "browsers remember a permission for at most 24h; 24h is used";
            self.report.warning(
                self.bundle,
                about,
                "spec.cors.maxAge",
                "OutOfRange",
                message,
                "write 24h or less",
            );
            max_age = MAX_AGE_MAX;
        }
        Some(Arc::new(Cors {
            origins,
            methods,
            headers,
            expose,
            credentials,
            max_age: max_age.as_secs().into(),
        }))
    }

    /// `None`: any.
    fn origins(&mut self, about: &About, cors: &GatewayCors) -> Option<Vec<Box<str>>> {
        let mut origins = Vec::with_capacity(cors.allow_origins.len());
        for (index, written) in cors.allow_origins.iter().enumerate() {
            if written == "*" {
                return None;
            }
            if is_origin(written) {
                origins.push(written.to_ascii_lowercase().into());
            } else {
                let field = format!("spec.cors.allowOrigins[{index}]");
                let message = format!("{written:?} is not an origin; it is ignored");
                let remedy = "write scheme, host and port only if it is not the usual one, such as https://chat.example.com";
                self.report.error(self.bundle, about, &field, "Invalid", message, remedy);
            }
        }
        Some(origins)
    }

    /// Names as a header has them; `None`: any.
    fn names(&mut self, about: &About, list: &str, written: &[String]) -> Option<HeaderValue> {
        let mut names: Vec<&str> = Vec::with_capacity(written.len());
        for (index, name) in written.iter().enumerate() {
            if name == "*" {
                return None;
            }
            // Methods and header names are both tokens (RFC 9110, 5.6.2).
            if HeaderName::from_bytes(name.as_bytes()).is_ok() {
                names.push(name);
            } else {
                let field = format!("spec.cors.{list}[{index}]");
                let message = format!("{name:?} is not a name that HTTP allows; it is ignored");
                self.report.error(self.bundle, about, &field, "Invalid", message, "correct or remove it");
            }
        }
        Some(HeaderValue::from_str(&names.join(", ")).unwrap_or(HeaderValue::from_static("")))
    }

    /// `spec.paths`. `models`: names and aliases that the gateway routes.
    pub(super) fn paths(
        &mut self,
        about: &About,
        spec: &InferenceGatewaySpec,
        models: &HashSet<&str>,
    ) -> Arc<[FurtherPath]> {
        let mut paths: Vec<FurtherPath> = Vec::with_capacity(spec.paths.len());
        for (index, written) in spec.paths.iter().enumerate() {
            let field = format!("spec.paths[{index}]");
            let bundle = self.bundle;
            let path = match tidied(&written.path) {
                Ok(path) => path,
                Err((reason, message)) => {
                    let message = format!("{:?} {message}; it is not let through", written.path);
                    let remedy = "write a path of engines such as /v1/custom, or remove the entry";
                    self.report.error(bundle, about, &format!("{field}.path"), reason, message, remedy);
                    continue;
                }
            };
            if let (Some(_), Some(_)) = (&written.model, &written.model_from) {
                let message = "model excludes modelFrom, which is ignored";
                self.report.reject(bundle, about, &field, "Invalid", message, "remove one of the two");
            }
            let model = match (&written.model, written.model_from) {
                (Some(model), _) => ModelPlace::Fixed(model.as_str().into()),
                (None, Some(ModelFrom::Query)) => ModelPlace::Query,
                (None, Some(ModelFrom::Body) | None) => ModelPlace::Body,
            };
            if let Some(model) = written.model.as_deref().filter(|model| !models.contains(model)) {
                let message =
                    format!("this gateway does not route model {model}; requests to the path get 404");
                let remedy = "add a route for it, or name a routed model";
                self.report.error(
                    bundle,
                    about,
                    &format!("{field}.model"),
                    "ReferenceNotFound",
                    message,
                    remedy,
                );
            }
            let mut methods: Vec<Method> = written.methods.iter().map(|method| (*method).into()).collect();
            if methods.is_empty() {
                methods.push(Method::POST);
            }
            let bodyless =
                methods.iter().find(|method| matches!(**method, Method::GET | Method::HEAD | Method::DELETE));
            if let (Some(method), ModelPlace::Body) = (bodyless, &model) {
                let message = format!(
                    "{method} has no body to say a model in: the query's parameter model counts then"
                );
                let remedy = "set modelFrom: Query, or model";
                self.report.info(
                    bundle,
                    about,
                    &format!("{field}.methods"),
                    "ModelFromQuery",
                    message,
                    remedy,
                );
            }
            let allow = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ").into();
            paths.push(FurtherPath {
                path,
                is_prefix: written.kind == PathKind::Prefix,
                methods,
                allow,
                model,
            });
        }
        paths.into()
    }
}

impl From<PathMethod> for Method {
    fn from(method: PathMethod) -> Self {
        match method {
            PathMethod::Get => Self::GET,
            PathMethod::Head => Self::HEAD,
            PathMethod::Post => Self::POST,
            PathMethod::Put => Self::PUT,
            PathMethod::Patch => Self::PATCH,
            PathMethod::Delete => Self::DELETE,
        }
    }
}

/// The path as requests are compared with it, or what is wrong with it.
fn tidied(written: &str) -> Result<Box<str>, (&'static str, &'static str)> {
    let path = written.strip_suffix('/').unwrap_or(written);
    let is_plain = |segment: &str| {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%".contains(&byte);
        !matches!(segment, "" | "." | "..") && segment.bytes().all(is_allowed)
    };
    if !path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(is_plain)) {
        return Err(("Invalid", "is not a path"));
    }
    let is_below =
        |top: &str| path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if ENGINE_CONTROLS.contains(&path) {
        return Err(("Forbidden", "controls engines"));
    }
    if SERVED.contains(&path)
        || ["/gateways", "/v1/models", "/v1/realtime", "/api", "/router"].into_iter().any(is_below)
    {
        return Err(("NoEffect", "is a path that every gateway serves or answers itself"));
    }
    Ok(path.into())
}

/// Whether a browser could send this as an origin: scheme and host, port if it is not the scheme's own, or `null`.
fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return text == "null" };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (rest, None),
    };
    let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~[]:%".contains(&byte);
    !scheme.is_empty()
        && scheme.bytes().all(is_scheme)
        && !host.is_empty()
        && host.bytes().all(is_host)
        && port.is_none_or(|port| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_scheme_and_host() {
        for good in [
            "https://a.example",
            "http://localhost:3000",
            "null",
            "chrome-extension://abc",
            "http://[::1]:80",
        ] {
            assert!(is_origin(good), "{good}");
        }
        for bad in [
            "a.example",
            "https://a.example/",
            "https://a/b",
            "https://",
            "https://*.a",
            "https://a:x",
            "a b",
            "",
        ] {
            assert!(!is_origin(bad), "{bad}");
        }
    }

    #[test]
    fn paths_are_those_of_engines() {
        for (good, path) in
            [("/v1/custom", "/v1/custom"), ("/plugins/", "/plugins"), ("/v1", "/v1"), ("/a%20b", "/a%20b")]
        {
            assert_eq!(tidied(good).as_deref(), Ok(path), "{good}");
        }
        for (bad, reason) in [
            ("/", "Invalid"),
            ("", "Invalid"),
            ("v1/x", "Invalid"),
            ("/a//b", "Invalid"),
            ("/a/../b", "Invalid"),
            ("/a?b", "Invalid"),
            ("/a b", "Invalid"),
            ("/sleep", "Forbidden"),
            ("/v1/load_lora_adapter/", "Forbidden"),
            ("/metrics", "NoEffect"),
            ("/v1/models", "NoEffect"),
            ("/v1/models/x", "NoEffect"),
            ("/gateways/a/b", "NoEffect"),
            ("/api/chat", "NoEffect"),
        ] {
            assert_eq!(tidied(bad).map_err(|(reason, _)| reason), Err(reason), "{bad}");
        }
    }
}
