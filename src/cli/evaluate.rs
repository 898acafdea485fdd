use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::model::{note_other_objective, warn_of_software};
use super::outputs::{check_json, write_json};
use super::terminal::{Progress, is_quiet, note, print};
use super::{CliError, DeviceArg, ObjectiveArg, SeedArg};
use crate::data::Split;
use crate::eval::Shard;
use crate::fit::{Shop, Trial};
use crate::input_error::InputError;
use crate::models::Precision;
use crate::models::decode::BeamConfig;
use crate::option_values::names_of;
use crate::run::{Decoding, EvaluationEvent, EvaluationRequest, GuidanceRequest};
use crate::text;

/// Options of `evaluate`.
#[derive(Debug, Args)]
pub(super) struct EvaluateArgs {
    /// Hugging Face folder, run folder or name on the hub; or a shop folder, whose language model is evaluated as it was before it was
    /// retrained on all data
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    /// Prepared data; a shop folder has its own
    #[arg(long, value_name = "PREPARED")]
    data: Option<PathBuf>,
    /// Split to evaluate; choose settings on valid, report test
    #[arg(long, value_parser = names_of::<Split>())]
    split: Split,
    /// Beam width, and length of the list
    #[arg(long, default_value_t = 10)]
    beams: usize,
    #[command(flatten)]
    objective: ObjectiveArg,
    /// How titles are found; grounding always uses the objective `vocabulary`
    #[arg(long, value_enum, default_value_t = DecodeArg::Trie)]
    decode: DecodeArg,
    #[command(flatten)]
    guidance: Option<GuidanceRequest>,
    /// Divide the sum of log-probabilities by the number of tokens to this power: 1 ranks by the mean, 0 by the sum
    /// [default: 1; with the objective `catalog` 0, the only value allowed]
    #[arg(long, value_name = "POWER")]
    length_penalty: Option<f64>,
    /// Exclude the items of a user's history from the list
    #[arg(long)]
    exclude_history: bool,
    /// Use this many thoughts instead of as many as the model was trained with; 0 shows what the thought contributes
    #[arg(long)]
    thoughts: Option<usize>,
    /// Evaluate only this many rows, drawn at random by --seed
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Users searched at once; affects memory and speed, and results only by rounding
    #[arg(long, value_name = "USERS", default_value_t = 16, visible_alias = "batch")]
    micro_batch: usize,
    /// Matmul precision: f32, bf16 or f16, if the device supports it; changes results slightly
    #[arg(long, value_name = "PRECISION", default_value_t = Precision::F32)]
    precision: Precision,
    /// Evaluate only a shard of the users, as in 2/4 for the second of four; `latentr3 merge` merges the --json files
    /// of all shards
    #[arg(long, value_name = "I/N", default_value_t = Shard::WHOLE, hide_default_value = true)]
    shard: Shard,
    /// Write the metrics and every user's rank as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArg,
    #[command(flatten)]
    seed: SeedArg,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DecodeArg {
    /// Beam search over the prefix tree of the catalog
    Trie,
    /// Free text, and then the titles with the nearest embeddings (BIGRec)
    Grounding,
}

pub(super) fn run(args: &EvaluateArgs) -> Result<(), CliError> {
    if args.micro_batch == 0 || args.limit == Some(0) {
        return Err(CliError::Usage("--micro-batch and --limit must be at least 1".into()));
    }
    let searches = args.guidance.is_some() || args.length_penalty.is_some() || args.exclude_history;
    if args.decode == DecodeArg::Grounding && searches {
        return Err(CliError::Usage(
            "--guidance, --length-penalty and --exclude-history apply only to the search, not to free text".into(),
        ));
    }
    check_json(args.json.as_deref())?;
    warn_of_software(&args.device.device)?;
    let request = args.request()?;
    let mut progress = Progress::new("evaluate");
    let result = request.carry_out(&mut |event| match event {
        EvaluationEvent::Advanced { done, all } => progress.advance(done as u64, all as u64, 0, "rows"),
        EvaluationEvent::OtherObjective { .. } if args.decode == DecodeArg::Grounding => {
            note("note: free text uses the objective `vocabulary`, whatever the model was trained for")
        }
        EvaluationEvent::OtherObjective { trained, read } => note_other_objective(trained, read),
        EvaluationEvent::NotRecorded(error) => note_not_recorded(error),
        EvaluationEvent::Tried(guidance) => progress.say(&text::of_guidance(guidance)),
        EvaluationEvent::ReadBefore { times } => note_read_before(request.split.name(), times),
    })?;
    drop(progress);
    write_json(args.json.as_deref(), &result)?;
    if is_quiet() { Ok(()) } else { print(&text::of_evaluation(&result)) }
}

impl EvaluateArgs {
    fn request(&self) -> Result<EvaluationRequest, CliError> {
        let trial = if Shop::is_one(&self.model) { Some(Trial::of(&self.model)?) } else { None };
        let trial = trial.as_ref();
        let needs_data = || CliError::Usage("--data is required: the model is not a shop folder".into());
        let data = self.data.as_ref().or(trial.map(|trial| &trial.data)).ok_or_else(needs_data)?;
        Ok(EvaluationRequest {
            model: trial.map_or(&self.model, |trial| &trial.model).clone(),
            data: data.clone(),
            device: self.device.device.clone(),
            split: self.split,
            decoding: match (&self.decode, &self.guidance) {
                (DecodeArg::Grounding, _) => Decoding::Grounding,
                (DecodeArg::Trie, None) => match trial.and_then(|trial| trial.guidance.as_ref()) {
                    Some(chosen) => Decoding::Guided(chosen.into()),
                    None => Decoding::Search,
                },
                (DecodeArg::Trie, Some(request)) => Decoding::Guided(request.clone()),
            },
            beam: BeamConfig { beams: self.beams, length_penalty: self.length_penalty },
            objective: self.objective.objective,
            thoughts: self.thoughts,
            limit: self.limit,
            seed: self.seed.seed,
            batch: self.micro_batch,
            precision: self.precision,
            shard: self.shard,
            exclude_history: self.exclude_history || trial.is_some_and(|trial| trial.exclude_history),
        })
    }
}

/// Says that a run will have no record of an evaluation.
pub(super) fn note_not_recorded(error: &InputError) {
    note(&format!("note: {error}; the run will have no record of this evaluation"));
}

/// Says so where the test split was read before.
pub(super) fn note_read_before(split: &str, times: usize) {
    if split == Split::Test.name() && times > 0 {
        note(&format!("note: earlier evaluations of this run on the test split: {times}; choose settings on valid"));
    }
}
