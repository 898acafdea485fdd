//! Learning-rate schedules.

use serde::{Deserialize, Serialize};

/// Learning rate schedule after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Constant.
    Constant,
    /// Linear decay to zero at the end of the run.
    Linear,
    /// Cosine decay to zero at the end of the run.
    Cosine,
}

impl Schedule {
    /// The factor on the learning rate at `step` (from 0) of `steps`, after a linear warm-up of `warmup` steps.
    pub fn factor(self, step: usize, warmup: usize, steps: usize) -> f64 {
        if step < warmup {
            // From the first share of the way and not from 0, so that the first step moves the model too.
            return (step + 1) as f64 / (warmup as f64 + 1.0);
        }
        let progress = (step - warmup) as f64 / steps.saturating_sub(warmup).max(1) as f64;
        match self {
            Self::Constant => 1.0,
            Self::Linear => (1.0 - progress).max(0.0),
            Self::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress.min(1.0)).cos()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_then_falls_and_is_never_zero_within_the_run() {
        for schedule in [Schedule::Linear, Schedule::Cosine] {
            let rates: Vec<f64> = (0..100).map(|step| schedule.factor(step, 10, 100)).collect();
            assert!(rates[..11].is_sorted(), "{schedule:?}");
            assert_eq!(rates[10], 1.0);
            assert!(rates[10..].is_sorted_by(|a, b| a > b) && rates[99] > 0.0, "{schedule:?}");
        }
        assert_eq!(Schedule::Linear.factor(55, 10, 100), 0.5);
        assert_eq!(Schedule::Constant.factor(99, 0, 100), 1.0);
    }

    #[test]
    fn a_warmup_longer_than_the_run_is_harmless() {
        assert!(Schedule::Cosine.factor(3, 20, 4) > 0.0);
    }
}
