//! The whole method on synthetic data small enough for a laptop's CPU.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde_json::json;

use super::evaluate::figures;
use super::model::load_model;

use super::interrupt::interrupted;
use super::outputs::{check_free, check_json, write_json};
use super::run_display::RunDisplay;
use super::terminal::{duration, is_quiet, print};
use super::{CliError, DeviceArg, SeedArg};
use crate::data::synthetic::write_listeners;
use crate::data::{PrepareConfig, Prepared, Split, prepare};
use crate::eval::{EvalConfig, Evaluation, Shard, evaluate, sample};
use crate::models::backbone::{Architecture, BackboneConfig, NewBackbone};
use crate::models::decode::BeamConfig;
use crate::models::hub::{self, write_atomically};
use crate::models::{LatentRecommender, ThoughtKind, device};
use crate::run::{RunContext, RunDescription, RunEvent, StageConfig, start, tokenizer_asset};
use crate::train::grpo::GrpoConfig;
use crate::train::{Schedule, Temperature, TrainConfig, World};

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
    let clock = Instant::now();
    let out = args.out.clone().unwrap_or_else(free_folder);
    device(&args.device.device)?;
    check_free(&out)?;
    check_json(args.json.as_deref())?;
    let say = |text: &str| if is_quiet() { Ok(()) } else { print(&format!("{text}\n")) };
    let [data, prepared_folder, base] = ["data", "prepared", "base"].map(|name| out.join(name));
    write_listeners(&data, args.seed.seed)?;
    let config = PrepareConfig {
        data,
        out: prepared_folder.clone(),
        domain: "albums".into(),
        vocab_size: 512,
        ..Default::default()
    };
    let summary = prepare(&config)?;
    let prepared = Prepared::load(&prepared_folder)?;
    say(&format!(
        "{} listeners, {} albums, {} training rows",
        summary.users, summary.items, summary.splits.train.rows
    ))?;
    make_base(&base, &prepared, args)?;

    let [plain, thinking, reinforced] = ["sft-plain", "sft-thought", "grpo"].map(|name| out.join(name));
    let sft = TrainConfig {
        epochs: 6,
        batch: 32,
        learning_rate: 3e-3,
        warmup: Some(20),
        schedule: Schedule::Cosine,
        patience: None,
        seed: args.seed.seed,
        ..Default::default()
    };
    let grpo = TrainConfig { batch: 8, validations: 2, seed: args.seed.seed, ..GrpoConfig::train_defaults() };
    let (source, temperature) = (ThoughtKind::LatentAttention, Temperature::default());
    let relative = GrpoConfig { sigma_relative: Some(0.3), ..Default::default() };
    let stages = [
        (
            &plain,
            &base,
            StageConfig::Sft {
                thoughts: 0,
                source,
                temperature,
                lora: None,
                regularization: Default::default(),
                augmentation: Default::default(),
            },
            &sft,
        ),
        (
            &thinking,
            &base,
            StageConfig::Sft {
                thoughts: 1,
                source,
                temperature,
                lora: None,
                regularization: Default::default(),
                augmentation: Default::default(),
            },
            &sft,
        ),
        (&reinforced, &thinking, StageConfig::Grpo { config: relative }, &grpo),
    ];
    let mut last = None;
    for (run, model, stage, train) in stages {
        let description = RunDescription::new(stage, model, &prepared_folder, &args.device.device, train.clone());
        let name = description.stage.name();
        let mut display = RunDisplay::new(name, true);
        let mut observer = |event: RunEvent| display.show(event);
        let mut context = RunContext { world: &World::alone(), interrupted: interrupted(), observer: &mut observer };
        let outcome = start(description, run, &mut context).map_err(|error| CliError::of_run(error, name, ""))?;
        display.end(&outcome);
        last = outcome.best_step;
    }

    let rows = sample(prepared.rows.get(Split::Test), None, 0);
    let rank = |run: &Path| -> Result<Evaluation, CliError> {
        let model = load_model(run, &args.device.device)?;
        let objective = prepared.objective(model.objective())?;
        let config = EvalConfig { beam: BeamConfig::default(), batch: 32, shard: Shard::WHOLE };
        Ok(evaluate(&model, &prepared, &objective, &rows, config, &mut |_, _| {})?)
    };
    let [plain_figures, thinking_figures, reinforced_figures] = [rank(&plain)?, rank(&thinking)?, rank(&reinforced)?];
    let table = [
        ("popularity", &plain_figures.popularity),
        ("SFT", &plain_figures.by_item),
        ("SFT with a thought", &thinking_figures.by_item),
        ("LatentR3 (SFT, then GRPO)", &reinforced_figures.by_item),
    ];
    let seconds = clock.elapsed().as_secs_f64();
    say(&format!("\n{} test listeners:\n{}", rows.len(), figures(&table).trim_end()))?;
    if last == Some(0) {
        say("(no step of GRPO was better on validation than its start, which is the SFT model)")?;
    }
    say(&format!("everything is in {}, made in {}", out.display(), duration(seconds)))?;
    let result = json!({
        "out": out,
        "seed": args.seed.seed,
        "users": rows.len(),
        "seconds": seconds,
        "models": table.iter().map(|(name, ranking)| (name.to_string(), json!(ranking))).collect::<serde_json::Map<_, _>>(),
    });
    write_json(Some(&out.join("demo.json")), &result)?;
    write_json(args.json.as_deref(), &result)
}

fn free_folder() -> PathBuf {
    let names = std::iter::once("latentr3-demo".to_owned()).chain((2..).map(|i| format!("latentr3-demo-{i}")));
    names.map(PathBuf::from).find(|path| !path.exists()).expect("the names never end")
}

fn make_base(folder: &Path, prepared: &Prepared, args: &DemoArgs) -> Result<(), CliError> {
    let config = BackboneConfig::new(&NewBackbone {
        architecture: Architecture::Qwen2,
        vocab_size: prepared.vocab_size,
        d_model: 64,
        d_ff: 192,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        max_positions: 1024,
        end_token: prepared.end_token,
    })?;
    let model =
        LatentRecommender::new(config, ThoughtKind::LatentAttention, 1, args.seed.seed, &device(&args.device.device)?)?;
    hub::save(&model, folder)?;
    let (name, content) = tokenizer_asset(&prepared.tokenizer)?;
    Ok(write_atomically(&folder.join(name), &content)?)
}
