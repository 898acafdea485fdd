//! What a program without downloads does in their place.

use super::cache::{Cached, Part};
use super::{Hub, HubName, HubProblem};

impl Hub {
    /// Nothing can be downloaded.
    pub(super) fn download(&self, _: &HubName, _: Part) -> Result<Cached, HubProblem> {
        let obstacle = "this program was built without downloads; build it with the feature `hub`";
        Err(HubProblem::NotCached { cache: self.cache.clone(), obstacle })
    }

    /// What is not there stays away.
    pub(super) fn complete(&self, _: &HubName, _: &Cached, _: Part) {}
}
