//! What a client is told where there is no answer.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::data::DataError;
use crate::recommend::RecommendError;
use crate::run::RunError;

/// A status with the field that is wrong, where one is, and what is wrong.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    pub status: StatusCode,
    pub field: Option<String>,
    pub message: String,
}

/// What is answered.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ProblemBody {
    error: FieldProblem,
}

/// What is wrong.
#[derive(Debug, Serialize, ToSchema)]
struct FieldProblem {
    /// The field that is wrong, where one is, as `top` or `history[2]`.
    field: Option<String>,
    /// What is wrong with it.
    message: String,
}

impl Problem {
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, field: None, message: message.into() }
    }

    /// An invalid request. A leading `field: ` of the message is removed, since the answer names the field by itself.
    pub fn of_field(field: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        let rest = message.strip_prefix(field).and_then(|rest| rest.strip_prefix(": ")).map(str::to_owned);
        Self { field: Some(field.to_owned()), ..Self::new(StatusCode::UNPROCESSABLE_ENTITY, rest.unwrap_or(message)) }
    }

    /// A request that contradicts itself or what there is.
    pub fn conflict(field: &'static str, message: impl Into<String>) -> Self {
        Self { status: StatusCode::CONFLICT, ..Self::of_field(field, message) }
    }

    /// A model that panicked.
    pub fn failed() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the model failed")
    }

    /// More requests than the queue holds.
    pub fn busy() -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "too many requests are waiting; try again in a second")
    }
}

impl From<RecommendError> for Problem {
    fn from(error: RecommendError) -> Self {
        match &error {
            RecommendError::UnknownItem { field, .. } => {
                Self { status: StatusCode::NOT_FOUND, ..Self::of_field(field, error.to_string()) }
            }
            RecommendError::OtherTitle { .. } => Self::conflict("items", error.to_string()),
            RecommendError::NoHistory => Self::of_field("history", error.to_string()),
            RecommendError::Top(_) => Self::of_field("top", error.to_string()),
            RecommendError::Data(DataError::AddedItem { .. } | DataError::EndTokenInTitle { .. })
            | RecommendError::Run(RunError::TooLong { .. })
            | RecommendError::NoShop { .. } => Self::of_field("items", error.to_string()),
            RecommendError::Data(_) => Self::of_field("titles", error.to_string()),
            RecommendError::Document(_) | RecommendError::LongDocument { .. } => {
                Self::of_field("documents", error.to_string())
            }
            RecommendError::UnknownDocument { .. } => {
                Self { status: StatusCode::NOT_FOUND, ..Self::of_field("documents", error.to_string()) }
            }
            _ => {
                tracing::error!(error = %error, "request failed");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "the model failed; the log says why")
            }
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = ProblemBody { error: FieldProblem { field: self.field, message: self.message } };
        let mut response = (self.status, Json(body)).into_response();
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
