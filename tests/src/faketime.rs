//! Programs whose system clock is off: libfaketime, put before the C library. The counters (monotonic
//! and since boot) stay as they are, as on a device whose clock was set wrong.

use crate::python::Environment;
use anyhow::{Context, bail};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

const WHERE: &str = "import libfaketime, os; print(os.path.join(os.path.dirname(\
    libfaketime.__file__), 'vendor/libfaketime/src/libfaketime.so.1'))";

/// The library.
pub struct FakeTime(PathBuf);

/// A clock that a program can be started with, and that can be set while the program runs.
pub struct FakeClock {
    library: PathBuf,
    file: PathBuf,
}

impl FakeTime {
    /// Brings the library; `None`, with the reason printed, where it cannot be had.
    ///
    /// # Errors
    /// No Python, or a package without the library.
    pub fn bring() -> anyhow::Result<Option<Self>> {
        if !cfg!(target_os = "linux") {
            println!("SKIPPED: libfaketime is loaded by LD_PRELOAD, which only Linux has");
            return Ok(None);
        }
        let Some(environment) = Environment::with(&["libfaketime==3.0.1"])? else {
            return Ok(None);
        };
        let output = environment.python().args(["-c", WHERE]).output()?;
        let library = PathBuf::from(String::from_utf8(output.stdout)?.trim());
        if !library.is_file() {
            bail!("no library in the package libfaketime: {}", library.display());
        }
        Ok(Some(Self(library)))
    }

    /// A clock that is off by this much: `-6y`, `+3h`, `+0`, or `@1970-01-01 00:00:00`. `file` holds
    /// it for the programs.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn clock(&self, file: &Path, off: &str) -> anyhow::Result<FakeClock> {
        let clock = FakeClock { library: self.0.clone(), file: file.to_owned() };
        clock.set(off)?;
        Ok(clock)
    }
}

impl FakeClock {
    /// Sets it, also under a running program.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set(&self, off: &str) -> anyhow::Result<()> {
        let beside = self.file.with_extension("new"); // a program may read at any moment
        std::fs::write(&beside, off)?;
        std::fs::rename(&beside, &self.file).context("cannot set the clock")
    }

    /// The environment of a program that has this clock.
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        vec![
            ("LD_PRELOAD", self.library.clone().into()),
            ("FAKETIME_TIMESTAMP_FILE", self.file.clone().into()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
            ("NO_FAKE_STAT", "1".into()),
        ]
    }
}
