use super::*;

/// C1: what would make a compiler run out of memory or time is refused by its structure, with the bound's own reason.
#[test]
fn each_hostile_structure_is_refused_by_its_bound_before_anything_compiles_it() {
    let mut kinds = 0;
    for bomb in bombs::all() {
        let (_, found) = survey(&bomb.component);
        let reason = found.as_ref().err().map(|failure| failure.reason);
        assert_eq!(reason, bomb.bound, "{}: {found:?}", bomb.name);
        kinds += 1;
    }
    assert!(kinds >= 30, "{kinds}");
}

/// C1: each of them passes for a policy otherwise: it is the bound that refuses it.
#[test]
fn what_no_bound_refuses_would_be_compiled() {
    for bomb in bombs::all().into_iter().filter(|bomb| bomb.bound.is_none()) {
        assert!(inspect(&bomb.component).is_ok(), "{}", bomb.name);
    }
}

/// N7: names out of a component are cut where they are shown.
#[test]
fn a_message_does_not_repeat_a_component_at_length() {
    let names: Vec<String> = (0..1_000).map(|at| format!("{at}{}", "ä".repeat(1_000))).collect();
    let shown = super::names(&names);
    assert!(shown.len() < 2_000 && shown.ends_with("and 988 more"), "{shown}");
    assert!(invalid("x".repeat(10_000)).message.len() < 1_000);
    let import = check_import(&format!("wasi:{}", "x".repeat(10_000))).unwrap_err();
    assert!(import.message.len() < 400 && import.remedy.contains("--stub-wasi"), "{import}");
}

/// A module's own bytes decide nothing: half a component is none.
#[test]
fn garbage_and_halves_are_no_components_and_do_no_harm() {
    let whole = bombs::named("60000-branch-targets").component;
    for length in [0, 4, 8, 9, 20, whole.len() / 2, whole.len() - 1] {
        assert!(inspect(&whole[..length]).is_err(), "{length} bytes");
    }
}
