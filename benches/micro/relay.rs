//! Whole transactions through a relay, its system calls included.

use crate::lane::Lane;
use divan::{
    Bencher,
    counter::{BytesCount, ItemsCount},
};
use pgusher::wire::frontend;
use std::cell::RefCell;

/// Rows of a large result, and bytes of a value in it.
const ROWS: usize = 1000;
const VALUE_BYTES: usize = 100;

const READY: &[u8] = b"Z\0\0\0\x05I";

/// Everything that one statement's answer consists of.
const ONE_ROW: &[u8] = b"D\0\0\0\x0c\0\x01\0\0\0\x0242C\0\0\0\x0dSELECT 1\0";

fn run(bencher: Bencher<'_, '_>, lane: Lane, request: &[u8], answer: &[u8]) {
    let lane = RefCell::new(lane);
    bencher
        .counter(BytesCount::new(request.len() + answer.len()))
        .with_inputs(|| lane.borrow_mut().stage(request, answer))
        .bench_local_values(|()| lane.borrow_mut().relay());
}

// Each sample is one transaction: the sockets hold no more.
#[divan::bench(sample_size = 1, sample_count = 5000)]
fn simple_query(bencher: Bencher<'_, '_>) {
    let mut request = Vec::new();
    frontend::query(&mut request, "select 42");
    let answer = [ONE_ROW, READY].concat();
    run(bencher, Lane::new(), &request, &answer);
}

#[divan::bench(sample_size = 1, sample_count = 5000, args = [1, 10])]
fn prepared_statement(bencher: Bencher<'_, '_>, statements: usize) {
    let mut lane = Lane::new();
    let mut request = Vec::new();
    frontend::parse(&mut request, b"my statement", b"select $1\0\0\0");
    request.extend_from_slice(frontend::SYNC);
    lane.stage(&request, &[b"1\0\0\0\x04", READY].concat());
    lane.relay();
    request.clear();
    let mut answer = Vec::new();
    for _ in 0..statements {
        let values = b"\0\0\0\x01\0\0\0\x0242\0\0";
        frontend::message(&mut request, b'B', &[b"\0my statement\0", values]);
        frontend::message(&mut request, b'E', &[b"\0\0\0\0\0"]);
        answer.extend_from_slice(b"2\0\0\0\x04");
        answer.extend_from_slice(ONE_ROW);
    }
    request.extend_from_slice(frontend::SYNC);
    answer.extend_from_slice(READY);
    run(bencher, lane, &request, &answer);
}

#[divan::bench(sample_size = 1, sample_count = 2000)]
fn thousand_rows(bencher: Bencher<'_, '_>) {
    let mut request = Vec::new();
    frontend::query(&mut request, "select");
    let mut answer = rows();
    answer.extend_from_slice(b"C\0\0\0\x10SELECT 1000\0");
    answer.extend_from_slice(READY);
    run(
        bencher.counter(ItemsCount::new(ROWS)),
        Lane::new(),
        &request,
        &answer,
    );
}

/// A thousand rows, as a server sends them.
pub fn rows() -> Vec<u8> {
    let mut out = Vec::new();
    let length = u32::try_from(VALUE_BYTES).unwrap().to_be_bytes();
    for _ in 0..ROWS {
        frontend::message(&mut out, b'D', &[b"\0\x01", &length, &[b'x'; VALUE_BYTES]]);
    }
    out
}
