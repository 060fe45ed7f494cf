//! Looking at bytes, without any socket.

use crate::{fixture, relay};
use divan::{
    Bencher, black_box,
    counter::{BytesCount, ItemsCount},
};
use pgusher::{
    net::{Buffer, Flow},
    relay::Names,
    upstream::{Statements, Suspicion},
    wire::{HEADER_BYTES, peek, read},
};

/// The frames of a thousand rows.
#[divan::bench]
fn scan_rows(bencher: Bencher<'_, '_>) {
    let rows = relay::rows();
    let bencher = bencher.counter(BytesCount::of_slice(&rows));
    bencher
        .counter(ItemsCount::new(1000_usize))
        .bench_local(|| {
            let (mut at, mut sum) = (0, 0);
            while let Ok(Some(header)) = peek(black_box(rows.get(at..).unwrap_or_default())) {
                sum += usize::from(header.tag);
                at += header.message_bytes;
            }
            sum
        });
}

/// A Bind whose statement has another name on the server: looked up, rewritten in the flow.
#[divan::bench]
fn rewrite_bind(bencher: Bencher<'_, '_>) {
    const BIND: &[u8] = b"B\0\0\0\x1e\0my statement\0\0\0\0\x01\0\0\0\x0242\0\0";
    const NAMES_BYTES: usize = 14;
    let mut names = Names::default();
    let statement = Statements::default().intern(0, b"select $1\0\0\0", |_| Suspicion::NONE);
    names.insert(Names::key(b"my statement"), statement);
    let buffers = fixture::buffers();
    bencher
        .with_inputs(|| {
            let mut inbox = Buffer::new(buffers.clone());
            inbox.append(BIND);
            let mut flow = Flow::starting_with(inbox);
            // As in a session that has done this before.
            flow.insertion();
            flow
        })
        .bench_local_values(|mut flow| {
            let (_, rest) = read::cstr(&flow.unscanned()[HEADER_BYTES..]).unwrap();
            let (name, _) = read::cstr(rest).unwrap();
            let statement = names.get(black_box(name)).unwrap();
            flow.rewrite_front(HEADER_BYTES + NAMES_BYTES, |front, out| {
                out.extend_from_slice(&front[..=HEADER_BYTES]);
                out.extend_from_slice(statement.name());
                out.push(0);
            });
            flow.approve(flow.unscanned().len());
            flow
        });
}
