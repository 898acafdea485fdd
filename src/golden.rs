//! Every figure of the method against what PyTorch computes in float64.
//!
//! A golden folder holds a small checkpoint in Hugging Face's layout and `golden.json` with the figures. The checks know
//! no sizes: any such folder will do.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use serde::Deserialize;
use serde_json::Value;

use crate::models::decode::{BeamConfig, Hypothesis, ItemTrie, TrieError, beam_search};
use crate::models::{LatentRecommender, ModelError, Objective, ObjectiveKind, Precision, ThoughtKind, host, hub};
use crate::train::grpo::{AdvantageKind, Grpo, GrpoConfig, Rollouts, baseline, prepare_model};
use crate::train::sft::Sft;
use crate::train::{Example, Gradients, LocalUpdate, TrainError, World};

/// Largest deviation of a figure.
const LIMIT: f64 = 1e-4;
/// The same for gradients of stage 2, whose rewards' differences cancel.
const GRPO_GRADIENT_LIMIT: f64 = 1e-3;
/// A loss may be a sum that cancels; a smaller one is compared as if it were this large.
const SMALLEST_LOSS: f64 = 0.1;

/// A golden folder with its model on a device.
#[derive(Debug)]
pub struct Golden {
    figures: Figures,
    model: LatentRecommender,
}

/// How far a figure is from the golden one.
#[derive(Debug, Clone, PartialEq)]
pub struct Deviation {
    /// Which figure.
    pub what: String,
    /// The largest difference of its values, divided by the largest of them; not a number if one of them is not.
    pub error: f64,
    /// What is accepted.
    pub limit: f64,
}

impl Deviation {
    /// Whether it is accepted.
    pub fn holds(&self) -> bool {
        self.error <= self.limit
    }
}

/// Why a golden folder cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum GoldenError {
    /// The checkpoint, or the device.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The training stages.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The golden catalog.
    #[error(transparent)]
    Trie(#[from] TrieError),
    /// The figures.
    #[error("{}: {problem}", path.display())]
    Figures {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

type Deviations = Result<Vec<Deviation>, GoldenError>;

/// The figures as they stand in `golden.json`.
#[derive(Debug, Deserialize)]
struct Figures {
    prompts: Vec<Vec<u32>>,
    targets: Vec<Vec<u32>>,
    catalog: Vec<Vec<u32>>,
    last_hidden: Value,
    thought: Value,
    thought_2nd: Value,
    target_logps: Value,
    target_logps_two_thoughts: Value,
    target_logps_no_thought: Value,
    sft: SftFigures,
    noise: Vec<Value>,
    grpo: GrpoFigures,
    catalog_scores: Value,
    ranking: Vec<Vec<u32>>,
    /// Absent in older folders.
    catalog_objective: Option<CatalogFigures>,
}

/// The figures of the catalog's objective.
#[derive(Debug, Deserialize)]
struct CatalogFigures {
    /// Of every token of the targets, 0 where the tree allows no other.
    target_logps: Value,
    loss: f64,
    grads: BTreeMap<String, GradientFigures>,
    scores: Vec<Vec<f64>>,
    ranking: Vec<Vec<u32>>,
}

impl Figures {
    /// Whether each prompt has `group` samples of noise of this width, and each sample as many log-probabilities as its target has tokens.
    fn fit(&self, group: usize, width: usize) -> bool {
        let is_noise = |sample: &Value| sample.as_array().is_some_and(|sample| sample.len() == width);
        let has_noise = |samples: &Value| {
            samples.as_array().is_some_and(|samples| samples.len() == group && samples.iter().all(is_noise))
        };
        let tokens: Vec<usize> =
            self.targets.iter().flat_map(|target| std::iter::repeat_n(target.len(), group)).collect();
        let are_of_targets = |rows: &Vec<Vec<f32>>| rows.iter().map(Vec::len).eq(tokens.iter().copied());
        let GrpoFigures { batch_advantage, group_advantage, clipped_with_kl, .. } = &self.grpo;
        let updates = [batch_advantage, group_advantage, clipped_with_kl].into_iter();
        group > 0
            && self.noise.iter().all(has_noise)
            && updates
                .flat_map(|update| [Some(&update.logps), update.old_logps.as_ref(), update.ref_logps.as_ref()])
                .flatten()
                .all(are_of_targets)
    }
}

#[derive(Debug, Deserialize)]
struct SftFigures {
    loss: f64,
    grads: BTreeMap<String, GradientFigures>,
}

/// A gradient, or rows of it if its name says so: `NAME rows [1, 2, 3]`.
#[derive(Debug, Deserialize)]
struct GradientFigures {
    values: Vec<f64>,
}

#[derive(Debug, Deserialize)]
struct GrpoFigures {
    batch_advantage: UpdateFigures,
    group_advantage: UpdateFigures,
    clipped_with_kl: UpdateFigures,
    clip: [f64; 2],
}

#[derive(Debug, Deserialize)]
struct UpdateFigures {
    logps: Vec<Vec<f32>>,
    reward: Vec<f64>,
    baseline: f64,
    advantage: Vec<f64>,
    old_logps: Option<Vec<Vec<f32>>>,
    ref_logps: Option<Vec<Vec<f32>>>,
    beta: Option<f64>,
    kl: Option<f64>,
    loss: f64,
    grads: BTreeMap<String, GradientFigures>,
}

impl Golden {
    /// Reads a golden folder and loads its model onto a device.
    ///
    /// # Errors
    ///
    /// Files missing or malformed.
    pub fn load(folder: &Path, device: &Device) -> Result<Self, GoldenError> {
        let path = folder.join("golden.json");
        let figures: Figures = serde_json::from_value(hub::read_json(&path)?)
            .map_err(|error| GoldenError::Figures { path: path.clone(), problem: error.to_string() })?;
        let rows = figures.prompts.len();
        let rollouts = figures.noise.iter().map(|group| group.as_array().map_or(0, Vec::len)).sum::<usize>();
        let grpo = [&figures.grpo.batch_advantage, &figures.grpo.group_advantage, &figures.grpo.clipped_with_kl];
        let fits = |figures: &UpdateFigures| {
            figures.logps.len() == rollouts && figures.advantage.len() == rollouts && !figures.grads.is_empty()
        };
        if rows == 0
            || figures.sft.grads.is_empty()
            || figures.targets.len() != rows
            || figures.noise.len() != rows
            || !grpo.into_iter().all(fits)
        {
            let problem = "its prompts, targets, noise and rollouts are not as many, or it has no gradients".into();
            return Err(GoldenError::Figures { path, problem });
        }
        let model = hub::load(folder, device)?;
        if !figures.fit(rollouts / rows, model.backbone.config().d_model) {
            let problem = "its noise and log-probabilities are not of equal groups, of the model's width and of the targets' lengths";
            return Err(GoldenError::Figures { path, problem: problem.into() });
        }
        Ok(Self { model, figures })
    }

    /// The same checks of the model as it computes in another precision, for which their limits are not meant.
    ///
    /// # Errors
    ///
    /// The device does not compute in it.
    pub fn with_precision(self, precision: Precision) -> Result<Self, ModelError> {
        Ok(Self { model: self.model.with_precision(precision)?, ..self })
    }

    /// All checks.
    ///
    /// # Errors
    ///
    /// What the model refuses.
    pub fn check(&self) -> Deviations {
        let parts = [
            self.hidden_states_and_thoughts()?,
            self.target_log_probabilities()?,
            self.sft()?,
            self.grpo_from_one_pass()?,
            self.grpo_updates()?,
            self.catalog()?,
            self.catalog_objective()?,
        ];
        Ok(parts.concat())
    }

    /// The last hidden states of the prompts, and their first and second thoughts.
    ///
    /// # Errors
    ///
    /// What the model refuses.
    pub fn hidden_states_and_thoughts(&self) -> Deviations {
        let prompts = slices(&self.figures.prompts);
        let state = self.model.prefill(&prompts)?;
        let mut found = vec![deviation("last hidden states", values(state.last_hidden()), &self.figures.last_hidden)];
        for (thoughts, expected) in [(1, &self.figures.thought), (2, &self.figures.thought_2nd)] {
            let model = self.with_thoughts(thoughts)?;
            let mut state = model.prefill(&prompts)?;
            let thought = model.think(&mut state)?.map(values).unwrap_or_default();
            found.push(deviation(&format!("thought {thoughts}"), thought, expected));
        }
        Ok(found)
    }

    /// The targets' log-probabilities after none, one and two thoughts.
    ///
    /// # Errors
    ///
    /// What the model refuses.
    pub fn target_log_probabilities(&self) -> Deviations {
        let (prompts, targets) = (slices(&self.figures.prompts), slices(&self.figures.targets));
        let Figures { target_logps_no_thought, target_logps, target_logps_two_thoughts, .. } = &self.figures;
        let expected = [target_logps_no_thought, target_logps, target_logps_two_thoughts];
        let check = |(thoughts, expected): (usize, &Value)| {
            let model = self.with_thoughts(thoughts)?;
            let mut state = model.prefill(&prompts)?;
            let thought = model.think(&mut state)?;
            let log_probs = model.target_log_probs(&state, thought, &targets, &Objective::vocabulary())?;
            let what = format!("target log-probabilities, {thoughts} thoughts");
            Ok(deviation(&what, values(log_probs.values), expected))
        };
        expected.into_iter().enumerate().map(check).collect()
    }

    /// Loss and gradients of stage 1, in micro-batches of one, two and three rows.
    ///
    /// # Errors
    ///
    /// What the model refuses.
    pub fn sft(&self) -> Deviations {
        let (world, examples) = (World::alone(), self.examples());
        let model = self.with_thoughts(1)?.train();
        let mut found = Vec::new();
        for micro_batch in [1, 2, 3] {
            let local = world.local_batch(&examples.iter().collect::<Vec<_>>());
            let result = Sft::new(micro_batch, Objective::vocabulary()).update(&model, &local)?;
            found.push(loss_deviation("SFT loss", figure(&result, "loss"), self.figures.sft.loss));
            found.extend(gradient_deviations("SFT", &result.gradients, &self.figures.sft.grads, LIMIT));
        }
        Ok(found)
    }

    /// Log-probabilities, rewards, advantages, loss and gradients of stage 2 from one forward pass, for both advantages.
    ///
    /// # Errors
    ///
    /// What the model refuses.
    pub fn grpo_from_one_pass(&self) -> Deviations {
        let (world, examples, noise) = (World::alone(), self.examples(), self.noise());
        let local = world.local_batch(&examples.iter().collect::<Vec<_>>());
        let GrpoFigures { batch_advantage, group_advantage, .. } = &self.figures.grpo;
        let mut found = Vec::new();
        for (kind, expected) in [(AdvantageKind::Batch, batch_advantage), (AdvantageKind::Group, group_advantage)] {
            for micro_batch in [1, 64] {
                let stage = self.stage(kind, 0.0, micro_batch)?;
                let model = prepare_model(self.with_thoughts(1)?, stage.config());
                let rollouts = stage.roll_out(&model, &local, &noise)?;
                let flat =
                    |rows: &[Vec<f32>]| rows.iter().flatten().map(|&value| f64::from(value)).collect::<Vec<f64>>();
                let baseline = vec![baseline(&rollouts.rewards, stage.config().group)];
                found.extend([
                    difference("GRPO log-probabilities", flat(&rollouts.log_probs), &flat(&expected.logps)),
                    difference("GRPO rewards", rollouts.rewards, &expected.reward),
                    difference("GRPO baseline", baseline, &[expected.baseline]),
                    difference("GRPO advantages", rollouts.advantages, &expected.advantage),
                ]);
                // Given these, the gradients do not depend on how the rewards' differences were rounded.
                let advantages = expected.advantage.clone();
                let stage = stage.with_advantage(move |_, _| advantages.clone());
                let (_, update) = stage.roll_out_and_update(&model, &local, &noise)?;
                found.extend(update_deviations(&update, expected));
                found.push(Deviation {
                    what: "GRPO: weights of the backbone that train".into(),
                    error: update.gradients.names().filter(|name| !name.starts_with("attention.")).count() as f64,
                    limit: 0.0,
                });
            }
        }
        Ok(found)
    }

    /// Loss, KL divergence and gradients of updates on given rollouts: on and off policy, clipped, with a reference.
    ///
    /// # Errors
    ///
    /// What the model refuses.
    pub fn grpo_updates(&self) -> Deviations {
        let (world, examples) = (World::alone(), self.examples());
        let local = world.local_batch(&examples.iter().collect::<Vec<_>>());
        let GrpoFigures { batch_advantage, group_advantage, clipped_with_kl, .. } = &self.figures.grpo;
        let mut found = Vec::new();
        for (kind, expected) in [
            (AdvantageKind::Batch, batch_advantage),
            (AdvantageKind::Group, group_advantage),
            (AdvantageKind::Batch, clipped_with_kl),
        ] {
            let stage = self.stage(kind, expected.beta.unwrap_or(0.0), 1)?;
            let model = prepare_model(self.with_thoughts(1)?, stage.config());
            let rollouts = Rollouts {
                noise: self.noise(),
                densities: None,
                log_probs: expected.old_logps.as_ref().unwrap_or(&expected.logps).clone(),
                reference: expected.ref_logps.clone(),
                rewards: expected.reward.clone(),
                slopes: None,
                advantages: expected.advantage.clone(),
                pool: Default::default(),
            };
            found.extend(update_deviations(&stage.update(&model, &local, &rollouts)?, expected));
        }
        Ok(found)
    }

    /// The scores of all items of the golden catalog, and the ranking that the beam search finds.
    ///
    /// # Errors
    ///
    /// What the model refuses.
    pub fn catalog(&self) -> Deviations {
        let model = self.with_thoughts(1)?;
        let objective = self.objective(ObjectiveKind::Vocabulary)?;
        let scores = deviation("catalog scores", self.scores(&model, &objective)?, &self.figures.catalog_scores);
        Ok(vec![scores, self.rankings("rankings that differ", &model, &objective, &self.figures.ranking)?])
    }

    /// Log-probabilities, loss and gradients of stage 1, the scores of all items and their ranking, by the objective of the catalog; nothing in
    /// a folder that is older than it.
    ///
    /// # Errors
    ///
    /// What the model refuses.
    pub fn catalog_objective(&self) -> Deviations {
        let Some(expected) = &self.figures.catalog_objective else {
            return Ok(Vec::new());
        };
        let (prompts, targets) = (slices(&self.figures.prompts), slices(&self.figures.targets));
        let (model, objective) = (self.with_thoughts(1)?, self.objective(ObjectiveKind::Catalog)?);
        let mut state = model.prefill(&prompts)?;
        let thought = model.think(&mut state)?;
        let mut predicted = values(model.target_log_probs(&state, thought, &targets, &objective)?.values).into_iter();
        let mut all = Vec::new();
        for target in &targets {
            let mut row = vec![0.0; target.len()];
            for place in objective.predicted(target)? {
                row[place] = predicted.next().unwrap_or(f64::NAN);
            }
            all.extend(row);
        }
        let what = "target log-probabilities, catalog objective";
        let mut found = vec![deviation(what, all, &expected.target_logps)];
        let (world, examples, training) = (World::alone(), self.examples(), model.clone().train());
        for micro_batch in [1, 2, 3] {
            let local = world.local_batch(&examples.iter().collect::<Vec<_>>());
            let result = Sft::new(micro_batch, objective.clone()).update(&training, &local)?;
            found.push(loss_deviation("SFT loss, catalog objective", figure(&result, "loss"), expected.loss));
            found.extend(gradient_deviations("catalog objective", &result.gradients, &expected.grads, LIMIT));
        }
        let scores = self.scores(&model, &objective)?;
        // Items of one title share its probability.
        let sum = |scores: &[f64]| {
            let titles: BTreeMap<&[u32], f64> =
                slices(&self.figures.catalog).into_iter().zip(scores.iter().copied()).collect();
            titles.into_values().map(f64::exp).sum::<f64>()
        };
        let sums = scores.chunks(self.figures.catalog.len()).map(sum).collect();
        found.push(difference("scores, catalog objective", scores, &expected.scores.concat()));
        found.push(difference("sums of the catalog's probabilities", sums, &vec![1.0; prompts.len()]));
        found.push(self.rankings("rankings that differ, catalog objective", &model, &objective, &expected.ranking)?);
        Ok(found)
    }

    /// Scores of all items after each prompt, the sums of their predicted tokens' log-probabilities.
    fn scores(&self, model: &LatentRecommender, objective: &Objective) -> Result<Vec<f64>, ModelError> {
        let (prompts, items) = (slices(&self.figures.prompts), slices(&self.figures.catalog));
        // All items of all prompts as rows of one batch.
        let mut state = model.prefill(&prompts)?;
        let thought = model.think(&mut state)?.map(|thought| {
            let [rows, width] = thought.dims();
            thought.unsqueeze_dim::<3>(1).repeat_dim(1, items.len()).reshape([rows * items.len(), width])
        });
        let targets: Vec<&[u32]> = prompts.iter().flat_map(|_| items.clone()).collect();
        let log_probs = model.target_log_probs(&state, thought, &targets, objective)?;
        let mut rest = values(log_probs.values).into_iter();
        Ok(log_probs.lengths.into_iter().map(|length| rest.by_ref().take(length).sum::<f64>()).collect())
    }

    /// How many prompts' rankings by a search as wide as the catalog are not the expected ones.
    fn rankings(
        &self,
        what: &str,
        model: &LatentRecommender,
        objective: &Objective,
        expected: &[Vec<u32>],
    ) -> Result<Deviation, ModelError> {
        let config = BeamConfig { beams: self.figures.catalog.len(), length_penalty: None };
        let found = beam_search(model, objective, &slices(&self.figures.prompts), config)?;
        let list = |hypotheses: Vec<Hypothesis>| {
            hypotheses.into_iter().flat_map(|hypothesis| hypothesis.items).collect::<Vec<u32>>()
        };
        let wrong = found.into_iter().map(list).zip(expected).filter(|(found, expected)| found != *expected).count();
        Ok(Deviation { what: what.into(), error: wrong as f64, limit: 0.0 })
    }

    fn objective(&self, kind: ObjectiveKind) -> Result<Objective, TrieError> {
        Ok(Objective::new(kind, ItemTrie::new(&self.figures.catalog)?))
    }

    fn examples(&self) -> Vec<Example> {
        let rows = self.figures.prompts.iter().zip(&self.figures.targets).enumerate();
        rows.map(|(row, (prompt, target))| Example { prompt: prompt.clone(), target: target.clone(), item: 0, row })
            .collect()
    }

    fn noise(&self) -> Vec<f32> {
        self.figures.noise.iter().flat_map(numbers).map(|value| value as f32).collect()
    }

    fn with_thoughts(&self, thoughts: usize) -> Result<LatentRecommender, ModelError> {
        self.model.clone().with_thoughts(ThoughtKind::LatentAttention, thoughts, 0)
    }

    /// The stage with standard deviation 1, so that the golden noise is added as it is.
    fn stage(&self, advantage: AdvantageKind, kl: f64, micro_batch: usize) -> Result<Grpo, TrainError> {
        let group = self.figures.noise[0].as_array().map_or(0, Vec::len);
        let [clip_low, clip_high] = self.figures.grpo.clip;
        let config = GrpoConfig { group, sigma: 1.0, advantage, kl, clip_low, clip_high, ..Default::default() };
        Grpo::new(config, micro_batch, 0, &self.model, Objective::vocabulary())
    }
}

/// A figure of an update; nothing where it has no such figure.
fn figure(update: &LocalUpdate, name: &str) -> Vec<f64> {
    update.metrics.get(name).map(values).unwrap_or_default()
}

fn update_deviations(update: &LocalUpdate, expected: &UpdateFigures) -> Vec<Deviation> {
    let mut found = vec![loss_deviation("GRPO loss", figure(update, "loss"), expected.loss)];
    found.extend(expected.kl.map(|kl| loss_deviation("GRPO KL divergence", figure(update, "kl"), kl)));
    found.extend(gradient_deviations("GRPO", &update.gradients, &expected.grads, GRPO_GRADIENT_LIMIT));
    found
}

fn gradient_deviations(
    stage: &str,
    gradients: &Gradients,
    expected: &BTreeMap<String, GradientFigures>,
    limit: f64,
) -> Vec<Deviation> {
    let check = |(key, expected): (&String, &GradientFigures)| {
        let (name, rows) = key.split_once(" rows ").map_or((key.as_str(), None), |(name, rows)| (name, Some(rows)));
        let mut found = Vec::new();
        if let Some(gradient) = gradients.get(name) {
            let width = gradient.dims()[1];
            found = values(gradient);
            if let Some(rows) = rows {
                let rows: Vec<usize> = serde_json::from_str(rows).unwrap_or_default();
                found = rows.iter().flat_map(|row| found.iter().skip(row * width).take(width)).copied().collect();
            }
        }
        Deviation { limit, ..difference(&format!("{stage} gradient of {key}"), found, &expected.values) }
    };
    expected.iter().map(check).collect()
}

fn loss_deviation(what: &str, found: Vec<f64>, expected: f64) -> Deviation {
    let error = found.first().map_or(f64::NAN, |found| (found - expected).abs() / expected.abs().max(SMALLEST_LOSS));
    Deviation { what: what.into(), error, limit: LIMIT }
}

fn deviation(what: &str, found: Vec<f64>, expected: &Value) -> Deviation {
    difference(what, found, &numbers(expected))
}

fn difference(what: &str, found: Vec<f64>, expected: &[f64]) -> Deviation {
    let largest = expected.iter().fold(f64::MIN_POSITIVE, |most, value| most.max(value.abs()));
    let apart = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    // A maximum would leave out NaN.
    let is_whole = found.len() == expected.len() && !found.is_empty() && found.iter().all(|value| value.is_finite());
    let error = if is_whole { apart.fold(0.0, f64::max) / largest } else { f64::NAN };
    Deviation { what: what.into(), error, limit: LIMIT }
}

/// All numbers of nested lists.
fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(values) => values.iter().flat_map(numbers).collect(),
        value => vec![value.as_f64().unwrap_or(f64::NAN)],
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    host::read(tensor).into_iter().map(f64::from).collect()
}

fn slices(rows: &[Vec<u32>]) -> Vec<&[u32]> {
    rows.iter().map(Vec::as_slice).collect()
}
