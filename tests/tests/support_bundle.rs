//! The support bundle: everything that helps, and nothing that is secret. The test knows every
//! secret of the world, plants them where a person or a fault might leave them, and looks for each
//! in the unpacked archive.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use flate2::read::GzDecoder;
use outrigger_tests::world::{Agent, AgentOptions, World, program};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// The unpacked archive: names and texts.
fn unpack(path: &Path) -> BTreeMap<String, String> {
    let mut archive = tar::Archive::new(GzDecoder::new(std::fs::File::open(path).unwrap()));
    let read = |entry: std::io::Result<tar::Entry<'_, _>>| {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().file_name().unwrap().to_string_lossy().into_owned();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        (name, text)
    };
    archive.entries().unwrap().map(read).collect()
}

/// Every run of 64 or more hexadecimal digits.
fn long_hex(text: &str) -> BTreeSet<String> {
    let runs = text.split(|c: char| !c.is_ascii_hexdigit());
    runs.filter(|run| run.len() >= 64).map(str::to_owned).collect()
}

/// Every piece of a PEM file's body that would give something away.
fn pem_pieces(pem: &str) -> Vec<String> {
    let lines = pem.lines().filter(|line| !line.starts_with("-----") && line.len() >= 12);
    lines.map(str::to_owned).collect()
}

#[test]
fn it_helps_and_gives_nothing_away() {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    let token = std::fs::read_to_string(world.token().unwrap()).unwrap();
    let admin = std::fs::read_to_string(world.cloud.data_dir().join("admin.key")).unwrap();
    let state_dir = world.folder().join("device");
    Agent::enrol(&state_dir, &world.cloud.address(), &world.token().unwrap()).unwrap();
    let key = std::fs::read_to_string(state_dir.join("device.key")).unwrap();
    let options = AgentOptions {
        config: format!(
            "# the token was {token}\n# password = \"correct horse\"\n[local]\nhttp = \"127.0.0.1:0\"\n"
        ),
    };
    let agent = Agent::start(&state_dir, &options).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let mut log = std::fs::File::options().append(true).open(state_dir.join("agent.log")).unwrap();
    let one_line = key.replace('\n', "\\n");
    writeln!(log, "{key}\nadmin {admin}\nin one line {one_line}\ntoken={token}\nthe last line")
        .unwrap();
    for piece in pem_pieces(&key) {
        writeln!(log, "a stray {piece}.").unwrap();
    }

    let output = world.folder().join("support.tar.gz");
    let mut command = Command::new(program("outrigger-agent").unwrap());
    command.args(["support-bundle", "-o"]).arg(&output).arg("--state-dir").arg(&state_dir);
    let run = command.output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    assert_eq!(std::fs::metadata(&output).unwrap().permissions().mode() & 0o777, 0o600);

    let files = unpack(&output);
    let names: Vec<_> = files.keys().map(String::as_str).collect();
    let expected = "agent.toml check.json check.txt counters.json log.txt state-folder.txt status.json versions.json";
    assert_eq!(names.join(" "), expected);
    for (name, sign) in [
        ("log.txt", "the last line"),
        ("status.json", "fashion"),
        ("check.txt", "certificate-expiry"),
        ("state-folder.txt", "device.key"),
        ("agent.toml", "127.0.0.1:0"),
        ("counters.json", "connects"),
        ("versions.json", "onnxruntime"),
    ] {
        assert!(files[name].contains(sign), "{name}: {}", files[name]);
    }

    let mut secrets = pem_pieces(&key);
    let spoken = [&token, &admin].map(|t| t.trim().to_owned());
    secrets.extend(
        spoken.iter().flat_map(|t| t.split('.').map(str::to_owned)).filter(|t| t.len() >= 32),
    );
    secrets.extend(spoken);
    secrets.push("correct horse".into());
    assert!(secrets.len() >= 6, "the test must know the secrets");
    for (name, text) in &files {
        assert!(long_hex(text).is_empty(), "{name}: {:?}", long_hex(text));
        assert!(!text.contains("PRIVATE KEY"), "{name}");
        for secret in &secrets {
            assert!(!text.contains(secret.as_str()), "{name} holds {secret}");
            assert!(!text.contains(&secret[secret.len() / 2..]), "{name} holds half of {secret}");
        }
    }
}
