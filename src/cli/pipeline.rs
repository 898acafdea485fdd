//! A training run from its description: the same code starts and resumes all stages.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::CliError;
use super::files::{check_fit, load_model, model_folder, tokenizer_asset};
use super::report::{Progress, duration};
use crate::data::{Prepared, Split};
use crate::eval::{EvalConfig, evaluate, sample};
use crate::models::decode::ItemTrie;
use crate::models::{LatentRecommender, ThoughtKind, device, hub};
use crate::train::grpo::{Grpo, GrpoConfig, prepare_model};
use crate::train::sft::Sft;
use crate::train::{self, Event, Example, RunFolder, Stage, TrainConfig, TrainError, Training};

/// Folder of the reference policy in a run folder.
const REFERENCE: &str = "reference";

/// Everything that makes a run what it is; `run.json` holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RunDescription {
    /// Version of the program that began the run.
    pub latentr3: String,
    pub stage: StageConfig,
    /// The model that the run began with.
    pub model: PathBuf,
    /// The prepared data.
    pub data: PathBuf,
    /// The data's fingerprint, so that a run does not go on with other data.
    pub data_fingerprint: String,
    pub device: String,
    /// Training examples at most, for trials.
    pub limit: Option<usize>,
    /// Validation examples at most.
    pub valid_limit: Option<usize>,
    /// Validation users to rank the catalog for at each validation; 0 for none.
    pub rank_sample: usize,
    pub train: TrainConfig,
}

/// What a run does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub(super) enum StageConfig {
    Pretrain {},
    Sft { thoughts: usize, source: ThoughtKind },
    Grpo { config: GrpoConfig },
}

impl StageConfig {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pretrain {} => "pretrain",
            Self::Sft { .. } => "sft",
            Self::Grpo { .. } => "grpo",
        }
    }
}

/// The data of a run.
struct RunData {
    prepared: Prepared,
    train: Vec<Example>,
    valid: Vec<Example>,
}

/// Starts a run in a new folder; returns its result.
pub(super) fn start(mut description: RunDescription, out: &Path, quiet: bool) -> Result<Value, CliError> {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    (description.model, description.data) = (absolute(&description.model), absolute(&description.data));
    let data = load_data(&description)?;
    description.data_fingerprint = data.prepared.fingerprint();
    let model = start_model(&description)?;
    check_fit(&model, &model_folder(&description.model), &data.prepared)?;
    let stage = build_stage(&description, &model)?;
    if data.train.is_empty() {
        return Err(CliError::Usage("there is nothing to train on; is --limit 0?".into()));
    }
    let value = serde_json::to_value(&description).expect("a description can be written as JSON");
    let run = RunFolder::create(out, &value, vec![tokenizer_asset(&data.prepared.tokenizer)?])?;
    save_reference(&description, &model, out)?;
    execute(&description, &data, &run, quiet, |training| training.start(stage.as_ref(), model))
}

/// Goes on with a run where its last checkpoint left it; nothing but the folder is needed.
pub(super) fn resume(folder: &Path, expected: &str, quiet: bool) -> Result<Value, CliError> {
    let path = folder.join("run.json");
    let error = |problem: String| CliError::Input { path: path.clone(), line: None, problem };
    let description: RunDescription = serde_json::from_value(RunFolder::description(folder)?)
        .map_err(|cause| error(format!("is damaged or of another version: {cause}")))?;
    if description.stage.name() != expected {
        let name = description.stage.name();
        return Err(error(format!("is a run of `{name}`; resume it with `latentr3 {name} --resume`")));
    }
    let data = load_data(&description)?;
    if data.prepared.fingerprint() != description.data_fingerprint {
        return Err(error(format!(
            "was made with other data than {} holds now (fingerprint {}, now {})",
            description.data.display(),
            description.data_fingerprint,
            data.prepared.fingerprint()
        )));
    }
    let run = RunFolder::open(folder, vec![tokenizer_asset(&data.prepared.tokenizer)?])?;
    let trained = run.load_last(description.train.optimizer, &device(&description.device)?)?;
    let Some(mut trained) = trained else {
        let model = start_model(&description)?;
        let stage = build_stage(&description, &model)?;
        save_reference(&description, &model, folder)?;
        return execute(&description, &data, &run, quiet, |training| training.start(stage.as_ref(), model));
    };
    let stage: Box<dyn Stage> = match &description.stage {
        StageConfig::Grpo { config } => {
            trained.model = prepare_model(trained.model, config);
            let reference = folder.join(REFERENCE);
            let start = match config.kl > 0.0 {
                true => hub::load(&reference, 0, &device(&description.device)?)?,
                false => trained.model.clone(),
            };
            build_stage(&description, &start)?
        }
        _ => build_stage(&description, &trained.model)?,
    };
    execute(&description, &data, &run, quiet, |training| training.go_on(stage.as_ref(), trained))
}

fn load_data(description: &RunDescription) -> Result<RunData, CliError> {
    let prepared = Prepared::load(&description.data)?;
    let (train, valid) = match description.stage {
        StageConfig::Pretrain {} => prepared.windows(),
        _ => (prepared.examples(Split::Train), prepared.examples(Split::Valid)),
    };
    let some =
        |examples: Vec<Example>, limit| sample(&examples, limit, description.train.seed).into_iter().cloned().collect();
    Ok(RunData { train: some(train, description.limit), valid: some(valid, description.valid_limit), prepared })
}

/// Keeps the model that the KL divergence is measured from, for a run that is resumed.
fn save_reference(description: &RunDescription, start: &LatentRecommender, run: &Path) -> Result<(), CliError> {
    match &description.stage {
        StageConfig::Grpo { config } if config.kl > 0.0 => Ok(hub::save(start, &run.join(REFERENCE))?),
        _ => Ok(()),
    }
}

fn start_model(description: &RunDescription) -> Result<LatentRecommender, CliError> {
    let seed = description.train.seed;
    let model = load_model(&description.model, seed, &description.device)?;
    Ok(match &description.stage {
        StageConfig::Pretrain {} => model.with_thoughts(ThoughtKind::LastHidden, 0, seed)?,
        StageConfig::Sft { thoughts, source } => model.with_thoughts(*source, *thoughts, seed)?,
        StageConfig::Grpo { config } => {
            if model.thoughts() == 0 {
                let problem = "has no thoughts to reinforce; fine-tune it first: `latentr3 sft --thoughts 1`";
                return Err(CliError::Input { path: description.model.clone(), line: None, problem: problem.into() });
            }
            prepare_model(model, config)
        }
    })
}

fn build_stage(description: &RunDescription, start: &LatentRecommender) -> Result<Box<dyn Stage>, CliError> {
    let micro_batch = description.train.micro_batch;
    Ok(match &description.stage {
        StageConfig::Pretrain {} | StageConfig::Sft { .. } => Box::new(Sft { micro_batch }),
        StageConfig::Grpo { config } => {
            Box::new(Grpo::new(config.clone(), micro_batch, description.train.seed, start)?)
        }
    })
}

fn execute(
    description: &RunDescription,
    data: &RunData,
    run: &RunFolder,
    quiet: bool,
    go: impl FnOnce(Training) -> Result<train::Progress, TrainError>,
) -> Result<Value, CliError> {
    let (name, unit) = match description.stage {
        StageConfig::Pretrain {} => ("pretrain", "loss"),
        StageConfig::Sft { .. } => ("sft", "loss"),
        StageConfig::Grpo { .. } => ("grpo", "reward"),
    };
    let mut progress = Progress::new(name, quiet);
    let mut observer = |event: Event| match event {
        Event::Step { step, steps, tokens, headline } => {
            progress.advance(step as u64, steps as u64, tokens, &format!("{unit} {headline:.4}"))
        }
        Event::Validated { step, validation, is_best } => progress.say(&format!(
            "step {step}: validation loss {:.4}, perplexity {:.3}{}",
            validation.loss,
            validation.perplexity,
            if is_best { ", best so far" } else { "" }
        )),
    };
    let trie = match description.rank_sample {
        0 => None,
        _ => Some(ItemTrie::new(&data.prepared.item_tokens)?),
    };
    let mut rank = |model: &LatentRecommender| rank_sample(model, description, data, trie.as_ref());
    let training = Training {
        config: &description.train,
        train: &data.train,
        valid: &data.valid,
        run,
        observer: &mut observer,
        extra_validation: trie.is_some().then_some(&mut rank),
    };
    let end = go(training)?;
    progress.say(&format!(
        "done after {} steps in {}; the best model, of step {}, is {}",
        end.step,
        duration(end.seconds),
        end.best_step,
        run.best().display()
    ));
    Ok(json!({
        "stage": name,
        "run": run.path(),
        "steps": end.step,
        "best_step": end.best_step,
        "best_validation": end.best,
        "seconds": end.seconds,
        "train_examples": data.train.len(),
        "valid_examples": data.valid.len(),
    }))
}

/// HR and NDCG on a sample of validation users, for the log.
fn rank_sample(
    model: &LatentRecommender,
    description: &RunDescription,
    data: &RunData,
    trie: Option<&ItemTrie>,
) -> Result<Map<String, Value>, TrainError> {
    let Some(trie) = trie else {
        return Ok(Map::new());
    };
    let rows = sample(data.prepared.rows.get(Split::Valid), Some(description.rank_sample), description.train.seed);
    let config = EvalConfig { beam: Default::default(), batch: description.train.micro_batch };
    let evaluation = evaluate(model, &data.prepared, trie, &rows, config, &mut |_| {})?;
    Ok(Map::from_iter([
        ("valid_hr".into(), json!(evaluation.by_item.hr)),
        ("valid_ndcg".into(), json!(evaluation.by_item.ndcg)),
    ]))
}
