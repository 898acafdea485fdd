use burn::module::Module;
use burn::tensor::{Tensor, TensorData};
use latentr3_models::backbone::Cut;
use latentr3_models::{LatentRecommender, ThoughtKind};
use serde_json::{Map, Value, json};

use super::advantage::Advantage;
use super::config::{Estimator, GrpoConfig};
use super::loss::policy_loss;
use super::noise::group_noise;
use super::reward::{Reward, negative_perplexity};
use super::rollout::{Pool, Rollouts, Thoughts, gather_noise, no_thoughts, repeat_rows, repeated_targets};
use crate::batches::micro_batches;
use crate::gradients::Gradients;
use crate::guard::{Guards, Watched};
use crate::likelihood::{common_head, prompts};
use crate::optimizer::Optimizer;
use crate::trainer::{Fault, Stage, StepReport};
use crate::workers::Share;
use crate::{Example, TrainError};

/// The reinforcing stage.
pub struct Grpo {
    /// The knobs.
    pub config: GrpoConfig,
    /// Prompts that run through the model at once, each with its whole group.
    pub micro_batch: usize,
    /// Seed of the noise.
    pub seed: u64,
    /// Reward of a sample; [`negative_perplexity`] unless replaced, which [`Estimator::Pathwise`] needs.
    pub reward: Reward,
    /// Advantages of a batch; those of the configuration unless replaced.
    pub advantage: Advantage,
    /// The policy that the KL divergence is measured from, where [`GrpoConfig::needs_reference`]. While the backbone is frozen its
    /// prompts are taken from the policy's.
    pub reference: Option<LatentRecommender>,
}

/// A share's part of one update.
#[derive(Debug)]
pub struct Update {
    /// The loss's gradients.
    pub gradients: Gradients,
    /// Figures by their names, each `[1]`, which add up over the shares of a batch: `loss`, the mean probability `ratio` over
    /// the target tokens, `clip_share`, the share of tokens whose ratio is outside the clip range, and, where there is a
    /// reference, the estimated `kl` divergence to it. [`Estimator::Score`] counts noisy samples instead of tokens, and adds
    /// `thought_kl`, the divergence of the thoughts, where it has a weight.
    pub figures: Vec<(&'static str, Tensor<1>)>,
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
        if config.estimator == Estimator::Pathwise && start.thoughts() != 1 {
            let problem = format!("is pathwise, which is for one thought; the model has {}", start.thoughts());
            return Err(TrainError::config("estimator", problem));
        }
        let advantage = config.advantage.function();
        let reference = config.needs_reference().then(|| start.valid());
        Ok(Self { config, micro_batch, seed, reward: Box::new(negative_perplexity), advantage, reference })
    }

    /// Samples and rewards a share of a batch, and gives its part of the policy's gradients from the same forward pass.
    ///
    /// With [`Estimator::Likelihood`] this holds while the ratio is 1, which is at the first update on a rollout, for a
    /// frozen backbone, one thought and no KL divergence in the loss: it is then `-A_k log p_k / tokens` up to a constant, and
    /// its gradient by the thought a weighted sum of each sample's own.
    ///
    /// # Errors
    ///
    /// What the model refuses, or a model without thoughts.
    pub fn roll_out_and_update(
        &self,
        model: &LatentRecommender,
        share: &Share,
        noise: &[f32],
    ) -> Result<(Rollouts, Update), TrainError> {
        let (rollouts, thoughts) = self.sample(model, share, noise, true)?;
        let update = match self.config.estimator {
            Estimator::Likelihood | Estimator::Pathwise => self.likelihood_update(model, share, &rollouts, thoughts),
            Estimator::Score => self.score_update(model, share, &rollouts, thoughts)?,
        };
        Ok((rollouts, update))
    }

    fn likelihood_update(
        &self,
        model: &LatentRecommender,
        share: &Share,
        rollouts: &Rollouts,
        thoughts: Vec<Thoughts>,
    ) -> Update {
        let (group, weights) = (self.config.group, self.weights(share, rollouts));
        let mut gradients = Gradients::default();
        for Thoughts { places, thought, by_sample } in thoughts {
            let by_sample = by_sample.expect("this estimator's rollouts have it");
            let own = |place: &usize| weights[place * group..(place + 1) * group].iter().map(|&weight| weight as f32);
            let own: Vec<f32> = places.iter().flat_map(own).collect();
            let [prompts, width] = thought.dims();
            let own = Tensor::<2>::from_data(TensorData::new(own, [prompts * group, 1]), &by_sample.device());
            let by_thought = (by_sample * own).reshape([prompts, group, width]).sum_dim(1).reshape([prompts, width]);
            // A function whose gradient by the thought is the weighted sum.
            gradients.add(Gradients::collect(model, (thought * by_thought).sum().backward()));
        }
        let total = self.tokens(share) as f64;
        let loss: f64 = match self.config.estimator {
            Estimator::Pathwise => -rollouts.rewards.iter().sum::<f64>() / (share.batch * group) as f64,
            _ => weights.iter().zip(&rollouts.log_probs).map(|(weight, row)| weight * row.len() as f64).sum(),
        };
        let tokens = rollouts.log_probs.iter().map(Vec::len).sum::<usize>() as f64;
        let mut figures = vec![
            ("loss", figure(model, loss)),
            ("ratio", figure(model, tokens / total)),
            ("clip_share", figure(model, 0.0)),
        ];
        figures.extend(self.kl_figure(model, share, rollouts));
        Update { gradients, figures }
    }

    /// The derivative of the loss by each rollout's summed log-probabilities: `-A_k / tokens`, or with [`Estimator::Pathwise`] that
    /// of minus the mean reward, `s_k / (|y| rollouts)`, which is 0 where the reward is bounded.
    fn weights(&self, share: &Share, rollouts: &Rollouts) -> Vec<f64> {
        if self.config.estimator == Estimator::Pathwise {
            let all = (share.batch * self.config.group) as f64;
            let weight = |(&reward, row): (&f64, &Vec<f32>)| match reward > -self.config.max_perplexity {
                true => reward / (row.len() as f64 * all),
                false => 0.0,
            };
            return rollouts.rewards.iter().zip(&rollouts.log_probs).map(weight).collect();
        }
        let total = self.tokens(share) as f64;
        rollouts.advantages.iter().map(|advantage| -advantage / total).collect()
    }

    /// A share's part of the KL divergence to the reference at the rollouts, where there is one.
    pub(super) fn kl_figure(
        &self,
        model: &LatentRecommender,
        share: &Share,
        rollouts: &Rollouts,
    ) -> Option<(&'static str, Tensor<1>)> {
        Some(("kl", figure(model, rollouts.kl()? / self.tokens(share) as f64)))
    }

    /// A share's part of loss and gradients of one update on given rollouts, in a forward pass of its own; with
    /// [`Estimator::Score`] one of the prompts only.
    ///
    /// # Errors
    ///
    /// What the model refuses, or a model without thoughts.
    pub fn update(&self, model: &LatentRecommender, share: &Share, rollouts: &Rollouts) -> Result<Update, TrainError> {
        if self.config.estimator == Estimator::Score {
            return self.score_update(model, share, rollouts, self.think_again(model, share)?);
        }
        let (group, total, device) = (self.config.group, self.tokens(share), model.device());
        let mut gradients = Gradients::default();
        let mut sums: Vec<Tensor<1>> = Vec::new();
        // As in the rollout; where the backbone trains, gradients go through it when all micro-batches are done.
        let (mut head, mut cut) = (common_head(model, &share.rows)?, None);
        if self.config.train_backbone {
            cut = head.take().map(Cut::new);
        }
        for places in micro_batches(&share.rows, self.micro_batch) {
            let rows: Vec<&Example> = places.iter().map(|&place| share.rows[place]).collect();
            let head = cut.as_ref().map(Cut::head).or(head.as_ref());
            let mut state = model.backbone.prefill_after(head, &prompts(&rows))?;
            let thought = model.think(&mut state).ok_or_else(no_thoughts)?;
            let [_, width] = thought.dims();
            let noise = gather_noise(&rollouts.noise, &places, group * width, width, &device);
            let samples = repeat_rows(thought, group) + noise;
            let log_probs = model.target_log_probs(&state, Some(samples), &repeated_targets(&rows, group))?.values;

            let own: Vec<usize> = places.iter().flat_map(|place| place * group..(place + 1) * group).collect();
            let flat = |rows: &[Vec<f32>]| own.iter().flat_map(|&rollout| rows[rollout].clone()).collect::<Vec<f32>>();
            let tensor = |values: &[f32]| Tensor::<1>::from_data(values, &device);
            let advantages: Vec<f32> = own
                .iter()
                .flat_map(|&rollout| {
                    std::iter::repeat_n(rollouts.advantages[rollout] as f32, rollouts.log_probs[rollout].len())
                })
                .collect();
            let old = tensor(&flat(&rollouts.log_probs));
            let reference = rollouts.reference.as_ref().map(|reference| tensor(&flat(reference)));
            let loss = policy_loss(log_probs, old, tensor(&advantages), reference, total, &self.config);
            let mut tape = loss.loss.backward();
            if let Some(cut) = &mut cut {
                cut.collect(&mut tape);
            }
            gradients.add(Gradients::collect(model, tape));
            let kl = loss.kl.map(Tensor::inner);
            add_figures(&mut sums, [Some(loss.loss.inner()), Some(loss.ratio), Some(loss.clipped), kl]);
        }
        if let Some(tape) = cut.and_then(Cut::backward) {
            gradients.add(Gradients::collect(model, tape));
        }
        let names = ["loss", "ratio", "clip_share", "kl"].into_iter().take(3 + usize::from(self.reference.is_some()));
        sums.resize_with(names.len(), || Tensor::zeros([1], &device));
        Ok(Update { gradients, figures: names.zip(sums).collect() })
    }

    /// Standard noise for a share of a step's batch, `[rollouts, d_model]`.
    fn noise(&self, step: usize, share: &Share, width: usize) -> Vec<f32> {
        let of_prompt = |&place: &usize| group_noise(self.seed, step as u64, place as u64, self.config.group, width);
        share.places.iter().flat_map(of_prompt).collect()
    }

    /// Target tokens of all rollouts of a batch.
    fn tokens(&self, share: &Share) -> usize {
        share.target_tokens * self.config.group
    }

    fn rolls_out_and_updates_at_once(&self, model: &LatentRecommender) -> bool {
        let GrpoConfig { estimator, updates, kl, train_backbone, .. } = self.config;
        updates == 1 && (estimator == Estimator::Score || (kl == 0.0 && !train_backbone && model.thoughts() == 1))
    }
}

/// A figure on the device, as large as a float32 can be at most.
fn figure(model: &LatentRecommender, value: f64) -> Tensor<1> {
    Tensor::from_data([value.min(f64::from(f32::MAX)) as f32], &model.device())
}

/// Adds the figures of a further micro-batch.
pub(super) fn add_figures(sums: &mut Vec<Tensor<1>>, figures: [Option<Tensor<1>>; 4]) {
    let figures = figures.into_iter().flatten();
    *sums = match sums.is_empty() {
        true => figures.collect(),
        false => sums.drain(..).zip(figures).map(|(sum, figure)| sum + figure).collect(),
    };
}

impl Stage for Grpo {
    fn step(
        &self,
        mut model: LatentRecommender,
        optimizer: &mut Optimizer,
        share: &Share,
    ) -> Result<(LatentRecommender, StepReport), TrainError> {
        let noise = self.noise(optimizer.step, share, model.backbone.config().d_model);
        let at_once = self.rolls_out_and_updates_at_once(&model);
        let (rollouts, mut first) = match at_once {
            true => {
                self.roll_out_and_update(&model, share, &noise).map(|(rollouts, update)| (rollouts, Some(update)))?
            }
            false => (self.roll_out(&model.valid(), share, &noise)?, None),
        };
        let rewards = &rollouts.pool.rewards;
        let mut fault = rewards.iter().find_map(|&reward| Fault::of("reward of a sample", reward));
        let mut metrics = Map::new();
        // The log has the last update's figures.
        for _ in 0..self.config.updates {
            if fault.is_none() {
                let Update { gradients, figures } = match first.take() {
                    Some(update) => update,
                    None => self.update(&model, share, &rollouts)?,
                };
                let names: Vec<&str> = figures.iter().map(|(name, _)| *name).collect();
                let (moved, applied) = optimizer.apply(model, gradients, figures, share.workers);
                (model, fault) = (moved, applied.fault);
                metrics =
                    names.into_iter().map(str::to_owned).zip(applied.figures.into_iter().map(Value::from)).collect();
                metrics.entry("kl").or_insert(Value::Null);
                metrics.insert("gradient_norm".into(), json!(applied.norm));
            }
        }
        metrics.extend(describe(&rollouts.pool, self.config.group));
        let reward = mean(rollouts.pool.rewards.iter().copied());
        let kl = metrics.get("kl").and_then(Value::as_f64);
        let watched = Watched { loss: mean(rollouts.pool.losses.iter().copied()), kl };
        Ok((model, StepReport { headline: reward, metrics, fault, watched: Some(watched) }))
    }

    fn guards(&self) -> Option<Guards> {
        Some(self.config.guards())
    }
}

/// The figures by which one sees whether stage 2 does any good.
fn describe(pool: &Pool, group: usize) -> Map<String, Value> {
    let samples = |values: &[f64], is_first: bool| {
        let keep = move |(i, value): (usize, &f64)| (i.is_multiple_of(group) == is_first).then_some(*value);
        mean(values.iter().enumerate().filter_map(keep))
    };
    let square_sum: f64 = pool.advantages.iter().map(|a| a * a).sum();
    let largest = pool.advantages.iter().map(|a| a * a).fold(0.0, f64::max);
    let average = mean(pool.advantages.iter().copied());
    let spread = mean(pool.advantages.iter().map(|a| (a - average).powi(2))).sqrt();
    let figures = [
        ("reward_noise_free", samples(&pool.rewards, true)),
        ("reward_noisy", samples(&pool.rewards, false)),
        ("loss_noise_free", mean(pool.losses.iter().copied())),
        ("advantage_spread", spread),
        ("advantage_largest_share", if square_sum > 0.0 { largest / square_sum } else { 0.0 }),
        ("thought_norm", mean(pool.thought_norms.iter().copied())),
        ("noise_norm", samples(&pool.noise_norms, false)),
    ];
    figures.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect()
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0usize), |(sum, count), value| (sum + value, count + 1));
    sum / count as f64
}
