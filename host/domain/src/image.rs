//! References to artifacts in OCI registries, and the credentials to pull them.

use std::fmt;
use std::sync::Arc;

/// Longest reference that is taken, bytes.
pub const IMAGE_BYTES_MAX: usize = 1_024;

/// `registry/repository[:tag][@sha256:…]`, taken apart. Always has a tag or a digest.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Image {
    /// Host and perhaps port, lower case, such as `ghcr.io` or `127.0.0.1:5000`.
    pub registry: Arc<str>,
    /// Path in it, such as `team/policies/mine`.
    pub repository: Arc<str>,
    /// Tag. Says nothing where there is a digest.
    pub tag: Option<Arc<str>>,
    /// SHA-256 of the manifest, lower-case hex.
    pub digest: Option<Arc<str>>,
}

impl Image {
    /// Reads a reference. The registry has to be named: what it would default to differs between tools.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence that begins with the reference.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > IMAGE_BYTES_MAX {
            return Err("is longer than 1024 bytes");
        }
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => {
                let hex = digest.strip_prefix("sha256:").ok_or("has a digest that is no sha256")?;
                if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
                    return Err("has a digest that is not 64 lower-case hexadecimal digits");
                }
                (rest, Some(hex.into()))
            }
        };
        let (registry, path) = rest.split_once('/').ok_or("names no registry: write registry/repository")?;
        let is_host = registry.contains(['.', ':']) || registry == "localhost";
        if !is_host || !registry.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b)) {
            return Err("does not begin with a registry's host name, such as ghcr.io/");
        }
        let (repository, tag) = match path.rsplit_once(':') {
            None => (path, None),
            Some((repository, tag)) => (repository, Some(tag)),
        };
        let word = |text: &str| {
            let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
            let ends = [text.bytes().next(), text.bytes().next_back()];
            text.bytes().all(inner) && ends.iter().flatten().count() == 2 && !text.starts_with('.')
        };
        if !repository.split('/').all(word) {
            return Err("has a repository that is not lower-case words between slashes");
        }
        let is_tag = |tag: &str| {
            (1..=128).contains(&tag.len())
                && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
                && !tag.starts_with(['.', '-'])
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err("has a tag with characters that a tag cannot have");
        }
        if tag.is_none() && digest.is_none() {
            return Err("has neither tag nor digest");
        }
        Ok(Self {
            registry: registry.to_ascii_lowercase().into(),
            repository: repository.into(),
            tag: tag.map(Into::into),
            digest,
        })
    }
}

impl fmt::Display for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@sha256:{digest}"),
            None => Ok(()),
        }
    }
}

/// Credentials as a Secret of type `kubernetes.io/dockerconfigjson` holds them. Never shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PullSecret(pub Arc<[u8]>);

impl fmt::Debug for PullSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PullSecret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn references_are_taken_apart_and_shown_as_they_were() {
        let with = |text: &str| text.replace("HEX", HEX);
        for (text, registry, repository, tag, digest) in [
            ("ghcr.io/team/p@sha256:HEX", "ghcr.io", "team/p", None, Some(HEX)),
            ("ghcr.io/team/p:1.2", "ghcr.io", "team/p", Some("1.2"), None),
            ("127.0.0.1:5000/p:v1@sha256:HEX", "127.0.0.1:5000", "p", Some("v1"), Some(HEX)),
            ("localhost/p:latest", "localhost", "p", Some("latest"), None),
            ("[::1]:5000/a/b-c/d_e:x", "[::1]:5000", "a/b-c/d_e", Some("x"), None),
        ] {
            let image = Image::parse(&with(text)).expect(text);
            assert_eq!((&*image.registry, &*image.repository), (registry, repository), "{text}");
            assert_eq!((image.tag.as_deref(), image.digest.as_deref()), (tag, digest), "{text}");
            assert_eq!(image.to_string(), with(text));
        }
    }

    #[test]
    fn what_is_no_reference_says_why() {
        for (text, why) in [
            ("p:1", "names no registry"),
            ("team/p:1", "registry's host"),
            ("ghcr.io/p", "neither tag nor digest"),
            ("ghcr.io/P:1", "lower-case"),
            ("ghcr.io/:1", "lower-case"),
            ("ghcr.io/a//b:1", "lower-case"),
            ("ghcr.io/a/../b:1", "lower-case"),
            ("ghcr.io/a?b:1", "lower-case"),
            ("ghcr.io/a:", "tag"),
            ("ghcr.io/a:x/y", "tag"),
            ("ghcr.io/a@sha512:00", "sha256"),
            ("ghcr.io/a@sha256:00", "64"),
            ("https://ghcr.io/a:1", "lower-case"),
            ("u@ghcr.io/a:1", "sha256"),
            ("a b.c/d:1", "registry's host"),
        ] {
            let error = Image::parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(Image::parse(&"x".repeat(2_000)).is_err());
    }
}
