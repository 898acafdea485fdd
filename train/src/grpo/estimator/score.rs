//! The score estimator: the gradient of the samples' own density, weighted by their advantages.
//!
//! A thought `r` is the mean of a Gaussian policy, `r_k ~ N(r, sigma^2 I)`, and the reward a function of the sample
//! that need not be differentiated: `d E[s] / d r = E[A_k e_k] / sigma^2` for `e_k = r_k - r` (Williams, 1992). Only
//! the thought's source is on the tape.

use burn::module::Module;
use burn::tensor::Tensor;
use latentr3_models::{LatentRecommender, host};

use super::{Estimator, Setup};
use crate::TrainError;
use crate::batches::micro_batches;
use crate::forward::{prompts, shared_prefix};
use crate::grpo::config::GrpoConfig;
use crate::grpo::loss::{PolicyLoss, policy_loss};
use crate::grpo::rollout::{Densities, Rollouts};
use crate::grpo::sampler::{Keeps, Thoughts, no_thoughts};
use crate::grpo::samples::gather_noise;
use crate::local_update::LocalUpdate;
use crate::world::LocalBatch;

/// See [`EstimatorKind::Score`](crate::grpo::EstimatorKind::Score).
pub(super) struct Score;

impl Estimator for Score {
    fn check(&self, config: &GrpoConfig) -> Result<(), TrainError> {
        if config.train_backbone {
            let problem = "score needs a fixed reward, but training the backbone changes the reward; use likelihood";
            return Err(TrainError::config("estimator", problem));
        }
        let (field, spread) = match config.sigma_relative {
            Some(share) => ("sigma_relative", share),
            None => ("sigma", config.sigma),
        };
        if spread == 0.0 {
            return Err(TrainError::config(
                field,
                "must be positive, got 0: the score estimator learns from the noise",
            ));
        }
        Ok(())
    }

    fn keeps(&self) -> Keeps {
        Keeps::Densities
    }

    fn updates_at_once(&self, _: &GrpoConfig, _: &LatentRecommender) -> bool {
        true
    }

    fn first(
        &self,
        setup: &Setup,
        model: &LatentRecommender,
        batch: &LocalBatch,
        rollouts: &Rollouts,
        thoughts: Vec<Thoughts>,
    ) -> Result<LocalUpdate, TrainError> {
        let densities = rollouts.densities.as_ref().ok_or_else(|| {
            TrainError::config("estimator", "score needs rollouts that keep the densities of their samples")
        })?;
        let names = ["loss", "ratio", "clip_share", "thought_kl"];
        let mut update =
            LocalUpdate::default().with_metrics(names.into_iter().take(3 + usize::from(setup.config.kl > 0.0)));
        for Thoughts { places, thought, .. } in thoughts {
            let loss = score_loss(setup.config, thought, &places, batch.global.len(), rollouts, densities);
            update.add(model, loss.loss.clone(), loss.metrics("thought_kl"));
        }
        setup.add_kl(&mut update, batch, rollouts)?;
        Ok(update)
    }

    fn further(
        &self,
        setup: &Setup,
        model: &LatentRecommender,
        batch: &LocalBatch,
        rollouts: &Rollouts,
    ) -> Result<LocalUpdate, TrainError> {
        self.first(setup, model, batch, rollouts, think_again(setup, model, batch)?)
    }
}

/// The last thoughts of a local batch's prompts with their gradient history; what they follow has none, so that with
/// several thoughts the earlier ones count as given.
fn think_again(setup: &Setup, model: &LatentRecommender, batch: &LocalBatch) -> Result<Vec<Thoughts>, TrainError> {
    let plain = model.valid();
    let prefix = shared_prefix(&plain, &batch.rows)?;
    let think = |places: Vec<usize>| {
        let rows: Vec<_> = places.iter().map(|&place| batch.rows[place]).collect();
        let mut state = plain.backbone.prefill_after(prefix.as_ref(), &prompts(&rows))?;
        plain.think_ahead(&mut state)?;
        let thought = model.last_thought(&state).ok_or_else(no_thoughts)?;
        Ok(Thoughts { places, thought, by_sample: None })
    };
    micro_batches(&batch.rows, setup.micro_batch).into_iter().map(think).collect()
}

/// The loss of a micro-batch of thoughts `[prompts, d_model]` as its part of the mean over the noisy samples of the
/// batch; the first sample of a group is not drawn from the density. `kl` is the divergence of the Gaussians, a mean
/// over the prompts.
fn score_loss(
    config: &GrpoConfig,
    thought: Tensor<2>,
    places: &[usize],
    batch: usize,
    rollouts: &Rollouts,
    densities: &Densities,
) -> PolicyLoss {
    let ([prompts, width], group, noisy) = (thought.dims(), config.group, config.group - 1);
    let device = thought.device().inner();
    let column = |values: Vec<f32>| {
        let rows = values.len() / prompts;
        host::floats(values, [prompts, rows], &device)
    };
    let means = |of: &[f32]| gather_noise(of, places, width, width, &device);
    // Without spread there is nothing to learn from.
    let precision = |&place: &usize| match densities.deviations[place] {
        0.0 => 0.0,
        deviation => 1.0 / (deviation * deviation),
    };
    let precisions = column(places.iter().map(precision).collect());
    let noise = gather_noise(&rollouts.noise, places, group * width, width, &device);
    let noise = noise.reshape([prompts, group, width]).narrow(1, 1, noisy);
    let own = |place: &usize| rollouts.advantages[place * group + 1..(place + 1) * group].iter().map(|&a| a as f32);
    let advantages = column(places.iter().flat_map(own).collect()).reshape([prompts * noisy]);

    // The logarithm of N(r_k; r, sigma^2) / N(r_k; r_old, sigma^2), without the large squares that cancel in it.
    let shift = thought.clone() - means(&densities.means);
    let along = (noise * shift.clone().unsqueeze_dim::<3>(1)).sum_dim(2).reshape([prompts, noisy]);
    let log_ratio = (along - shift.square().sum_dim(1).mul_scalar(0.5)) * precisions.clone();
    let log_ratio = log_ratio.reshape([prompts * noisy]);
    let old = advantages.zeros_like();
    let mut loss = policy_loss(log_ratio, old, advantages, None, batch * noisy, config.clip());
    if let (true, Some(reference)) = (config.kl > 0.0, &densities.reference_means) {
        let squares = (thought - means(reference)).square().sum_dim(1);
        let kl = (squares * precisions).sum().div_scalar(2.0 * batch as f64);
        loss.loss = loss.loss + kl.clone().mul_scalar(config.kl);
        loss.kl = Some(kl.inner());
    }
    loss
}
