//! What a client notes of a server's answers.

use super::harness::Frame;

/// The line for a message; `None` for those that are no part of an answer.
pub fn line(frame: &Frame) -> Option<String> {
    match frame.kind() {
        'D' => {
            let columns = frame.columns().into_iter();
            let columns = columns.map(|column| column.unwrap_or("NULL".into()));
            Some(format!("row {}", columns.collect::<Vec<_>>().join("|")))
        }
        'C' => Some(format!("tag {}", frame.strings()[0])),
        'E' => Some(format!("error {}", frame.fields().code())),
        'I' => Some("empty".to_owned()),
        'T' | 't' | 'n' | '1' | '2' | '3' | 'S' | 'N' => None,
        _ => Some(format!("{frame:?}")),
    }
}

/// The channel and the payload of a notification.
pub fn notification(frame: &Frame) -> (String, String) {
    let mut strings = frame.body[4..].split(|byte| *byte == 0);
    let mut next = || {
        let text = strings.next().expect("a channel and a payload");
        String::from_utf8_lossy(text).into_owned()
    };
    (next(), next())
}

/// Whether an answer is as expected; "?" in a row stands for anything.
pub fn matches(expected: &[String], actual: &[String]) -> bool {
    expected.len() == actual.len()
        && expected.iter().zip(actual).all(|(expected, actual)| {
            expected == actual || expected == "row ?" && actual.starts_with("row ")
        })
}
