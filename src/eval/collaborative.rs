//! Models of who chooses what that know nothing of language.

use super::sasrec::sasrec_scores;
use super::transitions::Transitions;
use crate::data::PreparedRow;
use crate::models::ModelError;
use crate::models::sasrec::SasRec;

/// A distribution over the catalog for each row: what guides the search of a language model.
pub trait CollaborativeModel {
    /// Log-probabilities of all items for each row, by place in the catalog; finite, and the higher, the likelier.
    ///
    /// # Errors
    ///
    /// What the model refuses.
    fn log_probs(&self, rows: &[&PreparedRow]) -> Result<Vec<Vec<f32>>, ModelError>;
}

impl CollaborativeModel for SasRec {
    fn log_probs(&self, rows: &[&PreparedRow]) -> Result<Vec<Vec<f32>>, ModelError> {
        sasrec_scores(self, rows)
    }
}

impl CollaborativeModel for Transitions {
    fn log_probs(&self, rows: &[&PreparedRow]) -> Result<Vec<Vec<f32>>, ModelError> {
        let log_probs = |row: &&PreparedRow| {
            self.probabilities(&row.history).into_iter().map(|probability| probability.ln() as f32).collect()
        };
        Ok(rows.iter().map(log_probs).collect())
    }
}
