//! A logged-in client's own side: its stream, its bytes under way, its names and settings.

use super::{Begun, Names, Rest, Spaces, Unnamed};
use crate::{
    net::{Flow, Stream},
    notify::{Hub, Subscription},
    sessions::{Pass, SessionHandle},
    upstream::{Settings, Welcome},
    wire::backend,
};
use std::{sync::Arc, task::Context};

/// A client between and during its transactions.
#[expect(
    clippy::struct_excessive_bools,
    reason = "facts about the session that don't exclude each other"
)]
pub struct Client {
    /// Its bytes.
    pub stream: Stream,
    /// From the client, on the way to a server.
    pub to_server: Flow,
    /// From a server, on the way to the client.
    pub to_client: Flow,
    /// Its prepared statements.
    pub names: Names,
    /// Its unnamed statement.
    pub unnamed: Unnamed,
    /// Its settings, beyond those that a server starts with.
    pub settings: Arc<Settings>,
    /// Its settings at login: RESET returns to them.
    pub startup: Arc<Settings>,
    /// What it was told about the server at login.
    pub welcome: Arc<Welcome>,
    /// Its channels, where it listens to any.
    pub subscription: Option<Arc<Subscription>>,
    /// Who listens to them.
    pub hub: Option<Arc<Hub>>,
    /// The number by which its server knows that it listens to all of them; 0 when it does not.
    pub listens: u64,
    pub(super) listens_next: u64,
    /// Since [`Self::listens`] was given a command may have left a channel.
    pub may_have_left: bool,
    /// The process id of the server that it was lent last.
    pub(super) server_pid: u32,
    /// Notifications of its server's that the hub may bring, too: their channels' names are in its own
    /// encoding, and what the hub's are in that is not known.
    pub undecided: Vec<u8>,
    /// What comes from the hub with this number or a greater one, and from its server, is its own.
    pub own_since: u64,
    /// It has reset settings: an empty value of its own settings is what a reset leaves.
    pub has_reset: bool,
    /// DISCARD ALL has taken all channels away: the server speaks for those that there are.
    pub has_discarded: bool,
    /// It has taken numbers from sequences since it got its server.
    pub(super) takes_numbers: bool,
    /// It has asked for the last number that a sequence gave it.
    pub asks_for_numbers: bool,
    /// Its transaction, while nothing has run in it; only where reads are split.
    pub begun: Box<Begun>,
    /// The right to run a transaction, where that is limited.
    pub pass: Option<Pass>,
    /// What is left of a batch that was refused: up to its Sync.
    pub(super) skips_batch: bool,
    /// What its statements do, where it has its server to itself and its tenant's storage is limited.
    pub(super) spaces: Spaces,
    /// It was told that its tenant's storage is nearly used.
    pub(super) is_warned: bool,
    /// How others see it.
    pub handle: Arc<SessionHandle>,
    /// What is left of the message that it is sending.
    pub rest: Rest,
    /// What is left of the message that its server is sending.
    pub(super) from_server_rest: Rest,
}

impl Client {
    /// A client that has just logged in; bytes that it sent early are in `to_server`.
    pub fn new(
        stream: Stream,
        (to_server, to_client): (Flow, Flow),
        (settings, welcome): (Arc<Settings>, Arc<Welcome>),
        handle: Arc<SessionHandle>,
    ) -> Self {
        Self {
            stream,
            to_server,
            to_client,
            names: Names::default(),
            unnamed: Unnamed::default(),
            startup: Arc::clone(&settings),
            settings,
            welcome,
            subscription: None,
            hub: None,
            listens: 0,
            listens_next: 0,
            may_have_left: false,
            server_pid: 0,
            undecided: Vec::new(),
            own_since: 0,
            has_discarded: false,
            has_reset: false,
            takes_numbers: false,
            asks_for_numbers: false,
            begun: Box::default(),
            pass: None,
            skips_batch: false,
            spaces: Spaces::default(),
            is_warned: false,
            handle,
            rest: Rest::None,
            from_server_rest: Rest::None,
        }
    }

    /// It may run a transaction. What it is to be told first goes out at once: what was sent is told, even
    /// if another server answers.
    pub fn begin_pass(&mut self, mut pass: Pass, cx: &mut Context<'_>) {
        let (mut is_told, may_tell) = (false, !self.is_within_message());
        for text in pass.take_news().filter(|_| may_tell) {
            backend::notice(self.to_client.insertion(), &text);
            is_told = true;
        }
        if is_told {
            // An error shows again when the client is read from or written to.
            drop(self.to_client.poll_send(&mut self.stream, cx));
        }
        self.pass = Some(pass);
    }

    /// Its encoding.
    pub fn encoding(&self) -> &str {
        let own = self.settings.value("client_encoding");
        own.or_else(|| self.welcome.value("client_encoding"))
            .unwrap_or_default()
    }

    /// Whether it understands text in UTF-8, or in whatever a database keeps that does not know what its
    /// text is.
    pub fn takes_utf8(&self) -> bool {
        let server = self.welcome.value("server_encoding").unwrap_or_default();
        let is = |name: &str| {
            let letters = self.encoding().bytes().filter(u8::is_ascii_alphanumeric);
            letters.map(|l| l.to_ascii_lowercase()).eq(name.bytes())
        };
        server == "SQL_ASCII" || is("utf8") || is("unicode") || is("sqlascii") && server == "UTF8"
    }

    /// Has what it sent answered by another server, as if it had just come: it has been told nothing.
    /// `sent` was next when so many bytes had been looked at; what of it still is, stays as it is.
    pub fn ask_again(&mut self, sent: &[u8], scanned_before: u64) {
        self.to_client.drop_unsent();
        self.to_client.drop_unscanned();
        self.from_server_rest = Rest::None;
        self.to_server.drop_unsent();
        let scanned = self.to_server.scanned().saturating_sub(scanned_before);
        let scanned = usize::try_from(scanned).unwrap_or(usize::MAX);
        self.to_server.put_back(sent.get(..scanned).unwrap_or(sent));
        self.rest = Rest::None;
        self.unnamed.settle();
        self.begun.ask_again();
    }

    /// Whether a message of its server's is half with it: nothing else can be told then.
    pub fn is_within_message(&self) -> bool {
        matches!(self.from_server_rest, Rest::Forward(_))
    }
}
