//! The `latentr3` program.

use std::process::ExitCode;

use latentr3::cli::{Cli, say};

fn main() -> ExitCode {
    match Cli::from_command_line().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
