//! Beam search over the prefix tree.

use std::collections::VecDeque;

use burn::tensor::{Int, Tensor, TensorData};

use super::guide::Guide;
use super::trie::ItemTrie;
use crate::backbone::{PromptState, Segment};
use crate::{LatentRecommender, ModelError, host};

/// Most tokens of a beam that run at once. More would save few passes and be lost with a beam that drops out.
const MOST_AHEAD: usize = 8;

/// Beams of all prompts that run together at most, but for those of one prompt. More would take memory in proportion and, on a
/// CPU, more time for each beam, since what they work on no longer fits into the caches.
const MOST_TOGETHER: usize = 1024;

/// How to search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BeamConfig {
    /// Beams kept at every step and hypotheses returned at most.
    pub beams: usize,
    /// A hypothesis scores `sum of log-probabilities / tokens^length_penalty`: 1 is the mean (BIGRec), 0 the sum (D3).
    pub length_penalty: f64,
}

impl Default for BeamConfig {
    fn default() -> Self {
        Self { beams: 10, length_penalty: 1.0 }
    }
}

/// A finished title.
#[derive(Debug, Clone, PartialEq)]
pub struct Hypothesis {
    /// Its tokens, the end token last.
    pub tokens: Vec<u32>,
    /// Score under the length penalty; higher is better.
    pub score: f64,
    /// The items of the catalog with these tokens.
    pub items: Vec<u32>,
}

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
    if config.beams == 0 {
        return Err(ModelError::Input("a beam search needs at least one beam".into()));
    }
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
        let ways = place_beams(&mut searches, &open, trie);
        let hidden = run_ways(model, &state, &mut generated, &ways);
        let nodes: Vec<u32> = ways.iter().flat_map(|way| way.nodes.iter().copied()).collect();
        let mut scores = allowed_scores(model, trie, hidden, &nodes)?.into_iter();
        let width = ways.len() / open.len();
        for (row, way) in ways.iter().enumerate().filter(|(_, way)| !way.nodes.is_empty()) {
            let user = open[row / width];
            let known = way.nodes.iter().zip(scores.by_ref()).map(|(&node, scores)| guided(user, node, scores));
            searches[user].live[row % width].known = known.collect();
        }
    }
    Ok(searches.into_iter().map(|search| search.finish(trie)).collect())
}

/// What a row of the next pass runs.
#[derive(Default)]
struct Way {
    /// The row of the pass before that it goes on from.
    from: usize,
    /// The tokens, first to last; none for a beam whose next scores are known.
    tokens: Vec<u32>,
    /// The nodes that they lead to.
    nodes: Vec<u32>,
}

/// Gives every beam its row in the next pass, as many rows to each prompt, and says what each runs.
fn place_beams(searches: &mut [Search], open: &[usize], trie: &ItemTrie) -> Vec<Way> {
    let width = open.iter().map(|&user| searches[user].live.len()).max().unwrap_or(0);
    let mut ways = Vec::with_capacity(open.len() * width);
    for &user in open {
        let live = &mut searches[user].live;
        // A prompt with fewer beams than others has rows that repeat its first one and run nothing.
        let first = live[0].row;
        for beam in live.iter_mut() {
            let way = if beam.known.is_empty() { beam.way(trie) } else { Way { from: beam.row, ..Way::default() } };
            beam.row = ways.len();
            ways.push(way);
        }
        ways.extend((live.len()..width).map(|_| Way { from: first, ..Way::default() }));
    }
    ways
}

/// Runs the tokens of every row after what was generated before: the hidden states after the tokens, `[tokens of all rows, d_model]`.
///
/// `generated` has what the last pass ran and, before it, what it ran after, in the rows of that pass; the two are laid together in the
/// rows of this one in a single copy.
fn run_ways(model: &LatentRecommender, state: &PromptState, generated: &mut Vec<Segment>, ways: &[Way]) -> Tensor<2> {
    let from: Vec<usize> = ways.iter().map(|way| way.from).collect();
    let before = match std::mem::take(generated).as_slice() {
        [before, last] => Some(before.followed_by(last, &from)),
        [only] => Some(only.select(&from)),
        _ => None,
    };
    let share = ways.len() / state.rows();
    let done = |row: usize| before.as_ref().map_or(0, |segment| segment.lengths[row]);
    let starts: Vec<usize> = (0..ways.len()).map(|row| state.lengths()[row / share] + done(row)).collect();
    let tokens: Vec<&[u32]> = ways.iter().map(|way| way.tokens.as_slice()).collect();
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
        return Err(ModelError::Input(
            "the model's scores are not numbers; its weights are damaged, or too large for f16".into(),
        ));
    }
    Ok(allowed.iter().zip(scores.chunks(most)).map(|(tokens, scores)| scores[..tokens.len()].to_vec()).collect())
}

/// The search of one prompt.
struct Search {
    live: Vec<Beam>,
    /// The best finished ones so far: score and leaf, at most as many as beams, best first.
    finished: Vec<(f64, u32, Vec<u32>)>,
}

struct Beam {
    node: u32,
    /// Sum of its tokens' log-probabilities.
    sum: f32,
    tokens: Vec<u32>,
    /// The row of the last pass that holds what was run of it.
    row: usize,
    /// Log-probabilities of the children of its node and of those that it must come through, as far as they are known.
    known: VecDeque<Vec<f32>>,
}

impl Beam {
    /// What to run for a beam whose next scores are not known: its last token, and those after it that it has no choice of.
    fn way(&self, trie: &ItemTrie) -> Way {
        let mut way = Way { from: self.row, tokens: vec![self.tokens[self.tokens.len() - 1]], nodes: vec![self.node] };
        let mut node = self.node;
        while let (&[token], &[child]) = trie.children(node)
            && !trie.is_leaf(child)
            && way.tokens.len() < MOST_AHEAD
        {
            way.tokens.push(token);
            way.nodes.push(child);
            node = child;
        }
        way
    }
}

struct Candidate {
    sum: f32,
    parent: usize,
    token: u32,
    node: u32,
}

impl Search {
    /// A search that knows the log-probabilities of the root's children.
    fn new(root: Vec<f32>) -> Self {
        let beam = Beam { node: ItemTrie::ROOT, sum: 0.0, tokens: Vec::new(), row: 0, known: [root].into() };
        Self { live: vec![beam], finished: Vec::new() }
    }

    /// Takes steps as long as the scores of all beams are known; whether the search goes on after them.
    fn step_while_known(&mut self, trie: &ItemTrie, config: BeamConfig) -> bool {
        while !self.is_done(trie, config) {
            if self.live.iter().any(|beam| beam.known.is_empty()) {
                return true;
            }
            self.step(trie, config);
        }
        false
    }

    /// One step: every beam is continued by one token.
    fn step(&mut self, trie: &ItemTrie, config: BeamConfig) {
        let mut candidates = Vec::new();
        for (parent, beam) in self.live.iter_mut().enumerate() {
            let scores = beam.known.pop_front().unwrap_or_default();
            let (tokens, nodes) = trie.children(beam.node);
            let child = |((&token, &node), &score): ((&u32, &u32), &f32)| Candidate {
                sum: beam.sum + score,
                parent,
                token,
                node,
            };
            candidates.extend(tokens.iter().zip(nodes).zip(&scores).map(child));
        }
        // Best first; ties by beam and then by token, which is the order in which they were made.
        candidates.sort_by(|a, b| b.sum.total_cmp(&a.sum));
        candidates.truncate(config.beams.saturating_mul(2));
        let mut live = Vec::new();
        for (rank, Candidate { sum, parent, token, node }) in candidates.into_iter().enumerate() {
            let parent = &mut self.live[parent];
            let mut tokens = parent.tokens.clone();
            tokens.push(token);
            if trie.is_leaf(node) {
                if rank < config.beams {
                    self.keep(score(sum, tokens.len(), config), node, tokens, config);
                }
            } else if live.len() < config.beams {
                // What else is known belongs to a beam's only child.
                live.push(Beam { node, sum, tokens, row: parent.row, known: std::mem::take(&mut parent.known) });
            }
        }
        self.live = live;
    }

    fn keep(&mut self, score: f64, leaf: u32, tokens: Vec<u32>, config: BeamConfig) {
        let place = self.finished.partition_point(|(other, _, _)| *other >= score);
        self.finished.insert(place, (score, leaf, tokens));
        self.finished.truncate(config.beams);
    }

    /// Whether no beam is left that could still enter the best. A sum of log-probabilities only falls, so that a beam
    /// ends at best with its present sum, after one token or as late as the tree allows.
    fn is_done(&self, trie: &ItemTrie, config: BeamConfig) -> bool {
        let Some((worst, _, _)) = self.finished.get(config.beams - 1) else {
            return self.live.is_empty();
        };
        self.live.iter().all(|beam| {
            let soon = score(beam.sum, beam.tokens.len() + 1, config);
            let late = score(beam.sum, trie.longest(beam.node), config);
            soon.max(late) <= *worst
        })
    }

    fn finish(self, trie: &ItemTrie) -> Vec<Hypothesis> {
        let hypothesis = |(score, leaf, tokens)| Hypothesis { tokens, score, items: trie.items(leaf).to_vec() };
        self.finished.into_iter().map(hypothesis).collect()
    }
}

fn score(sum: f32, tokens: usize, config: BeamConfig) -> f64 {
    f64::from(sum) / (tokens as f64).powf(config.length_penalty)
}
