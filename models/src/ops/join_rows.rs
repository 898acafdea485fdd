//! Matrices of one width below one another, on a GPU.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Cube, Dispatch};
use burn::tensor::Tensor;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::gpu::{argument, elements_on, empty_beside, in_order, part};
use super::route::routed_to_gpus;
use super::tape::{BackwardInputs, Compute, Operation, Run};

/// The rows of `a`, then those of `b`: `[rows of both, width]`.
///
/// # Panics
///
/// If they differ in width, or on a CPU.
pub fn join_two(a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    let rows = rows([&a, &b]);
    Tensor::from_dispatch(Dispatch::join_two(a.into_dispatch(), b.into_dispatch(), rows))
}

/// [`join_two`] of three.
///
/// # Panics
///
/// If they differ in width, or on a CPU.
pub fn join_three(a: Tensor<2>, b: Tensor<2>, c: Tensor<2>) -> Tensor<2> {
    let rows = rows([&a, &b, &c]);
    Tensor::from_dispatch(Dispatch::join_three(a.into_dispatch(), b.into_dispatch(), c.into_dispatch(), rows))
}

fn rows<const N: usize>(parts: [&Tensor<2>; N]) -> [usize; N] {
    let [_, width] = parts[0].dims();
    assert!(parts.iter().all(|part| part.dims()[1] == width), "what is joined must be of one width");
    parts.map(|part| part.dims()[0])
}

routed_to_gpus! {
    trait JoinTwoOps: Run<Join<2>, 2> {
        fn join_two(a: FloatTensor<Self>, b: FloatTensor<Self>, rows: [usize; 2]) -> FloatTensor<Self> {
            Self::run(Join { rows }, [a, b])
        }
    }
}

routed_to_gpus! {
    trait JoinThreeOps: Run<Join<3>, 3> {
        fn join_three(
            a: FloatTensor<Self>,
            b: FloatTensor<Self>,
            c: FloatTensor<Self>,
            rows: [usize; 3],
        ) -> FloatTensor<Self> {
            Self::run(Join { rows }, [a, b, c])
        }
    }
}

#[derive(Debug, Clone)]
struct Join<const N: usize> {
    /// Of each part.
    rows: [usize; N],
}

impl<const N: usize> Operation<N> for Join<N> {
    fn needs(_: [bool; N]) -> [bool; N] {
        [false; N]
    }
}

impl<const N: usize> Compute<Cube, N> for Join<N> {
    fn forward(&self, parts: [CubeTensor; N]) -> CubeTensor {
        let parts = parts.map(in_order);
        let [_, width] = parts[0].meta.shape().dims();
        let elements = self.rows.iter().sum::<usize>() * width;
        let out = empty_beside(&parts[0], [elements / width, width]);
        let (count, dim) = elements_on(&out, elements);
        // The last part is the rest, of two or of three.
        let [a, b, rest] = [0, 1, N - 1].map(|i| &parts[i]);
        join::launch(
            &out.client,
            count,
            dim,
            argument(a),
            argument(b),
            argument(rest),
            argument(&out),
            self.rows[0] * width,
            (elements / width - self.rows[N - 1]) * width,
            elements,
        );
        out
    }

    fn gradients(self, given: BackwardInputs<Cube, N>) -> [Option<CubeTensor>; N] {
        let gradient = in_order(given.gradient);
        let [_, width] = gradient.meta.shape().dims();
        let mut start = 0;
        self.rows.map(|rows| {
            let by_part = part(&gradient, start * width, [rows, width]);
            start += rows;
            Some(by_part)
        })
    }
}

/// `a` before element `from_b`, `rest` from element `from_rest` on.
#[cube(launch)]
fn join(a: &[f32], b: &[f32], rest: &[f32], out: &mut [f32], from_b: usize, from_rest: usize, elements: usize) {
    let i = ABSOLUTE_POS;
    if i < elements {
        if i < from_b {
            out[i] = a[i];
        } else if i < from_rest {
            out[i] = b[i - from_b];
        } else {
            out[i] = rest[i - from_rest];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{check_gradients, on_gpu, random, sizes};

    #[test]
    fn equals_a_concatenation_forward_and_backward() {
        if !on_gpu() {
            return;
        }
        for [a, b, c, width] in sizes([64, 64, 64, 64]).chain([[64, 32, 32, 64]]) {
            let inputs = [random([a, width], 1), random([b, width], 2), random([c, width], 3)];
            let [first, second, _] = inputs.clone();
            check_gradients([first, second], |[a, b]| join_two(a, b), |both| Tensor::cat(both.to_vec(), 0));
            check_gradients(inputs, |[a, b, c]| join_three(a, b, c), |all| Tensor::cat(all.to_vec(), 0));
        }
    }
}
