//! PostgreSQL's protocol, version 3: frames and messages. No policy, no I/O.
//!
//! The relay looks at frames in place through [`peek`] and the functions of [`read`]; it never
//! decodes a message into an object. Cold messages are built by [`backend`] and [`frontend`].
//! Reference: <https://www.postgresql.org/docs/current/protocol-message-formats.html>.

pub mod backend;
mod frame;
pub mod frontend;
pub mod read;
mod refusal;
mod startup;
pub mod tag;

pub use frame::{FrameError, HEADER_BYTES, Header, MESSAGE_BYTES_MAX, peek};
pub use refusal::{Refusal, Severity, SqlState};
pub use startup::{
    CANCEL_KEY_BYTES_MAX, CancelKey, Opening, OpeningError, PROTOCOL_MINOR_MAX, Parameters,
    STARTUP_BYTES_MAX, StartupPacket, parse_opening,
};
