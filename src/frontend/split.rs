//! Where a session's next transaction runs, where its tenant's cluster has replicas.
//!
//! Looked at is what the client has sent so far: one Query, or one batch up to its Sync, if it is here
//! whole. Everything else goes to the primary, and so does all that is not known to be a read.

use super::{
    batch::{Batch, primary},
    limits::{Absent, while_present},
    session::Session,
};
use crate::{
    pool::{Checkout, CheckoutError, Choice, Kept, ReplicaPool, Replicas, Why},
    relay::{Marks, Moved, Reading},
    routing::{Reason, Target, Transaction, Verdict},
    sessions::Activity,
    tenant::{Consistency, PoolMode, ReadTarget, Scope},
    topology::{self, Lsn},
};
use std::sync::Arc;

/// A read that came back is kept in this much memory, for the next one.
const KEEP_BYTES: usize = 512;

/// Where the next transaction goes.
#[derive(Debug)]
pub(super) enum Course {
    /// There is only one server.
    Only,
    /// To the primary; it may write.
    Primary(Marks),
    /// To the primary, as one read.
    Kept,
    /// To a replica.
    Replica(Aimed),
    /// To nobody: no replica answers.
    Nobody,
}

/// A replica that is to answer.
#[derive(Debug)]
pub(super) struct Aimed {
    pool: Arc<ReplicaPool>,
    /// What it must have replayed.
    wanted: Lsn,
    /// Whether it is known to have that.
    is_known: bool,
    /// Whether another server may answer instead.
    is_movable: bool,
    /// Whether it is one statement.
    is_single: bool,
    marks: Marks,
}

/// A lent server, and what the relay is to do about replicas.
type Lent = (Result<Checkout, CheckoutError>, Reading);

impl Session {
    /// Decides where the next transaction goes.
    pub(super) fn course(&mut self) -> Course {
        match self.pool.replicas() {
            None => Course::Only,
            Some(replicas) => self.split(&replicas),
        }
    }

    /// A lent server for a course, and what the relay is to do about replicas. A replica that can't be
    /// had is no reason to refuse a read.
    pub(super) async fn checkout(&mut self, course: Course) -> Result<Lent, Absent> {
        let reading = match course {
            Course::Only => Reading::Unsplit,
            Course::Primary(marks) => Reading::Writes(marks),
            Course::Kept => Reading::Kept,
            Course::Nobody => return Ok((Err(CheckoutError::NoReplica), Reading::Unsplit)),
            Course::Replica(aimed) => return self.checkout_replica(aimed).await,
        };
        Ok((self.checkout_primary().await?, reading))
    }

    async fn checkout_replica(&mut self, mut aimed: Aimed) -> Result<Lent, Absent> {
        let mut is_second = false;
        loop {
            let lent = aimed.pool.node().lend();
            let handle = Arc::clone(&self.client.handle);
            let lending = aimed.pool.checkout(&handle);
            let error = match while_present(&mut self.client, lending, || None).await? {
                Ok(checkout) => return self.lent_by_replica(checkout, (aimed, lent)).await,
                Err(error) => error,
            };
            if !aimed.is_movable || matches!(error, CheckoutError::Ordered(_)) {
                return Ok((Err(error), Reading::Unsplit));
            }
            tracing::debug!(tenant = %self.pool.tenant(), %error, "a replica lends no server");
            count_retry(Moved::Lost.as_str());
            let replicas = self.pool.replicas();
            let other = replicas.as_ref().filter(|_| !is_second);
            if let Some(other) = other.and_then(|all| self.other_than(&aimed, all)) {
                (aimed, is_second) = (other, true);
                continue;
            }
            if replicas.is_some_and(|replicas| !replicas.falls_back()) {
                return Ok((Err(CheckoutError::NoReplica), Reading::Unsplit));
            }
            return Ok((self.checkout_primary().await?, Reading::Writes(aimed.marks)));
        }
    }

    /// The same read for another replica.
    fn other_than(&self, aimed: &Aimed, replicas: &Replicas) -> Option<Aimed> {
        let Choice::Replica {
            pool,
            wanted,
            is_known,
        } = replicas.choose(self.own.as_deref())
        else {
            return None;
        };
        let is_other = !Arc::ptr_eq(&pool, &aimed.pool);
        is_other.then(|| Aimed {
            pool,
            wanted,
            is_known,
            marks: aimed.marks.clone(),
            ..*aimed
        })
    }

    /// A replica has lent a server; one that is not sure to be far enough, and can't be asked, is no use.
    async fn lent_by_replica(
        &mut self,
        mut checkout: Checkout,
        (aimed, lent): (Aimed, topology::Lent),
    ) -> Result<Lent, Absent> {
        let Aimed {
            pool,
            wanted,
            is_known,
            is_movable,
            is_single,
            marks,
        } = aimed;
        let is_sure = is_known && checkout.is_known() || wanted == Lsn::default();
        if !is_sure && pool.is_mute() {
            checkout.release(&self.pool);
            pool.node().ask_soon();
            return Ok((self.checkout_primary().await?, Reading::Writes(marks)));
        }
        let reading = Reading::Replica {
            pool,
            lent,
            wanted: (!is_sure).then_some(wanted),
            is_movable,
            is_single,
        };
        self.counted = self.client.handle.counters.figures();
        Ok((Ok(checkout), reading))
    }

    /// The read that a replica did not answer goes to the primary, as the client sent it.
    pub(super) fn return_to_primary(&mut self) -> Course {
        self.client.ask_again(&self.replay, self.replay_from);
        self.client.handle.enter(Activity::Waiting);
        match self.pool.replicas() {
            Some(replicas) => Course::Primary(self.marks_of(&replicas)),
            None => Course::Only,
        }
    }

    /// What is to be done about replicas while the session keeps its server.
    pub(super) fn pinned_reading(&mut self, reading: Reading) -> Reading {
        // The transaction is over; the next ones begin without a checkout, and the relay takes their pass.
        self.client.pass = None;
        match (reading, self.pool.replicas()) {
            (Reading::Kept, Some(replicas)) => Reading::Writes(self.marks_of(&replicas)),
            (reading, _) => reading,
        }
    }

    /// The last read is answered: an idle session keeps little of it.
    #[inline]
    pub(super) fn forget_read(&mut self) {
        if self.replay.capacity() > KEEP_BYTES {
            self.replay = Vec::new();
        }
    }

    /// What a replica did not answer is taken from it.
    pub(super) fn note_moved(&self, moved: Moved) {
        self.client.handle.counters.rewind(&self.counted);
        count_retry(moved.as_str());
        tracing::debug!(tenant = %self.pool.tenant(), reason = moved.as_str(), "a read goes on to the primary");
    }

    fn marks_of(&mut self, replicas: &Replicas) -> Marks {
        if replicas.consistency() == Consistency::Session && self.own.is_none() {
            self.own = Some(replicas.own_position());
        }
        Marks {
            tenant: Arc::clone(replicas.position()),
            session: self.own.clone(),
        }
    }

    /// A transaction that has begun, and in which nothing has run, goes on elsewhere: what the client
    /// says of it next, so many bytes, is for a server of this course. `None` when it stays.
    pub(super) fn course_elsewhere(&mut self, batch_bytes: usize) -> Option<Course> {
        let course = self.begun_course(batch_bytes);
        if course.is_some() {
            self.client.begun.moves();
            self.client.handle.enter(Activity::Waiting);
        } else {
            self.client.begun.forget();
        }
        course
    }

    fn begun_course(&mut self, batch_bytes: usize) -> Option<Course> {
        let replicas = self.pool.replicas()?;
        let marks = self.marks_of(&replicas);
        if !self.client.begun.is_read() {
            self.count(Target::Primary, Reason::Transaction);
            return Some(Course::Primary(marks));
        }
        if self.unsplittable().is_some() {
            return None;
        }
        let batch = Batch {
            bytes: batch_bytes,
            verdict: primary(Reason::Transaction),
            is_single: true,
        };
        let choice = replicas.choose(self.own.as_deref());
        let (_, course) = Self::aim(choice, marks, Some(&batch));
        if !matches!(course, Course::Replica(_)) {
            return None;
        }
        self.keep_for_replay(batch_bytes);
        self.count(Target::Replica, Reason::Transaction);
        Some(course)
    }

    /// Keeps what the client has sent first, in case a replica does not answer it.
    fn keep_for_replay(&mut self, batch_bytes: usize) {
        let bytes = self.client.to_server.unscanned();
        self.replay_from = self.client.to_server.scanned();
        self.replay.clear();
        self.replay
            .extend_from_slice(bytes.get(..batch_bytes).unwrap_or_default());
    }

    /// Remembers a transaction that begins, as long as nothing runs in it.
    fn note_beginning(&mut self, batch: &Batch) {
        if let Transaction::Begin(mode) = batch.verdict.transaction {
            let reads_by_default = self.reads_by_default();
            let bytes = self.client.to_server.unscanned();
            let bytes = bytes.get(..batch.bytes).unwrap_or_default();
            self.client.begun.begin(bytes, mode, reads_by_default);
        }
    }

    fn count(&self, target: Target, reason: Reason) {
        self.pool.split().count(target, Why::Text(reason));
    }

    fn reads_by_default(&self) -> bool {
        let own = self.client.settings.value("default_transaction_read_only");
        let is_on = own.map(|value| value.eq_ignore_ascii_case("on"));
        is_on.unwrap_or(self.client.handle.scope == Scope::ReadOnly)
    }

    fn split(&mut self, replicas: &Replicas) -> Course {
        self.client.begun.forget();
        let marks = self.marks_of(replicas);
        let (why, course) = if self.target == ReadTarget::Replica && self.mode != PoolMode::Session
        {
            let (kept, course) = Self::aim(replicas.any(), marks, None);
            (kept.unwrap_or(Why::Hint), course)
        } else {
            self.course_of_batch(replicas, marks)
        };
        let target = match course {
            Course::Replica(_) => Target::Replica,
            _ => Target::Primary,
        };
        self.pool.split().count(target, why);
        course
    }

    fn course_of_batch(&mut self, replicas: &Replicas, marks: Marks) -> (Why, Course) {
        if let Some(why) = self.unsplittable() {
            return (why, Course::Primary(marks));
        }
        let Some(batch) = self.batch() else {
            return (Why::Incomplete, Course::Primary(marks));
        };
        if self.target == ReadTarget::Primary {
            return (Why::Hint, Course::Primary(marks));
        }
        self.note_beginning(&batch);
        let reason = Why::Text(batch.verdict.reason);
        if !self.is_read(batch.verdict) {
            return (reason, Course::Primary(marks));
        }
        self.keep_for_replay(batch.bytes);
        let choice = replicas.choose(self.own.as_deref());
        let (kept, course) = Self::aim(choice, marks.clone(), Some(&batch));
        let why = kept.unwrap_or(reason);
        match course {
            // A transaction that is on the primary may turn out to write.
            Course::Kept if batch.verdict.transaction != Transaction::None => {
                (why, Course::Primary(marks))
            }
            course => (why, course),
        }
    }

    /// Without a batch it stays where it goes, whatever becomes of it.
    fn aim(choice: Choice, marks: Marks, batch: Option<&Batch>) -> (Option<Why>, Course) {
        match choice {
            Choice::Replica {
                pool,
                wanted,
                is_known,
            } => {
                let aimed = Aimed {
                    pool,
                    wanted,
                    is_known,
                    is_movable: batch.is_some(),
                    is_single: batch.is_none_or(|batch| batch.is_single),
                    marks,
                };
                (None, Course::Replica(aimed))
            }
            Choice::Primary(kept) => (Some(Why::Kept(kept)), Course::Kept),
            Choice::Nobody => (Some(Why::Kept(Kept::NoReplica)), Course::Nobody),
        }
    }

    /// Why nothing of the session is split now.
    fn unsplittable(&self) -> Option<Why> {
        let settings = &self.client.settings;
        let isolation = settings.value("default_transaction_isolation");
        if self.mode == PoolMode::Session {
            Some(Why::SessionMode)
        } else if self.client.subscription.is_some() {
            // What it is told must not be taken back with an answer.
            Some(Why::Pinned)
        } else if isolation.is_some_and(|level| level.eq_ignore_ascii_case("serializable")) {
            Some(Why::Text(Reason::Transaction))
        } else if !self.client.to_client.is_sent() {
            Some(Why::Incomplete)
        } else {
            None
        }
    }

    /// Whether a statement may run on a replica, as the session stands.
    fn is_read(&self, verdict: Verdict) -> bool {
        match verdict.transaction {
            Transaction::None => verdict.target == Target::Replica,
            Transaction::Begin(mode) => {
                mode.serializable != Some(true)
                    && mode.read_only.unwrap_or_else(|| self.reads_by_default())
            }
            _ => false,
        }
    }
}

fn count_retry(reason: &'static str) {
    metrics::counter!("pgusher_reads_retried_total", "reason" => reason).increment(1);
}
