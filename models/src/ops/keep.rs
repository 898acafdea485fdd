//! Marks for gradient checkpointing.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::route::FusedOps;

/// `x` itself, which gradient checkpointing keeps: what is computed from it may be computed again in the backward pass.
pub fn keep<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::keep(x.into_dispatch()))
}
