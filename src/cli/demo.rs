//! `latentr3 demo`.

use std::path::PathBuf;

use clap::Args;

use super::interrupt::interrupted;
use super::model::warn_of_software;
use super::outputs::{check_json, write_json};
use super::run_display::RunDisplay;
use super::terminal::{duration, is_quiet, print};
use super::{CliError, DeviceArg, SeedArg};
use crate::demo::{DemoConfig, DemoEvent, DemoRankings};
use crate::outputs::check_free;
use crate::text;

/// Options of `demo`.
#[derive(Debug, Args)]
#[command(
    after_help = "The synthetic listeners alternate between two bands and go through each band's albums in order; one choice in ten is random. \
What comes next therefore depends on the last choice but one, which popularity cannot know."
)]
pub(super) struct DemoArgs {
    /// Folder to make; the first free of latentr3-demo, latentr3-demo-2, ... if not given
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write the table as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    seed: SeedArg,
}

pub(super) fn run(args: &DemoArgs) -> Result<(), CliError> {
    let out = args.out.clone().unwrap_or_else(free_folder);
    warn_of_software(&args.device.device)?;
    check_free(&out)?;
    check_json(args.json.as_deref())?;
    let say = |text: &str| if is_quiet() { Ok(()) } else { print(&format!("{text}\n")) };
    let config = DemoConfig { out: out.clone(), device: args.device.device.clone(), seed: args.seed.seed };
    let (mut stage, mut display) = ("", RunDisplay::new("", true));
    let mut said = Ok(());
    let result = config.carry_out(interrupted(), &mut |event| match event {
        DemoEvent::Prepared(summary) => {
            let (users, items, rows) = (summary.users, summary.items, summary.splits.train.rows);
            said = say(&format!("{users} listeners, {items} albums, {rows} training rows"));
        }
        DemoEvent::Begun(config) => {
            stage = config.name();
            display = RunDisplay::new(stage, true);
        }
        DemoEvent::Run(event) => display.show(event),
        DemoEvent::Done(outcome) => display.end(outcome),
    });
    let result = result.map_err(|error| CliError::of_run(error, stage, ""))?;
    said?;
    drop(display);
    let DemoRankings { popularity, plain, thinking, reinforced } = &result.models;
    let table = [
        ("popularity", popularity),
        ("SFT", plain),
        ("SFT with a thought", thinking),
        ("LatentR3 (SFT, then GRPO)", reinforced),
    ];
    say(&format!("\n{} test listeners:\n{}", result.users, text::of_rankings(&table).trim_end()))?;
    if result.best_step == Some(0) {
        say("(no step of GRPO was better on validation than its start, which is the SFT model)")?;
    }
    say(&format!("everything is in {}, made in {}", out.display(), duration(result.seconds)))?;
    write_json(args.json.as_deref(), &result)
}

fn free_folder() -> PathBuf {
    let names = std::iter::once("latentr3-demo".to_owned()).chain((2..).map(|i| format!("latentr3-demo-{i}")));
    names.map(PathBuf::from).find(|path| !path.exists()).expect("the names never end")
}
