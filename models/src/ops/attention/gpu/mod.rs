//! Attention in kernels for GPUs. No table of scores is written to memory.
//!
//! Forward and by queries, each plane has a query of one head: its lanes take keys side by side, and then columns of the
//! values. By keys and values, each has a key of one key head, and its lanes take the queries.

mod kernels;
mod keys;

use burn::backend::{Cube, TensorMetadata};
use burn_cubecl::tensor::CubeTensor;

use self::kernels::{attend, by_queries, by_segment, weigh_normalizers};
use self::keys::Form;
use super::{Attention, Gradients, Visible};
use crate::ops::gpu::{argument, empty_beside, in_order, lanes_on, rows_on};
use crate::ops::table::Table;

impl Attention for Cube {
    fn forward(before: Option<CubeTensor>, inputs: [CubeTensor; 3], visible: &Visible) -> CubeTensor {
        let [queries, keys, values] = inputs.map(in_order);
        let before = before.map(in_order);
        let call = Call::new(&queries, &keys, visible, before.is_some());
        let out = empty_beside(&queries, [call.places, call.heads, call.form.width + 1]);
        let launch = rows_on(&queries, call.places * call.heads);
        attend::launch(
            &queries.client,
            launch.cube_count,
            launch.cube_dim,
            argument(&queries),
            argument(&keys),
            argument(&values),
            argument(before.as_ref().unwrap_or(&queries)),
            argument(&call.factors),
            argument(&call.rows),
            argument(&call.lengths),
            argument(&out),
            call.places * call.heads,
            call.heads,
            call.group,
            call.length,
            call.prefix,
            call.share,
            call.factor_heads,
            call.form,
        );
        out
    }

    fn backward(
        before: Option<CubeTensor>,
        inputs: [CubeTensor; 3],
        visible: &Visible,
        attended: CubeTensor,
        gradient: CubeTensor,
        for_segment: bool,
    ) -> Gradients<CubeTensor> {
        let [queries, keys, values] = inputs.map(in_order);
        let [attended, gradient] = [attended, gradient].map(in_order);
        let before = before.map(in_order);
        let call = Call::new(&queries, &keys, visible, before.is_some());
        let (client, of_queries) = (&queries.client, call.places * call.heads);
        let offsets = empty_beside(&queries, [of_queries, 2]);
        // Where nothing came before, it is not written.
        let by_before = empty_beside(&queries, before.as_ref().map_or([1; 3], |before| before.shape().dims()));
        let launch = rows_on(&queries, of_queries);
        weigh_normalizers::launch(
            client,
            launch.cube_count,
            launch.cube_dim,
            argument(&attended),
            argument(&gradient),
            argument(before.as_ref().unwrap_or(&attended)),
            argument(&offsets),
            argument(&by_before),
            of_queries,
            call.form,
        );
        let by_queries = empty_beside(&queries, queries.shape().dims::<3>());
        let launch = rows_on(&queries, of_queries);
        by_queries::launch(
            client,
            launch.cube_count,
            launch.cube_dim,
            argument(&queries),
            argument(&keys),
            argument(&values),
            argument(&gradient),
            argument(&offsets),
            argument(&call.factors),
            argument(&call.rows),
            argument(&call.lengths),
            argument(&by_queries),
            of_queries,
            call.heads,
            call.group,
            call.length,
            call.prefix,
            call.share,
            call.factor_heads,
            call.form,
        );
        let by_segment = for_segment.then(|| {
            let size: [usize; 4] = keys.shape().dims();
            let of_keys = size[0] * size[1] * size[2];
            let [by_keys, by_values] = [&keys, &values].map(|x| empty_beside(x, size));
            let launch = rows_on(&queries, of_keys);
            by_segment::launch(
                client,
                launch.cube_count,
                launch.cube_dim,
                argument(&queries),
                argument(&keys),
                argument(&values),
                argument(&gradient),
                argument(&offsets),
                argument(&call.factors),
                argument(&call.starts),
                argument(&call.lengths),
                argument(&by_keys),
                argument(&by_values),
                of_keys,
                visible.packing.lengths().len(),
                call.heads,
                call.group,
                call.length,
                call.prefix,
                call.share,
                call.factor_heads,
                call.form,
            );
            [by_keys, by_values]
        });
        (before.map(|_| by_before), by_queries, by_segment)
    }
}

/// The sizes and tables of a call.
struct Call {
    places: usize,
    heads: usize,
    /// Heads that share a key head.
    group: usize,
    /// Keys of a row of the segment, with padding.
    length: usize,
    /// Keys of the prefix; 0 without one.
    prefix: usize,
    /// Rows of queries that share a row of the segment; a prefix is shared by all.
    share: usize,
    /// `[places, 2]`: each query's row, -1 where a place has none, and how many of the row's tokens come before it.
    rows: CubeTensor,
    /// `[rows + 1]`: the first place of each row.
    starts: CubeTensor,
    /// `[segment rows]`: how many keys count; anything where a query sees those up to its own place.
    lengths: CubeTensor,
    /// `[places, factor_heads, length]`: what weights are multiplied by; below 0 for a key that a query does not see.
    /// Anything where all weights stay.
    factors: CubeTensor,
    factor_heads: usize,
    form: Form,
}

impl Call {
    fn new(queries: &CubeTensor, keys: &CubeTensor, visible: &Visible, joined: bool) -> Self {
        let ([places, heads, width], [segment_rows, length, key_heads, _]) =
            (queries.shape().dims::<3>(), keys.shape().dims::<4>());
        let packing = &visible.packing;
        let tables = packing.of_kernels();
        let (factors, factor_heads) = match (&visible.factors, visible.hidden()) {
            (None, None) => (None, 1),
            (None, Some(_)) => (tables.seen.as_ref().map(|seen| seen.beside(queries)), 1),
            (Some(factors), hidden) => {
                let sees = |i: usize| hidden.is_none_or(|hidden| !hidden[i / (heads * length) * length + i % length]);
                let factors = factors.iter().enumerate().map(|(i, &factor)| if sees(i) { factor } else { -1.0 });
                let factors = factors.collect::<Vec<f32>>();
                (Some(Table::new(factors).beside(queries)), heads)
            }
        };
        assert!(factors.is_none() || !visible.has_prefix(), "the weights of a prefix have no factors");
        let serving = segment_rows - usize::from(visible.has_prefix() && visible.keys.is_some());
        let form = Form {
            lanes: lanes_on(queries),
            width,
            causal: visible.keys.is_none(),
            prefixed: visible.has_prefix(),
            joined,
            factored: factors.is_some(),
        };
        let rows = tables.rows.beside(queries);
        let prefix = match &visible.keys {
            Some(keys) => keys.prefix(),
            None => packing.has_prefix().then(|| packing.lengths()[0]),
        };
        Self {
            places,
            heads,
            group: heads / key_heads,
            length,
            share: packing.lengths().len() / serving,
            prefix: prefix.unwrap_or(0),
            starts: tables.starts.beside(queries),
            lengths: visible.keys.as_ref().map_or_else(|| rows.clone(), |keys| keys.table().beside(queries)),
            rows,
            factors: factors.unwrap_or_else(|| queries.clone()),
            factor_heads,
            form,
        }
    }
}
