//! The lists of a batch: what the search finds after prompts that have run.

use latentr3_models::decode::{BeamConfig, Hypothesis, ItemMask, ItemTrie, SearchTerms, TitleStart, beam_search_after};
use latentr3_models::{LatentRecommender, ModelError, Objective};

use super::candidate::Candidate;
use super::config::ItemsConfig;
use super::guide::Guide;
use crate::{Example, TrainError};

/// How lists are found.
pub(super) struct ListSearch<'a> {
    pub config: &'a ItemsConfig,
    /// Items of a list.
    pub items: usize,
    pub objective: &'a Objective,
    pub guide: Option<&'a Guide>,
}

impl ListSearch<'_> {
    /// The list of each of some examples, best first, after their prompts have run; log-probabilities are not filled in
    /// yet.
    pub fn lists(
        &self,
        model: &LatentRecommender,
        start: &TitleStart,
        rows: &[&Example],
    ) -> Result<Vec<Vec<Candidate>>, TrainError> {
        let everything = vec![SearchTerms::default(); rows.len()];
        let mut lists = self.search(model, start.clone(), rows, &everything, 0)?;
        let missing = |lists: &[Vec<Candidate>]| {
            let is_missing = |&place: &usize| !lists[place].iter().any(|candidate| candidate.is_target);
            (0..rows.len()).filter(is_missing).collect::<Vec<_>>()
        };
        let places = if self.config.hint > 0 { missing(&lists) } else { Vec::new() };
        if !places.is_empty() {
            let rows: Vec<&Example> = places.iter().map(|&place| rows[place]).collect();
            let terms = rows.iter().map(|row| self.below_hint(row)).collect::<Result<Vec<_>, _>>()?;
            let found = self.search(model, start.select(&places), &rows, &terms, self.config.hint)?;
            places.into_iter().zip(found).for_each(|(place, list)| lists[place] = list);
        }
        for (list, row) in lists.iter_mut().zip(rows) {
            self.propose(list, row)?;
        }
        if self.config.target {
            let tree = self.objective.tree()?;
            for place in missing(&lists) {
                lists[place].truncate(self.items - 1);
                let path = self.objective.path(&rows[place].target)?;
                let (leaf, _) = tree.first_leaf(node_after(tree, &path));
                let target = self.candidate(rows[place], rows[place].target.clone(), tree.items(leaf).to_vec())?;
                lists[place].push(Candidate { is_added: true, ..target });
            }
        }
        Ok(lists)
    }

    fn search(
        &self,
        model: &LatentRecommender,
        start: TitleStart,
        rows: &[&Example],
        terms: &[SearchTerms],
        given: usize,
    ) -> Result<Vec<Vec<Candidate>>, TrainError> {
        let beams = self.items - self.config.proposals;
        if beams == 0 {
            return Ok(vec![Vec::new(); rows.len()]);
        }
        let beam = BeamConfig { beams, length_penalty: None };
        let found = beam_search_after(model, self.objective, start, terms, beam)?;
        let list = |(row, list): (&&Example, Vec<Hypothesis>)| {
            let candidate = |hypothesis: Hypothesis| {
                let candidate = self.candidate(row, hypothesis.tokens, hypothesis.items)?;
                let given = given.min(candidate.path.len());
                Ok(Candidate { given, ..candidate })
            };
            list.into_iter().map(candidate).collect::<Result<Vec<_>, TrainError>>()
        };
        rows.iter().zip(found).map(list).collect()
    }

    /// Fills up a list with what the guide holds likeliest.
    fn propose(&self, list: &mut Vec<Candidate>, row: &Example) -> Result<(), TrainError> {
        let (Some(guide), 1..) = (self.guide, self.config.proposals) else {
            return Ok(());
        };
        let tree = self.objective.tree()?;
        // As many more as the list may have of them already.
        for leaf in guide.proposals(row, tree, self.items)? {
            let items = tree.items(leaf);
            if list.len() < self.items && !list.iter().any(|candidate| candidate.items == items) {
                let proposed = self.candidate(row, tree.tokens(leaf), items.to_vec())?;
                list.push(Candidate { is_added: true, ..proposed });
            }
        }
        Ok(())
    }

    fn candidate(&self, row: &Example, tokens: Vec<u32>, items: Vec<u32>) -> Result<Candidate, TrainError> {
        let is_target = tokens == row.target;
        let path = self.objective.path(&tokens)?;
        Ok(Candidate { tokens, items, is_target, path, is_added: false, given: 0, log_probs: Vec::new() })
    }

    /// Only the items that begin with the first choices of the target.
    fn below_hint(&self, row: &Example) -> Result<SearchTerms, ModelError> {
        let (tree, path) = (self.objective.tree()?, self.objective.path(&row.target)?);
        let mut allowed = vec![false; tree.item_count()];
        let mut open = vec![node_after(tree, &path[..self.config.hint.min(path.len())])];
        while let Some(node) = open.pop() {
            tree.items(node).iter().for_each(|&item| allowed[item as usize] = true);
            open.extend(tree.children(node).1);
        }
        Ok(SearchTerms { mask: Some(ItemMask::new(tree, allowed)?), ..SearchTerms::default() })
    }
}

/// The node to which the choices of a path lead.
fn node_after(tree: &ItemTrie, path: &[(u32, usize)]) -> u32 {
    path.last().map_or(ItemTrie::ROOT, |&(node, child)| tree.children(node).1[child])
}
