//! The run folder: what a run is made of, its log and its checkpoints.
//!
//! ```text
//! RUN/run.json        what was asked for, as resolved, and with which data
//! RUN/metrics.jsonl   a line for every step and validation
//! RUN/best/           the model of the best validation, a Hugging Face folder
//! RUN/last/           the latest model, and what resuming needs: optimizer.safetensors, progress.json
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use latentr3_models::hub::{self, write_atomically};
use latentr3_models::{LatentRecommender, ModelError};
use serde_json::{Map, Value};

use crate::TrainError;
use crate::adamw::{AdamW, AdamWConfig};
use crate::trainer::Progress;

const RUN_FILE: &str = "run.json";
const METRICS_FILE: &str = "metrics.jsonl";
const OPTIMIZER_FILE: &str = "optimizer.safetensors";
const PROGRESS_FILE: &str = "progress.json";

/// A folder that one run writes.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// Held as long as the run is written; the system lets go of it when the process ends, however it ends.
    _lock: File,
    /// Files that every checkpoint carries along, such as the tokenizer: name and content.
    assets: Vec<(String, Vec<u8>)>,
}

/// A model in training with everything that belongs to it.
#[derive(Debug)]
pub struct Trained {
    /// The model.
    pub model: LatentRecommender,
    /// The optimiser's state.
    pub adamw: AdamW,
    /// Where the run stands.
    pub progress: Progress,
}

impl RunFolder {
    /// Makes a new run folder that records `description`.
    ///
    /// # Errors
    ///
    /// The folder exists and is not empty, or cannot be made.
    pub fn create(path: &Path, description: &Value, assets: Vec<(String, Vec<u8>)>) -> Result<Self, TrainError> {
        if hub::is_occupied(path) {
            return Err(TrainError::run(path, "exists already; give another --out, or go on with it by --resume"));
        }
        fs::create_dir_all(path).map_err(io(path))?;
        let mut text = serde_json::to_vec_pretty(description).expect("a JSON value can be written");
        text.push(b'\n');
        write_atomically(&path.join(RUN_FILE), &text)?;
        Ok(Self { path: path.to_owned(), _lock: lock(path)?, assets })
    }

    /// Opens a run folder to go on with it.
    ///
    /// # Errors
    ///
    /// It is no run folder, damaged, or another process is writing it.
    pub fn open(path: &Path, assets: Vec<(String, Vec<u8>)>) -> Result<Self, TrainError> {
        Self::description(path)?;
        let run = Self { path: path.to_owned(), _lock: lock(path)?, assets };
        run.recover("last")?;
        run.recover("best")?;
        Ok(run)
    }

    /// What the run folder at `path` records of itself.
    ///
    /// # Errors
    ///
    /// It is no run folder, or damaged.
    pub fn description(path: &Path) -> Result<Value, TrainError> {
        let file = path.join(RUN_FILE);
        if !file.exists() {
            return Err(TrainError::run(path, format!("is not a run folder: it has no {RUN_FILE}")));
        }
        Ok(hub::read_json(&file)?)
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The latest checkpoint.
    pub fn last(&self) -> PathBuf {
        self.path.join("last")
    }

    /// The model of the best validation.
    pub fn best(&self) -> PathBuf {
        self.path.join("best")
    }

    /// Loads the latest checkpoint; `None` if the run never got to one.
    ///
    /// # Errors
    ///
    /// The checkpoint is incomplete or damaged.
    pub fn load_last(&self, optimizer: AdamWConfig, device: &Device) -> Result<Option<Trained>, TrainError> {
        let folder = self.last();
        if !folder.exists() {
            return Ok(None);
        }
        let path = folder.join(PROGRESS_FILE);
        let progress = serde_json::from_value(hub::read_json(&path)?)
            .map_err(|error| TrainError::run(&path, error.to_string()))?;
        Ok(Some(Trained {
            model: hub::load(&folder, 0, device)?,
            adamw: AdamW::load(&folder.join(OPTIMIZER_FILE), optimizer, device)?,
            progress,
        }))
    }

    pub(crate) fn save_last(
        &self,
        model: &LatentRecommender,
        adamw: &AdamW,
        progress: &Progress,
    ) -> Result<(), TrainError> {
        self.replace("last", |folder| {
            hub::save(model, folder)?;
            adamw.save(&folder.join(OPTIMIZER_FILE))?;
            let text = serde_json::to_vec_pretty(progress).expect("progress can be written as JSON");
            Ok(write_atomically(&folder.join(PROGRESS_FILE), &text)?)
        })
    }

    pub(crate) fn save_best(&self, model: &LatentRecommender) -> Result<(), TrainError> {
        self.replace("best", |folder| Ok(hub::save(model, folder)?))
    }

    /// Puts a whole new folder in the place of the one called `name`; at every moment one of them is there or can be
    /// recovered.
    fn replace(&self, name: &str, write: impl FnOnce(&Path) -> Result<(), TrainError>) -> Result<(), TrainError> {
        let [new, old] = self.spare(name);
        let target = self.path.join(name);
        remove(&new).map_err(io(&new))?;
        fs::create_dir_all(&new).map_err(io(&new))?;
        write(&new)?;
        for (file, content) in &self.assets {
            write_atomically(&new.join(file), content)?;
        }
        hub::sync_folder(&new).map_err(io(&new))?;
        remove(&old).map_err(io(&old))?;
        if target.exists() {
            fs::rename(&target, &old).map_err(io(&target))?;
        }
        fs::rename(&new, &target).map_err(io(&target))?;
        hub::sync_folder(&self.path).map_err(io(&self.path))?;
        remove(&old).map_err(io(&old))
    }

    /// Puts the former folder back if the program ended between the two renamings of [`Self::replace`].
    fn recover(&self, name: &str) -> Result<(), TrainError> {
        let [new, old] = self.spare(name);
        let target = self.path.join(name);
        if !target.exists() && old.exists() {
            fs::rename(&old, &target).map_err(io(&old))?;
        }
        for leftover in [new, old] {
            remove(&leftover).map_err(io(&leftover))?;
        }
        Ok(())
    }

    fn spare(&self, name: &str) -> [PathBuf; 2] {
        ["new", "old"].map(|which| self.path.join(format!(".{name}.{which}")))
    }

    /// Opens the log to go on after its first `bytes` bytes; what comes later belongs to steps that are done again.
    pub(crate) fn metrics(&self, bytes: u64) -> Result<Metrics, TrainError> {
        let path = self.path.join(METRICS_FILE);
        let open = || {
            let mut file = OpenOptions::new().create(true).write(true).truncate(false).open(&path)?;
            if file.metadata()?.len() < bytes {
                return Ok(None);
            }
            file.set_len(bytes)?;
            file.seek(SeekFrom::End(0))?;
            Ok(Some(file))
        };
        match open().map_err(io(&path))? {
            Some(file) => Ok(Metrics { file: BufWriter::new(file), bytes, path }),
            None => Err(TrainError::run(
                &path,
                format!("is shorter than the {bytes} bytes that the last checkpoint counts on"),
            )),
        }
    }
}

/// What the system refused at `path`.
fn io(path: &Path) -> impl FnOnce(std::io::Error) -> TrainError + use<> {
    let path = path.to_owned();
    move |source| TrainError::from(ModelError::Io { path, source })
}

/// Makes this process the only one that writes the run.
fn lock(path: &Path) -> Result<File, TrainError> {
    let file = File::open(path.join(RUN_FILE)).map_err(io(path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(TrainError::run(path, "another process is writing this run")),
        Err(TryLockError::Error(error)) => Err(io(path)(error)),
    }
}

fn remove(folder: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The log of a run, a JSON object a line.
#[derive(Debug)]
pub(crate) struct Metrics {
    file: BufWriter<File>,
    bytes: u64,
    path: PathBuf,
}

impl Metrics {
    pub fn append(&mut self, line: &Map<String, Value>) -> Result<(), TrainError> {
        let mut text = serde_json::to_vec(line).expect("a JSON map can be written");
        text.push(b'\n');
        self.bytes += text.len() as u64;
        let written = self.file.write_all(&text).and_then(|()| self.file.flush());
        written.map_err(io(&self.path))
    }

    /// Has the log on the disk; returns its length.
    pub fn sync(&mut self) -> Result<u64, TrainError> {
        let synced = self.file.flush().and_then(|()| self.file.get_ref().sync_data());
        synced.map_err(io(&self.path))?;
        Ok(self.bytes)
    }
}
