//! A block: attention and MLP, each after a norm and added to what goes in.

use burn::module::Module;
use burn::tensor::Tensor;

use super::attention::{Attention, Context};
use super::config::BackboneConfig;
use super::dropout::LayerDropped;
use super::joined::Joined;
use super::layers::{Linear, RmsNorm};
use super::residual::Residual;
use super::rope::RopeAngles;
use super::state::KeyValue;
use crate::ModelError;
use crate::ops::{self, Packing};
use crate::parameters::Parameters;

/// One pre-norm transformer block.
#[derive(Module, Debug)]
pub struct Block {
    /// Norm before the attention.
    pub input_layernorm: RmsNorm,
    /// The attention.
    pub self_attn: Attention,
    /// Norm before the MLP.
    pub post_attention_layernorm: RmsNorm,
    /// The gated MLP.
    pub mlp: Mlp,
}

/// SwiGLU feed-forward network (Shazeer, arXiv 2002.05202): `down(silu(gate(x)) * up(x))`.
#[derive(Module, Debug)]
pub struct Mlp {
    /// `[d_ff, d_model]`.
    pub gate_proj: Linear,
    /// `[d_ff, d_model]`.
    pub up_proj: Linear,
    /// `[d_model, d_ff]`.
    pub down_proj: Linear,
    /// The projections of gate and values as one, for a pass on a GPU.
    #[module(skip)]
    pub(super) joined: Option<Joined>,
}

impl Block {
    pub(crate) fn build(
        parameters: &mut Parameters,
        config: &BackboneConfig,
        layer: usize,
    ) -> Result<Self, ModelError> {
        let name = format!("model.layers.{layer}");
        let norm = |parameters: &mut Parameters, part: &str| {
            RmsNorm::build(parameters, &format!("{name}.{part}"), config.d_model, config.rms_norm_eps)
        };
        Ok(Self {
            input_layernorm: norm(parameters, "input_layernorm")?,
            self_attn: Attention::build(parameters, &format!("{name}.self_attn"), config, layer)?,
            post_attention_layernorm: norm(parameters, "post_attention_layernorm")?,
            mlp: Mlp::build(parameters, &format!("{name}.mlp"), config)?,
        })
    }

    /// Runs the tokens of `packing` after the earlier segments, see [`Attention::forward`]. Returns what comes out with
    /// the tokens' keys and values.
    pub(crate) fn forward(
        &self,
        x: Residual,
        packing: &Packing,
        angles: &RopeAngles,
        context: &[Context],
        dropped: LayerDropped,
    ) -> (Residual, KeyValue) {
        let (x, normed) = x.normed(&self.input_layernorm);
        let (attended, key_value) = self.self_attn.forward(normed, packing, angles, context, dropped);
        let (x, normed) = x.plus(dropped.attended(attended)).normed(&self.post_attention_layernorm);
        (x.plus(dropped.added(self.mlp.forward(normed))), key_value)
    }
}

impl Mlp {
    fn build(parameters: &mut Parameters, name: &str, config: &BackboneConfig) -> Result<Self, ModelError> {
        let (d_model, d_ff) = (config.d_model, config.d_ff);
        let mut projection =
            |part: &str, sizes| Linear::projection(parameters, &format!("{name}.{part}"), sizes, config.has_mlp_bias());
        Ok(Self {
            gate_proj: projection("gate_proj", [d_model, d_ff])?,
            up_proj: projection("up_proj", [d_model, d_ff])?,
            down_proj: projection("down_proj", [d_ff, d_model])?,
            joined: None,
        })
    }

    /// The projections of gate and values as one, where that is possible.
    pub(super) fn join(&self) -> Option<Joined> {
        Joined::new(&[&self.gate_proj, &self.up_proj])
    }

    /// `[rows, d_model]` to the same shape.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.down_proj.forward(match &self.joined {
            Some(joined) => joined.swiglu(x),
            None => ops::swiglu(self.gate_proj.forward(x.clone()), self.up_proj.forward(x)),
        })
    }
}
