use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;

use super::model::load_model;
use super::outputs::check_writable;
use super::terminal::{is_quiet, note, print};
use super::{CliError, DeviceArg, SeedArg};
use crate::data::{Prepared, PreparedRow, Split};
use crate::eval::sample;
use crate::models::hub::write_atomically;
use crate::models::{Objective, ObjectiveKind};
use crate::report::{Contents, Examples, PAGE_START, Run, View, page, views};
use crate::run::{check_fit, model_folder};

/// Split of the prompts that are looked into.
const SPLIT: Split = Split::Test;

/// Options of `report`.
#[derive(Debug, Args)]
#[command(
    after_help = "The page needs nothing but itself: open it in any browser, print it, send it. A run folder brings its evaluations; \
results that `latentr3 evaluate --json` wrote elsewhere may stand beside it.\n\nExample: latentr3 report run-sft run-grpo --out report.html"
)]
pub(super) struct ReportArgs {
    /// Run folders, and results of `latentr3 evaluate --json`
    #[arg(required = true, value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// The page to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Prepared data, for popularity and for the prompts to look into; if not given, where the first run found it
    #[arg(long, value_name = "PREPARED")]
    data: Option<PathBuf>,
    /// Prompts of the test split to look into, drawn at random by --seed; 0 for none, which needs no model
    #[arg(long, value_name = "N", default_value_t = 3)]
    examples: usize,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    seed: SeedArg,
}

pub(super) fn run(args: &ReportArgs) -> Result<(), CliError> {
    let is_page = |mut file: File| {
        let mut start = [0; PAGE_START.len()];
        file.read_exact(&mut start).is_ok() && start == PAGE_START.as_bytes()
    };
    check_writable(&args.out, &is_page)?;
    let contents = Contents::read(&args.runs)?;
    let prepared = find_data(args, &contents)?;
    let examples = match &prepared {
        Ok(prepared) => look_into(args, &contents, prepared)?,
        Err(why) => Err(why.clone()),
    };
    let html = page(&contents, &examples);
    write_atomically(&args.out, html.as_bytes())?;
    let (runs, evaluations) = (contents.runs().count(), contents.evaluations.len());
    match is_quiet() {
        true => Ok(()),
        false => print(&format!("{} (runs: {runs}, evaluations: {evaluations})\n", args.out.display())),
    }
}

/// The prepared data that was asked for, or that the first run names; or why there is none.
fn find_data(args: &ReportArgs, contents: &Contents) -> Result<Result<Prepared, String>, CliError> {
    if let Some(data) = &args.data {
        return Ok(Ok(Prepared::load(data)?));
    }
    let Some(folder) = contents.runs().find_map(|(_, run)| run.data()) else {
        return Ok(Err("no run says where its data lies; name the prepared data with --data".into()));
    };
    let gone = |error| format!("prepared data not found; pass --data if it was moved ({error})");
    Ok(Prepared::load(&folder).map_err(gone))
}

/// Draws prompts and has each run's best model look at them.
fn look_into<'a>(
    args: &ReportArgs,
    contents: &Contents,
    prepared: &'a Prepared,
) -> Result<Result<Examples<'a>, String>, CliError> {
    let rows = sample(prepared.rows.get(SPLIT), Some(args.examples), args.seed.seed);
    if rows.is_empty() {
        return Ok(Err(format!("no example was asked for, or the {} split is empty", SPLIT.name())));
    }
    let objective = prepared.objective(ObjectiveKind::Catalog)?;
    let mut models: Vec<(usize, Result<Vec<View>, String>)> = Vec::new();
    for (subject, run) in contents.runs() {
        if !is_quiet() {
            note(&format!("report: looking into {} prompts with {}", rows.len(), run.path.display()));
        }
        let seen = match why_not(run, prepared) {
            Some(why) => Err(why.to_owned()),
            // The page has other things to tell of a run whose model cannot be read.
            None => view(args, &run.path, prepared, &objective, &rows).unwrap_or_else(|error| {
                note(&format!("report: {error}"));
                Err(format!("whose model cannot be looked into: {error}"))
            }),
        };
        models.push((subject, seen));
    }
    Ok(Ok(Examples { prepared, split: SPLIT.name(), rows, models }))
}

/// What a run's model attends to in some prompts; or why it shows nothing.
fn view(
    args: &ReportArgs,
    run: &Path,
    prepared: &Prepared,
    objective: &Objective,
    rows: &[&PreparedRow],
) -> Result<Result<Vec<View>, String>, CliError> {
    let model = load_model(run, &args.device.device)?;
    check_fit(&model, &model_folder(run), prepared)?;
    let objective = objective.with_kind(model.objective())?;
    Ok(views(&model, prepared, &objective, rows)?.ok_or_else(|| "which has no latent attention".to_owned()))
}

/// Why a run's model cannot look at the data's prompts.
fn why_not(run: &Run, prepared: &Prepared) -> Option<&'static str> {
    if !["pretrain", "sft", "grpo"].contains(&run.stage()) {
        return Some("which is no language model");
    }
    if run.data_files() != *prepared.files() {
        return Some("which was made with other data");
    }
    (!model_folder(Path::new(&run.path)).exists()).then_some("which has no best checkpoint yet")
}
