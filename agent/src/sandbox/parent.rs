//! Outside the child: start it with nothing of ours, feed it, listen to it, and see to its end.
//!
//! One thread does all of it by `poll`: neither side can wait for the other's pipe for ever. Whatever
//! happens, the child is dead and reaped when [`run`] returns.

use super::verdict::{Job, Message, Stage, Verdict, plain};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::ioctl_fionbio;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What is kept of the child's stdout: some stages and one verdict.
const STDOUT_MAX_BYTES: usize = 64 << 10;
/// What is kept of its stderr; the rest is read and thrown away.
const STDERR_MAX_BYTES: usize = 16 << 10;
/// How often a child is looked at that has closed its pipes and not ended.
const LINGERING: Duration = Duration::from_millis(10);

/// The program that a child is, and for how long at most.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    pub(super) program: PathBuf,
    pub(super) arguments: Vec<String>,
    pub(super) time_limit: Duration,
}

impl Launch {
    /// This very program, even if another one was installed in its place meanwhile.
    pub(super) fn own(subcommand: &str, time_limit: Duration) -> io::Result<Self> {
        let program = if cfg!(target_os = "linux") {
            PathBuf::from("/proc/self/exe")
        } else {
            std::env::current_exe()?
        };
        Ok(Self { program, arguments: vec![subcommand.into()], time_limit })
    }
}

/// How a child ended.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) how: How,
    /// What it was at.
    pub(super) stage: Stage,
    /// The end of what it printed to stderr, in one line.
    pub(super) said: String,
}

#[derive(Debug)]
pub(super) enum How {
    /// In order.
    Verdict(Box<Verdict>),
    /// By a signal that nobody but itself caused.
    Crashed(i32),
    /// By a signal that somebody sent, or the system for want of memory.
    Ended(i32),
    /// Without a verdict, in whatever other way.
    Silent(ExitStatus),
    /// It was killed at the end of its time.
    TimedOut,
    /// It was killed because the agent ends.
    Stopped,
}

/// Ends every child, now and later.
#[derive(Debug)]
pub(super) struct Stop {
    sender: UnixStream,
    receiver: UnixStream,
}

impl Stop {
    pub(super) fn new() -> io::Result<Self> {
        let (sender, receiver) = UnixStream::pair()?;
        Ok(Self { sender, receiver })
    }

    pub(super) fn stop(&self) {
        // The other side becomes readable, and stays so. It cannot fail in a way that matters.
        let _ = self.sender.shutdown(std::net::Shutdown::Write);
    }
}

/// A child that does not outlive this value.
struct Leash(Child);

impl Drop for Leash {
    fn drop(&mut self) {
        let _ = self.0.kill(); // an error means that it ended already
        let _ = self.0.wait();
    }
}

/// Starts a child with this job and waits for its end.
///
/// # Errors
/// It could not be started.
pub(super) fn run(launch: &Launch, job: &Job, stop: &Stop) -> io::Result<Ending> {
    let end = Instant::now() + launch.time_limit;
    let job = serde_json::to_vec(job)?;
    let mut child = Leash(spawn(launch)?);
    let mut pipes = Pipes::take(&mut child.0, &job)?;
    let mut cut = pipes.pump(end, stop)?;
    let status = loop {
        if cut.is_some() {
            child.0.kill()?;
            break child.0.wait()?;
        }
        if let Some(status) = child.0.try_wait()? {
            break status;
        }
        cut = linger(end, stop)?;
    };
    Ok(pipes.ending(status, cut))
}

fn spawn(launch: &Launch) -> io::Result<Child> {
    Command::new(&launch.program)
        .arg0("outrigger-agent")
        .args(&launch.arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// Why a child must end before it wants to.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Time,
    Stop,
}

/// Waits a moment; whether the time is over.
fn linger(end: Instant, stop: &Stop) -> io::Result<Option<Cut>> {
    let now = Instant::now();
    if now >= end {
        return Ok(Some(Cut::Time));
    }
    let mut fds = [PollFd::new(&stop.receiver, PollFlags::IN)];
    wait(&mut fds, LINGERING.min(end - now))?;
    Ok((!fds[0].revents().is_empty()).then_some(Cut::Stop))
}

fn wait(fds: &mut [PollFd<'_>], most: Duration) -> io::Result<()> {
    let timeout = Timespec::try_from(most).map_err(io::Error::other)?;
    match poll(fds, Some(&timeout)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// This side of the child's pipes, and what went through them.
struct Pipes<'j> {
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    unsent: &'j [u8],
    out: Kept,
    err: Kept,
}

impl<'j> Pipes<'j> {
    fn take(child: &mut Child, job: &'j [u8]) -> io::Result<Self> {
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let all = [fd(stdin.as_ref()), fd(stdout.as_ref()), fd(stderr.as_ref())];
        for pipe in all.into_iter().flatten() {
            ioctl_fionbio(pipe, true)?;
        }
        let (out, err) = (Kept::new(STDOUT_MAX_BYTES), Kept::new(STDERR_MAX_BYTES));
        Ok(Self { stdin, stdout, stderr, unsent: job, out, err })
    }

    /// Feeds and listens until the child has closed both of its outputs, or must end.
    fn pump(&mut self, end: Instant, stop: &Stop) -> io::Result<Option<Cut>> {
        while self.stdout.is_some() || self.stderr.is_some() {
            let now = Instant::now();
            if now >= end {
                return Ok(Some(Cut::Time));
            }
            let mut fds = vec![PollFd::new(&stop.receiver, PollFlags::IN)];
            let outputs = [fd(self.stdout.as_ref()), fd(self.stderr.as_ref())];
            let reads = outputs.into_iter().flatten();
            fds.extend(reads.map(|pipe| PollFd::from_borrowed_fd(pipe, PollFlags::IN)));
            let write = fd(self.stdin.as_ref());
            fds.extend(write.map(|pipe| PollFd::from_borrowed_fd(pipe, PollFlags::OUT)));
            wait(&mut fds, end - now)?;
            if !fds[0].revents().is_empty() {
                return Ok(Some(Cut::Stop));
            }
            self.feed();
            self.out.listen(&mut self.stdout);
            self.err.listen(&mut self.stderr);
        }
        Ok(None)
    }

    /// Writes what the pipe takes. A child that reads no more says why by its end.
    fn feed(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        match stdin.write(self.unsent) {
            Ok(sent) => self.unsent = &self.unsent[sent..],
            Err(error) if is_later(&error) => return,
            Err(_) => self.unsent = &[],
        }
        if self.unsent.is_empty() {
            self.stdin = None; // closed: the job is whole
        }
    }

    fn ending(self, status: ExitStatus, cut: Option<Cut>) -> Ending {
        let text = String::from_utf8_lossy(&self.out.bytes);
        let mut stage = Stage::Starting;
        let mut verdict = None;
        for line in text.lines() {
            match serde_json::from_str(line) {
                Ok(Message::Stage(next)) => stage = next,
                Ok(Message::Verdict(found)) => verdict = Some(found),
                Err(_) => break, // cut off, or not ours
            }
        }
        let how = match (cut, status.signal(), verdict) {
            (Some(Cut::Stop), ..) => How::Stopped,
            (Some(Cut::Time), ..) | (None, Some(signals::XCPU), _) => How::TimedOut,
            (None, Some(signal), _) if signals::SENT.contains(&signal) => How::Ended(signal),
            (None, Some(signal), _) => How::Crashed(signal),
            (None, None, Some(verdict)) if status.success() => How::Verdict(verdict),
            (None, None, _) => How::Silent(status),
        };
        Ending { how, stage, said: last_words(&self.err.bytes) }
    }
}

/// The signals that decide how an end is read.
mod signals {
    use rustix::process::Signal;

    /// Its processor time is used up.
    pub(super) const XCPU: i32 = Signal::XCPU.as_raw();
    /// Sent by a person, a service manager, or the kernel for want of memory; nothing of the model's
    /// doing raises them.
    pub(super) const SENT: [i32; 5] = [
        Signal::HUP.as_raw(),
        Signal::INT.as_raw(),
        Signal::QUIT.as_raw(),
        Signal::TERM.as_raw(),
        Signal::KILL.as_raw(),
    ];
}

fn fd<T: AsFd>(pipe: Option<&T>) -> Option<BorrowedFd<'_>> {
    pipe.map(AsFd::as_fd)
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// The first bytes of an output, up to a limit.
struct Kept {
    bytes: Vec<u8>,
    most: usize,
}

impl Kept {
    fn new(most: usize) -> Self {
        Self { bytes: Vec::new(), most }
    }

    /// Reads what is there; at the end the pipe is closed.
    fn listen(&mut self, pipe: &mut Option<impl Read>) {
        let Some(open) = pipe else { return };
        let mut piece = [0; 4096];
        match open.read(&mut piece) {
            Ok(len @ 1..) => {
                let room = self.most - self.bytes.len();
                self.bytes.extend_from_slice(&piece[..len.min(room)]);
            }
            Err(error) if is_later(&error) => {}
            Ok(0) | Err(_) => *pipe = None,
        }
    }
}

/// The last line that is not empty, fit for a status.
fn last_words(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    plain(text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default())
}

#[cfg(test)]
mod tests;
