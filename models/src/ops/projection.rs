//! The matrix product of a projection.

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use super::route::FusedOps;

/// `x W^T` of `x`, `[rows, d_input]`, and a weight in the checkpoint's layout, `[d_output, d_input]`.
///
/// Its gradient by the weight comes in the weight's own layout, so that the optimiser need not turn it round.
///
/// # Panics
///
/// If `x` is not as wide as the weight, or a size is 0.
pub fn project(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    let ([rows, depth], [width, weight_depth]) = (x.dims(), weight.dims());
    assert!(depth == weight_depth && ![rows, depth, width].contains(&0), "{:?} by {:?}", x.dims(), weight.dims());
    Tensor::from_dispatch(Dispatch::project(x.into_dispatch(), weight.into_dispatch()))
}

#[cfg(feature = "flex")]
pub(super) mod kernel {
    use burn::backend::flex::FlexTensor;

    use super::super::row_product::multiply_by_rows;
    use super::super::values::{Matrix, dims, in_order, multiply, tensor, values};

    pub fn forward(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
        let (x, weight) = (in_order(x), in_order(weight));
        let ([rows, depth], [width, _]) = (dims(&x), dims(&weight));
        let mut out = vec![0.0; rows * width];
        multiply_by_rows(&mut out, values(&x), values(&weight), depth);
        tensor(out, [rows, width])
    }

    pub fn backward(
        x: FlexTensor,
        weight: FlexTensor,
        gradient: FlexTensor,
        [by_x, by_weight]: [bool; 2],
    ) -> [Option<FlexTensor>; 2] {
        let [x, weight, gradient] = [x, weight, gradient].map(in_order);
        let ([rows, depth], [width, _]) = (dims(&x), dims(&weight));
        let gradient = Matrix::rows(values(&gradient), [rows, width], width);
        let product = |factors: [Matrix; 2]| {
            let size = [factors[0].size[0], depth];
            let mut out = vec![0.0; size[0] * depth];
            multiply(&mut out, depth, 0.0, 1.0, factors, true);
            tensor(out, size)
        };
        [
            by_x.then(|| product([gradient, Matrix::rows(values(&weight), [width, depth], depth)])),
            by_weight.then(|| product([gradient.transposed(), Matrix::rows(values(&x), [rows, depth], depth)])),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{check_gradients, random};

    #[test]
    fn equals_the_generic_body_forward_and_backward() {
        for rows in [1, 30, 300] {
            let inputs = [random([rows, 20], 1), random([10, 20], 2)];
            check_gradients(inputs, |[x, weight]| project(x, weight), |[x, weight]| x.matmul(weight.transpose()));
        }
    }
}
