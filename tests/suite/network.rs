//! Tests that need addresses of their own run again, alone, in a network namespace that has them.

use std::future::Future;
use std::process::Command;

/// Set in the process that is inside.
const INSIDE: &str = "WICKETGATE_TEST_NETWORK";

/// Runs `test` where `addresses` exist. `name` is that of the test function, with its module.
///
/// Fails where namespaces are not permitted, rather than not running the test.
pub(crate) fn with_addresses<F: Future<Output = ()>>(name: &str, addresses: &[&str], test: fn() -> F) {
    if std::env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        return runtime.expect("a runtime").block_on(test());
    }
    let mut script = String::from("ip link set lo up");
    for address in addresses {
        script += &format!(" && ip addr add {address}/32 dev lo");
    }
    script += " && exec \"$0\" --exact \"$1\" --nocapture --test-threads 1";
    let exe = std::env::current_exe().expect("a path");
    let inside = |rights: &[&str]| {
        Command::new("unshare")
            .args(rights)
            .args(["--net", "--", "sh", "-c", &script])
            .arg(&exe)
            .arg(name)
            .env(INSIDE, "1")
            .output()
            .expect("`unshare` and `ip` (util-linux, iproute2) are installed")
    };
    // Root may make a namespace; anybody else only as root of a user namespace.
    let can = |rights: &[&str]| {
        Command::new("unshare").args(rights).args(["--net", "true"]).status().is_ok_and(|s| s.success())
    };
    let rights: &[&str] = if can(&[]) { &[] } else { &["--map-root-user"] };
    assert!(
        can(rights),
        "this test needs a network namespace of its own, and `unshare --net` is not permitted"
    );
    let output = inside(rights);
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "in a network namespace:\n{said}");
}
