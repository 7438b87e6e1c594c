use super::*;
use link::pki::DeviceKey;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::UnixTime;
use std::sync::Arc;

#[test]
fn the_same_ca_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let first = FleetCa::open(folder.path()).unwrap();
    let again = FleetCa::open(folder.path()).unwrap();
    assert_eq!(first.hash(), again.hash());
    std::fs::write(folder.path().join("ca.pem"), "junk").unwrap();
    assert!(matches!(FleetCa::open(folder.path()), Err(CaError::Damaged(_))));
}

#[test]
fn a_device_certificate_names_the_device_and_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let ca = FleetCa::open(folder.path()).unwrap();
    let key = DeviceKey::generate().unwrap();
    let request = SigningRequest::parse(&key.signing_request().unwrap()).unwrap();
    assert_eq!(request.key, key.hash());
    let der = ca.device_certificate(&"d-1".parse().unwrap(), &request).unwrap();
    let parsed = DeviceCertificate::parse(&der).unwrap();
    assert_eq!((parsed.device.as_str(), parsed.key), ("d-1", key.hash()));
    let renewed = ca.renewed_certificate(&parsed).unwrap();
    let renewed = DeviceCertificate::parse(&renewed).unwrap();
    assert_eq!((renewed.device.as_str(), renewed.key), ("d-1", key.hash()));

    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.certificate().clone()).unwrap();
    let provider = link::tls::provider();
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let check = |at| verifier.verify_client_cert(&der, &[], UnixTime::since_unix_epoch(at));
    assert!(check(now).is_ok());
    assert!(check(now + DEVICE_LIFE + DAY).is_err());
}

#[test]
fn only_this_ca_tells_the_time_and_only_once() {
    use link::pki::verify_signature;
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let [ca, stranger] = folders.each_ref().map(|f| FleetCa::open(f.path()).unwrap());
    let nonce = [3; 32];
    let answer = ca.sign_time(&nonce, 5).unwrap();
    let check = |by: &FleetCa, nonce, unix_ms| {
        let text = time::signed_text(nonce, unix_ms);
        verify_signature(by.certificate(), &text, &answer.signature).is_ok()
    };
    assert!(check(&ca, &nonce, 5));
    assert!(!check(&stranger, &nonce, 5), "another key");
    assert!(!check(&ca, &nonce, 6), "another time");
    assert!(!check(&ca, &[4; 32], 5), "another nonce");
}

#[test]
fn a_nodes_certificate_bears_its_own_name_and_not_the_control_nodes() {
    let folder = tempfile::tempdir().unwrap();
    let ca = FleetCa::open(folder.path()).unwrap();
    let key = DeviceKey::generate().unwrap();
    let request = SigningRequest::parse(&key.signing_request().unwrap()).unwrap();
    let node: NodeId = "n-1".parse().unwrap();
    let leaf = ca.node_certificate(&node, &["gpu.example".into()], &request).unwrap();
    let provider = link::tls::provider();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.certificate().clone()).unwrap();
    let builder = WebPkiServerVerifier::builder_with_provider(roots.into(), provider);
    let verifier = builder.build().unwrap();
    let is_good = |name: &str| {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier.verify_server_cert(&leaf, &[], &name, &[], UnixTime::now()).is_ok()
    };
    let names = [&node.server_name(), "gpu.example", "localhost", "n-2.node.outrigger.internal"];
    assert_eq!(names.map(is_good), [true, true, false, false]);
    let elsewhere = FleetCa::elsewhere(ca.certificate().clone(), Vec::new());
    let refused = elsewhere.node_certificate(&node, &[], &request);
    assert!(matches!(refused, Err(CaError::Elsewhere)));
    assert!(matches!(elsewhere.sign_time(&[1; 32], 5), Err(CaError::Elsewhere)));
}

#[test]
fn a_tampered_signing_request_is_refused() {
    let mut csr = DeviceKey::generate().unwrap().signing_request().unwrap();
    *csr.last_mut().unwrap() ^= 1;
    assert!(SigningRequest::parse(&csr).is_err());
}

#[test]
fn names_that_no_certificate_can_hold_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let ca = FleetCa::open(folder.path()).unwrap();
    let names = |name: &str| vec!["localhost".to_owned(), name.to_owned()];
    assert!(ca.server_identity(&names("::1")).is_ok());
    assert!(matches!(ca.server_identity(&names("a b")), Err(CaError::Name(_))));
}

/// A chain through the eyes of whoever trusts one CA.
fn is_verified(trusted: &CertificateDer<'static>, chain: &[CertificateDer<'static>]) -> bool {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let builder = WebPkiServerVerifier::builder_with_provider(roots.into(), link::tls::provider());
    let name = ServerName::try_from("localhost").unwrap();
    let verifier = builder.build().unwrap();
    let (leaf, others) = chain.split_first().unwrap();
    verifier.verify_server_cert(leaf, others, &name, &[], UnixTime::now()).is_ok()
}

#[test]
fn who_trusts_the_old_ca_follows_to_the_new_one_and_nowhere_else() {
    use link::pki::followed;
    let folder = tempfile::tempdir().unwrap();
    let old = FleetCa::open(folder.path()).unwrap();
    let announced = rotate(folder.path(), OVERLAP).unwrap();
    assert!(matches!(rotate(folder.path(), OVERLAP), Err(RotationError::UnderWay)));
    let new = FleetCa::open(folder.path()).unwrap();
    assert_eq!(new.hash(), announced);
    assert_ne!(new.hash(), old.hash());
    assert!(matches!(rotate(folder.path(), OVERLAP), Err(RotationError::UnderWay)));

    let shown = new.server_identity(&["localhost".into()]).unwrap().chain;
    let [old_ca, new_ca] = [old.certificate().clone(), new.certificate().clone()];
    let stranger_folder = tempfile::tempdir().unwrap();
    let stranger = FleetCa::open(stranger_folder.path()).unwrap().certificate().clone();
    assert!(is_verified(&old_ca, &shown) && is_verified(&new_ca, &shown));
    assert!(!is_verified(&stranger, &shown));
    let known = [old_ca.clone()];
    assert_eq!(followed(&known, &shown), [new_ca.clone(), old_ca.clone()]);
    assert_eq!(
        followed(&[new_ca.clone(), old_ca.clone()], &shown),
        [new_ca.clone(), old_ca.clone()]
    );
    // Whoever can show the new CA but nothing that the old one has signed is not followed.
    let without = |cert: &CertificateDer<'static>| {
        shown.iter().filter(|c| *c != cert).cloned().collect::<Vec<_>>()
    };
    let cross = &new.previous().unwrap().cross;
    assert_eq!(followed(&known, &without(cross)), known);
    assert_eq!(followed(std::slice::from_ref(&stranger), &shown), [stranger]);
    let mut forged = cross.to_vec();
    *forged.last_mut().unwrap() ^= 1;
    let forged = [&without(cross)[..], &[forged.into()]].concat();
    assert_eq!(followed(&known, &forged), known);

    // Certificates of both are taken until the old one is retired.
    let believed = [new_ca.clone(), old_ca.clone()];
    assert_eq!(FleetCa::open(folder.path()).unwrap().believed(), believed);
    retire(folder.path()).unwrap();
    assert!(matches!(retire(folder.path()), Err(RotationError::None)));
    let retired = FleetCa::open(folder.path()).unwrap();
    assert_eq!(retired.believed(), std::slice::from_ref(&new_ca));
    let shown = retired.server_identity(&["localhost".into()]).unwrap().chain;
    assert!(!is_verified(&old_ca, &shown));
    assert_eq!(followed(&[new_ca.clone(), old_ca], &shown), [new_ca]);
    assert!(rotate(folder.path(), OVERLAP).is_ok(), "and the next one may come");
}

#[test]
fn an_exchange_that_was_cut_off_is_begun_anew_at_each_step() {
    let folder = tempfile::tempdir().unwrap();
    let old = FleetCa::open(folder.path()).unwrap();
    let files =
        || ["ca.key", "ca.pem"].map(|name| std::fs::read(folder.path().join(name)).unwrap());
    let before = files();
    let announced = rotate(folder.path(), OVERLAP).unwrap();
    assert_eq!(files(), before, "nothing happens before the next start");
    let next = std::fs::read(folder.path().join("next.pem")).unwrap();
    assert_eq!(FleetCa::open(folder.path()).unwrap().hash(), announced);
    let after = files();
    // The power may have been cut after any of the steps: old and new files in every order.
    for (key, certificate) in [(0, 0), (0, 1), (1, 1)] {
        let pick =
            |which: usize, file: usize| if which == 0 { &before[file] } else { &after[file] };
        std::fs::write(folder.path().join("ca.key"), pick(key, 0)).unwrap();
        std::fs::write(folder.path().join("ca.pem"), pick(certificate, 1)).unwrap();
        std::fs::write(folder.path().join("next.pem"), &next).unwrap();
        let ca = FleetCa::open(folder.path()).unwrap();
        assert_eq!(ca.hash(), announced);
        assert_eq!(ca.believed()[1], *old.certificate());
        assert!(ca.sign_time(&[1; 32], 5).is_ok());
        assert!(!folder.path().join("next.pem").exists());
    }
    std::fs::write(folder.path().join("next.pem"), "junk").unwrap();
    assert!(FleetCa::open(folder.path()).is_err(), "damage is told, and nothing is thrown away");
}
