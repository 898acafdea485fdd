//! Beam search over the prefix tree.

use burn::tensor::{Int, Tensor, TensorData};

use super::trie::ItemTrie;
use crate::backbone::{PromptState, Segment};
use crate::{LatentRecommender, ModelError};

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
/// # Errors
///
/// No prompt, an empty prompt, or a token outside the vocabulary, of the prompts or the tree.
pub fn beam_search(
    model: &LatentRecommender,
    trie: &ItemTrie,
    prompts: &[&[u32]],
    config: BeamConfig,
) -> Result<Vec<Vec<Hypothesis>>, ModelError> {
    if config.beams == 0 {
        return Err(ModelError::Input("a beam search needs at least one beam".into()));
    }
    let mut searches: Vec<Search> = prompts.iter().map(|_| Search::new()).collect();
    // Prompts still searched, in the order of the tensors' rows.
    let mut open: Vec<usize> = (0..prompts.len()).collect();
    let (mut state, mut hidden) = begin(model, prompts)?;
    let mut generated: Option<Segment> = None;
    loop {
        let width = open.iter().map(|&user| searches[user].live.len()).max().unwrap_or(0);
        let scores = allowed_scores(model, trie, hidden, &open, &searches, width)?;
        let mut parents = Vec::new();
        let mut stay = Vec::new();
        for (place, &user) in open.iter().enumerate() {
            searches[user].step(trie, &scores[place * width..], config);
            if !searches[user].is_done(trie, config) {
                stay.push(place);
            }
        }
        if stay.is_empty() {
            break;
        }
        let next_width = stay.iter().map(|&place| searches[open[place]].live.len()).max().unwrap_or(0);
        let mut tokens = Vec::with_capacity(stay.len() * next_width);
        for &place in &stay {
            // A prompt with fewer beams than others repeats its first one; nobody reads those rows.
            let live = &searches[open[place]].live;
            for beam in (0..next_width).map(|i| live.get(i).unwrap_or(&live[0])) {
                parents.push(place * width + beam.parent);
                tokens.push(beam.tokens[beam.tokens.len() - 1]);
            }
        }
        if stay.len() < open.len() {
            state = state.select(&stay);
            open = stay.iter().map(|&place| open[place]).collect();
        }
        let segment = run_tokens(model, &state, generated.map(|segment| segment.select(&parents)), &tokens);
        hidden = segment.last_hidden();
        generated = Some(segment);
    }
    Ok(searches.into_iter().map(|search| search.finish(trie)).collect())
}

/// Runs the prompts and their thoughts: the state, and the hidden states `[prompts, d_model]` that predict the first token.
fn begin(model: &LatentRecommender, prompts: &[&[u32]]) -> Result<(PromptState, Tensor<2>), ModelError> {
    let mut state = model.prefill(prompts)?;
    if let Some(thought) = model.think(&mut state) {
        let segment = model.backbone.extend(thought.unsqueeze_dim(1), &vec![1; prompts.len()], &state);
        state.push(segment);
    }
    let hidden = state.last_hidden();
    Ok((state, hidden))
}

/// Runs one further token of every beam; what was generated so far grows by it.
fn run_tokens(model: &LatentRecommender, state: &PromptState, generated: Option<Segment>, tokens: &[u32]) -> Segment {
    let rows = tokens.len();
    let share = rows / state.rows();
    let done = generated.as_ref().map_or(0, |segment| segment.lengths[0]);
    let starts: Vec<usize> = (0..rows).map(|row| state.lengths()[row / share] + done).collect();
    let embeddings = model.backbone.model.embed_tokens.forward(tokens, rows);
    let context: Vec<&Segment> = state.segments().iter().chain(&generated).collect();
    let next = model.backbone.run(embeddings, &vec![1; rows], &starts, &context);
    match generated {
        Some(generated) => generated.followed_by(next),
        None => next,
    }
}

/// Log-probabilities of the tokens that the tree allows after each beam, `width` lists for each open prompt.
fn allowed_scores(
    model: &LatentRecommender,
    trie: &ItemTrie,
    hidden: Tensor<2>,
    open: &[usize],
    searches: &[Search],
    width: usize,
) -> Result<Vec<Vec<f32>>, ModelError> {
    let beam = |user: usize, i: usize| searches[user].live.get(i).map_or(&[][..], |beam| trie.children(beam.node).0);
    let allowed: Vec<&[u32]> =
        open.iter().flat_map(|&user| (0..width).map(move |i| (user, i))).map(|(user, i)| beam(user, i)).collect();
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
    let scores: Vec<f32> = model.backbone.log_probs(hidden, ids).into_data_as::<f32>().iter::<f32>().collect();
    if scores.iter().any(|score| score.is_nan()) {
        return Err(ModelError::Input("the model's scores are not numbers; its weights are damaged".into()));
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
    /// Its place among the beams of the step before.
    parent: usize,
}

struct Candidate {
    sum: f32,
    parent: usize,
    token: u32,
    node: u32,
}

impl Search {
    fn new() -> Self {
        Self {
            live: vec![Beam { node: ItemTrie::ROOT, sum: 0.0, tokens: Vec::new(), parent: 0 }],
            finished: Vec::new(),
        }
    }

    /// One step: `scores[i]` are the log-probabilities of the children of beam `i`.
    fn step(&mut self, trie: &ItemTrie, scores: &[Vec<f32>], config: BeamConfig) {
        let mut candidates = Vec::new();
        for (parent, (beam, scores)) in self.live.iter().zip(scores).enumerate() {
            let (tokens, nodes) = trie.children(beam.node);
            let child = |((&token, &node), &score): ((&u32, &u32), &f32)| Candidate {
                sum: beam.sum + score,
                parent,
                token,
                node,
            };
            candidates.extend(tokens.iter().zip(nodes).zip(scores).map(child));
        }
        // Best first; ties by beam and then by token, which is the order in which they were made.
        candidates.sort_by(|a, b| b.sum.total_cmp(&a.sum));
        candidates.truncate(config.beams.saturating_mul(2));
        let mut live = Vec::new();
        for (rank, candidate) in candidates.into_iter().enumerate() {
            let mut tokens = self.live[candidate.parent].tokens.clone();
            tokens.push(candidate.token);
            if trie.is_leaf(candidate.node) {
                if rank < config.beams {
                    self.keep(score(candidate.sum, tokens.len(), config), candidate.node, tokens, config);
                }
            } else if live.len() < config.beams {
                live.push(Beam { node: candidate.node, sum: candidate.sum, tokens, parent: candidate.parent });
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
