//! An HTTP proxy that lets CONNECT through, for those who know its password.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// A running proxy. It serves as long as the process lives.
pub struct HttpProxy {
    address: SocketAddr,
    tunnels: Arc<AtomicU64>,
}

impl HttpProxy {
    /// Serves on a free loopback port; `credentials` are `USER:PASSWORD`.
    ///
    /// # Errors
    /// No socket.
    pub fn start(credentials: Option<&str>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let tunnels = Arc::new(AtomicU64::new(0));
        let expected = credentials.map(|text| format!("Basic {}", base64(text.as_bytes())));
        let counted = tunnels.clone();
        std::thread::spawn(move || {
            for device in listener.incoming().flatten() {
                let (expected, tunnels) = (expected.clone(), counted.clone());
                // A device that goes away in the middle is none of the proxy's concern.
                std::thread::spawn(move || drop(serve(device, expected.as_deref(), &tunnels)));
            }
        });
        Ok(Self { address, tunnels })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it let through.
    pub fn tunnels(&self) -> u64 {
        self.tunnels.load(SeqCst)
    }
}

fn serve(
    mut device: TcpStream,
    expected: Option<&str>,
    tunnels: &AtomicU64,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(device.try_clone()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            break;
        }
        lines.push(line.trim_end().to_owned());
    }
    let target = lines.first().and_then(|line| line.strip_prefix("CONNECT ")?.split(' ').next());
    let Some(target) = target else {
        return device.write_all(b"HTTP/1.1 405 Method Not Allowed\r\n\r\n");
    };
    let said = lines.iter().find_map(|line| line.strip_prefix("Proxy-Authorization: "));
    if expected.is_some() && said != expected {
        let refusal =
            "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n";
        return device.write_all(refusal.as_bytes());
    }
    let mut there = TcpStream::connect(target)?;
    tunnels.fetch_add(1, SeqCst);
    device.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (mut from, mut to) = (there.try_clone()?, device.try_clone()?);
    let back = std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let _ = std::io::copy(&mut reader, &mut there);
    let _ = there.shutdown(Shutdown::Write);
    let _ = back.join();
    Ok(())
}

/// RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |chunk: &[u8]| {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        let digit = |at: usize| match at <= chunk.len() {
            true => char::from(ALPHABET[(bits >> (18 - 6 * at) & 63) as usize]),
            false => '=',
        };
        (0..4).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}
