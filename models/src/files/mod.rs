//! Files that are whole or not there, and the checksums of a folder's files.

mod checksums;

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::ModelError;
pub use checksums::{file_sha256, recorded_checksums, sha256, verify_checksums, write_checksums};

/// What the names of files begin with while they are written; a program that is killed then leaves one behind.
pub const TEMPORARY_PREFIX: &str = ".latentr3-";

/// Reads a JSON file.
///
/// # Errors
///
/// The file missing, not UTF-8 or not JSON; the message names line and column.
pub fn read_json(path: &Path) -> Result<Value, ModelError> {
    let bytes = std::fs::read(path).map_err(ModelError::io(path))?;
    serde_json::from_slice(&bytes).map_err(|error| ModelError::damaged(path, format!("is not valid JSON: {error}")))
}

/// Writes a file under a temporary name beside its own, has it on the disk, and only then gives it its name. A link
/// stays one: the file that it leads to is replaced. A pipe or a device of that name is written to as it is.
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
pub(crate) fn replace_atomically(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<&File>) -> std::io::Result<()>,
) -> Result<(), ModelError> {
    if is_pipe_or_device(path) {
        let write_to_it = || {
            let file = File::options().append(true).open(path)?;
            let mut buffered = BufWriter::new(&file);
            write(&mut buffered)?;
            buffered.flush()
        };
        return write_to_it().map_err(ModelError::io(path));
    }
    let target = if path.is_symlink() { linked(path).map_err(ModelError::io(path))? } else { path.to_owned() };
    let path = target.as_path();
    let folder = parent(path);
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

/// The file that a link leads to, which need not be there yet.
fn linked(link: &Path) -> std::io::Result<PathBuf> {
    let mut path = link.to_owned();
    // As many as Linux follows.
    for _ in 0..40 {
        match std::fs::read_link(&path) {
            Ok(target) => path = parent(&path).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(std::io::Error::other("has too many levels of links"))
}

/// The folder that a file lies in.
pub fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
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

/// Whether at `path` is what can be written to but not replaced by a file: a pipe, a device, or the system's name for a
/// file that a program has open, as `/dev/stdout`.
pub fn is_pipe_or_device(path: &Path) -> bool {
    let leads_to_open_file = || std::fs::read_link(path).is_ok_and(|target| target.starts_with("/proc"));
    let is_open_file = path.is_symlink()
        && (["/proc", "/dev/fd"].iter().any(|folder| path.starts_with(folder)) || leads_to_open_file());
    is_open_file || path.metadata().is_ok_and(|found| !found.is_file() && !found.is_dir())
}

/// A temporary file that others may read as the user's file mask allows, like any file the user makes.
fn temporary_file() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY_PREFIX);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

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
    fn a_link_stays_one_and_its_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link] = ["file", "link"].map(|name| folder.path().join(name));
        std::fs::write(&file, "old").unwrap();
        std::os::unix::fs::symlink("file", &link).unwrap();
        write_atomically(&link, b"new").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
        std::fs::remove_file(&file).unwrap();
        write_atomically(&link, b"again").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read(&file).unwrap(), b"again");
    }
}
