//! An artifact's manifest: which blob is the component.

use serde::Deserialize;

/// What we can read.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json";
/// Types under which tools store a component.
const COMPONENT_TYPES: [&str; 3] = [
    "application/wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    layers: Vec<Descriptor>,
    manifests: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
}

/// The blob that is the component.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Layer {
    /// SHA-256, lower-case hex.
    pub(super) sha256: String,
    pub(super) bytes: u64,
}

/// Finds the component among a manifest's layers.
///
/// # Errors
/// What is wrong with the manifest, and what to do about it.
pub(super) fn layer(text: &[u8]) -> Result<Layer, (String, &'static str)> {
    const PUSH: &str = "push it as `oras push IMAGE policy.wasm:application/wasm` does";
    let manifest: Manifest = serde_json::from_slice(text)
        .map_err(|error| (format!("its manifest cannot be read: {error}"), PUSH))?;
    if manifest.manifests.is_some() || manifest.media_type.contains("index") {
        let message = "it is an index of several artifacts".to_owned();
        return Err((message, "name the digest of the one that holds the component"));
    }
    let mut components = manifest.layers.iter().filter(|layer| COMPONENT_TYPES.contains(&&*layer.media_type));
    let (Some(layer), None) = (components.next(), components.next()) else {
        let types: Vec<&str> = manifest.layers.iter().take(4).map(|layer| &*layer.media_type).collect();
        let message =
            format!("it has not exactly one layer of type application/wasm, but [{}]", types.join(", "));
        return Err((message, PUSH));
    };
    let sha256 = layer.digest.strip_prefix("sha256:").filter(|hex| {
        hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    });
    let Some(sha256) = sha256 else {
        return Err(("its layer's digest is no sha256".to_owned(), PUSH));
    };
    Ok(Layer { sha256: sha256.to_owned(), bytes: layer.size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_component_is_found_and_anything_else_says_why() {
        let hex = "ab".repeat(32);
        let layer_of = |kind: &str| format!(r#"{{"mediaType":"{kind}","digest":"sha256:{hex}","size":7}}"#);
        let with = |layers: &[String]| format!(r#"{{"schemaVersion":2,"layers":[{}]}}"#, layers.join(","));
        let wasm = layer_of("application/wasm");
        let found = layer(with(&[layer_of("text/plain"), wasm.clone()]).as_bytes());
        assert_eq!(found, Ok(Layer { sha256: hex.clone(), bytes: 7 }));
        let odd = wasm.replace("sha256:", "md5:");
        for (text, why) in [
            (with(&[]), "exactly one"),
            (with(&[wasm.clone(), wasm.clone()]), "exactly one"),
            (with(&[layer_of("application/vnd.oci.image.layer.v1.tar+gzip")]), "tar+gzip"),
            (with(&[odd]), "sha256"),
            (r#"{"manifests":[]}"#.to_owned(), "index"),
            (r#"{"mediaType":"application/vnd.oci.image.index.v1+json"}"#.to_owned(), "index"),
            ("<html>".to_owned(), "cannot be read"),
        ] {
            let (message, remedy) = layer(text.as_bytes()).expect_err(&text);
            assert!(message.contains(why) && !remedy.is_empty(), "{message}");
        }
    }
}
