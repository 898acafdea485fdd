//! What tokens that ran once leave behind for those that follow them.

use burn::tensor::{Int, Tensor};

use crate::host::indices;
use crate::ops::{KeyLengths, Packing, Table, select_rows};

/// Tokens that ran through the decoder together: their keys and values in every layer and their last hidden states.
///
/// Rows are right-padded; what lies beyond a row's length is never attended to.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Per layer, keys and values `[rows, tokens, kv_heads, head_dim]`, the keys already rotated. Where `lengths` has a
    /// prefix, its row comes first and may be longer than all others; the segment of the prefix itself has none then.
    pub(crate) layers: Vec<KeyValue>,
    /// Hidden states after the final norm, `[rows, tokens, d_model]`.
    pub(crate) hidden: Tensor<3>,
    /// Position in the sequence of each row's first token.
    pub(crate) starts: Vec<usize>,
    /// Number of tokens in each row.
    pub(crate) lengths: KeyLengths,
}

/// Keys and values of one layer.
#[derive(Debug, Clone)]
pub(crate) struct KeyValue {
    pub keys: Tensor<4>,
    pub values: Tensor<4>,
}

impl Segment {
    /// Rows of the segment. A row may serve several rows of what follows: a common beginning serves a whole
    /// batch, a prompt serves all its samples or beams.
    pub fn rows(&self) -> usize {
        self.lengths.len()
    }

    /// Tokens that the rows are padded to.
    pub(crate) fn tokens(&self) -> usize {
        self.hidden.dims()[1]
    }

    /// Hidden states after the final norm, `[rows, tokens, d_model]`.
    pub fn hidden(&self) -> Tensor<3> {
        self.hidden.clone()
    }

    /// The hidden state of each row's last token, `[rows, d_model]`.
    pub(crate) fn last_hidden(&self) -> Tensor<2> {
        self.hidden_at(&self.last_places())
    }

    /// The place of each row's last token among the hidden states of all rows.
    pub(crate) fn last_places(&self) -> Table<i32> {
        let place = |(row, length)| (row * self.tokens() + length - 1) as i32;
        Table::new(self.lengths.iter().enumerate().map(place).collect())
    }

    /// The hidden states at the given places, `[places, d_model]`.
    pub(crate) fn hidden_at(&self, places: &Table<i32>) -> Tensor<2> {
        let [rows, tokens, d_model] = self.hidden.dims();
        self.hidden.clone().reshape([rows * tokens, d_model]).select(0, places.on(&self.hidden.device()))
    }

    /// The hidden states of all tokens without the padding, row by row, `[valid tokens, d_model]`.
    pub(crate) fn all_hidden(&self) -> Tensor<2> {
        let [rows, tokens, d_model] = self.hidden.dims();
        Packing::new(&self.lengths, tokens).pack(self.hidden.clone().reshape([rows * tokens, d_model]))
    }

    /// The segment made of the given rows, in that order.
    pub(crate) fn select(&self, rows: &[usize]) -> Self {
        let index = indices(&rows.iter().map(|&row| row as i32).collect::<Vec<_>>(), &self.hidden.device());
        let lengths: Vec<usize> = rows.iter().map(|&row| self.lengths[row]).collect();
        let (of_keys, lengths) = match self.lengths.prefix() {
            None => (index.clone(), lengths[..].into()),
            Some(prefix) => {
                let behind = rows.iter().map(|&row| row as i32 + 1);
                let of_keys: Vec<i32> = std::iter::once(0).chain(behind).collect();
                (indices(&of_keys, &self.hidden.device()), KeyLengths::after_prefix(prefix, &lengths))
            }
        };
        let pick = |tensor: &Tensor<4>| tensor.clone().select(0, of_keys.clone());
        Self {
            layers: self
                .layers
                .iter()
                .map(|layer| KeyValue { keys: pick(&layer.keys), values: pick(&layer.values) })
                .collect(),
            hidden: self.hidden.clone().select(0, index),
            starts: rows.iter().map(|&row| self.starts[row]).collect(),
            lengths,
        }
    }

    /// The given rows of this segment, each followed by the same row of `next`, in that order.
    pub(crate) fn followed_by(&self, next: &Self, rows: &[usize]) -> Self {
        assert!(self.lengths.prefix().is_none() && next.lengths.prefix().is_none(), "rows alone can be joined");
        let ([own_rows, own, _], [_, more, _]) = (self.hidden.dims(), next.hidden.dims());
        let lengths: Vec<usize> = rows.iter().map(|&row| self.lengths[row] + next.lengths[row]).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        // Where in the rows of both, one segment after the other, the tokens lie; -1 for padding.
        let tokens = |&row: &usize| {
            let (ours, theirs) = (row * own, own_rows * own + row * more);
            let tokens = (ours..ours + self.lengths[row]).chain(theirs..theirs + next.lengths[row]);
            tokens.map(|place| place as i32).chain(std::iter::repeat(-1)).take(longest)
        };
        let places = indices(&rows.iter().flat_map(tokens).collect::<Vec<_>>(), &self.hidden.device());
        let size = [rows.len(), longest];
        let join_layer = |(a, b): (&KeyValue, &KeyValue)| KeyValue {
            keys: join(&a.keys, &b.keys, &places, size),
            values: join(&a.values, &b.values, &places, size),
        };
        Self {
            layers: self.layers.iter().zip(&next.layers).map(join_layer).collect(),
            hidden: join(&self.hidden, &next.hidden, &places, size),
            starts: rows.iter().map(|&row| self.starts[row]).collect(),
            lengths: lengths.into_iter().collect(),
        }
    }
}

/// The tokens at the given places of `a` and then of `b`, both `[rows, tokens, ...]`, as `[size[0], size[1], ...]`.
fn join<const D: usize>(
    a: &Tensor<D>,
    b: &Tensor<D>,
    places: &Tensor<1, Int>,
    [rows, tokens]: [usize; 2],
) -> Tensor<D> {
    let mut size = a.dims();
    let width = size[2..].iter().product::<usize>();
    let [a, b] = [a, b].map(|x| x.clone().reshape([x.dims()[0] * x.dims()[1], width]));
    (size[0], size[1]) = (rows, tokens);
    select_rows(a, b, places.clone()).reshape(size)
}

/// What all prompts of a batch begin with, run once as a single row.
#[derive(Debug, Clone)]
pub struct SharedPrefix {
    pub(crate) tokens: Vec<u32>,
    pub(crate) segment: Segment,
}

/// A batch of prompts, run once: everything that targets, samples and beams need of them.
#[derive(Debug, Clone)]
pub struct PromptState {
    segments: Vec<Segment>,
    lengths: Vec<usize>,
}

impl PromptState {
    /// Nothing run yet, for `rows` sequences.
    pub(crate) fn empty(rows: usize) -> Self {
        Self { segments: Vec::new(), lengths: vec![0; rows] }
    }

    /// Number of prompts.
    pub fn rows(&self) -> usize {
        self.lengths.len()
    }

    /// Tokens of each prompt so far, thoughts included.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// The segments in the order of the sequence.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// What ran last.
    pub(crate) fn last(&self) -> &Segment {
        self.segments.last().expect("a prompt has run")
    }

    /// The hidden state at each prompt's last position, `[prompts, d_model]`.
    ///
    /// # Panics
    ///
    /// If nothing has run yet.
    pub fn last_hidden(&self) -> Tensor<2> {
        self.last().last_hidden()
    }

    /// Appends what ran last; one row of it per prompt, or a single row that all prompts share.
    pub(crate) fn push(&mut self, segment: Segment) {
        let shared = segment.rows() != self.rows();
        for (row, length) in self.lengths.iter_mut().enumerate() {
            *length += segment.lengths[if shared { 0 } else { row }];
        }
        self.segments.push(segment);
    }

    /// The state of the given prompts only, in that order.
    pub(crate) fn select(&self, prompts: &[usize]) -> Self {
        // A row of a segment may serve several prompts, as what all begin with does.
        let keep = |segment: &Segment| match self.rows() / segment.rows() {
            1 => segment.select(prompts),
            _ if segment.rows() == 1 => segment.clone(),
            share => segment.select(&prompts.iter().map(|prompt| prompt / share).collect::<Vec<_>>()),
        };
        Self {
            segments: self.segments.iter().map(keep).collect(),
            lengths: prompts.iter().map(|&p| self.lengths[p]).collect(),
        }
    }

    /// The state with each prompt so many times, one after the other; nothing is copied.
    pub(crate) fn repeat(mut self, times: usize) -> Self {
        self.lengths = self.lengths.into_iter().flat_map(|length| std::iter::repeat_n(length, times)).collect();
        self
    }

    /// The state without its gradient history: constants for what follows.
    pub fn detach(&self) -> Self {
        let segment = |segment: &Segment| Segment {
            layers: segment
                .layers
                .iter()
                .map(|layer| KeyValue { keys: layer.keys.clone().inner(), values: layer.values.clone().inner() })
                .collect(),
            hidden: segment.hidden.clone().inner(),
            starts: segment.starts.clone(),
            lengths: segment.lengths.clone(),
        };
        Self { segments: self.segments.iter().map(segment).collect(), lengths: self.lengths.clone() }
    }
}
