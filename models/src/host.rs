//! Values from the device to the host, and back.

use std::cell::Cell;

use burn::tensor::{Device, Int, Tensor, TensorData, Transaction};

thread_local! {
    static TRANSFERS: Cell<Transfers> = const { Cell::new(Transfers { uploads: 0, downloads: 0, bytes: 0 }) };
}

/// What went from the host to a device and back, without the weights of a model. On a CPU nothing moves, but it is
/// counted in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Transfers {
    /// Times that values were sent to a device.
    pub uploads: u64,
    /// Times that values were read from a device.
    pub downloads: u64,
    /// Bytes of both.
    pub bytes: u64,
}

impl Transfers {
    /// Those of this thread so far.
    pub fn so_far() -> Self {
        TRANSFERS.get()
    }

    /// Those of this thread since there were the given ones.
    #[must_use]
    pub fn since(earlier: Self) -> Self {
        let now = Self::so_far();
        Self {
            uploads: now.uploads - earlier.uploads,
            downloads: now.downloads - earlier.downloads,
            bytes: now.bytes - earlier.bytes,
        }
    }

    fn count(uploads: u64, downloads: u64, values: usize) {
        let all = TRANSFERS.get();
        TRANSFERS.set(Self {
            uploads: all.uploads + uploads,
            downloads: all.downloads + downloads,
            bytes: all.bytes + 4 * values as u64,
        });
    }
}

/// The values of some tensors, without gradient, in one read.
///
/// The host waits until the device has done all that was asked of it. So reads are few: one a step of stage 1, and one
/// more for the rewards of noise in stage 2; an adaptive temperature and lists read once a micro-batch, and a search
/// once a pass.
pub fn read_all(tensors: Vec<Tensor<1>>) -> Vec<Vec<f32>> {
    let register = |transaction: Transaction, tensor: Tensor<1>| transaction.register(tensor.inner());
    let data = tensors.into_iter().fold(Transaction::default(), register).execute();
    let values: Vec<Vec<f32>> = data.into_iter().map(|data| data.iter::<f32>().collect()).collect();
    Transfers::count(0, 1, values.iter().map(Vec::len).sum());
    values
}

/// The values of a tensor, the last dimension fastest, without gradient.
pub fn read<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let values: Vec<f32> = tensor.inner().into_data_as::<f32>().iter::<f32>().collect();
    Transfers::count(0, 1, values.len());
    values
}

/// A tensor without gradient on the given device.
///
/// # Panics
///
/// If there are not as many values as the shape has places.
pub fn floats<const D: usize>(values: Vec<f32>, shape: [usize; D], device: &Device) -> Tensor<D> {
    Transfers::count(1, 0, values.len());
    Tensor::from_data(TensorData::new(values, shape), &device.clone().inner())
}

/// The same of one dimension.
pub fn vector(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let count = values.len();
    floats(values, [count], device)
}

/// An index tensor without gradient on the given device.
pub fn indices(values: &[i32], device: &Device) -> Tensor<1, Int> {
    Transfers::count(1, 0, values.len());
    Tensor::from_data(values, &device.clone().inner())
}
