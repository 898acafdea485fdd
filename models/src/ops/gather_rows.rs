//! Gathering rows, and scattering them back.

use std::sync::Arc;

use burn::backend::Dispatch;
use burn::backend::tensor::FloatTensor;
use burn::tensor::Tensor;

use super::route::routed;
use super::table::{Sendable, Table};
use super::tape::{BackwardInputs, Compute, Operation, Run};

/// No row.
const NONE: i32 = -1;

/// Which rows are gathered, none of them twice; its inverse scatters them back, with zeros for the others. It serves
/// the tensors of one device.
#[derive(Debug, Clone)]
pub struct RowGather {
    /// For each row of the result the row that it is, or [`NONE`].
    sources: Arc<Table<i32>>,
    /// The same for the inverse.
    back: Arc<Table<i32>>,
}

impl RowGather {
    /// Row `gathered[i]` becomes row `i`; the others of `rows` rows are dropped.
    ///
    /// # Panics
    ///
    /// If a row is gathered twice, or does not exist.
    pub fn new(gathered: &[usize], rows: usize) -> Self {
        Self::filled(gathered, rows, 0)
    }

    /// The same with so many rows of zeros behind those that are gathered.
    ///
    /// # Panics
    ///
    /// If a row is gathered twice, or does not exist.
    pub fn filled(gathered: &[usize], rows: usize, zeros: usize) -> Self {
        let mut targets = vec![NONE; rows];
        for (place, &row) in gathered.iter().enumerate() {
            assert_eq!(targets[row], NONE, "row {row} is gathered twice");
            targets[row] = place as i32;
        }
        let sources = gathered.iter().map(|&row| row as i32).chain(std::iter::repeat_n(NONE, zeros)).collect();
        Self { sources: Table::new(sources).into(), back: Table::new(targets).into() }
    }

    /// The scatter back: what was gathered returns to its place, what was dropped is zero.
    pub fn inverse(&self) -> Self {
        Self { sources: self.back.clone(), back: self.sources.clone() }
    }

    /// What kernels look up, forward and backward.
    pub fn tables(&self) -> [&dyn Sendable; 2] {
        [&*self.sources, &*self.back]
    }
}

/// Gathers rows of `x`, `[rows, width]`.
///
/// # Panics
///
/// If `gather` is for another number of rows.
pub fn gather_rows(x: Tensor<2>, gather: &RowGather) -> Tensor<2> {
    let [rows, _] = x.dims();
    assert_eq!(rows, gather.back.numbers().len(), "the gather must be for as many rows as x has");
    Tensor::from_dispatch(Dispatch::gather_rows(x.into_dispatch(), gather.clone()))
}

routed! {
    trait GatherRowsOps: Run<GatherRows, 1> {
        fn gather_rows(x: FloatTensor<Self>, gather: RowGather) -> FloatTensor<Self> {
            Self::run(GatherRows(gather), [x])
        }
    }
}

#[derive(Debug, Clone)]
struct GatherRows(RowGather);

impl Operation<1> for GatherRows {
    fn needs(_: [bool; 1]) -> [bool; 1] {
        [false]
    }
}

pub(super) mod generic {
    use super::super::route::Plain;
    use super::{BackwardInputs, Compute, FloatTensor, GatherRows, NONE, RowGather, Tensor};

    impl<B: Plain> Compute<B, 1> for GatherRows {
        fn forward(&self, [x]: [FloatTensor<B>; 1]) -> FloatTensor<B> {
            B::primitive(forward(B::float(x), &self.0))
        }

        fn gradients(self, given: BackwardInputs<B, 1>) -> [Option<FloatTensor<B>>; 1] {
            [Some(B::primitive(forward(B::float(given.gradient), &self.0.inverse())))]
        }
    }

    /// See [`super::gather_rows`].
    pub fn forward(x: Tensor<2>, gather: &RowGather) -> Tensor<2> {
        let rows = gather.sources.on(&x.device().inner());
        let moved = x.select(0, rows.clone().clamp_min(0));
        if !gather.sources.numbers().contains(&NONE) {
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

    use super::super::gpu::{argument, elements_on, empty_beside, in_order};
    use super::{BackwardInputs, Compute, GatherRows, RowGather};

    impl Compute<Cube, 1> for GatherRows {
        fn forward(&self, [x]: [CubeTensor; 1]) -> CubeTensor {
            forward(x, &self.0)
        }

        fn gradients(self, given: BackwardInputs<Cube, 1>) -> [Option<CubeTensor>; 1] {
            [Some(forward(given.gradient, &self.0.inverse()))]
        }
    }

    fn forward(x: CubeTensor, gather: &RowGather) -> CubeTensor {
        let x = in_order(x);
        let rows = gather.sources.beside(&x);
        let ([_, width], count) = (x.meta.shape().dims(), gather.sources.numbers().len());
        let elements = count * width;
        let out = empty_beside(&x, [count, width]);
        let (count, dim) = elements_on(&x, elements);
        gather_elements::launch(&x.client, count, dim, argument(&x), argument(&rows), argument(&out), elements, width);
        out
    }

    #[cube(launch)]
    fn gather_elements(x: &[f32], rows: &[i32], out: &mut [f32], elements: usize, width: usize) {
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
    use super::{BackwardInputs, Compute, GatherRows, NONE, RowGather};

    impl Compute<Flex, 1> for GatherRows {
        fn forward(&self, [x]: [FlexTensor; 1]) -> FlexTensor {
            forward(x, &self.0)
        }

        fn gradients(self, given: BackwardInputs<Flex, 1>) -> [Option<FlexTensor>; 1] {
            [Some(forward(given.gradient, &self.0.inverse()))]
        }
    }

    fn forward(x: FlexTensor, gather: &RowGather) -> FlexTensor {
        let x = in_order(x);
        let [_, width] = dims(&x);
        let (sources, from) = (gather.sources.numbers(), values(&x));
        let row = |source: i32| (source != NONE).then(|| &from[source as usize * width..][..width]);
        tensor(copies(sources, width, row), [sources.len(), width])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{check_gradients, numbers, random, same, sizes};

    #[test]
    fn equals_the_generic_body_forward_and_backward() {
        for [rows, picked, free, width] in sizes([60, 60, 9, 40]) {
            let picked = picked.min(rows);
            let order = numbers(rows, 1 << 20, 1);
            let mut places: Vec<usize> = (0..rows).collect();
            places.sort_by_key(|&place| order[place]);
            let gather = RowGather::new(&places[..picked], rows);
            let filled = RowGather::filled(&places[..picked], rows, free);
            for (gather, rows) in [(&gather, rows), (&filled, rows), (&gather.inverse(), picked)] {
                let x = random([rows, width], 1);
                check_gradients([x], |[x]| gather_rows(x, gather), |[x]| generic::forward(x, gather));
            }
        }
    }

    #[test]
    fn what_was_picked_comes_back_and_the_rest_is_zero() {
        let gather = RowGather::new(&[2, 0], 3);
        let x = random([3, 4], 1);
        let returned = gather_rows(gather_rows(x.clone(), &gather), &gather.inverse());
        let zeros = Tensor::zeros([1, 4], &x.device());
        same(&returned, &Tensor::cat(vec![x.clone().narrow(0, 0, 1), zeros, x.narrow(0, 2, 1)], 0), 0.0);
    }
}
