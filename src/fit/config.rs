//! What is asked for.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::data::RawConfig;
use crate::models::ModelError;
use crate::models::files::{read_json, write_json};
use crate::run::RunError;

/// The file of a shop's folder with what was asked for.
const FILE: &str = "fit.json";

/// Whose recommender to make, of what, and in what time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FitConfig {
    /// The data, in one of the layouts of [`Interactions::read`](crate::data::Interactions::read).
    pub data: PathBuf,
    /// How interactions that come one by one are read, as far as it is given; the rest is guessed, and nothing is left
    /// out unless it is asked for.
    pub raw: RawConfig,
    /// What the items are, as the prompt calls them.
    pub domain: String,
    /// The folder to make.
    pub out: PathBuf,
    /// Minutes that it may take.
    pub minutes: f64,
    /// A pretrained language model to fine-tune, in a Hugging Face folder or a run folder; without one a small one is
    /// trained from random weights.
    pub model: Option<PathBuf>,
    /// Whether what a user has chosen before is left out of the lists, in every figure and when recommending.
    pub exclude_history: bool,
    /// Where to compute.
    pub device: String,
    /// Seed of everything random.
    pub seed: u64,
}

impl FitConfig {
    /// What was asked for when the work in a folder began.
    ///
    /// # Errors
    ///
    /// A folder in which none began, or a damaged file.
    pub fn read(out: &Path) -> Result<Self, RunError> {
        let path = out.join(FILE);
        let damaged = |error: serde_json::Error| ModelError::Damaged { path: path.clone(), problem: error.to_string() };
        Ok(Self { out: out.to_owned(), ..serde_json::from_value(read_json(&path)?).map_err(damaged)? })
    }

    /// Whether work in a folder began.
    pub(super) fn is_begun(out: &Path) -> bool {
        out.join(FILE).exists()
    }

    /// Takes back a beginning of which nothing came. What cannot be removed does no harm.
    pub(super) fn clear(&self) {
        let _ = std::fs::remove_file(self.out.join(FILE));
        let _ = std::fs::remove_dir_all(self.out.join("trial"));
        let _ = std::fs::remove_dir(&self.out);
    }

    /// Records it, so that the work begins or goes on from here.
    pub(crate) fn write(&self) -> Result<(), RunError> {
        let paths =
            [self.data.as_path(), self.out.as_path()].map(|path| std::path::absolute(path).unwrap_or(path.into()));
        let [data, out] = paths;
        Ok(write_json(&self.out.join(FILE), &Self { data, out, ..self.clone() })?)
    }

    pub(super) fn check(&self) -> Result<(), RunError> {
        match (0.01..=1e5).contains(&self.minutes) {
            true => Ok(()),
            false => {
                Err(ModelError::Input(format!("minutes: is {}; must be from 0.01 to 100000", self.minutes)).into())
            }
        }
    }
}
