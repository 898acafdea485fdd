//! The `latentr3` program.

use std::io::Write;
use std::process::ExitCode;

use latentr3::cli::{Cli, CliError};

fn main() -> ExitCode {
    match Cli::from_command_line().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let kind = if let CliError::Interrupted { .. } = error { "" } else { "error: " };
            // Nobody may be reading; the exit code says it too.
            let _ = writeln!(std::io::stderr(), "{kind}{error}");
            ExitCode::from(error.exit_code())
        }
    }
}
