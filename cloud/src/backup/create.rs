//! Making a backup, beside a running server or without one.
//!
//! The database comes first: whatever the snapshot names was there before it. What has come since is not
//! named, and what has gone since is noticed, if it is a pushed model's.

use link::durable;
use protocol::id::{ContentHash, Hasher};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::archive::Writer;
use super::seal::{Sealer, Secret};
use super::{BackupError, DATABASE, DESCRIPTION, Description, io_at};
use crate::ca;
use crate::data_dir::KEPT;
use crate::store::audit::By;
use crate::store::beside::{Beside, Snapshot};

/// A file that goes in.
struct Kept {
    name: String,
    path: PathBuf,
    size_bytes: u64,
}

/// Backs the server in `data_dir` up into a new file. `progress` hears how many bytes were done, and of how
/// many.
///
/// # Errors
/// [`BackupError`]; no file is left behind then.
pub fn create(
    data_dir: &Path,
    to: &Path,
    secret: &Secret,
    now_s: i64,
    progress: &dyn Fn(u64, u64),
) -> Result<Description, BackupError> {
    if !data_dir.join(DATABASE).is_file() {
        return Err(BackupError::NoServer(data_dir.to_owned()));
    }
    if !data_dir.join("ca/ca.key").is_file() {
        return Err(BackupError::InferenceNode(data_dir.to_owned()));
    }
    let file = new_file(to)?;
    let made = fill(data_dir, (to, &file), secret, now_s, progress);
    if made.is_err() {
        let _ = std::fs::remove_file(to); // the first error is the one that matters
    }
    made
}

fn new_file(path: &Path) -> Result<File, BackupError> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists(path.to_owned()),
        _ => BackupError::Io { path: path.to_owned(), source },
    })
}

fn fill(
    data_dir: &Path,
    (to, file): (&Path, &File),
    secret: &Secret,
    now_s: i64,
    progress: &dyn Fn(u64, u64),
) -> Result<Description, BackupError> {
    let id = hex::encode(link::entropy::<8>());
    let incoming = data_dir.join("incoming");
    durable::create_private_folder(&incoming).map_err(io_at(&incoming))?;
    let database = SnapshotFile(incoming.join(format!("{id}.backup")));
    let store = Beside::open(&data_dir.join(DATABASE))?;
    let by = By { actor: "outrigger-cloud backup".into(), now_s };
    store.note(&by, "backup.create", &id)?; // in the copy too
    let snapshot = store.copy_to(&database.0)?;
    let files = kept(data_dir, &database.0)?;
    whole(&files, &snapshot)?;
    let description = Description {
        id,
        made_at_s: now_s,
        program: env!("CARGO_PKG_VERSION").into(),
        ca_hash: ca::hash_in(&data_dir.join("ca"))?,
        devices: snapshot.devices,
        files: files.len() as u64,
        bytes: files.iter().map(|file| file.size_bytes).sum(),
    };
    let failed = |source| BackupError::Io { path: to.to_owned(), source };
    let sealer = Sealer::new(file, secret, link::entropy()).map_err(failed)?;
    let mut writer = Writer::new(sealer);
    let text = serde_json::to_vec(&description).unwrap_or_default();
    writer.add(DESCRIPTION, text.len() as u64, &mut &text[..], &|_| ()).map_err(failed)?;
    let done = std::cell::Cell::new(0);
    let moved = |bytes: u64| {
        done.set(done.get() + bytes);
        progress(done.get(), description.bytes);
    };
    for kept in &files {
        add(&mut writer, kept, &moved)?;
    }
    writer.finish().and_then(Sealer::finish).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    durable::sync_folder(to.parent().unwrap_or(Path::new("."))).map_err(failed)?;
    Ok(description)
}

/// The snapshot, which goes when this does.
struct SnapshotFile(PathBuf);

impl Drop for SnapshotFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0); // the server's next start removes what is left
    }
}

/// Everything that goes in, the database first.
fn kept(data_dir: &Path, database: &Path) -> Result<Vec<Kept>, BackupError> {
    let size = std::fs::metadata(database).map_err(io_at(database))?.len();
    let mut files =
        vec![Kept { name: DATABASE.into(), path: database.to_owned(), size_bytes: size }];
    for name in KEPT {
        let path = data_dir.join(name);
        let metadata = match std::fs::metadata(&path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(io_at(&path)(error)),
        };
        match metadata.is_dir() {
            true => walk(&path, name, &mut files)?,
            false => files.push(Kept { name: name.into(), path, size_bytes: metadata.len() }),
        }
    }
    Ok(files)
}

fn walk(folder: &Path, name: &str, files: &mut Vec<Kept>) -> Result<(), BackupError> {
    let entries = std::fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let mut entries = entries.map_err(io_at(folder))?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let name = format!("{name}/{}", entry.file_name().to_string_lossy());
        let metadata = match entry.metadata() {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue, // it was let go
            Err(error) => return Err(io_at(&path)(error)),
        };
        if metadata.is_dir() {
            walk(&path, &name, files)?;
        } else if metadata.is_file() && !durable::is_temporary(&name) {
            files.push(Kept { name, path, size_bytes: metadata.len() });
        }
    }
    Ok(())
}

/// Checks that every file of a pushed model goes in.
fn whole(files: &[Kept], snapshot: &Snapshot) -> Result<(), BackupError> {
    let there: BTreeSet<ContentHash> = files.iter().filter_map(|file| blob(&file.name)).collect();
    match snapshot.blobs.iter().find(|blob| !there.contains(blob)) {
        Some(gone) => Err(BackupError::BlobGone(*gone)),
        None => Ok(()),
    }
}

/// The hash that a file's name promises.
pub(super) fn blob(name: &str) -> Option<ContentHash> {
    name.strip_prefix("blobs/")?.rsplit('/').next()?.parse().ok()
}

fn add(
    writer: &mut Writer<Sealer<&File>>,
    kept: &Kept,
    moved: &dyn Fn(u64),
) -> Result<(), BackupError> {
    let failed = |source| BackupError::Io { path: kept.path.clone(), source };
    let mut source = Hashed { source: File::open(&kept.path).map_err(failed)?, hasher: None };
    source.hasher = blob(&kept.name).map(|_| Hasher::default());
    writer.add(&kept.name, kept.size_bytes, &mut source, moved).map_err(failed)?;
    let hash = source.hasher.map(Hasher::finish);
    match hash == blob(&kept.name) {
        true => Ok(()),
        false => Err(failed(io::Error::other("the disk gives other bytes than were kept"))),
    }
}

/// Reads, and hashes where that is wanted: a rotten blob must not push a good one out of older backups.
struct Hashed {
    source: File,
    hasher: Option<Hasher>,
}

impl Read for Hashed {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = self.source.read(out)?;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&out[..got]);
        }
        Ok(got)
    }
}
