//! What the service manager is told (the sd_notify protocol: datagrams to `NOTIFY_SOCKET`): that the
//! agent serves, that it stops, and, while its runtime makes progress, that it is alive. Where
//! nobody listens, nothing is said.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::time::Duration;

/// As many probes as the runtime has workers: one stuck worker among free ones is found too, in
/// time, because its probes are not stolen for ever.
const PROBES: usize = 4;

/// How long the agent may take to begin anew: as long as the service manager gives a start.
const ANEW: Duration = Duration::from_secs(600);

/// The way to the service manager.
#[derive(Clone)]
pub(crate) struct Notifier {
    socket: Option<Arc<UnixDatagram>>,
    /// The service manager acts when it hears nothing for this long.
    watchdog: Option<Duration>,
}

impl Notifier {
    /// The service manager that this process was started by, as its environment says.
    pub(crate) fn from_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        let socket = variable("NOTIFY_SOCKET").and_then(|address| {
            connect(&address)
                .map(Arc::new)
                .inspect_err(|error| tracing::warn!(%error, "cannot reach NOTIFY_SOCKET"))
                .ok()
        });
        let own_id = std::process::id();
        let watchdog = interval(
            variable("WATCHDOG_USEC").as_deref(),
            variable("WATCHDOG_PID").as_deref(),
            own_id,
        );
        Self { socket, watchdog }
    }

    /// Requests are answered from now on.
    pub(crate) fn ready(&self) {
        if let Some(watchdog) = self.watchdog {
            self.send(&format!("WATCHDOG_USEC={}", watchdog.as_micros())); // as before a new beginning
        }
        self.send("READY=1");
    }

    /// The agent begins anew, in the same process: no sign of life comes until it is ready.
    pub(crate) fn begins_anew(&self) {
        if self.watchdog.is_some() {
            self.send(&format!("WATCHDOG_USEC={}", ANEW.as_micros()));
        }
        self.send("RELOADING=1");
    }

    /// The agent is about to end.
    pub(crate) fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Says at half the watchdog's interval that the agent is alive, and only then: after every
    /// probe was run by the runtime. Never returns where there is no watchdog.
    pub(crate) async fn keep_alive(self) {
        let Some(watchdog) = self.watchdog else { return std::future::pending().await };
        let mut beat = tokio::time::interval(watchdog / 2);
        beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            match tokio::time::timeout(watchdog / 4, progress()).await {
                Ok(()) => self.send("WATCHDOG=1"),
                Err(_) => tracing::error!("the runtime makes no progress; the watchdog may end it"),
            }
        }
    }

    fn send(&self, message: &str) {
        let Some(socket) = &self.socket else { return };
        if let Err(error) = socket.send(message.as_bytes()) {
            tracing::warn!(%error, message, "the service manager was not told");
        }
    }
}

/// Ends once tasks that were spawned now have run.
async fn progress() {
    let probes: Vec<_> = (0..PROBES).map(|_| tokio::spawn(tokio::task::yield_now())).collect();
    for probe in probes {
        let _ = probe.await; // it cannot panic; at the runtime's end it is cancelled with this task
    }
}

/// `@name` is a name in Linux's abstract namespace, everything else a path.
fn connect(address: &str) -> io::Result<UnixDatagram> {
    let socket = UnixDatagram::unbound()?;
    match address.strip_prefix('@') {
        #[cfg(target_os = "linux")]
        Some(name) => {
            use std::os::linux::net::SocketAddrExt;
            use std::os::unix::net::SocketAddr;
            socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?;
        }
        _ => socket.connect(address)?,
    }
    // A service manager that does not read must not hold the agent up.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The watchdog's interval, where there is one and it is meant for this process.
fn interval(micros: Option<&str>, process_id: Option<&str>, own_id: u32) -> Option<Duration> {
    let ours = process_id.is_none_or(|id| id.parse() == Ok(own_id));
    let micros: u64 = micros?.parse().ok()?;
    (ours && micros > 0).then(|| Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_watchdog_counts_only_when_it_is_meant_for_us() {
        let check = |micros, id| interval(micros, id, 7);
        assert_eq!(check(Some("2000000"), Some("7")), Some(Duration::from_secs(2)));
        assert_eq!(check(Some("2000000"), None), Some(Duration::from_secs(2)));
        assert_eq!(check(Some("2000000"), Some("8")), None);
        assert_eq!(check(Some("0"), None), None);
        assert_eq!(check(Some("soon"), None), None);
        assert_eq!(check(None, Some("7")), None);
    }

    /// A notifier and the other end of its socket.
    fn pair(watchdog: Option<Duration>) -> (Notifier, UnixDatagram, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let socket = connect(path.to_str().unwrap()).unwrap();
        (Notifier { socket: Some(Arc::new(socket)), watchdog }, manager, folder)
    }

    fn heard(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 64];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[test]
    fn the_service_manager_hears_of_start_and_end() {
        let (notifier, manager, _folder) = pair(None);
        notifier.ready();
        notifier.stopping();
        assert_eq!([heard(&manager), heard(&manager)], ["READY=1", "STOPPING=1"]);
    }

    #[test]
    fn a_blocked_runtime_says_nothing() {
        let (notifier, manager, _folder) = pair(Some(Duration::from_millis(40)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let beats = tokio::spawn(notifier.keep_alive());
            tokio::time::sleep(Duration::from_millis(100)).await;
            beats.abort();
        });
        assert_eq!(heard(&manager), "WATCHDOG=1");
        manager.set_nonblocking(true).unwrap();
        while manager.recv(&mut [0; 64]).is_ok() {}
        // No task runs while the runtime's only thread is held up here.
        runtime.block_on(async { std::thread::sleep(Duration::from_millis(100)) });
        assert!(manager.recv(&mut [0; 64]).is_err());
    }
}
