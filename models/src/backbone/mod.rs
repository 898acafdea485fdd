//! The decoder-only transformer: one forward pass for training and inference.

mod architecture;
mod attention;
mod block;
mod config;
mod config_fields;
mod detached_prefix;
mod dropout;
mod joined;
mod layers;
mod rope;
mod state;

use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};

pub use architecture::Architecture;
pub use attention::Attention;
pub use block::{Block, Mlp};
pub(crate) use config::INIT_STD;
pub use config::{BackboneConfig, NewBackbone};
pub use detached_prefix::DetachedPrefix;
pub use dropout::Dropout;
use dropout::{Dropped, LayerDropped};
pub use layers::{Embedding, Linear, RmsNorm};
pub use rope::RopeScaling;
pub(crate) use rope::{Rope, RopeAngles};
use state::KeyValue;
pub use state::{PromptState, Segment, SharedPrefix};

use crate::device::driver;
use crate::ops::{self, Choices, KeyLengths, Packing, RowGather, Sendable, Table, gather_rows, send_together};
use crate::parameters::Parameters;
use crate::{LoraConfig, ModelError, Precision};
use attention::Context;

/// On a GPU the places of a pass are a multiple of this: a matrix product has a kernel for what its tiles divide.
const PLACES_AT_ONCE: usize = 128;

/// On a GPU the padded length of the prompts' hidden states is a multiple of this, for the same reason.
const TOKENS_AT_ONCE: usize = 32;

/// A prefix runs along with rests that are at most so many times shorter.
const MOST_PADDING: usize = 16;

/// A causal language model of one of the families of [`Architecture`].
#[derive(Module, Debug)]
pub struct Backbone {
    /// The decoder proper.
    pub model: Decoder,
    /// The output matrix, absent where it is the embedding matrix.
    pub lm_head: Option<Linear>,
    #[module(skip)]
    rope: Rope,
    #[module(skip)]
    config: BackboneConfig,
    /// What is adapted, if anything is.
    #[module(skip)]
    pub(crate) lora: Option<LoraConfig>,
    /// What a step of training sets to zero.
    #[module(skip)]
    pub(crate) dropout: Option<Dropout>,
}

/// Embeddings, blocks and final norm.
#[derive(Module, Debug)]
pub struct Decoder {
    /// Token embeddings.
    pub embed_tokens: Embedding,
    /// The blocks, first to last.
    pub layers: Vec<Block>,
    /// The norm after the last block.
    pub norm: RmsNorm,
}

/// What a pass is told of its tokens.
struct Pass<'a> {
    packing: &'a Packing,
    /// Of each place.
    angles: RopeAngles,
    /// Position in the sequence of each row's first token.
    starts: &'a [usize],
}

impl Pass<'_> {
    /// What its kernels look up.
    fn tables(&self) -> impl Iterator<Item = &dyn Sendable> {
        self.packing.tables().into_iter().chain(self.angles.tables())
    }
}

impl Backbone {
    pub(crate) fn build(parameters: &mut Parameters, config: BackboneConfig) -> Result<Self, ModelError> {
        let blocks = (0..config.layers).map(|i| Block::build(parameters, &config, i));
        let layers = blocks.collect::<Result<_, _>>()?;
        let model = Decoder {
            embed_tokens: Embedding::build(parameters, "model.embed_tokens", config.vocab_size, config.d_model)?,
            layers,
            norm: RmsNorm::build(parameters, "model.norm", config.d_model, config.rms_norm_eps)?,
        };
        let head = || Linear::projection(parameters, "lm_head", [config.d_model, config.vocab_size], false);
        let lm_head = (!config.tie_embeddings).then(head).transpose()?;
        let rope = Rope::new(config.head_dim, config.rope_theta, config.rope_scaling);
        Ok(Self { model, lm_head, rope, config, lora: None, dropout: None })
    }

    /// On a GPU a copy for one pass and its way back, in which the projections of one input are one matrix, and one
    /// product instead of several; elsewhere the model as it is. The joined matrices need memory of their own.
    #[must_use]
    pub fn with_joined_projections(&self) -> Self {
        let mut model = self.clone();
        if self.is_on_gpu() {
            for block in &mut model.model.layers {
                block.self_attn.joined = block.self_attn.join();
                block.mlp.joined = block.mlp.join();
            }
        }
        model
    }

    /// The sizes of the model.
    pub fn config(&self) -> &BackboneConfig {
        &self.config
    }

    /// Runs a batch of prompts once.
    ///
    /// The longest beginning that all prompts have in common runs once. The prompts may be of any lengths; padding
    /// changes nothing.
    ///
    /// # Errors
    ///
    /// No prompt, an empty prompt, one with more tokens than the model has positions, or a token outside the
    /// vocabulary.
    pub fn prefill(&self, prompts: &[&[u32]]) -> Result<PromptState, ModelError> {
        self.prefill_after(self.prefix_ahead(prompts)?.as_ref(), prompts)
    }

    /// The [`shared_prefix`](Self::shared_prefix) of prompts if it runs ahead of them, and not along with them in
    /// [`prefill_after`](Self::prefill_after).
    ///
    /// # Errors
    ///
    /// See [`prefill`](Self::prefill).
    pub fn prefix_ahead(&self, prompts: &[&[u32]]) -> Result<Option<SharedPrefix>, ModelError> {
        if self.runs_prefix_along() { Ok(None) } else { self.shared_prefix(prompts) }
    }

    /// Whether what prompts have in common runs in the same pass as their rests: on a GPU, where a pass costs more than
    /// the tokens of one row. Dropout needs the prefix of a whole batch, however that is split.
    fn runs_prefix_along(&self) -> bool {
        self.dropout.is_none() && self.is_on_gpu()
    }

    /// Runs the longest beginning that all prompts have in common, as a single row; each keeps a token of its own, and
    /// a single prompt has nothing in common with others.
    ///
    /// # Errors
    ///
    /// See [`Self::prefill`].
    pub fn shared_prefix(&self, prompts: &[&[u32]]) -> Result<Option<SharedPrefix>, ModelError> {
        self.check_tokens(prompts)?;
        let tokens = &prompts[0][..common_prefix(prompts)];
        if tokens.is_empty() {
            return Ok(None);
        }
        let segment = self.run(self.embed_padded(&[tokens]), &[tokens.len()], &[0], &[])?;
        Ok(Some(SharedPrefix { tokens: tokens.to_vec(), segment }))
    }

    /// [`Self::prefill`] of prompts that all begin with `prefix`, which a larger batch may share; `None` where nothing
    /// has run yet.
    ///
    /// # Errors
    ///
    /// See [`Self::prefill`]; also a prompt that does not begin with `prefix` or has no token after it.
    pub fn prefill_after(&self, prefix: Option<&SharedPrefix>, prompts: &[&[u32]]) -> Result<PromptState, ModelError> {
        self.check_tokens(prompts)?;
        let mut state = PromptState::empty(prompts.len());
        let mut done = 0;
        if prefix.is_none() && self.runs_prefix_along() {
            let along = common_prefix(prompts);
            let rest = prompts.iter().map(|prompt| prompt.len() - along).max().unwrap_or(0);
            if along > MOST_PADDING * rest {
                // As a row it would have all others padded to it.
                return self.prefill_after(self.shared_prefix(prompts)?.as_ref(), prompts);
            }
            if along > 0 {
                self.prefill_along(along, prompts)?.into_iter().for_each(|segment| state.push(segment));
                return Ok(state);
            }
        }
        if let Some(SharedPrefix { tokens, segment }) = prefix {
            done = tokens.len();
            if prompts.iter().any(|prompt| prompt.len() <= done || !prompt.starts_with(tokens)) {
                return Err(ModelError::Input(format!("a prompt does not extend the shared prefix of {done} tokens")));
            }
            state.push(segment.clone());
        }
        let rests: Vec<&[u32]> = prompts.iter().map(|prompt| &prompt[done..]).collect();
        let lengths: Vec<usize> = rests.iter().map(|rest| rest.len()).collect();
        let segment = self.extend(self.embed_padded(&rests), &lengths, &state)?;
        state.push(segment);
        Ok(state)
    }

    /// Runs prompts that have the first `prefix` tokens in common, these as a first row before the rests of all.
    ///
    /// Of the two segments, prefix and rests, the second has the keys and values of both.
    fn prefill_along(&self, prefix: usize, prompts: &[&[u32]]) -> Result<[Segment; 2], ModelError> {
        let rests = prompts.iter().map(|prompt| &prompt[prefix..]);
        let rows: Vec<&[u32]> = std::iter::once(&prompts[0][..prefix]).chain(rests).collect();
        let lengths: Vec<usize> = rows.iter().map(|row| row.len()).collect();
        let starts: Vec<usize> = std::iter::once(0).chain(prompts.iter().map(|_| prefix)).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let packing = self.in_places(Packing::after_prefix(&lengths, longest));
        let pass = self.pass(&packing, &positions(&starts, &lengths), &starts)?;
        let (of_rests, rest_lengths) = (&starts[1..], &lengths[1..]);
        let in_steps = |tokens: usize| tokens.next_multiple_of(TOKENS_AT_ONCE);
        let tokens = in_steps(rest_lengths.iter().copied().max().unwrap_or(0));
        let of_places = |places: Range<usize>, zeros: usize| {
            RowGather::filled(&places.collect::<Vec<usize>>(), packing.places(), zeros)
        };
        let prefix_alone = of_places(0..prefix, in_steps(prefix) - prefix);
        let rests_alone = of_places(prefix..lengths.iter().sum(), 0);
        let padded_rests = Packing::new(rest_lengths, tokens);
        let ids = padded_ids(&rows);
        send_together(&self.device(), || {
            let gathers = [&prefix_alone, &rests_alone].into_iter().flat_map(RowGather::tables);
            pass.tables().chain(gathers).chain(padded_rests.tables()).chain([&ids as &dyn Sendable])
        });
        let (layers, hidden) = self.run_packed(self.model.embed_tokens.look_up(&ids, rows.len()), &pass, &[]);
        let rests = padded_rests.unpack(gather_rows(hidden.clone(), &rests_alone));
        Ok([
            Segment {
                layers: Vec::new(),
                hidden: gather_rows(hidden, &prefix_alone).unsqueeze_dim(0),
                starts: vec![0],
                lengths: [prefix][..].into(),
            },
            Segment {
                layers,
                hidden: rests.reshape([of_rests.len(), tokens, self.config.d_model]),
                starts: of_rests.to_vec(),
                lengths: KeyLengths::after_prefix(prefix, rest_lengths),
            },
        ])
    }

    /// Runs what follows the prompts: `embeddings` is `[rows, tokens, d_model]`, of which `lengths` are valid in each
    /// row.
    ///
    /// There are as many rows as prompts or a multiple of it; the rows of one prompt lie together.
    ///
    /// # Errors
    ///
    /// More tokens than the model has positions ([`BackboneConfig::max_positions`]).
    ///
    /// # Panics
    ///
    /// If the number of rows is not such a multiple.
    pub fn extend(&self, embeddings: Tensor<3>, lengths: &[usize], state: &PromptState) -> Result<Segment, ModelError> {
        assert!(
            lengths.len().is_multiple_of(state.rows()),
            "{} rows are not a multiple of {} prompts",
            lengths.len(),
            state.rows()
        );
        let share = lengths.len() / state.rows();
        let starts: Vec<usize> = (0..lengths.len()).map(|row| state.lengths()[row / share]).collect();
        self.run(embeddings, lengths, &starts, &state.segments().iter().collect::<Vec<_>>())
    }

    /// The hidden states of what follows each prompt as a tree, `[prompts, tokens, d_model]`: for its tokens depth
    /// first `depths` has the number of those above them, and each follows the prompt and its own path.
    ///
    /// # Errors
    ///
    /// As [`extend`](Self::extend).
    pub(crate) fn extend_trees(
        &self,
        embeddings: Tensor<3>,
        depths: &[Vec<usize>],
        state: &PromptState,
    ) -> Result<Tensor<3>, ModelError> {
        let size = embeddings.dims();
        let packing = self.in_places(Packing::of_trees(depths, size[1]));
        let position = |(depths, start): (&Vec<usize>, &usize)| depths.iter().map(|d| start + d).collect::<Vec<_>>();
        let positions: Vec<usize> = depths.iter().zip(state.lengths()).flat_map(position).collect();
        let context: Vec<&Segment> = state.segments().iter().collect();
        let pass = self.pass(&packing, &positions, state.lengths())?;
        let (_, hidden) = self.run_packed(embeddings, &pass, &context);
        Ok(packing.unpack(hidden).reshape(size))
    }

    /// Like [`Self::extend`], with the segments given one by one and for each row of `embeddings` the position of its
    /// first token in `starts`.
    pub(crate) fn run(
        &self,
        embeddings: Tensor<3>,
        lengths: &[usize],
        starts: &[usize],
        context: &[&Segment],
    ) -> Result<Segment, ModelError> {
        let size = embeddings.dims();
        let packing = self.in_places(Packing::new(lengths, size[1]));
        let pass = self.pass(&packing, &positions(starts, lengths), starts)?;
        let (layers, hidden) = self.run_packed(embeddings, &pass, context);
        let hidden = packing.unpack(hidden).reshape(size);
        Ok(Segment { layers, hidden, starts: starts.to_vec(), lengths: lengths.into() })
    }

    /// The packing as the device of the model has it.
    fn in_places(&self, packing: Packing) -> Packing {
        if self.is_on_gpu() { packing.in_steps_of(PLACES_AT_ONCE) } else { packing }
    }

    fn is_on_gpu(&self) -> bool {
        driver(&self.device()).is_some()
    }

    fn device(&self) -> Device {
        self.model.norm.weight.val().device()
    }

    /// A pass of packed rows whose tokens have the given positions, one after the other.
    fn pass<'a>(&self, packing: &'a Packing, positions: &[usize], starts: &'a [usize]) -> Result<Pass<'a>, ModelError> {
        let (longest, most) = (positions.iter().max().map_or(0, |last| last + 1), self.config.max_positions);
        if longest > most {
            let problem = format!("a sequence of {longest} tokens exceeds the model's {most} positions");
            return Err(ModelError::Input(problem));
        }
        let without_token = std::iter::repeat_n(0, packing.places() - positions.len());
        let positions: Vec<usize> = positions.iter().copied().chain(without_token).collect();
        Ok(Pass { packing, angles: self.rope.angles(&positions, 1), starts })
    }

    /// Runs a pass: keys and values of all layers, and the hidden states `[places, d_model]`.
    fn run_packed(&self, embeddings: Tensor<3>, pass: &Pass, context: &[&Segment]) -> (Vec<KeyValue>, Tensor<2>) {
        send_together(&self.device(), || {
            pass.tables().chain(context.iter().map(|segment| segment.lengths.table() as &dyn Sendable))
        });
        let Pass { packing, angles, starts } = pass;
        let [rows, tokens, d_model] = embeddings.dims();
        let dropped = Dropped { dropout: self.dropout.as_ref(), starts, lengths: packing.lengths() };
        // Gradient checkpointing keeps what lies between the blocks, and their keys and values.
        let mut x = ops::checkpoint(dropped.embeddings(packing.pack(embeddings.reshape([rows * tokens, d_model]))));
        let mut layers = Vec::with_capacity(self.model.layers.len());
        for (index, block) in self.model.layers.iter().enumerate() {
            // Keys and values of a prefix may lie in the next segment.
            let context: Vec<Context> = context
                .iter()
                .filter(|segment| !segment.layers.is_empty())
                .map(|segment| Context { key_value: &segment.layers[index], lengths: &segment.lengths })
                .collect();
            let dropped = LayerDropped { rows: dropped, layer: index as u64 };
            let (output, key_value) = block.forward(x, packing, angles, &context, dropped);
            x = ops::checkpoint(output);
            layers.push(key_value);
        }
        (layers, self.model.norm.forward(x))
    }

    /// Logits `[n, vocabulary]` of hidden states `[n, d_model]`.
    pub fn logits(&self, hidden: Tensor<2>) -> Tensor<2> {
        ops::project(hidden, self.output_matrix(), Precision::F32)
    }

    /// Log-probabilities `[n, chosen]` of the given tokens `[n, chosen]` after hidden states `[n, d_model]`.
    ///
    /// Cheaper than all [`Self::logits`]: no table as wide as the vocabulary is kept.
    pub fn log_probs(&self, hidden: Tensor<2>, ids: Tensor<2, Int>) -> Tensor<2> {
        ops::log_probs(hidden, self.output_matrix(), ids)
    }

    /// Log-probabilities of tokens among those of their choices, row after row, after hidden states `[n, d_model]`.
    pub fn choice_log_probs(&self, hidden: Tensor<2>, choices: &Choices) -> Tensor<1> {
        ops::choice_log_probs(hidden, self.output_matrix(), choices)
    }

    /// `[vocabulary, d_model]`.
    fn output_matrix(&self) -> Tensor<2> {
        self.lm_head.as_ref().map_or_else(|| self.model.embed_tokens.weight.val(), |head| head.weight.val())
    }

    /// Embeddings `[rows, longest row, d_model]`, right-padded.
    pub(crate) fn embed_padded(&self, rows: &[&[u32]]) -> Tensor<3> {
        self.model.embed_tokens.look_up(&padded_ids(rows), rows.len())
    }

    /// Makes sure that there are rows, that none is empty and that every id is in the vocabulary.
    pub(crate) fn check_tokens(&self, rows: &[&[u32]]) -> Result<(), ModelError> {
        if rows.is_empty() || rows.iter().any(|row| row.is_empty()) {
            return Err(ModelError::Input("a batch needs at least one row, and every row at least one token".into()));
        }
        let vocab_size = self.config.vocab_size;
        match rows.iter().flat_map(|row| row.iter()).find(|&&id| id as usize >= vocab_size) {
            None => Ok(()),
            Some(id) => Err(ModelError::Input(format!("token {id} is outside the model's vocabulary of {vocab_size}"))),
        }
    }
}

/// The tokens of rows, right-padded to the longest.
pub(crate) fn padded_ids(rows: &[&[u32]]) -> Table<i32> {
    let longest = rows.iter().map(|row| row.len()).max().unwrap_or(0);
    let padded = |row: &&[u32]| {
        let mut ids: Vec<i32> = row.iter().map(|&id| id as i32).collect();
        ids.resize(longest, 0);
        ids
    };
    Table::new(rows.iter().flat_map(padded).collect())
}

/// The positions of rows' tokens, one row after the other.
fn positions(starts: &[usize], lengths: &[usize]) -> Vec<usize> {
    starts.iter().zip(lengths).flat_map(|(start, length)| *start..start + length).collect()
}

/// Number of tokens that all prompts begin with; each keeps at least one of its own, and a single prompt all.
fn common_prefix(prompts: &[&[u32]]) -> usize {
    let Some((first, others)) = prompts.split_first().filter(|(_, others)| !others.is_empty()) else {
        return 0;
    };
    let common = |other: &&[u32]| first.iter().zip(*other).take_while(|(a, b)| a == b).count();
    let shortest = prompts.iter().map(|prompt| prompt.len()).min().unwrap_or(1);
    others.iter().map(common).min().unwrap_or(0).min(shortest - 1)
}

#[cfg(test)]
mod tests {
    use super::common_prefix;

    #[test]
    fn every_prompt_keeps_a_token_of_its_own() {
        assert_eq!(common_prefix(&[&[1, 2, 3]]), 0);
        assert_eq!(common_prefix(&[&[1, 2, 3], &[1, 2, 3]]), 2);
        assert_eq!(common_prefix(&[&[1, 2, 3], &[1, 2]]), 1);
        assert_eq!(common_prefix(&[&[1, 2, 3], &[1, 4, 3]]), 1);
        assert_eq!(common_prefix(&[&[1], &[2]]), 0);
    }
}
