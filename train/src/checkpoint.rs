//! Checkpoints: a model with all that is needed to resume from it, in a folder that is whole or not there.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use latentr3_models::files::{write_atomically, write_checksums, write_json};
use latentr3_models::{Precision, files};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::TrainError;
use crate::adamw::{AdamW, AdamWConfig};
use crate::progress::Progress;
use crate::run_paths::{OPTIMIZER_FILE, PROGRESS_FILE};
use crate::trainable::Trainable;

/// A model in training with everything that belongs to it.
#[derive(Debug)]
pub struct Trained<M> {
    /// The model.
    pub model: M,
    /// The optimiser's state.
    pub adamw: AdamW,
    /// Where the run stands.
    pub progress: Progress,
}

/// Writes a checkpoint in the place of the one at `target`: the model, or the average of its weights where one is kept,
/// and `assets` (name and content).
pub(crate) fn save(
    target: &Path,
    model: &impl Trainable,
    adamw: &AdamW,
    progress: &impl Serialize,
    assets: &[(String, Vec<u8>)],
) -> Result<(), TrainError> {
    replace(target, |folder| {
        adamw.averaged(model).save(folder)?;
        adamw.save(&folder.join(OPTIMIZER_FILE), model)?;
        write_json(&folder.join(PROGRESS_FILE), progress)?;
        for (file, content) in assets {
            write_atomically(&folder.join(file), content)?;
        }
        Ok(write_checksums(folder)?)
    })
}

/// Puts the checkpoint at `source` also in the place of the one at `target`. The files are the same ones under a second
/// name where the system can do that, and copies elsewhere: a checkpoint is replaced and never changed.
pub(crate) fn copy(source: &Path, target: &Path) -> Result<(), TrainError> {
    replace(target, |folder| {
        for entry in fs::read_dir(source).map_err(TrainError::io(source))? {
            let name = entry.map_err(TrainError::io(source))?.file_name();
            let file = folder.join(&name);
            if fs::hard_link(source.join(&name), &file).is_err() {
                fs::copy(source.join(&name), &file).map_err(TrainError::io(&file))?;
                fs::File::open(&file).and_then(|file| file.sync_all()).map_err(TrainError::io(&file))?;
            }
        }
        Ok(())
    })
}

/// Loads a checkpoint that is whole.
pub(crate) fn load<M: Trainable>(
    folder: &Path,
    optimizer: AdamWConfig,
    device: &Device,
    frozen: Precision,
) -> Result<Trained<M>, TrainError> {
    // The first verifies the checksums of all files.
    let saved = M::load(folder, device, frozen)?;
    let (adamw, model) = AdamW::load(&folder.join(OPTIMIZER_FILE), optimizer, saved, device)?;
    Ok(Trained { model, adamw, progress: progress(folder)? })
}

/// Where the run stood at a checkpoint.
pub(crate) fn progress<P: DeserializeOwned>(folder: &Path) -> Result<P, TrainError> {
    let path = folder.join(PROGRESS_FILE);
    serde_json::from_value(files::read_json(&path)?)
        .map_err(|error| TrainError::run(&path, format!("is damaged or was written by another version: {error}")))
}

/// Puts a whole new folder in the place of `target`; at every moment one of them is there or can be recovered.
pub(crate) fn replace(target: &Path, write: impl FnOnce(&Path) -> Result<(), TrainError>) -> Result<(), TrainError> {
    let [new, old] = spare(target);
    let run = target.parent().unwrap_or(Path::new("."));
    remove(&new).map_err(TrainError::io(&new))?;
    let written = fs::create_dir_all(&new).map_err(TrainError::io(&new)).and_then(|()| write(&new));
    if let Err(error) = written {
        // What could not be written whole only takes room.
        let _ = remove(&new);
        return Err(error);
    }
    files::sync_folder(&new).map_err(TrainError::io(&new))?;
    remove(&old).map_err(TrainError::io(&old))?;
    if target.exists() {
        fs::rename(target, &old).map_err(TrainError::io(target))?;
    }
    fs::rename(&new, target).map_err(TrainError::io(target))?;
    files::sync_folder(run).map_err(TrainError::io(run))?;
    remove(&old).map_err(TrainError::io(&old))
}

/// Puts the former folder back if the program ended between the two renamings of [`replace`].
pub(crate) fn recover(target: &Path) -> Result<(), TrainError> {
    let [new, old] = spare(target);
    if !target.exists() && old.exists() {
        fs::rename(&old, target).map_err(TrainError::io(&old))?;
    }
    for leftover in [new, old] {
        remove(&leftover).map_err(TrainError::io(&leftover))?;
    }
    Ok(())
}

fn spare(target: &Path) -> [PathBuf; 2] {
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    ["new", "old"].map(|which| target.with_file_name(format!(".{name}.{which}")))
}

/// Removes a folder that may not be there.
pub(crate) fn remove(folder: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
