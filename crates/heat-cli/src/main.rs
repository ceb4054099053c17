//! `heat`: which inputs should a classifier not be trusted on?

mod args;
mod commands;
mod download;
mod export;
mod progress;
mod report;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use heat_ood::Error;

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
            // The library's errors name their causes; others are chained.
            let text = match error.downcast_ref::<heat_ood::Error>() {
                Some(error) => error.to_string(),
                None => format!("{error:#}"),
            };
            let _ = writeln!(std::io::stderr(), "error: {text}");
            ExitCode::from(commands::exit_code(&error))
        }
    }
}

fn run(cli: &Cli, progress: &mut Progress) -> anyhow::Result<()> {
    if let (None, Ok(text)) = (cli.threads, std::env::var("HEAT_NUM_THREADS")) {
        let problem = "expected a number of threads, 1 to 1024";
        let threads =
            text.parse().map_err(|_| Error::config("HEAT_NUM_THREADS", &text, problem))?;
        heat_ood::math::parallel::set_threads(threads)?;
    }
    if let Some(threads) = cli.threads {
        heat_ood::math::parallel::set_threads(threads)?;
    }
    match &cli.command {
        Command::Quickstart(args) => commands::quickstart::run(args, progress),
        Command::Train(args) => commands::train::run(args, progress),
        Command::Sweep(args) => commands::sweep::run(args, progress),
        Command::Fit(args) => commands::fit::run(args, progress),
        Command::Compose(args) => commands::compose::run(args, progress),
        Command::Eval(args) => commands::eval::run(args, progress),
        Command::Report(args) => commands::report::run(args, progress),
        Command::Select(args) => commands::select::run(args, progress),
        Command::Calibrate(args) => commands::calibrate::run(args, progress),
        Command::Score(args) => commands::score::run(args, progress),
        Command::Watch(args) => commands::watch::run(args, progress),
        Command::Export(args) => commands::export_torch::run(args, progress),
        Command::Import(args) => commands::import_torch::run(args, progress),
        Command::Info(args) => commands::info::run(args),
        Command::Extract(args) => commands::extract::run(args, progress),
        Command::Backbone(command) => commands::backbone::run(command, progress),
        Command::Run(args) => commands::run::run(args, progress),
        Command::Doctor => commands::backbone::doctor(),
        Command::Convert(args) => commands::convert::run(args, progress),
        Command::Data(command) => commands::data::run(command, progress),
    }
}
