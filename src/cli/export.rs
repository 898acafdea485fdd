use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::CliError;
use super::terminal::{is_quiet, print};
use crate::run::export_tensorboard;

/// Options of `export`.
#[derive(Debug, Args)]
#[command(after_help = "`tensorboard --logdir RUNS` then shows all runs in the folder RUNS.\n\n\
Example: latentr3 export tensorboard run-sft run-grpo")]
pub(super) struct ExportArgs {
    /// Format: tensorboard, event files for TensorBoard, trackio and aim
    #[arg(value_enum)]
    form: Form,
    /// Run folders
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// Write to DIR/NAME-OF-THE-RUN instead of RUN/tensorboard
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Form {
    Tensorboard,
}

pub(super) fn run(args: &ExportArgs) -> Result<(), CliError> {
    let Form::Tensorboard = args.form;
    let mut folders: Vec<PathBuf> = Vec::new();
    for run in &args.runs {
        let name = run.canonicalize().ok().and_then(|run| run.file_name().map(PathBuf::from));
        let folder = match (&args.out, name) {
            (Some(out), Some(name)) => out.join(name),
            (Some(_), None) => return Err(CliError::Usage(format!("{}: no such run", run.display()))),
            (None, _) => run.join("tensorboard"),
        };
        if folders.contains(&folder) {
            let problem = "two of the runs have the same name, which --out cannot tell apart; export them one by one";
            return Err(CliError::Usage(problem.into()));
        }
        folders.push(folder);
    }
    for (run, folder) in args.runs.iter().zip(&folders) {
        let (file, values) = export_tensorboard(run, folder)?;
        if !is_quiet() {
            print(&format!("{} ({values} values)\n", file.display()))?;
        }
    }
    Ok(())
}
