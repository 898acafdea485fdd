//! The prefix tree of all items' tokens.

/// A prefix tree over token sequences. Every path from the root ends with an item's last token, so that no state of a
/// search is without a way on.
///
/// Children lie in arrays sorted by token; items of equal tokens share a leaf.
#[derive(Debug, Clone)]
pub struct ItemTrie {
    /// Edges of node `n` are `first_edge[n] .. first_edge[n + 1]`.
    first_edge: Vec<u32>,
    tokens: Vec<u32>,
    children: Vec<u32>,
    /// Items that end at node `n` are `first_item[n] .. first_item[n + 1]` in `items`.
    first_item: Vec<u32>,
    items: Vec<u32>,
    /// Tokens of the longest item through each node, from the root.
    longest: Vec<u32>,
    /// Leaves at or below each node.
    titles: Vec<u32>,
    largest_token: u32,
}

/// A catalog that no prefix tree can be made of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrieError {
    /// There is no item.
    #[error("the catalog is empty")]
    Empty,
    /// An item has no tokens.
    #[error("item {0} of the catalog has no tokens")]
    NoTokens(usize),
    /// An item's tokens are the beginning of another's.
    #[error("the tokens of item {0} are a prefix of those of item {1}; every item needs an end token")]
    Prefix(usize, usize),
}

impl ItemTrie {
    /// The root node.
    pub const ROOT: u32 = 0;

    /// The tree of a catalog: `items[i]` are the tokens of item `i`, its end token last.
    ///
    /// # Errors
    ///
    /// No item, an item without tokens, or one that is the beginning of another.
    pub fn new(items: &[Vec<u32>]) -> Result<Self, TrieError> {
        if let Some(item) = items.iter().position(Vec::is_empty) {
            return Err(TrieError::NoTokens(item));
        }
        let mut order: Vec<u32> = (0..items.len() as u32).collect();
        order.sort_by(|&a, &b| items[a as usize].cmp(&items[b as usize]).then(a.cmp(&b)));
        let Some(&first) = order.first() else {
            return Err(TrieError::Empty);
        };

        // Nodes in depth-first order with the edge that leads to them; the root has none.
        let mut parents = vec![0u32];
        let mut edge_tokens = vec![0u32];
        let mut leaves = Vec::with_capacity(items.len());
        let mut path: Vec<u32> = vec![Self::ROOT];
        let mut previous: &[u32] = &[];
        let mut previous_item = first;
        for &item in &order {
            let tokens = items[item as usize].as_slice();
            let common = previous.iter().zip(tokens).take_while(|(a, b)| a == b).count();
            if !previous.is_empty() && common == previous.len() && tokens.len() > common {
                return Err(TrieError::Prefix(previous_item as usize, item as usize));
            }
            path.truncate(common + 1);
            for &token in &tokens[common..] {
                let node = parents.len() as u32;
                parents.push(path[path.len() - 1]);
                edge_tokens.push(token);
                path.push(node);
            }
            leaves.push(path[path.len() - 1]);
            (previous, previous_item) = (tokens, item);
        }

        let nodes = parents.len();
        let (first_edge, order_of_edges) = group(&parents[1..], nodes);
        let (first_item, order_of_items) = group(&leaves, nodes);
        let (mut longest, mut titles) = (vec![0u32; nodes], vec![0u32; nodes]);
        for (&leaf, &item) in leaves.iter().zip(&order) {
            longest[leaf as usize] = items[item as usize].len() as u32;
            titles[leaf as usize] = 1;
        }
        for node in (1..nodes).rev() {
            let parent = parents[node] as usize;
            longest[parent] = longest[parent].max(longest[node]);
            titles[parent] += titles[node];
        }
        Ok(Self {
            first_edge,
            tokens: order_of_edges.iter().map(|&edge| edge_tokens[edge as usize + 1]).collect(),
            children: order_of_edges.iter().map(|&edge| edge + 1).collect(),
            first_item,
            items: order_of_items.iter().map(|&place| order[place as usize]).collect(),
            longest,
            titles,
            largest_token: edge_tokens.into_iter().max().unwrap_or(0),
        })
    }

    /// Number of nodes; they are numbered from 0, children after their parents.
    pub fn node_count(&self) -> usize {
        self.longest.len()
    }

    /// Number of items.
    pub fn item_count(&self) -> usize {
        self.items.len()
    }

    /// The tokens that may follow at a node, ascending, and the nodes they lead to.
    pub fn children(&self, node: u32) -> (&[u32], &[u32]) {
        let range = self.first_edge[node as usize] as usize..self.first_edge[node as usize + 1] as usize;
        (&self.tokens[range.clone()], &self.children[range])
    }

    /// The items that end at a node, ascending; empty for all but leaves.
    pub fn items(&self, node: u32) -> &[u32] {
        &self.items[self.first_item[node as usize] as usize..self.first_item[node as usize + 1] as usize]
    }

    /// Whether an item ends here.
    pub fn is_leaf(&self, node: u32) -> bool {
        !self.items(node).is_empty()
    }

    /// Number of distinct token lists among the items whose paths go through a node; at the root, of all.
    pub fn titles(&self, node: u32) -> usize {
        self.titles[node as usize] as usize
    }

    /// The leaf at which the first of the paths through a node ends, and the tokens that lead there.
    pub fn first_leaf(&self, node: u32) -> (u32, Vec<u32>) {
        let (mut leaf, mut tokens) = (node, Vec::new());
        while let (&[token, ..], &[child, ..]) = self.children(leaf) {
            tokens.push(token);
            leaf = child;
        }
        (leaf, tokens)
    }

    /// The tokens that lead to a node from the root; at a leaf those of a title.
    pub fn tokens(&self, node: u32) -> Vec<u32> {
        let (mut at, mut tokens) = (Self::ROOT, Vec::new());
        while at != node {
            // Nodes are numbered depth first.
            let (edges, children) = self.children(at);
            let edge = children.partition_point(|&child| child <= node) - 1;
            tokens.push(edges[edge]);
            at = children[edge];
        }
        tokens
    }

    /// The largest token of any item.
    pub fn largest_token(&self) -> u32 {
        self.largest_token
    }

    /// Number of tokens of the longest item whose path goes through a node.
    pub fn longest(&self, node: u32) -> usize {
        self.longest[node as usize] as usize
    }
}

/// Places of `keys` grouped by key, in their order: where each key's group begins, and the places.
fn group(keys: &[u32], count: usize) -> (Vec<u32>, Vec<u32>) {
    let mut first = vec![0u32; count + 1];
    for &key in keys {
        first[key as usize + 1] += 1;
    }
    for key in 0..count {
        first[key + 1] += first[key];
    }
    let mut next = first.clone();
    let mut places = vec![0u32; keys.len()];
    for (place, &key) in keys.iter().enumerate() {
        places[next[key as usize] as usize] = place as u32;
        next[key as usize] += 1;
    }
    (first, places)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const END: u32 = 0;

    #[test]
    fn what_is_no_catalog_is_an_error() {
        assert_eq!(ItemTrie::new(&[]).unwrap_err(), TrieError::Empty);
        assert_eq!(ItemTrie::new(&[vec![1, END], vec![]]).unwrap_err(), TrieError::NoTokens(1));
        assert_eq!(ItemTrie::new(&[vec![1, 2], vec![1]]).unwrap_err(), TrieError::Prefix(1, 0));
    }

    proptest! {
        #[test]
        fn the_tree_holds_every_item_and_nothing_else(
            stems in prop::collection::vec(prop::collection::vec(1u32..5, 0..5), 1..40)
        ) {
            let items: Vec<Vec<u32>> = stems.into_iter().map(|mut stem| { stem.push(END); stem }).collect();
            let trie = ItemTrie::new(&items).unwrap();
            let mut found = vec![];
            let mut open = vec![(ItemTrie::ROOT, vec![])];
            while let Some((node, path)) = open.pop() {
                let (tokens, children) = trie.children(node);
                prop_assert!(tokens.is_sorted() && (trie.is_leaf(node) == tokens.is_empty()));
                found.extend(trie.items(node).iter().map(|&item| (item as usize, path.clone())));
                let through = items.iter().filter(|item| item.starts_with(&path));
                prop_assert_eq!(Some(trie.longest(node)), through.clone().map(Vec::len).max());
                prop_assert_eq!(trie.titles(node), through.collect::<std::collections::HashSet<_>>().len());
                prop_assert_eq!(&trie.tokens(node), &path);
                let (leaf, rest) = trie.first_leaf(node);
                prop_assert_eq!(&items[trie.items(leaf)[0] as usize], &[path.as_slice(), &rest].concat());
                for (&token, &child) in tokens.iter().zip(children) {
                    open.push((child, [path.as_slice(), &[token]].concat()));
                }
            }
            found.sort();
            let expected: Vec<_> = items.iter().cloned().enumerate().collect();
            prop_assert_eq!(found, expected);
        }
    }
}
