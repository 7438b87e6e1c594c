//! The tar.gz: one folder, which is a prefix. The same files make the same bytes.

use std::env::consts::{ARCH, OS};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

use super::PackageError;
use super::contents::{Contents, Entry};

/// The time of every file in it, where SOURCE_DATE_EPOCH does not name another: 2000-01-01.
const TIME_S: u64 = 946_684_800;

/// Writes the tar.gz into the folder `out` and answers its path.
pub(crate) fn write(contents: &Contents, out: &Path) -> Result<PathBuf, PackageError> {
    let top = format!("outrigger-agent-{}-{OS}-{ARCH}", env!("CARGO_PKG_VERSION"));
    let path = out.join(format!("{top}.tar.gz"));
    let beside = out.join(format!(".{top}.partial"));
    let time_s = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    let written = File::create(&beside)
        .and_then(|file| pack(&contents.entries(), &top, time_s.unwrap_or(TIME_S), file))
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(&beside, &path));
    written.map_err(PackageError::io("write", &path))?;
    Ok(path)
}

fn pack<W: Write>(entries: &[Entry<'_>], top: &str, time_s: u64, to: W) -> io::Result<W> {
    let gzip = GzBuilder::new().mtime(0).write(to, Compression::best());
    let mut tar = Builder::new(gzip);
    for entry in entries {
        let file = File::open(entry.source)?;
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_size(file.metadata()?.len());
        header.set_mode(entry.mode);
        header.set_mtime(time_s);
        header.set_uid(0);
        header.set_gid(0);
        tar.append_data(&mut header, format!("{top}/{}", entry.path), file)?;
    }
    tar.into_inner()?.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;

    #[test]
    fn the_same_files_make_the_same_bytes_with_their_modes() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let contents = Contents {
            program: here.join("Cargo.toml"),
            library: here.join("src/main.rs"),
            notices: vec![here.join("src/cargo.rs")],
            documents: vec![here.join("src/setup.rs")],
        };
        let make = || pack(&contents.entries(), "top", TIME_S, Vec::new()).unwrap();
        let bytes = make();
        assert_eq!(bytes, make());
        let mut archive = tar::Archive::new(GzDecoder::new(&bytes[..]));
        let found: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let path = entry.path().unwrap().display().to_string();
                format!("{:o} {path}", entry.header().mode().unwrap())
            })
            .collect();
        assert_eq!(
            found,
            [
                "755 top/bin/Cargo.toml",
                "644 top/lib/outrigger/main.rs",
                "644 top/share/doc/outrigger-agent/cargo.rs",
                "644 top/share/doc/outrigger-agent/setup.rs",
            ]
        );
    }
}
