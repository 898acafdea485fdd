//! Safetensors files as named float32 tensors.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::Path;

use burn::tensor::Tensor;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo, TensorView};
use serde::Serialize;

use crate::{ModelError, host};

/// What the names of files begin with while they are written; a program that is killed then leaves one behind.
pub const TEMPORARY_PREFIX: &str = ".latentr3-";

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
            ModelError::weights(path, format!("tensor `{name}` has type {dtype:?}; must be F32, F16 or BF16"))
        })?;
        if let Some(place) = values.iter().position(|value| !value.is_finite()) {
            return Err(ModelError::weights(path, format!("tensor `{name}` holds {} at place {place}", values[place])));
        }
        tensors.insert(name, StoredTensor { shape: shape.clone(), values });
    }
    Ok(tensors)
}

/// Reads the header of a safetensors file that has all that its header speaks of, so that no length in it is larger than the file.
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
        let problem = format!("it has {} bytes of values, its header speaks of {}", rest - size, header.data_len());
        return Err(not_whole(path, problem));
    }
    Ok(header)
}

fn not_whole(path: &Path, problem: impl Display) -> ModelError {
    ModelError::weights(
        path,
        format!("is not a whole safetensors file ({problem}); it may be cut short, copy it again"),
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

/// Writes tensors, in the order of their names, as a safetensors file of float32, in place of an older one only when it is whole.
/// No more than one of them is copied at a time.
///
/// # Errors
///
/// What the system refuses.
///
/// # Panics
///
/// If a shape does not fit its values.
pub fn write_tensors(path: &Path, mut tensors: Vec<PendingTensor>) -> Result<(), ModelError> {
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let mut start = 0;
    let place = |PendingTensor { name, shape, .. }: &PendingTensor| {
        let end = start + shape.iter().product::<usize>() * size_of::<f32>();
        let info = TensorInfo { dtype: Dtype::F32, shape: shape.clone(), data_offsets: (start, end) };
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
            assert_eq!(values.len(), tensor.shape.iter().product::<usize>(), "the shape fits the values");
            values.iter().try_for_each(|value| file.write_all(&value.to_le_bytes()))?;
        }
        Ok(())
    })
}

/// A header's length is a multiple of this, so that the values begin where any type of them may.
const HEADER_ALIGNMENT: usize = 8;

/// Writes a file under a temporary name beside its own, has it on the disk, and only then gives it its name. A pipe or a device of that
/// name is written to as it is.
///
/// # Errors
///
/// What the system refuses: no space, no permission. A file of that name stays as it was.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    replace_atomically(path, |file| file.write_all(bytes))
}

/// [`write_atomically`] of JSON that people can read.
///
/// # Errors
///
/// Those of [`write_atomically`].
///
/// # Panics
///
/// If `value` cannot be written as JSON, as a map whose keys are no text.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), ModelError> {
    let mut text = serde_json::to_vec_pretty(value).expect("the value can be written as JSON");
    text.push(b'\n');
    write_atomically(path, &text)
}

/// [`write_atomically`] of what `write` puts into the temporary file.
fn replace_atomically(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> std::io::Result<()>,
) -> Result<(), ModelError> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if is_pipe_or_device(path) {
        let write_to_it = || {
            let file = File::options().write(true).open(path)?;
            let mut buffered = BufWriter::new(&file);
            write(&mut buffered)?;
            buffered.flush()
        };
        return write_to_it().map_err(ModelError::io(path));
    }
    let replace = || {
        let file = temporary_file().tempfile_in(folder)?;
        let mut buffered = BufWriter::with_capacity(1 << 20, file.as_file());
        write(&mut buffered)?;
        buffered.flush()?;
        drop(buffered);
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        sync_folder(folder)
    };
    replace().map_err(ModelError::io(path))
}

/// Has the names in a folder on the disk, where the system can.
///
/// # Errors
///
/// What the system refuses.
pub fn sync_folder(folder: &Path) -> std::io::Result<()> {
    if cfg!(unix) { std::fs::File::open(folder)?.sync_all() } else { Ok(()) }
}

/// Whether something is at `path` that a new folder would overwrite: anything but an empty folder.
pub fn is_occupied(path: &Path) -> bool {
    match std::fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_some(),
        Err(_) => std::fs::symlink_metadata(path).is_ok(),
    }
}

/// Whether at `path` is what can be written to but not replaced by a file.
pub fn is_pipe_or_device(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| !found.is_file() && !found.is_dir())
}

/// A temporary file that others may read as the user's file mask allows, like any file the user makes.
fn temporary_file() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY_PREFIX);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder
}

#[cfg(test)]
mod tests {
    use safetensors::serialize;

    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("null");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        write_atomically(&link, b"nothing of it").unwrap();
        assert!(link.is_symlink() && std::fs::read(&link).unwrap().is_empty());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

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
        assert!(write(Dtype::F32, &broken).unwrap_err().to_string().contains("NaN at place 1"));
    }
}
