//! Tries the attacks as the tenant's own roles.

use super::{
    Admin, Check, Hole, Outcome, Place, ProvisioningError,
    admin::{Attempt, Session},
    attacks::{ATTACKS, Attack, Fails, When, Who},
    text::fill,
};
use crate::{
    sql::{quoted_literal, quoted_name},
    tenant::Tier,
};

/// Whom the attacks are aimed at.
pub(super) struct Victim {
    /// A role.
    pub(super) role: String,
    /// Its rows' `tenant_id`.
    pub(super) token: String,
    /// Where its secret is read.
    pub(super) table: String,
    /// The table itself, and its schema.
    pub(super) base: (String, String),
    /// The process of its session.
    pub(super) pid: i32,
    /// What its slot was bound by, where it is served through one.
    pub(super) binding: Option<String>,
}

impl Victim {
    /// What is in every cluster, before there is another tenant.
    pub(super) fn always_there(place: &Place) -> Self {
        let (table, base) = match place.tier {
            Tier::Row => ("ctl.canary", ("data.canary", "data")),
            Tier::Schema | Tier::Database => ("pgusher.prepared", ("pgusher.prepared", "pgusher")),
        };
        Self {
            role: "pgusher_data".to_owned(),
            token: "canary".to_owned(),
            table: table.to_owned(),
            base: (base.0.to_owned(), base.1.to_owned()),
            pid: 0,
            binding: None,
        }
    }
}

/// The tenant's own sessions.
pub(super) struct Attackers {
    writer: Session,
    reader: Option<Session>,
    /// The role of who writes.
    role: String,
    bindings: Bindings,
}

/// What binds the slot of who writes; empty where it is none.
#[derive(Default)]
pub(super) struct Bindings {
    /// To its tenant.
    pub(super) own: String,
    /// To the victim: what it must never get.
    pub(super) right: String,
}

impl Attackers {
    /// Logs in as the tenant's roles, as the proxy does. `None` for who has no role of its own.
    pub(super) async fn of(
        admin: &Admin,
        place: &Place,
    ) -> Result<Option<Self>, ProvisioningError> {
        let Some(login) = &place.login else {
            return Ok(None);
        };
        let writer = admin.connect_as(login, &place.database).await?;
        let reader = match &place.read_only_login {
            Some(login) => {
                let mut reader = admin.connect_as(login, &place.database).await?;
                let unset = "SET default_transaction_read_only = off";
                reader.run_once("set a setting of its own", unset).await?;
                Some(reader)
            }
            None => None,
        };
        Ok(Some(Self {
            writer,
            reader,
            role: login.role.to_string(),
            bindings: Bindings::default(),
        }))
    }

    /// Sessions of slots that are bound to the tenant.
    pub(super) fn in_slots(
        (writer, role): (Session, &str),
        reader: Session,
        bindings: Bindings,
    ) -> Self {
        Self {
            writer,
            reader: Some(reader),
            role: role.to_owned(),
            bindings,
        }
    }

    /// Tries the attacks of this time, and says how they went.
    pub(super) async fn attack(
        &mut self,
        place: &Place,
        victim: &Victim,
        when: When,
        holes: &[Hole],
    ) -> Result<Vec<Check>, ProvisioningError> {
        let mut checks = Vec::with_capacity(ATTACKS.len());
        for attack in ATTACKS.iter().filter(|attack| attack.when <= when) {
            checks.push(self.try_one(place, victim, attack, holes).await?);
        }
        Ok(checks)
    }

    async fn try_one(
        &mut self,
        place: &Place,
        victim: &Victim,
        attack: &Attack,
        holes: &[Hole],
    ) -> Result<Check, ProvisioningError> {
        let mut outcome = Outcome::NotApplicable;
        if attack.at.is_in(place) {
            let sql = self.statement(place, victim, attack);
            let writer = Some(&mut self.writer).filter(|_| attack.who != Who::Reader);
            let reader = self.reader.as_mut().filter(|_| attack.who != Who::Writer);
            let sessions = [("its login", writer), ("its read-only login", reader)];
            for (who, session) in sessions {
                let Some(session) = session else { continue };
                match attempt(session, attack, &sql).await? {
                    Attempt::Failed if outcome == Outcome::NotApplicable => {
                        outcome = Outcome::Closed;
                    }
                    Attempt::Failed => {}
                    Attempt::Succeeded(found) => {
                        let how = if found.is_empty() {
                            format!("{who} can")
                        } else {
                            format!("{who} can: {}", first_words(&found))
                        };
                        outcome = Outcome::Open { how };
                    }
                    Attempt::Unclear(error) => {
                        let how = format!("not refused, failed otherwise with {who}: {error}");
                        outcome = Outcome::Open { how };
                    }
                }
            }
        }
        let is_open = matches!(outcome, Outcome::Open { .. });
        let explains = |hole: &&str| is_open && holes.iter().any(|known| known.name == **hole);
        Ok(Check {
            name: attack.name.to_owned(),
            what: attack.what.to_owned(),
            outcome,
            hole: attack.hole.filter(explains).map(str::to_owned),
        })
    }

    pub(super) fn right_binding(&self) -> &str {
        &self.bindings.right
    }

    pub(super) fn writer(&mut self) -> &mut Session {
        &mut self.writer
    }

    fn statement(&self, place: &Place, victim: &Victim, attack: &Attack) -> String {
        let schema = place.schema.as_deref().unwrap_or("");
        let token = quoted_literal(&place.token);
        let others = match place.tier {
            Tier::Row => format!("WHERE t.tenant_id <> {token}"),
            Tier::Schema | Tier::Database => String::new(),
        };
        let values = [
            ("role", quoted_name(&self.role)),
            ("token", token),
            ("schema", quoted_name(schema)),
            ("schema_text", quoted_literal(schema)),
            ("victim", quoted_name(&victim.role)),
            ("victim_token", quoted_literal(&victim.token)),
            ("table", victim.table.clone()),
            ("base", victim.base.0.clone()),
            ("base_schema", quoted_literal(&victim.base.1)),
            ("others", others),
            ("pid", victim.pid.to_string()),
            ("victim_binding", victim.binding.clone().unwrap_or_default()),
            ("own_binding", self.bindings.own.clone()),
            ("right_binding", self.bindings.right.clone()),
        ];
        let values: Vec<(&str, &str)> = values
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        fill(attack.sql, &values)
    }

    /// Logs out.
    pub(super) async fn end(self) {
        self.writer.end().await;
        if let Some(reader) = self.reader {
            reader.end().await;
        }
    }
}

async fn attempt(
    session: &mut Session,
    attack: &Attack,
    sql: &str,
) -> Result<Attempt, ProvisioningError> {
    match attack.fails {
        Fails::Refused => session.attempt(sql, attack.codes).await,
        Fails::Empty => session.attempt_to_find(sql, attack.codes).await,
    }
}

fn first_words(text: &str) -> &str {
    let end = text
        .char_indices()
        .nth(80)
        .map_or(text.len(), |(end, _)| end);
    text.get(..end).unwrap_or("")
}
