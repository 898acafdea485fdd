//! Which columns of a file hold what.

use super::records::Records;
use crate::data::DataError;

/// A column's meaning and the names that well-known data sets give it, likeliest first.
pub(super) struct Known {
    /// The setting that names another.
    setting: &'static str,
    names: &'static [&'static str],
}

pub(super) static USER: Known =
    Known { setting: "user_column", names: &["user_id", "reviewerID", "userId", "user", "customer_id"] };
/// The Amazon data of 2023 recommends the parent of all variants; `asin` is the variant.
pub(super) static ITEM: Known =
    Known { setting: "item_column", names: &["parent_asin", "asin", "item_id", "movieId", "item", "product_id"] };
pub(super) static TIME: Known =
    Known { setting: "time_column", names: &["timestamp", "unixReviewTime", "time", "date"] };
pub(super) static RATING: Known = Known { setting: "rating_column", names: &["rating", "overall"] };
pub(super) static TITLE: Known =
    Known { setting: "title_column", names: &["title", "movie_title", "name", "item_title", "product_title"] };

impl Known {
    /// The names, likeliest first.
    pub fn names(&self) -> &'static [&'static str] {
        self.names
    }

    /// The column that the user names, or the first known one that the file has.
    pub fn find(&self, records: &Records, asked: Option<&str>) -> Option<String> {
        let has = |name: &str| records.columns.iter().any(|column| column == name);
        match asked {
            Some(name) => has(name).then(|| name.to_owned()),
            None => self.names.iter().find(|name| has(name)).map(|name| name.to_string()),
        }
    }

    /// Like [`Self::find`], where the column must be there.
    pub fn require(&self, records: &Records, asked: Option<&str>) -> Result<String, DataError> {
        self.find(records, asked).ok_or_else(|| DataError::MissingColumn {
            path: records.path.clone(),
            column: match asked {
                Some(name) => format!("`{name}`"),
                None => format!("`{}`", self.names.join("` or `")),
            },
            found: records.columns.clone(),
            setting: Some(self.setting),
        })
    }
}
