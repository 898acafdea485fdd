//! How good the lists are: HR and NDCG of every evaluation, with their standard errors.

use super::contents::{Contents, Evaluated};
use super::html::{Table, Text, share_and_error};
use super::label::evaluation;
use crate::eval::compare::mean_and_error;
use crate::eval::{CUTOFFS, EvaluationResult, Metric, UserRank};

/// A metric of the first k places.
type Measure = fn(usize) -> Metric;

/// The two measures with their names and what they mean.
const MEASURES: [(&str, &str, Measure); 2] = [
    ("HR", "share of users whose item is among the first k", Metric::Hr),
    ("NDCG", "1 / log2(1 + rank) where it is, else 0, mean over users", Metric::Ndcg),
];

/// The rank of a user's item.
type Rank = fn(&UserRank) -> Option<f64>;

/// The section's content as HTML.
pub(super) fn section(contents: &Contents) -> String {
    let groups = contents.groups();
    if groups.is_empty() {
        return "<p>No evaluation was given. <code>latentr3 evaluate</code> makes one: of a run folder, which keeps it, or \
                with <code>--json FILE</code>.</p>\n"
            .into();
    }
    groups.iter().enumerate().map(|(at, group)| tables(contents, at, group)).collect()
}

/// What the evaluations of a group have in common, as HTML.
pub(super) fn group_title(result: &EvaluationResult) -> String {
    let drawn = match result.limit {
        Some(_) => format!(", drawn by seed {}", result.seed),
        None => String::new(),
    };
    let data: String = result.data_fingerprint.chars().take(8).collect();
    let users = result.users_of_all_parts;
    format!("Split <code>{}</code>, {users} users{drawn} <small>(data {})</small>", Text(&result.split), Text(&data))
}

fn tables(contents: &Contents, at: usize, group: &[&Evaluated]) -> String {
    let mut html = format!("<h3>{}</h3>\n", group_title(&group[0].result));
    let shares_titles = |one: &&Evaluated| one.result.evaluation.ranks.iter().any(|user| user.rank != user.title_rank);
    let by_title = group.iter().any(shares_titles);
    html += "<div class=\"tables\">\n";
    for (name, meaning, measure) in MEASURES {
        let by = if by_title { " by item" } else { "" };
        let mut rows = rows(contents, group, measure, |user| user.rank);
        rows.insert(0, popularity(group[0], measure));
        html += &table(format!("quality-{at}-{name}"), format!("<b>{name}@k{by}</b> {meaning}"), rows);
    }
    for (name, meaning, measure) in MEASURES.into_iter().filter(|_| by_title) {
        let caption = format!("<b>{name}@k by title</b> {}", meaning.replace("item", "title"));
        let rows = rows(contents, group, measure, |user| user.title_rank);
        html += &table(format!("quality-{at}-{name}-title"), caption, rows);
    }
    let titles = match by_title {
        true => "By item, items of the same title share the mean of their ranks; by title, any of them counts.",
        false => "No item that was found shares its title with another: figures by title are the same.",
    };
    html + &format!(
        "</div>\n<p class=\"small\">± one standard error, over users with all of their rows; the best of each column is bold. \
         <code>latentr3 compare</code> says whether a difference is more than chance. {titles}</p>\n"
    )
}

/// A mean and its standard error for each list length; none where lists are shorter.
type Figures = Vec<Option<(f64, Option<f64>)>>;

/// The rows of a table: name and metrics of each evaluation.
fn rows(contents: &Contents, group: &[&Evaluated], measure: Measure, rank: Rank) -> Vec<(String, Figures)> {
    let of = |one: &&Evaluated| {
        let longest = one.result.evaluation.method.beams;
        (evaluation(contents, group, one), figures(one, measure, rank, longest))
    };
    group.iter().map(of).collect()
}

/// The row of the items by how often they were chosen in training.
fn popularity(one: &Evaluated, measure: Measure) -> (String, Figures) {
    let figures = figures(one, measure, |user| Some(user.popularity_rank), one.result.evaluation.items);
    ("popularity <small>(the same list for all)</small>".into(), figures)
}

fn figures(one: &Evaluated, measure: Measure, rank: Rank, longest: usize) -> Figures {
    let at = |k: usize| {
        (k <= longest).then(|| mean_and_error(&one.result.evaluation.ranks, |user| measure(k).gain(rank(user))))
    };
    CUTOFFS.into_iter().map(at).collect()
}

/// A table in which the best metric of each column is bold.
fn table(id: String, caption: String, rows: Vec<(String, Figures)>) -> String {
    let best = |column: usize| {
        let values: Vec<f64> = rows.iter().filter_map(|(_, figures)| Some(figures[column]?.0)).collect();
        // One alone is not better than anything.
        (values.len() > 1).then(|| values.into_iter().fold(0.0, f64::max)).filter(|best| *best > 0.0)
    };
    let bests: Vec<Option<f64>> = (0..CUTOFFS.len()).map(best).collect();
    let cell = |(figure, best): (&Option<(f64, Option<f64>)>, &Option<f64>)| match figure {
        Some((mean, error)) if Some(*mean) == *best => format!("<b>{}</b>", share_and_error(*mean, *error)),
        Some((mean, error)) => share_and_error(*mean, *error),
        None => "–".to_owned(),
    };
    let cells = |(name, figures): &(String, Figures)| (name.clone(), figures.iter().zip(&bests).map(cell).collect());
    let head = std::iter::once("Model".to_owned()).chain(CUTOFFS.iter().map(|k| format!("@{k}")));
    Table { id, caption, head: head.collect(), rows: rows.iter().map(cells).collect() }.to_string()
}
