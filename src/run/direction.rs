//! Which way the estimators of stage 2 point.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::RunError;
use super::model_folder::{check_fit, load_model, weight_files};
use crate::data::{Prepared, Split};
use crate::eval::sample;
use crate::input_error::InputError;
use crate::models::host::read;
use crate::models::{LatentRecommender, Objective, ObjectiveKind};
use crate::train::grpo::{
    AdvantageKind, EstimatorKind, Grpo, GrpoConfig, Rollouts, freeze_untrained, group_noise, mean_of_samples,
};
use crate::train::{Example, TrainError, World};

/// Prompts that run through the model at once.
const MICRO_BATCH: usize = 4;
/// Most rollouts, whose noise is all held at once.
const MOST_ROLLOUTS: usize = 1 << 16;
/// The estimators that are compared with the derivative of the reward.
const ESTIMATORS: [EstimatorKind; 2] = [EstimatorKind::Likelihood, EstimatorKind::Score];
const ADVANTAGES: [AdvantageKind; 4] =
    [AdvantageKind::Batch, AdvantageKind::Group, AdvantageKind::Own, AdvantageKind::Pool];

/// What to compare the estimators' gradients on.
#[derive(Debug, Clone)]
pub struct DirectionRequest {
    /// Hugging Face folder or run folder, of a model with one thought.
    pub model: PathBuf,
    /// Prepared data.
    pub data: PathBuf,
    /// Where to compute.
    pub device: String,
    /// Training prompts, drawn by the seed.
    pub prompts: usize,
    /// How samples are drawn and rewarded. Its group is the noisy samples of a prompt and the one without noise; its
    /// estimator and advantage are of no matter.
    pub config: GrpoConfig,
    /// Seed of prompts and noise.
    pub seed: u64,
}

/// The cosine of each estimator's gradient, by all parameters that make the thought, with the derivative of the reward
/// itself over the same samples: 1 is up the expected reward, -1 down.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Directions {
    /// See [`Prepared::fingerprint`].
    pub data_fingerprint: String,
    /// SHA-256 of the model's files of weights, by their names.
    pub model_files: BTreeMap<String, String>,
    /// Seed of prompts and noise.
    pub seed: u64,
    /// What the targets' tokens competed with.
    pub objective: ObjectiveKind,
    /// Prompts.
    pub prompts: usize,
    /// Noisy samples of each.
    pub samples: usize,
    /// Mean norm of the thoughts without noise.
    pub thought_norm: f64,
    /// Mean norm of the noise.
    pub noise_norm: f64,
    /// Mean reward of the samples without noise.
    pub reward_noise_free: f64,
    /// Mean reward of those with it.
    pub reward_noisy: f64,
    /// The cosines; none where a gradient is zero or NaN.
    pub cosine: BTreeMap<AdvantageKind, BTreeMap<EstimatorKind, Option<f64>>>,
}

impl DirectionRequest {
    /// Computes the gradients; `observer` is told how many are done, and of how many.
    ///
    /// # Errors
    ///
    /// Settings that make no sense, a model or data that cannot be read or do not fit, and data without training rows.
    pub fn carry_out(&self, observer: &mut dyn FnMut(usize, usize)) -> Result<Directions, RunError> {
        self.check()?;
        let Self { config, seed, .. } = self;
        let group = config.group;
        let prepared = Prepared::load(&self.data)?;
        let model_files = weight_files(&self.model)?;
        let model = freeze_untrained(load_model(&self.model, &self.device)?, config);
        check_fit(&model, &self.model, &prepared)?;
        let objective = prepared.objective(model.objective())?;
        let examples = prepared.examples(Split::Train);
        if examples.is_empty() {
            return Err(InputError::new(&self.data, "has no training rows").into());
        }
        let batch = sample(&examples, Some(self.prompts), *seed);
        let width = model.backbone.config().d_model;
        let noise: Vec<f32> =
            (0..batch.len() as u64).flat_map(|prompt| group_noise(*seed, 1, prompt, group, width)).collect();

        let mut done = 0;
        let mut gradient = |estimator, advantage| {
            let config = GrpoConfig { estimator, advantage, ..config.clone() };
            let found = gradient(config, *seed, &model, &objective, &batch, &noise);
            done += 1;
            observer(done, 1 + ADVANTAGES.len() * ESTIMATORS.len());
            found
        };
        let (Rollouts { pool, .. }, up) = gradient(EstimatorKind::Pathwise, AdvantageKind::Batch)?;
        let mut cosines: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for advantage in ADVANTAGES {
            for estimator in ESTIMATORS {
                let (_, gradient) = gradient(estimator, advantage)?;
                let cosine = Some(cosine(&gradient, &up)).filter(|cosine| cosine.is_finite());
                cosines.entry(advantage).or_default().insert(estimator, cosine);
            }
        }
        Ok(Directions {
            data_fingerprint: prepared.fingerprint(),
            model_files,
            seed: *seed,
            objective: objective.kind(),
            prompts: batch.len(),
            samples: group - 1,
            thought_norm: pool.thought_norms.iter().sum::<f64>() / batch.len() as f64,
            noise_norm: mean_of_samples(&pool.noise_norms, group, true),
            reward_noise_free: mean_of_samples(&pool.rewards, group, false),
            reward_noisy: mean_of_samples(&pool.rewards, group, true),
            cosine: cosines,
        })
    }

    /// Makes sure that the settings make sense.
    ///
    /// # Errors
    ///
    /// One that does not.
    pub fn check(&self) -> Result<(), TrainError> {
        let refused = |field, problem: String| Err(TrainError::Config { field, problem });
        for (field, number) in [("prompts", self.prompts), ("samples", self.config.group.saturating_sub(1))] {
            if number == 0 {
                return refused(field, "must be at least 1".into());
            }
        }
        if self.prompts.saturating_mul(self.config.group) > MOST_ROLLOUTS {
            return refused("prompts", format!("prompts times samples must be at most {MOST_ROLLOUTS}"));
        }
        self.config.check()
    }
}

/// A batch's rollouts and their gradient by all parameters that make the thought.
fn gradient(
    config: GrpoConfig,
    seed: u64,
    model: &LatentRecommender,
    objective: &Objective,
    batch: &[&Example],
    noise: &[f32],
) -> Result<(Rollouts, Vec<f32>), TrainError> {
    let stage = Grpo::new(config, MICRO_BATCH, seed, model, objective.clone())?;
    let (rollouts, update) = stage.roll_out_and_update(model, &World::alone().local_batch(batch), noise)?;
    let gradients = &update.gradients;
    let values = gradients.names().filter_map(|name| gradients.get(name)).flat_map(read).collect();
    Ok((rollouts, values))
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
