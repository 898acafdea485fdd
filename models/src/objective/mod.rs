//! What a token of a title competes with: the one place that training, validation, rewards and search ask.

mod plan;
#[cfg(test)]
mod tests;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use crate::backbone::Backbone;
use crate::host::indices;
use crate::ops::Choices;
use crate::trie::ItemTrie;
use crate::{ModelError, host};
pub use plan::LogitSpread;
pub(crate) use plan::TargetPlan;

/// The two objectives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ObjectiveKind {
    /// Every token competes with the whole vocabulary, as published (arXiv 2505.19092).
    #[default]
    Vocabulary,
    /// A token competes with those that the catalog's prefix tree allows in its place (MSL, arXiv 2504.04178).
    Catalog,
}

impl ObjectiveKind {
    /// The name under which checkpoints record it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vocabulary => "vocabulary",
            Self::Catalog => "catalog",
        }
    }
}

impl fmt::Display for ObjectiveKind {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for ObjectiveKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "vocabulary" => Ok(Self::Vocabulary),
            "catalog" => Ok(Self::Catalog),
            _ => Err(format!("`{name}` is neither `catalog` nor `vocabulary`")),
        }
    }
}

/// An objective with the prefix tree of the catalog, the same in training, rewards and search.
///
/// Under [`ObjectiveKind::Catalog`] a *choice* is a position at whose node of the tree two or more tokens may follow,
/// the end token among them. All other tokens are certain: they add nothing to a loss or a score, and a title is run up
/// to its last choice only.
///
/// ```text
/// log p(token) = z[token] - log sum over c of exp(z[c])   c: the vocabulary, or the children of the node; z: logits
/// log p(title) = sum over its tokens of log p(token)      the probabilities of the catalog's distinct titles sum to 1
/// ```
#[derive(Debug, Clone)]
pub struct Objective {
    kind: ObjectiveKind,
    tree: Option<Arc<ItemTrie>>,
    temperature: f64,
    watches_spread: bool,
    /// The share of label smoothing.
    smoothing: f64,
}

/// What a target consists of, for the means over a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TargetSize {
    /// Titles; 1 unless several follow each other.
    pub titles: usize,
    /// Tokens that are predicted: all of them, or with the catalog's objective those that are choices.
    pub choices: usize,
}

impl std::ops::AddAssign for TargetSize {
    fn add_assign(&mut self, other: Self) {
        self.titles += other.titles;
        self.choices += other.choices;
    }
}

/// A token of a target that is a choice.
#[derive(Debug, Clone, Copy)]
struct Choice {
    /// Place in the target.
    place: usize,
    /// Tokens of the target that run before it.
    position: usize,
    node: u32,
    /// Place of the token among the node's children.
    child: usize,
}

impl Objective {
    /// An objective over the catalog of a prefix tree.
    pub fn new(kind: ObjectiveKind, tree: impl Into<Arc<ItemTrie>>) -> Self {
        Self { kind, tree: Some(tree.into()), temperature: 1.0, watches_spread: false, smoothing: 0.0 }
    }

    /// [`ObjectiveKind::Vocabulary`] without a catalog: enough to train by, not to search with.
    pub fn vocabulary() -> Self {
        Self { kind: ObjectiveKind::Vocabulary, tree: None, temperature: 1.0, watches_spread: false, smoothing: 0.0 }
    }

    /// Which one it is.
    pub fn kind(&self) -> ObjectiveKind {
        self.kind
    }

    /// The prefix tree of the catalog.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn tree(&self) -> Result<&ItemTrie, ModelError> {
        self.tree.as_deref().ok_or_else(|| ModelError::Input("the objective has no catalog".into()))
    }

    /// With the catalog's objective the loss of a model that finds all titles equally likely, the logarithm of their
    /// number: what a loss in nats per item compares with.
    pub fn log_titles(&self) -> Option<f64> {
        let tree = self.tree.as_ref().filter(|_| self.kind == ObjectiveKind::Catalog)?;
        Some((tree.titles(ItemTrie::ROOT) as f64).ln())
    }

    /// The same catalog under another objective.
    ///
    /// # Errors
    ///
    /// [`ObjectiveKind::Catalog`] without a catalog.
    pub fn with_kind(&self, kind: ObjectiveKind) -> Result<Self, ModelError> {
        if kind == ObjectiveKind::Catalog {
            self.tree()?;
        }
        Ok(Self { kind, ..self.clone() })
    }

    /// The same objective for a loss whose logits are divided by a temperature, and if asked with a [`LogitSpread`] of
    /// its targets. A search knows neither.
    pub fn at_temperature(&self, temperature: f64, watches_spread: bool) -> Self {
        Self { temperature, watches_spread, ..self.clone() }
    }

    /// The same objective for a loss with label smoothing (Szegedy et al., arXiv 1512.00567) over the tokens that
    /// compete at a choice: a share, from 0 to below 1, of the target's probability goes to all of them alike. Neither
    /// [`ObjectiveKind::Vocabulary`] nor a search knows it.
    pub fn with_label_smoothing(&self, share: f64) -> Self {
        Self { smoothing: share, ..self.clone() }
    }

    /// The exponent of the length that a hypothesis' score is divided by, unless another is asked for: 1, the mean over
    /// its tokens (BIGRec), or 0 for the catalog's objective, where the sum is the logarithm of a probability.
    pub fn length_penalty(&self) -> f64 {
        match self.kind {
            ObjectiveKind::Vocabulary => 1.0,
            ObjectiveKind::Catalog => 0.0,
        }
    }

    /// What a target consists of.
    ///
    /// # Errors
    ///
    /// A target that is no title of the catalog, where that matters.
    pub fn size(&self, target: &[u32]) -> Result<TargetSize, ModelError> {
        match self.kind {
            ObjectiveKind::Vocabulary => Ok(TargetSize { titles: 1, choices: target.len() }),
            ObjectiveKind::Catalog => {
                let (choices, _, titles) = self.choices(target)?;
                Ok(TargetSize { titles, choices: choices.len() })
            }
        }
    }

    /// The places in a target of the tokens that are predicted.
    ///
    /// # Errors
    ///
    /// As [`Self::size`].
    pub fn predicted(&self, target: &[u32]) -> Result<Vec<usize>, ModelError> {
        match self.kind {
            ObjectiveKind::Vocabulary => Ok((0..target.len()).collect()),
            ObjectiveKind::Catalog => Ok(self.choices(target)?.0.iter().map(|choice| choice.place).collect()),
        }
    }

    /// The choices of a title, first to last, each as the node of the tree where it is made and the place among the
    /// node's children of the one that is taken: what [`LatentRecommender::title_log_probs`] has a value for.
    ///
    /// [`LatentRecommender::title_log_probs`]: crate::LatentRecommender::title_log_probs
    ///
    /// # Errors
    ///
    /// As [`Self::size`].
    pub fn path(&self, title: &[u32]) -> Result<Vec<(u32, usize)>, ModelError> {
        Ok(self.choices(title)?.0.iter().map(|choice| (choice.node, choice.child)).collect())
    }

    /// How many things a mean loss is over: tokens, or for the catalog's objective titles, so that it is in nats per
    /// item.
    pub fn terms(&self, size: TargetSize) -> usize {
        match self.kind {
            ObjectiveKind::Vocabulary => size.choices,
            ObjectiveKind::Catalog => size.titles,
        }
    }

    /// Makes sure that the tree's tokens are in a model's vocabulary.
    ///
    /// # Errors
    ///
    /// The largest one is not.
    pub fn check_vocabulary(&self, backbone: &Backbone) -> Result<(), ModelError> {
        let (vocab_size, largest) =
            (backbone.config().vocab_size, self.tree.as_ref().map_or(0, |tree| tree.largest_token()));
        match (largest as usize) < vocab_size {
            true => Ok(()),
            false => Err(ModelError::Input(format!(
                "the catalog has token {largest}, which is outside the model's vocabulary of {vocab_size}"
            ))),
        }
    }

    /// The choices of a target, the tokens that run before its last one, and the number of its titles. Of titles that
    /// follow each other the end tokens do not run. Where nothing is a choice, in a catalog of one title, its first
    /// token stands for one: it is certain.
    fn choices(&self, target: &[u32]) -> Result<(Vec<Choice>, Vec<u32>, usize), ModelError> {
        let tree = self.tree()?;
        let not_there = || ModelError::Input(format!("the target {target:?} is not a title in the catalog"));
        let (mut choices, mut inputs, mut titles) = (Vec::new(), Vec::new(), 0);
        let mut node = ItemTrie::ROOT;
        for (place, &token) in target.iter().enumerate() {
            let (tokens, children) = tree.children(node);
            let child = tokens.binary_search(&token).map_err(|_| not_there())?;
            if tokens.len() > 1 || (choices.is_empty() && tree.titles(ItemTrie::ROOT) == 1) {
                choices.push(Choice { place, position: inputs.len(), node, child });
            }
            node = children[child];
            if tree.is_leaf(node) {
                (node, titles) = (ItemTrie::ROOT, titles + 1);
            } else {
                inputs.push(token);
            }
        }
        if node != ItemTrie::ROOT || titles == 0 {
            return Err(not_there());
        }
        inputs.truncate(choices.last().map_or(0, |choice| choice.position));
        Ok((choices, inputs, titles))
    }

    /// Whether a search that has come to a node has found an item: a leaf, or with the catalog's objective a node from
    /// which a single title can be reached.
    pub(crate) fn is_found(&self, tree: &ItemTrie, node: u32) -> bool {
        match self.kind {
            ObjectiveKind::Vocabulary => tree.is_leaf(node),
            ObjectiveKind::Catalog => tree.titles(node) == 1,
        }
    }

    /// Log-probabilities of the children of each node, in the tree's order, after hidden states `[nodes, d_model]`;
    /// those of an only child are not computed where they are certain.
    pub(crate) fn child_log_probs(
        &self,
        backbone: &Backbone,
        tree: &ItemTrie,
        hidden: Tensor<2>,
        nodes: &[u32],
    ) -> Result<Vec<Vec<f32>>, ModelError> {
        let children = |node: u32| tree.children(node).0;
        let is_certain = |node: u32| self.kind == ObjectiveKind::Catalog && children(node).len() == 1;
        let rows: Vec<i32> = (0..nodes.len()).filter(|&row| !is_certain(nodes[row])).map(|row| row as i32).collect();
        let open = || rows.iter().map(|&row| nodes[row as usize]);
        let (scores, width) = match self.kind {
            _ if rows.is_empty() => (Vec::new(), None),
            ObjectiveKind::Vocabulary => {
                let most = open().map(|node| children(node).len()).max().unwrap_or(0);
                let padded = |node: u32| {
                    let ids = children(node).iter().map(|&id| id as i32);
                    ids.chain(std::iter::repeat_n(0, most - children(node).len()))
                };
                let ids: Vec<i32> = open().flat_map(padded).collect();
                let ids = indices(&ids, &hidden.device()).reshape([rows.len(), most]);
                (host::read(backbone.log_probs(hidden, ids)), Some(most))
            }
            ObjectiveKind::Catalog => {
                let hidden = match rows.len() == nodes.len() {
                    true => hidden,
                    false => hidden.clone().select(0, indices(&rows, &hidden.device())),
                };
                let choices = Choices::new(open().map(|node| (node, children(node), None)));
                (host::read(backbone.choice_log_probs(hidden, &choices)), None)
            }
        };
        if scores.iter().any(|score| score.is_nan()) {
            return Err(ModelError::NotFinite("scores"));
        }
        let mut rest = scores.as_slice();
        let of_node = |&node: &u32| {
            if is_certain(node) {
                return vec![0.0];
            }
            let (own, others) = rest.split_at(width.unwrap_or(children(node).len()));
            rest = others;
            own[..children(node).len()].to_vec()
        };
        Ok(nodes.iter().map(of_node).collect())
    }
}
