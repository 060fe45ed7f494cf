use super::*;
use proptest::prelude::*;

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
        Expect::Parse(Reply::Swallow, Some(1)),
        Expect::Bind,
        Expect::Execute,
        Expect::Sync,
    ]);
    assert_eq!(seen(&mut replies, b"12DDCZ"), b"2DDCZ");
    assert!(replies.is_empty());
}

#[test]
fn our_own_parse_complete_keeps_its_place() {
    let mut replies = queue([
        Expect::Bind,
        Expect::Execute,
        Expect::SayParseComplete,
        Expect::Describe,
        Expect::SayCloseComplete,
        Expect::Sync,
    ]);
    assert_eq!(seen(&mut replies, b"2CtTZ"), b"2C1tT3Z");
}

#[test]
fn our_own_replies_come_at_once_when_nothing_is_before_them() {
    let mut replies = queue([Expect::SayParseComplete, Expect::SayCloseComplete]);
    assert_eq!(seen(&mut replies, b""), b"13");
}

#[test]
fn after_an_error_everything_up_to_sync_is_skipped_our_own_replies_too() {
    let mut replies = queue([
        Expect::Bind,
        Expect::SayParseComplete,
        Expect::Parse(Reply::Forward, Some(7)),
        Expect::Close(Reply::Swallow, Some(8)),
        Expect::Sync,
        Expect::Bind,
        Expect::Sync,
    ]);
    assert_eq!(seen(&mut replies, b"EZ2Z"), b"EZ2Z");
    assert_eq!(replies.take_lost(), [Lost::Parse(7), Lost::Close(8)]);
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
    let mut replies = queue([Expect::Bind, Expect::Doomed((*b"!").into()), Expect::Sync]);
    assert_eq!(seen(&mut replies, b"EZ"), b"EZ");
}

#[test]
fn an_injected_query_is_unseen_and_its_error_is_noted() {
    let mut replies = queue([Expect::Injected, Expect::Query]);
    assert_eq!(seen(&mut replies, b"TDCEZTDCZ"), b"TDCZ");
    assert!(replies.take_injected_failed());
    assert!(!replies.take_injected_failed());
}

#[test]
fn the_sync_sent_before_copy_data_is_ignored_by_the_server_and_by_us() {
    // Execute, Sync, then data: the server meets the first Sync while it copies in.
    let mut replies = queue([Expect::Bind, Expect::Execute, Expect::Sync]);
    assert_eq!(seen(&mut replies, b"2G"), b"2G");
    assert!(replies.is_copy_in());
    replies.push(Expect::CopyEnd);
    replies.push(Expect::Sync);
    assert_eq!(seen(&mut replies, b"CZ"), b"CZ");
    assert!(replies.is_empty());
}

#[test]
fn copy_data_sent_blindly_behind_the_sync_counts_the_same() {
    let all = [
        Expect::Bind,
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
    let mut replies = queue([Expect::Bind, Expect::Execute, Expect::Sync]);
    assert_eq!(seen(&mut replies, b"2GE"), b"2GE");
    assert!(!replies.is_copy_in());
    replies.push(Expect::CopyEnd);
    replies.push(Expect::Sync);
    assert_eq!(seen(&mut replies, b"Z"), b"Z");
    assert!(replies.is_empty());
}

#[test]
fn copying_in_by_a_simple_query_ends_with_its_ready() {
    let mut replies = queue([Expect::Query]);
    assert_eq!(seen(&mut replies, b"G"), b"G");
    replies.push(Expect::CopyEnd);
    assert_eq!(seen(&mut replies, b"CZ"), b"CZ");
    assert!(replies.is_empty());
}

#[test]
fn several_statements_of_one_query_are_one_answer() {
    let mut replies = queue([Expect::Query]);
    assert_eq!(seen(&mut replies, b"TDCTDCICZ"), b"TDCTDCICZ");
    assert!(replies.is_empty());
}

#[test]
fn an_answer_to_nothing_is_unexpected() {
    assert_eq!(Replies::default().observe(b'Z'), Verdict::Unexpected);
    assert_eq!(queue([Expect::Bind]).observe(b'Z'), Verdict::Unexpected);
    assert_eq!(queue([Expect::Sync]).observe(b'2'), Verdict::Unexpected);
}

fn any_expect() -> impl Strategy<Value = Expect> {
    prop_oneof![
        Just(Expect::Parse(Reply::Swallow, Some(1))),
        Just(Expect::Parse(Reply::Forward, None)),
        Just(Expect::Bind),
        Just(Expect::Describe),
        Just(Expect::Execute),
        Just(Expect::SayParseComplete),
        Just(Expect::SayCloseComplete),
        Just(Expect::Sync),
        Just(Expect::Query),
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
