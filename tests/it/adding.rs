//! Items that join a shop's catalog after it was fitted, what lists go back to, and ranking of some items or texts.

use std::path::Path;

use crate::common::program::{refuse, succeed};
use crate::fitting::shop;
use latentr3::recommend::{Chosen, Evidence, Query, Recommender, RecommenderConfig};

/// A copy of the shop that may be changed.
pub fn copy_of_shop() -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    copy(&shop().join("shop"), &folder.path().join("shop"));
    folder
}

fn load(folder: &Path) -> Recommender {
    Recommender::load(&RecommenderConfig::new(folder)).unwrap()
}

fn ids(ids: &[&str]) -> Vec<Chosen> {
    ids.iter().map(|id| Chosen::Id(id.to_string())).collect()
}

#[test]
fn an_added_item_is_recommended_and_what_was_there_keeps_its_place() {
    let folder = copy_of_shop();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (shop, file) = (path("shop"), path("new.csv"));
    let before = load(shop.as_ref());
    std::fs::write(&file, "sku,product_name\nN-1,red <b>vase</b>\nN-2,\nS-1,red notebook\nN-3,blue vase\n").unwrap();
    // What the catalog has under the same title is not added again, nor what has none.
    let title = before.catalog().catalog.items()[before.catalog().catalog.position("S-1").unwrap()].title.clone();
    std::fs::write(&file, std::fs::read_to_string(&file).unwrap().replace("red notebook", &title)).unwrap();
    assert!(succeed(&["add-items", "--model", &shop, "--items", &file]).contains("added 2 items; the catalog has 39"));
    assert!(succeed(&["add-items", "--model", &shop, "--items", &file]).contains("added 0 items"));
    let one = ["add-items", "--model", &shop, "--id", "N-4", "--title", "a title of its own"];
    assert!(succeed(&one).contains("added 1 items; the catalog has 40"));

    let after = load(shop.as_ref());
    assert_ne!(before.fingerprint(), after.fingerprint());
    let query = |history: &[&str], only: &[&str], top| {
        let only = Some(only.iter().map(|id| id.to_string()).collect()).filter(|only: &Vec<String>| !only.is_empty());
        Query { history: ids(history), top, only, ..Default::default() }
    };
    let found = |recommender: &Recommender, query: Query| -> Vec<String> {
        let answer = recommender.recommend(&[query]).unwrap().remove(0);
        answer.recommendations.into_iter().flat_map(|one| one.items).collect()
    };
    let all = found(&after, query(&["S-0", "S-6"], &[], 40));
    assert_eq!(all.len(), 40);
    assert!(["N-1", "N-3", "N-4"].iter().all(|id| all.contains(&id.to_string())), "{all:?}");
    assert_eq!(found(&after, query(&["S-0"], &["N-3"], 5)), ["N-3"]);
    // As a history it is read by its words.
    assert_eq!(found(&after, query(&["N-1"], &[], 5)).len(), 5);
    assert_eq!(found(&after, query(&[], &[], 40)).len(), 40);
    // Whatever scores items rather than titles puts the others in the order of before.
    let old: Vec<&String> = all.iter().filter(|id| !id.starts_with("N-")).collect();
    if after.own().to_string() == "transition" || after.own().to_string() == "sasrec" {
        assert_eq!(old, found(&before, query(&["S-0", "S-6"], &[], 40)).iter().collect::<Vec<_>>());
    }
    let title = after.catalog().catalog.title(after.catalog().catalog.position("N-1").unwrap());
    assert_eq!(title, "red vase");
}

#[test]
fn what_cannot_be_added_is_refused_and_adds_nothing() {
    let folder = copy_of_shop();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (shop, file) = (path("shop"), path("new.csv"));
    let add = |text: &str| {
        std::fs::write(&file, text).unwrap();
        refuse(&["add-items", "--model", &shop, "--items", &file])
    };
    assert!(
        add("sku,product_name\nN-1,fine\nS-1,another title\n").contains("item `S-1`: the catalog already has it as")
    );
    assert!(add("sku,product_name\n,nobody\n").contains("line 2"));
    assert!(add("sku\nN-1\n").contains("title"));
    let long = format!("item_id,title\nN-1,{}\n", "\u{1f980} ".repeat(100));
    assert!(add(&long.replace("N-1", "<|endoftext|>").replace('\u{1f980}', "<|endoftext|>")).contains("end token"));
    assert!(refuse(&["add-items", "--model", &shop]).contains("--items"));
    assert!(refuse(&["add-items", "--model", &shop, "--id", "N-1", "--title", " "]).contains("no title"));
    assert!(refuse(&["add-items", "--model", &path("nowhere"), "--id", "N-1", "--title", "a"]).contains("nowhere"));
    assert!(!folder.path().join("shop/added.jsonl").exists());
    std::fs::write(folder.path().join("shop/added.jsonl"), "{\"id\": 3}\n").unwrap();
    assert!(refuse(&["recommend", "--model", &shop]).contains("added.jsonl:1: is damaged"));
    std::fs::write(folder.path().join("shop/added.jsonl"), "{\"id\": \"S-1\", \"title\": \"again\"}\n").unwrap();
    assert!(refuse(&["recommend", "--model", &shop]).contains("the catalog already has an item with this id"));
}

#[test]
fn what_a_list_goes_back_to_is_said_where_it_is_asked_for() {
    let folder = copy_of_shop();
    let recommender = load(&folder.path().join("shop"));
    let known = Query { history: ids(&["S-0", "S-6", "S-12"]), why: true, ..Default::default() };
    let unknown = Query { history: vec![Chosen::Title("turquoise pen".into())], why: true, ..Default::default() };
    let silent = Query { why: false, ..known.clone() };
    let answers = recommender.recommend(&[known, unknown, silent]).unwrap();
    let shares = |at: usize| answers[at].recommendations.iter().filter_map(|one| one.why.as_ref());
    assert_eq!(shares(2).count(), 0);
    assert!(recommender.own().to_string() == "sasrec" || shares(0).count() > 0);
    for why in shares(0).chain(shares(1)) {
        let all: f64 = why.history.iter().map(|one| one.share).sum();
        match why.by {
            Evidence::Transitions => assert!((all - 1.0).abs() < 1e-9, "{why:?}"),
            Evidence::Attention => assert!(all > 0.0 && all <= 1.0 + 1e-6, "{why:?}"),
        }
    }
    // Of a title that only the language model knows the thought's attention speaks.
    assert_eq!(shares(1).count(), 10);
    assert!(shares(1).all(|why| why.by == Evidence::Attention && why.history[0].title == "turquoise pen"));
    let shop = folder.path().join("shop").to_str().unwrap().to_owned();
    assert!(
        succeed(&["recommend", "--model", &shop, "--history", "turquoise pen", "--why"]).contains("% of attention)")
    );
}

#[test]
fn some_items_have_the_scores_that_they_have_among_all() {
    let recommender = load(&shop().join("shop"));
    let history = ids(&["S-0", "S-6"]);
    let all = Query { history: history.clone(), top: 37, ..Default::default() };
    let all = recommender.recommend(&[all]).unwrap().remove(0);
    let some = ["S-20", "S-3", "S-new", "S-12"];
    let (scores, model) = recommender.rank(&history, &ids(&some)).unwrap();
    assert_eq!(model, all.model);
    for (id, score) in some.iter().zip(&scores) {
        let one = all.recommendations.iter().find(|one| one.items.contains(&id.to_string())).unwrap();
        assert!((one.score - score).abs() < 1e-4, "{id}: {score} and {}", one.score);
    }
    // Texts that the catalog does not have are ranked among themselves.
    let texts: Vec<Chosen> =
        ["red chair", "blue vase", "green hat"].iter().map(|text| Chosen::Title(text.to_string())).collect();
    let (scores, model) = recommender.rank(&history, &texts).unwrap();
    assert_eq!(model.to_string(), "language-model");
    assert!(scores.iter().all(|score| score.is_finite() && *score <= 0.0), "{scores:?}");
    for bad in [ids(&[]), ids(&["nothing"])] {
        assert!(recommender.rank(&history, &bad).is_err(), "{bad:?}");
    }
    assert!(recommender.rank(&[], &texts).is_err());
    let long = Chosen::Title("word ".repeat(5000));
    assert!(recommender.rank(&history, &[long]).unwrap_err().to_string().starts_with("documents"));
}
