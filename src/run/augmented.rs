//! A stage whose training rows have parts of their histories left out or in another order.

use rand::RngExt;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::data::{DataError, Prepared};
use crate::models::LatentRecommender;
use crate::models::random::generator;
use crate::train::{Example, Guards, LocalBatch, Optimizer, Stage, StepReport, TrainError, Validation, ValidationPass};

/// Marks the generators of what is drawn.
const AUGMENT: u64 = 0x4155_474d_0000_0000;

/// How the histories of training rows are changed, anew in each epoch. A history that would lose all titles keeps the
/// last.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "clap", derive(clap::Args), command(next_help_heading = "Regularization"))]
pub struct Augmentation {
    /// Probability of dropping each title from a training row's history, anew in each epoch.
    #[cfg_attr(
        feature = "clap",
        arg(id = "drop_history", long = "drop-history", value_name = "PROBABILITY", default_value_t = 0.0)
    )]
    pub drop: f64,
    /// Probability of swapping each title of a training row's history with the next one, anew in each epoch.
    #[cfg_attr(
        feature = "clap",
        arg(id = "swap_history", long = "swap-history", value_name = "PROBABILITY", default_value_t = 0.0)
    )]
    pub swap: f64,
}

impl Augmentation {
    /// Whether nothing is changed.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Makes sure that both are probabilities below 1.
    ///
    /// # Errors
    ///
    /// What is none.
    pub fn check(&self) -> Result<(), String> {
        for (name, value) in [("drop", self.drop), ("swap", self.swap)] {
            if !(0.0..1.0).contains(&value) {
                return Err(format!("the probability to {name} a title must be at least 0 and below 1, got {value:?}"));
            }
        }
        Ok(())
    }

    /// An example of a training row with its history at a step.
    fn apply(&self, example: &Example, prepared: &Prepared, [seed, step]: [u64; 2]) -> Result<Example, DataError> {
        let row = &prepared.rows.train[example.row];
        let history = self.of(&row.history, [seed, step, example.row as u64]);
        if history == row.history {
            return Ok(example.clone());
        }
        let titles: Vec<&str> = history.iter().map(|&item| prepared.catalog.title(item)).collect();
        Ok(Example { prompt: prepared.encode_titles(&titles, || row.user.clone())?, ..example.clone() })
    }

    /// The history of a row at a step; it depends on nothing else but the seed.
    fn of(&self, history: &[usize], [seed, step, row]: [u64; 3]) -> Vec<usize> {
        let mut rng = generator([seed, AUGMENT, step, row]);
        let mut kept: Vec<usize> = history.iter().copied().filter(|_| !rng.random_bool(self.drop)).collect();
        if kept.is_empty() {
            kept.extend(history.last());
        }
        let mut at = 0;
        while at + 1 < kept.len() {
            if rng.random_bool(self.swap) {
                kept.swap(at, at + 1);
                at += 1;
            }
            at += 1;
        }
        kept
    }
}

/// A stage that does as `stage` does with changed histories. The examples are those of the prepared data's training
/// rows.
pub(super) struct Augmented<'a> {
    pub stage: Box<dyn Stage<LatentRecommender> + 'a>,
    pub augmentation: Augmentation,
    pub prepared: &'a Prepared,
    pub seed: u64,
}

impl Stage<LatentRecommender> for Augmented<'_> {
    fn step(
        &self,
        model: LatentRecommender,
        optimizer: &mut Optimizer,
        batch: &LocalBatch,
    ) -> Result<(LatentRecommender, StepReport), TrainError> {
        let Self { augmentation, prepared, seed, .. } = self;
        let key = [*seed, optimizer.step as u64];
        // The whole batch, so that all ranks deal it out alike.
        let rows = batch.global.par_iter().map(|example| augmentation.apply(example, prepared, key));
        let rows = rows
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| TrainError::Config { field: "augmentation", problem: error.to_string() })?;
        let rows: Vec<&Example> = rows.iter().collect();
        self.stage.step(model, optimizer, &batch.world.local_batch(&rows))
    }

    fn validate(
        &self,
        model: &LatentRecommender,
        rows: &[Example],
        pass: &ValidationPass,
    ) -> Result<Option<Validation>, TrainError> {
        self.stage.validate(model, rows, pass)
    }

    fn freeze(&self, model: LatentRecommender) -> LatentRecommender {
        self.stage.freeze(model)
    }

    fn guards(&self) -> Option<Guards> {
        self.stage.guards()
    }

    fn suspects(&self, model: &LatentRecommender, rows: &[&Example]) -> Result<Vec<usize>, TrainError> {
        self.stage.suspects(model, rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histories_lose_titles_and_neighbours_change_places() {
        let history: Vec<usize> = (0..10).collect();
        let of = |drop, swap, step| Augmentation { drop, swap }.of(&history, [7, step, 3]);
        assert_eq!(of(0.0, 0.0, 1), history);
        let (mut dropped, mut moved) = (0, 0);
        for step in 0..200 {
            let fewer = of(0.2, 0.0, step);
            assert!(fewer.is_sorted() && !fewer.is_empty());
            dropped += 10 - fewer.len();
            let mut other = of(0.0, 0.3, step);
            assert!(other.iter().enumerate().all(|(place, &item)| place.abs_diff(item) <= 1));
            moved += other.iter().enumerate().filter(|(place, item)| place != *item).count();
            other.sort_unstable();
            assert_eq!(other, history);
            assert_eq!(of(0.2, 0.3, step), of(0.2, 0.3, step));
        }
        // 400 are expected of the one; of the other 2 of each swap, with probability .3 at each place that is not
        // behind another swap.
        assert!((300..500).contains(&dropped), "{dropped}");
        assert!((700..1100).contains(&moved), "{moved}");
        assert_eq!(Augmentation { drop: 0.999, swap: 0.0 }.of(&[5], [1, 1, 1]), [5]);
    }
}
