//! A server, lent and given back.

use crate::{fixture, postgres};
use divan::Bencher;

/// While one is idle, as in nearly every transaction.
#[divan::bench]
fn checkout_and_release(bencher: Bencher<'_, '_>) {
    let tenant = fixture::tenant(Vec::new());
    let runtime = fixture::runtime();
    let pool = fixture::pool(&tenant, postgres::start().unwrap().port(), &runtime);
    let session = fixture::session(&tenant);
    bencher.bench_local(|| {
        runtime.block_on(async { pool.checkout(&session).await.unwrap().release(&pool) });
    });
}

/// The same, with the cost of `block_on` alone, to be subtracted.
#[divan::bench]
fn nothing(bencher: Bencher<'_, '_>) {
    let runtime = fixture::runtime();
    bencher.bench_local(|| runtime.block_on(async {}));
}
