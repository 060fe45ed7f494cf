use super::*;
use proptest::prelude::*;

/// A client's second statement without a name, on a server that has its first.
const CHANGE: Change = Change { made: 2, before: 1 };

fn queue(expects: impl IntoIterator<Item = Expect>) -> Replies {
    let mut replies = Replies::default();
    expects.into_iter().for_each(|expect| replies.push(expect));
    replies
}

/// What the client sees of these messages from the server.
fn seen(replies: &mut Replies, messages: &[u8]) -> Vec<u8> {
    let mut seen = Vec::new();
    let own = |replies: &mut Replies, seen: &mut Vec<u8>| {
        while let Some(bytes) = replies.own_turn() {
            seen.push(bytes[0]);
        }
    };
    own(replies, &mut seen);
    for message in messages {
        match replies.observe(*message) {
            Verdict::Forward => seen.push(*message),
            Verdict::Swallow => {}
            Verdict::Replace(_) => seen.push(b'!'),
            Verdict::Unexpected => seen.push(b'?'),
        }
        own(replies, &mut seen);
    }
    seen
}

#[test]
fn an_injected_parse_is_answered_without_the_client_knowing() {
    let mut replies = queue([
        Expect::Parse(Reply::Swallow, Making::Shared(1, None)),
        Expect::Bind(None),
        Expect::Execute,
        Expect::Sync,
    ]);
    assert_eq!(seen(&mut replies, b"12DDCZ"), b"2DDCZ");
    assert!(replies.is_empty());
}

#[test]
fn our_own_parse_complete_keeps_its_place() {
    let mut replies = queue([
        Expect::Bind(None),
        Expect::Execute,
        Expect::SayParseComplete((*b"n").into()),
        Expect::Describe(None),
        Expect::SayCloseComplete((*b"n").into(), None),
        Expect::Sync,
    ]);
    assert_eq!(seen(&mut replies, b"2CtTZ"), b"2C1tT3Z");
}

#[test]
fn our_own_replies_come_at_once_when_nothing_is_before_them() {
    let mut replies = queue([
        Expect::SayParseComplete((*b"n").into()),
        Expect::SayCloseComplete((*b"n").into(), None),
    ]);
    assert_eq!(seen(&mut replies, b""), b"13");
}

#[test]
fn after_an_error_everything_up_to_sync_is_skipped_our_own_replies_too() {
    let mut replies = queue([
        Expect::Bind(None),
        Expect::SayParseComplete((*b"n").into()),
        Expect::Parse(Reply::Forward, Making::Shared(7, None)),
        Expect::Close(Reply::Swallow, Closing::Shared(8, 1)),
        Expect::Sync,
        Expect::Bind(None),
        Expect::Sync,
    ]);
    assert_eq!(seen(&mut replies, b"EZ2Z"), b"EZ2Z");
    let name = (*b"n").into();
    assert_eq!(
        replies.take_lost(),
        [Lost::Name(name), Lost::Parse(7), Lost::Close(8, 1)]
    );
    assert!(replies.is_empty());
}

#[test]
fn a_doomed_request_gets_the_error_that_we_word() {
    let mut replies = queue([
        Expect::Doomed((*b"!").into()),
        Expect::Execute,
        Expect::Sync,
    ]);
    assert_eq!(seen(&mut replies, b"EZ"), b"!Z");
}

#[test]
fn a_doomed_request_behind_an_error_is_never_heard_of() {
    let mut replies = queue([
        Expect::Bind(None),
        Expect::Doomed((*b"!").into()),
        Expect::Sync,
    ]);
    assert_eq!(seen(&mut replies, b"EZ"), b"EZ");
}

#[test]
fn an_injected_query_is_unseen_and_its_error_is_noted() {
    let mut replies = queue([Expect::Injected, Expect::Query(Change::default())]);
    assert_eq!(seen(&mut replies, b"TDCEZTDCZ"), b"TDCZ");
    assert!(replies.take_injected_failed());
    assert!(!replies.take_injected_failed());
}

#[test]
fn the_sync_sent_before_copy_data_is_ignored_by_the_server_and_by_us() {
    // Execute, Sync, then data: the server meets the first Sync while it copies in.
    let mut replies = queue([Expect::Bind(None), Expect::Execute, Expect::Sync]);
    assert_eq!(seen(&mut replies, b"2G"), b"2G");
    assert!(replies.is_copy_in() && replies.needs_sync());
    replies.push(Expect::CopyEnd);
    replies.push(Expect::Sync);
    assert_eq!(seen(&mut replies, b"CZ"), b"CZ");
    assert!(replies.is_empty());
}

#[test]
fn copy_data_sent_blindly_behind_the_sync_counts_the_same() {
    let all = [
        Expect::Bind(None),
        Expect::Execute,
        Expect::Sync,
        Expect::CopyEnd,
        Expect::Sync,
    ];
    let mut copied = queue(all.clone());
    assert_eq!(seen(&mut copied, b"2GCZ"), b"2GCZ");
    assert!(copied.is_empty());
    let mut refused = queue(all);
    assert_eq!(seen(&mut refused, b"2EZZ"), b"2EZZ");
    assert!(refused.is_empty());
}

#[test]
fn an_error_while_copying_in_ends_the_copy() {
    let mut replies = queue([Expect::Bind(None), Expect::Execute, Expect::Sync]);
    assert_eq!(seen(&mut replies, b"2GE"), b"2GE");
    assert!(!replies.is_copy_in());
    replies.push(Expect::CopyEnd);
    replies.push(Expect::Sync);
    assert_eq!(seen(&mut replies, b"Z"), b"Z");
    assert!(replies.is_empty());
}

#[test]
fn copying_in_by_a_simple_query_ends_with_its_ready() {
    let mut replies = queue([Expect::Query(Change::default())]);
    assert_eq!(seen(&mut replies, b"G"), b"G");
    replies.push(Expect::CopyEnd);
    assert_eq!(seen(&mut replies, b"CZ"), b"CZ");
    assert!(replies.is_empty());
}

#[test]
fn several_statements_of_one_query_are_one_answer() {
    let mut replies = queue([Expect::Query(Change::default())]);
    assert_eq!(seen(&mut replies, b"TDCTDCICZ"), b"TDCTDCICZ");
    assert!(replies.is_empty());
}

#[test]
fn a_flushed_batch_is_answered_but_not_settled_before_its_sync() {
    let mut replies = queue([Expect::Bind(None), Expect::Execute]);
    assert_eq!(seen(&mut replies, b"2C"), b"2C");
    assert!(replies.is_empty() && !replies.is_settled() && replies.needs_sync());
    replies.push(Expect::Sync);
    assert_eq!(seen(&mut replies, b"Z"), b"Z");
    assert!(replies.is_settled());
}

#[test]
fn without_a_sync_an_error_skips_what_is_sent_later_too() {
    let mut replies = queue([
        Expect::Parse(Reply::Forward, Making::Unnamed(CHANGE)),
        Expect::Query(Change::default()),
    ]);
    assert_eq!(seen(&mut replies, b"E"), b"E");
    assert!(replies.is_empty() && !replies.is_settled());
    replies.push(Expect::Query(Change::default()));
    replies.push(Expect::SayParseComplete((*b"m").into()));
    assert!(replies.is_empty(), "the server skips them");
    let nobodys = Change::default();
    assert_eq!(
        replies.take_lost(),
        [
            Lost::UnnamedFailed(CHANGE),
            Lost::Unnamed(nobodys),
            Lost::Unnamed(nobodys),
            Lost::Name((*b"m").into())
        ]
    );
    replies.push(Expect::Sync);
    assert_eq!(seen(&mut replies, b"Z"), b"Z");
    assert!(replies.is_settled());
}

#[test]
fn a_query_ends_an_extended_sequence_that_did_not_fail() {
    let mut replies = queue([
        Expect::Bind(None),
        Expect::Execute,
        Expect::Query(Change::default()),
    ]);
    assert_eq!(seen(&mut replies, b"2CCZ"), b"2CCZ");
    assert!(replies.is_settled());
}

#[test]
fn two_copies_of_one_query_each_wait_for_their_own_end() {
    let mut replies = queue([Expect::Query(Change::default())]);
    assert_eq!(seen(&mut replies, b"G"), b"G");
    replies.push(Expect::CopyEnd);
    assert_eq!(seen(&mut replies, b"CG"), b"CG");
    assert!(replies.is_copy_in());
    replies.push(Expect::CopyEnd);
    assert_eq!(seen(&mut replies, b"CZ"), b"CZ");
    assert!(replies.is_settled());
}

#[test]
fn what_the_server_meets_in_place_of_copy_data_is_lost() {
    let mut extended = queue([
        Expect::Execute,
        Expect::Sync,
        Expect::Bind(None),
        Expect::Sync,
    ]);
    assert_eq!(seen(&mut extended, b"GEZ"), b"GEZ");
    assert!(extended.is_settled());
    let mut simple = queue([
        Expect::Query(Change::default()),
        Expect::Query(Change::default()),
    ]);
    assert_eq!(seen(&mut simple, b"GEZ"), b"GEZ");
    assert!(simple.is_settled());
}

#[test]
fn an_answer_to_nothing_is_unexpected() {
    assert_eq!(Replies::default().observe(b'Z'), Verdict::Unexpected);
    assert_eq!(
        queue([Expect::Bind(None)]).observe(b'Z'),
        Verdict::Unexpected
    );
    assert_eq!(queue([Expect::Sync]).observe(b'2'), Verdict::Unexpected);
}

fn any_expect() -> impl Strategy<Value = Expect> {
    prop_oneof![
        Just(Expect::Parse(Reply::Swallow, Making::Shared(1, None))),
        Just(Expect::Parse(Reply::Forward, Making::Private)),
        Just(Expect::Bind(None)),
        Just(Expect::Describe(None)),
        Just(Expect::Execute),
        Just(Expect::SayParseComplete((*b"n").into())),
        Just(Expect::SayCloseComplete((*b"n").into(), None)),
        Just(Expect::Sync),
        Just(Expect::Query(Change::default())),
        Just(Expect::Injected),
        Just(Expect::CopyEnd),
    ]
}

proptest! {
    /// Whatever the server sends, the queue neither panics nor grows.
    #[test]
    fn any_answers_to_any_requests_are_bounded(
        expects in proptest::collection::vec(any_expect(), 0..40),
        messages in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut replies = queue(expects);
        let mut before = replies.count();
        for message in messages {
            let _ = replies.observe(message);
            while replies.own_turn().is_some() {}
            prop_assert!(replies.count() <= before);
            before = replies.count();
        }
    }
}
