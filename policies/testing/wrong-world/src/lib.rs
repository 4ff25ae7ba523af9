//! A proper component that is no routing policy: it exports a function of another world.

mod bindings {
    #![allow(unsafe_code, missing_docs, unreachable_pub, unused_qualifications, dead_code, clippy::all)]
    wit_bindgen::generate!({
        inline: "package testing:other@1.0.0; world other { export answer: func() -> u32; }",
    });
    #[cfg(target_arch = "wasm32")]
    export!(Other with_types_in self);

    pub(super) struct Other;
}

impl bindings::Guest for bindings::Other {
    fn answer() -> u32 {
        42
    }
}
