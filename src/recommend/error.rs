use std::path::PathBuf;

use crate::data::DataError;
use crate::input_error::InputError;
use crate::models::ModelError;
use crate::models::decode::TrieError;
use crate::run::RunError;

/// Longest list.
pub(super) const MOST_ITEMS: usize = 1000;

/// Why there is no recommendation.
#[derive(Debug, thiserror::Error)]
pub enum RecommendError {
    /// The model's folder.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The data.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The catalog.
    #[error(transparent)]
    Trie(#[from] TrieError),
    /// How the search is guided was chosen on other data.
    #[error("{}: is not the data on which the model's guidance was chosen", data.display())]
    OtherGuidance {
        /// The data.
        data: PathBuf,
    },
    /// A file of histories.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The catalog has no item of this id.
    #[error("{field}: the catalog has no item `{id}`")]
    UnknownItem {
        /// Where the id stands.
        field: &'static str,
        /// The id.
        id: String,
    },
    /// A language model without the catalog that it recommends from.
    #[error("{}: is no shop's folder; a model alone needs prepared data to recommend from", model.display())]
    NoData {
        /// The model's folder.
        model: PathBuf,
    },
    /// A history without an item.
    #[error("history: is empty; a model needs at least one item or title")]
    NoHistory,
    /// A list of another length than a search can give.
    #[error("top: is {0}; it must be from 1 to {most}", most = MOST_ITEMS)]
    Top(usize),
}
