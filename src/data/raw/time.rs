//! Moments, as files write them.

use jiff::civil::{Date, DateTime};
use jiff::{Timestamp, tz::TimeZone};

/// Seconds since 1970 (UTC) of a number of seconds, milliseconds, microseconds or nanoseconds, or of a date such as
/// `2024-03-01`, `2024-03-01 17:30` or `2024-03-01T17:30:00Z`; without a time zone it is taken as UTC.
///
/// A number's unit follows from its size: in seconds, 10^11 would be in the year 5138.
pub(in crate::data) fn parse_time(text: &str) -> Option<f64> {
    if let Ok(number) = text.parse::<f64>() {
        let divisor = match number.abs() {
            size if !size.is_finite() => return None,
            size if size < 1e11 => 1.0,
            size if size < 1e14 => 1e3,
            size if size < 1e17 => 1e6,
            _ => 1e9,
        };
        return Some(number / divisor);
    }
    let seconds = |time: Timestamp| time.as_millisecond() as f64 / 1e3;
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(seconds(time));
    }
    let local = text.parse::<DateTime>().or_else(|_| text.parse::<Date>().map(|date| date.at(0, 0, 0, 0)));
    TimeZone::UTC.to_timestamp(local.ok()?).ok().map(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_follow_from_the_size() {
        for text in ["1500000000", "1500000000000", "1500000000000000", "1500000000000000000", "1.5e9"] {
            assert_eq!(parse_time(text), Some(1.5e9), "{text}");
        }
        assert_eq!(parse_time("-5.5"), Some(-5.5));
    }

    #[test]
    fn dates_are_utc_unless_they_say_otherwise() {
        for text in ["2017-07-14", "2017-07-14 00:00", "2017-07-14T00:00:00Z", "2017-07-14T02:00:00+02:00"] {
            assert_eq!(parse_time(text), Some(1_499_990_400.0), "{text}");
        }
        for text in ["", "late", "14.7.2017", "07/14/2017", "inf", "NaN", "2017-13-01"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }
}
