//! What the stages do where nothing else is asked for.

use std::path::Path;

use super::model_folder::model_folder;
use super::selection::Selection;
use crate::data::training_rows;
use crate::models::backbone::BackboneConfig;
use crate::models::files::read_json;
use crate::models::{ObjectiveKind, hub};
use crate::train::grpo::GrpoConfig;
use crate::train::{Regularization, Schedule, TrainConfig};

/// Training rows that a model from scratch sees in all, each time that one is seen.
const ROWS_IN_ALL: usize = 200_000;

/// The settings of a stage.
#[derive(Debug, Clone, PartialEq)]
pub struct Defaults {
    /// How it trains.
    pub train: TrainConfig,
    /// What its best model is selected by.
    pub select: Selection,
    /// What keeps it from over-fitting.
    pub regularization: Regularization,
}

/// A small model that began with random weights and trains on so many rows.
///
/// It has much to learn from little, again and again, and over-fits on the way: its settings were chosen on the
/// validation rows of Amazon's Office Products (`experiments/regularization.toml`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FromScratch {
    /// Training rows of the data.
    pub rows: usize,
    /// The objective that it was trained for.
    pub objective: ObjectiveKind,
}

impl FromScratch {
    /// The case of a model's folder and a prepared folder; nothing where the model comes from elsewhere, or where one of
    /// the folders cannot be read, which whoever loads it will say.
    pub fn of(model: &Path, data: &Path) -> Option<Self> {
        let folder = hub::base_folder(&model_folder(model).ok()?).ok()?;
        let path = folder.join("config.json");
        let config = BackboneConfig::from_json(&path, read_json(&path).ok()?).ok()?;
        let (rows, objective) = (training_rows(data).ok()?, hub::objective_of(&folder, &config).ok()?);
        config.is_from_scratch().then_some(Self { rows, objective })
    }
}

impl Defaults {
    /// Of `pretrain`.
    pub fn pretrain(from_scratch: Option<FromScratch>) -> Self {
        let train = TrainConfig {
            epochs: 10,
            batch: 32,
            learning_rate: 1e-3,
            schedule: Schedule::Cosine,
            ..Default::default()
        };
        match from_scratch {
            None => Self::plain(train),
            Some(_) => Self {
                train: TrainConfig { epochs: 24, learning_rate: 1.5e-3, patience: Some(2), ..train },
                select: Selection::Loss,
                regularization: Regularization { dropout: 0.1, ..Default::default() },
            },
        }
    }

    /// Of `sft`: the published settings (arXiv 2505.19092), or those of a model from scratch.
    pub fn sft(from_scratch: Option<FromScratch>) -> Self {
        let Some(FromScratch { rows, .. }) = from_scratch else {
            return Self::plain(TrainConfig::default());
        };
        let train = TrainConfig {
            epochs: (ROWS_IN_ALL / rows.max(1)).clamp(4, 20),
            batch: 64,
            learning_rate: 6e-4,
            schedule: Schedule::Cosine,
            patience: Some(4),
            ..Default::default()
        };
        let regularization = Regularization { dropout: 0.1, ..Default::default() };
        Self { train, select: Selection::NDCG_10, regularization }
    }

    /// Of `grpo` without a recipe: the published settings.
    pub fn grpo() -> Self {
        Self::plain(GrpoConfig::train_defaults())
    }

    /// With so many rows a step, where that is given.
    #[must_use]
    pub fn with_batch(mut self, batch: Option<usize>) -> Self {
        self.train.batch = batch.unwrap_or(self.train.batch);
        self
    }

    fn plain(train: TrainConfig) -> Self {
        Self { train, select: Selection::Loss, regularization: Regularization::default() }
    }
}
