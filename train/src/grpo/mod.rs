//! Stage 2: the modified GRPO of LatentR3 (arXiv 2505.19092), after Shao et al. (arXiv 2402.03300).
//!
//! As published, each prompt's thought is perturbed by noise into a group of samples ([`Grpo`]); no text is sampled, for
//! the reward is minus the perplexity of the known target, and only the source of the thoughts trains. Or the samples
//! are the items of a list that the search finds, and what they earn depends on where the target stands
//! ([`RankingGrpo`]).

mod advantage;
mod config;
mod estimator;
mod items;
mod loss;
mod reward;
mod rollout;
mod sampler;
mod samples;
mod stage;

pub use advantage::{
    Advantage, AdvantageKind, AdvantageOver, baseline, batch_advantage, group_advantage, leave_one_out_advantage,
    own_advantage, pool_advantage,
};
pub use config::{EstimatorKind, GrpoConfig, SampleKind};
pub use items::{Candidate, ItemGroup, ItemGuide, ItemsConfig, RankingGrpo, RewardKind, RewardTerm};
pub use loss::{Clip, PolicyLoss, policy_loss};
pub use reward::{
    Entropy, Hit, LogPosterior, Mixed, NdcgGain, NegativePerplexity, RankPenalty, Reward, Sample, negative_perplexity,
};
pub use rollout::{BatchValues, Densities, Rollouts, mean_of_samples};
pub use samples::group_noise;
pub use stage::{Grpo, freeze_untrained, stage};
