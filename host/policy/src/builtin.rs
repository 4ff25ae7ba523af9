//! The components that were embedded when this was built.

/// Name and bytes, sorted by name. Empty when the components were not built first.
const EMBEDDED: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/builtin.rs"));

/// Names of the built-in policies, sorted.
pub fn names() -> impl Iterator<Item = &'static str> {
    EMBEDDED.iter().map(|(name, _)| *name)
}

/// The built-in policy of this name.
pub(crate) fn component(name: &str) -> Option<&'static [u8]> {
    EMBEDDED.iter().find(|(known, _)| *known == name).map(|(_, bytes)| *bytes)
}
