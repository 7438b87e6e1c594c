//! `protocol::tuf` driven over HTTP and a folder: what the public conformance suite runs, and what our
//! own set of attacks runs in one process. It decides nothing that the machine decides.

use anyhow::{Context, bail};
use link::durable::{self, Access};
use protocol::tuf::client::{Answer, Step, Updater, Wanted, quote, trusted_root};
use protocol::tuf::metadata::Target;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub mod forgeries;
pub mod suite;

/// Metadata that are trusted, a file for each role.
pub struct Folder(PathBuf);

impl Folder {
    /// A folder of that name.
    pub fn new(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// Begins with this root, which is trusted because it was given.
    ///
    /// # Errors
    /// It is no root, or cannot be kept.
    pub fn init(&self, root: &[u8]) -> anyhow::Result<()> {
        trusted_root(root)?;
        self.keep("root", root)
    }

    fn keep(&self, role: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let path = self.0.join(format!("{}.json", quote(role)));
        durable::write(&path, bytes, Access::Public).with_context(|| path.display().to_string())
    }

    /// What is kept, by role.
    fn stored(&self) -> anyhow::Result<BTreeMap<String, Vec<u8>>> {
        let mut stored = BTreeMap::new();
        for entry in std::fs::read_dir(&self.0)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Some(role) = name.strip_suffix(".json").and_then(unquote) {
                stored.insert(role, std::fs::read(&path)?);
            }
        }
        Ok(stored)
    }
}

fn unquote(name: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = name.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(behind.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &behind[2..];
        } else {
            bytes.push(*first);
            rest = behind;
        }
    }
    String::from_utf8(bytes).ok()
}

/// A client of one repository.
pub struct Client<'a> {
    folder: &'a Folder,
    metadata_url: &'a str,
    updater: Updater,
}

impl<'a> Client<'a> {
    /// Brings all metadata up to date, by the system's clock.
    ///
    /// # Errors
    /// The repository is refused.
    pub fn refresh(folder: &'a Folder, metadata_url: &'a str) -> anyhow::Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let updater = Updater::begin(folder.stored()?, i64::try_from(now)?)?;
        let mut client = Self { folder, metadata_url, updater };
        client.drive()?;
        Ok(client)
    }

    fn drive(&mut self) -> anyhow::Result<()> {
        loop {
            match self.updater.poll() {
                Step::Done => return Ok(()),
                Step::Keep(kept) => self.folder.keep(&kept.role, &kept.bytes)?,
                Step::Fetch(wanted) => {
                    let answer = self.fetch(&wanted);
                    self.updater.handle(answer)?;
                }
            }
        }
    }

    fn fetch(&self, wanted: &Wanted) -> Answer {
        get(
            &format!("{}/{}", self.metadata_url.trim_end_matches('/'), wanted.file_name()),
            wanted.max_bytes,
        )
    }

    /// What the repository says of a target.
    ///
    /// # Errors
    /// It says nothing, or is refused.
    pub fn find(&mut self, path: &str) -> anyhow::Result<Target> {
        self.updater.find(path)?;
        self.drive()?;
        self.updater.found().cloned().with_context(|| format!("no role names {path}"))
    }

    /// Fetches a target into a folder, unless it is there.
    ///
    /// # Errors
    /// It is not what was signed, or not there.
    pub fn download(&mut self, path: &str, url: &str, folder: &Path) -> anyhow::Result<()> {
        let target = self.find(path)?;
        let place = folder.join(quote(path));
        if std::fs::read(&place).is_ok_and(|bytes| target.check(path, &bytes).is_ok()) {
            return Ok(());
        }
        let name = match target.hashes.values().next() {
            Some(hash) if self.updater.root().consistent_snapshot => match path.rsplit_once('/') {
                Some((folder, name)) => format!("{folder}/{hash}.{name}"),
                None => format!("{hash}.{path}"),
            },
            _ => path.to_owned(),
        };
        match get(&format!("{}/{name}", url.trim_end_matches('/')), target.length) {
            Answer::Found(bytes) => {
                target.check(path, &bytes)?;
                Ok(durable::write(&place, &bytes, Access::Public)?)
            }
            other => bail!("{path}: {other:?}"),
        }
    }
}

/// Gets a URL, of at most so many bytes.
fn get(url: &str, max_bytes: u64) -> Answer {
    match try_get(url, max_bytes) {
        Ok(answer) => answer,
        Err(_) => Answer::Unreachable,
    }
}

fn try_get(url: &str, max_bytes: u64) -> io::Result<Answer> {
    let bad = || io::Error::other("not HTTP");
    let rest = url.strip_prefix("http://").ok_or_else(bad)?;
    let (host, path) = rest.split_once('/').ok_or_else(bad)?;
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(format!("GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes())?;
    let head_max = 64 << 10; // beside what is wanted
    let mut all = Vec::new();
    stream.take(max_bytes.saturating_add(head_max)).read_to_end(&mut all)?;
    let end = all.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(bad)?;
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let body = all.split_off(end + 4);
    match head.split(' ').nth(1) {
        Some("200") if body.len() as u64 > max_bytes => Ok(Answer::Endless),
        Some("200") => Ok(Answer::Found(body)),
        Some("404") => Ok(Answer::Absent),
        _ => Err(bad()),
    }
}
