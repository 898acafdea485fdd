//! The temperature of the catalog's objective in training (MSL, arXiv 2504.04178).
//!
//! Where a choice has few children, their softmax is soon sure and its gradient vanishes; a temperature above 1
//! flattens it. It belongs to the loss only: validation and search have none.

use std::fmt;
use std::str::FromStr;

use latentr3_models::LogitSpread;
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// By what the logits are divided in the loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Temperature {
    /// Always by this.
    Fixed(f64),
    /// By what the logits of the widest choices of the steps so far suggest, see [`suggested`].
    Adaptive,
}

impl Default for Temperature {
    fn default() -> Self {
        Self::Fixed(1.0)
    }
}

/// The adaptive temperature's bounds.
const BOUNDS: [f64; 2] = [1.5, 5.0];
/// How far a step's suggestion moves it.
const MOMENTUM: f64 = 0.05;

impl Temperature {
    /// Makes sure that the logits can be divided by it.
    ///
    /// # Errors
    ///
    /// A fixed one outside 0.01 to 100.
    pub fn check(&self) -> Result<(), TrainError> {
        match self {
            Self::Fixed(value) if !(0.01..=100.0).contains(value) => {
                Err(TrainError::config("temperature", format!("must be from 0.01 to 100, got {value:?}")))
            }
            _ => Ok(()),
        }
    }

    /// The temperature of a step after one that had `last`, where there was any.
    pub(crate) fn now(&self, last: Option<f64>) -> f64 {
        match self {
            Self::Fixed(value) => *value,
            Self::Adaptive => last.unwrap_or(BOUNDS[0]),
        }
    }
}

/// The adaptive temperature after a step: a little nearer to what the step suggests.
pub(crate) fn moved(temperature: f64, spread: LogitSpread) -> f64 {
    temperature + MOMENTUM * (suggested(spread) - temperature)
}

/// `tau = (D + sqrt(max(0, D^2 - 2 C v))) / (2 C)` within 1.5 and 5, with `C = log(|S| / 4)`, `D` the mean of the
/// target's logit less the mean of the allowed ones, and `v` their mean variance, over the rows' choices with the most
/// children `S` (MSL, arXiv 2504.04178).
pub fn suggested(LogitSpread { rows, gap, variance, children }: LogitSpread) -> f64 {
    let [lowest, highest] = BOUNDS;
    let (gap, variance, c) = (gap / rows, variance / rows, (children / rows / 4.0).ln());
    let tau = (gap + (gap * gap - 2.0 * c * variance).max(0.0).sqrt()) / (2.0 * c);
    // No rows, or four children on average: not a number.
    if tau.is_finite() { tau.clamp(lowest, highest) } else { lowest }
}

impl fmt::Display for Temperature {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Fixed(value) => write!(f, "{value}"),
            Self::Adaptive => f.write_str("adaptive"),
        }
    }
}

impl FromStr for Temperature {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "adaptive" => Ok(Self::Adaptive),
            _ => text.parse().map(Self::Fixed).map_err(|_| format!("`{text}` is neither a number nor `adaptive`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suggestion_solves_its_equation_within_its_bounds() {
        // C tau^2 - D tau + v / 2 = 0 at the larger root.
        let spread = LogitSpread { rows: 2.0, gap: 2.0 * 9.0, variance: 2.0 * 4.0, children: 2.0 * 80.0 };
        let (tau, c) = (suggested(spread), 20f64.ln());
        assert!((c * tau * tau - 9.0 * tau + 2.0).abs() < 1e-9 && tau > 2.0 && tau < 3.0, "{tau}");
        assert_eq!(suggested(LogitSpread { gap: 0.0, ..spread }), 1.5);
        assert_eq!(suggested(LogitSpread { gap: 1e3, ..spread }), 5.0);
        for nothing in [LogitSpread::default(), LogitSpread { children: 2.0 * 4.0, ..spread }] {
            assert!((1.5..=5.0).contains(&suggested(nothing)));
        }
        assert!((moved(2.0, LogitSpread { gap: 1e3, ..spread }) - 2.15).abs() < 1e-12);
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for temperature in [Temperature::Adaptive, Temperature::Fixed(1.5)] {
            assert_eq!(temperature.to_string().parse(), Ok(temperature));
        }
        assert!("warm".parse::<Temperature>().is_err());
        assert!(Temperature::Fixed(0.0).check().is_err() && Temperature::Fixed(f64::NAN).check().is_err());
    }
}
