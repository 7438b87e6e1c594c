//! `outrigger model sign`: the OpenSSF's signature over a folder, for whoever gets it outside of a fleet.

use anyhow::Context;
use link::durable::{self, Access};
use protocol::id::{ContentHash, Hasher};
use protocol::model_signature::{Files, ModelKey, SignedFiles};
use ring::rand::SystemRandom;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::config::{Config, write_private};
use crate::errors::hinted;
use crate::output;

/// What no signature of a folder covers, as others do it too.
const IGNORED: [&str; 4] = [".git", ".gitattributes", ".github", ".gitignore"];
/// The signature, in the folder that it is over.
pub(super) const SIGNATURE_FILE: &str = "model.sig";
const PIECE_BYTES: usize = 1 << 20;

/// Arguments of `model sign`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The folder, with whatever is in it.
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
    /// The file with the private key: P-256, PEM, PKCS #8. The one beside the login when absent, which is
    /// made where there is none.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Where the signature goes; model.sig in the folder when absent.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let random = SystemRandom::new();
    let (key, public) = open_key(args.key.as_deref(), &random)?;
    let place = args.output.clone().unwrap_or_else(|| args.folder.join(SIGNATURE_FILE));
    let mut ignored: Vec<String> = IGNORED.map(str::to_owned).into();
    ignored.extend(inside(&args.folder, &place));
    let files = hash_folder(&args.folder, &ignored)?;
    if files.is_empty() {
        return Err(hinted(format!("there is nothing in {}", args.folder.display()), ""));
    }
    let folder = args.folder.canonicalize().with_context(|| args.folder.display().to_string())?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let signed = SignedFiles { name, files, ignored };
    let bundle = key.sign(&signed, &random)?;
    durable::write(&place, bundle.as_bytes(), Access::Public)
        .with_context(|| format!("cannot write {}", place.display()))?;
    output::line(&format!("signed {} files: {}", signed.files.len(), place.display()));
    if let Some(public) = public {
        eprintln!("The public key, for whoever verifies it: {}", public.display());
    }
    Ok(())
}

/// The key, and where its public half is if it is our own.
fn open_key(
    given: Option<&Path>,
    random: &SystemRandom,
) -> anyhow::Result<(ModelKey, Option<PathBuf>)> {
    let config = Config::open()?;
    let (own, public) = (config.folder().join("model.key"), config.folder().join("model.pub"));
    let path = given.unwrap_or(&own);
    if given.is_none() && !own.exists() {
        let pem = ModelKey::generate_pem(random)?;
        durable::create_private_folder(config.folder())?;
        let public_pem = ModelKey::from_pem(&pem, random)?.public_pem();
        write_private(&own, pem.as_bytes())?;
        durable::write(&public, public_pem.as_bytes(), Access::Public)?;
    }
    let pem = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let key = ModelKey::from_pem(&pem, random).map_err(|error| {
        let hint = "openssl pkcs8 -topk8 -nocrypt -in OLD -out NEW makes PKCS #8 of a P-256 key";
        hinted(format!("{}: {error}", path.display()), hint)
    })?;
    Ok((key, given.is_none().then_some(public)))
}

/// The path of a file below a folder, if it is there.
pub(super) fn inside(folder: &Path, file: &Path) -> Option<String> {
    let folder = folder.canonicalize().ok()?;
    let parent = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let place = parent.canonicalize().ok()?.join(file.file_name()?);
    Some(place.strip_prefix(&folder).ok()?.to_string_lossy().into_owned())
}

/// Every file below a folder, but for what is ignored. Links are refused: what they lead to may change.
pub(super) fn hash_folder(folder: &Path, ignored: &[String]) -> anyhow::Result<Files> {
    let mut files = Files::new();
    let mut ahead = vec![String::new()];
    while let Some(below) = ahead.pop() {
        let place = folder.join(&below);
        for entry in std::fs::read_dir(&place).with_context(|| place.display().to_string())? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name
                .to_str()
                .with_context(|| format!("{} has no name in UTF-8", entry.path().display()))?;
            let path = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
            let kind = entry.file_type()?;
            if ignored.contains(&path) {
                continue;
            } else if kind.is_dir() {
                ahead.push(path);
            } else if kind.is_file() {
                files.insert(path, hash_file(&entry.path())?);
            } else {
                let what = format!("{} is neither a file nor a folder", entry.path().display());
                return Err(hinted(what, "put what it leads to in its place"));
            }
        }
    }
    Ok(files)
}

fn hash_file(path: &Path) -> anyhow::Result<ContentHash> {
    let mut file = File::open(path).with_context(|| path.display().to_string())?;
    let mut hasher = Hasher::default();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece).with_context(|| path.display().to_string())? {
            0 => return Ok(hasher.finish()),
            bytes => hasher.update(&piece[..bytes]),
        }
    }
}
