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
}
