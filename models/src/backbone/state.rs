//! What tokens that ran once leave behind for those that follow them.

use burn::tensor::{Device, Int, Tensor};

use crate::ops::Packing;

/// Tokens that ran through the decoder together: their keys and values in every layer and their last hidden states.
///
/// Rows are right-padded; what lies beyond a row's length is never attended to.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Per layer, keys and values `[rows, tokens, kv_heads, head_dim]`, the keys already rotated.
    pub(crate) layers: Vec<KeyValue>,
    /// Hidden states after the final norm, `[rows, tokens, d_model]`.
    pub(crate) hidden: Tensor<3>,
    /// Position in the sequence of each row's first token.
    pub(crate) starts: Vec<usize>,
    /// Number of tokens in each row.
    pub(crate) lengths: Vec<usize>,
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

    /// Hidden states after the final norm, `[rows, tokens, d_model]`.
    pub fn hidden(&self) -> Tensor<3> {
        self.hidden.clone()
    }

    /// The hidden state of each row's last token, `[rows, d_model]`.
    pub(crate) fn last_hidden(&self) -> Tensor<2> {
        let [rows, tokens, d_model] = self.hidden.dims();
        let last: Vec<i32> =
            self.lengths.iter().enumerate().map(|(row, length)| (row * tokens + length - 1) as i32).collect();
        self.hidden.clone().reshape([rows * tokens, d_model]).select(0, indices(&last, &self.hidden.device()))
    }

    /// The hidden states of all tokens without the padding, row by row, `[valid tokens, d_model]`.
    pub(crate) fn all_hidden(&self) -> Tensor<2> {
        let [rows, tokens, d_model] = self.hidden.dims();
        Packing::new(&self.lengths, tokens).pack(self.hidden.clone().reshape([rows * tokens, d_model]))
    }

    /// The segment made of the given rows, in that order.
    pub(crate) fn select(&self, rows: &[usize]) -> Self {
        let index = indices(&rows.iter().map(|&row| row as i32).collect::<Vec<_>>(), &self.hidden.device());
        let pick = |tensor: &Tensor<4>| tensor.clone().select(0, index.clone());
        Self {
            layers: self
                .layers
                .iter()
                .map(|layer| KeyValue { keys: pick(&layer.keys), values: pick(&layer.values) })
                .collect(),
            hidden: self.hidden.clone().select(0, index.clone()),
            starts: rows.iter().map(|&row| self.starts[row]).collect(),
            lengths: rows.iter().map(|&row| self.lengths[row]).collect(),
        }
    }

    /// This segment followed by `next`, row by row.
    pub(crate) fn followed_by(self, next: Self) -> Self {
        let [rows, own, _] = self.hidden.dims();
        let [_, more, _] = next.hidden.dims();
        let lengths: Vec<usize> = self.lengths.iter().zip(&next.lengths).map(|(a, b)| a + b).collect();
        let is_full = lengths.iter().all(|&length| length == own + more);
        let longest = lengths.iter().copied().max().unwrap_or(0);
        // Where in the rows of both, padding included, the tokens lie that count; what is beyond a row's end may be any.
        let row = |row: usize| {
            let (start, end) = (row * (own + more), self.lengths[row]);
            (0..longest).map(move |at| {
                (if at < end { start + at } else { start + (own + at - end).min(own + more - 1) }) as i32
            })
        };
        let all_places = || (0..rows).flat_map(row).collect::<Vec<i32>>();
        let places = (!is_full).then(|| indices(&all_places(), &self.hidden.device()));
        let joined = Joined { rows, longest, places };
        let join = |a: KeyValue, b: KeyValue| KeyValue {
            keys: joined.join(a.keys, b.keys),
            values: joined.join(a.values, b.values),
        };
        Self {
            layers: self.layers.into_iter().zip(next.layers).map(|(a, b)| join(a, b)).collect(),
            hidden: joined.join(self.hidden, next.hidden),
            starts: self.starts,
            lengths,
        }
    }
}

/// How two tensors of rows of tokens become one.
struct Joined {
    rows: usize,
    longest: usize,
    /// Places of the tokens that count; absent if all do.
    places: Option<Tensor<1, Int>>,
}

impl Joined {
    fn join<const D: usize>(&self, a: Tensor<D>, b: Tensor<D>) -> Tensor<D> {
        let all = Tensor::cat(vec![a, b], 1);
        let Some(places) = &self.places else {
            return all;
        };
        let mut size = all.dims();
        let width = size[2..].iter().product::<usize>();
        let picked = all.reshape([self.rows * size[1], width]).select(0, places.clone());
        size[1] = self.longest;
        picked.reshape(size)
    }
}

/// What all prompts of a batch begin with, run once as a single row.
#[derive(Debug, Clone)]
pub struct CommonHead {
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

    /// The hidden state at each prompt's last position, `[prompts, d_model]`.
    ///
    /// # Panics
    ///
    /// If nothing has run yet.
    pub fn last_hidden(&self) -> Tensor<2> {
        self.segments.last().expect("a prompt has run").last_hidden()
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
        let keep =
            |segment: &Segment| if segment.rows() == self.rows() { segment.select(prompts) } else { segment.clone() };
        Self {
            segments: self.segments.iter().map(keep).collect(),
            lengths: prompts.iter().map(|&p| self.lengths[p]).collect(),
        }
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

/// An index tensor without gradient on the given device.
pub(crate) fn indices(values: &[i32], device: &Device) -> Tensor<1, Int> {
    Tensor::from_data(values, &device.clone().inner())
}
