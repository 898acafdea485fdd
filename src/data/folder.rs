//! The files of a prepared data set.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::models::files::{is_occupied, sync_folder};

use super::error::DataError;
use super::prepare_config::PrepareConfig;
use super::splits::Split;
use super::summary::Summary;

/// Number of the files' form; it counts up when a reader of the old form would misread the new.
pub(super) const FORMAT: u32 = 3;

pub(super) const DATASET: &str = "dataset.json";
pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const TEMPLATE: &str = "template.txt";
pub(super) const CATALOG: &str = "catalog.jsonl";
pub(super) const WINDOWS: &str = "windows.jsonl";

pub(super) fn rows_file(split: Split) -> String {
    format!("{}.jsonl", split.name())
}

/// Content of `dataset.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Dataset {
    pub(super) format: u32,
    pub(super) config: PrepareConfig,
    /// SHA-256 of the files that it was made from, by their names.
    pub(super) inputs: BTreeMap<String, String>,
    /// The prompt's tokens before the history, which every pretraining window starts with.
    pub(super) head: Vec<u32>,
    pub(super) summary: Summary,
}

/// A line of `catalog.jsonl`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct CatalogLine {
    pub(super) id: String,
    pub(super) title: String,
    /// Tokens of the target, with the end token last.
    pub(super) tokens: Vec<u32>,
}

/// A folder that appears under its name only when it is complete.
pub(crate) struct Staging {
    out: PathBuf,
    /// Beside `out`; removed with all that is left in it.
    temporary: TempDir,
}

impl Staging {
    /// Starts a folder that will be called `out`, which must not exist or be empty.
    pub(crate) fn start(out: &Path) -> Result<Self, DataError> {
        let Some(name) = out.file_name() else {
            let problem = format!("`{}` is not the name of a folder that can be created", out.display());
            return Err(DataError::Setting { setting: "out", problem });
        };
        if is_occupied(out) {
            return Err(DataError::OutputExists { path: out.into() });
        }
        let parent = match out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(|error| DataError::io(parent, "create", error))?;
        let prefix = format!(".{}-", name.to_string_lossy());
        let temporary = tempfile::Builder::new().prefix(&prefix).tempdir_in(parent);
        let temporary = temporary.map_err(|error| DataError::io(parent, "write to", error))?;
        let staging = Self { out: out.into(), temporary };
        // The temporary folder is private to its owner; the one inside has the usual permissions.
        let folder = staging.folder();
        fs::create_dir(&folder).map_err(|error| DataError::io(&folder, "create", error))?;
        Ok(staging)
    }

    /// Where its content goes until then.
    pub(crate) fn folder(&self) -> PathBuf {
        self.temporary.path().join("content")
    }

    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<(), DataError> {
        let path = self.folder().join(name);
        let write = || {
            let mut file = fs::File::create(&path)?;
            file.write_all(content.as_ref())?;
            file.sync_all()
        };
        write().map_err(|error| DataError::io(&path, "write", error))
    }

    /// Writes a value as JSON that can be read by people.
    pub(super) fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), DataError> {
        let json =
            serde_json::to_string_pretty(value).map_err(|error| DataError::io(&self.out, "write", error.into()))?;
        self.write(name, json + "\n")
    }

    /// Writes each value as one line of JSON.
    pub(super) fn write_lines(
        &self,
        name: &str,
        values: impl IntoIterator<Item = impl Serialize>,
    ) -> Result<(), DataError> {
        let path = self.folder().join(name);
        let write = || {
            let mut file = BufWriter::new(fs::File::create(&path)?);
            for value in values {
                serde_json::to_writer(&mut file, &value)?;
                file.write_all(b"\n")?;
            }
            file.flush()?;
            file.get_ref().sync_all()
        };
        write().map_err(|error| DataError::io(&path, "write", error))
    }

    /// Gives the folder its name.
    pub(crate) fn publish(self) -> Result<(), DataError> {
        let failed = |error| match fs::read_dir(&self.out).map(|mut entries| entries.next().is_some()) {
            Ok(true) => DataError::OutputExists { path: self.out.clone() },
            _ => DataError::io(&self.out, "create", error),
        };
        if self.out.exists() {
            fs::remove_dir(&self.out).map_err(failed)?;
        }
        let publish = || {
            sync_folder(&self.folder())?;
            fs::rename(self.folder(), &self.out)?;
            sync_folder(self.temporary.path().parent().unwrap_or(Path::new(".")))
        };
        publish().map_err(failed)
    }
}
