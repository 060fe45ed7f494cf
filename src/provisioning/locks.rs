//! Who keeps others waiting with a lock on what is not theirs.
//!
//! PostgreSQL locks before it checks: `CREATE RULE … ON pg_authid` waits for ACCESS EXCLUSIVE on
//! what every login of the cluster reads, and is refused only when it has got that. Whoever comes
//! meanwhile queues behind it, for as long as a second session of the same tenant keeps its own
//! weak lock. No privilege closes this, so it is looked for, and ended.
//!
//! A look reads the lock table and the list of backends by function: it locks nothing, so it works
//! while `pg_authid` or `pg_class` is what is waited for. Whatever does look names up is done on other
//! connections, shortly, and behind the looks.

use super::{
    Admin, ProvisioningError,
    admin::{MAINTENANCE, Session},
};
use sqlx::postgres::types::Oid;
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};
use tokio::time::timeout;

/// Objects below were made with the database.
const FIRST_NORMAL_OID: u32 = 16_384;

/// A wait is no wait before.
const WAIT_MIN_S: f64 = 0.05;

/// How long a look may take. PostgreSQL ends it.
const LOOK_TIME_MAX: Duration = Duration::from_secs(2);

/// How long what looks names up may take: it may have to wait for the lock that is trespassed upon, and
/// nobody looks meanwhile.
const HAND_TIME_MAX: Duration = Duration::from_millis(300);

/// How long a login may take, for the same reason.
const LOGIN_TIME_MAX: Duration = Duration::from_secs(1);

/// Roles that are remembered.
const REMEMBERED_MAX: usize = 10_000;

const STEP: &str = "watch locks";

/// Every lock that keeps others from writing or reading, and is no row's, and every wait for one. A
/// comment on one's own role or database keeps nobody; 0 is what each commit of a NOTIFY locks.
const LOOK: &str = "SELECT l.pid, a.usesysid AS role, l.database, coalesce(l.relation, l.objid) AS object,
        l.relation IS NULL AS is_object,
        l.mode IN ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock',
            'AccessExclusiveLock') AS is_strong,
        l.mode, l.granted,
        coalesce(extract(epoch FROM clock_timestamp() - l.waitstart), 0)::float8 AS waited,
        a.state IS DISTINCT FROM 'idle in transaction' AS is_busy
    FROM pg_lock_status() l JOIN pg_stat_get_activity(NULL) a ON a.pid = l.pid
    WHERE l.locktype IN ('relation', 'object') AND l.objid IS DISTINCT FROM 0
        AND (NOT l.granted OR l.mode IN ('ShareUpdateExclusiveLock', 'ShareLock', 'ShareRowExclusiveLock',
            'ExclusiveLock', 'AccessExclusiveLock'))
        AND (l.mode = 'ShareUpdateExclusiveLock'
            AND (l.classid = 1260 AND l.objid = a.usesysid OR l.classid = 1262 AND l.objid = a.datid)) IS NOT TRUE";

/// Whom the admin's own work waits for, for a second or longer: who has changed a row of a catalogue and
/// not ended its transaction, GRANT without the right to it among that.
const IN_THE_WAY: &str = "SELECT DISTINCT way.pid, b.usesysid
    FROM pg_lock_status() l JOIN pg_stat_get_activity(NULL) a ON a.pid = l.pid
        CROSS JOIN LATERAL unnest(pg_blocking_pids(l.pid)) AS way (pid)
        JOIN pg_stat_get_activity(NULL) b ON b.pid = way.pid
    WHERE NOT l.granted AND l.locktype IN ('transactionid', 'tuple') AND a.usesysid = $1
        AND l.waitstart < clock_timestamp() - interval '1 s'
        AND EXISTS (SELECT FROM pg_lock_status() t
            WHERE t.pid = l.pid AND t.locktype = 'tuple' AND t.relation < 16384::oid)";

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

#[derive(Debug, Clone, sqlx::FromRow)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "a field is named as its column"
)]
struct Lock {
    pid: i32,
    role: Option<Oid>,
    database: Oid,
    object: Oid,
    is_object: bool,
    is_strong: bool,
    mode: String,
    granted: bool,
    waited: f64,
    is_busy: bool,
}

/// What is locked.
type Target = (Oid, Oid, bool);

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
    /// Looks, and does nothing that opens a relation.
    eyes: Session,
    /// Does the rest.
    hands: Session,
    /// The admin's role.
    own_role: Oid,
    /// Databases that tenants share, by their numbers.
    shared: HashMap<Oid, String>,
    /// Connections to them, made while they could be.
    inside: HashMap<Oid, Session>,
    /// Whether a role is a tenant's.
    roles: HashMap<Oid, bool>,
    /// Strong locks that were held at the last look.
    held: HashSet<(i32, Target)>,
}

impl LockWatch {
    /// Logs in, twice and into each database of `shared`, which tenants share, that is there.
    ///
    /// # Errors
    /// As every login of the admin.
    ///
    /// # Cancel safety
    /// Cancel safe: the connections end.
    pub async fn connect(admin: &Admin, shared: &[&str]) -> Result<Self, ProvisioningError> {
        let eyes = open(admin, MAINTENANCE, LOOK_TIME_MAX).await?;
        let mut hands = open(admin, MAINTENANCE, HAND_TIME_MAX).await?;
        let own_role = "SELECT oid FROM pg_roles WHERE rolname = current_user";
        let own_role = sqlx::query_scalar::<_, Oid>(own_role);
        let own_role = own_role.fetch_one(&mut hands.db).await;
        let mut watch = Self {
            admin: admin.clone(),
            own_role: said(&hands, own_role)?,
            eyes,
            hands,
            shared: HashMap::new(),
            inside: HashMap::new(),
            roles: HashMap::new(),
            held: HashSet::new(),
        };
        watch.refresh(shared).await?;
        Ok(watch)
    }

    /// Learns which databases are shared, and has PostgreSQL remember the roles that are here: who
    /// it knows it can end while `pg_authid` is locked.
    ///
    /// # Errors
    /// [`ProvisioningError`]; 57014 when it took too long, which is tried again later.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn refresh(&mut self, shared: &[&str]) -> Result<(), ProvisioningError> {
        let names: Vec<String> = shared.iter().map(|&name| name.to_owned()).collect();
        let query = sqlx::query_as::<_, (Oid, String)>(
            "SELECT oid, datname::text FROM pg_database WHERE datname = ANY ($1)",
        );
        let found = query.bind(names).fetch_all(&mut self.hands.db).await;
        self.shared = said(&self.hands, found)?.into_iter().collect();
        self.inside
            .retain(|database, _| self.shared.contains_key(database));
        for (database, name) in &self.shared {
            if self.inside.contains_key(database) {
                continue;
            }
            // A login may have to wait itself.
            let opened = timeout(LOGIN_TIME_MAX, open(&self.admin, name, HAND_TIME_MAX)).await;
            if let Ok(Ok(session)) = opened {
                self.inside.insert(*database, session);
            }
        }
        let known = sqlx::query_scalar::<_, i64>(
            "SELECT count(pg_get_userbyid(usesysid)) FROM pg_stat_get_activity(NULL)",
        );
        let known = known.fetch_one(&mut self.hands.db).await;
        said(&self.hands, known).map(drop)
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
        let locks = sqlx::query_as::<_, Lock>(LOOK);
        let locks = locks.fetch_all(&mut self.eyes.db).await;
        let locks = said(&self.eyes, locks)?;
        let suspects = self.suspects(&locks);
        // What is everybody's for certain goes first: to look names up may have to wait for it.
        let (certain, others): (Vec<_>, Vec<_>) = suspects
            .into_iter()
            .partition(|lock| lock.is_everybodys() && is_ours(lock.pid.cast_unsigned()));
        let mut found = Found::default();
        for lock in certain {
            found.add(&lock);
        }
        if !found.0.is_empty() {
            return Ok(found.trespasses());
        }
        for lock in others {
            let Some(role) = lock.role else { continue };
            let is_tenants = is_ours(lock.pid.cast_unsigned()) || self.is_tenant(role).await;
            if is_tenants && (lock.is_everybodys() || self.is_foreign(&lock, role).await) {
                found.add(&lock);
            }
        }
        Ok(found.trespasses())
    }

    /// Who would have to be ended, if it is a tenant's and the lock is not its own: who has a strong
    /// lock and does not go on, or has others wait, and then who waits for one.
    fn suspects(&mut self, locks: &[Lock]) -> Vec<Lock> {
        let mut waited_for: HashSet<Target> = HashSet::new();
        let mut held = HashSet::new();
        for lock in locks {
            if lock.granted {
                if lock.is_busy {
                    held.insert((lock.pid, lock.target()));
                }
            } else if lock.waited >= WAIT_MIN_S {
                waited_for.insert(lock.target());
            }
        }
        let held_before = std::mem::replace(&mut self.held, held);
        let stays = |lock: &&Lock| {
            let target = lock.target();
            if lock.granted {
                // It is had for a moment before it is refused, or by who waits for something else first.
                lock.is_busy && held_before.contains(&(lock.pid, target))
                    || waited_for.contains(&target)
            } else {
                lock.is_strong && lock.waited >= WAIT_MIN_S
            }
        };
        let concerns_others = |lock: &&Lock| self.concerns_others(lock);
        let locks = locks.iter().filter(stays).filter(concerns_others);
        let mut suspects: Vec<Lock> = locks.cloned().collect();
        suspects.sort_by_key(|lock| !lock.granted);
        suspects
    }

    /// Tenants' sessions that the admin's own work waits for.
    ///
    /// # Errors
    /// [`ProvisioningError`]: connect again.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn in_the_way(
        &mut self,
        is_ours: impl Fn(u32) -> bool,
    ) -> Result<Vec<Trespass>, ProvisioningError> {
        let found = sqlx::query_as::<_, (i32, Option<Oid>)>(IN_THE_WAY);
        let found = found.bind(self.own_role).fetch_all(&mut self.eyes.db).await;
        let mut tenants = Vec::new();
        for (pid, role) in said(&self.eyes, found)? {
            let pid = pid.cast_unsigned();
            let Some(role) = role else { continue };
            if is_ours(pid) || self.is_tenant(role).await {
                let lock = "a row that pgusher changes".to_owned();
                tenants.push(Trespass { pid, lock });
            }
        }
        Ok(tenants)
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
        let ended = query.fetch_one(&mut self.hands.db).await;
        said(&self.hands, ended).map(drop)
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
        let ended = query.fetch_one(&mut self.hands.db).await;
        said(&self.hands, ended).map(i64::cast_unsigned)
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
        let Ok(is_tenant) = query.fetch_one(&mut self.hands.db).await else {
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
        let Some(inside) = self.inside.get_mut(&lock.database) else {
            return false;
        };
        let query = sqlx::query_scalar::<_, bool>(IS_FOREIGN);
        let query = query.bind(lock.object).bind(role);
        match query.fetch_optional(&mut inside.db).await {
            Ok(is_foreign) => is_foreign.unwrap_or_default(),
            // It took too long.
            Err(sqlx::Error::Database(_)) => false,
            Err(_) => {
                self.inside.remove(&lock.database);
                false
            }
        }
    }
}

/// Locks of those who are to be ended.
#[derive(Debug, Default)]
struct Found(Vec<Lock>);

impl Found {
    /// Who waits for what another of them has is held up itself.
    fn add(&mut self, lock: &Lock) {
        let is_held_up = |other: &Lock| other.granted && other.target() == lock.target();
        if lock.granted || !self.0.iter().any(is_held_up) {
            self.0.push(lock.clone());
        }
    }

    fn trespasses(&self) -> Vec<Trespass> {
        let mut trespasses: Vec<Trespass> = Vec::new();
        for lock in &self.0 {
            let (pid, lock) = (lock.pid.cast_unsigned(), lock.words());
            if !trespasses.iter().any(|other| other.pid == pid) {
                trespasses.push(Trespass { pid, lock });
            }
        }
        trespasses
    }
}

/// A connection on which PostgreSQL ends what takes longer.
async fn open(
    admin: &Admin,
    database: &str,
    limit: Duration,
) -> Result<Session, ProvisioningError> {
    let mut session = admin.connect(database).await?;
    let limit = format!("SET statement_timeout = {}", limit.as_millis());
    session.run_once(STEP, &limit).await?;
    Ok(session)
}

fn said<T>(session: &Session, result: Result<T, sqlx::Error>) -> Result<T, ProvisioningError> {
    result.map_err(|error| ProvisioningError::of(STEP, &session.address, &error))
}

impl Lock {
    fn target(&self) -> Target {
        (self.database, self.object, self.is_object)
    }

    /// Whether it is no tenant's, whoever has it: it came with the database, or is no database's.
    fn is_everybodys(&self) -> bool {
        self.database.0 == 0 || self.object.0 < FIRST_NORMAL_OID
    }

    fn words(&self) -> String {
        let Self { mode, object, .. } = self;
        let whose = match self.database.0 {
            0 => "of all databases".to_owned(),
            database => format!("of database {database}"),
        };
        format!("{mode} on {} {whose}", object.0)
    }
}
