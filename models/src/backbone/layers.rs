//! The small modules every block is made of. Weights keep the checkpoint's names and layout.

use burn::module::{Module, Param};
use burn::tensor::{FloatDType, Tensor};

use super::config::INIT_STD;
use crate::ops::{self, Table};
use crate::parameters::{Init, Parameters};
use crate::{ModelError, Precision};

/// `x W^T + b`.
#[derive(Module, Debug)]
pub struct Linear {
    /// `[d_output, d_input]`, as in the checkpoint.
    pub weight: Param<Tensor<2>>,
    /// `[d_output]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// What it multiplies in.
    #[module(skip)]
    pub(crate) precision: Precision,
}

impl Linear {
    pub(crate) fn build(
        parameters: &mut Parameters,
        name: &str,
        [d_input, d_output]: [usize; 2],
        bias: bool,
        init: Init,
        bias_init: Init,
    ) -> Result<Self, ModelError> {
        let weight = parameters.take(&format!("{name}.weight"), [d_output, d_input], init)?;
        let bias = bias.then(|| parameters.take(&format!("{name}.bias"), [d_output], bias_init)).transpose()?;
        Ok(Self { weight, bias, precision: Precision::F32 })
    }

    /// A projection of the backbone: normal weights, zero bias.
    pub(crate) fn projection(
        parameters: &mut Parameters,
        name: &str,
        sizes: [usize; 2],
        bias: bool,
    ) -> Result<Self, ModelError> {
        Self::build(parameters, name, sizes, bias, Init::Normal(INIT_STD), Init::Zeros)
    }

    /// `[rows, d_input]` to `[rows, d_output]`, by the weight and its low-rank adapter if it has one.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let project = |x, weight| ops::project(x, weight, self.precision);
        let product = match self.weight.adapter() {
            None => project(x, self.weight.val()),
            // Factor by factor: nothing as large as the weight is computed, forward or backward.
            Some(adapter) => {
                let reduced = project(x.clone(), adapter.b.val());
                project(x, self.weight.base()) + project(reduced, adapter.a.val()).mul_scalar(adapter.scale)
            }
        };
        match &self.bias {
            Some(bias) => ops::add_bias(product, bias.val()),
            None => product,
        }
    }
}

/// Root mean square norm (Zhang and Sennrich, arXiv 1910.07467): `x / sqrt(mean(x^2) + eps) * weight`.
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// `[d_model]`.
    pub weight: Param<Tensor<1>>,
    epsilon: f64,
}

impl RmsNorm {
    pub(crate) fn build(
        parameters: &mut Parameters,
        name: &str,
        d_model: usize,
        epsilon: f64,
    ) -> Result<Self, ModelError> {
        Ok(Self { weight: parameters.take(&format!("{name}.weight"), [d_model], Init::Ones)?, epsilon })
    }

    /// `[rows, d_model]` to the same shape.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        ops::rms_norm(x, self.weight.val(), self.epsilon)
    }

    /// `x + added`, `[rows, d_model]`, and its norm.
    pub(super) fn of_sum(&self, x: Tensor<2>, added: Tensor<2>) -> [Tensor<2>; 2] {
        ops::norm_of_sum(x, added, self.weight.val(), self.epsilon)
    }
}

/// Token embeddings.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[vocabulary, d_model]`.
    pub weight: Param<Tensor<2>>,
}

impl Embedding {
    pub(crate) fn build(
        parameters: &mut Parameters,
        name: &str,
        vocab_size: usize,
        d_model: usize,
    ) -> Result<Self, ModelError> {
        Ok(Self { weight: parameters.take(&format!("{name}.weight"), [vocab_size, d_model], Init::Normal(INIT_STD))? })
    }

    /// Embeddings `[rows, tokens, d_model]` of the ids, given row by row.
    pub fn forward(&self, ids: &[u32], rows: usize) -> Tensor<3> {
        self.look_up(&Table::new(ids.iter().map(|&id| id as i32).collect()), rows)
    }

    /// [`Self::forward`] of ids that may have been sent to the device.
    pub(crate) fn look_up(&self, ids: &Table<i32>, rows: usize) -> Tensor<3> {
        let weight = self.weight.val();
        let [_, d_model] = weight.dims();
        let ids = ids.on(&weight.device());
        let tokens = ids.dims()[0] / rows;
        weight.select(0, ids).cast(FloatDType::F32).reshape([rows, tokens, d_model])
    }
}
