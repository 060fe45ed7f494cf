//! Use cases for a tenant's life: suspend, resume, rotate its password, terminate, verify.

use super::{
    Actor, Control, ControlError, Role, TenantView, dump,
    keys::known,
    names,
    place::{Site, holes_value, not_made_here, upstream},
    secret,
    tenants::{event, finished},
    turn::{Patience, Turn},
    view::tenant_record,
};
use crate::{
    provisioning::Report,
    registry::{self, Changes, TenantRow},
};
use serde_json::{Map, Value, json};
use sqlx::PgConnection;
use std::{path::PathBuf, time::Duration};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// How a tenant ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Termination {
    /// How long its data stays; zero: it goes at once.
    pub grace: Duration,
    /// Where its data is written first: a file that is not there yet.
    pub dump: Option<PathBuf>,
}

impl Control {
    /// Ends a tenant's sessions and refuses its logins, at the proxies and in its cluster. Done
    /// again, it makes sure of the cluster. Needs an operator with the role `admin`.
    ///
    /// # Errors
    /// [`ControlError::Upstream`] when only the cluster could not be told: the proxies refuse it.
    ///
    /// # Cancel safety
    /// It goes on in the background.
    pub async fn suspend(
        &self,
        actor: &Actor,
        id: &str,
        reason: &str,
    ) -> Result<TenantView, ControlError> {
        actor.may_operate(Role::Admin)?;
        let reason = reason.to_owned();
        self.in_turn(actor, id, |control, actor, mut turn, row| async move {
            let done = control.suspend_in(&actor, &mut turn, row, &reason).await;
            (turn, done)
        })
        .await
    }

    async fn suspend_in(
        &self,
        actor: &Actor,
        turn: &mut Turn,
        row: TenantRow,
        reason: &str,
    ) -> Result<TenantView, ControlError> {
        let id = row.id.clone();
        let after = match row.status.as_str() {
            "active" => {
                let facts = json!({ "reason": reason });
                let columns = json!({ "status": "suspended" });
                write(turn, actor, &row, ("Suspended", columns, facts)).await?
            }
            "suspended" => row,
            status => return Err(not(&id, status)),
        };
        // The proxies refuse it already; its roles can't log in past them either.
        let half_done = |cause| {
            upstream(
                format!(
                    "tenant {id:?} is suspended, but cluster {:?} could not be told; do it again when it answers",
                    after.cluster
                ),
                cause,
            )
        };
        let site = self.site(&mut turn.db, &after).await;
        let site = site.map_err(|error| half_done(error.into()))?;
        site.lock_out().await.map_err(half_done)?;
        site.lock_out_of_standbys().await.map_err(|cause| {
            upstream(
                format!(
                    "tenant {id:?} is suspended, but a replica of cluster {:?} could not be told: sessions that are open there go on; do it again when it answers (one that is gone: pgusher cluster remove-replica {} URL)",
                    after.cluster, after.cluster
                ),
                cause,
            )
        })?;
        Ok(TenantView::from(&after))
    }

    /// Lets a tenant in again that is suspended, or terminated and not removed yet. Needs an operator with the role `admin`.
    ///
    /// # Errors
    /// [`ControlError`]; the tenant is still suspended.
    ///
    /// # Cancel safety
    /// It goes on in the background.
    pub async fn resume(&self, actor: &Actor, id: &str) -> Result<TenantView, ControlError> {
        actor.may_operate(Role::Admin)?;
        self.in_turn(actor, id, |control, actor, mut turn, row| async move {
            let done = control.resume_in(&actor, &mut turn, row).await;
            (turn, done)
        })
        .await
    }

    async fn resume_in(
        &self,
        actor: &Actor,
        turn: &mut Turn,
        row: TenantRow,
    ) -> Result<TenantView, ControlError> {
        if row.status == "provisioning" {
            return Err(not(&row.id, &row.status));
        }
        let site = self.site(&mut turn.db, &row).await?;
        let let_in = site.let_in().await;
        let what = || {
            format!(
                "tenant {:?} can't be let in in cluster {:?}",
                row.id, row.cluster
            )
        };
        let_in.map_err(|cause| upstream(what(), cause))?;
        if row.status == "active" {
            return Ok(TenantView::from(&row));
        }
        let columns = json!({ "status": "active", "remove_at": null });
        let after = write(turn, actor, &row, ("Reactivated", columns, json!({}))).await?;
        Ok(TenantView::from(&after))
    }

    /// Gives a tenant's roles new passwords, which nobody sees. Sessions go on; a server that is
    /// dialled just then waits for the new one. Needs an operator with the role `admin`.
    ///
    /// # Errors
    /// [`ControlError`].
    ///
    /// # Cancel safety
    /// It goes on in the background.
    pub async fn rotate_password(
        &self,
        actor: &Actor,
        id: &str,
    ) -> Result<TenantView, ControlError> {
        actor.may_operate(Role::Admin)?;
        self.in_turn(actor, id, |control, actor, mut turn, row| async move {
            let done = control.rotate_in(&actor, &mut turn, row).await;
            (turn, done)
        })
        .await
    }

    /// PostgreSQL knows one password of a role. So the registry's change is written but not yet
    /// visible when the cluster's is made, and visible the moment after. Who dials between the two
    /// is refused with 28P01 and asks again. That it was begun stands in the events: where it ends
    /// between the two, [`Control::sweep`] makes the cluster's password the registry's again.
    async fn rotate_in(
        &self,
        actor: &Actor,
        turn: &mut Turn,
        row: TenantRow,
    ) -> Result<TenantView, ControlError> {
        let id = row.id.clone();
        if row.status == "provisioning" || row.status == "terminated" {
            return Err(not(&id, &row.status));
        }
        if row.variant == "shared" {
            return Err(ControlError::Conflict(format!(
                "tenant {id:?} has no password of its own: it is served through slots"
            )));
        }
        let site = self.site(&mut turn.db, &row).await?;
        if !site.place.is_made_here() {
            let what = "no password of theirs is changed here; to take over a new one, delete the tenant, which leaves them as they are, and import it again";
            return Err(not_made_here(&id, what));
        }
        site.ground.probe().await?;
        let begun = event(
            actor,
            &id,
            "PasswordRotationStarted",
            Changes::default(),
            json!({}),
        );
        registry::append(&mut turn.db, begun).await?;
        let owner = format!("tenant:{id}");
        let keyring = &self.registry.keyring;
        let [password, reader] = [names::password()?, names::password()?];
        let sealed = secret::seal(keyring, &owner, secret::PASSWORD, &password)?;
        let sealed_reader = secret::seal(keyring, &owner, secret::READ_ONLY_PASSWORD, &reader)?;
        let changed = site.with_passwords(password, reader);
        let mut tx = turn.begin().await?;
        let both = (Some(sealed.as_slice()), Some(sealed_reader.as_slice()));
        registry::set_tenant_passwords(&mut tx, &id, both).await?;
        changed.set_passwords().await.map_err(|cause| {
            let what = format!(
                "the password of tenant {id:?} may have been changed in cluster {:?} alone; put it right: pgusher tenant sweep",
                row.cluster
            );
            upstream(what, cause)
        })?;
        let done = event(actor, &id, "PasswordRotated", Changes::default(), json!({}));
        registry::append(&mut tx, done).await?;
        tx.commit().await?;
        Ok(TenantView::from(&row))
    }

    /// Ends a tenant: its logins are refused and its sessions end at once, its data goes after the
    /// grace ([`Control::sweep`]). Done again, it goes on: with a dump, or another grace. An imported
    /// tenant's data stays: what is returned tells which. Needs an operator with the role `admin`.
    ///
    /// # Errors
    /// [`ControlError`]; what is not dumped is not removed.
    ///
    /// # Cancel safety
    /// It goes on in the background.
    pub async fn terminate(
        &self,
        actor: &Actor,
        id: &str,
        how: Termination,
    ) -> Result<Option<String>, ControlError> {
        actor.may_operate(Role::Admin)?;
        if let Some(path) = &how.dump {
            dump::check(path)?;
        }
        self.in_turn(actor, id, |control, actor, mut turn, row| async move {
            let done = control.terminate_in(&actor, &mut turn, row, how).await;
            (turn, done)
        })
        .await
    }

    async fn terminate_in(
        &self,
        actor: &Actor,
        turn: &mut Turn,
        row: TenantRow,
        how: Termination,
    ) -> Result<Option<String>, ControlError> {
        let id = row.id.clone();
        let is_new = row.status == "provisioning";
        let now = OffsetDateTime::now_utc();
        let end = now.checked_add(how.grace.try_into().unwrap_or(time::Duration::MAX));
        let end = end.and_then(|end| end.format(&Rfc3339).ok());
        let end = end.ok_or_else(|| ControlError::Invalid {
            field: "grace".to_owned(),
            problem: "it is too long".to_owned(),
        })?;
        // Until it is dumped, nothing says when it goes.
        let remove_at = if how.dump.is_some() {
            Value::Null
        } else {
            json!(end)
        };
        let columns = json!({ "status": "terminated", "remove_at": remove_at });
        let facts = json!({ "grace_seconds": how.grace.as_secs(), "dump": how.dump.is_some() });
        let mut row = write(turn, actor, &row, ("Terminated", columns, facts)).await?;
        let stands = format!("tenant {id:?} is terminated: the proxies refuse it");
        let half_done = |cause| {
            let what =
                format!("{stands}. Its cluster could not be told; do it again when it answers");
            upstream(what, cause)
        };
        let site = self.site(&mut turn.db, &row).await;
        let site = site.map_err(|error| half_done(error.into()))?;
        if !is_new {
            site.lock_out().await.map_err(half_done)?;
            // What is dropped at the primary goes there too: a replica that is gone holds up nothing.
            if let Err(error) = site.lock_out_of_standbys().await {
                tracing::warn!(tenant = %id, %error, "a replica was not told that a tenant has ended");
            }
        }
        if let Some(path) = &how.dump {
            dump::write(&site, path).await.map_err(|cause| {
                let what = format!(
                    "{stands}. It could not be dumped, and nothing is removed until it is, or until it is ended without a dump"
                );
                upstream(what, cause)
            })?;
            let columns = json!({ "remove_at": end });
            let facts = json!({ "file": path.display().to_string() });
            row = write(turn, actor, &row, ("Dumped", columns, facts)).await?;
        }
        if how.grace.is_zero() {
            self.remove(actor, turn, (&row, &site)).await?;
        }
        Ok(site.left())
    }

    /// Removes what is left of a tenant that is terminated.
    pub(super) async fn remove(
        &self,
        actor: &Actor,
        turn: &mut Turn,
        (row, site): (&TenantRow, &Site),
    ) -> Result<(), ControlError> {
        site.unmake().await.map_err(|cause| {
            let what = format!(
                "what is left of tenant {:?} in cluster {:?} could not be removed; try again: pgusher tenant sweep",
                row.id, row.cluster
            );
            upstream(what, cause)
        })?;
        let facts = site
            .left()
            .map_or(json!({}), |left| json!({ "left": left }));
        self.forget(actor, turn, row, ("Removed", facts)).await
    }

    /// Attacks a tenant's place as the tenant and as its neighbour, reports what held, and writes
    /// down which holes are known. Needs the role `viewer`.
    ///
    /// # Errors
    /// [`ControlError`].
    ///
    /// # Cancel safety
    /// Canaries may be left; the next run removes them.
    pub async fn verify_tenant(&self, actor: &Actor, id: &str) -> Result<Report, ControlError> {
        actor.may(Role::Viewer, id)?;
        let mut db = self.registry.pool.acquire().await?;
        let row = known(registry::tenant(&mut db, id).await?, id)?;
        if row.status == "provisioning" || row.status == "terminated" {
            return Err(not(id, &row.status));
        }
        let site = self.site(&mut db, &row).await?;
        drop(db);
        if !site.place.is_made_here() {
            let what = "nothing is promised about what they can reach";
            return Err(not_made_here(id, what));
        }
        site.ground.probe().await?;
        let report = site.verify().await;
        let report = report
            .map_err(|cause| upstream(format!("tenant {id:?} could not be verified"), cause))?;
        let found = ("verify", holes_value(&report.holes));
        self.note_holes(actor, id, found).await?;
        Ok(report)
    }

    /// Writes down what is open, where that is something else than before.
    pub(super) async fn note_holes(
        &self,
        actor: &Actor,
        id: &str,
        (by, holes): (&str, Value),
    ) -> Result<(), ControlError> {
        let mut tx = self.registry.pool.begin().await?;
        let before = known(registry::lock_tenant(&mut tx, id).await?, id)?;
        if before.open_holes.0 == holes {
            return Ok(());
        }
        let columns = Map::from_iter([("open_holes".to_owned(), holes)]);
        let after = registry::change_tenant(&mut tx, id, columns).await?;
        let changes = Changes::between(&tenant_record(&before), &tenant_record(&after));
        let facts = json!({ "by": by });
        registry::append(&mut tx, event(actor, id, "ConfigUpdated", changes, facts)).await?;
        Ok(tx.commit().await?)
    }

    /// Does something to a tenant in its turn, in a task that nobody cancels.
    pub(super) async fn in_turn<T, F, W>(
        &self,
        actor: &Actor,
        id: &str,
        work: F,
    ) -> Result<T, ControlError>
    where
        T: Send + 'static,
        F: FnOnce(Self, Actor, Turn, TenantRow) -> W + Send + 'static,
        W: Future<Output = (Turn, Result<T, ControlError>)> + Send,
    {
        let (control, actor, id) = (self.clone(), actor.clone(), id.to_owned());
        let task = async move {
            let mut turn = control.turn(&id, Patience::Some).await?;
            let (turn, done) = match row(&mut turn.db, &id).await {
                Ok(row) => work(control, actor, turn, row).await,
                Err(error) => (turn, Err(error)),
            };
            turn.end().await;
            done
        };
        finished(tokio::spawn(task)).await
    }
}

async fn row(db: &mut PgConnection, id: &str) -> Result<TenantRow, ControlError> {
    known(registry::tenant(db, id).await?, id)
}

/// Writes a change and the event that tells it.
pub(super) async fn write(
    turn: &mut Turn,
    actor: &Actor,
    before: &TenantRow,
    (kind, columns, facts): (&str, Value, Value),
) -> Result<TenantRow, ControlError> {
    let columns = columns.as_object().cloned().unwrap_or_else(Map::new);
    let mut tx = turn.begin().await?;
    // The row as it is now: a change of its limits does not wait for the turn.
    let before = known(
        registry::lock_tenant(&mut tx, &before.id).await?,
        &before.id,
    )?;
    let after = registry::change_tenant(&mut tx, &before.id, columns).await?;
    let changes = Changes::between(&tenant_record(&before), &tenant_record(&after));
    registry::append(&mut tx, event(actor, &before.id, kind, changes, facts)).await?;
    tx.commit().await?;
    Ok(after)
}

fn not(id: &str, status: &str) -> ControlError {
    let way = match status {
        "provisioning" => {
            format!("half made; go on with it: pgusher tenant resume-provisioning {id}")
        }
        other => other.to_owned(),
    };
    ControlError::Conflict(format!("tenant {id:?} is {way}"))
}
