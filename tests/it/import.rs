//! From PgBouncer's files to a proxy that serves the same clients.

use crate::harness::{
    Connect, Place, Postgres,
    certificates::Authority,
    connect::Address,
    eventually,
    place::ROLE_PASSWORD,
    port,
    programs::{Run, run},
    proxy::PROGRAM,
    scram,
};
use serde_json::Value;
use std::{
    fs,
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

/// A folder with PgBouncer's files, and a `pgusher serve` of what they amount to.
struct Desk {
    folder: TempDir,
    served: Option<Child>,
}

impl Desk {
    fn new(ini: &str, users: &str) -> Self {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("pgbouncer.ini"), ini).unwrap();
        fs::write(folder.path().join("userlist.txt"), users).unwrap();
        Self {
            folder,
            served: None,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Run {
        run(Command::new(PROGRAM)
            .args(arguments)
            .current_dir(self.folder.path()))
    }

    fn import(&self, arguments: &[&str]) -> Run {
        self.run(&[&["import", "pgbouncer", "pgbouncer.ini"], arguments].concat())
    }

    /// Imports, writes `proxy.toml`, and has it checked; what it says and what it means.
    fn imported(&self, arguments: &[&str]) -> (Run, Value) {
        let imported = self.import(arguments).succeeded();
        fs::write(self.path("proxy.toml"), &imported.out).unwrap();
        let checked = self.run(&["check", "--json"]).succeeded();
        (imported, serde_json::from_str(&checked.out).unwrap())
    }

    fn serve(&mut self, port: u16) {
        let child = Command::new(PROGRAM)
            .args(["serve", "--config"])
            .arg(self.path("proxy.toml"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.served = Some(child);
        eventually("the proxy listens", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        if let Some(mut child) = self.served.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

fn tenant<'a>(meant: &'a Value, id: &str) -> &'a Value {
    let tenants = meant["tenants"].as_array().unwrap();
    let found = tenants.iter().find(|tenant| tenant["id"] == id);
    found.unwrap_or_else(|| panic!("no tenant {id} in {tenants:#?}"))
}

fn to(port: u16, user: &str, password: &str) -> Connect {
    Connect::to(Address::Tcp(([127, 0, 0, 1], port).into()))
        .user(user)
        .password(password)
}

/// In the double quotes of the `auth_file`.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

#[test]
fn the_name_of_the_file_says_that_it_is_pgbouncers() {
    let desk = Desk::new("[databases]\nshop = host=127.0.0.1 user=shop\n", "");
    let short = desk.run(&["import", "pgbouncer.ini", "--json"]).succeeded();
    let short: Value = serde_json::from_str(&short.out).unwrap();
    assert_eq!(short["logins"][0]["tenant"], "shop");
    let long = desk.import(&["--json"]).succeeded();
    let long: Value = serde_json::from_str(&long.out).unwrap();
    assert_eq!(short["notes"], long["notes"]);
    let missing = desk.run(&["import", "missing.ini"]);
    assert!(
        missing.err.contains("can't read missing.ini"),
        "{}",
        missing.err
    );
}

#[test]
fn tenants_of_a_pgbouncer_ini_log_in_with_their_old_passwords() {
    let (alone, forced): (Place, Place) =
        (Postgres::shared().database(), Postgres::shared().database());
    let (port, upstream) = (port::free(), alone.endpoint().port());
    let role = forced.role();
    let ini = format!(
        "[databases]\nshop = host=127.0.0.1 port={upstream} dbname={} user={role} \
         connect_query='set work_mem = 4321'\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = scram-sha-256\nauth_file = userlist.txt\npool_mode = transaction\n",
        forced.database_name()
    );
    let salt = scram::salt("shop");
    let users = format!(
        "{} {}\n\"web\" \"{}\"\n\"jobs\" \"plain one\"\n\"old\" \"md5ab8b744ff66bee42dc47bae34ca17959\"\n",
        quoted(role),
        quoted(ROLE_PASSWORD),
        scram::verifier("web's own", &salt),
    );
    let mut desk = Desk::new(&ini, &users);
    let (imported, _) = desk.imported(&[]);
    let lines = imported.err.lines();
    let mut line = lines.filter(|line| line.contains("postgres://old:<password>@"));
    let line = line.next_back().expect("the table has every login");
    let new_key = line.split_whitespace().last().unwrap();
    assert!(new_key.starts_with("pgu_"), "{line}");
    desk.serve(port);
    for password in [ROLE_PASSWORD, "web's own", "plain one", new_key] {
        let mut client = to(port, "shop", password).login();
        assert_eq!(client.value("select current_user"), role);
        assert_eq!(client.value("show work_mem"), "4321kB");
    }
    assert_eq!(to(port, "shop", "md5").refused().code(), "28P01");
    assert_eq!(to(port, "web", "web's own").refused().code(), "28P01");
}

#[test]
fn a_database_without_a_user_is_a_tenant_for_each_user() {
    let place = Postgres::shared().database();
    let other = Postgres::shared().place();
    let (port, upstream) = (port::free(), place.endpoint().port());
    let ini = format!(
        ";; the fallback of many\n[databases]\n* = host=127.0.0.1 port={upstream}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nauth_file = userlist.txt\n"
    );
    let password = quoted(ROLE_PASSWORD);
    let users = format!(
        "{} {password}\n{} {password}\n",
        quoted(place.role()),
        quoted(other.role())
    );
    let mut desk = Desk::new(&ini, &users);
    let (imported, meant) = desk.imported(&[]);
    assert!(
        imported.err.contains(":3: *: not taken over"),
        "{}",
        imported.err
    );
    assert_eq!(meant["tenants"].as_array().map_or(0, Vec::len), 0);
    let name = place.database_name();
    let (_, meant) = desk.imported(&["--database", name, "--database", "shared"]);
    assert_eq!(meant["tenants"].as_array().unwrap().len(), 4);
    desk.serve(port);
    let id = format!("{name}-{}", place.role());
    let mut client = to(port, &id, ROLE_PASSWORD).login();
    assert_eq!(client.value("select current_user"), place.role());
    let id = format!("shared-{}", other.role());
    let mut client = to(port, &id, ROLE_PASSWORD).login();
    assert_eq!(
        client.value("select current_user || current_database()"),
        format!("{}shared", other.role())
    );
}

/// Every key that has a counterpart, and some that have none.
const EVERYTHING: &str = "\
[databases]\n\
shop = host=db1,db2 port=5433 dbname=Shop user=app password='it''s \"x\"' pool_size=7 min_pool_size=2 pool_mode=statement max_db_connections=6 max_db_client_connections=50 server_lifetime=10 query_wait_timeout=3 timezone=Asia/Kolkata client_encoding=LATIN1 datestyle='ISO, DMY' application_name=shop reserve_pool=3 connect_query='select 1' load_balance_hosts=disable auth_user=asker zeal=1\n\
'My Blog' = host=/run/pg user=app\n\
abstract = host=@pg user=app\n\
[users]\n\
app = pool_mode=session max_user_connections=5 max_user_client_connections=9 query_timeout=11\n\
[pgbouncer]\n\
listen_addr = 127.0.0.1, ::1\n\
listen_port = 6543\n\
unix_socket_dir = /run/pgb\n\
auth_type = md5\n\
auth_file = userlist.txt\n\
pool_mode = transaction\n\
max_client_conn = 300\n\
default_pool_size = 30\n\
min_pool_size = 1\n\
server_idle_timeout = 61\n\
server_lifetime = 1200.5\n\
server_check_delay = 0\n\
query_wait_timeout = 62\n\
query_timeout = 63\n\
idle_transaction_timeout = 64\n\
transaction_timeout = 65\n\
client_idle_timeout = 66\n\
max_prepared_statements = 67\n\
client_login_timeout = 68\n\
server_connect_timeout = 4\n\
server_tls_sslmode = require\n\
ignore_startup_parameters = extra_float_digits\n\
server_reset_query = DISCARD ALL\n\
nonsense = 1\n\
[peers]\n1 = host=other\n";

#[test]
fn every_value_is_kept_under_its_new_name() {
    let desk = Desk::new(EVERYTHING, "\"app\" \"pw\"\n");
    let (_, meant) = desk.imported(&[]);
    let proxy = &meant["proxy"];
    let listen = [
        "127.0.0.1:6543",
        "[::1]:6543",
        "unix:/run/pgb/.s.PGSQL.6543",
    ];
    assert_eq!(proxy["listen"], serde_json::json!(listen));
    assert_eq!(proxy["max_client_connections"], 300);
    assert_eq!(proxy["login_timeout"], "1m 8s");
    let shop = tenant(&meant, "shop");
    for (key, value) in [
        ("cluster", "db1-5433"),
        ("tier", "database"),
        ("database", "Shop"),
        ("role", "app"),
        ("password", "[redacted]"),
        ("pool_mode", "session"),
        ("server_lifetime", "10s"),
        ("server_idle_timeout", "1m 1s"),
        ("server_check_delay", "1ms"),
        ("query_wait_timeout", "3s"),
        ("query_timeout", "11s"),
        ("idle_transaction_timeout", "1m 4s"),
        ("transaction_timeout", "1m 5s"),
        ("client_idle_timeout", "1m 6s"),
        ("time_zone", "Asia/Kolkata"),
    ] {
        assert_eq!(shop[key], value, "{key}");
    }
    for (key, value) in [
        ("pool_size", 5),
        ("min_pool_size", 2),
        ("max_client_connections", 50),
        ("max_prepared_statements", 67),
    ] {
        assert_eq!(shop[key], value, "{key}");
    }
}

#[test]
fn what_has_no_counterpart_is_named_and_the_rest_is_kept() {
    let desk = Desk::new(EVERYTHING, "\"app\" \"pw\"\n");
    let (imported, meant) = desk.imported(&[]);
    let shop = tenant(&meant, "shop");
    let settings = serde_json::json!({"DateStyle": "ISO, DMY", "application_name": "shop", "client_encoding": "LATIN1"});
    assert_eq!(shop["settings"], settings);
    assert_eq!(shop["keys"][0]["max_client_connections"], 9);
    assert!(imported.out.contains("password = 'it''s") || imported.out.contains("it's"));
    let blog = tenant(&meant, "my_blog");
    assert_eq!(
        (&blog["cluster"], &blog["database"]),
        (&"local".into(), &"My Blog".into())
    );
    assert_eq!(blog["server_lifetime"], "20m 500ms");
    let clusters = meant["clusters"].as_array().unwrap();
    assert_eq!(clusters.len(), 2);
    let db1 = clusters
        .iter()
        .find(|one| one["name"] == "db1-5433")
        .unwrap();
    assert_eq!(
        (&db1["tls"], &db1["connect_timeout"]),
        (&"require".into(), &"4s".into())
    );
    let local = clusters.iter().find(|one| one["name"] == "local").unwrap();
    assert_eq!(local["primary"], "postgres:///?host=/run/pg&port=5432");
    for named in [
        "shop: reserve_pool:",
        "shop: connect_query:",
        "shop: load_balance_hosts:",
        "shop: auth_user:",
        "shop: zeal:",
        "db2",
        "\"@pg\"",
        "ignore_startup_parameters:",
        "server_reset_query:",
        "nonsense:",
        "[peers] 1:",
        "server_check_delay:",
        "max_user_connections of \"app\"",
    ] {
        assert!(imported.err.contains(named), "{named} in {}", imported.err);
    }
    assert!(!imported.err.contains("it's"), "{}", imported.err);
}

#[test]
fn tls_is_taken_over_with_its_files() {
    let files = TempDir::new().unwrap();
    let authority = Authority::new(files.path());
    let cert = authority.sign("proxy");
    let ini = format!(
        "[databases]\na = host=db user=a\n[pgbouncer]\nlisten_addr=127.0.0.1\nauth_type=cert\nauth_file=userlist.txt\n\
         client_tls_sslmode = verify-full\nclient_tls_cert_file = {cert}\nclient_tls_key_file = {key}\n\
         client_tls_ca_file = {ca}\nserver_tls_sslmode = verify-ca\nserver_tls_ca_file = {ca}\n\
         server_tls_cert_file = {cert}\nserver_tls_key_file = {key}\nclient_tls_ciphers = secure\n",
        cert = cert.cert.display(),
        key = cert.key.display(),
        ca = authority.ca.display(),
    );
    let desk = Desk::new(&ini, "\"a\" \"\"\n");
    let (imported, meant) = desk.imported(&[]);
    let proxy = &meant["proxy"];
    assert_eq!(proxy["tls_mode"], "require");
    assert_eq!(proxy["tls_client_cert_required"], true);
    assert_eq!(proxy["tls_client_ca"], authority.ca.to_str().unwrap());
    let cluster = &meant["clusters"][0];
    assert_eq!(cluster["tls"], "verify-ca");
    assert_eq!(cluster["tls_cert"], cert.cert.to_str().unwrap());
    for named in [
        "auth_type: cert",
        "client_tls_ciphers:",
        "user \"a\": new keys",
    ] {
        assert!(imported.err.contains(named), "{named} in {}", imported.err);
    }
}

#[test]
fn two_databases_of_one_id_are_refused_with_both_names() {
    let ini = "[databases]\nShop = host=db user=a\nshop = host=db user=a\n[pgbouncer]\n";
    let desk = Desk::new(ini, "");
    let refused = desk.import(&[]);
    assert!(!refused.is_success);
    assert_eq!(refused.out, "");
    for part in ["\"Shop\"", "\"shop\"", "--id"] {
        assert!(refused.err.contains(part), "{}", refused.err);
    }
    let (_, meant) = desk.imported(&["--id", "Shop=shop-2", "--tier", "schema"]);
    assert_eq!(tenant(&meant, "shop-2")["database"], "Shop");
    assert_eq!(tenant(&meant, "shop")["schema"], "a");
}

#[test]
fn the_json_has_the_file_the_notes_and_the_logins() {
    let ini = "[databases]\nshop = host=db user=a\n%include more.ini\n";
    let desk = Desk::new(
        ini,
        "\"a\" \"pw\"\n\"b\" \"md5ab8b744ff66bee42dc47bae34ca17959\"\n",
    );
    fs::write(
        desk.path("more.ini"),
        "[pgbouncer]\nauth_file=/nowhere\nlisten_addr=*\nlogfile=x\n",
    )
    .unwrap();
    let lost = desk.import(&[]);
    assert!(
        !lost.is_success && lost.err.contains("--userlist"),
        "{}",
        lost.err
    );
    let told = desk
        .import(&["--json", "--userlist", "userlist.txt"])
        .succeeded();
    let told: Value = serde_json::from_str(&told.out).unwrap();
    fs::write(
        desk.path("proxy.toml"),
        told["proxy_toml"].as_str().unwrap(),
    )
    .unwrap();
    desk.run(&["check"]).succeeded();
    let logins = told["logins"].as_array().unwrap();
    assert_eq!(
        logins[0]["old_url"],
        "postgres://a:<password>@127.0.0.1:6432/shop"
    );
    assert_eq!(
        logins[0]["new_url"],
        "postgres://shop:<password>@127.0.0.1:6432/shop"
    );
    assert_eq!(logins[0]["new_key"], Value::Null);
    assert!(logins[1]["new_key"].as_str().unwrap().starts_with("pgu_"));
    let notes = told["notes"].as_array().unwrap();
    let logfile = notes
        .iter()
        .find(|note| note["subject"] == "logfile")
        .unwrap();
    assert!(logfile["place"].as_str().unwrap().ends_with("more.ini:4"));
}

/// PgBouncer's own test configuration and others as they are found.
#[test]
fn files_of_other_styles_give_what_check_accepts() {
    let users = "\"marko\" \"kama\"\n;c\n\"p\"\t\"asdasd\" \"\"\n\"empty\" \"\"\n";
    for ini in [
        // Everything default.
        "[databases]\n[pgbouncer]\n",
        // Windows line ends, tabs, no spaces.
        "[databases]\r\na\t=\thost=db user=x\r\n[pgbouncer]\r\nlisten_addr=localhost\r\nauth_file=userlist.txt\r\n",
        // All hosts, old names, trust.
        "[databases]\np0 = port=6666 host=127.0.0.1 dbname=p0 user=bouncer pool_size=2 reserve_pool=2\n\
         p0x= port=6666 host=127.0.0.1 dbname=p0 min_pool_size=5 pool_size=3\n\
         h = port=6666 host=127.0.0.1,::1 dbname=p0 user=bouncer\n\
         n =\n\
         [users]\nmarko = pool_size=1 reserve_pool_size=2\n\
         [pgbouncer]\nlisten_addr = *\nauth_type = any\nauth_file = userlist.txt\npool_mode = statement\n\
         max_client_conn = 10\ndefault_pool_size = 0\nserver_lifetime = 0\nserver_check_query =\n\
         max_prepared_statements = 0\nclient_login_timeout = 0\nserver_connect_timeout = 0\n",
        // Only a socket, abstract.
        "[databases]\na = host=db user=x\n[pgbouncer]\nunix_socket_dir = @pgb\nauth_file = userlist.txt\n",
        // Wrong values.
        "[databases]\na = host=db user=x port=x pool_size=many pool_mode=odd\n[pgbouncer]\n\
         auth_file = userlist.txt\nlisten_port = x\nserver_lifetime = long\npool_mode = odd\nquery_timeout=1e300\n",
    ] {
        let desk = Desk::new(ini, users);
        let (imported, _) = desk.imported(&[]);
        assert!(!imported.err.contains("by hand"), "{}", imported.err);
    }
    let tab = "[databases]\na = host=db\tuser=x\n[pgbouncer]\nlisten_addr=::1\n";
    let (imported, meant) = Desk::new(tab, users).imported(&[]);
    assert!(
        imported.err.contains("no name of a host"),
        "{}",
        imported.err
    );
    assert_eq!(meant["tenants"].as_array().map_or(0, Vec::len), 0);
    // A name that PostgreSQL can't have: PgBouncer takes it, and fails at the first login.
    let long = format!(
        "[databases]\na = host=db user={}\n[pgbouncer]\n",
        "u".repeat(64)
    );
    let run = Desk::new(&long, users).import(&[]).succeeded();
    assert!(
        run.err.contains("proxy.toml: to be put right by hand: "),
        "{}",
        run.err
    );
}
