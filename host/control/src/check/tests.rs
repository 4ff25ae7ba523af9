//! Real directories, fake policies.

use std::fs;

use super::*;
use crate::fake::{FakePrepare, PATIENCE, file_policy, gateway, service};

fn checked(text: &str, prepare: &FakePrepare, wait_max: Duration) -> Checked {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("all.yaml"), text).expect("written");
    check(dir.path(), Index::default(), prepare, wait_max)
}

fn with_policy(component: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("p.wasm");
    fs::write(&file, component).expect("written");
    let text = service("s", &["http://127.0.0.1:9"]) + &gateway("g", "s", &["p"]) + &file_policy("p", &file);
    (dir, text)
}

#[test]
fn a_good_directory_has_no_errors_and_says_what_it_amounts_to() {
    let (_policies, text) = with_policy("good");
    let checked = checked(&text, &FakePrepare::default(), PATIENCE);
    assert!(!checked.has_errors(), "{checked}");
    assert_eq!((checked.gateways, checked.routes, checked.endpoints), (1, 1, 1));
    assert!(checked.to_string().ends_with("1 gateways, 1 routes, 1 endpoints: 0 errors, 0 warnings\n"));
}

#[test]
fn errors_name_their_place_and_come_first() {
    let text = service("s", &["http://127.0.0.1:9"]) + &gateway("g", "nobody", &[]) + "---\n{{{\n";
    let checked = checked(&text, &FakePrepare::default(), PATIENCE);
    assert!(checked.has_errors());
    assert!(checked.count(Severity::Error) >= 2, "{checked}");
    assert!(checked.findings.is_sorted_by_key(|finding| std::cmp::Reverse(finding.severity)));
    assert!(checked.findings.iter().all(|finding| &*finding.origin.file == "all.yaml"), "{checked}");
}

#[test]
fn a_policy_that_does_not_load_is_an_error_with_a_remedy() {
    let (_policies, text) = with_policy("bad");
    let checked = checked(&text, &FakePrepare::default(), PATIENCE);
    let finding = checked.findings.first().expect("an error");
    assert_eq!((finding.reason, finding.remedy.as_str()), ("InvalidComponent", "write a better one"));
}

#[test]
fn a_policy_is_waited_for_and_one_that_takes_too_long_is_an_error() {
    let (_policies, text) = with_policy("slow");
    let late = checked(&text, &FakePrepare::default(), Duration::from_millis(10));
    assert!(late.has_errors(), "{late}");
    let prepare = FakePrepare::default();
    std::thread::scope(|scope| {
        let checking = scope.spawn(|| checked(&text, &prepare, PATIENCE));
        prepare.finish("slow");
        assert!(!checking.join().expect("no panic").has_errors());
    });
}

#[test]
fn a_directory_that_is_not_there_is_an_error() {
    let checked = check("/nowhere/at/all", Index::default(), &FakePrepare::default(), PATIENCE);
    assert!(checked.has_errors());
    assert_eq!((checked.gateways, checked.endpoints), (0, 0));
}
