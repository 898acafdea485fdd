//! Learning curves: the runs of each stage in the same charts.

use super::axis::number;
use super::chart::{Across, Chart, Line};
use super::contents::Contents;
use super::html::{Table, Text};
use super::label::{badge, named};
use crate::run::{Log, Point};

/// Points that a line has at most; those between are averaged.
const MOST_POINTS: usize = 80;
/// Runs of a stage that have bands behind their lines; those of more would hide each other.
const MOST_BANDS: usize = 4;

/// Names in the log of metrics that share a chart, and what sets the second one, which is dashed, apart from the first.
type Names = &'static [(&'static str, &'static str)];

/// A chart of metrics that belong together.
struct Figure {
    title: &'static str,
    /// What it is, in the words of the method.
    note: &'static str,
    names: Names,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// There at every step.
    Stepwise,
    /// Measured now and then.
    Measured,
    /// A share that is measured now and then.
    Share,
}

const fn figure(title: &'static str, note: &'static str, kind: Kind, names: Names) -> Figure {
    Figure { title, note, names, kind }
}

const LIKELIHOOD: &str = "mean negative log-likelihood, per item or with the objective vocabulary per token";
const TRAINING_LOSS: Figure = figure("Training loss", LIKELIHOOD, Kind::Stepwise, &[("loss", "")]);
const VALIDATION: [Figure; 3] = [
    figure("Validation loss", LIKELIHOOD, Kind::Measured, &[("valid_loss", "")]),
    figure(
        "Validation perplexity",
        "mean over the rows of the target's perplexity",
        Kind::Measured,
        &[("valid_perplexity", "")],
    ),
    figure("Validation HR@10", "on a sample of validation users", Kind::Share, &[("valid_hr.10", "")]),
];
const GRADIENT: Figure = figure("Gradient norm", "global, before clipping", Kind::Stepwise, &[("gradient_norm", "")]);
const REWARD: Figure = figure(
    "Reward",
    "minus the target's perplexity; solid without noise, dashed with it",
    Kind::Stepwise,
    &[("reward_noise_free", "without noise"), ("reward_noisy", "with noise")],
);
const REINFORCED: [Figure; 5] = [
    figure("Advantage spread", "standard deviation over the batch", Kind::Stepwise, &[("advantage_spread", "")]),
    figure(
        "Thought and noise",
        "mean norms; solid the thought, dashed the noise",
        Kind::Stepwise,
        &[("thought_norm", "thought"), ("noise_norm", "noise")],
    ),
    figure(
        "Perplexity growth",
        "of the latest steps without noise, as a factor on the first steps'",
        Kind::Stepwise,
        &[("perplexity_growth", "")],
    ),
    figure("Policy loss", "of the last update on a rollout", Kind::Stepwise, &[("loss", "")]),
    figure("KL divergence", "from the policy that stage 2 began with", Kind::Stepwise, &[("kl", "")]),
];

const BASELINE: [Figure; 2] = [
    figure("Training loss", "mean cross-entropy over the catalog", Kind::Stepwise, &[("loss", "")]),
    figure("Validation NDCG@10", "on the validation rows", Kind::Share, &[("valid_ndcg", "")]),
];

/// The charts of a stage.
fn figures(stage: &str) -> Vec<&'static Figure> {
    if stage == "sasrec" {
        return BASELINE.iter().collect();
    }
    let (first, rest): (&Figure, &[Figure]) =
        if stage == "grpo" { (&REWARD, &REINFORCED) } else { (&TRAINING_LOSS, &[]) };
    std::iter::once(first).chain(&VALIDATION).chain([&GRADIENT]).chain(rest).collect()
}

fn stage_title(stage: &str) -> String {
    match stage {
        "pretrain" => "Pretraining".into(),
        "sft" => "Stage 1: supervised fine-tuning".into(),
        "grpo" => "Stage 2: reinforcement (GRPO)".into(),
        "sasrec" => "Baseline: SASRec".into(),
        other => format!("Stage <code>{}</code>", Text(other)),
    }
}

/// The section's content as HTML.
pub(super) fn section(contents: &Contents) -> String {
    let mut stages: Vec<&str> = contents.runs().map(|(_, run)| run.stage()).collect();
    // In the order of the method; other stages come after it.
    let order = |stage: &str| ["pretrain", "sft", "grpo"].iter().position(|known| *known == stage).unwrap_or(3);
    stages.sort_by_key(|stage| (order(stage), *stage));
    stages.dedup();
    if stages.is_empty() {
        return "<p>No run folder was given, and an evaluation alone has no curves.</p>\n".into();
    }
    let mut html = String::from(
        "<p>Where a run has many steps, a line is the mean of some steps in a row, and the band behind it, drawn for up to \
         four runs, reaches from their smallest value to their largest. Marks are single measurements.</p>\n",
    );
    for (at, stage) in stages.into_iter().enumerate() {
        html += &of_stage(contents, at, stage);
    }
    html
}

/// The charts of the runs of a stage, and their ends in numbers.
fn of_stage(contents: &Contents, at: usize, stage: &str) -> String {
    let runs = contents.runs().filter(|(_, run)| run.stage() == stage);
    let runs: Vec<(usize, &Log)> = runs.map(|(subject, run)| (subject, &run.log)).collect();
    let mut html = format!("<h3>{}</h3>\n<p class=\"legend\">", stage_title(stage));
    for (subject, _) in &runs {
        html += &format!("<span>{}</span> ", named(contents, *subject));
    }
    html += "</p>\n";
    for (subject, log) in &runs {
        for (step, reason) in &log.alarms {
            html += &format!("<p>{} at step {step}: {}.</p>\n", badge(*subject), Text(reason));
        }
    }
    html += "<div class=\"charts\">\n";
    let mut rows = Vec::new();
    for (number, figure) in figures(stage).into_iter().enumerate() {
        let lines = lines(contents, figure, &runs);
        if !lines.is_empty() {
            let (id, across) = (format!("curve-{at}-{number}"), Across::Numbers("step"));
            let Figure { title, note, kind, .. } = figure;
            html += &Chart { id, title, note, across, from_zero: *kind == Kind::Share, lines }.figure();
            rows.extend(in_numbers(figure, &runs));
        }
    }
    html += "</div>\n";
    if rows.is_empty() {
        return html + "<p>These runs have logged nothing yet.</p>\n";
    }
    let head = std::iter::once("Figure".to_owned()).chain(runs.iter().map(|(subject, _)| badge(*subject)));
    let caption = "First value → last value, and the lowest and highest between".to_owned();
    let table = Table { id: format!("curve-table-{at}"), caption, head: head.collect(), rows };
    html + &format!("<details><summary>The same in numbers</summary>\n{table}</details>\n")
}

/// The lines of a chart: for each run and each of the metric's names.
fn lines(contents: &Contents, figure: &Figure, runs: &[(usize, &Log)]) -> Vec<Line> {
    let line = |(subject, log): &(usize, &Log), at: usize| {
        let (name, what) = figure.names[at];
        let points = log.series(name);
        let (points, band) = match figure.kind {
            Kind::Stepwise => averaged(points),
            Kind::Measured | Kind::Share => (points.to_vec(), Vec::new()),
        };
        let space = if what.is_empty() { "" } else { ", " };
        Line {
            subject: Some(*subject),
            name: format!("{}{space}{what}", contents.subjects[*subject].name),
            points,
            band: if runs.len() <= MOST_BANDS { band } else { Vec::new() },
            errors: Vec::new(),
            is_dashed: at > 0,
            has_marks: figure.kind != Kind::Stepwise,
            is_joined: true,
        }
    };
    let all = runs.iter().flat_map(|run| (0..figure.names.len()).map(move |at| line(run, at)));
    all.filter(|line| !line.points.is_empty()).collect()
}

/// At most [`MOST_POINTS`] means of points in a row, and the smallest and the largest value of each.
fn averaged(points: &[Point]) -> (Vec<Point>, Vec<(f64, f64)>) {
    let in_a_row = points.len().div_ceil(MOST_POINTS);
    if in_a_row <= 1 {
        return (points.to_vec(), Vec::new());
    }
    let mean =
        |points: &[Point], of: fn(&Point) -> f64| points.iter().map(|point| of(point) / points.len() as f64).sum();
    let summary = |points: &[Point]| {
        let values = points.iter().map(|(_, value)| *value);
        let band = (values.clone().fold(f64::INFINITY, f64::min), values.fold(f64::NEG_INFINITY, f64::max));
        ((mean(points, |point| point.0), mean(points, |point| point.1)), band)
    };
    points.chunks(in_a_row).map(summary).unzip()
}

/// A metric's rows in the table of numbers.
fn in_numbers(figure: &Figure, runs: &[(usize, &Log)]) -> Vec<(String, Vec<String>)> {
    let cell = |points: &[Point]| match (points.first(), points.last()) {
        (Some(first), Some(last)) => {
            let values = points.iter().map(|(_, value)| *value);
            let (low, high) = (values.clone().fold(f64::INFINITY, f64::min), values.fold(f64::NEG_INFINITY, f64::max));
            let [first, last, low, high] = [first.1, last.1, low, high].map(|value| number(value, 4));
            format!("{first} → {last}<br><small>{low} to {high}</small>")
        }
        _ => "–".into(),
    };
    let row = |(series, what): &(&str, &str)| {
        let head = if what.is_empty() { figure.title.to_owned() } else { format!("{}, {what}", figure.title) };
        (head, runs.iter().map(|(_, log)| cell(log.series(series))).collect())
    };
    figure.names.iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_keeps_its_mean_and_its_extremes() {
        let points: Vec<Point> = (1..=1000).map(|step| (f64::from(step), f64::from(step % 10))).collect();
        let (line, band) = averaged(&points);
        assert!(line.len() <= MOST_POINTS && line.len() == band.len());
        let mean = (1..=13).map(|step| f64::from(step % 10)).sum::<f64>() / 13.0;
        assert!((line[0].0 - 7.0).abs() < 1e-12 && (line[0].1 - mean).abs() < 1e-12, "{:?}", line[0]);
        assert_eq!(band[0], (0.0, 9.0));
        let short = &points[..MOST_POINTS];
        assert_eq!(averaged(short), (short.to_vec(), Vec::new()));
    }
}
