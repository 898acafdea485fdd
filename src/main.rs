//! The `latentr3` program.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use latentr3::cli::Cli;

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody may be reading; the exit code says it too.
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
