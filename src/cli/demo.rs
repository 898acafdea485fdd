//! `latentr3 demo`.

use std::path::PathBuf;

use clap::Args;

use super::fit::{Display, report};
use super::interrupt::interrupted;
use super::model::warn_of_software;
use super::outputs::check_json;
use super::terminal::{is_quiet, print};
use super::{CliError, DeviceArg, SeedArg};
use crate::demo::DemoConfig;
use crate::outputs::check_free;
use crate::text;

/// Options of `demo`.
#[derive(Debug, Args)]
#[command(
    after_help = "The synthetic listeners alternate between two bands and go through each band's albums in order; one \
choice in ten is random. The next album therefore depends on the one before the last, which popularity cannot capture. \
The result is a folder for `recommend`, as `latentr3 fit` makes it from a file of orders."
)]
pub(super) struct DemoArgs {
    /// Folder to create [default: latentr3-demo, or latentr3-demo-2 and so on if that exists]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write the metrics of all models and the choice as JSON
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
    let config = DemoConfig { out: out.clone(), device: args.device.device.clone(), seed: args.seed.seed };
    let mut display = Display::default();
    let shop = config.carry_out(interrupted(), &mut |event| display.show(event));
    drop(display);
    report(shop, &out, args.json.as_deref())?;
    if is_quiet() { Ok(()) } else { print(text::AFTER_DEMO) }
}

fn free_folder() -> PathBuf {
    let names = std::iter::once("latentr3-demo".to_owned()).chain((2..).map(|i| format!("latentr3-demo-{i}")));
    names.map(PathBuf::from).find(|path| !path.exists()).expect("the names never end")
}
