//! What a sample earns.

use latentr3_models::LatentRecommender;

use super::items::Candidate;
use crate::{Example, TrainError};

/// A sample of a prompt's group, as a reward sees it: noise on the thought, after which the target is scored, or an item
/// of the list that a search found.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// The policy, which a reward may ask.
    pub model: &'a LatentRecommender,
    /// The prompt, its target and the target's item.
    pub example: &'a Example,
    /// The noise on the last thought, `[d_model]`; zeros in a group's first sample, empty for an item.
    pub noise: &'a [f32],
    /// Log-probabilities of the target's predicted tokens after the thought of this sample.
    pub log_probs: &'a [f32],
    /// The list that the sample is an item of, best first; empty for noise.
    pub list: &'a [Candidate],
    /// The item's place in the list, from 0.
    pub place: usize,
}

impl Sample<'_> {
    /// The item that the sample is.
    ///
    /// # Errors
    ///
    /// It is noise.
    pub fn item(&self) -> Result<&Candidate, TrainError> {
        self.list.get(self.place).ok_or_else(|| {
            TrainError::config("reward", "this reward needs items as samples, but the samples are noise on the thought")
        })
    }
}

/// The reward of a sample; a function of [`Sample`] is one.
pub trait Reward: Send + Sync {
    /// The reward; one that is NaN or infinite skips or stops the step.
    ///
    /// # Errors
    ///
    /// What the model refuses, or a sample of another kind than the reward's.
    fn of(&self, sample: &Sample) -> Result<f64, TrainError>;

    /// The derivative of `reward`, which [`Self::of`] gave this sample, by the sum of its log-probabilities; `None`
    /// where the reward is no function of it. The pathwise estimator needs it.
    fn slope(&self, sample: &Sample, reward: f64) -> Option<f64> {
        let _ = (sample, reward);
        None
    }
}

impl<F: Fn(&Sample) -> f64 + Send + Sync> Reward for F {
    fn of(&self, sample: &Sample) -> Result<f64, TrainError> {
        Ok(self(sample))
    }
}

/// Minus the perplexity of the target, the method's reward: see [`negative_perplexity`].
#[derive(Debug, Clone, Copy)]
pub struct NegativePerplexity {
    /// The largest perplexity that is told apart; a worse one earns the same.
    pub largest: f64,
}

impl Reward for NegativePerplexity {
    fn of(&self, sample: &Sample) -> Result<f64, TrainError> {
        let (reward, lowest) = (negative_perplexity(sample.log_probs), -self.largest);
        // Not `max`, which would turn NaN into the lowest.
        Ok(if reward < lowest { lowest } else { reward })
    }

    /// `d s / d log p = s / |y|` of the reward `s` of a target with `|y|` predicted tokens, negated: a likelier target
    /// earns more; 0 where it is bounded.
    fn slope(&self, sample: &Sample, reward: f64) -> Option<f64> {
        Some(if reward > -self.largest { -reward / sample.log_probs.len() as f64 } else { 0.0 })
    }
}

/// Minus the perplexity of the target: `-exp(-mean log-probability)`.
pub fn negative_perplexity(log_probs: &[f32]) -> f64 {
    let sum: f64 = log_probs.iter().map(|&value| f64::from(value)).sum();
    -(-sum / log_probs.len() as f64).exp()
}

/// 1 for the target, 0 for any other item (ReRe, MiniOneRec).
#[derive(Debug, Clone, Copy)]
pub struct Hit;

impl Reward for Hit {
    fn of(&self, sample: &Sample) -> Result<f64, TrainError> {
        Ok(f64::from(u8::from(sample.item()?.is_target)))
    }
}

/// A penalty for items that are not the target, the more, the higher they stand (MiniOneRec): for the one at place `i`
/// of the list `-(1 / log2(i + 2)) / sum`, where the sum is that of all wrong ones, and 0 for the target. A list without
/// the target earns 0 throughout, because a penalty there would only flatten the distribution.
#[derive(Debug, Clone, Copy)]
pub struct RankPenalty;

impl Reward for RankPenalty {
    fn of(&self, sample: &Sample) -> Result<f64, TrainError> {
        if sample.item()?.is_target || !sample.list.iter().any(|candidate| candidate.is_target) {
            return Ok(0.0);
        }
        let wrong = (0..sample.list.len()).filter(|&place| !sample.list[place].is_target);
        Ok(-discount(sample.place) / wrong.map(discount).sum::<f64>())
    }
}

/// The gain of the target at its place of the list, `1 / log2(i + 2)`, and 0 for any other item.
#[derive(Debug, Clone, Copy)]
pub struct NdcgGain;

impl Reward for NdcgGain {
    fn of(&self, sample: &Sample) -> Result<f64, TrainError> {
        Ok(if sample.item()?.is_target { discount(sample.place) } else { 0.0 })
    }
}

/// The discount of NDCG at a place from 0.
fn discount(place: usize) -> f64 {
    1.0 / (place as f64 + 2.0).log2()
}

/// Minus the logarithm of the item's own probability: nats. Its expectation over a list is the list's entropy; added to
/// the reward of a guide, the expected reward is minus the KL divergence from the guide.
#[derive(Debug, Clone, Copy)]
pub struct Entropy;

impl Reward for Entropy {
    fn of(&self, sample: &Sample) -> Result<f64, TrainError> {
        Ok(-sample.item()?.log_prob())
    }
}

/// The logarithm of the target's share of the probability of its list, to which it is added where it is missing: a
/// reward of the thought, the same for all items of the list.
#[derive(Debug, Clone, Copy)]
pub struct LogPosterior;

impl Reward for LogPosterior {
    fn of(&self, sample: &Sample) -> Result<f64, TrainError> {
        sample.item()?;
        let sum = |log_probs: &[f32]| log_probs.iter().map(|&value| f64::from(value)).sum::<f64>();
        let target = sum(sample.log_probs);
        let others = sample.list.iter().filter(|candidate| !candidate.is_target);
        let odds: f64 = others.map(|candidate| (sum(&candidate.log_probs) - target).exp()).sum();
        Ok(-odds.ln_1p())
    }
}

/// The sum of several rewards, each times its weight.
pub struct Mixed(pub Vec<(Box<dyn Reward>, f64)>);

impl Reward for Mixed {
    fn of(&self, sample: &Sample) -> Result<f64, TrainError> {
        self.0.iter().map(|(reward, weight)| Ok(weight * reward.of(sample)?)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certain_target_earns_minus_one_and_a_coin_toss_a_token_minus_two() {
        assert_eq!(negative_perplexity(&[0.0, 0.0]), -1.0);
        let half = 0.5f32.ln();
        assert!((negative_perplexity(&[half, half, half]) + 2.0).abs() < 1e-6);
    }
}
