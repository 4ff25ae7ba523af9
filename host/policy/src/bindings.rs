//! The contract `wit/routing.wit` as Rust types and calls. Generated, nothing else.

// What the macro generates carries the contract's own comments and none for its own functions.
#![allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "routing-policy",
    ownership: Borrowing { duplicate_if_necessary: false },
    imports: { "wicketgate:routing/host@0.1.0": trappable },
});
