//! A training run from its description: the same code starts and resumes all stages.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::augmented::Augmented;
use super::carry_out::{RunContext, RunEvent, RunOutcome, carry_out};
use super::description::{RunData, RunDescription, RunPlace, StageConfig};
use super::error::RunError;
use super::guidance::GuideSource;
use super::held_out::{HeldOut, TrainRows};
use super::item_guide::item_guide;
use super::model_folder::{
    absolute, check_device, check_fit, lasting, load_rounded_model, model_folder, tokenizer_asset, weight_files,
};
use super::recorded::{check_data, damage, differences, from_json, to_json};
use crate::data::{Prepared, Split};
use crate::eval::sample;
use crate::input_error::InputError;
use crate::models::{LatentRecommender, LoraConfig, ThoughtKind, device, hub};
use crate::train::grpo::{self, freeze_untrained};
use crate::train::sft::Sft;
use crate::train::{Example, Found, RunFolder, RunPaths, Stage, TrainConfig};

/// What may change when a run resumes. What is absent stays as it was.
#[derive(Debug, Clone, Default)]
pub struct Resumption {
    /// Where the data lies now, if it was moved.
    pub data: Option<PathBuf>,
    /// Another device to compute on.
    pub device: Option<String>,
    /// To compute activations again from now on.
    pub gradient_checkpointing: bool,
    /// Another number of rows that run at once.
    pub micro_batch: Option<usize>,
    /// Another number of steps to end after.
    pub max_steps: Option<usize>,
}

/// Starts a run in a new folder.
///
/// # Errors
///
/// Settings that make no sense, data or a model that cannot be read or do not fit, a folder that is in use, and
/// [`RunError::Interrupted`] where the run was stopped before its end.
pub fn start(mut description: RunDescription, out: &Path, context: &mut RunContext) -> Result<RunOutcome, RunError> {
    description.check()?;
    description.model = lasting(&description.model)?;
    description.data = absolute(&description.data);
    if let StageConfig::Grpo { config, .. } = &mut description.stage
        && let Some(guide) = config.items.as_mut().and_then(|items| items.guide.as_mut())
        && let GuideSource::SasRec(run) = GuideSource::from(guide.as_str())
    {
        *guide = absolute(&run).display().to_string();
    }
    check_device(&description.device, description.precision)?;
    check_device(&description.device, description.frozen_weights)?;
    let prepared = Prepared::load(&description.data)?;
    description.data_files = prepared.files().clone();
    if let StageConfig::Grpo { rows: TrainRows::HeldOut, held_out, .. } = &mut description.stage {
        *held_out = Some(held_out_before(&description.model, &description.data_files)?);
    }
    let mut data = run_data(&description, prepared)?;
    description.model_files = weight_files(&description.model)?;
    if data.train.is_empty() {
        return Err(RunError::NoExamples);
    }
    let model = start_model(&description)?;
    check_fit(&model, &description.model, &data.prepared)?;
    let objective = *description.objective.get_or_insert(model.objective());
    data.objective = data.objective.with_kind(objective)?;
    let model = model.with_objective(objective);
    let stage = build_stage(&description, &model, &data)?;
    let value = to_json(&description)?;
    let assets = vec![tokenizer_asset(&data.prepared.tokenizer)?];
    let run = context.world.is_root().then(|| RunFolder::create(out, &value, assets)).transpose()?;
    begin(&description, &data, RunPlace { folder: out, run }, context, stage.as_ref(), model)
}

impl RunDescription {
    /// What the run in a folder was asked for.
    ///
    /// # Errors
    ///
    /// It is no run folder, one of another kind of model ([`RunError::OtherStage`]), or damaged.
    pub fn read(folder: &Path) -> Result<Self, RunError> {
        let recorded = RunFolder::description(folder)?;
        if let Some(stage) = recorded["stage"].as_str() {
            return Err(RunError::OtherStage { run: folder.to_owned(), stage: stage.to_owned() });
        }
        let mut description: Self = from_json(folder, recorded)?;
        description.objective.get_or_insert_default();
        description.train.check()?;
        Ok(description)
    }

    /// [`read`](Self::read) of a run of the stage `stage`.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read); [`RunError::OtherStage`] for a run of another one.
    pub fn read_of(folder: &Path, stage: &str) -> Result<Self, RunError> {
        let recorded = Self::read(folder)?;
        match recorded.stage.name() {
            own if own == stage => Ok(recorded),
            own => Err(RunError::OtherStage { run: folder.to_owned(), stage: own.into() }),
        }
    }

    /// The run as it resumes, and whether it ends elsewhere than it would have.
    fn resumed(mut self, asked: &Resumption) -> Result<(Self, bool), RunError> {
        if let Some(data) = &asked.data {
            self.data = absolute(data);
        }
        if let Some(device) = &asked.device {
            self.device = device.clone();
        }
        let ends_elsewhere = asked.max_steps.is_some() && asked.max_steps != self.train.max_steps;
        let TrainConfig { gradient_checkpointing, micro_batch, max_steps, .. } = &mut self.train;
        *gradient_checkpointing |= asked.gradient_checkpointing;
        *micro_batch = asked.micro_batch.unwrap_or(*micro_batch);
        *max_steps = asked.max_steps.or(*max_steps);
        self.train.check()?;
        Ok((self, ends_elsewhere))
    }
}

/// Goes on with a run where its last checkpoint left it; nothing but the folder and the data is needed.
///
/// # Errors
///
/// As [`start`]; also a run that is damaged, whose data changed, or that has done more than it is to do.
pub fn resume(folder: &Path, asked: &Resumption, context: &mut RunContext) -> Result<RunOutcome, RunError> {
    let (description, ends_elsewhere) = RunDescription::read(folder)?.resumed(asked)?;
    let device = device(&description.device)?;
    description.precision.check(&device)?;
    description.frozen_weights.check(&device)?;
    let data = run_data(&description, Prepared::load(&description.data)?)?;
    check_data(folder, &description.data_files, &description.data, &data.prepared)?;
    let assets = vec![tokenizer_asset(&data.prepared.tokenizer)?];
    let world = context.world;
    let mut run = None;
    let found = if world.is_root() {
        let opened = run.insert(RunFolder::open(folder, assets)?);
        let found = opened.newest(description.train.optimizer, &device, description.frozen_weights)?;
        let done = found.as_ref().map_or(0, |found| found.trained.progress.step);
        // A run that has done more is refused below, and stays as it was.
        if ends_elsewhere && done <= description.train.steps(data.train.len()) {
            opened.describe(&to_json(&description)?)?;
        }
        world.any(found.is_some());
        found
    } else {
        // When the first worker has found the newest checkpoint, that is the latest.
        let is_found = world.any(false);
        let last = || Found::last(folder, description.train.optimizer, &device, description.frozen_weights);
        is_found.then(last).transpose()?
    };
    // The first one must not replace what others still read.
    world.barrier();
    let place = RunPlace { folder, run };
    let Some(found) = found else {
        let model_now = weight_files(&description.model)?;
        if let Some(names) = differences(&description.model_files, &model_now) {
            let problem = format!(
                "the run has no checkpoint yet, and the model in {} has changed since the run began: {names} differ",
                description.model.display()
            );
            return Err(InputError::new(RunPaths(folder).description(), problem).into());
        }
        let model = start_model(&description)?.with_objective(data.objective.kind());
        let stage = build_stage(&description, &model, &data)?;
        return begin(&description, &data, place, context, stage.as_ref(), model);
    };
    for damage in damage(&found) {
        (context.observer)(RunEvent::Warning(damage));
    }
    let mut trained = found.trained;
    trained.model = as_it_trains(trained.model, &description)?;
    let stage = match &description.stage {
        StageConfig::Grpo { config, .. } if config.needs_reference() => {
            let mut reference = hub::load_rounded(&RunPaths(folder).reference(), &device, description.frozen_weights)?;
            if !config.train_backbone {
                // Frozen, it is the same: once is enough.
                reference.backbone = trained.model.backbone.clone();
            }
            build_stage(&description, &as_it_trains(reference, &description)?, &data)?
        }
        _ => build_stage(&description, &trained.model, &data)?,
    };
    carry_out(&description, &data, place, context, stage.as_ref(), |training, stage| training.resume(stage, trained))
}

/// Runs a stage from its first step.
fn begin(
    description: &RunDescription,
    data: &RunData,
    place: RunPlace,
    context: &mut RunContext,
    stage: &dyn Stage<LatentRecommender>,
    model: LatentRecommender,
) -> Result<RunOutcome, RunError> {
    if let (Some(run), StageConfig::Grpo { config, .. }) = (&place.run, &description.stage)
        && config.needs_reference()
    {
        run.save_reference(&model)?;
    }
    carry_out(description, data, place, context, stage, |training, stage| training.start(stage, model))
}

/// The examples of a run.
fn run_data(description: &RunDescription, prepared: Prepared) -> Result<RunData, RunError> {
    let objective = prepared.objective(description.objective.unwrap_or_default())?;
    let (train, valid) = match description.stage {
        StageConfig::Pretrain { .. } => prepared.windows(objective.kind()),
        _ => (prepared.examples(Split::Train), prepared.examples(Split::Valid)),
    };
    let train = match description.stage {
        StageConfig::Sft { hold_out: Some(hold_out), .. } => hold_out.of(train, false),
        StageConfig::Grpo { held_out: Some(held_out), .. } => held_out.of(train, true),
        _ => train,
    };
    let some =
        |examples: Vec<Example>, limit| sample(&examples, limit, description.train.seed).into_iter().cloned().collect();
    let (train, valid) = (some(train, description.limit), some(valid, description.valid_limit));
    Ok(RunData { train, valid, objective, prepared })
}

/// What the stage 1 that made a model held out of the data with these checksums.
fn held_out_before(model: &Path, data_files: &BTreeMap<String, String>) -> Result<HeldOut, RunError> {
    let of_run = |folder: &Path| RunDescription::read(folder).ok();
    let made = of_run(model).or_else(|| of_run(model.parent()?));
    match made.map(|run| (run.stage, run.data_files == *data_files)) {
        Some((StageConfig::Sft { hold_out: Some(hold_out), .. }, true)) => Ok(hold_out),
        Some((_, false)) => {
            Err(RunError::NothingHeldOut { model: model.to_owned(), problem: "was trained on other data" })
        }
        _ => Err(RunError::NothingHeldOut { model: model.to_owned(), problem: "held out no training rows" }),
    }
}

fn start_model(description: &RunDescription) -> Result<LatentRecommender, RunError> {
    let seed = description.train.seed;
    let model = load_rounded_model(&description.model, &description.device, description.frozen_weights)?;
    let model = match &description.stage {
        StageConfig::Pretrain { .. } => model.with_thoughts(ThoughtKind::LastHidden, 0, seed)?,
        StageConfig::Sft { thoughts, source, lora, .. } => {
            let model = model.with_thoughts(*source, *thoughts, seed)?;
            match lora {
                Some(lora) => {
                    // A model whose own adapter has become part of its weights is in no folder.
                    let folder = model_folder(&description.model)?;
                    let is_merged = folder.join(hub::ADAPTER_CONFIG_FILE).exists();
                    let base = (!is_merged).then(|| folder.display().to_string());
                    model.with_lora(&LoraConfig { base, ..lora.clone() }, seed)?
                }
                None => model,
            }
        }
        StageConfig::Grpo { config, .. } => {
            if model.thoughts() == 0 && config.needs_thoughts() {
                return Err(RunError::NoThoughts { model: description.model.clone() });
            }
            model
        }
    };
    as_it_trains(model, description)
}

/// The stage's model with what does not train frozen, in the run's precisions.
fn as_it_trains(model: LatentRecommender, description: &RunDescription) -> Result<LatentRecommender, RunError> {
    let model = match &description.stage {
        StageConfig::Grpo { config, .. } => freeze_untrained(model, config),
        _ => model,
    };
    Ok(model.with_precision(description.precision)?.with_frozen_weights(description.frozen_weights)?)
}

fn build_stage<'a>(
    description: &RunDescription,
    start: &LatentRecommender,
    data: &'a RunData,
) -> Result<Box<dyn Stage<LatentRecommender> + 'a>, RunError> {
    let (micro_batch, seed, objective) =
        (description.train.micro_batch, description.train.seed, data.objective.clone());
    Ok(match &description.stage {
        StageConfig::Pretrain { regularization } => {
            Box::new(Sft { regularization: *regularization, seed, ..Sft::new(micro_batch, objective) })
        }
        StageConfig::Sft { temperature, regularization, augmentation, .. } => {
            let (temperature, regularization) = (*temperature, *regularization);
            let stage: Box<dyn Stage<_>> =
                Box::new(Sft { temperature, regularization, seed, ..Sft::new(micro_batch, objective) });
            match augmentation.is_none() {
                true => stage,
                false => Box::new(Augmented { stage, augmentation: *augmentation, prepared: &data.prepared, seed }),
            }
        }
        StageConfig::Grpo { config, .. } => {
            let source = config.items.as_ref().and_then(|items| items.guide.as_deref());
            let guide = |source| item_guide(source, &data.prepared, &description.device, seed);
            grpo::stage(config.clone(), micro_batch, seed, start, objective, source.map(guide).transpose()?)?
        }
    })
}
