//! What the model is made of: blocks, norms and dropout.

use burn::module::Module;
use burn::nn::{LayerNorm, LayerNormConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::config::SasRecConfig;
use crate::backbone::{INIT_STD, Linear};
use crate::ops::{self, Packing};
use crate::parameters::{Init, Parameters};
use crate::random::generator;
use crate::{ModelError, host};

/// Added to a variance before its root is taken, as the authors do.
const EPSILON: f64 = 1e-8;

/// Self-attention, then a feed-forward network on each place, both as `x + dropout(f(norm(x)))`.
#[derive(Module, Debug)]
pub struct SasRecBlock {
    /// Norm before the attention.
    pub attention_norm: LayerNorm,
    /// Query projection, `[d_model, d_model]`; like the next two without bias.
    pub query: Linear,
    /// Key projection.
    pub key: Linear,
    /// Value projection.
    pub value: Linear,
    /// Norm before the feed-forward network.
    pub ff_norm: LayerNorm,
    /// `[d_ff, d_model]`.
    pub up: Linear,
    /// `[d_model, d_ff]`.
    pub down: Linear,
    heads: usize,
}

impl SasRecBlock {
    pub(super) fn build(
        parameters: &mut Parameters,
        name: &str,
        config: &SasRecConfig,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let (d_model, d_ff) = (config.d_model, config.d_ff);
        let attention_norm = layer_norm(parameters, &format!("{name}.attention_norm"), d_model, device)?;
        let ff_norm = layer_norm(parameters, &format!("{name}.ff_norm"), d_model, device)?;
        let mut linear = |part: &str, sizes, bias| {
            let name = format!("{name}.{part}");
            Linear::build(parameters, &name, sizes, bias, Init::Normal(INIT_STD), Init::Zeros)
        };
        Ok(Self {
            attention_norm,
            query: linear("query", [d_model, d_model], false)?,
            key: linear("key", [d_model, d_model], false)?,
            value: linear("value", [d_model, d_model], false)?,
            ff_norm,
            up: linear("up", [d_model, d_ff], true)?,
            down: linear("down", [d_ff, d_model], true)?,
            heads: config.heads,
        })
    }

    /// `[places, d_model]` to the same shape; the packing says which places are of one history.
    pub fn forward(&self, x: Tensor<2>, packing: &Packing, dropout: &mut Dropout) -> Tensor<2> {
        let x = x.clone() + dropout.apply(self.attend(self.attention_norm.forward(x), packing));
        let inner = relu(self.up.forward(self.ff_norm.forward(x.clone())));
        x + dropout.apply(self.down.forward(inner))
    }

    fn attend(&self, x: Tensor<2>, packing: &Packing) -> Tensor<2> {
        let ([places, d_model], rows) = (x.dims(), packing.lengths().len());
        let width = d_model / self.heads;
        let pad = |x| packing.unpack(x).reshape([rows, packing.tokens(), self.heads, width]);
        let queries = self.query.forward(x.clone()).reshape([places, self.heads, width]);
        let (keys, values) = (pad(self.key.forward(x.clone())), pad(self.value.forward(x)));
        ops::mixed_values(ops::attend_causally(queries, keys, values, packing, None))
    }
}

/// The zeros of a training step, drawn on the host so that they are the same on every backend.
#[derive(Debug)]
pub struct Dropout {
    rate: f32,
    generator: ChaCha8Rng,
}

impl Dropout {
    /// Sets a share of the values, below 1, to zero and scales the others up by as much; see [`generator`] for what
    /// they are drawn from.
    pub fn new(rate: f64, generator: ChaCha8Rng) -> Self {
        Self { rate: rate as f32, generator }
    }

    /// Leaves all values as they are.
    pub fn none() -> Self {
        Self::new(0.0, generator([0; 4]))
    }

    pub(super) fn apply(&mut self, x: Tensor<2>) -> Tensor<2> {
        if self.rate == 0.0 {
            return x;
        }
        let (dims, kept) = (x.dims(), 1.0 / (1.0 - self.rate));
        let factor = |draw: f32| if draw < self.rate { 0.0 } else { kept };
        let factors: Vec<f32> = (0..dims[0] * dims[1]).map(|_| factor(self.generator.random())).collect();
        let device = x.device();
        x * host::floats(factors, dims, &device)
    }
}

/// A norm that begins as the plain one.
pub(super) fn layer_norm(
    parameters: &mut Parameters,
    name: &str,
    d_model: usize,
    device: &Device,
) -> Result<LayerNorm, ModelError> {
    let mut norm = LayerNormConfig::new(d_model).with_epsilon(EPSILON).init(device);
    norm.gamma = parameters.take(&format!("{name}.gamma"), [d_model], Init::Ones)?;
    norm.beta = Some(parameters.take(&format!("{name}.beta"), [d_model], Init::Zeros)?);
    Ok(norm)
}
