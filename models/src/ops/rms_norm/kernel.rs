//! The kernel for `flex`.

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
