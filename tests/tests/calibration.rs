//! From labelled data to what an answer is worth: calibrated by the operator's command, signed with the
//! bundle, read on the device, told with each answer.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::fashion::{Images, ask};
use outrigger_tests::http::HttpClient;
use outrigger_tests::world::{Agent, AgentOptions, World, copy_of_fashion, model_status};
use serde_json::{Value, json};

/// What Prometheus would read.
fn metrics(agent: &Agent) -> String {
    let address = std::fs::read_to_string(agent.state_dir().join("metrics-listening")).unwrap();
    let mut client =
        HttpClient::connect(address.trim().strip_prefix("http://").unwrap().parse().unwrap())
            .unwrap();
    String::from_utf8(client.get("/metrics").unwrap().body).unwrap()
}

#[test]
fn a_bound_travels_from_data_to_answers() {
    let world = World::start().unwrap();
    let folder = copy_of_fashion(world.folder()).unwrap();
    let path = folder.to_str().unwrap();
    let calibrate = |risk: &str| {
        let data = ["--data", path, "--risk", risk];
        world.operator.json(&[&["model", "calibrate", path], &data[..]].concat())
    };
    let too_little = format!("{:#}", calibrate("0.001").unwrap_err());
    assert!(
        too_little.contains("with 1000 accepted items no threshold can hold 0.1 %: needs >= 2995"),
        "{too_little}"
    );
    let made = calibrate("0.03").unwrap()["calibration"].clone();
    let (threshold, bound) = (made["threshold"].as_f64().unwrap(), &made["bound"]);
    assert_eq!((&bound["risk"], &bound["truth"]), (&json!(0.03), &json!("labels")));
    assert_eq!(bound["items"]["bound"], 900);
    let differs = bound["disagreement"].as_f64().unwrap();
    assert!((0.015..0.1).contains(&differs), "{bound}");

    world.operator.run(&["model", "push", path]).unwrap();
    world.operator.run(&["model", "assign", "fashion", "--all"]).unwrap();
    let agent = world.agent("device", &AgentOptions::default()).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    let listed = world.operator.run(&["model", "list"]).unwrap();
    assert!(listed.contains("RISK") && listed.contains(" 3 % "), "{listed}");
    let api = world.operator.json(&["model", "list"]).unwrap();
    let edge = api.as_array().unwrap().iter().find(|bundle| bundle["variant"] == "edge").unwrap();
    assert_eq!((&edge["risk"], &edge["disagreement"]), (&json!(0.03), &bound["disagreement"]));
    assert_eq!(model_status(&agent.status().unwrap(), "fashion")["risk"], 0.03);
    let metrics = metrics(&agent);
    assert!(metrics.contains("outrigger_model_risk{model=\"fashion\"} 0.03"), "{metrics}");
    let images = Images::test().unwrap();
    let mut client = agent.client().unwrap();
    let mut verdict = |index: usize, parameters: Value| {
        let answer = ask(&mut client, images.pixels(index), &parameters).unwrap();
        answer.split().unwrap().0["parameters"].clone()
    };
    let mut placements = [0, 0];
    for index in 0..60 {
        let said = verdict(index, json!({}));
        let accepted = said["placement"] == "edge";
        placements[usize::from(accepted)] += 1;
        assert_eq!(said.get("risk"), accepted.then_some(&json!(0.03)), "{said}");
        if accepted {
            assert!(said["confidence"].as_f64().unwrap() >= threshold - 1e-7, "{said}");
        }
    }
    assert!(placements[0] > 0 && placements[1] > 0, "{placements:?}");
    // What may differ is what was measured, not the default of the agent's configuration.
    let checks = model_status(&agent.status().unwrap(), "fashion")["checks"].clone();
    assert_eq!(checks["bound"].as_f64(), Some(differs), "{checks}");
    let wanted = verdict(0, json!({ "placement": "edge" }));
    assert_eq!((&wanted["reason"], wanted.get("risk")), (&json!("requested"), None));

    // A record of other models is not signed with these.
    std::fs::copy(folder.join("edge.onnx"), folder.join("cloud.onnx")).unwrap();
    let refused = format!("{:#}", world.operator.run(&["model", "push", path]).unwrap_err());
    assert!(refused.contains("was made for other ONNX files"), "{refused}");
}
