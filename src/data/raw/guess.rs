//! Which columns of tables with names of their own hold what, by parts of the names and by the content.

use std::collections::HashSet;

use super::Found;
use super::columns::{ITEM, Known, RATING, TIME, TITLE, USER};
use super::config::{RawConfig, SplitKind};
use super::records::Records;
use super::time::parse_time;
use crate::data::DataError;

/// Records at the head of a file that are looked at.
const HEAD: usize = 2000;

/// 1990: what lies before it is a number and no timestamp.
const FIRST_TIME: f64 = 631_152_000.0;

/// Seconds in which a month of any length ends.
const MONTH: f64 = 31.0 * 86_400.0;

/// What columns of a meaning are called in tables that nobody has standardised.
struct Words {
    known: &'static Known,
    /// Parts of names, likeliest first.
    parts: &'static [&'static str],
    /// Parts of names of columns that mean something else, which are taken only where there is no other.
    others: &'static [&'static str],
}

const USERS: Words = Words {
    known: &USER,
    parts: &["user", "customer", "client", "buyer", "member", "account", "visitor", "reviewer", "session"],
    others: &["name", "mail", "type", "group", "country", "city", "zip", "age", "gender", "phone", "segment"],
};
const ITEMS: Words = Words {
    known: &ITEM,
    parts: &["item", "product", "sku", "asin", "article", "isbn", "movie", "track", "book"],
    others: &[
        "name", "title", "desc", "categ", "price", "quant", "qty", "count", "image", "url", "brand", "type", "status",
        "line", "total", "group",
    ],
};
const TIMES: Words = Words {
    known: &TIME,
    parts: &["timestamp", "time", "date", "ordered", "purchased", "created", "placed", "when", "day"],
    others: &["update", "birth", "ship", "deliver", "expir", "paid", "cancel"],
};
const TITLES: Words = Words {
    known: &TITLE,
    parts: &["title", "name", "product", "item", "desc"],
    others: &[
        "id", "sku", "asin", "user", "customer", "client", "categ", "brand", "file", "url", "price", "qty", "quant",
    ],
};

/// Fills in which columns of the interactions, `records`, and of the file of titles hold what, where it is not given.
///
/// A column is found by the names of well-known data sets, else by parts of names; a time must be one in most records,
/// and the items' column in the file of titles is that with the ids of the interactions. Interactions may have no
/// column of titles.
pub(super) fn guess_columns(found: &Found, records: &Records, given: &RawConfig) -> Result<RawConfig, DataError> {
    let head = Head::read(records)?;
    let named = [(&USER, &given.user_column), (&ITEM, &given.item_column), (&TIME, &given.time_column)];
    for (known, name) in named {
        if name.is_some() {
            known.require(records, name.as_deref())?;
        }
    }
    let mut guess = RawConfig { items: given.items.clone().or_else(|| found.items.clone()), ..given.clone() };
    let is_time = |column: usize| head.share(column, |value| parse_time(value).is_some()) > 0.9;
    let any = |_: usize| true;
    let by_name = || TIMES.find(records, &[], is_time);
    let is_date = |column: &usize| is_time(*column) && head.share(*column, |x| x.parse::<f64>().is_err()) > 0.9;
    let by_content = || (0..records.columns.len()).find(is_date).map(|column| records.columns[column].clone());
    let time = given.time_column.clone().or_else(by_name).or_else(by_content);
    let taken = time.as_deref().unwrap_or_default();
    let user = match &given.user_column {
        Some(user) => user.clone(),
        None => USERS.find(records, &[taken], any).map_or_else(|| USER.require(records, None), Ok)?,
    };
    let item = match &given.item_column {
        Some(item) => item.clone(),
        None => ITEMS.find(records, &[taken, &user], any).map_or_else(|| ITEM.require(records, None), Ok)?,
    };
    let time = time.map_or_else(|| TIME.require(records, None), Ok)?;
    let has_words =
        |head: &Head, column: usize| head.share(column, |value| value.chars().any(char::is_alphabetic)) > 0.5;
    match &guess.items {
        Some(path) => {
            let titles = Records::open(path)?;
            let title_head = Head::read(&titles)?;
            let id = match given.catalog_column.clone().or_else(|| given.item_column.clone()) {
                Some(id) => Some(id),
                None => title_head.column_with(&titles, &head.values(records, &item)),
            };
            let id = id.filter(|id| titles.columns.contains(id));
            let named = given.catalog_column.as_deref();
            let id = id.map_or_else(|| ITEM.require(&titles, named), Ok)?;
            if guess.title_column.is_none() {
                let title = TITLES.find(&titles, &[&id], |column| has_words(&title_head, column));
                guess.title_column = Some(title.map_or_else(|| TITLE.require(&titles, None), Ok)?);
            }
            guess.catalog_column = Some(id);
        }
        None if guess.title_column.is_none() => {
            let is_of_users = |column: usize| USERS.are_in(&records.columns[column]);
            let fits = |column: usize| has_words(&head, column) && !is_of_users(column);
            let title = TITLES.find(records, &[&time, &user, &item], fits);
            guess.title_column = title.or_else(|| TITLE.find(records, None));
        }
        None => {}
    }
    if guess.rating_column.is_none() {
        guess.rating_column = RATING.find(records, None);
    }
    (guess.user_column, guess.item_column, guess.time_column) = (Some(user), Some(item), Some(time));
    Ok(guess)
}

/// The split that suits the timestamps in a column: by time where they are real ones over more than a month, else by
/// leaving each user's last two interactions out.
pub(super) fn guess_split(records: &Records, time: &str) -> Result<SplitKind, DataError> {
    let (mut first, mut last) = (f64::INFINITY, f64::NEG_INFINITY);
    records.for_each(&[time], &mut |_, fields| {
        if let Some(time) = fields[0].and_then(parse_time) {
            (first, last) = (first.min(time), last.max(time));
        }
        Ok(())
    })?;
    let is_real = first >= FIRST_TIME && last - first > MONTH;
    Ok(if is_real { SplitKind::Temporal } else { SplitKind::LeaveOneOut })
}

impl Words {
    /// Whether a name has one of the parts.
    fn are_in(&self, name: &str) -> bool {
        let name = name.to_lowercase();
        self.parts.iter().any(|part| name.contains(part))
    }

    /// The likeliest column among those that are not `taken` and that fit.
    fn find(&self, records: &Records, taken: &[&str], fits: impl Fn(usize) -> bool) -> Option<String> {
        let free = |name: &str| !taken.contains(&name);
        let place = |name: &str| records.columns.iter().position(|column| column == name);
        let known = self.known.names().iter().find(|name| free(name) && place(name).is_some_and(&fits));
        if let Some(name) = known {
            return Some((*name).to_owned());
        }
        let rank = |name: &str| {
            let name = name.to_lowercase();
            let part = self.parts.iter().position(|part| name.contains(part))?;
            Some((self.others.iter().any(|other| name.contains(other)), part))
        };
        let columns = records.columns.iter().enumerate().filter(|(at, name)| free(name) && fits(*at));
        columns
            .filter_map(|(_, name)| Some((rank(name)?, name)))
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, name)| name.clone())
    }
}

/// The first records of a file.
struct Head {
    rows: Vec<Vec<Option<String>>>,
}

impl Head {
    fn read(records: &Records) -> Result<Self, DataError> {
        Ok(Self { rows: records.head(HEAD)? })
    }

    /// Share of a column's values for which something holds; 0 for a column without values.
    fn share(&self, column: usize, holds: impl Fn(&str) -> bool) -> f64 {
        let values = || self.rows.iter().filter_map(|row| row.get(column)?.as_deref());
        let all = values().count();
        values().filter(|value| holds(value)).count() as f64 / all.max(1) as f64
    }

    fn values<'a>(&'a self, records: &Records, name: &str) -> HashSet<&'a str> {
        let column = records.columns.iter().position(|column| column == name);
        self.rows.iter().filter_map(|row| row.get(column?)?.as_deref()).collect()
    }

    /// The column with most of these ids, if any has one.
    fn column_with(&self, records: &Records, ids: &HashSet<&str>) -> Option<String> {
        let hits = |column: usize| {
            self.rows.iter().filter(|row| row[column].as_deref().is_some_and(|value| ids.contains(value))).count()
        };
        let best = (0..records.columns.len()).rev().max_by_key(|&column| hits(column))?;
        (hits(best) > 0).then(|| records.columns[best].clone())
    }
}
