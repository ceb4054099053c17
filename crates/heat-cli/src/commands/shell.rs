//! `heat completions` and `heat man`: the grammar for shells and readers of manuals.

use std::path::Path;

use anyhow::Result;
use clap::{Command, CommandFactory};
use clap_mangen::Man;
use heat_ood::Error;

use super::{outputs::write_bytes, wrote};
use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::progress::Progress;

pub fn completions(args: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "heat", &mut script);
    write_bytes(None, &script)
}

/// One page a command, as `man heat-train` looks for them.
pub fn man(args: &ManArgs, progress: &mut Progress) -> Result<()> {
    let directory = &args.directory;
    std::fs::create_dir_all(directory).map_err(Error::io("create", directory))?;
    let mut command = Cli::command();
    command.build();
    let pages = pages(directory, &command, "heat")?;
    wrote(progress, directory);
    progress.say(&format!("{pages} pages; `man -l {}`", directory.join("heat.1").display()));
    Ok(())
}

fn pages(directory: &Path, command: &Command, name: &str) -> Result<usize> {
    let mut page = Vec::new();
    Man::new(command.clone())
        .title(name)
        .render(&mut page)
        .map_err(Error::io("write", directory))?;
    write_bytes(Some(&directory.join(format!("{name}.1"))), &page)?;
    let mut count = 1;
    for part in command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
        count += pages(directory, part, &format!("{name}-{}", part.get_name()))?;
    }
    Ok(count)
}
