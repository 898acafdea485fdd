//! The whole method on synthetic data small enough for a laptop's CPU.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::data::synthetic::write_listeners;
use crate::data::{PrepareConfig, Prepared, Split, Summary, prepare};
use crate::eval::{EvalConfig, Evaluation, Ranking, Shard, evaluate, sample};
use crate::models::backbone::Architecture;
use crate::models::decode::BeamConfig;
use crate::models::files::write_json;
use crate::models::{ThoughtKind, device};
use crate::run::{
    InitRequest, ModelOrigin, ModelSizes, RunContext, RunDescription, RunError, RunEvent, RunOutcome, StageConfig,
    TOKENIZER_FILE, load_model, start,
};
use crate::train::grpo::GrpoConfig;
use crate::train::{Schedule, Temperature, TrainConfig, World};

/// Users searched for at once.
const BATCH: usize = 32;

/// A demonstration: synthetic listeners, a small model, both stages, and an evaluation of each.
#[derive(Debug, Clone)]
pub struct DemoConfig {
    /// The folder to make.
    pub out: PathBuf,
    /// Where to compute.
    pub device: String,
    /// Seed of everything random.
    pub seed: u64,
}

/// What happens in a demonstration.
#[derive(Debug)]
pub enum DemoEvent<'a> {
    /// The data is prepared.
    Prepared(&'a Summary),
    /// A run of a stage begins.
    Begun(&'a StageConfig),
    /// Something happens in the run.
    Run(RunEvent<'a>),
    /// The run is done.
    Done(&'a RunOutcome),
}

/// What a demonstration comes to; `demo.json` in its folder holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DemoResult {
    /// The folder.
    pub out: PathBuf,
    /// Seed of everything random.
    pub seed: u64,
    /// Test listeners.
    pub users: usize,
    /// Seconds that it took.
    pub seconds: f64,
    /// How well each model ranks their albums.
    pub models: DemoRankings,
    /// The step of stage 2 with the best validation; 0 for its start.
    #[serde(skip)]
    pub best_step: Option<usize>,
}

/// How well each model of a demonstration ranks the test listeners' albums.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DemoRankings {
    /// Albums by how often they were chosen in training.
    pub popularity: Ranking,
    /// Stage 1 without a thought.
    #[serde(rename = "SFT")]
    pub plain: Ranking,
    /// Stage 1 with one.
    #[serde(rename = "SFT with a thought")]
    pub thinking: Ranking,
    /// Stage 2.
    #[serde(rename = "LatentR3 (SFT, then GRPO)")]
    pub reinforced: Ranking,
}

impl DemoConfig {
    /// Makes everything; `interrupted` ends it in the middle of a run.
    ///
    /// # Errors
    ///
    /// No such device, a folder that is in use or cannot be written, and [`RunError::Interrupted`].
    pub fn carry_out(
        &self,
        interrupted: &AtomicBool,
        observer: &mut dyn FnMut(DemoEvent),
    ) -> Result<DemoResult, RunError> {
        let clock = Instant::now();
        device(&self.device)?;
        let [data, prepared_folder, base] = ["data", "prepared", "base"].map(|name| self.out.join(name));
        write_listeners(&data, self.seed)?;
        let config = PrepareConfig {
            data,
            out: prepared_folder.clone(),
            domain: "albums".into(),
            vocab_size: 512,
            ..Default::default()
        };
        observer(DemoEvent::Prepared(&prepare(&config)?));
        let prepared = Prepared::load(&prepared_folder)?;
        self.make_base(&base, &prepared_folder)?;

        let [plain, thinking, reinforced] = ["sft-plain", "sft-thought", "grpo"].map(|name| self.out.join(name));
        let (sft, grpo) = self.training();
        let (source, temperature) = (ThoughtKind::LatentAttention, Temperature::default());
        let (regularization, augmentation) = Default::default();
        let of_stage_1 =
            |thoughts| StageConfig::Sft { thoughts, source, temperature, lora: None, regularization, augmentation };
        let relative = GrpoConfig { sigma_relative: Some(0.3), ..Default::default() };
        let stages = [
            (&plain, &base, of_stage_1(0), &sft),
            (&thinking, &base, of_stage_1(1), &sft),
            (&reinforced, &thinking, StageConfig::Grpo { config: relative }, &grpo),
        ];
        let mut best_step = None;
        for (run, model, stage, train) in stages {
            observer(DemoEvent::Begun(&stage));
            let description = RunDescription::new(stage, model, &prepared_folder, &self.device, train.clone());
            let mut of_run = |event: RunEvent| observer(DemoEvent::Run(event));
            let mut context = RunContext { world: &World::alone(), interrupted, observer: &mut of_run };
            let outcome = start(description, run, &mut context)?;
            observer(DemoEvent::Done(&outcome));
            best_step = outcome.best_step;
        }

        let [plain, thinking, reinforced] =
            [self.rank(&plain, &prepared)?, self.rank(&thinking, &prepared)?, self.rank(&reinforced, &prepared)?];
        let result = DemoResult {
            out: self.out.clone(),
            seed: self.seed,
            users: plain.users,
            seconds: clock.elapsed().as_secs_f64(),
            models: DemoRankings {
                popularity: plain.popularity,
                plain: plain.by_item,
                thinking: thinking.by_item,
                reinforced: reinforced.by_item,
            },
            best_step,
        };
        write_json(&self.out.join("demo.json"), &result)?;
        Ok(result)
    }

    /// How stage 1 and stage 2 train.
    fn training(&self) -> (TrainConfig, TrainConfig) {
        let sft = TrainConfig {
            epochs: 6,
            batch: 32,
            learning_rate: 3e-3,
            warmup: Some(20),
            schedule: Schedule::Cosine,
            patience: None,
            seed: self.seed,
            ..Default::default()
        };
        (sft, TrainConfig { batch: 8, validations: 2, seed: self.seed, ..GrpoConfig::train_defaults() })
    }

    fn make_base(&self, folder: &Path, prepared: &Path) -> Result<(), RunError> {
        let sizes = ModelSizes {
            architecture: Architecture::Qwen2,
            d_model: 64,
            d_ff: 192,
            layers: 2,
            heads: 4,
            kv_heads: 2,
            max_positions: 1024,
        };
        let tokenizer = prepared.join(TOKENIZER_FILE);
        let request = InitRequest {
            out: folder.to_owned(),
            origin: ModelOrigin::Random { tokenizer, end_token: None, sizes },
            thoughts: None,
            device: self.device.clone(),
            seed: self.seed,
        };
        request.carry_out().map(drop)
    }

    fn rank(&self, run: &Path, prepared: &Prepared) -> Result<Evaluation, RunError> {
        let rows = sample(prepared.rows.get(Split::Test), None, 0);
        let model = load_model(run, &self.device)?;
        let objective = prepared.objective(model.objective())?;
        let config = EvalConfig { beam: BeamConfig::default(), batch: BATCH, shard: Shard::WHOLE };
        Ok(evaluate(&model, prepared, &objective, &rows, config, &mut |_, _| {})?)
    }
}
