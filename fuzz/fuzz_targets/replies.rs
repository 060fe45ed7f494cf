//! Requests and answers in any order.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgusher::upstream::{Expect, Replies, Reply, Verdict};

/// Bytes below this are requests, the others answers.
const REQUESTS: u8 = 16;

fuzz_target!(|bytes: &[u8]| {
    let mut replies = Replies::default();
    for byte in bytes {
        while replies.own_turn().is_some() {}
        let before = replies.count();
        if *byte < REQUESTS {
            replies.push(expect(*byte));
            assert!(replies.count() <= before + 1);
            continue;
        }
        let verdict = replies.observe(*byte);
        assert!(replies.count() <= before, "an answer adds nothing");
        if before == 0 && !matches!(byte, b'E') {
            assert_eq!(verdict, Verdict::Unexpected, "nothing was asked");
        }
        if verdict == Verdict::Unexpected {
            // The relay closes such a connection.
            return;
        }
        assert!(replies.take_lost().len() <= before - replies.count());
    }
});

fn expect(byte: u8) -> Expect {
    match byte {
        0 => Expect::Parse(Reply::Forward, Some(1)),
        1 => Expect::Parse(Reply::Swallow, Some(2)),
        2 => Expect::Parse(Reply::Forward, None),
        3 => Expect::Bind,
        4 => Expect::Describe,
        5 => Expect::Execute,
        6 => Expect::Close(Reply::Forward, None),
        7 => Expect::Close(Reply::Swallow, Some(3)),
        8 => Expect::SayParseComplete,
        9 => Expect::SayCloseComplete,
        10 => Expect::Doomed([b'E', 0, 0, 0, 5, 0].into()),
        11 => Expect::Query,
        12 => Expect::FunctionCall,
        13 => Expect::Injected,
        14 => Expect::CopyEnd,
        _ => Expect::Sync,
    }
}
