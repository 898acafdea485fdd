//! From a model and a split to ranks and metrics.

use std::time::Instant;

use burn::module::Module;
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};

use super::metrics::{Ranking, expected_rank};
use super::shard::Shard;
use crate::data::{Prepared, PreparedRow};
use crate::models::decode::{BeamConfig, ItemTrie, beam_search};
use crate::models::random::generator;
use crate::models::{LatentRecommender, ModelError};

/// Marks the sampling's generator.
const SAMPLE: u64 = 0x5341_4d50_4c45_0000;

/// How to evaluate.
#[derive(Debug, Clone, Copy)]
pub struct EvalConfig {
    /// The beam search.
    pub beam: BeamConfig,
    /// Users searched at once; changes memory and speed, not results.
    pub batch: usize,
    /// The part of the users to search for.
    pub shard: Shard,
}

/// Where one user's item came in the user's list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UserRank {
    /// Place of the user among all that are evaluated, from 0.
    pub row: usize,
    /// The user's id.
    pub user: String,
    /// The item's id.
    pub item: String,
    /// The item's rank, from 1; items of one title share the mean of their ranks. Null where it was not found.
    pub rank: Option<f64>,
    /// The title's rank among titles, from 1.
    pub title_rank: Option<f64>,
    /// The item's rank where everybody gets the items by how often they were chosen in training, equally often in random
    /// order.
    pub popularity_rank: f64,
}

/// A model's figures on some users.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Number of users.
    pub users: usize,
    /// Items of the catalog.
    pub items: usize,
    /// Beams of the search.
    pub beams: usize,
    /// Exponent of the length in the score.
    pub length_penalty: f64,
    /// The items by how often they were chosen in training, the same list for everybody.
    pub popularity: Ranking,
    /// By item.
    pub by_item: Ranking,
    /// By title: a hit if the target's title is in the list, whichever of its items was meant.
    pub by_title: Ranking,
    /// Seconds of prefill and search.
    pub seconds: f64,
    /// Each user's rank.
    pub ranks: Vec<UserRank>,
}

/// `limit` rows drawn without replacement in an order that depends on `seed` only; all rows in their order without a limit.
pub fn sample<T>(rows: &[T], limit: Option<usize>, seed: u64) -> Vec<&T> {
    let mut places: Vec<usize> = (0..rows.len()).collect();
    if let Some(limit) = limit.filter(|limit| *limit < rows.len()) {
        places.shuffle(&mut generator([seed, SAMPLE, 0, 0]));
        places.truncate(limit);
        places.sort_unstable();
    }
    places.into_iter().map(|place| &rows[place]).collect()
}

impl Evaluation {
    /// The figures that follow from the users' ranks.
    pub(super) fn of(ranks: Vec<UserRank>, items: usize, beam: BeamConfig, seconds: f64) -> Self {
        let by = |rank: fn(&UserRank) -> Option<f64>, longest| {
            Ranking::of(&ranks.iter().map(rank).collect::<Vec<_>>(), longest)
        };
        Self {
            users: ranks.len(),
            items,
            beams: beam.beams,
            length_penalty: beam.length_penalty,
            popularity: by(|user| Some(user.popularity_rank), items),
            by_item: by(|user| user.rank, beam.beams),
            by_title: by(|user| user.title_rank, beam.beams),
            seconds,
            ranks,
        }
    }
}

/// Searches the best titles for the shard's rows and ranks each one's item among them. `progress` is told how many rows
/// are done, and of how many.
///
/// # Errors
///
/// A token outside the model's vocabulary.
pub fn evaluate(
    model: &LatentRecommender,
    prepared: &Prepared,
    trie: &ItemTrie,
    rows: &[&PreparedRow],
    config: EvalConfig,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Evaluation, ModelError> {
    let model = model.valid();
    let clock = Instant::now();
    // Prompts of like length together.
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&place| (rows[place].prompt.len(), place));
    // A shard has whole batches, so that it computes just what one process would: the same sums in the same order.
    let batches: Vec<&[usize]> = config.shard.of(order.chunks(config.batch.max(1))).collect();
    let popularity = Popularity::new(prepared);
    let (mut ranks, all) = (Vec::new(), batches.iter().map(|places| places.len()).sum());
    for places in batches {
        let prompts: Vec<&[u32]> = places.iter().map(|&place| rows[place].prompt.as_slice()).collect();
        let found = beam_search(&model, trie, &prompts, config.beam)?;
        for (&place, hypotheses) in places.iter().zip(found) {
            let lists: Vec<&[u32]> = hypotheses.iter().map(|hypothesis| hypothesis.items.as_slice()).collect();
            ranks.push(rank(place, rows[place], &lists, prepared, &popularity));
        }
        progress(ranks.len(), all);
    }
    ranks.sort_unstable_by_key(|user| user.row);
    Ok(Evaluation::of(ranks, prepared.catalog.len(), config.beam, clock.elapsed().as_secs_f64()))
}

/// Ranks a row's item in a list whose places hold one title's items each.
fn rank(number: usize, row: &PreparedRow, places: &[&[u32]], prepared: &Prepared, popularity: &Popularity) -> UserRank {
    let place = places.iter().position(|items| items.contains(&(row.item as u32)));
    let before = |place: usize| places[..place].iter().map(|items| items.len()).sum();
    UserRank {
        row: number,
        user: row.user.clone(),
        item: prepared.catalog.items()[row.item].id.clone(),
        rank: place.map(|place| expected_rank(before(place), places[place].len())),
        title_rank: place.map(|place| place as f64 + 1.0),
        popularity_rank: popularity.rank(row.item),
    }
}

/// How often each item was chosen in training.
struct Popularity {
    counts: Vec<u64>,
    sorted: Vec<u64>,
}

impl Popularity {
    fn new(prepared: &Prepared) -> Self {
        let counts = prepared.train_counts();
        let mut sorted = counts.clone();
        sorted.sort_unstable();
        Self { counts, sorted }
    }

    fn rank(&self, item: usize) -> f64 {
        let count = self.counts[item];
        let below = self.sorted.partition_point(|&other| other < count);
        let up_to = self.sorted.partition_point(|&other| other <= count);
        expected_rank(self.sorted.len() - up_to, up_to - below)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
