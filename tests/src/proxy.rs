//! An HTTP proxy that lets CONNECT through, for those who know its password; and that makes trouble, when it is told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// A running proxy. It serves as long as the process lives.
pub struct HttpProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// What a proxy does to tunnels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing.
    #[default]
    None,
    /// Each is cut once so many bytes came from the other side, until that was done so often.
    Cut {
        /// How many.
        after_bytes: u64,
        /// How often.
        times: u64,
    },
    /// Once so many bytes came from the other side nothing more comes, and nothing is said of it.
    Stall {
        /// How many.
        after_bytes: u64,
    },
}

#[derive(Default)]
struct Shared {
    tunnels: AtomicU64,
    cuts: AtomicU64,
    bytes: AtomicU64,
    trouble: Mutex<Trouble>,
    changed: Condvar,
}

impl Shared {
    fn trouble(&self) -> Trouble {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes bytes on until the other side ends, or trouble comes.
    fn pass(&self, mut from: impl Read, mut to: impl Write) -> std::io::Result<()> {
        let (mut passed, mut buffer) = (0, vec![0; 16 << 10]);
        loop {
            match self.trouble() {
                Trouble::Cut { after_bytes, times }
                    if passed >= after_bytes && self.cuts.load(SeqCst) < times =>
                {
                    self.cuts.fetch_add(1, SeqCst);
                    return Ok(());
                }
                Trouble::Stall { after_bytes } if passed >= after_bytes => self.wait_for_change(),
                _ => {}
            }
            let read = from.read(&mut buffer)?;
            if read == 0 {
                return Ok(());
            }
            to.write_all(&buffer[..read])?;
            passed += read as u64;
            self.bytes.fetch_add(read as u64, SeqCst);
        }
    }

    fn wait_for_change(&self) {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let stalled = |trouble: &mut Trouble| matches!(trouble, Trouble::Stall { .. });
        drop(self.changed.wait_while(trouble, stalled));
    }
}

impl HttpProxy {
    /// Serves on a free loopback port; `credentials` are `USER:PASSWORD`.
    ///
    /// # Errors
    /// No socket.
    pub fn start(credentials: Option<&str>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let expected = credentials.map(|text| format!("Basic {}", base64(text.as_bytes())));
        let own = shared.clone();
        std::thread::spawn(move || {
            for device in listener.incoming().flatten() {
                let (expected, shared) = (expected.clone(), own.clone());
                // A device that goes away in the middle is none of the proxy's concern.
                std::thread::spawn(move || drop(serve(device, expected.as_deref(), &shared)));
            }
        });
        Ok(Self { address, shared })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections it let through.
    pub fn tunnels(&self) -> u64 {
        self.shared.tunnels.load(SeqCst)
    }

    /// From now on it does this.
    pub fn trouble(&self, trouble: Trouble) {
        *self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        self.shared.changed.notify_all();
    }

    /// How many tunnels it cut.
    pub fn cuts(&self) -> u64 {
        self.shared.cuts.load(SeqCst)
    }

    /// Bytes that came from the other side, in all tunnels.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(SeqCst)
    }
}

fn serve(
    mut device: TcpStream,
    expected: Option<&str>,
    shared: &Arc<Shared>,
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
    shared.tunnels.fetch_add(1, SeqCst);
    device.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    let (from, to, own) = (there.try_clone()?, device.try_clone()?, shared.clone());
    let back = std::thread::spawn(move || {
        let _ = own.pass(&from, &to);
        // Whoever still sends hears that it is over.
        let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
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
