//! Items that a shop has added since its models were trained.

use std::path::Path;

use crate::data::Item;
use crate::input_error::InputError;
use crate::models::ModelError;
use crate::run::RunError;

/// The file of a shop's folder with added items, a JSON object a line.
pub const ADDED_FILE: &str = "added.jsonl";

/// The items that were added to a shop.
///
/// # Errors
///
/// A file that cannot be read or is damaged.
pub fn added_items(shop: &Path) -> Result<Vec<Item>, RunError> {
    let path = shop.join(ADDED_FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(ModelError::io(&path)(error).into()),
    };
    let item = |(at, line): (usize, &str)| {
        let damaged = |error| InputError::new(&path, format!("is damaged: {error}")).at_line(at + 1);
        serde_json::from_str(line).map_err(damaged)
    };
    Ok(text.lines().enumerate().map(item).collect::<Result<_, _>>()?)
}
