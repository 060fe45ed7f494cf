//! A month in UTC.

use serde::{Serialize, Serializer};
use std::{fmt, str::FromStr};
use time::{Date, Month, OffsetDateTime, Time};

/// A month in UTC, written `2026-11`; from 1970 to 9998.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CostMonth {
    year: i32,
    month: Month,
}

/// Not a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("write the month as 2026-11, from 1970-01 to 9998-12")]
pub struct NoMonth;

impl CostMonth {
    /// The month that a time is in.
    pub fn of(time: OffsetDateTime) -> Self {
        let time = time.to_offset(time::UtcOffset::UTC);
        Self {
            year: time.year(),
            month: time.month(),
        }
    }

    fn first(self) -> OffsetDateTime {
        let day = Date::from_calendar_date(self.year, self.month, 1);
        let day = day.unwrap_or(Date::MIN);
        day.with_time(Time::MIDNIGHT).assume_utc()
    }

    /// When it begins, and when the next one does.
    pub fn span(self) -> (OffsetDateTime, OffsetDateTime) {
        let month = self.month.next();
        let year = self.year + i32::from(month == Month::January);
        (self.first(), Self { year, month }.first())
    }

    /// How many hours it has.
    pub(super) fn hours(self) -> u64 {
        let (begin, end) = self.span();
        u64::try_from((end - begin).whole_hours()).unwrap_or(0)
    }
}

impl FromStr for CostMonth {
    type Err = NoMonth;

    fn from_str(text: &str) -> Result<Self, NoMonth> {
        let (year, month) = text.split_once('-').ok_or(NoMonth)?;
        let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if (year.len(), month.len()) != (4, 2) || !are_digits(year) || !are_digits(month) {
            return Err(NoMonth);
        }
        let year: i32 = year.parse().map_err(|_error| NoMonth)?;
        let month: u8 = month.parse().map_err(|_error| NoMonth)?;
        let month = Month::try_from(month).map_err(|_error| NoMonth)?;
        if !(1970..=9998).contains(&year) {
            return Err(NoMonth);
        }
        Ok(Self { year, month })
    }
}

impl fmt::Display for CostMonth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, u8::from(self.month))
    }
}

impl Serialize for CostMonth {
    fn serialize<S: Serializer>(&self, output: S) -> Result<S::Ok, S::Error> {
        output.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_month_ends_where_the_next_begins() {
        for (text, hours, next) in [
            ("2026-11", 720, "2026-12"),
            ("2026-12", 744, "2027-01"),
            ("2028-02", 696, "2028-03"),
            ("9998-12", 744, "9999-01"),
        ] {
            let month: CostMonth = text.parse().unwrap();
            assert_eq!(month.to_string(), text);
            assert_eq!(month.hours(), hours);
            assert_eq!(CostMonth::of(month.span().1).to_string(), next);
        }
        for wrong in [
            "",
            "2026",
            "2026-13",
            "2026-00",
            "26-11",
            "2026-1",
            "+026-11",
            "1969-12",
            "2026-11-01",
            "9999-12",
        ] {
            assert_eq!(wrong.parse::<CostMonth>(), Err(NoMonth), "{wrong}");
        }
    }
}
