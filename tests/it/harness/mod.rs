//! The actors of the tests, one file each: PostgreSQL, a place in it, the proxy, a client.

pub mod books;
pub mod bystander;
pub mod certificates;
pub mod client;
pub mod company;
pub mod connect;
pub mod differential;
pub mod errors;
pub mod estate;
pub mod fleet;
pub mod frames;
pub mod http;
pub mod login;
pub mod neighbour;
pub mod office;
pub mod place;
pub mod port;
pub mod postgres;
pub mod programs;
pub mod proxy;
pub mod proxy_file;
pub mod request;
pub mod scram;
pub mod tls;
pub mod trial;
pub mod wait;

pub use bystander::Bystander;
pub use client::Client;
pub use connect::Connect;
pub use errors::Fields;
pub use fleet::Fleet;
pub use frames::{Frame, tags};
pub use neighbour::Neighbour;
pub use place::Place;
pub use postgres::Postgres;
pub use proxy::Proxy;
pub use proxy_file::{Key, Mode, ProxyFile, Tenant};
pub use request::Request;
pub use trial::Trial;
pub use wait::{DEADLINE, eventually, eventually_some};

/// Reads to the end of a connection; the SQLSTATE of the error in it, or "".
pub fn code_of_end(client: &mut Client) -> String {
    frames::code(&client.rest())
}
