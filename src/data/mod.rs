//! From a user's files to what models are trained and evaluated on.
//!
//! [`Interactions::read`] understands several layouts; [`prepare`] tokenises a data set once and writes a folder that
//! [`Prepared::load`] gives to training, evaluation and serving.

mod catalog;
mod catalog_file;
mod chat;
mod drop_titles;
mod error;
mod fewer_users;
mod folder;
mod interactions;
pub mod list_cell;
mod markup;
mod panics;
mod prepare;
mod prepare_config;
mod prepared;
mod prepared_catalog;
mod prepared_files;
mod prepared_row;
mod prompt;
mod raw;
mod read;
mod special_tokens;
mod split_tables;
mod splits;
mod summary;
pub mod synthetic;
mod text;
mod text_file;
mod token_file;
mod tokenizer;
mod visible;
mod windows;

pub use catalog::{Catalog, DuplicateId, Item};
pub use drop_titles::Dropped;
pub use error::{CellProblem, DataError};
pub use fewer_users::FewerUsers;
pub(crate) use folder::Staging;
pub use interactions::{Interactions, Layout, Notes, ReadOptions, Row};
pub use markup::is_markup;
pub use panics::silence_expected_panics;
pub use prepare::{prepare, prepare_unless};
pub use prepare_config::PrepareConfig;
pub use prepared::Prepared;
pub use prepared_catalog::PreparedCatalog;
pub use prepared_files::training_rows;
pub use prepared_row::PreparedRow;
pub use prompt::{EncodedPrompt, Prompt, PromptTemplate, quoted_list, target_text};
pub use raw::config::{RawConfig, RawSummary, Repeats, SplitKind, Step};
pub use raw::read_items;
pub use raw::unfiltered::{RawEvent, RawEvents};
pub use special_tokens::{Bos, SpecialToken};
pub use splits::{Split, Splits};
pub use summary::{SplitSummary, Spread, Summary, WindowSummary};
pub(crate) use text::turns_direction;
pub use token_file::TokenFile;
pub use tokenizer::{MIN_VOCAB_SIZE, encode, encode_alike, load_tokenizer, train_bpe, vocab_size};
