use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use latentr3_models::backbone::Cut;
use latentr3_models::{LatentRecommender, ThoughtKind};
use serde_json::{Map, Value, json};

use super::advantage::Advantage;
use super::config::GrpoConfig;
use super::loss::policy_loss;
use super::noise::group_noise;
use super::reward::{Reward, negative_perplexity};
use super::rollout::{Rollouts, Sensitivity, gather_noise, repeat_rows, repeated_targets};
use crate::batches::micro_batches;
use crate::gradients::Gradients;
use crate::likelihood::prompts;
use crate::optimizer::{Optimizer, scalar};
use crate::trainer::{Fault, Stage, StepReport};
use crate::{Example, TrainError};

/// The reinforcing stage.
pub struct Grpo {
    /// The knobs.
    pub config: GrpoConfig,
    /// Prompts that run through the model at once, each with its whole group.
    pub micro_batch: usize,
    /// Seed of the noise.
    pub seed: u64,
    /// Reward of a sample; [`negative_perplexity`] unless replaced.
    pub reward: Reward,
    /// Advantages of a batch; those of the configuration unless replaced.
    pub advantage: Advantage,
    /// The policy that the KL divergence is measured from, needed where its weight is not 0.
    pub reference: Option<LatentRecommender>,
}

/// What one update did.
#[derive(Debug)]
pub struct Update {
    /// The loss's gradients.
    pub gradients: Gradients,
    /// The loss, over the target tokens of the whole batch.
    pub loss: f64,
    /// The estimated KL divergence to the reference, where there is one.
    pub kl: Option<f64>,
    /// Mean probability ratio over the tokens.
    pub ratio: f64,
    /// Share of tokens whose ratio is outside the clip range.
    pub clipped: f64,
}

/// Freezes what stage 2 does not train.
pub fn prepare_model(model: LatentRecommender, config: &GrpoConfig) -> LatentRecommender {
    let mut model = model.train();
    if !config.train_backbone {
        model.backbone = model.backbone.no_grad();
    }
    model
}

impl Grpo {
    /// The stage with the method's reward and the configuration's advantage. `start` is the model as stage 2 finds it;
    /// it becomes the reference policy if the configuration asks for one.
    ///
    /// # Errors
    ///
    /// A configuration that makes no sense, or a model of which nothing would train.
    pub fn new(
        config: GrpoConfig,
        micro_batch: usize,
        seed: u64,
        start: &LatentRecommender,
    ) -> Result<Self, TrainError> {
        config.check()?;
        if start.thoughts() == 0 {
            return Err(TrainError::config("thoughts", "is 0; stage 2 needs a model that thinks"));
        }
        if !config.train_backbone && start.source.kind() == ThoughtKind::LastHidden {
            let problem = "is off, and the last hidden state as thought has no parameters: nothing would train";
            return Err(TrainError::config("train_backbone", problem));
        }
        let advantage = config.advantage.function();
        let reference = (config.kl > 0.0).then(|| start.valid());
        Ok(Self { config, micro_batch, seed, reward: Box::new(negative_perplexity), advantage, reference })
    }

    /// Samples and rewards the batch, and gives the policy's gradients from the same forward pass.
    ///
    /// This holds while the ratio is 1, which is at the first update on a rollout, for a frozen backbone, one thought and
    /// no reference: the loss is then `-A_k log p_k / tokens` up to a constant, and its gradient by the thought a weighted
    /// sum of each sample's own.
    ///
    /// # Errors
    ///
    /// What the model refuses, or a model without thoughts.
    pub fn roll_out_and_update(
        &self,
        model: &LatentRecommender,
        batch: &[&Example],
        noise: &[f32],
    ) -> Result<(Rollouts, Update), TrainError> {
        let (rollouts, sensitivities) = self.sample(model, batch, noise, true)?;
        let group = self.config.group;
        let total = rollouts.tokens() as f64;
        let mut gradients = Gradients::default();
        for Sensitivity { places, thought, by_sample } in sensitivities {
            let weight = |place: &usize| {
                rollouts.advantages[place * group..(place + 1) * group].iter().map(|a| (-a / total) as f32)
            };
            let weights: Vec<f32> = places.iter().flat_map(weight).collect();
            let [prompts, width] = thought.dims();
            let weights = Tensor::<2>::from_data(TensorData::new(weights, [prompts * group, 1]), &by_sample.device());
            let by_thought =
                (by_sample * weights).reshape([prompts, group, width]).sum_dim(1).reshape([prompts, width]);
            // A function whose gradient by the thought is the weighted sum.
            gradients.add(Gradients::collect(model, (thought * by_thought).sum().backward()));
        }
        let weighted = rollouts.advantages.iter().zip(&rollouts.log_probs).map(|(a, row)| -a * row.len() as f64);
        let loss = weighted.sum::<f64>() / total;
        Ok((rollouts, Update { gradients, loss, kl: None, ratio: 1.0, clipped: 0.0 }))
    }

    /// Loss and gradients of one update on given rollouts, in a forward pass of its own.
    ///
    /// # Errors
    ///
    /// What the model refuses, or a model without thoughts.
    pub fn update(
        &self,
        model: &LatentRecommender,
        batch: &[&Example],
        rollouts: &Rollouts,
    ) -> Result<Update, TrainError> {
        let group = self.config.group;
        let width = rollouts.noise.len() / rollouts.log_probs.len();
        let total = rollouts.tokens();
        let device = model.device();
        let mut update = Update { gradients: Gradients::default(), loss: 0.0, kl: None, ratio: 0.0, clipped: 0.0 };
        // As in the rollout; where the backbone trains, gradients go through it when all micro-batches are done.
        let (mut head, mut cut) = (model.backbone.common_head(&prompts(batch))?, None);
        if self.config.train_backbone {
            cut = head.take().map(Cut::new);
        }
        for places in micro_batches(batch, self.micro_batch) {
            let rows: Vec<&Example> = places.iter().map(|&place| batch[place]).collect();
            let head = cut.as_ref().map(Cut::head).or(head.as_ref());
            let mut state = model.backbone.prefill_after(head, &prompts(&rows))?;
            let thought = model
                .think(&mut state)
                .ok_or_else(|| TrainError::config("thoughts", "stage 2 needs a model that thinks"))?;
            let samples =
                repeat_rows(thought, group) + gather_noise(&rollouts.noise, &places, group * width, width, &device);
            let log_probs = model.target_log_probs(&state, Some(samples), &repeated_targets(&rows, group))?.values;

            let own: Vec<usize> = places.iter().flat_map(|place| place * group..(place + 1) * group).collect();
            let flat = |rows: &[Vec<f32>]| own.iter().flat_map(|&rollout| rows[rollout].clone()).collect::<Vec<f32>>();
            let tensor = |values: &[f32]| Tensor::<1>::from_data(values, &device);
            let old = flat(&rollouts.log_probs);
            let advantages: Vec<f32> = own
                .iter()
                .flat_map(|&rollout| {
                    std::iter::repeat_n(rollouts.advantages[rollout] as f32, rollouts.log_probs[rollout].len())
                })
                .collect();
            let reference = rollouts.reference.as_ref().map(|reference| tensor(&flat(reference)));
            let loss =
                policy_loss(log_probs.clone(), tensor(&old), tensor(&advantages), reference, total, &self.config);
            let mut tape = loss.loss.backward();
            if let Some(cut) = &mut cut {
                cut.collect(&mut tape);
            }
            update.gradients.add(Gradients::collect(model, tape));
            update.loss += scalar(loss.loss.inner());
            if let Some(kl) = loss.kl {
                *update.kl.get_or_insert(0.0) += scalar(kl.inner());
            }
            let new = log_probs.inner().into_data_as::<f32>();
            for (new, old) in new.iter::<f32>().zip(old) {
                let ratio = f64::from(new - old).exp();
                update.ratio += ratio / total as f64;
                let is_clipped = ratio < 1.0 - self.config.clip_low || ratio > 1.0 + self.config.clip_high;
                update.clipped += f64::from(u8::from(is_clipped)) / total as f64;
            }
        }
        if let Some(tape) = cut.and_then(Cut::backward) {
            update.gradients.add(Gradients::collect(model, tape));
        }
        Ok(update)
    }

    /// Standard noise for the batch of a step, `[rollouts, d_model]`.
    fn noise(&self, step: usize, prompts: usize, width: usize) -> Vec<f32> {
        (0..prompts as u64)
            .flat_map(|prompt| group_noise(self.seed, step as u64, prompt, self.config.group, width))
            .collect()
    }

    fn rolls_out_and_updates_at_once(&self, model: &LatentRecommender) -> bool {
        self.config.updates == 1 && self.reference.is_none() && !self.config.train_backbone && model.thoughts() == 1
    }
}

impl Stage for Grpo {
    fn step(
        &self,
        mut model: LatentRecommender,
        optimizer: &mut Optimizer,
        batch: &[&Example],
    ) -> Result<(LatentRecommender, StepReport), TrainError> {
        let noise = self.noise(optimizer.step, batch.len(), model.backbone.config().d_model);
        let wrong =
            |rollouts: &Rollouts| rollouts.rewards.iter().find_map(|&reward| Fault::of("reward of a sample", reward));
        let (rollouts, mut metrics, fault) = if self.rolls_out_and_updates_at_once(&model) {
            let (rollouts, update) = self.roll_out_and_update(&model, batch, &noise)?;
            let (metrics, fault);
            (model, metrics, fault) = apply(model, optimizer, update, wrong(&rollouts));
            (rollouts, metrics, fault)
        } else {
            let rollouts = self.roll_out(&model.valid(), batch, &noise)?;
            let (mut metrics, mut fault) = (Map::new(), wrong(&rollouts));
            // The log has the last update's figures.
            for _ in 0..self.config.updates {
                if fault.is_none() {
                    let update = self.update(&model, batch, &rollouts)?;
                    (model, metrics, fault) = apply(model, optimizer, update, None);
                }
            }
            (rollouts, metrics, fault)
        };
        metrics.extend(describe(&rollouts, self.config.group));
        let reward = mean(rollouts.rewards.iter().copied());
        Ok((model, StepReport { headline: reward, metrics, fault }))
    }
}

/// Moves the model, unless there is a fault already.
fn apply(
    model: LatentRecommender,
    optimizer: &mut Optimizer,
    update: Update,
    fault: Option<Fault>,
) -> (LatentRecommender, Map<String, Value>, Option<Fault>) {
    let (mut model, mut norm, mut fault) = (model, None, fault.or(Fault::of("loss", update.loss)));
    if fault.is_none() {
        let (moved, its_norm) = optimizer.apply(model, update.gradients);
        (model, norm, fault) = (moved, Some(its_norm), Fault::of("norm of the gradients", its_norm));
    }
    let figures = [
        ("loss", json!(update.loss)),
        ("kl", json!(update.kl)),
        ("ratio", json!(update.ratio)),
        ("clip_share", json!(update.clipped)),
        ("gradient_norm", json!(norm)),
    ];
    (model, figures.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(), fault)
}

/// The figures by which one sees whether stage 2 does any good.
fn describe(rollouts: &Rollouts, group: usize) -> Map<String, Value> {
    let sample = |is_first: bool| {
        let keep = move |(i, reward): (usize, &f64)| (i.is_multiple_of(group) == is_first).then_some(*reward);
        mean(rollouts.rewards.iter().enumerate().filter_map(keep))
    };
    let square_sum: f64 = rollouts.advantages.iter().map(|a| a * a).sum();
    let largest = rollouts.advantages.iter().map(|a| a * a).fold(0.0, f64::max);
    let average = mean(rollouts.advantages.iter().copied());
    let spread = mean(rollouts.advantages.iter().map(|a| (a - average).powi(2))).sqrt();
    let width = rollouts.noise.len() / rollouts.rewards.len();
    let norm = |noise: &[f32]| noise.iter().map(|&e| f64::from(e).powi(2)).sum::<f64>().sqrt();
    let noisy = rollouts
        .noise
        .chunks(width)
        .enumerate()
        .filter(|(i, _)| !i.is_multiple_of(group))
        .map(|(_, noise)| norm(noise));
    let figures = [
        ("reward_noise_free", sample(true)),
        ("reward_noisy", sample(false)),
        ("advantage_spread", spread),
        ("advantage_largest_share", if square_sum > 0.0 { largest / square_sum } else { 0.0 }),
        ("thought_norm", mean(rollouts.thought_norms.iter().copied())),
        ("noise_norm", mean(noisy)),
    ];
    figures.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), value| (sum + value, count + 1));
    sum / count as f64
}
