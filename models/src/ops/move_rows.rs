//! Moving rows to other places.

use std::sync::{Arc, OnceLock};

use burn::backend::Dispatch;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{Device, Int, Tensor};

use super::route::routed;
use super::tape::{BackwardInputs, Compute, Operation, Run};

/// No row.
const NONE: u32 = u32::MAX;

/// Where each row comes from and where it goes: no two rows go to one place, some may go nowhere, and places that
/// nothing goes to are filled with zeros. They serve the tensors of one device.
#[derive(Debug, Clone)]
pub struct RowMoves {
    there: Arc<Direction>,
    back: Arc<Direction>,
}

/// One way of the moves.
#[derive(Debug)]
struct Direction {
    /// For each row of the result the row that it is, or [`NONE`].
    sources: Vec<u32>,
    /// The same on the device of the rows, brought there once; -1 for no row.
    on_device: OnceLock<Tensor<1, Int>>,
}

impl Direction {
    fn new(sources: Vec<u32>) -> Arc<Self> {
        Arc::new(Self { sources, on_device: OnceLock::new() })
    }

    fn on(&self, device: &Device) -> Tensor<1, Int> {
        let number = |&row: &u32| if row == NONE { -1 } else { row as i32 };
        let numbers = || self.sources.iter().map(number).collect::<Vec<i32>>();
        self.on_device.get_or_init(|| Tensor::from_data(numbers().as_slice(), device)).clone()
    }
}

impl RowMoves {
    /// Picks rows: `picked[i]` becomes row `i`; the other ones of `rows` are dropped.
    ///
    /// # Panics
    ///
    /// If a row is picked twice, or does not exist.
    pub fn pick(picked: &[usize], rows: usize) -> Self {
        let mut targets = vec![NONE; rows];
        for (place, &row) in picked.iter().enumerate() {
            assert_eq!(targets[row], NONE, "row {row} is picked twice");
            targets[row] = place as u32;
        }
        Self { there: Direction::new(picked.iter().map(|&row| row as u32).collect()), back: Direction::new(targets) }
    }

    /// The way back: what was picked returns to its place, what was dropped is zero.
    pub fn back(&self) -> Self {
        Self { there: self.back.clone(), back: self.there.clone() }
    }
}

/// Moves the rows of `x`, `[rows, width]`.
///
/// # Panics
///
/// If the moves are not for as many rows.
pub fn move_rows(x: Tensor<2>, moves: &RowMoves) -> Tensor<2> {
    let [rows, _] = x.dims();
    assert_eq!(rows, moves.back.sources.len(), "the moves must be for as many rows");
    Tensor::from_dispatch(Dispatch::move_rows(x.into_dispatch(), moves.clone()))
}

routed! {
    trait MoveRowsOps: Run<MoveRows, 1> {
        fn move_rows(x: FloatTensor<Self>, moves: RowMoves) -> FloatTensor<Self> {
            Self::run(MoveRows(moves), [x])
        }
    }
}

#[derive(Debug, Clone)]
struct MoveRows(RowMoves);

impl Operation<1> for MoveRows {
    fn needs(_: [bool; 1]) -> [bool; 1] {
        [false]
    }
}

pub(super) mod generic {
    use super::super::route::Plain;
    use super::{BackwardInputs, Compute, FloatTensor, MoveRows, NONE, RowMoves, Tensor};

    impl<B: Plain> Compute<B, 1> for MoveRows {
        fn forward(&self, [x]: [FloatTensor<B>; 1]) -> FloatTensor<B> {
            B::primitive(forward(B::float(x), &self.0))
        }

        fn gradients(self, given: BackwardInputs<B, 1>) -> [Option<FloatTensor<B>>; 1] {
            [Some(B::primitive(forward(B::float(given.gradient), &self.0.back())))]
        }
    }

    /// See [`super::move_rows`].
    pub fn forward(x: Tensor<2>, moves: &RowMoves) -> Tensor<2> {
        let rows = moves.there.on(&x.device().inner());
        let moved = x.select(0, rows.clone().clamp_min(0));
        if !moves.there.sources.contains(&NONE) {
            return moved;
        }
        let size = moved.dims();
        moved.mask_fill(rows.lower_elem(0).unsqueeze_dim::<2>(1).expand(size), 0.0)
    }
}

#[cfg(feature = "gpu")]
mod gpu {
    use burn::backend::Cube;
    use burn_cubecl::cubecl;
    use burn_cubecl::cubecl::prelude::*;
    use burn_cubecl::tensor::CubeTensor;

    use super::super::gpu::{argument, elements_on, empty_beside, in_order, row_numbers};
    use super::super::route::Generic;
    use super::{BackwardInputs, Compute, MoveRows, RowMoves};

    impl Compute<Cube, 1> for MoveRows {
        fn forward(&self, [x]: [CubeTensor; 1]) -> CubeTensor {
            forward(x, &self.0)
        }

        fn gradients(self, given: BackwardInputs<Cube, 1>) -> [Option<CubeTensor>; 1] {
            [Some(forward(given.gradient, &self.0.back()))]
        }
    }

    fn forward(x: CubeTensor, moves: &RowMoves) -> CubeTensor {
        let x = in_order(x);
        let rows = moves.there.on(&Cube::float::<2>(x.clone()).device());
        let rows = row_numbers(rows.try_into_primitive::<Cube>().expect("the rows are on their device"));
        let ([_, width], count) = (x.meta.shape().dims(), moves.there.sources.len());
        let elements = count * width;
        let out = empty_beside(&x, [count, width]);
        let (count, dim) = elements_on(&x, elements);
        move_elements::launch(&x.client, count, dim, argument(&x), argument(&rows), argument(&out), elements, width);
        out
    }

    #[cube(launch)]
    fn move_elements(x: &[f32], rows: &[i32], out: &mut [f32], elements: usize, width: usize) {
        if ABSOLUTE_POS < elements {
            let source = rows[ABSOLUTE_POS / width];
            let mut value = 0f32;
            if source >= 0 {
                value = x[usize::cast_from(source) * width + ABSOLUTE_POS % width];
            }
            out[ABSOLUTE_POS] = value;
        }
    }
}

#[cfg(feature = "flex")]
mod kernel {
    use burn::backend::Flex;
    use burn::backend::flex::FlexTensor;

    use super::super::values::{copies, dims, in_order, tensor, values};
    use super::{BackwardInputs, Compute, MoveRows, NONE, RowMoves};

    impl Compute<Flex, 1> for MoveRows {
        fn forward(&self, [x]: [FlexTensor; 1]) -> FlexTensor {
            forward(x, &self.0)
        }

        fn gradients(self, given: BackwardInputs<Flex, 1>) -> [Option<FlexTensor>; 1] {
            [Some(forward(given.gradient, &self.0.back()))]
        }
    }

    fn forward(x: FlexTensor, moves: &RowMoves) -> FlexTensor {
        let x = in_order(x);
        let [_, width] = dims(&x);
        let (sources, from) = (&moves.there.sources, values(&x));
        let row = |source: u32| (source != NONE).then(|| &from[source as usize * width..][..width]);
        tensor(copies(sources, width, row), [sources.len(), width])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{check_gradients, random, same};

    #[test]
    fn equals_the_generic_body_forward_and_backward() {
        let moves = RowMoves::pick(&[4, 0, 3], 6);
        check_gradients([random([6, 5], 1)], |[x]| move_rows(x, &moves), |[x]| generic::forward(x, &moves));
        let back = moves.back();
        check_gradients([random([3, 5], 1)], |[x]| move_rows(x, &back), |[x]| generic::forward(x, &back));
    }

    #[test]
    fn what_was_picked_comes_back_and_the_rest_is_zero() {
        let moves = RowMoves::pick(&[2, 0], 3);
        let x = random([3, 4], 1);
        let returned = move_rows(move_rows(x.clone(), &moves), &moves.back());
        let zeros = Tensor::zeros([1, 4], &x.device());
        same(&returned, &Tensor::cat(vec![x.clone().narrow(0, 0, 1), zeros, x.narrow(0, 2, 1)], 0), 0.0);
    }
}
