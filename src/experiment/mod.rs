//! Experiments as files: steps of this program, what each needs and makes, and the tables of what came out.
//!
//! ```toml
//! title = "Does the thought help?"
//! minutes = 30                              # what it is planned to take
//! inputs = { albums = "folder of train.csv, valid.csv, test.csv and info.txt" }
//!
//! [matrix]
//! seed = [0, 1, 2]
//! data = [{ name = "albums", folder = "{albums}", steps = 300 }]
//!
//! [[step]]
//! name = "prepared-{data}"
//! run = "prepare --data {folder} --out {makes}"
//! makes = "prepared/{data}"
//!
//! [[step]]
//! name = "eval-{data}-{seed}"
//! run = "evaluate --model sft-{data}-{seed} --data prepared/{data} --split test --json {json}"
//! needs = ["prepared-{data}", "sft-{data}-{seed}"]
//! keep = true
//!
//! [[table]]
//! title = "{data}"
//! columns = ["hr@10", "ndcg@10"]
//! rows = [{ name = "SFT", results = "eval-{data}-{seed}" }]
//! ```
//!
//! A step stands for one of every combination of the matrix's values that its name mentions; a value that is a table gives
//! its fields too. Only what `keep` says is kept for good; all else is made when something needs it. A step that only `reads` others
//! takes their kept results, and does not have what they made made again: `reads` has rows as a table has them, and `{reads}` in
//! `run` is a word `NAME=FILE,FILE...` for each. A step whose command, inputs or steps
//! before it are no longer those of its result is not done.

mod expand;
mod origin;
mod plan;
mod result;
mod table;

pub use origin::{Origin, checksum};
pub use plan::{Experiment, PlanError, Step};
pub use result::Kept;
pub use table::{Row, Table, markdown};
