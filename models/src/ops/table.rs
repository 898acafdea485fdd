//! Numbers that operations look up.

use std::fmt::Debug;
use std::sync::OnceLock;

#[cfg(feature = "gpu")]
use burn::backend::{Cube, DType};
use burn::tensor::{Device, Int, Tensor};
#[cfg(feature = "gpu")]
use burn_cubecl::tensor::CubeTensor;

#[cfg(feature = "gpu")]
use super::gpu::{device_of, row_numbers};
use crate::host;

/// Numbers that a device is told of once. It serves the tensors of one device.
#[derive(Debug)]
pub struct Table<N: Number> {
    numbers: Vec<N>,
    there: OnceLock<N::Tensor>,
}

/// What a [`Table`] consists of.
pub trait Number: Copy + Debug {
    /// A tensor of them, `[numbers]`.
    type Tensor: Clone + Debug;

    fn send(numbers: &[Self], device: &Device) -> Self::Tensor;

    /// The bits of an integer.
    #[cfg(feature = "gpu")]
    fn bits(self) -> i32;

    /// The tensor of bits that lie on a GPU.
    #[cfg(feature = "gpu")]
    fn of_bits(bits: CubeTensor) -> Self::Tensor;

    /// The tensor as kernels read it.
    #[cfg(feature = "gpu")]
    fn as_kernels_read(numbers: Self::Tensor) -> CubeTensor;
}

#[cfg(feature = "gpu")]
const ELSEWHERE: &str = "a table is on the device of its tensors";

impl Number for i32 {
    type Tensor = Tensor<1, Int>;

    fn send(numbers: &[Self], device: &Device) -> Self::Tensor {
        host::indices(numbers, device)
    }

    #[cfg(feature = "gpu")]
    fn bits(self) -> i32 {
        self
    }

    #[cfg(feature = "gpu")]
    fn of_bits(bits: CubeTensor) -> Self::Tensor {
        Tensor::from_primitive::<Cube>(bits)
    }

    #[cfg(feature = "gpu")]
    fn as_kernels_read(numbers: Self::Tensor) -> CubeTensor {
        row_numbers(numbers.try_into_primitive::<Cube>().expect(ELSEWHERE))
    }
}

impl Number for f32 {
    type Tensor = Tensor<1>;

    fn send(numbers: &[Self], device: &Device) -> Self::Tensor {
        host::vector(numbers.to_vec(), device)
    }

    #[cfg(feature = "gpu")]
    fn bits(self) -> i32 {
        self.to_bits().cast_signed()
    }

    #[cfg(feature = "gpu")]
    fn of_bits(bits: CubeTensor) -> Self::Tensor {
        Tensor::from_primitive::<Cube>(CubeTensor { dtype: DType::F32, ..bits })
    }

    #[cfg(feature = "gpu")]
    fn as_kernels_read(numbers: Self::Tensor) -> CubeTensor {
        numbers.try_into_primitive::<Cube>().expect(ELSEWHERE)
    }
}

impl<N: Number> Table<N> {
    /// A table that no device knows yet.
    pub fn new(numbers: Vec<N>) -> Self {
        Self { numbers, there: OnceLock::new() }
    }

    /// The numbers.
    pub fn numbers(&self) -> &[N] {
        &self.numbers
    }

    /// The numbers as kernels on a GPU read them, on the device of the tensor that they are for.
    #[cfg(feature = "gpu")]
    pub(super) fn beside(&self, x: &CubeTensor) -> CubeTensor {
        N::as_kernels_read(self.on(&device_of(x)))
    }

    /// The numbers on a device, sent there now if they have not been.
    pub fn on(&self, device: &Device) -> N::Tensor {
        self.there.get_or_init(|| N::send(&self.numbers, device)).clone()
    }
}

/// A table of any numbers.
pub trait Sendable {
    /// Its numbers' bits, if it has yet to be sent.
    #[cfg(feature = "gpu")]
    fn waiting(&self) -> Option<Vec<i32>>;

    /// Takes the bits that were sent.
    #[cfg(feature = "gpu")]
    fn lies(&self, bits: CubeTensor);
}

impl<N: Number> Sendable for Table<N> {
    #[cfg(feature = "gpu")]
    fn waiting(&self) -> Option<Vec<i32>> {
        let waits = self.there.get().is_none() && !self.numbers.is_empty();
        waits.then(|| self.numbers.iter().map(|number| number.bits()).collect())
    }

    #[cfg(feature = "gpu")]
    fn lies(&self, bits: CubeTensor) {
        // Another thread may have been faster.
        let _ = self.there.set(N::of_bits(bits));
    }
}

/// Sends what is about to be looked up in one transfer, if the device is a GPU: a transfer costs more than the bytes of
/// most tables.
pub fn send_together<'a, I: IntoIterator<Item = &'a dyn Sendable>>(device: &Device, tables: impl FnOnce() -> I) {
    #[cfg(feature = "gpu")]
    if crate::driver(device).is_some() {
        gpu::send(device, tables());
    }
    #[cfg(not(feature = "gpu"))]
    let _ = (tables, device);
}

#[cfg(feature = "gpu")]
mod gpu {
    use burn::tensor::Device;

    use super::super::gpu::part;
    use super::{Number, Sendable};
    use crate::host;

    /// Each table begins at a multiple of so many numbers, where any device lets a kernel begin to read.
    const STEP: usize = 128;

    pub fn send<'a>(device: &Device, tables: impl IntoIterator<Item = &'a dyn Sendable>) {
        let (mut numbers, mut waiting) = (Vec::new(), Vec::new());
        for sent in tables {
            if let Some(own) = sent.waiting() {
                numbers.resize(numbers.len().next_multiple_of(STEP), 0);
                waiting.push((sent, numbers.len(), own.len()));
                numbers.extend(own);
            }
        }
        if numbers.is_empty() {
            return;
        }
        let there = i32::as_kernels_read(host::indices(&numbers, device));
        for (sent, start, count) in waiting {
            sent.lies(part(&there, start, [count]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Sendable, Table, send_together};
    use crate::host::Transfers;
    use crate::ops::testing::{device, on_gpu};

    #[test]
    fn what_is_sent_together_is_what_was_to_be_sent_and_goes_once() {
        let (ints, floats, none) = (Table::new((-3..200).collect()), Table::new(vec![0.5, -1e-30]), Table::new(vec![]));
        let late: Table<i32> = Table::new(vec![7]);
        let before = Transfers::so_far();
        let tables: [&dyn Sendable; 3] = [&ints, &none as &Table<f32>, &floats];
        send_together(&device(), || tables);
        let found: Vec<i32> = ints.on(&device()).into_data().iter().collect();
        assert_eq!(found, (-3..200).collect::<Vec<i32>>());
        let found: Vec<f32> = floats.on(&device()).into_data().iter().collect();
        assert_eq!(found, [0.5, -1e-30]);
        assert_eq!(late.on(&device()).into_data().iter::<i32>().collect::<Vec<_>>(), [7]);
        late.on(&device());
        assert_eq!(Transfers::since(before).uploads, if on_gpu() { 2 } else { 3 });
    }
}
