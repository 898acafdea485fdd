//! Some rows of a split.

use rand::seq::SliceRandom;

use crate::models::random::generator;

/// Marks the sampling's generator.
const SAMPLE: u64 = 0x5341_4d50_4c45_0000;

/// `limit` rows drawn without replacement in an order that depends on `seed` only; all rows in their order without a
/// limit.
pub fn sample<T>(rows: &[T], limit: Option<usize>, seed: u64) -> Vec<&T> {
    let mut places: Vec<usize> = (0..rows.len()).collect();
    if let Some(limit) = limit.filter(|limit| *limit < rows.len()) {
        places.shuffle(&mut generator([seed, SAMPLE, 0, 0]));
        places.truncate(limit);
        places.sort_unstable();
    }
    places.into_iter().map(|place| &rows[place]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::PreparedRow;

    #[test]
    fn a_sample_keeps_the_order_and_depends_on_the_seed_only() {
        let row = |i: usize| PreparedRow { user: i.to_string(), history: vec![0], item: 0, prompt: vec![1] };
        let rows: Vec<PreparedRow> = (0..50).map(row).collect();
        let users = |seed| {
            sample(&rows, Some(10), seed).iter().map(|row| row.user.parse::<usize>().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(users(1), users(1));
        assert_ne!(users(1), users(2));
        assert!(users(1).is_sorted() && users(1).len() == 10);
        assert_eq!(sample(&rows, None, 1).len(), 50);
    }
}
