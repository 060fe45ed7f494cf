//! Which kinds of session state a transaction may have left on its server.

use std::ops::{BitOr, BitOrAssign};

/// A set of kinds of session state. Suspected, not known: what is really there, an
/// [`super::Inventory`] tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Suspicion(u16);

impl Suspicion {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Settings, the role among them.
    pub const SETTINGS: Self = Self(1);
    /// Temporary tables, functions and types.
    pub const TEMP: Self = Self(1 << 1);
    /// Cursors that outlive their transaction.
    pub const CURSORS: Self = Self(1 << 2);
    /// Session-level advisory locks.
    pub const LOCKS: Self = Self(1 << 3);
    /// Channels that are listened to.
    pub const CHANNELS: Self = Self(1 << 4);
    /// Statements prepared by SQL.
    pub const STATEMENTS: Self = Self(1 << 5);
    /// A loaded library: it stays as long as the server lives.
    pub const LIBRARY: Self = Self(1 << 6);
    /// A seed of `random()`, which nothing tells afterwards.
    pub const SEED: Self = Self(1 << 7);
    /// `currval` or `lastval`, whose state nothing tells without being asked for it.
    pub const SEQUENCES: Self = Self(1 << 8);
    /// Connections of dblink.
    pub const LINKS: Self = Self(1 << 9);

    /// Settings of the tenant's own (with a dot) whose names are not known: PostgreSQL doesn't list
    /// those, so they can only be reset.
    pub const UNSEEN: Self = Self(1 << 10);

    /// What is known of the tenant's functions ([`super::Survey`]) may have changed.
    pub const FUNCTIONS: Self = Self(1 << 11);

    /// Not state: the text names a setting of pgusher's own.
    pub const OWN: Self = Self(1 << 12);

    /// Not state yet: the text takes a number from a sequence.
    pub const NUMBERS: Self = Self(1 << 13);

    /// Not state: the text sends a notification.
    pub const NOTIFIES: Self = Self(1 << 14);
    /// Not state yet: a command of the text may set something for the session. Whether it does, its
    /// tag says.
    pub const SETS: Self = Self(1 << 15);
    /// What is not state.
    pub const HINTS: Self = Self(Self::OWN.0 | Self::NUMBERS.0 | Self::NOTIFIES.0 | Self::SETS.0);

    /// Everything that can be asked for.
    pub const ASKABLE: Self = Self((1 << 6) - 1);
    /// Everything.
    pub const ALL: Self = Self((1 << 12) - 1);
    /// What stays until the session ends, as no question tells whether it is gone.
    pub const LASTING: Self =
        Self(Self::LIBRARY.0 | Self::SEED.0 | Self::SEQUENCES.0 | Self::LINKS.0);

    /// From the bits that [`Suspicion::bits`] gave.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// The kinds by name, as metrics and clients are told them.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        let named = [
            (Self::TEMP, "temp"),
            (Self::CURSORS, "cursor"),
            (Self::LOCKS, "advisory"),
            (Self::STATEMENTS, "prepare"),
            (Self::CHANNELS, "listen"),
            (Self::LIBRARY, "load"),
            (Self::SEED, "seed"),
            (Self::SEQUENCES, "sequence"),
            (Self::LINKS, "dblink"),
            (Self::SETTINGS, "settings"),
        ];
        named
            .into_iter()
            .filter(move |(kind, _)| self.intersects(*kind))
            .map(|(_, name)| name)
    }

    /// As a number.
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// What code that is made while it runs may leave, as far as it can be told afterwards.
    pub const DYNAMIC: Self = Self(Self::ASKABLE.0 | Self::UNSEEN.0);

    /// Whether nothing is suspected.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether any of these is suspected.
    #[inline]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// What both suspect.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What this suspects and the other does not.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What both suspect together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOr for Suspicion {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

impl BitOrAssign for Suspicion {
    fn bitor_assign(&mut self, other: Self) {
        *self = self.with(other);
    }
}
