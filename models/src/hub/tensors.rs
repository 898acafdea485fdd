//! Safetensors files as named float32 tensors.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use burn::tensor::Tensor;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use crate::files::replace_atomically;
use crate::{ModelError, Precision, host};

/// A tensor in a file, in float32.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredTensor {
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its values, the last dimension fastest.
    pub values: Vec<f32>,
}

/// Reads a safetensors file; F16 and BF16 become float32.
///
/// # Errors
///
/// The file missing, cut short or malformed, another type, or a value that is not finite.
pub fn read_tensors(path: &Path) -> Result<BTreeMap<String, StoredTensor>, ModelError> {
    let read = |(name, tensor): (String, TensorInFile)| {
        let values = tensor.read()?;
        Ok((name, StoredTensor { shape: tensor.info.shape, values }))
    };
    open_tensors(path)?.into_iter().map(read).collect()
}

/// The tensors of a safetensors file, by their names; none is read yet.
///
/// # Errors
///
/// The file missing, cut short or malformed.
pub(crate) fn open_tensors(path: &Path) -> Result<BTreeMap<String, TensorInFile>, ModelError> {
    let mut file = File::open(path).map_err(ModelError::io(path))?;
    let header = read_header(path, &mut file)?;
    let first = file.stream_position().map_err(ModelError::io(path))?;
    let path: Arc<Path> = path.into();
    let tensor = |name: String| {
        let info = header.info(&name).expect("it is in the header").clone();
        (name.clone(), TensorInFile { path: path.clone(), name, first, info })
    };
    Ok(header.offset_keys().into_iter().map(tensor).collect())
}

/// A tensor in a safetensors file. It is read when it is its turn, so that a file and its values are never in memory
/// both.
#[derive(Debug, Clone)]
pub(crate) struct TensorInFile {
    path: Arc<Path>,
    name: String,
    /// Where the values of the file's tensors begin.
    first: u64,
    info: TensorInfo,
}

impl TensorInFile {
    pub fn shape(&self) -> &[usize] {
        &self.info.shape
    }

    /// The values in float32, the last dimension fastest.
    pub fn read(&self) -> Result<Vec<f32>, ModelError> {
        let (Self { path, name, first, .. }, TensorInfo { dtype, shape, data_offsets: (start, end) }) =
            (self, &self.info);
        let mut file = File::open(path).map_err(ModelError::io(path))?;
        file.seek(SeekFrom::Start(first + *start as u64)).map_err(ModelError::io(path))?;
        let bytes = end - start;
        let values = match dtype {
            Dtype::F32 => read_values(&mut file, bytes, f32::from_le_bytes),
            Dtype::F16 => read_values(&mut file, bytes, |half| half::f16::from_le_bytes(half).to_f32()),
            Dtype::BF16 => read_values(&mut file, bytes, |half| half::bf16::from_le_bytes(half).to_f32()),
            _ => {
                let problem = format!("tensor `{name}` has type {dtype:?}; must be F32, F16 or BF16");
                return Err(ModelError::damaged(path, problem));
            }
        }
        .map_err(ModelError::io(path))?;
        if values.len() != shape.iter().product::<usize>() {
            return Err(not_whole(path, format!("`{name}` has not as many values as {shape:?}")));
        }
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(values),
            Some(place) => {
                let problem = format!("tensor `{name}` contains {} at index {place}", values[place]);
                Err(ModelError::damaged(path, problem))
            }
        }
    }
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

/// Values in a part.
const PART: usize = 1 << 16;

/// The values in so many bytes of a file, part by part: their bytes are not in memory besides.
fn read_values<const SIZE: usize>(
    file: &mut File,
    bytes: usize,
    value: fn([u8; SIZE]) -> f32,
) -> std::io::Result<Vec<f32>> {
    let count = bytes / SIZE;
    let (mut values, mut part) = (Vec::with_capacity(count), vec![0; count.min(PART) * SIZE]);
    while values.len() < count {
        let part = &mut part[..(count - values.len()).min(PART) * SIZE];
        file.read_exact(part)?;
        values.extend(part.as_chunks().0.iter().map(|bytes| value(*bytes)));
    }
    Ok(values)
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
    use safetensors::tensor::TensorView;

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
