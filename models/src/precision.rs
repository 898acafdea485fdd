//! In how many bits a model's blocks multiply, and its frozen weights are kept.

use std::fmt;
use std::str::FromStr;

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, FloatDType, Tensor};
use serde::{Deserialize, Serialize};

use crate::named::{NamedMapper, map_named};
use crate::{LatentRecommender, ModelError};

/// What the matrix products of the blocks' projections are computed in, see [`LatentRecommender::with_precision`], and what frozen
/// matrices are kept in, see [`LatentRecommender::with_frozen_weights`].
///
/// On `flex` the two of 16 bits are imitated: what goes into a float32 product is rounded, and so is what comes out. That shows
/// what they do to a model, and takes longer than float32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// IEEE 754's float32.
    #[default]
    F32,
    /// The upper half of a float32: all of its range, 8 significant bits.
    Bf16,
    /// IEEE 754's float16: 11 significant bits, up to 65,504. A product beyond that is infinite, and the figures that it goes into
    /// are NaN or infinite. Gradients, many of which would be too small for it, are multiplied in float32.
    F16,
}

impl Precision {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::F16];

    /// Makes sure that a device computes in this precision.
    ///
    /// # Errors
    ///
    /// It does not; the message names the precisions in which it does.
    pub fn check(self, device: &Device) -> Result<(), ModelError> {
        // What can be stored may still have no arithmetic, such as bf16 by Vulkan: this asks for both.
        let works = |precision: &Self| device.supports_dtype(precision.dtype());
        if works(&self) {
            return Ok(());
        }
        Err(ModelError::Precision { asked: self, possible: Self::ALL.into_iter().filter(works).collect() })
    }

    /// What the products of a backward pass are computed in.
    pub(crate) fn of_gradients(self) -> Self {
        if self == Self::F16 { Self::F32 } else { self }
    }

    pub(crate) fn dtype(self) -> FloatDType {
        match self {
            Self::F32 => FloatDType::F32,
            Self::Bf16 => FloatDType::BF16,
            Self::F16 => FloatDType::F16,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = Self::ALL.into_iter().find(|precision| precision.to_string() == text);
        named.ok_or_else(|| format!("`{text}` is no precision; known are f32, bf16 and f16"))
    }
}

impl LatentRecommender {
    /// The model whose blocks' projections, with their adapters, multiply in this precision, forward and backward.
    ///
    /// What goes into a projection and what comes out stays float32, as do the weights that train, their gradients and all else:
    /// embeddings, norms, attention, the source of the thoughts, log-probabilities.
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

    /// The model in training whose matrices that do not train (embeddings, projections, output matrix) are rounded to this precision
    /// and kept in it, at half the memory where it has 16 bits. What computes with one has it in float32 meanwhile. `F32` leaves the
    /// model as it is, in training or not.
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
                "no weights to keep in {precision}: none are frozen, all of them train"
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_precision_is_written_as_it_is_read_and_others_are_refused() {
        for precision in Precision::ALL {
            assert_eq!(precision.to_string().parse(), Ok(precision));
            assert_eq!(serde_json::to_value(precision).unwrap(), precision.to_string());
        }
        for text in ["", "F32", "fp16", "f64"] {
            assert!(text.parse::<Precision>().unwrap_err().contains("bf16"), "{text}");
        }
    }

    #[cfg(feature = "flex")]
    #[test]
    fn flex_computes_in_all() {
        let device = crate::device("flex").unwrap();
        assert!(Precision::ALL.into_iter().all(|precision| precision.check(&device).is_ok()));
    }

    #[cfg(feature = "ndarray")]
    #[test]
    fn a_device_without_a_precision_says_what_it_has() {
        let device = crate::device("ndarray").unwrap();
        assert!(Precision::F32.check(&device).is_ok());
        for precision in [Precision::Bf16, Precision::F16] {
            let message = precision.check(&device).unwrap_err().to_string();
            assert_eq!(message, format!("precision `{precision}`: the device does not compute in it, but in f32"));
        }
    }
}
