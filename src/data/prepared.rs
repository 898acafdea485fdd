//! A prepared data set, loaded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use latentr3_train::Example;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokenizers::Tokenizer;

use super::catalog::{Catalog, Item};
use super::error::DataError;
use super::folder::{self, CatalogLine, Dataset};
use super::prepared_row::PreparedRow;
use super::prompt::{Prompt, PromptTemplate};
use super::splits::{Split, Splits};
use super::summary::Summary;
use super::tokenizer::{tokenizer_from_bytes, vocab_size};
use super::windows::{Window, count_items};
use crate::models::decode::{ItemTrie, TrieError};
use crate::models::files::sha256;
use crate::models::{Objective, ObjectiveKind};

/// A data set as [`prepare`](super::prepare) wrote it.
#[derive(Debug, Clone)]
pub struct Prepared {
    /// The items.
    pub catalog: Catalog,
    /// Tokens of each item's target, by catalog index, with the end token last and nowhere else.
    pub item_tokens: Vec<Vec<u32>>,
    /// The rows of each split.
    pub rows: Splits<Vec<PreparedRow>>,
    /// What the items are, as the prompt calls them.
    pub domain: String,
    /// The prompt's wording.
    pub template: PromptTemplate,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The token that ends targets.
    pub end_token: u32,
    /// Size of the vocabulary: every token is below it.
    pub vocab_size: usize,
    /// Most titles in a prompt.
    pub max_history: usize,
    /// Most tokens of a prompt.
    pub max_tokens: usize,
    /// The data set in numbers.
    pub summary: Summary,
    prompt: Prompt,
    head: Vec<u32>,
    windows: Vec<Window>,
    files: BTreeMap<String, String>,
}

impl Prepared {
    /// Loads a prepared folder.
    ///
    /// # Errors
    /// If a file is missing, cut off or damaged, or the folder was written by another version.
    pub fn load(dir: &Path) -> Result<Self, DataError> {
        let mut files = Files { dir: dir.into(), sums: BTreeMap::new() };
        let dataset = read_dataset(&mut files)?;
        let (config, summary) = (dataset.config, dataset.summary);
        let (path, json) = files.read(folder::TOKENIZER)?;
        let tokenizer = tokenizer_from_bytes(&path, json.as_bytes())?;
        let end = &summary.end_token;
        if vocab_size(&tokenizer) != summary.vocab_size || tokenizer.id_to_token(end.id).as_ref() != Some(&end.text) {
            return Err(DataError::prepared(&path, None, "another tokenizer than the data was prepared with"));
        }
        let (path, text) = files.read(folder::TEMPLATE)?;
        let template = PromptTemplate::parse(&text).map_err(|problem| DataError::prepared(&path, None, problem))?;

        let bounds = Bounds { items: summary.items, vocab_size: summary.vocab_size, end_token: end.id };
        let lines =
            files.read_lines(folder::CATALOG, summary.items, |line: &CatalogLine| bounds.target(&line.tokens))?;
        let (items, item_tokens) =
            lines.into_iter().map(|line| (Item { id: line.id, title: line.title }, line.tokens)).unzip();
        let catalog = Catalog::new(items).map_err(|duplicate| {
            let problem = format!("the same id as in line {}", duplicate.first + 1);
            DataError::prepared(&files.dir.join(folder::CATALOG), Some(duplicate.second + 1), problem)
        })?;
        let rows = Splits::try_make(|split| {
            let expected = summary.splits.get(split).rows;
            files.read_lines(&folder::rows_file(split), expected, |row| bounds.row(row))
        })?;
        let expected = summary.windows.train.saturating_add(summary.windows.valid);
        let windows = files.read_lines(folder::WINDOWS, expected, |window| bounds.window(window))?;
        bounds.tokens(&dataset.head).map_err(|problem| {
            DataError::prepared(&files.dir.join(folder::DATASET), None, format!("head: {problem}"))
        })?;
        Ok(Self {
            catalog,
            item_tokens,
            rows,
            prompt: template.fill(&config.domain),
            domain: config.domain,
            template,
            tokenizer,
            end_token: end.id,
            vocab_size: summary.vocab_size,
            max_history: config.max_history,
            max_tokens: config.max_tokens,
            summary,
            head: dataset.head,
            windows,
            files: files.sums,
        })
    }

    /// The rows of a split, to train or evaluate on.
    pub fn examples(&self, split: Split) -> Vec<Example> {
        let example = |(at, row): (usize, &PreparedRow)| Example {
            prompt: row.prompt.clone(),
            target: self.item_tokens[row.item].clone(),
            item: row.item,
            row: at,
        };
        self.rows.get(split).iter().enumerate().map(example).collect()
    }

    /// Pretraining windows, those that train and those that validate.
    ///
    /// The prompt is the wording before the history; the target is the items' tokens one after the other, for an
    /// objective: of the end tokens the last one only, or for the catalog's all of them. The item is the last. Each
    /// training choice is in exactly one window. The validation windows are those of one user in 20 (chosen by a hash
    /// of the id; at least one of two users, and from the second one on at most 500 windows), who have no training
    /// window.
    pub fn windows(&self, objective: ObjectiveKind) -> (Vec<Example>, Vec<Example>) {
        let (mut train, mut valid) = (Vec::new(), Vec::new());
        for (row, window) in self.windows.iter().enumerate() {
            let Some(&item) = window.items.last() else {
                continue;
            };
            let target = window.target(&self.item_tokens, objective);
            let example = Example { prompt: self.head.clone(), target, item, row };
            if window.split == Split::Train { train.push(example) } else { valid.push(example) }
        }
        (train, valid)
    }

    /// An objective over the catalog.
    ///
    /// # Errors
    ///
    /// A catalog without items.
    pub fn objective(&self, kind: ObjectiveKind) -> Result<Objective, TrieError> {
        Ok(Objective::new(kind, ItemTrie::new(&self.item_tokens)?))
    }

    /// How often each item was chosen in training, by catalog index.
    ///
    /// Every choice counts once, whether a training row has it as its item or only in its history.
    pub fn train_counts(&self) -> Vec<u64> {
        count_items(self.windows.iter().map(|window| window.items.as_slice()), self.catalog.len())
    }

    /// Tokens of the prompt for a history of titles, oldest first, as in preparation: the newest
    /// [`max_history`](Self::max_history), and fewer if they do not fit [`max_tokens`](Self::max_tokens).
    ///
    /// # Errors
    /// If there is no title, or the newest alone does not fit.
    pub fn prompt_for_titles(&self, titles: &[String]) -> Result<Vec<u32>, DataError> {
        let titles: Vec<_> = titles.iter().map(String::as_str).collect();
        let newest = &titles[titles.len().saturating_sub(self.max_history)..];
        self.encode_titles(newest, || "the history".into())
    }

    /// Tokens of the prompt for these titles, fewer if they do not fit; `place` names them in errors.
    pub(crate) fn encode_titles(&self, titles: &[&str], place: impl Fn() -> String) -> Result<Vec<u32>, DataError> {
        Ok(self.prompt.encode(&self.tokenizer, titles, self.max_tokens, place)?.tokens)
    }

    /// For each token of a row's prompt, the place in the row's history of the title that it belongs to; none for the
    /// wording around the history. See [`Prompt::titles_of_tokens`].
    ///
    /// # Errors
    /// If the prompt is not the one that is made of the row's history.
    pub fn titles_of_tokens(&self, row: &PreparedRow) -> Result<Vec<Option<usize>>, DataError> {
        let titles: Vec<_> = row.history.iter().map(|&item| self.catalog.title(item)).collect();
        let encoded = self.prompt.encode(&self.tokenizer, &titles, self.max_tokens, || row.user.clone())?;
        let left_out = titles.len() - encoded.titles;
        let places = self.prompt.titles_of_tokens(&self.tokenizer, &titles[left_out..])?;
        if encoded.tokens != row.prompt || places.len() != row.prompt.len() {
            return Err(DataError::OtherPrompt { user: row.user.clone() });
        }
        Ok(places.into_iter().map(|place| place.map(|place| left_out + place)).collect())
    }

    /// SHA-256 of every file of the folder, by its name.
    pub fn files(&self) -> &BTreeMap<String, String> {
        &self.files
    }

    /// A name for the folder's content, 64 hexadecimal digits: any change of a file changes it, a copy has the same.
    pub fn fingerprint(&self) -> String {
        let sums: String = self.files.iter().map(|(name, sum)| format!("{sum}  {name}\n")).collect();
        sha256(sums.as_bytes())
    }
}

fn read_dataset(files: &mut Files) -> Result<Dataset, DataError> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let (path, json) = files.read(folder::DATASET)?;
    let damaged = |problem: serde_json::Error| DataError::prepared(&path, None, problem);
    let Version { format } = serde_json::from_str(&json).map_err(damaged)?;
    if format != folder::FORMAT {
        let problem = format!("format {format}, while this program reads format {}", folder::FORMAT);
        return Err(DataError::prepared(&path, None, problem));
    }
    serde_json::from_str(&json).map_err(damaged)
}

/// The files of a folder, hashed as they are read.
struct Files {
    dir: PathBuf,
    sums: BTreeMap<String, String>,
}

impl Files {
    fn read(&mut self, name: &str) -> Result<(PathBuf, String), DataError> {
        let path = self.dir.join(name);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(DataError::MissingFile {
                    path,
                    needed_for: "a folder that `latentr3 prepare` made has it",
                });
            }
            Err(error) => return Err(DataError::io(&path, "read", error)),
        };
        self.sums.insert(name.into(), sha256(&bytes));
        match String::from_utf8(bytes) {
            Ok(text) => Ok((path, text)),
            Err(_) => Err(DataError::prepared(&path, None, "not UTF-8")),
        }
    }

    /// Reads and checks one value from each line.
    fn read_lines<T: DeserializeOwned>(
        &mut self,
        name: &str,
        expected: usize,
        check: impl Fn(&T) -> Result<(), String>,
    ) -> Result<Vec<T>, DataError> {
        let (path, text) = self.read(name)?;
        let mut values = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let value = serde_json::from_str(line).map_err(|error| error.to_string());
            let value = value.and_then(|value| check(&value).map(|()| value));
            values.push(value.map_err(|problem| DataError::prepared(&path, Some(at + 1), problem))?);
        }
        if values.len() != expected {
            let problem = format!("{} lines, while {} counts {expected}", values.len(), folder::DATASET);
            return Err(DataError::prepared(&path, None, problem));
        }
        Ok(values)
    }
}

/// What indices and tokens of a prepared folder must keep to.
struct Bounds {
    items: usize,
    vocab_size: usize,
    end_token: u32,
}

impl Bounds {
    fn tokens(&self, tokens: &[u32]) -> Result<(), String> {
        if tokens.is_empty() {
            return Err("no tokens".into());
        }
        match tokens.iter().find(|&&token| token as usize >= self.vocab_size) {
            Some(token) => Err(format!("token {token} is outside the vocabulary of {}", self.vocab_size)),
            None => Ok(()),
        }
    }

    fn target(&self, tokens: &[u32]) -> Result<(), String> {
        self.tokens(tokens)?;
        match tokens.iter().position(|&token| token == self.end_token) {
            Some(at) if at + 1 == tokens.len() => Ok(()),
            _ => Err(format!("the end token {} must be last and nowhere else", self.end_token)),
        }
    }

    fn items(&self, items: &[usize]) -> Result<(), String> {
        if items.is_empty() {
            return Err("no items".into());
        }
        match items.iter().find(|&&item| item >= self.items) {
            Some(item) => Err(format!("item {item} is outside the catalog of {}", self.items)),
            None => Ok(()),
        }
    }

    fn row(&self, row: &PreparedRow) -> Result<(), String> {
        self.items(&row.history)?;
        self.items(&[row.item])?;
        self.tokens(&row.prompt)
    }

    fn window(&self, window: &Window) -> Result<(), String> {
        if window.split == Split::Test {
            return Err("a window either trains or validates".into());
        }
        self.items(&window.items)
    }
}

#[cfg(test)]
mod tests;
