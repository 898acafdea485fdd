//! Stage 2: the modified GRPO of LatentR3 (arXiv 2505.19092), after Shao et al. (arXiv 2402.03300).
//!
//! Each prompt's thought is perturbed by noise into a group of samples; no text is sampled, for the reward is minus the
//! perplexity of the known target. By default only the source of the thoughts trains.

mod advantage;
mod config;
mod loss;
mod noise;
mod reward;
mod rollout;
mod score;
mod stage;
mod weighted;

pub use advantage::{
    Advantage, AdvantageKind, baseline, batch_advantage, group_advantage, own_advantage, pool_advantage,
};
pub use config::{Estimator, GrpoConfig};
pub use loss::{PolicyLoss, policy_loss};
pub use noise::group_noise;
pub use reward::{Reward, negative_perplexity};
pub use rollout::{Densities, Pool, Rollouts};
pub use stage::{Grpo, mean_of_samples, prepare_model};
