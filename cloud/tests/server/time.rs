//! Whoever connects is told the time, signed by the fleet CA, and not too often.

use link::connection::Connection;
use link::frames::{self, LinkError};
use link::pki::verify_signature;
use link::tls;
use protocol::problem::ProblemCode;
use protocol::time::{answered_ms, signed_text};
use protocol::{ALPN_AGENT, ALPN_ENROL, ALPN_RENEW, wire};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::{Cloud, start};

fn ask(
    cloud: &Cloud,
    connection: &Connection,
    nonce: &[u8],
) -> Result<wire::SignedTime, LinkError> {
    cloud.runtime.block_on(async {
        let (mut send, mut recv) = connection.open_bi().await?;
        let request = wire::TimeRequest { nonce: nonce.to_vec().into() };
        frames::send_last(&mut send, &request, []).await?;
        frames::receive(&mut recv).await
    })
}

#[test]
fn every_kind_of_connection_is_told_the_time() {
    let cloud = start();
    let device = cloud.device();
    let ca = cloud.server.cloud().ca.certificate();
    for alpn in [ALPN_AGENT, ALPN_RENEW, ALPN_ENROL] {
        let identity = (alpn != ALPN_ENROL).then(|| device.identity.clone());
        let connection = cloud.connect(tls::client(ca, identity, alpn).unwrap()).unwrap();
        let nonce: [u8; 32] = link::entropy();
        let before_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let answer = ask(&cloud, &connection, &nonce).unwrap();
        let after_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        assert!((before_ms..=after_ms).contains(&answer.unix_ms.into()));
        assert_eq!(answered_ms(&answer, &nonce).unwrap().unsigned_abs(), answer.unix_ms);
        let text = signed_text(&nonce, answer.unix_ms);
        assert!(verify_signature(ca, &text, &answer.signature).is_ok());
    }
    assert_eq!(cloud.server.cloud().events.counts().times_signed, 3);
}

#[test]
fn too_many_questions_and_wrong_ones_are_refused_and_counted() {
    let cloud = start();
    let connection = cloud.agent(&cloud.device());
    let code = |nonce: &[u8]| match ask(&cloud, &connection, nonce) {
        Ok(_) => ProblemCode::None,
        Err(error) => error.into_problem().code,
    };
    assert_eq!([0, 31, 33].map(|n| code(&vec![7; n])), [ProblemCode::InvalidRequest; 3]);
    let codes: Vec<ProblemCode> = (0..50).map(|_| code(&[7; 32])).collect();
    assert_eq!(codes[0], ProblemCode::None);
    assert!(codes.contains(&ProblemCode::Overloaded), "{codes:?}");
    let counts = cloud.server.cloud().events.counts();
    let told = codes.iter().filter(|code| **code == ProblemCode::None).count() as u64;
    assert_eq!((counts.times_signed, counts.times_refused), (told, 53 - told));
    // Beyond its limit it is no question any more, but a breach.
    assert!(ask(&cloud, &connection, &[7; 600]).is_err());
}
