use super::*;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

fn day(n: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(n * 24 * 3600))
}

/// Days from 1970 to 2000.
const EPOCH_TO_2000: i64 = 10_957;

/// A CA valid for ever, and a device certificate valid from day 10 to day 11 after 2000-01-01.
fn ca_and_device() -> (CertificateDer<'static>, CertificateDer<'static>) {
    ca_and_leaf("d-1", &[])
}

fn ca_and_leaf(
    subject: &str,
    names: &[String],
) -> (CertificateDer<'static>, CertificateDer<'static>) {
    let key = || KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = key();
    let ca_cert = ca.self_signed(&ca_key).unwrap();
    let mut device = CertificateParams::new(names).unwrap();
    device.distinguished_name.push(DnType::CommonName, subject);
    device.not_before = rcgen::date_time_ymd(2000, 1, 11);
    device.not_after = rcgen::date_time_ymd(2000, 1, 12);
    let cert = device.signed_by(&key(), &Issuer::new(ca, ca_key)).unwrap();
    (ca_cert.der().clone(), cert.der().clone())
}

#[test]
fn a_certificate_passes_within_the_grace_on_either_side_and_not_beyond() {
    let (ca, device) = ca_and_device();
    let roots = Arc::new(roots(&[ca]).unwrap());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
    let verifier = WithGrace(verifier.allow_unauthenticated().build().unwrap());

    let check = |d: i64| {
        verifier.verify_client_cert(&device, &[], day((EPOCH_TO_2000 + d).unsigned_abs())).is_ok()
    };
    let valid: Vec<i64> =
        [-81, -80, 9, 10, 11, 12, 50, 101, 102, 200].into_iter().filter(|d| check(*d)).collect();
    assert_eq!(valid, [-80, 9, 10, 11, 12, 50, 101]);
}

#[test]
fn an_agent_verifies_all_of_a_server_but_its_dates() {
    let (ca, server) = ca_and_leaf("cloud", &["cloud.example".to_owned()]);
    let (stranger, _) = ca_and_leaf("cloud", &[]);
    let name = |text: &'static str| ServerName::try_from(text).unwrap();
    for by_hash in [false, true] {
        let check = |ca: &CertificateDer<'static>, server_name| {
            let hash = ContentHash::of(ca);
            let known: Arc<dyn ServerCertVerifier> = if by_hash {
                Arc::new(PinnedCa { ca_hash: hash, provider: provider() })
            } else {
                let roots = Arc::new(roots(std::slice::from_ref(ca)).unwrap());
                WebPkiServerVerifier::builder_with_provider(roots, provider()).build().unwrap()
            };
            let shown = [ca.clone()];
            // Long after its end, and before its beginning.
            [0, 30_000].map(|at| {
                let verifier = DatesLater(known.clone());
                verifier.verify_server_cert(&server, &shown, &server_name, &[], day(at)).is_ok()
            })
        };
        assert_eq!(check(&ca, name("cloud.example")), [true, true]);
        assert_eq!(check(&ca, name("other.example")), [false, false]);
        assert_eq!(check(&stranger, name("cloud.example")), [false, false]);
    }
}
