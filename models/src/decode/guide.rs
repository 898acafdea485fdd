//! What another recommender says of the branches of the prefix tree.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ModelError;
use crate::trie::ItemTrie;

/// How a language model's and a collaborative model's distributions over items become one score. `s` is the language
/// model's share.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuidanceKind {
    /// `s log p_lm + (1 - s) log p_cf`: both must agree, as in D3 ("Decoding Matters", arXiv 2406.14900).
    #[default]
    Product,
    /// `log(s p_lm + (1 - s) p_cf)`: one of them is enough.
    Mixture,
}

impl fmt::Display for GuidanceKind {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::Product => "product",
            Self::Mixture => "mixture",
        })
    }
}

impl FromStr for GuidanceKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "product" => Ok(Self::Product),
            "mixture" => Ok(Self::Mixture),
            _ => Err(format!("`{text}` is neither `product` nor `mixture`")),
        }
    }
}

/// A collaborative model's view of one prompt's user, which guides the search.
///
/// A beam keeps the language model's log-probability of its tokens; of the collaborative model it has that of the
/// likeliest item below its node. Both only fall along a path, and so does the score that the two make, which bounds
/// that of every item below. Items of one title are told apart: the language model finds each of them as likely as the
/// others, the collaborative model does not.
#[derive(Debug, Clone)]
pub struct Guide {
    kind: GuidanceKind,
    scale: f32,
    /// Logarithm of the collaborative model's probability of each item, by place in the catalog.
    log_probs: Vec<f32>,
    /// The same of the likeliest item below each node.
    log_best: Vec<f32>,
}

impl Guide {
    /// From `log_probs`, the collaborative model's log-probability of each item by its place in the catalog; they are
    /// normalised here. Computed once for the whole tree, whatever the number of beams.
    ///
    /// # Errors
    ///
    /// Not one number for each item of the tree, one that is not finite, or a `scale`, the language model's share,
    /// outside 0 (the collaborative model alone) to 1 (the language model alone).
    pub fn new(trie: &ItemTrie, log_probs: &[f32], kind: GuidanceKind, scale: f64) -> Result<Self, ModelError> {
        if !(0.0..=1.0).contains(&scale) {
            return Err(ModelError::Input(format!("the guidance scale must be from 0 to 1, got {scale}")));
        }
        if log_probs.len() != trie.item_count() || log_probs.iter().any(|value| !value.is_finite()) {
            return Err(ModelError::Input(format!(
                "guidance needs a finite log-probability for each of the {} items, got {} values",
                trie.item_count(),
                log_probs.len()
            )));
        }
        let nodes = trie.node_count();
        let all = log_sum(log_probs.iter().map(|&value| f64::from(value)));
        let log_probs: Vec<f32> = log_probs.iter().map(|&value| (f64::from(value) - all) as f32).collect();
        let mut log_best = vec![f32::NEG_INFINITY; nodes];
        // Children come after their parents.
        for node in (0..nodes as u32).rev() {
            let own = trie.items(node).iter().map(|&item| log_probs[item as usize]);
            let below = trie.children(node).1.iter().map(|&child| log_best[child as usize]);
            log_best[node as usize] = own.chain(below).fold(f32::NEG_INFINITY, f32::max);
        }
        Ok(Self { kind, scale: scale as f32, log_probs, log_best })
    }

    /// The score of a beam at a node, whose tokens have the log-probability `log_prob` by the language model: at least
    /// that of every item below.
    pub(super) fn score(&self, log_prob: f32, node: u32) -> f32 {
        self.mix(log_prob, self.log_best[node as usize])
    }

    /// The score of each of a title's items, whose tokens have the log-probability `log_prob` by the language model;
    /// `None` where it is alone, and the items are the same to it.
    pub(super) fn item_scores(&self, log_prob: f32, items: &[u32]) -> Option<Vec<(f32, u32)>> {
        let each = log_prob - (items.len() as f32).ln();
        let score = |&item: &u32| (self.mix(each, self.log_probs[item as usize]), item);
        (self.scale < 1.0).then(|| items.iter().map(score).collect())
    }

    fn mix(&self, log_prob: f32, guided: f32) -> f32 {
        match (self.kind, self.scale) {
            // Not by way of zero times infinity.
            (_, 1.0) => log_prob,
            (_, 0.0) => guided,
            (GuidanceKind::Product, scale) => scale * log_prob + (1.0 - scale) * guided,
            (GuidanceKind::Mixture, scale) => {
                let (a, b) = (scale.ln() + log_prob, (1.0 - scale).ln() + guided);
                let top = a.max(b);
                top + ((a - top).exp() + (b - top).exp()).ln()
            }
        }
    }
}

/// `ln(sum_i exp(x_i))`.
fn log_sum(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = values.clone().fold(f64::NEG_INFINITY, f64::max);
    largest + values.map(|value| (value - largest).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Items [1 2 0], [1 3 0], [4 0] and [1 2 0] again.
    fn trie() -> ItemTrie {
        ItemTrie::new(&[vec![1, 2, 0], vec![1, 3, 0], vec![4, 0], vec![1, 2, 0]]).unwrap()
    }

    fn node(tokens: &[u32]) -> u32 {
        let (trie, mut node) = (trie(), ItemTrie::ROOT);
        for token in tokens {
            let (names, children) = trie.children(node);
            node = children[names.iter().position(|name| name == token).unwrap()];
        }
        node
    }

    /// The score of a path that the language model gives -1 for each token.
    fn path(tokens: &[u32], guide: &Guide) -> f32 {
        guide.score(-(tokens.len() as f32), node(tokens))
    }

    #[test]
    fn without_the_language_model_a_path_has_its_items_probability() {
        let probs: [f32; 4] = [0.4, 0.1, 0.2, 0.3];
        for kind in [GuidanceKind::Product, GuidanceKind::Mixture] {
            let guide = Guide::new(&trie(), &probs.map(f32::ln), kind, 0.0).unwrap();
            assert!((path(&[1, 2, 0], &guide).exp() - 0.4).abs() < 1e-6, "the likelier of two items of one title");
            let scores = guide.item_scores(-1.0, &[0, 3]).unwrap();
            assert!((scores[0].0.exp() - 0.4).abs() < 1e-6 && (scores[1].0.exp() - 0.3).abs() < 1e-6);
            assert!((path(&[1, 3, 0], &guide).exp() - 0.1).abs() < 1e-6);
            assert!((path(&[4, 0], &guide).exp() - 0.2).abs() < 1e-6);
            let alone = Guide::new(&trie(), &probs.map(f32::ln), kind, 1.0).unwrap();
            assert_eq!(path(&[1, 2, 0], &alone), -3.0);
            assert_eq!(alone.item_scores(-3.0, &[0, 3]), None);
        }
    }

    #[test]
    fn a_product_adds_logarithms_and_a_mixture_probabilities() {
        // The likeliest item that begins with token 1 has 0.8 of 2, whatever the numbers add up to.
        let probs: [f32; 4] = [0.8, 0.2, 0.4, 0.6];
        let product = Guide::new(&trie(), &probs.map(f32::ln), GuidanceKind::Product, 0.25).unwrap();
        assert!((path(&[1], &product) - (-0.25 + 0.75 * 0.4f32.ln())).abs() < 1e-6);
        let mixture = Guide::new(&trie(), &probs.map(f32::ln), GuidanceKind::Mixture, 0.25).unwrap();
        assert!((path(&[1], &mixture).exp() - (0.25 * (-1.0f32).exp() + 0.75 * 0.4)).abs() < 1e-6);
    }

    #[test]
    fn items_of_a_title_share_what_the_language_model_gives_it() {
        let probs: [f32; 4] = [0.4, 0.1, 0.2, 0.3];
        let mixture = Guide::new(&trie(), &probs.map(f32::ln), GuidanceKind::Mixture, 0.25).unwrap();
        let scores = mixture.item_scores(0.5f32.ln(), &[0, 3]).unwrap();
        assert!((scores[0].0.exp() - (0.25 * 0.25 + 0.75 * 0.4)).abs() < 1e-6, "half of 0.5 each");
        assert!((scores[1].0.exp() - (0.25 * 0.25 + 0.75 * 0.3)).abs() < 1e-6);
    }

    #[test]
    fn tiny_probabilities_keep_their_proportions() {
        let guide = Guide::new(&trie(), &[-2000.0, -2001.0, -5.0, -2000.0], GuidanceKind::Product, 0.0).unwrap();
        let difference = path(&[1, 2, 0], &guide) - path(&[1, 3, 0], &guide);
        assert!((difference - 1.0).abs() < 1e-3, "{difference}");
    }

    #[test]
    fn what_cannot_guide_is_refused() {
        let refuses = |log_probs: &[f32], scale| Guide::new(&trie(), log_probs, GuidanceKind::Mixture, scale).is_err();
        assert!(refuses(&[-1.0; 3], 0.5));
        assert!(refuses(&[-1.0, f32::NAN, -1.0, -1.0], 0.5));
        assert!(refuses(&[f32::NEG_INFINITY, -1.0, -1.0, -1.0], 0.5));
        assert!(refuses(&[-1.0; 4], 1.5));
        assert!(refuses(&[-1.0; 4], f64::NAN));
        assert!(!refuses(&[-1.0; 4], 0.5));
    }
}
