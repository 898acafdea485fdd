//! What the kernels for GPUs have in common. They are written in CubeCL, once for all of its backends.
//!
//! A row, of a matrix or of attention, is one plane's (a warp's, a subgroup's): its lanes exchange values without shared
//! memory and without waiting for other planes.

use burn::backend::ops::FloatTensorOps;
use burn::backend::{Cube, DType};
use burn::tensor::{Device, FloatDType, Shape};
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::calculate_cube_count_elemwise;
use burn_cubecl::cubecl::ir::features::Plane;
use burn_cubecl::cubecl::ir::{ElemType, FloatKind};
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::kernel::cast;
/// The tensor with its values in row-major order.
pub use burn_cubecl::kernel::into_contiguous as in_order;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubek::matmul::definition::{MatmulElems, MatmulGlobalElems};
use cubek::matmul::launch::launch_ref;
use cubek::matmul::multi_level;
use cubek::matmul::strategy::Strategy;
use cubek::std::InputBinding;

use super::route::Generic;
use crate::Precision;

/// Units of a cube.
const UNITS: u32 = 128;

/// How rows are spread over the units of a device.
pub struct Rows {
    /// Units that share a row; a power of two.
    pub lanes: u32,
    pub cube_dim: CubeDim,
    pub cube_count: CubeCount,
}

/// Units that share a row, on the device of `x`.
pub fn lanes_on(x: &CubeTensor) -> u32 {
    // Where planes differ in size, each is divided into parts of the smallest.
    match x.client.features().plane.contains(Plane::Ops) {
        true => x.client.properties().hardware.plane_size_min.clamp(1, UNITS),
        false => 1,
    }
}

/// The units for as many rows, on the device of `x`.
pub fn rows_on(x: &CubeTensor, rows: usize) -> Rows {
    let lanes = lanes_on(x);
    let at_once = UNITS / lanes;
    let cubes = rows.div_ceil(at_once as usize) as u32;
    let most = x.client.properties().hardware.max_cube_count.0;
    let cube_count = CubeCount::Static(cubes.min(most), cubes.div_ceil(most), 1);
    Rows { lanes, cube_dim: CubeDim::new_2d(lanes, at_once), cube_count }
}

/// The units for as many single elements, on the device of `x`.
pub fn elements_on(x: &CubeTensor, elements: usize) -> (CubeCount, CubeDim) {
    let cube_dim = CubeDim::new_1d(UNITS);
    (calculate_cube_count_elemwise(&x.client, elements, cube_dim), cube_dim)
}

/// The device of `x`.
pub fn device_of(x: &CubeTensor) -> Device {
    Cube::float::<1>(x.clone()).device()
}

/// A tensor of row numbers, one after the other, as kernels read them.
pub fn row_numbers(rows: CubeTensor) -> CubeTensor {
    in_order(cast(rows, DType::I32))
}

/// The tensor in row-major order, copied if others hold it too: to be changed in place.
pub fn own(x: CubeTensor) -> CubeTensor {
    let x = in_order(x);
    if x.can_mut() { x } else { in_order(x.copy()) }
}

/// The elements of `x`, which are in order, from number `start` on. They are copied only where they do not begin where a
/// kernel may begin to read.
pub fn part<const D: usize>(x: &CubeTensor, start: usize, dims: [usize; D]) -> CubeTensor {
    let (size, count) = (x.dtype.size(), dims.iter().product::<usize>());
    let (first, length) = ((start * size) as u64, (count * size) as u64);
    if !first.is_multiple_of(x.client.properties().memory.alignment) {
        let flat = Cube::float_reshape(x.clone(), Shape::new([x.meta.num_elements()]));
        return Cube::float_reshape(Cube::float_slice(flat, &[(start..start + count).into()]), Shape::new(dims));
    }
    let after = x.handle.size_in_used() - first - length;
    let handle = x.handle.clone().offset_start(first).offset_end(after);
    CubeTensor::new_contiguous(x.client.clone(), x.device.clone(), Shape::new(dims), handle, x.dtype)
}

/// A tensor beside `x`, whose values are yet to be written one after the other: what Burn allocates may have gaps between
/// the rows, on CUDA.
pub fn empty_beside<const D: usize>(x: &CubeTensor, dims: [usize; D]) -> CubeTensor {
    empty_in(x.dtype, x, dims)
}

fn empty_in<const D: usize>(dtype: DType, x: &CubeTensor, dims: [usize; D]) -> CubeTensor {
    empty_device_contiguous_dtype(x.client.clone(), x.device.clone(), dims.into(), dtype)
}

/// Zeros beside `x`, one after the other.
pub fn zeros_beside(x: &CubeTensor, shape: Shape) -> CubeTensor {
    in_order(Cube::float_zeros(shape, &x.device, FloatDType::F32))
}

/// The tensor as a kernel's argument.
pub fn argument(x: &CubeTensor) -> BufferArg {
    x.clone().into_buffer_arg()
}

/// `a b` of two matrices that are in `precision`, as is the product.
///
/// Float32 is multiplied as float32: cubek's own choice takes tensor cores where there are any, which have 11 significant
/// bits for it. Each kernel is chosen by the sizes alone, so that a step never waits for trials of several.
pub fn product(a: CubeTensor, b: CubeTensor, precision: Precision) -> CubeTensor {
    let ([rows, _], [_, columns]) = (a.meta.shape().dims(), b.meta.shape().dims());
    let out = empty_in(precision.dtype().into(), &a, [rows, columns]);
    let kind = match precision {
        Precision::F32 => FloatKind::F32,
        Precision::Bf16 => FloatKind::BF16,
        Precision::F16 => FloatKind::F16,
    };
    let strategy = match precision {
        Precision::F32 => multi_level::Strategy::SimpleUnit(Default::default()).into(),
        Precision::Bf16 | Precision::F16 => Strategy::Auto,
    };
    let storage = ElemType::Float(kind);
    let [left, right] = [a, b].map(|factor| InputBinding::new(factor.binding(), storage));
    let mut types = MatmulElems::from_globals(&MatmulGlobalElems { lhs: storage, rhs: storage, out: storage });
    launch_ref(&strategy, &out.client, left, right, out.clone().binding(), &mut types)
        .unwrap_or_else(|error| panic!("a kernel for every size and type that a device computes in: {error:?}"));
    out
}

/// The row that this unit works on.
#[cube]
pub fn own_row() -> usize {
    CUBE_POS * CUBE_DIM_Y as usize + UNIT_POS_Y as usize
}

/// The sum of a value over the lanes of a row, for all of them.
#[cube]
pub fn sum_over_lanes(value: f32, #[comptime] lanes: u32) -> f32 {
    let mut sum = value;
    #[unroll]
    for step in 0..comptime!(lanes.trailing_zeros()) {
        sum += plane_shuffle_xor(sum, comptime!(1u32 << step));
    }
    sum
}

/// The product of two rows that begin at the given elements; each lane has some of the columns.
#[cube]
pub fn dot_of_lanes(a: &[f32], from_a: usize, b: &[f32], from_b: usize, width: usize, #[comptime] lanes: u32) -> f32 {
    let mut sum = 0f32;
    for i in range_stepped(UNIT_POS_X as usize, width, lanes as usize) {
        sum += a[from_a + i] * b[from_b + i];
    }
    sum_over_lanes(sum, lanes)
}

/// The largest value of the lanes of a row, for all of them.
#[cube]
pub fn most_of_lanes(value: f32, #[comptime] lanes: u32) -> f32 {
    let mut most = value;
    #[unroll]
    for step in 0..comptime!(lanes.trailing_zeros()) {
        most = most.max(plane_shuffle_xor(most, comptime!(1u32 << step)));
    }
    most
}

/// The value that the given lane of this row has.
#[cube]
pub fn of_lane(value: f32, lane: u32, #[comptime] lanes: u32) -> f32 {
    if comptime!(lanes == 1) { value } else { plane_shuffle(value, UNIT_POS_PLANE - UNIT_POS_X + lane) }
}
