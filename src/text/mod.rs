//! Results as plain text, in tables that line up.

mod comparisons;
mod data;
mod devices;
mod directions;
mod duration;
mod evaluation;
mod experiment;
mod fit;
mod run;
mod table;

pub use comparisons::of_comparisons;
pub use data::{of_raw_summary, of_summary};
pub use devices::of_devices;
pub use directions::of_directions;
pub(crate) use duration::duration;
pub use evaluation::{of_evaluation, of_guidance, of_transition};
pub use experiment::{of_experiment, of_missing_inputs, of_step_event};
pub use fit::{AFTER_DEMO, of_fit_event, of_shop};
pub use run::{of_outcome, of_recommendations, of_samples, of_sasrec, of_validation};
pub use table::{printable, table};
