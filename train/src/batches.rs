//! Which examples a step sees, and in which micro-batches.

use latentr3_models::random::generator;
use rand::seq::SliceRandom;

use crate::Example;

/// Marks the shuffling's generators among those of a run.
const SHUFFLE: u64 = 0x5348_5546_464c_4521;

/// The order of `count` examples in an epoch; it depends on nothing but the seed and the epoch.
pub fn epoch_order(count: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.shuffle(&mut generator([seed, SHUFFLE, epoch, 0]));
    order
}

/// Splits rows into micro-batches of at most `size`, rows of like length together.
///
/// Returns places in `batch`. What a batch computes depends on the split by rounding only.
pub fn micro_batches(batch: &[&Example], size: usize) -> Vec<Vec<usize>> {
    let mut places: Vec<usize> = (0..batch.len()).collect();
    places.sort_by_key(|&place| (batch[place].prompt.len() + batch[place].target.len(), place));
    places.chunks(size.max(1)).map(<[usize]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_shows_every_example_once_and_epochs_differ() {
        let mut order = epoch_order(100, 7, 1);
        assert_ne!(order, epoch_order(100, 7, 2));
        assert_eq!(order, epoch_order(100, 7, 1));
        order.sort_unstable();
        assert!(order.into_iter().eq(0..100));
    }

    #[test]
    fn micro_batches_hold_every_row_once_by_length() {
        let example = |length: usize| Example { prompt: vec![1; length], target: vec![0], item: 0, row: 0 };
        let examples: Vec<Example> = [5, 1, 4, 2, 3].into_iter().map(example).collect();
        let batch: Vec<&Example> = examples.iter().collect();
        assert_eq!(micro_batches(&batch, 2), [vec![1, 3], vec![4, 2], vec![0]]);
    }
}
