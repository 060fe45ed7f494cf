//! What was used and is still to be written, in batches that are each written once.

use super::Amount;
use crate::tenant::TenantId;
use std::collections::BTreeMap;

/// Rows of a batch.
pub const BATCH_ROWS_MAX: usize = 1000;

/// Rows that are kept apart by their hour while nothing can be written: a few hundred bytes each.
const ROWS_MAX: usize = 100_000;

/// What a tenant used in an hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The tenant.
    pub tenant: TenantId,
    /// The hour: how many since 1970, in UTC.
    pub hour: i64,
    /// How much.
    pub amount: Amount,
}

/// Rows that are written together. A batch keeps its number and its rows until it is known to be
/// written: where that is not known it is written again, and who has its number already leaves it.
#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    /// Each process counts its own, from 1.
    pub sequence: i64,
    /// Each tenant and hour at most once.
    pub rows: Vec<Row>,
}

/// What is still to be written.
#[derive(Debug, Default)]
pub struct Outbox {
    open: BTreeMap<(TenantId, i64), Amount>,
    sealed: Option<Batch>,
    sequence: i64,
}

impl Outbox {
    /// Adds what was used in an hour. When there is no room for one more row, it goes to the tenant's
    /// last one, so that sums stay right.
    pub fn put(&mut self, hour: i64, used: impl IntoIterator<Item = (TenantId, Amount)>) {
        for (tenant, amount) in used {
            let is_full = self.open.len() >= ROWS_MAX;
            let of_tenant = (tenant.clone(), i64::MIN)..=(tenant.clone(), i64::MAX);
            let last = self.open.range_mut(of_tenant).next_back();
            match last {
                Some(((_, at), sum)) if *at == hour || is_full => sum.add(&amount),
                _ => self.open.entry((tenant, hour)).or_default().add(&amount),
            }
        }
    }

    /// What is to be written next; the same until [`Outbox::written`] was said of it.
    pub fn due(&mut self) -> Option<&Batch> {
        if self.sealed.is_none() && !self.open.is_empty() {
            let mut rows = Vec::with_capacity(self.open.len().min(BATCH_ROWS_MAX));
            while rows.len() < BATCH_ROWS_MAX
                && let Some(((tenant, hour), amount)) = self.open.pop_first()
            {
                rows.push(Row {
                    tenant,
                    hour,
                    amount,
                });
            }
            self.sequence += 1;
            self.sealed = Some(Batch {
                sequence: self.sequence,
                rows,
            });
        }
        self.sealed.as_ref()
    }

    /// Whether it is not known of a batch if it is written.
    pub fn is_unsure(&self) -> bool {
        self.sealed.is_some()
    }

    /// The batch of [`Outbox::due`] is written.
    pub fn written(&mut self) {
        self.sealed = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(tenant: &str, queries: u64) -> (TenantId, Amount) {
        let mut amount = Amount::default();
        amount.figures.queries = queries;
        (TenantId::new(tenant).unwrap(), amount)
    }

    #[test]
    fn a_batch_stays_what_it_is_until_it_is_written() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.due(), None);
        outbox.put(7, [used("acme", 1)]);
        outbox.put(7, [used("acme", 2)]);
        let first = outbox.due().unwrap();
        assert_eq!((first.sequence, first.rows.len()), (1, 1));
        assert_eq!(first.rows[0].amount.figures.queries, 3);
        outbox.put(7, [used("acme", 4)]);
        outbox.put(8, [used("acme", 8)]);
        assert_eq!(outbox.due().unwrap().rows[0].amount.figures.queries, 3);
        outbox.written();
        let second = outbox.due().unwrap();
        assert_eq!(second.sequence, 2);
        let rows = second.rows.iter();
        let rows: Vec<_> = rows
            .map(|row| (row.hour, row.amount.figures.queries))
            .collect();
        assert_eq!(rows, [(7, 4), (8, 8)]);
        outbox.written();
        assert_eq!(outbox.due(), None);
    }

    #[test]
    fn without_room_hours_are_put_together_and_nothing_is_lost() {
        let mut outbox = Outbox::default();
        for number in 0..ROWS_MAX {
            outbox.put(7, [used(&format!("t{number}"), 1)]);
        }
        for hour in 8..20 {
            outbox.put(hour, [used("t5", 1)]);
        }
        assert_eq!(outbox.open.len(), ROWS_MAX);
        let mut sum = 0;
        while let Some(batch) = outbox.due() {
            let rows = batch.rows.iter();
            sum += rows.map(|row| row.amount.figures.queries).sum::<u64>();
            outbox.written();
        }
        assert_eq!(sum, ROWS_MAX as u64 + 12);
    }
}
