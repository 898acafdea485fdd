//! How a data set is to be prepared.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::DataError;
use super::fewer_users::FewerUsers;
use super::interactions::ReadOptions;
use super::raw::config::RawConfig;

/// How to prepare a data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PrepareConfig {
    /// The data, in one of the layouts of [`Interactions::read`](super::Interactions::read).
    pub data: PathBuf,
    /// Folder to make; it must not exist, or be empty.
    #[serde(skip_serializing_if = "is_empty")]
    pub out: PathBuf,
    /// What the items are, as the prompt calls them; `items` by default.
    pub domain: String,
    /// A `tokenizer.json`; without one, a tokenizer is trained on the data.
    pub tokenizer: Option<PathBuf>,
    /// The token that ends targets; found as [`EndToken::find`](super::EndToken::find) says where not given.
    pub end_token: Option<String>,
    /// Most tokens of a tokenizer that is trained, 4096 by default: enough to spell common words of titles whole,
    /// small beside the backbone of a model that is trained from nothing.
    pub vocab_size: usize,
    /// Most titles in a prompt; 10 by default, as published (arXiv 2505.19092).
    pub max_history: usize,
    /// Most tokens of a prompt, and of a pretraining window; 512 by default, as published (arXiv 2505.19092).
    pub max_tokens: usize,
    /// Most choices in a pretraining window; 12 by default, a little more than a full history and its target.
    pub window: usize,
    /// File with the prompt's wording, see [`PromptTemplate`](super::PromptTemplate).
    pub template: Option<PathBuf>,
    /// Whether to leave out items whose title is HTML or empty.
    pub drop_markup_titles: bool,
    /// Training users to keep; all without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_users: Option<FewerUsers>,
    /// Whether the rows of all splits train, for a model that is served.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all_train: bool,
    /// How interactions that come one by one become rows.
    pub raw: RawConfig,
}

impl Default for PrepareConfig {
    fn default() -> Self {
        Self {
            data: PathBuf::new(),
            out: PathBuf::new(),
            domain: "items".into(),
            tokenizer: None,
            end_token: None,
            vocab_size: 4096,
            max_history: 10,
            max_tokens: 512,
            window: 12,
            template: None,
            drop_markup_titles: false,
            train_users: None,
            all_train: false,
            raw: RawConfig::default(),
        }
    }
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

impl PrepareConfig {
    pub(super) fn check(&self) -> Result<(), DataError> {
        for (setting, value) in
            [("max_history", self.max_history), ("max_tokens", self.max_tokens), ("window", self.window)]
        {
            if value == 0 {
                return Err(DataError::Setting { setting, problem: "must be at least 1".into() });
            }
        }
        Ok(())
    }

    /// How the data is read.
    pub fn read_options(&self) -> ReadOptions {
        ReadOptions {
            max_history: self.max_history,
            allow_empty_titles: self.drop_markup_titles,
            all_train: self.all_train,
            raw: self.raw.clone(),
        }
    }

    /// The config with names in place of paths, so that the same input gives the same bytes wherever it lies.
    pub(super) fn without_paths(&self) -> Self {
        let name = |path: &Path| PathBuf::from(path.file_name().unwrap_or_default());
        Self {
            data: name(&self.data),
            out: PathBuf::new(),
            tokenizer: self.tokenizer.as_deref().map(name),
            template: self.template.as_deref().map(name),
            raw: RawConfig { items: self.raw.items.as_deref().map(name), ..self.raw.clone() },
            ..self.clone()
        }
    }
}
