//! Safetensors files as named float32 tensors.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use burn::tensor::Tensor;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo, TensorView};

use crate::files::replace_atomically;
use crate::parameters::StoredTensor;
use crate::{ModelError, Precision, host};

/// Reads a safetensors file; F16 and BF16 become float32.
///
/// # Errors
///
/// The file missing, cut short or malformed, another type, or a value that is not finite.
pub fn read_tensors(path: &Path) -> Result<BTreeMap<String, StoredTensor>, ModelError> {
    let mut file = File::open(path).map_err(ModelError::io(path))?;
    let header = read_header(path, &mut file)?;
    let mut tensors = BTreeMap::new();
    // One after the other: the file and its values are never in memory both.
    for name in header.offset_keys() {
        let TensorInfo { dtype, shape, data_offsets: (start, end) } = header.info(&name).expect("it is in the header");
        let mut bytes = vec![0; end - start];
        file.read_exact(&mut bytes).map_err(ModelError::io(path))?;
        let view = TensorView::new(*dtype, shape.clone(), &bytes).map_err(|error| not_whole(path, error))?;
        let values = to_f32(&view).ok_or_else(|| {
            ModelError::damaged(path, format!("tensor `{name}` has type {dtype:?}; must be F32, F16 or BF16"))
        })?;
        if let Some(place) = values.iter().position(|value| !value.is_finite()) {
            return Err(ModelError::damaged(
                path,
                format!("tensor `{name}` contains {} at index {place}", values[place]),
            ));
        }
        tensors.insert(name, StoredTensor { shape: shape.clone(), values });
    }
    Ok(tensors)
}

/// Reads the header of a safetensors file that has all that its header speaks of, so that no length in it is larger
/// than the file.
fn read_header(path: &Path, file: &mut File) -> Result<Metadata, ModelError> {
    let length = file.metadata().map_err(ModelError::io(path))?.len();
    let mut size = [0; 8];
    if length < size.len() as u64 {
        return Err(not_whole(path, "it has no header"));
    }
    file.read_exact(&mut size).map_err(ModelError::io(path))?;
    let (size, rest) = (u64::from_le_bytes(size), length - size.len() as u64);
    if size > rest {
        return Err(not_whole(path, "its header is longer than the file"));
    }
    let mut header = vec![0; size as usize];
    file.read_exact(&mut header).map_err(ModelError::io(path))?;
    let header: Metadata = serde_json::from_slice(&header).map_err(|error| not_whole(path, error))?;
    if header.data_len() as u64 != rest - size {
        let problem = format!("it has {} bytes of values, but its header declares {}", rest - size, header.data_len());
        return Err(not_whole(path, problem));
    }
    Ok(header)
}

fn not_whole(path: &Path, problem: impl Display) -> ModelError {
    ModelError::damaged(
        path,
        format!("is not a complete safetensors file ({problem}); it may be truncated, so copy it again"),
    )
}

fn to_f32(view: &TensorView) -> Option<Vec<f32>> {
    let bytes = view.data();
    let halves = |to_f32: fn([u8; 2]) -> f32| bytes.as_chunks::<2>().0.iter().map(|half| to_f32(*half)).collect();
    match view.dtype() {
        Dtype::F32 => Some(bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()),
        Dtype::F16 => Some(halves(|half| half::f16::from_le_bytes(half).to_f32())),
        Dtype::BF16 => Some(halves(|half| half::bf16::from_le_bytes(half).to_f32())),
        _ => None,
    }
}

/// A tensor to be written, whose values are fetched when it is its turn.
pub struct PendingTensor<'a> {
    /// Its name in the file.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Gives its values, the last dimension fastest.
    pub values: Box<dyn FnOnce() -> Vec<f32> + 'a>,
}

impl PendingTensor<'_> {
    /// A tensor of a device.
    pub fn of<const D: usize>(name: String, tensor: Tensor<D>) -> Self {
        Self { name, shape: tensor.dims().to_vec(), values: Box::new(|| host::read(tensor)) }
    }
}

/// [`write_tensors_as`] float32.
///
/// # Errors
///
/// What the system refuses.
///
/// # Panics
///
/// If a shape does not fit its values.
pub fn write_tensors(path: &Path, tensors: Vec<PendingTensor>) -> Result<(), ModelError> {
    write_tensors_as(path, tensors, Precision::F32)
}

/// Writes tensors, in the order of their names and rounded to a precision, as a safetensors file, in place of an older
/// one only when it is whole. No more than one of them is copied at a time.
///
/// # Errors
///
/// What the system refuses.
///
/// # Panics
///
/// If a shape does not fit its values.
pub fn write_tensors_as(path: &Path, mut tensors: Vec<PendingTensor>, precision: Precision) -> Result<(), ModelError> {
    let (dtype, size) = match precision {
        Precision::F32 => (Dtype::F32, 4),
        Precision::Bf16 => (Dtype::BF16, 2),
        Precision::F16 => (Dtype::F16, 2),
    };
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let mut start = 0;
    let place = |PendingTensor { name, shape, .. }: &PendingTensor| {
        let end = start + shape.iter().product::<usize>() * size;
        let info = TensorInfo { dtype, shape: shape.clone(), data_offsets: (start, end) };
        start = end;
        (name.clone(), info)
    };
    let places = tensors.iter().map(place).collect();
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let header = Metadata::new(Some(format), places).expect("the places follow from the shapes");
    let mut header = serde_json::to_vec(&header).expect("a header can be written as JSON");
    header.resize(header.len().next_multiple_of(HEADER_ALIGNMENT), b' ');
    replace_atomically(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        for tensor in tensors {
            let values = (tensor.values)();
            assert_eq!(values.len(), tensor.shape.iter().product::<usize>(), "the shape must fit the values");
            values.iter().try_for_each(|&value| match precision {
                Precision::F32 => file.write_all(&value.to_le_bytes()),
                Precision::Bf16 => file.write_all(&half::bf16::from_f32(value).to_le_bytes()),
                Precision::F16 => file.write_all(&half::f16::from_f32(value).to_le_bytes()),
            })?;
        }
        Ok(())
    })
}

/// A header's length is a multiple of this, so that the values begin where any type of them may.
const HEADER_ALIGNMENT: usize = 8;

#[cfg(test)]
mod tests {
    use safetensors::serialize;

    use super::*;

    #[test]
    fn half_precision_is_read_exactly_and_other_types_and_broken_values_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let write = |dtype: Dtype, bytes: &[u8]| {
            let view = TensorView::new(dtype, vec![2], bytes).unwrap();
            std::fs::write(&path, serialize([("x", view)], None).unwrap()).unwrap();
            read_tensors(&path)
        };
        let [a, b] = [1.5f32, -0.078125];
        let half = [half::f16::from_f32(a), half::f16::from_f32(b)].map(half::f16::to_le_bytes).concat();
        let brain = [half::bf16::from_f32(a), half::bf16::from_f32(b)].map(half::bf16::to_le_bytes).concat();
        assert_eq!(write(Dtype::F16, &half).unwrap()["x"].values, [a, b]);
        assert_eq!(write(Dtype::BF16, &brain).unwrap()["x"].values, [a, b]);
        assert!(write(Dtype::I16, &half).unwrap_err().to_string().contains("I16"));
        let broken = [1.0f32, f32::NAN].map(f32::to_le_bytes).concat();
        assert!(write(Dtype::F32, &broken).unwrap_err().to_string().contains("NaN at index 1"));
    }
}
