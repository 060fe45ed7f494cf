//! What was left half done is gone on with: by hand, at the start, from time to time.

use super::{
    Actor, Control, ControlError, Role,
    place::upstream,
    tenants::{event, finished},
    turn::{Patience, Turn},
};
use crate::registry::{self, Changes};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

/// Tenants that one sweep looks at.
const TENANTS_MAX: i64 = 1000;

/// What a sweep did, by tenant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Swept {
    /// Were half made, and are active now. They have no keys yet.
    pub activated: Vec<String>,
    /// Were terminated, and are gone.
    pub removed: Vec<String>,
    /// Have the password again that the registry knows.
    pub repaired: Vec<String>,
    /// Half made, with templates that are not here, and which: left to who has them.
    pub left: Vec<(String, String)>,
    /// Somebody else is at them right now.
    pub busy: Vec<String>,
    /// Could not be gone on with, and why.
    pub failed: Vec<(String, String)>,
}

enum Outcome {
    Activated,
    Removed,
    Repaired,
    Left(String),
    Nothing,
}

impl Control {
    /// Goes on with every tenant that is half made, due for removal, or in the middle of a change of
    /// its password. Needs an operator with the role `admin`.
    ///
    /// # Errors
    /// [`ControlError`] when the registry can't tell; what fails for one tenant is in the answer.
    ///
    /// # Cancel safety
    /// Each tenant is gone on with in the background, or not begun.
    pub async fn sweep(&self, actor: &Actor) -> Result<Swept, ControlError> {
        actor.may_operate(Role::Admin)?;
        let ids = self.unfinished().await?;
        Ok(self.sweep_these(actor, ids).await)
    }

    /// Tenants that somebody has to go on with.
    pub(super) async fn unfinished(&self) -> Result<Vec<String>, ControlError> {
        let mut db = self.registry.pool.acquire().await?;
        Ok(registry::unfinished_tenants(&mut db, TENANTS_MAX).await?)
    }

    pub(super) async fn sweep_these(&self, actor: &Actor, ids: Vec<String>) -> Swept {
        let mut swept = Swept::default();
        for id in ids {
            let (control, actor, one) = (self.clone(), actor.clone(), id.clone());
            let task = tokio::spawn(async move { control.sweep_one(&actor, &one).await });
            match finished(task).await {
                Ok(Outcome::Activated) => swept.activated.push(id),
                Ok(Outcome::Removed) => swept.removed.push(id),
                Ok(Outcome::Repaired) => swept.repaired.push(id),
                Ok(Outcome::Left(why)) => swept.left.push((id, why)),
                Ok(Outcome::Nothing) => {}
                Err(ControlError::Conflict(_)) => swept.busy.push(id),
                Err(error) => swept.failed.push((id, error.with_causes())),
            }
        }
        swept
    }

    async fn sweep_one(&self, actor: &Actor, id: &str) -> Result<Outcome, ControlError> {
        let mut turn = self.turn(id, Patience::None).await?;
        let done = self.sweep_in(actor, &mut turn, id).await;
        turn.end().await;
        done
    }

    /// Looks again, in the tenant's turn: somebody else may have ended it meanwhile.
    async fn sweep_in(
        &self,
        actor: &Actor,
        turn: &mut Turn,
        id: &str,
    ) -> Result<Outcome, ControlError> {
        let Some(row) = registry::tenant(&mut turn.db, id).await? else {
            return Ok(Outcome::Nothing);
        };
        if row.status == "provisioning" {
            if let Some(why) = self.lacks_templates(&mut turn.db, &row).await? {
                return Ok(Outcome::Left(why));
            }
            let found = self.go_on(actor, turn, id).await?;
            self.finish(actor, turn, found, false).await?;
            return Ok(Outcome::Activated);
        }
        let site = self.site(&mut turn.db, &row).await?;
        site.ground.probe().await?;
        let is_due = row
            .remove_at
            .is_some_and(|at| at <= time::OffsetDateTime::now_utc());
        if row.status == "terminated" {
            if !is_due {
                return Ok(Outcome::Nothing);
            }
            self.remove(actor, turn, (&row, &site)).await?;
            return Ok(Outcome::Removed);
        }
        site.set_passwords().await.map_err(|cause| {
            upstream(
                format!("the password of tenant {id:?} can't be put right"),
                cause,
            )
        })?;
        let facts = json!({ "repaired": true });
        let repaired = event(actor, id, "PasswordRotated", Changes::default(), facts);
        registry::append(&mut turn.db, repaired).await?;
        Ok(Outcome::Repaired)
    }
}
