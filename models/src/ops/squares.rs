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

/// Routes the sum to the backend of its matrix.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(feature = "gpu"),
)]
trait SquaresOps: Backend {
    fn squares(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Rows first: no single reduction is so long that a backend may reorder it from run to run.
#[cfg(any(feature = "flex", feature = "ndarray"))]
fn by_rows<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_sum(B::float_sum_dim(B::float_mul(x.clone(), x), 1))
}

#[cfg(feature = "flex")]
impl SquaresOps for burn::backend::Flex {
    fn squares(x: FloatTensor<Self>) -> FloatTensor<Self> {
        by_rows::<Self>(x)
    }
}

#[cfg(feature = "ndarray")]
impl SquaresOps for burn::backend::NdArray {
    fn squares(x: FloatTensor<Self>) -> FloatTensor<Self> {
        by_rows::<Self>(x)
    }
}

#[cfg(feature = "gpu")]
mod gpu {
    use burn::backend::Cube;
    use burn_cubecl::cubecl;
    use burn_cubecl::cubecl::prelude::*;
    use burn_cubecl::tensor::CubeTensor;

    use super::super::gpu::{argument, empty_beside, in_order, own_row, rows_on, sum_over_lanes};
    use super::SquaresOps;

    /// Planes that share the elements; each adds up a part.
    const PARTS: usize = 256;

    impl SquaresOps for Cube {
        fn squares(x: CubeTensor) -> CubeTensor {
            let x = in_order(x);
            let out = empty_beside(&x, [PARTS]);
            let launch = rows_on(&x, PARTS);
            add_up::launch(
                &x.client,
                launch.cube_count,
                launch.cube_dim,
                argument(&x),
                argument(&out),
                x.meta.num_elements(),
                PARTS,
                launch.lanes,
            );
            out
        }
    }

    #[cube(launch)]
    fn add_up(x: &[f32], out: &mut [f32], elements: usize, parts: usize, #[comptime] lanes: u32) {
        let part = own_row();
        if part < parts {
            let lanes_of_all = parts * lanes as usize;
            let mut sum = 0f32;
            for i in range_stepped(part * lanes as usize + UNIT_POS_X as usize, elements, lanes_of_all) {
                sum += x[i] * x[i];
            }
            let sum = sum_over_lanes(sum, lanes);
            if UNIT_POS_X == 0 {
                out[part] = sum;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::squares;
    use crate::ops::testing::{random, same};

    #[test]
    fn add_up_to_the_sum_of_all_squares() {
        for size in [[1, 1], [7, 90], [300, 700]] {
            let x = random(size, 1);
            same(&squares(x.clone()).sum(), &x.square().sum_dim(1).sum(), 1e-5);
        }
    }
}
