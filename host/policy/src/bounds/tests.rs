use std::path::Path;

use super::*;

/// N7: the documentation lists every bound with its number and its cure, and no other.
#[test]
fn the_guide_lists_every_bound_as_it_is() {
    let guide =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/policy-guide.md"))
            .unwrap();
    let compiling = [
        (
            "CompileMemory",
            format!(
                "{} MiB, and {COMPILE_MEMORY_BYTES_PER_BYTE} bytes more for each byte of the component",
                COMPILE_MEMORY_BYTES_BASE >> 20
            ),
        ),
        (
            "CompileTime",
            format!(
                "{COMPILE_CPU_SECONDS_BASE} seconds of CPU time, and {COMPILE_CPU_SECONDS_PER_MIB} more for each MiB of the component"
            ),
        ),
        ("CompiledTooLarge", format!("{CODE_BYTES_MAX} bytes of code")),
    ];
    let rows = BOUNDS
        .iter()
        .map(|Bound { reason, what, max, cure }| format!("| `{reason}` | {max} {what} | {cure} |"))
        .chain(compiling.map(|(reason, bound)| format!("| `{reason}` | {bound} |")));
    let missing: Vec<String> = rows.filter(|row| !guide.contains(row.as_str())).collect();
    assert!(missing.is_empty(), "docs/policy-guide.md lacks:\n{}", missing.join("\n"));
    let in_table = guide.lines().filter(|line| line.starts_with("| `Too") && line.contains("Many")).count();
    let known = BOUNDS.iter().filter(|bound| bound.reason.starts_with("TooMany")).count();
    assert_eq!(in_table, known, "a bound that is gone is still listed");
}

/// N7: each bound is a reason of its own, and says what was found, what is allowed and what to do.
#[test]
fn each_bound_is_a_reason_of_its_own_with_the_number_found_and_a_cure() {
    let mut reasons: Vec<&str> = BOUNDS.iter().map(|bound| bound.reason).collect();
    reasons.sort_unstable();
    reasons.dedup();
    assert_eq!(reasons.len(), BOUNDS.len());
    for bound in BOUNDS {
        assert_eq!(bound.check(bound.max), Ok(()));
        let failure = bound.check(bound.max + 1).unwrap_err();
        assert_eq!(failure.reason, bound.reason);
        assert!(failure.message.contains(&(bound.max + 1).to_string()), "{failure}");
        assert!(failure.message.contains(&bound.max.to_string()), "{failure}");
        assert!(!failure.remedy.is_empty() && !failure.message.contains("valid component"), "{failure}");
    }
}

/// N8: what bounds a compilation is its own CPU time, and that lets large guests pass with room to spare: one of 12 MB takes
/// 24 s. The clock comes long after it.
#[test]
fn a_large_component_has_the_cpu_time_it_needs_and_the_clock_is_no_bound() {
    let large = CompileLimits::of(12 << 20);
    assert!(large.cpu_seconds >= 2 * 24, "{large:?}");
    assert!(CompileLimits::of(96 << 10).cpu_seconds < large.cpu_seconds);
    let most = CompileLimits::of(COMPONENT_BYTES_MAX);
    assert!(crate::library::COMPILE_DEADLINE_DEFAULT.as_secs() >= 5 * most.cpu_seconds, "{most:?}");
}
