//! What a sample earns.

use latentr3_models::LatentRecommender;

use crate::{Example, TrainError};

/// A sample of a prompt's group, as a reward sees it.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// The policy, which a reward may ask.
    pub model: &'a LatentRecommender,
    /// The prompt, its target and the target's item.
    pub example: &'a Example,
    /// The noise on the last thought, `[d_model]`; zeros in a group's first sample.
    pub noise: &'a [f32],
    /// Log-probabilities of the target's predicted tokens after this sample.
    pub log_probs: &'a [f32],
}

/// The reward of a sample; a function of [`Sample`] is one.
pub trait Reward: Send + Sync {
    /// The reward; one that is NaN or infinite skips or stops the step.
    ///
    /// # Errors
    ///
    /// What the model refuses.
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

#[cfg(test)]
mod tests {
    use super::negative_perplexity;

    #[test]
    fn a_certain_target_earns_minus_one_and_a_coin_toss_a_token_minus_two() {
        assert_eq!(negative_perplexity(&[0.0, 0.0]), -1.0);
        let half = 0.5f32.ln();
        assert!((negative_perplexity(&[half, half, half]) + 2.0).abs() < 1e-6);
    }
}
