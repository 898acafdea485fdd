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

    pub fn backward(inputs: [Option<FlexTensor>; 2], gradient: FlexTensor) -> [Option<FlexTensor>; 2] {
        let [x, weight] = inputs.map(|input| input.map(in_order));
        let gradient = in_order(gradient);
        let [rows, width] = dims(&gradient);
        let gradient = Matrix::rows(values(&gradient), [rows, width], width);
        let product = |left: Matrix, right: FlexTensor| {
            let ([height, _], [inner, depth]) = (left.size, dims(&right));
            let mut out = vec![0.0; height * depth];
            let factors = [left, Matrix::rows(values(&right), [inner, depth], depth)];
            multiply(&mut out, depth, 0.0, 1.0, factors, true);
            tensor(out, [height, depth])
        };
        [weight.map(|weight| product(gradient, weight)), x.map(|x| product(gradient.transposed(), x))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{check_gradients, random};

    #[test]
    fn equals_the_generic_body_forward_and_backward() {
        for rows in [1, 30, 300, 400] {
            let inputs = [random([rows, 20], 1), random([10, 20], 2)];
            check_gradients(inputs, |[x, weight]| project(x, weight), |[x, weight]| x.matmul(weight.transpose()));
        }
    }
}
