//! Rows for the small model.

use latentr3::train::Example;

/// Prompts and targets of several lengths.
pub fn examples() -> Vec<Example> {
    let row = |i: u32| Example {
        prompt: (0..4 + i % 5).map(|t| 1 + (i * 7 + t * 3) % 38).collect(),
        target: vec![1 + (i * 5) % 38, 1 + (i * 3) % 38, 0],
        item: 0,
        row: i as usize,
    };
    (0..13).map(row).collect()
}
