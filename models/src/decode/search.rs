//! The search of one prompt, which knows scores and the prefix tree, but no model.

use std::collections::VecDeque;

use super::trie::ItemTrie;
use crate::ModelError;

/// How to search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BeamConfig {
    /// Beams kept at every step and hypotheses returned at most.
    pub beams: usize,
    /// A hypothesis scores `sum of log-probabilities / tokens^length_penalty`: 1 is the mean (BIGRec), 0 the sum (D3).
    pub length_penalty: f64,
}

impl Default for BeamConfig {
    fn default() -> Self {
        Self { beams: 10, length_penalty: 1.0 }
    }
}

impl BeamConfig {
    /// Makes sure that scores under this configuration are numbers that differ.
    ///
    /// # Errors
    ///
    /// No beams, or a length penalty beyond 10 either way.
    pub fn check(&self) -> Result<(), ModelError> {
        if self.beams == 0 {
            return Err(ModelError::Input("a beam search needs at least one beam".into()));
        }
        if !(-10.0..=10.0).contains(&self.length_penalty) {
            let penalty = self.length_penalty;
            return Err(ModelError::Input(format!("a length penalty of {penalty:?} is not between -10 and 10")));
        }
        Ok(())
    }
}

/// A finished title.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// Its tokens, the end token last.
    pub tokens: Vec<u32>,
    /// Score under the length penalty; higher is better.
    pub score: f64,
    /// The items of the catalog with these tokens.
    pub items: Vec<u32>,
}

/// Most tokens of a beam that run at once. More would save few passes and be lost with a beam that drops out.
const MOST_AHEAD: usize = 8;

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

/// The search of one prompt.
pub(super) struct Search {
    pub live: Vec<Beam>,
    /// The best finished ones so far: score and leaf, at most as many as beams, best first.
    finished: Vec<(f64, u32, Vec<u32>)>,
}

pub(super) struct Beam {
    node: u32,
    /// Sum of its tokens' log-probabilities.
    sum: f32,
    tokens: Vec<u32>,
    /// The row of the last pass that holds what was run of it.
    pub row: usize,
    /// Log-probabilities of the children of its node and of those that it must come through, as far as they are known.
    pub known: VecDeque<Vec<f32>>,
}

impl Beam {
    /// What to run for a beam whose next scores are not known: its last token, and those after it that it has no choice of.
    pub fn next_row(&self, trie: &ItemTrie) -> NextRow {
        let mut row =
            NextRow { from: self.row, tokens: vec![self.tokens[self.tokens.len() - 1]], nodes: vec![self.node] };
        let mut node = self.node;
        while let (&[token], &[child]) = trie.children(node)
            && !trie.is_leaf(child)
            && row.tokens.len() < MOST_AHEAD
        {
            row.tokens.push(token);
            row.nodes.push(child);
            node = child;
        }
        row
    }
}

struct Candidate {
    sum: f32,
    parent: usize,
    token: u32,
    node: u32,
}

impl Search {
    /// A search that knows the log-probabilities of the root's children.
    pub fn new(root: Vec<f32>) -> Self {
        let beam = Beam { node: ItemTrie::ROOT, sum: 0.0, tokens: Vec::new(), row: 0, known: [root].into() };
        Self { live: vec![beam], finished: Vec::new() }
    }

    /// Takes steps as long as the scores of all beams are known; whether the search goes on after them.
    pub fn step_while_known(&mut self, trie: &ItemTrie, config: BeamConfig) -> bool {
        while !self.is_done(trie, config) {
            if self.live.iter().any(|beam| beam.known.is_empty()) {
                return true;
            }
            self.step(trie, config);
        }
        false
    }

    /// One step: every beam is continued by one token.
    fn step(&mut self, trie: &ItemTrie, config: BeamConfig) {
        let mut candidates = Vec::new();
        for (parent, beam) in self.live.iter_mut().enumerate() {
            let scores = beam.known.pop_front().unwrap_or_default();
            let (tokens, nodes) = trie.children(beam.node);
            let child = |((&token, &node), &score): ((&u32, &u32), &f32)| Candidate {
                sum: beam.sum + score,
                parent,
                token,
                node,
            };
            candidates.extend(tokens.iter().zip(nodes).zip(&scores).map(child));
        }
        // Best first; ties by beam and then by token, which is the order in which they were made.
        candidates.sort_by(|a, b| b.sum.total_cmp(&a.sum));
        candidates.truncate(config.beams.saturating_mul(2));
        let mut live = Vec::new();
        for (rank, Candidate { sum, parent, token, node }) in candidates.into_iter().enumerate() {
            let parent = &mut self.live[parent];
            let mut tokens = parent.tokens.clone();
            tokens.push(token);
            if trie.is_leaf(node) {
                if rank < config.beams {
                    self.keep(score(sum, tokens.len(), config), node, tokens, config);
                }
            } else if live.len() < config.beams {
                // What else is known belongs to a beam's only child.
                live.push(Beam { node, sum, tokens, row: parent.row, known: std::mem::take(&mut parent.known) });
            }
        }
        self.live = live;
    }

    fn keep(&mut self, score: f64, leaf: u32, tokens: Vec<u32>, config: BeamConfig) {
        let place = self.finished.partition_point(|(other, _, _)| *other >= score);
        self.finished.insert(place, (score, leaf, tokens));
        self.finished.truncate(config.beams);
    }

    /// Whether no beam is left that could still enter the best. A sum of log-probabilities only falls, so that a beam
    /// ends at best with its present sum, after one token or as late as the tree allows.
    fn is_done(&self, trie: &ItemTrie, config: BeamConfig) -> bool {
        let Some((worst, _, _)) = self.finished.get(config.beams - 1) else {
            return self.live.is_empty();
        };
        self.live.iter().all(|beam| {
            let soon = score(beam.sum, beam.tokens.len() + 1, config);
            let late = score(beam.sum, trie.longest(beam.node), config);
            soon.max(late) <= *worst
        })
    }

    pub fn finish(self, trie: &ItemTrie) -> Vec<Hypothesis> {
        let hypothesis = |(score, leaf, tokens)| Hypothesis { tokens, score, items: trie.items(leaf).to_vec() };
        self.finished.into_iter().map(hypothesis).collect()
    }
}

fn score(sum: f32, tokens: usize, config: BeamConfig) -> f64 {
    f64::from(sum) / (tokens as f64).powf(config.length_penalty)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a search to its end with the scores of each node's children; returns each item's tokens and score.
    fn found(items: &[&[u32]], beams: usize, scores: impl Fn(&[u32]) -> Vec<f32>) -> Vec<(Vec<u32>, f64)> {
        let trie = ItemTrie::new(&items.iter().map(|item| item.to_vec()).collect::<Vec<_>>()).unwrap();
        let config = BeamConfig { beams, length_penalty: 1.0 };
        let mut search = Search::new(scores(&[]));
        while search.step_while_known(&trie, config) {
            for beam in search.live.iter_mut().filter(|beam| beam.known.is_empty()) {
                beam.known.push_back(scores(&beam.tokens));
            }
        }
        search.finish(&trie).into_iter().map(|hypothesis| (hypothesis.tokens, hypothesis.score)).collect()
    }

    #[test]
    fn equal_scores_come_in_the_order_of_the_tree() {
        let found = found(&[&[3], &[1], &[2]], 3, |_| vec![-1.0; 3]);
        assert_eq!(found, [(vec![1], -1.0), (vec![2], -1.0), (vec![3], -1.0)]);
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
        let trie = ItemTrie::new(&[vec![1, 2, 3, 0], vec![4, 0]]).unwrap();
        let config = BeamConfig::default();
        let mut search = Search::new(vec![-1.0, -2.0]);
        assert!(search.step_while_known(&trie, config));
        let rows: Vec<Vec<u32>> = search.live.iter().map(|beam| beam.next_row(&trie).tokens).collect();
        assert_eq!(rows, [vec![1, 2, 3], vec![4]]);
    }
}
