//! The admin API keeps what its OpenAPI document says, however it is called.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::python::Environment;
use outrigger_tests::world::World;
use serde_json::Value;
use std::process::Command;

/// What is not judged: a call that fits the document may name what does not exist, and calls without a
/// good key are cut short after some (`429`), which `cloud/tests/server/standard.rs` looks at.
const NOT_JUDGED: &str = "positive_data_acceptance,missing_required_header,ignored_auth";

/// Hundreds of calls that fit the document and that do not, made by schemathesis from one seed: no
/// fault of the server, and nothing answered that the document does not say.
#[test]
fn schemathesis_finds_no_fault() {
    let Some(environment) = Environment::with(&["schemathesis==4.32.5"]).unwrap() else { return };
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    // It uses what answers tell, so that it would revoke its own key, and see nothing from then on.
    let all = operations(&get(&world, "/openapi.json"));
    assert!(all > 20, "{all} operations");
    let tested = all - 2; // that one, and the document, which it has read
    check(&environment, &world, &["--exclude-operation-id", "revoke_key"], tested);
    let stats = get(&world, "/v1/stats");
    assert_eq!(stats["counts"]["internal_errors"], 0, "{stats}");
    check(&environment, &world, &["--include-operation-id", "revoke_key"], 1);
}

fn get(world: &World, path: &str) -> Value {
    let admin = world.cloud.admin().unwrap();
    let headers = [("Authorization", admin.as_str())];
    world.cloud.client().unwrap().send("GET", path, &headers, &[]).unwrap().json().unwrap()
}

fn operations(document: &Value) -> usize {
    let paths = document["paths"].as_object().unwrap();
    paths.values().map(|methods| methods.as_object().unwrap().len()).sum()
}

/// Runs it; so many operations must be tested.
fn check(environment: &Environment, world: &World, choice: &[&str], operations: usize) {
    let address = world.cloud.address();
    let auth = format!("Authorization: {}", world.cloud.admin().unwrap());
    let output = Command::new(environment.program("schemathesis"))
        .current_dir(world.folder())
        .args(["run", &format!("https://{address}/openapi.json"), "--header", &auth])
        .args(["--tls-verify", &world.cloud.ca_pem().to_string_lossy()])
        .args(["--seed", "1", "--max-examples", "20", "--phases", "examples,coverage,fuzzing"])
        .args(["--checks", "all", "--exclude-checks", NOT_JUDGED, "--continue-on-failure"])
        .args(["--request-timeout", "60", "--warnings", "off", "--no-color"])
        .args(choice)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains(&format!("Tested: {operations}\n")), "{text}");
}
