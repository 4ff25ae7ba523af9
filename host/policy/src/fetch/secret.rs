//! Credentials as `docker login` writes them.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use domain::image::Image;
use http::HeaderValue;
use serde::Deserialize;

/// Other names of Docker's registry.
const DOCKER_HUB: [&str; 4] =
    ["docker.io", "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"];

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: HashMap<String, Entry>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: String,
    username: String,
    password: String,
    registrytoken: String,
}

/// How to identify ourselves.
pub(super) enum Credentials {
    /// `Basic …`, to the registry or to whom it sends us for a token.
    Basic(HeaderValue),
    /// `Bearer …`, to the registry.
    Bearer(HeaderValue),
}

/// The credentials of an image's registry in the text of a `.dockerconfigjson`; of several, those of the longest path.
/// `Ok(None)`: it holds none for this registry.
///
/// # Errors
/// What is wrong with the text; it is never quoted.
pub(super) fn credentials(text: &[u8], image: &Image) -> Result<Option<Credentials>, &'static str> {
    const NO_OBJECT: &str = "it is no JSON with an object `auths`";
    // A list would pass too: serde takes one for the fields in order.
    let is_object = text.trim_ascii_start().first() == Some(&b'{');
    let config: Config = is_object.then(|| serde_json::from_slice(text).ok()).flatten().ok_or(NO_OBJECT)?;
    let wanted = format!("{}/{}/", hub(&image.registry), image.repository);
    let fits = |key: &str| {
        let key = key.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
        let (host, path) = key.split_once('/').unwrap_or((key, ""));
        // The API's own path is not one of a repository.
        let path = if matches!(path, "v1" | "v2") { "" } else { path };
        let place = format!("{}/{path}", hub(&host.to_ascii_lowercase()));
        let place = format!("{}/", place.trim_end_matches('/'));
        wanted.starts_with(&place).then_some(place.len())
    };
    let best =
        config.auths.iter().filter_map(|(key, entry)| Some((fits(key)?, entry))).max_by_key(|(len, _)| *len);
    let Some((_, entry)) = best else { return Ok(None) };
    if !entry.registrytoken.is_empty() {
        return Ok(Some(Credentials::Bearer(secret(&format!("Bearer {}", entry.registrytoken))?)));
    }
    let pair = if entry.auth.is_empty() {
        format!("{}:{}", entry.username, entry.password)
    } else {
        let bytes = STANDARD.decode(entry.auth.trim()).or_else(|_| STANDARD_NO_PAD.decode(entry.auth.trim()));
        let bytes = bytes.map_err(|_| "its field `auth` is not base64")?;
        String::from_utf8(bytes).map_err(|_| "its field `auth` is no text")?
    };
    Ok(Some(Credentials::Basic(secret(&format!("Basic {}", STANDARD.encode(pair)))?)))
}

/// One name for all of Docker's.
fn hub(host: &str) -> &str {
    if DOCKER_HUB.contains(&host) { "docker.io" } else { host }
}

/// A header that is never shown.
fn secret(text: &str) -> Result<HeaderValue, &'static str> {
    let mut value = HeaderValue::try_from(text).map_err(|_| "it holds characters that no header can")?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, image: &str) -> Result<Option<String>, &'static str> {
        let image = Image::parse(image).expect("an image");
        let shown = |value: HeaderValue| value.to_str().expect("text").to_owned();
        Ok(credentials(text.as_bytes(), &image)?.map(|found| match found {
            Credentials::Basic(value) | Credentials::Bearer(value) => shown(value),
        }))
    }

    #[test]
    fn the_registrys_own_credentials_are_found_however_they_are_written() {
        let table = [
            (r#"{"auths":{"r.example":{"auth":"dTpw"}}}"#, Some("Basic dTpw")),
            (r#"{"auths":{"https://R.example/v2/":{"username":"u","password":"p"}}}"#, Some("Basic dTpw")),
            (
                r#"{"auths":{"r.example":{"auth":"dTpw"},"r.example/team":{"auth":"dDp0"}}}"#,
                Some("Basic dDp0"),
            ),
            (r#"{"auths":{"r.example/tea":{"auth":"dTpw"}}}"#, None),
            (r#"{"auths":{"r.example":{"registrytoken":"abc"}}}"#, Some("Bearer abc")),
            (r#"{"auths":{"other.example":{"auth":"dTpw"}}}"#, None),
            (r#"{"auths":{}}"#, None),
            ("{}", None),
        ];
        for (text, expected) in table {
            assert_eq!(found(text, "r.example/team/p:1"), Ok(expected.map(str::to_owned)), "{text}");
        }
        let hub = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"}}}"#;
        assert_eq!(found(hub, "docker.io/team/p:1"), Ok(Some("Basic dTpw".to_owned())));
    }

    #[test]
    fn a_bad_secret_is_told_without_being_quoted() {
        for text in [
            "",
            "[]",
            r#"{"auths":{"r.example":{"auth":"%%%"}}}"#,
            r#"{"auths":{"r.example":{"auth":"/w=="}}}"#,
        ] {
            assert!(found(text, "r.example/p:1").is_err(), "{text}");
        }
        let newline = r#"{"auths":{"r.example":{"registrytoken":"a\nb"}}}"#;
        assert!(found(newline, "r.example/p:1").is_err());
    }
}
