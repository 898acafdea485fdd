//! The items of a prepared data set and how a prompt is made of them: all that recommending needs.

use std::path::Path;

use tokenizers::Tokenizer;

use super::catalog::{Catalog, DuplicateId, Item};
use super::error::DataError;
use super::folder::{self, CatalogLine};
use super::prepare::encode_item;
use super::prepared_files::{Bounds, Files, read_dataset};
use super::prompt::{Prompt, PromptTemplate};
use super::special_tokens::SpecialToken;
use super::summary::Summary;
use super::tokenizer::{tokenizer_from_bytes, vocab_size};
use crate::models::decode::{ItemTrie, TrieError};
use crate::models::{Objective, ObjectiveKind};

/// The part of a prepared data set that is the same whatever users chose.
#[derive(Debug, Clone)]
pub struct PreparedCatalog {
    /// The items.
    pub catalog: Catalog,
    /// Tokens of each item's target, by catalog index, with the end token last and nowhere else.
    pub item_tokens: Vec<Vec<u32>>,
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
    pub(super) prompt: Prompt,
}

impl PreparedCatalog {
    /// Loads the catalog of a prepared folder, and no row of it.
    ///
    /// # Errors
    /// If a file is missing, cut off or damaged, or the folder was written by another version.
    pub fn load(dir: &Path) -> Result<Self, DataError> {
        Ok(Self::read(&mut Files::of(dir))?.0)
    }

    /// Reads the catalog, and the tokens before the history of a prompt.
    pub(super) fn read(files: &mut Files) -> Result<(Self, Vec<u32>), DataError> {
        let dataset = read_dataset(files)?;
        let (config, summary) = (dataset.config, dataset.summary);
        let (path, json) = files.read(folder::TOKENIZER)?;
        let tokenizer = tokenizer_from_bytes(&path, json.as_bytes())?;
        let has = |token: &SpecialToken| tokenizer.id_to_token(token.id).as_ref() == Some(&token.text);
        let has_special = summary.begin_token.iter().chain([&summary.end_token]).all(has);
        if vocab_size(&tokenizer) != summary.vocab_size || !has_special {
            return Err(DataError::prepared(&path, None, "not the tokenizer that the data was prepared with"));
        }
        let (path, text) = files.read(folder::TEMPLATE)?;
        let template = PromptTemplate::parse(&text).map_err(|problem| DataError::prepared(&path, None, problem))?;
        let bounds = Bounds::of(&summary);
        let lines =
            files.read_lines(folder::CATALOG, summary.items, |line: &CatalogLine| bounds.target(&line.tokens))?;
        let (items, item_tokens) =
            lines.into_iter().map(|line| (Item { id: line.id, title: line.title }, line.tokens)).unzip();
        let catalog = Catalog::new(items).map_err(|duplicate| {
            let problem = format!("the same id as in line {}", duplicate.first + 1);
            DataError::prepared(&files.dir.join(folder::CATALOG), Some(duplicate.second + 1), problem)
        })?;
        bounds.tokens(&dataset.head).map_err(|problem| {
            DataError::prepared(&files.dir.join(folder::DATASET), None, format!("head: {problem}"))
        })?;
        let read = Self {
            catalog,
            item_tokens,
            prompt: template.fill(&config.domain).beginning_with(summary.begin_token.as_ref().map(|token| token.id)),
            domain: config.domain,
            template,
            tokenizer,
            end_token: summary.end_token.id,
            vocab_size: summary.vocab_size,
            max_history: config.max_history,
            max_tokens: config.max_tokens,
            summary,
        };
        Ok((read, dataset.head))
    }

    /// Puts further items behind the catalog's own. What was trained before knows of them only what their titles say.
    ///
    /// # Errors
    /// An item without a title, one whose id the catalog has, or a title that the tokenizer refuses or that has the end
    /// token; then nothing is added.
    pub fn add(&mut self, items: &[Item]) -> Result<(), DataError> {
        if let Some(item) = items.iter().find(|item| item.title.trim().is_empty()) {
            return Err(DataError::AddedItem { id: item.id.clone(), problem: "has no title".into() });
        }
        let catalog = self.catalog.with(items).map_err(|DuplicateId { second, .. }| DataError::AddedItem {
            id: items[second - self.catalog.len()].id.clone(),
            problem: "the catalog already has an item with this id".into(),
        })?;
        let encode = |item: &Item| encode_item(item, &self.tokenizer, &self.summary.end_token);
        let tokens = items.iter().map(encode).collect::<Result<Vec<_>, _>>()?;
        self.item_tokens.extend(tokens);
        self.catalog = catalog;
        Ok(())
    }

    /// Tokens of a text as of an item with this title.
    pub(crate) fn encode_target(&self, text: &str) -> Result<Vec<u32>, DataError> {
        let item = Item { id: "text".into(), title: text.into() };
        encode_item(&item, &self.tokenizer, &self.summary.end_token)
    }

    /// An objective over the catalog.
    ///
    /// # Errors
    ///
    /// A catalog without items.
    pub fn objective(&self, kind: ObjectiveKind) -> Result<Objective, TrieError> {
        Ok(Objective::new(kind, ItemTrie::new(&self.item_tokens)?))
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

    /// The prompt for a history of titles, oldest first, as [`prompt_for_titles`](Self::prompt_for_titles) makes it, and
    /// for each of its tokens the place in the history of the title that it belongs to; none for the wording around the
    /// history. See [`Prompt::titles_of_tokens`](super::Prompt::titles_of_tokens).
    ///
    /// # Errors
    /// If there is no title, or the newest alone does not fit.
    pub fn prompt_by_title(&self, titles: &[&str]) -> Result<(Vec<u32>, Vec<Option<usize>>), DataError> {
        let newest = &titles[titles.len().saturating_sub(self.max_history)..];
        let encoded = self.prompt.encode(&self.tokenizer, newest, self.max_tokens, || "the history".into())?;
        let left_out = titles.len() - encoded.titles;
        let places = self.prompt.titles_of_tokens(&self.tokenizer, &titles[left_out..])?;
        if places.len() != encoded.tokens.len() {
            let problem = "the tokenizer does not report which characters its tokens cover".into();
            return Err(DataError::Encode { text: self.prompt.render(&titles[left_out..]), problem });
        }
        Ok((encoded.tokens, places.into_iter().map(|place| place.map(|place| left_out + place)).collect()))
    }
}
