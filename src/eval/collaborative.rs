//! Models of who chooses what that know nothing of language.

use super::sasrec::sasrec_scores;
use super::transitions::Transitions;
use crate::models::ModelError;
use crate::models::sasrec::SasRec;

/// A distribution over the catalog for each history: what guides the search of a language model.
pub trait CollaborativeModel: Send + Sync {
    /// Log-probabilities of all items to follow each history of catalog indices, oldest first, by place in the catalog;
    /// finite, and the higher, the likelier.
    ///
    /// # Errors
    ///
    /// What the model refuses.
    fn log_probs(&self, histories: &[&[usize]]) -> Result<Vec<Vec<f32>>, ModelError>;

    /// How much each item of a history has to do with the probability of an item to follow it: shares that add up to 1;
    /// absent where the model cannot say.
    fn shares(&self, _history: &[usize], _item: usize) -> Option<Vec<f64>> {
        None
    }
}

impl CollaborativeModel for SasRec {
    fn log_probs(&self, histories: &[&[usize]]) -> Result<Vec<Vec<f32>>, ModelError> {
        sasrec_scores(self, histories)
    }
}

impl CollaborativeModel for Transitions {
    fn log_probs(&self, histories: &[&[usize]]) -> Result<Vec<Vec<f32>>, ModelError> {
        let log_probs = |history: &&[usize]| {
            self.probabilities(history).into_iter().map(|probability| probability.ln() as f32).collect()
        };
        Ok(histories.iter().map(log_probs).collect())
    }

    fn shares(&self, history: &[usize], item: usize) -> Option<Vec<f64>> {
        let votes = self.votes_by_place(history, item);
        let all: u64 = votes.iter().sum();
        (all > 0).then(|| votes.into_iter().map(|votes| votes as f64 / all as f64).collect())
    }
}
