//! What a token of a title competes with: the one place that training, validation, rewards and search ask.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};

use crate::backbone::{Backbone, indices};
use crate::decode::ItemTrie;
use crate::ops::Choices;
use crate::{ModelError, host};

/// A choice of so few children has no part in a [`LogitSpread`].
const FEW: usize = 4;

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
/// Under [`ObjectiveKind::Catalog`] a *choice* is a position at whose node of the tree two or more tokens may follow, the end token among
/// them. All other tokens are certain: they add nothing to a loss or a score, and a title is run up to its last choice only.
///
/// ```text
/// log p(token) = z[token] - log sum over c of exp(z[c])      c: the vocabulary, or the children of the tree's node; z: logits
/// log p(title) = sum over its tokens of log p(token)         the probabilities of the catalog's distinct titles add up to 1
/// ```
#[derive(Debug, Clone)]
pub struct Objective {
    kind: ObjectiveKind,
    tree: Option<Arc<ItemTrie>>,
    temperature: f64,
    watches_spread: bool,
}

/// Sums over rows, of how the logits lie at the choice of each row that has the most children, where that is more than four.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LogitSpread {
    /// Rows.
    pub rows: f64,
    /// The target's logit less the mean of the allowed ones.
    pub gap: f64,
    /// Variance of the allowed logits.
    pub variance: f64,
    /// Allowed tokens.
    pub children: f64,
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

/// What is run of some targets, and what is predicted where.
#[derive(Debug, Clone)]
pub(crate) struct TargetPlan {
    /// The tokens of each row that run after prompt and thought.
    pub inputs: Vec<Vec<u32>>,
    /// For each row, the positions whose hidden states predict a token: 0 is the last one of prompt or thought.
    pub positions: Vec<Vec<usize>>,
    predicted: Predicted,
    temperature: f64,
    /// The widest choice of each row, where it is looked at: place among the predicted tokens, node, and place of the target among its
    /// children.
    widest: Vec<(usize, u32, usize)>,
}

/// The predicted tokens, row after row.
#[derive(Debug, Clone)]
enum Predicted {
    OfVocabulary(Vec<i32>),
    OfChoices(Choices),
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
        Self { kind, tree: Some(tree.into()), temperature: 1.0, watches_spread: false }
    }

    /// [`ObjectiveKind::Vocabulary`] without a catalog: enough to train by, not to search with.
    pub fn vocabulary() -> Self {
        Self { kind: ObjectiveKind::Vocabulary, tree: None, temperature: 1.0, watches_spread: false }
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
        self.tree.as_deref().ok_or_else(|| ModelError::Input("there is no catalog to search".into()))
    }

    /// With the catalog's objective the loss of a model that finds all titles equally likely, the logarithm of their number: what a loss in
    /// nats per item compares with.
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

    /// The same objective for a loss whose logits are divided by a temperature, and if asked with a [`LogitSpread`] of its targets. A search knows
    /// neither.
    pub fn at_temperature(&self, temperature: f64, watches_spread: bool) -> Self {
        Self { temperature, watches_spread, ..self.clone() }
    }

    /// The exponent of the length that a hypothesis' score is divided by, unless another is asked for: 1, the mean over its tokens
    /// (BIGRec), or 0 for the catalog's objective, where the sum is the logarithm of a probability.
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

    /// How many things a mean loss is over: tokens, or for the catalog's objective titles, so that it is in nats per item.
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
                "the catalog has token {largest}, the model's vocabulary ends at {vocab_size}"
            ))),
        }
    }

    /// What to run of some targets, each with at least one token, and what to predict.
    pub(crate) fn plan(&self, targets: &[&[u32]]) -> Result<TargetPlan, ModelError> {
        match self.kind {
            ObjectiveKind::Vocabulary => Ok(TargetPlan {
                inputs: targets.iter().map(|target| target[..target.len() - 1].to_vec()).collect(),
                positions: targets.iter().map(|target| (0..target.len()).collect()).collect(),
                predicted: Predicted::OfVocabulary(
                    targets.iter().flat_map(|target| target.iter().map(|&id| id as i32)).collect(),
                ),
                temperature: self.temperature,
                widest: Vec::new(),
            }),
            ObjectiveKind::Catalog => {
                let tree = self.tree()?;
                let rows = targets.iter().map(|target| self.choices(target)).collect::<Result<Vec<_>, _>>()?;
                let place = |choice: &Choice| (choice.node, tree.children(choice.node).0, Some(choice.child));
                let predicted = Choices::new(rows.iter().flat_map(|(choices, _, _)| choices.iter().map(place)));
                let positions = |(choices, _, _): &(Vec<Choice>, _, _)| {
                    choices.iter().map(|choice: &Choice| choice.position).collect::<Vec<_>>()
                };
                let (mut widest, mut start) = (Vec::new(), 0);
                for (choices, _, _) in rows.iter().filter(|_| self.watches_spread) {
                    let children = |choice: &Choice| tree.children(choice.node).0.len();
                    let most = (0..choices.len()).max_by_key(|&at| (children(&choices[at]), std::cmp::Reverse(at)));
                    let most = most.map(|at| (start + at, choices[at]));
                    widest
                        .extend(most.filter(|(_, choice)| children(choice) > FEW).map(|(at, c)| (at, c.node, c.child)));
                    start += choices.len();
                }
                Ok(TargetPlan {
                    temperature: self.temperature,
                    widest,
                    positions: rows.iter().map(positions).collect(),
                    inputs: rows.into_iter().map(|(_, inputs, _)| inputs).collect(),
                    predicted: Predicted::OfChoices(predicted),
                })
            }
        }
    }

    /// The choices of a target, the tokens that run before its last one, and the number of its titles. Of titles that follow each other
    /// the end tokens do not run. Where nothing is a choice, in a catalog of one title, its first token stands for one: it is certain.
    fn choices(&self, target: &[u32]) -> Result<(Vec<Choice>, Vec<u32>, usize), ModelError> {
        let tree = self.tree()?;
        let not_there = || ModelError::Input(format!("the target {target:?} is no title of the catalog"));
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

    /// Whether a search that has come to a node has found an item: a leaf, or with the catalog's objective a node from which a single title
    /// can be reached.
    pub(crate) fn is_found(&self, tree: &ItemTrie, node: u32) -> bool {
        match self.kind {
            ObjectiveKind::Vocabulary => tree.is_leaf(node),
            ObjectiveKind::Catalog => tree.titles(node) == 1,
        }
    }

    /// Log-probabilities of the children of each node, in the tree's order, after hidden states `[nodes, d_model]`; those of an only child
    /// are not computed where they are certain.
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
                let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [rows.len(), most]), &hidden.device());
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

impl TargetPlan {
    /// Log-probabilities of the predicted tokens, `[tokens]`, after their hidden states `[tokens, d_model]`.
    pub fn log_probs(&self, backbone: &Backbone, hidden: Tensor<2>) -> Tensor<1> {
        // Dividing the hidden states divides the logits.
        let hidden = if self.temperature == 1.0 { hidden } else { hidden.div_scalar(self.temperature) };
        match &self.predicted {
            Predicted::OfVocabulary(ids) => {
                let ids = indices(ids, &hidden.device()).unsqueeze_dim(1);
                backbone.log_probs(hidden, ids).squeeze_dim(1)
            }
            Predicted::OfChoices(choices) => backbone.choice_log_probs(hidden, choices),
        }
    }
}

impl TargetPlan {
    /// How the logits lie at the rows' widest choices, at temperature 1; nothing where they are not looked at.
    pub fn spread(&self, backbone: &Backbone, tree: &ItemTrie, hidden: &Tensor<2>) -> LogitSpread {
        let mut spread = LogitSpread::default();
        if self.widest.is_empty() {
            return spread;
        }
        let hidden = hidden.clone().inner();
        let places: Vec<i32> = self.widest.iter().map(|(place, _, _)| *place as i32).collect();
        let hidden = hidden.clone().select(0, indices(&places, &hidden.device()));
        let children = |node: u32| tree.children(node).0;
        let choices = Choices::new(self.widest.iter().map(|&(_, node, _)| (node, children(node), None)));
        // Log-probabilities are the logits but for a constant of each choice.
        let values = host::read(backbone.choice_log_probs(hidden, &choices));
        let mut rest = values.as_slice();
        for &(_, node, child) in &self.widest {
            let (own, others) = rest.split_at(children(node).len());
            rest = others;
            let count = own.len() as f64;
            let mean = own.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
            spread.rows += 1.0;
            spread.children += count;
            spread.gap += f64::from(own[child]) - mean;
            spread.variance += own.iter().map(|&value| (f64::from(value) - mean).powi(2)).sum::<f64>() / count;
        }
        spread
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: u32 = 0;

    fn catalog(items: &[&[u32]]) -> Objective {
        let items: Vec<Vec<u32>> = items.iter().map(|item| item.to_vec()).collect();
        Objective::new(ObjectiveKind::Catalog, ItemTrie::new(&items).unwrap())
    }

    fn planned(objective: &Objective, target: &[u32]) -> (Vec<u32>, Vec<usize>) {
        let mut plan = objective.plan(&[target]).unwrap();
        (plan.inputs.remove(0), plan.positions.remove(0))
    }

    #[test]
    fn a_title_runs_up_to_its_last_choice() {
        let objective = catalog(&[&[1, 2, 3, 4, END], &[1, 2, 5, END], &[1, 2, 5, 6, 7, END]]);
        assert_eq!(planned(&objective, &[1, 2, 3, 4, END]), (vec![1, 2], vec![2]));
        assert_eq!(planned(&objective, &[1, 2, 5, 6, 7, END]), (vec![1, 2, 5], vec![2, 3]));
        // The end of a title that begins another is a choice.
        assert_eq!(planned(&objective, &[1, 2, 5, END]), (vec![1, 2, 5], vec![2, 3]));
        assert_eq!(objective.size(&[1, 2, 5, END]).unwrap(), TargetSize { titles: 1, choices: 2 });
        let published = objective.with_kind(ObjectiveKind::Vocabulary).unwrap();
        assert_eq!(planned(&published, &[1, 2, 5, END]), (vec![1, 2, 5], vec![0, 1, 2, 3]));
    }

    #[test]
    fn titles_that_follow_each_other_begin_at_the_root_and_run_without_end_tokens() {
        let objective = catalog(&[&[1, END], &[1, 2, END], &[3, 4, END]]);
        let target = [1, END, 3, 4, END, 1, 2, END];
        assert_eq!(planned(&objective, &target), (vec![1, 3, 4, 1], vec![0, 1, 1, 3, 4]));
        assert_eq!(objective.size(&target).unwrap(), TargetSize { titles: 3, choices: 5 });
    }

    #[test]
    fn the_only_title_of_a_catalog_is_certain() {
        let objective = catalog(&[&[1, 2, END], &[1, 2, END]]);
        assert_eq!(planned(&objective, &[1, 2, END]), (vec![], vec![0]));
        assert!(objective.is_found(objective.tree().unwrap(), ItemTrie::ROOT));
    }

    #[test]
    fn what_is_no_title_is_refused() {
        let objective = catalog(&[&[1, 2, END], &[3, END]]);
        for target in [&[1, END][..], &[1, 2], &[5], &[3, END, 1]] {
            let problem = objective.size(target).unwrap_err().to_string();
            assert!(problem.contains("no title of the catalog"), "{problem}");
        }
        assert!(Objective::vocabulary().with_kind(ObjectiveKind::Catalog).is_err());
        assert!(Objective::vocabulary().tree().is_err());
    }
}
