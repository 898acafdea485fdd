//! The run folder, as the one program sees it that writes it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use latentr3_models::{Precision, files};
use serde_json::{Map, Value};

use crate::TrainError;
use crate::adamw::{AdamW, AdamWConfig};
use crate::checkpoint::{self, Trained};
use crate::config::Keep;
use crate::progress::Progress;
use crate::run_paths::{LOCK_FILE, RunPaths, kept_step};
use crate::trainable::Trainable;

/// A folder that one run writes.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// Held as long as the run is written; the system lets go of it when the process ends, however it ends.
    _lock: File,
    /// Files that every checkpoint carries along, such as the tokenizer: name and content.
    assets: Vec<(String, Vec<u8>)>,
}

/// The newest checkpoint of a run that is whole.
#[derive(Debug)]
pub struct Found<M> {
    /// What it holds.
    pub trained: Trained<M>,
    /// Its folder.
    pub folder: PathBuf,
    /// Newer checkpoints that are damaged, and how.
    pub damaged: Vec<TrainError>,
}

impl<M: Trainable> Found<M> {
    /// The latest checkpoint of the run at `path`, for a rank that only reads it; see [`Trainable::load`] for `frozen`.
    ///
    /// # Errors
    ///
    /// It is missing or damaged.
    pub fn last(path: &Path, optimizer: AdamWConfig, device: &Device, frozen: Precision) -> Result<Self, TrainError> {
        let folder = RunPaths(path).last();
        let trained = checkpoint::load(&folder, optimizer, device, frozen)?;
        Ok(Self { trained, folder, damaged: Vec::new() })
    }
}

impl RunFolder {
    /// Makes a new run folder that records `description`.
    ///
    /// # Errors
    ///
    /// The folder exists and is not empty, or cannot be made.
    pub fn create(path: &Path, description: &Value, assets: Vec<(String, Vec<u8>)>) -> Result<Self, TrainError> {
        if RunPaths(path).is_run() || is_occupied(path) {
            return Err(TrainError::Exists { path: path.to_owned() });
        }
        fs::create_dir_all(path).map_err(TrainError::io(path))?;
        let run = Self { path: path.to_owned(), _lock: lock(path)?, assets };
        run.remove_leftovers()?;
        files::write_json(&RunPaths(path).description(), description)?;
        Ok(run)
    }

    /// Opens a run folder to resume it.
    ///
    /// # Errors
    ///
    /// It is no run folder, damaged, or another process is writing it.
    pub fn open(path: &Path, assets: Vec<(String, Vec<u8>)>) -> Result<Self, TrainError> {
        Self::description(path)?;
        let run = Self { path: path.to_owned(), _lock: lock(path)?, assets };
        run.remove_leftovers()?;
        for checkpoint in [run.last(), run.best(), run.paths().reference()]
            .into_iter()
            .chain(run.kept()?.into_iter().map(|(_, path)| path))
        {
            checkpoint::recover(&checkpoint)?;
        }
        Ok(run)
    }

    /// What the run folder at `path` records of itself.
    ///
    /// # Errors
    ///
    /// It is no run folder, or damaged.
    pub fn description(path: &Path) -> Result<Value, TrainError> {
        if !RunPaths(path).is_run() {
            return Err(TrainError::run(path, "is not a run folder: it has no run.json"));
        }
        Ok(files::read_json(&RunPaths(path).description())?)
    }

    /// Records another description, of a run that resumes with other settings.
    ///
    /// # Errors
    ///
    /// What the system refuses.
    pub fn describe(&self, description: &Value) -> Result<(), TrainError> {
        Ok(files::write_json(&self.paths().description(), description)?)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn paths(&self) -> RunPaths<'_> {
        RunPaths(&self.path)
    }

    /// The latest checkpoint.
    pub fn last(&self) -> PathBuf {
        self.paths().last()
    }

    /// The checkpoint of the best validation.
    pub fn best(&self) -> PathBuf {
        self.paths().best()
    }

    /// Keeps the model that the run began with.
    ///
    /// # Errors
    ///
    /// What the system refuses.
    pub fn save_reference(&self, model: &impl Trainable) -> Result<(), TrainError> {
        checkpoint::replace(&self.paths().reference(), |folder| {
            model.save(folder)?;
            Ok(files::write_checksums(folder)?)
        })
    }

    /// The newest checkpoint that is whole, which becomes the latest one; `None` if the run never got to any. See
    /// [`Trainable::load`] for `frozen`.
    ///
    /// Where the best checkpoint is damaged, one is preferred from which the run comes to that best again. One that
    /// counts on more of the log than there is cannot be gone on from.
    ///
    /// # Errors
    ///
    /// There are checkpoints and all are damaged; the error is the newest one's.
    pub fn newest<M: Trainable>(
        &self,
        optimizer: AdamWConfig,
        device: &Device,
        frozen: Precision,
    ) -> Result<Option<Found<M>>, TrainError> {
        let mut older: Vec<(usize, PathBuf)> = self.kept()?;
        if let Ok(progress) = checkpoint::progress::<Progress>(&self.best()) {
            older.push((progress.step, self.best()));
        }
        older.sort_by_key(|(step, _)| std::cmp::Reverse(*step));
        let folders = std::iter::once(self.last()).chain(older.into_iter().map(|(_, folder)| folder));
        // Steps after which the best model is yet to come.
        let before_best = self.best_in_log()?.filter(|step| !is_whole(&self.best(), *step));
        let log_bytes = fs::metadata(self.paths().metrics()).map_or(0, |log| log.len());
        let (mut damaged, mut found) = (Vec::new(), None);
        for folder in folders.filter(|folder| folder.exists()) {
            match checkpoint::load(&folder, optimizer, device, frozen) {
                Ok(Trained { progress, .. }) if progress.metrics_bytes > log_bytes => {
                    damaged.push(self.log_is_short(progress.metrics_bytes));
                }
                Ok(trained) if before_best.is_none_or(|best| trained.progress.step <= best) => {
                    found = Some((trained, folder));
                    break;
                }
                Ok(trained) => {
                    found.get_or_insert((trained, folder));
                }
                Err(error) => damaged.push(error),
            }
        }
        let Some((trained, folder)) = found else {
            return damaged.into_iter().next().map_or(Ok(None), Err);
        };
        if let Some(step) = before_best {
            match files::verify_checksums(&self.best()) {
                Err(error) => damaged.push(error.into()),
                Ok(()) if trained.progress.step > step => damaged.push(TrainError::Run {
                    path: self.best(),
                    problem: format!("the best checkpoint (step {step}) is missing; only a better one will replace it"),
                }),
                Ok(()) => {}
            }
        }
        if folder != self.last() {
            checkpoint::copy(&folder, &self.last())?;
        }
        Ok(Some(Found { trained, folder, damaged }))
    }

    /// The step of the best validation that the log knows of.
    fn best_in_log(&self) -> Result<Option<usize>, TrainError> {
        let path = self.paths().metrics();
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(TrainError::io(&path))?,
        };
        let lines = bytes.split(|&byte| byte == b'\n').rev();
        let mut values = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        let best = values.find(|line| line["best"] == true);
        Ok(best.and_then(|line| line["step"].as_u64()).map(|step| step as usize))
    }

    /// Saves the present state as the latest checkpoint and makes the copies of it that belong to this state.
    pub(crate) fn save(
        &self,
        model: &impl Trainable,
        adamw: &AdamW,
        progress: &Progress,
        keep: Option<Keep>,
    ) -> Result<(), TrainError> {
        checkpoint::save(&self.last(), model, adamw, progress, &self.assets)?;
        self.copy_last(progress, keep)
    }

    /// Makes the copies of the latest checkpoint that belong to its state, where a program that was killed did not.
    pub(crate) fn copy_last(&self, progress: &Progress, keep: Option<Keep>) -> Result<(), TrainError> {
        if progress.best_step == Some(progress.step) && !is_whole(&self.best(), progress.step) {
            checkpoint::copy(&self.last(), &self.best())?;
        }
        let Some(Keep { every, limit }) = keep else {
            return Ok(());
        };
        if progress.step > 0 && progress.step.is_multiple_of(every) {
            let folder = self.paths().kept(progress.step);
            if !is_whole(&folder, progress.step) {
                checkpoint::copy(&self.last(), &folder)?;
            }
            let kept = self.kept()?;
            for (_, folder) in &kept[..kept.len().saturating_sub(limit)] {
                checkpoint::remove(folder).map_err(TrainError::io(folder))?;
            }
        }
        Ok(())
    }

    /// The kept checkpoints with their steps, oldest first.
    fn kept(&self) -> Result<Vec<(usize, PathBuf)>, TrainError> {
        let mut kept = Vec::new();
        for name in names(&self.path)? {
            // One that was being replaced is called `.step-N.old`.
            let bare = name.strip_prefix('.').and_then(|name| name.strip_suffix(".old")).unwrap_or(&name);
            if let Some(step) = kept_step(bare) {
                kept.push((step, self.path.join(bare)));
            }
        }
        kept.sort_unstable();
        kept.dedup();
        Ok(kept)
    }

    /// Removes files and copies that a program left unfinished when it was killed.
    fn remove_leftovers(&self) -> Result<(), TrainError> {
        for name in names(&self.path)? {
            let leftover = self.path.join(&name);
            if name.starts_with(files::TEMPORARY_PREFIX) {
                fs::remove_file(&leftover).map_err(TrainError::io(&leftover))?;
            } else if name.starts_with('.') && name.ends_with(".new") {
                checkpoint::remove(&leftover).map_err(TrainError::io(&leftover))?;
            }
        }
        Ok(())
    }

    /// Opens the log to append after its first `bytes` bytes; what comes later belongs to steps that are done again.
    pub(crate) fn metrics(&self, bytes: u64) -> Result<MetricsLog, TrainError> {
        let path = self.paths().metrics();
        let open = || {
            let mut file = OpenOptions::new().create(true).write(true).truncate(false).open(&path)?;
            if file.metadata()?.len() < bytes {
                return Ok(None);
            }
            file.set_len(bytes)?;
            file.seek(SeekFrom::End(0))?;
            Ok(Some(file))
        };
        match open().map_err(TrainError::io(&path))? {
            Some(file) => Ok(MetricsLog { file: BufWriter::new(file), bytes, path }),
            None => Err(self.log_is_short(bytes)),
        }
    }

    fn log_is_short(&self, bytes: u64) -> TrainError {
        let problem = format!(
            "is missing or shorter than the {bytes} bytes that the checkpoint expects; restore the whole file, \
             or start a new run with this one as --model"
        );
        TrainError::run(self.paths().metrics(), problem)
    }
}

/// Whether the checkpoint in a folder is whole and of the given step.
fn is_whole(folder: &Path, step: usize) -> bool {
    checkpoint::progress(folder).is_ok_and(|progress: Progress| progress.step == step)
        && files::verify_checksums(folder).is_ok()
}

/// Names of the entries of a folder.
fn names(folder: &Path) -> Result<Vec<String>, TrainError> {
    let entries = fs::read_dir(folder).map_err(TrainError::io(folder))?;
    let names = entries.map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()));
    names.collect::<Result<_, _>>().map_err(TrainError::io(folder))
}

/// Whether a new run would overwrite something: anything but what a run leaves that was killed as it began.
fn is_occupied(path: &Path) -> bool {
    match names(path) {
        Ok(names) => names.iter().any(|name| name != LOCK_FILE && !name.starts_with(files::TEMPORARY_PREFIX)),
        Err(_) => files::is_occupied(path),
    }
}

/// Makes this process the only one that writes the run, and says so in the lock file.
fn lock(path: &Path) -> Result<File, TrainError> {
    let path = RunPaths(path).lock();
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = options.map_err(TrainError::io(&path))?;
    match file.try_lock() {
        Ok(()) => {
            let holder = format!("process {}\n", std::process::id());
            let written = file.set_len(0).and_then(|()| file.write_all(holder.as_bytes()));
            written.map_err(TrainError::io(&path)).map(|()| file)
        }
        Err(TryLockError::WouldBlock) => {
            let holder = fs::read_to_string(&path).unwrap_or_default();
            let run = path.parent().unwrap_or(Path::new("."));
            Err(TrainError::run(run, format!("another process is writing this run ({})", holder.trim())))
        }
        Err(TryLockError::Error(error)) => Err(TrainError::io(&path)(error)),
    }
}

/// The log of a run, a JSON object a line.
#[derive(Debug)]
pub(crate) struct MetricsLog {
    file: BufWriter<File>,
    bytes: u64,
    path: PathBuf,
}

impl MetricsLog {
    pub fn append(&mut self, line: &Map<String, Value>) -> Result<(), TrainError> {
        let mut text = serde_json::to_vec(line).expect("a JSON map can be written");
        text.push(b'\n');
        self.bytes += text.len() as u64;
        let written = self.file.write_all(&text).and_then(|()| self.file.flush());
        written.map_err(TrainError::io(&self.path))
    }

    /// Has the log on the disk; returns its length.
    pub fn sync(&mut self) -> Result<u64, TrainError> {
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_data());
        synced.map_err(TrainError::io(&self.path))?;
        Ok(self.bytes)
    }
}
