/// One tokenised training or evaluation row.
///
/// The sequence a model sees is `[prompt, thoughts.., target]`; only the target's tokens are predicted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// Tokens of the prompt, at least one.
    pub prompt: Vec<u32>,
    /// Tokens of the target with the end token last, at least one.
    pub target: Vec<u32>,
    /// Position of the target in the catalog.
    pub item: usize,
    /// Number of the row in the data that it was made from, counted from 0: the name that messages give it.
    pub row: usize,
}
