//! Gains of users from the ranks of their rows.

use std::collections::HashMap;

use super::{By, Run};
use crate::eval::{Metric, UserRank};

/// Gains are of the order of 1; less than this between two of them is rounding.
const ROUNDING: f64 = 1e-12;

/// Which user each row is of. A user can have several rows, which are not independent of each other: users are what is
/// drawn, with all of their rows.
pub(super) struct Users {
    pub of_row: Vec<usize>,
    /// How many rows each user has.
    pub rows: Vec<f64>,
}

impl Users {
    /// From the user of each row.
    pub fn of<'a>(of_rows: impl Iterator<Item = &'a str>) -> Self {
        let mut numbers = HashMap::new();
        let mut rows = Vec::new();
        let number = |user: &'a str| {
            let number = *numbers.entry(user).or_insert(rows.len());
            match rows.get_mut(number) {
                Some(count) => *count += 1.0,
                None => rows.push(1.0),
            }
            number
        };
        Self { of_row: of_rows.map(number).collect(), rows }
    }

    /// The mean over rows of what is summed for each user.
    pub fn mean(&self, sums: &[f64]) -> f64 {
        sums.iter().sum::<f64>() / self.of_row.len() as f64
    }

    /// The variance that [`Self::mean`] has because users like these might have been others.
    ///
    /// The mean is a ratio, for the number of rows is drawn with the users: `U / (U - 1) sum_u (x_u - m n_u)^2 / (sum_u
    /// n_u)^2` for U users with the sums x_u over n_u rows, and m their mean.
    pub fn variance(&self, sums: &[f64]) -> f64 {
        let mean = self.mean(sums);
        let squares: f64 = sums.iter().zip(&self.rows).map(|(sum, rows)| (sum - mean * rows).powi(2)).sum();
        let users = self.rows.len() as f64;
        users / (users - 1.0) * squares / (self.of_row.len() as f64).powi(2)
    }
}

/// The mean of what each row gains, and its standard error because users like these might have been others, which takes
/// at least two.
pub(crate) fn mean_and_error(ranks: &[UserRank], gain: impl Fn(&UserRank) -> f64) -> (f64, Option<f64>) {
    mean_and_error_by_user(ranks.iter().map(|row| (row.user.as_str(), gain(row))))
}

/// [`mean_and_error`] of what some rows of the given users gain.
pub(crate) fn mean_and_error_by_user<'a>(rows: impl Iterator<Item = (&'a str, f64)>) -> (f64, Option<f64>) {
    let (of_rows, gains): (Vec<&str>, Vec<f64>) = rows.unzip();
    if gains.is_empty() {
        return (0.0, None);
    }
    let users = Users::of(of_rows.into_iter());
    let mut sums = vec![0.0; users.rows.len()];
    for (gain, &user) in gains.iter().zip(&users.of_row) {
        sums[user] += gain;
    }
    (users.mean(&sums), (sums.len() > 1).then(|| users.variance(&sums).sqrt()))
}

/// The gains of one model in one metric.
pub(super) struct Gains {
    /// Each run's gains, summed over each user's rows: `[runs][users]`.
    pub runs: Vec<Vec<f64>>,
    /// Their mean over the runs: `[users]`.
    pub mean: Vec<f64>,
}

impl Gains {
    pub fn of(runs: &[Run], metric: Metric, by: By, users: &Users) -> Self {
        let of_run = |run: &Run| {
            let mut sums = vec![0.0; users.rows.len()];
            for (row, &user) in run.result.evaluation.ranks.iter().zip(&users.of_row) {
                sums[user] += metric.gain(by.rank(row));
            }
            sums
        };
        Self::of_sums(runs.iter().map(of_run).collect())
    }

    pub(super) fn of_sums(runs: Vec<Vec<f64>>) -> Self {
        let users = runs.first().map_or(0, Vec::len);
        let mean = (0..users).map(|user| runs.iter().map(|sums| sums[user]).sum::<f64>() / runs.len() as f64).collect();
        Self { runs, mean }
    }

    /// What each user gains from this model over another: `[users]`.
    pub fn over(&self, baseline: &Self) -> Vec<f64> {
        // The mean of the same gains in another order of the runs is another by a bit, which is no difference.
        let exact = |difference: f64| if difference.abs() < ROUNDING { 0.0 } else { difference };
        self.mean.iter().zip(&baseline.mean).map(|(own, other)| exact(own - other)).collect()
    }
}

/// `[metrics][users]` as one row of metrics for each user.
pub(super) fn by_user(differences: &[Vec<f64>]) -> Vec<f64> {
    let users = differences.first().map_or(0, Vec::len);
    (0..users).flat_map(|user| differences.iter().map(move |of_users| of_users[user])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(user: usize, rank: f64) -> UserRank {
        UserRank {
            row: 0,
            user: user.to_string(),
            item: String::new(),
            item_count: 0,
            rank: Some(rank),
            title_rank: None,
            popularity_rank: 1.0,
            list: Vec::new(),
        }
    }

    #[test]
    fn the_error_of_a_share_is_the_binomial_one_where_every_user_has_a_row() {
        let hit = |row: &UserRank| Metric::Hr(1).gain(row.rank);
        let rows: Vec<UserRank> = (0..100).map(|user| row(user, if user % 4 == 0 { 1.0 } else { 2.0 })).collect();
        let (mean, error) = mean_and_error(&rows, hit);
        assert_eq!(mean, 0.25);
        assert!((error.unwrap() - (0.25f64 * 0.75 / 99.0).sqrt()).abs() < 1e-12);
        // The same rows once more tell nothing new.
        let (mean, twice) = mean_and_error(&[rows.clone(), rows.clone()].concat(), hit);
        assert_eq!(mean, 0.25);
        assert!((twice.unwrap() - error.unwrap()).abs() < 1e-12);
        assert_eq!(mean_and_error(&rows[..1], hit), (1.0, None));
        assert_eq!(mean_and_error(&[], hit), (0.0, None));
    }
}
