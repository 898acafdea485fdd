//! GRU4Rec's encoder: gated recurrent units over items (Hidasi et al., arXiv 1511.06939).

use burn::module::Module;
use burn::tensor::Tensor;
use burn::tensor::activation::{sigmoid, tanh};

use super::block::Dropout;
use super::config::SasRecConfig;
use crate::ModelError;
use crate::backbone::Linear;
use crate::ops::Packing;
use crate::parameters::{Init, Parameters};

/// Layers of gated recurrent units, one after the other.
#[derive(Module, Debug)]
pub struct GruEncoder {
    /// The layers, first to last.
    pub layers: Vec<GruLayer>,
}

/// Gated recurrent units (Cho et al., arXiv 1406.1078) in the form that PyTorch computes:
///
/// ```text
/// r = sigmoid(W_r x + U_r h)      z = sigmoid(W_z x + U_z h)      n = tanh(W_n x + r * (U_n h))      each with its biases
/// h' = (1 - z) * n + z * h
/// ```
#[derive(Module, Debug)]
pub struct GruLayer {
    /// `W` of r, z and n, `[3 d_model, d_model]` with bias.
    pub input: Linear,
    /// `U` of r, z and n, `[3 d_model, d_model]` with bias.
    pub state: Linear,
}

impl GruEncoder {
    pub(super) fn build(parameters: &mut Parameters, config: &SasRecConfig) -> Result<Self, ModelError> {
        let layer = |index| GruLayer::build(parameters, &format!("gru.{index}"), config.d_model);
        Ok(Self { layers: (0..config.blocks).map(layer).collect::<Result<_, _>>()? })
    }

    /// Embeddings of the items, `[items of all histories, d_model]`, to the same shape.
    pub(super) fn forward(&self, items: Tensor<2>, packing: &Packing, dropout: &mut Dropout) -> Tensor<2> {
        self.layers.iter().fold(dropout.apply(items), |x, layer| dropout.apply(layer.forward(x, packing)))
    }
}

impl GruLayer {
    fn build(parameters: &mut Parameters, name: &str, d_model: usize) -> Result<Self, ModelError> {
        let bound = (d_model as f64).powf(-0.5);
        let mut linear = |part: &str| {
            let (name, sizes) = (format!("{name}.{part}"), [d_model, 3 * d_model]);
            Linear::build(parameters, &name, sizes, true, Init::Uniform(bound), Init::Uniform(bound))
        };
        Ok(Self { input: linear("input")?, state: linear("state")? })
    }

    /// `[places, d_model]` to the same shape; the packing says which places are of one history, whose first one finds
    /// a state of zeros.
    fn forward(&self, x: Tensor<2>, packing: &Packing) -> Tensor<2> {
        let (d_model, rows, places) = (x.dims()[1], packing.lengths().len(), packing.tokens());
        let mut h = Tensor::zeros([rows, d_model], &x.device());
        let inputs = packing.unpack(self.input.forward(x)).reshape([rows, places, 3 * d_model]);
        let gate = |of: &Tensor<2>, which: usize| of.clone().narrow(1, which * d_model, d_model);
        let mut states = Vec::with_capacity(places);
        for place in 0..places {
            let input = inputs.clone().narrow(1, place, 1).squeeze_dim::<2>(1);
            let state = self.state.forward(h.clone());
            let reset = sigmoid(gate(&input, 0) + gate(&state, 0));
            let keep = sigmoid(gate(&input, 1) + gate(&state, 1));
            let new = tanh(gate(&input, 2) + reset * gate(&state, 2));
            h = new.clone() + keep * (h - new);
            states.push(h.clone().unsqueeze_dim::<3>(1));
        }
        packing.pack(Tensor::cat(states, 1).reshape([rows * places, d_model]))
    }
}
