//! Requests and answers in any order.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgusher::upstream::{Change, Closing, Expect, Making, Replies, Reply, Verdict};

/// Bytes below this are requests, the others answers.
const REQUESTS: u8 = 17;

/// A statement and its name are what one request can lose.
const LOST_EACH_MAX: usize = 2;

fuzz_target!(|bytes: &[u8]| {
    let mut replies = Replies::default();
    for byte in bytes {
        while replies.own_turn().is_some() {}
        let before = replies.count();
        if *byte < REQUESTS {
            replies.push(expect(*byte));
            let lost = replies.take_lost().len();
            assert!(replies.count() <= before + 1 && lost <= LOST_EACH_MAX);
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
        assert!(replies.take_lost().len() <= LOST_EACH_MAX * (before - replies.count()));
    }
});

fn expect(byte: u8) -> Expect {
    match byte {
        0 => Expect::Parse(Reply::Forward, Making::Shared(1, Some(b"s"[..].into()))),
        1 => Expect::Parse(Reply::Swallow, Making::Shared(2, None)),
        2 => Expect::Parse(Reply::Forward, Making::Unnamed(Change { made: 2, before: 1 })),
        3 => Expect::Bind(None),
        4 => Expect::Describe(None),
        5 => Expect::Execute,
        6 => Expect::Close(Reply::Forward, Closing::Other),
        7 => Expect::Close(Reply::Swallow, Closing::Shared(3, 1)),
        8 => Expect::SayParseComplete(b"s"[..].into()),
        9 => Expect::SayCloseComplete(b"s"[..].into(), None),
        10 => Expect::Doomed([b'E', 0, 0, 0, 5, 0].into()),
        11 => Expect::Query(Change::default()),
        12 => Expect::FunctionCall,
        13 => Expect::Injected,
        14 => Expect::CopyEnd,
        15 => Expect::OwnSync,
        _ => Expect::Sync,
    }
}
