//! Each tenant has its rows, whoever else uses the same connection.

use super::{Rows, Stage, ids, token};

#[test]
fn each_tenant_sees_and_changes_its_own_rows_alone() {
    let ids = ids(3);
    let stage = Stage::of(&ids, 1, |_| ());
    let mut clients: Vec<_> = ids.iter().map(|id| (id, stage.client(id))).collect();
    for (id, client) in &mut clients {
        client.exec(&format!(
            "insert into accounts values (1, 'of {id}'), (2, 'more')"
        ));
    }
    let pids: Vec<_> = clients.iter_mut().map(|(_, c)| c.server_pid()).collect();
    assert!(
        pids.iter().all(|pid| *pid == pids[0]),
        "one slot served all: {pids:?}"
    );
    for (id, client) in &mut clients {
        let found = client.values("select secret from accounts where id = 1");
        assert_eq!(found, [format!("of {id}")]);
        assert_eq!(client.value("select ctl.tenant()"), token(id));
        client.exec("update accounts set secret = 'changed'");
        assert_eq!(
            client.value("select count(*) from accounts where secret = 'changed'"),
            "2"
        );
        client.exec("delete from accounts where id = 2");
    }
    for (id, client) in &mut clients {
        let found = client.values("select id || tenant_id from accounts");
        assert_eq!(found, [format!("1{}", token(id))]);
        let own = token(id);
        let others = format!(
            "insert into accounts (id, tenant_id) values (9, '{}')",
            token("x")
        );
        assert_eq!(client.fails(&others).code(), "42501");
        client.exec(&format!("update accounts set tenant_id = '{own}'"));
    }
    let mut admin = Rows::shared().admin();
    let all = format!(
        "select count(*) from data.accounts where tenant_id = '{}'",
        token(&ids[2])
    );
    assert_eq!(admin.value(&all), "1");
}
