//! Scores and rankings of the golden catalog, and the objective of the catalog.

use std::collections::BTreeMap;

use burn::module::Module;

use super::deviation::{Deviation, LIMIT, deviation, difference, figure, gradient_deviations, loss_deviation, values};
use super::{Deviations, Golden, slices};
use crate::models::decode::{BeamConfig, Hypothesis, ItemTrie, TrieError, beam_search};
use crate::models::{LatentRecommender, ModelError, Objective, ObjectiveKind};
use crate::train::World;
use crate::train::sft::Sft;

impl Golden {
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

    /// Log-probabilities, loss and gradients of stage 1, the scores of all items and their ranking, by the objective of
    /// the catalog; nothing in a folder that is older than it.
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
}
