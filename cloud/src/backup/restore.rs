//! A control node out of a backup.

use link::durable;
use protocol::id::Hasher;
use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Component, Path, PathBuf};

use super::archive::{Entry, Reader};
use super::create::blob;
use super::seal::{Opener, Secret};
use super::{
    BackupError, DATABASE, DESCRIPTION, DESCRIPTION_MAX_BYTES, Description, io_at, stream_error,
};
use crate::admin_key;
use crate::ca;
use crate::data_dir::KEPT;
use crate::store::Store;
use crate::store::audit::By;
use crate::store::backup::{Kept, Void};

/// What is wanted of a restored server.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Devices, nodes and keys that were shut out after the backup was made.
    pub shut_out: Vec<String>,
    /// No key of the API was revoked since, so all of them hold.
    pub keep_keys: bool,
}

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    /// What the backup says of itself.
    pub description: Description,
    /// What is of no use any more.
    pub void: Void,
    /// A fresh key of an admin, where all others are void.
    pub admin_key: Option<PathBuf>,
}

type Stream = Reader<Opener<BufReader<File>>>;

/// Lays the server out in `data_dir`, which must be absent or empty. `progress` hears how many bytes were
/// done, and of how many.
///
/// # Errors
/// [`BackupError`]; nothing is left behind then.
pub fn restore(
    from: &Path,
    secret: &Secret,
    data_dir: &Path,
    wanted: &Wanted,
    now_s: i64,
    progress: &dyn Fn(u64, u64),
) -> Result<Restored, BackupError> {
    refuse_to_overwrite(data_dir)?;
    let file = File::open(from).map_err(io_at(from))?;
    let opener = Opener::new(BufReader::new(file), secret).map_err(|e| stream_error(from, e))?;
    let mut stream = Reader::new(opener);
    let description = describe(from, &mut stream)?;
    let beside = Beside::make(data_dir)?;
    unpack(from, &mut stream, &beside.0, description.bytes, progress)?;
    let void = settle(&beside.0, &description, wanted, now_s)?;
    beside.move_to(data_dir)?;
    let admin_key = (!wanted.keep_keys).then(|| data_dir.join(admin_key::FILE));
    Ok(Restored { description, void, admin_key })
}

fn refuse_to_overwrite(data_dir: &Path) -> Result<(), BackupError> {
    match std::fs::read_dir(data_dir).map(|mut entries| entries.next().is_none()) {
        Ok(true) => Ok(()),
        Ok(false) => Err(BackupError::Exists(data_dir.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(io_at(data_dir)(error)),
    }
}

fn describe(from: &Path, stream: &mut Stream) -> Result<Description, BackupError> {
    let first = stream.next().map_err(|e| stream_error(from, e))?;
    let first = first.filter(|e| e.name == DESCRIPTION && e.size_bytes <= DESCRIPTION_MAX_BYTES);
    let first = first.ok_or_else(|| BackupError::Contents("no description".into()))?;
    let mut text = Vec::new();
    stream.contents(&first, &mut text, &|_| ()).map_err(|e| stream_error(from, e))?;
    serde_json::from_slice(&text).map_err(|e| BackupError::Contents(e.to_string()))
}

/// The folder that is filled beside the one that is wanted; it goes when this does.
struct Beside(PathBuf);

impl Beside {
    fn make(data_dir: &Path) -> Result<Self, BackupError> {
        let name = data_dir.file_name().unwrap_or_default().to_string_lossy();
        let hidden = format!(".{name}.{}.restoring", hex::encode(link::entropy::<4>()));
        let path = data_dir.with_file_name(hidden);
        durable::create_private_folder(&path).map_err(io_at(&path))?;
        Ok(Self(path))
    }

    fn move_to(self, data_dir: &Path) -> Result<(), BackupError> {
        durable::sync_tree(&self.0).map_err(io_at(&self.0))?;
        // An empty folder gives way to another in one step.
        durable::rename(&self.0, data_dir).map_err(io_at(data_dir))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // absent once it was moved
    }
}

fn unpack(
    from: &Path,
    stream: &mut Stream,
    to: &Path,
    bytes: u64,
    progress: &dyn Fn(u64, u64),
) -> Result<(), BackupError> {
    let done = Cell::new(0);
    let moved = |more: u64| {
        done.set(done.get() + more);
        progress(done.get(), bytes);
    };
    while let Some(entry) = stream.next().map_err(|e| stream_error(from, e))? {
        let path = place(to, &entry)?;
        if let Some(folder) = path.parent() {
            durable::create_private_folder(folder).map_err(io_at(folder))?;
        }
        let mut out = Out::create(&path)?;
        stream.contents(&entry, &mut out, &moved).map_err(|e| stream_error(from, e))?;
        if blob(&entry.name).is_some_and(|hash| hash != out.hasher.finish()) {
            return Err(BackupError::Contents(format!("{} has another hash", entry.name)));
        }
    }
    Ok(())
}

/// Where a file goes: into the folder, and nowhere that a server does not look.
fn place(folder: &Path, entry: &Entry) -> Result<PathBuf, BackupError> {
    let name = Path::new(&entry.name);
    let plain = name.components().all(|part| matches!(part, Component::Normal(_)));
    let mut parts = entry.name.split('/');
    let first = parts.next().unwrap_or_default();
    let known = entry.name == DATABASE || KEPT.contains(&first);
    match plain && known && parts.count() <= 4 {
        true => Ok(folder.join(name)),
        false => Err(BackupError::Contents(format!("it holds {:?}", entry.name))),
    }
}

/// A new file that only its owner may read, hashed on the way.
struct Out {
    file: File,
    hasher: Hasher,
}

impl Out {
    fn create(path: &Path) -> Result<Self, BackupError> {
        let mut options = File::options();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        Ok(Self { file: options.open(path).map_err(io_at(path))?, hasher: Hasher::default() })
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Opens what was laid out as a server would, and takes back what an old state must not give.
fn settle(
    folder: &Path,
    description: &Description,
    wanted: &Wanted,
    now_s: i64,
) -> Result<Void, BackupError> {
    let database = folder.join(DATABASE);
    if !database.is_file() || !folder.join("ca/ca.key").is_file() {
        return Err(BackupError::Contents("no database, or no fleet CA".into()));
    }
    if ca::hash_in(&folder.join("ca"))? != description.ca_hash {
        return Err(BackupError::Contents("the fleet CA is another than said".into()));
    }
    let store = Store::open(&database)?; // brings an older one up to date
    let check = store.quick_check()?;
    if check != "ok" {
        return Err(BackupError::Contents(format!("the database is damaged: {check}")));
    }
    let by = By { actor: "outrigger-cloud restore".into(), now_s };
    let kept = Kept { keys: wanted.keep_keys, shut_out: &wanted.shut_out };
    let void = store.void_after_restore(&by, &description.id, &kept)?;
    if !wanted.keep_keys {
        let path = folder.join(admin_key::FILE);
        admin_key::make(&store, &path, description.ca_hash, &by)?.map_err(io_at(&path))?;
    }
    Ok(void)
}
