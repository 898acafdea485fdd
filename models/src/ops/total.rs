//! The sum of a vector.

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch};
use burn::tensor::{Shape, Tensor};

use super::route::routed;
use super::tape::{BackwardInputs, Compute, Operation, Run};

/// The sum of `x`, `[n]`, as `[1]`.
///
/// GPUs have a kernel of ours for it, one for any `n`: Burn has several, which are compiled when a count first asks for
/// them.
pub fn total(x: Tensor<1>) -> Tensor<1> {
    let count = x.dims()[0];
    Tensor::from_dispatch(Dispatch::total(x.into_dispatch(), count))
}

routed! {
    trait TotalOps: Run<Total, 1> {
        fn total(x: FloatTensor<Self>, count: usize) -> FloatTensor<Self> {
            Self::run(Total { count }, [x])
        }
    }
}

#[derive(Debug, Clone)]
struct Total {
    count: usize,
}

impl Operation<1> for Total {
    fn needs(_: [bool; 1]) -> [bool; 1] {
        [false]
    }
}

/// How a backend adds up, and the way back.
trait Add: Backend {
    fn add(x: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::float_sum(x)
    }

    /// `x`, `[1]`, so many times.
    fn repeat(x: FloatTensor<Self>, count: usize) -> FloatTensor<Self> {
        Self::float_expand(x, Shape::new([count]))
    }
}

#[cfg(feature = "flex")]
impl Add for burn::backend::Flex {}

#[cfg(feature = "ndarray")]
impl Add for burn::backend::NdArray {}

impl<B: Add> Compute<B, 1> for Total {
    fn forward(&self, [x]: [FloatTensor<B>; 1]) -> FloatTensor<B> {
        B::add(x)
    }

    fn gradients(self, given: BackwardInputs<B, 1>) -> [Option<FloatTensor<B>>; 1] {
        [Some(B::repeat(given.gradient, self.count))]
    }
}

#[cfg(feature = "gpu")]
mod gpu {
    use burn::backend::Cube;
    use burn_cubecl::cubecl;
    use burn_cubecl::cubecl::prelude::*;
    use burn_cubecl::tensor::CubeTensor;

    use super::super::gpu::{argument, elements_on, empty_beside, in_order, own_row, rows_on, sum_over_lanes};
    use super::Add;

    impl Add for Cube {
        fn add(x: CubeTensor) -> CubeTensor {
            let x = in_order(x);
            let sum = empty_beside(&x, [1]);
            let launch = rows_on(&x, 1);
            add::launch(
                &x.client,
                launch.cube_count,
                launch.cube_dim,
                argument(&x),
                argument(&sum),
                x.meta.num_elements(),
                launch.lanes,
            );
            sum
        }

        fn repeat(x: CubeTensor, count: usize) -> CubeTensor {
            let out = empty_beside(&x, [count]);
            let (cubes, dim) = elements_on(&x, count);
            repeat::launch(&x.client, cubes, dim, argument(&x), argument(&out), count);
            out
        }
    }

    #[cube(launch)]
    fn add(x: &[f32], sum: &mut [f32], elements: usize, #[comptime] lanes: u32) {
        if own_row() == 0 {
            let mut own = 0f32;
            for i in range_stepped(UNIT_POS_X as usize, elements, lanes as usize) {
                own += x[i];
            }
            let own = sum_over_lanes(own, lanes);
            if UNIT_POS_X == 0 {
                sum[0] = own;
            }
        }
    }

    #[cube(launch)]
    fn repeat(x: &[f32], out: &mut [f32], elements: usize) {
        if ABSOLUTE_POS < elements {
            out[ABSOLUTE_POS] = x[0];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::total;
    use crate::ops::testing::{check_gradients, random, sizes};

    #[test]
    fn equals_the_sum_forward_and_backward() {
        for [count] in sizes([3000]) {
            // Sums that do not cancel, whose rounding is small beside them.
            let positive = random([1, count], 1).add_scalar(1.0);
            check_gradients([positive], |[x]| total(x.squeeze_dim(0)), |[x]| x.sum());
        }
    }
}
