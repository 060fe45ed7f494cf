//! Behind a transaction: what it left goes on with the client, or keeps the server for it.

use super::{channels::MoveError, session::Session};
use crate::{
    pool::{Checkout, PinPlace, Run},
    relay::{Lease, Reading, no_listening, not_allowed, not_on_replica, suspects, too_many},
    routing::{Builtins, Catalogue, Reach},
    sessions::Activity,
    tenant::{Pinning, Tier},
    upstream::{
        AskError, CatalogueAsk, Inventory, Report, Server, Settings, Sight, SurveyScope, Suspicion,
    },
    wire::{Refusal, SqlState, backend},
};
use std::{sync::Arc, time::Duration};

/// How long a server may take to be reset, and a cancel to land.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Takes away what can't be asked for: settings whose names are not known (the role, too, which a
/// reset of all leaves), and locks where they can't be seen.
const RESET: &str =
    "RESET ALL;RESET SESSION AUTHORIZATION;SELECT pg_catalog.pg_advisory_unlock_all()";

/// What a session keeps its server for.
#[derive(Debug, Default)]
pub(super) struct Pin {
    kinds: Suspicion,
    /// There may be settings that only a reset of all of them takes away.
    has_unseen: bool,
    /// When the server was last asked, in milliseconds of the sessions' clock.
    asked_ms: u64,
    place: Option<PinPlace>,
}

impl Pin {
    /// Whether there is something that no reset takes away.
    pub(super) fn is_indelible(&self) -> bool {
        let kinds = Suspicion::LIBRARY | Suspicion::SEED | Suspicion::LINKS;
        self.kinds.intersects(kinds)
    }

    pub(super) fn is_none(&self) -> bool {
        self.kinds.is_empty()
    }
}

/// What becomes of a server behind a transaction.
pub(super) enum Settled {
    /// Nothing of the client's is left on it.
    Free,
    /// The client keeps it.
    Kept,
    /// The client can't stay.
    Refused(Refusal),
}

impl Session {
    /// How the session has its server lent.
    pub(super) fn lease<'a>(
        &self,
        pin: &Pin,
        (reading, run): (&'a Reading, Option<&'a Run>),
    ) -> Lease<'a> {
        Lease {
            reading,
            mode: self.mode,
            target: self.target,
            prepared_max: self.prepared_max,
            pinned: pin.kinds,
            asked_ms: pin.asked_ms,
            run,
        }
    }

    /// Asks what the transaction left, where it may have left anything; takes along what can be
    /// carried, and pins the session for the rest.
    ///
    /// # Cancel safety
    /// Not cancel safe: drop the checkout when the future is dropped.
    pub(super) async fn settle(&mut self, checkout: &mut Checkout, pin: &mut Pin) -> Settled {
        checkout.shield();
        let is_primary = checkout.replica().is_none();
        let server = checkout.server();
        let has_state = !pin.is_none() || !server.suspicion.is_empty();
        let settled = self.settle_server(server, pin, is_primary).await;
        match settled {
            Ok(()) if pin.is_none() => {
                pin.place = None;
                Settled::Free
            }
            Ok(()) if !is_primary => Settled::Refused(not_on_replica().into_fatal()),
            Ok(()) => match self.keep(pin) {
                Ok(()) => {
                    checkout.unshield();
                    self.client.handle.enter(Activity::Idle);
                    Settled::Kept
                }
                Err(refusal) => Settled::Refused(refusal),
            },
            Err(MoveError::Client(refusal)) => Settled::Refused(refusal),
            // Only the server is lost.
            Err(MoveError::Server(_)) if !has_state => {
                checkout.server().is_outdated = true;
                Settled::Free
            }
            Err(MoveError::Server(error)) => {
                tracing::debug!(tenant = %self.pool.tenant(), %error, "a server did not say what is left on it");
                Settled::Refused(lost())
            }
        }
    }

    async fn settle_server(
        &mut self,
        server: &mut Server,
        pin: &mut Pin,
        is_primary: bool,
    ) -> Result<(), MoveError> {
        let identity = Arc::clone(server.identity());
        let landed = tokio::time::timeout(TIMEOUT, identity.cancels_landed()).await;
        landed.map_err(|_elapsed| MoveError::from(AskError::Timeout))?;
        let mut suspicion = std::mem::take(&mut server.suspicion);
        if suspicion.intersects(Suspicion::SETTINGS | Suspicion::UNSEEN) {
            // A reset of all settings takes a slot's tenant away, too, wherever it was hidden.
            server.unbind();
        }
        if suspicion.intersects(Suspicion::SEQUENCES) {
            self.pool.note_sequences();
        }
        // One session makes it; until it has, or where it can't be made, everything is asked for.
        // A replica may not have what has changed.
        if is_primary && self.pool.is_survey_due() && self.pool.claim_survey() {
            self.survey(server).await?;
            self.pool.age_catalogue();
        }
        if std::mem::take(&mut server.is_unsurveyed) {
            suspicion |= Suspicion::DYNAMIC;
        }
        if suspicion.intersects(Suspicion::SETTINGS) && self.pool.has_more_customs() {
            suspicion |= Suspicion::UNSEEN;
        }
        let asked = suspicion | pin.kinds;
        if !suspicion.is_empty() {
            self.take_stock(server, asked, pin).await?;
        }
        pin.has_unseen |= suspicion.intersects(Suspicion::UNSEEN);
        if pin.is_none() && std::mem::take(&mut pin.has_unseen) {
            match server.ask(RESET, TIMEOUT).await {
                Ok(report) => {
                    server.applied = Settings::none();
                    server.unbind();
                    self.tell_outdated(server, &report);
                }
                // The client's own timeout struck, for one: it is cleaned like one that was left.
                Err(AskError::Refused { .. }) => server.is_dirty = true,
                Err(error) => return Err(error.into()),
            }
        }
        if server.is_outdated {
            self.pool.forget_welcome();
        }
        // Last: the client has all that it left, whatever becomes of this server.
        let is_due = is_primary && pin.is_none() && self.pool.is_catalogue_due();
        if is_due && let Err(error) = self.read_catalogue(server).await {
            tracing::debug!(tenant = %self.pool.tenant(), %error, "a server did not say what names are");
            server.is_dirty = true;
        }
        Ok(())
    }

    /// Tells the client what a reset server reports, where it is neither what it was told at login
    /// nor its own setting: PostgreSQL has read its configuration again.
    fn tell_outdated(&mut self, server: &mut Server, report: &Report) {
        for (name, value) in report {
            let is_own = self.client.settings.value(name).is_some();
            if !is_own && self.client.welcome.value(name) != Some(value) {
                server.is_outdated = true;
                backend::parameter_status(self.client.to_client.insertion(), name, value);
            }
        }
    }

    async fn take_stock(
        &mut self,
        server: &mut Server,
        asked: Suspicion,
        pin: &mut Pin,
    ) -> Result<(), MoveError> {
        metrics::counter!("pgusher_state_checks_total").increment(1);
        self.pool.note_customs(server.applied.customs());
        let mut customs = self.pool.customs();
        let own = self.client.settings.customs();
        let missing: Vec<Box<str>> = own
            .filter(|name| !customs.iter().any(|known| **known == **name))
            .map(Into::into)
            .collect();
        customs.extend(missing);
        let identity = Arc::clone(server.identity());
        let sight = Sight {
            login: &identity.role,
            is_slot: server.binding.is_some(),
            locks: self.pool.survey().sees_locks,
            customs: &customs,
        };
        let mut found = match server.take_stock(asked, sight).await {
            Ok(found) => found,
            // The client's own settings keep the question from being answered: it may have anything.
            Err(AskError::Refused { .. } | AskError::TooLong) => Inventory {
                fixed: asked.and(Suspicion::ASKABLE | Suspicion::LASTING),
                ..Inventory::default()
            },
            Err(error) => return Err(error.into()),
        };
        let hears = found.channels.as_ref().is_some_and(|c| !c.is_empty());
        if hears && self.pool.uses_slots() {
            return Err(MoveError::Client(no_listening().into_fatal()));
        }
        let is_kept = pin.kinds.intersects(Suspicion::CHANNELS);
        self.move_channels(server, &mut found, is_kept).await?;
        pin.kinds = found.fixed;
        match found.settings {
            Some(settings) if !pin.kinds.intersects(Suspicion::SETTINGS) => {
                self.carry(server, settings);
            }
            // What stands there stays there, as long as the server is the client's own.
            _ if pin.kinds.intersects(Suspicion::SETTINGS) => {
                pin.has_unseen = true;
                server.applied = Arc::clone(&self.client.settings);
            }
            _ => {}
        }
        pin.asked_ms = self.client.handle.now_ms();
        Ok(())
    }

    /// The client's settings are those that its transaction left; what it said at startup and has
    /// reset returns.
    fn carry(&mut self, server: &mut Server, settings: Settings) {
        let settings = self.pool.share_settings(settings);
        server.applied = Arc::clone(&settings);
        let has_reset = std::mem::take(&mut self.client.has_reset);
        let missing = |name: &str| match settings.value(name) {
            None => true,
            Some(value) => has_reset && value.is_empty() && name.contains('.'),
        };
        let startup = Arc::clone(&self.client.startup);
        let mut own = Settings::clone(&settings);
        for (name, value) in startup.iter().filter(|(name, _)| missing(name)) {
            own = own.with(name, Some(value));
            let is_told = self.client.settings.value(name) == Some(value);
            if !is_told && self.client.welcome.value(name).is_some() {
                backend::parameter_status(self.client.to_client.insertion(), name, value);
            }
        }
        self.client.settings = if own == *settings {
            settings
        } else {
            self.pool.share_settings(own)
        };
    }

    async fn survey(&mut self, server: &mut Server) -> Result<(), AskError> {
        let changes = self.pool.function_changes();
        let scope = match self.pool.config().placement.tier {
            Tier::Database => SurveyScope::Database,
            Tier::Schema | Tier::Row => SurveyScope::Schemas,
        };
        match server.survey(scope).await {
            Ok((survey, asides)) => {
                self.pool.learn_survey(survey, changes, suspects);
                let subscription = self.client.subscription.as_ref();
                let by_hub = subscription.map(|s| s.channels()).unwrap_or_default();
                self.pass_on(&asides, &by_hub);
            }
            Err(AskError::Refused { sqlstate, message }) => {
                tracing::debug!(tenant = %self.pool.tenant(), sqlstate, message, "functions are not known");
            }
            Err(AskError::TooLong) => {
                tracing::debug!(tenant = %self.pool.tenant(), "there are too many functions to be known");
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Whether there is something to be asked before the server goes back.
    #[inline]
    pub(super) fn is_survey_due(&self, checkout: &Checkout) -> bool {
        checkout.replica().is_none() && (self.pool.is_survey_due() || self.pool.is_catalogue_due())
    }

    /// Reads what the names in statements are, where reads are split.
    async fn read_catalogue(&mut self, server: &mut Server) -> Result<(), AskError> {
        let pool = Arc::clone(&self.pool);
        if pool.replicas().is_none() || !pool.split().claim() {
            return Ok(());
        }
        let changes = pool.shapes();
        let (reach, trusted): (_, &[&str]) = match pool.config().placement.tier {
            Tier::Database => (Reach::Database, &[]),
            Tier::Schema => (Reach::Schemas, &[]),
            Tier::Row => (Reach::Schemas, &["ctl"]),
        };
        let version = self
            .client
            .welcome
            .value("server_version")
            .unwrap_or_default()
            .to_owned();
        let split = pool.split();
        let ask = CatalogueAsk {
            generation: split.next_generation(),
            reach,
            trusted,
            known: |sight| split.builtins(&version, sight),
            learn: |sight, builtins: &Arc<Builtins>| {
                split.learn_builtins(&version, sight, builtins);
            },
        };
        let asked = server.catalogue(ask).await;
        split.unclaim();
        match asked {
            Ok((catalogue, asides)) => {
                split.learn(catalogue, changes);
                let subscription = self.client.subscription.as_ref();
                let by_hub = subscription.map(|s| s.channels()).unwrap_or_default();
                self.pass_on(&asides, &by_hub);
                Ok(())
            }
            Err(AskError::Refused { sqlstate, message }) => {
                tracing::debug!(tenant = %pool.tenant(), sqlstate, message, "names are not known");
                split.learn(Catalogue::unknown(), changes);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps the server, if the tenant may.
    fn keep(&self, pin: &mut Pin) -> Result<(), Refusal> {
        let reasons: Vec<&str> = pin.kinds.names().collect();
        let reasons = reasons.join(", ");
        let config = self.pool.config();
        if config.pinning == Pinning::Refuse {
            return Err(not_allowed(&reasons).into_fatal());
        }
        if pin.place.is_some() {
            return Ok(());
        }
        let Some(place) = self.pool.pin() else {
            let limit = config.limits.max_pinned_servers;
            return Err(too_many(limit, &reasons).into_fatal());
        };
        pin.place = Some(place);
        for reason in pin.kinds.names() {
            metrics::counter!("pgusher_pins_total", "reason" => reason).increment(1);
        }
        tracing::info!(tenant = %self.pool.tenant(), reasons, "a session keeps its server behind its transaction");
        Ok(())
    }
}

fn lost() -> Refusal {
    Refusal::fatal(
        SqlState::CONNECTION_FAILURE,
        "the connection to the tenant's PostgreSQL server was lost",
    )
    .with_detail("The last transaction is over; what it left in the session is lost.")
}
