//! Which items the lists show, whoever they are for.

use serde::{Deserialize, Serialize};

/// How the places of all users' lists are shared out among the items of a catalog.
///
/// Items in random order at places of which only some are within the list count by their chance to be shown.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Exposure {
    /// Length of the lists.
    pub k: usize,
    /// How often a recommended item was chosen in training, the mean over all places of all lists.
    pub average_popularity: f64,
    /// Share of the catalog that is in any list.
    pub coverage: f64,
    /// Gini coefficient of the items' numbers of places: 0 where all items are shown equally often, near 1 where few
    /// take all.
    pub gini: f64,
    /// Entropy of the items' shares of the places, in bits; `log2` of the number of items where all are shown equally
    /// often.
    pub entropy: f64,
}

impl Exposure {
    /// The exposure in the first `k` places of `lists`; `counts` says how often each item was chosen in training.
    /// Nothing where the lists are empty.
    pub fn of<'a>(lists: impl Iterator<Item = &'a [Vec<u32>]>, counts: &[u64], k: usize) -> Option<Self> {
        let shown = shown(lists, counts.len(), k)?;
        let all: f64 = shown.iter().sum();
        let popularity = shown.iter().zip(counts).map(|(shown, &count)| shown * count as f64).sum::<f64>() / all;
        let entropy =
            shown.iter().filter(|&&shown| shown > 0.0).map(|shown| -(shown / all) * (shown / all).log2()).sum();
        let coverage = shown.iter().filter(|&&shown| shown > 0.0).count() as f64 / counts.len() as f64;
        Some(Self { k, average_popularity: popularity, coverage, gini: gini(shown), entropy })
    }
}

/// How many of the first `k` places of `lists` each of a catalog's `items` has. Nothing where the lists are empty or
/// name items that the catalog has not.
pub fn shown<'a>(lists: impl Iterator<Item = &'a [Vec<u32>]>, items: usize, k: usize) -> Option<Vec<f64>> {
    let mut shown = vec![0.0; items];
    for list in lists {
        let mut before = 0;
        for items in list.iter().take_while(|items| !items.is_empty()) {
            let within = items.len().min(k.saturating_sub(before)) as f64 / items.len() as f64;
            if within == 0.0 {
                break;
            }
            for &item in items {
                // A result that was read from a file may name items that the catalog has not.
                *shown.get_mut(item as usize)? += within;
            }
            before += items.len();
        }
    }
    shown.iter().any(|&places| places > 0.0).then_some(shown)
}

/// `sum_i (2 i - n - 1) x_i / (n sum_i x_i)` over the values in ascending order, `i` from 1.
fn gini(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (n, all) = (values.len() as f64, values.iter().sum::<f64>());
    values.iter().enumerate().map(|(i, value)| (2.0 * (i as f64 + 1.0) - n - 1.0) * value).sum::<f64>() / (n * all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lists: &[Vec<Vec<u32>>], counts: &[u64], k: usize) -> Option<Exposure> {
        Exposure::of(lists.iter().map(Vec::as_slice), counts, k)
    }

    #[test]
    fn equal_exposure_has_no_inequality() {
        let lists = [vec![vec![0], vec![1]], vec![vec![2], vec![3]]];
        let expected = Exposure { k: 2, average_popularity: 2.5, coverage: 1.0, gini: 0.0, entropy: 2.0 };
        assert_eq!(of(&lists, &[1, 2, 3, 4], 2), Some(expected));
    }

    #[test]
    fn one_item_for_all_is_the_most_unequal() {
        let exposure = of(&[vec![vec![1]], vec![vec![1]]], &[0, 7, 0, 0], 10).unwrap();
        assert_eq!((exposure.average_popularity, exposure.coverage, exposure.entropy), (7.0, 0.25, 0.0));
        assert_eq!(exposure.gini, 0.75, "1 - 1/n");
    }

    #[test]
    fn items_at_the_edge_of_the_list_count_by_their_chance() {
        // Place 1 is item 0's, place 2 is one of items 1 and 2.
        let exposure = of(&[vec![vec![0], vec![1, 2], vec![3]]], &[10, 20, 40, 80], 2).unwrap();
        assert_eq!(exposure.average_popularity, (10.0 + 0.5 * 20.0 + 0.5 * 40.0) / 2.0);
        assert_eq!((exposure.coverage, exposure.entropy), (0.75, 1.5));
    }

    #[test]
    fn nothing_shown_or_nothing_known_has_no_exposure() {
        assert_eq!(of(&[], &[1], 10), None);
        assert_eq!(of(&[vec![vec![5]]], &[1], 10), None);
    }
}
