//! Every figure of the method against what PyTorch computes in float64.
//!
//! A golden folder holds a small checkpoint in Hugging Face's layout and `golden.json` with the figures. The checks
//! know no sizes: any such folder will do.

mod catalog;
mod deviation;
mod figures;
mod grpo;

use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::Device;
use serde_json::Value;

pub use deviation::Deviation;
use deviation::{LIMIT, deviation, figure, gradient_deviations, loss_deviation, values};
use figures::Figures;

use crate::models::decode::TrieError;
use crate::models::{LatentRecommender, ModelError, Objective, Precision, ThoughtKind, hub};
use crate::train::sft::Sft;
use crate::train::{Example, TrainError, World};

/// A golden folder with its model on a device.
#[derive(Debug)]
pub struct Golden {
    figures: Figures,
    model: LatentRecommender,
}

/// Why a golden folder cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// The checkpoint, or the device.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The training stages.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The golden catalog.
    #[error(transparent)]
    Trie(#[from] TrieError),
    /// The figures.
    #[error("{}: {problem}", path.display())]
    Figures {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

type Deviations = Result<Vec<Deviation>, GoldenError>;

impl Golden {
    /// Reads a golden folder and loads its model onto a device.
    ///
    /// # Errors
    ///
    /// Files missing or malformed.
    pub fn load(folder: &Path, device: &Device) -> Result<Self, GoldenError> {
        let path = folder.join("golden.json");
        let figures = Figures::read(&path)?;
        let model = hub::load(folder, device)?;
        if !figures.fit(model.backbone.config().d_model) {
            let problem =
                "its noise and log-probabilities do not match equal groups, the model's width and the targets' lengths";
            return Err(GoldenError::Figures { path, problem: problem.into() });
        }
        Ok(Self { model, figures })
    }

    /// The same checks of the model as it computes in another precision, for which their limits are not meant.
    ///
    /// # Errors
    ///
    /// The device does not compute in it.
    pub fn with_precision(self, precision: Precision) -> Result<Self, ModelError> {
        Ok(Self { model: self.model.with_precision(precision)?, ..self })
    }

    /// All checks.
    ///
    /// # Errors
    ///
    /// What the model refuses.
    pub fn check(&self) -> Deviations {
        let parts = [
            self.hidden_states_and_thoughts()?,
            self.target_log_probabilities()?,
            self.sft()?,
            self.grpo_from_one_pass()?,
            self.grpo_updates()?,
            self.catalog()?,
            self.catalog_objective()?,
        ];
        Ok(parts.concat())
    }

    /// The last hidden states of the prompts, and their first and second thoughts.
    ///
    /// # Errors
    ///
    /// What the model refuses.
    pub fn hidden_states_and_thoughts(&self) -> Deviations {
        let prompts = slices(&self.figures.prompts);
        let state = self.model.prefill(&prompts)?;
        let mut found = vec![deviation("last hidden states", values(state.last_hidden()), &self.figures.last_hidden)];
        for (thoughts, expected) in [(1, &self.figures.thought), (2, &self.figures.thought_2nd)] {
            let model = self.with_thoughts(thoughts)?;
            let mut state = model.prefill(&prompts)?;
            let thought = model.think(&mut state)?.map(values).unwrap_or_default();
            found.push(deviation(&format!("thought {thoughts}"), thought, expected));
        }
        Ok(found)
    }

    /// The targets' log-probabilities after none, one and two thoughts.
    ///
    /// # Errors
    ///
    /// What the model refuses.
    pub fn target_log_probabilities(&self) -> Deviations {
        let (prompts, targets) = (slices(&self.figures.prompts), slices(&self.figures.targets));
        let Figures { target_logps_no_thought, target_logps, target_logps_two_thoughts, .. } = &self.figures;
        let expected = [target_logps_no_thought, target_logps, target_logps_two_thoughts];
        let check = |(thoughts, expected): (usize, &Value)| {
            let model = self.with_thoughts(thoughts)?;
            let mut state = model.prefill(&prompts)?;
            let thought = model.think(&mut state)?;
            let log_probs = model.target_log_probs(&state, thought, &targets, &Objective::vocabulary())?;
            let what = format!("target log-probabilities, {thoughts} thoughts");
            Ok(deviation(&what, values(log_probs.values), expected))
        };
        expected.into_iter().enumerate().map(check).collect()
    }

    /// Loss and gradients of stage 1, in micro-batches of one, two and three rows.
    ///
    /// # Errors
    ///
    /// What the model refuses.
    pub fn sft(&self) -> Deviations {
        let (world, examples) = (World::alone(), self.examples());
        let model = self.with_thoughts(1)?.train();
        let mut found = Vec::new();
        for micro_batch in [1, 2, 3] {
            let local = world.local_batch(&examples.iter().collect::<Vec<_>>());
            let result = Sft::new(micro_batch, Objective::vocabulary()).update(&model, &local)?;
            found.push(loss_deviation("SFT loss", figure(&result, "loss"), self.figures.sft.loss));
            found.extend(gradient_deviations("SFT", &result.gradients, &self.figures.sft.grads, LIMIT));
        }
        Ok(found)
    }

    fn examples(&self) -> Vec<Example> {
        let rows = self.figures.prompts.iter().zip(&self.figures.targets).enumerate();
        rows.map(|(row, (prompt, target))| Example { prompt: prompt.clone(), target: target.clone(), item: 0, row })
            .collect()
    }

    fn with_thoughts(&self, thoughts: usize) -> Result<LatentRecommender, ModelError> {
        self.model.clone().with_thoughts(ThoughtKind::LatentAttention, thoughts, 0)
    }
}

fn slices(rows: &[Vec<u32>]) -> Vec<&[u32]> {
    rows.iter().map(Vec::as_slice).collect()
}
