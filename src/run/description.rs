//! What a training run is: what was asked for, its data, and how and where it is carried out.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::augmented::Augmentation;
use super::error::RunError;
use super::held_out::{HeldOut, TrainRows};
use super::selection::Selection;
use crate::data::Prepared;
use crate::models::{LoraConfig, Objective, ObjectiveKind, Precision, ThoughtKind};
use crate::train::grpo::GrpoConfig;
use crate::train::{Example, Regularization, RunFolder, Temperature, TrainConfig, TrainError};

/// Everything that makes a run what it is; `run.json` holds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunDescription {
    /// Version of the program that began the run.
    pub latentr3: String,
    /// What it does.
    pub stage: StageConfig,
    /// The model that the run began with.
    pub model: PathBuf,
    /// SHA-256 of its files of weights, by their names.
    pub model_files: BTreeMap<String, String>,
    /// The prepared data.
    pub data: PathBuf,
    /// SHA-256 of its files, by their names, so that a run does not resume with other data.
    pub data_files: BTreeMap<String, String>,
    /// Where it is computed.
    pub device: String,
    /// What the targets' tokens compete with; absent before the run starts where it follows its model, and in runs of
    /// older versions, which trained for the vocabulary's.
    #[serde(default)]
    pub objective: Option<ObjectiveKind>,
    /// What the model's blocks multiply in.
    #[serde(default)]
    pub precision: Precision,
    /// What the weights that do not train are kept in.
    #[serde(default)]
    pub frozen_weights: Precision,
    /// Training examples at most, for trials.
    pub limit: Option<usize>,
    /// Validation examples at most.
    pub valid_limit: Option<usize>,
    /// Validation users to rank the catalog for at each validation; 0 for none.
    pub rank_sample: usize,
    /// Validation users to show recommendations for at each validation.
    #[serde(default)]
    pub sample_users: usize,
    /// What the best model is selected by.
    #[serde(default)]
    pub select: Selection,
    /// How it trains.
    pub train: TrainConfig,
}

impl RunDescription {
    /// A run on all of the data; the files' checksums are filled in when it starts.
    pub fn new(stage: StageConfig, model: &Path, data: &Path, device: &str, train: TrainConfig) -> Self {
        let objective = match stage {
            StageConfig::Pretrain { .. } | StageConfig::Sft { .. } => Some(ObjectiveKind::Catalog),
            StageConfig::Grpo { .. } => None,
        };
        Self {
            latentr3: env!("CARGO_PKG_VERSION").into(),
            stage,
            model: model.to_owned(),
            model_files: BTreeMap::new(),
            data: data.to_owned(),
            data_files: BTreeMap::new(),
            device: device.to_owned(),
            objective,
            precision: Precision::F32,
            frozen_weights: Precision::F32,
            limit: None,
            valid_limit: None,
            rank_sample: 0,
            sample_users: 0,
            select: Selection::Loss,
            train,
        }
    }

    /// Makes sure that every setting makes sense, as far as that shows without data and model.
    ///
    /// # Errors
    ///
    /// One that does not; the message names it.
    pub fn check(&self) -> Result<(), RunError> {
        let refused = |field, problem: String| Err(TrainError::Config { field, problem }.into());
        self.train.check()?;
        if self.select != Selection::Loss && self.rank_sample == 0 {
            return refused("select", format!("{} needs users to rank for; set rank_sample", self.select));
        }
        match &self.stage {
            StageConfig::Pretrain { regularization } => Ok(regularization.check()?),
            StageConfig::Sft { temperature, regularization, augmentation, hold_out, .. } => {
                regularization.check()?;
                temperature.check()?;
                if self.objective == Some(ObjectiveKind::Vocabulary) && *temperature != Temperature::default() {
                    return refused("temperature", "applies only to the objective `catalog`".into());
                }
                if let Err(problem) = augmentation.check() {
                    return refused("augmentation", problem);
                }
                Ok(hold_out.map_or(Ok(()), |hold_out| hold_out.check())?)
            }
            StageConfig::Grpo { config, .. } => Ok(config.check()?),
        }
    }
}

/// What a run does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum StageConfig {
    /// Learns the language of the training histories.
    Pretrain {
        /// What keeps it from over-fitting.
        #[serde(default)]
        regularization: Regularization,
    },
    /// Stage 1.
    Sft {
        /// Thoughts before a title.
        thoughts: usize,
        /// Where they come from.
        source: ThoughtKind,
        /// By what logits are divided in the loss.
        #[serde(default)]
        temperature: Temperature,
        /// Adapters that train in the place of the backbone.
        #[serde(default)]
        lora: Option<LoraConfig>,
        /// What keeps it from over-fitting.
        #[serde(default)]
        regularization: Regularization,
        /// How the training rows' histories are changed.
        #[serde(default)]
        augmentation: Augmentation,
        /// Training rows that it leaves to stage 2.
        #[serde(default)]
        hold_out: Option<HeldOut>,
    },
    /// Stage 2.
    Grpo {
        /// How it samples, rewards and estimates.
        config: GrpoConfig,
        /// Which training rows it reinforces.
        #[serde(default)]
        rows: TrainRows,
        /// What stage 1 held out; filled in when the run starts, where it reinforces that.
        #[serde(default)]
        held_out: Option<HeldOut>,
    },
}

impl StageConfig {
    /// The stage's name, which is its command's.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pretrain { .. } => "pretrain",
            Self::Sft { .. } => "sft",
            Self::Grpo { .. } => "grpo",
        }
    }
}

/// The data of a run.
pub(super) struct RunData {
    pub prepared: Prepared,
    pub objective: Objective,
    pub train: Vec<Example>,
    pub valid: Vec<Example>,
}

/// Where a run is kept.
pub(super) struct RunPlace<'a> {
    pub folder: &'a Path,
    /// Held by the worker that writes it.
    pub run: Option<RunFolder>,
}
