//! Who the device is: enrolment, key, certificate and whom it trusts.

use super::{Check, Finding, Group, Subject, needs_enrolment};
use crate::identity::IdentityError;
use crate::key::Key;
use ::link::pki::DeviceCertificate;
use protocol::id::ContentHash;
use protocol::problem::chain;

const ENROL: &str = "outrigger-agent enrol --cloud HOST:PORT --token-file FILE";
const ENROL_AGAIN: &str = "enrol again with a fresh token and --replace";
const HOUR_S: i64 = 3600;

pub(super) fn checks(subject: &Subject) -> Vec<Check> {
    let key = subject.files.kept_key();
    let certificate = certificate(subject);
    let readable = certificate.as_ref().ok();
    let now_s = subject.clock.now_s();
    [
        ("enrolled", enrolled(subject)),
        ("device-key", device_key(subject, &key)),
        ("certificate", certificate_readable(subject, &certificate)),
        ("key-matches-certificate", key_matches(&key, readable)),
        ("certificate-expiry", readable.map_or_else(unread, |c| expiry(c, now_s))),
        ("certificate-renewal", readable.map_or_else(unread, |c| renewal(c, now_s))),
        ("fleet-ca", fleet_ca(subject)),
        ("signer-keys", signer_keys(subject)),
    ]
    .map(|(name, finding)| Group::Identity.check(name, finding))
    .into()
}

fn unread() -> Finding {
    Finding::skipped("the certificate could not be read")
}

fn certificate(subject: &Subject) -> Result<DeviceCertificate, IdentityError> {
    let chain = subject.files.chain()?;
    Ok(DeviceCertificate::parse(chain.first().ok_or(IdentityError::NotEnrolled)?)?)
}

fn enrolled(subject: &Subject) -> Finding {
    match (&subject.enrolment, &subject.enrolment_error) {
        (Some(e), _) => Finding::ok(format!("as {} at {}", e.device, e.cloud)),
        (None, Some(error)) => Finding::failed(error.clone()).hint(ENROL_AGAIN),
        (None, None) => {
            Finding::failed(format!("there is no enrolment in {}", subject.state_dir.display()))
                .hint(ENROL)
        }
    }
}

fn device_key(subject: &Subject, key: &Result<Option<Key>, IdentityError>) -> Finding {
    match key {
        Ok(Some(key)) => Finding::ok(key.place()),
        Ok(None) if subject.enrolment.is_none() => needs_enrolment(),
        Ok(None) => Finding::failed("device.key is missing").hint(ENROL_AGAIN),
        Err(error) if !error.hint().is_empty() => Finding::failed(chain(error)).hint(error.hint()),
        Err(error) => Finding::failed(chain(error)).hint(
            "run as the user of the agent; if the file is damaged, enrol again with --replace",
        ),
    }
}

fn certificate_readable(
    subject: &Subject,
    certificate: &Result<DeviceCertificate, IdentityError>,
) -> Finding {
    match certificate {
        _ if subject.enrolment.is_none() => needs_enrolment(),
        Ok(certificate) => Finding::ok(format!("for {}", certificate.device)),
        Err(error) => Finding::failed(chain(error)).hint(ENROL_AGAIN),
    }
}

fn key_matches(
    key: &Result<Option<Key>, IdentityError>,
    certificate: Option<&DeviceCertificate>,
) -> Finding {
    match (key, certificate) {
        (Ok(Some(key)), Some(certificate)) if key.hash() == certificate.key => {
            Finding::ok("the certificate is for this key")
        }
        (Ok(Some(_)), Some(_)) => {
            Finding::failed("the certificate is for another key").hint(ENROL_AGAIN)
        }
        _ => Finding::skipped("key or certificate could not be read"),
    }
}

/// An expired certificate is renewed by a running agent, unless it is past the grace.
fn expiry(certificate: &DeviceCertificate, now_s: i64) -> Finding {
    if now_s < certificate.not_before_s {
        let hours = (certificate.not_before_s - now_s) / HOUR_S;
        return Finding::failed(format!("not valid for another {hours} h"))
            .hint("is the cloud's clock right now? Then a running agent renews it by itself");
    }
    let left_s = certificate.not_after_s - now_s;
    if left_s > 0 {
        return Finding::ok(format!("valid for another {} h", left_s / HOUR_S));
    }
    let grace_s = i64::try_from(::link::tls::RENEWAL_GRACE.as_secs()).unwrap_or(i64::MAX);
    let ago = format!("expired {} h ago", -left_s / HOUR_S);
    if -left_s <= grace_s {
        Finding::failed(ago).hint("a running agent renews it once it reaches the cloud")
    } else {
        Finding::failed(format!("{ago}, too long for a renewal")).hint(ENROL_AGAIN)
    }
}

/// Renewal is due at two thirds of life; at nine tenths something has been in its way.
fn renewal(certificate: &DeviceCertificate, now_s: i64) -> Finding {
    let life_s = (certificate.not_after_s - certificate.not_before_s).max(1);
    let due_s = certificate.not_before_s + life_s / 3 * 2;
    let late_s = certificate.not_before_s + life_s / 10 * 9;
    if now_s >= late_s {
        Finding::warning("overdue")
            .hint("is the agent running and the cloud reachable? Renewal needs both")
    } else if now_s >= due_s {
        Finding::ok("due now; a running agent does it")
    } else {
        Finding::ok(format!("due in {} h", (due_s - now_s) / HOUR_S))
    }
}

fn fleet_ca(subject: &Subject) -> Finding {
    let Some(enrolment) = &subject.enrolment else { return needs_enrolment() };
    match subject.files.ca() {
        Ok(ca) if ContentHash::of(&ca) == enrolment.ca_hash => {
            Finding::ok("the one that enrolment named")
        }
        // Whoever can write this file can write what enrolment named: nothing more is to be compared.
        Ok(_) => Finding::ok("one that took the place of the one that enrolment named"),
        Err(error) => Finding::failed(chain(&error)).hint(ENROL_AGAIN),
    }
}

fn signer_keys(subject: &Subject) -> Finding {
    match subject.enrolment.as_ref().map(|e| e.signers().len()) {
        None => needs_enrolment(),
        Some(0) => Finding::failed("no key may sign models for this device, so none is installed")
            .hint("after \"outrigger login\", enrol again with a fresh token and --replace"),
        Some(n) => Finding::ok(format!("{n} may sign models for this device")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Outcome::{Failed, Ok as Fine, Warning};
    use super::*;

    #[test]
    fn a_certificate_through_its_life() {
        let certificate = DeviceCertificate {
            device: "d-1".parse().unwrap(),
            key: ContentHash::of(b""),
            public_key: Vec::new(),
            not_before_s: 0,
            not_after_s: 24 * HOUR_S,
        };
        let cases = [
            (-1, Failed, Fine),
            (HOUR_S, Fine, Fine),
            (17 * HOUR_S, Fine, Fine),
            (22 * HOUR_S, Fine, Warning),
            (25 * HOUR_S, Failed, Warning),
            (100 * 24 * HOUR_S, Failed, Warning),
        ];
        for (now_s, expected_expiry, expected_renewal) in cases {
            assert_eq!(expiry(&certificate, now_s).outcome, expected_expiry, "{now_s}");
            assert_eq!(renewal(&certificate, now_s).outcome, expected_renewal, "{now_s}");
        }
        assert!(expiry(&certificate, 100 * 24 * HOUR_S).hint.contains("enrol again"));
    }
}
