//! From what users chose to the model that recommends best to them, within a time.
//!
//! ```text
//! interactions -> prepared data -> popularity, item transitions, SASRec, a language model, the language model guided
//!              -> the best of them on validation users -> its metrics on test users
//!              -> the same once more on all interactions -> a shop's folder
//! ```
//!
//! Everything that is tried lies in the folder's `trial`, with the commands' own layouts: what a step made is not made
//! again when the work resumes.

mod added;
mod budget;
mod candidate;
mod carry_out;
mod choice;
mod config;
mod kept;
mod language_model;
mod rankings;
mod sasrec;
mod shop;
mod trial;

pub use added::{ADDED_FILE, added_items};
pub use candidate::Candidate;
pub use carry_out::{FitEvent, fit};
pub use config::FitConfig;
pub use shop::{FittedModel, Metrics, Shop};
pub use trial::Trial;
