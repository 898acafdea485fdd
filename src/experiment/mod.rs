//! Experiments as files: steps of this program, what each needs and makes, and the tables and charts of what came out.
//! `experiments/README.md` says how to write one.

mod carry_out;
mod chart;
mod error;
mod expand;
mod origin;
mod plan;
mod planned;
mod result;
mod table;
mod work;

#[cfg(all(test, feature = "cli"))]
pub(crate) use carry_out::OF_A_NEW_SASREC;
pub use carry_out::{Program, StepEvent};
pub use chart::Chart;
pub use error::{ExperimentError, PlanError};
pub use origin::{Origin, checksum};
pub use plan::{Experiment, Step};
pub use planned::{ExperimentRequest, PlannedExperiment, WrittenChart};
pub use result::Kept;
pub use table::{Row, Table};
