//! The keys of a repository, each in a file that only its owner may read: `ROLE-ID.key`, 32 bytes in
//! hexadecimal. They may lie in several folders, on media that are only there while something is signed.

use anyhow::Context;
use link::durable;
use protocol::manifest::SigningKey;
use protocol::tuf::metadata::RoleKeys;
use std::path::{Path, PathBuf};

use crate::config::{Config, write_private};
use crate::errors::hinted;

/// Where keys are.
#[derive(Default, clap::Args)]
pub(crate) struct KeysArgs {
    /// A folder with keys of the repository; repeat it for several. New keys go into the first; the
    /// folder `repository` beside the login when absent.
    #[arg(long = "keys", value_name = "DIR")]
    folders: Vec<PathBuf>,
}

/// Where what others must sign too is put.
#[derive(clap::Args)]
pub(crate) struct DraftArgs {
    /// Publish nothing yet: write what is signed into FILE, to which others add their signatures with `repo cosign`.
    #[arg(long = "draft", value_name = "FILE")]
    pub(crate) path: Option<PathBuf>,
}

/// The keys at hand.
pub(crate) struct Keys {
    folder: PathBuf,
    keys: Vec<SigningKey>,
    /// Whether others sign afterwards.
    for_draft: bool,
}

impl Keys {
    /// Reads what is in the folders.
    pub(crate) fn open(args: &KeysArgs, config: &Config) -> anyhow::Result<Self> {
        let own = [config.folder().join("repository")];
        let folders = if args.folders.is_empty() { own.as_slice() } else { &args.folders };
        let mut keys = Vec::new();
        for folder in folders {
            keys.extend(read_folder(folder)?);
        }
        Ok(Self { folder: folders[0].clone(), keys, for_draft: false })
    }

    /// Others sign what is signed now, where there is a draft.
    pub(crate) fn for_draft(self, draft: &DraftArgs) -> Self {
        Self { for_draft: draft.path.is_some(), ..self }
    }

    /// Whether others sign afterwards.
    pub(super) fn are_first(&self) -> bool {
        self.for_draft
    }

    /// Where new keys go.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Makes a key for a role.
    pub(crate) fn make(&mut self, role: &str) -> anyhow::Result<protocol::tuf::key::Key> {
        durable::create_private_folder(&self.folder)
            .with_context(|| format!("cannot make the folder {}", self.folder.display()))?;
        let seed = link::entropy();
        let key = SigningKey::from_seed(&seed);
        let public = key.tuf_key();
        let path = self.folder.join(format!("{role}-{:.8}.key", public.id()));
        write_private(&path, format!("{}\n", hex::encode(seed)).as_bytes())?;
        self.keys.push(key);
        Ok(public)
    }

    /// All of them, of which one is enough.
    pub(super) fn any(&self) -> RoleKeys {
        let named = self.keys.iter().map(|key| (key.tuf_key().id(), key.tuf_key()));
        RoleKeys { keys: named.collect(), threshold: 1 }
    }

    /// Those that count for one of these roles.
    pub(super) fn that_count<'a>(
        &'a self,
        roles: &'a [&RoleKeys],
    ) -> impl Iterator<Item = &'a SigningKey> {
        let counts = |key: &&SigningKey| {
            let id = key.tuf_key().id();
            roles.iter().any(|role| role.keys.contains_key(&id))
        };
        self.keys.iter().filter(counts)
    }
}

fn read_folder(folder: &Path) -> anyhow::Result<Vec<SigningKey>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| folder.display().to_string()),
    };
    let mut keys = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "key") {
            keys.push(read(&path)?);
        }
    }
    Ok(keys)
}

fn read(path: &Path) -> anyhow::Result<SigningKey> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut seed = [0; 32];
    hex::decode_to_slice(text.trim(), &mut seed).map_err(|_| {
        hinted(format!("{} holds no key", path.display()), "restore it from a backup")
    })?;
    Ok(SigningKey::from_seed(&seed))
}
