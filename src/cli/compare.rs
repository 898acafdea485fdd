use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use super::outputs::{check_json, check_not_read, write_json};
use super::terminal::{is_quiet, note, print, table};
use super::{CliError, SeedArg};
use crate::eval::Metric;
use crate::eval::compare::{
    By, CompareConfig, Comparison, Comparisons, Evidence, Group, OtherLists, Pairs, compare, default_metrics,
    shortest_lists,
};
use crate::run::{equal_runs, read_compared};

/// Options of `compare`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: latentr3 compare SFT=sft-0.json,sft-1.json,sft-2.json LatentR3=grpo-0.json,grpo-1.json,grpo-2.json\n\n\
Runs of several seeds show whether the training makes a difference; a single run each shows only whether these two models differ."
)]
pub(super) struct CompareArgs {
    /// Each model with its runs, one for each seed: what `evaluate --json` wrote, or run folders with evaluations/test.json.
    /// Without a name the first file's is taken
    #[arg(required = true, value_name = "[NAME=]RUN,RUN")]
    models: Vec<OsString>,
    /// Count a hit on the item, or on any item of its title
    #[arg(long, value_enum, default_value_t = ByArg::Item)]
    by: ByArg,
    /// Metrics, as hr@10,ndcg@10; all that the lists are long enough for if not given. The more there are, the more is
    /// corrected for
    #[arg(long, value_delimiter = ',')]
    metrics: Vec<Metric>,
    /// Compare every other model with this one instead of the first
    #[arg(long, value_name = "NAME", conflicts_with = "all_pairs")]
    against: Option<String>,
    /// Compare each model with each
    #[arg(long)]
    all_pairs: bool,
    /// Resamples of the users, and sign flips
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    resamples: usize,
    /// Write the comparisons as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    seed: SeedArg,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ByArg {
    Item,
    Title,
}

impl From<ByArg> for By {
    fn from(by: ByArg) -> Self {
        match by {
            ByArg::Item => Self::Item,
            ByArg::Title => Self::Title,
        }
    }
}

pub(super) fn run(args: &CompareArgs) -> Result<(), CliError> {
    check_json(args.json.as_deref())?;
    let groups = args.models.iter().map(read_group).collect::<Result<Vec<_>, _>>()?;
    check_not_read(args.json.as_deref(), groups.iter().flat_map(|group| &group.runs).map(|run| &run.path))?;
    for group in &groups {
        for (other, run) in equal_runs(group) {
            let [run, other] = [run, other].map(|run| run.path.display());
            note(&format!("warning: {other} and {run} are of the same weights, as if `{}` had a run less", group.name));
        }
    }
    let mut metrics: Vec<Metric> = Vec::new();
    for &metric in &args.metrics {
        if !metrics.contains(&metric) {
            metrics.push(metric);
        }
    }
    if metrics.is_empty() {
        metrics = default_metrics(shortest_lists(&groups));
    }
    let pairs = match &args.against {
        _ if args.all_pairs => Pairs::All,
        Some(name) => Pairs::Against(name.clone()),
        None => Pairs::AgainstFirst,
    };
    let config = CompareConfig { by: args.by.into(), metrics, pairs, resamples: args.resamples, seed: args.seed.seed };
    let comparisons = compare(&groups, &config).map_err(|error| CliError::Usage(error.to_string()))?;
    write_json(args.json.as_deref(), &comparisons)?;
    if is_quiet() { Ok(()) } else { print(&report(&comparisons)) }
}

/// A model from `NAME=RUN,RUN`. A whole argument that is a path is taken as one, whatever signs it has.
fn read_group(argument: &OsString) -> Result<Group, CliError> {
    let (name, paths) = match argument.to_str() {
        Some(text) if !Path::new(text).exists() => {
            let (name, paths) = text.split_once('=').map_or((None, text), |(name, paths)| (Some(name), paths));
            (name, paths.split(',').map(PathBuf::from).collect())
        }
        _ => (None, vec![PathBuf::from(argument)]),
    };
    if name.is_some_and(|name| name.trim().is_empty()) || paths.iter().any(|path| path.as_os_str().is_empty()) {
        return Err(CliError::Usage(format!("`{}` is no model; write NAME=RUN,RUN", argument.display())));
    }
    let first = if paths[0].is_dir() { paths[0].file_name() } else { paths[0].file_stem() };
    let first = first.unwrap_or(paths[0].as_os_str()).to_string_lossy().into_owned();
    let runs = paths.into_iter().map(read_compared).collect::<Result<Vec<_>, _>>()?;
    Ok(Group { name: name.map_or(first, str::to_owned), runs })
}

/// Each pair of models with the answers to both questions.
fn report(comparisons: &Comparisons) -> String {
    let mut text = format!(
        "{}, by {}: {} rows of {} users\n",
        comparisons.split,
        if comparisons.by == By::Item { "item" } else { "title" },
        comparisons.rows,
        comparisons.users
    );
    let is_same = |a: &Comparison, b: &Comparison| (&a.baseline, &a.other) == (&b.baseline, &b.other);
    for pair in comparisons.comparisons.chunk_by(is_same) {
        let Some(first) = pair.first() else { continue };
        let runs = [&first.baseline_runs, &first.other_runs].map(|runs| match runs.len() {
            1 => "1 run".to_owned(),
            more => format!("{more} runs"),
        });
        text += &format!("\n{} ({}) against {} ({})\n", first.other, runs[1], first.baseline, runs[0]);
        let of_runs = |comparison: &Comparison| comparison.runs_like_these.map(|of_runs| of_runs.evidence);
        if pair.iter().all(|comparison| of_runs(comparison).is_some()) {
            text += "\nThe training, for users and seeds like these\n";
            text += &evidence_table(pair, |comparison| of_runs(comparison).unwrap_or(comparison.these_runs));
        }
        text += "\nThese runs, for users like these\n";
        text += &evidence_table(pair, |comparison| comparison.these_runs);
        if let Some(differences) = run_table(pair) {
            text += "\nDifference of each run and the baseline's of the same place\n";
            text += &differences;
        }
        text += &comparisons
            .lists
            .iter()
            .filter(|lists| (&lists.baseline, &lists.other) == (&first.baseline, &first.other))
            .map(list_line)
            .collect::<String>();
        if first.runs_like_these.is_none() {
            text += "\nOf the training this says nothing: two runs of one model differ too. It takes several seeds of both.\n";
        }
    }
    text
}

fn evidence_table(pair: &[Comparison], evidence: impl Fn(&Comparison) -> Evidence) -> String {
    let names = pair.first().map_or(["", ""], |first| [&first.baseline, &first.other]);
    let head = ["", names[0], names[1], "difference", "95% interval", "p", "p (Holm)"];
    let row = |comparison: &Comparison| {
        let Evidence { interval, p, p_holm } = evidence(comparison);
        vec![
            comparison.metric.to_string(),
            format!("{:.4}", comparison.baseline_mean),
            format!("{:.4}", comparison.other_mean),
            signed(comparison.difference),
            format!("{} to {}", signed(interval[0]), signed(interval[1])),
            probability(p),
            probability(p_holm),
        ]
    };
    table(&std::iter::once(head.map(str::to_owned).to_vec()).chain(pair.iter().map(row)).collect::<Vec<_>>())
}

/// Each run's own difference, where both models have several runs and equally many.
fn run_table(pair: &[Comparison]) -> Option<String> {
    let row = |comparison: &Comparison| {
        let differences = comparison.differences_of_runs().filter(|differences| differences.len() > 1)?;
        Some([vec![comparison.metric.to_string()], differences.into_iter().map(signed).collect()].concat())
    };
    let rows = pair.iter().map(row).collect::<Option<Vec<_>>>()?;
    let runs = rows.first()?.len();
    let head = std::iter::once(String::new()).chain((1..runs).map(|run| format!("run {run}"))).collect();
    Some(table(&[vec![head], rows].concat()))
}

fn list_line(lists: &OtherLists) -> String {
    let percent = |share: f64| format!("{:.1}%", 100.0 * share);
    let paired = lists
        .between_paired_runs
        .map_or(String::new(), |share| format!(", {} between runs in the same place", percent(share)));
    let of_runs = [(&lists.baseline, lists.between_baseline_runs), (&lists.other, lists.between_other_runs)];
    let of_runs = of_runs.map(|(name, share)| {
        share.map_or(String::new(), |share| format!(", {} between two runs of {name}", percent(share)))
    });
    lists.between_models.map_or(String::new(), |between| {
        format!("\nLists that differ: {} between the models{paired}{}\n", percent(between), of_runs.concat())
    })
}

fn signed(value: f64) -> String {
    // What rounds to zero has no sign.
    if value.abs() < 0.00005 { "0.0000".to_owned() } else { format!("{value:+.4}") }
}

fn probability(p: f64) -> String {
    if p < 0.0001 { "<0.0001".to_owned() } else { format!("{p:.4}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_with_their_sign_and_never_as_a_p_of_zero() {
        assert_eq!([0.01234, -0.5, 0.00001, -0.00001].map(signed), ["+0.0123", "-0.5000", "0.0000", "0.0000"]);
        assert_eq!(
            [1.0, 0.0499, 0.0001, 0.00001, 0.0].map(probability),
            ["1.0000", "0.0499", "0.0001", "<0.0001", "<0.0001"]
        );
    }
}
