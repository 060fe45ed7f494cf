//! What is made in a cluster, and with whose rights: from rows to [`crate::provisioning`].

use super::{Control, ControlError, secret};
use crate::{
    crypto::Keyring,
    provisioning::{self, Admin, Hole, Place, Profile, Report, Variant},
    registry::{ClusterRow, RegistryError, TenantRow, cluster_of},
    tenant::{Login, Secret, SlotKey, Tier},
};
use serde_json::Value;
use std::{error::Error, path::Path};

/// Why something was not done in a cluster. It says no secret.
pub(super) type Cause = Box<dyn Error + Send + Sync>;

/// A cluster as who makes and removes tenants there.
pub(super) struct Ground {
    pub(super) name: String,
    pub(super) admin: Admin,
    /// The same at its hot standbys.
    pub(super) standbys: Vec<Admin>,
    pub(super) profile: Profile,
}

impl Ground {
    /// The cluster of a row.
    pub(super) fn new(row: &ClusterRow, keyring: &Keyring) -> Result<Self, ControlError> {
        let sealed = row.admin_password.as_deref();
        let owner = format!("cluster:{}", row.name);
        let password = sealed.map(|sealed| secret::open(keyring, &owner, secret::ADMIN, sealed));
        Self::with(row, password.transpose()?)
    }

    /// The cluster of a row, whose password is known.
    pub(super) fn with(row: &ClusterRow, password: Option<Secret>) -> Result<Self, ControlError> {
        let cluster = cluster_of(row)?;
        let admin = Admin {
            address: cluster.primary,
            tls: cluster.tls,
            role: row.admin_role.as_str().into(),
            password,
            connect_timeout: cluster.connect_timeout,
        };
        let standby = |address| Admin {
            address,
            ..admin.clone()
        };
        Ok(Self {
            name: row.name.clone(),
            standbys: cluster
                .replicas
                .into_iter()
                .map(|replica| standby(replica.address))
                .collect(),
            admin,
            profile: Profile::named(&row.profile).unwrap_or_default(),
        })
    }
}

/// The place of a tenant, with its passwords.
pub(super) fn place_of(row: &TenantRow, keyring: &Keyring) -> Result<Place, ControlError> {
    let owner = format!("tenant:{}", row.id);
    let login = |role: &str, what: &str, sealed: Option<&[u8]>| {
        let password = sealed.map(|sealed| secret::open(keyring, &owner, what, sealed));
        Ok::<_, ControlError>(Login {
            role: role.into(),
            password: password.transpose()?,
        })
    };
    let variant = match row.variant.as_str() {
        "shared" => Variant::Shared,
        _ => Variant::Own,
    };
    let has_logins = variant == Variant::Own;
    let (password, reader) = (row.password.as_deref(), row.read_only_password.as_deref());
    let own = has_logins.then(|| login(&row.role, secret::PASSWORD, password));
    let reads = row.read_only_role.as_deref().filter(|_| has_logins);
    let reads = reads.map(|role| login(role, secret::READ_ONLY_PASSWORD, reader));
    Ok(Place {
        tier: tier_of(row)?,
        variant,
        database: row.database_name.as_str().into(),
        schema: row.schema_name.as_deref().map(Into::into),
        token: row.token.as_str().into(),
        login: own.transpose()?,
        read_only_login: reads.transpose()?,
        connection_limit: -1,
    })
}

/// The tier of a row.
pub(super) fn tier_of(row: &TenantRow) -> Result<Tier, ControlError> {
    let unusable = |problem: crate::tenant::UnknownName| RegistryError::Row {
        what: format!("tier of tenant {}", row.id),
        problem: problem.to_string(),
    };
    Ok(row.tier.parse().map_err(unusable)?)
}

/// Holes as they stand in a row.
pub(super) fn holes_value(holes: &[Hole]) -> Value {
    serde_json::to_value(holes).unwrap_or_default()
}

/// An error of the cluster.
pub(super) fn upstream(what: impl Into<String>, source: Cause) -> ControlError {
    ControlError::Upstream {
        what: what.into(),
        source,
    }
}

impl Control {
    /// The place of a tenant and the cluster it is in.
    pub(super) async fn site(
        &self,
        db: &mut sqlx::PgConnection,
        row: &TenantRow,
    ) -> Result<Site, ControlError> {
        let cluster = crate::registry::cluster(db, &row.cluster).await?;
        let cluster = cluster.ok_or_else(|| ControlError::NotFound {
            what: "cluster",
            id: row.cluster.clone(),
        })?;
        let keyring = &self.registry.keyring;
        let slots = match row.variant.as_str() {
            "shared" => {
                let database = (row.cluster.as_str(), row.database_name.as_str());
                Some(crate::registry::slot_key(db, database, keyring).await?)
            }
            _ => None,
        };
        Ok(Site {
            ground: Ground::new(&cluster, keyring)?,
            place: place_of(row, keyring)?,
            slots,
        })
    }
}

/// That something can't be done to a tenant whose place was not made here.
pub(super) fn not_made_here(id: &str, what: &str) -> ControlError {
    ControlError::Conflict(format!(
        "tenant {id:?} was imported: its database and its roles are not pgusher's, and {what}"
    ))
}

/// A place on its ground.
pub(super) struct Site {
    pub(super) ground: Ground,
    pub(super) place: Place,
    /// What opens the slots of its database, and the number of that key.
    pub(super) slots: Option<(i32, SlotKey)>,
}

impl Site {
    /// Makes the place and attacks it; run again, it goes on.
    pub(super) async fn make(&self) -> Result<Vec<Hole>, Cause> {
        let Ground { admin, profile, .. } = &self.ground;
        let holes = Box::pin(provisioning::make(admin, *profile, &self.place)).await?;
        if let Some((id, key)) = &self.slots {
            let database = &self.place.database;
            Box::pin(provisioning::make_slots(admin, database, (*id, key))).await?;
            Box::pin(provisioning::try_in_slots(admin, &self.place, key, &holes)).await?;
        }
        Ok(holes)
    }

    /// Removes the place, whatever there is of it, where it was made here.
    pub(super) async fn unmake(&self) -> Result<(), Cause> {
        if !self.place.is_made_here() {
            return Ok(());
        }
        Ok(Box::pin(provisioning::unmake(&self.ground.admin, &self.place)).await?)
    }

    /// Ends the sessions of its roles, and lets none of them log in. An imported tenant's roles may
    /// be others' too, or the admin itself: the proxies alone refuse such a tenant.
    pub(super) async fn lock_out(&self) -> Result<(), Cause> {
        if !self.place.is_made_here() {
            return Ok(());
        }
        Ok(Box::pin(provisioning::lock_out(&self.ground.admin, &self.place)).await?)
    }

    /// Ends the sessions of its roles at the hot standbys, after [`Self::lock_out`]: at all that
    /// answer. The error is of the first that does not.
    pub(super) async fn lock_out_of_standbys(&self) -> Result<(), Cause> {
        let mut done = Ok(());
        if self.place.is_made_here() {
            for standby in &self.ground.standbys {
                let locked = provisioning::lock_out_of_standby(standby, &self.place);
                let locked = Box::pin(locked).await.map_err(Cause::from);
                done = done.and(locked);
            }
        }
        done
    }

    /// Lets its roles log in again.
    pub(super) async fn let_in(&self) -> Result<(), Cause> {
        if !self.place.is_made_here() {
            return Ok(());
        }
        Ok(Box::pin(provisioning::let_in(&self.ground.admin, &self.place)).await?)
    }

    /// Makes the roles' passwords those of the place.
    pub(super) async fn set_passwords(&self) -> Result<(), Cause> {
        Ok(Box::pin(provisioning::set_passwords(&self.ground.admin, &self.place)).await?)
    }

    /// Attacks the place.
    pub(super) async fn verify(&self) -> Result<Report, Cause> {
        let Ground { admin, profile, .. } = &self.ground;
        let place = &self.place;
        Ok(match &self.slots {
            Some((_, key)) => {
                Box::pin(provisioning::verify_in_slots(admin, *profile, place, key)).await?
            }
            None => Box::pin(provisioning::verify(admin, *profile, place)).await?,
        })
    }

    /// Applies the templates; the versions before and after.
    pub(super) async fn apply_templates(&self, directory: &Path) -> Result<(i64, i64), Cause> {
        let admin = &self.ground.admin;
        let applying = provisioning::templates::apply(admin, &self.place, directory);
        let applied = Box::pin(applying).await?;
        Ok((applied.from, applied.to))
    }

    /// What stays in the cluster when the tenant goes; `None` where all of it was made here.
    pub(super) fn left(&self) -> Option<String> {
        let place = &self.place;
        if place.is_made_here() {
            return None;
        }
        let logins = place.login.iter().chain(&place.read_only_login);
        let roles: Vec<_> = logins.map(|login| &*login.role).collect();
        let schema = place.schema.as_ref();
        let schema = schema.map(|schema| format!(", schema {schema:?}"));
        Some(format!(
            "it was imported: database {:?}{} and role {} of cluster {:?} stay as they are",
            place.database,
            schema.unwrap_or_default(),
            roles.join(", "),
            self.ground.name
        ))
    }

    /// The same place with other passwords.
    pub(super) fn with_passwords(mut self, password: Secret, reader: Secret) -> Self {
        let logins = [&mut self.place.login, &mut self.place.read_only_login];
        for (login, password) in logins.into_iter().zip([password, reader]) {
            if let Some(login) = login {
                login.password = Some(password);
            }
        }
        self
    }
}

impl Ground {
    /// Hardens the cluster.
    pub(super) async fn harden(&self) -> Result<Vec<Hole>, Cause> {
        Ok(Box::pin(provisioning::harden_cluster(&self.admin, self.profile)).await?)
    }

    /// Hardens the databases that its tenants have or share; what stays open in each.
    pub(super) async fn harden_databases(&self) -> Result<Vec<(String, Vec<Hole>)>, Cause> {
        Ok(Box::pin(provisioning::harden_databases(&self.admin, self.profile)).await?)
    }

    /// Attacks the cluster.
    pub(super) async fn verify(&self) -> Result<Report, Cause> {
        Ok(Box::pin(provisioning::verify_cluster(&self.admin, self.profile)).await?)
    }
}
