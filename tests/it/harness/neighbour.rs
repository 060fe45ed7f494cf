//! Someone who uses the same servers in between, and leaves on them what may be left.

use super::{Client, Connect, Request, frames::error};

/// Two clients: one changes settings and prepares statements under everyone's names, the other
/// holds a server every now and then, so that the rest have to take another.
pub struct Neighbour {
    visitor: Client,
    holder: Client,
    visits: usize,
}

impl Neighbour {
    /// Moves in.
    pub fn new(connect: &Connect) -> Self {
        Self {
            visitor: connect.login(),
            holder: connect.login(),
            visits: 0,
        }
    }

    /// Uses a server.
    pub fn visit(&mut self) {
        self.visits += 1;
        if self.visits.is_multiple_of(3) {
            self.holder.exec("begin");
        } else if self.visits % 3 == 1 && self.holder.status == 'T' {
            self.holder.exec("rollback");
        }
        let zone = ["Pacific/Chatham", "Asia/Kathmandu"][self.visits % 2];
        let style = ["SQL, DMY", "Postgres, MDY"][self.visits % 2];
        self.visitor.exec(&format!(
            "set timezone = '{zone}'; set datestyle = '{style}'; set client_encoding = 'LATIN1'"
        ));
        self.visitor
            .exec("set intervalstyle = 'sql_standard'; set application_name = 'neighbour'");
        for name in ["", "s", "sum", "n", "d", "all", "many"] {
            let request = Request::new()
                .close_statement(name)
                .parse(name, "select 'not yours', $1::text");
            let frames = self.visitor.ask(&request.run_prepared(name, &["x"]).sync());
            assert_eq!(error(&frames), None);
        }
        assert_eq!(self.visitor.parameters["TimeZone"], zone);
    }
}
