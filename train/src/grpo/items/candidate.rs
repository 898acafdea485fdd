/// An item of the list that a search found for a prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Its title's tokens, the end token last.
    pub tokens: Vec<u32>,
    /// The places in the catalog of the items with this title.
    pub items: Vec<u32>,
    /// Whether the target is one of them.
    pub is_target: bool,
    /// Its choices, first to last: the node of the tree, and the place of the token among the node's children.
    pub path: Vec<(u32, usize)>,
    /// Whether the list has it because it is the target, or the guide proposed it, and not because the search found it.
    pub is_added: bool,
    /// The first choices, which a hint made and not the model.
    pub given: usize,
    /// Log-probabilities of its choices under the policy that made the list.
    pub log_probs: Vec<f32>,
}

impl Candidate {
    /// The logarithm of the item's probability: nats. After a hint, of what the model chose.
    pub fn log_prob(&self) -> f64 {
        self.log_probs[self.given..].iter().map(|&value| f64::from(value)).sum()
    }
}
