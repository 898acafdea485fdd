//! What is kept of a step.

use std::fs::File;
use std::io::Read;
use std::num::ParseIntError;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::origin::Origin;
use crate::eval::{EvaluationResult, UserRank};
use crate::models::ModelError;
use crate::models::files::{read_json, write_atomically, write_json};

/// Fields of an evaluation that hold something for every user or item.
const LONG_FIELDS: [&str; 2] = ["ranks", "item_counts"];

/// Bytes of a table of ranks at most, unpacked, and so of a field of it: some million users.
const MOST_BYTES: u64 = 1 << 28;

/// A step's result as it is kept for good: its metrics, and beside them as `NAME.ranks.csv.gz` the users' ranks where
/// it has any, with their lists where the step says so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// The program's version.
    pub latentr3: String,
    /// The command's words.
    pub command: Vec<String>,
    /// What the result comes from.
    pub origin: Origin,
    /// The device that it was computed on.
    pub device: String,
    /// Processor and its threads.
    pub machine: String,
    /// Seconds that the step took; of one that was stopped and went on, its last part.
    pub seconds: f64,
    /// The step whose result this is too, where one and the same model would have been evaluated twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_as: Option<String>,
    /// What the command wrote as JSON, without what it says of every user or item, or of sample users.
    pub result: Value,
}

impl Kept {
    /// The file of a step's metrics in the folder of results.
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

    /// Whether the ranks lie beside it, and the users' lists if `lists`, where it is an evaluation, which has them.
    pub fn has_ranks(&self, results: &Path, step: &str, lists: bool) -> bool {
        if self.result.get("by_item").is_none() {
            return true;
        }
        let table = File::open(Self::ranks_file(results, step)).map_err(csv::Error::from);
        let header = table.and_then(|table| csv::Reader::from_reader(unzipped(table)).headers().cloned());
        let has = |column: &str| header.as_ref().is_ok_and(|header| header.iter().any(|name| name == column));
        has("rank") && (!lists || has("list"))
    }

    /// The evaluation whose metrics lie at `file`, with the ranks beside them. The lists are empty where they were not
    /// kept.
    ///
    /// # Errors
    ///
    /// No metrics of an evaluation, or ranks that are missing or damaged.
    pub fn evaluation(file: &Path) -> Result<EvaluationResult, ModelError> {
        let problem = |path: &Path, error: &dyn std::fmt::Display| {
            ModelError::Input(format!("{}: is not a kept evaluation: {error}", path.display()))
        };
        let mut kept: Self = serde_json::from_value(read_json(file)?).map_err(|error| problem(file, &error))?;
        let step = file.file_stem().unwrap_or_default().to_string_lossy();
        let ranks_file = Self::ranks_file(file.parent().unwrap_or(Path::new("")), &step);
        let packed =
            std::fs::read(&ranks_file).map_err(|source| ModelError::Io { path: ranks_file.clone(), source })?;
        if let Some(fields) = kept.result.as_object_mut() {
            fields.insert("item_counts".into(), json!([]));
            fields.insert("ranks".into(), json!([]));
        }
        let mut result: EvaluationResult =
            serde_json::from_value(kept.result).map_err(|error| problem(file, &error))?;
        let users = result.evaluation.users;
        let ranks = unpacked(&packed, users).map_err(|error| problem(&ranks_file, &error))?;
        if ranks.len() != users {
            return Err(problem(&ranks_file, &format!("it does not have one rank for each of the {users} users")));
        }
        result.evaluation.ranks = ranks;
        Ok(result)
    }

    /// Writes the kept result of the step `twin`, with the command and the origin of `step`, as that of `step`, and its
    /// ranks.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or written.
    pub fn write_same(self, results: &Path, step: &str, twin: &str) -> Result<(), ModelError> {
        let ranks = Self::ranks_file(results, twin);
        let bytes = std::fs::read(&ranks).map_err(|source| ModelError::Io { path: ranks, source })?;
        write_atomically(&Self::ranks_file(results, step), &bytes)?;
        write_json(&Self::file(results, step), &Self { same_as: Some(twin.to_owned()), ..self })
    }

    /// Writes it, the users' lists too if `lists`; the ranks first, so that a step with metrics is done.
    ///
    /// # Errors
    ///
    /// A file that cannot be written.
    pub fn write(mut self, results: &Path, step: &str, lists: bool) -> Result<(), ModelError> {
        if let Some(fields) = self.result.as_object_mut() {
            let ranks = fields.get("ranks").map(|ranks| serde_json::from_value::<Vec<UserRank>>(ranks.clone()));
            if let Some(Ok(ranks)) = ranks {
                write_atomically(&Self::ranks_file(results, step), &packed(ranks, lists))?;
            }
            for field in LONG_FIELDS {
                fields.shift_remove(field);
            }
            if let Some(validation) = fields.get_mut("best_validation").and_then(Value::as_object_mut) {
                // Histories and titles are the data's owner's to publish.
                validation.shift_remove("samples");
            }
        }
        write_json(&Self::file(results, step), &self)
    }
}

/// A row of the table of ranks.
#[derive(Serialize, Deserialize)]
struct Line {
    row: usize,
    user: String,
    item: String,
    item_count: u64,
    rank: Option<f64>,
    title_rank: Option<f64>,
    popularity_rank: f64,
    /// The list's places, best first; absent where lists are not kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    list: Option<String>,
}

/// Between the places of a list.
const NEXT: char = ' ';

/// Between the items that share a place.
const ALSO: char = '+';

fn list_text(list: &[Vec<u32>]) -> String {
    let place = |items: &Vec<u32>| items.iter().map(u32::to_string).collect::<Vec<_>>().join(&ALSO.to_string());
    list.iter().map(place).collect::<Vec<_>>().join(&NEXT.to_string())
}

fn list_of(text: &str) -> Result<Vec<Vec<u32>>, ParseIntError> {
    let place = |items: &str| items.split(ALSO).map(str::parse).collect::<Result<Vec<u32>, _>>();
    text.split_terminator(NEXT).map(place).collect()
}

/// The users' ranks as a compressed table; one that was not found is an empty cell.
fn packed(ranks: Vec<UserRank>, lists: bool) -> Vec<u8> {
    let mut table = csv::Writer::from_writer(GzEncoder::new(Vec::new(), Compression::best()));
    for user in ranks {
        let UserRank { row, user, item, item_count, rank, title_rank, popularity_rank, list } = user;
        let list = lists.then(|| list_text(&list));
        let line = Line { row, user, item, item_count, rank, title_rank, popularity_rank, list };
        table.serialize(line).expect("memory can be written");
    }
    let packed = table.into_inner().map(GzEncoder::finish);
    packed.expect("memory can be written").expect("memory can be written")
}

/// What is packed, but not without end.
fn unzipped(packed: impl Read) -> impl Read {
    GzDecoder::new(packed).take(MOST_BYTES)
}

/// The ranks in a compressed table, up to one more than there are users.
fn unpacked(packed: &[u8], users: usize) -> Result<Vec<UserRank>, csv::Error> {
    let user = |line: Result<Line, csv::Error>| {
        let Line { row, user, item, item_count, rank, title_rank, popularity_rank, list } = line?;
        let list = list_of(&list.unwrap_or_default()).map_err(std::io::Error::other)?;
        Ok(UserRank { row, user, item, item_count, rank, title_rank, popularity_rank, list })
    };
    let mut table = csv::Reader::from_reader(unzipped(packed));
    // The rows alone would end with a header that cannot be read.
    table.headers()?;
    table.into_deserialize().map(user).take(users.saturating_add(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_come_back_as_they_were() {
        let user = |row: usize, rank: Option<f64>, list: &[&[u32]]| UserRank {
            row,
            user: format!("user, \"{row}\""),
            item: "a\nb".into(),
            item_count: 7,
            rank,
            title_rank: rank.map(|rank| rank - 0.5),
            popularity_rank: 3.5,
            list: list.iter().map(|items| items.to_vec()).collect(),
        };
        let ranks = vec![user(0, Some(1.5), &[&[7, 30], &[2]]), user(1, None, &[])];
        let bytes = packed(ranks.clone(), true);
        assert_eq!(unpacked(&bytes, 2).unwrap(), ranks);
        assert_eq!(unpacked(&bytes, 0).unwrap(), ranks[..1], "so that there are too many");
        let without = vec![user(0, Some(1.5), &[]), user(1, None, &[])];
        assert_eq!(unpacked(&packed(ranks, false), 2).unwrap(), without);
        assert!(unpacked(&bytes[..bytes.len() / 2], 2).is_err());
        assert!(unpacked(b"row,user", 2).is_err());
    }

    fn kept(result: Value) -> Kept {
        Kept {
            latentr3: "0".into(),
            command: vec!["evaluate".into()],
            origin: Origin { recipe: String::new(), inputs: Default::default() },
            device: "flex".into(),
            machine: String::new(),
            seconds: 1.0,
            same_as: None,
            result,
        }
    }

    #[test]
    fn histories_of_sample_users_are_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let result = json!({ "best_validation": { "loss": 1.5, "samples": [{ "user": "u", "after": ["title"] }] } });
        kept(result).write(folder.path(), "a", false).unwrap();
        let read = Kept::read(folder.path(), "a").unwrap().unwrap();
        assert_eq!(read.result, json!({ "best_validation": { "loss": 1.5 } }));
    }

    #[test]
    fn an_evaluation_is_kept_with_its_ranks_and_the_lists_that_were_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let rank = json!({ "row": 0, "user": "u", "item": "i", "item_count": 1, "rank": 1.0, "title_rank": 1.0,
            "popularity_rank": 2.0, "list": [[3]] });
        let kept = kept(json!({ "by_item": {}, "ranks": [rank] }));
        assert!(!kept.has_ranks(folder.path(), "a", false), "there is no file");
        for (lists, has_lists) in [(false, false), (true, true)] {
            kept.clone().write(folder.path(), "a", lists).unwrap();
            assert!(kept.has_ranks(folder.path(), "a", false));
            assert_eq!(kept.has_ranks(folder.path(), "a", true), has_lists);
        }
        std::fs::write(Kept::ranks_file(folder.path(), "a"), "").unwrap();
        assert!(!kept.has_ranks(folder.path(), "a", false), "an empty file");
    }
}
