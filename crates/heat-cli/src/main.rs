//! `heat`: which inputs should a classifier not be trusted on?

fn main() -> std::process::ExitCode {
    heat_cli::run(std::env::args_os())
}
