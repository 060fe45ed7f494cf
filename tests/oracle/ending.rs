//! How a session ends before its script does.

/// Why there is no session any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// Its server was killed.
    Killed,
    /// Its tenant may not keep more servers.
    Refused,
    /// The client left.
    Left,
}

impl Gone {
    /// What a FATAL error of this SQLSTATE means, if it may come at all.
    pub fn of(code: &str) -> Option<Self> {
        match code {
            "57P01" | "08006" => Some(Self::Killed),
            "53400" => Some(Self::Refused),
            _ => None,
        }
    }

    /// As it is counted.
    pub fn name(self) -> &'static str {
        match self {
            Self::Killed => "ended by a kill",
            Self::Refused => "ended by max_pinned_servers",
            Self::Left => "left by itself",
        }
    }
}

/// A step of a script: it goes on, or the session is over.
pub type Outcome = Result<(), Gone>;
