//! A pass over a batch: lists, what they earn, and the gradients of the loss on them.

use burn::module::Module;
use burn::tensor::Tensor;
use latentr3_models::backbone::{DetachedPrefix, PromptState};
use latentr3_models::decode::TitleStart;
use latentr3_models::{LatentRecommender, Samples, host};

use super::loss::Spans;
use super::search::ListSearch;
use super::stage::{ItemGroup, RankingGrpo};
use crate::batches::micro_batches;
use crate::forward::{prompts, shared_prefix};
use crate::grpo::advantage::{AdvantageKind, group_advantage, leave_one_out_advantage};
use crate::grpo::reward::Sample;
use crate::grpo::samples::{group_noise, repeat_rows};
use crate::local_update::LocalUpdate;
use crate::world::LocalBatch;
use crate::{Example, TrainError};

/// The noise on the samples of some thoughts.
enum Noise {
    /// Of standard deviation 1, `[prompts * samples, d_model]`; none where there is a single sample.
    Standard(Option<Tensor<2>>),
    /// As it is added, by the policy's thoughts.
    Scaled(Tensor<2>),
}

impl RankingGrpo {
    /// The lists, found now or known from an earlier pass, and a rank's part of the update on them.
    pub(super) fn pass(
        &self,
        model: &LatentRecommender,
        batch: &LocalBatch,
        step: usize,
        known: Option<&[ItemGroup]>,
    ) -> Result<(Vec<ItemGroup>, LocalUpdate), TrainError> {
        let (plain, samples) = (model.valid().with_joined_projections(), self.items.thoughts);
        let lists = batch.global.len() * samples;
        let mut update = LocalUpdate::default().with_metrics(self.metrics());
        let mut groups: Vec<Option<ItemGroup>> = vec![None; batch.rows.len() * samples];
        // What all prompts begin with runs once, unless the model runs it along; where the backbone trains, gradients go
        // through it in the end.
        let (mut prefix, mut detached) = (shared_prefix(model, &batch.rows)?, None);
        if self.config.train_backbone {
            detached = prefix.take().map(DetachedPrefix::new);
        }
        let reference = self.reference.as_ref().map(LatentRecommender::with_joined_projections);
        let reference_prefix =
            reference.as_ref().map(|reference| shared_prefix(reference, &batch.rows)).transpose()?.flatten();
        for places in micro_batches(&batch.rows, self.micro_batch) {
            let prompts = prompts(&places.iter().map(|&place| batch.rows[place]).collect::<Vec<_>>());
            let prefix = detached.as_ref().map(DetachedPrefix::prefix).or(prefix.as_ref());
            // A row and a group for each sample of a thought.
            let own: Vec<usize> = places.iter().flat_map(|place| place * samples..(place + 1) * samples).collect();
            let mut noise = match known {
                Some(known) if samples > 1 => {
                    let values: Vec<f32> = own.iter().flat_map(|&sample| &known[sample].noise).copied().collect();
                    let size = [own.len(), values.len() / own.len()];
                    Noise::Scaled(host::floats(values, size, &model.device()))
                }
                _ => Noise::Standard(self.standard_noise(step, batch, &places, model)),
            };
            let model_of_pass = model.with_joined_projections();
            let state = model_of_pass.backbone.prefill_after(prefix, &prompts)?;
            let start = self.think(&model_of_pass, state, &mut noise)?;
            let rows: Vec<&Example> = own.iter().map(|sample| batch.rows[sample / samples]).collect();
            let mut found: Vec<ItemGroup> = match known {
                Some(known) => own.iter().map(|&sample| known[sample].clone()).collect(),
                None => self.lists(&plain, &start.detach(), &rows)?,
            };
            let titles = self.titles(&found, &rows);
            let scored = model_of_pass.title_log_probs(&start, &titles, &self.objective)?;
            let of_reference = match &reference {
                None => None,
                Some(reference) => {
                    let state = reference.backbone.prefill_after(reference_prefix.as_ref(), &prompts)?;
                    let start = self.think(reference, state, &mut noise)?;
                    Some(reference.title_log_probs(&start, &titles, &self.objective)?.values)
                }
            };
            let spans = Spans::new(&found, &scored.lengths);
            let values = host::read(scored.values.clone().inner());
            if known.is_none() {
                if let Noise::Scaled(scaled) = noise {
                    let [_, width] = scaled.dims();
                    let values = host::read(scaled);
                    found.iter_mut().zip(values.chunks(width)).for_each(|(group, noise)| group.noise = noise.to_vec());
                }
                self.reward(&plain, &rows, &mut found, &spans, &values)?;
            }
            let loss = self.loss(&mut update, scored.values, of_reference, &found, &spans, lists);
            self.add_list_metrics(&mut update, &found, &spans, &values, lists);
            let mut tape = loss.backward();
            if let Some(detached) = &mut detached {
                detached.collect(&mut tape);
            }
            update.add_gradients(model, tape);
            own.into_iter().zip(found).for_each(|(sample, group)| groups[sample] = Some(group));
        }
        if let Some(tape) = detached.and_then(DetachedPrefix::backward) {
            update.add_gradients(model, tape);
        }
        Ok((groups.into_iter().map(|group| group.expect("every sample has its list")).collect(), update))
    }

    /// Standard noise for the samples of the prompts' thoughts.
    fn standard_noise(
        &self,
        step: usize,
        batch: &LocalBatch,
        places: &[usize],
        model: &LatentRecommender,
    ) -> Option<Tensor<2>> {
        let (samples, width) = (self.items.thoughts, model.backbone.config().d_model);
        if samples == 1 {
            return None;
        }
        let of_prompt =
            |&place: &usize| group_noise(self.seed, step as u64, batch.places[place] as u64, samples, width);
        let values: Vec<f32> = places.iter().flat_map(of_prompt).collect();
        Some(host::floats(values, [places.len() * samples, width], &model.device()))
    }

    /// Thinks in samples. Standard noise is scaled by the thoughts, and stays as it is then.
    fn think(
        &self,
        model: &LatentRecommender,
        state: PromptState,
        noise: &mut Noise,
    ) -> Result<TitleStart, TrainError> {
        let count = self.items.thoughts;
        let draw = |thought: Tensor<2>| {
            let scaled = match &*noise {
                Noise::Standard(None) => return thought,
                Noise::Scaled(scaled) => scaled.clone(),
                Noise::Standard(Some(standard)) => {
                    let [_, width] = thought.dims();
                    let norms = thought.clone().inner().square().sum_dim(1).sqrt().squeeze_dim(1);
                    standard.clone() * repeat_rows(self.config.deviations(norms, width).unsqueeze_dim(1), count)
                }
            };
            *noise = Noise::Scaled(scaled.clone());
            repeat_rows(thought, count) + scaled
        };
        let samples = Samples { count, draw: Box::new(draw) };
        Ok(TitleStart::think_in_samples(model, &self.objective, state, samples)?)
    }

    fn lists(
        &self,
        plain: &LatentRecommender,
        start: &TitleStart,
        rows: &[&Example],
    ) -> Result<Vec<ItemGroup>, TrainError> {
        let (config, items, objective) = (&self.items, self.config.group, &self.objective);
        let search = ListSearch { config, items, objective, guide: self.guide.as_ref() };
        let group = |list| ItemGroup { list, ..ItemGroup::default() };
        Ok(search.lists(plain, start, rows)?.into_iter().map(group).collect())
    }

    /// The titles that are scored of each list, as many of all: its own and then the target's, which fills up shorter
    /// lists.
    fn titles<'a>(&self, groups: &'a [ItemGroup], rows: &[&'a Example]) -> Vec<&'a [u32]> {
        let titles = |(group, row): (&'a ItemGroup, &&'a Example)| {
            let own = group.list.iter().map(|candidate| candidate.tokens.as_slice());
            own.chain(std::iter::repeat(row.target.as_slice())).take(self.config.group + 1)
        };
        groups.iter().zip(rows).flat_map(titles).collect()
    }

    /// Fills in what choices are worth, from the log-probabilities of all titles.
    fn reward(
        &self,
        model: &LatentRecommender,
        rows: &[&Example],
        groups: &mut [ItemGroup],
        spans: &Spans,
        values: &[f32],
    ) -> Result<(), TrainError> {
        for (at, (group, example)) in groups.iter_mut().zip(rows).enumerate() {
            for (candidate, span) in group.list.iter_mut().zip(&spans.items[at]) {
                candidate.log_probs = values[span.clone()].to_vec();
            }
            group.target = values[spans.targets[at].clone()].to_vec();
            let sample =
                |place| Sample { model, example, noise: &[], log_probs: &group.target, list: &group.list, place };
            let rewards = (0..group.list.len()).map(|place| self.reward.of(&sample(place)));
            let rewards = rewards.collect::<Result<Vec<_>, _>>()?;
            if let Some(reward) = &self.thought_reward {
                group.thought_reward = reward.of(&sample(0))?;
            }
            group.weights = self.config.advantage.weights(&group.list, &rewards);
            group.rewards = rewards;
        }
        if self.thought_reward.is_some() {
            let rewards: Vec<f64> = groups.iter().map(|group| group.thought_reward).collect();
            let advantages = match self.config.advantage {
                AdvantageKind::Group => group_advantage(&rewards, self.items.thoughts),
                _ => leave_one_out_advantage(&rewards, self.items.thoughts),
            };
            groups.iter_mut().zip(advantages).for_each(|(group, advantage)| group.thought_weight = advantage);
        }
        Ok(())
    }
}
