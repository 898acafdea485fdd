//! The thread that computes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::metrics::Metrics;
use super::problem::Problem;
use super::served::Served;
use crate::fit::Candidate;
use crate::recommend::{Answer, Chosen, Query, RecommendError};
use crate::runtime::with_awake_threads;

/// Most requests that wait.
const MAX_QUEUED: usize = 256;

/// Most requests that are computed together.
const MAX_TOGETHER: usize = 16;

/// Histories of one request after which it is asked again whether anybody still waits for it.
const PART: usize = 16;

/// Where an answer goes.
type Reply<T> = oneshot::Sender<Result<T, Problem>>;

/// Scores by place, and what made them.
type Scores = (Vec<f64>, Candidate);

/// What is to be computed.
enum Task {
    Recommend(Vec<Query>, Reply<Vec<Answer>>),
    Rank(Vec<Chosen>, Vec<Chosen>, Reply<Scores>),
}

/// A task and the models that were served when it came.
struct Job {
    served: Arc<Served>,
    task: Task,
}

/// The queue before the thread.
#[derive(Clone)]
pub(super) struct Queue {
    jobs: SyncSender<Job>,
    metrics: Arc<Metrics>,
}

impl Queue {
    /// Starts the thread; it ends when all of the queue's handles are gone and what waits is answered.
    pub fn start(metrics: Arc<Metrics>) -> (Self, JoinHandle<()>) {
        let (sender, jobs) = sync_channel(MAX_QUEUED);
        let of_thread = metrics.clone();
        (Self { jobs: sender, metrics }, std::thread::spawn(move || work(&jobs, &of_thread)))
    }

    /// The answers to a request's queries.
    ///
    /// # Errors
    ///
    /// A full queue, and what the recommender refuses.
    pub async fn recommend(&self, served: &Arc<Served>, queries: Vec<Query>) -> Result<Vec<Answer>, Problem> {
        self.ask(served, |reply| Task::Recommend(queries, reply)).await
    }

    /// The scores of some items after a history.
    ///
    /// # Errors
    ///
    /// A full queue, and what the recommender refuses.
    pub async fn rank(
        &self,
        served: &Arc<Served>,
        history: Vec<Chosen>,
        items: Vec<Chosen>,
    ) -> Result<Scores, Problem> {
        self.ask(served, |reply| Task::Rank(history, items, reply)).await
    }

    async fn ask<T>(&self, served: &Arc<Served>, task: impl FnOnce(Reply<T>) -> Task) -> Result<T, Problem> {
        let (reply, answered) = oneshot::channel();
        // Before the thread can take it.
        self.metrics.waiting.inc();
        if let Err(error) = self.jobs.try_send(Job { served: served.clone(), task: task(reply) }) {
            self.metrics.waiting.dec();
            return Err(match error {
                TrySendError::Full(_) => Problem::busy(),
                TrySendError::Disconnected(_) => Problem::failed(),
            });
        }
        answered.await.unwrap_or_else(|_| Err(Problem::failed()))
    }
}

fn work(jobs: &Receiver<Job>, metrics: &Metrics) {
    while let Ok(first) = jobs.recv() {
        let mut together = vec![first];
        while together.len() < MAX_TOGETHER
            && let Ok(next) = jobs.try_recv()
        {
            together.push(next);
        }
        metrics.together.observe(together.len() as f64);
        metrics.waiting.dec_by(together.len() as i64);
        // An answer is of the models that its request found.
        let mut groups: Vec<(Arc<Served>, Vec<Task>)> = Vec::new();
        for Job { served, task } in together {
            match groups.last_mut() {
                Some((last, tasks)) if Arc::ptr_eq(last, &served) => tasks.push(task),
                _ => groups.push((served, vec![task])),
            }
        }
        groups.into_iter().for_each(|(served, tasks)| answer(&served, tasks));
    }
}

/// Answers tasks, all recommendations for few histories together. Who has hung up needs none.
fn answer(served: &Served, tasks: Vec<Task>) {
    let mut waiting = Vec::new();
    for task in tasks {
        match task {
            Task::Recommend(queries, reply) if queries.len() > PART => answer_in_parts(served, &queries, reply),
            Task::Recommend(queries, reply) if !reply.is_closed() => waiting.push((queries, reply)),
            Task::Rank(history, items, reply) if !reply.is_closed() => {
                let _ = reply.send(safely(served, || served.recommender.rank(&history, &items)));
            }
            Task::Recommend(..) | Task::Rank(..) => {}
        }
    }
    let queries: Vec<Query> = waiting.iter().flat_map(|(queries, _)| queries.iter().cloned()).collect();
    match safely(served, || served.recommender.recommend(&queries)) {
        Ok(answers) => {
            let mut answers = answers.into_iter();
            for (queries, reply) in waiting {
                let own = answers.by_ref().take(queries.len()).collect();
                let _ = reply.send(Ok(own));
            }
        }
        // One of them is at fault: each for itself.
        Err(_) if waiting.len() > 1 => {
            for (queries, reply) in waiting {
                let _ = reply.send(safely(served, || served.recommender.recommend(&queries)));
            }
        }
        Err(problem) => waiting.into_iter().for_each(|(_, reply)| drop(reply.send(Err(problem.clone())))),
    }
}

/// Answers a request for many histories, unless nobody waits for it any longer.
fn answer_in_parts(served: &Served, queries: &[Query], reply: Reply<Vec<Answer>>) {
    let mut answers = Vec::with_capacity(queries.len());
    for part in queries.chunks(PART) {
        if reply.is_closed() {
            return;
        }
        match safely(served, || served.recommender.recommend(part)) {
            Ok(more) => answers.extend(more),
            Err(problem) => return drop(reply.send(Err(problem))),
        }
    }
    let _ = reply.send(Ok(answers));
}

/// Runs the models, on the CPU with all threads awake. No panic of a model takes the thread with it.
fn safely<T: Send>(served: &Served, compute: impl FnOnce() -> Result<T, RecommendError> + Send) -> Result<T, Problem> {
    let run = || if served.on_cpu { with_awake_threads(compute) } else { compute() };
    let result = catch_unwind(AssertUnwindSafe(run)).map_err(|_| Problem::failed())?;
    result.map_err(Problem::from)
}
