use super::table::table;
use crate::data::{RawConfig, RawSummary, Split, SplitKind, Splits, Summary};

/// Which columns are taken for what, in a line.
pub(super) fn of_columns(raw: &RawConfig) -> String {
    let name = |column: &Option<String>| format!("`{}`", column.as_deref().unwrap_or_default());
    let titles = match (&raw.items, &raw.catalog_column) {
        (Some(file), Some(id)) => {
            let file = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
            format!("{} of {file} (item column `{id}`)", name(&raw.title_column))
        }
        _ => name(&raw.title_column),
    };
    let split = match raw.split {
        Some(SplitKind::Temporal) => "the newest rows validate and test",
        _ => "each user's last two choices validate and test",
    };
    let (user, item, time) = (name(&raw.user_column), name(&raw.item_column), name(&raw.time_column));
    format!("columns: user {user}, item {item}, time {time}, title {titles}; {split}")
}

/// Columns, steps, splits and a histogram of the histories' lengths.
pub fn of_raw_summary(summary: &RawSummary) -> String {
    let mut rows = vec![["step", "removed", "interactions", "users", "items"].map(str::to_owned).to_vec()];
    for step in &summary.steps {
        let numbers = [step.removed, step.interactions, step.users, step.items].map(|number| number.to_string());
        rows.push([vec![step.step.clone()], numbers.to_vec()].concat());
    }
    let most = summary.history_lengths.iter().copied().max().unwrap_or(0).max(1);
    let mut histogram = vec![["history length", "rows", ""].map(str::to_owned).to_vec()];
    for (at, &count) in summary.history_lengths.iter().enumerate() {
        histogram.push(vec![(at + 1).to_string(), count.to_string(), format!("{:<40}", "#".repeat(count * 40 / most))]);
    }
    let several = match summary.items_with_several_titles {
        0 => String::new(),
        count => format!("; {count} items have several titles; the first is used"),
    };
    let cold = match summary.cold_rows_dropped {
        0 => String::new(),
        count => format!("; {count} cold-start rows dropped"),
    };
    format!(
        "{}\n\n{}\n{} training, {} validation and {} test rows{cold}; density {:.5}%{several}\n\n{}",
        of_columns(&summary.config),
        table(&rows),
        summary.rows.train,
        summary.rows.valid,
        summary.rows.test,
        100.0 * summary.density,
        table(&histogram),
    )
}

/// The splits of prepared data as a table, with its items, titles and tokens, and what became of interactions before.
pub fn of_summary(summary: &Summary) -> String {
    let mut rows = vec![
        ["split", "rows", "users", "cold targets", "history", "prompt tokens", "shortened"].map(str::to_owned).to_vec(),
    ];
    for split in Split::ALL {
        let part = summary.splits.get(split);
        rows.push(vec![
            split.name().into(),
            part.rows.to_string(),
            part.users.to_string(),
            format!("{} ({:.1}%)", part.cold_targets, 100.0 * part.cold_share),
            format!("{:.1}", part.history.mean),
            format!("{:.1} (max {})", part.prompt_tokens.mean, part.prompt_tokens.max),
            part.shortened_prompts.to_string(),
        ]);
    }
    let sum = |counts: &Splits<usize>| Split::ALL.into_iter().map(|split| *counts.get(split)).sum::<usize>();
    let dropped = &summary.dropped;
    let dropped = match dropped.markup_items + dropped.untitled_items {
        0 => String::new(),
        items => format!(
            "; dropped {items} items, {} rows with them as target and {} rows with no other history",
            sum(&dropped.rows_by_item),
            sum(&dropped.rows_by_history)
        ),
    };
    let notes = [
        (summary.notes.titles_unlike_catalog, "titles in rows differ from the catalog's; the catalog's are used"),
        (summary.notes.users_without_test, "users have training rows only: too few interactions to hold any out"),
        (summary.notes.users_without_rows, "users have no row: fewer interactions than --min-history and one more"),
    ];
    let notes: String =
        notes.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}\n")).collect();
    let raw = summary.raw.as_ref().map(|raw| of_raw_summary(raw) + "\n").unwrap_or_default();
    let begin = summary.begin_token.as_ref();
    let begin = begin.map_or_else(String::new, |token| format!(", prompts begin with `{}` ({})", token.text, token.id));
    format!(
        "{raw}{}\n{} users, {} items, {} titles ({} of them shared by {} items), {} titles contain HTML{}\n\
         vocabulary of {} tokens{begin}, end token `{}` ({}); {:.1} tokens per item, at most {}\n{notes}",
        table(&rows),
        summary.users,
        summary.items,
        summary.titles,
        summary.shared_titles,
        summary.items_with_shared_title,
        summary.markup_titles,
        dropped,
        summary.vocab_size,
        summary.end_token.text,
        summary.end_token.id,
        summary.target_tokens.mean,
        summary.target_tokens.max,
    )
}
