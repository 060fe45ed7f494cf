//! Someone else on the same proxy, who must not notice what others do.

use super::{Client, Proxy};

/// A client of the tenant `acme` that does nothing wrong.
pub struct Bystander(Client);

impl Bystander {
    /// Logs in.
    pub fn of(proxy: &Proxy) -> Self {
        let mut client = proxy.connect("acme").login();
        client.exec("create table if not exists bystander (i int)");
        Self(client)
    }

    /// It is served, a newcomer is served, and the proxy has not panicked.
    pub fn is_unharmed(&mut self, proxy: &mut Proxy) {
        self.0.is_in_step();
        proxy.connect("acme").login().is_in_step();
        assert!(proxy.is_alive());
        assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
    }
}
