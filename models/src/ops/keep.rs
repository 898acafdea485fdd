//! Marks for gradient checkpointing.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch};
use burn::tensor::Tensor;

use super::route::routed;
use super::tape::{BackwardInputs, Compute, Operation, Run};

/// `x` itself, which gradient checkpointing keeps: what is computed from it may be computed again in the backward pass.
pub fn keep<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::keep(x.into_dispatch()))
}

routed! {
    trait KeepOps: Run<Keep, 1> {
        fn keep(x: FloatTensor<Self>) -> FloatTensor<Self> {
            Self::run(Keep, [x])
        }
    }
}

/// Does nothing but have its output kept.
#[derive(Debug, Clone)]
struct Keep;

impl Operation<1> for Keep {
    const RECOMPUTABLE: bool = false;

    fn needs(_: [bool; 1]) -> [bool; 1] {
        [false]
    }
}

impl<B: Backend> Compute<B, 1> for Keep {
    fn forward(&self, [x]: [FloatTensor<B>; 1]) -> FloatTensor<B> {
        x
    }

    fn gradients(self, given: BackwardInputs<B, 1>) -> [Option<FloatTensor<B>>; 1] {
        [Some(given.gradient)]
    }
}
