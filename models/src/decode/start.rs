//! Where titles begin: prompts that have run, with all that comes before a title's first choice.

use crate::backbone::PromptState;
use crate::trie::ItemTrie;
use crate::{LatentRecommender, ModelError, Objective, ObjectiveKind, Samples};

/// Most tokens of a beam that run at once. More would save few passes and be lost with a beam that drops out.
pub(super) const MOST_AHEAD: usize = 8;

/// Prompts that have run, with their thoughts and the tokens with which every title begins: what searches and scores of
/// titles go on from, and what they share.
#[derive(Debug, Clone)]
pub struct TitleStart {
    pub(crate) state: PromptState,
    /// The node at which titles go on.
    pub(super) node: u32,
    /// The tokens that lead there, which have run.
    pub(crate) tokens: Vec<u32>,
}

impl TitleStart {
    /// Lets prompts that have run think, and runs what every title begins with in the pass of the last thought: with
    /// the catalog's objective the tokens before the first choice, which are certain.
    ///
    /// # Errors
    ///
    /// An objective without a catalog, or more tokens than the model has positions.
    pub fn think(model: &LatentRecommender, objective: &Objective, prompts: PromptState) -> Result<Self, ModelError> {
        Self::think_in_samples(model, objective, prompts, Samples::of_thought())
    }

    /// [`Self::think`] with samples of each prompt's last thought in its place: as many times the prompts, the samples
    /// of one together.
    ///
    /// # Errors
    ///
    /// As [`think`](Self::think).
    pub fn think_in_samples(
        model: &LatentRecommender,
        objective: &Objective,
        prompts: PromptState,
        samples: Samples,
    ) -> Result<Self, ModelError> {
        let tree = objective.tree()?;
        let (node, tokens) = match objective.kind() {
            ObjectiveKind::Vocabulary => (ItemTrie::ROOT, Vec::new()),
            ObjectiveKind::Catalog => {
                let (tokens, nodes) = certain_way(tree, objective, ItemTrie::ROOT, MOST_AHEAD);
                (nodes.last().copied().unwrap_or(ItemTrie::ROOT), tokens)
            }
        };
        objective.check_vocabulary(&model.backbone)?;
        Ok(Self { state: model.reason_and_run(prompts, &tokens, samples)?, node, tokens })
    }

    /// Titles that follow prompts, and whatever came after those, without a thought or a token between.
    pub fn at(state: PromptState) -> Self {
        Self { state, node: ItemTrie::ROOT, tokens: Vec::new() }
    }

    /// Number of prompts, or samples of them.
    pub fn rows(&self) -> usize {
        self.state.rows()
    }

    /// Those of the given prompts only, in that order.
    #[must_use]
    pub fn select(&self, prompts: &[usize]) -> Self {
        Self { state: self.state.select(prompts), ..self.clone() }
    }

    /// The same without its gradient history.
    #[must_use]
    pub fn detach(&self) -> Self {
        Self { state: self.state.detach(), ..self.clone() }
    }
}

/// The tokens that follow a node without a choice, at most so many and none that finds an item, and the nodes that they
/// lead to.
pub(super) fn certain_way(tree: &ItemTrie, objective: &Objective, mut node: u32, most: usize) -> (Vec<u32>, Vec<u32>) {
    let (mut tokens, mut nodes) = (Vec::new(), Vec::new());
    while let (&[token], &[child]) = tree.children(node)
        && !objective.is_found(tree, child)
        && tokens.len() < most
    {
        tokens.push(token);
        nodes.push(child);
        node = child;
    }
    (tokens, nodes)
}
