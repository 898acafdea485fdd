//! Downloads from the hub into its cache.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

// Version 1 of this crate comes with 157 others, and no longer goes on with a download that was cut.
use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

use super::cache::{Cached, Part};
use super::{DEFAULT_REVISION, Hub, HubName, HubProblem};
use crate::models::files::file_sha256;
use crate::models::hub::{INDEX_FILE, WEIGHTS_FILE, shards};

/// How often a file is tried again after a failure that may pass.
const RETRIES: u32 = 5;

/// How long nothing may come of a file that is downloaded.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a file is looked for again that another program downloads; between two times some seconds pass.
const WAITS: u32 = 720;

/// How often a download begins anew because its revision was changed meanwhile.
const RESTARTS: usize = 3;

/// What is told of downloads: the file, and how many of its bytes are there.
type Watcher = fn(file: &str, done: u64, total: u64);

static WATCHER: OnceLock<Watcher> = OnceLock::new();

/// Has downloads of this process watched; only the first call has an effect.
pub fn watch_downloads(watcher: Watcher) {
    let _ = WATCHER.set(watcher);
}

/// Why a try to download a file failed.
enum Failure {
    /// The hub has no such file, revision or model.
    NotFound,
    /// It may go better next time.
    MayPass(HubProblem),
    Final(HubProblem),
}

/// A revision of a model on the hub.
struct Remote<'a> {
    hub: &'a Hub,
    name: &'a HubName,
    api: Api,
    repo: Repo,
    repository: ApiRepo,
}

impl Hub {
    /// Downloads what the cache lacks of a part of a model.
    pub(super) fn download(&self, name: &HubName, part: Part) -> Result<Cached, HubProblem> {
        for _ in 0..RESTARTS {
            let remote = Remote::new(self, name)?;
            if let Some(cached) = remote.fetch_all(part)? {
                return Ok(cached);
            }
        }
        Err(HubProblem::Changed { revision: name.revision.clone() })
    }

    /// Downloads what the cache lacks of a part of a model that it can do without, or does without.
    pub(super) fn complete(&self, name: &HubName, cached: &Cached, part: Part) {
        let name = HubName { revision: cached.commit.clone(), ..name.clone() };
        let _ = Remote::new(self, &name).and_then(|remote| remote.fetch_optional(part, &cached.commit));
    }

    fn network(&self, problem: impl ToString) -> HubProblem {
        HubProblem::Network { endpoint: self.endpoint.clone(), problem: problem.to_string() }
    }
}

impl<'a> Remote<'a> {
    fn new(hub: &'a Hub, name: &'a HubName) -> Result<Self, HubProblem> {
        let builder = ApiBuilder::from_cache(Cache::new(hub.cache.clone()))
            .with_endpoint(hub.endpoint.clone())
            .with_token(hub.token.clone())
            .with_progress(false);
        let api = builder.build().map_err(|error| hub.network(error))?;
        let repo = Repo::with_revision(name.repository.clone(), RepoType::Model, name.revision.clone());
        Ok(Self { hub, name, repository: api.repo(repo.clone()), repo, api })
    }

    /// All files of a part; none if they came to be of several commits.
    fn fetch_all(&self, part: Part) -> Result<Option<Cached>, HubProblem> {
        let mut commits = Vec::new();
        for &file in part.required() {
            commits.push(self.fetch(file)?.map_or_else(|| Err(self.missing(file)), Ok)?);
        }
        let commit = commits[0].clone();
        let folder = self.hub.repository(self.name).join("snapshots").join(&commit);
        commits.extend(self.fetch_optional(part, &commit)?);
        if part == Part::Model {
            match self.fetch(WEIGHTS_FILE)? {
                Some(of) => commits.push(of),
                None => {
                    let missing = HubProblem::NoFile { file: "model.safetensors or model.safetensors.index.json" };
                    commits.push(self.fetch(INDEX_FILE)?.ok_or(missing)?);
                    let index = folder.join(INDEX_FILE);
                    let damaged = |error| self.io(&index, std::io::Error::new(ErrorKind::InvalidData, error));
                    for shard in shards(&index).map_err(damaged)? {
                        let missing = HubProblem::NoFile { file: "weights file that its index names" };
                        commits.push(self.fetch(&shard)?.ok_or(missing)?);
                    }
                }
            }
        }
        Ok(commits.iter().all(|of| *of == commit).then_some(Cached { folder, commit }))
    }

    /// The files that a part can do without; where there is none, that is remembered. Returns the commits of the rest.
    fn fetch_optional(&self, part: Part, commit: &str) -> Result<Vec<String>, HubProblem> {
        let mut commits = Vec::new();
        for file in part.optional() {
            match self.fetch(file)? {
                Some(of) => commits.push(of),
                None => {
                    let mark = self.hub.absence(self.name, commit, file);
                    let parent = mark.parent().unwrap_or(&mark);
                    fs::create_dir_all(parent).and_then(|()| fs::write(&mark, "")).map_err(|e| self.io(&mark, e))?;
                }
            }
        }
        Ok(commits)
    }

    /// What it means that the hub does not have a file that every model has.
    fn missing(&self, file: &'static str) -> HubProblem {
        let has_default = || {
            let repo = Repo::with_revision(self.name.repository.clone(), RepoType::Model, DEFAULT_REVISION.into());
            self.api.metadata(&self.api.repo(repo).url(file)).is_ok()
        };
        if self.name.revision != DEFAULT_REVISION && has_default() {
            return HubProblem::NoRevision { revision: self.name.revision.clone() };
        }
        match self.api.metadata(&self.repository.url("README.md")) {
            Ok(_) => HubProblem::NoFile { file },
            Err(_) => HubProblem::Unknown { endpoint: self.hub.endpoint.clone() },
        }
    }

    /// Downloads a file if it is not there; returns its commit, or none if the hub has no such file.
    fn fetch(&self, file: &str) -> Result<Option<String>, HubProblem> {
        let (mut tries, mut waits) = (0, 0);
        loop {
            match self.try_to_fetch(file) {
                Ok(commit) => return Ok(Some(commit)),
                Err(Failure::Final(HubProblem::Busy { .. })) if waits < WAITS => waits += 1,
                Err(Failure::NotFound) => return Ok(None),
                Err(Failure::MayPass(_)) if tries < RETRIES => {
                    std::thread::sleep(Duration::from_millis(200 << tries));
                    tries += 1;
                }
                Err(Failure::MayPass(problem) | Failure::Final(problem)) => return Err(problem),
            }
        }
    }

    fn try_to_fetch(&self, file: &str) -> Result<String, Failure> {
        let metadata = self.api.metadata(&self.repository.url(file)).map_err(|error| self.failure(file, error))?;
        let (commit, etag, size) = (metadata.commit_hash().to_owned(), metadata.etag(), metadata.size() as u64);
        // Both become names of files.
        if [&commit, etag].iter().any(|name| name.is_empty() || name.contains(['/', '\\']) || name.starts_with('.')) {
            return Err(Failure::Final(self.hub.network("its answer names no commit or file")));
        }
        let repository = self.hub.repository(self.name);
        let pointer = repository.join("snapshots").join(&commit).join(file);
        let blob = repository.join("blobs").join(etag);
        // Another revision may be of the same commit, or another commit have the same file.
        if pointer.exists() || fs::metadata(&blob).is_ok_and(|blob| blob.len() == size) {
            self.point_to(&blob, &pointer, &commit).map_err(|error| Failure::Final(self.io(&pointer, error)))?;
            return Ok(commit);
        }
        let partial = blob.with_extension("part");
        // Whole and not renamed, or more than whole: there is nothing to ask the hub for.
        if fs::metadata(&partial).is_ok_and(|part| part.len() >= size) {
            fs::remove_file(&partial).map_err(|error| Failure::Final(self.io(&partial, error)))?;
        }
        self.receive(file, size)?;
        let is_sha256 = etag.len() == 64 && etag.chars().all(|c| c.is_ascii_hexdigit());
        let is_whole = fs::metadata(&blob).is_ok_and(|blob| blob.len() == size)
            && (!is_sha256 || file_sha256(&blob).is_ok_and(|sum| sum == etag));
        if is_whole {
            return Ok(commit);
        }
        for path in [&pointer, &blob] {
            fs::remove_file(path).map_err(|error| Failure::Final(self.io(path, error)))?;
        }
        Err(Failure::Final(HubProblem::WrongSum { file: file.to_owned() }))
    }

    /// Receives a file in a thread of its own, which is left behind when nothing comes.
    fn receive(&self, file: &str, size: u64) -> Result<(), Failure> {
        let (heard, hears) = mpsc::channel();
        let (end, ends) = mpsc::channel();
        let watched = Watched { file: file.to_owned(), done: 0, total: size, heard };
        let repository = self.api.repo(self.repo.clone());
        let name = file.to_owned();
        std::thread::spawn(move || end.send(repository.download_with_progress(&name, watched).map(drop)));
        loop {
            match hears.recv_timeout(PATIENCE) {
                Ok(()) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let problem = format!("no data received for {} seconds", PATIENCE.as_secs());
                    return Err(Failure::Final(self.hub.network(problem)));
                }
            }
        }
        let lost = || Failure::Final(self.hub.network("the download ended unexpectedly"));
        ends.recv().map_err(|_| lost())?.map_err(|error| self.failure(file, error))
    }

    /// Has the cache know that a revision is of a commit, and the commit that a file is a blob.
    fn point_to(&self, blob: &Path, pointer: &Path, commit: &str) -> std::io::Result<()> {
        if self.name.revision != commit {
            Cache::new(self.hub.cache.clone()).repo(self.repo.clone()).create_ref(commit)?;
        }
        if pointer.exists() {
            return Ok(());
        }
        fs::create_dir_all(pointer.parent().unwrap_or(pointer))?;
        #[cfg(unix)]
        {
            let name = blob.file_name().unwrap_or_default();
            std::os::unix::fs::symlink(Path::new("../../blobs").join(name), pointer)
        }
        #[cfg(not(unix))]
        fs::copy(blob, pointer).map(drop)
    }

    fn failure(&self, file: &str, error: ApiError) -> Failure {
        let network = |problem: &dyn ToString| self.hub.network(problem.to_string());
        match error {
            ApiError::RequestError(error) => match *error {
                ureq::Error::StatusCode(404) => Failure::NotFound,
                ureq::Error::StatusCode(status @ (401 | 403)) => Failure::Final(HubProblem::Refused { status }),
                ureq::Error::StatusCode(status @ (408 | 429 | 500..)) => {
                    Failure::MayPass(network(&format!("status {status}")))
                }
                // Not: no such host, nobody who listens there.
                ureq::Error::Io(error) if is_cut(&error) => Failure::MayPass(network(&error)),
                error @ ureq::Error::Timeout(_) => Failure::MayPass(network(&error)),
                error => Failure::Final(network(&error)),
            },
            ApiError::IoError(error) => self.of_io(error),
            ApiError::LockAcquisition(_) => Failure::Final(HubProblem::Busy { file: file.to_owned() }),
            error => Failure::Final(network(&error)),
        }
    }

    /// What is written and what is read fail alike.
    fn of_io(&self, error: std::io::Error) -> Failure {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                Failure::Final(HubProblem::NoRoom { cache: self.hub.cache.clone(), problem: error })
            }
            ErrorKind::PermissionDenied
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::NotADirectory
            | ErrorKind::AlreadyExists
            | ErrorKind::NotFound => Failure::Final(self.io(&self.hub.cache, error)),
            _ => Failure::MayPass(self.hub.network(error)),
        }
    }

    fn io(&self, path: &Path, source: std::io::Error) -> HubProblem {
        HubProblem::Cache { path: PathBuf::from(path), source }
    }
}

/// Whether a connection was there and broke.
fn is_cut(error: &std::io::Error) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof};
    [BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut, UnexpectedEof].contains(&error.kind())
}

/// Tells the watcher of a file's bytes.
struct Watched {
    file: String,
    done: u64,
    total: u64,
    /// Whoever waits for it.
    heard: mpsc::Sender<()>,
}

impl Progress for Watched {
    fn init(&mut self, size: usize, _: &str) {
        (self.done, self.total) = (0, size as u64);
    }

    fn update(&mut self, size: usize) {
        self.done += size as u64;
        let _ = self.heard.send(());
        if let Some(watcher) = WATCHER.get().filter(|_| size > 0) {
            watcher(&self.file, self.done, self.total);
        }
    }

    fn finish(&mut self) {}
}
