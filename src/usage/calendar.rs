//! Months in UTC.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use time::{Date, Month, OffsetDateTime, UtcDateTime};

/// One month, from its first moment to that of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calendar {
    begins: SystemTime,
    ends: SystemTime,
    number: u64,
}

impl Default for Calendar {
    /// No time is in it.
    fn default() -> Self {
        Self {
            begins: UNIX_EPOCH,
            ends: UNIX_EPOCH,
            number: 0,
        }
    }
}

fn first(year: i32, month: Month) -> SystemTime {
    let day = Date::from_calendar_date(year, month, 1);
    day.map_or(UNIX_EPOCH, |day| {
        SystemTime::from(day.midnight().assume_utc())
    })
}

impl Calendar {
    /// The month that this time is in.
    pub fn of(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        let date = OffsetDateTime::from_unix_timestamp(seconds);
        let date = date.unwrap_or(OffsetDateTime::UNIX_EPOCH);
        let (year, month) = (date.year(), date.month());
        let next_year = if month == Month::December {
            year + 1
        } else {
            year
        };
        Self {
            begins: first(year, month),
            ends: first(next_year, month.next()),
            number: u64::from(year.unsigned_abs()) * 12 + u64::from(u8::from(month)) - 1,
        }
    }

    /// The month that an hour since 1970 is in.
    pub fn of_hour(hour: i64) -> Self {
        let hour = u64::try_from(hour).unwrap_or_default();
        Self::of(UNIX_EPOCH + Duration::from_hours(hour))
    }

    /// Whether this time is in it.
    pub fn has(&self, time: SystemTime) -> bool {
        (self.begins..self.ends).contains(&time)
    }

    /// Its first moment.
    pub fn begins(&self) -> SystemTime {
        self.begins
    }

    /// The first moment of the next one.
    pub fn ends(&self) -> SystemTime {
        self.ends
    }

    /// Months since the year 0.
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

/// `2026-12-01 00:00 UTC`
pub fn to_the_minute(time: SystemTime) -> String {
    let time = UtcDateTime::from(time);
    let (date, hour, minute) = (time.date(), time.hour(), time.minute());
    format!("{date} {hour:02}:{minute:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SystemTime {
        humantime::parse_rfc3339(text).unwrap()
    }

    #[test]
    fn a_month_ends_with_the_first_moment_of_the_next_one() {
        for (time, begins, ends) in [
            (
                "2026-11-30T23:59:59.999Z",
                "2026-11-01T00:00:00Z",
                "2026-12-01T00:00:00Z",
            ),
            (
                "2026-12-31T23:59:59.999Z",
                "2026-12-01T00:00:00Z",
                "2027-01-01T00:00:00Z",
            ),
            (
                "2028-02-29T12:00:00Z",
                "2028-02-01T00:00:00Z",
                "2028-03-01T00:00:00Z",
            ),
        ] {
            let month = Calendar::of(at(time));
            assert_eq!((month.begins(), month.ends()), (at(begins), at(ends)));
            assert!(month.has(at(time)) && month.has(at(begins)) && !month.has(at(ends)));
        }
        assert_eq!(
            Calendar::of(at("2026-12-01T00:00:00Z")),
            Calendar::of_hour(498_912)
        );
        assert_eq!(
            to_the_minute(at("2026-12-01T00:00:00Z")),
            "2026-12-01 00:00 UTC"
        );
    }
}
