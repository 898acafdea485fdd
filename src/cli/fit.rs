//! `latentr3 fit`.

use std::path::{Path, PathBuf};

use clap::Args;

use super::interrupt::interrupted;
use super::model::warn_of_software;
use super::outputs::{check_json, write_json};
use super::prepare::RawArgs;
use super::terminal::{Progress, is_quiet, note, print};
use super::{CliError, DeviceArg, SeedArg};
use crate::data::Splits;
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

Columns are found by parts of their names and by their content; what was found is shown, and each can be named. The newest rows \
validate and test: by time where the dates are real ones over more than a month, else each user's last two choices. Counts of \
item transitions, SASRec and a language model are trained within the time, and the one with the best NDCG@10 on validation users \
is trained once more on everything.")]
pub(super) struct FitArgs {
    /// Folder of the data, or a file of interactions (see `latentr3 prepare --help`)
    #[arg(long, value_name = "PATH", required_unless_present = "resume")]
    data: Option<PathBuf>,
    /// Folder to make
    #[arg(long, value_name = "DIR", required_unless_present = "resume")]
    out: Option<PathBuf>,
    /// Go on with the work in this folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["data", "out", "model"])]
    resume: Option<PathBuf>,
    /// Minutes that it may take; with --resume from now on
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// A pretrained language model to fine-tune: Hugging Face folder or run folder [default: a small one from random
    /// weights]
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// What the items are, as the prompt calls them
    #[arg(long, default_value = "items")]
    domain: String,
    /// Recommend again what a user has chosen before
    #[arg(long)]
    repeat_history: bool,
    /// Write the models' figures and the choice as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    raw: RawArgs,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    seed: SeedArg,
}

pub(super) fn run(args: &FitArgs) -> Result<(), CliError> {
    warn_of_software(&args.device.device)?;
    check_json(args.json.as_deref())?;
    let config = match &args.resume {
        Some(folder) => FitConfig { minutes: args.minutes, ..FitConfig::read(folder)? },
        None => {
            let out = args.out.clone().unwrap_or_default();
            check_free(&out)?;
            FitConfig {
                data: args.data.clone().unwrap_or_default(),
                raw: args.raw.config(),
                domain: args.domain.clone(),
                out,
                minutes: args.minutes,
                model: args.model.clone(),
                exclude_history: !args.repeat_history,
                device: args.device.device.clone(),
                seed: args.seed.seed,
            }
        }
    };
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
        if !is_quiet() {
            note(line);
        }
    }

    pub(super) fn show(&mut self, event: FitEvent) {
        match event {
            FitEvent::Training(stage, RunEvent::Training(Event::Step { step, steps, .. })) => {
                self.advance(format!("training {stage}"), [step, steps], "steps at most")
            }
            FitEvent::Training(stage, RunEvent::Warning(text)) => self.say(&format!("warning: {stage}: {text}")),
            FitEvent::Training(..) => {}
            FitEvent::Ranking { model, split, done, all } => {
                self.advance(format!("ranking by {model} on {}", split.name()), [done, all], "users")
            }
            FitEvent::Guessed(raw) => self.say(&text::of_columns(raw)),
            FitEvent::Prepared(summary) => {
                let Splits { train, valid, test } = Splits::make(|split| summary.splits.get(split).rows);
                let (users, items) = (summary.users, summary.items);
                self.say(&format!("{users} users, {items} items; {train} rows train, {valid} validate, {test} test"));
            }
            FitEvent::Ranked(model, split, figures) => self.say(&format!(
                "{model} on {} {} users: NDCG@10 {:.4}, HR@10 {:.4}",
                figures.users,
                split.name(),
                figures.ndcg_10,
                figures.hr_10
            )),
            FitEvent::LeftOut(model, why) => self.say(&format!("{model} is left out: {why}")),
            FitEvent::Chosen(model, why) => self.say(&format!("chosen: {model}, for {why}")),
            FitEvent::Refitting => self.say("the chosen model once more, on everything"),
            FitEvent::NotRefitted(why) => self.say(&format!("the chosen model is not trained on everything: {why}")),
        }
    }
}
