//! From a user's files to a folder of tokens.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;
use tokenizers::Tokenizer;

use super::catalog::{Catalog, Item};
use super::drop_titles::{self, Dropped};
use super::error::DataError;
use super::folder::{self, CatalogLine, Dataset, Staging};
use super::interactions::Interactions;
use super::prepare_config::PrepareConfig;
use super::prepared_row::PreparedRow;
use super::prompt::{Prompt, PromptTemplate, target_text};
use super::raw::config::RawSummary;
use super::special_tokens::{Bos, SpecialToken};
use super::splits::{Split, Splits};
use super::summary::{SplitSummary, Spread, Summary, WindowSummary};
use super::tokenizer::{encode, tokenizer_from_bytes, train_bpe, vocab_size};
use super::windows::{Sequence, WindowSettings, count_items, cut_windows, train_sequences};
use crate::models::files::file_sha256;

impl PrepareConfig {
    /// What filters and split leave of raw interactions, without making anything.
    ///
    /// # Errors
    /// Rows with histories, which are used as they are, settings for what comes after the split, and those of
    /// [`Interactions::survey`].
    pub fn survey(&self) -> Result<RawSummary, DataError> {
        for (setting, is_given) in
            [("drop_markup_titles", self.drop_markup_titles), ("train_users", self.train_users.is_some())]
        {
            if is_given {
                return Err(DataError::Setting {
                    setting,
                    problem: "applies only after the split, where this summary ends; leave it out".into(),
                });
            }
        }
        let problem = "has rows with histories, which are used as they are; nothing is filtered or split";
        let damaged = || DataError::Damaged { path: self.data.clone(), problem: problem.into() };
        Interactions::survey(&self.data, &self.read_options())?.ok_or_else(damaged)
    }
}

/// Reads, tokenises and writes a data set; the folder appears complete or not at all.
///
/// The same input and config give the same bytes.
///
/// # Errors
/// On the first thing that is wrong with the config, the data, the template or the tokenizer.
pub fn prepare(config: &PrepareConfig) -> Result<Summary, DataError> {
    prepare_unless(config, &AtomicBool::new(false))
}

/// [`prepare`] that stops soon after `interrupted` is set, and leaves nothing.
///
/// # Errors
/// Those of [`prepare`], and [`DataError::Interrupted`].
pub fn prepare_unless(config: &PrepareConfig, interrupted: &AtomicBool) -> Result<Summary, DataError> {
    config.check()?;
    let config = &config.with_tokenizer_at_hand()?;
    // Whether it can be made; until there is something to write, nothing lies there.
    drop(Staging::start(&config.out)?);
    let check_interrupted = || match interrupted.load(Ordering::Relaxed) {
        true => Err(DataError::Interrupted),
        false => Ok(()),
    };
    let template = read_template(config)?;
    let prompt = template.fill(&config.domain);

    let mut data = Interactions::read(&config.data, &config.read_options())?;
    check_interrupted()?;
    let markup_titles = drop_titles::count_markup(&data.catalog);
    let dropped = if config.drop_markup_titles { drop_titles::drop_titles(&mut data)? } else { Dropped::default() };
    if let Some(fewer) = &config.train_users {
        fewer.keep(&mut data.rows.train);
    }
    let sequences = train_sequences(&data.rows.train);
    let train_counts = count_items(sequences.iter().map(|sequence| sequence.items.as_slice()), data.catalog.len());

    let (tokenizer, tokenizer_json) = match &config.tokenizer {
        Some(file) => {
            let bytes = std::fs::read(file).map_err(|error| DataError::io(file, "read", error))?;
            (tokenizer_from_bytes(file, &bytes)?, bytes)
        }
        None => train_tokenizer(&prompt, &data.catalog, &sequences, config.vocab_size)?,
    };
    check_interrupted()?;
    let end_token = SpecialToken::end(&tokenizer, config.tokenizer.as_deref(), config.end_token.as_deref())?;
    // A chat template has the token that begins a text itself.
    let bos = if config.chat && config.bos == Bos::Auto { Bos::No } else { config.bos };
    let begin_token = SpecialToken::begin(&tokenizer, config.tokenizer.as_deref(), bos)?;
    let prompt = prompt.beginning_with(begin_token.as_ref().map(|token| token.id));
    let item_tokens = encode_items(&data.catalog, &tokenizer, &end_token)?;
    let head = prompt.encode_head(&tokenizer)?;
    if head.len() == usize::from(begin_token.is_some()) {
        let path = config.template.clone().unwrap_or_default();
        return Err(DataError::Template { path, problem: "the text before {history} has no tokens; add words".into() });
    }

    check_interrupted()?;
    let encoder = RowEncoder {
        data: &data,
        tokenizer: &tokenizer,
        prompt: &prompt,
        config,
        check_interrupted: &check_interrupted,
    };
    let mut shortened = Splits::default();
    let rows = Splits::try_make(|split| encoder.encode(split, shortened.get_mut(split)))?;
    let windows = cut_windows(
        &sequences,
        &WindowSettings {
            catalog: &data.catalog,
            item_tokens: &item_tokens,
            head: head.len(),
            max_tokens: config.max_tokens,
            window: config.window,
        },
    )?;

    let users: HashSet<_> = Split::ALL.iter().flat_map(|&split| rows.get(split)).map(|row| &row.user).collect();
    let shared: Vec<_> = data.catalog.title_group_sizes().into_iter().filter(|&size| size > 1).collect();
    let summary = Summary {
        layout: data.layout,
        users: users.len(),
        items: data.catalog.len(),
        titles: data.catalog.titles(),
        shared_titles: shared.len(),
        items_with_shared_title: shared.iter().sum(),
        markup_titles,
        splits: Splits::make(|split| {
            let shortened = *shortened.get(split);
            SplitSummary::of(rows.get(split), &item_tokens, &train_counts, shortened)
        }),
        dropped,
        notes: data.notes,
        raw: data.raw.clone(),
        windows: WindowSummary::of(&windows, &item_tokens),
        target_tokens: Spread::of(item_tokens.iter().map(Vec::len)),
        begin_token,
        end_token,
        vocab_size: vocab_size(&tokenizer),
    };

    let mut inputs = BTreeMap::new();
    for path in data.inputs.iter().chain(&config.tokenizer).chain(&config.template) {
        let mut name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        while inputs.contains_key(&name) {
            // Of another folder.
            name.push('\'');
        }
        let sum = file_sha256(path).map_err(|error| DataError::io(path, "read", std::io::Error::other(error)))?;
        inputs.insert(name, sum);
    }
    check_interrupted()?;
    let staging = Staging::start(&config.out)?;
    let dataset = Dataset { format: folder::FORMAT, config: config.without_paths(), inputs, head, summary };
    staging.write_json(folder::DATASET, &dataset)?;
    staging.write(folder::TOKENIZER, tokenizer_json)?;
    staging.write(folder::TEMPLATE, template.text())?;
    let catalog_lines = data.catalog.items().iter().zip(item_tokens);
    staging.write_lines(
        folder::CATALOG,
        catalog_lines.map(|(Item { id, title }, tokens)| CatalogLine { id: id.clone(), title: title.clone(), tokens }),
    )?;
    for split in Split::ALL {
        check_interrupted()?;
        staging.write_lines(&folder::rows_file(split), rows.get(split))?;
    }
    staging.write_lines(folder::WINDOWS, &windows)?;
    check_interrupted()?;
    staging.publish()?;
    Ok(dataset.summary)
}

fn read_template(config: &PrepareConfig) -> Result<PromptTemplate, DataError> {
    let template = match &config.template {
        None => PromptTemplate::default(),
        Some(path) => {
            let unusable = |problem: String| DataError::Template { path: path.clone(), problem };
            let bytes = std::fs::read(path).map_err(|error| DataError::io(path, "read", error))?;
            let text =
                String::from_utf8(bytes).map_err(|_| unusable("the template is not UTF-8; convert it".into()))?;
            PromptTemplate::parse(&text).map_err(unusable)?
        }
    };
    match (&config.tokenizer, config.chat) {
        (_, false) => Ok(template),
        (Some(tokenizer), true) => template.in_chat(tokenizer),
        (None, true) => {
            Err(DataError::Setting { setting: "chat", problem: "needs the tokenizer of a chat model".into() })
        }
    }
}

/// Trains on what a model will read and write: each user's training interactions in the prompt's wording, and every
/// title.
fn train_tokenizer(
    prompt: &Prompt,
    catalog: &Catalog,
    sequences: &[Sequence],
    vocab_size: usize,
) -> Result<(Tokenizer, Vec<u8>), DataError> {
    let mut texts: Vec<_> = catalog.items().iter().map(|item| target_text(&item.title)).collect();
    texts.extend(sequences.iter().map(|sequence| {
        let titles: Vec<_> = sequence.items.iter().map(|&item| catalog.title(item)).collect();
        prompt.render(&titles)
    }));
    let tokenizer = train_bpe(&texts, vocab_size)?;
    let json = tokenizer.to_string(false).map_err(|error| DataError::TokenizerTraining(error.to_string()))?;
    Ok((tokenizer, json.into_bytes()))
}

/// The tokens of an item's target, the end token last.
pub(super) fn encode_item(item: &Item, tokenizer: &Tokenizer, end_token: &SpecialToken) -> Result<Vec<u32>, DataError> {
    let mut tokens = encode(tokenizer, &target_text(&item.title))?;
    if tokens.contains(&end_token.id) {
        return Err(DataError::EndTokenInTitle {
            id: item.id.clone(),
            title: item.title.clone(),
            end_token: end_token.text.clone(),
        });
    }
    tokens.push(end_token.id);
    Ok(tokens)
}

fn encode_items(
    catalog: &Catalog,
    tokenizer: &Tokenizer,
    end_token: &SpecialToken,
) -> Result<Vec<Vec<u32>>, DataError> {
    // All results are made before the first error is taken, so that it is always the same one.
    let results: Vec<_> = catalog.items().par_iter().map(|item| encode_item(item, tokenizer, end_token)).collect();
    results.into_iter().collect()
}

struct RowEncoder<'a> {
    data: &'a Interactions,
    tokenizer: &'a Tokenizer,
    prompt: &'a Prompt,
    config: &'a PrepareConfig,
    /// Fails once the user has interrupted.
    check_interrupted: &'a (dyn Fn() -> Result<(), DataError> + Sync),
}

impl RowEncoder<'_> {
    fn encode(&self, split: Split, shortened: &mut usize) -> Result<Vec<PreparedRow>, DataError> {
        let file = self.data.files.get(split);
        let encode_row = |row: &super::interactions::Row| {
            (self.check_interrupted)()?;
            let cut = row.history.len().saturating_sub(self.config.max_history);
            let history = row.history[cut..].to_vec();
            let titles: Vec<_> = history.iter().map(|&item| self.data.catalog.title(item)).collect();
            let place = || format!("{}, line {} (user {})", file.display(), row.line, row.user);
            let encoded = self.prompt.encode(self.tokenizer, &titles, self.config.max_tokens, place)?;
            let is_shortened = encoded.titles < history.len();
            Ok((PreparedRow { user: row.user.clone(), history, item: row.item, prompt: encoded.tokens }, is_shortened))
        };
        let results: Vec<_> = self.data.rows.get(split).par_iter().map(encode_row).collect();
        let rows: Vec<(PreparedRow, bool)> = results.into_iter().collect::<Result<_, DataError>>()?;
        *shortened = rows.iter().filter(|(_, is_shortened)| *is_shortened).count();
        Ok(rows.into_iter().map(|(row, _)| row).collect())
    }
}
