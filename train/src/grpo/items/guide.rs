//! A model of items that lists learn from.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use latentr3_models::decode::ItemTrie;

use crate::grpo::reward::{Reward, Sample};
use crate::{Example, TrainError};

/// Examples whose log-probabilities are kept: more than a micro-batch has.
const MOST_KNOWN: usize = 256;

/// A model that gives every item of the catalog a probability.
pub trait ItemGuide: Send + Sync {
    /// Log-probabilities of all items after an example's history, `[items]`: nats.
    ///
    /// # Errors
    ///
    /// What the model refuses.
    fn log_probs(&self, example: &Example) -> Result<Vec<f32>, TrainError>;
}

/// A guide that is asked once for the list and for the rewards of an example.
#[derive(Clone)]
pub(super) struct Guide {
    guide: Arc<dyn ItemGuide>,
    /// Those of the catalog's tree.
    leaves: Arc<[u32]>,
    /// By the example's row.
    known: Arc<Mutex<BTreeMap<usize, Arc<[f32]>>>>,
}

impl Guide {
    pub fn new(guide: Box<dyn ItemGuide>, tree: &ItemTrie) -> Self {
        let leaves = (0..tree.node_count() as u32).filter(|&node| tree.is_leaf(node)).collect();
        Self { guide: guide.into(), leaves, known: Arc::default() }
    }

    fn log_probs(&self, example: &Example) -> Result<Arc<[f32]>, TrainError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(log_probs) = known.get(&example.row) {
            return Ok(log_probs.clone());
        }
        let log_probs: Arc<[f32]> = self.guide.log_probs(example)?.into();
        if known.len() == MOST_KNOWN {
            known.clear();
        }
        known.insert(example.row, log_probs.clone());
        Ok(log_probs)
    }

    /// The leaves of the likeliest titles, at most so many, best first; equal ones in the order of the tree.
    pub fn proposals(&self, example: &Example, tree: &ItemTrie, count: usize) -> Result<Vec<u32>, TrainError> {
        let log_probs = self.log_probs(example)?;
        let likely = |&leaf: &u32| (log_probability(&log_probs, tree.items(leaf)), leaf);
        let mut leaves: Vec<(f64, u32)> = self.leaves.iter().map(likely).collect();
        let by_probability = |a: &(f64, u32), b: &(f64, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        let count = count.min(leaves.len());
        if count < leaves.len() {
            leaves.select_nth_unstable_by(count, by_probability);
            leaves.truncate(count);
        }
        leaves.sort_by(by_probability);
        Ok(leaves.into_iter().map(|(_, leaf)| leaf).collect())
    }
}

/// The log-probability of an item by the guide, summed over the items of its title.
impl Reward for Guide {
    fn of(&self, sample: &Sample) -> Result<f64, TrainError> {
        Ok(log_probability(&self.log_probs(sample.example)?, &sample.item()?.items))
    }
}

/// The logarithm of the sum of some items' probabilities.
fn log_probability(log_probs: &[f32], items: &[u32]) -> f64 {
    match items {
        &[item] => f64::from(log_probs[item as usize]),
        items => items.iter().map(|&item| f64::from(log_probs[item as usize]).exp()).sum::<f64>().ln(),
    }
}
