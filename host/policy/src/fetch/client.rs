//! One small HTTP client for registries: every answer bounded in bytes, redirects followed by our own rules.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, LOCATION, USER_AGENT, WWW_AUTHENTICATE};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client as Pool, Error};
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};

/// Redirects followed for one question; registries send to their storage.
const REDIRECTS_MAX: usize = 5;
/// Longest time to a connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Why there is no answer. Text is for the policy's owner.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("{0:?} is not a URL that can be asked")]
    Url(String),
    #[error("{0} would be asked without TLS")]
    Plain(String),
    #[error("it leads to this gateway's own machine, {0}")]
    Inward(String),
    #[error("more than {REDIRECTS_MAX} redirects")]
    Redirects,
    #[error("no answer: {}", innermost(.0))]
    Exchange(#[source] Error),
    #[error("the answer broke off")]
    Body(#[source] hyper::Error),
    #[error("the answer is larger than {limit_bytes} bytes")]
    TooLarge { limit_bytes: usize },
}

/// The cause that says something: what wraps it only says that something failed.
fn innermost(error: &Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// What to get.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) url: String,
    /// Whose answer led there; `None`: the policy's owner named it.
    pub(super) from: Option<Uri>,
    pub(super) accept: &'static str,
    /// Sent to the URL's own origin only, not where it redirects to.
    pub(super) authorization: Option<HeaderValue>,
    pub(super) bytes_max: usize,
}

/// An answer, whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    /// Values of `WWW-Authenticate`.
    pub(super) challenges: Vec<String>,
    /// The body of a 200; empty for any other status.
    pub(super) body: Vec<u8>,
}

/// The client.
#[derive(Debug)]
pub(super) struct Client {
    pool: Pool<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    /// Hosts with ports that may be asked without TLS, beside loopback.
    insecure: Vec<Box<str>>,
}

impl Client {
    /// Trusts whom the system trusts.
    pub(super) fn new(insecure: Vec<Box<str>>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the protocol versions that it is built with")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_connect_timeout(Some(CONNECT_MAX));
        tcp.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        // Components come rarely: a kept connection would only be one that died.
        let pool = Pool::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Self { pool, insecure }
    }

    /// `http` for registries that may be asked without TLS.
    pub(super) fn scheme(&self, authority: &str) -> &'static str {
        if self.is_plain_allowed(authority) { "http" } else { "https" }
    }

    fn is_plain_allowed(&self, authority: &str) -> bool {
        let host = match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => authority,
        };
        is_loopback(host) || self.insecure.iter().any(|allowed| allowed.eq_ignore_ascii_case(authority))
    }

    /// Asks, and follows redirects: from TLS to TLS only, and from another machine never to this one, whatever may be asked
    /// directly. Else a registry could have the gateway ask what only the gateway can reach.
    pub(super) async fn get(&self, question: &Question) -> Result<Answer, ClientError> {
        let mut url = self.parse(&question.url)?;
        Self::allow_step(&question.from, &url)?;
        let origin = (url.scheme_str().map(str::to_owned), url.authority().cloned());
        for _ in 0..=REDIRECTS_MAX {
            let is_own = origin == (url.scheme_str().map(str::to_owned), url.authority().cloned());
            let response = self.send(question, &url, is_own).await?;
            let is_redirect = response.status().is_redirection();
            let location = response.headers().get(LOCATION).filter(|_| is_redirect);
            let Some(location) = location.and_then(|value| value.to_str().ok()) else {
                return read(response, question.bytes_max).await;
            };
            let next = self.parse(&resolve(&url, location))?;
            Self::allow_step(&Some(url), &next)?;
            url = next;
        }
        Err(ClientError::Redirects)
    }

    async fn send(
        &self,
        question: &Question,
        url: &Uri,
        is_own: bool,
    ) -> Result<Response<Incoming>, ClientError> {
        let mut request = Request::get(url)
            .header(ACCEPT, question.accept)
            .header(USER_AGENT, concat!("wicketgate/", env!("CARGO_PKG_VERSION")));
        if let Some(authorization) = question.authorization.as_ref().filter(|_| is_own) {
            request = request.header(AUTHORIZATION, authorization);
        }
        let request = request.body(Empty::new()).map_err(|_| ClientError::Url(shown(&url.to_string())))?;
        self.pool.request(request).await.map_err(ClientError::Exchange)
    }

    fn parse(&self, text: &str) -> Result<Uri, ClientError> {
        let wrong = || ClientError::Url(shown(text));
        let url: Uri = text.parse().map_err(|_| wrong())?;
        let authority = url.authority().ok_or_else(wrong)?.as_str();
        if authority.contains('@') {
            return Err(wrong());
        }
        match url.scheme_str() {
            Some("https") => Ok(url),
            Some("http") if self.is_plain_allowed(authority) => Ok(url),
            Some("http") => Err(ClientError::Plain(authority.to_owned())),
            _ => Err(wrong()),
        }
    }

    /// Whether an answer from `from` may lead to `to`. `None`: nothing led there.
    fn allow_step(from: &Option<Uri>, to: &Uri) -> Result<(), ClientError> {
        let Some(from) = from else { return Ok(()) };
        let authority = || to.authority().map_or_else(String::new, |authority| authority.as_str().to_owned());
        if from.scheme_str() == Some("https") && to.scheme_str() != Some("https") {
            return Err(ClientError::Plain(authority()));
        }
        if is_loopback(to.host().unwrap_or_default()) && !is_loopback(from.host().unwrap_or_default()) {
            return Err(ClientError::Inward(authority()));
        }
        Ok(())
    }
}

/// Whether a host, perhaps in brackets, is this machine's own, by its very name.
fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches([']', '.']);
    let is_name = host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost");
    let address = host.parse::<IpAddr>().map(|address| address.to_canonical());
    is_name || address.is_ok_and(|address| address.is_loopback() || address.is_unspecified())
}

/// A URL for a message: without what may be secret in it.
fn shown(url: &str) -> String {
    domain::redact::url(url).into_owned()
}

/// Where a `Location` leads from `base`.
fn resolve(base: &Uri, location: &str) -> String {
    let scheme = base.scheme_str().unwrap_or("https");
    let authority = base.authority().map_or("", |authority| authority.as_str());
    match location {
        _ if location.contains("://") => location.to_owned(),
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => format!("{scheme}://{authority}{location}"),
        _ => {
            let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
            format!("{scheme}://{authority}{directory}/{location}")
        }
    }
}

async fn read(response: Response<Incoming>, limit_bytes: usize) -> Result<Answer, ClientError> {
    let status = response.status();
    let values = response.headers().get_all(WWW_AUTHENTICATE).iter();
    let challenges = values.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect();
    let mut body = response.into_body();
    let mut whole = Vec::new();
    if status != StatusCode::OK {
        // What else it says is nothing that we act upon.
        return Ok(Answer { status, challenges, body: whole });
    }
    if body.size_hint().lower() > limit_bytes as u64 {
        return Err(ClientError::TooLarge { limit_bytes });
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(ClientError::Body)?;
        if let Some(piece) = frame.data_ref() {
            if whole.len() + piece.len() > limit_bytes {
                return Err(ClientError::TooLarge { limit_bytes });
            }
            whole.extend_from_slice(piece);
        }
    }
    Ok(Answer { status, challenges, body: whole })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// C15: nothing leads from TLS to plain HTTP, and nothing from another machine to this one.
    #[test]
    fn an_answer_leads_neither_out_of_tls_nor_to_this_machine() {
        for (from, to, is_allowed) in [
            ("https://r.example/v2/a", "https://storage.example/b", true),
            ("https://r.example/v2/a", "http://127.0.0.1:9090/b", false),
            ("https://r.example/v2/a", "https://127.0.0.1:9090/b", false),
            ("https://r.example/v2/a", "https://localhost/b", false),
            ("https://r.example/v2/a", "https://LOCALHOST./b", false),
            ("https://r.example/v2/a", "https://a.localhost/b", false),
            ("https://r.example/v2/a", "https://[::1]:9090/b", false),
            ("https://r.example/v2/a", "https://[::ffff:127.0.0.1]/b", false),
            ("https://r.example/v2/a", "https://0.0.0.0/b", false),
            ("https://r.example/v2/a", "http://storage.example/b", false),
            ("http://insecure.example/v2/a", "http://127.0.0.1:9090/b", false),
            ("http://127.0.0.1:5000/v2/a", "http://127.0.0.1:5001/b", true),
            ("http://localhost:5000/v2/a", "https://storage.example/b", true),
        ] {
            let (from, to): (Uri, Uri) = (from.parse().unwrap(), to.parse().unwrap());
            let allowed = Client::allow_step(&Some(from.clone()), &to);
            assert_eq!(allowed.is_ok(), is_allowed, "{from} -> {to}: {allowed:?}");
        }
    }

    /// C15: what is secret in a URL is in no message.
    #[test]
    fn messages_hide_users_passwords_and_signatures() {
        let client = Client::new(Vec::new());
        for url in [
            "https://user:s3cret@r.example/v2/",
            "http://user:s3cret@127.0.0.1/v2/",
            "ftp://user:s3cret@r.example/?sig=s3cret",
            "http://r.example/?X-Amz-Signature=s3cret",
            "https://r example/?sig=s3cret",
        ] {
            let error = client.parse(url).expect_err(url);
            assert!(!error.to_string().contains("s3cret"), "{url}: {error}");
            assert!(!format!("{error:?}").contains("s3cret"), "{url}: {error:?}");
        }
    }
}
