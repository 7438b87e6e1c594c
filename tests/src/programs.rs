//! Next programs of the agent: the real one under another version, whole or broken in one place each. No second
//! build is needed for that, and nothing in the program knows of it: what is broken is bytes of the file.

use anyhow::{Context, ensure};
use protocol::release::Mark;
use std::path::{Path, PathBuf};

/// How a mark begins, and where version and target stand in it.
const MAGIC: &[u8] = b"\x7fOutrigger-Mark\n";
/// Where the first instruction is, in a header of 64-bit ELF.
const ENTRY: usize = 24;
/// Which machine it is for, there.
const MACHINE: usize = 18;

/// A program in the making.
#[derive(Clone)]
pub struct NextProgram(Vec<u8>);

impl NextProgram {
    /// The agent under test, without what only a debugger reads, as this version.
    ///
    /// # Errors
    /// It was not built, or is no program for Linux.
    pub fn version(version: &str) -> anyhow::Result<Self> {
        let path = crate::world::program("outrigger-agent")?;
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {path:?}"))?;
        let mark = Mark::find(&bytes)?;
        let own = Self(without_sections(bytes)?);
        own.says(&format!("{version} {}", mark.target))
    }

    /// The same, which says that it is for another kind of machine, in its header too.
    ///
    /// # Errors
    /// It is no program of the agent.
    pub fn for_arm(mut self) -> anyhow::Result<Self> {
        let mark = Mark::find(&self.0)?;
        self.0[MACHINE] = 183;
        self.says(&format!("{} aarch64-unknown-linux-gnu", mark.version))
    }

    /// It crashes at its first instruction.
    #[must_use]
    pub fn that_crashes(mut self) -> Self {
        self.0[ENTRY..ENTRY + 8].fill(0); // its own header, which is no code
        self
    }

    /// It hangs at its first instruction.
    ///
    /// # Errors
    /// The first instruction is nowhere.
    pub fn that_hangs(mut self) -> anyhow::Result<Self> {
        let entry = u64_at(&self.0, ENTRY)?;
        let at = segments(&self.0)?.into_iter().find_map(|segment| {
            let inside = entry.checked_sub(segment.address)?;
            (inside < segment.bytes).then_some(segment.offset + inside)
        });
        let at = usize::try_from(at.context("no segment has the first instruction")?)?;
        self.0[at..at + 2].copy_from_slice(b"\xeb\xfe"); // jmp to itself
        Ok(self)
    }

    /// It says what it is, and cannot open its database.
    ///
    /// # Errors
    /// The name of the database is not in it.
    pub fn that_cannot_serve(self) -> anyhow::Result<Self> {
        self.with(b"state.db", b"\0tate.db")
    }

    /// It serves, and no cloud understands it.
    ///
    /// # Errors
    /// The name of the protocol is not in it.
    pub fn that_cannot_connect(self) -> anyhow::Result<Self> {
        self.with(b"outrigger/1", b"outrigger/9")?.with(b"outrigger-tcp/1", b"outrigger-tcp/9")
    }

    /// Writes it into a folder.
    ///
    /// # Errors
    /// The folder's own.
    pub fn write(&self, folder: &Path, name: &str) -> std::io::Result<PathBuf> {
        let path = folder.join(name);
        std::fs::write(&path, &self.0)?;
        Ok(path)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn says(mut self, what: &str) -> anyhow::Result<Self> {
        let at = places(&self.0, MAGIC).into_iter();
        let at = at
            .map(|at| at + MAGIC.len())
            .find(|at| Mark::read(&self.0[at - MAGIC.len()..]).is_ok());
        let at = at.context("the program has no mark")?;
        let line = format!("{what}\n");
        ensure!(line.len() < 64, "too long for a mark");
        self.0[at..at + 64].fill(0);
        self.0[at..at + line.len()].copy_from_slice(line.as_bytes());
        Ok(self)
    }

    fn with(mut self, text: &[u8], other: &[u8]) -> anyhow::Result<Self> {
        let places = places(&self.0, text);
        ensure!(!places.is_empty(), "{:?} is not in the program", String::from_utf8_lossy(text));
        for at in places {
            self.0[at..at + text.len()].copy_from_slice(other);
        }
        Ok(self)
    }
}

fn places(bytes: &[u8], text: &[u8]) -> Vec<usize> {
    let last = bytes.len().saturating_sub(text.len());
    (0..=last).filter(|at| bytes[*at] == text[0] && bytes[*at..].starts_with(text)).collect()
}

/// A part of the file that is loaded.
struct Segment {
    offset: u64,
    address: u64,
    bytes: u64,
}

fn u64_at(bytes: &[u8], at: usize) -> anyhow::Result<u64> {
    let field = bytes.get(at..at + 8).context("the program is cut off")?;
    Ok(u64::from_le_bytes(field.try_into()?))
}

fn segments(program: &[u8]) -> anyhow::Result<Vec<Segment>> {
    ensure!(program.starts_with(b"\x7fELF\x02\x01"), "not a 64-bit program for Linux");
    let first = usize::try_from(u64_at(program, 32)?)?;
    let count = usize::from(u16::from_le_bytes([program[56], program[57]]));
    let segment = |number| {
        let at = first + number * 56;
        let (offset, address) = (u64_at(program, at + 8)?, u64_at(program, at + 16)?);
        Ok(Segment { offset, address, bytes: u64_at(program, at + 32)? })
    };
    (0..count).map(segment).collect()
}

/// Symbols and what debuggers read lie behind all that is loaded.
fn without_sections(mut program: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let end = segments(&program)?.iter().map(|segment| segment.offset + segment.bytes).max();
    program.truncate(usize::try_from(end.context("no segments")?)?);
    program[40..48].fill(0); // where the sections are
    program[58..64].fill(0); // how large and how many
    Ok(program)
}
