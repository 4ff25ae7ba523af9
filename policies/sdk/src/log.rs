//! Lines for the gateway's log, for people who look into a policy. Rate-limited, cut at 1 KiB; more than 16 lines in one call are
//! a fault. Natively they go to standard error, where a failing test shows them.

use crate::bindings::wicketgate::routing::host::Level;

/// One request's detail.
pub fn debug(message: &str) {
    line(Level::Debug, message);
}

/// A change worth knowing of.
pub fn info(message: &str) {
    line(Level::Info, message);
}

/// For the operator's list.
pub fn warn(message: &str) {
    line(Level::Warn, message);
}

/// Something is broken.
pub fn error(message: &str) {
    line(Level::Error, message);
}

#[cfg(target_arch = "wasm32")]
fn line(level: Level, message: &str) {
    crate::bindings::wicketgate::routing::host::log(level, message);
}

#[cfg(not(target_arch = "wasm32"))]
fn line(level: Level, message: &str) {
    eprintln!("{level:?}: {message}");
}
