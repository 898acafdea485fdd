//! The rotation of rotary position embedding.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch};
use burn::tensor::Tensor;

use super::route::routed;
use super::tape::{BackwardInputs, Operation, Run};

/// Rotates `x`, `[rows, tokens, heads, width]`, whose coordinates `i` and `i + width / 2` form a pair, by the angles
/// whose cosines and sines are `[rows or 1, tokens, 1, width / 2]`. No gradient goes to these.
///
/// # Panics
///
/// If the sizes do not fit together, `width` is odd, or one of them is 0.
pub fn rotate(x: Tensor<4>, cos: Tensor<4>, sin: Tensor<4>) -> Tensor<4> {
    let ([rows, tokens, heads, width], [angle_rows, ..]) = (x.dims(), cos.dims());
    assert!(width.is_multiple_of(2) && ![rows, tokens, heads, width].contains(&0), "{:?} cannot be rotated", x.dims());
    assert!(angle_rows == 1 || angle_rows == rows, "{angle_rows} rows of angles do not fit {rows} rows");
    assert_eq!((cos.dims(), sin.dims()), ([angle_rows, tokens, 1, width / 2], cos.dims()), "every pair needs an angle");
    Tensor::from_dispatch(Dispatch::rotate(x.into_dispatch(), cos.into_dispatch(), sin.into_dispatch()))
}

routed! {
    trait RotateOps: Run<Rotate, 3> {
        fn rotate(x: FloatTensor<Self>, cos: FloatTensor<Self>, sin: FloatTensor<Self>) -> FloatTensor<Self> {
            Self::run(Rotate, [x, cos, sin])
        }
    }
}

#[derive(Debug, Clone)]
struct Rotate;

impl Operation<3> for Rotate {
    fn needs(_: [bool; 3]) -> [bool; 3] {
        [false, true, true]
    }
}

/// The rotation whose result is the gradient: the transpose of a rotation turns back.
fn back<B: Backend>(given: BackwardInputs<B, 3>) -> [FloatTensor<B>; 3] {
    let [_, cos, sin] = given.inputs;
    let [cos, sin] = [cos, sin].map(|input| input.expect("what is needed was kept"));
    [given.gradient, cos, B::float_neg(sin)]
}

pub(super) mod generic {
    use super::super::route::Plain;
    use super::super::tape::Compute;
    use super::{BackwardInputs, FloatTensor, Rotate, Tensor, back};

    impl<B: Plain> Compute<B, 3> for Rotate {
        fn forward(&self, [x, cos, sin]: [FloatTensor<B>; 3]) -> FloatTensor<B> {
            B::primitive(forward(B::float(x), B::float(cos), B::float(sin)))
        }

        fn gradients(self, given: BackwardInputs<B, 3>) -> [Option<FloatTensor<B>>; 3] {
            [Some(Compute::<B, 3>::forward(&self, back(given))), None, None]
        }
    }

    /// See [`super::rotate`].
    pub fn forward(x: Tensor<4>, cos: Tensor<4>, sin: Tensor<4>) -> Tensor<4> {
        let half = x.dims()[3] / 2;
        let (a, b) = (x.clone().narrow(3, 0, half), x.narrow(3, half, half));
        let rotated_a = a.clone() * cos.clone() - b.clone() * sin.clone();
        let rotated_b = b * cos + a * sin;
        Tensor::cat(vec![rotated_a, rotated_b], 3)
    }
}

#[cfg(feature = "flex")]
mod kernel {
    use burn::backend::Flex;
    use burn::backend::flex::FlexTensor;
    use rayon::prelude::*;

    use super::super::simd::vectorized;
    use super::super::tape::Compute;
    use super::super::values::{PART, dims, in_order, tensor, values};
    use super::{BackwardInputs, Rotate, back};

    impl Compute<Flex, 3> for Rotate {
        fn forward(&self, inputs: [FlexTensor; 3]) -> FlexTensor {
            forward(inputs)
        }

        fn gradients(self, given: BackwardInputs<Flex, 3>) -> [Option<FlexTensor>; 3] {
            [Some(forward(back(given))), None, None]
        }
    }

    fn forward(inputs: [FlexTensor; 3]) -> FlexTensor {
        let [x, cos, sin] = inputs.map(in_order);
        let size: [usize; 4] = dims(&x);
        let [rows, tokens, heads, width] = size;
        let half = width / 2;
        let positions = dims::<4>(&cos)[0] * tokens;
        let (cos, sin) = (values(&cos), values(&sin));
        let mut out = vec![0.0; rows * tokens * heads * width];
        // Tokens that a task takes at once.
        let part = PART.div_ceil(heads * width);
        let parts = out.par_chunks_mut(part * heads * width).zip(values(&x).par_chunks(part * heads * width));
        parts.enumerate().for_each(|(index, (out, x))| {
            vectorized(
                #[inline(always)]
                || {
                    let tokens = out.chunks_exact_mut(heads * width).zip(x.chunks_exact(heads * width));
                    for (token, (out, x)) in tokens.enumerate() {
                        let at = (index * part + token) % positions * half;
                        let (cos, sin) = (&cos[at..at + half], &sin[at..at + half]);
                        for (out, x) in out.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                            let ((out_a, out_b), (a, b)) = (out.split_at_mut(half), x.split_at(half));
                            for i in 0..half {
                                out_a[i] = a[i] * cos[i] - b[i] * sin[i];
                                out_b[i] = b[i] * cos[i] + a[i] * sin[i];
                            }
                        }
                    }
                },
            );
        });
        tensor(out, size)
    }
}

#[cfg(feature = "gpu")]
mod gpu {
    use burn::backend::Cube;
    use burn_cubecl::cubecl;
    use burn_cubecl::cubecl::prelude::*;
    use burn_cubecl::tensor::CubeTensor;

    use super::super::gpu::{argument, elements_on, empty_beside, in_order};
    use super::super::tape::Compute;
    use super::{BackwardInputs, Rotate};

    impl Compute<Cube, 3> for Rotate {
        fn forward(&self, inputs: [CubeTensor; 3]) -> CubeTensor {
            turn(inputs, 1.0)
        }

        fn gradients(self, given: BackwardInputs<Cube, 3>) -> [Option<CubeTensor>; 3] {
            let [_, cos, sin] = given.inputs;
            let [cos, sin] = [cos, sin].map(|input| input.expect("what is needed was kept"));
            // The transpose of a rotation turns back.
            [Some(turn([given.gradient, cos, sin], -1.0)), None, None]
        }
    }

    /// The rotation, or with a `direction` of -1 the one back.
    fn turn(inputs: [CubeTensor; 3], direction: f32) -> CubeTensor {
        let [x, cos, sin] = inputs.map(in_order);
        let size: [usize; 4] = x.meta.shape().dims();
        let [rows, tokens, heads, width] = size;
        let [angle_rows, ..] = cos.meta.shape().dims::<4>();
        let out = empty_beside(&x, size);
        let pairs = rows * tokens * heads * width / 2;
        let (count, dim) = elements_on(&x, pairs);
        rotate_pairs::launch(
            &x.client,
            count,
            dim,
            argument(&x),
            argument(&cos),
            argument(&sin),
            argument(&out),
            pairs,
            angle_rows * tokens,
            heads,
            width / 2,
            direction,
        );
        out
    }

    #[cube(launch)]
    fn rotate_pairs(
        x: &[f32],
        cos: &[f32],
        sin: &[f32],
        out: &mut [f32],
        pairs: usize,
        positions: usize,
        heads: usize,
        half: usize,
        direction: f32,
    ) {
        if ABSOLUTE_POS < pairs {
            let (head, i) = (ABSOLUTE_POS / half, ABSOLUTE_POS % half);
            let angle = head / heads % positions * half + i;
            let (cos, sin) = (cos[angle], sin[angle] * direction);
            let first = head * 2 * half + i;
            let (a, b) = (x[first], x[first + half]);
            out[first] = a * cos - b * sin;
            out[first + half] = b * cos + a * sin;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{check_gradients, random, sizes};

    #[test]
    fn equals_the_generic_body_forward_and_backward() {
        for ([rows, tokens, heads, half], has_own_angles) in
            sizes([40, 20, 4, 16]).zip([false, true].into_iter().cycle())
        {
            let angles = random([if has_own_angles { rows } else { 1 }, tokens, 1, half], 2);
            let (cos, sin) = (angles.clone().cos(), angles.sin());
            check_gradients(
                [random([rows, tokens, heads, 2 * half], 1)],
                |[x]| rotate(x, cos.clone(), sin.clone()),
                |[x]| generic::forward(x, cos.clone(), sin.clone()),
            );
        }
    }
}
