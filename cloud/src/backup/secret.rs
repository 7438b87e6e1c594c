//! Keys and passphrases in files: never in arguments, which every user of the machine can read.

use link::durable::{self, Access};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::seal::Secret;

/// A shorter passphrase is guessed.
const PASSPHRASE_MIN_CHARS: usize = 12;
const PASSPHRASE_MAX_BYTES: u64 = 4096;

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Its file cannot be read or written.
    #[error("cannot use {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others may read it.
    #[error("{0} can be read by others; make it yours alone: chmod 600")]
    Open(PathBuf),
    /// It holds something else.
    #[error("{0} holds no key: 64 hexadecimal digits")]
    NoKey(PathBuf),
    /// It holds nothing.
    #[error("the first line of {0} is empty")]
    Empty(PathBuf),
    /// It would be guessed.
    #[error("a passphrase has {PASSPHRASE_MIN_CHARS} characters or more")]
    Short,
    /// It must not be overwritten: what was sealed with it could not be opened any more.
    #[error("{0} is there already")]
    Exists(PathBuf),
}

/// Makes a key, in a file that is not there yet.
///
/// # Errors
/// [`SecretError`].
pub fn make_key(path: &Path) -> Result<Secret, SecretError> {
    if path.exists() {
        return Err(SecretError::Exists(path.to_owned()));
    }
    let key: [u8; 32] = link::entropy();
    let text = format!("{}\n", hex::encode(key));
    durable::write(path, text.as_bytes(), Access::Private).map_err(failed(path))?;
    Ok(Secret::Key(key))
}

/// The key in a file that nobody else may read.
///
/// # Errors
/// [`SecretError`].
pub fn read_key(path: &Path) -> Result<Secret, SecretError> {
    check_private(path)?;
    let text = std::fs::read_to_string(path).map_err(failed(path))?;
    let mut key = [0; 32];
    hex::decode_to_slice(text.trim(), &mut key).map_err(|_| SecretError::NoKey(path.to_owned()))?;
    Ok(Secret::Key(key))
}

/// The passphrase in a file that nobody else may read, or on stdin where the file is `-`; its first line.
///
/// # Errors
/// [`SecretError`].
pub fn read_passphrase(path: &Path) -> Result<Secret, SecretError> {
    let mut text = String::new();
    if path == Path::new("-") {
        io::stdin().take(PASSPHRASE_MAX_BYTES).read_to_string(&mut text).map_err(failed(path))?;
    } else {
        text = read_private(path)?;
    }
    let line = text.lines().next().unwrap_or_default();
    if line.chars().count() < PASSPHRASE_MIN_CHARS {
        return Err(SecretError::Short);
    }
    Ok(Secret::Passphrase(line.to_owned()))
}

/// The first line of a file that nobody else may read: what somebody else has made, of whatever length.
///
/// # Errors
/// [`SecretError`].
pub fn read_line(path: &Path) -> Result<String, SecretError> {
    let text = read_private(path)?;
    let line = text.lines().next().unwrap_or_default().trim();
    match line.is_empty() {
        true => Err(SecretError::Empty(path.to_owned())),
        false => Ok(line.to_owned()),
    }
}

fn read_private(path: &Path) -> Result<String, SecretError> {
    check_private(path)?;
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed(path))?;
    file.take(PASSPHRASE_MAX_BYTES).read_to_string(&mut text).map_err(failed(path))?;
    Ok(text)
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> SecretError + use<> {
    let path = path.to_owned();
    move |source| SecretError::Io { path, source }
}

#[cfg(unix)]
fn check_private(path: &Path) -> Result<(), SecretError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = std::fs::metadata(path).map_err(failed(path))?;
    let is_plain = metadata.is_file(); // a pipe has no permissions that mean anything
    match is_plain && metadata.permissions().mode() & 0o077 != 0 {
        true => Err(SecretError::Open(path.to_owned())),
        false => Ok(()),
    }
}

#[cfg(not(unix))]
fn check_private(_: &Path) -> Result<(), SecretError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_and_read_only_where_they_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup.key");
        make_key(&path).unwrap();
        assert!(matches!(make_key(&path), Err(SecretError::Exists(_))));
        assert!(matches!(read_key(&path), Ok(Secret::Key(_))));
        assert!(matches!(read_passphrase(&path), Ok(Secret::Passphrase(_))));
        std::fs::write(&path, "short\n").unwrap();
        assert!(matches!(read_key(&path), Err(SecretError::NoKey(_))));
        assert!(matches!(read_passphrase(&path), Err(SecretError::Short)));
        assert_eq!(read_line(&path).unwrap(), "short");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
            assert!(matches!(read_key(&path), Err(SecretError::Open(_))));
            assert!(matches!(read_passphrase(&path), Err(SecretError::Open(_))));
            assert!(matches!(read_line(&path), Err(SecretError::Open(_))));
        }
    }
}
