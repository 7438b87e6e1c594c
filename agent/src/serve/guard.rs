//! Who may call: programs on this machine, never a web page in a browser on it.

use super::{Context, failure};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use protocol::problem::{Problem, ProblemCode};
use std::net::IpAddr;
use std::sync::Arc;

pub(super) async fn local_callers_only(
    State(context): State<Arc<Context>>,
    request: Request,
    next: Next,
) -> Response {
    match check(request.headers()) {
        Ok(()) => next.run(request).await,
        Err(problem) => {
            context.counters.refused(&problem);
            failure(&problem)
        }
    }
}

fn check(headers: &HeaderMap) -> Result<(), Problem> {
    let refuse =
        |text: &str, hint: &str| Err(Problem::new(ProblemCode::Unauthorised, text).hint(hint));
    if headers.contains_key(header::ORIGIN) {
        return refuse(
            "requests of web pages are refused",
            "call the local API from a program, not from a browser",
        );
    }
    // HTTP/2 carries the host in the URI; every HTTP/1.1 request has the header.
    match headers.get(header::HOST).map(|h| h.to_str().unwrap_or("")) {
        Some(host) if !is_loopback(host) => {
            refuse("the Host is not this machine", "use http://127.0.0.1 or http://localhost")
        }
        _ => Ok(()),
    }
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

    #[test]
    fn only_loopback_hosts() {
        for good in ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "127.1.2.3", "[::1]:8000"] {
            assert!(is_loopback(good), "{good}");
        }
        for bad in ["evil.example", "127.0.0.1.evil.example:8000", "10.0.0.1:8000", "", "0.0.0.0"] {
            assert!(!is_loopback(bad), "{bad}");
        }
    }

    #[test]
    fn browsers_are_refused() {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "localhost".parse().unwrap());
        assert!(check(&headers).is_ok());
        headers.insert(header::ORIGIN, "http://evil.example".parse().unwrap());
        assert_eq!(check(&headers).unwrap_err().code, ProblemCode::Unauthorised);
    }
}
