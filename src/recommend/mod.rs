//! Recommending, without files and without a terminal: a [`Recommender`] is loaded once and answers for whoever asks.

mod answer;
mod config;
mod error;
mod histories;
mod language;
mod query;
mod recommender;
mod scorer;

pub use answer::{Answer, Recommendation, UserAnswer};
pub use config::RecommenderConfig;
pub use error::RecommendError;
pub use histories::{UserHistory, read_histories, read_ids};
pub use query::{Chosen, Query};
pub use recommender::Recommender;
