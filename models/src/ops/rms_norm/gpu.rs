//! The kernels for GPUs: one adds and norms.

use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Cube, Dispatch};
use burn::tensor::{Shape, Tensor};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::super::gpu::{argument, empty_beside, in_order, own_row, rows_on, sum_over_lanes, zeros_beside};
use super::super::route::routed_to_gpus;
use super::super::several_outputs::{ComputeMany, RunMany};
use super::super::tape::{BackwardInputs, Compute, Operation};
use super::RmsNorm;

/// Planes that share the rows of a backward pass: each adds up a part of the gradient by the weight.
const PARTS: usize = 256;

impl Compute<Cube, 2> for RmsNorm {
    fn forward(&self, [x, weight]: [CubeTensor; 2]) -> CubeTensor {
        let [_, normed] = forward(x, None, weight, self.epsilon);
        normed
    }

    fn gradients(self, mut given: BackwardInputs<Cube, 2>) -> [Option<CubeTensor>; 2] {
        let [x, weight] = given.take_inputs();
        let [_, by_weight] = given.wanted;
        let (by_x, by_weight) = backward([x, weight, given.gradient], None, by_weight, self.epsilon);
        [Some(by_x), by_weight]
    }
}

/// See [`super::norm_of_sum`].
pub fn norm_of_sum(x: Tensor<2>, added: Tensor<2>, weight: Tensor<1>, epsilon: f64) -> [Tensor<2>; 2] {
    let (sum, normed) =
        Dispatch::norm_of_sum(x.into_dispatch(), added.into_dispatch(), weight.into_dispatch(), epsilon);
    [sum, normed].map(Tensor::from_dispatch)
}

routed_to_gpus! {
    trait NormOfSumOps: RunMany<NormOfSum, 3, 2> {
        fn norm_of_sum(
            x: FloatTensor<Self>,
            added: FloatTensor<Self>,
            weight: FloatTensor<Self>,
            epsilon: f64,
        ) -> (FloatTensor<Self>, FloatTensor<Self>) {
            Self::run_many(NormOfSum { epsilon }, [x, added, weight]).into()
        }
    }
}

#[derive(Debug, Clone)]
struct NormOfSum {
    epsilon: f64,
}

impl Operation<3> for NormOfSum {
    const WANTS_OUTPUT: bool = true;

    fn needs(_: [bool; 3]) -> [bool; 3] {
        [false, false, true]
    }
}

impl ComputeMany<Cube, 3, 2> for NormOfSum {
    fn forward(&self, [x, added, weight]: [CubeTensor; 3]) -> [CubeTensor; 2] {
        forward(x, Some(added), weight, self.epsilon)
    }

    fn gradients(self, given: BackwardInputs<Cube, 3, [Option<CubeTensor>; 2]>) -> [Option<CubeTensor>; 3] {
        let BackwardInputs { inputs: [_, _, weight], output, gradient, wanted: [.., by_weight] } = given;
        let [sum, weight] = [output, weight].map(|kept| kept.expect("what is needed was kept"));
        let (by_sum, by_weight) = match gradient {
            [by_sum, Some(by_normed)] => backward([sum, weight, by_normed], by_sum, by_weight, self.epsilon),
            // Nobody read the norm: it was the sum, then.
            [by_sum, None] => {
                let zeros = zeros_beside(&weight, weight.meta.shape().clone());
                (by_sum.expect("an output was read"), Some(zeros))
            }
        };
        [Some(by_sum.clone()), Some(by_sum), by_weight]
    }
}

/// `x`, with what is added to it if anything is, and its norm.
fn forward(x: CubeTensor, added: Option<CubeTensor>, weight: CubeTensor, epsilon: f64) -> [CubeTensor; 2] {
    let (x, weight, added) = (in_order(x), in_order(weight), added.map(in_order));
    let [rows, width] = x.meta.shape().dims();
    let (normed, launch) = (empty_beside(&x, [rows, width]), rows_on(&x, rows));
    // Anything stands for what is not there.
    let sum = added.as_ref().map_or_else(|| empty_beside(&x, [1, 1]), |_| empty_beside(&x, [rows, width]));
    normalize::launch(
        &x.client,
        launch.cube_count,
        launch.cube_dim,
        argument(&x),
        argument(added.as_ref().unwrap_or(&x)),
        argument(&weight),
        argument(&sum),
        argument(&normed),
        rows,
        width,
        epsilon as f32,
        launch.lanes,
        added.is_some(),
    );
    [if added.is_some() { sum } else { x }, normed]
}

/// Gradients by `x` and, where it is wanted, by `weight` from `gradient`, that by the norm. To the first is added what
/// else came from `x`.
fn backward(
    inputs: [CubeTensor; 3],
    also: Option<CubeTensor>,
    by_weight: bool,
    epsilon: f64,
) -> (CubeTensor, Option<CubeTensor>) {
    let ([x, weight, gradient], also) = (inputs.map(in_order), also.map(in_order));
    let [rows, width] = x.meta.shape().dims();
    let parts = if by_weight { rows.min(PARTS) } else { rows };
    let by_x = empty_beside(&x, [rows, width]);
    let parts_by_weight = empty_beside(&x, [if by_weight { parts } else { 1 }, width]);
    let launch = rows_on(&x, parts);
    go_back::launch(
        &x.client,
        launch.cube_count,
        launch.cube_dim,
        argument(&x),
        argument(&weight),
        argument(&gradient),
        argument(also.as_ref().unwrap_or(&gradient)),
        argument(&by_x),
        argument(&parts_by_weight),
        rows,
        width,
        parts,
        epsilon as f32,
        launch.lanes,
        also.is_some(),
        by_weight,
    );
    let sum = || Cube::float_reshape(Cube::float_sum_dim(parts_by_weight, 0), Shape::new([width]));
    (by_x, by_weight.then(sum))
}

/// `1 / sqrt(mean(x^2) + epsilon)` of a row from the sum of the squares that each lane has.
#[cube]
fn inverse_rms(squares: f32, width: usize, epsilon: f32, #[comptime] lanes: u32) -> f32 {
    1.0 / (sum_over_lanes(squares, lanes) / width as f32 + epsilon).sqrt()
}

#[cube(launch)]
fn normalize(
    x: &[f32],
    added: &[f32],
    weight: &[f32],
    sum: &mut [f32],
    normed: &mut [f32],
    rows: usize,
    width: usize,
    epsilon: f32,
    #[comptime] lanes: u32,
    #[comptime] adds: bool,
) {
    let row = own_row();
    if row < rows {
        let start = row * width;
        let mut squares = 0f32;
        for i in range_stepped(UNIT_POS_X as usize, width, lanes as usize) {
            let mut value = x[start + i];
            if comptime!(adds) {
                value += added[start + i];
                sum[start + i] = value;
            }
            squares += value * value;
        }
        let inverse = inverse_rms(squares, width, epsilon, lanes);
        for i in range_stepped(UNIT_POS_X as usize, width, lanes as usize) {
            let value = if comptime!(adds) { sum[start + i] } else { x[start + i] };
            normed[start + i] = value * inverse * weight[i];
        }
    }
}

/// The gradient by every row, and by the weight a part of its sum for each plane, `[parts, width]`.
#[cube(launch)]
fn go_back(
    x: &[f32],
    weight: &[f32],
    gradient: &[f32],
    also: &[f32],
    by_x: &mut [f32],
    by_weight: &mut [f32],
    rows: usize,
    width: usize,
    parts: usize,
    epsilon: f32,
    #[comptime] lanes: u32,
    #[comptime] adds: bool,
    #[comptime] weighs: bool,
) {
    let part = own_row();
    if part < parts {
        if comptime!(weighs) {
            for i in range_stepped(UNIT_POS_X as usize, width, lanes as usize) {
                by_weight[part * width + i] = 0.0;
            }
        }
        for row in range_stepped(part, rows, parts) {
            let start = row * width;
            let mut squares = 0f32;
            let mut along = 0f32;
            for i in range_stepped(UNIT_POS_X as usize, width, lanes as usize) {
                let x = x[start + i];
                squares += x * x;
                along += gradient[start + i] * weight[i] * x;
            }
            let inverse = inverse_rms(squares, width, epsilon, lanes);
            let along = sum_over_lanes(along, lanes) * inverse * inverse / width as f32;
            for i in range_stepped(UNIT_POS_X as usize, width, lanes as usize) {
                let (x, gradient) = (x[start + i], gradient[start + i]);
                let mut by = (gradient * weight[i] - x * along) * inverse;
                if comptime!(adds) {
                    by += also[start + i];
                }
                by_x[start + i] = by;
                if comptime!(weighs) {
                    by_weight[part * width + i] += gradient * x * inverse;
                }
            }
        }
    }
}
