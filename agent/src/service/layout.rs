//! Which files make an installation, and the receipt that lets it be taken away to the last one.

use super::{NAME, STATE_DIR, ServiceError};
use ::link::durable::{self, Access};
use std::fs;
use std::path::{Path, PathBuf};

/// The unit as the package has it.
const UNIT: &str = include_str!("../../packaging/outrigger-agent.service");
/// The configuration that only explains itself.
const CONFIGURATION: &str = include_str!("../../packaging/agent.toml");
/// Where the package puts the program.
const PACKAGED_PROGRAM: &str = "/usr/bin/outrigger-agent";
/// Folders that the unit hides from the service.
const HIDDEN: &[&str] = &["/home", "/root", "/run/user", "/tmp", "/var/tmp"];

/// Where an installation lives.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// All other paths are below it; `/` but for an image of another system.
    root: PathBuf,
    prefix: PathBuf,
    state_dir: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: &Path, prefix: &Path, state_dir: &Path) -> Result<Self, ServiceError> {
        for path in [prefix, state_dir] {
            let awkward = |c: char| c.is_whitespace() || c.is_control() || "%\"'\\$".contains(c);
            if !path.is_absolute() || path.to_str().is_none_or(|p| p.contains(awkward)) {
                return Err(ServiceError::AwkwardPath(path.to_owned()));
            }
        }
        if HIDDEN.iter().any(|hidden| state_dir.starts_with(hidden)) {
            return Err(ServiceError::HiddenPath(state_dir.to_owned()));
        }
        let [root, prefix, state_dir] = [root, prefix, state_dir].map(Path::to_owned);
        Ok(Self { root, prefix, state_dir })
    }

    fn rooted(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Whether this is the system that runs now.
    pub(crate) fn is_this_system(&self) -> bool {
        self.root == Path::new("/")
    }

    /// The state folder, below the root.
    pub(crate) fn state_dir(&self) -> PathBuf {
        self.rooted(&self.state_dir)
    }

    /// The installed program, as the unit calls it.
    pub(crate) fn program(&self) -> PathBuf {
        self.prefix.join("bin").join(NAME)
    }

    fn library_folder(&self) -> PathBuf {
        self.prefix.join("lib/outrigger")
    }

    fn unit(&self) -> PathBuf {
        PathBuf::from(format!("/etc/systemd/system/{NAME}.service"))
    }

    fn receipt(&self) -> PathBuf {
        self.library_folder().join(format!("{NAME}.files"))
    }

    /// Whether a package brought `program`, with unit and library, and takes them away again.
    pub(crate) fn is_packaged(&self, program: &Path) -> bool {
        self.is_this_system() && program == Path::new(PACKAGED_PROGRAM)
    }

    /// Writes the configuration where there is none; its path when it was written.
    pub(crate) fn write_configuration(&self) -> Result<Option<PathBuf>, ServiceError> {
        let path = self.state_dir().join("agent.toml");
        if path.exists() {
            return Ok(None);
        }
        let folder = self.state_dir();
        durable::create_private_folder(&folder)
            .map_err(ServiceError::io("make the folder", &folder))?;
        durable::write(&path, CONFIGURATION.as_bytes(), Access::Public)
            .map_err(ServiceError::io("write", &path))?;
        Ok(Some(path))
    }

    /// Puts program, library and unit into place, each whole or not at all, over older ones. The
    /// receipt comes first, so that what an interrupted installation left can be taken away.
    pub(crate) fn place(&self, program: &Path, library: &Path) -> Result<Receipt, ServiceError> {
        let library_name = library.file_name().unwrap_or_default();
        let copies =
            [(program, self.program()), (library, self.library_folder().join(library_name))];
        let files: Vec<PathBuf> =
            copies.iter().map(|(_, to)| to.clone()).chain([self.unit(), self.receipt()]).collect();
        let list: String = files.iter().map(|file| format!("{}\n", file.display())).collect();
        self.write(&self.receipt(), list.as_bytes())?;
        for (from, to) in &copies {
            self.copy(from, to)?;
        }
        self.write(&self.unit(), unit(&self.program(), &self.state_dir).as_bytes())?;
        Ok(Receipt { files: files.iter().map(|file| self.rooted(file)).collect() })
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), ServiceError> {
        let path = self.rooted(path);
        make_parent(&path)?;
        durable::write(&path, bytes, Access::Public).map_err(ServiceError::io("write", &path))
    }

    fn copy(&self, from: &Path, to: &Path) -> Result<(), ServiceError> {
        let to = self.rooted(to);
        if to.exists() && from.canonicalize().ok() == to.canonicalize().ok() {
            return Ok(());
        }
        make_parent(&to)?;
        let beside = to.with_extension("new");
        let copied = fs::copy(from, &beside)
            .and_then(|_| fs::File::open(&beside)?.sync_all())
            .and_then(|()| durable::rename(&beside, &to));
        copied.map_err(|source| {
            let _ = fs::remove_file(&beside); // the first error is the one that matters
            ServiceError::Io { what: "write", path: to, source }
        })
    }

    /// What an earlier installation put into place.
    pub(crate) fn installed(&self) -> Result<Receipt, ServiceError> {
        let path = self.rooted(&self.receipt());
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(ServiceError::NotInstalled(self.rooted(&self.prefix)));
            }
            Err(source) => return Err(ServiceError::Io { what: "read", path, source }),
        };
        Ok(Receipt { files: text.lines().map(|line| self.rooted(Path::new(line))).collect() })
    }

    /// Removes the folder that was made for the library, unless others use it too.
    pub(crate) fn remove_library_folder(&self) {
        let _ = fs::remove_dir(self.rooted(&self.library_folder())); // not empty: not ours alone
    }
}

fn make_parent(path: &Path) -> Result<(), ServiceError> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(ServiceError::io("make the folder", parent))
}

/// The files of an installation; the receipt itself is the last.
pub(crate) struct Receipt {
    pub(crate) files: Vec<PathBuf>,
}

impl Receipt {
    /// Removes the files. The receipt goes last, so that an interrupted removal can be repeated.
    pub(crate) fn remove(&self) -> Result<(), ServiceError> {
        for file in &self.files {
            match fs::remove_file(file) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(ServiceError::io("remove", file)(e));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The unit for a program and a state folder.
fn unit(program: &Path, state_dir: &Path) -> String {
    let state_dir = state_dir.to_string_lossy();
    let text = UNIT.replace(PACKAGED_PROGRAM, &program.to_string_lossy());
    if state_dir == STATE_DIR {
        return text;
    }
    // systemd makes and owns folders in /var/lib only.
    text.replace("StateDirectory=outrigger-agent\nStateDirectoryMode=0750", "ReadWritePaths=@")
        .replace(STATE_DIR, &state_dir)
        .replace("ReadWritePaths=@", &format!("ReadWritePaths={state_dir}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_commented_configuration_shows_the_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.toml");
        let shown = |line: &str| line.starts_with('#') && !line.starts_with("# ");
        let uncommented: Vec<&str> =
            CONFIGURATION.lines().map(|l| if shown(l) { &l[1..] } else { l }).collect();
        for text in [CONFIGURATION.to_owned(), uncommented.join("\n")] {
            fs::write(&path, text).unwrap();
            assert_eq!(Config::read(&path).unwrap(), Config::default());
        }
        assert!(uncommented.iter().filter(|line| line.contains(" = ")).count() > 8);
    }

    #[test]
    fn the_unit_names_this_installation() {
        let usual = unit(Path::new("/usr/local/bin/outrigger-agent"), Path::new(STATE_DIR));
        assert!(usual.contains(
            "ExecStart=/usr/local/bin/outrigger-agent run --state-dir /var/lib/outrigger-agent\n"
        ));
        assert!(usual.contains("\nStateDirectory=outrigger-agent\n"));
        let elsewhere = unit(Path::new("/opt/o/bin/outrigger-agent"), Path::new("/srv/o"));
        assert!(elsewhere.contains("run --state-dir /srv/o\n"), "{elsewhere}");
        assert!(elsewhere.contains("\nReadWritePaths=/srv/o\n"), "{elsewhere}");
        assert!(elsewhere.contains("ConditionPathExists=/srv/o/enrolment.json\n"), "{elsewhere}");
        assert!(!elsewhere.contains("StateDirectory="), "{elsewhere}");
        assert!(!elsewhere.contains(STATE_DIR), "{elsewhere}");
    }

    #[test]
    fn paths_that_a_unit_cannot_hold_are_refused() {
        let check = |prefix: &str, state_dir: &str| {
            Layout::new(Path::new("/"), Path::new(prefix), Path::new(state_dir)).map(|_| ())
        };
        check("/usr/local", STATE_DIR).unwrap();
        for (prefix, state_dir) in
            [("usr/local", STATE_DIR), ("/usr/local", "/srv/my models"), ("/a%b", STATE_DIR)]
        {
            let error = check(prefix, state_dir).unwrap_err();
            assert!(matches!(error, ServiceError::AwkwardPath(_)), "{prefix} {state_dir}");
        }
        let error = check("/usr/local", "/home/me/agent").unwrap_err();
        assert!(matches!(error, ServiceError::HiddenPath(_)));
    }
}
