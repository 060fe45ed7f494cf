//! `[usage]`.

use super::{Check, Checked};
use crate::config::{Usage, error::Fault, location::At, raw, units::Period};
use std::{ops::RangeInclusive, time::Duration};

const FLUSH_INTERVAL: Duration = Duration::from_secs(10);
const FLUSH_INTERVALS: RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_mins(10);

const STORAGE_INTERVAL: Duration = Duration::from_hours(1);
const STORAGE_INTERVALS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_hours(24);

/// A month must be there whole.
const RETENTION_DAYS: RangeInclusive<u64> = 32..=36_500;
const RETENTION_DAYS_DEFAULT: u64 = 400;

impl Check<'_> {
    pub(super) fn usage(&mut self, usage: &raw::Usage) -> Checked<Usage> {
        let at = At::top("usage");
        let flush_interval = self.interval(
            at.key("flush_interval"),
            usage.flush_interval.unwrap_or(Period(FLUSH_INTERVAL)),
            FLUSH_INTERVALS,
        );
        let storage_interval = self.interval(
            at.key("storage_interval"),
            usage.storage_interval.unwrap_or(Period(STORAGE_INTERVAL)),
            STORAGE_INTERVALS,
        );
        let retention = match usage.retention_days.unwrap_or(RETENTION_DAYS_DEFAULT) {
            0 => Ok(None),
            days if RETENTION_DAYS.contains(&days) => Ok(Some(Duration::from_hours(days * 24))),
            value => self.problem(
                at.key("retention_days"),
                Fault::Range {
                    value,
                    min: *RETENTION_DAYS.start(),
                    max: *RETENTION_DAYS.end(),
                },
            ),
        };
        Ok(Usage {
            flush_interval: flush_interval?,
            storage_interval: storage_interval?,
            retention: retention?,
        })
    }

    /// A time in its bounds; none where it is zero.
    fn interval(
        &mut self,
        at: At<'_>,
        Period(time): Period,
        bounds: RangeInclusive<Duration>,
    ) -> Checked<Option<Duration>> {
        if time.is_zero() || bounds.contains(&time) {
            return Ok(Some(time).filter(|time| !time.is_zero()));
        }
        let (min, max) = bounds.into_inner();
        let value = time;
        self.problem(at, Fault::TimeRange { value, min, max })
    }
}
