//! Values from the device to the host, and back.

use std::cell::Cell;

use burn::tensor::{Device, Int, Tensor, Transaction};

thread_local! {
    static READS: Cell<usize> = const { Cell::new(0) };
}

/// The values of some tensors, without gradient, in one read.
///
/// The host waits until the device has done all that was asked of it. So reads are few: one a step of stage 1, and one
/// more for the rewards of noise in stage 2; an adaptive temperature and lists read once a micro-batch, and a search
/// once a pass.
pub fn read_all(tensors: Vec<Tensor<1>>) -> Vec<Vec<f32>> {
    READS.set(READS.get() + 1);
    let register = |transaction: Transaction, tensor: Tensor<1>| transaction.register(tensor.inner());
    let data = tensors.into_iter().fold(Transaction::default(), register).execute();
    data.into_iter().map(|data| data.iter::<f32>().collect()).collect()
}

/// The values of a tensor, the last dimension fastest, without gradient.
pub fn read<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    READS.set(READS.get() + 1);
    tensor.inner().into_data_as::<f32>().iter::<f32>().collect()
}

/// How often this thread has read, for tests of what waits for the device.
pub fn reads() -> usize {
    READS.get()
}

/// An index tensor without gradient on the given device.
pub(crate) fn indices(values: &[i32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(values, &device.clone().inner())
}
