//! Whether we are where this suite may run, and what `inside.sh` left there.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

/// Where the API server of the shared control plane listens.
pub const API_SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Panics outside the private namespace: there the addresses of this suite would lead to somebody else's network, or
/// nowhere.
pub fn assert_inside() {
    let marked = std::env::var("WICKETGATE_CLUSTER").as_deref() == Ok("inside");
    let local = TcpListener::bind((API_SERVER, 0)).is_ok();
    assert!(
        marked && local,
        "the cluster suite runs only in a network of its own: `make test-cluster`, or one test with \
         `make test-cluster TEST=NAME`"
    );
}

/// A folder in memory that goes with the namespace.
pub fn scratch() -> PathBuf {
    variable("WICKETGATE_CLUSTER_RUN")
}

/// The binary `name` that `binaries.sh` built. `KUBEBUILDER_ASSETS` goes first for what it has.
pub fn program(name: &str) -> PathBuf {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(|folder| PathBuf::from(folder).join(name));
    match assets.filter(|path| path.exists()) {
        Some(path) => path,
        None => variable("WICKETGATE_CLUSTER_BIN").join(name),
    }
}

fn variable(name: &str) -> PathBuf {
    assert_inside();
    PathBuf::from(std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set; inside.sh sets it")))
}
