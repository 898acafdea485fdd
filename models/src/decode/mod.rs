//! Decoding: a search that can only write items of the catalog, and free text that is grounded in it.

mod beam;
mod generate;
mod ground;
mod guide;
mod mask;
mod search;
mod start;

pub use crate::trie::{ItemTrie, TrieError};
pub use beam::{beam_search, beam_search_after, beam_search_on_terms};
pub use generate::generate;
pub use ground::TitleEmbeddings;
pub use guide::{GuidanceKind, Guide};
pub use mask::ItemMask;
pub use search::{BeamConfig, Hypothesis, SearchTerms};
pub use start::TitleStart;
