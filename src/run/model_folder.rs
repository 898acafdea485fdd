//! What a path to a model means: a folder in Hugging Face's layout, a run folder with its best checkpoint, or a name on
//! the hub.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tokenizers::Tokenizer;

use super::error::RunError;
use crate::data::{PreparedCatalog, encode_alike, load_tokenizer};
use crate::from_hub::{self, HubName};
use crate::input_error::InputError;
use crate::models::files;
use crate::models::hub;
use crate::models::{LatentRecommender, ModelError, Precision, ThoughtKind, device};
use crate::train::{RunPaths, holds_weights};

/// Name of the tokenizer's file in model and prepared folders.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// The model folder that a path means: a Hugging Face folder itself, a run folder's best checkpoint, or the download of
/// a name on the hub.
///
/// # Errors
///
/// What keeps a name's model from being downloaded.
pub fn model_folder(path: &Path) -> Result<PathBuf, RunError> {
    if is_run(path) { Ok(RunPaths(path).best()) } else { Ok(from_hub::model_folder(path)?) }
}

/// Whether a folder is a run's.
pub fn is_run(path: &Path) -> bool {
    RunPaths(path).is_run()
}

/// A path that holds wherever the program is called from next.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// What means the same model wherever and whenever the program is called next: an absolute path, or a name on the hub
/// with its commit.
pub(crate) fn lasting(path: &Path) -> Result<PathBuf, RunError> {
    if HubName::parse(path).is_some() { Ok(from_hub::pinned(path)?) } else { Ok(absolute(path)) }
}

/// Makes sure before anything is loaded that there is such a device and that it computes in a precision.
///
/// # Errors
///
/// It does not exist, is not compiled in, or does not compute in the precision.
pub fn check_device(name: &str, precision: Precision) -> Result<(), RunError> {
    Ok(precision.check(&device(name)?)?)
}

/// Loads the model of a Hugging Face folder or of a run folder's best checkpoint.
///
/// # Errors
///
/// No such device or folder, or a model that cannot be read.
pub fn load_model(path: &Path, device_name: &str) -> Result<LatentRecommender, RunError> {
    load_rounded_model(path, device_name, Precision::F32)
}

/// [`load_model`] with what [`hub::load_rounded`] does.
///
/// # Errors
///
/// As [`load_model`].
pub(crate) fn load_rounded_model(
    path: &Path,
    device_name: &str,
    backbone: Precision,
) -> Result<LatentRecommender, RunError> {
    let device = device(device_name)?;
    let folder = model_folder(path)?;
    if !folder.exists() {
        let problem = match folder == path {
            true => "no such model folder; give a Hugging Face folder or a run folder",
            false => "the run has no best checkpoint yet",
        };
        return Err(InputError::new(folder, problem).into());
    }
    if !["config.json", hub::ADAPTER_CONFIG_FILE].iter().any(|file| folder.join(file).exists()) {
        let problem = "is not a model folder: it has neither config.json nor adapter_config.json";
        return Err(InputError::new(folder, problem).into());
    }
    Ok(hub::load_rounded(&folder, &device, backbone)?)
}

/// The model with so many of the thoughts that it has learnt. Learnt constants are as many as they are, or none.
///
/// # Errors
///
/// More thoughts than it can think.
pub fn with_learnt_thoughts(
    model: LatentRecommender,
    thoughts: usize,
    seed: u64,
) -> Result<LatentRecommender, RunError> {
    let learnt = model.thoughts();
    let kind = model.source.kind();
    if thoughts > 0 && (learnt == 0 || (kind == ThoughtKind::Constants && thoughts != learnt)) {
        return Err(RunError::Thoughts { learnt, asked: thoughts });
    }
    Ok(model.with_thoughts(kind, thoughts, seed)?)
}

/// SHA-256 of the files with a model's weights, by their names. Where the folder has a record of them, they are read
/// from it: who loads the model verifies it.
///
/// # Errors
///
/// A file that cannot be read.
pub fn weight_files(model: &Path) -> Result<BTreeMap<String, String>, RunError> {
    let folder = match model_folder(model) {
        // A run resumes without the model that it began with, and who needs the model says that it cannot be had.
        Err(RunError::Hub(_)) => return Ok(BTreeMap::new()),
        folder => folder?,
    };
    let base = hub::base_folder(&folder)?;
    // An adapter's model may lie in another folder.
    let other = (base != folder).then_some((base, "base/"));
    let mut files = BTreeMap::new();
    for (folder, prefix) in std::iter::once((folder, "")).chain(other) {
        let recorded = files::recorded_checksums(&folder)?.unwrap_or_default();
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.map_err(ModelError::io(&folder))?,
        };
        for entry in entries {
            let entry = entry.map_err(ModelError::io(&folder))?;
            if let Ok(name) = entry.file_name().into_string()
                && (holds_weights(&name) || name == hub::ADAPTER_CONFIG_FILE)
            {
                let sum = recorded.get(&name).cloned().map_or_else(|| files::file_sha256(&entry.path()), Ok)?;
                files.insert(format!("{prefix}{name}"), sum);
            }
        }
    }
    Ok(files)
}

/// Makes sure that the data was tokenised by the model's own tokenizer and fits its vocabulary and positions; `path` is
/// where the model was loaded from.
///
/// # Errors
///
/// Another tokenizer, or prompts that are too long for the model.
pub fn check_fit(model: &LatentRecommender, path: &Path, prepared: &PreparedCatalog) -> Result<(), RunError> {
    let folder = model_folder(path)?;
    let config = model.backbone.config();
    if prepared.vocab_size > config.vocab_size {
        let problem = format!(
            "the data's tokenizer has {} tokens, but the model's vocabulary only {}",
            prepared.vocab_size, config.vocab_size
        );
        return Err(RunError::OtherTokenizer { model: folder, problem });
    }
    let target = prepared.item_tokens.iter().map(Vec::len).max().unwrap_or(0);
    let tokens = prepared.max_tokens.saturating_add(model.thoughts() + target);
    if tokens > config.max_positions {
        return Err(RunError::TooLong { model: folder, tokens, positions: config.max_positions });
    }
    if let Some(own) = own_tokenizer(&folder)?
        && !encode_alike(&load_tokenizer(&own)?, &prepared.tokenizer)?
    {
        let problem = "its tokenizer is not the one that the data was prepared with".into();
        return Err(RunError::OtherTokenizer { model: folder, problem });
    }
    Ok(())
}

/// The tokenizer of the model in a folder: the one beside it, or where it is an adapter only, beside its model.
///
/// # Errors
///
/// The adapter's configuration cannot be read.
pub fn own_tokenizer(folder: &Path) -> Result<Option<PathBuf>, RunError> {
    let candidates = [folder.to_owned(), hub::base_folder(folder)?].map(|folder| folder.join(TOKENIZER_FILE));
    Ok(candidates.into_iter().find(|path| path.exists()))
}

/// The tokenizer as a file that checkpoints carry along: name and content.
///
/// # Errors
///
/// A tokenizer that cannot be written as JSON.
pub fn tokenizer_asset(tokenizer: &Tokenizer) -> Result<(String, Vec<u8>), RunError> {
    let text = tokenizer
        .to_string(true)
        .map_err(|error| ModelError::Input(format!("the tokenizer cannot be written: {error}")))?;
    Ok((TOKENIZER_FILE.into(), text.into_bytes()))
}
