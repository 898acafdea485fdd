//! The `latentr3` program.

use std::process::ExitCode;

use latentr3::cli::{Cli, say};

/// A step frees what the next one needs again; this allocator keeps it, where the system's often gives it back and has
/// to get it anew, page by page.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match Cli::from_command_line().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
