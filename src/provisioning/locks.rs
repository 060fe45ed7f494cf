//! Who waits for a lock on what is not theirs.
//!
//! PostgreSQL locks before it checks: `CREATE RULE … ON pg_authid` waits for ACCESS EXCLUSIVE on
//! what every login of the cluster reads, and is refused only when it has got that. Whoever comes
//! meanwhile queues behind it, for as long as a second session of the same tenant keeps its own
//! weak lock. No privilege closes this, so it is looked for, and ended.
//!
//! A look reads the lock table and the list of backends by function: it locks nothing, so it works
//! while `pg_authid` or `pg_class` is what is waited for.

use super::{
    Admin, ProvisioningError,
    admin::{MAINTENANCE, Session},
};
use sqlx::postgres::types::Oid;
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

/// Objects below were made with the database.
const FIRST_NORMAL_OID: u32 = 16_384;

/// A wait is no wait before.
const WAIT_MIN_S: f64 = 0.05;

/// How long a look may take, and whatever follows from it. PostgreSQL ends it.
const LOOK_TIME_MAX: Duration = Duration::from_secs(2);

/// Roles and databases that are remembered.
const REMEMBERED_MAX: usize = 10_000;

const STEP: &str = "watch locks";

/// Every lock that keeps others from writing or reading, and is no row's. One's own role and database
/// are nobody else's.
const LOOK: &str =
    "SELECT l.pid, a.usesysid AS role, l.database, coalesce(l.relation, l.objid) AS object,
        l.relation IS NULL AS is_object,
        l.mode, l.granted,
        coalesce(extract(epoch FROM clock_timestamp() - l.waitstart), 0)::float8 AS waited,
        a.state IS DISTINCT FROM 'idle in transaction' AS is_busy
    FROM pg_lock_status() l JOIN pg_stat_get_activity(NULL) a ON a.pid = l.pid
    WHERE l.locktype IN ('relation', 'object')
        AND l.mode IN ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock',
            'ExclusiveLock', 'AccessExclusiveLock')
        AND (l.classid = 1260 AND l.objid = a.usesysid OR l.classid = 1262 AND l.objid = a.datid) IS NOT TRUE";

/// Ends tenants' backends that are older than the end of their connections. Age tells them from who got
/// the same number since, and the role from who has it on another server.
const END_CLOSED: &str = "SELECT count(pg_terminate_backend(a.pid))
    FROM pg_stat_get_activity(NULL) a
        JOIN unnest($1::int[], $2::float8[]) AS closed (pid, age) ON closed.pid = a.pid
        JOIN pg_auth_members m ON m.member = a.usesysid
        JOIN pg_roles g ON g.oid = m.roleid AND g.rolname = 'pgusher_tenants'
    WHERE a.backend_start < clock_timestamp() - make_interval(secs => closed.age)";

/// Whether a relation of this database is somebody else's than this role's tenant's, and the role
/// was given nothing that takes such a lock. Names of a tenant's roles end alike.
const IS_FOREIGN: &str =
    "SELECT right(pg_get_userbyid(relowner), 20) <> right(pg_get_userbyid($2), 20)
        AND NOT has_table_privilege($2, oid, 'REFERENCES, TRIGGER')
    FROM pg_class WHERE oid = $1";

/// Whether a role is a tenant's, or a slot.
const IS_TENANT: &str =
    "SELECT EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
    WHERE m.member = $1 AND g.rolname = 'pgusher_tenants')";

#[derive(Debug, sqlx::FromRow)]
struct Lock {
    pid: i32,
    role: Option<Oid>,
    database: Oid,
    object: Oid,
    is_object: bool,
    mode: String,
    granted: bool,
    waited: f64,
    is_busy: bool,
}

/// A session that keeps others from what it shares with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trespass {
    /// Its process.
    pub pid: u32,
    /// The lock: `AccessExclusiveLock on 1260 of all databases`.
    pub lock: String,
}

/// Looks at the locks of one cluster, on connections of its own.
#[derive(Debug)]
pub struct LockWatch {
    admin: Admin,
    session: Session,
    /// Databases that tenants share, by their numbers.
    shared: HashMap<Oid, String>,
    /// Connections to them, made when one was needed.
    inside: HashMap<Oid, Session>,
    /// Whether a role is a tenant's.
    roles: HashMap<Oid, bool>,
    /// Strong locks that were held at the last look.
    held: HashSet<(i32, Oid, Oid)>,
}

impl LockWatch {
    /// Logs in. `shared` are the databases that tenants share; those that are not there yet are
    /// looked for again by [`LockWatch::refresh`].
    ///
    /// # Errors
    /// As every login of the admin.
    ///
    /// # Cancel safety
    /// Cancel safe: the connection ends.
    pub async fn connect(admin: &Admin, shared: &[&str]) -> Result<Self, ProvisioningError> {
        let session = admin.connect(MAINTENANCE).await?;
        let mut watch = Self {
            admin: admin.clone(),
            session,
            shared: HashMap::new(),
            inside: HashMap::new(),
            roles: HashMap::new(),
            held: HashSet::new(),
        };
        limit(&mut watch.session).await?;
        watch.refresh(shared).await?;
        Ok(watch)
    }

    /// Learns which databases are shared, and has PostgreSQL remember the roles that are here: who
    /// it knows it can end while `pg_authid` is locked.
    ///
    /// # Errors
    /// [`ProvisioningError`]: connect again.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn refresh(&mut self, shared: &[&str]) -> Result<(), ProvisioningError> {
        let names: Vec<String> = shared.iter().map(|&name| name.to_owned()).collect();
        let query = sqlx::query_as::<_, (Oid, String)>(
            "SELECT oid, datname::text FROM pg_database WHERE datname = ANY ($1)",
        );
        let found = query.bind(names).fetch_all(&mut self.session.db).await;
        self.shared = said(&self.session, found)?.into_iter().collect();
        self.inside
            .retain(|database, _| self.shared.contains_key(database));
        let known = sqlx::query_scalar::<_, i64>(
            "SELECT count(pg_get_userbyid(usesysid)) FROM pg_stat_get_activity(NULL)",
        );
        let known = known.fetch_one(&mut self.session.db).await;
        said(&self.session, known)?;
        Ok(())
    }

    /// Who has to be ended now. `is_ours` says whether a process is known to be a tenant's; others
    /// are looked up by their roles.
    ///
    /// # Errors
    /// [`ProvisioningError`]: connect again.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn look(
        &mut self,
        is_ours: impl Fn(u32) -> bool,
    ) -> Result<Vec<Trespass>, ProvisioningError> {
        let locks = sqlx::query_as::<_, Lock>(LOOK)
            .fetch_all(&mut self.session.db)
            .await;
        let locks = said(&self.session, locks)?;
        let held_before = std::mem::take(&mut self.held);
        let mut found: Vec<Trespass> = Vec::new();
        for lock in locks {
            let Some(role) = lock.role else { continue };
            if !self.concerns_others(&lock) {
                continue;
            }
            let pid = lock.pid.cast_unsigned();
            let place = (lock.pid, lock.database, lock.object);
            // What is got is kept for a moment before it is refused, or by who waits for something
            // else ahead of that.
            if lock.granted && lock.is_busy {
                self.held.insert(place);
            }
            let stays = if lock.granted {
                lock.is_busy && held_before.contains(&place)
            } else {
                lock.waited >= WAIT_MIN_S
            };
            let is_new = !found.iter().any(|other| other.pid == pid);
            if stays
                && is_new
                && (is_ours(pid) || self.is_tenant(role).await)
                && self.is_foreign(&lock, role).await
            {
                let lock = lock.words();
                found.push(Trespass { pid, lock });
            }
        }
        Ok(found)
    }

    /// Ends a session. It may have to wait for the lock that is trespassed upon: cancel the statement
    /// first.
    ///
    /// # Errors
    /// [`ProvisioningError`], 42501 where the admin may not end it.
    ///
    /// # Cancel safety
    /// Cancel safe: it is ended or not.
    pub async fn end(&mut self, trespass: &Trespass) -> Result<(), ProvisioningError> {
        let query = sqlx::query_scalar::<_, bool>("SELECT pg_terminate_backend($1)");
        let query = query.bind(trespass.pid.cast_signed());
        let ended = query.fetch_one(&mut self.session.db).await;
        said(&self.session, ended).map(drop)
    }

    /// Ends what still runs for connections that are closed: process ids, with how long ago. How many
    /// there were.
    ///
    /// # Errors
    /// [`ProvisioningError`], 42501 where the admin may not end them.
    ///
    /// # Cancel safety
    /// Cancel safe: each is ended or not.
    pub async fn end_closed(
        &mut self,
        closed: &[(u32, Duration)],
    ) -> Result<u64, ProvisioningError> {
        let pids: Vec<i32> = closed.iter().map(|(pid, _)| pid.cast_signed()).collect();
        let ages: Vec<f64> = closed.iter().map(|(_, age)| age.as_secs_f64()).collect();
        let query = sqlx::query_scalar::<_, i64>(END_CLOSED);
        let query = query.bind(pids).bind(ages);
        let ended = query.fetch_one(&mut self.session.db).await;
        said(&self.session, ended).map(i64::cast_unsigned)
    }

    /// Whether others than its own tenant may want what is locked.
    fn concerns_others(&self, lock: &Lock) -> bool {
        if lock.database.0 == 0 {
            return true;
        }
        let is_made = lock.object.0 >= FIRST_NORMAL_OID;
        self.shared.contains_key(&lock.database) && !(is_made && lock.is_object)
    }

    async fn is_tenant(&mut self, role: Oid) -> bool {
        if let Some(known) = self.roles.get(&role) {
            return *known;
        }
        let query = sqlx::query_scalar::<_, bool>(IS_TENANT).bind(role);
        let Ok(is_tenant) = query.fetch_one(&mut self.session.db).await else {
            return false;
        };
        if self.roles.len() >= REMEMBERED_MAX {
            self.roles.clear();
        }
        self.roles.insert(role, is_tenant);
        is_tenant
    }

    /// Whether a relation is not its tenant's. What can't be found out is no trespass.
    async fn is_foreign(&mut self, lock: &Lock, role: Oid) -> bool {
        if lock.database.0 == 0 || lock.object.0 < FIRST_NORMAL_OID {
            return true;
        }
        if !self.inside.contains_key(&lock.database) {
            let Some(name) = self.shared.get(&lock.database) else {
                return false;
            };
            let Ok(mut inside) = self.admin.connect(name).await else {
                return false;
            };
            if limit(&mut inside).await.is_err() {
                return false;
            }
            self.inside.insert(lock.database, inside);
        }
        let Some(inside) = self.inside.get_mut(&lock.database) else {
            return false;
        };
        let query = sqlx::query_scalar::<_, bool>(IS_FOREIGN);
        let query = query.bind(lock.object).bind(role);
        let asked = query.fetch_optional(&mut inside.db).await;
        if asked.is_err() {
            self.inside.remove(&lock.database);
        }
        asked.ok().flatten().unwrap_or_default()
    }
}

/// Has PostgreSQL end what takes longer than a look may.
async fn limit(session: &mut Session) -> Result<(), ProvisioningError> {
    let limit = format!("SET statement_timeout = {}", LOOK_TIME_MAX.as_millis());
    session.run_once(STEP, &limit).await
}

fn said<T>(session: &Session, result: Result<T, sqlx::Error>) -> Result<T, ProvisioningError> {
    result.map_err(|error| ProvisioningError::of(STEP, &session.address, &error))
}

impl Lock {
    fn words(&self) -> String {
        let Self { mode, object, .. } = self;
        let whose = match self.database.0 {
            0 => "of all databases".to_owned(),
            database => format!("of database {database}"),
        };
        format!("{mode} on {} {whose}", object.0)
    }
}
