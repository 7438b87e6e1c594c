//! What is inside of a backup: a description, then files, one after the other, then an end.
//!
//! ```text
//! file   2 length of the name | the name | 8 length of the file | the file        numbers big-endian
//! end    2 zeros, and nothing behind them
//! ```

use std::io::{self, Read, Write};

/// The longest name.
const NAME_MAX_BYTES: usize = 255;

/// Writes files into a stream.
pub(super) struct Writer<W: Write>(W);

impl<W: Write> Writer<W> {
    pub(super) fn new(out: W) -> Self {
        Self(out)
    }

    /// Adds a file of exactly this size; `moved` hears of each piece.
    ///
    /// # Errors
    /// Also when the file does not have that size.
    pub(super) fn add(
        &mut self,
        name: &str,
        size_bytes: u64,
        contents: &mut dyn Read,
        moved: &dyn Fn(u64),
    ) -> io::Result<()> {
        let len = u16::try_from(name.len()).ok().filter(|len| usize::from(*len) <= NAME_MAX_BYTES);
        let len = len.ok_or_else(|| io::Error::other("a name that is too long"))?;
        self.0.write_all(&len.to_be_bytes())?;
        self.0.write_all(name.as_bytes())?;
        self.0.write_all(&size_bytes.to_be_bytes())?;
        copy(contents, &mut self.0, size_bytes, moved)
    }

    /// Says that this is all.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.0.write_all(&[0, 0])?;
        Ok(self.0)
    }
}

/// A file that comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) size_bytes: u64,
}

/// Reads files out of a stream.
pub(super) struct Reader<R: Read>(R);

impl<R: Read> Reader<R> {
    pub(super) fn new(source: R) -> Self {
        Self(source)
    }

    /// The next file; nothing once all were read, and the stream has ended as it should.
    pub(super) fn next(&mut self) -> io::Result<Option<Entry>> {
        let mut len = [0; 2];
        self.0.read_exact(&mut len)?;
        let len = usize::from(u16::from_be_bytes(len));
        if len == 0 {
            return match self.0.read(&mut [0])? {
                0 => Ok(None),
                _ => Err(io::Error::other("there is something behind the end")),
            };
        }
        let (mut name, mut size) = (vec![0; len.min(NAME_MAX_BYTES)], [0; 8]);
        self.0.read_exact(&mut name)?;
        self.0.read_exact(&mut size)?;
        let name = String::from_utf8(name).map_err(io::Error::other)?;
        Ok(Some(Entry { name, size_bytes: u64::from_be_bytes(size) }))
    }

    /// The file itself.
    pub(super) fn contents(
        &mut self,
        entry: &Entry,
        out: &mut dyn Write,
        moved: &dyn Fn(u64),
    ) -> io::Result<()> {
        copy(&mut self.0, out, entry.size_bytes, moved)
    }
}

fn copy(
    from: &mut dyn Read,
    to: &mut dyn Write,
    size_bytes: u64,
    moved: &dyn Fn(u64),
) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let mut left = size_bytes;
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let got = from.read(&mut buffer[..wanted])?;
        if got == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "a file is shorter than said",
            ));
        }
        to.write_all(&buffer[..got])?;
        left -= got as u64;
        moved(got as u64);
    }
    Ok(())
}
