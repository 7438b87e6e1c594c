//! Network namespaces, and threads and programs in them.

use anyhow::{Context, bail};
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::sync::Arc;

/// The folder in which `ip netns` names namespaces.
const NAMED: &str = "/var/run/netns";

/// Why there can be no laboratory here.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// Not root.
    #[error("network namespaces and TUN devices need root")]
    NotRoot,
    /// No TUN.
    #[error("/dev/net/tun cannot be opened")]
    NoTun(#[source] std::io::Error),
    /// No `ip`.
    #[error("the command ip (iproute2) is not there")]
    NoIp,
}

/// A namespace; it is removed with the value.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: Arc<File>,
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

impl Namespace {
    /// A fresh one with a TUN device of that name in it, and the other end of the device.
    pub(super) fn with_end(kind: &str, device: &str) -> anyhow::Result<(Self, File)> {
        possible()?;
        let name = format!("outrigger-{kind}-{}", std::process::id());
        command(&["netns", "add", &name])?;
        let file = Arc::new(File::open(format!("{NAMED}/{name}"))?);
        let namespace = Self { name, file };
        let device = device.to_owned();
        let end = namespace.inside(move || open_tun(&device))?.context("no TUN device")?;
        Ok((namespace, end))
    }

    /// Runs `ip` in it.
    pub(super) fn ip(&self, arguments: &[&str]) -> anyhow::Result<()> {
        command(&[&["-n", &self.name], arguments].concat())
    }

    /// Does something in a thread of this namespace, and waits for it.
    ///
    /// # Errors
    /// The thread cannot be moved there, or panicked.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                enter(&self.file)?;
                anyhow::Ok(work())
            });
            thread.join().unwrap_or_else(|_| bail!("a thread in the namespace panicked"))
        })
    }

    /// A runtime whose sockets are in this namespace.
    ///
    /// # Errors
    /// It cannot be built.
    pub fn runtime(&self, threads: usize) -> anyhow::Result<tokio::runtime::Runtime> {
        let file = self.file.clone();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .on_thread_start(move || enter(&file).expect("the namespace is there"))
            .build()?;
        Ok(runtime)
    }
}

/// Moves this thread into a namespace.
fn enter(namespace: &File) -> anyhow::Result<()> {
    // SAFETY: the call takes an open descriptor and changes this thread alone.
    #[allow(unsafe_code)]
    let result = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    if result != 0 {
        return Err(std::io::Error::last_os_error()).context("cannot enter the namespace");
    }
    Ok(())
}

fn possible() -> Result<(), Unavailable> {
    // SAFETY: the call takes nothing and cannot fail.
    #[allow(unsafe_code)]
    let user = unsafe { libc::geteuid() };
    if user != 0 {
        return Err(Unavailable::NotRoot);
    }
    tun().map_err(Unavailable::NoTun)?;
    let found = Command::new("ip").arg("-V").output();
    found.map(drop).map_err(|_| Unavailable::NoIp)
}

fn tun() -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_CLOEXEC).open("/dev/net/tun")
}

/// Makes a TUN device in the namespace of this thread.
fn open_tun(name: &str) -> anyhow::Result<File> {
    let file = tun()?;
    // SAFETY: all zeros are a valid request, which is filled in below.
    #[allow(unsafe_code)]
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_TUN | libc::IFF_NO_PI)?;
    // SAFETY: the request lives over the call, which reads and writes nothing else.
    #[allow(unsafe_code)]
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    if result != 0 {
        return Err(std::io::Error::last_os_error()).context("no TUN device");
    }
    Ok(file)
}

fn command(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments).output()?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
