//! What could not be taken over, or only in another form.

use super::ini::Spot;
use serde::Serialize;
use std::fmt;

/// What could not be taken over, or only in another form. No secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// File and line, where there is one.
    pub place: Option<String>,
    /// The key or what it is about.
    pub subject: String,
    /// What became of it, and why.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        write!(f, "{}: {}", self.subject, self.text)
    }
}

/// The notes so far.
#[derive(Default)]
pub(super) struct Notes(pub(super) Vec<Note>);

impl Notes {
    /// About a line of a file.
    pub(super) fn at(&mut self, spot: &Spot, subject: &str, text: impl Into<String>) {
        self.push(Some(spot.to_string()), subject, text.into());
    }

    /// About something that has no line.
    pub(super) fn say(&mut self, subject: &str, text: impl Into<String>) {
        self.push(None, subject, text.into());
    }

    /// About something that comes up again and again, but is told once.
    pub(super) fn once(&mut self, subject: &str, text: &str) {
        let is_same = |note: &Note| note.subject == subject && note.text == text;
        if !self.0.iter().any(is_same) {
            self.say(subject, text);
        }
    }

    fn push(&mut self, place: Option<String>, subject: &str, text: String) {
        self.0.push(Note {
            place,
            subject: subject.to_owned(),
            text,
        });
    }
}
