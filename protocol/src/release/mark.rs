//! What a program says of itself without being run: in its read-only data stands a mark, which
//! [`Mark::find`] finds, and its header names the machine.

use super::{InvalidRelease, ReleaseVersion, check_target};

/// Bytes of a mark.
pub const MARK_BYTES: usize = 128;
/// How it begins. That alone is no mark: this constant stands in programs too.
const MAGIC: &[u8; 16] = b"\x7fOutrigger-Mark\n";

/// What a program is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Its version.
    pub version: ReleaseVersion,
    /// What it was built for.
    pub target: String,
}

/// Why a file is no program of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoMark {
    /// Not of the format that programs of Linux have.
    #[error("not a program for Linux (ELF)")]
    NotElf,
    /// A program, but not this one, or one from before programs were marked.
    #[error("no outrigger-agent: it does not say its version and target")]
    Absent,
    /// Header and mark name different machines.
    #[error(
        "the program says that it is for {target}, its header that it is not (machine {machine})"
    )]
    OtherMachine {
        /// As the mark says.
        target: String,
        /// As the header says.
        machine: u16,
    },
}

/// The mark of a program: to be kept in a `static`.
///
/// # Panics
/// Version and target are longer than a mark; at compile time.
pub const fn mark(version: &str, target: &str) -> [u8; MARK_BYTES] {
    let mut bytes = [0; MARK_BYTES];
    let at = put(&mut bytes, 0, MAGIC);
    let at = put(&mut bytes, at, version.as_bytes());
    let at = put(&mut bytes, at, b" ");
    let at = put(&mut bytes, at, target.as_bytes());
    put(&mut bytes, at, b"\n");
    bytes
}

const fn put(bytes: &mut [u8; MARK_BYTES], at: usize, text: &[u8]) -> usize {
    let mut next = 0;
    while next < text.len() {
        bytes[at + next] = text[next];
        next += 1;
    }
    at + next
}

impl Mark {
    /// Reads a mark.
    ///
    /// # Errors
    /// [`NoMark::Absent`].
    pub fn read(bytes: &[u8]) -> Result<Self, NoMark> {
        let text = bytes.strip_prefix(MAGIC).and_then(|rest| {
            let end = rest.iter().take(MARK_BYTES).position(|byte| *byte == b'\n')?;
            std::str::from_utf8(&rest[..end]).ok()
        });
        text.and_then(|text| text.parse().ok()).ok_or(NoMark::Absent)
    }

    /// Finds the mark of a whole program, and holds it against the program's header.
    ///
    /// # Errors
    /// [`NoMark`].
    pub fn find(program: &[u8]) -> Result<Self, NoMark> {
        let machine = machine(program).ok_or(NoMark::NotElf)?;
        let places = (0..program.len().saturating_sub(MAGIC.len()))
            .filter(|at| program[*at] == MAGIC[0] && program[*at..].starts_with(MAGIC));
        let found = places.map(|at| Self::read(&program[at..])).find(Result::is_ok);
        let mark = found.ok_or(NoMark::Absent)??;
        if machine_of(&mark.target).is_some_and(|own| own != machine) {
            return Err(NoMark::OtherMachine { target: mark.target, machine });
        }
        Ok(mark)
    }
}

impl std::fmt::Display for Mark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.version, self.target)
    }
}

impl std::str::FromStr for Mark {
    type Err = InvalidRelease;
    /// `VERSION TARGET`.
    fn from_str(text: &str) -> Result<Self, InvalidRelease> {
        let (version, target) = text.split_once(' ').ok_or(InvalidRelease::Malformed)?;
        check_target(target)?;
        Ok(Self { version: version.parse()?, target: target.to_owned() })
    }
}

/// The machine that a program's header names (`e_machine` of ELF).
fn machine(program: &[u8]) -> Option<u16> {
    let head = program.get(..20)?;
    let [low, high] = [head[18], head[19]];
    match (head.starts_with(b"\x7fELF"), head[5]) {
        (true, 1) => Some(u16::from_le_bytes([low, high])),
        (true, 2) => Some(u16::from_be_bytes([low, high])),
        _ => None,
    }
}

/// The same for a target, of those that are known.
fn machine_of(target: &str) -> Option<u16> {
    match target.split('-').next()? {
        "x86_64" => Some(62),
        "aarch64" => Some(183),
        "i686" | "i586" => Some(3),
        arm if arm.starts_with("arm") || arm.starts_with("thumb") => Some(40),
        riscv if riscv.starts_with("riscv") => Some(243),
        _ => None,
    }
}
