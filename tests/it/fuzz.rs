//! Damaged files of every kind: a reader may refuse them or take them, but not panic, hang or ask for much memory.
//!
//! Good files are changed at random, again and again. `LATENTR3_FUZZ_INPUTS` says how many times for each kind (200 if
//! it is not set), `LATENTR3_FUZZ_SEED` with which seed. A failure names both, so that it can be had again.

mod data;
mod models_and_runs;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::common::program::{GRPO, SFT, Workshop, run};
use latentr3::models::random::generator;
use rand::{Rng, RngExt};

/// What trips readers.
const PIECES: [&[u8]; 30] = [
    b"[",
    b"]",
    b"{",
    b"}",
    b"\"",
    b"'",
    b"\\",
    b",",
    b":",
    b"\n",
    b"\r\n",
    b"\t",
    b"\0",
    b"::",
    b"<",
    b"&amp;",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\\ud800",
    b"\\N{DIGIT ONE}",
    b"NaN",
    b"-1",
    b"1e999",
    b"18446744073709551616",
    b"4294967295",
    b"null",
    b"true",
    b"[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":{\"a\":",
    b"\xe2\x80\xae",
];

/// Longest time that a reader may take for one of these small files.
const PATIENCE: Duration = Duration::from_secs(20);

/// Virtual memory that may be added by all inputs together, in KiB.
const MOST_MEMORY: u64 = 1 << 20;

fn inputs() -> u64 {
    std::env::var("LATENTR3_FUZZ_INPUTS").map_or(200, |count| count.parse().unwrap())
}

fn seed() -> u64 {
    std::env::var("LATENTR3_FUZZ_SEED").map_or(0, |seed| seed.parse().unwrap())
}

/// The content, changed in a few places.
fn damaged(content: &[u8], random: &mut impl Rng) -> Vec<u8> {
    let mut bytes = content.to_vec();
    for _ in 0..random.random_range(1..=6) {
        let at = random.random_range(0..=bytes.len());
        let end = (at + random.random_range(0..40usize)).min(bytes.len());
        match random.random_range(0..9) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = random.random(),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            4 => bytes.truncate(at),
            5 => {
                let noise: Vec<u8> = (0..random.random_range(1..20)).map(|_| random.random()).collect();
                bytes.splice(at..at, noise);
            }
            6 => {
                // A number elsewhere.
                let digits = bytes[at..].iter().position(u8::is_ascii_digit).map(|place| at + place);
                if let Some(start) = digits {
                    let length = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
                    let numbers: [&[u8]; 7] = [b"0", b"-1", b"1e308", b"99999999999", b"4294967296", b"0.5", b"65536"];
                    bytes.splice(start..start + length, numbers[random.random_range(0..7)].iter().copied());
                }
            }
            _ => {
                let piece = PIECES[random.random_range(0..PIECES.len())];
                let times = if random.random_range(0..20) == 0 { 300 } else { 1 };
                bytes.splice(at..at, piece.repeat(times));
            }
        }
    }
    bytes
}

/// Peak of the process's virtual memory in KiB, where the system says.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

/// Ends the program if one input takes too long.
fn watch(kind: &'static str, number: &'static AtomicU64) {
    std::thread::spawn(move || {
        let (mut last, mut since) = (u64::MAX, Instant::now());
        loop {
            std::thread::sleep(Duration::from_millis(500));
            let now = number.load(Ordering::Relaxed);
            if now == u64::MAX {
                return;
            }
            if now != last {
                (last, since) = (now, Instant::now());
            } else if since.elapsed() > PATIENCE {
                eprintln!("{kind}: input {now} of seed {} hangs", seed());
                std::process::abort();
            }
        }
    });
}

/// Gives `read` the content, changed in as many ways as asked.
fn fuzz(kind: &'static str, content: &[u8], mut read: impl FnMut(&[u8])) {
    let number: &'static AtomicU64 = Box::leak(Box::new(AtomicU64::new(0)));
    read(content);
    let before = peak_memory();
    watch(kind, number);
    let clock = Instant::now();
    for input in 0..inputs() {
        number.store(input, Ordering::Relaxed);
        let mut random = generator([seed(), input, content.len() as u64, 0]);
        let bytes = damaged(content, &mut random);
        if catch_unwind(AssertUnwindSafe(|| read(&bytes))).is_err() {
            panic!("{kind}: input {input} of seed {} panics: {}", seed(), String::from_utf8_lossy(&bytes));
        }
        if input % 64 == 0 || input + 1 == inputs() {
            let added = peak_memory().saturating_sub(before);
            assert!(added < MOST_MEMORY, "{kind}: up to input {input} of seed {}, {added} KiB were asked for", seed());
        }
    }
    number.store(u64::MAX, Ordering::Relaxed);
    println!("{kind}: {} inputs in {:.1} s", inputs(), clock.elapsed().as_secs_f64());
}

/// Like [`fuzz`] for one file of a folder; the others stay as they are.
fn fuzz_file(kind: &'static str, path: &Path, mut read: impl FnMut()) {
    let content = fs::read(path).unwrap();
    fuzz(kind, &content, |bytes| {
        fs::write(path, bytes).unwrap();
        read();
    });
    fs::write(path, content).unwrap();
}

/// A workshop with a run of both stages, made once.
fn workshop() -> &'static Workshop {
    static WORKSHOP: OnceLock<Workshop> = OnceLock::new();
    WORKSHOP.get_or_init(|| {
        let w = Workshop::new();
        run(&w.train("sft", "base", "sft", &[&SFT[..], &["--max-steps", "2"]].concat()));
        run(&w.train("sft", "base", "adapted", &[&SFT[..], &["--max-steps", "2", "--lora-rank", "2"]].concat()));
        run(&w.train("grpo", "sft", "grpo", &[&GRPO[..], &["--max-steps", "2"]].concat()));
        w
    })
}

fn copy_of(folder: &str) -> (tempfile::TempDir, PathBuf) {
    let copy = tempfile::tempdir().unwrap();
    let mut open = vec![(PathBuf::from(workshop().path(folder)), copy.path().join("copy"))];
    while let Some((from, to)) = open.pop() {
        fs::create_dir(&to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            let target = to.join(entry.file_name());
            match entry.file_type().unwrap().is_dir() {
                true => open.push((entry.path(), target)),
                false => drop(fs::copy(entry.path(), target).unwrap()),
            }
        }
    }
    let path = copy.path().join("copy");
    (copy, path)
}
