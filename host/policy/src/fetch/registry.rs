//! Pulls one component: manifest, then blob, each by digest, each checked.

use std::sync::Arc;

use domain::image::Image;
use domain::policy::PrepareFailure;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;

use super::cache::Cache;
use super::challenge::Challenge;
use super::client::{Answer, Client, ClientError, Question};
use super::manifest::{ACCEPT, Layer, layer};
use super::secret::{Credentials, credentials};
use super::{FetchOptions, Order};
use crate::inspect::{COMPONENT_BYTES_MAX, refuse};
use crate::library::digest;

/// Largest manifest, bytes.
const MANIFEST_BYTES_MAX: usize = 1 << 20;
/// Largest answer of who gives tokens, bytes.
const TOKEN_BYTES_MAX: usize = 64 << 10;
/// Docker's registry answers elsewhere.
const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// Pulls components, one after the other or several at once.
#[derive(Debug)]
pub(super) struct Puller {
    client: Client,
    cache: Option<Cache>,
    registries: Vec<Box<str>>,
}

/// Asking one registry for one image.
struct Session<'a> {
    puller: &'a Puller,
    image: &'a Image,
    base: String,
    credentials: Option<Credentials>,
    /// What the registry accepted last.
    authorization: Option<HeaderValue>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Token {
    token: String,
    access_token: String,
}

impl Puller {
    pub(super) fn new(options: &FetchOptions) -> Self {
        Self {
            client: Client::new(options.insecure.clone()),
            cache: options.cache.clone().map(Cache::new),
            registries: options.registries.clone(),
        }
    }

    /// The component of an order. Who is not allowed to be asked is not asked; what is in the cache is not asked for.
    pub(super) async fn pull(&self, order: &Order) -> Result<Arc<[u8]>, PrepareFailure> {
        let image = &order.image;
        self.allow(image)?;
        if let Some(expected) = &order.sha256
            && let Some(component) = self.cached(expected, COMPONENT_BYTES_MAX)
        {
            return Ok(component.into());
        }
        let mut session = Session::new(self, image, order)?;
        let manifest = session.manifest().await?;
        let Layer { sha256, bytes } =
            layer(&manifest).map_err(|(message, remedy)| failed(image, &message, remedy))?;
        check(image, order.sha256.as_deref(), &sha256, bytes)?;
        if let Some(component) = self.cached(&sha256, COMPONENT_BYTES_MAX) {
            return Ok(component.into());
        }
        let path = format!("blobs/sha256:{sha256}");
        // The manifest is believed on its digest, so its word bounds what is read.
        let component =
            session.get(&path, "application/wasm, application/octet-stream", bytes as usize).await?;
        verify(image, "component", &component, &sha256)?;
        self.keep(&sha256, &component);
        Ok(component.into())
    }

    fn allow(&self, image: &Image) -> Result<(), PrepareFailure> {
        let place = format!("{}/{}/", image.registry, image.repository);
        let is_allowed = |allowed: &str| place.starts_with(&format!("{}/", allowed.trim_end_matches('/')));
        if self.registries.is_empty() || self.registries.iter().any(|allowed| is_allowed(allowed)) {
            return Ok(());
        }
        let remedy = format!(
            "push it to one of them: {}; or have --policy-registry changed",
            self.registries.join(", ")
        );
        Err(failed(image, "its registry is none that this gateway may ask", &remedy))
    }

    fn cached(&self, sha256: &str, bytes_max: usize) -> Option<Vec<u8>> {
        self.cache.as_ref()?.get(sha256, bytes_max as u64)
    }

    fn keep(&self, sha256: &str, bytes: &[u8]) {
        if let Some(cache) = &self.cache {
            cache.put(sha256, bytes);
        }
    }
}

impl<'a> Session<'a> {
    fn new(puller: &'a Puller, image: &'a Image, order: &Order) -> Result<Self, PrepareFailure> {
        let host = if &*image.registry == DOCKER_HUB.0 { DOCKER_HUB.1 } else { &*image.registry };
        let base = format!("{}://{host}/v2/{}", puller.client.scheme(host), image.repository);
        let credentials = match &order.pull_secret {
            None => None,
            Some(secret) => credentials(&secret.0, image).map_err(|why| {
                failed(
                    image,
                    &format!("its pull secret cannot be used: {why}"),
                    "write it anew with `kubectl create secret docker-registry`",
                )
            })?,
        };
        let authorization = match &credentials {
            Some(Credentials::Bearer(value)) => Some(value.clone()),
            _ => None,
        };
        Ok(Self { puller, image, base, credentials, authorization })
    }

    /// The manifest, by digest where there is one.
    async fn manifest(&mut self) -> Result<Vec<u8>, PrepareFailure> {
        let image = self.image;
        let Some(sha256) = &image.digest else {
            // Its component has a digest of its own, which is checked.
            let tag = image.tag.as_deref().unwrap_or("latest");
            return self.get(&format!("manifests/{tag}"), ACCEPT, MANIFEST_BYTES_MAX).await;
        };
        if let Some(manifest) = self.puller.cached(sha256, MANIFEST_BYTES_MAX) {
            return Ok(manifest);
        }
        let manifest = self.get(&format!("manifests/sha256:{sha256}"), ACCEPT, MANIFEST_BYTES_MAX).await?;
        verify(image, "manifest", &manifest, sha256)?;
        self.puller.keep(sha256, &manifest);
        Ok(manifest)
    }

    /// Something of the repository, with what the registry wants for it.
    async fn get(
        &mut self,
        path: &str,
        accept: &'static str,
        bytes_max: usize,
    ) -> Result<Vec<u8>, PrepareFailure> {
        let image = self.image;
        let url = format!("{}/{path}", self.base);
        let mut answer = self.ask(&url, accept, bytes_max).await?;
        if answer.status == StatusCode::UNAUTHORIZED
            && let Some(authorization) = self.meet(&answer.challenges).await?
        {
            self.authorization = Some(authorization);
            answer = self.ask(&url, accept, bytes_max).await?;
        }
        match answer.status {
            StatusCode::OK => Ok(answer.body),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let (message, remedy) = match &self.credentials {
                    None => (
                        "the registry wants credentials",
                        "name a Secret in pullSecretRef which has them for this registry",
                    ),
                    Some(_) => (
                        "the registry refuses the credentials",
                        "correct the Secret that pullSecretRef names",
                    ),
                };
                Err(failed(image, message, remedy))
            }
            StatusCode::NOT_FOUND => Err(failed(
                image,
                "the registry does not have it",
                "push it, or correct the image; it is tried again",
            )),
            status => Err(failed(
                image,
                &format!("the registry answers {status}"),
                "look at the registry; it is tried again",
            )),
        }
    }

    async fn ask(&self, url: &str, accept: &'static str, bytes_max: usize) -> Result<Answer, PrepareFailure> {
        let authorization = self.authorization.clone();
        let question = Question { url: url.to_owned(), from: None, accept, authorization, bytes_max };
        self.puller.client.get(&question).await.map_err(|error| unreachable(self.image, &error))
    }

    /// What to show so that the registry answers; `None`: nothing that we have.
    async fn meet(&self, challenges: &[String]) -> Result<Option<HeaderValue>, PrepareFailure> {
        let basic = match &self.credentials {
            Some(Credentials::Basic(value)) => Some(value.clone()),
            _ => None,
        };
        let known: Vec<Challenge> = challenges.iter().filter_map(|text| Challenge::parse(text)).collect();
        let token_url = known.iter().find_map(|challenge| challenge.token_url(&self.image.repository));
        let Some(url) = token_url else {
            return Ok(basic.filter(|_| known.contains(&Challenge::Basic)));
        };
        let question = Question {
            url,
            from: self.base.parse().ok(),
            accept: "application/json",
            authorization: basic,
            bytes_max: TOKEN_BYTES_MAX,
        };
        let answer =
            self.puller.client.get(&question).await.map_err(|error| unreachable(self.image, &error))?;
        if answer.status != StatusCode::OK {
            // The registry's own refusal says what is missing.
            return Ok(None);
        }
        let token: Token = serde_json::from_slice(&answer.body).unwrap_or_default();
        let text = if token.token.is_empty() { token.access_token } else { token.token };
        let mut value = HeaderValue::try_from(format!("Bearer {text}"))
            .map_err(|_| failed(self.image, "the registry's token is none", "look at the registry"))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

/// Before anything is downloaded: is it what is wanted, and not too large.
fn check(image: &Image, expected: Option<&str>, sha256: &str, bytes: u64) -> Result<(), PrepareFailure> {
    if let Some(expected) = expected.filter(|expected| !expected.eq_ignore_ascii_case(sha256)) {
        let message =
            format!("`{image}` holds a component whose SHA-256 is {sha256}, expected was {expected}");
        return Err(refuse("DigestMismatch", message, "push the right component, or correct `sha256`"));
    }
    if bytes > COMPONENT_BYTES_MAX as u64 {
        let message = format!("`{image}` holds {bytes} bytes; at most {COMPONENT_BYTES_MAX} are loaded");
        let remedy = "strip debug information, or write the policy in a language with a smaller runtime";
        return Err(refuse("TooLarge", message, remedy));
    }
    Ok(())
}

fn verify(image: &Image, what: &str, bytes: &[u8], expected: &str) -> Result<(), PrepareFailure> {
    let found = digest(bytes).to_string();
    if found == expected {
        return Ok(());
    }
    let message =
        format!("the registry gave a {what} of `{image}` whose SHA-256 is {found}, expected was {expected}");
    Err(refuse(
        "DigestMismatch",
        message,
        "look at the registry, or at what stands before it: its content is not what it says",
    ))
}

fn unreachable(image: &Image, error: &ClientError) -> PrepareFailure {
    let remedy = match error {
        ClientError::Plain(_) => {
            "have the gateway started with --policy-insecure-registry for it, or use TLS"
        }
        ClientError::TooLarge { .. } => "look at the registry: it gives more than the manifest says",
        _ => "correct the image, or look at the registry and at the way to it; it is tried again",
    };
    failed(image, &error.to_string(), remedy)
}

fn failed(image: &Image, message: &str, remedy: &str) -> PrepareFailure {
    refuse("FetchFailed", format!("`{image}` cannot be fetched: {message}"), remedy)
}
