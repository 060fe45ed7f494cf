//! Writing imported tenants to the registry: each in a transaction of its own.

use super::{ImportError, Note, facts::Facts, keys, note::Notes};
use crate::{
    control::{Actor, MintError},
    crypto::Purpose,
    registry::{Changes, ClusterRow, NewEvent, Registry, RegistryError, TenantRow, append},
    tenant::{ScramVerifier, Secret},
};
use rand::{TryRng as _, rngs::SysRng};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::{PgConnection, types::Json};

const BASE32: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Letters of a token.
const TOKEN: usize = 20;

/// What became, or would become, of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It would be written.
    New,
    /// It was written; its keys are shown now and never again.
    Written(Keys),
    /// It is there with the same facts.
    Same,
    /// It is there with other facts: these differ.
    Different(Vec<String>),
    /// It can't be imported.
    Left(String),
}

/// New keys of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// Reads and writes.
    pub key: Secret,
    /// Reads only, where there is a login for it.
    pub read_only_key: Option<Secret>,
}

/// A tenant of the other system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Our id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The cluster; empty when it was left.
    pub cluster: String,
    /// The URL before, without a password.
    pub old_url: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What came of an import.
#[derive(Debug, Default)]
pub struct Report {
    /// Every tenant of the other system.
    pub tenants: Vec<Tenant>,
    /// What could not be taken over, or otherwise.
    pub notes: Vec<Note>,
    /// What ended the import before all tenants were written; those that say so are.
    pub broken_off: Option<ImportError>,
}

/// What was read and can be written.
pub(super) struct Plan {
    pub(super) facts: Vec<Facts>,
    pub(super) left: Vec<Tenant>,
    pub(super) notes: Notes,
}

/// The clusters of the registry.
pub(super) async fn clusters(registry: &Registry) -> Result<Vec<ClusterRow>, ImportError> {
    let query = sqlx::query_as("SELECT * FROM pgusher.cluster ORDER BY name");
    let rows = query.fetch_all(&registry.pool).await;
    Ok(rows.map_err(RegistryError::from)?)
}

/// Compares with what is there, and writes what is not, unless it is a dry run.
pub(super) async fn carry_out(
    plan: Plan,
    registry: &Registry,
    actor: &Actor,
    from: &str,
    is_dry_run: bool,
) -> Result<Report, ImportError> {
    if !is_dry_run {
        registry.check_keyring().await?;
    }
    let mut report = Report {
        tenants: plan.left,
        notes: plan.notes.0,
        broken_off: None,
    };
    for facts in &plan.facts {
        let mut outcome = compare(facts, registry).await?;
        if outcome == Outcome::New && !is_dry_run {
            match write(facts, registry, actor, from).await {
                Ok(keys) => outcome = Outcome::Written(keys),
                Err(error) => {
                    // The keys of those before must be shown.
                    report.broken_off = Some(error);
                    break;
                }
            }
        }
        report.tenants.push(Tenant {
            id: facts.id.clone(),
            name: facts.name.clone(),
            cluster: facts.cluster.clone(),
            old_url: facts.old_url.clone(),
            outcome,
        });
    }
    Ok(report)
}

async fn compare(facts: &Facts, registry: &Registry) -> Result<Outcome, ImportError> {
    let query = sqlx::query_as::<_, TenantRow>("SELECT * FROM pgusher.tenant WHERE id = $1");
    let row = query.bind(&facts.id).fetch_optional(&registry.pool).await;
    let Some(row) = row.map_err(RegistryError::from)? else {
        return Ok(Outcome::New);
    };
    let names = facts.differences(&row, &registry.keyring);
    Ok(if names.is_empty() {
        Outcome::Same
    } else {
        Outcome::Different(names)
    })
}

/// Writes tenant, keys and event, or nothing.
async fn write(
    facts: &Facts,
    registry: &Registry,
    actor: &Actor,
    from: &str,
) -> Result<Keys, ImportError> {
    let key = keys::create(None)?;
    let reader = facts.read_only.as_ref();
    let reader = reader.map(|_| keys::create(Some(&key.verifier)));
    let reader = reader.transpose()?;
    let transaction = registry.pool.begin().await;
    let mut transaction = transaction.map_err(RegistryError::from)?;
    let record = insert(&mut transaction, facts, registry, &key.verifier).await?;
    insert_key(&mut transaction, &facts.id, &key, "read_write").await?;
    if let Some(reader) = &reader {
        insert_key(&mut transaction, &facts.id, reader, "read_only").await?;
    }
    let event = NewEvent {
        tenant: Some(&facts.id),
        kind: "TenantCreated",
        actor: &actor.name,
        address: &actor.address,
        changes: Changes::between(&Map::new(), &record),
        facts: json!({ "imported": from }),
    };
    append(&mut transaction, event).await?;
    transaction.commit().await.map_err(RegistryError::from)?;
    Ok(Keys {
        key: key.text,
        read_only_key: reader.map(|reader| reader.text),
    })
}

/// Writes the tenant; the row as an event tells it: without secrets and what changes by itself.
async fn insert(
    db: &mut PgConnection,
    facts: &Facts,
    registry: &Registry,
    verifier: &ScramVerifier,
) -> Result<Map<String, Value>, ImportError> {
    let owner = format!("tenant:{}", facts.id);
    let seal = |what, secret: Option<&Secret>| {
        let purpose = Purpose {
            owner: &owner,
            what,
        };
        let sealed =
            secret.map(|secret| registry.keyring.seal(purpose, secret.expose().as_bytes()));
        sealed.transpose().map_err(RegistryError::from)
    };
    let reader = facts.read_only.as_ref();
    let password = seal("password", facts.role.password.as_ref())?;
    let secret = reader.and_then(|role| role.password.as_ref());
    let reader_password = seal("read_only_password", secret)?;
    let row = sqlx::query_scalar::<_, Json<Map<String, Value>>>(
        "INSERT INTO pgusher.tenant AS tenant (id, name, tier, status, owner_email, cluster,
             database_name, schema_name, token, role, password, read_only_role, read_only_password,
             scram_salt, pool_size, min_pool_size, server_idle_timeout, query_wait_timeout, settings,
             time_zone, auto_update, metadata)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
             $20, $21, $22)
         RETURNING to_jsonb(tenant) - ARRAY['password', 'read_only_password', 'scram_salt',
             'generation', 'created_at', 'updated_at']",
    )
    .bind(&facts.id)
    .bind(&facts.name)
    .bind(facts.tier.as_str())
    .bind(facts.status)
    .bind(&facts.owner_email)
    .bind(&facts.cluster)
    .bind(&facts.database)
    .bind(&facts.schema)
    .bind(token()?)
    .bind(&facts.role.name)
    .bind(password)
    .bind(reader.map(|role| role.name.as_str()))
    .bind(reader_password)
    .bind(&*verifier.salt)
    .bind(facts.pool_size)
    .bind(facts.min_pool_size)
    .bind(facts.server_idle_timeout)
    .bind(facts.query_wait_timeout)
    .bind(Json(&facts.settings))
    .bind(&facts.time_zone)
    .bind(facts.auto_update)
    .bind(Json(&facts.metadata))
    .fetch_one(db)
    .await;
    Ok(row.map_err(RegistryError::from)?.0)
}

async fn insert_key(
    db: &mut PgConnection,
    tenant: &str,
    key: &keys::NewKey,
    scope: &str,
) -> Result<(), ImportError> {
    let done = sqlx::query(
        "INSERT INTO pgusher.api_key (id, tenant, name, sha256, verifier, scope)
         VALUES ($1, $2, 'import', $3, $4, $5)",
    )
    .bind(key.id.as_str())
    .bind(tenant)
    .bind(&Sha256::digest(key.text.expose().as_bytes())[..])
    .bind(key.verifier.to_string())
    .bind(scope)
    .execute(db)
    .await;
    done.map_err(RegistryError::from)?;
    Ok(())
}

/// The opaque word in a tenant's names. These names are made by others, but a row has one.
fn token() -> Result<String, ImportError> {
    let mut bytes = [0; TOKEN];
    let filled = SysRng.try_fill_bytes(&mut bytes);
    filled.map_err(|_error| MintError::Randomness)?;
    let letters = bytes.iter().map(|byte| usize::from(byte % 32));
    let letters = letters.filter_map(|index| BASE32.get(index));
    Ok(letters.map(|letter| char::from(*letter)).collect())
}
