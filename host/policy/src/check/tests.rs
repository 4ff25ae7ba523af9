use std::fs;

use super::*;
use crate::testing::{LIBRARY, component};

fn checked(name: &str, config: &str) -> Check {
    check(&LIBRARY, &fs::read(component(name)).unwrap(), config)
}

#[test]
fn a_good_policy_shows_its_outside_itself_and_its_probe() {
    let check = checked("prefix-hash", "{}");
    assert_eq!(check.failure, None);
    let inspection = check.inspection.unwrap();
    assert_eq!(inspection.interface_version, "0.1.0");
    assert!(
        inspection.imports.iter().all(|import| import.starts_with("wicketgate:routing/")),
        "{inspection:?}"
    );
    assert!(inspection.functions > 0 && inspection.function_bytes_max < inspect::FUNCTION_BYTES_MAX);
    let description = check.description.unwrap();
    assert_eq!(description.name, "prefix-hash");
    assert!(description.config_schema.contains("properties"));
    assert!(check.probed.unwrap().answers[0].contains("Scores"));
}

#[test]
fn a_policy_that_does_not_load_shows_as_much_as_is_known() {
    let refused = checked("testing/hostile", r#"{"behaviour":"refuse-config"}"#);
    assert_eq!(refused.failure.unwrap().reason, "ConfigRejected");
    assert_eq!(refused.description.unwrap().name, "hostile", "it came as far as describing itself");
    assert_eq!(refused.probed, None);
    let ungranted = checked("testing/ungranted-import", "{}");
    assert_eq!(ungranted.failure.unwrap().reason, "ImportNotGranted");
    let imports = ungranted.inspection.unwrap().imports;
    assert!(imports.iter().any(|import| import.starts_with("wasi:clocks/")), "{imports:?}");
    assert_eq!(ungranted.description, None);
    let nonsense = check(&LIBRARY, b"nonsense", "{}");
    assert_eq!(nonsense.inspection, None);
    assert_eq!(nonsense.failure.unwrap().reason, "InvalidComponent");
}

#[test]
fn a_command_line_names_a_file_or_a_built_in_policy() {
    assert_eq!(open(Path::new("round-robin")).unwrap(), fs::read(component("round-robin")).unwrap());
    assert_eq!(open(&component("testing/hostile")).unwrap(), fs::read(component("testing/hostile")).unwrap());
    assert!(open(Path::new("no-such")).unwrap_err().remedy.contains("round-robin"));
    assert!(open(Path::new("no-such.wasm")).unwrap_err().message.contains("no-such.wasm"));
}

/// N7: `policy check` does not advise `policy check`.
#[test]
fn no_remedy_of_a_check_is_another_check() {
    for config in [r#"{"behaviour":"refuse-config"}"#, r#"{"behaviour":"loop"}"#, r#"{"behaviour":"panic"}"#]
    {
        let failure = checked("testing/hostile", config).failure.unwrap();
        assert!(!failure.remedy.is_empty() && !failure.remedy.contains("policy check"), "{failure:?}");
    }
}
