use serde::Deserialize;

use super::duration::duration;
use super::table::table;
use crate::recommend::{Evidence, Recommendation, TitleShare, Why};
use crate::run::{RunOutcome, Sample};
use crate::train::{Progress, RunPaths, Validation};

/// A validation of a language model, in a line; `uniform` is the loss in nats per item of a model by which all titles
/// are equally likely, where the loss is in such.
pub fn of_validation(validation: &Validation, uniform: Option<f64>) -> String {
    let figure = |name: &str| validation.metric(name).unwrap_or(f64::NAN);
    let uniform = uniform.map_or_else(String::new, |nats| format!(" nats per item (uniform: {nats:.2})"));
    let at_ten = |name: &str| validation.metrics.get(name)?.get("10")?.as_f64();
    let ranking = match (at_ten("valid_hr"), at_ten("valid_ndcg")) {
        (Some(hr), Some(ndcg)) => format!(", HR@10 {hr:.4}, NDCG@10 {ndcg:.4}"),
        _ => String::new(),
    };
    let (loss, perplexity) = (figure("valid_loss"), figure("valid_perplexity"));
    format!("validation loss {loss:.4}{uniform}, perplexity {perplexity:.3}{ranking}")
}

/// What a validation shows of recommendations, a line for each user.
pub fn of_samples(validation: &Validation) -> Vec<String> {
    let samples = validation.metrics.get("valid_samples").and_then(|samples| Vec::<Sample>::deserialize(samples).ok());
    let title = |title: &String| {
        let mut text: String = title.chars().take(LONGEST_TITLE).collect();
        text.extend(title.chars().nth(LONGEST_TITLE).map(|_| '…'));
        text
    };
    let titles = |titles: &[String]| titles.iter().map(title).collect::<Vec<_>>().join(" | ");
    let line = |Sample { after, chose, rank, top, .. }: Sample| {
        let place = rank.map_or_else(|| "not found".to_owned(), |rank| format!("rank {rank}"));
        format!("  after {}: recommends {}; target {} ({place})", titles(&after), titles(&top), title(&chose))
    };
    samples.unwrap_or_default().into_iter().map(line).collect()
}

/// Characters of a title in the lines of a run.
const LONGEST_TITLE: usize = 40;

/// How a run of a language model ended, in a line.
pub fn of_outcome(outcome: &RunOutcome) -> String {
    let RunOutcome { stopped, steps, best_step, skipped, seconds, run, .. } = outcome;
    format!(
        "{} after {steps} steps{} in {}; best model: step {}, {}",
        if stopped.is_some() { "stopped" } else { "done" },
        if *skipped > 0 { format!(" ({skipped} skipped)") } else { String::new() },
        duration(*seconds),
        best_step.unwrap_or(*steps),
        RunPaths(run).best().display()
    )
}

/// How a run of SASRec ended in a folder, in a line.
pub fn of_sasrec(end: &Progress, run: RunPaths, steps_per_epoch: usize) -> String {
    format!(
        "done after {} epochs in {}; best model: epoch {}, validation NDCG@10 {:.4}, {}",
        end.step / steps_per_epoch,
        duration(end.seconds),
        end.best_step.unwrap_or(end.step) / steps_per_epoch,
        end.best.as_ref().map_or(f64::NAN, |best| best.score),
        run.best().display()
    )
}

/// What is recommended, as a table.
pub fn of_recommendations(list: &[Recommendation]) -> String {
    let is_explained = list.iter().any(|one| one.why.is_some());
    let mut header = ["rank", "title", "item", "score"].map(str::to_owned).to_vec();
    header.extend(is_explained.then(|| "because of".to_owned()));
    let mut rows = vec![header];
    for Recommendation { rank, title, items, score, why } in list {
        let mut row = vec![rank.to_string(), title.clone(), items.join(" "), format!("{score:.4}")];
        row.extend(is_explained.then(|| why.as_ref().map(largest_shares).unwrap_or_default()));
        rows.push(row);
    }
    table(&rows)
}

/// The titles that a recommendation goes back to most.
fn largest_shares(why: &Why) -> String {
    let mut shares: Vec<&TitleShare> = why.history.iter().collect();
    shares.sort_by(|a, b| b.share.total_cmp(&a.share));
    let of = match why.by {
        Evidence::Transitions => "of counts",
        Evidence::Attention => "of attention",
    };
    let named = |TitleShare { title, share }: &TitleShare| format!("{title} ({:.0}% {of})", 100.0 * share);
    shares.into_iter().take(2).map(named).collect::<Vec<_>>().join(", ")
}
