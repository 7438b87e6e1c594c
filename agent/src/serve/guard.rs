//! Who may call: programs on this machine, never a web page in a browser on it; and where
//! applications are configured, only those that show their token or may open the Unix socket.

use super::Applications;
use crate::counters::Counters;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Uri, header};
use axum::middleware::Next;
use axum::response::Response;
use oip::Caller;
use protocol::problem::{Problem, ProblemCode};
use std::net::IpAddr;
use std::sync::Arc;

/// Through what a caller comes.
pub(crate) enum Door {
    /// A loopback address: any program on this machine, so tokens tell them apart.
    Tcp(Arc<Applications>),
    /// The Unix socket: whoever may open the file, and may also load and unload.
    Unix,
}

/// A door and where its refusals are counted.
pub(super) struct Gate {
    pub(super) counters: Arc<Counters>,
    pub(super) door: Door,
}

enum Refusal {
    Forbidden(Problem),
    Unauthenticated(Problem),
}

pub(super) async fn admit(
    State(gate): State<Arc<Gate>>,
    mut request: Request,
    next: Next,
) -> Response {
    match check(&gate.door, request.uri(), request.headers()) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(Refusal::Forbidden(problem)) => {
            gate.counters.refused(&problem);
            oip::forbidden(request.headers(), &problem)
        }
        Err(Refusal::Unauthenticated(problem)) => {
            gate.counters.refused(&problem);
            oip::unauthenticated(request.headers(), &problem)
        }
    }
}

fn check(door: &Door, uri: &Uri, headers: &HeaderMap) -> Result<Caller, Refusal> {
    if headers.contains_key(header::ORIGIN) {
        return Err(Refusal::Forbidden(problem(
            "requests of web pages are refused",
            "call the local API from a program, not from a browser",
        )));
    }
    match door {
        Door::Unix => Ok(Caller::unlimited().managing()),
        Door::Tcp(applications) => {
            check_host(uri, headers)?;
            check_token(applications, headers)
        }
    }
}

/// HTTP/2 carries the host in the URI; every HTTP/1.1 request has the header.
fn check_host(uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let header = headers.get(header::HOST).map(|host| host.to_str().unwrap_or(""));
    let authority = uri.authority().map(axum::http::uri::Authority::as_str);
    if [header, authority].into_iter().flatten().all(is_loopback) {
        return Ok(());
    }
    let hint = "use http://127.0.0.1 or http://localhost";
    Err(Refusal::Forbidden(problem("the Host is not this machine", hint)))
}

fn check_token(applications: &Applications, headers: &HeaderMap) -> Result<Caller, Refusal> {
    if !applications.are_configured() {
        return Ok(Caller::unlimited());
    }
    let shown = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let token = shown.and_then(|value| value.split_at_checked(7));
    let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "));
    let holder = token.and_then(|(_, token)| applications.holder(token.trim_ascii()));
    holder.ok_or_else(|| {
        let hint = "send \"Authorization: Bearer TOKEN\" with a token of [[local.applications]]";
        Refusal::Unauthenticated(problem("this agent answers known applications only", hint))
    })
}

fn problem(text: &str, hint: &str) -> Problem {
    Problem::new(ProblemCode::Unauthorised, text).hint(hint)
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Application;
    use protocol::id::ContentHash;

    #[test]
    fn only_loopback_hosts() {
        for good in ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "127.1.2.3", "[::1]:8000"] {
            assert!(is_loopback(good), "{good}");
        }
        for bad in ["evil.example", "127.0.0.1.evil.example:8000", "10.0.0.1:8000", "", "0.0.0.0"] {
            assert!(!is_loopback(bad), "{bad}");
        }
    }

    /// `ok`, `403` or `401` for these headers at a path or URI.
    fn outcome(door: &Door, uri: &str, pairs: &[(header::HeaderName, &str)]) -> &'static str {
        let headers: HeaderMap =
            pairs.iter().map(|(n, v)| (n.clone(), v.parse().unwrap())).collect();
        match check(door, &uri.parse().unwrap(), &headers) {
            Ok(_) => "ok",
            Err(Refusal::Forbidden(_)) => "403",
            Err(Refusal::Unauthenticated(_)) => "401",
        }
    }

    #[test]
    fn hosts_and_origins_per_door() {
        let tcp = Door::Tcp(Arc::new(Applications::new(&[])));
        let page = (header::ORIGIN, "http://evil.example");
        for (uri, headers, at_tcp, at_unix) in [
            ("/v2", vec![(header::HOST, "localhost")], "ok", "ok"),
            ("/v2", vec![(header::HOST, "evil.example")], "403", "ok"),
            ("http://evil.example/v2", vec![], "403", "ok"),
            ("http://127.0.0.1:8001/v2", vec![], "ok", "ok"),
            ("/v2", vec![(header::HOST, "localhost"), page], "403", "403"),
        ] {
            assert_eq!(outcome(&tcp, uri, &headers), at_tcp, "{uri} {headers:?}");
            assert_eq!(outcome(&Door::Unix, uri, &headers), at_unix, "{uri} {headers:?}");
        }
    }

    #[test]
    fn tokens_open_what_they_are_for() {
        let application = |token: &str, models: Option<&str>| Application {
            name: token.into(),
            token_sha256: ContentHash::of(token.as_bytes()),
            models: models.map(|m| [m.parse().unwrap()].into()),
        };
        let known = [application("one", Some("fashion")), application("two", None)];
        let applications = Applications::new(&known);
        let only_fashion =
            Caller::of_models(Arc::new(["fashion".parse().unwrap()].into())).named("one");
        assert_eq!(applications.holder(b"one"), Some(only_fashion));
        assert_eq!(applications.holder(b"two"), Some(Caller::unlimited().named("two")));
        let door = Door::Tcp(Arc::new(applications));
        for (shown, expected) in [
            ("Bearer one", "ok"),
            ("bearer two", "ok"),
            ("Bearer three", "401"),
            ("Bearer ", "401"),
            ("Basic one", "401"),
            ("one", "401"),
        ] {
            assert_eq!(
                outcome(&door, "/v2", &[(header::AUTHORIZATION, shown)]),
                expected,
                "{shown}"
            );
        }
        assert_eq!(outcome(&door, "/v2", &[]), "401");
    }
}
