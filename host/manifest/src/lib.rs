//! The custom resources and their meaning.
//!
//! [`decode`] reads manifests into typed objects, [`bundle`] keeps them, [`lower`] makes of them what the gateway runs on,
//! and says what is wrong. All of it is functions of values: no Kubernetes client, no runtime, no Wasm.

pub mod bundle;
pub mod condition;
pub mod crd;
pub mod decode;
pub mod kind;
pub mod lower;
pub mod object;
pub mod spelling;

pub use bundle::{Bundle, Change, ListedModel};
pub use decode::{Decoded, decode, decode_object};
pub use lower::{
    BUILTINS, LowerOptions, Lowered, ServiceDraft, lower, parse_base_url, parse_engine_url, policy_name,
};
pub use object::{Body, Kind, Object, ObjectKey, Source};
