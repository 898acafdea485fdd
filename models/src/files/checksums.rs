//! `SHA256SUMS`: what a folder's files were when it was written, so that damage is noticed.
//!
//! The file has the form of the `sha256sum` program, which can check it: `sha256sum --check SHA256SUMS`.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

use sha2::{Digest, Sha256};

use super::write_atomically;
use crate::ModelError;

const SUMS_FILE: &str = "SHA256SUMS";

/// SHA-256 of some bytes, as 64 hexadecimal digits.
pub fn sha256(bytes: &[u8]) -> String {
    digits(Sha256::digest(bytes).as_slice())
}

/// SHA-256 of a file's content, as 64 hexadecimal digits.
///
/// # Errors
///
/// The file cannot be read.
pub fn file_sha256(path: &Path) -> Result<String, ModelError> {
    let hash = || {
        let mut file = fs::File::open(path)?;
        let mut hasher = Sha256::new();
        let mut block = vec![0; 1 << 20];
        loop {
            match file.read(&mut block)? {
                0 => return Ok(digits(hasher.finalize().as_slice())),
                count => hasher.update(&block[..count]),
            }
        }
    };
    hash().map_err(ModelError::io(path))
}

/// Records what the files of a folder are now; folders in it are left out.
///
/// # Errors
///
/// A file cannot be read, or the record not written.
pub fn write_checksums(folder: &Path) -> Result<(), ModelError> {
    let mut text = String::new();
    for name in files(folder)?.into_iter().filter(|name| name != SUMS_FILE) {
        text += &format!("{}  {name}\n", file_sha256(&folder.join(&name))?);
    }
    write_atomically(&folder.join(SUMS_FILE), text.as_bytes())
}

/// The checksums that a folder's record has, by the files' names; nothing where there is no record.
///
/// # Errors
///
/// The record cannot be read, or is none.
pub fn recorded_checksums(folder: &Path) -> Result<Option<BTreeMap<String, String>>, ModelError> {
    let path = folder.join(SUMS_FILE);
    let bytes = match fs::read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        read => read.map_err(ModelError::io(&path))?,
    };
    let text = String::from_utf8_lossy(&bytes);
    let checksum = |(at, line): (usize, &str)| match line.split_once("  ") {
        Some((sum, name)) if !name.contains(['/', '\\']) => Ok((name.to_owned(), sum.to_owned())),
        _ => Err(ModelError::damaged(&path, format!("line {}: expected a checksum and a file name", at + 1))),
    };
    text.lines().enumerate().map(checksum).collect::<Result<_, _>>().map(Some)
}

/// Makes sure that every recorded file of a folder is as it was. A folder without record passes.
///
/// # Errors
///
/// A file that is missing or not as it was, by its name, or weights that the record does not name.
pub fn verify_checksums(folder: &Path) -> Result<(), ModelError> {
    let Some(recorded) = recorded_checksums(folder)? else {
        return Ok(());
    };
    for (name, sum) in &recorded {
        let file = folder.join(name);
        if !file.exists() {
            return Err(ModelError::damaged(&file, format!("is missing, but {SUMS_FILE} lists it")));
        }
        if file_sha256(&file)? != *sum {
            let problem = format!(
                "is damaged: its content does not match {SUMS_FILE}; \
                 if you changed it on purpose, delete {SUMS_FILE}"
            );
            return Err(ModelError::damaged(&file, problem));
        }
    }
    // A record that was cut short.
    match files(folder)?.iter().find(|name| name.ends_with(".safetensors") && !recorded.contains_key(*name)) {
        None => Ok(()),
        Some(name) => Err(ModelError::damaged(&folder.join(SUMS_FILE), format!("has no checksum for {name}"))),
    }
}

/// Names of the files in a folder, sorted.
fn files(folder: &Path) -> Result<Vec<String>, ModelError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(ModelError::io(folder))? {
        let entry = entry.map_err(ModelError::io(folder))?;
        if entry.file_type().map_err(ModelError::io(folder))?.is_file() {
            names.extend(entry.file_name().into_string());
        }
    }
    names.sort_unstable();
    Ok(names)
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_value_for_abc() {
        assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn a_changed_byte_and_a_missing_file_are_noticed_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b] = ["a", "b"].map(|name| folder.path().join(name));
        fs::write(&a, "content").unwrap();
        fs::write(&b, "more").unwrap();
        verify_checksums(folder.path()).unwrap();
        write_checksums(folder.path()).unwrap();
        verify_checksums(folder.path()).unwrap();
        fs::write(&a, "contenT").unwrap();
        let error = verify_checksums(folder.path()).unwrap_err().to_string();
        assert!(error.starts_with(a.to_str().unwrap()) && error.contains("damaged"), "{error}");
        fs::write(&a, "content").unwrap();
        fs::remove_file(&b).unwrap();
        let error = verify_checksums(folder.path()).unwrap_err().to_string();
        assert!(error.starts_with(b.to_str().unwrap()) && error.contains("missing"), "{error}");
        fs::write(folder.path().join("model.safetensors"), "weights").unwrap();
        fs::write(folder.path().join(SUMS_FILE), "").unwrap();
        let error = verify_checksums(folder.path()).unwrap_err().to_string();
        assert!(error.contains("no checksum for model.safetensors"), "{error}");
    }
}
