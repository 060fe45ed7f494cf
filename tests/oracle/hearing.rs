//! What a client hears of notifications.

use super::{
    actor::Actor,
    ending::{Gone, Outcome},
    harness::Frame,
    reading::notification,
};
use std::collections::BTreeSet;

impl Actor {
    /// Takes a notification in: it is of one of these channels, and in its turn.
    pub fn hear(&mut self, frame: &Frame, channels: &BTreeSet<String>) {
        let (channel, payload) = notification(frame);
        let pid = u32::from_be_bytes(*frame.body.first_chunk().expect("a pid"));
        self.note(format!("    heard {payload} on {channel} of {pid}"));
        self.world.count("notifications received");
        assert!(
            channels.contains(&channel),
            "it heard {payload} on {channel}, and listens to {channels:?}"
        );
        if let Err(wrong) = self.mailbox.receive(&self.world.post, &channel, &payload) {
            panic!("it heard {payload} on {channel}: {wrong}");
        }
    }

    /// What it is told aside: perhaps that it has missed notifications.
    pub fn is_told(&mut self, notice: &Frame) {
        if notice
            .fields()
            .message()
            .contains("notifications may have been missed")
        {
            self.note("    was told that notifications may have been missed".to_owned());
            self.world.count("interruptions told");
            self.mailbox.forgive(&self.world.post);
        }
    }

    /// Waits for every notification that was surely sent to it.
    pub fn hear_out(&mut self) -> Outcome {
        if self.model.status != 'I' {
            return Ok(());
        }
        let listened = self.model.kept.listens.clone();
        let due = self.mailbox.missing(&self.world.post);
        self.note(format!("waits for {} notifications", due.len()));
        while self
            .mailbox
            .missing(&self.world.post)
            .iter()
            .any(|p| due.contains(p))
        {
            let client = self.client.as_mut().expect("it has a session");
            let Some(frame) = client.next_or_end() else {
                return Err(Gone::Killed);
            };
            match frame.kind() {
                'A' => self.hear(&frame, &listened),
                'N' => self.is_told(&frame),
                'S' => {}
                'E' => {
                    let code = frame.fields().code().to_owned();
                    return Err(Gone::of(&code).unwrap_or_else(|| panic!("{frame:?}")));
                }
                _ => panic!("unasked: {frame:?}"),
            }
        }
        self.mailbox.settle(&self.world.post);
        Ok(())
    }
}
