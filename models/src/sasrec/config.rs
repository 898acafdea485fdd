//! The sizes of the model.

use serde::{Deserialize, Serialize};

/// Most that a size of the model may be.
const MOST: usize = 1 << 12;

/// What makes of the items of a history what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum EncoderKind {
    /// Causal self-attention: SASRec (arXiv 1808.09781).
    #[default]
    Attention,
    /// Gated recurrent units: GRU4Rec (arXiv 1511.06939).
    Gru,
}

impl EncoderKind {
    /// The name of the model that has it, as results call it.
    pub fn model(self) -> &'static str {
        match self {
            Self::Attention => "sasrec",
            Self::Gru => "gru4rec",
        }
    }
}

/// Sizes of a [`SasRec`](super::SasRec).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SasRecConfig {
    /// Items of the catalog.
    pub items: usize,
    /// A name for the catalog, so that the model is not taken for one of another.
    #[serde(default)]
    pub catalog: Option<String>,
    /// The encoder.
    #[serde(default)]
    pub encoder: EncoderKind,
    /// Newest items of a history that the model sees.
    pub max_history: usize,
    /// Width of the embeddings.
    pub d_model: usize,
    /// Width within the feed-forward networks of attention.
    pub d_ff: usize,
    /// Blocks of attention and feed-forward network, or layers of recurrent units.
    pub blocks: usize,
    /// Heads of each attention.
    pub heads: usize,
    /// Share of the values that training sets to zero: of the embeddings, and of what each attention, feed-forward
    /// network or recurrent layer gives.
    pub dropout: f64,
}

impl SasRecConfig {
    /// The usual sizes for a catalog: two blocks of one head, 64 wide, as in the paper, and its dropout for sparse
    /// data, a half.
    pub fn new(items: usize, max_history: usize) -> Self {
        Self {
            items,
            catalog: None,
            encoder: EncoderKind::Attention,
            max_history,
            d_model: 64,
            d_ff: 64,
            blocks: 2,
            heads: 1,
            dropout: 0.5,
        }
    }

    /// The first field that makes no sense, and what is wrong with it.
    pub(super) fn fault(&self) -> Option<(&'static str, String)> {
        let sizes = [
            ("max_history", self.max_history),
            ("d_model", self.d_model),
            ("d_ff", self.d_ff),
            ("blocks", self.blocks),
            ("heads", self.heads),
        ];
        if let Some((field, size)) = sizes.into_iter().find(|(_, size)| !(1..=MOST).contains(size)) {
            return Some((field, format!("must be from 1 to {MOST}, got {size}")));
        }
        if !(1..=i32::MAX as usize).contains(&self.items) {
            return Some(("items", format!("must be from 1 to {}, got {}", i32::MAX, self.items)));
        }
        if !self.d_model.is_multiple_of(self.heads) {
            return Some(("heads", format!("must divide d_model ({}), got {}", self.d_model, self.heads)));
        }
        // As it is computed with: in single precision .99999999 is 1.
        let is_share = (0.0..1.0).contains(&(self.dropout as f32));
        (!is_share).then(|| ("dropout", format!("must be at least 0 and below 1, got {}", self.dropout)))
    }
}
