//! What another recommender says of the branches of the prefix tree.

use crate::ModelError;
use crate::trie::ItemTrie;

/// A collaborative model's view of one prompt's user, which guides the search (D3, "Decoding Matters", arXiv
/// 2406.14900).
///
/// The score of a token, `s` by the language model, becomes `g (s - c) + c` with `g` the scale and `c` the logarithm of
/// the collaborative model's probability mass under the token's branch over the mass under it and its siblings. Along a
/// path the `c` add up to the item's log-probability.
#[derive(Debug, Clone)]
pub struct Guide {
    scale: f32,
    /// `c` of the branch into each node.
    log_shares: Vec<f32>,
}

impl Guide {
    /// From `log_probs`, the collaborative model's log-probability of each item by its place in the catalog. Computed
    /// once for the whole tree, whatever the number of beams.
    ///
    /// # Errors
    ///
    /// Not one number for each item of the tree, one that is not finite, or a `scale` outside 0 (the collaborative
    /// model alone) to 1 (the language model alone).
    pub fn new(trie: &ItemTrie, log_probs: &[f32], scale: f64) -> Result<Self, ModelError> {
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
        let mut log_shares = vec![0.0; nodes];
        // Children come after their parents.
        for node in (0..nodes as u32).rev() {
            let (_, children) = trie.children(node);
            let items = trie.items(node).iter().map(|&item| f64::from(log_probs[item as usize]));
            let own = log_sum(items.chain(children.iter().map(|&child| log_mass[child as usize])));
            for &child in children {
                log_shares[child as usize] = (log_mass[child as usize] - own) as f32;
            }
            log_mass[node as usize] = own;
        }
        Ok(Self { scale: scale as f32, log_shares })
    }

    /// Mixes the language model's scores of a node's children, in the tree's order, with the collaborative ones.
    pub(super) fn mix(&self, trie: &ItemTrie, node: u32, scores: &mut [f32]) {
        for (score, &child) in scores.iter_mut().zip(trie.children(node).1) {
            let share = self.log_shares[child as usize];
            *score = self.scale * (*score - share) + share;
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

    fn path(tokens: &[u32], guide: &Guide) -> f32 {
        let trie = trie();
        let (mut node, mut sum) = (ItemTrie::ROOT, 0.0);
        for token in tokens {
            let (names, children) = trie.children(node);
            let mut scores = vec![0.0; names.len()];
            guide.mix(&trie, node, &mut scores);
            let place = names.iter().position(|name| name == token).unwrap();
            sum += scores[place];
            node = children[place];
        }
        sum
    }

    #[test]
    fn without_the_language_model_a_path_adds_up_to_its_items_probability() {
        let probs: [f32; 4] = [0.4, 0.1, 0.2, 0.3];
        let guide = Guide::new(&trie(), &probs.map(f32::ln), 0.0).unwrap();
        assert!((path(&[1, 2, 0], &guide).exp() - 0.7).abs() < 1e-6, "two items share the title");
        assert!((path(&[1, 3, 0], &guide).exp() - 0.1).abs() < 1e-6);
        assert!((path(&[4, 0], &guide).exp() - 0.2).abs() < 1e-6);
        // One step: 0.8 of the mass begins with token 1, 0.7 of that goes on with 2.
        let (trie, mut scores) = (trie(), [-1.0, -2.0]);
        let half = Guide::new(&trie, &probs.map(f32::ln), 0.5).unwrap();
        half.mix(&trie, ItemTrie::ROOT, &mut scores);
        assert!((scores[0] - (0.5 * (-1.0 - 0.8f32.ln()) + 0.8f32.ln())).abs() < 1e-6);
        assert!((scores[1] - (0.5 * (-2.0 - 0.2f32.ln()) + 0.2f32.ln())).abs() < 1e-6);
    }

    #[test]
    fn tiny_probabilities_keep_their_proportions() {
        let guide = Guide::new(&trie(), &[-2000.0, -2001.0, -5.0, -2000.0], 0.0).unwrap();
        let difference = path(&[1, 2, 0], &guide) - path(&[1, 3, 0], &guide);
        assert!((difference - (1.0 + 2.0f32.ln())).abs() < 1e-3, "{difference}");
    }

    #[test]
    fn what_cannot_guide_is_refused() {
        assert!(Guide::new(&trie(), &[-1.0; 3], 0.5).is_err());
        assert!(Guide::new(&trie(), &[-1.0, f32::NAN, -1.0, -1.0], 0.5).is_err());
        assert!(Guide::new(&trie(), &[f32::NEG_INFINITY, -1.0, -1.0, -1.0], 0.5).is_err());
        assert!(Guide::new(&trie(), &[-1.0; 4], 1.5).is_err());
        assert!(Guide::new(&trie(), &[-1.0; 4], f64::NAN).is_err());
    }
}
