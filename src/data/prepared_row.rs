use serde::{Deserialize, Serialize};

/// One row of a prepared split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedRow {
    /// The user's id.
    pub user: String,
    /// Catalog indices of the interactions before, oldest first; a prompt that had to be shortened shows only the
    /// newest.
    pub history: Vec<usize>,
    /// Catalog index of the target.
    pub item: usize,
    /// Tokens of the prompt.
    pub prompt: Vec<u32>,
}
