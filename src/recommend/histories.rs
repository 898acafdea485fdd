//! Histories of many users, from a file.

use std::path::Path;

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::query::Chosen;
use crate::input_error::InputError;

/// What a user has chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserHistory {
    /// The user's id.
    pub user: String,
    /// What the user has chosen, oldest first.
    pub history: Vec<Chosen>,
}

/// A line of a file of JSON lines.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    user: Id,
    #[serde(default)]
    history: Vec<Id>,
    #[serde(default)]
    titles: Vec<String>,
}

/// An id, written as a text or as a number.
struct Id(String);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match Value::deserialize(from)? {
            Value::String(text) => Ok(Self(text)),
            Value::Number(number) => Ok(Self(number.to_string())),
            _ => Err(D::Error::custom("an id must be a text or a number")),
        }
    }
}

/// A row of a table.
#[derive(Deserialize)]
struct Row {
    user: String,
    item: String,
}

/// Reads the histories of many users, in the order in which users first appear. A name that ends in `.csv` is a table
/// with the columns `user` and `item`, one row for each interaction, a user's oldest first; any other has a JSON object
/// a line, `{"user": "u", "history": ["id", ..]}`, or with `"titles"` in the place of ids.
///
/// # Errors
///
/// A file that cannot be read; a line that is not such, or that has no history. The message names it.
pub fn read_histories(path: &Path) -> Result<Vec<UserHistory>, InputError> {
    let text = read_text(path)?;
    match path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv")) {
        true => table(path, &text),
        false => lines(path, &text),
    }
}

/// Reads ids, one a line.
///
/// # Errors
///
/// A file that cannot be read.
pub fn read_ids(path: &Path) -> Result<Vec<String>, InputError> {
    let text = read_text(path)?;
    Ok(text.lines().map(str::trim).filter(|id| !id.is_empty()).map(str::to_owned).collect())
}

/// A file's text without a byte order mark.
fn read_text(path: &Path) -> Result<String, InputError> {
    let text = std::fs::read_to_string(path).map_err(|error| InputError::new(path, error.to_string()))?;
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}

fn table(path: &Path, text: &str) -> Result<Vec<UserHistory>, InputError> {
    let mut users: Vec<UserHistory> = Vec::new();
    let mut places = std::collections::HashMap::new();
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text.as_bytes());
    for row in reader.deserialize() {
        let Row { user, item } = row.map_err(|error| {
            let line = error.position().map(|position| position.line() as usize);
            InputError { line, ..InputError::new(path, format!("is not a row of user and item: {error}")) }
        })?;
        let place = *places.entry(user.clone()).or_insert_with(|| {
            users.push(UserHistory { user, history: Vec::new() });
            users.len() - 1
        });
        users[place].history.push(Chosen::Id(item));
    }
    Ok(users)
}

fn lines(path: &Path, text: &str) -> Result<Vec<UserHistory>, InputError> {
    let mut users = Vec::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let error = |problem: String| InputError::new(path, problem).at_line(at + 1);
        let line: Line = serde_json::from_str(line).map_err(|cause| error(format!("is not a history: {cause}")))?;
        let Line { user, history, titles } = line;
        if history.is_empty() == titles.is_empty() {
            return Err(error("needs either `history` with ids or `titles`".into()));
        }
        let ids = history.into_iter().map(|Id(id)| Chosen::Id(id));
        users.push(UserHistory { user: user.0, history: ids.chain(titles.into_iter().map(Chosen::Title)).collect() });
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, text: &str) -> Result<Vec<UserHistory>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        read_histories(&path).map_err(|error| error.to_string().replace(path.to_str().unwrap(), name))
    }

    #[test]
    fn both_forms_give_the_same_histories() {
        let id = |id: &str| Chosen::Id(id.into());
        let expected = [
            UserHistory { user: "u".into(), history: vec![id("a"), id("b")] },
            UserHistory { user: "v".into(), history: vec![id("c")] },
        ];
        assert_eq!(read("h.csv", "\u{feff}item, user\na,u\nc,v\nb, u\n").unwrap(), expected);
        let numbers = read("h.jsonl", "\u{feff}{\"user\": 7, \"history\": [3, \"a\"]}\n").unwrap();
        assert_eq!(numbers, [UserHistory { user: "7".into(), history: vec![id("3"), id("a")] }]);
        let lines = "{\"user\": \"u\", \"history\": [\"a\", \"b\"]}\n\n{\"user\": \"v\", \"history\": [\"c\"]}\n";
        assert_eq!(read("h.jsonl", lines).unwrap(), expected);
        let titled = read("h.jsonl", "{\"user\": \"u\", \"titles\": [\"A\"]}").unwrap();
        assert_eq!(titled[0].history, [Chosen::Title("A".into())]);
        assert!(read("h.csv", "user,item\n").unwrap().is_empty());
    }

    #[test]
    fn a_line_that_is_no_history_is_named() {
        for (name, text, problem) in [
            ("h.csv", "user,thing\nu,a\n", "h.csv:2: is not a row of user and item"),
            ("h.csv", "user,item\nu,a\nv\n", "h.csv:3: is not a row"),
            ("h.jsonl", "{\"user\": \"u\", \"history\": [\"a\"]}\n{\"user\": []}\n", "h.jsonl:2: is not a history"),
            ("h.jsonl", "{\"user\": \"u\"}\n", "h.jsonl:1: needs either"),
            ("h.jsonl", "{\"user\": \"u\", \"history\": [\"a\"], \"titles\": [\"A\"]}\n", "h.jsonl:1: needs either"),
            ("h.jsonl", "[]\n", "h.jsonl:1: is not a history"),
        ] {
            let error = read(name, text).unwrap_err();
            assert!(error.starts_with(problem), "{error}");
        }
    }
}
