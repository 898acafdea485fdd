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
    /// `s log p_lm + (1 - s) log p_cf`: both must agree. Step by step it is D3's mixture of scores ("Decoding Matters",
    /// arXiv 2406.14900).
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
/// A beam keeps the language model's log-probability of its tokens; that of the collaborative model is the mass of the
/// items below its node. Both only fall along a path, and so does the score that the two make, which bounds that of
/// every item below.
#[derive(Debug, Clone)]
pub struct Guide {
    kind: GuidanceKind,
    scale: f32,
    /// Logarithm of the collaborative model's probability of the items below each node.
    log_mass: Vec<f32>,
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
            return Err(ModelError::Input(format!("the guidance scale is {scale}; it must be from 0 to 1")));
        }
        if log_probs.len() != trie.item_count() || log_probs.iter().any(|value| !value.is_finite()) {
            return Err(ModelError::Input(format!(
                "guidance needs a finite log-probability for each of {} items; there are {} values",
                trie.item_count(),
                log_probs.len()
            )));
        }
        let nodes = trie.node_count();
        let mut log_mass = vec![0.0; nodes];
        // Children come after their parents.
        for node in (0..nodes as u32).rev() {
            let (_, children) = trie.children(node);
            let items = trie.items(node).iter().map(|&item| f64::from(log_probs[item as usize]));
            log_mass[node as usize] = match children {
                // Most of a title's nodes lead only one way.
                &[child] if items.len() == 0 => log_mass[child as usize],
                _ => log_sum(items.chain(children.iter().map(|&child| log_mass[child as usize]))),
            };
        }
        let all = log_mass[ItemTrie::ROOT as usize];
        Ok(Self { kind, scale: scale as f32, log_mass: log_mass.iter().map(|mass| (mass - all) as f32).collect() })
    }

    /// The score of a beam at a node, whose tokens have the log-probability `log_prob` by the language model.
    pub(super) fn score(&self, log_prob: f32, node: u32) -> f32 {
        let log_mass = self.log_mass[node as usize];
        match (self.kind, self.scale) {
            // Not by way of zero times infinity.
            (_, 1.0) => log_prob,
            (_, 0.0) => log_mass,
            (GuidanceKind::Product, scale) => scale * log_prob + (1.0 - scale) * log_mass,
            (GuidanceKind::Mixture, scale) => {
                let (a, b) = (scale.ln() + log_prob, (1.0 - scale).ln() + log_mass);
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

    /// The score of a path that the language model gives -1 for each token.
    fn path(tokens: &[u32], guide: &Guide) -> f32 {
        let (trie, mut node) = (trie(), ItemTrie::ROOT);
        for token in tokens {
            let (names, children) = trie.children(node);
            node = children[names.iter().position(|name| name == token).unwrap()];
        }
        guide.score(-(tokens.len() as f32), node)
    }

    #[test]
    fn without_the_language_model_a_path_has_its_items_probability() {
        let probs: [f32; 4] = [0.4, 0.1, 0.2, 0.3];
        for kind in [GuidanceKind::Product, GuidanceKind::Mixture] {
            let guide = Guide::new(&trie(), &probs.map(f32::ln), kind, 0.0).unwrap();
            assert!((path(&[1, 2, 0], &guide).exp() - 0.7).abs() < 1e-6, "two items share the title");
            assert!((path(&[1, 3, 0], &guide).exp() - 0.1).abs() < 1e-6);
            assert!((path(&[4, 0], &guide).exp() - 0.2).abs() < 1e-6);
            let alone = Guide::new(&trie(), &probs.map(f32::ln), kind, 1.0).unwrap();
            assert_eq!(path(&[1, 2, 0], &alone), -3.0);
        }
    }

    #[test]
    fn a_product_adds_logarithms_and_a_mixture_probabilities() {
        // A mass of 0.8 begins with token 1, whatever the numbers add up to.
        let probs: [f32; 4] = [0.8, 0.2, 0.4, 0.6];
        let product = Guide::new(&trie(), &probs.map(f32::ln), GuidanceKind::Product, 0.25).unwrap();
        assert!((path(&[1], &product) - (-0.25 + 0.75 * 0.8f32.ln())).abs() < 1e-6);
        let mixture = Guide::new(&trie(), &probs.map(f32::ln), GuidanceKind::Mixture, 0.25).unwrap();
        assert!((path(&[1], &mixture).exp() - (0.25 * (-1.0f32).exp() + 0.75 * 0.8)).abs() < 1e-6);
    }

    #[test]
    fn tiny_probabilities_keep_their_proportions() {
        let guide = Guide::new(&trie(), &[-2000.0, -2001.0, -5.0, -2000.0], GuidanceKind::Product, 0.0).unwrap();
        let difference = path(&[1, 2, 0], &guide) - path(&[1, 3, 0], &guide);
        assert!((difference - (1.0 + 2.0f32.ln())).abs() < 1e-3, "{difference}");
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
