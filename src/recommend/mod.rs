//! Recommending, without files and without a terminal: a [`Recommender`] is loaded once and answers for whoever asks.

mod added;
mod answer;
mod attention;
mod config;
mod error;
mod histories;
mod language;
mod query;
mod rank;
mod recommender;
mod scorer;

pub use added::add_items;
pub use answer::{Answer, Evidence, Recommendation, TitleShare, UserAnswer, Why};
pub use attention::{Attended, attended};
pub use config::RecommenderConfig;
pub use error::{MOST_ITEMS, RecommendError};
pub use histories::{UserHistory, read_histories, read_ids};
pub use query::{Chosen, Query};
pub use recommender::Recommender;
