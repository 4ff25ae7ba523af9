//! The custom resources and their meaning.
//!
//! [`decode`] reads manifests into typed objects, [`bundle`] keeps them, [`lower`] makes of them what the gateway runs on,
//! and says what is wrong. All of it is functions of values: no Kubernetes client, no runtime, no Wasm.

pub mod crd;
pub mod kind;
