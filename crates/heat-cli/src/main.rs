//! `heat`: which inputs should a classifier not be trusted on?

mod args;
mod commands;
mod export;
mod progress;

use std::process::ExitCode;

use clap::Parser;

use args::{Cli, Command};
use progress::Progress;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut progress = Progress::new(cli.quiet);
    match run(&cli, &mut progress) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress.clear();
            // A closed pipe (`heat score … | head`) is not a failure.
            if commands::is_broken_pipe(&error) {
                return ExitCode::SUCCESS;
            }
            eprintln!("error: {error:#}");
            ExitCode::from(commands::exit_code(&error))
        }
    }
}

fn run(cli: &Cli, progress: &mut Progress) -> anyhow::Result<()> {
    if let Some(threads) = cli.threads {
        heat_ood::math::parallel::set_threads(threads)?;
    }
    match &cli.command {
        Command::Quickstart(args) => commands::quickstart::run(args, progress),
        Command::Train(args) => commands::train::run(args, progress),
        Command::Fit(args) => commands::fit::run(args, progress),
        Command::Compose(args) => commands::compose::run(args, progress),
        Command::Eval(args) => commands::eval::run(args, progress),
        Command::Score(args) => commands::score::run(args, progress),
        Command::Info(args) => commands::info::run(args),
    }
}
