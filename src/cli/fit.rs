//! `latentr3 fit`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::interrupt::interrupted;
use super::model::warn_of_software;
use super::outputs::{check_json, write_json};
use super::terminal::{Progress, is_quiet, print, tell};
use super::{CliError, DeviceArg, SeedArg};
use crate::fit::{FitConfig, FitEvent, Shop, fit};
use crate::outputs::check_free;
use crate::run::{RunError, RunEvent};
use crate::text;
use crate::train::Event;

/// Options of `fit`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example: latentr3 fit --data orders.csv --items items.csv --domain products --out shop
         latentr3 recommend --model shop --history-id SKU-1
         latentr3 fit --from shop --data newer.csv --out shop-2

Columns are detected by name and content and printed; options override them. The newest rows validate and test: by \
time if the column has real dates over more than a month, else each user's last two interactions. Item transitions, \
SASRec and a language model are trained within the time limit. The one with the best NDCG@10 on \
validation users, or a simpler one that trails by no more than the standard error, is retrained on all data.")]
pub(super) struct FitArgs {
    #[command(flatten)]
    config: FitConfig,
    /// Resume the work in this folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["data", "out", "domain", "model", "exclude_history", "RawConfig", "DeviceArg", "SeedArg"])]
    resume: Option<PathBuf>,
    /// Time limit in minutes [default: 30; with --resume, the original one, which starts anew]
    #[arg(long)]
    minutes: Option<f64>,
    /// Write the metrics of all models and the choice as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    seed: SeedArg,
}

pub(super) fn run(args: &FitArgs) -> Result<(), CliError> {
    warn_of_software(&args.device.device)?;
    check_json(args.json.as_deref())?;
    let FitConfig { data, out, .. } = &args.config;
    let mut config = match &args.resume {
        Some(folder) => FitConfig::read(folder)?,
        None if [data, out].iter().any(|path| path.as_os_str().is_empty()) => {
            return Err(CliError::Usage("give --data and --out, or --resume".into()));
        }
        None => {
            check_free(out)?;
            let mut config =
                FitConfig { device: args.device.device.clone(), seed: args.seed.seed, ..args.config.clone() };
            // Of --from a shop's folder and a date are told apart by what lies there.
            config.from = config.raw.from.take_if(|from| Shop::is_one(Path::new(from))).map(PathBuf::from);
            config
        }
    };
    config.minutes = args.minutes.unwrap_or(config.minutes);
    let mut display = Display::default();
    let shop = fit(&config, interrupted(), &mut |event| display.show(event));
    drop(display);
    report(shop, &config.out, args.json.as_deref())
}

/// Says what came out.
pub(super) fn report(shop: Result<Shop, RunError>, out: &Path, json: Option<&Path>) -> Result<(), CliError> {
    let shop = shop.map_err(|error| CliError::of_fit(error, out))?;
    write_json(json, &shop)?;
    if is_quiet() { Ok(()) } else { print(&text::of_shop(&shop, out)) }
}

/// What is shown meanwhile.
#[derive(Default)]
pub(super) struct Display {
    label: String,
    progress: Option<Progress>,
}

impl Display {
    fn advance(&mut self, label: String, [done, all]: [usize; 2], unit: &str) {
        if self.label != label || self.progress.is_none() {
            // The one before is finished first.
            self.progress = None;
            self.progress = Some(Progress::new(&label));
            self.label = label;
        }
        if let Some(progress) = &mut self.progress {
            progress.advance(done as u64, all as u64, 0, unit);
        }
    }

    fn say(&mut self, line: &str) {
        self.progress = None;
        tell(line);
    }

    pub(super) fn show(&mut self, event: FitEvent) {
        match event {
            FitEvent::Training(stage, RunEvent::Training(Event::Step { step, steps, .. })) => {
                self.advance(format!("training {stage}"), [step, steps], "steps (may stop early)")
            }
            FitEvent::Training(_, RunEvent::Training(_) | RunEvent::Ready { .. }) => {}
            FitEvent::Ranking { model, split, done, all } => {
                self.advance(format!("ranking with {model} on {}", split.name()), [done, all], "users")
            }
            event => self.say(&text::of_fit_event(&event)),
        }
    }
}
