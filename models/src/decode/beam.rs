//! Beam search over the prefix tree.

use burn::tensor::Tensor;

use super::search::{BeamConfig, Hypothesis, NextRow, Rules, Search, SearchTerms};
use super::start::TitleStart;
use crate::backbone::{PromptState, Segment};
use crate::{LatentRecommender, ModelError, Objective};

/// Beams of all prompts that run together at most, but for those of one prompt. More would take memory in proportion
/// and, on a CPU, more time for each beam, since what they work on no longer fits into the caches.
const MOST_TOGETHER: usize = 1024;

/// The best items of each prompt, best first, at most `beams`, by an objective and the catalog that it has.
///
/// Candidates of a step are, as in `transformers`, the best `2 * beams` continuations of all beams; one that ends an
/// item counts if it is among the first `beams`. A prompt's search stops when none of its beams can still enter its
/// best. With the catalog's objective an item is found when its last choice is made.
///
/// Where the tree leaves a beam only one way, the tokens of that way run at once: titles soon differ from all others,
/// and a pass over a few tokens costs little more than one over a single token. The steps of the search stay the same.
///
/// # Errors
///
/// No prompt, an empty prompt, a token outside the vocabulary, of the prompts or the tree, more tokens than the model
/// has positions, no catalog, no beam, a length penalty that does not go with the objective, or a model whose scores are
/// NaN or infinite.
///
/// # Example
///
/// ```
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// # #[cfg(feature = "flex")]
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use latentr3_models::backbone::{BackboneConfig, NewBackbone};
/// use latentr3_models::decode::{BeamConfig, ItemTrie, beam_search};
/// use latentr3_models::{LatentRecommender, Objective, ObjectiveKind, ThoughtKind, device};
///
/// let (config, thoughts) = (BackboneConfig::new(&NewBackbone::tiny(16, 0))?, ThoughtKind::LatentAttention);
/// let model = LatentRecommender::new(config, thoughts, 1, 0, &device("flex")?)?;
/// // Three titles as tokens; two begin alike, and each ends with the end token.
/// let catalog = ItemTrie::new(&[vec![5, 6, 0], vec![5, 7, 0], vec![8, 0]])?;
/// let objective = Objective::new(ObjectiveKind::Catalog, catalog);
/// let config = BeamConfig { beams: 3, ..Default::default() };
/// let lists = beam_search(&model, &objective, &[&[1, 2, 3]], config)?;
/// let probabilities: f64 = lists[0].iter().map(|item| item.score.exp()).sum();
/// assert!(lists[0].len() == 3 && (probabilities - 1.0).abs() < 1e-5);
/// # Ok(())
/// # }
/// ```
pub fn beam_search(
    model: &LatentRecommender,
    objective: &Objective,
    prompts: &[&[u32]],
    config: BeamConfig,
) -> Result<Vec<Vec<Hypothesis>>, ModelError> {
    beam_search_on_terms(model, objective, prompts, &vec![SearchTerms::default(); prompts.len()], config)
}

/// [`beam_search`] with each prompt's own terms: a guide whose scores mix with the model's, and items that may not be
/// found.
///
/// # Errors
///
/// As [`beam_search`], and where there are not terms for each prompt.
pub fn beam_search_on_terms(
    model: &LatentRecommender,
    objective: &Objective,
    prompts: &[&[u32]],
    terms: &[SearchTerms],
    config: BeamConfig,
) -> Result<Vec<Vec<Hypothesis>>, ModelError> {
    check_terms(terms, prompts.len())?;
    let (rules, model) = (rules(objective, config)?, &model.with_joined_projections());
    let at_once = (MOST_TOGETHER / config.beams.max(1)).max(1);
    let part = |(at, prompts): (usize, &[&[u32]])| {
        let terms = &terms[at * at_once..][..prompts.len()];
        search(model, rules, TitleStart::think(model, objective, model.prefill(prompts)?)?, terms)
    };
    if prompts.is_empty() {
        return Err(ModelError::Input("a search needs at least one prompt".into()));
    }
    Ok(prompts.chunks(at_once).enumerate().map(part).collect::<Result<Vec<_>, _>>()?.concat())
}

/// [`beam_search_on_terms`] after prompts that have run, and whatever followed them.
///
/// # Errors
///
/// As [`beam_search_on_terms`], of what concerns the catalog, the terms, the beams and the scores.
pub fn beam_search_after(
    model: &LatentRecommender,
    objective: &Objective,
    start: TitleStart,
    terms: &[SearchTerms],
    config: BeamConfig,
) -> Result<Vec<Vec<Hypothesis>>, ModelError> {
    check_terms(terms, start.rows())?;
    search(model, rules(objective, config)?, start, terms)
}

fn check_terms(terms: &[SearchTerms], prompts: usize) -> Result<(), ModelError> {
    match terms.len() == prompts {
        true => Ok(()),
        false => Err(ModelError::Input(format!("got search terms for {} prompts, expected {prompts}", terms.len()))),
    }
}

/// What a search by an objective goes by.
fn rules(objective: &Objective, config: BeamConfig) -> Result<Rules<'_>, ModelError> {
    config.check(objective.kind())?;
    let length_penalty = config.penalty(objective);
    Ok(Rules { tree: objective.tree()?, objective, beams: config.beams, length_penalty })
}

fn search(
    model: &LatentRecommender,
    rules: Rules,
    TitleStart { mut state, node: start, tokens: certain }: TitleStart,
    terms: &[SearchTerms],
) -> Result<Vec<Vec<Hypothesis>>, ModelError> {
    let Rules { tree, objective, .. } = rules;
    objective.check_vocabulary(&model.backbone)?;
    let scores_after =
        |hidden: Tensor<2>, nodes: &[u32]| objective.child_log_probs(&model.backbone, tree, hidden, nodes);
    // Prompts still searched, in the order of the tensors' rows.
    let mut open: Vec<usize> = (0..state.rows()).collect();
    let scores = scores_after(state.last_hidden(), &vec![start; open.len()])?;
    let begin = |(user, scores): (usize, _)| Search::new(start, certain.clone(), scores, &terms[user]);
    let mut searches: Vec<Search> = scores.into_iter().enumerate().map(begin).collect();
    let mut generated: Vec<Segment> = Vec::new();
    loop {
        let goes_on = |user: usize| searches[user].step_while_known(rules);
        let stay: Vec<bool> = open.iter().copied().map(goes_on).collect();
        let places: Vec<usize> = (0..open.len()).filter(|&place| stay[place]).collect();
        if places.is_empty() {
            break;
        }
        if places.len() < open.len() {
            state = state.select(&places);
            open = places.iter().map(|&place| open[place]).collect();
        }
        let next = place_beams(&mut searches, &open, rules);
        let hidden = run_rows(model, &state, &mut generated, &next)?;
        let nodes: Vec<u32> = next.iter().flat_map(|row| row.nodes.iter().copied()).collect();
        let mut scores = scores_after(hidden, &nodes)?.into_iter();
        let width = next.len() / open.len();
        for (row, NextRow { nodes, .. }) in next.iter().enumerate().filter(|(_, row)| !row.nodes.is_empty()) {
            let user = open[row / width];
            searches[user].live[row % width].known = scores.by_ref().take(nodes.len()).collect();
        }
    }
    Ok(searches.into_iter().map(|search| search.finish()).collect())
}

/// Gives every beam its row in the next pass, as many rows to each prompt, and says what each runs.
fn place_beams(searches: &mut [Search], open: &[usize], rules: Rules) -> Vec<NextRow> {
    let width = open.iter().map(|&user| searches[user].live.len()).max().unwrap_or(0);
    let mut rows = Vec::with_capacity(open.len() * width);
    for &user in open {
        let live = &mut searches[user].live;
        // A prompt with fewer beams than others has rows that repeat its first one and run nothing.
        let first = live[0].row;
        for beam in live.iter_mut() {
            let row = if beam.known.is_empty() {
                beam.next_row(rules)
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

/// Runs the tokens of every row after what was generated before: the hidden states after the tokens,
/// `[tokens of all rows, d_model]`.
///
/// `generated` has what the last pass ran and, before it, what it ran after, in the rows of that pass; the two are laid
/// together in the rows of this one in a single copy.
fn run_rows(
    model: &LatentRecommender,
    state: &PromptState,
    generated: &mut Vec<Segment>,
    rows: &[NextRow],
) -> Result<Tensor<2>, ModelError> {
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
    let next = model.backbone.run(model.backbone.embed_padded(&tokens), &lengths, &starts, &context)?;
    let hidden = next.all_hidden();
    generated.extend(before.into_iter().chain([next]));
    Ok(hidden)
}
