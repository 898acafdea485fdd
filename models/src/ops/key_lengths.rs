//! How many keys of each row count.

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use burn::tensor::{Device, Tensor};

use super::table::{Sendable, Table};

/// How many of the keys in each row of a segment count; those after them are padding. A clone is of the same segment, so
/// that a device is told of it once.
#[derive(Debug, Clone)]
pub struct KeyLengths {
    lengths: Arc<[usize]>,
    /// The keys of a further row before all others, which all queries see.
    prefix: Option<usize>,
    /// See [`Self::mask`]; made when it is first asked for.
    mask: Arc<OnceLock<Table<f32>>>,
    /// See [`Self::table`]; made when it is first asked for.
    table: Arc<OnceLock<Table<i32>>>,
}

impl KeyLengths {
    /// The lengths of rows that lie behind a row of so many keys, which the queries of all rows see too.
    pub fn after_prefix(prefix: usize, lengths: &[usize]) -> Self {
        Self { prefix: Some(prefix), ..lengths.into() }
    }

    /// The keys of the row before all others that all queries see, if there is one.
    pub fn prefix(&self) -> Option<usize> {
        self.prefix
    }

    /// What is added to scores, `[rows, length]`: 0 for keys that count and minus infinity for padding. Absent if there
    /// is no padding.
    pub(crate) fn mask(&self, length: usize, device: &Device) -> Option<Tensor<2>> {
        Some(self.mask_table(length)?.on(device).reshape([self.len(), length]))
    }

    fn mask_table(&self, length: usize) -> Option<&Table<f32>> {
        if self.iter().all(|&counting| counting == length) {
            return None;
        }
        let row = |&counting: &usize| (0..length).map(move |key| if key < counting { 0.0 } else { f32::NEG_INFINITY });
        Some(self.mask.get_or_init(|| Table::new(self.iter().flat_map(row).collect())))
    }

    /// What [`Self::mask`] looks up.
    pub(crate) fn table_of_mask(&self, length: usize) -> Option<&dyn Sendable> {
        self.mask_table(length).map(|table| table as &dyn Sendable)
    }

    /// The lengths `[rows]`, those of a prefix first.
    pub(crate) fn table(&self) -> &Table<i32> {
        let lengths = || self.prefix.iter().chain(self.iter()).map(|&length| length as i32).collect();
        self.table.get_or_init(|| Table::new(lengths()))
    }
}

impl From<&[usize]> for KeyLengths {
    fn from(lengths: &[usize]) -> Self {
        lengths.iter().copied().collect()
    }
}

impl FromIterator<usize> for KeyLengths {
    fn from_iter<I: IntoIterator<Item = usize>>(lengths: I) -> Self {
        Self { lengths: lengths.into_iter().collect(), prefix: None, mask: Arc::default(), table: Arc::default() }
    }
}

impl Deref for KeyLengths {
    type Target = [usize];

    fn deref(&self) -> &[usize] {
        &self.lengths
    }
}
