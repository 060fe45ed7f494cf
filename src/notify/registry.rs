//! Who has which channel.

use super::{
    channel::Channel,
    queue::{Pushed, Queue},
};
use bytes::Bytes;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

/// The number of a subscription, never used again in its hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SubscriptionId(pub(super) u64);

/// Channels and their listeners.
///
/// Invariant: a queue stands under a channel if and only if that channel is in its owner's set;
/// no set and no list is empty.
#[derive(Debug, Default)]
pub(super) struct Registry {
    owners: HashMap<SubscriptionId, BTreeSet<Channel>>,
    listeners: HashMap<Channel, Vec<(SubscriptionId, Arc<Queue>)>>,
    /// Channels that lost their last listener since the last look.
    abandoned: Vec<Channel>,
}

impl Registry {
    /// Whether nobody has a channel.
    pub(super) fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// Whether a subscription has a channel.
    pub(super) fn has(&self, id: SubscriptionId, channel: &str) -> bool {
        self.owners
            .get(&id)
            .is_some_and(|channels| channels.contains(channel))
    }

    /// Whether a subscription has channels.
    pub(super) fn has_any(&self, id: SubscriptionId) -> bool {
        self.owners.contains_key(&id)
    }

    /// The channels of a subscription, sorted.
    pub(super) fn channels_of(&self, id: SubscriptionId) -> BTreeSet<Channel> {
        self.owners.get(&id).cloned().unwrap_or_default()
    }

    /// All channels that somebody has.
    pub(super) fn channels(&self) -> impl Iterator<Item = &Channel> {
        self.listeners.keys()
    }

    /// Takes every channel away that is not in `kept`.
    pub(super) fn keep(&mut self, id: SubscriptionId, kept: &BTreeSet<Channel>) {
        let Some(channels) = self.owners.get_mut(&id) else {
            return;
        };
        let removed: Vec<_> = channels.difference(kept).cloned().collect();
        channels.retain(|channel| kept.contains(channel));
        if channels.is_empty() {
            self.owners.remove(&id);
        }
        for channel in removed {
            self.unlist(id, channel);
        }
    }

    /// Takes every channel away.
    pub(super) fn remove(&mut self, id: SubscriptionId) {
        self.keep(id, &BTreeSet::new());
    }

    fn unlist(&mut self, id: SubscriptionId, channel: Channel) {
        let Some(listeners) = self.listeners.get_mut(&channel) else {
            return;
        };
        listeners.retain(|(other, _)| *other != id);
        if listeners.is_empty() {
            self.listeners.remove(&channel);
            self.abandoned.push(channel);
        }
    }

    /// Makes `channels` the channels of a subscription. One that takes nothing any more has none.
    pub(super) fn set(
        &mut self,
        id: SubscriptionId,
        queue: &Arc<Queue>,
        channels: &BTreeSet<Channel>,
    ) {
        self.keep(id, channels);
        if channels.is_empty() || !queue.is_open() {
            let nobodys = channels
                .iter()
                .filter(|channel| !self.listeners.contains_key(*channel));
            self.abandoned.extend(nobodys.cloned());
            return;
        }
        let owned = self.owners.entry(id).or_default();
        for channel in channels {
            if owned.insert(channel.clone()) {
                let listeners = self.listeners.entry(channel.clone()).or_default();
                listeners.push((id, Arc::clone(queue)));
            }
        }
    }

    /// Notes that these channels may have nobody.
    pub(super) fn abandon(&mut self, channels: Vec<Channel>) {
        self.abandoned.extend(channels);
    }

    /// Channels that nobody has any more, since the last look; some may come twice.
    pub(super) fn take_abandoned(&mut self) -> Vec<Channel> {
        let mut abandoned = std::mem::take(&mut self.abandoned);
        abandoned.retain(|channel| !self.listeners.contains_key(channel));
        abandoned
    }

    /// Whether somebody has this channel.
    pub(super) fn has_listener(&self, channel: &str) -> bool {
        self.listeners.contains_key(channel)
    }

    /// Gives a message to all listeners of a channel. Who lags has no channels any more.
    pub(super) fn deliver(&mut self, channel: &str, message: &Bytes) {
        let Some(listeners) = self.listeners.get(channel) else {
            return;
        };
        let mut lagging = Vec::new();
        for (id, queue) in listeners {
            if queue.push(message) == Pushed::Refused {
                lagging.push(*id);
            }
        }
        for id in lagging {
            self.remove(id);
        }
    }

    /// Tells everybody that notifications may be missing.
    pub(super) fn interrupt(&self) {
        let mut told = std::collections::HashSet::new();
        for (id, queue) in self.listeners.values().flatten() {
            if told.insert(*id) {
                queue.interrupt();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notify::{Bounds, Event};

    const ONE: SubscriptionId = SubscriptionId(1);
    const TWO: SubscriptionId = SubscriptionId(2);

    fn queue() -> Arc<Queue> {
        Arc::new(Queue::new(&Bounds {
            queued_count_max: 2,
            ..Bounds::default()
        }))
    }

    fn channels(names: &[&str]) -> BTreeSet<Channel> {
        let channel = |name: &&str| Channel::new(name.as_bytes()).unwrap();
        names.iter().map(channel).collect()
    }

    fn events(queue: &Queue) -> usize {
        std::iter::from_fn(|| queue.pop()).count()
    }

    const HELLO: Bytes = Bytes::from_static(b"hello");

    #[test]
    fn everybody_who_has_the_channel_hears_and_nobody_else() {
        let (one, two) = (queue(), queue());
        let mut registry = Registry::default();
        registry.set(ONE, &one, &channels(&["a", "b"]));
        registry.set(TWO, &two, &channels(&["b", "c"]));
        registry.deliver("a", &HELLO);
        registry.deliver("b", &HELLO);
        registry.deliver("d", &HELLO);
        assert_eq!((events(&one), events(&two)), (2, 1));
        registry.set(TWO, &two, &channels(&["a"]));
        registry.deliver("a", &HELLO);
        registry.deliver("c", &HELLO);
        assert_eq!((events(&one), events(&two)), (1, 1));
    }

    #[test]
    fn the_same_bytes_are_shared() {
        let (one, two) = (queue(), queue());
        let mut registry = Registry::default();
        registry.set(ONE, &one, &channels(&["a"]));
        registry.set(TWO, &two, &channels(&["a"]));
        let message = Bytes::from(b"hello".to_vec());
        registry.deliver("a", &message);
        for queue in [one, two] {
            let Some(Event::Notification(heard)) = queue.pop() else {
                panic!("nothing was heard");
            };
            assert_eq!(heard.as_ptr(), message.as_ptr());
        }
    }

    #[test]
    fn a_channel_set_twice_is_heard_once() {
        let one = queue();
        let mut registry = Registry::default();
        registry.set(ONE, &one, &channels(&["a"]));
        registry.set(ONE, &one, &channels(&["a", "b"]));
        registry.deliver("a", &HELLO);
        assert_eq!(events(&one), 1);
    }

    #[test]
    fn a_channel_is_abandoned_when_its_last_listener_leaves() {
        let (one, two) = (queue(), queue());
        let mut registry = Registry::default();
        registry.set(ONE, &one, &channels(&["a", "b"]));
        registry.set(TWO, &two, &channels(&["b"]));
        registry.remove(ONE);
        assert_eq!(registry.take_abandoned(), [Channel::new(b"a").unwrap()]);
        registry.keep(TWO, &channels(&[]));
        assert!(registry.is_empty());
        registry.set(ONE, &one, &channels(&["b"]));
        assert_eq!(registry.take_abandoned(), [], "it has a listener again");
    }

    #[test]
    fn who_lags_has_no_channels_and_disturbs_nobody() {
        let (one, two) = (queue(), queue());
        let mut registry = Registry::default();
        registry.set(ONE, &one, &channels(&["a", "b"]));
        registry.set(TWO, &two, &channels(&["a"]));
        for _ in 0..5 {
            registry.deliver("a", &HELLO);
            assert_eq!(events(&two), 1);
        }
        assert!(!registry.has(ONE, "a") && !registry.has(ONE, "b"));
        assert_eq!(one.pop(), Some(Event::Lagged));
        assert_eq!(registry.take_abandoned(), [Channel::new(b"b").unwrap()]);
    }

    #[test]
    fn who_is_gone_gets_no_channels() {
        let one = queue();
        one.close();
        let mut registry = Registry::default();
        registry.set(ONE, &one, &channels(&["a"]));
        assert!(registry.is_empty());
        assert_eq!(registry.take_abandoned(), [Channel::new(b"a").unwrap()]);
    }

    #[test]
    fn an_interruption_is_told_once_however_many_channels_there_are() {
        let one = queue();
        let mut registry = Registry::default();
        registry.set(ONE, &one, &channels(&["a", "b", "c"]));
        registry.interrupt();
        assert_eq!(one.pop(), Some(Event::Interrupted));
        assert_eq!(one.pop(), None);
    }
}
