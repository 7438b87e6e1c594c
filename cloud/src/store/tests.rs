mod migrations;

use super::audit::By;
use super::models::{PushError, Pushed};
use super::tokens::{Applicant, EnrolError, NewToken};
use super::*;
use fleet::desired::Assignment;
use protocol::id::{ContentHash, DeviceId, TenantName, Variant, Version};
use protocol::manifest::{FORMAT, FileRef, MODEL_FILE, Manifest, Probes, SigningKey, TensorSpec};
use protocol::tensor::DataType;
use protocol::token::Secret;

pub(super) fn store() -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("cloud.db")).unwrap();
    (folder, store)
}

pub(super) fn by() -> By {
    By { actor: "test".into(), now_s: 1000 }
}

fn secret(seed: u8) -> Secret {
    Secret::from_entropy([seed; 32])
}

pub(super) fn applicant(seed: u8, key: &str, now_s: i64) -> Applicant {
    Applicant {
        token_id: "t".into(),
        presented: secret(seed).digest(),
        key: ContentHash::of(key.as_bytes()),
        hostname: format!("host-{key}"),
        agent_version: "1".into(),
        fresh_id: format!("d-{key}-{now_s}").parse().unwrap(),
        now_s,
    }
}

pub(super) fn add_token(store: &Store) {
    add_token_for(store, "door", 1);
}

fn add_token_for(store: &Store, label: &str, uses_max: u32) {
    let digest = secret(1).digest();
    let token = NewToken {
        labels: <_>::default(),
        id: "t".into(),
        digest,
        label: label.into(),
        uses_max,
        tenant: TenantName::default(),
        expires_at_s: 2000,
    };
    store.add_token(&by(), &token).unwrap();
}

#[test]
fn one_token_makes_one_device() {
    let (_folder, store) = store();
    add_token(&store);
    let check = |seed, key: &str, now_s| match store.enrol(&applicant(seed, key, now_s)) {
        Ok(device) => device.to_string(),
        Err(EnrolError::Refused(problem)) => problem.message,
        Err(EnrolError::Store(error)) => panic!("{error}"),
    };
    assert!(check(2, "a", 1500).contains("unknown"));
    assert_eq!(check(1, "a", 1500), "d-a-1500");
    assert_eq!(check(1, "a", 1600), "d-a-1500", "the same key gets the same device");
    assert!(check(1, "b", 1600).contains("used before"));
    assert!(check(1, "a", 2000).contains("expired"));
    let devices = store.devices().unwrap();
    assert_eq!(devices.len(), 1);
    assert_eq!((devices[0].label.as_str(), devices[0].last_seen_s), ("door", None));
}

#[test]
fn a_token_for_three_makes_three_devices_and_tells_them_apart() {
    let (_folder, store) = store();
    add_token_for(&store, "line-{n}", 3);
    let enrol = |key: &str| store.enrol(&applicant(1, key, 1500)).map(|device| device.to_string());
    for key in ["a", "b", "a", "c", "b"] {
        assert_eq!(enrol(key).unwrap(), format!("d-{key}-1500"));
    }
    let Err(EnrolError::Refused(problem)) = enrol("d") else { panic!("a fourth") };
    assert!(problem.message.contains("as many devices"), "{problem}");
    let labels: Vec<_> = store.devices().unwrap().into_iter().map(|d| d.label).collect();
    assert_eq!(labels, ["line-1", "line-2", "line-3"]);
    let token = &store.tokens().unwrap()[0];
    assert_eq!((token.uses, token.uses_max, token.revoked_at_s), (3, 3, None));
    assert!(store.revoke_token(&by(), "t").unwrap());
    assert!(!store.revoke_token(&by(), "t").unwrap());
    assert!(enrol("a").unwrap_err().to_string().contains("revoked"));
}

#[test]
fn a_denied_device_cannot_enrol_again() {
    let (_folder, store) = store();
    add_token(&store);
    let device = store.enrol(&applicant(1, "a", 1500)).unwrap();
    assert!(store.deny_device(&by(), &device, true).unwrap());
    assert!(store.known_device(&device).unwrap().unwrap().denied);
    assert!(store.enrol(&applicant(1, "a", 1600)).is_err());
    assert!(!store.deny_device(&by(), &"d-x".parse().unwrap(), true).unwrap());
}

#[test]
fn the_audit_log_is_append_only() {
    let (_folder, store) = store();
    add_token(&store);
    let entries = store.audit(10).unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(
        (entries[0].action.as_str(), entries[0].at.as_str()),
        ("token.create", "1970-01-01T00:16:40Z")
    );
    for sql in ["UPDATE audit SET actor = 'x'", "DELETE FROM audit"] {
        let refused: Result<usize, StoreError> = store.change(|t| Ok(t.execute(sql, [])?));
        assert!(protocol::problem::chain(&refused.unwrap_err()).contains("append-only"), "{sql}");
    }
    assert_eq!(store.audit(10).unwrap(), entries);
}

fn manifest(version: u64, variant: Variant, tolerance: f32) -> Manifest {
    let file = |text: &str| FileRef { sha256: ContentHash::of(text.as_bytes()), size_bytes: 7 };
    let spec =
        |name: &str| TensorSpec { name: name.into(), datatype: DataType::Fp32, shape: vec![1] };
    Manifest {
        format: FORMAT,
        model: "m".parse().unwrap(),
        version: Version::new(version).unwrap(),
        variant,
        inputs: vec![spec("x")],
        outputs: vec![spec("y")],
        files: [(MODEL_FILE.to_owned(), file("onnx")), ("probes.pb".to_owned(), file("probes"))]
            .into(),
        preprocess: vec![],
        constants: vec![],
        state: vec![],
        postprocess: vec![],
        default_outputs: vec![],
        classes: None,
        calibration: None,
        thrift: None,
        probes: Probes { file: "probes.pb".into(), tolerance },
        never_leaves_device: false,
        provenance: Default::default(),
    }
}

fn push(store: &Store, manifest: &Manifest) -> Result<Pushed, PushError> {
    let key = SigningKey::from_seed(&[3; 32]);
    store.add_signer(&by(), key.public(), "test").unwrap();
    store.push_bundle(&by(), &key.sign(manifest), manifest)
}

#[test]
fn versions_only_grow_within_a_variant() {
    let (_folder, store) = store();
    let check =
        |version, variant, tolerance| match push(&store, &manifest(version, variant, tolerance)) {
            Ok(pushed) => format!("{pushed:?}"),
            Err(error) => error.to_string(),
        };
    assert_eq!(check(2, Variant::Cloud, 0.1), "Added");
    assert_eq!(check(2, Variant::Edge, 0.1), "Added");
    assert_eq!(check(2, Variant::Edge, 0.1), "Unchanged");
    let refused = "version 2 of m (edge) is not newer than version 2";
    assert_eq!(check(2, Variant::Edge, 0.2), refused);
    assert_eq!(check(1, Variant::Edge, 0.1), refused.replacen('2', "1", 1));
    assert_eq!(check(3, Variant::Edge, 0.1), "Added");
    assert_eq!(store.bundles().unwrap().len(), 3);
}

#[test]
fn desired_state_follows_assignments() {
    let (_folder, store) = store();
    add_token(&store);
    let device = store.enrol(&applicant(1, "a", 1500)).unwrap();
    push(&store, &manifest(1, Variant::Cloud, 0.1)).unwrap();
    push(&store, &manifest(1, Variant::Edge, 0.1)).unwrap();
    push(&store, &manifest(2, Variant::Edge, 0.1)).unwrap();
    let assign = |device: Option<&DeviceId>, version| {
        let (device, version) = (device.cloned(), Version::new(version).unwrap());
        store.assign(&by(), &Assignment { device, model: "m".parse().unwrap(), version })
    };
    let check = || {
        let models = store.desired(&device).unwrap().state.models;
        models.iter().map(|m| (m.version, m.cloud_variant)).collect::<Vec<_>>()
    };
    let blob = ContentHash::of(b"onnx");
    assert_eq!(check(), []);
    assert_eq!(store.readable_blob(&device, blob).unwrap(), None);
    let before = store.revision().unwrap();
    assign(None, 1).unwrap();
    assert!(store.revision().unwrap() > before);
    assert_eq!(check(), [(1, true)]);
    assert_eq!(store.readable_blob(&device, blob).unwrap(), Some(7));
    assert_eq!(store.readable_blob(&device, ContentHash::of(b"other")).unwrap(), None);
    assign(Some(&device), 2).unwrap();
    assert_eq!(check(), [(2, false)]);
    assert!(assign(None, 3).unwrap_err().to_string().contains("no edge variant"));
    assert!(
        assign(Some(&"d-x".parse().unwrap()), 1).unwrap_err().to_string().contains("no device")
    );
}

#[test]
fn a_newer_schema_is_left_alone() {
    let (folder, store) = store();
    drop(store);
    let path = folder.path().join("cloud.db");
    assert!(Store::open(&path).is_ok(), "the same schema opens again");
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    assert!(matches!(Store::open(&path), Err(StoreError::Newer { found: 99 })));
}
