//! The way to the cloud: name, UDP, TCP and how long a round takes. The looks run side by side.
//!
//! The handshakes, one over QUIC and one over TCP (through the proxy, if one is configured), are made
//! with the renewal's ALPN: it proves the device's identity in both directions, takes a certificate that
//! ended not long ago, and does not count as the device's connection, which a running agent may hold at
//! the same time.

use super::{Check, Finding, Group, Subject, bounded_value, needs_enrolment};
use crate::uplink::{CloudAddress, UplinkError, Way};
use ::link::tls;
use protocol::carrier::Wanted;
use protocol::problem::chain;
use std::net::SocketAddr;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(6);
/// TLS 1.3 tells a client after its handshake that its certificate is refused.
const REFUSAL_PATIENCE: Duration = Duration::from_millis(300);
const SLOW: Duration = Duration::from_millis(500);
/// Less than a burst of packets on a fast link.
const UDP_BUFFER_MIN_KIB: u64 = 128;

/// What the network looks like from here.
pub(super) struct Network {
    pub(super) checks: Vec<Check>,
    pub(super) reaches_cloud: bool,
}

/// What the three looks brought: of the handshakes, how long a round takes.
struct Seen {
    name: Finding,
    quic: Result<Duration, Finding>,
    tcp: Result<Duration, Finding>,
}

pub(super) fn look(subject: &Subject) -> Network {
    let seen = seen(subject).unwrap_or_else(all_skipped);
    let reaches_cloud = seen.quic.is_ok() || seen.tcp.is_ok();
    let rtt = seen.quic.as_ref().or(seen.tcp.as_ref());
    let rtt =
        rtt.map_or_else(|_| Finding::skipped("no connection to measure"), |rtt| round_trip(*rtt));
    let (quic, tcp) = judged(seen.quic, seen.tcp);
    let checks = [
        ("cloud-name", seen.name),
        ("cloud-udp", quic),
        ("cloud-round-trip", rtt),
        ("cloud-tcp", tcp),
        ("udp-buffers", udp_buffers()),
    ]
    .map(|(name, finding)| Group::Network.check(name, finding));
    Network { checks: checks.into(), reaches_cloud }
}

/// One of the two is enough: then the other is a warning only.
fn judged(quic: Result<Duration, Finding>, tcp: Result<Duration, Finding>) -> (Finding, Finding) {
    let (by_udp, by_tcp) = (quic.is_ok(), tcp.is_ok());
    let quic = quic.map_or_else(
        |finding| if by_tcp { finding.at_most_warning() } else { finding },
        |_| Finding::ok("QUIC handshake with this device's certificate"),
    );
    let tcp = tcp.map_or_else(
        |finding| if by_udp { finding.at_most_warning() } else { finding },
        |_| Finding::ok("TLS handshake with this device's certificate, for where UDP is blocked"),
    );
    (quic, tcp)
}

fn all_skipped(why: Finding) -> Seen {
    Seen { name: why.clone(), quic: Err(why.clone()), tcp: Err(why) }
}

fn seen(subject: &Subject) -> Result<Seen, Finding> {
    let enrolment = subject.enrolment.as_ref().ok_or_else(needs_enrolment)?;
    let address: CloudAddress = enrolment.cloud.parse().map_err(|e: UplinkError| {
        Finding::failed(chain(&e)).hint("enrol again with a fresh token and --replace")
    })?;
    let (name, resolved) = resolve(&address);
    if resolved.is_none() && subject.config.link.proxy.is_empty() {
        let why = Finding::skipped("the cloud's name has no address");
        return Ok(Seen { name, quic: Err(why.clone()), tcp: Err(why) });
    }
    let (quic, tcp) = std::thread::scope(|scope| {
        let over_tcp = scope.spawn(|| handshake(subject, &address, Wanted::Tcp));
        let quic = handshake(subject, &address, Wanted::Quic);
        let lost = |_| Err(Finding::skipped("could not be tried"));
        (quic, over_tcp.join().unwrap_or_else(lost))
    });
    Ok(Seen { name, quic, tcp })
}

fn resolve(address: &CloudAddress) -> (Finding, Option<SocketAddr>) {
    let own = address.clone();
    let hint = "does this device have a network and a name server? Try: getent hosts HOST";
    let found = bounded_value(PATIENCE, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(UplinkError::Runtime)?.block_on(own.resolve())
    });
    match found {
        Some(Ok(found)) => (Finding::ok(format!("{address} is {found}")), Some(found)),
        Some(Err(error)) => (Finding::failed(chain(&error)).hint(hint), None),
        None => (Finding::failed("no answer of the name server").hint(hint), None),
    }
}

/// How long a round to the cloud takes, once it knows us and we know it.
fn handshake(
    subject: &Subject,
    address: &CloudAddress,
    wanted: Wanted,
) -> Result<Duration, Finding> {
    let way = Way::over(wanted, address.clone(), &subject.config.link);
    let identity = subject.files.ca().and_then(|ca| Ok((ca, subject.files.tls()?)));
    let (ca, identity) =
        identity.map_err(|_| Finding::skipped("the identity cannot be read; see there"))?;
    let connect = async {
        let trust = tls::Trust::Ca(vec![ca]);
        let link = way.connect(trust, Some(identity), protocol::ALPN_RENEW, &subject.clock).await?;
        let closed = link.connection.closed();
        if let Ok(refusal) = tokio::time::timeout(REFUSAL_PATIENCE, closed).await {
            return Err(refusal.into());
        }
        let rtt = link.connection.rtt();
        link.connection.finish().await;
        Ok(rtt)
    };
    let bounded = async { tokio::time::timeout(PATIENCE, connect).await };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map(|runtime| runtime.block_on(bounded)) {
        Ok(Ok(result)) => result.map_err(|e: UplinkError| match e.hint() {
            "" => unreachable(wanted, &chain(&e)),
            hint => Finding::failed(chain(&e)).hint(hint),
        }),
        Ok(Err(_)) => Err(unreachable(wanted, "no answer")),
        Err(error) => Err(Finding::failed(error.to_string())),
    }
}

fn unreachable(wanted: Wanted, why: &str) -> Finding {
    if wanted == Wanted::Tcp {
        let hint =
            "where UDP works, nothing is lost; else open the port for TCP, or set [link] proxy";
        return Finding::failed(format!("no TLS connection over TCP: {why}")).hint(hint);
    }
    Finding::failed(format!("no QUIC connection: {why}"))
        .hint("is outrigger-cloud running there, and its port open for UDP both ways? Without it TCP is used, and models here go on answering")
}

fn round_trip(rtt: Duration) -> Finding {
    let text = format!("{:.1} ms", rtt.as_secs_f64() * 1000.0);
    if rtt > SLOW {
        return Finding::warning(text)
            .hint("a slow way to the cloud: deferrals need longer deadlines");
    }
    Finding::ok(text)
}

fn udp_buffers() -> Finding {
    let text = std::fs::read_to_string("/proc/sys/net/core/rmem_max").unwrap_or_default();
    match text.trim().parse::<u64>() {
        Ok(bytes) => udp_buffer(bytes / 1024),
        Err(_) => Finding::skipped("this system does not tell"),
    }
}

fn udp_buffer(kib: u64) -> Finding {
    let text = format!("up to {kib} KiB");
    if kib < UDP_BUFFER_MIN_KIB {
        return Finding::warning(text)
            .hint("packets are lost in bursts; raise it: sysctl -w net.core.rmem_max=8388608");
    }
    Finding::ok(text)
}

#[cfg(test)]
mod tests {
    use super::super::Outcome::{Failed, Ok as Fine, Warning};
    use super::*;

    #[test]
    fn judgements() {
        assert_eq!([64, 208].map(|kib| udp_buffer(kib).outcome), [Warning, Fine]);
        let rounds = [1, 500, 501].map(|ms| round_trip(Duration::from_millis(ms)).outcome);
        assert_eq!(rounds, [Fine, Fine, Warning]);
        let (works, fails) =
            (|| Ok(Duration::ZERO), || Err(unreachable(Wanted::Quic, "no answer")));
        let outcomes = |(quic, tcp): (Finding, Finding)| (quic.outcome, tcp.outcome);
        assert_eq!(outcomes(judged(fails(), works())), (Warning, Fine));
        assert_eq!(outcomes(judged(works(), fails())), (Fine, Warning));
        assert_eq!(outcomes(judged(fails(), fails())), (Failed, Failed));
    }
}
