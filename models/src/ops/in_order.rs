//! Tensors that are parts of wider ones, for products on GPUs.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch};
use burn::tensor::Tensor;

use super::route::routed;
use super::tape::{BackwardInputs, Compute, Operation, Run};

/// `x` itself; on a GPU with its values one after the other, and its gradient's too.
///
/// cubek, which multiplies there, refuses a single column of a wider matrix.
pub fn in_order<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    Tensor::from_dispatch(Dispatch::in_order(x.into_dispatch()))
}

routed! {
    trait InOrderOps: Run<InOrder, 1> {
        fn in_order(x: FloatTensor<Self>) -> FloatTensor<Self> {
            Self::run(InOrder, [x])
        }
    }
}

#[derive(Debug, Clone)]
struct InOrder;

impl Operation<1> for InOrder {
    fn needs(_: [bool; 1]) -> [bool; 1] {
        [false]
    }
}

/// How a backend has a tensor's values one after the other, if products there need them so.
trait Order: Backend {
    fn order(x: FloatTensor<Self>) -> FloatTensor<Self> {
        x
    }
}

#[cfg(feature = "flex")]
impl Order for burn::backend::Flex {}

#[cfg(feature = "ndarray")]
impl Order for burn::backend::NdArray {}

#[cfg(feature = "gpu")]
impl Order for burn::backend::Cube {
    fn order(x: FloatTensor<Self>) -> FloatTensor<Self> {
        super::gpu::in_order(x)
    }
}

impl<B: Order> Compute<B, 1> for InOrder {
    fn forward(&self, [x]: [FloatTensor<B>; 1]) -> FloatTensor<B> {
        B::order(x)
    }

    fn gradients(self, given: BackwardInputs<B, 1>) -> [Option<FloatTensor<B>>; 1] {
        [Some(B::order(given.gradient))]
    }
}
