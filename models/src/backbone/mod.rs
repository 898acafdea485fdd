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
mod prompts;
mod residual;
mod rope;
mod state;

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
use residual::Residual;
pub use rope::RopeScaling;
pub(crate) use rope::{Rope, RopeAngles};
use state::KeyValue;
pub use state::{PromptState, Segment, SharedPrefix};

use crate::device::driver;
use crate::ops::{self, Choices, Packing, Sendable, Table, send_together};
use crate::parameters::Parameters;
use crate::{LoraConfig, ModelError, Precision};
use attention::Context;

/// On a GPU the places of a pass are a multiple of this: a matrix product has a kernel for what its tiles divide.
const PLACES_AT_ONCE: usize = 128;

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
        let mut x = Residual::new(dropped.embeddings(packing.pack(embeddings.reshape([rows * tokens, d_model]))));
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
            x = output.checkpoint();
            layers.push(key_value);
        }
        let (_, hidden) = x.normed(&self.model.norm);
        (layers, hidden)
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
