//! Rows of different lengths without their padding.

use std::sync::{Arc, OnceLock};

use burn::tensor::{Device, Tensor};

use super::gather_rows::{RowGather, gather_rows};
use super::table::{Sendable, Table};
use crate::host;

/// The tokens of right-padded rows, one row after the other, with the padding left out. What works token by token works
/// on these; only the attention looks at rows. A clone is the same packing, so that a device is told of it once.
#[derive(Debug, Clone)]
pub struct Packing {
    lengths: Arc<[usize]>,
    tokens: usize,
    has_prefix: bool,
    /// Places behind all tokens that have none.
    empty: usize,
    /// Of every token, one after the other, which of its row's tokens it does not see even if they come before it,
    /// `[valid tokens, tokens]`. Absent where it sees all before it.
    hidden: Option<Arc<[bool]>>,
    /// See [`Self::gather`]; made when it is first asked for.
    gather: Arc<OnceLock<Option<RowGather>>>,
    /// See [`Self::causal_mask`]; made when it is first asked for.
    causal_mask: Arc<OnceLock<Tensor<3>>>,
    /// See [`Self::of_kernels`]; made when they are first asked for.
    of_kernels: Arc<OnceLock<KernelTables>>,
}

/// A packing as kernels on a GPU see it.
#[derive(Debug)]
pub(super) struct KernelTables {
    /// The row of each place's token and how many of the row's tokens come before it, -1 and 0 where a place has none,
    /// `[2 * places]`.
    pub rows: Table<i32>,
    /// The number of tokens before each row, and of all, `[rows + 1]`.
    pub starts: Table<i32>,
    /// Where a token does not see all before it, 1 for what it sees and -1 for what it does not,
    /// `[valid tokens * tokens]`.
    pub seen: Option<Table<f32>>,
}

impl Packing {
    /// For rows of the given lengths, none above `tokens`, to which they are padded.
    pub fn new(lengths: &[usize], tokens: usize) -> Self {
        Self {
            lengths: lengths.into(),
            tokens,
            has_prefix: false,
            empty: 0,
            hidden: None,
            gather: Arc::default(),
            causal_mask: Arc::default(),
            of_kernels: Arc::default(),
        }
    }

    /// For rows that are trees: each has, for its tokens depth first, the number of tokens above them. A token sees
    /// those on its path only.
    pub fn of_trees(depths: &[Vec<usize>], tokens: usize) -> Self {
        let lengths: Vec<usize> = depths.iter().map(Vec::len).collect();
        let packing = Self::new(&lengths, tokens);
        if depths.iter().all(|depths| depths.iter().enumerate().all(|(token, &depth)| token == depth)) {
            return packing;
        }
        let mut hidden = vec![true; lengths.iter().sum::<usize>() * tokens];
        let mut rows = hidden.chunks_exact_mut(tokens);
        for depths in depths {
            let mut path = Vec::new();
            for (token, &depth) in depths.iter().enumerate() {
                path.truncate(depth);
                path.push(token);
                let hidden = rows.next().expect("every token has a row");
                path.iter().for_each(|&seen| hidden[seen] = false);
            }
        }
        Self { hidden: Some(hidden.into()), ..packing }
    }

    /// The same rows in a multiple of `step` places; the last of them may have no token. An operation with kernels for
    /// some counts of rows then meets few counts. Only GPUs have such places.
    pub fn in_steps_of(self, step: usize) -> Self {
        let tokens: usize = self.lengths.iter().sum();
        let empty = tokens.next_multiple_of(step) - tokens;
        Self { empty, has_prefix: self.has_prefix, hidden: self.hidden, ..Self::new(&self.lengths, self.tokens) }
    }

    /// For rows that all begin with the first one: they see all of its tokens, and then their own.
    ///
    /// Only GPUs have such rows, where one pass more costs more than its tokens.
    pub fn after_prefix(lengths: &[usize], tokens: usize) -> Self {
        Self { has_prefix: true, ..Self::new(lengths, tokens) }
    }

    /// Whether the first row is what all others begin with.
    pub fn has_prefix(&self) -> bool {
        self.has_prefix
    }

    /// Places of all rows' tokens, one row after the other, and those behind them that have none.
    pub fn places(&self) -> usize {
        self.lengths.iter().sum::<usize>() + self.empty
    }

    /// Tokens of each row.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Tokens that the rows are padded to.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// Which of the tokens before it a token does not see, `[valid tokens, tokens]`, where it does not see them all.
    pub(super) fn hidden(&self) -> Option<&[bool]> {
        self.hidden.as_deref()
    }

    /// What is added to the scores of tokens by those of their own row, `[rows, tokens, tokens]` or, if it is the same
    /// for all rows, `[1, tokens, tokens]`: 0 for what a token sees, minus infinity for all else. Padding sees all
    /// before it.
    pub(super) fn causal_mask(&self, device: &Device) -> Tensor<3> {
        let tokens = self.tokens;
        let make = || {
            // Where all rows are alike, one of padding stands for them.
            let (lengths, mut hidden) = self.hidden().map_or((&[0][..], &[][..]), |hidden| (&*self.lengths, hidden));
            let mut mask = Vec::with_capacity(lengths.len() * tokens * tokens);
            for &length in lengths {
                let (row, rest) = hidden.split_at(length * tokens);
                let sees = |place: usize| row.get(place).map_or(place % tokens <= place / tokens, |hidden| !hidden);
                mask.extend((0..tokens * tokens).map(|place| if sees(place) { 0.0f32 } else { f32::NEG_INFINITY }));
                hidden = rest;
            }
            host::floats(mask, [lengths.len(), tokens, tokens], device)
        };
        self.causal_mask.get_or_init(make).clone()
    }

    /// What kernels on a GPU look up.
    pub(crate) fn tables(&self) -> Vec<&dyn Sendable> {
        let KernelTables { rows, starts, seen } = self.of_kernels();
        let gathered = self.gather().into_iter().flat_map(RowGather::tables);
        let seen = seen.iter().map(|seen| seen as &dyn Sendable);
        [rows as &dyn Sendable, starts].into_iter().chain(seen).chain(gathered).collect()
    }

    /// The packing as kernels on a GPU see it.
    pub(super) fn of_kernels(&self) -> &KernelTables {
        self.of_kernels.get_or_init(|| {
            let token = |(row, &length): (usize, &usize)| (0..length).flat_map(move |place| [row as i32, place as i32]);
            let none = std::iter::repeat_n([-1, 0], self.empty).flatten();
            let rows: Vec<i32> = self.lengths.iter().enumerate().flat_map(token).chain(none).collect();
            let mut starts = vec![0];
            starts.extend(self.lengths.iter().scan(0, |sum, &length| {
                *sum += length as i32;
                Some(*sum)
            }));
            let seen =
                |hidden: &[bool]| Table::new(hidden.iter().map(|hidden| if *hidden { -1.0 } else { 1.0 }).collect());
            KernelTables { rows: Table::new(rows), starts: Table::new(starts), seen: self.hidden().map(seen) }
        })
    }

    /// From padded rows to places; absent if nothing changes its place.
    fn gather(&self) -> Option<&RowGather> {
        let make = || {
            let moves = self.empty > 0 || self.lengths.iter().any(|&length| length < self.tokens);
            let valid = |(row, &length): (usize, &usize)| row * self.tokens..row * self.tokens + length;
            let gathered = || self.lengths.iter().enumerate().flat_map(valid).collect::<Vec<usize>>();
            moves.then(|| RowGather::filled(&gathered(), self.lengths.len() * self.tokens, self.empty))
        };
        self.gather.get_or_init(make).as_ref()
    }

    /// `[rows * tokens, width]` without the padding, `[places, width]`.
    pub fn pack(&self, x: Tensor<2>) -> Tensor<2> {
        match self.gather() {
            Some(gather) => gather_rows(x, gather),
            None => x,
        }
    }

    /// `[places, width]` with zeros for the padding, `[rows * tokens, width]`.
    pub fn unpack(&self, x: Tensor<2>) -> Tensor<2> {
        match self.gather() {
            Some(gather) => gather_rows(x, &gather.inverse()),
            None => x,
        }
    }
}
