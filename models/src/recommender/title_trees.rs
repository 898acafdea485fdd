//! Titles after a prompt as a tree.

/// The tokens of the titles after each prompt, where what several titles begin with is there once.
pub(super) struct TitleTrees {
    /// Of each prompt, depth first.
    pub tokens: Vec<Vec<u32>>,
    /// The number of tokens above each of them.
    pub depths: Vec<Vec<usize>>,
    /// For each title the places of its tokens among those of its prompt.
    pub places: Vec<Vec<usize>>,
}

impl TitleTrees {
    /// Of titles that are as many for each prompt, those of a prompt together.
    pub fn new(titles: &[Vec<u32>], prompts: usize) -> Self {
        let share = titles.len() / prompts;
        let mut trees = Self { tokens: Vec::new(), depths: Vec::new(), places: vec![Vec::new(); titles.len()] };
        for prompt in 0..prompts {
            let mut order: Vec<usize> = (prompt * share..(prompt + 1) * share).collect();
            order.sort_by_key(|&title| &titles[title]);
            let (mut tokens, mut depths) = (Vec::new(), Vec::new());
            let (mut path, mut before): (Vec<usize>, &[u32]) = (Vec::new(), &[]);
            for title in order {
                let own = &titles[title];
                path.truncate(before.iter().zip(own).take_while(|(a, b)| a == b).count());
                for &token in &own[path.len()..] {
                    depths.push(path.len());
                    path.push(tokens.len());
                    tokens.push(token);
                }
                trees.places[title].clone_from(&path);
                before = own;
            }
            trees.tokens.push(tokens);
            trees.depths.push(depths);
        }
        trees
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_titles_begin_with_is_there_once() {
        let titles = [vec![5, 6, 7], vec![5], vec![5, 6, 8], vec![4, 6], vec![], vec![4, 6]];
        let trees = TitleTrees::new(&titles, 2);
        assert_eq!(trees.tokens, [vec![5, 6, 7, 8], vec![4, 6]]);
        assert_eq!(trees.depths, [vec![0, 1, 2, 2], vec![0, 1]]);
        assert_eq!(trees.places, [vec![0, 1, 2], vec![0], vec![0, 1, 3], vec![0, 1], vec![], vec![0, 1]]);
    }
}
