//! In how many bits a model's blocks multiply, and its frozen weights are kept.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{FloatDType, Tensor};

use super::LatentRecommender;
use crate::named::{NamedMapper, map_named};
use crate::{ModelError, Precision};

impl LatentRecommender {
    /// The model whose blocks' projections, with their adapters, multiply in this precision, forward and backward.
    ///
    /// What goes into a projection and what comes out stays float32, as do the weights that train, their gradients and
    /// all else: embeddings, norms, attention, the source of the thoughts, log-probabilities.
    ///
    /// # Errors
    ///
    /// The device does not compute in it.
    pub fn with_precision(mut self, precision: Precision) -> Result<Self, ModelError> {
        precision.check(&self.device())?;
        for block in &mut self.backbone.model.layers {
            let (attention, mlp) = (&mut block.self_attn, &mut block.mlp);
            let of_attention =
                [&mut attention.q_proj, &mut attention.k_proj, &mut attention.v_proj, &mut attention.o_proj];
            let of_mlp = [&mut mlp.gate_proj, &mut mlp.up_proj, &mut mlp.down_proj];
            of_attention.into_iter().chain(of_mlp).for_each(|projection| projection.precision = precision);
        }
        Ok(self)
    }

    /// The model in training whose matrices that do not train (embeddings, projections, output matrix) are rounded to
    /// this precision and kept in it, at half the memory where it has 16 bits. What computes with one has it in float32
    /// meanwhile. `F32` leaves the model as it is, in training or not.
    ///
    /// # Errors
    ///
    /// For 16 bits: the device does not compute in it, or all matrices train.
    pub fn with_frozen_weights(self, precision: Precision) -> Result<Self, ModelError> {
        struct Frozen {
            dtype: FloatDType,
            found: bool,
        }
        impl NamedMapper for Frozen {
            fn map<const D: usize>(&mut self, _: &str, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
                if D != 2 || parameter.is_require_grad() {
                    return parameter;
                }
                self.found = true;
                parameter.map(|weight| weight.cast(self.dtype))
            }
        }
        if precision == Precision::F32 {
            return Ok(self);
        }
        precision.check(&self.device())?;
        let mut frozen = Frozen { dtype: precision.dtype(), found: false };
        let model = map_named(self.train(), &mut frozen);
        if !frozen.found {
            return Err(ModelError::Input(format!(
                "only frozen weights can be kept in {precision}, but all weights are trained"
            )));
        }
        Ok(model)
    }
}

/// A module whose parameters are all in float32.
pub(crate) fn in_float32<M: Module>(module: M) -> M {
    struct Widen;
    impl ModuleMapper for Widen {
        fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
            parameter.map(|value| value.cast(FloatDType::F32))
        }
    }
    module.map(&mut Widen)
}
