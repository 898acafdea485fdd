//! Beam search over the prefix tree.

use burn::tensor::{Int, Tensor, TensorData};

use super::guide::Guide;
use super::search::{BeamConfig, Hypothesis, NextRow, Search};
use super::trie::ItemTrie;
use crate::backbone::{PromptState, Segment};
use crate::{LatentRecommender, ModelError, host};

/// Beams of all prompts that run together at most, but for those of one prompt. More would take memory in proportion and, on a
/// CPU, more time for each beam, since what they work on no longer fits into the caches.
const MOST_TOGETHER: usize = 1024;

/// The best items of each prompt, best first, at most `beams`.
///
/// Candidates of a step are, as in `transformers`, the best `2 * beams` continuations of all beams; one that ends an item
/// counts if it is among the first `beams`. A prompt's search stops when none of its beams can still enter its best.
///
/// Where the tree leaves a beam only one way, the tokens of that way run at once: titles soon differ from all others, and
/// a pass over a few tokens costs little more than one over a single token. The steps of the search stay the same.
///
/// # Errors
///
/// No prompt, an empty prompt, a token outside the vocabulary, of the prompts or the tree, no beam, or a model whose scores are not
/// numbers.
pub fn beam_search(
    model: &LatentRecommender,
    trie: &ItemTrie,
    prompts: &[&[u32]],
    config: BeamConfig,
) -> Result<Vec<Vec<Hypothesis>>, ModelError> {
    search_in_parts(model, trie, prompts, None, config)
}

/// [`beam_search`] by scores that each prompt's guide has mixed with a collaborative model's.
///
/// # Errors
///
/// As [`beam_search`], and where there is not a guide for each prompt.
pub fn guided_beam_search(
    model: &LatentRecommender,
    trie: &ItemTrie,
    prompts: &[&[u32]],
    guides: &[Guide],
    config: BeamConfig,
) -> Result<Vec<Vec<Hypothesis>>, ModelError> {
    if guides.len() != prompts.len() {
        return Err(ModelError::Input(format!("{} guides for {} prompts", guides.len(), prompts.len())));
    }
    search_in_parts(model, trie, prompts, Some(guides), config)
}

fn search_in_parts(
    model: &LatentRecommender,
    trie: &ItemTrie,
    prompts: &[&[u32]],
    guides: Option<&[Guide]>,
    config: BeamConfig,
) -> Result<Vec<Vec<Hypothesis>>, ModelError> {
    let at_once = (MOST_TOGETHER / config.beams.max(1)).max(1);
    let part = |(at, prompts): (usize, &[&[u32]])| {
        let guides = guides.map(|guides| &guides[at * at_once..][..prompts.len()]);
        search(model, trie, model.reason(prompts)?, guides, config)
    };
    if prompts.is_empty() {
        return Err(ModelError::Input("a search needs a prompt".into()));
    }
    Ok(prompts.chunks(at_once).enumerate().map(part).collect::<Result<Vec<_>, _>>()?.concat())
}

/// [`beam_search`] after prompts that have run, and whatever followed them.
///
/// # Errors
///
/// As [`beam_search`], of what concerns the tree, the beams and the scores.
pub fn beam_search_after(
    model: &LatentRecommender,
    trie: &ItemTrie,
    state: PromptState,
    config: BeamConfig,
) -> Result<Vec<Vec<Hypothesis>>, ModelError> {
    search(model, trie, state, None, config)
}

fn search(
    model: &LatentRecommender,
    trie: &ItemTrie,
    mut state: PromptState,
    guides: Option<&[Guide]>,
    config: BeamConfig,
) -> Result<Vec<Vec<Hypothesis>>, ModelError> {
    config.check()?;
    let guided = |user: usize, node: u32, mut scores: Vec<f32>| {
        if let Some(guides) = guides {
            guides[user].mix(trie, node, &mut scores);
        }
        scores
    };
    // Prompts still searched, in the order of the tensors' rows.
    let mut open: Vec<usize> = (0..state.rows()).collect();
    let scores = allowed_scores(model, trie, state.last_hidden(), &vec![ItemTrie::ROOT; open.len()])?;
    let root = |(user, scores)| Search::new(guided(user, ItemTrie::ROOT, scores));
    let mut searches: Vec<Search> = scores.into_iter().enumerate().map(root).collect();
    let mut generated: Vec<Segment> = Vec::new();
    loop {
        let goes_on = |user: usize| searches[user].step_while_known(trie, config);
        let stay: Vec<bool> = open.iter().copied().map(goes_on).collect();
        let places: Vec<usize> = (0..open.len()).filter(|&place| stay[place]).collect();
        if places.is_empty() {
            break;
        }
        if places.len() < open.len() {
            state = state.select(&places);
            open = places.iter().map(|&place| open[place]).collect();
        }
        let next = place_beams(&mut searches, &open, trie);
        let hidden = run_rows(model, &state, &mut generated, &next);
        let nodes: Vec<u32> = next.iter().flat_map(|row| row.nodes.iter().copied()).collect();
        let mut scores = allowed_scores(model, trie, hidden, &nodes)?.into_iter();
        let width = next.len() / open.len();
        for (row, NextRow { nodes, .. }) in next.iter().enumerate().filter(|(_, row)| !row.nodes.is_empty()) {
            let user = open[row / width];
            let known = nodes.iter().zip(scores.by_ref()).map(|(&node, scores)| guided(user, node, scores));
            searches[user].live[row % width].known = known.collect();
        }
    }
    Ok(searches.into_iter().map(|search| search.finish(trie)).collect())
}

/// Gives every beam its row in the next pass, as many rows to each prompt, and says what each runs.
fn place_beams(searches: &mut [Search], open: &[usize], trie: &ItemTrie) -> Vec<NextRow> {
    let width = open.iter().map(|&user| searches[user].live.len()).max().unwrap_or(0);
    let mut rows = Vec::with_capacity(open.len() * width);
    for &user in open {
        let live = &mut searches[user].live;
        // A prompt with fewer beams than others has rows that repeat its first one and run nothing.
        let first = live[0].row;
        for beam in live.iter_mut() {
            let row = if beam.known.is_empty() {
                beam.next_row(trie)
            } else {
                NextRow { from: beam.row, ..NextRow::default() }
            };
            beam.row = rows.len();
            rows.push(row);
        }
        rows.extend((live.len()..width).map(|_| NextRow { from: first, ..NextRow::default() }));
    }
    rows
}

/// Runs the tokens of every row after what was generated before: the hidden states after the tokens, `[tokens of all rows, d_model]`.
///
/// `generated` has what the last pass ran and, before it, what it ran after, in the rows of that pass; the two are laid together in the
/// rows of this one in a single copy.
fn run_rows(
    model: &LatentRecommender,
    state: &PromptState,
    generated: &mut Vec<Segment>,
    rows: &[NextRow],
) -> Tensor<2> {
    let from: Vec<usize> = rows.iter().map(|row| row.from).collect();
    let before = match std::mem::take(generated).as_slice() {
        [before, last] => Some(before.followed_by(last, &from)),
        [only] => Some(only.select(&from)),
        _ => None,
    };
    let share = rows.len() / state.rows();
    let done = |row: usize| before.as_ref().map_or(0, |segment| segment.lengths[row]);
    let starts: Vec<usize> = (0..rows.len()).map(|row| state.lengths()[row / share] + done(row)).collect();
    let tokens: Vec<&[u32]> = rows.iter().map(|row| row.tokens.as_slice()).collect();
    let lengths: Vec<usize> = tokens.iter().map(|tokens| tokens.len()).collect();
    let context: Vec<&Segment> = state.segments().iter().chain(&before).collect();
    let next = model.backbone.run(model.backbone.embed_padded(&tokens), &lengths, &starts, &context);
    let hidden = next.all_hidden();
    generated.extend(before.into_iter().chain([next]));
    hidden
}

/// Log-probabilities of the tokens that the tree allows at each node, in its order, after hidden states
/// `[nodes, d_model]`.
fn allowed_scores(
    model: &LatentRecommender,
    trie: &ItemTrie,
    hidden: Tensor<2>,
    nodes: &[u32],
) -> Result<Vec<Vec<f32>>, ModelError> {
    let allowed: Vec<&[u32]> = nodes.iter().map(|&node| trie.children(node).0).collect();
    let vocab_size = model.backbone.config().vocab_size;
    if let Some(id) = allowed.iter().flat_map(|tokens| tokens.last()).find(|&&id| id as usize >= vocab_size) {
        return Err(ModelError::Input(format!(
            "the catalog has token {id}, the model's vocabulary ends at {vocab_size}"
        )));
    }
    let most = allowed.iter().map(|tokens| tokens.len()).max().unwrap_or(0);
    let padded = |tokens: &&[u32]| {
        tokens.iter().map(|&id| id as i32).chain(std::iter::repeat_n(0, most - tokens.len())).collect::<Vec<_>>()
    };
    let ids: Vec<i32> = allowed.iter().flat_map(padded).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [allowed.len(), most]), &model.device());
    let scores = host::read(model.backbone.log_probs(hidden, ids));
    if scores.iter().any(|score| score.is_nan()) {
        return Err(ModelError::NotFinite("scores"));
    }
    Ok(allowed.iter().zip(scores.chunks(most)).map(|(tokens, scores)| scores[..tokens.len()].to_vec()).collect())
}
