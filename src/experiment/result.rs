//! What is kept of a step.

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::eval::UserRank;
use crate::models::ModelError;
use crate::models::hub::{read_json, write_atomically};

/// Fields of an evaluation that hold something for every user or item.
const LONG_FIELDS: [&str; 2] = ["ranks", "item_counts"];

/// A step's result as it is kept for good: its figures, and beside them as `NAME.ranks.csv.gz` the users' ranks where it has any.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The program's version.
    pub latentr3: String,
    /// The command's words.
    pub command: Vec<String>,
    /// Processor and its threads.
    pub machine: String,
    /// Seconds that the step took.
    pub seconds: f64,
    /// What the command wrote as JSON, without what it says of every user or item.
    pub result: Value,
}

impl Kept {
    /// The file of a step's figures in the folder of results.
    pub fn file(results: &Path, step: &str) -> PathBuf {
        results.join(format!("{step}.json"))
    }

    /// The file of a step's ranks.
    pub fn ranks_file(results: &Path, step: &str) -> PathBuf {
        results.join(format!("{step}.ranks.csv.gz"))
    }

    /// What is kept of a step; nothing if it is not done yet.
    ///
    /// # Errors
    ///
    /// A file that is damaged.
    pub fn read(results: &Path, step: &str) -> Result<Option<Self>, ModelError> {
        let path = Self::file(results, step);
        if !path.exists() {
            return Ok(None);
        }
        let problem = |error: serde_json::Error| ModelError::Input(format!("{}: {error}", path.display()));
        serde_json::from_value(read_json(&path)?).map(Some).map_err(problem)
    }

    /// Writes it; the ranks first, so that a step with figures is done.
    ///
    /// # Errors
    ///
    /// A file that cannot be written.
    pub fn write(mut self, results: &Path, step: &str) -> Result<(), ModelError> {
        if let Some(fields) = self.result.as_object_mut() {
            let ranks = fields.get("ranks").map(|ranks| serde_json::from_value::<Vec<UserRank>>(ranks.clone()));
            if let Some(Ok(ranks)) = ranks {
                write_atomically(&Self::ranks_file(results, step), &packed(&ranks))?;
            }
            for field in LONG_FIELDS {
                fields.shift_remove(field);
            }
        }
        let mut text = serde_json::to_vec_pretty(&self).expect("a JSON value can be written");
        text.push(b'\n');
        write_atomically(&Self::file(results, step), &text)
    }
}

/// The users' ranks as a compressed table; rows that were not found have no rank.
fn packed(ranks: &[UserRank]) -> Vec<u8> {
    let mut table = csv::Writer::from_writer(Vec::new());
    let cell = |rank: Option<f64>| rank.map_or(String::new(), |rank| rank.to_string());
    let written = table.write_record(["row", "item", "rank", "title_rank"]).and_then(|()| {
        ranks.iter().try_for_each(|user| {
            table.write_record([&user.row.to_string(), &user.item, &cell(user.rank), &cell(user.title_rank)])
        })
    });
    written.expect("memory can be written");
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    let text = table.into_inner().expect("memory can be written");
    packed.write_all(&text).and_then(|()| packed.finish()).expect("memory can be written")
}
