use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use super::CliError;
use super::outputs::{check_json, write_json};
use super::terminal::{is_quiet, note, print};
use crate::devices::{Examination, examine_apart};
use crate::models::{ModelError, compiled_backends};
use crate::text;

/// Options of `devices`.
#[derive(Debug, Args)]
#[command(
    after_help = "The check runs a small model through everything that training and decoding do, forward and backward, and compares \
with what PyTorch computed in float64; where a device computes in 16 bits (--precision), how far those are off is printed, too. \
Each device runs in a process of its own, for a broken driver may take its process with it. The program ends with code 1 if \
a device fails. What works and what does not: docs/which-backend.md."
)]
pub(super) struct DevicesArgs {
    /// Devices to list, as `--device` takes them elsewhere; all that are compiled in if none is given
    #[arg(value_name = "DEVICE")]
    names: Vec<String>,
    /// Check each device
    #[arg(long)]
    check: bool,
    /// Check with this golden folder instead of the built-in one
    #[arg(long, value_name = "DIR", requires = "check")]
    golden: Option<PathBuf>,
    /// Write the table as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Report on one device in this process, as a JSON line
    #[arg(long, hide = true)]
    in_process: bool,
}

pub(super) fn run(args: &DevicesArgs) -> Result<(), CliError> {
    check_json(args.json.as_deref())?;
    let names = match args.names.is_empty() {
        true => compiled_backends().into_iter().map(str::to_owned).collect(),
        false => args.names.clone(),
    };
    if args.in_process {
        let examination = Examination { check: args.check, golden: args.golden.clone() };
        let report = names.first().map(|name| examination.of(name)).transpose()?;
        return print(&format!("{}\n", serde_json::to_string(&report).expect("a report can be written as JSON")));
    }
    let mut reports = Vec::new();
    for name in &names {
        if args.check && !is_quiet() {
            note(&format!("checking {name}"));
        }
        reports.push(examine_apart(name, args.in_process_command(name)?)?);
    }
    write_json(args.json.as_deref(), &reports)?;
    if !is_quiet() {
        print(&text::of_devices(&reports, args.check))?;
    }
    let failed: Vec<&str> =
        reports.iter().filter(|report| report.problem.is_some()).map(|report| report.device.as_str()).collect();
    match failed.is_empty() {
        true => Ok(()),
        false => Err(CliError::NotUsable(failed.join(", "))),
    }
}

impl DevicesArgs {
    /// The command that reports on a device in a process of its own.
    fn in_process_command(&self, name: &str) -> Result<Command, CliError> {
        let failed = |source| ModelError::Io { path: "this program".into(), source };
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.args(["devices", "--in-process", name]).args(self.check.then_some("--check"));
        if let Some(golden) = &self.golden {
            command.arg("--golden").arg(golden);
        }
        Ok(command)
    }
}
