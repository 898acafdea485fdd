//! What is asked for.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::data::RawConfig;
use crate::models::ModelError;
use crate::models::files::{read_json, write_json};
#[cfg(feature = "clap")]
use crate::option_values::any_path;
use crate::run::{RunError, absolute, lasting};

/// The file of a shop's folder with what was asked for.
const FILE: &str = "fit.json";

/// What `fit` reads and writes, and its time limit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct FitConfig {
    /// Folder of the data, or a file of raw interactions (see `latentr3 prepare --help`).
    #[cfg_attr(feature = "clap", arg(long, value_name = "PATH", default_value = "", hide_default_value = true, value_parser = any_path()))]
    pub data: PathBuf,
    /// How raw interactions are read. What is not given is detected; nothing is filtered out unless asked for.
    #[cfg_attr(feature = "clap", command(flatten))]
    pub raw: RawConfig,
    /// What the prompt calls the items, such as "office products".
    #[cfg_attr(feature = "clap", arg(long, default_value = Self::DOMAIN))]
    pub domain: String,
    /// Folder to create.
    #[cfg_attr(feature = "clap", arg(long, value_name = "DIR", default_value = "", hide_default_value = true, value_parser = any_path()))]
    pub out: PathBuf,
    /// Time limit in minutes.
    #[cfg_attr(feature = "clap", arg(skip = Self::MINUTES))]
    pub minutes: f64,
    /// Pretrained language model to fine-tune: a Hugging Face folder, a run folder or a name on the hub [default: a
    /// small model from scratch].
    #[cfg_attr(feature = "clap", arg(long, value_name = "MODEL"))]
    pub model: Option<PathBuf>,
    /// Shop folder to continue from: its interactions and items are merged with the data, and its language model is
    /// trained further.
    #[cfg_attr(feature = "clap", arg(skip))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<PathBuf>,
    /// Whether lists exclude the items of the user's history, in every metric and when recommending.
    #[cfg_attr(
        feature = "clap",
        arg(
            long = "repeat-history",
            action = clap::ArgAction::SetFalse,
            help = "Keep the items of a user's history in the lists, in every metric and when recommending"
        )
    )]
    pub exclude_history: bool,
    /// Device to compute on.
    #[cfg_attr(feature = "clap", arg(skip))]
    pub device: String,
    /// Random seed.
    #[cfg_attr(feature = "clap", arg(skip))]
    pub seed: u64,
}

/// Reads a file of JSON that the work wrote.
pub(super) fn read_record<T: DeserializeOwned>(file: &Path) -> Result<T, RunError> {
    let damaged = |error: serde_json::Error| ModelError::Damaged { path: file.to_owned(), problem: error.to_string() };
    Ok(serde_json::from_value(read_json(file)?).map_err(damaged)?)
}

impl FitConfig {
    /// What items are called if nothing else is said.
    pub(super) const DOMAIN: &str = "items";

    /// The time limit if none is given, in minutes.
    pub const MINUTES: f64 = 30.0;

    /// What was asked for when the work in a folder began.
    ///
    /// # Errors
    ///
    /// A folder in which none began, or a damaged file.
    pub fn read(out: &Path) -> Result<Self, RunError> {
        Ok(Self { out: out.to_owned(), ..read_record(&out.join(FILE))? })
    }

    /// Whether work in a folder began.
    pub(super) fn is_begun(out: &Path) -> bool {
        out.join(FILE).exists()
    }

    /// Removes what a start that failed left. What cannot be removed does no harm.
    pub(super) fn clear(&self) {
        let _ = std::fs::remove_file(self.out.join(FILE));
        self.kept().iter().for_each(|file| drop(std::fs::remove_file(file)));
        let _ = std::fs::remove_dir_all(self.out.join("trial"));
        let _ = std::fs::remove_dir(&self.out);
    }

    /// Records it, so that the work begins or resumes from here.
    pub(crate) fn write(&self) -> Result<(), RunError> {
        let (data, out) = (absolute(&self.data), absolute(&self.out));
        let from = self.from.as_deref().map(absolute);
        let model = self.model.as_deref().map(lasting).transpose()?;
        Ok(write_json(&self.out.join(FILE), &Self { data, out, from, model, ..self.clone() })?)
    }

    pub(super) fn check(&self) -> Result<(), RunError> {
        let refused = |problem: String| Err(ModelError::Input(problem).into());
        if self.from.is_some() && self.model.is_some() {
            return refused("model: cannot be given together with a shop to continue from, whose model is used".into());
        }
        match (0.01..=1e5).contains(&self.minutes) {
            true => Ok(()),
            false => refused(format!("minutes: must be from 0.01 to 100000, got {}", self.minutes)),
        }
    }
}
