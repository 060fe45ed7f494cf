//! Bytes in and out: sockets, streams, buffers. Knows nothing of PostgreSQL.
//!
//! - [`Socket`] is TCP or a Unix socket, and can move between runtimes.
//! - [`Stream`] is a socket, in plain or inside TLS.
//! - [`Buffer`] is a piece of memory that bytes are read into; [`BufferPool`] lends the memory.
//! - [`Flow`] carries bytes from one stream to another through one buffer: forwarded in place,
//!   inserted or skipped, and written with one system call.
//! - [`proxy_header`] reads the PROXY protocol, version 2.

mod buffer;
mod flow;
pub mod proxy_header;
mod socket;
mod stream;

pub use buffer::{Buffer, BufferPool, LARGE_BYTES, SMALL_BYTES};
pub use flow::Flow;
pub use socket::{Peer, Socket};
pub use stream::Stream;
