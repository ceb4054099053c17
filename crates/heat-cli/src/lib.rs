//! The command `heat`, and what it writes: [`report`]s for people, [`export`]s of results and
//! scores. Both take what `heat_ood` returns, so that other front ends can write the same.

pub mod export;
pub mod report;

mod args;
mod commands;
mod download;
mod invocation;
mod progress;
#[cfg(unix)]
mod truncated;
mod words;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use heat_ood::Error;
use heat_ood::math::parallel;

use args::{Cli, Command};
use commands::watch::Alarmed;
use progress::Progress;

/// Run the command with these arguments, of which the first is the program's name. It reads and
/// writes the standard streams, and answers Ctrl-C.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    run_as(Vec::new(), args)
}

/// The same in another program, such as Python: `program` are the words that start this command
/// once more, as a sweep does for each of its runs.
pub fn run_as(program: Vec<OsString>, args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    invocation::remember(program, &args);
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        // Help is such an "error" too; with nobody left to read it, the exit code still tells.
        Err(mut error) => {
            words::explain(&mut error, &args);
            words::tame(&mut error);
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    #[cfg(unix)]
    truncated::explain();
    let mut progress = Progress::new(cli.quiet);
    let Err(error) = dispatch(&cli, &mut progress) else {
        return ExitCode::SUCCESS;
    };
    progress.clear();
    // A closed pipe (`heat score … | head`) is not a failure.
    if is_broken_pipe(&error) {
        return ExitCode::SUCCESS;
    }
    // The library's errors name their causes; others are chained.
    let text = match error.downcast_ref::<Error>() {
        Some(error) => words::with_help(error.to_string()),
        None => format!("{error:#}"),
    };
    let _ = writeln!(std::io::stderr(), "error: {text}");
    ExitCode::from(exit_code(&error))
}

fn dispatch(cli: &Cli, progress: &mut Progress) -> anyhow::Result<()> {
    if let Some(threads) = threads(cli)? {
        parallel::set_threads(threads)?;
    }
    heat_ood::math::check_instruction_set()?;
    if let Some(bytes) = cli.memory {
        heat_ood::io::set_memory_limit(bytes);
    }
    heat_ood::io::set_mapping(!cli.no_mmap);
    commands::set_label_column(cli.label_column.as_deref());
    match &cli.command {
        Command::Quickstart(args) => commands::quickstart::run(args, progress),
        Command::Train(args) => commands::train::run(args, progress),
        Command::Sweep(args) => commands::sweep::run(args, progress),
        Command::Fit(args) => commands::fit::run(args, progress),
        Command::Merge(args) => commands::merge::run(args, progress),
        Command::Compose(args) => commands::compose::run(args, progress),
        Command::Eval(args) => commands::eval::run(args, progress),
        Command::Report(args) => commands::report::run(args, progress),
        Command::Auto(args) => commands::auto::run(args, progress),
        Command::Select(args) => commands::select::run(args, progress),
        Command::Calibrate(args) => commands::calibrate::run(args, progress),
        Command::Score(args) => commands::score::run(args, progress),
        Command::Watch(args) => commands::watch::run(args, progress),
        #[cfg(feature = "serve")]
        Command::Serve(args) => commands::serve::run(args, cli.threads, cli.memory, progress),
        #[cfg(feature = "serve")]
        Command::Token(args) => commands::serve::token(args, progress),
        #[cfg(not(feature = "serve"))]
        Command::Serve(_) => {
            let problem = "this build has no server: `cargo build --release -p heat-cli --features \
                           serve` makes one that has; released programs and wheels have it";
            Err(Error::config("serve", "", problem).into())
        }
        Command::Export(args) => commands::export_torch::run(args, progress),
        Command::Import(args) => commands::import_torch::run(args, progress),
        Command::Info(args) => commands::info::run(args),
        Command::Extract(args) => commands::extract::run(args, progress),
        Command::Backbone(command) => commands::backbone::run(command, progress),
        Command::Run(args) => commands::run::run(args, progress),
        Command::Doctor => commands::backbone::doctor(),
        Command::Convert(args) => commands::convert::run(args, progress),
        Command::Scorers(args) => commands::scorers_list::run(args),
        Command::Completions(args) => commands::shell::completions(args),
        Command::Man(args) => commands::shell::man(args, progress),
        Command::Data(command) => commands::data::run(command, progress),
    }
}

/// As given, or by the environment.
fn threads(cli: &Cli) -> heat_ood::Result<Option<usize>> {
    let Ok(text) = std::env::var("HEAT_NUM_THREADS") else { return Ok(cli.threads) };
    if cli.threads.is_some() {
        return Ok(cli.threads);
    }
    let problem = "expected a number of threads, 1 to 1024";
    let number = text.parse().map_err(|_| Error::config("HEAT_NUM_THREADS", &text, problem))?;
    Ok(Some(number))
}

/// 2 for settings that cannot be understood, 3 for an alarm, 130 after Ctrl-C or a termination signal, 1 for
/// everything else.
fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<Alarmed>() {
        return 3;
    }
    match error.downcast_ref::<Error>() {
        _ if progress::interrupted() => progress::INTERRUPTED,
        Some(Error::Unknown { .. } | Error::Config { .. }) => 2,
        _ => 1,
    }
}

/// Whether the reader of our output has gone.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|e| e.downcast_ref::<std::io::Error>());
    io.is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
