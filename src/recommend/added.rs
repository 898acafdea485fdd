//! Items that a shop has added since its models were trained.

use std::fs::{File, OpenOptions};
use std::path::Path;

use super::config::RecommenderConfig;
use super::error::RecommendError;
use super::recommender::Recommender;
use crate::data::{DataError, Item, PreparedCatalog};
use crate::fit::{ADDED_FILE, Shop, added_items};
use crate::models::files::write_atomically;

/// What keeps programs that add items at the same time apart.
const LOCK_FILE: &str = ".added.lock";

/// Adds items to a shop's catalog, by their titles and without training, and gives the recommender that has them. Of
/// items that the catalog has under the same title nothing becomes. The folder's file is replaced once all is well, and
/// is on the disk when this returns.
///
/// # Errors
///
/// A folder that is no shop's, an item whose id the catalog has under another title, one without a title or with one
/// that the model cannot read, and all of [`Recommender::load`]; then nothing is added.
pub fn add_items(config: &RecommenderConfig, items: &[Item]) -> Result<(Recommender, usize), RecommendError> {
    let folder = &config.model;
    if !Shop::is_one(folder) {
        return Err(RecommendError::NoShop { folder: folder.clone() });
    }
    let _lock = lock(folder)?;
    let mut added = added_items(folder)?;
    let shop = Shop::read(folder)?;
    let known = PreparedCatalog::load(config.data.as_ref().unwrap_or(&shop.data))?.catalog;
    let find = |id: &str| known.position(id).map(|place| &known.items()[place]);
    let mut more: Vec<Item> = Vec::new();
    for item in items {
        let item = Item { id: item.id.trim().into(), title: item.title.trim().into() };
        let same_id = |other: &&Item| other.id == item.id;
        match find(&item.id).or_else(|| added.iter().chain(&more).find(same_id)) {
            None if item.id.is_empty() => {
                return Err(DataError::AddedItem { id: item.title, problem: "has no id".into() }.into());
            }
            None => more.push(item),
            Some(same) if same.title == item.title => {}
            Some(other) => {
                return Err(RecommendError::OtherTitle { id: item.id, title: other.title.clone() });
            }
        }
    }
    let count = more.len();
    added.extend(more);
    let recommender = Recommender::load_with(config, &added)?;
    if count == 0 {
        return Ok((recommender, 0));
    }
    let line = |item: &Item| serde_json::json!(item).to_string() + "\n";
    write_atomically(&folder.join(ADDED_FILE), added.iter().map(line).collect::<String>().as_bytes())?;
    Ok((recommender, count))
}

/// Waits until no other program adds items to the shop.
fn lock(folder: &Path) -> Result<File, RecommendError> {
    let path = folder.join(LOCK_FILE);
    let open = || {
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
        file.lock()?;
        Ok(file)
    };
    open().map_err(|source| RecommendError::Added { path: path.clone(), source })
}
