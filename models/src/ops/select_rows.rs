//! Selecting rows of two tables.

use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend, Dispatch};
use burn::tensor::{Int, Tensor};

use super::route::{Plain, routed};

/// The given rows of `a`, `[rows of a, width]`, and `b`, `[rows of b, width]`; those of `b` count on from those of `a`.
/// A row may be selected any number of times. -1 stands for a row that nothing looks at and that may have any values.
///
/// # Panics
///
/// If the two are not equally wide, or a row does not exist.
pub fn select_rows(a: Tensor<2>, b: Tensor<2>, rows: Tensor<1, Int>) -> Tensor<2> {
    assert_eq!(a.dims()[1], b.dims()[1], "the tables must be equally wide");
    Tensor::from_dispatch(Dispatch::select_rows(a.into_dispatch(), b.into_dispatch(), rows.into_dispatch()))
}

routed! {
    trait SelectRowsOps: Backend {
        fn select_rows(a: FloatTensor<Self>, b: FloatTensor<Self>, rows: IntTensor<Self>) -> FloatTensor<Self> {
            Self::float_select(Self::float_cat(vec![a, b], 0), 0, Self::int_clamp_min(rows, 0.into()))
        }
    }
}

impl<B: Plain> SelectRowsOps for B {}

impl<B: Backend, C: CheckpointStrategy> SelectRowsOps for Autodiff<B, C> {}

#[cfg(feature = "gpu")]
mod gpu {
    use burn::backend::Cube;
    use burn_cubecl::cubecl;
    use burn_cubecl::cubecl::prelude::*;
    use burn_cubecl::tensor::CubeTensor;

    use super::super::gpu::{argument, elements_on, empty_beside, in_order, row_numbers};
    use super::SelectRowsOps;

    impl SelectRowsOps for Cube {
        fn select_rows(a: CubeTensor, b: CubeTensor, rows: CubeTensor) -> CubeTensor {
            let ([a, b], rows) = ([a, b].map(in_order), row_numbers(rows));
            let ([of_a, width], [selected]) = (a.meta.shape().dims(), rows.meta.shape().dims());
            let elements = selected * width;
            let out = empty_beside(&a, [selected, width]);
            let (count, dim) = elements_on(&a, elements);
            select::launch(
                &a.client,
                count,
                dim,
                argument(&a),
                argument(&b),
                argument(&rows),
                argument(&out),
                elements,
                width,
                of_a,
            );
            out
        }
    }

    #[cube(launch)]
    fn select(a: &[f32], b: &[f32], rows: &[i32], out: &mut [f32], elements: usize, width: usize, of_a: usize) {
        if ABSOLUTE_POS < elements {
            let column = ABSOLUTE_POS % width;
            // What nothing looks at may be the first row.
            let row = usize::cast_from(rows[ABSOLUTE_POS / width].max(0));
            if row < of_a {
                out[ABSOLUTE_POS] = a[row * width + column];
            } else {
                out[ABSOLUTE_POS] = b[(row - of_a) * width + column];
            }
        }
    }
}

#[cfg(feature = "flex")]
mod kernel {
    use burn::backend::Flex;
    use burn::backend::flex::FlexTensor;

    use super::super::values::{copies, dims, in_order, indices, tensor, values};
    use super::SelectRowsOps;

    impl SelectRowsOps for Flex {
        fn select_rows(a: FlexTensor, b: FlexTensor, rows: FlexTensor) -> FlexTensor {
            forward(a, b, rows)
        }
    }

    /// Copies each row once, in threads, without laying the tables together first.
    fn forward(a: FlexTensor, b: FlexTensor, rows: FlexTensor) -> FlexTensor {
        let (a, b, rows) = (in_order(a), in_order(b), indices(&rows));
        let [of_a, width] = dims(&a);
        let (from_a, from_b) = (values(&a), values(&b));
        let row = |row: usize| match row {
            usize::MAX => None,
            row if row < of_a => Some(&from_a[row * width..][..width]),
            row => Some(&from_b[(row - of_a) * width..][..width]),
        };
        tensor(copies(&rows, width, row), [rows.len(), width])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{check_gradients, device, numbers, random, same, sizes};

    fn rows(rows: &[i32]) -> Tensor<1, Int> {
        Tensor::from_data(rows, &device())
    }

    #[test]
    fn equals_a_selection_forward_and_backward() {
        for [of_a, of_b, width, count] in sizes([60, 60, 40, 90]) {
            let selected: Vec<i32> = numbers(count, of_a + of_b, 1).into_iter().map(|row| row as i32).collect();
            check_gradients(
                [random([of_a, width], 1), random([of_b, width], 2)],
                |[a, b]| select_rows(a, b, rows(&selected)),
                |[a, b]| Tensor::cat(vec![a, b], 0).select(0, rows(&selected)),
            );
        }
    }

    #[test]
    fn what_nothing_looks_at_disturbs_no_other_row() {
        let (a, b) = (random([2, 4], 1), random([1, 4], 2));
        let selected = select_rows(a.clone(), b.clone(), rows(&[2, -1, 1]));
        same(&selected.clone().narrow(0, 0, 1), &b, 0.0);
        same(&selected.narrow(0, 2, 1), &a.narrow(0, 1, 1), 0.0);
    }
}
