//! Token files: JSON lines `{"prompt": [ids], "target": [ids]}`, of which the first may be `{"catalog": [[ids]], "eos":
//! id}`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::folder::rows_file;
use super::{DataError, Prepared, Split};
use crate::models::backbone::Backbone;
use crate::models::decode::ItemTrie;
use crate::models::{LatentRecommender, Objective, ObjectiveKind};
use crate::train::Example;

/// A token file.
#[derive(Debug, Default)]
pub struct TokenFile {
    /// Where it lies.
    pub path: PathBuf,
    /// The rows, at least one; none has an empty prompt or target. Their places are those of their lines, from 0.
    pub rows: Vec<Example>,
    /// The items' tokens, each with the end token last, where the file has them.
    pub catalog: Option<Vec<Vec<u32>>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Catalog { catalog: Vec<Vec<u32>>, eos: u32 },
    Row { prompt: Vec<u32>, target: Vec<u32> },
}

impl TokenFile {
    /// Reads the file.
    ///
    /// # Errors
    ///
    /// The file missing, without rows, or with a line that is neither; the error names it.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        Self::parse(path)?.with_rows()
    }

    /// The catalog in the first line of a token file, which need have no rows.
    ///
    /// # Errors
    ///
    /// As [`Self::read`], and a file without a catalog.
    pub fn read_catalog(path: &Path) -> Result<Vec<Vec<u32>>, DataError> {
        Self::parse(path)?.catalog.ok_or_else(|| Self::no_catalog(path))
    }

    /// What is wrong with a file that should have a catalog.
    pub fn no_catalog(path: &Path) -> DataError {
        let problem = r#"must be the catalog, {"catalog": [[ids]], "eos": id}"#.into();
        DataError::Record { path: path.to_owned(), line: 1, problem }
    }

    fn parse(path: &Path) -> Result<Self, DataError> {
        let text = std::fs::read(path).map_err(|source| DataError::io(path, "read", source))?;
        let mut file = Self { path: path.to_owned(), ..Self::default() };
        for (number, line) in
            text.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.trim_ascii().is_empty())
        {
            let error =
                |problem: &str| DataError::Record { path: path.to_owned(), line: number + 1, problem: problem.into() };
            match serde_json::from_slice(line) {
                Ok(Line::Catalog { catalog, eos }) => {
                    if file.catalog.is_some() || !file.rows.is_empty() {
                        return Err(error("the catalog may appear only in the first line"));
                    }
                    if let Some(item) = catalog.iter().position(|item| item.last() != Some(&eos)) {
                        return Err(error(&format!(
                            "item {item} of the catalog does not end with the end token {eos}"
                        )));
                    }
                    file.catalog = Some(catalog);
                }
                Ok(Line::Row { prompt, target }) if prompt.is_empty() || target.is_empty() => {
                    return Err(error("prompt and target need at least one token each"));
                }
                Ok(Line::Row { prompt, target }) => {
                    file.rows.push(Example { prompt, target, item: 0, row: number });
                }
                Err(_) => {
                    return Err(error(
                        r#"is neither {"prompt": [ids], "target": [ids]} nor {"catalog": [[ids]], "eos": id}"#,
                    ));
                }
            }
        }
        Ok(file)
    }

    /// The rows of a split of the prepared data in a folder, with its catalog.
    ///
    /// # Errors
    ///
    /// Those of [`Prepared::load`], and a split without rows.
    pub fn of_split(prepared: &Path, split: Split) -> Result<Self, DataError> {
        let path = prepared.join(rows_file(split));
        let prepared = Prepared::load(prepared)?;
        Self { path, rows: prepared.examples(split), catalog: Some(prepared.item_tokens.clone()) }.with_rows()
    }

    fn with_rows(self) -> Result<Self, DataError> {
        match self.rows.is_empty() {
            true => Err(DataError::Damaged { path: self.path, problem: "has no rows".into() }),
            false => Ok(self),
        }
    }

    /// An objective over the file's catalog, or over that of the token file `catalog` where one is given; `vocabulary`
    /// needs none.
    ///
    /// # Errors
    ///
    /// No catalog where the objective needs one, one that makes no prefix tree, or with a token outside the backbone's
    /// vocabulary.
    pub fn objective(
        &self,
        catalog: Option<&Path>,
        kind: ObjectiveKind,
        backbone: &Backbone,
    ) -> Result<Objective, DataError> {
        let other = catalog.map(Self::read_catalog).transpose()?;
        let path = catalog.unwrap_or(&self.path);
        let problem = |problem: String| DataError::Record { path: path.to_owned(), line: 1, problem };
        let objective = match other.as_ref().or(self.catalog.as_ref()) {
            Some(items) => Objective::new(kind, ItemTrie::new(items).map_err(|error| problem(error.to_string()))?),
            None if kind == ObjectiveKind::Vocabulary => Objective::vocabulary(),
            None => return Err(Self::no_catalog(path)),
        };
        objective.check_vocabulary(backbone).map_err(|error| problem(error.to_string()))?;
        Ok(objective)
    }

    /// Makes sure that every row fits the model's vocabulary and positions, and the objective's catalog.
    ///
    /// # Errors
    ///
    /// A row that does not; the line is named.
    pub fn check(&self, model: &LatentRecommender, objective: &Objective) -> Result<(), DataError> {
        let config = model.backbone.config();
        let (vocabulary, positions) = (config.vocab_size, config.max_positions);
        for row in &self.rows {
            let tokens = row.prompt.len() + model.thoughts() + row.target.len();
            let problem = if tokens > positions {
                format!("has {tokens} tokens including thoughts, more than the model's {positions} positions")
            } else if let Some(token) =
                row.prompt.iter().chain(&row.target).find(|&&token| token as usize >= vocabulary)
            {
                format!("has token {token}, which is outside the model's vocabulary of {vocabulary}")
            } else if let Err(error) = objective.size(&row.target) {
                error.to_string()
            } else {
                continue;
            };
            return Err(DataError::Record { path: self.path.clone(), line: row.row + 1, problem });
        }
        Ok(())
    }
}
