//! The thread that computes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use axum::http::StatusCode;
use tokio::sync::oneshot;

use super::problem::Problem;
use crate::recommend::{Answer, Query, RecommendError, Recommender};

/// Requests that wait at most.
const WAITING: usize = 256;

/// Requests that are computed together at most.
const TOGETHER: usize = 16;

/// A request and where its answer goes.
struct Job {
    queries: Vec<Query>,
    answer: oneshot::Sender<Result<Vec<Answer>, Problem>>,
}

/// The queue before the thread.
#[derive(Clone)]
pub(super) struct Queue(SyncSender<Job>);

impl Queue {
    /// Starts the thread; it ends when all of the queue's handles are gone and what waits is answered.
    pub fn start(recommender: Arc<Recommender>) -> (Self, JoinHandle<()>) {
        let (sender, jobs) = sync_channel(WAITING);
        (Self(sender), std::thread::spawn(move || work(&recommender, &jobs)))
    }

    /// The answers to a request's queries.
    ///
    /// # Errors
    ///
    /// A full queue, and what the recommender refuses.
    pub async fn ask(&self, queries: Vec<Query>) -> Result<Vec<Answer>, Problem> {
        let (answer, answered) = oneshot::channel();
        match self.0.try_send(Job { queries, answer }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => return Err(Problem::busy()),
            Err(TrySendError::Disconnected(_)) => return Err(failed()),
        }
        answered.await.unwrap_or_else(|_| Err(failed()))
    }
}

fn failed() -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the model failed")
}

fn work(recommender: &Recommender, jobs: &Receiver<Job>) {
    while let Ok(first) = jobs.recv() {
        let mut together = vec![first];
        while together.len() < TOGETHER
            && let Ok(next) = jobs.try_recv()
        {
            together.push(next);
        }
        let queries: Vec<Query> = together.iter().flat_map(|job| job.queries.iter().cloned()).collect();
        match recommend(recommender, &queries) {
            Ok(answers) => {
                let mut answers = answers.into_iter();
                for Job { queries, answer } in together {
                    let own = answers.by_ref().take(queries.len()).collect();
                    // Whoever has hung up needs none.
                    let _ = answer.send(Ok(own));
                }
            }
            // One of them is at fault: each for itself.
            Err(_) => {
                for Job { queries, answer } in together {
                    let _ = answer.send(recommend(recommender, &queries));
                }
            }
        }
    }
}

/// No panic of a model takes the thread with it.
fn recommend(recommender: &Recommender, queries: &[Query]) -> Result<Vec<Answer>, Problem> {
    let answers: Result<_, RecommendError> =
        catch_unwind(AssertUnwindSafe(|| recommender.recommend(queries))).map_err(|_| failed())?;
    answers.map_err(|error| {
        let why = error.to_string();
        let problem = Problem::from(error);
        if problem.status.is_server_error() {
            eprintln!("{why}");
        }
        problem
    })
}
