use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::AtomicBool;

use tempfile::TempDir;

use super::*;
use crate::data::{PrepareConfig, RawConfig, prepare, prepare_unless};
use crate::models::ObjectiveKind;

const ITEM: &str = "item_id:token\ttitle:token_seq\n\
    a\tThe \"Best\" of 1999, Vol. 2\nb\tשלום 👋\nc\t<span class=\"x\nd\tKind of Blue\ne\tKind of Blue\n\
    f\tIt's {history}\ng\tNever chosen\n";

/// A RecBole data set of a few users and the config to prepare it with.
fn toy() -> (TempDir, PrepareConfig) {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("toy");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("toy.item"), ITEM).unwrap();
    let mut inter = String::from("user_id:token\titem_id:token\ttimestamp:float\n");
    for (user, items) in [("u", "abcdaf"), ("v", "bdbfae"), ("w", "acc"), ("x", "ab"), ("y", "dcbae")] {
        for (time, item) in items.chars().enumerate() {
            inter.push_str(&format!("{user}\t{item}\t{time}\n"));
        }
    }
    fs::write(data.join("toy.inter"), inter).unwrap();
    let config = PrepareConfig {
        data,
        out: dir.path().join("out"),
        domain: "records".into(),
        vocab_size: 300,
        window: 3,
        raw: RawConfig { clean_titles: false, ..RawConfig::default() },
        ..PrepareConfig::default()
    };
    (dir, config)
}

fn prepared(change: impl FnOnce(&mut PrepareConfig)) -> Prepared {
    let (_dir, mut config) = toy();
    change(&mut config);
    let summary = prepare(&config).unwrap();
    let prepared = Prepared::load(&config.out).unwrap();
    assert_eq!(prepared.summary, summary);
    prepared
}

fn prepare_error(change: impl FnOnce(&mut PrepareConfig)) -> String {
    let (dir, mut config) = toy();
    change(&mut config);
    let error = prepare(&config).unwrap_err().to_string();
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with(".out")), "{left:?}");
    error
}

fn files_of(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read(path).unwrap())).collect()
}

#[test]
fn examples_spell_the_prompt_and_the_target() {
    let data = prepared(|_| ());
    for split in Split::ALL {
        for (row, example) in data.rows.get(split).iter().zip(data.examples(split)) {
            let titles: Vec<_> = row.history.iter().map(|&item| data.catalog.title(item)).collect();
            let text = data.tokenizer.decode(&example.prompt, false).unwrap();
            assert_eq!(text, data.template.fill("records").render(&titles));
            let target = data.tokenizer.decode(&example.target, false).unwrap();
            assert_eq!(target, format!("\"{}\"\n<|endoftext|>", data.catalog.title(row.item)));
            assert_eq!(example.item, row.item);
        }
    }
    assert_eq!((data.rows.train.len(), data.rows.valid.len(), data.rows.test.len()), (9, 4, 4));
    assert_eq!((data.end_token, data.vocab_size), (0, data.tokenizer.get_vocab_size(true)));
}

#[test]
fn summary_counts_what_is_there() {
    let summary = prepared(|_| ()).summary.clone();
    assert_eq!((summary.users, summary.items, summary.titles), (5, 6, 5));
    assert_eq!((summary.shared_titles, summary.items_with_shared_title, summary.markup_titles), (1, 2, 1));
    let test = &summary.splits.test;
    // `e` is tested for two users and trained for none.
    assert_eq!((test.rows, test.users, test.cold_targets, test.cold_share), (4, 4, 2, 0.5));
    assert_eq!((summary.splits.train.history.min, summary.splits.train.history.max), (1, 3));
    assert_eq!(summary.notes.users_without_test, 1);
}

#[test]
fn windows_hold_every_training_choice_once() {
    let data = prepared(|_| ());
    let (train, valid) = data.windows(ObjectiveKind::Vocabulary);
    assert_eq!((train.len(), valid.len()), (data.summary.windows.train, data.summary.windows.valid));
    assert!(!valid.is_empty());
    let mut choices = 0;
    for window in train.iter().chain(&valid) {
        let head = data.tokenizer.decode(&window.prompt, false).unwrap();
        assert!(head.ends_with("Record:\n"), "{head}");
        let list = data.tokenizer.decode(&window.target, true).unwrap();
        assert!(list.ends_with(&format!("\"{}\"\n", data.catalog.title(window.item))), "{list}");
        assert_eq!(window.target.iter().filter(|&&token| token == data.end_token).count(), 1);
        choices += list.matches("\"\n").count();
    }
    // With the catalog's objective each title has its end token.
    let objective = data.objective(ObjectiveKind::Catalog).unwrap();
    let (train, valid) = data.windows(ObjectiveKind::Catalog);
    let titles = |window: &Example| objective.size(&window.target).unwrap().titles;
    assert_eq!(train.iter().chain(&valid).map(titles).sum::<usize>(), choices);
    // u: abcd, v: bdbf, x: ab, y: dcb; w's only training interaction has no row.
    // Items in the order in which they are first chosen: a, b, c, d, f, e.
    assert_eq!(data.train_counts(), [2, 5, 2, 3, 1, 0]);
    assert_eq!(choices, 13);
}

#[test]
fn items_with_markup_titles_leave_when_asked() {
    let data = prepared(|config| config.drop_markup_titles = true);
    assert_eq!((data.catalog.len(), data.catalog.position("c")), (5, None));
    assert_eq!((data.summary.markup_titles, data.summary.dropped.markup_items), (1, 1));
    assert_eq!(data.summary.dropped.rows_by_item.test, 1);
    assert!(data.catalog.items().iter().all(|item| !item.title.contains("span")));
}

#[test]
fn same_input_gives_same_bytes_and_fingerprint_wherever_it_lies() {
    let fingerprints: Vec<_> = (0..2)
        .map(|_| {
            let (_dir, config) = toy();
            prepare(&config).unwrap();
            (files_of(&config.out), Prepared::load(&config.out).unwrap().fingerprint())
        })
        .collect();
    assert_eq!(fingerprints[0], fingerprints[1]);
    assert_ne!(prepared(|config| config.domain = "books".into()).fingerprint(), fingerprints[0].1);
}

#[test]
fn the_written_tokenizer_prepares_the_same_tokens() {
    let (_dir, mut config) = toy();
    prepare(&config).unwrap();
    let first = Prepared::load(&config.out).unwrap();
    config.tokenizer = Some(config.out.join("tokenizer.json"));
    config.out = config.out.with_file_name("again");
    prepare(&config).unwrap();
    let again = Prepared::load(&config.out).unwrap();
    assert_eq!(again.item_tokens, first.item_tokens);
    assert_eq!(again.rows, first.rows);
}

#[test]
fn titles_given_later_make_the_prompt_of_preparation() {
    let data = prepared(|config| config.max_history = 2);
    for row in &data.rows.test {
        let titles: Vec<_> = row.history.iter().map(|&item| data.catalog.title(item).to_owned()).collect();
        assert_eq!(titles.len(), 2);
        let longer: Vec<_> = std::iter::once("older".to_owned()).chain(titles).collect();
        assert_eq!(data.prompt_for_titles(&longer).unwrap(), row.prompt);
    }
    assert!(matches!(data.prompt_for_titles(&[]), Err(DataError::NoTitles)));
    assert!(matches!(data.prompt_for_titles(&["x".repeat(5000)]), Err(DataError::TooLong { .. })));
}

#[test]
fn prompts_are_shortened_by_whole_titles_and_counted() {
    let (_dir, mut config) = toy();
    let template = config.data.with_file_name("t.txt");
    fs::write(&template, "H:{history}\n").unwrap();
    (config.template, config.max_tokens, config.vocab_size) = (Some(template), 40, 257);
    let summary = prepare(&config).unwrap();
    let data = Prepared::load(&config.out).unwrap();
    let mut shortened = 0;
    for row in &data.rows.train {
        let text = data.tokenizer.decode(&row.prompt, false).unwrap();
        let titles: Vec<_> = row.history.iter().map(|&item| data.catalog.title(item)).collect();
        let prompt = data.template.fill("");
        let kept = (1..=titles.len()).find(|&count| prompt.render(&titles[titles.len() - count..]) == text);
        shortened += usize::from(kept.unwrap() < titles.len());
        assert!(row.prompt.len() <= 40);
    }
    assert_eq!(summary.splits.train.shortened_prompts, shortened);
    assert!(shortened > 0);
}

#[test]
fn settings_that_cannot_work_are_refused_and_leave_nothing() {
    for (setting, change) in [
        ("max_history", (|config| config.max_history = 0) as fn(&mut PrepareConfig)),
        ("max_tokens", |config| config.max_tokens = 0),
        ("window", |config| config.window = 0),
        ("vocab_size", |config| config.vocab_size = 256),
        ("out", |config| config.out = "..".into()),
        ("end token", |config| config.end_token = Some("<stop>".into())),
        ("toy.inter, line 3 (user u): the prompt with only the newest title takes", |config| config.max_tokens = 20),
        ("raise the limit or shorten the title", |config| config.max_tokens = 20),
        ("item `a`", |config| config.end_token = Some("9".into())),
        ("contains the end token `9`", |config| config.end_token = Some("9".into())),
    ] {
        let error = prepare_error(change);
        assert!(error.contains(setting), "{setting}: {error}");
    }
    for (template, wanted) in
        [("{history}", "some text before"), ("none", "0 times"), ("a{history}{history}", "2 times")]
    {
        let error = prepare_error(|config| {
            let file = config.data.with_file_name("t.txt");
            fs::write(&file, template).unwrap();
            config.template = Some(file);
        });
        assert!(error.contains("t.txt: ") && error.contains(wanted), "{error}");
    }
}

#[test]
fn an_output_folder_with_content_is_left_alone() {
    let (_dir, config) = toy();
    fs::create_dir(&config.out).unwrap();
    fs::write(config.out.join("precious"), "x").unwrap();
    assert!(matches!(prepare(&config), Err(DataError::OutputExists { .. })));
    assert_eq!(files_of(&config.out).len(), 1);
    fs::remove_file(config.out.join("precious")).unwrap();
    prepare(&config).unwrap();
    assert!(matches!(prepare(&config), Err(DataError::OutputExists { .. })));
}

#[test]
fn who_stops_it_finds_nothing_left() {
    let (dir, config) = toy();
    let before = fs::read_dir(dir.path()).unwrap().count();
    assert!(matches!(prepare_unless(&config, &AtomicBool::new(true)), Err(DataError::Interrupted)));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), before);
}

#[test]
fn damaged_folders_are_refused() {
    let (_dir, config) = toy();
    prepare(&config).unwrap();
    let good = files_of(&config.out);
    let load_with = |name: &str, content: Option<&[u8]>| {
        let path = config.out.join(name);
        match content {
            Some(content) => fs::write(&path, content).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let loaded = Prepared::load(&config.out);
        fs::write(&path, &good[name]).unwrap();
        loaded
    };
    for (name, content) in &good {
        assert!(load_with(name, None).is_err(), "{name} missing");
        for damaged in [&b""[..], b"{", b"\xff", b"null\n", &content[..content.len() / 2]] {
            let loaded = load_with(name, Some(damaged));
            let error = loaded.err().map(|error| error.to_string()).unwrap_or_else(|| panic!("{name} loaded"));
            assert!(error.contains(name), "{error}");
        }
        if name.ends_with(".jsonl") {
            let last_line = content[..content.len() - 1].iter().rposition(|&byte| byte == b'\n').unwrap() + 1;
            let error = load_with(name, Some(&content[..last_line])).unwrap_err().to_string();
            assert!(error.contains("lines, but dataset.json records"), "{error}");
        }
    }
    for (name, line, wanted) in [
        ("train.jsonl", r#"{"user":"u","history":[7],"item":0,"prompt":[1]}"#, "item 7 is outside"),
        ("train.jsonl", r#"{"user":"u","history":[0],"item":7,"prompt":[1]}"#, "item 7 is outside"),
        ("train.jsonl", r#"{"user":"u","history":[],"item":0,"prompt":[1]}"#, "no items"),
        ("train.jsonl", r#"{"user":"u","history":[0],"item":0,"prompt":[]}"#, "no tokens"),
        ("train.jsonl", r#"{"user":"u","history":[0],"item":0,"prompt":[300]}"#, "token 300 is outside"),
        ("train.jsonl", r#"{"user":"u","history":[0],"item":-1,"prompt":[1]}"#, "invalid value"),
        ("catalog.jsonl", r#"{"id":"a","title":"A","tokens":[1]}"#, "end token 0 must be last"),
        ("catalog.jsonl", r#"{"id":"a","title":"A","tokens":[0,0]}"#, "end token 0 must be last"),
        ("windows.jsonl", r#"{"split":"test","items":[0]}"#, "must be for training or validation"),
        ("windows.jsonl", r#"{"split":"train","items":[]}"#, "no items"),
    ] {
        let content = String::from_utf8(good[name].clone()).unwrap();
        let (_, rest) = content.split_once('\n').unwrap();
        let error = load_with(name, Some(format!("{line}\n{rest}").as_bytes())).unwrap_err().to_string();
        assert!(error.contains(&format!("{name}, line 1: ")) && error.contains(wanted), "{error}");
    }
    let dataset = String::from_utf8(good["dataset.json"].clone()).unwrap();
    let newer = dataset.replace("\"format\": 3", "\"format\": 4");
    let error = load_with("dataset.json", Some(newer.as_bytes())).unwrap_err().to_string();
    assert!(error.contains("format 4, but this program reads format 3"), "{error}");
    assert!(Prepared::load(&config.out).is_ok());
}
