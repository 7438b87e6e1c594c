//! Disaster: the cloud's folder is gone, and comes back out of a backup that was made while it ran.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::fashion::{Images, ask_cloud_alone};
use outrigger_tests::world::{Agent, AgentOptions, World, program};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs `outrigger-cloud ARGS`.
fn cloud(args: &[&str]) -> Output {
    Command::new(program("outrigger-cloud").unwrap()).args(args).output().unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// What a command says that is to succeed.
fn done(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What a command says that is to fail.
fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("hint:"), "{said}");
    said
}

/// A backup of a running cloud, and the key that opens it.
struct Backup {
    file: PathBuf,
    key: PathBuf,
}

impl Backup {
    fn of(world: &World) -> Self {
        let (file, key) = (world.folder().join("cloud.backup"), world.folder().join("backup.key"));
        let folder = text(world.cloud.data_dir()).to_owned();
        let to = ["-o", text(&file), "--new-key", text(&key), "--json"];
        let made = done(&cloud(&[&["backup", "--data-dir", &folder][..], &to].concat()));
        assert!(made["bytes"].as_u64() > Some(100_000), "{made}");
        for path in [&file, &key] {
            let mode = std::fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", path.display());
        }
        Self { file, key }
    }

    fn restore(&self, folder: &Path, more: &[&str]) -> Output {
        let from = ["restore", text(&self.file), "--key-file", text(&self.key)];
        cloud(&[&from[..], &["--data-dir", text(folder), "--json"], more].concat())
    }
}

/// Asks about an image, of the cloud and nobody else.
fn placement(agent: &Agent, images: &Images) -> Value {
    ask_cloud_alone(&mut agent.client().unwrap(), images.pixels(0)).unwrap()
}

#[test]
fn devices_reconnect_to_a_restored_cloud_without_enrolling_again() {
    let images = Images::test().unwrap();
    let mut world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let before = world.agent("before", &AgentOptions::default()).unwrap();
    let denied = world.agent("denied", &AgentOptions::default()).unwrap();
    for agent in [&before, &denied] {
        agent.wait_active("fashion", 1).unwrap();
    }
    assert_eq!(placement(&before, &images), "cloud");
    let unused = world.token().unwrap();
    let backup = Backup::of(&world);

    // What happens now is not in the backup.
    let after = world.agent("after", &AgentOptions::default()).unwrap();
    after.wait_active("fashion", 1).unwrap();
    let shut_out = denied.status().unwrap()["device"].as_str().unwrap().to_owned();
    world.operator.run(&["device", "deny", &shut_out]).unwrap();
    let list = world.operator.run(&["device", "list", "--denied"]).unwrap();
    assert_eq!(list.trim(), shut_out);
    let deny = world.folder().join("denied.txt");
    std::fs::write(&deny, format!("# of today\n{list}")).unwrap();
    let certificate = std::fs::read(before.state_dir().join("device.pem")).unwrap();

    world.cloud.kill();
    std::fs::remove_dir_all(world.cloud.data_dir()).unwrap();
    let folder = world.cloud.data_dir().to_owned();
    let restored = done(&backup.restore(&folder, &["--deny", text(&deny)]));
    assert_eq!(
        (&restored["backup"]["devices"], &restored["void"]["tokens"]),
        (&json!(2), &json!(3))
    );
    world.cloud.restart().unwrap();

    before.wait_until("the restored cloud", |status| status["connected"] == true).unwrap();
    assert_eq!(placement(&before, &images), "cloud");
    assert_eq!(std::fs::read(before.state_dir().join("device.pem")).unwrap(), certificate);
    // Whoever came later must enrol again, and answers by itself until then.
    let unknown = |status: &Value| status["connected"] == false;
    for agent in [&after, &denied] {
        agent.wait_until("the refusal", unknown).unwrap();
        let ready = agent.client().unwrap().get("/v2/models/fashion/ready").unwrap();
        assert_eq!(ready.status, 200);
    }
    // No token from before is good, and no key but the fresh one.
    let stranger = Agent::try_enrol(&world.folder().join("x"), &world.cloud.address(), &unused);
    let said = String::from_utf8(stranger.unwrap().stderr).unwrap();
    assert!(said.contains("expired"), "{said}");
    assert!(world.operator.run(&["device", "list"]).is_err(), "an old key");
    world.operator.login(&world.cloud).unwrap();
    let audit = world.operator.run(&["audit"]).unwrap();
    for action in ["backup.create", "backup.restore", "device.deny"] {
        assert!(audit.contains(action), "{action} in {audit}");
    }
    let devices = world.operator.json(&["device", "list"]).unwrap();
    assert_eq!(devices.as_array().unwrap().len(), 2, "{devices}");
}

#[test]
fn keys_may_be_kept_and_nothing_is_overwritten() {
    let mut world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let agent = world.agent("device", &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let backup = Backup::of(&world);

    world.cloud.kill();
    let folder = world.cloud.data_dir().to_owned();
    let said = refused(&backup.restore(&folder, &[]));
    assert!(said.contains("is there already"), "{said}");
    std::fs::remove_dir_all(&folder).unwrap();
    let restored = done(&backup.restore(&folder, &["--keep-keys"]));
    assert_eq!(restored["admin_key"], Value::Null);
    let mode =
        |name: &str| std::fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(["", "ca", "ca/ca.key", "cloud.db"].map(mode), [0o700, 0o700, 0o600, 0o600]);
    world.cloud.restart().unwrap();
    assert_eq!(world.operator.json(&["device", "list"]).unwrap().as_array().unwrap().len(), 1);
    agent.wait_until("the restored cloud", |status| status["connected"] == true).unwrap();
}

#[test]
fn what_is_damaged_or_sealed_otherwise_restores_nothing() {
    let world = World::start().unwrap();
    let backup = Backup::of(&world);
    let whole = std::fs::read(&backup.file).unwrap();
    let folder = world.folder().join("restored");
    let check = |bytes: &[u8], expected: &str| {
        std::fs::write(&backup.file, bytes).unwrap();
        let said = refused(&backup.restore(&folder, &[]));
        assert!(said.contains(expected), "{said}");
        let left: Vec<_> = std::fs::read_dir(world.folder()).unwrap().flatten().collect();
        let hidden = |e: &std::fs::DirEntry| e.file_name().to_string_lossy().contains("restor");
        assert!(!left.iter().any(hidden), "{left:?}");
    };
    let mut flipped = whole.clone();
    let middle = whole.len() / 2;
    flipped[middle] ^= 1;
    check(&flipped, "was altered");
    check(&whole[..whole.len() - 1], "was altered, or cut off");
    check(&[&whole[..], b"more"].concat(), "was altered");
    check(b"a letter", "no backup");

    std::fs::write(&backup.file, &whole).unwrap();
    std::fs::write(&backup.key, format!("{}\n", "0".repeat(64))).unwrap();
    let said = refused(&backup.restore(&folder, &[]));
    assert!(said.contains("is not the one"), "{said}");
    let strangers = world.folder().join("other.key");
    let to = ["-o", text(&backup.file), "--new-key", text(&strangers)];
    let twice = cloud(&[&["backup", "--data-dir", text(world.cloud.data_dir())][..], &to].concat());
    assert!(refused(&twice).contains("is there already"));
    assert_eq!(std::fs::read(&backup.file).unwrap(), whole, "and is untouched");
}
