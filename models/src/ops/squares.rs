//! Sums of squares.

use burn::backend::Dispatch;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, backend_extension};
use burn::tensor::Tensor;

/// Numbers that add up to the sum of the squares of `x`, as many as the backend likes, but as many for any matrix.
///
/// Nothing here is differentiable.
///
/// # Panics
///
/// If there are no elements.
pub fn squares(x: Tensor<2>) -> Tensor<1> {
    assert!(!x.dims().contains(&0), "{:?} has no squares", x.dims());
    Tensor::from_dispatch(Dispatch::squares(x.into_dispatch()))
}

/// [`squares`] of `x` and of those matrices before it whose `sums` are given.
///
/// # Panics
///
/// If there are no elements.
pub fn add_squares(sums: Tensor<1>, x: Tensor<2>) -> Tensor<1> {
    assert!(!x.dims().contains(&0), "{:?} has no squares", x.dims());
    Tensor::from_dispatch(Dispatch::add_squares(sums.into_dispatch(), x.into_dispatch()))
}

/// Routes the sums to the backend of their matrix.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "gpu"),
)]
trait SquaresOps: Backend {
    fn squares(x: FloatTensor<Self>) -> FloatTensor<Self>;

    fn add_squares(sums: FloatTensor<Self>, x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Rows first: no single reduction is so long that a backend may reorder it from run to run.
#[cfg(any(feature = "flex", feature = "ndarray"))]
fn by_rows<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_sum(B::float_sum_dim(B::float_mul(x.clone(), x), 1))
}

#[cfg(any(feature = "flex", feature = "ndarray"))]
fn more_by_rows<B: Backend>(sums: FloatTensor<B>, x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_add(sums, by_rows::<B>(x))
}

#[cfg(feature = "flex")]
impl SquaresOps for burn::backend::Flex {
    fn squares(x: FloatTensor<Self>) -> FloatTensor<Self> {
        by_rows::<Self>(x)
    }

    fn add_squares(sums: FloatTensor<Self>, x: FloatTensor<Self>) -> FloatTensor<Self> {
        more_by_rows::<Self>(sums, x)
    }
}

#[cfg(feature = "ndarray")]
impl SquaresOps for burn::backend::NdArray {
    fn squares(x: FloatTensor<Self>) -> FloatTensor<Self> {
        by_rows::<Self>(x)
    }

    fn add_squares(sums: FloatTensor<Self>, x: FloatTensor<Self>) -> FloatTensor<Self> {
        more_by_rows::<Self>(sums, x)
    }
}

#[cfg(feature = "gpu")]
mod gpu {
    use burn::backend::Cube;
    use burn_cubecl::cubecl;
    use burn_cubecl::cubecl::prelude::*;
    use burn_cubecl::tensor::CubeTensor;

    use super::super::gpu::{argument, empty_beside, in_order, own, own_row, rows_on, sum_over_lanes};
    use super::SquaresOps;

    /// Planes that share the elements; each adds up a part.
    const PARTS: usize = 256;

    impl SquaresOps for Cube {
        fn squares(x: CubeTensor) -> CubeTensor {
            let sums = empty_beside(&x, [PARTS]);
            add(sums, x, false)
        }

        fn add_squares(sums: CubeTensor, x: CubeTensor) -> CubeTensor {
            add(own(sums), x, true)
        }
    }

    /// The sums of `x`, written into `sums` or, where `more`, added to it.
    fn add(sums: CubeTensor, x: CubeTensor, more: bool) -> CubeTensor {
        let x = in_order(x);
        let launch = rows_on(&x, PARTS);
        add_up::launch(
            &x.client,
            launch.cube_count,
            launch.cube_dim,
            argument(&x),
            argument(&sums),
            x.meta.num_elements(),
            PARTS,
            launch.lanes,
            more,
        );
        sums
    }

    #[cube(launch)]
    fn add_up(
        x: &[f32],
        sums: &mut [f32],
        elements: usize,
        parts: usize,
        #[comptime] lanes: u32,
        #[comptime] more: bool,
    ) {
        let part = own_row();
        if part < parts {
            let lanes_of_all = parts * lanes as usize;
            let mut sum = 0f32;
            for i in range_stepped(part * lanes as usize + UNIT_POS_X as usize, elements, lanes_of_all) {
                sum += x[i] * x[i];
            }
            let mut sum = sum_over_lanes(sum, lanes);
            if UNIT_POS_X == 0 {
                if comptime!(more) {
                    sum += sums[part];
                }
                sums[part] = sum;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{add_squares, squares};
    use crate::ops::testing::{random, same, sizes};

    #[test]
    fn add_up_to_the_sum_of_all_squares() {
        for size in sizes([300, 700]) {
            let x = random(size, 1);
            let expected = x.clone().square().sum_dim(1).sum();
            let sums = squares(x.clone());
            same(&sums.clone().sum(), &expected, 1e-5);
            same(&add_squares(sums.clone(), x).sum(), &expected.clone().mul_scalar(2.0), 1e-5);
            same(&sums.sum(), &expected, 1e-5);
        }
    }
}
