//! The files that commands take.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use tokenizers::Tokenizer;

use super::CliError;
use super::terminal::note;
use crate::data::{Prepared, encode, load_tokenizer};
use crate::eval::EvaluationResult;
use crate::models::hub;
use crate::models::{Driver, LatentRecommender, ModelError, ObjectiveKind, Precision, ThoughtKind, device, driver};
use crate::train::{RunPaths, holds_weights};

/// Name of the tokenizer's file in model and prepared folders.
pub(super) const TOKENIZER_FILE: &str = "tokenizer.json";

/// The model folder that `--model` means: a Hugging Face folder itself, or a run folder's best checkpoint.
pub(super) fn model_folder(path: &Path) -> PathBuf {
    if is_run(path) { RunPaths(path).best() } else { path.to_owned() }
}

/// Whether a folder is a run's.
pub(super) fn is_run(path: &Path) -> bool {
    RunPaths(path).is_run()
}

/// A path that holds wherever the program is called from next.
pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Makes sure before anything is loaded that there is such a device and that it computes in a precision.
pub(super) fn check_device(name: &str, precision: Precision) -> Result<(), CliError> {
    Ok(precision.check(&device(name)?)?)
}

/// Loads the model that `--model` means.
pub(super) fn load_model(path: &Path, device_name: &str) -> Result<LatentRecommender, CliError> {
    let device = device(device_name)?;
    warn_of_software(device_name, &device);
    let folder = model_folder(path);
    if !folder.exists() {
        let problem = match folder == path {
            true => "there is no such model folder; give a Hugging Face folder or a run folder",
            false => "the run has no best checkpoint yet",
        };
        return Err(CliError::Input { path: folder, line: None, problem: problem.into() });
    }
    if !["config.json", hub::ADAPTER_CONFIG_FILE].iter().any(|file| folder.join(file).exists()) {
        let problem = "is no model folder: it has neither config.json nor adapter_config.json".into();
        return Err(CliError::Input { path: folder, line: None, problem });
    }
    Ok(hub::load(&folder, &device)?)
}

/// The objective that was asked for, or else the one that the model records; says so where they differ.
pub(super) fn objective_of(model: &LatentRecommender, asked: Option<ObjectiveKind>) -> ObjectiveKind {
    let (recorded, objective) = (model.objective(), asked.unwrap_or(model.objective()));
    if objective != recorded {
        note(&format!("note: the model was trained for the objective `{recorded}`; it is read by `{objective}`"));
    }
    objective
}

/// The model with so many of the thoughts that it has learnt. Learnt constants are as many as they are, or none.
pub(super) fn with_learnt_thoughts(
    model: LatentRecommender,
    thoughts: usize,
    seed: u64,
) -> Result<LatentRecommender, CliError> {
    let learnt = model.thoughts();
    let kind = model.source.kind();
    if thoughts > 0 && (learnt == 0 || (kind == ThoughtKind::Constants && thoughts != learnt)) {
        return Err(CliError::Usage(format!("the model has learnt {learnt} thoughts, not {thoughts}")));
    }
    Ok(model.with_thoughts(kind, thoughts, seed)?)
}

/// Says so where a driver only computes on the CPU: it is slow, and some of them compute wrong numbers without an error.
fn warn_of_software(name: &str, device: &Device) {
    if let Some(Driver { name: driver, is_software: true }) = driver(device) {
        note(&format!(
            "warning: `{name}` is a software driver here ({driver}), slower than `flex`; \
             `latentr3 devices --check {name}` says whether its numbers are right"
        ));
    }
}

/// SHA-256 of the files with a model's weights, by their names. Where the folder has a record of them, they are read from it: who loads the
/// model verifies it.
pub(super) fn weight_files(model: &Path) -> Result<BTreeMap<String, String>, CliError> {
    let folder = model_folder(model);
    let base = hub::base_folder(&folder)?;
    // An adapter's model may lie in another folder.
    let other = (base != folder).then_some((base, "base/"));
    let mut files = BTreeMap::new();
    for (folder, prefix) in std::iter::once((folder, "")).chain(other) {
        let recorded = hub::recorded_checksums(&folder)?.unwrap_or_default();
        let entries = match std::fs::read_dir(&folder) {
            // A run goes on without the model that it began with.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.map_err(ModelError::io(&folder))?,
        };
        for entry in entries {
            let entry = entry.map_err(ModelError::io(&folder))?;
            if let Ok(name) = entry.file_name().into_string()
                && (holds_weights(&name) || name == hub::ADAPTER_CONFIG_FILE)
            {
                let sum = recorded.get(&name).cloned().map_or_else(|| hub::file_sha256(&entry.path()), Ok)?;
                files.insert(format!("{prefix}{name}"), sum);
            }
        }
    }
    Ok(files)
}

/// Makes sure that the data was tokenised by the model's own tokenizer and fits its vocabulary and positions.
pub(super) fn check_fit(model: &LatentRecommender, folder: &Path, prepared: &Prepared) -> Result<(), CliError> {
    let error = |problem: String| CliError::Input { path: folder.to_owned(), line: None, problem };
    let config = model.backbone.config();
    if prepared.vocab_size > config.vocab_size {
        return Err(error(format!(
            "the data's tokenizer has {} tokens, the model's vocabulary only {}; prepare the data with the model's tokenizer (--tokenizer)",
            prepared.vocab_size, config.vocab_size
        )));
    }
    let target = prepared.item_tokens.iter().map(Vec::len).max().unwrap_or(0);
    let longest = prepared.max_tokens.saturating_add(model.thoughts() + target);
    if longest > config.max_positions {
        return Err(error(format!(
            "sequences of up to {longest} tokens do not fit the model's {} positions; prepare with a smaller --max-tokens",
            config.max_positions
        )));
    }
    if let Some(own) = own_tokenizer(folder)?
        && !same_tokenizer(&load_tokenizer(&own)?, &prepared.tokenizer)?
    {
        return Err(error(
            "its tokenizer is not the one that the data was prepared with; prepare again with --tokenizer".into(),
        ));
    }
    Ok(())
}

/// The tokenizer of the model in a folder: the one beside it, or where it is an adapter only, beside its model.
pub(super) fn own_tokenizer(folder: &Path) -> Result<Option<PathBuf>, CliError> {
    let candidates = [folder.to_owned(), hub::base_folder(folder)?].map(|folder| folder.join(TOKENIZER_FILE));
    Ok(candidates.into_iter().find(|path| path.exists()))
}

/// Whether two tokenizers have the same vocabulary and spell a text alike.
fn same_tokenizer(a: &Tokenizer, b: &Tokenizer) -> Result<bool, CliError> {
    let probe = "\"The Dark Side, 1973\" (Remastered) & más — ½";
    Ok(a.get_vocab(true) == b.get_vocab(true) && encode(a, probe)? == encode(b, probe)?)
}

/// The tokenizer as a file that checkpoints carry along: name and content.
pub(super) fn tokenizer_asset(tokenizer: &Tokenizer) -> Result<(String, Vec<u8>), CliError> {
    let text = tokenizer
        .to_string(true)
        .map_err(|error| CliError::Usage(format!("the tokenizer cannot be written: {error}")))?;
    Ok((TOKENIZER_FILE.into(), text.into_bytes()))
}

/// Reads what `latentr3 evaluate --json` wrote, or what an experiment kept of it.
pub(super) fn read_result(path: &Path) -> Result<EvaluationResult, CliError> {
    Ok(crate::report::read_result(path)?)
}
