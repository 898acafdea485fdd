use std::path::Path;

use super::data::of_columns;
use super::duration::duration;
use super::table::table;
use crate::data::{Splits, Summary};
use crate::fit::{FitEvent, Metrics, Shop};
use crate::run::RunEvent;

/// What happens in the work on a shop, in a line.
pub fn of_fit_event(event: &FitEvent) -> String {
    match event {
        FitEvent::Guessed(raw) => of_columns(raw),
        FitEvent::Prepared(Summary { users, items, splits, .. }) => {
            let Splits { train, valid, test } = Splits::make(|split| splits.get(split).rows);
            format!("{users} users, {items} items; {train} training, {valid} validation and {test} test rows")
        }
        FitEvent::Training(stage, RunEvent::Warning(text)) => format!("warning: {stage}: {text}"),
        FitEvent::Training(stage, _) => format!("training {stage}"),
        FitEvent::Ranking { model, split, done, all } => format!("{model} on {}: {done} of {all} users", split.name()),
        FitEvent::Ranked(model, split, Metrics { users, ndcg_10, hr_10, .. }) => {
            format!("{model} on {users} {} users: NDCG@10 {ndcg_10:.4}, HR@10 {hr_10:.4}", split.name())
        }
        FitEvent::LeftOut(model, why) => format!("skipping {model}: {why}"),
        FitEvent::Chosen(model, why) => format!("chose {model}: {why}"),
        FitEvent::Refitting => "retraining the chosen model on all data".into(),
        FitEvent::NotRefitted(why) => format!("not retraining the chosen model on all data: {why}"),
    }
}

/// What the demo leaves out.
pub const AFTER_DEMO: &str = "
Stage 2 (latentr3 grpo) reinforces the lists that users see, or a reward of your own. It is not part of the demo: as
published it gained nothing on our data, and with rewards on lists only a little (docs/results/stage-2.md).
";

/// What was tried and what was chosen, as a table with what it means.
pub fn of_shop(shop: &Shop, folder: &Path) -> String {
    let with_interval = |figure: f64, [low, high]: [f64; 2]| format!("{figure:.4} ({low:.4} to {high:.4})");
    let test = |metrics: &Metrics| {
        [
            with_interval(metrics.ndcg_10, metrics.ndcg_10_interval),
            with_interval(metrics.hr_10, metrics.hr_10_interval),
            metrics.users.to_string(),
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
            true => "Metrics, with 95% confidence intervals over users, are from before the retraining on all data.\n",
            false => "Metrics have 95% confidence intervals over users.\n",
        };
    }
    text + &format!("the recommender is in {}, built in {}\n", folder.display(), duration(shop.seconds))
}
