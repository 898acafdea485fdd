//! A bias on every row.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, TensorMetadata};
use burn::tensor::{Shape, Tensor};

use super::route::routed;
use super::tape::{BackwardInputs, Compute, Operation, Run};

/// `x + b` of `x`, `[rows, width]`, and `b`, `[width]`.
///
/// # Panics
///
/// If `x` is not as wide as the bias.
pub fn add_bias(x: Tensor<2>, bias: Tensor<1>) -> Tensor<2> {
    assert_eq!(x.dims()[1], bias.dims()[0], "x must be as wide as the bias");
    Tensor::from_dispatch(Dispatch::add_bias(x.into_dispatch(), bias.into_dispatch()))
}

routed! {
    trait AddBiasOps: Run<AddBias, 2> {
        fn add_bias(x: FloatTensor<Self>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
            Self::run(AddBias, [x, bias])
        }
    }
}

#[derive(Debug, Clone)]
struct AddBias;

impl Operation<2> for AddBias {
    fn needs(_: [bool; 2]) -> [bool; 2] {
        [false; 2]
    }
}

impl<B: Backend> Compute<B, 2> for AddBias {
    fn forward(&self, [x, bias]: [FloatTensor<B>; 2]) -> FloatTensor<B> {
        let width = bias.shape().num_elements();
        B::float_add(x, B::float_reshape(bias, Shape::new([1, width])))
    }

    fn gradients(self, given: BackwardInputs<B, 2>) -> [Option<FloatTensor<B>>; 2] {
        let [_, by_bias] = given.wanted;
        let by_bias = by_bias.then(|| {
            let [_, width] = given.gradient.shape().dims();
            B::float_reshape(B::float_sum_dim(given.gradient.clone(), 0), Shape::new([width]))
        });
        [Some(given.gradient), by_bias]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Tensor;

    use super::add_bias;
    use crate::ops::testing::{check_gradients, random, sizes};

    #[test]
    fn equals_a_sum_forward_and_backward() {
        for [rows, width] in sizes([300, 130]) {
            let inputs = [random([rows, width], 1), random([1, width], 2)];
            let row = |bias: Tensor<2>| bias.squeeze_dim::<1>(0);
            check_gradients(inputs, |[x, bias]| add_bias(x, row(bias)), |[x, bias]| x + bias);
        }
    }
}
