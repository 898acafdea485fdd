use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::model::{note_other_objective, warn_of_software};
use super::outputs::write_json;
use super::terminal::{Progress, is_quiet, note, print, print_to_reader};
use super::{CliError, DeviceArg, ObjectiveArg};
use crate::models::Precision;
use crate::models::files::write_atomically;
use crate::outputs::{check_recommendations, check_result};
use crate::recommend::{Answer, Chosen, Query, Recommender, RecommenderConfig, UserHistory, read_histories, read_ids};
use crate::run::ChosenGuidance;
use crate::text;

/// Options of `recommend`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: latentr3 recommend --model RUN --data PREPARED --history \"Hot Rocks\" --history \"Kansas\"\n\n\
--users takes a table (.csv) with the columns user and item, one row per interaction, oldest first; or JSON lines, \
{\"user\": \"u\", \"history\": [\"id\", ..]} or with \"titles\". The answers are JSON lines, in the --json file or on \
standard output."
)]
pub(super) struct RecommendArgs {
    /// Shop folder (`latentr3 fit`), Hugging Face folder, run folder or name on the hub
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// Prepared data: the catalog and the prompt's wording; a shop folder has its own
    #[arg(long, value_name = "PREPARED")]
    data: Option<PathBuf>,
    /// Title from the user's history, oldest first; repeat the option for each. Without a history, a shop recommends
    /// popular items
    #[arg(long, value_name = "TITLE", allow_hyphen_values = true)]
    history: Vec<String>,
    /// Item id from the user's history, oldest first; repeat the option for each
    #[arg(long, value_name = "ID", allow_hyphen_values = true, conflicts_with = "history")]
    history_id: Vec<String>,
    /// File with the histories of many users; each gets a list
    #[arg(long, value_name = "FILE", conflicts_with_all = ["history", "history_id"])]
    users: Option<PathBuf>,
    /// Number of titles to recommend
    #[arg(long, default_value_t = 10)]
    top: usize,
    /// Exclude items of the history; a shop does so anyway, unless it was built with --repeat-history
    #[arg(long)]
    exclude_history: bool,
    /// Allow items of the history to be recommended again
    #[arg(long, conflicts_with = "exclude_history")]
    repeat_history: bool,
    /// Exclude the items whose ids are in this file, one per line
    #[arg(long, value_name = "FILE")]
    exclude: Option<PathBuf>,
    /// Recommend only items whose ids are in this file, one per line
    #[arg(long, value_name = "FILE")]
    only: Option<PathBuf>,
    /// Explain each title: how often it followed those of the history, or how much the thought attends to each of them
    #[arg(long)]
    why: bool,
    /// Search without the guide that `evaluate --guidance` last chose for the run
    #[arg(long)]
    no_guidance: bool,
    /// Beam width [default: the number of titles, at least 10]
    #[arg(long)]
    beams: Option<usize>,
    #[command(flatten)]
    objective: ObjectiveArg,
    /// Divide the sum of log-probabilities by the number of tokens to this power: 1 ranks by the mean, 0 by the sum
    /// [default: 1; with the objective `catalog` 0, the only value allowed]
    #[arg(long, value_name = "POWER")]
    length_penalty: Option<f64>,
    /// Matmul precision: f32, bf16 or f16, if the device supports it; changes results slightly
    #[arg(long, value_name = "PRECISION", default_value_t = Precision::F32)]
    precision: Precision,
    /// Write the recommendations as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArg,
}

pub(super) fn run(args: &RecommendArgs) -> Result<(), CliError> {
    if args.top == 0 || args.beams.is_some_and(|beams| beams < args.top) {
        return Err(CliError::Usage("--top must be at least 1, and --beams at least as large as --top".into()));
    }
    let check = if args.users.is_some() { check_recommendations } else { check_result };
    args.json.as_deref().map_or(Ok(()), check)?;
    warn_of_software(&args.device.device)?;
    let users = args.users.as_deref().map(read_histories).transpose()?;
    let mut query = Query {
        history: Vec::new(),
        top: args.top,
        exclude_history: args.exclude_history,
        exclude: args.exclude.as_deref().map(read_ids).transpose()?.unwrap_or_default(),
        only: args.only.as_deref().map(read_ids).transpose()?,
        why: args.why,
    };
    let guidance = if args.no_guidance { None } else { ChosenGuidance::of_run(&args.model)? };
    if let Some(guidance) = guidance.as_ref().filter(|_| !is_quiet()) {
        note(&format!("note: guided by {}, as chosen by the run's last guided evaluation", guidance.guide));
    }
    let recommender = Recommender::load(&RecommenderConfig {
        model: args.model.clone(),
        data: args.data.clone(),
        objective: args.objective.objective,
        guidance,
        beams: args.beams,
        length_penalty: args.length_penalty,
        precision: args.precision,
        device: args.device.device.clone(),
    })?;
    query.exclude_history |= recommender.excludes_history() && !args.repeat_history;
    if let Some([trained, read]) = recommender.objectives() {
        note_other_objective(trained, read);
    }
    match users {
        Some(users) => many(args, &recommender, &query, &users),
        None => one(args, &recommender, query),
    }
}

/// Recommends to the user of the command line.
fn one(args: &RecommendArgs, recommender: &Recommender, query: Query) -> Result<(), CliError> {
    for title in args.history.iter().filter(|title| !is_quiet() && !recommender.knows(title)) {
        note(&format!("note: \"{title}\" is not in the catalog; its words are used anyway"));
    }
    let ids = args.history_id.iter().cloned().map(Chosen::Id);
    let history = args.history.iter().cloned().map(Chosen::Title).chain(ids).collect();
    let Answer { model, recommendations } = recommender.recommend(&[Query { history, ..query }])?.remove(0);
    let history = if args.history.is_empty() { &args.history_id } else { &args.history };
    let objective = recommender.objectives().map(|[_, read]| read);
    let result =
        json!({ "history": history, "model": model, "objective": objective, "recommendations": recommendations });
    write_json(args.json.as_deref(), &result)?;
    if is_quiet() {
        return Ok(());
    }
    if model != recommender.own() {
        note(&match history.is_empty() {
            true => "note: there is no history, so the list shows popular items".to_owned(),
            false => format!("note: {} knows no item of this history, so the list is from {model}", recommender.own()),
        });
    }
    print(&text::of_recommendations(&recommendations))
}

/// Recommends to the users of a file, a line for each.
fn many(args: &RecommendArgs, recommender: &Recommender, query: &Query, users: &[UserHistory]) -> Result<(), CliError> {
    let (mut progress, mut lines) = (Progress::new("recommend"), String::new());
    recommender.recommend_to_all(users, query, |answers, done| -> Result<bool, CliError> {
        let part: String = answers.iter().map(|answer| json!(answer).to_string() + "\n").collect();
        progress.advance(done as u64, users.len() as u64, 0, "users");
        match args.json {
            Some(_) => lines += &part,
            None => return print_to_reader(&part),
        }
        Ok(true)
    })?;
    Ok(args.json.as_deref().map_or(Ok(()), |path| write_atomically(path, lines.as_bytes()))?)
}
