//! Root mean square norm.

use burn::backend::Dispatch;
use burn::backend::tensor::FloatTensor;
use burn::tensor::Tensor;

use super::route::routed;
use super::tape::{Operation, Run};

/// `x / sqrt(mean(x^2) + epsilon) * weight` for the rows of `x`, `[rows, width]`; `weight` is `[width]`.
///
/// # Panics
///
/// If `x` and `weight` differ in width, or the width is 0.
pub fn rms_norm(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
    assert!(weight.dims() == [x.dims()[1]] && weight.dims()[0] > 0, "the weight must be as wide as the rows");
    Tensor::from_dispatch(Dispatch::rms_norm(x.into_dispatch(), weight.into_dispatch(), epsilon))
}

routed! {
    trait RmsNormOps: Run<RmsNorm, 2> {
        fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f64) -> FloatTensor<Self> {
            Self::run(RmsNorm { epsilon }, [x, weight])
        }
    }
}

#[derive(Debug, Clone)]
struct RmsNorm {
    epsilon: f64,
}

impl Operation<2> for RmsNorm {}

pub(super) mod generic {
    use super::super::route::Plain;
    use super::super::tape::{BackwardInputs, Compute};
    use super::{FloatTensor, RmsNorm, Tensor};

    impl<B: Plain> Compute<B, 2> for RmsNorm {
        fn forward(&self, [x, weight]: [FloatTensor<B>; 2]) -> FloatTensor<B> {
            B::primitive(forward(B::float(x), B::float(weight), self.epsilon))
        }

        fn gradients(self, mut given: BackwardInputs<B, 2>) -> [Option<FloatTensor<B>>; 2] {
            let [x, weight] = given.take_inputs();
            let (by_x, by_weight) = backward(B::float(x), B::float(weight), B::float(given.gradient), self.epsilon);
            [Some(B::primitive(by_x)), Some(B::primitive(by_weight))]
        }
    }

    /// See [`super::rms_norm`].
    pub fn forward(x: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> Tensor<2> {
        x.clone() * inverse_rms(x, epsilon) * weight.unsqueeze()
    }

    fn backward(x: Tensor<2>, weight: Tensor<1>, gradient: Tensor<2>, epsilon: f64) -> (Tensor<2>, Tensor<1>) {
        let inverse = inverse_rms(x.clone(), epsilon);
        let normed = x * inverse.clone();
        let by_weight = (gradient.clone() * normed.clone()).sum_dim(0).squeeze_dim(0);
        let by_normed = gradient * weight.unsqueeze();
        let along = (by_normed.clone() * normed.clone()).mean_dim(1);
        ((by_normed - normed * along) * inverse, by_weight)
    }

    fn inverse_rms(x: Tensor<2>, epsilon: f64) -> Tensor<2> {
        x.square().mean_dim(1).add_scalar(epsilon).sqrt().recip()
    }
}

#[cfg(feature = "flex")]
mod kernel {
    use burn::backend::Flex;
    use burn::backend::flex::FlexTensor;
    use rayon::prelude::*;

    use super::super::simd::{dot, vectorized};
    use super::super::tape::{BackwardInputs, Compute};
    use super::super::values::{PART, dims, in_order, tensor, values};
    use super::RmsNorm;

    impl Compute<Flex, 2> for RmsNorm {
        fn forward(&self, [x, weight]: [FlexTensor; 2]) -> FlexTensor {
            forward(x, weight, self.epsilon)
        }

        fn gradients(self, mut given: BackwardInputs<Flex, 2>) -> [Option<FlexTensor>; 2] {
            backward(given.take_inputs(), given.gradient, self.epsilon).map(Some)
        }
    }

    fn forward(x: FlexTensor, weight: FlexTensor, epsilon: f64) -> FlexTensor {
        let (x, weight) = (in_order(x), in_order(weight));
        let [rows, width] = dims(&x);
        let mut out = vec![0.0; rows * width];
        let part = rows_of_a_part(width) * width;
        let weight = values(&weight);
        out.par_chunks_mut(part).zip(values(&x).par_chunks(part)).for_each(|(out, x)| {
            vectorized(
                #[inline(always)]
                || {
                    for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                        let inverse = inverse_rms(x, epsilon);
                        for ((out, x), weight) in out.iter_mut().zip(x).zip(weight) {
                            *out = x * inverse * weight;
                        }
                    }
                },
            );
        });
        tensor(out, [rows, width])
    }

    fn backward([x, weight]: [FlexTensor; 2], gradient: FlexTensor, epsilon: f64) -> [FlexTensor; 2] {
        let [x, weight, gradient] = [x, weight, gradient].map(in_order);
        let [rows, width] = dims(&x);
        let weight = values(&weight);
        let mut by_x = vec![0.0; rows * width];
        let part = rows_of_a_part(width) * width;
        let parts = by_x.par_chunks_mut(part).zip(values(&x).par_chunks(part)).zip(values(&gradient).par_chunks(part));
        let by_weight: Vec<Vec<f32>> = parts
            .map(|((by_x, x), gradient)| {
                vectorized(
                    #[inline(always)]
                    || backward_part(by_x, x, gradient, weight, epsilon),
                )
            })
            .collect();
        let mut sum = vec![0.0; width];
        for part in by_weight {
            sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
        [tensor(by_x, [rows, width]), tensor(sum, [width])]
    }

    #[inline(always)]
    fn backward_part(by_x: &mut [f32], x: &[f32], gradient: &[f32], weight: &[f32], epsilon: f64) -> Vec<f32> {
        let width = weight.len();
        let mut by_weight = vec![0.0; width];
        for ((by_x, x), gradient) in
            by_x.chunks_exact_mut(width).zip(x.chunks_exact(width)).zip(gradient.chunks_exact(width))
        {
            let inverse = inverse_rms(x, epsilon);
            for ((by_x, gradient), weight) in by_x.iter_mut().zip(gradient).zip(weight) {
                *by_x = gradient * weight;
            }
            let along = dot(by_x, x) * inverse * inverse / width as f32;
            for (((by_x, x), gradient), by_weight) in by_x.iter_mut().zip(x).zip(gradient).zip(&mut by_weight) {
                *by_x = (*by_x - x * along) * inverse;
                *by_weight += gradient * x * inverse;
            }
        }
        by_weight
    }

    #[inline(always)]
    fn inverse_rms(x: &[f32], epsilon: f64) -> f32 {
        (dot(x, x) / x.len() as f32 + epsilon as f32).sqrt().recip()
    }

    fn rows_of_a_part(width: usize) -> usize {
        PART.div_ceil(width)
    }
}

#[cfg(feature = "gpu")]
mod gpu {
    use burn::backend::Cube;
    use burn::backend::ops::FloatTensorOps;
    use burn::tensor::Shape;
    use burn_cubecl::cubecl;
    use burn_cubecl::cubecl::prelude::*;
    use burn_cubecl::tensor::CubeTensor;

    use super::super::gpu::{argument, dot_of_lanes, empty_beside, in_order, own_row, rows_on, sum_over_lanes};
    use super::super::tape::{BackwardInputs, Compute};
    use super::RmsNorm;

    /// Planes that share the rows of a backward pass: each adds up a part of the gradient by the weight.
    const PARTS: usize = 256;

    impl Compute<Cube, 2> for RmsNorm {
        fn forward(&self, inputs: [CubeTensor; 2]) -> CubeTensor {
            let [x, weight] = inputs.map(in_order);
            let [rows, width] = x.meta.shape().dims();
            let out = empty_beside(&x, [rows, width]);
            let launch = rows_on(&x, rows);
            normalize::launch(
                &x.client,
                launch.cube_count,
                launch.cube_dim,
                argument(&x),
                argument(&weight),
                argument(&out),
                rows,
                width,
                self.epsilon as f32,
                launch.lanes,
            );
            out
        }

        fn gradients(self, mut given: BackwardInputs<Cube, 2>) -> [Option<CubeTensor>; 2] {
            let [x, weight] = given.take_inputs().map(in_order);
            let gradient = in_order(given.gradient);
            let [rows, width] = x.meta.shape().dims();
            let parts = rows.min(PARTS);
            let (by_x, by_weight) = (empty_beside(&x, [rows, width]), empty_beside(&x, [parts, width]));
            let launch = rows_on(&x, parts);
            backward::launch(
                &x.client,
                launch.cube_count,
                launch.cube_dim,
                argument(&x),
                argument(&weight),
                argument(&gradient),
                argument(&by_x),
                argument(&by_weight),
                rows,
                width,
                parts,
                self.epsilon as f32,
                launch.lanes,
            );
            let by_weight = Cube::float_reshape(Cube::float_sum_dim(by_weight, 0), Shape::new([width]));
            [Some(by_x), Some(by_weight)]
        }
    }

    /// `1 / sqrt(mean(x^2) + epsilon)` of the row that begins at `start`.
    #[cube]
    fn inverse_rms(x: &[f32], start: usize, width: usize, epsilon: f32, #[comptime] lanes: u32) -> f32 {
        1.0 / (dot_of_lanes(x, start, x, start, width, lanes) / width as f32 + epsilon).sqrt()
    }

    #[cube(launch)]
    fn normalize(
        x: &[f32],
        weight: &[f32],
        out: &mut [f32],
        rows: usize,
        width: usize,
        epsilon: f32,
        #[comptime] lanes: u32,
    ) {
        let row = own_row();
        if row < rows {
            let start = row * width;
            let inverse = inverse_rms(x, start, width, epsilon, lanes);
            for i in range_stepped(UNIT_POS_X as usize, width, lanes as usize) {
                out[start + i] = x[start + i] * inverse * weight[i];
            }
        }
    }

    /// The gradient by every row, and by the weight a part of its sum for each plane, `[parts, width]`.
    #[cube(launch)]
    fn backward(
        x: &[f32],
        weight: &[f32],
        gradient: &[f32],
        by_x: &mut [f32],
        by_weight: &mut [f32],
        rows: usize,
        width: usize,
        parts: usize,
        epsilon: f32,
        #[comptime] lanes: u32,
    ) {
        let part = own_row();
        if part < parts {
            for i in range_stepped(UNIT_POS_X as usize, width, lanes as usize) {
                by_weight[part * width + i] = 0.0;
            }
            for row in range_stepped(part, rows, parts) {
                let start = row * width;
                let inverse = inverse_rms(x, start, width, epsilon, lanes);
                let mut along = 0f32;
                for i in range_stepped(UNIT_POS_X as usize, width, lanes as usize) {
                    along += gradient[start + i] * weight[i] * x[start + i];
                }
                let along = sum_over_lanes(along, lanes) * inverse * inverse / width as f32;
                for i in range_stepped(UNIT_POS_X as usize, width, lanes as usize) {
                    let (x, gradient) = (x[start + i], gradient[start + i]);
                    by_x[start + i] = (gradient * weight[i] - x * along) * inverse;
                    by_weight[part * width + i] += gradient * x * inverse;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{check_gradients, random};

    #[test]
    fn equals_the_generic_body_forward_and_backward() {
        for [rows, width] in [[1, 3], [3, 7], [200, 96]] {
            let inputs = [random([rows, width], 1), random([1, width], 2)];
            check_gradients(
                inputs,
                |[x, weight]| rms_norm(x, weight.squeeze_dim(0), 1e-5),
                |[x, weight]| generic::forward(x, weight.squeeze_dim(0), 1e-5),
            );
        }
    }
}
