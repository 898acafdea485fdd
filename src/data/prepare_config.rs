//! How a data set is to be prepared.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::DataError;
use super::fewer_users::FewerUsers;
use super::interactions::ReadOptions;
use super::raw::config::RawConfig;
use super::special_tokens::Bos;
use crate::from_hub::tokenizer_file;
#[cfg(feature = "clap")]
use crate::option_values::any_path;

/// How to prepare a data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[cfg_attr(feature = "clap", derive(clap::Args))]
pub struct PrepareConfig {
    /// Folder of the data, or a file of raw interactions.
    #[cfg_attr(feature = "clap", arg(long, value_name = "PATH"))]
    pub data: PathBuf,
    /// Folder to create; it must be new or empty.
    #[cfg_attr(feature = "clap", arg(long, value_name = "DIR", default_value = "", hide_default_value = true, value_parser = any_path()))]
    #[serde(skip_serializing_if = "is_empty")]
    pub out: PathBuf,
    /// What the prompt calls the items, such as "office products".
    #[cfg_attr(feature = "clap", arg(long, default_value = "items"))]
    pub domain: String,
    /// Existing tokenizer: a tokenizer.json, or a model folder or hub name that has one [default: train a byte-level
    /// BPE on the data].
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE|MODEL"))]
    pub tokenizer: Option<PathBuf>,
    /// Token that ends a target [default: found in the tokenizer or the files beside it].
    #[cfg_attr(feature = "clap", arg(long, value_name = "TEXT"))]
    pub end_token: Option<String>,
    /// Whether prompts begin with the tokenizer's BOS token.
    #[cfg_attr(feature = "clap", arg(long, value_enum, default_value_t = Bos::Auto))]
    pub bos: Bos,
    /// Wrap prompts in the tokenizer's chat template, as a user message.
    #[cfg_attr(feature = "clap", arg(long, requires = "tokenizer"))]
    pub chat: bool,
    /// Largest vocabulary of a tokenizer trained on the data. The default keeps common words of titles whole and is
    /// small beside the backbone of a model from scratch.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = 4096))]
    pub vocab_size: usize,
    /// Maximum number of titles in a prompt; the default is as published (arXiv 2505.19092).
    #[cfg_attr(feature = "clap", arg(long, default_value_t = 10))]
    pub max_history: usize,
    /// Maximum number of tokens in a prompt or pretraining window; a longer prompt loses its oldest titles. The default
    /// is as published (arXiv 2505.19092).
    #[cfg_attr(feature = "clap", arg(long, default_value_t = 512))]
    pub max_tokens: usize,
    /// Maximum number of items in a pretraining window; the default is slightly more than a full history and its
    /// target.
    #[cfg_attr(feature = "clap", arg(long, default_value_t = 12))]
    pub window: usize,
    /// File with the prompt's wording; {history} stands for the titles, {domain} for the --domain.
    #[cfg_attr(feature = "clap", arg(long, value_name = "FILE"))]
    pub template: Option<PathBuf>,
    /// Drop items whose title is HTML or empty.
    #[cfg_attr(feature = "clap", arg(long))]
    pub drop_markup_titles: bool,
    /// Training users to keep; absent, all.
    #[cfg_attr(feature = "clap", arg(skip))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_users: Option<FewerUsers>,
    /// Use the rows of all splits for training, for a model to be served.
    #[cfg_attr(feature = "clap", arg(long))]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub all_train: bool,
    /// How raw interactions become rows.
    #[cfg_attr(feature = "clap", command(flatten))]
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
            bos: Bos::Auto,
            chat: false,
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

    /// The config with the file of the tokenizer, which may be named as on the hub.
    pub(super) fn with_tokenizer_at_hand(&self) -> Result<Self, DataError> {
        let tokenizer = self.tokenizer.as_deref().map(tokenizer_file).transpose()?;
        Ok(Self { tokenizer, ..self.clone() })
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
            raw: self.raw.clone().without_path(),
            ..self.clone()
        }
    }
}
