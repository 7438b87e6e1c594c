//! What the control node knows arrives on a node as a whole, and what a node metered arrives once.

use super::*;
use crate::store::audit::By;
use crate::store::devices::{note_reported, note_seen};
use crate::store::nodes::{NewNodeToken, NodeApplicant};
use crate::store::rollouts::Step;
use crate::store::usage::{Usage, UsageBy, UsageOf};
use fleet::access::{KeyRecord, Person, Role};
use fleet::rollout::cohort::Candidate;
use fleet::rollout::plan::Plan;
use fleet::rollout::{Command, Report, Rollout};
use protocol::id::{ContentHash, DeviceId, ModelName, RolloutId, TenantName, Version};
use protocol::pattern::ModelPatterns;
use protocol::token::{Secret, SecretDigest};

fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("cloud.db")).unwrap();
    (folder, store)
}

fn by() -> By {
    By { actor: "test".into(), now_s: 1000 }
}

fn digest() -> SecretDigest {
    Secret::from_entropy([1; 32]).digest()
}

fn key(id: &str) -> KeyRecord {
    KeyRecord {
        id: id.into(),
        digest: digest(),
        role: Role::Client,
        name: "shop".into(),
        tenant: TenantName::default(),
        models: ModelPatterns::all(),
        expires_at_s: None,
        person: None,
    }
}

fn add_key(store: &Store, id: &str) {
    assert!(store.add_api_key(&by(), &key(id)).unwrap());
}

/// All that changed, in as many pieces as it takes.
fn changes(store: &Store, cursor: u64) -> Vec<wire::NodeUpdate> {
    let mut pieces = vec![store.changes(cursor).unwrap()];
    while let Some(last) = pieces.last().filter(|last| !last.complete) {
        let next = store.changes(last.cursor).unwrap();
        pieces.push(next);
    }
    pieces
}

#[test]
fn a_node_hears_of_each_change_once_and_of_all_of_them_when_it_is_new() {
    let ((_a, control), (_b, node)) = (store(), store());
    let all = changes(&control, 0);
    assert_eq!(all[0].tenants.len(), 1, "the default tenant was there before anybody followed");
    add_key(&control, "k1");
    let cursor = all[0].cursor;
    let piece = &changes(&control, cursor)[0];
    assert_eq!((piece.keys.len(), piece.tenants.len()), (1, 0));
    control.revoke_api_key(&by(), "k1").unwrap();
    let piece = &changes(&control, cursor)[0];
    assert_eq!((piece.keys.len(), piece.keys[0].revoked), (1, true), "only the last change counts");
    assert!(changes(&control, piece.cursor)[0].keys.is_empty());

    add_key(&control, "k2");
    let mut fresh = changes(&control, 0);
    fresh[0].fresh = true;
    add_key(&node, "stranger");
    node.copy(&fresh, 2000).unwrap();
    let live: Vec<_> = node.api_keys().unwrap().into_iter().filter(|k| k.is_live(2000)).collect();
    assert_eq!(live.iter().map(|key| key.record.id.as_str()).collect::<Vec<_>>(), ["k2"]);
    assert_eq!(node.replica().unwrap().cursor, fresh[0].cursor);
}

#[test]
fn a_node_knows_who_signed_in() {
    let ((_a, control), (_b, node)) = (store(), store());
    let person: Person = "https://id.example 7".parse().unwrap();
    let key = KeyRecord { person: Some(person.clone()), expires_at_s: Some(2000), ..key("s") };
    control.add_sign_in(&by(), &key, &person).unwrap();
    add_key(&control, "k");
    node.copy(&changes(&control, 0), 1000).unwrap();
    let people = |store: &Store| -> Vec<_> {
        store.api_keys().unwrap().into_iter().map(|key| key.record.person).collect()
    };
    assert_eq!(people(&node), people(&control));
    assert!(people(&node).contains(&Some(person)));
}

#[test]
fn a_reported_state_is_no_news_for_nodes_and_a_denial_is() {
    let (_folder, control) = store();
    let sql = "INSERT INTO devices (id, key_hash, label, hostname, agent_version, enrolled_at_s)
               VALUES ('d-1', 'hash', '', '', '', 0)";
    control.change(|t| Ok::<_, StoreError>(t.execute(sql, []).map(drop)?)).unwrap();
    let device = "d-1".parse().unwrap();
    let newest = || *control.newest.borrow();
    let before = newest();
    let said = wire::ReportedState::default();
    control.change::<_, StoreError>(|t| Ok(note_seen(t, &device, 7)?)).unwrap();
    control.change::<_, StoreError>(|t| Ok(note_reported(t, &device, &said, 7)?)).unwrap();
    assert_eq!(newest(), before);
    control.deny_device(&by(), &device, true).unwrap();
    assert!(newest() > before, "whoever waits is told");
    assert!(changes(&control, before)[0].devices[0].denied);
}

#[test]
fn a_removed_device_is_denied_on_nodes_and_its_key_may_come_back_as_another() {
    let (_folder, control) = store();
    let (_other_folder, node) = store();
    let enrol = |id: &str| {
        let sql =
            "INSERT INTO devices (id, key_hash, label, hostname, agent_version, enrolled_at_s)
                   VALUES (?, ?, '', '', '', 0)";
        let values = [id, &ContentHash::of(b"key").to_string()];
        control.change(|t| Ok::<_, StoreError>(t.execute(sql, values).map(drop)?)).unwrap();
    };
    let (first, second): (DeviceId, DeviceId) = ("d-1".parse().unwrap(), "d-2".parse().unwrap());
    enrol("d-1");
    let all = changes(&control, 0);
    node.copy(&all, 5).unwrap();
    let cursor = all.last().unwrap().cursor;
    assert!(control.remove_device(&by(), &first).unwrap());
    assert!(!control.remove_device(&by(), &first).unwrap());
    enrol("d-2");
    node.copy(&changes(&control, cursor), 6).unwrap();
    assert!(node.known_device(&first).unwrap().unwrap().denied);
    assert!(!node.known_device(&second).unwrap().unwrap().denied);
    assert_eq!(control.known_device(&first).unwrap(), None);
}

/// A model that nobody is assigned reaches a device by a roll-out: nodes have to know that it may ask it, for as long.
#[test]
fn what_a_roll_out_tells_a_device_holds_on_nodes_until_it_goes_back() {
    let ((folder, control), (_other, node)) = (store(), store());
    let model: ModelName = "m".parse().unwrap();
    let device: DeviceId = "d-1".parse().unwrap();
    let (id, mut rollout) = begun(&control, &model, &device);
    let mut cursor = 0;
    let mut told = |rollout: &Rollout| {
        let members = rollout.members().iter().collect();
        let step = Step { id: &id, rollout, members, entries: vec![], assigned: None };
        control.keep_step(&by(), &step).unwrap();
        let pieces = changes(&control, cursor);
        node.copy(&pieces, 5).unwrap();
        let news = pieces.iter().map(|piece| piece.assignments.len()).sum::<usize>();
        cursor = pieces.last().unwrap().cursor;
        (node.wanted_models(&device).unwrap().contains(&model), news)
    };
    assert_eq!(told(&rollout), (false, 0));
    rollout.handle_report(&device, &Report::default(), 1);
    assert_eq!(rollout.poll(1).len(), 1);
    assert_eq!(told(&rollout), (true, 1));
    let after_restart = Store::open(&folder.path().join("cloud.db")).unwrap();
    assert_eq!(changes(&after_restart, 0)[0].assignments.len(), 1, "told before the restart");
    drop(after_restart);
    let counts = Report { active: Version::new(1), ..Report::default() };
    rollout.handle_report(&device, &counts, 2);
    assert_eq!(told(&rollout), (true, 0), "what it counts is no news for nodes");
    rollout.handle_command(Command::Abort, &"ada".into(), 3).unwrap();
    assert_eq!(rollout.poll(4).len(), 1);
    assert_eq!(told(&rollout), (false, 1));
}

/// A roll-out of the first version of a model to one device.
fn begun(store: &Store, model: &ModelName, device: &DeviceId) -> (RolloutId, Rollout) {
    let candidate = Candidate {
        device: device.clone(),
        labels: [("site".to_owned(), "lyon".to_owned())].into(),
        agent_version: "0.1.0".into(),
        active: None,
        is_online: true,
    };
    let plan = Plan {
        model: Some(model.clone()),
        version: Version::new(1),
        target: Some("site=lyon".parse().unwrap()),
        ..Plan::default()
    };
    let (rollout, _) = Rollout::plan(plan, &[candidate], &"ada".into(), &[1; 16], 0).unwrap();
    let sql = "INSERT INTO rollouts VALUES ('r-1', ?, 1, 'offering', 0, x'', 'ada', 0, 0)";
    let insert = |t: &Transaction<'_>| t.execute(sql, [model.as_str()]).map(drop);
    store.change(|t| Ok::<_, StoreError>(insert(t)?)).unwrap();
    ("r-1".parse().unwrap(), rollout)
}

#[test]
fn many_changes_come_in_pieces() {
    let (_folder, control) = store();
    let sql = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9000)
               INSERT INTO devices (id, key_hash, label, hostname, agent_version, enrolled_at_s)
               SELECT 'd-' || i, printf('%064d', i), '', '', '', 0 FROM n";
    control.change(|t| Ok::<_, StoreError>(t.execute(sql, []).map(drop)?)).unwrap();
    let pieces = changes(&control, 0);
    assert!(pieces.len() > 1);
    assert_eq!(pieces.iter().map(|piece| piece.devices.len()).sum::<usize>(), 9000);
    let (_other, node) = store();
    node.copy(&pieces, 1).unwrap();
    assert!(node.known_device(&"d-9000".parse().unwrap()).is_ok());
}

#[test]
fn a_model_that_nobody_signed_is_not_taken_over() {
    let (_folder, node) = store();
    let models = vec![wire::NodeModel { signed_manifest: bytes::Bytes::from_static(b"{}") }];
    let tenants = vec![wire::NodeTenant { name: "t".into(), models: "*".into() }];
    let piece = wire::NodeUpdate { complete: true, models, tenants, ..Default::default() };
    assert!(matches!(node.copy(&[piece], 1), Err(CopyError::Model(_))));
    assert!(node.tenants().unwrap().iter().all(|t| t.name.as_str() != "t"), "nor anything else");
}

fn joined(control: &Store) -> protocol::id::NodeId {
    let id = "t".to_owned();
    let (label, names) = (String::new(), vec![]);
    let token = NewNodeToken { id: id.clone(), digest: digest(), label, names, expires_at_s: 2000 };
    control.add_node_token(&by(), &token).unwrap();
    let applicant = NodeApplicant {
        token_id: id,
        presented: digest(),
        key: ContentHash::of(b"key"),
        hostname: "host".into(),
        version: "1".into(),
        fresh_id: "n-1".parse().unwrap(),
        now_s: 1500,
    };
    control.join(&applicant).unwrap().id
}

#[test]
fn usage_counts_once_however_often_it_is_sent() {
    let ((_a, control), (_b, node)) = (store(), store());
    let id = joined(&control);
    let of =
        UsageOf { hour_s: 0, tenant: "default".into(), caller: "key k".into(), model: "m".into() };
    let meter = |requests| {
        let usage = Usage { requests, ..Usage::default() };
        node.add_usage(&[(of.clone(), usage)], &[]).unwrap();
    };
    let total = || {
        let lines = control.usage(0, 1, UsageBy::Model).unwrap();
        lines.first().map_or(0, |line| line.usage.requests)
    };
    meter(3);
    let batch = node.usage_batch(50).unwrap().unwrap();
    control.add_node_usage(&id, &batch).unwrap();
    // The word that it was taken got lost: it comes again, as it was, and what came since waits.
    meter(4);
    let again = node.usage_batch(51).unwrap().unwrap();
    assert_eq!(again, batch);
    control.add_node_usage(&id, &again).unwrap();
    assert_eq!(total(), 3);
    node.usage_taken(batch.batch).unwrap();
    // A clock that was set back does not number the next batch below the last.
    let next = node.usage_batch(10).unwrap().unwrap();
    assert!(next.batch > batch.batch);
    control.add_node_usage(&id, &next).unwrap();
    node.usage_taken(next.batch).unwrap();
    assert_eq!((total(), node.usage_batch(60).unwrap()), (7, None));
}

#[test]
fn a_token_lets_one_node_in_and_a_removed_one_stays_out() {
    let (_folder, control) = store();
    let id = joined(&control);
    control.node_hello(&id, "1", "10.0.0.1:1", 1600).unwrap();
    let desired = control.desired(&"d-1".parse().unwrap()).unwrap().state;
    assert_eq!(desired.nodes[0].address, "10.0.0.1:1");
    assert!(control.remove_node(&by(), &id).unwrap());
    assert!(!control.remove_node(&by(), &id).unwrap(), "once");
    let after = control.desired(&"d-1".parse().unwrap()).unwrap().state;
    assert!(after.nodes.is_empty() && after.revision > desired.revision);
}
