//! The mixed values of an attention without their normalisers.

use burn::backend::Dispatch;
use burn::backend::tensor::FloatTensor;
use burn::tensor::Tensor;

use super::route::routed;
use super::tape::{Operation, Run};

/// What attention gave, `[tokens, heads, width + 1]`, without the logarithms of its normalisers, `[tokens, heads * width]`.
///
/// # Panics
///
/// If one of the sizes is 0.
pub fn mixed_values(attended: Tensor<3>) -> Tensor<2> {
    let [tokens, heads, wide] = attended.dims();
    assert!(![tokens, heads, wide - 1].contains(&0), "sizes must not be 0: {:?}", attended.dims());
    Tensor::from_dispatch(Dispatch::mixed_values(attended.into_dispatch(), heads))
}

routed! {
    trait MixedValuesOps: Run<MixedValues, 1> {
        fn mixed_values(attended: FloatTensor<Self>, heads: usize) -> FloatTensor<Self> {
            Self::run(MixedValues { heads }, [attended])
        }
    }
}

#[derive(Debug, Clone)]
struct MixedValues {
    heads: usize,
}

impl Operation<1> for MixedValues {
    fn needs(_: [bool; 1]) -> [bool; 1] {
        [false]
    }
}

pub(super) mod generic {
    use super::super::route::Plain;
    use super::super::tape::{BackwardInputs, Compute};
    use super::{FloatTensor, MixedValues, Tensor};

    impl<B: Plain> Compute<B, 1> for MixedValues {
        fn forward(&self, [attended]: [FloatTensor<B>; 1]) -> FloatTensor<B> {
            B::primitive(forward(B::float(attended)))
        }

        fn gradients(self, given: BackwardInputs<B, 1>) -> [Option<FloatTensor<B>>; 1] {
            [Some(B::primitive(backward(B::float(given.gradient), self.heads)))]
        }
    }

    /// See [`super::mixed_values`].
    pub fn forward(attended: Tensor<3>) -> Tensor<2> {
        let [tokens, heads, wide] = attended.dims();
        attended.narrow(2, 0, wide - 1).reshape([tokens, heads * (wide - 1)])
    }

    fn backward(gradient: Tensor<2>, heads: usize) -> Tensor<3> {
        let [tokens, all] = gradient.dims();
        let by_normalizer = Tensor::zeros([tokens, heads, 1], &gradient.device());
        Tensor::cat(vec![gradient.reshape([tokens, heads, all / heads]), by_normalizer], 2)
    }
}

#[cfg(feature = "gpu")]
mod gpu {
    use burn::backend::Cube;
    use burn_cubecl::cubecl;
    use burn_cubecl::cubecl::prelude::*;
    use burn_cubecl::tensor::CubeTensor;

    use super::super::gpu::{argument, elements_on, empty_beside, in_order};
    use super::super::tape::{BackwardInputs, Compute};
    use super::MixedValues;

    impl Compute<Cube, 1> for MixedValues {
        fn forward(&self, [attended]: [CubeTensor; 1]) -> CubeTensor {
            let attended = in_order(attended);
            let [tokens, heads, wide] = attended.meta.shape().dims();
            let elements = tokens * heads * (wide - 1);
            let out = empty_beside(&attended, [tokens, heads * (wide - 1)]);
            let (count, dim) = elements_on(&attended, elements);
            leave_out::launch(&attended.client, count, dim, argument(&attended), argument(&out), elements, wide - 1);
            out
        }

        fn gradients(self, given: BackwardInputs<Cube, 1>) -> [Option<CubeTensor>; 1] {
            let gradient = in_order(given.gradient);
            let [tokens, all] = gradient.meta.shape().dims();
            let wide = all / self.heads + 1;
            let elements = tokens * self.heads * wide;
            let out = empty_beside(&gradient, [tokens, self.heads, wide]);
            let (count, dim) = elements_on(&gradient, elements);
            put_zeros::launch(&gradient.client, count, dim, argument(&gradient), argument(&out), elements, wide);
            [Some(out)]
        }
    }

    #[cube(launch)]
    fn leave_out(attended: &[f32], out: &mut [f32], elements: usize, width: usize) {
        if ABSOLUTE_POS < elements {
            // Every head before has a normaliser.
            out[ABSOLUTE_POS] = attended[ABSOLUTE_POS + ABSOLUTE_POS / width];
        }
    }

    #[cube(launch)]
    fn put_zeros(gradient: &[f32], out: &mut [f32], elements: usize, wide: usize) {
        if ABSOLUTE_POS < elements {
            let (head, column) = (ABSOLUTE_POS / wide, ABSOLUTE_POS % wide);
            let mut value = 0f32;
            if column + 1 < wide {
                value = gradient[ABSOLUTE_POS - head];
            }
            out[ABSOLUTE_POS] = value;
        }
    }
}

#[cfg(feature = "flex")]
mod kernel {
    use burn::backend::Flex;
    use burn::backend::flex::FlexTensor;

    use super::super::tape::{BackwardInputs, Compute};
    use super::super::values::{dims, in_order, tensor, values};
    use super::MixedValues;

    impl Compute<Flex, 1> for MixedValues {
        fn forward(&self, [attended]: [FlexTensor; 1]) -> FlexTensor {
            let attended = in_order(attended);
            let [tokens, heads, wide] = dims(&attended);
            let mut out = Vec::with_capacity(tokens * heads * (wide - 1));
            for row in values(&attended).chunks_exact(wide) {
                out.extend_from_slice(&row[..wide - 1]);
            }
            tensor(out, [tokens, heads * (wide - 1)])
        }

        fn gradients(self, given: BackwardInputs<Flex, 1>) -> [Option<FlexTensor>; 1] {
            let gradient = in_order(given.gradient);
            let [tokens, all] = dims(&gradient);
            let width = all / self.heads;
            let mut out = Vec::with_capacity(tokens * (all + self.heads));
            for row in values(&gradient).chunks_exact(width) {
                out.extend_from_slice(row);
                out.push(0.0);
            }
            [Some(tensor(out, [tokens, self.heads, width + 1]))]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{check_gradients, random, sizes};

    #[test]
    fn equals_the_generic_body_forward_and_backward() {
        for [rows, heads, width] in sizes([300, 4, 33]) {
            check_gradients([random([rows, heads, width + 1], 1)], |[x]| mixed_values(x), |[x]| generic::forward(x));
        }
    }
}
