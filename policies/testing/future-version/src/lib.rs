//! A routing policy built against a version of the contract that does not exist: the host must say so before it compiles.

mod bindings {
    #![allow(unsafe_code, missing_docs, unreachable_pub, unused_qualifications, dead_code, clippy::all)]
    wit_bindgen::generate!({
        inline: "package wicketgate:routing@9.0.0;
                 interface policy { describe: func() -> string; }
                 world routing-policy { export policy; }",
    });
    #[cfg(target_arch = "wasm32")]
    export!(Future with_types_in self);

    pub(super) struct Future;
}

impl bindings::exports::wicketgate::routing::policy::Guest for bindings::Future {
    fn describe() -> String {
        "from the future".into()
    }
}
