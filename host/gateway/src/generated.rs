//! What is made of the command line's own description: completions for shells, and manual pages.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Command, CommandFactory as _};

use crate::args::{Cli, CompletionsArgs, ManArgs};

/// `wicketgate completions SHELL`: the script, on standard output.
pub(crate) fn completions(args: &CompletionsArgs) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "wicketgate", &mut script);
    print(&script)
}

/// `wicketgate man`: one page on standard output, or all in a directory.
pub(crate) fn man(args: &ManArgs) -> anyhow::Result<ExitCode> {
    let mut root = Cli::command();
    root.build();
    let Some(directory) = &args.out else {
        let path: Vec<&str> = args.command.iter().map(String::as_str).collect();
        let command = path.iter().try_fold(&root, |command, name| command.find_subcommand(name));
        let command = command.with_context(|| format!("there is no command {:?}", path.join(" ")))?;
        let name = [&["wicketgate"], &path[..]].concat().join("-");
        return print(&page(command.clone(), &name)?);
    };
    std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    write_pages(&root, "wicketgate", directory)?;
    Ok(ExitCode::SUCCESS)
}

/// The page of a command and of all below it.
fn write_pages(command: &Command, name: &str, directory: &Path) -> anyhow::Result<()> {
    let file = directory.join(format!("{name}.1"));
    std::fs::write(&file, page(command.clone(), name)?).with_context(|| file.display().to_string())?;
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        write_pages(below, &format!("{name}-{}", below.get_name()), directory)?;
    }
    Ok(())
}

fn page(command: Command, name: &str) -> anyhow::Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command).title(name.to_uppercase()).render(&mut page)?;
    Ok(page)
}

/// A reader that stopped listening is not an error.
fn print(bytes: &[u8]) -> anyhow::Result<ExitCode> {
    let _ = std::io::stdout().lock().write_all(bytes);
    Ok(ExitCode::SUCCESS)
}
