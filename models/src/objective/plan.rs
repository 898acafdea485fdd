//! What is run of a batch's targets and predicted where, and how the logits lie there.

use std::cmp::Reverse;
use std::sync::Arc;

use burn::tensor::Tensor;

use super::{Choice, Objective, ObjectiveKind};
use crate::backbone::Backbone;
use crate::host::indices;
use crate::ops::{Choices, Sendable, Table};
use crate::trie::ItemTrie;
use crate::{ModelError, host};

/// A choice of so few children has no part in a [`LogitSpread`].
const FEW: usize = 4;

/// Sums over rows, of how the logits lie at the choice of each row that has the most children, where that is more than
/// four.
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

/// What is run of some targets, and what is predicted where.
#[derive(Debug, Clone)]
pub(crate) struct TargetPlan {
    /// The tokens of each row that run after prompt and thought.
    pub inputs: Vec<Vec<u32>>,
    /// For each row, the positions whose hidden states predict a token: 0 is the last one of prompt or thought.
    pub positions: Vec<Vec<usize>>,
    predicted: Predicted,
    temperature: f64,
    /// With label smoothing, for each predicted token the number of those it competes with and its place among them;
    /// all of their log-probabilities are asked for then.
    smoothed: Option<(f64, Vec<(usize, usize)>)>,
    /// The widest choice of each row, where it is looked at: place among the predicted tokens, node, and place of the
    /// target among its children.
    widest: Vec<(usize, u32, usize)>,
}

/// The predicted tokens, row after row.
#[derive(Debug, Clone)]
enum Predicted {
    OfVocabulary(Arc<Table<i32>>),
    OfChoices(Choices),
}

impl Objective {
    /// What to run of some targets, each with at least one token, and what to predict.
    pub(crate) fn plan(&self, targets: &[&[u32]]) -> Result<TargetPlan, ModelError> {
        match self.kind {
            ObjectiveKind::Vocabulary => Ok(TargetPlan {
                inputs: targets.iter().map(|target| target[..target.len() - 1].to_vec()).collect(),
                positions: targets.iter().map(|target| (0..target.len()).collect()).collect(),
                predicted: Predicted::OfVocabulary(Arc::new(Table::new(
                    targets.iter().flat_map(|target| target.iter().map(|&id| id as i32)).collect(),
                ))),
                temperature: self.temperature,
                smoothed: None,
                widest: Vec::new(),
            }),
            ObjectiveKind::Catalog => {
                let tree = self.tree()?;
                let rows = targets.iter().map(|target| self.choices(target)).collect::<Result<Vec<_>, _>>()?;
                let choices = || rows.iter().flat_map(|(choices, _, _)| choices);
                let wanted = |choice: &Choice| (self.smoothing == 0.0).then_some(choice.child);
                let place = |choice: &Choice| (choice.node, tree.children(choice.node).0, wanted(choice));
                let predicted = Choices::new(choices().map(place));
                let among = |choice: &Choice| (tree.children(choice.node).0.len(), choice.child);
                let smoothed = (self.smoothing > 0.0).then(|| (self.smoothing, choices().map(among).collect()));
                let positions = |(choices, _, _): &(Vec<Choice>, _, _)| {
                    choices.iter().map(|choice: &Choice| choice.position).collect::<Vec<_>>()
                };
                let (mut widest, mut start) = (Vec::new(), 0);
                for (choices, _, _) in rows.iter().filter(|_| self.watches_spread) {
                    let children = |choice: &Choice| tree.children(choice.node).0.len();
                    let most = (0..choices.len()).max_by_key(|&at| (children(&choices[at]), Reverse(at)));
                    let most = most.map(|at| (start + at, choices[at]));
                    widest
                        .extend(most.filter(|(_, choice)| children(choice) > FEW).map(|(at, c)| (at, c.node, c.child)));
                    start += choices.len();
                }
                Ok(TargetPlan {
                    temperature: self.temperature,
                    smoothed,
                    widest,
                    positions: rows.iter().map(positions).collect(),
                    inputs: rows.into_iter().map(|(_, inputs, _)| inputs).collect(),
                    predicted: Predicted::OfChoices(predicted),
                })
            }
        }
    }
}

impl TargetPlan {
    /// The same where so many tokens of each target have run already; no choice comes before the last one of them.
    pub fn after(mut self, done: usize) -> Self {
        self.inputs.iter_mut().for_each(|input| *input = input.split_off(done.min(input.len())));
        self.positions.iter_mut().flatten().for_each(|position| *position -= done.min(*position));
        self
    }

    /// What a GPU looks up for the log-probabilities.
    pub fn table(&self) -> Option<&dyn Sendable> {
        match &self.predicted {
            Predicted::OfVocabulary(ids) => Some(&**ids),
            Predicted::OfChoices(choices) => choices.table(),
        }
    }

    /// Log-probabilities of the predicted tokens, `[tokens]`, after their hidden states `[tokens, d_model]`, and what
    /// label smoothing adds to their sum, `[1]`.
    pub fn log_probs(&self, backbone: &Backbone, hidden: Tensor<2>) -> (Tensor<1>, Option<Tensor<1>>) {
        // Dividing the hidden states divides the logits.
        let hidden = if self.temperature == 1.0 { hidden } else { hidden.div_scalar(self.temperature) };
        let all = match &self.predicted {
            Predicted::OfVocabulary(ids) => {
                let ids = ids.on(&hidden.device()).unsqueeze_dim(1);
                backbone.log_probs(hidden, ids).squeeze_dim(1)
            }
            Predicted::OfChoices(choices) => backbone.choice_log_probs(hidden, choices),
        };
        let Some((share, among)) = &self.smoothed else {
            return (all, None);
        };
        let device = all.device().inner();
        let (mut targets, mut weights) = (Vec::with_capacity(among.len()), Vec::new());
        for &(tokens, target) in among {
            targets.push((weights.len() + target) as i32);
            weights.extend(std::iter::repeat_n((share / tokens as f64) as f32, tokens));
        }
        let values = all.clone().select(0, indices(&targets, &device));
        let smoothing = (all * host::vector(weights, &device)).sum() - values.clone().sum().mul_scalar(*share);
        (values, Some(smoothing))
    }

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
