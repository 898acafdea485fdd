//! Moving rows to other places.

use std::sync::{Arc, OnceLock};

use burn::backend::Dispatch;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{Bool, Int, Tensor};

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
    /// The same on the device of the rows, brought there once.
    on_device: OnceLock<Sources>,
}

#[derive(Debug)]
struct Sources {
    /// For each row of the result the row that it is; where it is none, any, or on a GPU -1.
    rows: Tensor<1, Int>,
    /// Which rows of the result are zeros, `[rows, 1]`; absent if none are.
    missing: Option<Tensor<2, Bool>>,
}

impl Direction {
    fn new(sources: Vec<u32>) -> Arc<Self> {
        Arc::new(Self { sources, on_device: OnceLock::new() })
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
    use burn::tensor::Device;

    use super::super::route::Plain;
    use super::{
        BackwardInputs, Bool, Compute, Direction, FloatTensor, Int, MoveRows, NONE, RowMoves, Sources, Tensor,
    };

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
        let Sources { rows, missing } = moves.there.on_device.get_or_init(|| bring(&moves.there, &x.device().inner()));
        let moved = x.select(0, rows.clone());
        let size = moved.dims();
        match missing {
            Some(missing) => moved.mask_fill(missing.clone().expand(size), 0.0),
            None => moved,
        }
    }

    fn bring(direction: &Direction, device: &Device) -> Sources {
        let sources = || direction.sources.iter();
        let rows: Vec<i32> = sources().map(|&row| if row == NONE { 0 } else { row as i32 }).collect();
        let missing: Vec<bool> = sources().map(|&row| row == NONE).collect();
        Sources {
            rows: Tensor::<1, Int>::from_data(rows.as_slice(), device),
            missing: missing
                .contains(&true)
                .then(|| Tensor::<1, Bool>::from_data(missing.as_slice(), device).unsqueeze_dim(1)),
        }
    }
}

#[cfg(feature = "gpu")]
mod gpu {
    use burn::backend::Cube;
    use burn::tensor::Tensor;
    use burn_cubecl::cubecl;
    use burn_cubecl::cubecl::prelude::*;
    use burn_cubecl::tensor::CubeTensor;

    use super::super::gpu::{argument, elements_on, empty_beside, in_order, row_numbers};
    use super::super::route::Generic;
    use super::{BackwardInputs, Compute, MoveRows, NONE, RowMoves, Sources};

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
        let sources = &moves.there.sources;
        let Sources { rows, .. } = moves.there.on_device.get_or_init(|| {
            let rows = sources.iter().map(|&row| if row == NONE { -1 } else { row as i32 }).collect::<Vec<i32>>();
            let device = Cube::float::<2>(x.clone()).device();
            Sources { rows: Tensor::from_data(rows.as_slice(), &device), missing: None }
        });
        let rows = row_numbers(rows.clone().try_into_primitive::<Cube>().expect("the rows are on their device"));
        let [_, width] = x.meta.shape().dims();
        let elements = sources.len() * width;
        let out = empty_beside(&x, [sources.len(), width]);
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
