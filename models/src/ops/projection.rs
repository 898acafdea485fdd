//! The matrix product of a projection.

use burn::backend::Dispatch;
use burn::backend::tensor::FloatTensor;
use burn::tensor::Tensor;

use super::route::routed;
use super::tape::{Operation, Run};
use crate::Precision;

/// `x W^T` of `x`, `[rows, d_input]`, and a weight in the checkpoint's layout, `[d_output, d_input]`, computed in
/// `precision`, in which the result is stored before it becomes float32 again. A weight that does not train may be kept
/// in 16 bits.
///
/// Its gradient by the weight comes in the weight's own layout, so that the optimiser need not turn it round.
///
/// # Panics
///
/// If `x` is not as wide as the weight, or a size is 0.
pub fn project(x: Tensor<2>, weight: Tensor<2>, precision: Precision) -> Tensor<2> {
    let ([rows, depth], [width, weight_depth]) = (x.dims(), weight.dims());
    assert!(depth == weight_depth && ![rows, depth, width].contains(&0), "{:?} by {:?}", x.dims(), weight.dims());
    Tensor::from_dispatch(Dispatch::project(x.into_dispatch(), weight.into_dispatch(), precision))
}

routed! {
    trait ProjectOps: Run<Project, 2> {
        fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>, precision: Precision) -> FloatTensor<Self> {
            Self::run(Project { precision }, [x, weight])
        }
    }
}

#[derive(Debug, Clone)]
struct Project {
    precision: Precision,
}

impl Operation<2> for Project {
    fn needs([by_x, by_weight]: [bool; 2]) -> [bool; 2] {
        [by_weight, by_x]
    }
}

pub(super) mod generic {
    use burn::tensor::FloatDType;

    use super::super::route::Plain;
    use super::super::tape::{BackwardInputs, Compute};
    use super::{FloatTensor, Precision, Project, Tensor};

    impl<B: Plain> Compute<B, 2> for Project {
        fn forward(&self, [x, weight]: [FloatTensor<B>; 2]) -> FloatTensor<B> {
            B::primitive(forward(B::float(x), B::float(weight), self.precision))
        }

        fn gradients(self, given: BackwardInputs<B, 2>) -> [Option<FloatTensor<B>>; 2] {
            let inputs = given.inputs.map(|input| input.map(B::float));
            backward(inputs, B::float(given.gradient), self.precision).map(|by| by.map(B::primitive))
        }
    }

    /// See [`super::project`].
    pub fn forward(x: Tensor<2>, weight: Tensor<2>, precision: Precision) -> Tensor<2> {
        let [x, weight] = [x, weight].map(|input| input.cast(precision.dtype()));
        x.matmul(weight.transpose()).cast(FloatDType::F32)
    }

    /// By `x` where the weight is given, and by the weight where `x` is.
    pub fn backward(
        inputs: [Option<Tensor<2>>; 2],
        gradient: Tensor<2>,
        precision: Precision,
    ) -> [Option<Tensor<2>>; 2] {
        let dtype = precision.of_gradients().dtype();
        let [x, weight] = inputs.map(|input| input.map(|input| input.cast(dtype)));
        let gradient = gradient.cast(dtype);
        let by_weight = x.map(|x| gradient.clone().transpose().matmul(x).cast(FloatDType::F32));
        [weight.map(|weight| gradient.matmul(weight).cast(FloatDType::F32)), by_weight]
    }
}

#[cfg(feature = "gpu")]
mod gpu {
    use burn::backend::Cube;
    use burn::backend::ops::FloatTensorOps;
    use burn::tensor::FloatDType;
    use burn_cubecl::tensor::CubeTensor;

    use super::super::gpu::product;
    use super::super::tape::{BackwardInputs, Compute};
    use super::{Precision, Project};

    impl Compute<Cube, 2> for Project {
        fn forward(&self, inputs: [CubeTensor; 2]) -> CubeTensor {
            let [x, weight] = inputs.map(|input| stored_as(input, self.precision));
            multiply(x, Cube::float_transpose(weight), self.precision)
        }

        fn gradients(self, given: BackwardInputs<Cube, 2>) -> [Option<CubeTensor>; 2] {
            let precision = self.precision.of_gradients();
            let [x, weight] = given.inputs.map(|input| input.map(|input| stored_as(input, precision)));
            let gradient = stored_as(given.gradient, precision);
            let by_weight = x.map(|x| multiply(Cube::float_transpose(gradient.clone()), x, precision));
            [weight.map(|weight| multiply(gradient, weight, precision)), by_weight]
        }
    }

    fn multiply(a: CubeTensor, b: CubeTensor, precision: Precision) -> CubeTensor {
        stored_as(product(a, b, precision), Precision::F32)
    }

    fn stored_as(x: CubeTensor, precision: Precision) -> CubeTensor {
        let dtype: FloatDType = precision.dtype();
        if x.dtype == dtype.into() { x } else { Cube::float_cast(x, dtype) }
    }
}

#[cfg(feature = "flex")]
mod kernel {
    use burn::backend::Flex;
    use burn::backend::flex::FlexTensor;
    use half::{bf16, f16};

    use super::super::row_product::multiply_by_rows;
    use super::super::tape::{BackwardInputs, Compute};
    use super::super::values::{Matrix, dims, each, in_order, product, tensor, values};
    use super::{Precision, Project};

    impl Compute<Flex, 2> for Project {
        fn forward(&self, [x, weight]: [FlexTensor; 2]) -> FlexTensor {
            forward(x, weight, self.precision)
        }

        fn gradients(self, given: BackwardInputs<Flex, 2>) -> [Option<FlexTensor>; 2] {
            backward(given.inputs, given.gradient, self.precision)
        }
    }

    fn forward(x: FlexTensor, weight: FlexTensor, precision: Precision) -> FlexTensor {
        let [x, weight] = [x, weight].map(|input| rounded(input, precision));
        let ([rows, depth], [width, _]) = (dims(&x), dims(&weight));
        let out = multiply_by_rows(values(&x), values(&weight), depth);
        rounded(tensor(out, [rows, width]), precision)
    }

    fn backward(
        inputs: [Option<FlexTensor>; 2],
        gradient: FlexTensor,
        precision: Precision,
    ) -> [Option<FlexTensor>; 2] {
        let precision = precision.of_gradients();
        let [x, weight] = inputs.map(|input| input.map(|input| rounded(input, precision)));
        let gradient = rounded(gradient, precision);
        let [rows, width] = dims(&gradient);
        let gradient = Matrix::rows(values(&gradient), [rows, width], width);
        let by = |left: Matrix, right: FlexTensor| {
            let ([height, _], [inner, depth]) = (left.size, dims(&right));
            let out = product([left, Matrix::rows(values(&right), [inner, depth], depth)]);
            rounded(tensor(out, [height, depth]), precision)
        };
        [weight.map(|weight| by(gradient, weight)), x.map(|x| by(gradient.transposed(), x))]
    }

    /// A matrix, in order, as it is after it was stored in `precision`.
    fn rounded(x: FlexTensor, precision: Precision) -> FlexTensor {
        let x = in_order(x);
        let stored: fn(f32) -> f32 = match precision {
            Precision::F32 => return x,
            Precision::Bf16 => |value| bf16::from_f32(value).to_f32(),
            Precision::F16 => |value| f16::from_f32(value).to_f32(),
        };
        let [rows, width] = dims(&x);
        tensor(each(values(&x), stored), [rows, width])
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::FloatDType;

    use super::*;
    use crate::ops::testing::{check_gradients, device, random, same, sizes};

    #[test]
    fn equals_the_generic_body_forward_and_backward() {
        for [rows, width, wide] in sizes([400, 60, 60]) {
            let inputs = [random([rows, width], 1), random([wide, width], 2)];
            check_gradients(
                inputs,
                |[x, weight]| project(x, weight, Precision::F32),
                |[x, weight]| x.matmul(weight.transpose()),
            );
        }
    }

    /// The product of `x` and the weight, and its gradients by both.
    fn both_ways([x, weight]: [Tensor<2>; 2], gradient: &Tensor<2>, precision: Precision) -> [Tensor<2>; 3] {
        let inputs = [x, weight].map(|input| input.autodiff().require_grad());
        let [x, weight] = inputs.clone();
        let product = project(x, weight, precision);
        let mut tape = (product.clone() * Tensor::from_inner(gradient.clone())).sum().backward();
        let [by_x, by_weight] = inputs.map(|input| input.grad_remove(&mut tape).expect("both have a gradient"));
        [product.inner(), by_x, by_weight]
    }

    #[test]
    fn sixteen_bits_differ_by_their_rounding_and_equal_the_generic_body() {
        let [x, weight, gradient] = [random([300, 200], 1), random([90, 200], 2), random([300, 90], 3)];
        let exact = both_ways([x.clone(), weight.clone()], &gradient, Precision::F32);
        let largest = |x: Tensor<2>| x.abs().max().into_scalar::<f32>();
        // The most by which rounding moves a number, as a share of it.
        for (precision, rounding) in [(Precision::Bf16, 0.5f32.powi(9)), (Precision::F16, 0.5f32.powi(12))] {
            if precision.check(&device()).is_err() {
                continue;
            }
            let ours = both_ways([x.clone(), weight.clone()], &gradient, precision);
            let product = generic::forward(x.clone(), weight.clone(), precision);
            let [by_x, by_weight] =
                generic::backward([Some(x.clone()), Some(weight.clone())], gradient.clone(), precision)
                    .map(|gradient| gradient.expect("both are given"));
            let stored = [precision, precision.of_gradients(), precision.of_gradients()];
            for (((ours, exact), generic), stored) in
                ours.into_iter().zip(&exact).zip([product, by_x, by_weight]).zip(stored)
            {
                let error = largest(ours.clone() - exact.clone()) / largest(exact.clone());
                match stored {
                    Precision::F32 => assert!(error < 1e-5, "{error}"),
                    _ => assert!(error > 0.2 * rounding && error < 3.0 * rounding, "{precision}: {error}"),
                }
                assert_eq!(ours.to_data(), ours.clone().cast(stored.dtype()).cast(FloatDType::F32).to_data());
                // A sum in another order may be rounded to the next number.
                same(&ours, &generic, 2.0 * rounding);
            }
        }
    }

    #[test]
    fn what_f16_cannot_hold_is_infinite_and_its_small_gradients_are_kept() {
        if Precision::F16.check(&device()).is_err() {
            return;
        }
        let large = Tensor::<2>::full([2, 4], 200.0, &device());
        let product = project(large.clone(), large.clone(), Precision::F16);
        assert!(product.to_data().iter::<f32>().all(|value| value == f32::INFINITY));
        // Float16's smallest number is 6e-8.
        let [_, by_x, _] = both_ways([large.clone(), large], &Tensor::full([2, 2], 1e-10, &device()), Precision::F16);
        assert!(by_x.to_data().iter::<f32>().all(|value| (value - 4e-8).abs() < 1e-13));
    }
}
