use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, CommandFactory};

use super::error::INTERRUPTED;
use super::interrupt::{interrupted, is_terminated, terminate};
use super::terminal::{is_quiet, note, print, tell};
use super::{Cli, CliError, DeviceArg};
use crate::experiment::{ExperimentRequest, PlannedExperiment, Program, StepEvent};
use crate::models::ModelError;
use crate::text;

/// Options of `experiment`.
#[derive(Debug, Args)]
#[command(
    after_help = "A step is skipped if its result exists, and so are the steps that only it needs. A result counts \
only if it is from the same command, inputs and preceding steps. If the program is stopped, rerun the same command: \
training steps resume from their last checkpoint, others start over."
)]
pub(super) struct ExperimentArgs {
    /// Experiment file (TOML)
    file: PathBuf,
    /// Folder in which steps write their models and data; may be deleted at any time
    #[arg(long, value_name = "DIR", default_value = "experiments/work")]
    work: PathBuf,
    /// Folder for results [default: one named after the file, in `results` beside it]
    #[arg(long, value_name = "DIR")]
    results: Option<PathBuf>,
    /// Input that the experiment needs, as NAME=PATH
    #[arg(long, value_name = "NAME=PATH", value_parser = input)]
    input: Vec<(String, String)>,
    /// Run only the result steps whose names contain PART, and what they need; can be repeated
    #[arg(long, value_name = "PART", allow_hyphen_values = true)]
    only: Vec<String>,
    /// Stop after this many minutes, if need be in the middle of a step
    #[arg(long, value_name = "MINUTES", value_parser = minutes)]
    minutes: Option<f64>,
    /// Print what the experiment is about, the remaining steps and the tables of existing results; run nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    device: DeviceArg,
}

fn input(text: &str) -> Result<(String, String), String> {
    let (name, path) = text.split_once('=').ok_or_else(|| format!("`{text}` is not NAME=PATH"))?;
    let path = std::path::absolute(path).map_err(|error| error.to_string())?;
    Ok((name.into(), path.to_string_lossy().into_owned()))
}

fn minutes(text: &str) -> Result<f64, String> {
    let minutes = text.parse().ok().filter(|minutes| (0.0..1e6).contains(minutes));
    minutes.ok_or_else(|| "must be a number of minutes from 0 to a million".into())
}

pub(super) fn run(args: &ExperimentArgs) -> Result<(), CliError> {
    let request = ExperimentRequest {
        file: args.file.clone(),
        work: args.work.clone(),
        results: args.results.clone(),
        inputs: args.input.clone(),
        only: args.only.clone(),
    };
    let planned = request.plan(&understood)?;
    if args.dry_run {
        print(&text::of_experiment(&planned.experiment))?;
        for step in planned.due() {
            print(&format!("{}: latentr3 {}\n", step.name, step.command.join(" ")))?;
        }
    } else {
        carry_out(args, &planned)?;
    }
    let show = |text: &str| if is_quiet() && !args.dry_run { Ok(()) } else { print(text) };
    for table in planned.tables()? {
        show(&format!("{table}\n"))?;
    }
    let charts = if args.dry_run { Vec::new() } else { planned.write_charts()? };
    charts.iter().try_for_each(|chart| show(&format!("{}: {}\n", chart.title, chart.file.display())))
}

fn carry_out(args: &ExperimentArgs, planned: &PlannedExperiment) -> Result<(), CliError> {
    let mut observer = |event: StepEvent| tell(&text::of_step_event(&event));
    let mut program = Program {
        path: std::env::current_exe().map_err(ModelError::io(Path::new("latentr3")))?,
        interrupted_code: INTERRUPTED,
        device: args.device.device.clone(),
        takes_device,
        // From here on Ctrl-C, which a step gets too, lets it save what it did. A request to end is passed on.
        interrupted: interrupted(),
        stop: |step| {
            if is_terminated() {
                terminate(step);
            }
        },
        terminate,
        observer: &mut observer,
    };
    let end = args.minutes.map(|minutes| Instant::now() + Duration::from_secs_f64(60.0 * minutes));
    if !planned.carry_out(&mut program, end)? {
        note("time limit reached; rerun the command to resume");
    }
    Ok(())
}

/// Refuses what the program does not understand, and an experiment as a step of one.
fn understood(words: &[String]) -> Result<(), String> {
    let line = std::iter::once("latentr3").chain(words.iter().map(String::as_str));
    match Cli::parser().try_get_matches_from(line) {
        Ok(command) if command.subcommand_name() == Some("experiment") => Err("is an experiment itself".into()),
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string().lines().next().unwrap_or_default().replacen("error: ", "", 1)),
    }
}

/// Whether the command of these words computes somewhere.
fn takes_device(words: &[String]) -> bool {
    let program = Cli::command();
    let command = words.iter().fold(&program, |command, word| command.find_subcommand(word).unwrap_or(command));
    command.get_arguments().any(|argument| argument.get_long() == Some("device"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::experiment::OF_A_NEW_SASREC;

    #[test]
    fn every_option_of_a_new_sasrec_is_left_out_when_it_goes_on() {
        let cli = Cli::command();
        let sasrec = cli.find_subcommand("baseline").and_then(|command| command.find_subcommand("sasrec")).unwrap();
        let recipe = sasrec.get_groups().find(|group| group.get_id() == "RecipeArgs").unwrap();
        let options: Vec<String> = recipe.get_args().map(|id| format!("--{id}")).collect();
        assert_eq!(options, OF_A_NEW_SASREC);
    }
}
