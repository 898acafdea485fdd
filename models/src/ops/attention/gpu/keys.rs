//! Which keys a query sees.

use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;

/// What a kernel is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Form {
    /// Units that share a query or a key.
    pub lanes: u32,
    /// Of a head.
    pub width: usize,
    /// A query sees keys of its own row, up to its own place.
    pub causal: bool,
    /// The first row of the segment is seen by the queries of all rows, before their own.
    pub prefixed: bool,
    /// Other segments came before.
    pub joined: bool,
    /// There is a table of factors.
    pub factored: bool,
}

impl Form {
    /// Columns that each lane has.
    pub fn columns(self) -> usize {
        self.width.div_ceil(self.lanes as usize)
    }

    pub fn scale(self) -> f32 {
        (self.width as f32).sqrt().recip()
    }
}

/// The keys that a query sees.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Keys {
    /// How many of the prefix, which is the segment's first row.
    pub of_prefix: usize,
    /// The first of its row's, counted through all rows.
    pub first: usize,
    /// How many in all.
    pub seen: usize,
}

#[cube]
pub(super) fn keys_of(
    place: usize,
    rows: &[i32],
    lengths: &[i32],
    length: usize,
    prefix: usize,
    share: usize,
    #[comptime] form: Form,
) -> Keys {
    let mut row = usize::cast_from(rows[2 * place].max(0));
    let mut of_prefix = prefix;
    if comptime!(form.causal) && row == 0 {
        // The prefix sees itself as any row does.
        of_prefix = 0;
    }
    let mut own = usize::cast_from(rows[2 * place + 1]) + 1;
    if comptime!(!form.causal) {
        row /= share;
        if comptime!(form.prefixed) {
            row += 1;
        }
        own = usize::cast_from(lengths[row]);
    }
    if rows[2 * place] < 0 {
        // The place has no token.
        own = 0;
        of_prefix = 0;
    }
    Keys { of_prefix, first: row * length, seen: of_prefix + own }
}

/// Where key number `key` of those that a query sees lies.
#[cube]
pub(super) fn place_of(keys: &Keys, key: usize, #[comptime] form: Form) -> usize {
    let mut place = keys.first + key;
    if comptime!(form.prefixed) {
        if key < keys.of_prefix {
            place = key;
        } else {
            place -= keys.of_prefix;
        }
    }
    place
}

/// The factor of a weight, below 0 for a key that is not seen.
#[cube]
pub(super) fn factor_of(
    factors: &[f32],
    place: usize,
    head: usize,
    key: usize,
    length: usize,
    factor_heads: usize,
    #[comptime] form: Form,
) -> f32 {
    let mut factor = 1f32;
    if comptime!(form.factored) {
        factor = factors[(place * factor_heads + head % factor_heads) * length + key];
    }
    factor
}
