//! Reads on replicas are counted as such, and one that two servers ran is counted once.

use super::{Stage, retries::deceived, shared};
use crate::harness::{Client, fleet::PRIMARY};
use serde_json::Value;

fn told(client: &mut Client) -> Value {
    serde_json::from_str(&client.value("show pgusher.usage")).unwrap()
}

fn more(after: &Value, before: &Value, what: &str) -> i64 {
    after[what].as_i64().unwrap() - before[what].as_i64().unwrap()
}

#[test]
fn transactions_on_replicas_are_told_apart() {
    let stage = Stage::over(shared(), |tenant| tenant);
    let mut client = stage.furnished();
    stage.settled(&mut client);
    let before = told(&mut client);
    let mut on_replicas = 0;
    for _ in 0..10 {
        let (_, seen) = stage.ask(&mut client, "select name from items");
        on_replicas += i64::from(seen[..] != [PRIMARY] && seen.len() == 1);
    }
    client.exec("insert into items values (4, 'four')");
    let after = told(&mut client);
    // Each question for the figures is one, too.
    assert_eq!(more(&after, &before, "transactions"), 12);
    assert_eq!(more(&after, &before, "queries"), 12);
    assert_eq!(more(&after, &before, "rows"), 31, "three each, and one");
    let counted = more(&after, &before, "replica_transactions");
    assert!(
        (on_replicas..=on_replicas + 1).contains(&counted),
        "{counted}"
    );
    assert!(on_replicas > 0);
}

#[test]
fn a_read_that_moved_is_counted_once() {
    let (stage, mut client, role) = deceived();
    let before = told(&mut client);
    for n in 0..4 {
        client.exec(&format!("select t from {role}_v{n}"));
    }
    let after = told(&mut client);
    assert_eq!(more(&after, &before, "transactions"), 5);
    assert_eq!(more(&after, &before, "queries"), 5);
    assert_eq!(after["errors"], before["errors"], "nobody was told of one");
    drop(stage);
}
