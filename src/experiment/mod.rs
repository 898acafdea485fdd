//! Experiments as files: steps of this program, what each needs and makes, and the tables and charts of what came out.
//! `experiments/README.md` says how to write one.

mod chart;
mod error;
mod expand;
mod origin;
mod plan;
mod result;
mod table;

pub use chart::{Chart, Series};
pub use error::PlanError;
pub use origin::{Origin, checksum};
pub use plan::{Experiment, Step};
pub use result::Kept;
pub use table::{Row, Table, markdown};
