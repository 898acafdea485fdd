use std::path::PathBuf;

use clap::Args;

use super::model::warn_of_software;
use super::terminal::{is_quiet, note, print, tell};
use super::{CliError, DeviceArg, SeedArg};
use crate::models::files::write_atomically;
use crate::outputs::check_writable;
use crate::report::{Report, ReportConfig, ReportEvent, is_page};

/// Options of `report`.
#[derive(Debug, Args)]
#[command(
    after_help = "The page is self-contained: open it in any browser, print it, send it. A run folder includes its \
evaluations; add results that `latentr3 evaluate --json` wrote elsewhere.\n\n\
Example: latentr3 report run-sft run-grpo --out report.html"
)]
pub(super) struct ReportArgs {
    /// Run folders, shop folders, and results of `latentr3 evaluate --json`
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// HTML file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Prepared data, for popularity and example prompts [default: where the first run found it]
    #[arg(long, value_name = "PREPARED")]
    data: Option<PathBuf>,
    /// Test prompts whose attention is shown, drawn at random by --seed; 0 for none, which needs no model
    #[arg(long, value_name = "N", default_value_t = 3)]
    examples: usize,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    seed: SeedArg,
}

pub(super) fn run(args: &ReportArgs) -> Result<(), CliError> {
    check_writable(&args.out, &is_page)?;
    if args.examples > 0 {
        warn_of_software(&args.device.device)?;
    }
    let config = ReportConfig {
        runs: args.runs.clone(),
        data: args.data.clone(),
        examples: args.examples,
        device: args.device.device.clone(),
        seed: args.seed.seed,
    };
    let Report { html, runs, evaluations } = config.make(&mut |event| match event {
        ReportEvent::LookingInto { prompts, run } => {
            tell(&format!("report: computing attention for {prompts} prompts with {}", run.display()))
        }
        ReportEvent::NoView(error) => note(&format!("report: {error}")),
    })?;
    write_atomically(&args.out, html.as_bytes())?;
    match is_quiet() {
        true => Ok(()),
        false => print(&format!("{} (runs: {runs}, evaluations: {evaluations})\n", args.out.display())),
    }
}
