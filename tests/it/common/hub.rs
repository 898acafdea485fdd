//! A hub on this machine.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

/// Its one model, and the commit that its branch `main` and its tag `v1` are of.
pub const MODEL: &str = "org/tiny";
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What may go wrong.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    /// The token without which nothing is answered.
    pub token: Option<&'static str>,
    /// Large files lie elsewhere.
    pub redirects: bool,
    /// The SHA-256 of large files is another one.
    pub wrong_sum: bool,
    /// So many answers with a large file end after so many bytes.
    pub cuts: usize,
    pub cut_after: usize,
    /// So many requests are answered with status 503.
    pub refusals: usize,
}

/// A hub that serves one folder as a model.
pub struct TestHub {
    pub endpoint: String,
    faults: Arc<Mutex<Faults>>,
    /// The files asked for with their ranges, in order.
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl TestHub {
    pub fn start(folder: &Path, faults: Faults) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let hub = Self { endpoint, faults: Arc::new(Mutex::new(faults)), asked: Arc::default() };
        let (folder, faults, asked) = (folder.to_owned(), hub.faults.clone(), hub.asked.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (folder, faults, asked) = (folder.clone(), faults.clone(), asked.clone());
                std::thread::spawn(move || answer(&stream.unwrap(), &folder, &faults, &asked));
            }
        });
        hub
    }

    pub fn set(&self, faults: Faults) {
        *self.faults.lock().unwrap() = faults;
    }

    /// What was asked for since this was last called.
    pub fn asked(&self) -> Vec<(String, String)> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// Runs the program with this hub and a cache of its own.
    pub fn latentr3(&self, cache: &str, args: &[&str]) -> Output {
        self.command(cache).args(args).output().unwrap()
    }

    pub fn command(&self, cache: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_latentr3"));
        for variable in ["HF_TOKEN", "HF_HUB_OFFLINE"] {
            command.env_remove(variable);
        }
        command.env("HF_ENDPOINT", &self.endpoint).env("HF_HUB_CACHE", cache).env("HF_HOME", cache);
        command
    }
}

/// Answers one request after the other until the client goes.
fn answer(stream: &TcpStream, folder: &Path, faults: &Mutex<Faults>, asked: &Mutex<Vec<(String, String)>>) {
    let mut lines = BufReader::new(stream).lines();
    while let Some(Ok(request)) = lines.next() {
        let headers: BTreeMap<String, String> = lines
            .by_ref()
            .map_while(Result::ok)
            .take_while(|line| !line.is_empty())
            .filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned())))
            .collect();
        let path = request.split(' ').nth(1).unwrap_or_default();
        let range = headers.get("range").cloned().unwrap_or_default();
        asked.lock().unwrap().push((path.rsplit('/').next().unwrap_or_default().to_owned(), range.clone()));
        let (port, who) = (stream.local_addr().unwrap().port(), headers.get("authorization"));
        let reply = reply(path, &range, port, who, folder, &mut faults.lock().unwrap());
        if stream.try_clone().unwrap().write_all(&reply.0).is_err() || reply.1 {
            return;
        }
    }
}

/// A whole answer, and whether the connection ends there.
fn reply(
    path: &str,
    range: &str,
    port: u16,
    who: Option<&String>,
    folder: &Path,
    faults: &mut Faults,
) -> (Vec<u8>, bool) {
    let status = |status: &str| (format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes(), false);
    if faults.refusals > 0 {
        faults.refusals -= 1;
        return status("503 Service Unavailable");
    }
    let of_cdn = path.strip_prefix("/cdn/");
    if of_cdn.is_none() && faults.token.is_some_and(|token| who != Some(&format!("Bearer {token}"))) {
        return status("401 Unauthorized");
    }
    let resolved = ["main", "v1", COMMIT].iter().find_map(|r| path.strip_prefix(&format!("/{MODEL}/resolve/{r}/")));
    let Some(name) = of_cdn.or(resolved) else {
        return status("404 Not Found");
    };
    let file: PathBuf = folder.join(name);
    let Ok(bytes) = std::fs::read(&file) else {
        return status("404 Not Found");
    };
    let is_large = name.ends_with(".safetensors");
    let sum = latentr3::models::files::file_sha256(&file).unwrap();
    let etag = match (is_large, faults.wrong_sum) {
        (true, false) => sum,
        (true, true) => "0".repeat(64),
        (false, _) => format!("git{}", &sum[..37]),
    };
    let about = format!("ETag: \"{etag}\"\r\nX-Linked-Etag: \"{etag}\"\r\nX-Repo-Commit: {COMMIT}\r\n");
    if is_large && faults.redirects && of_cdn.is_none() {
        let elsewhere = format!("http://localhost:{port}/cdn/{name}");
        let head = format!("HTTP/1.1 302 Found\r\nLocation: {elsewhere}\r\n{about}Content-Length: 0\r\n\r\n");
        return (head.into_bytes(), false);
    }
    let (first, last) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')).unwrap_or(("0", ""));
    let (first, end) = (first.parse::<usize>().unwrap(), last.parse::<usize>().map_or(bytes.len(), |last| last + 1));
    if first >= bytes.len() {
        return status("416 Range Not Satisfiable");
    }
    let part = &bytes[first..end.min(bytes.len())];
    let content = format!("Content-Range: bytes {first}-{}/{}\r\n", first + part.len() - 1, bytes.len());
    let length = part.len();
    let head = format!("HTTP/1.1 206 Partial Content\r\n{about}{content}Content-Length: {length}\r\n\r\n");
    let is_cut = is_large && length > faults.cut_after && faults.cuts > 0;
    faults.cuts -= usize::from(is_cut);
    let sent = if is_cut { &part[..faults.cut_after] } else { part };
    ([head.as_bytes(), sent].concat(), is_cut)
}
