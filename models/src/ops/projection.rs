//! The matrix product of a projection.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::route::FusedOps;

/// `x W^T` of `x`, `[rows, d_input]`, and a weight in the checkpoint's layout, `[d_output, d_input]`.
///
/// Its gradient by the weight comes in the weight's own layout, so that the optimiser need not turn it round.
pub(crate) fn project(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::project(x.into_dispatch(), weight.into_dispatch()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{check_gradients, random};

    #[test]
    fn equals_the_generic_body_forward_and_backward() {
        let inputs = [random([30, 20], 1), random([10, 20], 2)];
        check_gradients(inputs, |[x, weight]| project(x, weight), |[x, weight]| x.matmul(weight.transpose()));
    }
}
