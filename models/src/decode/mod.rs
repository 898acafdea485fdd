//! Decoding that can only write items of the catalog.

mod beam;
mod trie;

pub use beam::{BeamConfig, Hypothesis, beam_search};
pub use trie::{ItemTrie, TrieError};
