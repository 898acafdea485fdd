use std::path::PathBuf;

use crate::data::DataError;
use crate::input_error::InputError;
use crate::models::ModelError;
use crate::models::decode::TrieError;
use crate::run::RunError;

/// Longest list.
pub const MOST_ITEMS: usize = 1000;

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
    /// The guidance of the search was chosen on other data.
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
    /// The catalog has no item of an id in a user's history.
    #[error("user `{user}`: the catalog has no item `{id}`")]
    UnknownItemOf {
        /// The user.
        user: String,
        /// The id.
        id: String,
    },
    /// A language model without the catalog that it recommends from.
    #[error("{}: is not a shop folder; a model alone needs prepared data to recommend from", model.display())]
    NoData {
        /// The model's folder.
        model: PathBuf,
    },
    /// A text that cannot be ranked as an item.
    #[error("documents: {0}")]
    Document(DataError),
    /// A text that is longer than the language model can read.
    #[error("documents: with the history, the longest has {tokens} tokens, but the model has {positions} positions")]
    LongDocument {
        /// Tokens of prompt and text.
        tokens: usize,
        /// Those that the model has.
        positions: usize,
    },
    /// Texts that only a language model can rank.
    #[error("documents: `{title}` is not a title in the catalog, and there is no language model to read it")]
    UnknownDocument {
        /// The text.
        title: String,
    },
    /// An item was to be added that the catalog has under another title.
    #[error("item `{id}`: the catalog already has it as `{title}`")]
    OtherTitle {
        /// The item's id.
        id: String,
        /// Its title.
        title: String,
    },
    /// Items were to be added to something that is not a shop.
    #[error("{}: is not a shop folder; items can be added only to a shop", folder.display())]
    NoShop {
        /// The folder.
        folder: PathBuf,
    },
    /// A history without an item.
    #[error("history: must have at least one item or title")]
    NoHistory,
    /// A file of added items that cannot be read or locked.
    #[error("{}: {source}", path.display())]
    Added {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A list of another length than a search can give.
    #[error("top: must be from 1 to {most}, got {0}", most = MOST_ITEMS)]
    Top(usize),
}
