//! Stage 2: the modified GRPO of LatentR3 (arXiv 2505.19092), after Shao et al. (arXiv 2402.03300).
//!
//! Each prompt's thought is perturbed by noise into a group of samples; no text is sampled, for the reward is minus the
//! perplexity of the known target. By default only the source of the thoughts trains.

mod advantage;
mod config;
mod estimator;
mod loss;
mod reward;
mod rollout;
mod sampler;
mod samples;
mod stage;

pub use advantage::{
    Advantage, AdvantageKind, baseline, batch_advantage, group_advantage, own_advantage, pool_advantage,
};
pub use config::{EstimatorKind, GrpoConfig};
pub use loss::{PolicyLoss, policy_loss};
pub use reward::{NegativePerplexity, Reward, Sample, negative_perplexity};
pub use rollout::{Densities, Pool, Rollouts, mean_of_samples};
pub use samples::group_noise;
pub use stage::{Grpo, prepare_model};
