//! Operators sign in through a real OpenID provider (npm `oidc-provider`), and whoever should not does not.
#![allow(clippy::unwrap_used)] // helpers beside the tests

use fleet::sign_in::ticket::Verifier;
use outrigger_tests::hostile;
use outrigger_tests::provider::{Browser, Directory, Provider, Visit};
use outrigger_tests::world::{AgentOptions, Edge, Operator, Publisher, World, eventually, program};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
/// What every version answers to its probe.
const PROBE: ([f32; 3], [f32; 3]) = ([1.0, 2.0, 3.0], [-1.0, -2.0, -3.0]);
const ROLES: &str = "admin=ml-admins,operator=ml-ops,operator=night-shift,viewer=guests";

fn directory() -> Directory {
    let person = |mail: &str, verified: bool, groups: &[&str]| json!({ "email": mail, "email_verified": verified, "preferred_username": "somebody", "groups": groups });
    Directory::new("outrigger")
        .with("ada", person("ada@example.com", true, &["staff", "ml-admins"]))
        .with("bob", person("bob@example.com", true, &["ml-admins"]))
        .with("olga", person("olga@example.com", false, &["night-shift"]))
        .with("eve", person("eve@example.com", true, &["staff"]))
        .with(
            "mallory",
            json!({ "email": "m@example.com", "email_verified": true, "groups": "ml-admins-not" }),
        )
}

type Variables = Vec<(&'static str, OsString)>;

fn settings(provider: &Provider) -> Variables {
    vec![
        ("OUTRIGGER_CLOUD_OIDC_ISSUER", provider.issuer().into()),
        ("OUTRIGGER_CLOUD_OIDC_CLIENT_ID", "outrigger".into()),
        ("OUTRIGGER_CLOUD_OIDC_ROLES", ROLES.into()),
    ]
}

/// What the client shows to the provider, where it has anything to show.
const SECRET: &str = "a secret of forty characters or so, at least";

fn with_secret(folder: &Path) -> (&'static str, OsString) {
    let file = folder.join("secret");
    link::durable::write(&file, SECRET.as_bytes(), link::durable::Access::Private).unwrap();
    ("OUTRIGGER_CLOUD_OIDC_CLIENT_SECRET_FILE", file.into())
}

/// A cloud that believes this provider.
struct Site {
    world: World,
    provider: Provider,
    _folder: tempfile::TempDir,
}

impl Site {
    /// `None` where there is no provider.
    fn start(directory: &Directory) -> Option<Self> {
        Self::start_with(directory, |_| Variables::new())
    }

    /// With more settings of the cloud, for which there is a folder.
    fn start_with(directory: &Directory, more: impl Fn(&Path) -> Variables) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let provider = Provider::start(folder.path(), directory).unwrap()?;
        let mut environment = settings(&provider);
        environment.extend(more(folder.path()));
        let world = World::start_in(&environment).unwrap();
        Some(Self { world, provider, _folder: folder })
    }

    fn operator(&self, name: &str) -> Operator {
        Operator::new(&self.world.folder().join(format!("operator-{name}")))
    }

    /// Somebody signs in at the command: the page that they see in the end, and what the command printed.
    fn sign_in(&self, operator: &Operator, name: &str) -> (String, Result<String, String>) {
        let mut login = Login::begin(operator, &self.world);
        let visit = Browser::default().sign_in(&login.url(), name).unwrap();
        (visit.page, login.end())
    }

    /// A call without a key.
    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let mut client = self.world.cloud.client().unwrap();
        let headers = [("content-type", "application/json")];
        let answer = client.send("POST", path, &headers, body.to_string().as_bytes()).unwrap();
        (answer.status, answer.json().unwrap())
    }
}

/// `outrigger login --oidc`, under way.
struct Login {
    child: Child,
    lines: Receiver<String>,
    printed: Vec<String>,
}

impl Login {
    fn begin(operator: &Operator, world: &World) -> Self {
        let ca = std::fs::read(world.cloud.ca_pem()).unwrap();
        let ca = link::pki::chain_from_pem(&ca).unwrap().remove(0);
        let ca = protocol::id::ContentHash::of(&ca).to_string();
        let mut child = Command::new(program("outrigger").unwrap())
            .args([
                "login",
                "--cloud",
                &world.cloud.address(),
                "--oidc",
                "--no-browser",
                "--ca",
                &ca,
            ])
            .env("OUTRIGGER_CONFIG_DIR", operator.config_dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let (say, lines) = channel();
        std::thread::spawn(move || {
            BufReader::new(stderr).lines().map_while(Result::ok).try_for_each(|line| say.send(line))
        });
        Self { child, lines, printed: Vec::new() }
    }

    /// The address that it tells to open.
    fn url(&mut self) -> String {
        loop {
            let line =
                self.lines.recv_timeout(PATIENCE).map_err(|_| self.printed.join("\n")).unwrap();
            self.printed.push(line.clone());
            if let Some(at) = line.find("http") {
                return line[at..].trim().to_owned();
            }
        }
    }

    fn paste(&mut self, text: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{text}").unwrap();
    }

    /// What it printed in the end.
    fn end(mut self) -> Result<String, String> {
        let status =
            eventually("the end of login", PATIENCE, || self.child.try_wait().unwrap()).unwrap();
        let mut out = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
        self.printed.extend(self.lines.iter());
        if status.success() { Ok(out) } else { Err(self.printed.join("\n")) }
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn people_sign_in_with_their_browser() {
    let Some(site) = Site::start(&directory()) else { return };
    let ada = site.operator("ada");
    let (page, printed) = site.sign_in(&ada, "ada");
    let printed = printed.unwrap();
    assert!(printed.contains("as ada@example.com (role admin)"), "{printed}");
    assert!(page.contains("ada@example.com"), "{page}");
    ada.run(&["device", "list"]).unwrap();
    ada.run(&["key", "create", "--name", "k", "--role", "viewer"]).unwrap();
    let audit = ada.json(&["audit"]).unwrap().to_string();
    assert!(audit.contains("ada@example.com"), "{audit}");

    // A mail that the provider has not seen verified names nobody.
    let (_, printed) = site.sign_in(&site.operator("olga"), "olga");
    let printed = printed.unwrap();
    assert!(printed.contains("as somebody (role operator)"), "{printed}");
    let refused = site.operator("olga").run(&["key", "list"]).unwrap_err().to_string();
    assert!(refused.contains("the role operator does not include this"), "{refused}");

    for name in ["eve", "mallory"] {
        let (page, printed) = site.sign_in(&site.operator(name), name);
        let printed = printed.unwrap_err();
        assert!(printed.contains("no role") && page.contains("no role"), "{printed} {page}");
        let refused = site.operator(name).run(&["device", "list"]).unwrap_err().to_string();
        assert!(refused.contains("not logged in"), "{refused}");
    }
    let mut login = Login::begin(&site.operator("eve"), &site.world);
    Browser::default().turn_back(&login.url()).unwrap();
    let printed = login.end().unwrap_err();
    assert!(printed.contains("has not signed you in"), "{printed}");
}

#[test]
fn who_signs_out_is_out() {
    let Some(site) = Site::start(&directory()) else { return };
    let ada = site.operator("ada");
    site.sign_in(&ada, "ada").1.unwrap();
    let kept = std::fs::read(ada.config_dir().join("credentials.json")).unwrap();
    ada.run(&["logout"]).unwrap();
    let refused = ada.run(&["device", "list"]).unwrap_err().to_string();
    assert!(refused.contains("not logged in"), "{refused}");
    std::fs::write(ada.config_dir().join("credentials.json"), kept).unwrap();
    let refused = ada.run(&["device", "list"]).unwrap_err().to_string();
    assert!(refused.contains("is over") && refused.contains("--oidc"), "{refused}");
    site.sign_in(&ada, "ada").1.unwrap();
    ada.run(&["device", "list"]).unwrap();
}

/// The browser is on another machine: the address where it ends is pasted.
#[test]
fn the_address_can_be_pasted() {
    let Some(site) = Site::start(&directory()) else { return };
    let ada = site.operator("ada");
    let mut login = Login::begin(&ada, &site.world);
    let back = Browser::default().way_back(&login.url(), "ada").unwrap();
    login.paste(&back);
    let printed = login.end().unwrap();
    assert!(printed.contains("(role admin)"), "{printed}");
}

#[test]
fn a_client_with_a_secret_and_claims_in_the_token() {
    let directory = Directory::new("outrigger")
        .client("token_endpoint_auth_method", "client_secret_basic")
        .client("client_secret", SECRET)
        .client("id_token_signed_response_alg", "ES256")
        .with("ada", json!({ "roles": { "outrigger": ["ml-ops"] }, "preferred_username": "ada" }));
    let directory = Directory { claims_in_token: true, ..directory };
    let settings = |folder: &Path| -> Variables {
        vec![with_secret(folder), ("OUTRIGGER_CLOUD_OIDC_CLAIM", "/roles/outrigger".into())]
    };
    let Some(site) = Site::start_with(&directory, settings) else { return };
    let (_, printed) = site.sign_in(&site.operator("ada"), "ada");
    let printed = printed.unwrap();
    assert!(printed.contains("as ada (role operator)"), "{printed}");
    let log = std::fs::read_to_string(site.world.cloud.data_dir().with_extension("log")).unwrap();
    assert!(!log.contains(SECRET));
}

/// A token whose signature anybody could make who knows the client's secret.
#[test]
fn a_provider_that_signs_with_a_shared_secret_is_not_believed() {
    let directory = directory()
        .client("token_endpoint_auth_method", "client_secret_post")
        .client("client_secret", SECRET)
        .client("id_token_signed_response_alg", "HS256");
    let settings = |folder: &Path| -> Variables { vec![with_secret(folder)] };
    let Some(site) = Site::start_with(&directory, settings) else { return };
    let (_, printed) = site.sign_in(&site.operator("ada"), "ada");
    let printed = printed.unwrap_err();
    assert!(printed.contains("HS256"), "{printed}");
}

/// A sign-in step by step, without the command.
struct ByHand {
    verifier: Verifier,
    redirect: &'static str,
    code: String,
    state: String,
}

impl ByHand {
    fn begin(site: &Site) -> Self {
        let redirect = "http://127.0.0.1:9/callback";
        let verifier = Verifier::from_entropy(link::entropy());
        let begun =
            json!({ "redirect_uri": redirect, "code_challenge": verifier.challenge().to_string() });
        let (status, answer) = site.post("/v1/sign-in", &begun);
        assert_eq!(status, 200, "{answer}");
        let url = answer["authorization_url"].as_str().unwrap();
        let url = Browser::default().way_back(url, "ada").unwrap();
        let back = Visit { url, page: String::new() };
        let [code, state] = ["code", "state"].map(|name| back.parameter(name).unwrap());
        Self { verifier, redirect, code, state }
    }

    fn body(&self, site: &Site) -> Value {
        json!({ "code": self.code, "state": self.state, "code_verifier": self.verifier.reveal(),
                "redirect_uri": self.redirect, "iss": site.provider.issuer() })
    }
}

#[test]
fn each_part_of_a_sign_in_has_to_fit() {
    let Some(mut site) = Site::start(&directory()) else { return };
    let finish = |site: &Site, body: &Value| site.post("/v1/sign-in/finish", body);
    let (one, other) = (ByHand::begin(&site), ByHand::begin(&site));
    let mut flipped = one.state.clone().into_bytes();
    flipped[10] ^= 1;
    let wrong = [
        ("code", Value::from("made-up")),
        ("code", other.code.as_str().into()),
        ("state", other.state.as_str().into()),
        ("state", String::from_utf8(flipped).unwrap().into()),
        ("state", "".into()),
        ("code_verifier", other.verifier.reveal().into()),
        ("redirect_uri", "http://127.0.0.1:10/callback".into()),
        ("iss", "http://127.0.0.1:9".into()),
        ("iss", Value::Null),
    ];
    for (name, value) in wrong {
        let mut body = ByHand::begin(&site).body(&site);
        body[name] = value;
        let (status, answer) = finish(&site, &body);
        assert!((400..500).contains(&status), "{name}: {status} {answer}");
        assert!(answer["key"].is_null() && answer["error"].is_string(), "{name}: {answer}");
    }
    let (status, answer) = finish(&site, &one.body(&site));
    assert!(status == 201 && answer["role"] == "admin", "{status} {answer}");
    let (status, answer) = finish(&site, &one.body(&site));
    assert!((400..500).contains(&status), "a code serves once: {status} {answer}");

    // What was begun before a restart has to be begun again.
    let environment = settings(&site.provider);
    site.world.cloud.restart_in(&environment).unwrap();
    let (status, answer) = finish(&site, &other.body(&site));
    assert!((400..500).contains(&status), "{status} {answer}");
    for elsewhere in [
        "https://example.com/callback",
        "http://127.0.0.1.example.com:9/callback",
        "http://127.0.0.1:9/x",
    ] {
        let begun = json!({ "redirect_uri": elsewhere, "code_challenge": one.verifier.challenge().to_string() });
        let (status, answer) = site.post("/v1/sign-in", &begun);
        assert!(status == 422, "{elsewhere}: {status} {answer}");
    }
}

#[test]
fn without_its_provider_a_cloud_serves_who_has_a_key() {
    let Some(mut site) = Site::start(&directory()) else { return };
    site.sign_in(&site.operator("ada"), "ada").1.unwrap();
    let begun = ByHand::begin(&site);
    site.provider.stop();
    let (status, answer) = site.post("/v1/sign-in/finish", &begun.body(&site));
    assert!(status == 502 || status == 503, "{status} {answer}");
    site.operator("ada").run(&["device", "list"]).unwrap();
    site.world.operator.run(&["device", "list"]).unwrap();

    // It comes back with other keys, which nobody told the cloud of.
    site.provider.restart(&directory()).unwrap();
    site.sign_in(&site.operator("bob"), "bob").1.unwrap();
    site.operator("bob").run(&["device", "list"]).unwrap();
}

/// Who signs in twice is one person still.
#[test]
fn nobody_approves_what_they_began_by_signing_in_again() {
    let Some(site) = Site::start(&directory()) else { return };
    let [ada, again, bob] = ["ada", "again", "bob"].map(|name| site.operator(name));
    for (operator, name) in [(&ada, "ada"), (&again, "ada"), (&bob, "bob")] {
        site.sign_in(operator, name).1.unwrap();
    }
    let device = site.world.agent("one", &AgentOptions::default()).unwrap();
    let publisher = Publisher::with_keys_of(&ada).unwrap();
    for version in [1, 2] {
        let (onnx, probes) = (hostile::harmless(), &[PROBE][..]);
        publisher.publish(&Edge { model: "negates", version, onnx, probes }).unwrap();
    }
    bob.run(&["model", "assign", "negates@1", "--all"]).unwrap();
    device.wait_active("negates", 1).unwrap();

    let start =
        ["rollout", "start", "negates@2", "--all", "--stages", "all:1s", "--approve-from", "1"];
    let begun = ada.json(&start).unwrap();
    let approve = ["rollout", "approve", begun["id"].as_str().unwrap()];
    for operator in [&ada, &again] {
        let refused = operator.run(&approve).unwrap_err().to_string();
        assert!(refused.contains("has agreed already"), "{refused}");
    }
    assert_eq!(bob.json(&approve).unwrap()["phase"], "offering");
}
