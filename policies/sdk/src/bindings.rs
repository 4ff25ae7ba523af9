//! The contract of `wit/routing.wit` as Rust types: generated, nothing else. The records compile for the host target too, so
//! that a policy's tests handle the very values its component will.
#![allow(unsafe_code, missing_docs, unreachable_pub, unused_qualifications, clippy::all)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "routing-policy",
    pub_export_macro: true,
    export_macro_name: "export_component",
    default_bindings_module: "wicketgate_sdk::bindings",
    additional_derives: [PartialEq],
});
