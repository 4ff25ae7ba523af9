//! The one place in this repository that is `unsafe`: using machine code that another process wrote.

use wasmtime::Engine;
use wasmtime::component::Component;

use super::artifact::Sealed;

/// The component whose code this is.
///
/// # Errors
/// When the code was made for another engine, or is larger than this one has room for.
#[expect(
    unsafe_code,
    reason = "code that runs cannot be checked by looking at it; it comes from our own compiler, see below"
)]
pub(super) fn load(engine: &Engine, code: &Sealed) -> wasmtime::Result<Component> {
    // SAFETY: the file must hold what `Engine::precompile_component` returned, and must not change while it is mapped.
    // A `Sealed` is a file without a name that only our own program was given, started by us from our own binary; its
    // digest is keyed with a secret that only that process had; and its seals let nothing write to it. The engine checks
    // version, target and settings itself.
    unsafe { Component::deserialize_file(engine, code.path()) }
}
