//! A fleet with a repository: two words are needed for an installation, and a device that has heard of a
//! root never goes back to one.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::world::{Agent, AgentOptions, World, fashion, model_status};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

fn push(world: &World) {
    let folder = fashion();
    world.operator.run(&["model", "push", &folder.to_string_lossy()]).unwrap();
}

fn assign(world: &World, version: u64) {
    world.operator.run(&["model", "assign", &format!("fashion@{version}"), "--all"]).unwrap();
}

fn unix_s() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

fn database(world: &World) -> rusqlite::Connection {
    rusqlite::Connection::open(world.cloud.data_dir().join("cloud.db")).unwrap()
}

/// Of root and targets; what is signed online is numbered by the time.
fn offline_versions(world: &World) -> [u64; 2] {
    let versions = versions(world);
    ["root", "targets"].map(|role| versions[role].as_u64().unwrap())
}

/// The versions of all roles, as `repo show` has them.
fn versions(world: &World) -> Value {
    let shown = world.operator.json(&["repo", "show"]).unwrap();
    let roles = shown.as_array().unwrap().iter();
    roles.map(|role| (role["role"].as_str().unwrap().to_owned(), role["version"].clone())).collect()
}

/// Waits until the device says why it does not install a version, and that it still has another.
fn wait_refused(agent: &Agent, target: u64, active: u64, why: &str) {
    let status = agent.wait_until(why, |status| {
        let model = model_status(status, "fashion");
        let reason = model["reason"].as_str().unwrap_or_default();
        model["target_version"] == target && reason.contains(why)
    });
    let status = status.unwrap();
    assert_eq!(model_status(&status, "fashion")["active_version"], json!(active), "{status}");
}

fn key_files(world: &World) -> Vec<PathBuf> {
    let folder = world.operator.config_dir().join("repository");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.collect()
}

/// Moves keys of some roles to another folder, as onto another medium.
fn take_away(world: &World, role: &str, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for file in key_files(world) {
        let name = file.file_name().unwrap().to_owned();
        if name.to_string_lossy().starts_with(role) {
            std::fs::rename(&file, to.join(name)).unwrap();
        }
    }
}

#[test]
fn a_fleet_moves_over_and_never_goes_back() {
    let mut world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let agent = world.agent("device", &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap();

    world.operator.run(&["repo", "init"]).unwrap();
    assert_eq!(offline_versions(&world), [1, 1]);
    assert_eq!(key_files(&world).len(), 4, "three of root, one of targets");
    #[cfg(unix)]
    for file in key_files(&world) {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    push(&world);
    assert_eq!(versions(&world)["targets"], 2, "a push names what it pushed");
    assign(&world, 2);
    agent.wait_active("fashion", 2).unwrap(); // it has adopted the root that its operator introduced
    let held = &agent.status().unwrap()["repository"];
    for role in ["root", "targets", "snapshot", "timestamp"] {
        assert!(held[role]["version"].as_u64() >= Some(1), "{held}");
    }
    let days = |role: &str| (held[role]["expires_s"].as_i64().unwrap() - unix_s()) / 86_400;
    assert_eq!((days("root"), days("timestamp")), (364, 1));
    let auth = world.cloud.admin().unwrap();
    let headers = [("Authorization", auth.as_str())];
    let answer = world.cloud.client().unwrap().send("GET", "/metrics", &headers, &[]).unwrap();
    let metrics = String::from_utf8(answer.body).unwrap();
    let line = "outrigger_cloud_repository_expiry_seconds{role=\"timestamp\"} ";
    let left = metrics.lines().find_map(|text| text.strip_prefix(line)).unwrap();
    assert!((86_400..=172_800).contains(&left.parse::<i64>().unwrap()), "{left}");

    // Without targets' key a push is not enough: the operator's signature counts no more.
    let away = world.folder().join("medium");
    take_away(&world, "targets", &away);
    let folder = fashion();
    let failed = world.operator.run(&["model", "push", &folder.to_string_lossy()]).unwrap_err();
    assert!(failed.to_string().contains("will not install it yet"), "{failed}");
    assign(&world, 3);
    wait_refused(&agent, 3, 2, "no role of the repository names fashion/3/edge.json");

    // A cloud that was broken into takes the repository away: the device does not go back.
    world.cloud.stop().unwrap();
    let database = database(&world);
    let gone = database.execute("DELETE FROM repository_introduction", []).unwrap();
    assert_eq!(gone, 1);
    world.cloud.restart().unwrap();
    wait_refused(&agent, 3, 2, "says nothing of the repository");
    let state_dir = agent.stop().unwrap();
    let agent = Agent::start(&state_dir, &AgentOptions::default()).unwrap();
    wait_refused(&agent, 3, 2, "says nothing of the repository");
}

#[test]
fn keys_come_from_other_media_and_rotate() {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    world.operator.run(&["repo", "init"]).unwrap();
    let agent = world.agent("device", &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap(); // under the root that came with its enrolment

    let medium = world.folder().join("medium");
    take_away(&world, "root", &medium);
    let refused = world.operator.run(&["repo", "rotate", "snapshot"]).unwrap_err();
    assert!(refused.to_string().contains("none of the keys at hand"), "{refused}");
    let own = world.operator.config_dir().join("repository");
    let both = ["--keys", own.to_str().unwrap(), "--keys", medium.to_str().unwrap()];
    for role in ["snapshot", "timestamp", "targets", "root", "director"] {
        world.operator.run(&[["repo", "rotate", role].as_slice(), &both].concat()).unwrap();
    }
    world.operator.run(&["repo", "refresh"]).unwrap();
    push(&world);
    assert_eq!(
        offline_versions(&world),
        [5, 5],
        "four rotations of root's; targets were rotated, given a new director, refreshed and named more"
    );
    assign(&world, 2);
    agent.wait_active("fashion", 2).unwrap();
}

#[test]
fn a_team_names_its_own_models_and_no_others() {
    let world = World::start().unwrap();
    world.operator.run(&["repo", "init"]).unwrap();
    world.operator.run(&["repo", "delegate", "clothes", "--model", "fash*"]).unwrap();
    world.operator.run(&["repo", "delegate", "sounds", "--model", "audio-*"]).unwrap();
    take_away(&world, "targets", &world.folder().join("medium"));
    push(&world); // by the key of the team
    let shown = versions(&world);
    assert_eq!((&shown["clothes"], &shown["sounds"]), (&json!(2), &json!(1)), "{shown}");
    let agent = world.agent("device", &AgentOptions::default()).unwrap();
    assign(&world, 1);
    agent.wait_active("fashion", 1).unwrap();
}

#[test]
fn what_an_attacker_changes_in_the_cloud_is_refused_by_the_device() {
    let mut world = World::start().unwrap();
    world.ship_fashion().unwrap();
    world.operator.run(&["repo", "init"]).unwrap();
    let agent = world.agent("device", &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let read = "SELECT bytes FROM repository_files WHERE name = 'timestamp.json'";
    let timestamp: Vec<u8> = database(&world).query_row(read, [], |row| row.get(0)).unwrap();
    push(&world);

    // The manifest of version 2 is altered; the director, whose key is here, names what it finds.
    world.cloud.stop().unwrap();
    let altered = "UPDATE bundles SET signed_manifest = CAST(replace(CAST(signed_manifest AS TEXT), 'Classifies', 'Misleads') AS BLOB) WHERE version = 2";
    assert_eq!(database(&world).execute(altered, []).unwrap(), 2);
    world.cloud.restart().unwrap();
    assign(&world, 2);
    wait_refused(&agent, 2, 1, "fashion/2/edge.json has");

    // The timestamp of before is served: a rollback.
    world.cloud.stop().unwrap();
    let put = "UPDATE repository_files SET bytes = ? WHERE name = 'timestamp.json'";
    assert_eq!(database(&world).execute(put, [&timestamp]).unwrap(), 1);
    world.cloud.restart().unwrap();
    wait_refused(&agent, 2, 1, "a rollback");
}

/// The first SHA-256 in a text.
fn hash_in(text: &str) -> &str {
    let is_hash = |word: &&str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
    text.split(|c: char| !c.is_ascii_alphanumeric()).find(is_hash).unwrap()
}

#[test]
fn several_people_sign_one_after_the_other() {
    let world = World::start().unwrap();
    world.operator.run(&["repo", "init"]).unwrap();
    let roots =
        key_files(&world).into_iter().filter(|file| file.to_string_lossy().contains("root-"));
    let people: Vec<String> = roots
        .enumerate()
        .map(|(number, file)| {
            let medium = world.folder().join(format!("medium-{number}"));
            std::fs::create_dir_all(&medium).unwrap();
            std::fs::rename(&file, medium.join(file.file_name().unwrap())).unwrap();
            medium.to_string_lossy().into_owned()
        })
        .collect();
    let [first, second, third] = people.as_slice() else { panic!("{people:?}") };
    let draft = world.folder().join("draft.json");
    let draft = draft.to_str().unwrap();
    let run = |arguments: &[&str]| world.operator.run(arguments).map_err(|e| e.to_string());

    let alone = run(&["repo", "rotate", "snapshot", "--keys", first]).unwrap_err();
    assert!(alone.contains("root needs 2 of its keys, 1 are at hand"), "{alone}");
    run(&["repo", "rotate", "snapshot", "--keys", first, "--draft", draft]).unwrap();
    assert_eq!(offline_versions(&world), [1, 1], "a draft is only a draft");
    run(&["repo", "cosign", draft, "--keys", first]).unwrap();
    assert_eq!(offline_versions(&world), [1, 1], "one person counts once");
    run(&["repo", "cosign", draft, "--keys", second]).unwrap();
    assert_eq!(offline_versions(&world), [2, 1]);
    assert!(!Path::new(draft).exists());

    // The third has not signed what holds now, and may be shown anything: a colleague tells the hash.
    run(&["repo", "rotate", "timestamp", "--keys", first, "--draft", draft]).unwrap();
    let refused = run(&["repo", "cosign", draft, "--keys", third]).unwrap_err();
    assert!(refused.contains("none of the keys at hand has signed the present root"), "{refused}");
    let other = "0".repeat(64);
    run(&["repo", "cosign", draft, "--keys", third, "--on", &other]).unwrap_err();
    run(&["repo", "cosign", draft, "--keys", third, "--on", hash_in(&refused)]).unwrap();
    assert_eq!(offline_versions(&world), [3, 1]);

    // What was overtaken is not signed.
    run(&["repo", "rotate", "snapshot", "--keys", first, "--draft", draft]).unwrap();
    run(&["repo", "rotate", "snapshot", "--keys", first, "--keys", second]).unwrap();
    let late = run(&["repo", "cosign", draft, "--keys", second]).unwrap_err();
    assert!(late.contains("the draft has root 4, the next is 5"), "{late}");
}

#[test]
fn what_is_removed_is_installed_no_more() {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    world.operator.run(&["repo", "init"]).unwrap();
    let agent = world.agent("device", &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    world.operator.run(&["repo", "remove", "fashion@1"]).unwrap();
    let again = world.operator.run(&["repo", "remove", "fashion@1"]).unwrap_err();
    assert!(again.to_string().contains("none of these is named as good"), "{again}");
    let late = world.agent("late", &AgentOptions::default()).unwrap();
    let status = late.wait_until("the refusal", |status| {
        let reason = model_status(status, "fashion")["reason"].as_str().unwrap_or_default();
        reason.contains("no role of the repository names fashion/1/edge.json")
    });
    assert!(model_status(&status.unwrap(), "fashion")["active_version"].is_null());
    let status = agent.status().unwrap();
    assert_eq!(
        model_status(&status, "fashion")["active_version"],
        1,
        "who has it keeps it: {status}"
    );
}
