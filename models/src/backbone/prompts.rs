//! Prompts: what they have in common runs once, ahead of them or along with them.

use std::ops::Range;

use super::{Backbone, PromptState, Segment, SharedPrefix, padded_ids, positions};
use crate::ModelError;
use crate::ops::{KeyLengths, Packing, RowGather, Sendable, gather_rows, send_together};

/// On a GPU the padded length of the prompts' hidden states is a multiple of this, so that products with them meet few
/// sizes.
const TOKENS_AT_ONCE: usize = 32;

/// A prefix runs along with rests that are at most so many times shorter.
const MOST_PADDING: usize = 16;

impl Backbone {
    /// Runs a batch of prompts once.
    ///
    /// The longest beginning that all prompts have in common runs once. The prompts may be of any lengths; padding
    /// changes nothing.
    ///
    /// # Errors
    ///
    /// No prompt, an empty prompt, one with more tokens than the model has positions, or a token outside the
    /// vocabulary.
    pub fn prefill(&self, prompts: &[&[u32]]) -> Result<PromptState, ModelError> {
        self.prefill_after(self.prefix_ahead(prompts)?.as_ref(), prompts)
    }

    /// The [`shared_prefix`](Self::shared_prefix) of prompts if it runs ahead of them, and not along with them in
    /// [`prefill_after`](Self::prefill_after).
    ///
    /// # Errors
    ///
    /// See [`prefill`](Self::prefill).
    pub fn prefix_ahead(&self, prompts: &[&[u32]]) -> Result<Option<SharedPrefix>, ModelError> {
        if self.runs_prefix_along() { Ok(None) } else { self.shared_prefix(prompts) }
    }

    /// Whether what prompts have in common runs in the same pass as their rests: on a GPU, where a pass costs more than
    /// the tokens of one row. Dropout needs the prefix of a whole batch, however that is split.
    fn runs_prefix_along(&self) -> bool {
        self.dropout.is_none() && self.is_on_gpu()
    }

    /// Runs the longest beginning that all prompts have in common, as a single row; each keeps a token of its own, and
    /// a single prompt has nothing in common with others.
    ///
    /// # Errors
    ///
    /// See [`Self::prefill`].
    pub fn shared_prefix(&self, prompts: &[&[u32]]) -> Result<Option<SharedPrefix>, ModelError> {
        self.check_tokens(prompts)?;
        let tokens = &prompts[0][..common_prefix(prompts)];
        if tokens.is_empty() {
            return Ok(None);
        }
        let segment = self.run(self.embed_padded(&[tokens]), &[tokens.len()], &[0], &[])?;
        Ok(Some(SharedPrefix { tokens: tokens.to_vec(), segment }))
    }

    /// [`Self::prefill`] of prompts that all begin with `prefix`, which a larger batch may share; `None` where nothing
    /// has run yet.
    ///
    /// # Errors
    ///
    /// See [`Self::prefill`]; also a prompt that does not begin with `prefix` or has no token after it.
    pub fn prefill_after(&self, prefix: Option<&SharedPrefix>, prompts: &[&[u32]]) -> Result<PromptState, ModelError> {
        self.check_tokens(prompts)?;
        let mut state = PromptState::empty(prompts.len());
        let mut done = 0;
        if prefix.is_none() && self.runs_prefix_along() {
            let along = common_prefix(prompts);
            let rest = prompts.iter().map(|prompt| prompt.len() - along).max().unwrap_or(0);
            if along > MOST_PADDING * rest {
                // As a row it would have all others padded to it.
                return self.prefill_after(self.shared_prefix(prompts)?.as_ref(), prompts);
            }
            if along > 0 {
                self.prefill_along(along, prompts)?.into_iter().for_each(|segment| state.push(segment));
                return Ok(state);
            }
        }
        if let Some(SharedPrefix { tokens, segment }) = prefix {
            done = tokens.len();
            if prompts.iter().any(|prompt| prompt.len() <= done || !prompt.starts_with(tokens)) {
                return Err(ModelError::Input(format!("a prompt does not extend the shared prefix of {done} tokens")));
            }
            state.push(segment.clone());
        }
        let rests: Vec<&[u32]> = prompts.iter().map(|prompt| &prompt[done..]).collect();
        let lengths: Vec<usize> = rests.iter().map(|rest| rest.len()).collect();
        let segment = self.extend(self.embed_padded(&rests), &lengths, &state)?;
        state.push(segment);
        Ok(state)
    }

    /// Runs prompts that have the first `prefix` tokens in common, these as a first row before the rests of all.
    ///
    /// Of the two segments, prefix and rests, the second has the keys and values of both.
    fn prefill_along(&self, prefix: usize, prompts: &[&[u32]]) -> Result<[Segment; 2], ModelError> {
        let rests = prompts.iter().map(|prompt| &prompt[prefix..]);
        let rows: Vec<&[u32]> = std::iter::once(&prompts[0][..prefix]).chain(rests).collect();
        let lengths: Vec<usize> = rows.iter().map(|row| row.len()).collect();
        let starts: Vec<usize> = std::iter::once(0).chain(prompts.iter().map(|_| prefix)).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let packing = self.in_places(Packing::after_prefix(&lengths, longest));
        let pass = self.pass(&packing, &positions(&starts, &lengths), &starts)?;
        let (of_rests, rest_lengths) = (&starts[1..], &lengths[1..]);
        let in_steps = |tokens: usize| tokens.next_multiple_of(TOKENS_AT_ONCE);
        let tokens = in_steps(rest_lengths.iter().copied().max().unwrap_or(0));
        let of_places = |places: Range<usize>, zeros: usize| {
            RowGather::filled(&places.collect::<Vec<usize>>(), packing.places(), zeros)
        };
        let prefix_alone = of_places(0..prefix, in_steps(prefix) - prefix);
        let rests_alone = of_places(prefix..lengths.iter().sum(), 0);
        let padded_rests = Packing::new(rest_lengths, tokens);
        let ids = padded_ids(&rows);
        send_together(&self.device(), || {
            let gathers = [&prefix_alone, &rests_alone].into_iter().flat_map(RowGather::tables);
            pass.tables().chain(gathers).chain(padded_rests.tables()).chain([&ids as &dyn Sendable])
        });
        let (layers, hidden) = self.run_packed(self.model.embed_tokens.look_up(&ids, rows.len()), &pass, &[]);
        let rests = padded_rests.unpack(gather_rows(hidden.clone(), &rests_alone));
        Ok([
            Segment {
                layers: Vec::new(),
                hidden: gather_rows(hidden, &prefix_alone).unsqueeze_dim(0),
                starts: vec![0],
                lengths: [prefix][..].into(),
            },
            Segment {
                layers,
                hidden: rests.reshape([of_rests.len(), tokens, self.config.d_model]),
                starts: of_rests.to_vec(),
                lengths: KeyLengths::after_prefix(prefix, rest_lengths),
            },
        ])
    }
}

/// Number of tokens that all prompts begin with; each keeps at least one of its own, and a single prompt all.
fn common_prefix(prompts: &[&[u32]]) -> usize {
    let Some((first, others)) = prompts.split_first().filter(|(_, others)| !others.is_empty()) else {
        return 0;
    };
    let common = |other: &&[u32]| first.iter().zip(*other).take_while(|(a, b)| a == b).count();
    let shortest = prompts.iter().map(|prompt| prompt.len()).min().unwrap_or(1);
    others.iter().map(common).min().unwrap_or(0).min(shortest - 1)
}

#[cfg(test)]
mod tests {
    use super::common_prefix;

    #[test]
    fn every_prompt_keeps_a_token_of_its_own() {
        assert_eq!(common_prefix(&[&[1, 2, 3]]), 0);
        assert_eq!(common_prefix(&[&[1, 2, 3], &[1, 2, 3]]), 2);
        assert_eq!(common_prefix(&[&[1, 2, 3], &[1, 2]]), 1);
        assert_eq!(common_prefix(&[&[1, 2, 3], &[1, 4, 3]]), 1);
        assert_eq!(common_prefix(&[&[1], &[2]]), 0);
    }
}
