//! What a session waits for before a transaction: its turn, where its tenant or key is limited, and a
//! server. A client that waits for long is told what for.

use super::session::{Done, Session, count_error};
use crate::{
    pool::{Checkout, CheckoutError, TenantPool},
    relay::{Client, LongWait},
    sessions::{Activity, Order, Pass, SessionHandle},
    usage::Counters,
    wire::{Refusal, SqlState},
};
use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

/// So many refusals in a row are told at once; each one more comes so much later than the one before.
const REFUSALS_FREE: u32 = 8;
const REFUSAL_PAUSE: Duration = Duration::from_millis(10);
const REFUSAL_PAUSE_MAX: Duration = Duration::from_millis(250);

/// Why a client does not get its turn.
enum Untaken {
    /// It is told why.
    Refused(Box<Refusal>),
    /// The session was told to.
    Ordered(Order),
    /// It is not there.
    Absent(Absent),
}

/// Why a session ends whose client waits for something.
pub(super) enum Absent {
    /// It did not take its notifications.
    Lagged(Box<Refusal>),
    /// It has left.
    Left,
}

impl Session {
    /// Takes the right to run the next transaction; else what has become of that.
    pub(super) async fn take_pass(&mut self) -> Option<Done> {
        let handle = Arc::clone(&self.client.handle);
        let mut taking = pin!(Pass::take(Arc::clone(&handle), false));
        let mut wait = LongWait::default();
        let client = &mut self.client;
        let taken = std::future::poll_fn(|cx| {
            if let Err(refusal) = client.keeps_up(cx) {
                return Poll::Ready(Err(Untaken::Absent(Absent::Lagged(refusal))));
            }
            if let Poll::Ready(taken) = taking.as_mut().poll(cx) {
                let begun = taken.map(|pass| client.begin_pass(pass, cx));
                return Poll::Ready(begun.map_err(Untaken::Refused));
            }
            handle.listen(cx);
            // Who waits holds no server.
            handle.forget_lost_server();
            if let Some(order) = handle.order() {
                return Poll::Ready(Err(Untaken::Ordered(order)));
            }
            if has_left(client, cx) {
                return Poll::Ready(Err(Untaken::Absent(Absent::Left)));
            }
            wait.poll(client, cx, |client| explain(&client.handle));
            Poll::Pending
        });
        let untaken = match taken.await {
            Ok(()) => {
                self.refusals = 0;
                return None;
            }
            Err(untaken) => untaken,
        };
        Some(match untaken {
            Untaken::Refused(refusal) => {
                self.client.handle.enter(Activity::Idle);
                self.client.handle.obeyed_cancel();
                if refusal.sqlstate == SqlState::QUOTA && self.tell_standing() {
                    return Some(Done::Next);
                }
                count_error("limits", "tenant");
                self.count_refusal(&refusal);
                if let Err(absent) = self.slow_down().await {
                    return Some(Done::Ended(self.end_absent(&absent)));
                }
                self.refuse(&refusal);
                Done::Next
            }
            Untaken::Ordered(order) => self.not_served(&CheckoutError::Ordered(order)),
            Untaken::Absent(absent) => Done::Ended(self.end_absent(&absent)),
        })
    }

    /// A client that asks again as soon as it is refused is told a little later each time.
    async fn slow_down(&mut self) -> Result<(), Absent> {
        self.refusals = self.refusals.saturating_add(1);
        let times = self.refusals.saturating_sub(REFUSALS_FREE);
        if times == 0 {
            return Ok(());
        }
        let pause = REFUSAL_PAUSE.saturating_mul(times).min(REFUSAL_PAUSE_MAX);
        while_present(&mut self.client, tokio::time::sleep(pause), || None).await
    }

    /// Waits for a server of the primary.
    pub(super) async fn checkout_primary(
        &mut self,
    ) -> Result<Result<Checkout, CheckoutError>, Absent> {
        let handle = Arc::clone(&self.client.handle);
        let (client, pool) = (&mut self.client, &self.pool);
        let lending = pool.checkout(&handle);
        while_present(client, lending, || Some(waits_for_server(pool))).await
    }

    /// The session ends, as its client is not there.
    pub(super) fn end_absent(&mut self, absent: &Absent) -> &'static str {
        match absent {
            Absent::Lagged(refusal) => self.end(refusal, super::session::TOO_SLOW),
            Absent::Left => "client left",
        }
    }
}

/// Waits for a server as long as the client is there and takes its notifications. Who has left gives its
/// turn on at once. `explain` says what is waited for, to a client that waits for long.
pub(super) async fn while_present<T>(
    client: &mut Client,
    lending: impl Future<Output = T>,
    explain: impl Fn() -> Option<String>,
) -> Result<T, Absent> {
    let mut lending = pin!(lending);
    let mut wait = LongWait::default();
    std::future::poll_fn(|cx| {
        if let Err(refusal) = client.keeps_up(cx) {
            return Poll::Ready(Err(Absent::Lagged(refusal)));
        }
        if let Poll::Ready(lent) = lending.as_mut().poll(cx) {
            return Poll::Ready(Ok(lent));
        }
        if has_left(client, cx) {
            return Poll::Ready(Err(Absent::Left));
        }
        wait.poll(client, cx, |_| explain());
        Poll::Pending
    })
    .await
}

fn explain(handle: &SessionHandle) -> Option<String> {
    handle.restraints.explain(&handle.awaited)
}

/// What keeps a client from getting a server.
fn waits_for_server(pool: &TenantPool) -> String {
    let size = pool.config().limits.pool_size;
    if pool.occupancy().active >= size as usize {
        return format!(
            "still waiting for a server connection: pool_size of the tenant, {size}, is reached; others' transactions must end first"
        );
    }
    "still waiting for a server connection: max_server_connections of the tenant's cluster is reached, or it has no primary at the moment".to_owned()
}

/// Takes what the client sends meanwhile, as much as there is room for in the memory that it has; whether it
/// is gone. One that has sent more is looked at when it gets its turn.
fn has_left(client: &mut Client, cx: &mut Context<'_>) -> bool {
    while client.to_server.has_room_without_growing() {
        match client.to_server.poll_fill(&mut client.stream, cx) {
            Poll::Ready(Ok(0) | Err(_)) => return true,
            Poll::Ready(Ok(count)) => {
                Counters::add(&client.handle.counters.client_bytes, count as u64);
            }
            Poll::Pending => return false,
        }
    }
    false
}
