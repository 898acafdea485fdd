//! Items that a search may not find.

use crate::ModelError;
use crate::trie::ItemTrie;

/// Which items of the catalog one prompt's search may find.
///
/// The others are left out of the list and of nothing else: what is found keeps the score that it has among all items,
/// and the list is the full ranking without them.
#[derive(Debug, Clone)]
pub struct ItemMask {
    /// Of each item, by its place in the catalog.
    allowed: Vec<bool>,
    /// Whether an allowed item lies at each node or below it.
    open: Vec<bool>,
}

impl ItemMask {
    /// From whether each item may be found, by its place in the catalog.
    ///
    /// # Errors
    ///
    /// Not one value for each item of the tree.
    pub fn new(tree: &ItemTrie, allowed: Vec<bool>) -> Result<Self, ModelError> {
        if allowed.len() != tree.item_count() {
            let problem = format!("a mask of {} items does not fit a catalog of {}", allowed.len(), tree.item_count());
            return Err(ModelError::Input(problem));
        }
        let mut open = vec![false; tree.node_count()];
        // Children come after their parents.
        for node in (0..open.len() as u32).rev() {
            let has_item = tree.items(node).iter().any(|&item| allowed[item as usize]);
            open[node as usize] = has_item || tree.children(node).1.iter().any(|&child| open[child as usize]);
        }
        Ok(Self { allowed, open })
    }

    /// Whether an allowed item lies at a node or below it.
    pub(super) fn is_open(&self, node: u32) -> bool {
        self.open[node as usize]
    }

    /// Those of some items that may be found.
    pub(super) fn of(&self, items: &[u32]) -> Vec<u32> {
        items.iter().copied().filter(|&item| self.allowed[item as usize]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_open_while_an_item_below_it_is_allowed() {
        // Two items share a title.
        let tree = ItemTrie::new(&[vec![1, 2, 0], vec![1, 3, 0], vec![4, 0], vec![1, 2, 0]]).unwrap();
        let first_children = |mask: &ItemMask| {
            let (_, children) = tree.children(ItemTrie::ROOT);
            children.iter().map(|&child| mask.is_open(child)).collect::<Vec<_>>()
        };
        let mask = |allowed: [bool; 4]| ItemMask::new(&tree, allowed.to_vec()).unwrap();
        assert_eq!(first_children(&mask([true; 4])), [true, true]);
        assert_eq!(first_children(&mask([false, false, true, false])), [false, true]);
        assert_eq!(first_children(&mask([false, false, false, true])), [true, false]);
        assert_eq!(mask([false, true, true, true]).of(&[0, 3]), [3]);
        assert!(!mask([false; 4]).is_open(ItemTrie::ROOT));
        assert!(ItemMask::new(&tree, vec![true; 3]).is_err());
    }
}
