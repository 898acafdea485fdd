use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;

use super::outputs::{check_json, check_not_read, write_json};
use super::terminal::{is_quiet, note, print};
use super::{CliError, SeedArg};
use crate::eval::Metric;
use crate::eval::compare::{By, CompareConfig, Group, Pairs, chosen_metrics, compare};
use crate::option_values::names_of;
use crate::run::{equal_runs, read_compared};
use crate::text;

/// Options of `compare`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: latentr3 compare SFT=sft-0.json,sft-1.json,sft-2.json LatentR3=grpo-0.json,grpo-1.json,grpo-2.json\n\n\
Runs of several seeds show whether the training makes a difference. A single run of each shows only whether these \
models differ."
)]
pub(super) struct CompareArgs {
    /// Models to compare, each with its runs, one per seed: files written by `evaluate --json`, or run folders with
    /// evaluations/test.json. NAME defaults to the name of the first run
    #[arg(required = true, value_name = "[NAME=]RUN,RUN")]
    models: Vec<OsString>,
    /// Count a hit on the target item only, or on any item with its title
    #[arg(long, value_enum, value_parser = names_of::<By>(), default_value_t = By::Item)]
    by: By,
    /// Metrics, as in hr@10,ndcg@10 [default: all that the lists are long enough for]. The more metrics, the stronger
    /// the correction of p
    #[arg(long, value_delimiter = ',')]
    metrics: Vec<Metric>,
    /// Compare every other model with this one instead of the first
    #[arg(long, value_name = "NAME", conflicts_with = "all_pairs")]
    against: Option<String>,
    /// Compare every pair of models
    #[arg(long)]
    all_pairs: bool,
    /// Bootstrap resamples of the users, and sign flips
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    resamples: usize,
    /// Write the comparisons as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    seed: SeedArg,
}

pub(super) fn run(args: &CompareArgs) -> Result<(), CliError> {
    check_json(args.json.as_deref())?;
    let groups = args.models.iter().map(read_group).collect::<Result<Vec<_>, _>>()?;
    check_not_read(args.json.as_deref(), groups.iter().flat_map(|group| &group.runs).map(|run| &run.path))?;
    for group in &groups {
        for (other, run) in equal_runs(group) {
            let [run, other] = [run, other].map(|run| run.path.display());
            note(&format!("warning: {other} and {run} have the same weights: `{}` has one run fewer", group.name));
        }
    }
    let metrics = chosen_metrics(&args.metrics, &groups);
    let pairs = match &args.against {
        _ if args.all_pairs => Pairs::All,
        Some(name) => Pairs::Against(name.clone()),
        None => Pairs::AgainstFirst,
    };
    let config = CompareConfig { by: args.by, metrics, pairs, resamples: args.resamples, seed: args.seed.seed };
    let comparisons = compare(&groups, &config).map_err(|error| CliError::Usage(error.to_string()))?;
    write_json(args.json.as_deref(), &comparisons)?;
    if is_quiet() { Ok(()) } else { print(&text::of_comparisons(&comparisons)) }
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
        return Err(CliError::Usage(format!("`{}` is not a model; write NAME=RUN,RUN", argument.display())));
    }
    let first = if paths[0].is_dir() { paths[0].file_name() } else { paths[0].file_stem() };
    let first = first.unwrap_or(paths[0].as_os_str()).to_string_lossy().into_owned();
    let runs = paths.into_iter().map(read_compared).collect::<Result<Vec<_>, _>>()?;
    Ok(Group { name: name.map_or(first, str::to_owned), runs })
}
