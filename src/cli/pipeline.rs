//! A training run from its description: the same code starts and resumes all stages.

use std::path::Path;

use serde_json::Value;

use super::CliError;
use super::carry_out::carry_out;
use super::description::{RunData, RunDescription, RunPlace, StageConfig};
use super::files::{absolute, check_device, check_fit, load_model, model_folder, tokenizer_asset, weight_files};
use super::recorded::{check_data, differences, recorded_as_json, warn_of_damage};
use super::sasrec_run;
use crate::data::{Prepared, Split};
use crate::eval::sample;
use crate::models::{LatentRecommender, LoraConfig, Objective, ThoughtKind, device, hub};
use crate::train::grpo::{Grpo, prepare_model};
use crate::train::sft::Sft;
use crate::train::{Example, Found, RunFolder, RunPaths, Stage, World};

/// What a user who goes on with a run asks for besides.
pub(super) struct Resumption<'a> {
    /// The command's stage.
    pub stage: &'a str,
    /// Where the data lies now, if it was moved.
    pub data: Option<&'a Path>,
    /// Another device to compute on.
    pub device: Option<&'a str>,
    /// To compute activations again from now on.
    pub gradient_checkpointing: bool,
    /// Another number of rows that run at once.
    pub micro_batch: Option<usize>,
    /// Another number of steps to end after.
    pub max_steps: Option<usize>,
    /// Makes sure that further options are those of the run.
    pub check: &'a dyn Fn(&RunDescription) -> Result<(), CliError>,
}

/// Starts a run in a new folder; returns its result.
pub(super) fn start(mut description: RunDescription, out: &Path, world: &World) -> Result<Value, CliError> {
    description.model = absolute(&description.model);
    description.data = absolute(&description.data);
    check_device(&description.device, description.precision)?;
    check_device(&description.device, description.frozen_weights)?;
    let mut data = load_data(&description)?;
    description.data_files = data.prepared.files().clone();
    description.model_files = weight_files(&description.model)?;
    if data.train.is_empty() {
        return Err(CliError::Usage("there is nothing to train on; is --limit 0?".into()));
    }
    let model = start_model(&description)?;
    check_fit(&model, &model_folder(&description.model), &data.prepared)?;
    let objective = *description.objective.get_or_insert(model.objective());
    data.objective = data.objective.with_kind(objective)?;
    let model = model.with_objective(objective);
    let stage = build_stage(&description, &model, &data.objective)?;
    let value = recorded_as_json(&description)?;
    let assets = vec![tokenizer_asset(&data.prepared.tokenizer)?];
    let run = world.is_root().then(|| RunFolder::create(out, &value, assets)).transpose()?;
    begin(&description, &data, RunPlace { folder: out, run }, world, stage.as_ref(), model)
}

/// Goes on with a run where its last checkpoint left it; nothing but the folder is needed.
pub(super) fn resume(folder: &Path, asked: &Resumption, world: &World) -> Result<Value, CliError> {
    let path = RunPaths(folder).description();
    let error = |problem: String| CliError::Input { path: path.clone(), line: None, problem };
    let recorded = RunFolder::description(folder)?;
    if recorded["stage"] == sasrec_run::STAGE {
        return Err(error("is a run of `baseline sasrec`; resume it with `latentr3 baseline sasrec --resume`".into()));
    }
    let mut description: RunDescription = serde_json::from_value(recorded)
        .map_err(|cause| error(format!("is damaged or of another version: {cause}")))?;
    description.objective.get_or_insert_default();
    description.train.check()?;
    if description.stage.name() != asked.stage {
        let name = description.stage.name();
        return Err(error(format!("is a run of `{name}`; resume it with `latentr3 {name} --resume`")));
    }
    (asked.check)(&description)?;
    if let Some(data) = asked.data {
        description.data = absolute(data);
    }
    if let Some(device) = asked.device {
        description.device = device.to_owned();
    }
    description.train.gradient_checkpointing |= asked.gradient_checkpointing;
    description.train.micro_batch = asked.micro_batch.unwrap_or(description.train.micro_batch);
    let ends_elsewhere = asked.max_steps.is_some() && asked.max_steps != description.train.max_steps;
    description.train.max_steps = asked.max_steps.or(description.train.max_steps);
    description.train.check()?;
    let device = device(&description.device)?;
    description.precision.check(&device)?;
    description.frozen_weights.check(&device)?;
    let data = load_data(&description)?;
    check_data(folder, &description.data_files, &description.data, &data.prepared)?;
    let assets = vec![tokenizer_asset(&data.prepared.tokenizer)?];
    let mut run = None;
    let found = if world.is_root() {
        let opened = run.insert(RunFolder::open(folder, assets)?);
        let found = opened.newest(description.train.optimizer, &device)?;
        let done = found.as_ref().map_or(0, |found| found.trained.progress.step);
        // A run that has done more is refused below, and stays as it was.
        if ends_elsewhere && done <= description.train.steps(data.train.len()) {
            opened.describe(&recorded_as_json(&description)?)?;
        }
        world.any(found.is_some());
        found
    } else {
        // When the first worker has found the newest checkpoint, that is the latest.
        let is_found = world.any(false);
        is_found.then(|| Found::last(folder, description.train.optimizer, &device)).transpose()?
    };
    // The first one must not replace what others still read.
    world.barrier();
    let place = RunPlace { folder, run };
    let Some(found) = found else {
        let model_now = weight_files(&description.model)?;
        if let Some(names) = differences(&description.model_files, &model_now) {
            let folder = description.model.display();
            return Err(error(format!(
                "has no checkpoint yet, and the model it began with is not what {folder} holds now: {names} differ"
            )));
        }
        let model = start_model(&description)?.with_objective(data.objective.kind());
        let stage = build_stage(&description, &model, &data.objective)?;
        return begin(&description, &data, place, world, stage.as_ref(), model);
    };
    warn_of_damage(&found);
    let mut trained = found.trained;
    trained.model = as_it_trains(trained.model, &description)?;
    let stage = match &description.stage {
        StageConfig::Grpo { config } if config.needs_reference() => {
            let mut reference = hub::load(&RunPaths(folder).reference(), &device)?;
            if !config.train_backbone {
                // Frozen, it is the same: once is enough.
                reference.backbone = trained.model.backbone.clone();
            }
            build_stage(&description, &as_it_trains(reference, &description)?, &data.objective)?
        }
        _ => build_stage(&description, &trained.model, &data.objective)?,
    };
    carry_out(&description, &data, place, world, |training| training.go_on(stage.as_ref(), trained))
}

/// Runs a stage from its first step.
fn begin(
    description: &RunDescription,
    data: &RunData,
    place: RunPlace,
    world: &World,
    stage: &dyn Stage<LatentRecommender>,
    model: LatentRecommender,
) -> Result<Value, CliError> {
    if let (Some(run), StageConfig::Grpo { config }) = (&place.run, &description.stage)
        && config.needs_reference()
    {
        run.save_reference(&model)?;
    }
    carry_out(description, data, place, world, |training| training.start(stage, model))
}

fn load_data(description: &RunDescription) -> Result<RunData, CliError> {
    let prepared = Prepared::load(&description.data)?;
    let objective = prepared.objective(description.objective.unwrap_or_default())?;
    let (train, valid) = match description.stage {
        StageConfig::Pretrain {} => prepared.windows(objective.kind()),
        _ => (prepared.examples(Split::Train), prepared.examples(Split::Valid)),
    };
    let some =
        |examples: Vec<Example>, limit| sample(&examples, limit, description.train.seed).into_iter().cloned().collect();
    let (train, valid) = (some(train, description.limit), some(valid, description.valid_limit));
    Ok(RunData { train, valid, objective, prepared })
}

fn start_model(description: &RunDescription) -> Result<LatentRecommender, CliError> {
    let seed = description.train.seed;
    let model = load_model(&description.model, &description.device)?;
    let model = match &description.stage {
        StageConfig::Pretrain {} => model.with_thoughts(ThoughtKind::LastHidden, 0, seed)?,
        StageConfig::Sft { thoughts, source, lora, .. } => {
            let model = model.with_thoughts(*source, *thoughts, seed)?;
            match lora {
                Some(lora) => {
                    // A model whose own adapter has become part of its weights is in no folder.
                    let folder = model_folder(&description.model);
                    let is_merged = folder.join(hub::ADAPTER_CONFIG_FILE).exists();
                    let base = (!is_merged).then(|| folder.display().to_string());
                    model.with_lora(&LoraConfig { base, ..lora.clone() }, seed)?
                }
                None => model,
            }
        }
        StageConfig::Grpo { .. } => {
            if model.thoughts() == 0 {
                let problem = "has no thoughts to reinforce; fine-tune it first: `latentr3 sft --thoughts 1`";
                return Err(CliError::Input { path: description.model.clone(), line: None, problem: problem.into() });
            }
            model
        }
    };
    as_it_trains(model, description)
}

/// The stage's model with what does not train frozen, in the run's precisions.
fn as_it_trains(model: LatentRecommender, description: &RunDescription) -> Result<LatentRecommender, CliError> {
    let model = match &description.stage {
        StageConfig::Grpo { config } => prepare_model(model, config),
        _ => model,
    };
    Ok(model.with_precision(description.precision)?.with_frozen_weights(description.frozen_weights)?)
}

fn build_stage(
    description: &RunDescription,
    start: &LatentRecommender,
    objective: &Objective,
) -> Result<Box<dyn Stage<LatentRecommender>>, CliError> {
    let micro_batch = description.train.micro_batch;
    Ok(match &description.stage {
        StageConfig::Pretrain {} => Box::new(Sft::new(micro_batch, objective.clone())),
        StageConfig::Sft { temperature, .. } => {
            Box::new(Sft { micro_batch, objective: objective.clone(), temperature: *temperature })
        }
        StageConfig::Grpo { config } => {
            Box::new(Grpo::new(config.clone(), micro_batch, description.train.seed, start, objective.clone())?)
        }
    })
}
