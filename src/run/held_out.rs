//! Training rows that stage 1 leaves to stage 2.

use serde::{Deserialize, Serialize};

use crate::eval::sample;
use crate::train::{Example, TrainError};

/// Tells the draw from that of a limit.
const DRAW: u64 = 0x4845_4c44_4f55_5421;

/// The training rows that a stage 1 does not train on: so large a share, drawn by a seed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldOut {
    /// The share, above 0 and below 1.
    pub share: f64,
    /// The seed.
    pub seed: u64,
}

/// Which training rows stage 2 reinforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum TrainRows {
    /// All training rows.
    #[default]
    All,
    /// Only the rows that stage 1 held out (sft --hold-out).
    HeldOut,
}

impl HeldOut {
    /// Makes sure that the share is one.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn check(&self) -> Result<(), TrainError> {
        match self.share > 0.0 && self.share < 1.0 {
            true => Ok(()),
            false => Err(TrainError::Config {
                field: "hold_out",
                problem: format!("must be above 0 and below 1, got {:?}", self.share),
            }),
        }
    }

    /// The examples that are held out, or all others, in their order.
    pub(super) fn of(self, examples: Vec<Example>, held_out: bool) -> Vec<Example> {
        let places: Vec<usize> = (0..examples.len()).collect();
        let count = (self.share * examples.len() as f64).round() as usize;
        let mut is_held = vec![false; examples.len()];
        sample(&places, Some(count), self.seed ^ DRAW).into_iter().for_each(|&place| is_held[place] = true);
        examples.into_iter().zip(is_held).filter(|(_, held)| *held == held_out).map(|(example, _)| example).collect()
    }
}
