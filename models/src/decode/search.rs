//! The search of one prompt, which knows scores and the prefix tree, but no model.

use std::collections::VecDeque;

use super::guide::Guide;
use super::mask::ItemMask;
use super::start::{MOST_AHEAD, certain_way};
use crate::trie::ItemTrie;
use crate::{ModelError, Objective, ObjectiveKind};

/// How to search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BeamConfig {
    /// Beams kept at every step and hypotheses returned at most.
    pub beams: usize,
    /// A hypothesis scores `sum of log-probabilities / tokens^length_penalty`: 1 is the mean (BIGRec), 0 the sum (D3).
    /// Absent, what is usual for the objective ([`Objective::length_penalty`]).
    pub length_penalty: Option<f64>,
}

impl Default for BeamConfig {
    fn default() -> Self {
        Self { beams: 10, length_penalty: None }
    }
}

impl BeamConfig {
    /// Checks the number of beams and the length penalty.
    ///
    /// # Errors
    ///
    /// No beams, a length penalty beyond 10 either way, or for [`ObjectiveKind::Catalog`] one but 0.
    pub fn check(&self, objective: ObjectiveKind) -> Result<(), ModelError> {
        if self.beams == 0 {
            return Err(ModelError::Input("a beam search needs at least one beam".into()));
        }
        match self.length_penalty {
            Some(penalty) if !(-10.0..=10.0).contains(&penalty) => {
                Err(ModelError::Input(format!("the length penalty must be from -10 to 10, got {penalty:?}")))
            }
            Some(penalty) if penalty != 0.0 && objective == ObjectiveKind::Catalog => Err(ModelError::Input(format!(
                "the length penalty must be 0 for the objective `catalog`, whose scores are log-probabilities of items; \
                 got {penalty:?}"
            ))),
            _ => Ok(()),
        }
    }

    /// The length penalty that scores are made with.
    pub fn penalty(&self, objective: &Objective) -> f64 {
        self.length_penalty.unwrap_or(objective.length_penalty())
    }
}

/// A finished title.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// All of its tokens, the end token last, however many of them were run.
    pub tokens: Vec<u32>,
    /// Score under the length penalty; higher is better.
    pub score: f64,
    /// The items of the catalog with these tokens that may be found.
    pub items: Vec<u32>,
}

/// What a row of the next pass runs.
#[derive(Default)]
pub(super) struct NextRow {
    /// The row of the pass before that it goes on from.
    pub from: usize,
    /// The tokens, first to last; none for a beam whose next scores are known.
    pub tokens: Vec<u32>,
    /// The nodes that they lead to.
    pub nodes: Vec<u32>,
}

/// What a search goes by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules<'a> {
    pub tree: &'a ItemTrie,
    pub objective: &'a Objective,
    pub beams: usize,
    pub length_penalty: f64,
}

impl Rules<'_> {
    fn score(&self, sum: f32, tokens: usize) -> f64 {
        f64::from(sum) / (tokens as f64).powf(self.length_penalty)
    }
}

/// What one prompt's search goes by besides the language model.
#[derive(Debug, Clone, Default)]
pub struct SearchTerms {
    /// What has a say besides the language model.
    pub guide: Option<Guide>,
    /// The items that may be found, if not all.
    pub mask: Option<ItemMask>,
}

impl SearchTerms {
    /// With a guide, over all items.
    pub fn guided(guide: Guide) -> Self {
        Self { guide: Some(guide), mask: None }
    }

    /// The score of a beam at a node whose tokens have the log-probability `log_prob`.
    fn score(&self, log_prob: f32, node: u32) -> f32 {
        self.guide.as_ref().map_or(log_prob, |guide| guide.score(log_prob, node))
    }

    fn is_open(&self, node: u32) -> bool {
        self.mask.as_ref().is_none_or(|mask| mask.is_open(node))
    }

    /// Those of a leaf's items that may be found.
    fn items(&self, tree: &ItemTrie, leaf: u32) -> Vec<u32> {
        let all = tree.items(leaf);
        self.mask.as_ref().map_or_else(|| all.to_vec(), |mask| mask.of(all))
    }
}

/// The search of one prompt.
pub(super) struct Search<'a> {
    pub live: Vec<Beam>,
    terms: &'a SearchTerms,
    /// The best finished ones so far, at most as many as beams, best first; equal scores by the lowest item.
    finished: Vec<Hypothesis>,
}

pub(super) struct Beam {
    node: u32,
    /// Sum of its tokens' log-probabilities.
    log_prob: f32,
    /// The same, as the guide sees it where there is one.
    sum: f32,
    tokens: Vec<u32>,
    /// The row of the last pass that holds what was run of it.
    pub row: usize,
    /// Log-probabilities of the children of its node and of those that it must come through, as far as they are known.
    pub known: VecDeque<Vec<f32>>,
}

impl Beam {
    /// What to run for a beam whose next scores are not known: its last token, and those after it that it has no choice
    /// of.
    pub fn next_row(&self, rules: Rules) -> NextRow {
        let (tokens, nodes) = certain_way(rules.tree, rules.objective, self.node, MOST_AHEAD - 1);
        NextRow {
            from: self.row,
            tokens: [&self.tokens[self.tokens.len() - 1..], &tokens].concat(),
            nodes: [&[self.node], &nodes[..]].concat(),
        }
    }
}

struct Candidate {
    log_prob: f32,
    sum: f32,
    parent: usize,
    token: u32,
    node: u32,
}

impl<'a> Search<'a> {
    /// A search that begins at a node, to which certain tokens lead, and knows the log-probabilities of its children.
    pub fn new(node: u32, tokens: Vec<u32>, scores: Vec<f32>, terms: &'a SearchTerms) -> Self {
        let beam = Beam { node, log_prob: 0.0, sum: 0.0, tokens, row: 0, known: [scores].into() };
        let live = if terms.is_open(node) { vec![beam] } else { Vec::new() };
        Self { live, terms, finished: Vec::new() }
    }

    /// Takes steps as long as the scores of all beams are known; whether the search goes on after them.
    pub fn step_while_known(&mut self, rules: Rules) -> bool {
        while !self.is_done(rules) {
            if self.live.iter().any(|beam| beam.known.is_empty()) {
                return true;
            }
            self.step(rules);
        }
        false
    }

    /// One step: every beam is continued by one token.
    fn step(&mut self, rules: Rules) {
        let mut candidates = Vec::new();
        for (parent, beam) in self.live.iter_mut().enumerate() {
            let scores = beam.known.pop_front().unwrap_or_default();
            let (tokens, nodes) = rules.tree.children(beam.node);
            let child = |((&token, &node), &score): ((&u32, &u32), &f32)| {
                let log_prob = beam.log_prob + score;
                Candidate { log_prob, sum: self.terms.score(log_prob, node), parent, token, node }
            };
            let children = tokens.iter().zip(nodes).zip(&scores);
            candidates.extend(children.filter(|((_, node), _)| self.terms.is_open(**node)).map(child));
        }
        // Best first; ties by beam and then by token, which is the order in which they were made.
        candidates.sort_by(|a, b| b.sum.total_cmp(&a.sum));
        candidates.truncate(rules.beams.saturating_mul(2));
        let mut live = Vec::new();
        for (rank, Candidate { log_prob, sum, parent, token, node }) in candidates.into_iter().enumerate() {
            let parent = &mut self.live[parent];
            let mut tokens = parent.tokens.clone();
            tokens.push(token);
            if rules.objective.is_found(rules.tree, node) {
                if rank < rules.beams {
                    self.keep([log_prob, sum], node, tokens, rules);
                }
            } else if live.len() < rules.beams {
                // What else is known belongs to a beam's only child.
                let known = std::mem::take(&mut parent.known);
                live.push(Beam { node, log_prob, sum, tokens, row: parent.row, known });
            }
        }
        // Without a penalty a sum is a score, and only falls: what is no better than the worst of enough finished ones
        // never enters, and whatever it would have kept from the next step's best is no better either.
        if rules.length_penalty == 0.0
            && let Some(worst) = self.finished.get(rules.beams - 1)
        {
            live.retain(|beam| f64::from(beam.sum) > worst.score);
        }
        self.live = live;
    }

    /// Keeps the title of a node whose items have been found; where a guide tells them apart, each by itself.
    fn keep(&mut self, [log_prob, sum]: [f32; 2], node: u32, mut tokens: Vec<u32>, rules: Rules) {
        let length = tokens.len();
        let (leaf, rest) = rules.tree.first_leaf(node);
        tokens.extend(rest);
        let items = self.terms.items(rules.tree, leaf);
        let guide = self.terms.guide.as_ref();
        match guide.and_then(|guide| guide.item_scores(log_prob, rules.tree.items(leaf))) {
            None => self.insert(rules.score(sum, length), items, tokens, rules.beams),
            Some(scores) => {
                for (sum, item) in scores.into_iter().filter(|(_, item)| items.contains(item)) {
                    self.insert(rules.score(sum, length), vec![item], tokens.clone(), rules.beams);
                }
            }
        }
    }

    fn insert(&mut self, score: f64, items: Vec<u32>, tokens: Vec<u32>, most: usize) {
        let is_before = |other: &Hypothesis| other.score > score || (other.score == score && other.items[0] < items[0]);
        let place = self.finished.partition_point(is_before);
        self.finished.insert(place, Hypothesis { tokens, score, items });
        self.finished.truncate(most);
    }

    /// Whether no beam is left that could still enter the best. A sum of log-probabilities only falls, so that a beam
    /// ends at best with its present sum, after one token or as late as the tree allows.
    fn is_done(&self, rules: Rules) -> bool {
        let Some(worst) = self.finished.get(rules.beams - 1) else {
            return self.live.is_empty();
        };
        self.live.iter().all(|beam| {
            let soon = rules.score(beam.sum, beam.tokens.len() + 1);
            let late = rules.score(beam.sum, rules.tree.longest(beam.node));
            soon.max(late) <= worst.score
        })
    }

    pub fn finish(self) -> Vec<Hypothesis> {
        self.finished
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a search to its end with the scores of each node's children; returns each item's tokens and score.
    fn found(items: &[&[u32]], beams: usize, scores: impl Fn(&[u32]) -> Vec<f32>) -> Vec<(Vec<u32>, f64)> {
        let tree = ItemTrie::new(&items.iter().map(|item| item.to_vec()).collect::<Vec<_>>()).unwrap();
        let objective = Objective::vocabulary();
        let rules = Rules { tree: &tree, objective: &objective, beams, length_penalty: 1.0 };
        let terms = SearchTerms::default();
        let mut search = Search::new(ItemTrie::ROOT, Vec::new(), scores(&[]), &terms);
        while search.step_while_known(rules) {
            for beam in search.live.iter_mut().filter(|beam| beam.known.is_empty()) {
                beam.known.push_back(scores(&beam.tokens));
            }
        }
        search.finish().into_iter().map(|hypothesis| (hypothesis.tokens, hypothesis.score)).collect()
    }

    #[test]
    fn equal_scores_come_in_the_order_of_the_catalog() {
        let found = found(&[&[3], &[1], &[2]], 3, |_| vec![-1.0; 3]);
        assert_eq!(found, [(vec![3], -1.0), (vec![1], -1.0), (vec![2], -1.0)]);
    }

    /// As in `transformers`, where an end beyond the first places is passed over and the beams go on behind it.
    #[test]
    fn an_end_counts_among_the_first_candidates_only() {
        let scores = |tokens: &[u32]| if tokens.is_empty() { vec![-0.6, -0.5] } else { vec![-9.0] };
        assert_eq!(found(&[&[1], &[2, 0]], 1, scores), [(vec![2, 0], -4.75)]);
        assert_eq!(found(&[&[1], &[2, 0]], 2, scores), [(vec![1], -f64::from(0.6f32)), (vec![2, 0], -4.75)]);
    }

    #[test]
    fn a_search_ends_when_no_beam_can_enter_the_best() {
        let asked = std::cell::Cell::new(0);
        let scores = |tokens: &[u32]| {
            asked.set(asked.get() + 1);
            if tokens.is_empty() { vec![-0.1, -5.0] } else { vec![0.0] }
        };
        // At best -5 over the three tokens of [2, 3, 0].
        assert_eq!(found(&[&[1], &[2, 3, 0]], 1, scores), [(vec![1], -f64::from(0.1f32))]);
        assert_eq!(asked.get(), 1, "the other beam never runs");
        assert_eq!(found(&[&[1], &[2, 3, 0]], 2, scores).len(), 2);
    }

    #[test]
    fn a_beam_runs_ahead_where_the_tree_leaves_no_choice_but_for_the_end() {
        let tree = ItemTrie::new(&[vec![1, 2, 3, 0], vec![4, 0]]).unwrap();
        let objective = Objective::vocabulary();
        let terms = SearchTerms::default();
        let mut search = Search::new(ItemTrie::ROOT, Vec::new(), vec![-1.0, -2.0], &terms);
        let rules = Rules { tree: &tree, objective: &objective, beams: 10, length_penalty: 1.0 };
        assert!(search.step_while_known(rules));
        let rows: Vec<Vec<u32>> = search.live.iter().map(|beam| beam.next_row(rules).tokens).collect();
        assert_eq!(rows, [vec![1, 2, 3], vec![4]]);
    }
}
