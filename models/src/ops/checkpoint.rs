//! Marks for gradient checkpointing.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch};
use burn::tensor::Tensor;

use super::route::routed;
use super::tape::{BackwardInputs, Compute, Operation, Run};

/// `x` itself, which gradient checkpointing keeps: what is computed from it may be computed again in the backward pass.
pub fn checkpoint<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::checkpoint(x.into_dispatch()))
}

routed! {
    trait CheckpointOps: Run<Checkpoint, 1> {
        fn checkpoint(x: FloatTensor<Self>) -> FloatTensor<Self> {
            Self::run(Checkpoint, [x])
        }
    }
}

/// The identity, whose output is kept.
#[derive(Debug, Clone)]
struct Checkpoint;

impl Operation<1> for Checkpoint {
    const RECOMPUTABLE: bool = false;

    fn needs(_: [bool; 1]) -> [bool; 1] {
        [false]
    }
}

impl<B: Backend> Compute<B, 1> for Checkpoint {
    fn forward(&self, [x]: [FloatTensor<B>; 1]) -> FloatTensor<B> {
        x
    }

    fn gradients(self, given: BackwardInputs<B, 1>) -> [Option<FloatTensor<B>>; 1] {
        [Some(given.gradient)]
    }
}
