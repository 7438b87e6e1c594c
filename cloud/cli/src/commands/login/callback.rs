//! Where a browser ends: a port on loopback that answers one path, for as long as a sign-in lasts.

use anyhow::Context;
use fleet::sign_in::ticket::{CALLBACK_PATH, Redirect};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use crate::errors::hinted;

/// The head of a request.
const HEAD_MAX_BYTES: u64 = 16 << 10;
/// How long a browser may take to send it, or to take a page.
const PATIENCE: Duration = Duration::from_secs(5);
/// Browsers open connections that they then do not use.
const CONNECTIONS_MAX: usize = 16;

/// What a browser was sent back with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) state: String,
    pub(super) code: Option<String>,
    pub(super) issuer: Option<String>,
    pub(super) error: Option<String>,
    pub(super) error_description: Option<String>,
}

impl Answer {
    /// Reads what stands behind the question mark.
    pub(super) fn of_query(query: &str) -> Self {
        let mut answer = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let value = value.into_owned();
            match &*name {
                "state" => answer.state = value,
                "code" => answer.code = Some(value),
                "iss" => answer.issuer = Some(value),
                "error" => answer.error = Some(value),
                "error_description" => answer.error_description = Some(value),
                _ => {}
            }
        }
        answer
    }
}

/// Somebody who brings an answer.
pub(super) struct Arrival {
    pub(super) answer: Answer,
    /// The browser that waits for a page; none where a person has typed it.
    pub(super) browser: Option<Browser>,
}

/// A browser that waits for a page.
pub(super) struct Browser(TcpStream);

impl Browser {
    /// Shows a page; whether anybody still looks does not matter.
    pub(super) fn show(mut self, is_good: bool, title: &str, text: &str) {
        let status = if is_good { "200 OK" } else { "400 Bad Request" };
        let _ = self.0.write_all(page(status, title, text).as_bytes());
    }
}

/// The port.
pub(super) struct Callback {
    redirect: Redirect,
    arrivals: Receiver<Arrival>,
}

impl Callback {
    /// Listens on a free port.
    pub(super) fn open() -> anyhow::Result<Self> {
        let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = v4.or_else(|_| TcpListener::bind((Ipv6Addr::LOCALHOST, 0)));
        let listener = listener.context("cannot listen on loopback for the browser")?;
        let address: SocketAddr = listener.local_addr()?;
        let (sender, arrivals) = channel();
        let typed = sender.clone();
        std::thread::spawn(move || accept(&listener, &sender));
        std::thread::spawn(move || read_lines(std::io::stdin().lock(), &typed));
        Ok(Self { redirect: Redirect::on(address.ip(), address.port()), arrivals })
    }

    /// Where the browser has to be sent.
    pub(super) fn redirect(&self) -> &Redirect {
        &self.redirect
    }

    /// The answer to this very sign-in; others are turned away.
    pub(super) fn wait(&self, state: &str, patience: Duration) -> anyhow::Result<Arrival> {
        let end = std::time::Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(std::time::Instant::now());
            let arrival = self.arrivals.recv_timeout(left).map_err(|_| {
                hinted("nobody has signed in", "begin again; a sign-in may take 10 minutes")
            })?;
            if arrival.answer.state == state && !state.is_empty() {
                return Ok(arrival);
            }
            match arrival.browser {
                Some(browser) => browser.show(
                    false,
                    "Not this sign-in",
                    "The page belongs to another sign-in, perhaps to one that is over.",
                ),
                None => eprintln!(
                    "that is not the address that this sign-in ends at; it begins with {}?",
                    self.redirect.as_str()
                ),
            }
        }
    }
}

fn accept(listener: &TcpListener, sender: &Sender<Arrival>) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming().flatten() {
        if open.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (sender, open) = (sender.clone(), open.clone());
        std::thread::spawn(move || {
            serve(stream, &sender);
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

/// Reads one request. What is no answer gets a page here.
fn serve(mut stream: TcpStream, sender: &Sender<Arrival>) {
    let _ = stream.set_read_timeout(Some(PATIENCE));
    let _ = stream.set_write_timeout(Some(PATIENCE));
    match read_target(&stream) {
        Some(Ok(query)) => {
            let answer = Answer::of_query(&query);
            let _ = sender.send(Arrival { answer, browser: Some(Browser(stream)) });
        }
        Some(Err(status)) => {
            let _ = stream.write_all(page(status, status, "There is nothing here.").as_bytes());
        }
        None => {}
    }
}

/// The query of a request for the one path, or what else is answered; nothing where no request came.
fn read_target(stream: &TcpStream) -> Option<Result<String, &'static str>> {
    let mut lines = BufReader::new(stream.take(HEAD_MAX_BYTES)).lines();
    let first = lines.next()?.ok()?;
    // The rest has to be read: a connection that is closed with something unread may lose its answer.
    let ends = lines.map_while(Result::ok).any(|line| line.is_empty());
    let mut words = first.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Some(match (method, path) {
        _ if !ends => Err("431 Request Header Fields Too Large"),
        ("GET", CALLBACK_PATH) => Ok(query.to_owned()),
        (_, CALLBACK_PATH) => Err("405 Method Not Allowed"),
        _ => Err("404 Not Found"),
    })
}

/// Addresses that a person types, where the browser is on another machine.
fn read_lines(input: impl BufRead, sender: &Sender<Arrival>) {
    for line in input.take(1 << 20).lines().map_while(Result::ok) {
        let line = line.trim();
        if let Some((_, query)) = line.split_once('?') {
            let answer = Answer::of_query(query);
            let _ = sender.send(Arrival { answer, browser: None });
        } else if !line.is_empty() {
            let _ = sender.send(Arrival { answer: Answer::default(), browser: None });
        }
    }
}

/// A whole answer, with nothing in it from elsewhere.
fn page(status: &str, title: &str, text: &str) -> String {
    let (title, text) = (escaped(title), escaped(text));
    let body = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title}</title>\
         <style>body{{font:16px sans-serif;margin:15vh auto;max-width:32em;padding:0 1em}}</style>\
         </head><body><h1>{title}</h1><p>{text}</p></body></html>\n"
    );
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
         Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\n\
         Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn callback() -> (Callback, SocketAddr) {
        let callback = Callback::open().unwrap();
        let host = callback.redirect().as_str().strip_prefix("http://").unwrap();
        let address = host.strip_suffix(CALLBACK_PATH).unwrap().parse().unwrap();
        (callback, address)
    }

    fn send(address: SocketAddr, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        stream
    }

    fn read(mut stream: TcpStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn one_path_is_answered_and_only_for_this_sign_in() {
        let (callback, address) = callback();
        let idle = TcpStream::connect(address).unwrap(); // as browsers do
        for (request, status) in [
            ("GET / HTTP/1.1\r\n\r\n", "404"),
            ("GET /favicon.ico HTTP/1.1\r\n\r\n", "404"),
            ("GET /callback/x?state=s HTTP/1.1\r\n\r\n", "404"),
            ("POST /callback?state=s HTTP/1.1\r\n\r\n", "405"),
        ] {
            let answer = read(send(address, request));
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        }
        let most = usize::try_from(HEAD_MAX_BYTES).unwrap();
        let large = format!("GET /callback HTTP/1.1\r\nx: {}", "a".repeat(most));
        assert!(read(send(address, &large[..most])).starts_with("HTTP/1.1 431"));
        let stranger = send(address, "GET /callback?code=c&state=other HTTP/1.1\r\n\r\n");
        let own =
            "GET /callback?code=a%2Bb&state=s&iss=https%3A%2F%2Fid HTTP/1.1\r\nHost: x\r\n\r\n";
        let waiting = std::thread::spawn(move || (callback.wait("s", SOON).unwrap(), callback));
        assert!(read(stranger).starts_with("HTTP/1.1 400"));
        let own = send(address, own);
        let (arrival, _callback) = waiting.join().unwrap();
        let answer = Answer {
            state: "s".into(),
            code: Some("a+b".into()),
            issuer: Some("https://id".into()),
            ..Answer::default()
        };
        assert_eq!(arrival.answer, answer);
        arrival.browser.unwrap().show(true, "Signed in", "as <b>ada</b> & 'co'");
        let page = read(own);
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
        assert!(page.contains("as &lt;b&gt;ada&lt;/b&gt; &amp; &#39;co&#39;"), "{page}");
        for header in ["Cache-Control: no-store", "Referrer-Policy: no-referrer"] {
            assert!(page.contains(header), "{page}");
        }
        drop(idle);
    }

    #[test]
    fn an_address_can_be_typed() {
        let (sender, arrivals) = channel();
        let typed = "\n http://127.0.0.1:1/callback?code=c&state=s \nnonsense\n\
                     http://127.0.0.1:1/callback?error=access_denied&error_description=no&state=s\n";
        read_lines(typed.as_bytes(), &sender);
        drop(sender);
        let answers: Vec<_> = arrivals.iter().map(|arrival| arrival.answer).collect();
        assert_eq!(answers.len(), 3);
        assert_eq!((answers[0].code.as_deref(), answers[0].state.as_str()), (Some("c"), "s"));
        assert_eq!(answers[1], Answer::default());
        assert_eq!(answers[2].error.as_deref(), Some("access_denied"));
        assert_eq!(answers[2].error_description.as_deref(), Some("no"));
    }

    #[test]
    fn nobody_waits_for_ever() {
        let (callback, _) = callback();
        let error = callback.wait("s", Duration::from_millis(1)).err().unwrap();
        assert!(error.to_string().contains("nobody has signed in"));
    }
}
