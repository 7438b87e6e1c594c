//! What devices record can be asked by SQL, by whoever has the analytics key, and shown to others in large groups only.
#![allow(clippy::unwrap_used)] // steps beside the tests

use outrigger_tests::fashion::{Images, ask};
use outrigger_tests::telemetry::{EVERYTHING, of_kind, wait_for};
use outrigger_tests::world::{AgentOptions, World};
use serde_json::json;
use std::path::Path;

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[test]
fn a_fleet_is_asked_by_sql_and_shown_by_groups() {
    let world = World::start().unwrap();
    world.ship_fashion().unwrap();
    world.operator.run(&["telemetry", "key"]).unwrap();
    let agent = world.agent("device", &AgentOptions { config: EVERYTHING.into() }).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    agent
        .wait_until("the analytics key", |status| {
            status["counters"]["telemetry"]["keys_believed"].as_u64() > Some(0)
        })
        .unwrap();
    let (images, mut client) = (Images::test().unwrap(), agent.client().unwrap());
    for index in 0..20 {
        let parameters = json!({ "placement": "edge" });
        assert_eq!(ask(&mut client, images.pixels(index), &parameters).unwrap().status, 200);
    }
    let enough =
        |all: &[_]| of_kind(all, "inference").len() >= 20 && !of_kind(all, "aggregate").is_empty();
    wait_for(&world, "events", enough).unwrap();

    let (pulled, dataset) =
        (text(&world.folder().join("pulled")), text(&world.folder().join("dataset")));
    let import = ["telemetry", "import", &pulled, "--into", &dataset];
    let first = world.operator.json(&import).unwrap();
    assert!(first["rows"].as_u64() > Some(20), "{first}");
    let again = world.operator.json(&import).unwrap();
    assert_eq!((again["rows"].as_u64(), again["unopened"].as_u64()), (Some(0), Some(0)), "{again}");

    let ask = |sql: &str| {
        world.operator.run(&["telemetry", "query", sql, "--dataset", &dataset]).unwrap()
    };
    let sql =
        "SELECT model, placement, count(*) AS events FROM inference WHERE number > 0 GROUP BY 1, 2";
    let table = ask(sql);
    assert!(
        table.contains("MODEL") && table.contains("fashion") && table.contains("edge"),
        "{table}"
    );
    let p99 = ask(
        "SELECT histogram_quantile(total_us, 0.99) AS p99 FROM aggregates WHERE model = 'fashion'",
    );
    assert!(p99.lines().nth(1).unwrap().trim().parse::<f64>().unwrap() > 0.0, "{p99}");
    let json =
        world.operator.run(&["telemetry", "query", sql, "--dataset", &dataset, "--json"]).unwrap();
    let row: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert_eq!(row["events"].as_u64(), Some(20), "{row}");

    let shown = world.operator.run(&["telemetry", "export", "--dataset", &dataset]).unwrap();
    assert_eq!(shown, "", "one device is no group");
    let cost = world.operator.json(&["telemetry", "cost"]).unwrap();
    assert_eq!(cost["devices"], 1);
    assert!(cost["month_bytes_per_device"].as_u64() > Some(0), "{cost}");
    let device = agent.status().unwrap()["device"].as_str().unwrap().to_owned();
    world.operator.run(&["telemetry", "forget", &device, "--dataset", &dataset]).unwrap();
    assert!(ask("SELECT count(*) AS n FROM inference").contains('0'));
    drop(agent);
}
