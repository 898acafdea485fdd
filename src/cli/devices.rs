use std::path::PathBuf;
use std::process::Command;

use clap::Args;

use super::CliError;
use super::outputs::{check_json, write_json};
use super::terminal::{is_quiet, print, tell};
use crate::devices::{Examination, examine_apart};
use crate::models::{ModelError, compiled_backends};
use crate::text;

/// Options of `devices`.
#[derive(Debug, Args)]
#[command(
    after_help = "The check runs all operations of training and decoding on a small model, forward and backward, and \
compares the results with PyTorch's in float64. If a device supports 16 bits (--precision), their errors are printed \
as well. Each device is checked in a process of its own, because a broken driver may crash it. The exit code is 1 if a \
device fails. docs/which-backend.md lists what works."
)]
pub(super) struct DevicesArgs {
    /// Devices to list, named as for --device [default: all that are compiled in]
    #[arg(value_name = "DEVICE")]
    names: Vec<String>,
    /// Verify what each device computes
    #[arg(long)]
    check: bool,
    /// Use this golden folder for the check instead of the built-in one
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
        if args.check {
            tell(&format!("checking {name}"));
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
