use std::path::Path;

use super::table::table;
use crate::data::{RawConfig, SplitKind};
use crate::fit::{Figures, Shop};
use crate::report::duration;

/// Which columns are taken for what, in a line.
pub fn of_columns(raw: &RawConfig) -> String {
    let name = |column: &Option<String>| format!("`{}`", column.as_deref().unwrap_or_default());
    let titles = match (&raw.items, &raw.catalog_column) {
        (Some(file), Some(id)) => {
            let file = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            format!("{} of {file}, whose items are in `{id}`", name(&raw.title_column))
        }
        _ => name(&raw.title_column),
    };
    let split = match raw.split {
        Some(SplitKind::Temporal) => "the newest rows validate and test",
        _ => "each user's last two choices validate and test",
    };
    let (user, item, time) = (name(&raw.user_column), name(&raw.item_column), name(&raw.time_column));
    format!("columns: users {user}, items {item}, times {time}, titles {titles}; {split}")
}

/// What was tried and what was chosen, as a table with what it means.
pub fn of_shop(shop: &Shop, folder: &Path) -> String {
    let with_interval = |figure: f64, [low, high]: [f64; 2]| format!("{figure:.4} ({low:.4} to {high:.4})");
    let test = |figures: &Figures| {
        [
            with_interval(figures.ndcg_10, figures.ndcg_10_interval),
            with_interval(figures.hr_10, figures.hr_10_interval),
            figures.users.to_string(),
        ]
    };
    let mut rows =
        vec![["model", "validation NDCG@10", "test NDCG@10", "test HR@10", "users"].map(String::from).to_vec()];
    for model in &shop.models {
        let mark = if model.model == shop.chosen { "*" } else { "" };
        let mut row = vec![format!("{}{mark}", model.model), format!("{:.4}", model.valid.ndcg_10)];
        row.extend(test(&model.test));
        rows.push(row);
    }
    let mut text = if shop.models.is_empty() { String::new() } else { format!("\n{}\n", table(&rows)) };
    text += &format!("* {}: {}.\n", shop.chosen, shop.why);
    if !shop.models.is_empty() {
        text += match shop.refitted {
            true => {
                "The figures, with 95% intervals over the users, are of the models before the last training, on everything.\n"
            }
            false => "The figures have 95% intervals over the users.\n",
        };
    }
    text + &format!("{} is the recommender, made in {}\n", folder.display(), duration(shop.seconds))
}
