//! A server has gone: who waits for it goes on elsewhere, or is told.

use crate::{
    pool::Lost,
    sessions::{Order, Sessions},
};

/// Tells the sessions that hold a lost server.
pub(super) fn tell(sessions: &Sessions, lost: &Lost) {
    let (address, order) = match lost {
        Lost::Replica(address) => (address, Order::ReplicaLost),
        Lost::Primary(address) => (address, Order::PrimaryLost),
    };
    for session in sessions.all() {
        if session.is_at(address) {
            session.give(order);
        }
    }
}
