use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::evaluation_log::EvaluationLog;
use super::files::{
    check_device, check_fit, is_run, load_model, model_folder, objective_of, weight_files, with_learnt_thoughts,
};
use super::outputs::{check_json, write_json};
use super::terminal::{Progress, duration, is_quiet, note, print, table};
use super::{CliError, DeviceArg, ObjectiveArg, SeedArg};
use crate::data::{Prepared, Split};
use crate::eval::{
    CUTOFFS, EvalConfig, EvaluationResult, Exposure, Guidance, Ranking, Shard, TargetGroups, evaluate,
    evaluate_grounded, evaluate_guided, load_sasrec, sample,
};
use crate::models::decode::BeamConfig;
use crate::models::sasrec::SasRec;
use crate::models::{LatentRecommender, Objective, ObjectiveKind, Precision, device};

/// Options of `evaluate`.
#[derive(Debug, Args)]
pub(super) struct EvaluateArgs {
    /// Hugging Face folder or run folder
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Prepared data
    #[arg(long, value_name = "PREPARED")]
    data: PathBuf,
    /// Which rows; choose settings on valid, report test
    #[arg(long, value_enum)]
    split: SplitArg,
    /// Beams of the search, and length of the list
    #[arg(long, default_value_t = 10)]
    beams: usize,
    #[command(flatten)]
    objective: ObjectiveArg,
    /// How titles are found; free text is read by the objective `vocabulary`
    #[arg(long, value_enum, default_value_t = DecodeArg::Trie)]
    decode: DecodeArg,
    /// A SASRec run (`latentr3 baseline sasrec`) that guides the search by what it says of each branch of the tree; D3 is this
    /// with --objective vocabulary --length-penalty 0
    #[arg(long, value_name = "SASREC_RUN")]
    guidance: Option<PathBuf>,
    /// The language model's part in a guided search, from 0 to 1; of several the one with the best NDCG@10 on validation users is
    /// taken
    #[arg(long, value_name = "SCALES", value_delimiter = ',', default_values_t = [0.2, 0.4, 0.6, 0.8], requires = "guidance")]
    guidance_scale: Vec<f64>,
    /// Validation users to choose the scale by
    #[arg(long, value_name = "N", default_value_t = 500, requires = "guidance")]
    guidance_users: usize,
    /// Rank by the sum of log-probabilities divided by the tokens to this power: 1 is the mean, 0 the sum [default: 1; with the objective
    /// `catalog` 0, the only value]
    #[arg(long, value_name = "POWER")]
    length_penalty: Option<f64>,
    /// Think this many thoughts instead of as many as the model was trained with; 0 shows what the thought changes
    #[arg(long)]
    thoughts: Option<usize>,
    /// Evaluate this many users, drawn at random by --seed
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Users searched at once; changes memory and speed, and results by rounding only
    #[arg(long, value_name = "USERS", default_value_t = 16, visible_alias = "batch")]
    micro_batch: usize,
    /// What the blocks multiply in: f32, bf16 or f16, where the device computes in it; changes results a little
    #[arg(long, value_name = "PRECISION", default_value_t = Precision::F32)]
    precision: Precision,
    /// Evaluate only a part of the users, as 2/4 for the second of four processes; with `--json`, `latentr3 merge` makes the
    /// whole of all parts
    #[arg(long, value_name = "I/N", default_value_t = Shard::WHOLE, hide_default_value = true)]
    shard: Shard,
    /// Write the figures and every user's rank as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    seed: SeedArg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DecodeArg {
    /// A beam search over the prefix tree of the catalog
    Trie,
    /// Free text, and the titles whose embeddings are nearest to it (BIGRec)
    Grounding,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum SplitArg {
    Train,
    Valid,
    Test,
}

impl From<SplitArg> for Split {
    fn from(split: SplitArg) -> Self {
        match split {
            SplitArg::Train => Self::Train,
            SplitArg::Valid => Self::Valid,
            SplitArg::Test => Self::Test,
        }
    }
}

pub(super) fn run(args: &EvaluateArgs) -> Result<(), CliError> {
    let beam = BeamConfig { beams: args.beams, length_penalty: args.length_penalty };
    beam.check(ObjectiveKind::Vocabulary)?;
    if args.micro_batch == 0 || args.limit == Some(0) {
        return Err(CliError::Usage("--micro-batch and --limit must be at least 1".into()));
    }
    if args.decode == DecodeArg::Grounding && (args.guidance.is_some() || args.length_penalty.is_some()) {
        return Err(CliError::Usage(
            "--guidance and --length-penalty are for the search over the tree; free text knows neither".into(),
        ));
    }
    check_json(args.json.as_deref())?;
    check_device(&args.device.device, args.precision)?;
    let prepared = Prepared::load(&args.data)?;
    let model_files = weight_files(&args.model)?;
    let mut model = load_model(&args.model, &args.device.device)?.with_precision(args.precision)?;
    if let Some(thoughts) = args.thoughts {
        model = with_learnt_thoughts(model, thoughts, args.seed.seed)?;
    }
    check_fit(&model, &model_folder(&args.model), &prepared)?;
    if is_run(&args.model) && weight_files(&args.model)? != model_files {
        let problem = "went on while its best model was read; evaluate it once more".into();
        return Err(CliError::Input { path: args.model.clone(), line: None, problem });
    }
    let log = EvaluationLog::open(&args.model);
    let objective = match args.decode {
        DecodeArg::Trie => objective_of(&model, args.objective.objective),
        DecodeArg::Grounding => {
            if model.objective() == ObjectiveKind::Catalog || args.objective.objective == Some(ObjectiveKind::Catalog) {
                note("note: free text is read by the objective `vocabulary`, whatever the model was trained for");
            }
            ObjectiveKind::Vocabulary
        }
    };
    beam.check(objective)?;
    let objective = prepared.objective(objective)?;
    let guide_files = args.guidance.as_deref().map(weight_files).transpose()?.unwrap_or_default();
    let rows = sample(prepared.rows.get(args.split.into()), args.limit, args.seed.seed);
    let config = EvalConfig { beam, batch: args.micro_batch, shard: args.shard };
    let mut progress = Progress::new("evaluate");
    let mut advance = |done: usize, all: usize| progress.advance(done as u64, all as u64, 0, "users");
    let evaluation = match args.decode {
        DecodeArg::Trie => match &args.guidance {
            None => evaluate(&model, &prepared, &objective, &rows, config, &mut advance)?,
            Some(run) => {
                let guide = load_sasrec(&model_folder(run), &prepared, &device(&args.device.device)?)?;
                let scale = choose_scale(&model, &guide, &prepared, &objective, args)?;
                let guidance = Guidance { model: &guide, scale };
                evaluate_guided(&model, guidance, &prepared, &objective, &rows, config, &mut advance)?
            }
        },
        DecodeArg::Grounding => evaluate_grounded(&model, &prepared, &rows, config, &mut advance)?,
    };
    drop(progress);
    let result = EvaluationResult {
        split: Split::from(args.split).name().into(),
        data_fingerprint: prepared.fingerprint(),
        model_files,
        limit: args.limit,
        seed: args.seed.seed,
        batch: args.micro_batch,
        precision: args.precision,
        trained_objective: Some(model.objective()),
        thoughts: Some(model.thoughts()),
        guide_files,
        users_of_all_parts: rows.len(),
        shard: args.shard,
        evaluation,
    };
    write_json(args.json.as_deref(), &result)?;
    if !is_quiet() {
        show(&result)?;
    }
    if let Some(log) = log {
        let is_plain = args.thoughts.is_none()
            && args.decode == DecodeArg::Trie
            && args.guidance.is_none()
            && args.precision == Precision::F32
            && objective.kind() == model.objective()
            && beam.penalty(&objective) == objective.length_penalty();
        log.record(&result, is_plain)?;
    }
    Ok(())
}

/// The scale with the best NDCG@10, or of the longest list, on validation users.
fn choose_scale(
    model: &LatentRecommender,
    guide: &SasRec,
    prepared: &Prepared,
    objective: &Objective,
    args: &EvaluateArgs,
) -> Result<f64, CliError> {
    if let [scale] = args.guidance_scale[..] {
        return Ok(scale);
    }
    let rows = sample(prepared.rows.get(Split::Valid), Some(args.guidance_users), args.seed.seed);
    if rows.is_empty() {
        return Err(CliError::Usage("there are no validation users to choose by; give one --guidance-scale".into()));
    }
    let beam = BeamConfig { beams: args.beams, length_penalty: args.length_penalty };
    let config = EvalConfig { beam, batch: args.micro_batch, shard: Shard::WHOLE };
    let mut best = None;
    for &scale in &args.guidance_scale {
        let guidance = Guidance { model: guide, scale };
        let evaluation = evaluate_guided(model, guidance, prepared, objective, &rows, config, &mut |_, _| {})?;
        let ndcg = &evaluation.by_item.ndcg;
        let figure =
            CUTOFFS.iter().rev().filter(|&&k| k <= 10).find_map(|k| ndcg[&k.to_string()].as_f64()).unwrap_or(0.0);
        if !is_quiet() {
            note(&format!("guidance scale {scale}: NDCG {figure:.4} on {} validation users", rows.len()));
        }
        if best.is_none_or(|(most, _)| figure > most) {
            best = Some((figure, scale));
        }
    }
    best.map(|(_, scale)| scale).ok_or_else(|| CliError::Usage("--guidance-scale needs a value".into()))
}

/// Prints the figures of an evaluation.
pub(super) fn show(result: &EvaluationResult) -> Result<(), CliError> {
    let evaluation = &result.evaluation;
    let rankings =
        [("model", &evaluation.by_item), ("by title", &evaluation.by_title), ("popularity", &evaluation.popularity)];
    let part = match result.shard {
        Shard::WHOLE => String::new(),
        shard => format!(" (part {shard} of {})", result.users_of_all_parts),
    };
    let objective = match (evaluation.method.objective, result.trained_objective) {
        (Some(objective), Some(trained)) if objective != trained => {
            format!("objective {objective}, the model was trained for {trained}\n")
        }
        (Some(objective), _) => format!("objective {objective}\n"),
        (None, _) => String::new(),
    };
    let (users, time) = (evaluation.users, duration(evaluation.seconds));
    let speed = users as f64 / evaluation.seconds;
    let TargetGroups { cold, warm, head, middle, tail } = &evaluation.targets;
    let groups = [("cold", cold), ("warm", warm), ("head", head), ("middle", middle), ("tail", tail)];
    let groups = groups.into_iter().filter(|(_, group)| group.users > 0);
    let groups: Vec<_> =
        groups.map(|(name, group)| (format!("{name} ({} users)", group.users), &group.by_item)).collect();
    let groups: Vec<_> = groups.iter().map(|(name, ranking)| (name.as_str(), *ranking)).collect();
    let shown = evaluation.exposure.as_ref().map_or(String::new(), |exposure| {
        let Exposure { k, average_popularity, coverage, gini, entropy } = exposure;
        format!(
            "first {k} places: chosen {average_popularity:.1} times in training, coverage {coverage:.4}, Gini {gini:.4}, \
             entropy {entropy:.2} bits\n"
        )
    });
    print(&format!(
        "{}\nby the popularity of the user's item\n{}{shown}{objective}{users} users{part} in {time}, {speed:.1} users/s\n",
        figures(&rankings),
        figures(&groups)
    ))
}

/// HR and NDCG of several rankings as a table.
pub(super) fn figures(rankings: &[(&str, &Ranking)]) -> String {
    let head = |name: &str| CUTOFFS.iter().map(|k| format!("{name}@{k}")).collect::<Vec<_>>();
    let mut rows = vec![[vec![String::new()], head("HR"), head("NDCG")].concat()];
    for (name, ranking) in rankings {
        let cells = |values: &serde_json::Map<String, serde_json::Value>| {
            let cell = |k: &usize| values[&k.to_string()].as_f64().map_or("-".into(), |value| format!("{value:.4}"));
            CUTOFFS.iter().map(cell).collect::<Vec<_>>()
        };
        rows.push([vec![name.to_string()], cells(&ranking.hr), cells(&ranking.ndcg)].concat());
    }
    table(&rows)
}
