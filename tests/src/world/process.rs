//! One program of ours as a child process, its output kept for when something goes wrong.

use anyhow::{Context, bail};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The path of one of our programs: beside the running test or bench, unless a variable like
/// `OUTRIGGER_AGENT_PROGRAM` names another.
///
/// # Errors
/// It was not built.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let variable = format!("{}_PROGRAM", name.to_uppercase().replace('-', "_"));
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let own = std::env::current_exe()?;
    let mut folders = own.ancestors().skip(1).take(2);
    let found = folders.find_map(|f| Some(f.join(name)).filter(|p| p.is_file()));
    found.with_context(|| {
        format!("{name} is not built; build it with: cargo build --workspace --bins")
    })
}

/// Polls until `check` gives a value, at most for `patience`.
///
/// # Errors
/// It never did.
pub fn eventually<T>(
    what: &str,
    patience: Duration,
    mut check: impl FnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let end = Instant::now() + patience;
    loop {
        if let Some(value) = check() {
            return Ok(value);
        }
        if Instant::now() >= end {
            bail!("{what}: not within {patience:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A running program. It is killed when the value is dropped.
pub struct Process {
    child: Child,
    log: PathBuf,
    leads_group: bool,
}

impl Process {
    /// Starts a program whose stdout and stderr go to `log`.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(command: Command, log: &Path) -> anyhow::Result<Self> {
        Self::spawn(command, log, false)
    }

    /// Starts a program that leaves programs of its own behind when it is killed: they end with it.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_group(mut command: Command, log: &Path) -> anyhow::Result<Self> {
        command.process_group(0);
        Self::spawn(command, log, true)
    }

    fn spawn(mut command: Command, log: &Path, leads_group: bool) -> anyhow::Result<Self> {
        let file = File::options().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self { child, log: log.to_owned(), leads_group })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits for a value that appears once the program is ready.
    ///
    /// # Errors
    /// It ended, or was not ready in time; with the end of its output.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        mut check: impl FnMut() -> Option<T>,
    ) -> anyhow::Result<T> {
        let child = &mut self.child;
        let mut ended = None;
        let found = eventually(what, Duration::from_secs(60), || {
            ended = child.try_wait().ok().flatten();
            if ended.is_some() { Some(None) } else { check().map(Some) }
        });
        match found {
            Ok(Some(value)) => Ok(value),
            _ => bail!(
                "{what}: {}; it printed:\n{}",
                ended.map_or("not in time".into(), |s| s.to_string()),
                self.output()
            ),
        }
    }

    /// Asks it to end (SIGTERM) and waits; its exit code.
    ///
    /// # Errors
    /// It does not end within 20 s.
    pub fn stop(mut self) -> anyhow::Result<Option<i32>> {
        self.signal(libc::SIGTERM)?;
        let status = eventually("the end after SIGTERM", Duration::from_secs(20), || {
            self.child.try_wait().ok().flatten()
        })?;
        Ok(status.code())
    }

    /// Asks it to read its configuration again (SIGHUP).
    ///
    /// # Errors
    /// It has ended.
    pub fn hang_up(&self) -> anyhow::Result<()> {
        self.signal(libc::SIGHUP)
    }

    /// Stops it where it stands (SIGSTOP), and waits until each of its threads does.
    ///
    /// # Errors
    /// It has ended, or does not stand still.
    pub fn pause(&self) -> anyhow::Result<()> {
        self.signal(libc::SIGSTOP)?;
        let folder = format!("/proc/{}/task", self.id());
        eventually("standing still", Duration::from_secs(10), || {
            let tasks = std::fs::read_dir(&folder).ok()?;
            let stands = |task: std::io::Result<std::fs::DirEntry>| {
                let Ok(text) = std::fs::read_to_string(task.ok()?.path().join("stat")) else {
                    return Some(true); // it ended meanwhile
                };
                let state = text.rsplit_once(") ")?.1.chars().next()?;
                Some(['T', 'Z', 'X'].contains(&state))
            };
            tasks.map(stands).all(|stands| stands == Some(true)).then_some(())
        })
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// It has ended.
    pub fn resume(&self) -> anyhow::Result<()> {
        self.signal(libc::SIGCONT)
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn ended(&mut self) -> anyhow::Result<Option<std::process::ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    fn signal(&self, signal: libc::c_int) -> anyhow::Result<()> {
        self.send(libc::pid_t::try_from(self.child.id())?, signal)
    }

    fn send(&self, id: libc::pid_t, signal: libc::c_int) -> anyhow::Result<()> {
        // SAFETY: a signal to a child that this value owns and has not waited for, or to the group
        // that the child leads.
        #[allow(unsafe_code)]
        let sent = unsafe { libc::kill(id, signal) };
        if sent != 0 {
            return Err(std::io::Error::last_os_error().into());
        }
        Ok(())
    }

    /// Kills it at once (SIGKILL).
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // An error means that it ended already.
        let _ = match libc::pid_t::try_from(self.child.id()) {
            Ok(id) if self.leads_group => self.send(-id, libc::SIGKILL),
            _ => self.child.kill().map_err(Into::into),
        };
        let _ = self.child.wait();
    }

    /// Proportional set size in kB, from `/proc/PID/smaps_rollup`.
    ///
    /// # Errors
    /// It is gone, or this is no Linux.
    pub fn pss_kb(&self) -> anyhow::Result<u64> {
        pss_kb(self.id())
    }
}

/// Proportional set size of a process, in kB.
///
/// # Errors
/// It is gone, or this is no Linux.
pub fn pss_kb(process: u32) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let line = text.lines().find(|l| l.starts_with("Pss:")).context("no Pss line")?;
    Ok(line.split_whitespace().nth(1).context("no number")?.parse()?)
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
