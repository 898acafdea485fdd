use std::collections::BTreeMap;

use serde::Serialize;

use crate::models::ObjectiveKind;
use crate::models::decode::Hypothesis;

/// What was timed, and how long it took.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum BenchResult {
    /// Training steps.
    Steps(StepTimes),
    /// The search.
    Search(SearchTimes),
    /// Requests.
    Latency(LatencyTimes),
}

/// How long training steps took.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct StepTimes {
    /// Seconds of each step.
    pub step_s: Vec<f64>,
    /// The loss of each step.
    pub loss: Vec<f64>,
    /// The mean reward of each step; none in stage 1.
    pub reward: Vec<f64>,
    /// Kernels that each step launched on a GPU; absent on a CPU.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub launches: Vec<u64>,
    /// Kernels among them that no step before had launched.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub new_kernels: Vec<usize>,
    /// Times that each step sent values to the GPU.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub uploads: Vec<u64>,
    /// Times that each step read values from it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub downloads: Vec<u64>,
    /// Bytes of both.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bytes_moved: Vec<u64>,
    /// Launches of the last step by the kernels' names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub kernels: BTreeMap<String, u64>,
    /// Tokens of all steps: prompts, targets and thoughts.
    pub tokens: usize,
    /// Seconds of the fastest step.
    pub step_s_min: f64,
    /// The most memory that the process had resident, in MiB, where the system tells.
    pub peak_mib: Option<f64>,
}

/// How long a search took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SearchTimes {
    /// Users a second.
    pub users_per_s: f64,
    /// Seconds for all.
    pub s: f64,
    /// Share of the users whose target is among the first 1, 3, 5 and 10.
    pub hr: BTreeMap<usize, f64>,
    /// Times that values were sent to the device.
    pub uploads: u64,
    /// Times that values were read from it: the search waits for them once in each of its passes.
    pub downloads: u64,
    /// Bytes of both.
    pub bytes_moved: u64,
    /// Kernels launched on a GPU, for all users; absent on a CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub launches: Option<u64>,
    /// Those launches by the kernels' names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub kernels: BTreeMap<String, u64>,
    /// The most memory that the process had resident, in MiB, where the system tells.
    pub peak_mib: Option<f64>,
    /// What was found for each user, the best first.
    #[serde(skip)]
    pub lists: Vec<Vec<Hypothesis>>,
}

impl SearchTimes {
    /// The tokens of each user's list, and their scores.
    pub fn dump(&self) -> Vec<(Vec<&[u32]>, Vec<f64>)> {
        let lists = self.lists.iter();
        lists.map(|list| list.iter().map(|found| (found.tokens.as_slice(), found.score)).unzip()).collect()
    }
}

/// How long requests took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LatencyTimes {
    /// By the users of a request, then by the kind and length of reasoning.
    pub latency: Vec<Latency>,
    /// The most memory that the process had resident, in MiB, where the system tells.
    pub peak_mib: Option<f64>,
}

/// How long requests of one kind took.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Latency {
    /// What a request does between prompt and search.
    pub reasoning: Reasoning,
    /// How many of them.
    pub length: usize,
    /// Users of a request.
    pub batch: usize,
    /// Requests that were timed.
    pub requests: usize,
    /// Half of the requests took at most so many milliseconds, for all of their users.
    pub p50_ms: f64,
    /// Nineteen in twenty.
    pub p95_ms: f64,
    /// Milliseconds of all requests by their users.
    pub mean_ms_per_user: f64,
}

/// What a model does before it searches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reasoning {
    /// It thinks thoughts.
    Thoughts,
    /// It writes tokens.
    Tokens,
}

/// What happens while something is timed.
#[derive(Debug)]
pub enum BenchEvent {
    /// The model is loaded.
    Loaded {
        /// The objective that it was trained for.
        trained: ObjectiveKind,
        /// The objective that it is read by.
        read: ObjectiveKind,
    },
    /// A request of every kind is answered.
    Answered {
        /// So many with as many users.
        done: usize,
        /// Of so many.
        all: usize,
        /// Users of a request.
        users: usize,
    },
}
