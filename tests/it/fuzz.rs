//! Damaged files of every kind: a reader may refuse them or take them, but not panic, hang or ask for much memory.
//!
//! Good files are changed at random, again and again. `LATENTR3_FUZZ_INPUTS` says how many times for each kind (200 if it
//! is not set), `LATENTR3_FUZZ_SEED` with which seed. A failure names both, so that it can be had again.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::common::program::{GRPO, SFT, Workshop, run, succeed};
use flate2::Compression;
use flate2::write::GzEncoder;
use latentr3::data::list_cell::{parse_ids, parse_integers, parse_strings};
use latentr3::data::{
    Interactions, Prepared, PromptTemplate, RawConfig, ReadOptions, TokenFile, encode, load_tokenizer,
};
use latentr3::eval::EvaluationResult;
use latentr3::golden::Golden;
use latentr3::models::hub::read_tensors;
use latentr3::models::random::generator;
use latentr3::models::sasrec::{SasRec, SasRecConfig};
use latentr3::models::{LatentRecommender, device, hub};
use latentr3::train::{AdamWConfig, RunFolder};
use rand::{Rng, RngExt};
use serde_json::json;

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

fn options() -> ReadOptions {
    ReadOptions { max_history: 10, allow_empty_titles: false, raw: RawConfig { k_core: Some(1), ..Default::default() } }
}

#[test]
fn list_cells() {
    for cell in [r#"['a', "it's", 'q\'s \x41 \u00e9 \n', 'last',]"#, "[1, 2.0, -3, 40]"] {
        fuzz("list cells", cell.as_bytes(), |bytes| {
            let text = String::from_utf8_lossy(bytes);
            let _ = (parse_strings(&text), parse_integers(&text), parse_ids(&text));
        });
    }
}

#[test]
fn split_tables() {
    for file in ["train.csv", "test.csv", "info.txt"] {
        let (_copy, folder) = copy_of("data");
        fuzz_file("split tables", &folder.join(file), || drop(Interactions::read(&folder, &options())));
    }
    let semantic = "user_id,history_item_title,item_title,history_item_id,item_id,history_item_sid,item_sid\n\
                    u,\"['A', \"\"B's\"\"]\",C,\"[0, 1]\",2,\"['<a_1>', '<a_2>']\",<a_3>\n";
    let folder = tempfile::tempdir().unwrap();
    for split in ["train.csv", "valid.csv", "test.csv"] {
        fs::write(folder.path().join(split), semantic).unwrap();
    }
    fs::write(folder.path().join("info.txt"), "<a_1>\tA\t0\n<a_2>\tB's\t1\n<a_3>\tC\t2\n").unwrap();
    for file in ["train.csv", "info.txt"] {
        let path = folder.path().join(file);
        fuzz_file("semantic tables", &path, || drop(Interactions::read(folder.path(), &options())));
    }
}

#[test]
fn raw_interactions() {
    let rows = |line: &dyn Fn(usize) -> String| (0..12).map(|at| line(at) + "\n").collect::<String>();
    let pack = |text: &str| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let csv = "user_id,item_id,title,timestamp,rating\n".to_owned()
        + &rows(&|at| format!("u{},i{},\"Title, {at}\",2024-03-{:02},4.5", at % 3, at % 5, at + 1));
    let json = rows(&|at| {
        format!(
            r#"{{"user_id": "u{}", "parent_asin": "i{}", "title": "T\u00e9 {at}", "timestamp": {}, "x": [1, {{}}]}}"#,
            at % 3,
            at % 5,
            1_500_000_000_000u64 + at as u64
        )
    });
    let tsv = csv.replace(',', "\t");
    for (name, content) in [
        ("a.csv", csv.clone().into_bytes()),
        ("a.tsv", tsv.into_bytes()),
        ("a.jsonl", json.clone().into_bytes()),
        ("a.csv.gz", pack(&csv)),
        ("a.jsonl.gz", pack(&json)),
        ("a.parquet", parquet_file()),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        fuzz_file("raw files", &path, || drop(Interactions::read(&path, &options())));
    }
    let folder = tempfile::tempdir().unwrap();
    let files = [
        (
            "toy.inter",
            "user_id:token\titem_id:token\ttimestamp:float\n".to_owned()
                + &rows(&|at| format!("u{}\ti{}\t{at}", at % 3, at % 5)),
        ),
        ("toy.item", "item_id:token\ttitle:token_seq\n".to_owned() + &rows(&|at| format!("i{at}\tTitle {at}"))),
    ];
    for (name, content) in &files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    for (name, _) in &files {
        fuzz_file("atomic files", &folder.path().join(name), || drop(Interactions::read(folder.path(), &options())));
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("ratings.dat"), rows(&|at| format!("u{}::i{}::5::{at}", at % 3, at % 5))).unwrap();
    fs::write(folder.path().join("movies.dat"), rows(&|at| format!("i{at}::Film {at} (1995)::Drama"))).unwrap();
    for name in ["ratings.dat", "movies.dat"] {
        fuzz_file("MovieLens", &folder.path().join(name), || drop(Interactions::read(folder.path(), &options())));
    }
}

fn parquet_file() -> Vec<u8> {
    use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
    use parquet::file::writer::SerializedFileWriter;
    let schema = "message rows { required binary user_id (UTF8); required binary item_id (UTF8); required binary title (UTF8); required int64 timestamp; }";
    let schema = std::sync::Arc::new(parquet::schema::parser::parse_message_type(schema).unwrap());
    let mut file = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut file, schema, Default::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for prefix in ["u", "i", "Title "] {
        let values: Vec<ByteArray> = (0..12).map(|at| format!("{prefix}{}", at % 5).as_str().into()).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
    }
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&(0..12).collect::<Vec<_>>(), None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    file
}

#[test]
fn models() {
    let (_copy, folder) = copy_of("sft/best");
    fs::remove_file(folder.join("SHA256SUMS")).unwrap();
    let flex = device("flex").unwrap();
    for file in ["config.json", "model.safetensors"] {
        fuzz_file("models", &folder.join(file), || drop(hub::load(&folder, &flex)));
    }
    let (_copy_with_adapter, with_adapter) = copy_of("adapted/best");
    fs::remove_file(with_adapter.join("SHA256SUMS")).unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        fuzz_file("adapters", &with_adapter.join(file), || drop(hub::load(&with_adapter, &flex)));
    }
    fuzz_file("tokenizers", &folder.join("tokenizer.json"), || {
        if let Ok(tokenizer) = load_tokenizer(&folder.join("tokenizer.json")) {
            let _ = encode(&tokenizer, "Some title, and “another” one");
        }
    });
    // Mostly its header, which is a small part of the file.
    let path = folder.join("model.safetensors");
    let whole = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    fuzz("safetensors headers", &whole[..header], |bytes| {
        fs::write(&path, [bytes, &whole[header..]].concat()).unwrap();
        let _ = hub::load(&folder, &flex);
    });
    fs::write(&path, whole).unwrap();
    let names: BTreeMap<String, &str> =
        read_tensors(&path).unwrap().into_keys().map(|name| (name, "a.safetensors")).collect();
    let index = json!({"metadata": {"total_size": 1}, "weight_map": names});
    let sharded = folder.join("model.safetensors.index.json");
    fs::rename(&path, folder.join("a.safetensors")).unwrap();
    fs::write(&sharded, index.to_string()).unwrap();
    hub::load(&folder, &flex).unwrap();
    fuzz_file("indices", &sharded, || drop(hub::load(&folder, &flex)));
    let folder = tempfile::tempdir().unwrap();
    let sizes = SasRecConfig { d_model: 8, d_ff: 8, ..SasRecConfig::new(12, 4) };
    SasRec::new(sizes, 0, &flex).unwrap().save(folder.path()).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fuzz_file("SASRec", &folder.path().join(file), || drop(SasRec::load(folder.path(), &flex)));
    }
}

#[test]
fn token_files() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokens.jsonl");
    let rows = "{\"catalog\": [[5, 6, 0], [8, 0]], \"eos\": 0}\n{\"prompt\": [1, 2], \"target\": [8, 0]}\n";
    fs::write(&path, rows).unwrap();
    fuzz_file("token files", &path, || drop(TokenFile::read(&path)));
}

#[test]
fn results_of_evaluations() {
    let w = workshop();
    let (data, folder) = (w.path("prepared"), tempfile::tempdir().unwrap());
    let json = folder.path().join("result.json");
    let path = json.to_str().unwrap();
    for shard in ["1/2", "1/1"] {
        let args = [
            "evaluate",
            "--model",
            &w.path("sft"),
            "--data",
            &data,
            "--split",
            "test",
            "--shard",
            shard,
            "--json",
            path,
        ];
        succeed(&args);
        fuzz("results", &fs::read(&json).unwrap(), |bytes| {
            if let Ok(result) = serde_json::from_slice::<EvaluationResult>(bytes) {
                let _ = EvaluationResult::merge(vec![result]);
            }
        });
    }
}

#[test]
fn golden_folders() {
    let folder = Path::new("tests/data/golden/qwen2");
    let copy = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "golden.json"] {
        fs::copy(folder.join(file), copy.path().join(file)).unwrap();
    }
    let flex = device("flex").unwrap();
    fuzz_file("golden folders", &copy.path().join("golden.json"), || drop(Golden::load(copy.path(), &flex)));
}

#[test]
fn prepared_folders() {
    let (_copy, folder) = copy_of("prepared");
    for file in ["dataset.json", "catalog.jsonl", "train.jsonl", "windows.jsonl", "template.txt", "tokenizer.json"] {
        fuzz_file("prepared folders", &folder.join(file), || drop(Prepared::load(&folder)));
    }
    fuzz("templates", b"People chose {history} of {domain}. Next:", |bytes| {
        let _ = PromptTemplate::parse(&String::from_utf8_lossy(bytes));
    });
}

#[test]
fn run_folders() {
    let flex = device("flex").unwrap();
    for kind in ["sft", "grpo"] {
        let (_copy, folder) = copy_of(kind);
        for checkpoint in ["last", "best"] {
            fs::remove_file(folder.join(checkpoint).join("SHA256SUMS")).unwrap();
        }
        let read = || {
            if let Ok(run) = RunFolder::open(&folder, Vec::new()) {
                let _ = run.newest::<LatentRecommender>(AdamWConfig::default(), &flex);
            }
        };
        for file in [
            "run.json",
            "lock",
            "metrics.jsonl",
            "last/progress.json",
            "last/optimizer.safetensors",
            "last/config.json",
        ] {
            fuzz_file("run folders", &folder.join(file), read);
        }
        let sums = workshop().bytes(&format!("{kind}/last/SHA256SUMS"));
        fs::write(folder.join("last/SHA256SUMS"), sums).unwrap();
        fuzz_file("checksums", &folder.join("last/SHA256SUMS"), read);
    }
}
