//! The recommender: a backbone that thinks before it writes.

mod adapters;
mod gradient_checkpointing;
mod precision;
mod title_trees;

use std::path::Path;

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::backbone::{Backbone, BackboneConfig, Dropout, PromptState, padded_ids};
use crate::decode::TitleStart;
use crate::host::floats;
use crate::latent::{ThoughtKind, ThoughtSource};
use crate::objective::TargetPlan;
use crate::ops::{Sendable, Table, send_together, total};
use crate::parameters::Parameters;
use crate::{LogitSpread, ModelError, Objective, ObjectiveKind};
use title_trees::TitleTrees;

/// Most thoughts that a model may have.
pub(crate) const MOST_THOUGHTS: usize = 1024;

/// A language model with latent reasoning: `[prompt, thought_1 .. thought_N]`, then the target.
#[derive(Module, Debug)]
pub struct LatentRecommender {
    /// The language model.
    pub backbone: Backbone,
    /// What makes the thoughts.
    pub source: ThoughtSource,
    thoughts: usize,
    #[module(skip)]
    objective: ObjectiveKind,
}

/// The samples that are drawn of each prompt's last thought.
pub struct Samples<'a> {
    /// Samples of a thought.
    pub count: usize,
    /// Draws the samples of the thoughts, `[prompts, d_model]`: those of one thought together,
    /// `[prompts * count, d_model]`.
    pub draw: Box<dyn FnOnce(Tensor<2>) -> Tensor<2> + 'a>,
}

impl Samples<'_> {
    /// The thought itself.
    pub fn of_thought() -> Self {
        Self { count: 1, draw: Box::new(|thought| thought) }
    }
}

/// The log-probability of every predicted token of a batch.
#[derive(Debug, Clone)]
pub struct TargetLogProbs {
    /// `[tokens]`, the rows one after the other.
    pub values: Tensor<1>,
    /// Predicted tokens of each row; they add up to `tokens`.
    pub lengths: Vec<usize>,
    /// What label smoothing adds to the sum of the log-probabilities, `[1]`: for each choice its share times the mean
    /// log-probability of all tokens that compete there less that of the target's token. Absent without it.
    pub smoothing: Option<Tensor<1>>,
    /// How the logits lie, where the objective looks at it.
    pub spread: LogitSpread,
}

impl TargetLogProbs {
    /// The sum of all log-probabilities, `[1]`.
    pub fn total(&self) -> Tensor<1> {
        total(self.values.clone())
    }

    /// The log-probability of each row's whole target, `[rows]`.
    pub fn sums(&self) -> Tensor<1> {
        let (rows, tokens) = (self.lengths.len(), self.lengths.iter().sum::<usize>());
        // A sum over each row's part of the tokens, as a product that keeps the gradient.
        let mut belongs = vec![0.0f32; rows * tokens];
        let mut start = 0;
        for (row, length) in self.lengths.iter().enumerate() {
            belongs[row * tokens + start..][..*length].fill(1.0);
            start += length;
        }
        let belongs = floats(belongs, [rows, tokens], &self.values.device());
        belongs.matmul(self.values.clone().reshape([tokens, 1])).reshape([rows])
    }
}

impl LatentRecommender {
    /// A new model with random weights. Its checkpoints record that they began with such.
    ///
    /// # Errors
    ///
    /// Sizes that do not fit together, or more than 1024 thoughts.
    pub fn new(
        config: BackboneConfig,
        kind: ThoughtKind,
        thoughts: usize,
        seed: u64,
        device: &Device,
    ) -> Result<Self, ModelError> {
        Self::build(&mut Parameters::fresh(seed, device), config.marked_from_scratch(), kind, thoughts)
    }

    pub(crate) fn build(
        parameters: &mut Parameters,
        config: BackboneConfig,
        kind: ThoughtKind,
        thoughts: usize,
    ) -> Result<Self, ModelError> {
        config.check(Path::new("the model's configuration"))?;
        let kind = source_kind(kind, thoughts)?;
        let d_model = config.d_model;
        let backbone = Backbone::build(parameters, config)?;
        let source = ThoughtSource::build(parameters, kind, thoughts, d_model)?;
        Ok(Self { backbone, source, thoughts, objective: ObjectiveKind::default() })
    }

    /// Number of thoughts before the target; 0 is the plain language model.
    pub fn thoughts(&self) -> usize {
        self.thoughts
    }

    /// The objective that the model is trained for, as its checkpoint records it.
    pub fn objective(&self) -> ObjectiveKind {
        self.objective
    }

    /// The same model, recorded as trained for an objective.
    pub fn with_objective(self, objective: ObjectiveKind) -> Self {
        Self { objective, ..self }
    }

    /// The same model with what a step of training sets to zero. A copy for the step: what it trains are this model's
    /// parameters.
    #[must_use]
    pub fn with_dropout(&self, dropout: Dropout) -> Self {
        let mut model = self.clone();
        model.backbone.dropout = Some(dropout);
        model
    }

    /// The same model with the projections of its backbone as [`Backbone::with_joined_projections`] has them.
    #[must_use]
    pub fn with_joined_projections(&self) -> Self {
        Self { backbone: self.backbone.with_joined_projections(), ..self.clone() }
    }

    /// Whether the chain of checkpoints that the model comes from began with random weights.
    pub fn is_from_scratch(&self) -> bool {
        self.backbone.config().is_from_scratch()
    }

    /// The device of the weights, without autodiff.
    pub fn device(&self) -> Device {
        self.backbone.model.norm.weight.val().device().inner()
    }

    /// The same backbone with another number or kind of thoughts; a new source begins fresh from `seed`.
    ///
    /// # Errors
    ///
    /// More than 1024 thoughts.
    pub fn with_thoughts(self, kind: ThoughtKind, thoughts: usize, seed: u64) -> Result<Self, ModelError> {
        let kind = source_kind(kind, thoughts)?;
        let device = self.device();
        let keep = self.source.kind() == kind && (kind != ThoughtKind::Constants || self.thoughts == thoughts);
        let source = if keep {
            self.source
        } else {
            let d_model = self.backbone.config().d_model;
            ThoughtSource::build(&mut Parameters::fresh(seed, &device), kind, thoughts, d_model)?
        };
        Ok(Self { source, thoughts, ..self })
    }

    /// Runs a batch of prompts once; see [`Backbone::prefill`].
    ///
    /// # Errors
    ///
    /// As [`Backbone::prefill`].
    pub fn prefill(&self, prompts: &[&[u32]]) -> Result<PromptState, ModelError> {
        self.backbone.prefill(prompts)
    }

    /// Thinks: all thoughts but the last one join the state, the last one, `[prompts, d_model]`, is returned, for noise
    /// may still be added to it. `None` for a model without thoughts.
    ///
    /// # Errors
    ///
    /// More tokens than the model has positions.
    pub fn think(&self, state: &mut PromptState) -> Result<Option<Tensor<2>>, ModelError> {
        self.think_ahead(state)?;
        Ok(self.last_thought(state))
    }

    /// The first part of [`Self::think`]: all thoughts but the last one join the state.
    ///
    /// # Errors
    ///
    /// As [`think`](Self::think).
    pub fn think_ahead(&self, state: &mut PromptState) -> Result<(), ModelError> {
        for index in 0..self.thoughts.saturating_sub(1) {
            let thought = self.source.thought(index, state).unsqueeze_dim(1);
            let segment = self.backbone.extend(thought, &vec![1; state.rows()], state)?;
            state.push(segment);
        }
        Ok(())
    }

    /// The second part of [`Self::think`]: the last thought, `[prompts, d_model]`, after a state that all others have
    /// joined.
    pub fn last_thought(&self, state: &PromptState) -> Option<Tensor<2>> {
        Some(self.source.thought(self.thoughts.checked_sub(1)?, state))
    }

    /// Runs a batch of prompts and all their thoughts; what follows sees both.
    ///
    /// # Errors
    ///
    /// As [`prefill`](Self::prefill).
    pub fn reason(&self, prompts: &[&[u32]]) -> Result<PromptState, ModelError> {
        self.reason_and_run(self.prefill(prompts)?, &[], Samples::of_thought())
    }

    /// Runs all thoughts of prompts and then some tokens, the same after each of them, in one pass with the last
    /// thought.
    pub(crate) fn reason_and_run(
        &self,
        mut state: PromptState,
        tokens: &[u32],
        samples: Samples,
    ) -> Result<PromptState, ModelError> {
        let thought = self.think(&mut state)?.map(samples.draw).map(|thought| thought.unsqueeze_dim(1));
        let mut state = state.repeat(samples.count);
        let rows = state.rows();
        let tokens = (!tokens.is_empty()).then(|| self.backbone.embed_padded(&vec![tokens; rows]));
        let parts: Vec<Tensor<3>> = thought.into_iter().chain(tokens).collect();
        if !parts.is_empty() {
            let embeddings = Tensor::cat(parts, 1);
            let length = embeddings.dims()[1];
            let segment = self.backbone.extend(embeddings, &vec![length; rows], &state)?;
            state.push(segment);
        }
        Ok(state)
    }

    /// Log-probabilities of the targets' tokens given their prompts and thoughts: under [`ObjectiveKind::Catalog`] of
    /// those that are choices.
    ///
    /// `thought` is `[rows, d_model]` with one row per target; there are as many targets as prompts in `state` or a
    /// multiple of it, those of one prompt together. Without a thought the target follows the prompt at once.
    ///
    /// # Errors
    ///
    /// An empty target, a token outside the vocabulary, more tokens than the model has positions, or a target that is
    /// no title of the objective's catalog.
    ///
    /// # Panics
    ///
    /// If the number of targets is not a multiple of the number of prompts, or that of the thoughts another.
    pub fn target_log_probs(
        &self,
        state: &PromptState,
        thought: Option<Tensor<2>>,
        targets: &[&[u32]],
        objective: &Objective,
    ) -> Result<TargetLogProbs, ModelError> {
        self.backbone.check_tokens(targets)?;
        objective.check_vocabulary(&self.backbone)?;
        assert!(
            targets.len().is_multiple_of(state.rows()),
            "{} targets are not a multiple of {} prompts",
            targets.len(),
            state.rows()
        );
        assert!(
            thought.as_ref().is_none_or(|thought| thought.dims()[0] == targets.len()),
            "every target needs a thought"
        );
        let plan = objective.plan(targets)?;
        let Some(thought) = thought else {
            return self.predicted_as_trees(state, &plan, objective);
        };
        let inputs: Vec<&[u32]> = plan.inputs.iter().map(Vec::as_slice).collect();
        let lengths: Vec<usize> = inputs.iter().map(|input| input.len() + 1).collect();
        let tokens = lengths.iter().copied().max().unwrap_or(1);
        let place = |(row, positions): (usize, &Vec<usize>)| {
            positions.iter().map(|position| (row * tokens + position) as i32).collect::<Vec<_>>()
        };
        let places = Table::new(plan.positions.iter().enumerate().flat_map(place).collect());
        let ids = padded_ids(&inputs);
        send_together(&self.device(), || [&ids as &dyn Sendable, &places].into_iter().chain(plan.table()));
        let embedded = (tokens > 1).then(|| self.backbone.model.embed_tokens.look_up(&ids, inputs.len()));
        let parts = [Some(thought.unsqueeze_dim(1)), embedded].into_iter().flatten().collect();
        let hidden = self.backbone.extend(Tensor::cat(parts, 1), &lengths, state)?.hidden();
        Ok(self.predicted(hidden, &places, &plan, objective))
    }

    /// [`Self::target_log_probs`] of titles after prompts that have thought and begun them, as many for each prompt.
    ///
    /// # Errors
    ///
    /// As [`target_log_probs`](Self::target_log_probs).
    ///
    /// # Panics
    ///
    /// If the number of titles is not a multiple of the number of prompts.
    pub fn title_log_probs(
        &self,
        start: &TitleStart,
        titles: &[&[u32]],
        objective: &Objective,
    ) -> Result<TargetLogProbs, ModelError> {
        self.backbone.check_tokens(titles)?;
        objective.check_vocabulary(&self.backbone)?;
        assert!(
            titles.len().is_multiple_of(start.rows()),
            "{} titles are not a multiple of {} prompts",
            titles.len(),
            start.rows()
        );
        let plan = objective.plan(titles)?.after(start.tokens.len());
        self.predicted_as_trees(&start.state, &plan, objective)
    }

    /// What a plan predicts after prompts whose last position predicts the first token: of the titles after a prompt,
    /// what several begin with runs once.
    fn predicted_as_trees(
        &self,
        state: &PromptState,
        plan: &TargetPlan,
        objective: &Objective,
    ) -> Result<TargetLogProbs, ModelError> {
        let trees = TitleTrees::new(&plan.inputs, state.rows());
        let rows: Vec<&[u32]> = trees.tokens.iter().map(Vec::as_slice).collect();
        let length = 1 + rows.iter().map(|row| row.len()).max().unwrap_or(0);
        let share = plan.inputs.len() / state.rows();
        let place = |(title, positions): (usize, &Vec<usize>)| {
            let first = title / share * length;
            let after = |&position: &usize| first + position.checked_sub(1).map_or(0, |at| 1 + trees.places[title][at]);
            positions.iter().map(|position| after(position) as i32).collect::<Vec<_>>()
        };
        let places = Table::new(plan.positions.iter().enumerate().flat_map(place).collect());
        let (ids, last) = (padded_ids(&rows), state.last().last_places());
        send_together(&self.device(), || [&ids as &dyn Sendable, &last, &places].into_iter().chain(plan.table()));
        let mut hidden = state.last().hidden_at(&last).unsqueeze_dim::<3>(1);
        if length > 1 {
            let embedded = self.backbone.model.embed_tokens.look_up(&ids, rows.len());
            hidden = Tensor::cat(vec![hidden, self.backbone.extend_trees(embedded, &trees.depths, state)?], 1);
        }
        Ok(self.predicted(hidden, &places, plan, objective))
    }

    /// What a plan predicts from hidden states, `[rows, tokens, d_model]`, at the places of all of them that predict.
    fn predicted(
        &self,
        hidden: Tensor<3>,
        places: &Table<i32>,
        plan: &TargetPlan,
        objective: &Objective,
    ) -> TargetLogProbs {
        let [rows, tokens, d_model] = hidden.dims();
        let hidden = hidden.reshape([rows * tokens, d_model]).select(0, places.on(&self.device()));
        let lengths = plan.positions.iter().map(Vec::len).collect();
        let spread = match objective.tree() {
            Ok(tree) => plan.spread(&self.backbone, tree, &hidden),
            Err(_) => LogitSpread::default(),
        };
        let (values, smoothing) = plan.log_probs(&self.backbone, hidden);
        TargetLogProbs { values, lengths, smoothing, spread }
    }
}

/// The kind of source for so many thoughts: for none one without parameters.
fn source_kind(kind: ThoughtKind, thoughts: usize) -> Result<ThoughtKind, ModelError> {
    match thoughts {
        0 => Ok(ThoughtKind::LastHidden),
        1..=MOST_THOUGHTS => Ok(kind),
        _ => Err(ModelError::Input(format!("{thoughts} thoughts are too many; the maximum is {MOST_THOUGHTS}"))),
    }
}
