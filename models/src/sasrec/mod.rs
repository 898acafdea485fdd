//! SASRec, a recommender that attends to the ids of a user's last items and knows no words: a baseline, and the
//! collaborative model that guides a search (Kang and McAuley, arXiv 1808.09781). With another encoder it is GRU4Rec.

mod attention;
mod block;
mod config;
mod folder;
mod gru;

use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Tensor};

pub use attention::AttentionEncoder;
pub use block::{Dropout, SasRecBlock};
pub use config::{EncoderKind, SasRecConfig};
pub use gru::{GruEncoder, GruLayer};

use crate::backbone::Embedding;
use crate::host::indices;
use crate::ops::{self, Packing};
use crate::parameters::Parameters;
use crate::{ModelError, Precision};

/// The model: an encoder over item ids.
#[derive(Module, Debug)]
pub struct SasRec {
    /// Embeddings of the items, `[items, d_model]`, which also read out the scores.
    pub item_embedding: Embedding,
    /// What makes of the items of a history what follows.
    pub encoder: Encoder,
    #[module(skip)]
    config: SasRecConfig,
}

/// The encoder of a [`SasRec`]; see [`EncoderKind`].
#[derive(Module, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one per model")]
pub enum Encoder {
    /// Causal self-attention.
    Attention(AttentionEncoder),
    /// Gated recurrent units.
    Gru(GruEncoder),
}

impl SasRec {
    /// A new model with random weights.
    ///
    /// # Errors
    ///
    /// Sizes that make no sense; the message names the field.
    pub fn new(config: SasRecConfig, seed: u64, device: &Device) -> Result<Self, ModelError> {
        match config.fault() {
            Some((field, problem)) => Err(ModelError::Input(format!("{field} {problem}"))),
            None => Self::build(&mut Parameters::fresh(seed, device), config, device),
        }
    }

    fn build(parameters: &mut Parameters, config: SasRecConfig, device: &Device) -> Result<Self, ModelError> {
        let encoder = match config.encoder {
            EncoderKind::Attention => Encoder::Attention(AttentionEncoder::build(parameters, &config, device)?),
            EncoderKind::Gru => Encoder::Gru(GruEncoder::build(parameters, &config)?),
        };
        let item_embedding = Embedding::build(parameters, "item_embedding", config.items, config.d_model)?;
        Ok(Self { item_embedding, encoder, config })
    }

    /// The sizes of the model.
    pub fn config(&self) -> &SasRecConfig {
        &self.config
    }

    /// The device of the weights, without autodiff.
    pub fn device(&self) -> Device {
        self.item_embedding.weight.val().device().inner()
    }

    /// What the model makes of each item of some histories, given the items up to it; of a history that is too long
    /// only the newest items are seen. Histories may be of any lengths, there is no padding.
    ///
    /// # Shapes
    ///
    /// - histories: catalog indices, oldest first
    /// - output: `[items of all histories, d_model]`, history by history
    ///
    /// # Errors
    ///
    /// No history, an empty one, or an item outside the catalog.
    pub fn forward(&self, histories: &[&[usize]], dropout: &mut Dropout) -> Result<Tensor<2>, ModelError> {
        let histories: Vec<&[usize]> = histories.iter().map(|history| self.newest(history)).collect();
        self.check(&histories)?;
        let lengths: Vec<usize> = histories.iter().map(|history| history.len()).collect();
        let items: Vec<u32> = histories.iter().copied().flatten().map(|&item| item as u32).collect();
        let packing = Packing::new(&lengths, lengths.iter().copied().max().unwrap_or(0));
        let items = self.item_embedding.forward(&items, 1).squeeze_dim(0);
        Ok(match &self.encoder {
            Encoder::Attention(encoder) => encoder.forward(items, &packing, dropout),
            Encoder::Gru(encoder) => encoder.forward(items, &packing, dropout),
        })
    }

    /// Log-probabilities of the targets, the items that followed the histories, `[histories]`.
    ///
    /// # Errors
    ///
    /// See [`Self::forward`].
    ///
    /// # Panics
    ///
    /// If there is not one target for each history.
    pub fn target_log_probs(
        &self,
        histories: &[&[usize]],
        targets: &[usize],
        dropout: &mut Dropout,
    ) -> Result<Tensor<1>, ModelError> {
        assert_eq!(histories.len(), targets.len(), "every history needs a target");
        self.check(&[targets])?;
        let last = self.last(histories, dropout)?;
        let targets: Vec<i32> = targets.iter().map(|&target| target as i32).collect();
        let targets = indices(&targets, &self.device()).unsqueeze_dim(1);
        Ok(ops::log_probs(last, self.item_embedding.weight.val(), targets).squeeze_dim(1))
    }

    /// Logits of some items to follow each history, as many for each: `[histories, items]` for `items` of that length,
    /// history by history.
    ///
    /// # Errors
    ///
    /// See [`Self::forward`].
    ///
    /// # Panics
    ///
    /// If there are not as many items for each history.
    pub fn logits(
        &self,
        histories: &[&[usize]],
        items: &[usize],
        dropout: &mut Dropout,
    ) -> Result<Tensor<2>, ModelError> {
        assert!(items.len().is_multiple_of(histories.len().max(1)), "every history needs the same number of items");
        self.check(&[items])?;
        let last = self.last(histories, dropout)?;
        let ([rows, d_model], each) = (last.dims(), items.len() / histories.len());
        let items: Vec<u32> = items.iter().map(|&item| item as u32).collect();
        let embeddings = self.item_embedding.forward(&items, rows);
        Ok((embeddings * last.reshape([rows, 1, d_model])).sum_dim(2).reshape([rows, each]))
    }

    /// Log-probabilities of all items to follow each history, `[histories, items]`.
    ///
    /// # Errors
    ///
    /// See [`Self::forward`].
    pub fn log_probs(&self, histories: &[&[usize]]) -> Result<Tensor<2>, ModelError> {
        let last = self.last(histories, &mut Dropout::none())?;
        Ok(log_softmax(ops::project(last, self.item_embedding.weight.val(), Precision::F32), 1))
    }

    /// What the model makes of each whole history, `[histories, d_model]`.
    fn last(&self, histories: &[&[usize]], dropout: &mut Dropout) -> Result<Tensor<2>, ModelError> {
        let hidden = self.forward(histories, dropout)?;
        let mut end = 0;
        let last = |history: &&[usize]| {
            end += self.newest(history).len() as i32;
            end - 1
        };
        let places: Vec<i32> = histories.iter().map(last).collect();
        Ok(hidden.select(0, indices(&places, &self.device())))
    }

    fn newest<'a>(&self, history: &'a [usize]) -> &'a [usize] {
        &history[history.len().saturating_sub(self.config.max_history)..]
    }

    fn check(&self, histories: &[&[usize]]) -> Result<(), ModelError> {
        if histories.is_empty() || histories.iter().any(|history| history.is_empty()) {
            return Err(ModelError::Input(
                "a batch needs at least one history, and every history at least one item".into(),
            ));
        }
        let items = self.config.items;
        match histories.iter().copied().flatten().find(|&&item| item >= items) {
            None => Ok(()),
            Some(item) => Err(ModelError::Input(format!("item {item} is outside the model's catalog of {items}"))),
        }
    }
}

#[cfg(test)]
mod tests;
