//! The log-probabilities in kernels for GPUs, whatever the sizes of the choices.

use std::collections::BTreeMap;

use burn::backend::Cube;
use burn::tensor::DType;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

use super::{ChoiceLogProbs, Choices, Inner, generic};
use crate::ops::gpu::{
    argument, dot_of_lanes, empty_beside, in_order, lanes_on, most_of_lanes, own_row, rows_on, sum_over_lanes,
    zeros_beside,
};
use crate::ops::route::Generic;
use crate::ops::table::Table;
use crate::ops::tape::{BackwardInputs, Compute};

/// Tokens of a row's choice whose logits a plane computes.
const CHUNK: usize = 32;

/// Numbers of a row: where in the table its choice's tokens begin, and how many they are; where its logits begin, and its
/// values in the output; and the place of the token that is wanted, or -1 for all.
const OF_ROW: usize = 5;

/// Numbers of a token: the token, and where in the table its places in choices begin and end.
const OF_TOKEN: usize = 3;

/// Numbers of a token's place in a choice: where in the table the choice's rows begin and end, and the place.
const OF_PLACE: usize = 3;

/// The choices as kernels see them.
#[derive(Debug)]
pub(super) struct Tables {
    /// The numbers of the rows, and what they point to; then those of the tokens.
    pub numbers: Table<i32>,
    /// Where the numbers of the tokens begin.
    from_tokens: usize,
    /// Different tokens.
    tokens: usize,
    /// Tokens of the largest choice.
    most: usize,
    /// Logits of all rows.
    logits: usize,
}

impl Tables {
    pub fn new(choices: &Inner) -> Self {
        let mut numbers = vec![0; choices.rows * OF_ROW];
        let (mut places, mut logits): (BTreeMap<u32, Vec<[usize; OF_PLACE]>>, _) = (BTreeMap::new(), 0);
        for group in &choices.groups {
            let (from, count) = (numbers.len(), group.tokens.len());
            numbers.extend(group.tokens.iter().map(|&token| token as i32));
            let from_rows = numbers.len();
            numbers.extend(group.rows.iter().map(|place| place.row as i32));
            for place in &group.rows {
                let wanted = place.wanted.map_or(-1, |token| token as i32);
                let own = [from as i32, count as i32, logits as i32, place.output as i32, wanted];
                numbers[place.row as usize * OF_ROW..][..OF_ROW].copy_from_slice(&own);
                logits += count;
            }
            for (place, &token) in group.tokens.iter().enumerate() {
                places.entry(token).or_default().push([from_rows, numbers.len(), place]);
            }
        }
        let (from_tokens, tokens) = (numbers.len(), places.len());
        let mut from = from_tokens + tokens * OF_TOKEN;
        for (&token, places) in &places {
            let end = from + places.len() * OF_PLACE;
            numbers.extend([token as i32, from as i32, end as i32]);
            from = end;
        }
        numbers.extend(places.values().flatten().flatten().map(|&number| number as i32));
        let most = choices.groups.iter().map(|group| group.tokens.len()).max().unwrap_or(0);
        Self { numbers: Table::new(numbers), from_tokens, tokens, most, logits }
    }
}

impl Compute<Cube, 2> for ChoiceLogProbs {
    fn forward(&self, inputs: [CubeTensor; 2]) -> CubeTensor {
        if is_narrow(&inputs[1]) {
            let [hidden, weight] = inputs.map(Cube::float);
            return Cube::primitive(generic::forward(hidden, weight, &self.0));
        }
        let call = Call::new(&self.0, inputs);
        let logits = call.logits();
        let out = empty_beside(&logits, [self.0.0.outputs]);
        let launch = rows_on(&logits, call.rows);
        normalize::launch(
            &logits.client,
            launch.cube_count,
            launch.cube_dim,
            argument(&logits),
            argument(&call.numbers),
            argument(&out),
            call.rows,
            launch.lanes,
        );
        out
    }

    fn gradients(self, mut given: BackwardInputs<Cube, 2>) -> [Option<CubeTensor>; 2] {
        let (inputs, [_, for_weight]) = (given.take_inputs(), given.wanted);
        if is_narrow(&inputs[1]) {
            let [hidden, weight] = inputs.map(Cube::float);
            let (by_hidden, by_weight) =
                generic::backward([hidden, weight], &self.0, Cube::float(given.gradient), for_weight);
            return [Some(Cube::primitive(by_hidden)), by_weight.map(Cube::primitive)];
        }
        let call = Call::new(&self.0, inputs);
        let logits = call.logits();
        let by_logits = empty_beside(&logits, [call.tables.logits]);
        let launch = rows_on(&logits, call.rows);
        differentiate::launch(
            &logits.client,
            launch.cube_count,
            launch.cube_dim,
            argument(&logits),
            argument(&call.numbers),
            argument(&in_order(given.gradient)),
            argument(&by_logits),
            call.rows,
            launch.lanes,
        );
        let by_hidden = empty_beside(&by_logits, [call.rows, call.width]);
        let blocks = call.width.div_ceil(lanes_on(&by_logits) as usize);
        let launch = rows_on(&by_logits, call.rows * blocks);
        by_hidden::launch(
            &by_logits.client,
            launch.cube_count,
            launch.cube_dim,
            argument(&by_logits),
            argument(&call.weight),
            argument(&call.numbers),
            argument(&by_hidden),
            call.rows,
            call.width,
            blocks,
            launch.lanes,
        );
        let by_weight = for_weight.then(|| {
            let by_weight = zeros_beside(&by_logits, call.weight.meta.shape().clone());
            let launch = rows_on(&by_logits, call.tables.tokens * blocks);
            by_weight::launch(
                &by_logits.client,
                launch.cube_count,
                launch.cube_dim,
                argument(&by_logits),
                argument(&call.hidden),
                argument(&call.numbers),
                argument(&by_weight),
                call.tables.tokens,
                call.tables.from_tokens,
                call.width,
                blocks,
                launch.lanes,
            );
            by_weight
        });
        [Some(by_hidden), by_weight]
    }
}

/// Whether a matrix is kept in 16 bits, which the kernels do not read.
fn is_narrow(weight: &CubeTensor) -> bool {
    weight.dtype != DType::F32
}

/// What a call works on.
struct Call<'a> {
    hidden: CubeTensor,
    weight: CubeTensor,
    rows: usize,
    width: usize,
    tables: &'a Tables,
    /// Those of the tables.
    numbers: CubeTensor,
}

impl<'a> Call<'a> {
    fn new(choices: &'a Choices, inputs: [CubeTensor; 2]) -> Self {
        let [hidden, weight] = inputs.map(in_order);
        let [rows, width] = hidden.meta.shape().dims();
        let tables = choices.0.of_kernels();
        let numbers = tables.numbers.beside(&hidden);
        Self { hidden, weight, rows, width, tables, numbers }
    }

    /// The logits of every row's choice, row after row as the table says.
    fn logits(&self) -> CubeTensor {
        let out = empty_beside(&self.hidden, [self.tables.logits]);
        let chunks = self.tables.most.div_ceil(CHUNK);
        let launch = rows_on(&out, self.rows * chunks);
        multiply::launch(
            &out.client,
            launch.cube_count,
            launch.cube_dim,
            argument(&self.hidden),
            argument(&self.weight),
            argument(&self.numbers),
            argument(&out),
            self.rows,
            chunks,
            self.width,
            launch.lanes,
        );
        out
    }
}

/// The table's number at a place, as a place.
#[cube]
fn number(numbers: &[i32], at: usize) -> usize {
    usize::cast_from(numbers[at])
}

#[cube(launch)]
fn multiply(
    hidden: &[f32],
    weight: &[f32],
    numbers: &[i32],
    logits: &mut [f32],
    rows: usize,
    chunks: usize,
    width: usize,
    #[comptime] lanes: u32,
) {
    let (row, chunk) = (own_row() / chunks, own_row() % chunks);
    if row < rows {
        let from = number(numbers, OF_ROW * row);
        let count = number(numbers, OF_ROW * row + 1);
        let out = number(numbers, OF_ROW * row + 2);
        for place in chunk * CHUNK..((chunk + 1) * CHUNK).min(count) {
            let token = number(numbers, from + place);
            let logit = dot_of_lanes(hidden, row * width, weight, token * width, width, lanes);
            if UNIT_POS_X == 0 {
                logits[out + place] = logit;
            }
        }
    }
}

/// The logarithm of the sum of the exponentials of `count` logits from `from` on.
#[cube]
fn normalizer(logits: &[f32], from: usize, count: usize, #[comptime] lanes: u32) -> f32 {
    let mut most = f32::new(-1e30);
    for place in range_stepped(UNIT_POS_X as usize, count, lanes as usize) {
        most = most.max(logits[from + place]);
    }
    let most = most_of_lanes(most, lanes);
    let mut sum = 0f32;
    for place in range_stepped(UNIT_POS_X as usize, count, lanes as usize) {
        sum += (logits[from + place] - most).exp();
    }
    most + sum_over_lanes(sum, lanes).ln()
}

#[cube(launch)]
fn normalize(logits: &[f32], numbers: &[i32], out: &mut [f32], rows: usize, #[comptime] lanes: u32) {
    let row = own_row();
    if row < rows {
        let count = number(numbers, OF_ROW * row + 1);
        let from = number(numbers, OF_ROW * row + 2);
        let output = number(numbers, OF_ROW * row + 3);
        let wanted = numbers[OF_ROW * row + 4];
        let normalizer = normalizer(logits, from, count, lanes);
        if wanted < 0 {
            for place in range_stepped(UNIT_POS_X as usize, count, lanes as usize) {
                out[output + place] = logits[from + place] - normalizer;
            }
        } else if UNIT_POS_X == 0 {
            out[output] = logits[from + usize::cast_from(wanted)] - normalizer;
        }
    }
}

/// The gradients by the logits.
#[cube(launch)]
fn differentiate(
    logits: &[f32],
    numbers: &[i32],
    gradient: &[f32],
    out: &mut [f32],
    rows: usize,
    #[comptime] lanes: u32,
) {
    let row = own_row();
    if row < rows {
        let count = number(numbers, OF_ROW * row + 1);
        let from = number(numbers, OF_ROW * row + 2);
        let output = number(numbers, OF_ROW * row + 3);
        let wanted = numbers[OF_ROW * row + 4];
        let normalizer = normalizer(logits, from, count, lanes);
        let mut sum = 0f32;
        if wanted < 0 {
            for place in range_stepped(UNIT_POS_X as usize, count, lanes as usize) {
                sum += gradient[output + place];
            }
        } else if UNIT_POS_X == 0 {
            sum += gradient[output];
        }
        let sum = sum_over_lanes(sum, lanes);
        for place in range_stepped(UNIT_POS_X as usize, count, lanes as usize) {
            let mut by_logit = -(logits[from + place] - normalizer).exp() * sum;
            if wanted < 0 {
                by_logit += gradient[output + place];
            } else if place == usize::cast_from(wanted) {
                by_logit += gradient[output];
            }
            out[from + place] = by_logit;
        }
    }
}

/// A plane has a block of columns of a row, each lane one of them.
#[cube(launch)]
fn by_hidden(
    by_logits: &[f32],
    weight: &[f32],
    numbers: &[i32],
    out: &mut [f32],
    rows: usize,
    width: usize,
    blocks: usize,
    #[comptime] lanes: u32,
) {
    let (row, column) = (own_row() / blocks, own_row() % blocks * lanes as usize + UNIT_POS_X as usize);
    if row < rows && column < width {
        let tokens = number(numbers, OF_ROW * row);
        let count = number(numbers, OF_ROW * row + 1);
        let from = number(numbers, OF_ROW * row + 2);
        let mut sum = 0f32;
        for place in 0..count {
            sum += by_logits[from + place] * weight[number(numbers, tokens + place) * width + column];
        }
        out[row * width + column] = sum;
    }
}

/// A plane has a block of columns of a token, each lane one of them.
#[cube(launch)]
fn by_weight(
    by_logits: &[f32],
    hidden: &[f32],
    numbers: &[i32],
    out: &mut [f32],
    tokens: usize,
    from_tokens: usize,
    width: usize,
    blocks: usize,
    #[comptime] lanes: u32,
) {
    let (token, column) = (own_row() / blocks, own_row() % blocks * lanes as usize + UNIT_POS_X as usize);
    if token < tokens && column < width {
        let at = from_tokens + OF_TOKEN * token;
        let mut sum = 0f32;
        for place in range_stepped(number(numbers, at + 1), number(numbers, at + 2), OF_PLACE) {
            for at_row in number(numbers, place)..number(numbers, place + 1) {
                let row = number(numbers, at_row);
                let by_logit = by_logits[number(numbers, OF_ROW * row + 2) + number(numbers, place + 2)];
                sum += by_logit * hidden[row * width + column];
            }
        }
        out[number(numbers, at) * width + column] = sum;
    }
}
