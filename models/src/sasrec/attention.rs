//! SASRec's own encoder: causal self-attention over items and their places.

use burn::module::Module;
use burn::nn::LayerNorm;
use burn::tensor::{Device, Tensor};

use super::block::{Dropout, SasRecBlock, layer_norm};
use super::config::SasRecConfig;
use crate::ModelError;
use crate::backbone::Embedding;
use crate::ops::Packing;
use crate::parameters::Parameters;

/// A causal transformer.
#[derive(Module, Debug)]
pub struct AttentionEncoder {
    /// Embeddings of the places in a history, the oldest item's first, `[max_history, d_model]`.
    pub position_embedding: Embedding,
    /// The blocks, first to last.
    pub blocks: Vec<SasRecBlock>,
    /// The norm after the last block.
    pub norm: LayerNorm,
}

impl AttentionEncoder {
    pub(super) fn build(
        parameters: &mut Parameters,
        config: &SasRecConfig,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let d_model = config.d_model;
        let block = |index| SasRecBlock::build(parameters, &format!("blocks.{index}"), config, device);
        let blocks = (0..config.blocks).map(block).collect::<Result<_, _>>()?;
        let position_embedding = Embedding::build(parameters, "position_embedding", config.max_history, d_model)?;
        Ok(Self { position_embedding, blocks, norm: layer_norm(parameters, "norm", d_model, device)? })
    }

    /// Embeddings of the items, `[items of all histories, d_model]`, to the same shape.
    pub(super) fn forward(&self, items: Tensor<2>, packing: &Packing, dropout: &mut Dropout) -> Tensor<2> {
        let places: Vec<u32> = packing.lengths().iter().flat_map(|&length| 0..length as u32).collect();
        let scale = (items.dims()[1] as f64).sqrt();
        let x = items.mul_scalar(scale) + self.position_embedding.forward(&places, 1).squeeze_dim::<2>(0);
        let blocks = self.blocks.iter();
        self.norm.forward(blocks.fold(dropout.apply(x), |x, block| block.forward(x, packing, dropout)))
    }
}
