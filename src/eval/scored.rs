//! Evaluation of anything that scores the whole catalog.

use std::cmp::Ordering;

use super::evaluate::{EvalConfig, evaluate_lists};
use super::evaluation::{Evaluation, Method};
use super::metrics::expected_rank;
use super::ranks::Found;
use crate::data::{Catalog, Prepared, PreparedRow};

/// Ranks each of the shard's rows' item by the scores that `score` gives to all items for the rows of a batch, by place
/// in the catalog; higher is better, and items of equal scores are in random order. A title scores as the best of its
/// items.
///
/// Lists have `config.beam.beams` places, and ranks are known beyond them; `method` says what scores.
///
/// # Errors
///
/// What `score` refuses.
///
/// # Panics
///
/// If there are not as many scores as items.
pub fn evaluate_scores<E>(
    method: Method,
    prepared: &Prepared,
    rows: &[&PreparedRow],
    config: EvalConfig,
    mut score: impl FnMut(&[&PreparedRow]) -> Result<Vec<Vec<f32>>, E>,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Evaluation, E> {
    let length = config.beam.beams;
    let method = Method { beams: length, exclude_history: config.exclude_history, ..method };
    evaluate_lists(prepared, rows, config, method, progress, &mut |rows| {
        let mut scores = score(rows)?;
        if config.exclude_history {
            for (scores, row) in scores.iter_mut().zip(rows) {
                row.history.iter().for_each(|&item| scores[item] = LEFT_OUT);
            }
        }
        Ok(rows.iter().zip(scores).map(|(row, scores)| found(row.item, &scores, &prepared.catalog, length)).collect())
    })
}

/// The score of what is in no list.
const LEFT_OUT: f32 = f32::NEG_INFINITY;

fn found(item: usize, scores: &[f32], catalog: &Catalog, length: usize) -> Found {
    assert_eq!(scores.len(), catalog.len(), "every item needs a score");
    let mut titles = vec![f32::NEG_INFINITY; catalog.titles()];
    for (place, &score) in scores.iter().enumerate() {
        let title = &mut titles[catalog.title_groups()[place]];
        *title = title.max(score);
    }
    let among = |scores: &[f32], at: usize| (scores[at] != LEFT_OUT).then(|| rank(scores, at));
    Found {
        rank: among(scores, item),
        title_rank: among(&titles, catalog.title_groups()[item]),
        list: best(scores, length),
    }
}

fn rank(scores: &[f32], at: usize) -> f64 {
    let count = |ordering| scores.iter().filter(|score| score.total_cmp(&scores[at]) == ordering).count();
    expected_rank(count(Ordering::Greater), count(Ordering::Equal))
}

/// The best items in groups of equal scores, until there are `length` of them.
fn best(scores: &[f32], length: usize) -> Vec<Vec<u32>> {
    let score = |item: u32| scores[item as usize];
    let mut order: Vec<u32> = (0..scores.len() as u32).filter(|&item| score(item) != LEFT_OUT).collect();
    order.sort_unstable_by(|&a, &b| score(b).total_cmp(&score(a)).then(a.cmp(&b)));
    let mut places = 0;
    let groups = order.chunk_by(|&a, &b| score(a).total_cmp(&score(b)) == Ordering::Equal);
    let is_within = |group: &&[u32]| {
        let is_within = places < length;
        places += group.len();
        is_within
    };
    groups.take_while(is_within).map(<[u32]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Item;

    #[test]
    fn scores_rank_items_and_titles() {
        let titles = ["A", "B", "A", "C", "B"];
        let item = |(id, title): (usize, &&str)| Item { id: id.to_string(), title: title.to_string() };
        let catalog = Catalog::new(titles.iter().enumerate().map(item).collect()).unwrap();
        let scores = [0.1, 0.5, 0.9, 0.5, 0.0];
        let found = |item| found(item, &scores, &catalog, 2);
        assert_eq!((found(2).rank, found(2).title_rank), (Some(1.0), Some(1.0)));
        assert_eq!((found(1).rank, found(1).title_rank), (Some(2.5), Some(2.5)), "3 scores the same, C as much as B");
        assert_eq!((found(0).rank, found(0).title_rank), (Some(4.0), Some(1.0)), "another album called A is first");
        assert_eq!(found(4).rank, Some(5.0));
        assert_eq!(found(0).list, [vec![2], vec![1, 3]], "whoever shares the last place is in the list");
        // Left out, an item is in no list; another one with its title may be.
        let left_out = [0.1, 0.5, LEFT_OUT, 0.5, LEFT_OUT];
        let found = |item| super::found(item, &left_out, &catalog, 9);
        assert_eq!((found(2).rank, found(2).title_rank), (None, Some(3.0)));
        assert_eq!((found(4).rank, found(4).title_rank), (None, Some(1.5)));
        assert_eq!(found(0).list, [vec![1, 3], vec![0]]);
    }

    #[test]
    fn scores_that_are_no_numbers_rank_without_a_panic() {
        assert_eq!(rank(&[f32::NAN, 1.0, f32::NEG_INFINITY], 1), 2.0);
        assert_eq!(best(&[f32::NAN, 1.0], 1), [vec![0]]);
    }
}
