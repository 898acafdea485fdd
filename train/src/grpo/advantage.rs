use serde::{Deserialize, Serialize};

/// The advantages of a whole batch from its rewards, the groups one after the other, and the size of a group.
pub type Advantage = Box<dyn Fn(&[f64], usize) -> Vec<f64> + Send + Sync>;

/// The baseline with which a reward is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum AdvantageKind {
    /// Mean of the batch's noise-free samples, as published.
    ///
    /// See [`batch_advantage`].
    Batch,
    /// Mean of the prompt's own group: plain GRPO.
    ///
    /// See [`group_advantage`].
    Group,
    /// The noise-free sample of the prompt's own group.
    ///
    /// See [`own_advantage`].
    Own,
    /// Mean of all samples of the batch.
    ///
    /// See [`pool_advantage`].
    Pool,
    /// Mean of the group's other samples: RLOO (arXiv 2402.14740).
    ///
    /// See [`leave_one_out_advantage`].
    LeaveOneOut,
    /// For items: the group's mean, and at each node of the catalog's tree the mean of the node's children.
    ///
    /// The two count half each. A child's reward is the mean over the items below it. Its difference from the mean of
    /// the node's children is divided by their standard deviation (Sibling-GRPO in V-STAR, arXiv 2602.10699).
    Sibling,
    /// For items: the expected reward of the list, which gives the exact derivative, without sampling noise.
    ///
    /// With `q`, the items' probabilities divided by their sum, the expected reward is `J = sum q_i R_i`, and its
    /// derivative by `log p_i` is `q_i (R_i - J)`.
    Expectation,
    /// For items: no baseline. Reward-augmented maximum likelihood (arXiv 1609.00150) weights items by the softmax of
    /// their rewards over the list.
    Raml,
}

/// The prompts over which advantages are computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum AdvantageOver {
    /// All prompts of the batch, as published.
    #[default]
    Batch,
    /// Two prompts at a time: the sixteen rollouts that the authors' script processes together, on two devices.
    Micro,
}

impl AdvantageOver {
    /// Prompts that the authors' script has together.
    const MICRO: usize = 2;

    /// The advantage of the batch, or of every two prompts by themselves.
    fn per_chunk(self, advantage: Advantage) -> Advantage {
        match self {
            Self::Batch => advantage,
            Self::Micro => Box::new(move |rewards, group| {
                rewards.chunks(Self::MICRO * group).flat_map(|pool| advantage(pool, group)).collect()
            }),
        }
    }
}

impl AdvantageKind {
    /// The function of this kind for samples that are noise on the thought; `None` where they must be items.
    pub fn function(self, over: AdvantageOver) -> Option<Advantage> {
        let function: Advantage = match self {
            Self::Batch => Box::new(batch_advantage),
            Self::Group => Box::new(group_advantage),
            Self::Own => Box::new(own_advantage),
            Self::Pool => Box::new(pool_advantage),
            Self::LeaveOneOut => Box::new(leave_one_out_advantage),
            Self::Sibling | Self::Expectation | Self::Raml => return None,
        };
        Some(over.per_chunk(function))
    }

    /// Whether it is defined for lists of items.
    pub fn works_with_items(self) -> bool {
        !matches!(self, Self::Batch | Self::Own | Self::Pool)
    }
}

/// The batch's baseline: the mean reward of its groups' first samples, which are free of noise.
pub fn baseline(rewards: &[f64], group: usize) -> f64 {
    let first = rewards.chunks(group).map(|samples| samples[0]);
    first.sum::<f64>() / (rewards.len() / group) as f64
}

/// LatentR3's advantage: the distance to [`baseline`], divided by its Euclidean norm over the batch plus 1e-6.
pub fn batch_advantage(rewards: &[f64], group: usize) -> Vec<f64> {
    let baseline = baseline(rewards, group);
    with_norm_one(rewards.iter().map(|reward| reward - baseline).collect())
}

/// The distance to the reward of the group's own first sample, which is free of noise, divided by its Euclidean norm
/// over the batch plus 1e-6. The first sample itself has none.
pub fn own_advantage(rewards: &[f64], group: usize) -> Vec<f64> {
    let differences = |samples: &[f64]| samples.iter().map(|reward| reward - samples[0]).collect::<Vec<_>>();
    with_norm_one(rewards.chunks(group).flat_map(differences).collect())
}

/// [`batch_advantage`] without the noise-free baseline: the distance to the mean reward of all samples of the batch,
/// noisy or not, divided by its Euclidean norm over the batch plus 1e-6.
pub fn pool_advantage(rewards: &[f64], _group: usize) -> Vec<f64> {
    let mean = rewards.iter().sum::<f64>() / rewards.len() as f64;
    with_norm_one(rewards.iter().map(|reward| reward - mean).collect())
}

/// The differences divided by their Euclidean norm plus 1e-6.
fn with_norm_one(mut differences: Vec<f64>) -> Vec<f64> {
    let norm = differences.iter().map(|difference| difference.powi(2)).sum::<f64>().sqrt();
    differences.iter_mut().for_each(|difference| *difference /= norm + 1e-6);
    differences
}

/// Plain GRPO's advantage (arXiv 2402.03300): the distance to the group's mean, divided by the group's standard
/// deviation (unbiased) plus 1e-4; a single sample has none.
pub fn group_advantage(rewards: &[f64], group: usize) -> Vec<f64> {
    let normalize = |samples: &[f64]| {
        let mean = samples.iter().sum::<f64>() / samples.len() as f64;
        let variance =
            samples.iter().map(|reward| (reward - mean).powi(2)).sum::<f64>() / (samples.len() - 1).max(1) as f64;
        samples.iter().map(|reward| (reward - mean) / (variance.sqrt() + 1e-4)).collect::<Vec<_>>()
    };
    rewards.chunks(group).flat_map(normalize).collect()
}

/// The distance to the mean reward of the group's other samples; a single sample has none.
pub fn leave_one_out_advantage(rewards: &[f64], group: usize) -> Vec<f64> {
    let others = group as f64 - 1.0;
    let differences = |samples: &[f64]| {
        let sum = samples.iter().sum::<f64>();
        samples
            .iter()
            .map(|reward| if others > 0.0 { reward - (sum - reward) / others } else { 0.0 })
            .collect::<Vec<_>>()
    };
    rewards.chunks(group).flat_map(differences).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REWARDS: [f64; 4] = [-2.0, -1.0, -4.0, -6.0];

    #[test]
    fn the_batch_advantage_has_norm_one_around_the_noise_free_mean() {
        assert_eq!(baseline(&REWARDS, 2), -3.0);
        let advantages = batch_advantage(&REWARDS, 2);
        let norm = advantages.iter().map(|a| a * a).sum::<f64>().sqrt();
        assert!((norm - 1.0).abs() < 1e-6);
        assert!((advantages[1] / advantages[0] - 2.0).abs() < 1e-12);
    }

    #[test]
    fn over_micro_batches_each_two_prompts_are_a_pool() {
        let rewards = [REWARDS, REWARDS.map(|reward| 3.0 * reward)].concat();
        let advantages = AdvantageKind::Batch.function(AdvantageOver::Micro).unwrap()(&rewards, 2);
        let per_chunk = [batch_advantage(&rewards[..4], 2), batch_advantage(&rewards[4..], 2)].concat();
        assert_eq!(advantages, per_chunk);
        assert_ne!(advantages, AdvantageKind::Batch.function(AdvantageOver::Batch).unwrap()(&rewards, 2));
    }

    #[test]
    fn the_group_advantage_adds_up_to_zero_in_every_group() {
        let advantages = group_advantage(&REWARDS, 2);
        assert!((advantages[0] + advantages[1]).abs() < 1e-12 && advantages[2] > 0.0);
    }

    #[test]
    fn the_own_advantage_is_the_difference_to_the_group_s_first_sample() {
        let norm = f64::sqrt(1.0 + 4.0) + 1e-6;
        assert_eq!(own_advantage(&REWARDS, 2), [0.0, 1.0 / norm, 0.0, -2.0 / norm]);
    }

    #[test]
    fn the_pool_advantage_is_the_difference_to_the_mean_of_all_samples() {
        // The mean is -3.25, where the noise-free samples' is -3.
        let differences = [1.25, 2.25, -0.75, -2.75];
        let norm = f64::sqrt(1.5625 + 5.0625 + 0.5625 + 7.5625) + 1e-6;
        assert_eq!(pool_advantage(&REWARDS, 2), differences.map(|difference| difference / norm));
    }

    #[test]
    fn the_leave_one_out_advantage_is_the_difference_to_the_others() {
        assert_eq!(leave_one_out_advantage(&[1.0, 0.0, 0.0, 0.0, 3.0, 0.0], 3), [1.0, -0.5, -0.5, -1.5, 3.0, -1.5]);
    }

    #[test]
    fn equal_rewards_have_no_advantage() {
        use AdvantageKind::{Batch, Group, LeaveOneOut, Own, Pool};
        for kind in [Batch, Group, Own, Pool, LeaveOneOut] {
            assert_eq!(kind.function(AdvantageOver::Batch).unwrap()(&[-1.0; 4], 2), [0.0; 4], "{kind:?}");
        }
    }
}
