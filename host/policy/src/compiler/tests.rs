use super::*;

/// A process that ended like this: by a signal below 256, or with a code above.
fn ended(status: i32, said: &str) -> Result<Report, CompileError> {
    judge(Ok((ExitStatus::from_raw(status), None, said.as_bytes().to_vec())), CompileLimits::of(1_000))
}

/// C1: the finding says which limit it was, by how the process ended and not by what it said.
#[test]
fn how_the_process_ended_says_which_limit_it_met() {
    let cases = [
        (Signal::XCPU.as_raw(), "CompileTime", "25 seconds"),
        (Signal::ABORT.as_raw(), "CompileMemory", "bytes of memory"),
        (Signal::XFSZ.as_raw(), "CompiledTooLarge", "bytes"),
        (Signal::KILL.as_raw(), "CompilerFailed", "signal: 9"),
        (Signal::SEGV.as_raw(), "CompilerFailed", "signal: 11"),
        (1 << 8, "CompilerFailed", "exit status: 1"),
        (0, "CompilerFailed", "nonsense"),
    ];
    for (status, reason, words) in cases {
        let error = ended(status, "nonsense").expect_err("it failed");
        let refusal = error.refusal();
        assert_eq!(refusal.reason, reason);
        assert!(refusal.message.contains(words), "{refusal}");
        assert!(error.may_pass() && !refusal.remedy.is_empty());
    }
    let invalid = ended(0, r#"{"invalid":"at offset 8"}"#).unwrap();
    assert!(matches!(invalid, Report::Invalid(error) if error == "at offset 8"));
}

#[test]
fn without_a_process_nothing_is_compiled_and_the_finding_says_so() {
    let (engine, reservation) = crate::engine::engine(1).unwrap();
    let compiler = Compiler::Process("/nowhere/wicketgate".into());
    let component = b"\0asm\x0d\0\x01\0";
    let Err(error) = compiler.compile(component, (&engine, reservation), &Leash::default()) else {
        panic!("compiled by nothing")
    };
    assert_eq!(error.refusal().reason, "CompilerUnavailable");
    let leash = Leash::default();
    leash.cut(Cut::Unwanted);
    let Err(error) = compiler.compile(component, (&engine, reservation), &leash) else {
        panic!("it was not wanted any more")
    };
    assert!(matches!(error, CompileError::Cut(Cut::Unwanted)), "{error}");
}
