//! Every form of collected interactions that is understood, from the files to a trained model.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use crate::common::program::{init_small, run, succeed};
use crate::common::raw::{options, titles, write, write_parquet};
use latentr3::data::{Interactions, Layout, RawConfig};
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

/// A form of data: writes it into a folder and returns what to say to `prepare` besides.
type Form = (&'static str, fn(&Path) -> Vec<String>);

const FORMS: [Form; 10] = [
    ("amazon-2018", |dir| {
        let review = |(user, item, rating, time): (String, String, i64, i64)| {
            format!(
                r#"{{"overall": {rating}.0, "verified": true, "reviewerID": "{user}", "asin": "{item}", "style": {{"a": "b"}}, "reviewText": "so \"good\"", "unixReviewTime": {time}}}"#
            )
        };
        write(dir, "Office_Products_5.json.gz", &lines("", events(), review));
        let meta = |(id, title): (String, String)| {
            serde_json::json!({"category": ["x", "y"], "title": title, "asin": id}).to_string()
        };
        write(dir, "meta_Office_Products.json.gz", &lines("", items(), meta));
        vec![]
    }),
    ("amazon-2023", |dir| {
        let review = |(user, item, rating, time): (String, String, i64, i64)| {
            format!(
                r#"{{"rating": {rating}.0, "title": "Nice", "text": "", "images": [], "asin": "V{item}", "parent_asin": "{item}", "user_id": "{user}", "timestamp": {time}123}}"#
            )
        };
        write(dir, "Office_Products.jsonl.gz", &lines("", events(), review));
        let meta = |(id, title): (String, String)| {
            serde_json::json!({"main_category": "x", "title": title, "features": [], "parent_asin": id}).to_string()
        };
        write(dir, "meta_Office_Products.jsonl.gz", &lines("", items(), meta));
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
        write_parquet(&dir.join("events.parquet"), &texts, &[("timestamp", times)]);
        let (ids, titles) = items().into_iter().unzip();
        write_parquet(&dir.join("items.parquet"), &[("item_id", ids), ("title", titles)], &[]);
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
        let said = run(&args);
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
        ("amazon-2018", "Office_Products_5.json.gz", "no column `title`"),
        ("amazon-2023", "Office_Products.jsonl.gz", "headline of a review"),
        ("amazon-2023-ratings", "CDs.csv.gz", "no column `title`"),
        ("movielens-1m", "ratings.dat", "no column `title`"),
        ("movielens-csv", "ratings.csv", "no column `title`"),
        ("recbole", "toy.inter", "no column `title`"),
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
    assert!(said.contains("6-core") && said.contains("history length"), "{said}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[test]
fn files_of_items_are_told_by_their_names() {
    let row = |(user, item, _, time): (String, String, i64, i64)| format!("{user},{item},{time}");
    let item = |(id, title): (String, String)| format!("{id},{}", quoted(&title));
    for (of_events, of_items) in
        [("order_items.csv", "products.csv"), ("Product_Reviews.csv", "Items.csv"), ("log.csv", "meta.csv")]
    {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), of_events, &lines("user,item,time\n", events(), row));
        write(dir.path(), of_items, &lines("item,title\n", items(), item));
        let read = Interactions::read(dir.path(), &options(RawConfig::default())).unwrap();
        assert!(!read.rows.train.is_empty(), "{of_events}");
    }
}

#[test]
fn layouts_are_told_by_the_files() {
    for (at, layout) in [(0, Layout::Events), (7, Layout::MovieLens), (9, Layout::Recbole)] {
        let dir = tempfile::tempdir().unwrap();
        (FORMS[at].1)(dir.path());
        assert_eq!(Interactions::read(dir.path(), &options(RawConfig::default())).unwrap().layout, layout);
    }
}

#[test]
fn users_without_rows_are_told_of() {
    let dir = tempfile::tempdir().unwrap();
    let mut text = "user,item,time,title\n".to_owned();
    for (user, items) in [("often", 0..6), ("thrice", 1..4), ("twice", 2..4), ("once", 5..6)] {
        items.for_each(|item| text += &format!("{user},{item},{item},Title {item}\n"));
    }
    write(dir.path(), "log.csv", &text);
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let whole = ["--k-core", "1", "--split", "leave-one-out", "--vocab-size", "300"];
    let said = succeed(&[&["prepare", "--data", &path("log.csv"), "--out", &path("out")], &whole[..]].concat());
    assert!(said.contains("1 users have no row") && said.contains("1 users have training rows only"), "{said}");
}
