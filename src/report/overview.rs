//! What the report is about: the runs, what they have in common and where they differ.

use std::collections::BTreeMap;
use std::path::Path;

use super::contents::Contents;
use super::html::{Table, Text, share};
use super::label::{badge, named};
use super::run::Run;
use super::standing::{Best, Standing};
use crate::text::duration;

/// Settings that have a row of their own in every report, by their paths in `run.json`.
const HEADLINES: [(&str, &str); 4] =
    [("data", "Data"), ("train.seed", "Seed"), ("device", "Device"), ("latentr3", "Program")];

/// A row of the table: what it is, and the value of each run.
type Row = (String, Vec<String>);

/// The section's content as HTML.
pub(super) fn section(contents: &Contents) -> String {
    let runs: Vec<(usize, &Run)> = contents.runs().collect();
    let mut html = String::new();
    if !runs.is_empty() {
        let (common, different): (Vec<Row>, Vec<Row>) = rows(&runs).into_iter().partition(is_common);
        if !common.is_empty() {
            html += if runs.len() > 1 { "<p>All runs:</p>\n" } else { "" };
            html += "<dl>\n";
            for (name, values) in common {
                html += &format!("<div><dt>{name}</dt><dd>{}</dd></div>\n", values[0]);
            }
            html += "</dl>\n";
        }
        let head = std::iter::once("Run".to_owned()).chain(runs.iter().map(|(subject, _)| named(contents, *subject)));
        let caption = if runs.len() > 1 { "<b>The runs</b> and where they differ" } else { "<b>The run</b>" };
        let (id, caption) = ("runs-table".to_owned(), caption.to_owned());
        html += &Table { id, caption, head: head.clone().collect(), rows: different }.to_string();
        html += &twins(&runs);
        let (id, caption) = ("settings-table".to_owned(), "<b>All settings</b> in <code>run.json</code>".to_owned());
        let table = Table { id, caption, head: head.collect(), rows: settings(&runs) };
        html += &format!("<details><summary>All settings</summary>\n{table}</details>\n");
    }
    let alone: Vec<String> =
        (0..contents.subjects.len()).filter(|&at| contents.run(at).is_none()).map(|at| named(contents, at)).collect();
    if !alone.is_empty() {
        html += &format!("<p>Results without a run folder: {}.</p>\n", alone.join(", "));
    }
    html
}

/// Whether a row says the same of all runs; what a run made of itself is its own, even where there is one only.
fn is_common((name, values): &Row) -> bool {
    let is_setting = HEADLINES.iter().any(|(_, head)| head == name);
    is_setting && values.iter().all(|value| *value == values[0])
}

/// Stage and headlines, what the runs made of themselves, and the other settings in which they differ.
fn rows(runs: &[(usize, &Run)]) -> Vec<Row> {
    let of = |value: &dyn Fn(&Run) -> String| runs.iter().map(|(_, run)| value(run)).collect::<Vec<_>>();
    let mut rows = vec![
        ("Stage".to_owned(), of(&|run| Text(run.stage()).to_string())),
        ("Began with".to_owned(), of(&|run| began_with(runs, run))),
    ];
    for (path, name) in HEADLINES {
        rows.push((name.to_owned(), of(&|run| value_of(run, path).unwrap_or_else(|| "–".into()))));
    }
    rows.push(("Steps".to_owned(), of(&steps)));
    rows.push(("Best step".to_owned(), of(&best_step)));
    rows.push(("Best validation".to_owned(), of(&best)));
    let time = |run: &Run| run.standing.as_ref().map_or("–".into(), |standing| duration(standing.seconds));
    rows.push(("Time".to_owned(), of(&time)));
    if runs.iter().any(|(_, run)| !run.evaluated.is_empty()) {
        rows.push(("Evaluated on".to_owned(), of(&evaluated)));
    }
    let is_headline = |path: &str| {
        ["stage", "stage.name", "model"].contains(&path) || HEADLINES.iter().any(|(headline, _)| *headline == path)
    };
    let differs = |(name, values): &Row| {
        let mut known = values.iter().filter(|value| *value != ABSENT);
        let first = known.next();
        !is_headline(name) && known.any(|value| Some(value) != first)
    };
    let different = settings(runs).into_iter().filter(differs);
    rows.extend(different.map(|(name, values)| (format!("<code>{}</code>", short(&name)), values)));
    rows
}

/// The model that a run began with: another of the runs, or a folder.
fn began_with(runs: &[(usize, &Run)], run: &Run) -> String {
    let Some(model) = run.description["model"].as_str() else {
        return "–".into();
    };
    let folder = Path::new(model);
    let folder = if folder.ends_with("best") { folder.parent().unwrap_or(folder) } else { folder };
    let is_its = |(_, other): &&(usize, &Run)| std::path::absolute(&other.path).is_ok_and(|path| path == folder);
    match runs.iter().find(is_its) {
        Some((subject, _)) => badge(*subject),
        None => path(model),
    }
}

/// A path, which may be broken anywhere to fit, as HTML.
fn path(path: &str) -> String {
    format!("<span class=\"path\">{}</span>", Text(path))
}

/// Which best models have the same weights, as HTML.
fn twins(runs: &[(usize, &Run)]) -> String {
    let mut of_weights: BTreeMap<BTreeMap<String, String>, Vec<String>> = BTreeMap::new();
    for (subject, run) in runs {
        of_weights.entry(run.best_weights()).or_default().push(badge(*subject));
    }
    of_weights.remove(&BTreeMap::new());
    let line =
        |badges: &Vec<String>| format!("<p>The best models of {} have the same weights.</p>\n", badges.join(" "));
    of_weights.values().filter(|badges| badges.len() > 1).map(line).collect()
}

/// The name of a setting without the part of `run.json` that it is in, with places where a line may break.
fn short(path: &str) -> String {
    let known = ["train.", "stage.config.", "stage."];
    let name = known.iter().find_map(|part| path.strip_prefix(part)).unwrap_or(path);
    name.replace('_', "_<wbr>").replace('.', ".<wbr>")
}

/// What stands for a setting that a run's stage does not have.
const ABSENT: &str = "";

/// Every setting that any run has, as HTML.
fn settings(runs: &[(usize, &Run)]) -> Vec<Row> {
    let mut names: Vec<String> = Vec::new();
    for (name, _) in runs.iter().flat_map(|(_, run)| run.settings()) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let row = |name: &String| {
        let values = runs.iter().map(|(_, run)| value_of(run, name).unwrap_or_else(|| ABSENT.into()));
        (Text(name).to_string(), values.collect())
    };
    names.iter().map(row).collect()
}

fn value_of(run: &Run, setting: &str) -> Option<String> {
    run.settings().into_iter().find(|(name, _)| name == setting).map(|(_, value)| path(&value))
}

fn steps(run: &Run) -> String {
    let done = run.standing.as_ref().map_or(run.log.steps, |standing| standing.done);
    let state = match &run.standing {
        Some(Standing { stopped: Some(why), .. }) => format!(" <small class=\"why\">stopped: {}</small>", Text(why)),
        Some(Standing { finished: true, .. }) => String::new(),
        _ => " <small>not finished</small>".into(),
    };
    let skipped = match run.log.skipped {
        0 => String::new(),
        count => format!(" <small>{count} skipped</small>"),
    };
    format!("{done}{state}{skipped}")
}

fn best_step(run: &Run) -> String {
    let step = run.standing.as_ref().and_then(|standing| standing.best_at);
    step.map_or("–".into(), |step| step.to_string())
}

fn best(run: &Run) -> String {
    match run.standing.as_ref().and_then(|standing| standing.best) {
        Some(Best::Loss { loss, perplexity }) => format!("loss {loss:.4} <small>perplexity {perplexity:.3}</small>"),
        Some(Best::Ndcg10(ndcg)) => format!("NDCG@10 {}", share(ndcg)),
        None => "–".into(),
    }
}

/// How often the run's best model was evaluated on each split.
fn evaluated(run: &Run) -> String {
    let times: Vec<String> = run.evaluated.iter().map(|(split, times)| format!("{} {times} ×", Text(split))).collect();
    if times.is_empty() { "–".into() } else { times.join("<br>") }
}
