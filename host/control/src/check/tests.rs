//! Real directories, fake policies.

use std::fs;

use domain::finding::Finding;

use super::*;
use crate::fake::{FakePrepare, PATIENCE, file_policy, gateway, service};

fn checked(text: &str, prepare: &FakePrepare, wait_max: Duration) -> Checked {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("all.yaml"), text).expect("written");
    check(&[Manifests::Path(dir.path().to_owned())], Index::default(), prepare, wait_max)
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
    assert!(checked.to_string().ends_with("1 gateway, 1 route, 1 endpoint: 0 errors, 0 warnings\n"));
}

#[test]
fn errors_name_their_place_and_come_first() {
    let text = service("s", &["http://127.0.0.1:9"]) + &gateway("g", "nobody", &[]) + "---\n{{{\n";
    let checked = checked(&text, &FakePrepare::default(), PATIENCE);
    assert!(checked.has_errors());
    assert!(checked.count(Severity::Error) >= 2, "{checked}");
    assert!(checked.findings.is_sorted_by_key(|finding| std::cmp::Reverse(finding.severity)));
    assert!(checked.findings.iter().all(|finding| finding.origin.file.ends_with("/all.yaml")), "{checked}");
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
    let checked = check(
        &[Manifests::Path("/nowhere/at/all".into())],
        Index::default(),
        &FakePrepare::default(),
        PATIENCE,
    );
    assert!(checked.has_errors());
    assert_eq!((checked.gateways, checked.endpoints), (0, 0));
}

/// N11: files, directories and texts are checked together, and findings name the path that leads to each.
#[test]
fn files_directories_and_texts_are_checked_together() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("one.yaml");
    fs::write(&file, gateway("g", "s", &[])).expect("written");
    fs::create_dir(dir.path().join("below")).expect("a directory");
    fs::write(dir.path().join("below/bad.yaml"), "{{{").expect("written");
    let text = service("s", &["http://127.0.0.1:9"]);
    let all = [
        Manifests::Path(file.clone()),
        Manifests::Path(dir.path().join("below")),
        Manifests::Text("<stdin>".into(), text.into_bytes()),
        Manifests::Path(dir.path().join("none.yaml")),
    ];
    let checked = check(&all, Index::default(), &FakePrepare::default(), PATIENCE);
    assert_eq!((checked.gateways, checked.routes, checked.endpoints), (1, 1, 1), "{checked}");
    let places: Vec<&str> = checked.findings.iter().map(|finding| &*finding.origin.file).collect();
    let path = |name: &str| dir.path().join(name).display().to_string();
    assert_eq!(places, [path("below/bad.yaml"), path("none.yaml")], "{checked}");
}

/// N4: what is not read is said, and a directory without any manifest is not a success.
#[test]
fn what_is_not_read_is_said() {
    let dir = tempfile::tempdir().expect("a directory");
    let all = [Manifests::Path(dir.path().to_owned())];
    let reasons = || {
        let checked = check(&all, Index::default(), &FakePrepare::default(), PATIENCE);
        let found = |finding: &Finding| (finding.severity, finding.reason, finding.origin.file.to_string());
        checked.findings.iter().map(found).collect::<Vec<_>>()
    };
    let path = |name: &str| dir.path().join(name).display().to_string();
    assert_eq!(reasons(), [(Severity::Error, "NoManifests", dir.path().display().to_string())]);
    fs::create_dir_all(dir.path().join("a/b")).expect("directories");
    let good = service("s", &["http://127.0.0.1:9"]);
    for name in [
        "a/b/deep.yaml",
        "x.yml.txt",
        "Y.YAML",
        "a/z.yaml1",
        "old.yaml.bak",
        "b.yaml~",
        ".hidden.yaml",
        "README.md",
    ] {
        fs::write(dir.path().join(name), "{").expect("written");
    }
    fs::write(dir.path().join("good.yaml"), good).expect("written");
    let not_read = |name: &str| (Severity::Warning, "NotRead", path(name));
    assert_eq!(reasons(), ["Y.YAML", "a/b", "a/z.yaml1", "x.yml.txt"].map(not_read));
}
