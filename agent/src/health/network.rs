//! The way to the cloud: name, UDP, TCP and how long a round takes. The looks run side by side.
//!
//! The handshake is made with the renewal's ALPN: it proves the device's identity in both
//! directions, takes a certificate that ended not long ago, and does not count as the device's
//! connection, which a running agent may hold at the same time.

use super::{Check, Finding, Group, Subject, bounded_value, needs_enrolment};
use crate::uplink::{CloudAddress, UplinkError};
use ::link::tls;
use protocol::problem::chain;
use std::net::{SocketAddr, TcpStream};
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

/// What the three looks brought.
struct Seen {
    name: Finding,
    quic: Result<Duration, Finding>,
    tcp: Finding,
}

pub(super) fn look(subject: &Subject) -> Network {
    let seen = seen(subject).unwrap_or_else(all_skipped);
    let reaches_cloud = seen.quic.is_ok();
    let rtt = seen
        .quic
        .as_ref()
        .map_or_else(|_| Finding::skipped("no connection to measure"), |rtt| round_trip(*rtt));
    let quic = seen.quic.map_or_else(
        |finding| finding,
        |_| Finding::ok("QUIC handshake with this device's certificate"),
    );
    let checks = [
        ("cloud-name", seen.name),
        ("cloud-udp", quic),
        ("cloud-round-trip", rtt),
        ("cloud-tcp", seen.tcp),
        ("udp-buffers", udp_buffers()),
    ]
    .map(|(name, finding)| Group::Network.check(name, finding));
    Network { checks: checks.into(), reaches_cloud }
}

fn all_skipped(why: Finding) -> Seen {
    Seen { name: why.clone(), quic: Err(why.clone()), tcp: why }
}

fn seen(subject: &Subject) -> Result<Seen, Finding> {
    let enrolment = subject.enrolment.as_ref().ok_or_else(needs_enrolment)?;
    let address: CloudAddress = enrolment.cloud.parse().map_err(|e: UplinkError| {
        Finding::failed(chain(&e)).hint("enrol again with a fresh token and --replace")
    })?;
    let (name, resolved) = resolve(&address);
    let Some(resolved) = resolved else {
        let why = Finding::skipped("the cloud's name has no address");
        return Ok(Seen { name, quic: Err(why.clone()), tcp: why });
    };
    let over_tcp = std::thread::spawn(move || tcp(resolved));
    let quic = handshake(subject, &address);
    let tcp = over_tcp.join().unwrap_or_else(|_| Finding::skipped("could not be tried"));
    Ok(Seen { name, quic, tcp })
}

fn resolve(address: &CloudAddress) -> (Finding, Option<SocketAddr>) {
    let own = address.clone();
    let hint = "does this device have a network and a name server? Try: getent hosts HOST";
    let found = bounded_value(PATIENCE, move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(UplinkError::Socket)?.block_on(own.resolve())
    });
    match found {
        Some(Ok(found)) => (Finding::ok(format!("{address} is {found}")), Some(found)),
        Some(Err(error)) => (Finding::failed(chain(&error)).hint(hint), None),
        None => (Finding::failed("no answer of the name server").hint(hint), None),
    }
}

/// How long a round to the cloud takes, once it knows us and we know it.
fn handshake(subject: &Subject, address: &CloudAddress) -> Result<Duration, Finding> {
    let identity = subject.files.ca().and_then(|ca| Ok((ca, subject.files.tls()?)));
    let (ca, identity) =
        identity.map_err(|_| Finding::skipped("the identity cannot be read; see there"))?;
    let connect = async {
        let trust = tls::Trust::Ca(ca);
        let link =
            address.connect(trust, Some(identity), protocol::ALPN_RENEW, &subject.clock).await?;
        let closed = link.connection.closed();
        if let Ok(refusal) = tokio::time::timeout(REFUSAL_PATIENCE, closed).await {
            return Err(refusal.into());
        }
        let rtt = link.connection.rtt();
        link.finish().await;
        Ok(rtt)
    };
    let bounded = async { tokio::time::timeout(PATIENCE, connect).await };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map(|runtime| runtime.block_on(bounded)) {
        Ok(Ok(result)) => result.map_err(|e: UplinkError| match e.hint() {
            "" => unreachable_by_udp(&chain(&e)),
            hint => Finding::failed(chain(&e)).hint(hint),
        }),
        Ok(Err(_)) => Err(unreachable_by_udp("no answer")),
        Err(error) => Err(Finding::failed(error.to_string())),
    }
}

fn unreachable_by_udp(why: &str) -> Finding {
    Finding::failed(format!("no QUIC connection: {why}"))
        .hint("is outrigger-cloud running there, and its port open for UDP both ways? Models here go on answering")
}

fn round_trip(rtt: Duration) -> Finding {
    let text = format!("{:.1} ms", rtt.as_secs_f64() * 1000.0);
    if rtt > SLOW {
        return Finding::warning(text)
            .hint("a slow way to the cloud: deferrals need longer deadlines");
    }
    Finding::ok(text)
}

fn tcp(address: SocketAddr) -> Finding {
    match TcpStream::connect_timeout(&address, PATIENCE) {
        Ok(_) => {
            Finding::ok("open; the agent does not use it (the fallback to TCP is not built yet)")
        }
        Err(error) => Finding::warning(format!("{error}; the agent does not use it yet")).hint(
            "where UDP works too, nothing is lost; open the port for TCP for the coming fallback",
        ),
    }
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
    use super::super::Outcome::{Ok as Fine, Warning};
    use super::*;

    #[test]
    fn judgements() {
        assert_eq!([64, 208].map(|kib| udp_buffer(kib).outcome), [Warning, Fine]);
        let rounds = [1, 500, 501].map(|ms| round_trip(Duration::from_millis(ms)).outcome);
        assert_eq!(rounds, [Fine, Fine, Warning]);
    }
}
