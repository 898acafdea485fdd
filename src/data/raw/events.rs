//! Who chose what and when, from a file of records.

use indexmap::IndexSet;

use super::columns::{ITEM, RATING, TIME, USER};
use super::records::Records;
use super::time::parse_time;
use super::{Filter, RawConfig};
use crate::data::{CellProblem, DataError};

/// Interactions in the order of their file, users and items as numbers.
#[derive(Debug, Default)]
pub(super) struct Events {
    pub users: IndexSet<String>,
    pub items: IndexSet<String>,
    pub all: Vec<Event>,
    /// Interactions in the file.
    pub read: usize,
    /// Those left out because of their rating, or because they have none.
    pub low_ratings: usize,
    /// Those left out because of their date.
    pub outside_dates: usize,
}

/// One interaction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Event {
    /// Seconds since 1970.
    pub time: f64,
    pub user: u32,
    pub item: u32,
    /// Number of its line in the file.
    pub line: u32,
}

pub(super) fn read(records: &Records, config: &RawConfig, filter: &Filter) -> Result<Events, DataError> {
    let user = USER.require(records, config.user_column.as_deref())?;
    let item = ITEM.require(records, config.item_column.as_deref())?;
    let time = TIME.require(records, config.time_column.as_deref())?;
    let mut wanted = vec![user.as_str(), &item, &time];
    let rating;
    if filter.min_rating.is_some() {
        rating = RATING.require(records, config.rating_column.as_deref())?;
        wanted.push(&rating);
    }
    let mut events = Events::default();
    records.for_each(&wanted, &mut |line, fields| {
        let cell = |column: &str, value: Option<&str>, problem| DataError::Cell {
            path: records.path.clone(),
            line,
            column: column.to_owned(),
            value: value.unwrap_or_default().to_owned(),
            problem,
        };
        events.read += 1;
        let name = fields[0].ok_or_else(|| cell(&user, None, CellProblem::EmptyUser))?;
        let id = fields[1].ok_or_else(|| cell(&item, None, CellProblem::EmptyItem))?;
        let (user_number, item_number) = (number(&mut events.users, name), number(&mut events.items, id));
        let moment = fields[2].and_then(parse_time).ok_or_else(|| cell(&time, fields[2], CellProblem::Timestamp))?;
        if let (Some(least), [_, _, _, stars]) = (filter.min_rating, fields) {
            let stars = match stars.map(str::parse::<f64>) {
                None => f64::NEG_INFINITY,
                Some(Ok(stars)) if stars.is_finite() => stars,
                Some(_) => return Err(cell(wanted[3], *stars, CellProblem::Rating)),
            };
            if stars < least {
                events.low_ratings += 1;
                return Ok(());
            }
        }
        if filter.from.is_some_and(|from| moment < from) || filter.until.is_some_and(|until| moment >= until) {
            events.outside_dates += 1;
            return Ok(());
        }
        let line = u32::try_from(line).map_err(|_| DataError::Damaged {
            path: records.path.clone(),
            problem: format!("has more than {} lines; split it, for instance by date", u32::MAX),
        })?;
        events.all.push(Event { time: moment, user: user_number, item: item_number, line });
        Ok(())
    })?;
    if events.read == 0 {
        return Err(DataError::NoRows { path: records.path.clone() });
    }
    Ok(events)
}

/// The number of a name, which is a new one if the name is.
fn number(names: &mut IndexSet<String>, name: &str) -> u32 {
    match names.get_index_of(name) {
        Some(number) => number as u32,
        None => names.insert_full(name.to_owned()).0 as u32,
    }
}
