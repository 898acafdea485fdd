//! Interactions as they are collected, in every form that is understood, from the files to a trained model.

#[path = "common/program.rs"]
mod program;

use std::fmt::Write;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use latentr3::data::{Interactions, Layout, RawConfig, ReadOptions, Repeats, Row, SplitKind};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use program::{init_small, succeed};
use serde_json::Value;

const START: i64 = 1_400_000_000;

/// User, item, rating and time of 96 interactions: every item has at least five.
fn events() -> Vec<(String, String, i64, i64)> {
    let event = |user: i64, at: i64| {
        (
            format!("U{user}"),
            format!("B{:03}", (user + at * 3) % 10),
            1 + (user + at) % 5,
            START + at * 100_000 + user * 1000,
        )
    };
    (0..12).flat_map(|user| (0..8).map(move |at| event(user, at))).collect()
}

fn title(item: usize) -> String {
    format!("Title, \"number\" {item}")
}

fn items() -> Vec<(String, String)> {
    (0..10).map(|item| (format!("B{item:03}"), title(item))).collect()
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

/// Lines of each interaction and each item, after a first line.
fn lines<T>(first: &str, rows: Vec<T>, line: impl Fn(T) -> String) -> String {
    rows.into_iter().fold(first.to_owned(), |mut text, row| {
        writeln!(text, "{}", line(row)).unwrap();
        text
    })
}

fn pack(text: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn write(dir: &Path, name: &str, text: &str) {
    let content = if name.ends_with(".gz") { pack(text) } else { text.as_bytes().to_vec() };
    fs::write(dir.join(name), content).unwrap();
}

/// Columns of text and of whole numbers as a Parquet file.
fn write_parquet(path: PathBuf, texts: &[(&str, Vec<String>)], numbers: &[(&str, Vec<i64>)]) {
    let text_columns = texts.iter().map(|(name, _)| format!("required binary {name} (UTF8);"));
    let number_columns = numbers.iter().map(|(name, _)| format!("required int64 {name};"));
    let schema = format!("message rows {{ {} }}", text_columns.chain(number_columns).collect::<String>());
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let mut writer = SerializedFileWriter::new(fs::File::create(path).unwrap(), schema, Default::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for (_, values) in texts {
        let values: Vec<ByteArray> = values.iter().map(|value| value.as_str().into()).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
    }
    for (_, values) in numbers {
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(values, None, None).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
}

/// A form of data: writes it into a folder and returns what to say to `prepare` besides.
type Form = (&'static str, fn(&Path) -> Vec<String>);

const FORMS: [Form; 10] = [
    ("amazon-2018", |dir| {
        let review = |(user, item, rating, time): (String, String, i64, i64)| {
            format!(
                r#"{{"overall": {rating}.0, "verified": true, "reviewerID": "{user}", "asin": "{item}", "style": {{"a": "b"}}, "reviewText": "so \"good\"", "unixReviewTime": {time}}}"#
            )
        };
        write(dir, "CDs_5.json.gz", &lines("", events(), review));
        let meta = |(id, title): (String, String)| {
            serde_json::json!({"category": ["x", "y"], "title": title, "asin": id}).to_string()
        };
        write(dir, "meta_CDs.json.gz", &lines("", items(), meta));
        vec![]
    }),
    ("amazon-2023", |dir| {
        let review = |(user, item, rating, time): (String, String, i64, i64)| {
            format!(
                r#"{{"rating": {rating}.0, "title": "Nice", "text": "", "images": [], "asin": "V{item}", "parent_asin": "{item}", "user_id": "{user}", "timestamp": {time}123}}"#
            )
        };
        write(dir, "CDs.jsonl.gz", &lines("", events(), review));
        let meta = |(id, title): (String, String)| {
            serde_json::json!({"main_category": "x", "title": title, "features": [], "parent_asin": id}).to_string()
        };
        write(dir, "meta_CDs.jsonl.gz", &lines("", items(), meta));
        vec![]
    }),
    ("amazon-2023-ratings", |dir| {
        let row =
            |(user, item, rating, time): (String, String, i64, i64)| format!("{user},{item},{rating}.0,{time}000");
        write(dir, "CDs.csv.gz", &lines("user_id,parent_asin,rating,timestamp\n", events(), row));
        let meta = |(id, title): (String, String)| serde_json::json!({"title": title, "parent_asin": id}).to_string();
        write(dir, "meta_CDs.jsonl", &lines("", items(), meta));
        vec![]
    }),
    ("csv", |dir| {
        let row = |(user, item, _, time): (String, String, i64, i64)| {
            let title = title(item[1..].parse().unwrap());
            format!("{},{item},{user},{}", time, quoted(&title))
        };
        write(dir, "purchases.csv", &lines("When,Article,Customer,What\n", events(), row));
        ["--user-column", "Customer", "--item-column", "Article", "--time-column", "When", "--title-column", "What"]
            .map(str::to_owned)
            .into()
    }),
    ("tsv", |dir| {
        let row = |(user, item, rating, time): (String, String, i64, i64)| format!("{user}\t{item}\t{rating}\t{time}");
        write(dir, "events.tsv", &lines("user\titem\trating\ttime\n", events(), row));
        let item = |(id, title): (String, String)| format!("{id}\t{}", quoted(&title));
        write(dir, "products.tsv", &lines("item\tname\n", items(), item));
        vec!["--min-rating".into(), "1".into()]
    }),
    ("json-lines", |dir| {
        let row = |(user, item, _, time): (String, String, i64, i64)| {
            serde_json::json!({"user_id": user, "item_id": item, "time": time, "title": title(item[1..].parse().unwrap())}).to_string()
        };
        write(dir, "log.jsonl", &lines("", events(), row));
        vec![]
    }),
    ("parquet", |dir| {
        let column = |pick: fn((String, String, i64, i64)) -> String| events().into_iter().map(pick).collect();
        let times = events().into_iter().map(|(.., time)| time * 1000).collect();
        let texts = [("user_id", column(|(user, ..)| user)), ("item_id", column(|(_, item, ..)| item))];
        write_parquet(dir.join("events.parquet"), &texts, &[("timestamp", times)]);
        let (ids, titles) = items().into_iter().unzip();
        write_parquet(dir.join("items.parquet"), &[("item_id", ids), ("title", titles)], &[]);
        vec![]
    }),
    ("movielens-1m", |dir| {
        let row = |(user, item, rating, time): (String, String, i64, i64)| format!("{user}::{item}::{rating}::{time}");
        write(dir, "ratings.dat", &lines("", events(), row));
        let mut movies = Vec::new();
        for (id, title) in items() {
            movies.extend(format!("{id}::{title} Mis").bytes());
            // Latin-1, as in the published files.
            movies.extend([0xe9, b'r', b':', b':', b'X', b'\n']);
        }
        fs::write(dir.join("movies.dat"), movies).unwrap();
        vec![]
    }),
    ("movielens-csv", |dir| {
        let row = |(user, item, rating, time): (String, String, i64, i64)| format!("{user},{item},{rating},{time}");
        write(dir, "ratings.csv", &lines("userId,movieId,rating,timestamp\n", events(), row));
        let movie = |(id, title): (String, String)| format!("{id},{},Drama", quoted(&title));
        write(dir, "movies.csv", &lines("movieId,title,genres\n", items(), movie));
        write(dir, "tags.csv", "userId,movieId,tag,timestamp\n");
        vec![]
    }),
    ("recbole", |dir| {
        let row = |(user, item, rating, time): (String, String, i64, i64)| format!("{user}\t{item}\t{rating}\t{time}");
        write(dir, "toy.inter", &lines("user_id:token\titem_id:token\trating:float\ttimestamp:float\n", events(), row));
        let item = |(id, title): (String, String)| format!("{id}\t{title}");
        write(dir, "toy.item", &lines("item_id:token\ttitle:token_seq\n", items(), item));
        vec![]
    }),
];

#[test]
fn every_form_goes_from_raw_files_to_a_trained_model() {
    for (name, write_form) in FORMS {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        fs::create_dir(path("data")).unwrap();
        let options = write_form(Path::new(&path("data")));
        let mut args = ["prepare", "--data", &path("data"), "--out", &path("prepared"), "--vocab-size", "300"]
            .map(str::to_owned)
            .to_vec();
        args.extend(options);
        let said = succeed(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(said.contains("-core"), "{name}: {said}");
        let dataset: Value = serde_json::from_slice(&fs::read(path("prepared/dataset.json")).unwrap()).unwrap();
        let raw = &dataset["summary"]["raw"];
        assert_eq!(raw["steps"][0]["interactions"], 96, "{name}");
        assert_eq!(raw["steps"].as_array().unwrap().last().unwrap()["users"], 12, "{name}");
        assert_eq!(dataset["summary"]["items"], 10, "{name}");
        assert!(dataset["inputs"].as_object().unwrap().values().all(|sum| sum.as_str().unwrap().len() == 64), "{name}");
        let rows = &raw["rows"];
        let expected = if name == "recbole" { [60, 12, 12] } else { [67, 8, 9] };
        assert_eq!([&rows["train"], &rows["valid"], &rows["test"]].map(|n| n.as_u64().unwrap()), expected, "{name}");
        let [base, prepared, tokenizer, run] = ["base", "prepared", "prepared/tokenizer.json", "run"].map(path);
        init_small(&base, &tokenizer);
        succeed(&["sft", "--model", &base, "--data", &prepared, "--out", &run, "--max-steps", "2", "--quiet"]);
        let catalog = fs::read_to_string(path("prepared/catalog.jsonl")).unwrap();
        assert!(
            catalog.contains(if name == "movielens-1m" { "Misér" } else { "Title, \\\"number\\\" 3" }),
            "{name}: {catalog}"
        );
        succeed(&["evaluate", "--model", &run, "--data", &prepared, "--split", "test", "--limit", "3", "--quiet"]);
    }
}

/// `--data` may be the file of interactions instead of the folder.
#[test]
fn a_file_of_interactions_finds_what_belongs_to_it() {
    for (form, file, alone) in [
        ("amazon-2018", "CDs_5.json.gz", "--items"),
        ("amazon-2023", "CDs.jsonl.gz", "headline of a review"),
        ("amazon-2023-ratings", "CDs.csv.gz", "--items"),
        ("movielens-1m", "ratings.dat", "--items"),
        ("movielens-csv", "ratings.csv", "--items"),
        ("recbole", "toy.inter", "--items"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let write_form = FORMS.iter().find(|(name, _)| *name == form).unwrap().1;
        write_form(dir.path());
        let [whole, one] = [dir.path().to_owned(), dir.path().join(file)]
            .map(|data| Interactions::read(&data, &options(RawConfig::default())).unwrap());
        assert_eq!((one.layout, titles(&one), &one.rows), (whole.layout, titles(&whole), &whole.rows), "{form}");
        let bare = tempfile::tempdir().unwrap();
        fs::copy(dir.path().join(file), bare.path().join(file)).unwrap();
        let error = Interactions::read(&bare.path().join(file), &options(RawConfig::default())).unwrap_err();
        assert!(error.to_string().contains(alone), "{form}: {error}");
    }
}

/// A field that the first record lacks is a field all the same.
#[test]
fn fields_of_json_lines_are_those_of_many_records() {
    let dir = tempfile::tempdir().unwrap();
    let record = |at: usize| match at {
        0 => "{\"user_id\": \"u\", \"item_id\": \"i0\", \"timestamp\": 0}\n".to_owned(),
        _ => format!(
            "{{\"user_id\": \"u\", \"item_id\": \"i{at}\", \"timestamp\": {at}, \"title\": \"T{at}\", \"rating\": 5}}\n"
        ),
    };
    write(dir.path(), "events.jsonl", &(0..6).map(record).collect::<String>());
    let raw = RawConfig { min_rating: Some(4.0), ..unfiltered() };
    let data = Interactions::read(&dir.path().join("events.jsonl"), &options(raw)).unwrap();
    assert_eq!(titles(&data), ["T1", "T2", "T3", "T4", "T5"]);
}

fn options(raw: RawConfig) -> ReadOptions {
    ReadOptions { max_history: 3, allow_empty_titles: false, raw }
}

fn unfiltered() -> RawConfig {
    RawConfig { k_core: Some(1), split: Some(SplitKind::LeaveOneOut), ..Default::default() }
}

/// Reads a CSV of purchases with titles.
fn read_csv(content: impl AsRef<[u8]>, raw: RawConfig) -> Result<Interactions, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("purchases.csv");
    fs::write(&path, content).unwrap();
    Interactions::read(&path, &options(raw))
        .map_err(|error| error.to_string().replace(&path.display().to_string(), "purchases.csv"))
}

const HEADER: &str = "user_id,item_id,title,timestamp,rating\n";
/// A user with four choices, so that every split has a row.
const REST: &str = "z,i1,One,1,5\nz,i2,Two,2,5\nz,i3,Three,3,5\nz,i4,Four,4,5\n";

fn titles(data: &Interactions) -> Vec<&str> {
    data.catalog.items().iter().map(|item| item.title.as_str()).collect()
}

#[test]
fn hostile_titles_survive_or_are_cleaned() {
    let long = format!("{}end", "word ".repeat(1000));
    let rows = [
        ("\"a \"\"quoted\"\", comma\"", "a \"quoted\", comma"),
        ("\"two\nlines\r\nand a\ttab\"", "two lines and a tab"),
        ("👩‍👩‍👧 emoji", "👩‍👩‍👧 emoji"),
        ("שלום \u{202e}مرحبا", "שלום مرحبا"),
        ("e\u{301}\u{feff}", "e\u{301}"),
        ("Hits &amp; <b>more</b>", "Hits & more"),
        ("'single' [list]", "'single' [list]"),
    ];
    let mut text = format!("{HEADER}{REST}");
    for (at, (title, _)) in rows.iter().enumerate() {
        writeln!(text, "z,x{at},{title},{},", 10 + at).unwrap();
    }
    writeln!(text, "z,long,{long},90,\nz,markup,\"<span class=\"\"x\",91,\nz,empty,,92,").unwrap();
    let data = read_csv(text, unfiltered()).unwrap();
    let found = titles(&data);
    let expected: Vec<&str> = rows.iter().map(|(_, cleaned)| *cleaned).collect();
    assert_eq!(found[4..4 + rows.len()], expected);
    assert_eq!(
        found.len(),
        4 + rows.len() + 1,
        "items with nothing but markup, and without a title, are gone: {found:?}"
    );
    assert_eq!(found[found.len() - 1].chars().count(), 199);
    let steps = data.raw.unwrap().steps;
    assert_eq!(steps.iter().find(|step| step.step == "no title").unwrap().removed, 2);
}

#[test]
fn titles_may_be_shared_and_items_may_have_two() {
    let text = format!("{HEADER}{REST}z,a,Same,10,\nz,b,Same,11,\nz,a,Other,12,\n");
    let data = read_csv(text, unfiltered()).unwrap();
    assert_eq!(titles(&data)[4..], ["Same", "Same"]);
    assert_eq!(data.raw.unwrap().items_with_several_titles, 1);
}

#[test]
fn times_may_be_seconds_milliseconds_or_dates() {
    let text =
        format!("{HEADER}u,a,A,2017-07-14,\nu,b,B,1500000000,\nu,c,C,1500000001000,\nu,d,D,2017-07-14T02:40:02Z,\n");
    let data = read_csv(text, unfiltered()).unwrap();
    let rows: Vec<&Row> = [&data.rows.train, &data.rows.valid, &data.rows.test].into_iter().flatten().collect();
    let seen: Vec<_> = rows.iter().map(|row| (row.item, row.timestamp.unwrap(), row.line)).collect();
    assert_eq!(seen, [(1, 1_500_000_000, 3), (2, 1_500_000_001, 4), (3, 1_500_000_002, 5)]);
}

#[test]
fn filters_do_what_they_say() {
    let text = format!(
        "{HEADER}{REST}u,i1,One,5,1\nu,i2,Two,6,\nu,i3,Three,7,4\nu,i4,Four,8,4.5\nu,i3,Three,9,5\nw,i1,One,1,5\n"
    );
    let count = |raw: RawConfig| {
        let data = read_csv(&text, raw).unwrap();
        data.raw.unwrap().steps.last().unwrap().interactions
    };
    assert_eq!(count(unfiltered()), 10);
    assert_eq!(count(RawConfig { min_rating: Some(4.5), ..unfiltered() }), 7);
    assert_eq!(count(RawConfig { from: Some("2".into()), until: Some("9".into()), ..unfiltered() }), 7);
    assert_eq!(count(RawConfig { repeats: Repeats::First, ..unfiltered() }), 9);
    assert_eq!(count(RawConfig { k_core: Some(2), ..unfiltered() }), 9);
    let error = read_csv(&text, RawConfig { k_core: Some(9), ..unfiltered() }).unwrap_err();
    assert!(error.contains("no interaction is left (read 10") && error.contains("9-core 0"), "{error}");
    for year in [
        RawConfig { from: Some("2015".into()), ..unfiltered() },
        RawConfig { until: Some("20151001".into()), ..unfiltered() },
    ] {
        let error = read_csv(&text, year).unwrap_err();
        assert!(error.contains("is no date"), "{error}");
    }
}

#[test]
fn cold_rows_go_where_that_is_asked_for() {
    let mut text = HEADER.to_owned();
    for user in 0..20 {
        text += &format!("u{user},i1,One,{},5\nu{user},i2,Two,{},5\n", 100 + user, 200 + user);
    }
    text += "u0,new,New,300,5\n";
    let read = |drop_cold| read_csv(&text, RawConfig { k_core: Some(1), drop_cold, ..Default::default() }).unwrap();
    let [kept, dropped] = [read(false), read(true)];
    let chosen = |data: &Interactions| {
        let new = data.catalog.position("new");
        data.rows.test.iter().filter(|row| Some(row.item) == new).count()
    };
    assert_eq!((kept.raw.as_ref().unwrap().cold_rows_dropped, chosen(&kept)), (0, 1));
    assert_eq!((dropped.raw.as_ref().unwrap().cold_rows_dropped, chosen(&dropped)), (1, 0));
}

#[test]
fn lines_are_counted_with_any_line_breaks_and_blank_lines() {
    for text in [format!("{HEADER}{REST}u,i1,One,soon,5\n"), format!("{HEADER}\n\n{REST}\nu,i1,One,soon,5\n")] {
        let line = text.lines().position(|line| line.contains("soon")).unwrap() + 1;
        for text in [text.clone(), text.replace('\n', "\r\n")] {
            let error = read_csv(&text, unfiltered()).unwrap_err();
            assert!(error.contains(&format!("line {line},")), "{error}");
        }
    }
}

#[test]
fn bad_records_are_refused_with_their_place_and_a_remedy() {
    for (text, parts) in [
        (format!("{HEADER}u,i1,One,soon,5\n"), ["line 2, column `timestamp`", "2024-03-01"]),
        (format!("{HEADER}u,i1,One,1\n"), ["line 2", "4 fields instead of 5"]),
        (format!("{HEADER}{REST}u,i1,\"One,5,\nv,i1,One,6,\n"), ["line 6", "fields instead of 5"]),
        (format!("{HEADER}{REST}u,i1,One,5,\"\nv,i1,One,6,\n"), ["line 6", "a quote is opened and never closed"]),
        (format!("{HEADER},i1,One,1,5\n"), ["line 2, column `user_id`", "empty"]),
        (format!("{HEADER}u,,One,1,5\n"), ["line 2, column `item_id`", "empty"]),
        (HEADER.to_owned(), ["purchases.csv", "a header but no row"]),
        (String::new(), ["purchases.csv", "empty"]),
        ("who,what,when\nu,i,1\n".to_owned(), ["no column `user_id`", "--user-column"]),
        ("user_id,item_id,timestamp\nu,i,1\n".to_owned(), ["no column `title`", "--title-column"]),
        (format!("{HEADER}u,i1,,1,5\n"), ["has a title here", "--title-column"]),
    ] {
        let error = read_csv(&text, unfiltered()).unwrap_err();
        assert!(parts.iter().all(|part| error.contains(part)), "{text}\n{error}");
    }
    let error = read_csv(b"user_id,item_id,title,timestamp\nu,i,\xe9t\xe9,1\n", unfiltered()).unwrap_err();
    assert!(error.contains("line 2: not UTF-8"), "{error}");
    let error = read_csv(format!("{HEADER}u,i1,One,1,good\n"), RawConfig { min_rating: Some(1.0), ..unfiltered() })
        .unwrap_err();
    assert!(error.contains("line 2, column `rating`") && error.contains("good"), "{error}");
}

#[test]
fn a_record_without_end_is_refused_and_not_held_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let endless = format!("{HEADER}{REST}u,i1,\"{}", "x".repeat(65 << 20));
    write(dir.path(), "purchases.csv.gz", &endless);
    let error =
        Interactions::read(&dir.path().join("purchases.csv.gz"), &options(unfiltered())).unwrap_err().to_string();
    assert!(error.contains("line 6") && error.contains("never closed"), "{error}");
}

#[test]
fn histories_may_be_as_long_as_one_likes_and_have_at_least_one_choice() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "purchases.csv", &format!("{HEADER}{REST}"));
    let path = dir.path().join("purchases.csv");
    let survey = |max_history| Interactions::survey(&path, &ReadOptions { max_history, ..options(unfiltered()) });
    assert!(survey(0).unwrap_err().to_string().contains("--max-history"));
    assert_eq!(survey(usize::MAX).unwrap().unwrap().history_lengths, [1, 1, 1]);
}

#[test]
fn a_column_may_be_both_id_and_title() {
    let rows = |columns: [&str; 3]| {
        let item = |at: usize| ["One", "Two", "Three", "Four"][at];
        (0..4)
            .map(|at| {
                format!(
                    "{{\"{}\": \"u\", \"{}\": \"{}\", \"{}\": {at}}}\n",
                    columns[0],
                    columns[1],
                    item(at),
                    columns[2]
                )
            })
            .collect::<String>()
    };
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "events.jsonl", &rows(["user_id", "name", "timestamp"]));
    let name = || Some("name".to_owned());
    let raw = RawConfig { item_column: name(), title_column: name(), ..unfiltered() };
    let data = Interactions::read(&dir.path().join("events.jsonl"), &options(raw)).unwrap();
    assert_eq!(titles(&data), ["One", "Two", "Three", "Four"]);
}

#[test]
fn files_that_are_cut_off_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let read = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        Interactions::read(&path, &options(unfiltered())).unwrap_err().to_string()
    };
    let review = |(user, item, _, time): (String, String, i64, i64)| {
        serde_json::json!({"user_id": user, "item_id": item, "title": "T", "timestamp": time}).to_string()
    };
    let text = lines("", events(), review);
    let packed = pack(&text);
    let error = read("a.jsonl.gz", &packed[..packed.len() / 2]);
    assert!(error.contains("a.jsonl.gz, line ") && error.contains("cut off"), "{error}");
    let error = read("b.jsonl.gz", &pack(&text[..text.len() - 30]));
    assert!(error.contains("b.jsonl.gz, line 96") && error.contains("cut off"), "{error}");
    let error = read("c.jsonl", b"{\"user_id\": \"u\"}\n[]\n");
    assert!(error.contains("c.jsonl, line 2"), "{error}");
    let error = read("d.parquet", b"PAR1 and nothing else");
    assert!(error.contains("d.parquet: not a whole Parquet file"), "{error}");
    let error = read("e.csv.gz", b"not packed");
    assert!(error.contains("e.csv.gz, line 1") && error.contains("unpacked"), "{error}");
    let error = read("f.txt", b"x");
    assert!(error.contains("f.txt") && error.contains(".csv"), "{error}");
}

#[test]
fn the_same_files_give_the_same_bytes_and_a_dry_run_makes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::create_dir(path("data")).unwrap();
    (FORMS[0].1)(Path::new(&path("data")));
    let [data, a, b] = ["data", "a", "b"].map(path);
    for out in [&a, &b] {
        succeed(&["prepare", "--data", &data, "--out", out, "--vocab-size", "300", "--quiet"]);
    }
    for file in
        ["dataset.json", "catalog.jsonl", "train.jsonl", "valid.jsonl", "test.jsonl", "windows.jsonl", "tokenizer.json"]
    {
        assert!(fs::read(Path::new(&a).join(file)).unwrap() == fs::read(Path::new(&b).join(file)).unwrap(), "{file}");
    }
    let said = succeed(&["prepare", "--data", &data, "--dry-run", "--k-core", "6"]);
    assert!(said.contains("6-core") && said.contains("choices in a history"), "{said}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[test]
fn layouts_are_told_by_the_files() {
    for (at, layout) in [(0, Layout::Events), (7, Layout::MovieLens), (9, Layout::Recbole)] {
        let dir = tempfile::tempdir().unwrap();
        (FORMS[at].1)(dir.path());
        assert_eq!(Interactions::read(dir.path(), &options(RawConfig::default())).unwrap().layout, layout);
    }
}
