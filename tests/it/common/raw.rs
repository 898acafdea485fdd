//! Files of interactions for tests, and how they are read.

use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use latentr3::data::{Interactions, RawConfig, ReadOptions};

/// `text` as gzip packs it.
pub fn pack(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

/// Writes a file, packed where its name ends in `.gz`.
pub fn write(dir: &Path, name: &str, text: &str) {
    let content = if name.ends_with(".gz") { pack(text) } else { text.as_bytes().to_vec() };
    fs::write(dir.join(name), content).unwrap();
}

pub fn options(raw: RawConfig) -> ReadOptions {
    ReadOptions { max_history: 3, allow_empty_titles: false, raw }
}

pub fn titles(data: &Interactions) -> Vec<&str> {
    data.catalog.items().iter().map(|item| item.title.as_str()).collect()
}
