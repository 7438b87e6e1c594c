//! Numbers that travel to the cloud in a quarter of the bytes: what that changes is measured when the
//! bundle is made, and refused where it is too much; a device packs what it may, and says so.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use outrigger_tests::fashion::{Images, ask, ask_floats};
use outrigger_tests::http::HttpClient;
use outrigger_tests::world::{Agent, AgentOptions, World, copy_of_fashion};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;

/// An image as floats, and packed: an offset, a scale, and a byte for each pixel.
const RAW_BYTES: u64 = 28 * 28 * 4;
const PACKED_BYTES: u64 = 28 * 28 + 8;

fn with_thrift(to: &Path, thrift: &str) -> String {
    let folder = copy_of_fashion(to).unwrap();
    let recipe = std::fs::OpenOptions::new().append(true).open(folder.join("model.toml"));
    write!(recipe.unwrap(), "\n[thrift]\n{thrift}\n").unwrap();
    folder.to_str().unwrap().to_owned()
}

fn agent(world: &World, name: &str, thrift: &str) -> Agent {
    let config = format!("[offload]\n{thrift}\ncalls_per_check = 0\n");
    let agent = world.agent(name, &AgentOptions { config }).unwrap();
    agent.wait_active("fashion", 1).unwrap();
    agent
}

/// The verdict of the cloud about an image as floats, each multiplied.
fn verdict(client: &mut HttpClient, pixels: &[u8], factor: f32) -> Value {
    let floats: Vec<f32> = pixels.iter().map(|p| f32::from(*p) / 255.0 * factor).collect();
    let answer = ask_floats(client, &floats, &json!({ "placement": "cloud" })).unwrap();
    answer.split().unwrap().0["parameters"].clone()
}

#[test]
fn floats_travel_in_a_quarter_of_the_bytes_where_that_was_measured() {
    let world = World::start().unwrap();
    let push = |thrift: &str| {
        let path = with_thrift(world.folder(), thrift);
        world.operator.run(&["model", "push", &path]).map_err(|error| format!("{error:#}"))
    };
    for (thrift, words) in [
        ("inputs = { image = \"int8\" }\nmax_changed = 0.0001", "(29956 items if none changes)"),
        (
            "inputs = { image = \"int8\" }\nmax_changed = 0.01\nmax_difference = 0.00001",
            "max_difference allows",
        ),
        ("inputs = { image = \"int8\" }", "thrift needs max_changed"),
        (
            "inputs = { picture = \"int8\" }\nmax_changed = 0.01",
            "name an input of the model that is FP32",
        ),
        ("inputs = { image = \"int4\" }\nmax_changed = 0.01", "unknown variant `int4`"),
    ] {
        let refused = push(thrift).unwrap_err();
        assert!(refused.contains(words), "{thrift}: {refused}");
    }
    push("inputs = { image = \"int8\" }\nmax_changed = 0.01").unwrap();
    world.operator.run(&["model", "assign", "fashion", "--all"]).unwrap();

    let images = Images::test().unwrap();
    let always = agent(&world, "always", "thrift = \"always\"");
    let mut client = always.client().unwrap();
    for index in 0..40 {
        let pixels = images.pixels(index);
        let asked = ask(&mut client, pixels, &json!({ "placement": "cloud" })).unwrap();
        let of_pixels = asked.split().unwrap().0["parameters"].clone();
        assert_eq!(
            (&of_pixels["placement"], of_pixels.get("saved_bytes")),
            (&json!("cloud"), None)
        );
        let of_floats = verdict(&mut client, pixels, 1.0);
        assert_eq!(of_floats["saved_bytes"], RAW_BYTES - PACKED_BYTES, "{of_floats}");
        assert_eq!(of_floats["label"], of_pixels["label"], "image {index}");
    }
    // Wider than anything that was measured: as it is.
    let wide = verdict(&mut client, images.pixels(0), 1.5);
    assert_eq!((&wide["placement"], wide.get("saved_bytes")), (&json!("cloud"), None), "{wide}");
    let link = always.status().unwrap()["counters"]["link"].clone();
    assert_eq!(link["saved_bytes"], 40 * (RAW_BYTES - PACKED_BYTES));
    assert_eq!(link["uplink_bytes"], 40 * (28 * 28 + PACKED_BYTES) + RAW_BYTES);

    // A few bytes over a fast link are not worth it, unless bytes are paid for.
    for (name, thrift, saves) in [
        ("auto", "", None),
        ("never", "thrift = \"never\"\nbytes_per_day = 1000000", None),
        ("paid", "bytes_per_day = 1000000", Some(json!(RAW_BYTES - PACKED_BYTES))),
    ] {
        let agent = agent(&world, name, thrift);
        let said = verdict(&mut agent.client().unwrap(), images.pixels(0), 1.0);
        assert_eq!(
            (&said["placement"], said.get("saved_bytes")),
            (&json!("cloud"), saves.as_ref()),
            "{name}"
        );
    }
}
