//! From a model and a split to ranks and metrics.

use std::time::Instant;

use burn::module::Module;

use super::collaborative::CollaborativeModel;
use super::evaluation::{Evaluation, Method};
use super::ranks::{Found, Popularity};
use super::shard::Shard;
use crate::data::{Prepared, PreparedRow};
use crate::models::decode::{
    BeamConfig, GuidanceKind, Guide, Hypothesis, ItemMask, ItemTrie, SearchTerms, beam_search_on_terms,
};
use crate::models::{LatentRecommender, ModelError, Objective};

/// How to evaluate.
#[derive(Debug, Clone, Copy)]
pub struct EvalConfig {
    /// The beam search.
    pub beam: BeamConfig,
    /// Users searched at once; changes memory and speed, and results by rounding only.
    pub batch: usize,
    /// The part of the users to search for.
    pub shard: Shard,
    /// Whether the items of a user's history are left out of the list. Nobody can hit one of them then; probabilities
    /// are those of the whole catalog all the same.
    pub exclude_history: bool,
}

/// Searches the best titles for the shard's rows by an objective and ranks each one's item among them. `progress` is
/// told how many rows are done, and of how many.
///
/// # Errors
///
/// A token outside the model's vocabulary, or a length penalty that does not go with the objective.
pub fn evaluate(
    model: &LatentRecommender,
    prepared: &Prepared,
    objective: &Objective,
    rows: &[&PreparedRow],
    config: EvalConfig,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Evaluation, ModelError> {
    search(model, None, prepared, objective, rows, config, progress)
}

/// A collaborative model that guides the search.
#[derive(Clone, Copy)]
pub struct Guidance<'a> {
    /// The model; its items are those of the catalog.
    pub model: &'a dyn CollaborativeModel,
    /// How it and the language model become one.
    pub kind: GuidanceKind,
    /// The language model's share, from 0 to 1; see [`Guide`].
    pub scale: f64,
}

/// [`evaluate`] with a guided search; as a product it is that of D3 ("Decoding Matters", arXiv 2406.14900).
///
/// # Errors
///
/// As [`evaluate`], and where the guiding model is of another catalog or the scale is no share.
pub fn evaluate_guided(
    model: &LatentRecommender,
    guidance: Guidance,
    prepared: &Prepared,
    objective: &Objective,
    rows: &[&PreparedRow],
    config: EvalConfig,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Evaluation, ModelError> {
    search(model, Some(guidance), prepared, objective, rows, config, progress)
}

fn search(
    model: &LatentRecommender,
    guidance: Option<Guidance>,
    prepared: &Prepared,
    objective: &Objective,
    rows: &[&PreparedRow],
    config: EvalConfig,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Evaluation, ModelError> {
    let model = model.valid();
    let method = Method {
        method: if guidance.is_some() { "guided beam search" } else { "beam search" }.into(),
        beams: config.beam.beams,
        objective: Some(objective.kind()),
        length_penalty: Some(config.beam.penalty(objective)),
        guidance_kind: guidance.map(|guidance| guidance.kind),
        guidance_scale: guidance.map(|guidance| guidance.scale),
        transition: None,
        exclude_history: config.exclude_history,
    };
    evaluate_lists(prepared, rows, config, method, progress, &mut |rows| {
        let prompts: Vec<&[u32]> = rows.iter().map(|row| row.prompt.as_slice()).collect();
        let tree = objective.tree()?;
        let mut terms = match guidance {
            None => rows.iter().map(|_| SearchTerms::default()).collect(),
            Some(guidance) => guidance.of(rows, tree)?,
        };
        if config.exclude_history {
            for (terms, row) in terms.iter_mut().zip(rows) {
                let mut allowed = vec![true; prepared.catalog.len()];
                row.history.iter().for_each(|&item| allowed[item] = false);
                terms.mask = Some(ItemMask::new(tree, allowed)?);
            }
        }
        let found = beam_search_on_terms(&model, objective, &prompts, &terms, config.beam)?;
        let list = |found: Vec<Hypothesis>| found.into_iter().map(|hypothesis| hypothesis.items).collect();
        Ok(rows
            .iter()
            .zip(found)
            .map(|(row, found)| Found::in_titles(row.item, prepared.catalog.title_groups(), list(found)))
            .collect())
    })
}

impl Guidance<'_> {
    /// What guides the search for each row.
    fn of(&self, rows: &[&PreparedRow], tree: &ItemTrie) -> Result<Vec<SearchTerms>, ModelError> {
        let histories: Vec<&[usize]> = rows.iter().map(|row| row.history.as_slice()).collect();
        let log_probs = self.model.log_probs(&histories)?;
        let guide = |log_probs: &Vec<f32>| Guide::new(tree, log_probs, self.kind, self.scale);
        log_probs.iter().map(|log_probs| guide(log_probs).map(SearchTerms::guided)).collect()
    }
}

/// What is found for the rows of a batch.
pub(super) type Find<'a, E> = dyn FnMut(&[&PreparedRow]) -> Result<Vec<Found>, E> + 'a;

/// Ranks the shard's rows by what `find` finds for the rows of a batch.
pub(super) fn evaluate_lists<E>(
    prepared: &Prepared,
    rows: &[&PreparedRow],
    config: EvalConfig,
    method: Method,
    progress: &mut dyn FnMut(usize, usize),
    find: &mut Find<E>,
) -> Result<Evaluation, E> {
    let clock = Instant::now();
    // Prompts of like length together.
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&place| (rows[place].prompt.len(), place));
    // A shard has whole batches, so that it computes just what one process would: the same sums in the same order.
    let batches: Vec<&[usize]> = config.shard.of(order.chunks(config.batch.max(1))).collect();
    let popularity = Popularity::new(prepared);
    let (mut ranks, all) = (Vec::new(), batches.iter().map(|places| places.len()).sum());
    for places in batches {
        let batch: Vec<&PreparedRow> = places.iter().map(|&place| rows[place]).collect();
        let found = find(&batch)?;
        ranks.extend(
            places.iter().zip(found).map(|(&place, found)| found.of(place, rows[place], prepared, &popularity)),
        );
        progress(ranks.len(), all);
    }
    ranks.sort_unstable_by_key(|user| user.row);
    Ok(Evaluation::of(ranks, popularity.counts, method, clock.elapsed().as_secs_f64()))
}
