//! Rollouts: what was sampled and what it earned.

use serde_json::{Map, Value, json};

/// The samples of a local batch's prompts and what they earned, the groups one after the other.
#[derive(Debug, Clone)]
pub struct Rollouts {
    /// The noise as it was added, `[rollouts, d_model]`.
    pub noise: Vec<f32>,
    /// What the samples were drawn from, for [`EstimatorKind::Score`](super::EstimatorKind::Score).
    pub densities: Option<Densities>,
    /// Log-probabilities of each rollout's predicted tokens under the policy that made it.
    pub log_probs: Vec<Vec<f32>>,
    /// The same under the reference policy, where there is one.
    pub reference: Option<Vec<Vec<f32>>>,
    /// Reward of each rollout.
    pub rewards: Vec<f64>,
    /// The derivative of each reward by the summed log-probabilities, where the reward has one: see
    /// [`Reward::slope`](super::Reward::slope).
    pub slopes: Option<Vec<f64>>,
    /// Advantage of each rollout.
    pub advantages: Vec<f64>,
    /// Values of the whole batch, to which the rewards are compared.
    pub pool: BatchValues,
}

/// The Gaussians that the samples of each prompt were drawn from.
#[derive(Debug, Clone, Default)]
pub struct Densities {
    /// The thoughts, `[prompts, d_model]`.
    pub means: Vec<f32>,
    /// Standard deviation of each coordinate, `[prompts]`.
    pub deviations: Vec<f32>,
    /// The thoughts of the reference policy, `[prompts, d_model]`, where there is one.
    pub reference_means: Option<Vec<f32>>,
}

/// Values of all rollouts of a batch, whichever rank made them.
#[derive(Debug, Clone, Default)]
pub struct BatchValues {
    /// Reward of each rollout.
    pub rewards: Vec<f64>,
    /// Advantage of each rollout.
    pub advantages: Vec<f64>,
    /// Mean negative log-likelihood of each prompt's target tokens after the thought without noise.
    pub losses: Vec<f64>,
    /// Euclidean norm of each rollout's noise.
    pub noise_norms: Vec<f64>,
    /// Euclidean norm of each prompt's thought.
    pub thought_norms: Vec<f64>,
}

impl Rollouts {
    /// The k3 estimate of the KL divergence to the reference policy (see [`policy_loss`](super::policy_loss)), added up
    /// over the target tokens, where there is a reference.
    pub(in crate::grpo) fn kl(&self) -> Option<f64> {
        let tokens = self.log_probs.iter().flatten().zip(self.reference.as_ref()?.iter().flatten());
        let k3 = |(&own, &reference): (&f32, &f32)| {
            let difference = f64::from(reference) - f64::from(own);
            difference.exp_m1() - difference
        };
        Some(tokens.map(k3).sum())
    }
}

impl BatchValues {
    /// The metrics that `docs/stage-2.md` lists for noise as samples.
    pub(super) fn metrics(&self, group: usize) -> Map<String, Value> {
        let square_sum: f64 = self.advantages.iter().map(|a| a * a).sum();
        let largest = self.advantages.iter().map(|a| a * a).fold(0.0, f64::max);
        let average = mean(self.advantages.iter().copied());
        let spread = mean(self.advantages.iter().map(|a| (a - average).powi(2))).sqrt();
        let metrics = [
            ("reward_noise_free", mean_of_samples(&self.rewards, group, false)),
            ("reward_noisy", mean_of_samples(&self.rewards, group, true)),
            ("loss_noise_free", mean(self.losses.iter().copied())),
            ("advantage_spread", spread),
            ("advantage_largest_share", if square_sum > 0.0 { largest / square_sum } else { 0.0 }),
            ("thought_norm", mean(self.thought_norms.iter().copied())),
            ("noise_norm", mean_of_samples(&self.noise_norms, group, true)),
        ];
        metrics.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect()
    }
}

/// The mean of what each rollout of a batch has: over the noisy samples, or over the first one of each group, which is
/// free of noise.
pub fn mean_of_samples(values: &[f64], group: usize, is_noisy: bool) -> f64 {
    let keep = |(i, value): (usize, &f64)| (i.is_multiple_of(group) != is_noisy).then_some(*value);
    mean(values.iter().enumerate().filter_map(keep))
}

pub(super) fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), value| (sum + value, count + 1));
    sum / count as f64
}
