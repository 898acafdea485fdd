//! Recommending, without files and without a terminal: a [`Recommender`] is loaded once and answers for whoever asks.

mod error;
mod histories;
mod query;
mod recommender;

pub use error::RecommendError;
pub use histories::{UserHistory, read_histories, read_ids};
pub use query::{Chosen, Query};
pub use recommender::{Recommendation, Recommender, RecommenderConfig, UserRecommendations};
