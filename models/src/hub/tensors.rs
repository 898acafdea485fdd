//! Safetensors files as named float32 tensors.

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::Path;

use safetensors::tensor::{TensorView, serialize};
use safetensors::{Dtype, SafeTensors};

use crate::ModelError;

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
    let bytes = std::fs::read(path).map_err(ModelError::io(path))?;
    let file = SafeTensors::deserialize(&bytes).map_err(|error| {
        ModelError::weights(
            path,
            format!("is not a whole safetensors file ({error}); it may be cut short, copy it again"),
        )
    })?;
    let mut tensors = BTreeMap::new();
    for (name, view) in file.iter() {
        let values = to_f32(&view).ok_or_else(|| {
            ModelError::weights(path, format!("tensor `{name}` has type {:?}; must be F32, F16 or BF16", view.dtype()))
        })?;
        if let Some(place) = values.iter().position(|value| !value.is_finite()) {
            return Err(ModelError::weights(path, format!("tensor `{name}` holds {} at place {place}", values[place])));
        }
        tensors.insert(name.to_owned(), StoredTensor { shape: view.shape().to_vec(), values });
    }
    Ok(tensors)
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

/// Writes tensors as a safetensors file of float32, in place of an older one only when it is whole.
///
/// # Errors
///
/// What the system refuses.
///
/// # Panics
///
/// If a shape does not fit its values.
pub fn write_tensors(path: &Path, tensors: &BTreeMap<String, StoredTensor>) -> Result<(), ModelError> {
    let bytes = |tensor: &StoredTensor| tensor.values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let data: Vec<(&String, &StoredTensor, Vec<u8>)> =
        tensors.iter().map(|(name, tensor)| (name, tensor, bytes(tensor))).collect();
    let views = data.iter().map(|(name, tensor, bytes)| {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).expect("the shape fits the values");
        (name.as_str(), view)
    });
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let file = serialize(views, Some(metadata)).map_err(|error| ModelError::weights(path, error.to_string()))?;
    write_atomically(path, &file)
}

/// Writes a file under a temporary name beside its own, has it on the disk, and only then gives it its name.
///
/// # Errors
///
/// What the system refuses: no space, no permission. A file of that name stays as it was.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || {
        let mut file = temporary_file().tempfile_in(folder)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        sync_folder(folder)
    };
    write().map_err(ModelError::io(path))
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
        assert!(write(Dtype::F32, &broken).unwrap_err().to_string().contains("NaN at place 1"));
    }
}
