//! What surrounds the demo: the line of progress, and what is said first.

use std::process::Output;

use harness::fleet::soon;
use harness::gateway::root;
use tokio::process::Command;

async fn run(program: &str, args: &[&str]) -> Output {
    let mut command = Command::new(root().join(program));
    command.args(args).current_dir(root()).kill_on_drop(true);
    soon(program, command.output()).await.expect("it runs")
}

fn texts(output: &Output) -> [String; 2] {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// D3: a line per step without a terminal, and nothing of what the compiler says.
#[tokio::test]
async fn a_step_is_a_line_at_its_start_and_one_at_its_end() {
    let script = "for i in 1 2 3; do echo \"   Compiling crate-$i v1\" >&2; done";
    let output = run("tests/demo/step.sh", &["[1/3] policies", "sh", "-c", script]).await;
    let [out, err] = texts(&output);
    assert!(output.status.success() && err.is_empty(), "{err}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "[1/3] policies ...");
    assert!(lines[1].starts_with("[1/3] policies: done after ") && lines.len() == 2, "{lines:?}");
}

/// D3: what a step that fails said is shown whole, and its exit code is handed on.
#[tokio::test]
async fn a_step_that_fails_shows_all_that_it_said() {
    let script = "echo \"error[E0308]: mismatched types\" >&2; echo more; exit 101";
    let output = run("tests/demo/step.sh", &["build", "sh", "-c", script]).await;
    let [_, err] = texts(&output);
    assert_eq!(output.status.code(), Some(101));
    assert!(
        err.contains("build: failed after ") && err.ends_with("error[E0308]: mismatched types\nmore\n"),
        "{err}"
    );
}

/// D3: the demo says first what happens, how long it takes and what comes next.
#[tokio::test]
async fn the_demo_begins_with_what_happens_and_how_long_it_takes() {
    let [said, _] = texts(&run("tests/demo/announce.sh", &[]).await);
    for expected in ["2,400 requests", "minute", "75 seconds", "three tables"] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    let recipe = makefile.split("\ndemo:").nth(1).expect("a target").lines().nth(1).expect("a first line");
    assert_eq!(recipe, "\t@tests/demo/announce.sh");
}
